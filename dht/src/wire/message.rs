//! The payload of every message: the one place that knows their bytes.
//!
//! [`Data`](Message::Data) is raw; [`Peer`](Message::Peer) and [`Epochs`](Message::Epochs) are a `bool` and raw. All others are bincode 2
//! (<https://docs.rs/bincode/2.0.1>, its `spec.md`) with fixed-width little-endian integers: fields one after the other
//! without padding, a `bool` and an `Option`'s tag one byte, an enum's tag u32, text and lists after their length as
//! u64. The fields in order are those of the tuples in [`Message::payload`]; golden bytes of each kind are in
//! `tests/rules/wire_golden.txt`.
//!
//! The crate bincode is unmaintained after 2.0.1, so only this file names it. `feed.rs`, `joining.rs` and `scrubbing.rs` have more
//! kinds, packed here.

use bytes::Bytes;
use deadwax_track::{BadTags, ByteRange, Partition, Tags, TrackId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::bad_message::BadMessage;
use super::command_answer::CommandAnswer;
use super::core_status::CoreStatus;
use super::digest::PartitionDigest;
use super::error_code::ErrorCode;
use super::feed::Feed;
use super::frame::{FRAME_PAYLOAD_MAX, FrameHeader, HEADER_BYTES, Kind, Stamp};
use super::joining::Joining;
use super::protocols::Protocols;
use super::repairing::Repairing;
use super::scrubbing::Scrubbing;
use super::status::NodeStatus;
use crate::rebalance::Command;
use crate::{ClusterId, NodeId, VolumeId};

/// The most partitions in one [`Digests`](Message::Digests) request.
pub const DIGEST_PARTITIONS_MAX: u32 = 16_384;
/// The most ids in one [`Ids`](Message::Ids) reply.
pub const IDS_MAX: u32 = 16_384;
/// The most bytes of an [`Error`](Message::Error)'s text.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 2_048;
/// The most bytes of an address: a host's name has 255 at most (RFC 1035, section 2.3.4), then come a colon and a port.
pub const ADDRESS_BYTES_MAX: usize = 261;

// The longest lists fit into a frame.
const _: () = assert!(8 + DIGEST_PARTITIONS_MAX as usize * 22 <= FRAME_PAYLOAD_MAX);
const _: () = assert!(8 + IDS_MAX as usize * 32 <= FRAME_PAYLOAD_MAX);

/// What one frame says. The table in [`wire`](super) shows which follows which.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Client: first on a connection.
    Hello {
        /// The oldest protocol version that the client speaks.
        protocol_min: u8,
        /// The newest.
        protocol_max: u8,
        /// The cluster that the client means.
        cluster: ClusterId,
        /// The node that the client means, unless it does not mind.
        node: Option<NodeId>,
    },
    /// Node: the answer to [`Hello`](Self::Hello).
    Welcome {
        /// The version that the connection speaks from here on.
        protocol: u8,
        /// Who answers.
        node: NodeId,
        /// The epoch of its map.
        epoch: u64,
    },
    /// Node: the request failed.
    Error {
        /// What the client does about it.
        code: ErrorCode,
        /// Why, for people; at most [`ERROR_MESSAGE_BYTES_MAX`].
        message: String,
    },
    /// Client: offers a track to a volume.
    Put {
        /// Where to.
        volume: VolumeId,
        /// The track.
        id: TrackId,
        /// Its length; 1 to [`TRACK_BYTES_MAX`].
        bytes: u64,
        /// Its tags.
        tags: Tags,
    },
    /// Client: offers a track to a volume that does not hold its partition, in place of one that does and is not there.
    /// Else as [`Put`](Self::Put).
    StandIn {
        /// Where to.
        volume: VolumeId,
        /// The track.
        id: TrackId,
        /// Its length; 1 to [`TRACK_BYTES_MAX`].
        bytes: u64,
        /// Its tags.
        tags: Tags,
    },
    /// Client: the next request on this connection is of no use after so many milliseconds: a node that has not begun
    /// it by then answers `Busy`. Not answered itself.
    Within {
        /// How many, from when it is read.
        ms: u32,
    },
    /// Node: space is reserved, send the bytes.
    Ready,
    /// Node: the track is durable on the volume.
    Stored {
        /// Whether it was before the put.
        already: bool,
        /// The track's length.
        bytes: u64,
        /// Its number of pieces.
        pieces: u32,
    },
    /// Either: the next bytes of a track; 1 to [`DATA_BYTES_MAX`](super::DATA_BYTES_MAX).
    Data(Bytes),
    /// Client: asks for bytes of a track.
    Get {
        /// From where.
        volume: VolumeId,
        /// The track.
        id: TrackId,
        /// Which of its bytes. A range that goes beyond the track's end is `Invalid`.
        range: ByteRange,
    },
    /// Node, to a node: as [`Get`](Self::Get), for a copy that the asker lacks; it takes its turn behind clients.
    Pull {
        /// From where.
        volume: VolumeId,
        /// The track.
        id: TrackId,
        /// Which of its bytes.
        range: ByteRange,
        /// Whether losing one more copy, or one zone, would lose the track.
        urgent: bool,
    },
    /// Node: the bytes follow.
    Found {
        /// The whole track's length.
        bytes: u64,
    },
    /// Node: all bytes of the range were sent.
    End,
    /// Client: asks for a track's tags and manifest.
    Info {
        /// From where.
        volume: VolumeId,
        /// The track.
        id: TrackId,
    },
    /// Node: the tags and manifest. The client proves the manifest against the id.
    TrackInfo {
        /// The track's length.
        bytes: u64,
        /// Its tags.
        tags: Tags,
        /// Its manifest's piece hashes.
        pieces: Vec<[u8; 32]>,
    },
    /// Client: asks whether a track is there.
    Has {
        /// Where.
        volume: VolumeId,
        /// The track.
        id: TrackId,
    },
    /// Node: it is.
    Present {
        /// The track's length.
        bytes: u64,
    },
    /// Node: it is not.
    Absent,
    /// Node: it was taken down, or now is.
    TakenDown {
        /// The takedown's number, as first recorded.
        number: u64,
    },
    /// Client: takes a track down. Asked again it answers the same.
    TakeDown {
        /// Where.
        volume: VolumeId,
        /// The track.
        id: TrackId,
        /// The takedown's number.
        number: u64,
    },
    /// Client: asks how the node is.
    Status,
    /// Node: how it is.
    NodeStatus(Box<NodeStatus>),
    /// Client: asks what a volume holds, by partition.
    Digests {
        /// Which volume.
        volume: VolumeId,
        /// The first partition.
        first: Partition,
        /// How many; at most [`DIGEST_PARTITIONS_MAX`], and none beyond the last partition.
        count: u32,
    },
    /// Node: the partitions that hold anything, ascending.
    DigestList(Vec<PartitionDigest>),
    /// Client: asks for ids in a partition.
    List {
        /// Which volume.
        volume: VolumeId,
        /// Which partition.
        partition: Partition,
        /// Only ids greater than this.
        after: Option<TrackId>,
        /// The most ids to answer; 1 to [`IDS_MAX`].
        limit: u32,
    },
    /// Node: the ids, ascending. Fewer than the limit: there are no more.
    Ids(Vec<TrackId>),
    /// Node, to a node: who asks, before all that only a node may ask. Not answered; a second one is `Invalid`.
    Introduction {
        /// Its name: what its key proves.
        node: NodeId,
        /// `host:port` of its own port; at most [`ADDRESS_BYTES_MAX`].
        address: String,
    },
    /// Node, to a node: an [`Envelope`](crate::core::Envelope)'s bytes, or the next of them; the receiver puts those of
    /// one connection together, up to [`ENVELOPE_BYTES_MAX`](crate::core::ENVELOPE_BYTES_MAX).
    Peer {
        /// Whether more of the envelope follows.
        more: bool,
        /// 1 to [`PEER_BYTES_MAX`](super::PEER_BYTES_MAX).
        bytes: Bytes,
    },
    /// Client: asks for the map's records after an epoch; 0: it has none.
    EpochsAfter {
        /// Which epoch.
        epoch: u64,
    },
    /// Node: a [`Batch`](crate::log::Batch)'s bytes, or the next of them. One without records: the client has all.
    Epochs {
        /// Whether more of the batch follows.
        more: bool,
        /// 1 to [`PEER_BYTES_MAX`](super::PEER_BYTES_MAX).
        bytes: Bytes,
    },
    /// Client: an operator's command. A node that does not lead the map's log says who does.
    Command {
        /// How long the answer is waited for, in ms from when it is read; after that it is
        /// [`Undecided`](CommandAnswer::Undecided).
        within_ms: u32,
        /// Whether it is only to be said what it would do.
        forecast: bool,
        /// What is wanted. A roll back has the map's nodes and overrides from the node's own history: they are left out.
        command: Box<Command>,
    },
    /// Node: what came of it.
    CommandAnswer(Box<CommandAnswer>),
    /// Client: asks how the node's part in the cluster's rules stands.
    AskCore,
    /// Node: how it stands; nothing: it has none, the node goes by a map that does not change.
    CoreStatus(Option<Box<CoreStatus>>),
    /// Anybody, in place of `Hello`: asks who is there. Answered by `Here`, and the node closes.
    Who,
    /// Node: who is there.
    Here {
        /// Its cluster.
        cluster: ClusterId,
        /// Its name.
        node: NodeId,
        /// The oldest protocol version that it speaks.
        protocol_min: u8,
        /// The newest.
        protocol_max: u8,
    },
    /// Either: of takedowns by the cluster's log, and of what gateways follow.
    Feed(Feed),
    /// Either: of a node that joins.
    Joining(Joining),
    /// Either: of the checking of all that a node's drives hold.
    Scrubbing(Scrubbing),
    /// About repair.
    Repairing(Repairing),
    /// Client: asks which versions of the protocol the node speaks.
    Versions,
    /// Node: from which to which, as its settings have it, and at which the cluster is finalised, where it has a log.
    NodeVersions(Protocols, Option<u8>),
}

