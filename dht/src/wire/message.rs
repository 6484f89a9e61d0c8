//! The payload of every message: the one place that knows their bytes.
//!
//! [`Data`](Message::Data) is raw; [`Peer`](Message::Peer) and [`Epochs`](Message::Epochs) are a `bool` and raw. All others are bincode 2
//! (<https://docs.rs/bincode/2.0.1>, its `spec.md`) with fixed-width little-endian integers: fields one after the other
//! without padding, a `bool` and an `Option`'s tag one byte, an enum's tag u32, text and lists after their length as
//! u64. The fields in order are those of the tuples in [`Message::payload`]; golden bytes of each kind are in
//! `tests/rules/wire_golden.txt`.
//!
//! The crate bincode is unmaintained after 2.0.1, so only this file names it.

use bytes::Bytes;
use deadwax_track::{BadTags, ByteRange, PARTITIONS, PIECES_MAX, Partition, TRACK_BYTES_MAX, Tags, TrackId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error_code::ErrorCode;
use super::frame::{FRAME_PAYLOAD_MAX, FrameHeader, HEADER_BYTES, Kind, Stamp};
use super::status::{NodeStatus, VOLUMES_PER_NODE_MAX};
use crate::{ClusterId, NodeId, VolumeId};

/// The most partitions in one [`Digests`](Message::Digests) request.
pub const DIGEST_PARTITIONS_MAX: u32 = 16_384;
/// The most ids in one [`Ids`](Message::Ids) reply.
pub const IDS_MAX: u32 = 16_384;
/// The most bytes of an envelope in one [`Peer`](Message::Peer) message, and of a batch in one [`Epochs`](Message::Epochs).
pub const PEER_BYTES_MAX: usize = FRAME_PAYLOAD_MAX - 1;
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
        /// 1 to [`PEER_BYTES_MAX`].
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
        /// 1 to [`PEER_BYTES_MAX`].
        bytes: Bytes,
    },
}

/// The parts in which `bytes`, an envelope's or a batch's, go out as [`Peer`](Message::Peer) or
/// [`Epochs`](Message::Epochs): each with whether more follow.
pub fn parts(mut bytes: Bytes) -> impl Iterator<Item = (bool, Bytes)> {
    std::iter::from_fn(move || {
        let part = bytes.split_to(bytes.len().min(PEER_BYTES_MAX));
        (!part.is_empty()).then(|| (!bytes.is_empty(), part))
    })
}

/// What one partition of a volume holds. Equal sets of tracks give equal digests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PartitionDigest {
    /// Which partition.
    pub partition: Partition,
    /// How many tracks.
    pub tracks: u32,
    /// XOR of the first 16 bytes of their ids.
    pub digest: [u8; 16],
}

/// The payload is no message of its kind.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadMessage {
    /// The bytes do not decode.
    #[error("{kind:?} message does not decode: {why}")]
    Payload {
        /// The frame's kind.
        kind: Kind,
        /// What is wrong.
        why: String,
    },
    /// Bytes follow the message.
    #[error("{kind:?} message is followed by {bytes} bytes")]
    Trailing {
        /// The frame's kind.
        kind: Kind,
        /// How many.
        bytes: usize,
    },
    /// A field is outside its limits.
    #[error("{kind:?} message breaks a limit: {field} is {got}")]
    Limit {
        /// The frame's kind.
        kind: Kind,
        /// Which field, and what it may be.
        field: &'static str,
        /// What it is.
        got: u64,
    },
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
        }
    }

    /// The payload's bytes. [`Data`](Self::Data)'s are handed on, not copied.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        match self {
            Self::Ready | Self::End | Self::Absent | Self::Status => Bytes::new(),
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

    /// All others.
    fn decode_reply(kind: Kind, payload: &[u8]) -> Result<Self, BadMessage> {
        Ok(match kind {
            Kind::Ready => unpack(kind, payload).map(|()| Self::Ready)?,
            Kind::End => unpack(kind, payload).map(|()| Self::End)?,
            Kind::Absent => unpack(kind, payload).map(|()| Self::Absent)?,
            Kind::Status => unpack(kind, payload).map(|()| Self::Status)?,
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
            _ => unreachable!("decode sends no data and no requests about a volume here, not {kind:?}"),
        })
    }

    /// The limits that the types do not hold.
    fn check(&self) -> Result<(), BadMessage> {
        let limit = |holds: bool, field: &'static str, got: u64| {
            if holds { Ok(()) } else { Err(BadMessage::Limit { kind: self.kind(), field, got }) }
        };
        let track = |bytes: u64| {
            limit((1..=TRACK_BYTES_MAX).contains(&bytes), "the track's length, which is 1 to 512 MiB,", bytes)
        };
        match self {
            Self::Data(bytes) | Self::Peer { bytes, .. } | Self::Epochs { bytes, .. } => {
                limit(!bytes.is_empty(), "the data's length, which is not 0,", 0)
            }
            Self::Hello { protocol_min, protocol_max, .. } => limit(
                protocol_min <= protocol_max,
                "the oldest protocol, which is not above the newest,",
                u64::from(*protocol_min),
            ),
            Self::Error { message, .. } => {
                limit(message.len() <= ERROR_MESSAGE_BYTES_MAX, "the text's length", message.len() as u64)
            }
            Self::Introduction { address, .. } => {
                limit(address.len() <= ADDRESS_BYTES_MAX, "the address's length", address.len() as u64)
            }
            Self::Put { bytes, .. }
            | Self::StandIn { bytes, .. }
            | Self::Stored { bytes, .. }
            | Self::Found { bytes }
            | Self::Present { bytes } => track(*bytes),
            Self::TrackInfo { bytes, pieces, .. } => {
                limit(pieces.len() as u64 <= PIECES_MAX, "the number of pieces", pieces.len() as u64)?;
                track(*bytes)
            }
            Self::NodeStatus(status) => limit(
                status.volumes.len() <= VOLUMES_PER_NODE_MAX,
                "the number of volumes",
                status.volumes.len() as u64,
            ),
            Self::Digests { first, count, .. } => {
                limit(*count <= DIGEST_PARTITIONS_MAX, "the number of partitions", u64::from(*count))?;
                limit(u32::from(first.0) + count <= PARTITIONS, "the number of partitions", u64::from(*count))
            }
            Self::DigestList(digests) => {
                limit(digests.len() <= DIGEST_PARTITIONS_MAX as usize, "the number of digests", digests.len() as u64)
            }
            Self::List { limit: ids, .. } => {
                limit((1..=IDS_MAX).contains(ids), "the number of ids asked for", u64::from(*ids))
            }
            Self::Ids(ids) => limit(ids.len() <= IDS_MAX as usize, "the number of ids", ids.len() as u64),
            _ => Ok(()),
        }
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

fn pack(fields: &impl Serialize) -> Bytes {
    bincode::serde::encode_to_vec(fields, format()).expect("plain fields always encode").into()
}

fn unpack<T: DeserializeOwned>(kind: Kind, payload: &[u8]) -> Result<T, BadMessage> {
    let (fields, read) = bincode::serde::decode_from_slice(payload, format())
        .map_err(|why| BadMessage::Payload { kind, why: why.to_string() })?;
    if read == payload.len() { Ok(fields) } else { Err(BadMessage::Trailing { kind, bytes: payload.len() - read }) }
}

fn unpack_tags(kind: Kind, bytes: &[u8]) -> Result<Tags, BadMessage> {
    Tags::decode(bytes).map_err(|why: BadTags| BadMessage::Payload { kind, why: why.to_string() })
}
