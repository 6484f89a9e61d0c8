//! The wire protocol between a client and a node, as pure encoding and decoding. No sockets.
//!
//! **Participants.** A *client* (a gateway, the command line, a node that repairs) opens a TCP connection to a *node*
//! (a master). Both set `TCP_NODELAY`. One request at a time runs on a connection; who wants more opens more.
//!
//! **Goals.** Every length is bounded before memory is taken; every byte is covered by a checksum; any bytes decode to
//! a value or an error, never a panic; bulk bytes are passed on without copying; two machines that differ in version,
//! cluster or identity say so in words. **Non-goals.** Secrecy and authenticity (TLS around it, `deadwax-dht-tls`, is the
//! transport's matter), requests that overtake each other, compression, machine-independent text.
//!
//! **Frames.** All traffic, both ways, is frames: a 40-byte [`FrameHeader`] and a payload of at most
//! [`FRAME_PAYLOAD_MAX`] bytes. `frame.rs` owns the header's bytes, `message.rs` the payloads'.
//!
//! **Messages.**
//!
//! | client sends | node answers |
//! |---|---|
//! | `Hello`, first and once | `Welcome`, or `Error` (`Version`, `WrongCluster`, `WrongNode`, `NotAdmitted`), and it closes |
//! | `Put` | `Stored{already: true}`, or `Ready`, or `Error` (`NoSpace`, `Busy`, `TakenDown`, `Fenced`, ...) |
//! | after `Ready`: `Data`, exactly `bytes` of it | `Stored{already: false}` when all is durable, or `Error` |
//! | `Data` right after `Put`, where that is of at most [`AT_ONCE_BYTES_MAX`] | the same; `Ready` may be left out |
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
//! | `Issue` | `Issued`, when a majority of the takedowns' members has it; `NotIssuer`: ask another node; or `Error` |
//! | `Receipts` | `ReceiptList`, or `Error` (`NotFound`) |
//! | `TakedownsAfter` | `Takedowns`, as soon as there is one, or empty when the wait is over; or `Error` (`Busy`) |
//! | `TakedownHeads` | `Heads` |
//! | `Tracks` | `TrackList`, from a volume that may answer for the partition; else `Error` |
//! | `Versions` | `NodeVersions` |
//! | `Introduction`, only a node to a node, before its first `Pull` or `Peer` | nothing |
//! | `Peer`, only a node to a node | nothing |
//! | `Command` | `CommandAnswer`, or `Error` |
//! | `AskCore` | `CoreStatus` |
//! | `Who`, in place of `Hello` | `Here`, and the node closes |
//! | `Join`, in place of `Hello` | `CommandAnswer`, or `Error` (`NotAdmitted`, ...), and the node closes |
//! | `AskAdmits` | `Admits`, or `Error` (`NotAdmitted`) |
//! | `AskScrubs` | `Scrubs`: of each volume that serves |
//! | `Scrub` | `Scrubs`, once the passes have begun, or `Error` (`NotAdmitted`, `Fenced`, ...) |
//! | `AskRepair` | `RepairReport` |
//! | `RepairNow` | `RepairReport`, once all is to be compared anew, or `Error` (`NotAdmitted`) |
//!
//! A reply repeats its request's number. Every frame carries the sender's epoch and cluster.
//!
//! **Versions.** `Hello` names the versions that the client speaks, `Welcome` the newest that both do ([`negotiate`]).
//! A frame says the oldest version that has its kind of message, so that a new program's old messages are read by old
//! programs; a kind that came after the version agreed on is not sent. What an old kind means does not change: a change
//! is a new kind. What nodes send each other in [`Peer`](Kind::Peer) goes by another version: the one at which the
//! cluster is finalised, which a record of its log says, so that a node can be rolled back until then ([`Protocols`]).
//!
//! **What happens on each failure.**
//!
//! - *The connection breaks in a put:* the node forgets the unfinished track. A client closes it to abort.
//! - *`Error` after `Ready`:* the node has stopped reading and closes; the client drops the connection. (An `Error`
//!   before `Ready`, or to any other request, leaves the connection usable.)
//! - *A put is refused, or was stored already, whose `Data` came at once:* the node passes over them.
//! - *`Data` is too much, or the bytes are not the id's:* `Error` `Invalid`; nothing is stored.
//! - *The connection breaks in a get, or `Error` comes in mid-stream:* the client asks another holder for the rest.
//! - *A request came after the version agreed on:* `Error` `Version`; the connection stays usable.
//! - *A frame fails a checksum, is too long, or is unknown:* the receiver cannot trust what follows. A node answers
//!   with `Error` `Invalid` (or `Version`) and closes; a client closes and asks another holder.
//! - *A frame of another cluster:* `Error` `WrongCluster`, close. *An older epoch:* the node may answer `Moved`.
//! - *The connection breaks after a `Command`:* nobody knows whether it is carried out. It may be given again: what is so
//!   already is done.
//! - *The connection breaks after a `Join`:* it may be shown again by the same key: whoever is in the map is done.
//! - *TLS at one end only:* a node that has it answers a `Hello` without it in the clear, `Error` `Version`, and closes; one
//!   that has none answers a TLS hello likewise, which the TLS end tells apart by its first byte.
//! - *Silence:* the client's deadlines end it. A node closes a connection that is in the middle of a request and
//!   silent too long; idle connections it may close at any time, and clients must expect that.

mod bad_message;
mod command_answer;
mod core_status;
mod decoder;
mod digest;
mod error_code;
mod feed;
mod frame;
mod joining;
mod limits;
mod message;
mod parts;
mod protocols;
mod repairing;
mod scrubbing;
mod status;

pub use bad_message::BadMessage;
pub(crate) use command_answer::sentence;
pub use command_answer::{CommandAnswer, ForecastReport, RefusalKind, SENTENCES_MAX, SHARES_MAX};
pub use core_status::{Absence, CoreStatus, MoveStatus, NOT_UP_MAX, NotUp, PullStatus, WARNINGS_MAX};
pub use decoder::{Decoder, Frame};
pub use digest::PartitionDigest;
pub use error_code::ErrorCode;
pub use feed::{
    Feed, HolderReceipt, HolderReceipts, ListedTrack, TAKEDOWNS_MAX, TAKEDOWNS_WAIT_MS_MAX, TRACK_LIST_TAGS_BYTES,
    TRACKS_MAX,
};
pub use frame::{
    AT_ONCE_BYTES_MAX, AT_ONCE_SINCE, BadFrame, DATA_BYTES_MAX, FRAME_PAYLOAD_MAX, FrameHeader, HEADER_BYTES, Kind,
    Newer, PROTOCOL_MIN, PROTOCOL_OF_NODES, PROTOCOL_OF_TOKENS, PROTOCOL_VERSION, Stamp, Summed, negotiate,
};
pub use joining::{ADMITTED_MAX, Admits, Joining};
pub use message::{ADDRESS_BYTES_MAX, DIGEST_PARTITIONS_MAX, ERROR_MESSAGE_BYTES_MAX, IDS_MAX, Message};
pub use parts::{PEER_BYTES_MAX, parts};
pub use protocols::{Protocols, Unfit};
pub use repairing::{RepairReport, Repairing};
pub use scrubbing::{Scrubbing, VolumeScrub};
pub use status::{NodeStatus, VOLUMES_PER_NODE_MAX, VolumeState, VolumeStatus};
