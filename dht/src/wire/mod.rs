//! The wire protocol between a client and a node, as pure encoding and decoding. No sockets.
//!
//! **Participants.** A *client* (a gateway, the command line, a node that repairs) opens a TCP connection to a *node*
//! (a master). Both set `TCP_NODELAY`. One request at a time runs on a connection; who wants more opens more.
//!
//! **Goals.** Every length is bounded before memory is taken; every byte is covered by a checksum; any bytes decode to
//! a value or an error, never a panic; bulk bytes are passed on without copying; two machines that differ in version,
//! cluster or identity say so in words. **Non-goals.** Secrecy and authenticity (TLS around it is the transport's
//! matter), pipelining, compression, machine-independent text.
//!
//! **Frames.** All traffic, both ways, is frames: a 40-byte [`FrameHeader`] and a payload of at most
//! [`FRAME_PAYLOAD_MAX`] bytes. `frame.rs` owns the header's bytes, `message.rs` the payloads'.
//!
//! **Messages.**
//!
//! | client sends | node answers |
//! |---|---|
//! | `Hello`, first and once | `Welcome`, or `Error` (`Version`, `WrongCluster`, `WrongNode`) and the node closes |
//! | `Put` | `Stored{already: true}`, or `Ready`, or `Error` (`NoSpace`, `Busy`, `TakenDown`, `Fenced`, ...) |
//! | after `Ready`: `Data`, exactly `bytes` of it | `Stored{already: false}` when all is durable, or `Error` |
//! | `StandIn`, `Pull` | as `Put`, `Get` |
//! | `Within`, before a request | nothing |
//! | `Get` | `Found`, `Data` that covers the range, `End`; or `Error`, also in the middle |
//! | `Info` | `TrackInfo`, or `Error` |
//! | `Has` | `Present`, `Absent` or `TakenDown`, or `Error` |
//! | `TakeDown` | `TakenDown` with the number first recorded, when durable, or `Error` |
//! | `Status` | `NodeStatus` |
//! | `Digests` | `DigestList`: the partitions that are not empty |
//! | `List` | `Ids`, sorted, those after `after` |
//! | `EpochsAfter` | `Epochs`, as many as it takes, or `Error` |
//! | `Introduction`, only a node to a node, before its first `Pull` or `Peer` | nothing |
//! | `Peer`, only a node to a node | nothing |
//!
//! A reply repeats its request's number. Every frame carries the sender's epoch and cluster.
//!
//! **Versions.** `Hello` names the versions that the client speaks, `Welcome` the newest that both do ([`negotiate`]).
//! A frame says the oldest version that has its kind of message, so that a new program's old messages are read by old
//! programs; a kind that came after the version agreed on is not sent. What an old kind means does not change: a change
//! is a new kind.
//!
//! **What happens on each failure.**
//!
//! - *The connection breaks in a put:* the node forgets the unfinished track. A client closes it to abort.
//! - *`Error` after `Ready`:* the node has stopped reading and closes; the client drops the connection. (An `Error`
//!   before `Ready`, or to any other request, leaves the connection usable.)
//! - *`Data` is too much, or the bytes are not the id's:* `Error` `Invalid`; nothing is stored.
//! - *The connection breaks in a get, or `Error` comes in mid-stream:* the client asks another holder for the rest.
//! - *A frame fails a checksum, is too long, or is unknown:* the receiver cannot trust what follows. A node answers
//!   with `Error` `Invalid` (or `Version`) and closes; a client closes and asks another holder.
//! - *A frame of another cluster:* `Error` `WrongCluster`, close. *An older epoch:* the node may answer `Moved`.
//! - *Silence:* the client's deadlines end it. A node closes a connection that is in the middle of a request and
//!   silent too long; idle connections it may close at any time, and clients must expect that.

mod decoder;
mod error_code;
mod frame;
mod message;
mod status;

pub use decoder::{Decoder, Frame};
pub use error_code::ErrorCode;
pub use frame::{
    BadFrame, DATA_BYTES_MAX, FRAME_PAYLOAD_MAX, FrameHeader, HEADER_BYTES, Kind, PROTOCOL_MIN, PROTOCOL_VERSION,
    Stamp, negotiate,
};
pub use message::{
    ADDRESS_BYTES_MAX, BadMessage, DIGEST_PARTITIONS_MAX, ERROR_MESSAGE_BYTES_MAX, IDS_MAX, Message, PEER_BYTES_MAX,
    PartitionDigest, parts,
};
pub use status::{NodeStatus, VOLUMES_PER_NODE_MAX, VolumeState, VolumeStatus};