impl Message {
    /// An error reply; a text that is too long is cut.
    #[must_use]
    pub fn error(code: ErrorCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(ERROR_MESSAGE_BYTES_MAX));
        Self::Error { code, message }
    }

    /// Which kind of frame carries it.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Hello { .. } => Kind::Hello,
            Self::Welcome { .. } => Kind::Welcome,
            Self::Error { .. } => Kind::Error,
            Self::Put { .. } => Kind::Put,
            Self::StandIn { .. } => Kind::StandIn,
            Self::Within { .. } => Kind::Within,
            Self::Pull { .. } => Kind::Pull,
            Self::Ready => Kind::Ready,
            Self::Stored { .. } => Kind::Stored,
            Self::Data(_) => Kind::Data,
            Self::Get { .. } => Kind::Get,
            Self::Found { .. } => Kind::Found,
            Self::End => Kind::End,
            Self::Info { .. } => Kind::Info,
            Self::TrackInfo { .. } => Kind::TrackInfo,
            Self::Has { .. } => Kind::Has,
            Self::Present { .. } => Kind::Present,
            Self::Absent => Kind::Absent,
            Self::TakenDown { .. } => Kind::TakenDown,
            Self::TakeDown { .. } => Kind::TakeDown,
            Self::Status => Kind::Status,
            Self::NodeStatus(_) => Kind::NodeStatus,
            Self::Digests { .. } => Kind::Digests,
            Self::DigestList(_) => Kind::DigestList,
            Self::List { .. } => Kind::List,
            Self::Ids(_) => Kind::Ids,
            Self::Introduction { .. } => Kind::Introduction,
            Self::Peer { .. } => Kind::Peer,
            Self::EpochsAfter { .. } => Kind::EpochsAfter,
            Self::Epochs { .. } => Kind::Epochs,
            Self::Command { .. } => Kind::Command,
            Self::CommandAnswer(_) => Kind::CommandAnswer,
            Self::AskCore => Kind::AskCore,
            Self::CoreStatus(_) => Kind::CoreStatus,
            Self::Who => Kind::Who,
            Self::Here { .. } => Kind::Here,
            Self::Feed(feed) => feed.kind(),
            Self::Joining(joining) => joining.kind(),
            Self::Scrubbing(scrubbing) => scrubbing.kind(),
            Self::Repairing(repairing) => repairing.kind(),
            Self::Versions => Kind::Versions,
            Self::NodeVersions(..) => Kind::NodeVersions,
        }
    }

    /// The payload's bytes. [`Data`](Self::Data)'s are handed on, not copied.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        match self {
            Self::Ready | Self::End | Self::Absent | Self::Status | Self::AskCore | Self::Who | Self::Versions => {
                Bytes::new()
            }
            Self::Data(bytes) => bytes.clone(),
            Self::Hello { protocol_min, protocol_max, cluster, node } => {
                pack(&(protocol_min, protocol_max, cluster, node))
            }
            Self::Welcome { protocol, node, epoch } => pack(&(protocol, node, epoch)),
            Self::Error { code, message } => pack(&(code, message)),
            Self::Put { volume, id, bytes, tags } | Self::StandIn { volume, id, bytes, tags } => {
                pack(&(volume, id, bytes, tags.encode()))
            }
            Self::Within { ms } => pack(ms),
            Self::Stored { already, bytes, pieces } => pack(&(already, bytes, pieces)),
            Self::Get { volume, id, range } => pack(&(volume, id, range)),
            Self::Pull { volume, id, range, urgent } => pack(&(volume, id, range, urgent)),
            Self::Introduction { node, address } => pack(&(node, address)),
            Self::Found { bytes } | Self::Present { bytes } => pack(bytes),
            Self::Info { volume, id } | Self::Has { volume, id } => pack(&(volume, id)),
            Self::TrackInfo { bytes, tags, pieces } => pack(&(bytes, tags.encode(), pieces)),
            Self::TakenDown { number } => pack(number),
            Self::TakeDown { volume, id, number } => pack(&(volume, id, number)),
            Self::NodeStatus(status) => pack(status),
            Self::Digests { volume, first, count } => pack(&(volume, first, count)),
            Self::DigestList(digests) => pack(digests),
            Self::List { volume, partition, after, limit } => pack(&(volume, partition, after, limit)),
            Self::Ids(ids) => pack(ids),
            Self::EpochsAfter { epoch } => pack(epoch),
            Self::Command { within_ms, forecast, command } => pack(&(within_ms, forecast, command.encode())),
            Self::CommandAnswer(answer) => pack(answer),
            Self::CoreStatus(status) => pack(status),
            Self::Here { cluster, node, protocol_min, protocol_max } => {
                pack(&(cluster, node, protocol_min, protocol_max))
            }
            Self::Feed(feed) => feed.payload(),
            Self::Joining(joining) => joining.payload(),
            Self::Scrubbing(scrubbing) => scrubbing.payload(),
            Self::Repairing(repairing) => repairing.payload(),
            Self::NodeVersions(spoken, finalised) => pack(&(spoken.oldest(), spoken.newest(), finalised)),
            Self::Peer { more, bytes } | Self::Epochs { more, bytes } => {
                [&[u8::from(*more)][..], bytes].concat().into()
            }
        }
    }

    /// The whole frame. Copies the payload: for [`Data`](Self::Data), write the header and the bytes instead.
    ///
    /// # Panics
    /// Where the message is longer than its kind allows.
    #[must_use]
    pub fn frame(&self, stamp: Stamp) -> Bytes {
        let payload = self.payload();
        let header = FrameHeader::new(self.kind(), stamp, [payload.as_ref()]);
        let mut out = Vec::with_capacity(HEADER_BYTES + payload.len());
        out.extend(header.encode());
        out.extend(&payload);
        out.into()
    }

    /// The message of this kind that these bytes are, within all limits. Anything else is an error, not a guess.
    pub fn decode(kind: Kind, payload: Bytes) -> Result<Self, BadMessage> {
        let message = match kind {
            Kind::Data => Self::Data(payload),
            Kind::Peer | Kind::Epochs => Self::decode_part(kind, payload)?,
            Kind::Command | Kind::CommandAnswer | Kind::AskCore | Kind::CoreStatus | Kind::Who | Kind::Here => {
                Self::decode_of_operators(kind, &payload)?
            }
            kind if Joining::KINDS.contains(&kind) => Self::Joining(Joining::decode(kind, &payload)?),
            kind if Scrubbing::KINDS.contains(&kind) => Self::Scrubbing(Scrubbing::decode(kind, &payload)?),
            kind if Repairing::KINDS.contains(&kind) => Self::Repairing(Repairing::decode(kind, &payload)?),
            kind if Feed::KINDS.contains(&kind) => Self::Feed(Feed::decode(kind, &payload)?),
            Kind::Put
            | Kind::StandIn
            | Kind::Get
            | Kind::Pull
            | Kind::Info
            | Kind::Has
            | Kind::TakeDown
            | Kind::Digests
            | Kind::List => Self::decode_request(kind, &payload)?,
            _ => Self::decode_reply(kind, &payload)?,
        };
        message.check()?;
        Ok(message)
    }

    /// A part of what is longer than a frame.
    fn decode_part(kind: Kind, mut payload: Bytes) -> Result<Self, BadMessage> {
        // A frame of either kind has two bytes at least.
        let more = match payload.first() {
            Some(0) => false,
            Some(1) => true,
            other => return Err(BadMessage::Payload { kind, why: format!("begins with {other:?}") }),
        };
        let bytes = payload.split_off(1);
        Ok(if kind == Kind::Peer { Self::Peer { more, bytes } } else { Self::Epochs { more, bytes } })
    }

    /// Requests about a volume.
    fn decode_request(kind: Kind, payload: &[u8]) -> Result<Self, BadMessage> {
        Ok(match kind {
            Kind::Put | Kind::StandIn => {
                let (volume, id, bytes, tags): (_, _, _, Vec<u8>) = unpack(kind, payload)?;
                let tags = unpack_tags(kind, &tags)?;
                match kind {
                    Kind::Put => Self::Put { volume, id, bytes, tags },
                    _ => Self::StandIn { volume, id, bytes, tags },
                }
            }
            Kind::Get => {
                let (volume, id, range) = unpack(kind, payload)?;
                Self::Get { volume, id, range }
            }
            Kind::Pull => {
                let (volume, id, range, urgent) = unpack(kind, payload)?;
                Self::Pull { volume, id, range, urgent }
            }
            Kind::Info => {
                let (volume, id) = unpack(kind, payload)?;
                Self::Info { volume, id }
            }
            Kind::Has => {
                let (volume, id) = unpack(kind, payload)?;
                Self::Has { volume, id }
            }
            Kind::TakeDown => {
                let (volume, id, number) = unpack(kind, payload)?;
                Self::TakeDown { volume, id, number }
            }
            Kind::Digests => {
                let (volume, first, count) = unpack(kind, payload)?;
                Self::Digests { volume, first, count }
            }
            Kind::List => {
                let (volume, partition, after, limit) = unpack(kind, payload)?;
                Self::List { volume, partition, after, limit }
            }
            _ => unreachable!("decode sends only requests about a volume here, not {kind:?}"),
        })
    }

    /// What operators say and are told.
    fn decode_of_operators(kind: Kind, payload: &[u8]) -> Result<Self, BadMessage> {
        Ok(match kind {
            Kind::AskCore => unpack(kind, payload).map(|()| Self::AskCore)?,
            Kind::Who => unpack(kind, payload).map(|()| Self::Who)?,
            Kind::CommandAnswer => Self::CommandAnswer(unpack(kind, payload)?),
            Kind::CoreStatus => Self::CoreStatus(unpack(kind, payload)?),
            Kind::Here => {
                let (cluster, node, protocol_min, protocol_max) = unpack(kind, payload)?;
                Self::Here { cluster, node, protocol_min, protocol_max }
            }
            Kind::Command => {
                let (within_ms, forecast, bytes): (_, _, Vec<u8>) = unpack(kind, payload)?;
                let command =
                    Command::decode(&bytes).map_err(|why| BadMessage::Payload { kind, why: why.to_string() })?;
                Self::Command { within_ms, forecast, command: Box::new(command) }
            }
            _ => unreachable!("decode sends only what operators say and are told here, not {kind:?}"),
        })
    }

    /// All others.
    fn decode_reply(kind: Kind, payload: &[u8]) -> Result<Self, BadMessage> {
        Ok(match kind {
            Kind::Ready => unpack(kind, payload).map(|()| Self::Ready)?,
            Kind::End => unpack(kind, payload).map(|()| Self::End)?,
            Kind::Absent => unpack(kind, payload).map(|()| Self::Absent)?,
            Kind::Status => unpack(kind, payload).map(|()| Self::Status)?,
            Kind::Versions => unpack(kind, payload).map(|()| Self::Versions)?,
            Kind::NodeVersions => {
                let (oldest, newest, finalised) = unpack(kind, payload)?;
                let why = || format!("it speaks {oldest} to {newest}");
                let spoken = Protocols::new(oldest, newest).ok_or_else(|| BadMessage::Payload { kind, why: why() })?;
                Self::NodeVersions(spoken, finalised)
            }
            Kind::EpochsAfter => Self::EpochsAfter { epoch: unpack(kind, payload)? },
            Kind::Within => Self::Within { ms: unpack(kind, payload)? },
            Kind::Found => Self::Found { bytes: unpack(kind, payload)? },
            Kind::Present => Self::Present { bytes: unpack(kind, payload)? },
            Kind::TakenDown => Self::TakenDown { number: unpack(kind, payload)? },
            Kind::NodeStatus => Self::NodeStatus(unpack(kind, payload)?),
            Kind::DigestList => Self::DigestList(unpack(kind, payload)?),
            Kind::Ids => Self::Ids(unpack(kind, payload)?),
            Kind::Hello => {
                let (protocol_min, protocol_max, cluster, node) = unpack(kind, payload)?;
                Self::Hello { protocol_min, protocol_max, cluster, node }
            }
            Kind::Welcome => {
                let (protocol, node, epoch) = unpack(kind, payload)?;
                Self::Welcome { protocol, node, epoch }
            }
            Kind::Error => {
                let (code, message) = unpack(kind, payload)?;
                Self::Error { code, message }
            }
            Kind::Introduction => {
                let (node, address) = unpack(kind, payload)?;
                Self::Introduction { node, address }
            }
            Kind::Stored => {
                let (already, bytes, pieces) = unpack(kind, payload)?;
                Self::Stored { already, bytes, pieces }
            }
            Kind::TrackInfo => {
                let (bytes, tags, pieces): (_, Vec<u8>, _) = unpack(kind, payload)?;
                Self::TrackInfo { bytes, tags: unpack_tags(kind, &tags)?, pieces }
            }
            _ => unreachable!("decode sends all other kinds elsewhere, {kind:?} too"),
        })
    }
}

/// Whatever a payload says about lengths, decoding reads and takes no more than a frame's worth.
fn format() -> bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Fixint,
    bincode::config::Limit<FRAME_PAYLOAD_MAX>,
> {
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<FRAME_PAYLOAD_MAX>()
}

pub(super) fn pack(fields: &impl Serialize) -> Bytes {
    bincode::serde::encode_to_vec(fields, format()).expect("plain fields always encode").into()
}

pub(super) fn unpack<T: DeserializeOwned>(kind: Kind, payload: &[u8]) -> Result<T, BadMessage> {
    let (fields, read) = bincode::serde::decode_from_slice(payload, format())
        .map_err(|why| BadMessage::Payload { kind, why: why.to_string() })?;
    if read == payload.len() { Ok(fields) } else { Err(BadMessage::Trailing { kind, bytes: payload.len() - read }) }
}

pub(super) fn unpack_tags(kind: Kind, bytes: &[u8]) -> Result<Tags, BadMessage> {
    Tags::decode(bytes).map_err(|why: BadTags| BadMessage::Payload { kind, why: why.to_string() })
}
