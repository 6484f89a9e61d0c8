//! Takedowns by the cluster's log, and what gateways follow: the messages of both, and their payloads' bytes.

use deadwax_track::{Partition, TRACK_BYTES_MAX, Tags, TrackId};
use serde::{Deserialize, Serialize};

use super::BadMessage;
use super::frame::{FRAME_PAYLOAD_MAX, Kind};
use super::message::{pack, unpack, unpack_tags};
use crate::takedown::{COPIES_MAX, CopyState, Heads, REASON_BYTES_MAX, TAKEDOWN_BYTES, Takedown};
use crate::{NodeId, VolumeId};

/// The most records in one [`Takedowns`](Feed::Takedowns) reply.
pub const TAKEDOWNS_MAX: u32 = 1_024;
/// The longest that a node holds a question for takedowns that are not there yet, in ms.
pub const TAKEDOWNS_WAIT_MS_MAX: u32 = 25_000;
/// The most tracks in one [`TrackList`](Feed::TrackList) reply.
pub const TRACKS_MAX: u32 = 256;
/// A [`TrackList`](Feed::TrackList) ends with the track by which its tags exceed so many bytes.
pub const TRACK_LIST_TAGS_BYTES: usize = FRAME_PAYLOAD_MAX / 2;

// A full list fits into a frame: all else of a track has 48 bytes.
const _: () = assert!(TRACK_LIST_TAGS_BYTES + Tags::BYTES_MAX + TRACKS_MAX as usize * 64 + 16 <= FRAME_PAYLOAD_MAX);
const _: () = assert!(8 + TAKEDOWNS_MAX as usize * TAKEDOWN_BYTES <= FRAME_PAYLOAD_MAX);
const _: () = assert!(16 + Heads::BYTES_MAX <= FRAME_PAYLOAD_MAX);

/// What one frame says of takedowns, or of what is stored. The table in [`wire`](super) shows which follows which.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Feed {
    /// Client: takes a track down, for the whole cluster. Asked again it answers the same.
    Issue {
        /// Which.
        id: TrackId,
        /// Why, for people; at most [`REASON_BYTES_MAX`] bytes.
        reason: String,
    },
    /// Node: the takedown is in the flushed logs of a majority of its members, and barred.
    Issued {
        /// Its number: [`Name::in_cluster`](crate::takedown::Name::in_cluster).
        number: u64,
        /// How many members have it.
        have: u32,
        /// How many members there are.
        members: u32,
    },
    /// Node: it signs no takedowns.
    NotIssuer {
        /// How many issuers it knows. 0: there is no log of takedowns, and `TakeDown` goes to each holder.
        issuers: u32,
    },
    /// Client: asks for a takedown, and which holders have erased the track.
    Receipts {
        /// The takedown's number.
        number: u64,
    },
    /// Node: the takedown.
    ReceiptList {
        /// As it was signed.
        takedown: Box<Takedown>,
        /// None: the node does not follow receipts, voters do.
        holders: Option<HolderReceipts>,
    },
    /// Client: asks for takedowns that it has not heard of.
    TakedownsAfter {
        /// How far it has each issuer's chain.
        known: Heads,
        /// How long the node may wait for one, in ms; at most [`TAKEDOWNS_WAIT_MS_MAX`].
        wait_ms: u32,
        /// The most to answer; 1 to [`TAKEDOWNS_MAX`].
        limit: u32,
    },
    /// Node: takedowns that are flushed, each after its predecessor. None: the wait is over.
    Takedowns(Vec<Takedown>),
    /// Client: asks how far the node's takedowns go, to follow from there.
    TakedownHeads,
    /// Node: so far, flushed.
    Heads(Heads),
    /// Client: asks for tracks in a partition, with their tags.
    Tracks {
        /// On which volume.
        volume: VolumeId,
        /// In which partition.
        partition: Partition,
        /// Only ids greater than this.
        after: Option<TrackId>,
        /// The most to answer; 1 to [`TRACKS_MAX`].
        limit: u32,
    },
    /// Node: the tracks, by id, of a volume that may answer for the partition.
    TrackList {
        /// What there is.
        tracks: Vec<ListedTrack>,
        /// Ask on after this id. None: there is no more.
        next: Option<TrackId>,
    },
}

/// Which holders have erased a track.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HolderReceipts {
    /// Whether all have signed, or are dead.
    pub complete: bool,
    /// One entry a copy; at most [`COPIES_MAX`].
    pub copies: Vec<HolderReceipt>,
}

/// What is known of one copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HolderReceipt {
    /// On which volume.
    pub volume: VolumeId,
    /// Of which node.
    pub node: NodeId,
    /// Whether it is gone.
    pub state: CopyState,
}

/// A stored track.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedTrack {
    /// Its id.
    pub id: TrackId,
    /// Its length.
    pub bytes: u64,
    /// Its tags.
    pub tags: Tags,
}

impl Feed {
    /// The kinds of frame that carry one.
    pub(super) const KINDS: [Kind; 11] = [
        Kind::Issue,
        Kind::Issued,
        Kind::NotIssuer,
        Kind::Receipts,
        Kind::ReceiptList,
        Kind::TakedownsAfter,
        Kind::Takedowns,
        Kind::TakedownHeads,
        Kind::Heads,
        Kind::Tracks,
        Kind::TrackList,
    ];

    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::Issue { .. } => Kind::Issue,
            Self::Issued { .. } => Kind::Issued,
            Self::NotIssuer { .. } => Kind::NotIssuer,
            Self::Receipts { .. } => Kind::Receipts,
            Self::ReceiptList { .. } => Kind::ReceiptList,
            Self::TakedownsAfter { .. } => Kind::TakedownsAfter,
            Self::Takedowns(_) => Kind::Takedowns,
            Self::TakedownHeads => Kind::TakedownHeads,
            Self::Heads(_) => Kind::Heads,
            Self::Tracks { .. } => Kind::Tracks,
            Self::TrackList { .. } => Kind::TrackList,
        }
    }

    pub(super) fn payload(&self) -> bytes::Bytes {
        match self {
            Self::Issue { id, reason } => pack(&(id, reason)),
            Self::Issued { number, have, members } => pack(&(number, have, members)),
            Self::NotIssuer { issuers } => pack(issuers),
            Self::Receipts { number } => pack(number),
            Self::ReceiptList { takedown, holders } => pack(&(takedown.encode().as_slice(), holders)),
            Self::TakedownsAfter { known, wait_ms, limit } => pack(&(known.encode(), wait_ms, limit)),
            Self::Takedowns(records) => {
                let bytes: Vec<u8> = records.iter().flat_map(Takedown::encode).collect();
                pack(&bytes)
            }
            Self::TakedownHeads => bytes::Bytes::new(),
            Self::Heads(heads) => pack(&heads.encode()),
            Self::Tracks { volume, partition, after, limit } => pack(&(volume, partition, after, limit)),
            Self::TrackList { tracks, next } => {
                let tracks: Vec<_> = tracks.iter().map(|track| (track.id, track.bytes, track.tags.encode())).collect();
                pack(&(tracks, next))
            }
        }
    }

    /// The message of one of [`KINDS`](Self::KINDS) that these bytes are, within all limits.
    pub(super) fn decode(kind: Kind, payload: &[u8]) -> Result<Self, BadMessage> {
        let feed = match kind {
            Kind::Issue => {
                let (id, reason) = unpack(kind, payload)?;
                Self::Issue { id, reason }
            }
            Kind::Issued => {
                let (number, have, members) = unpack(kind, payload)?;
                Self::Issued { number, have, members }
            }
            Kind::NotIssuer => Self::NotIssuer { issuers: unpack(kind, payload)? },
            Kind::Receipts => Self::Receipts { number: unpack(kind, payload)? },
            Kind::ReceiptList => {
                let (takedown, holders): (Vec<u8>, _) = unpack(kind, payload)?;
                Self::ReceiptList { takedown: Box::new(takedown_of(kind, &takedown)?), holders }
            }
            Kind::TakedownsAfter => {
                let (known, wait_ms, limit): (Vec<u8>, _, _) = unpack(kind, payload)?;
                let known = Heads::decode(&known).map_err(|why| bad(kind, &why))?;
                Self::TakedownsAfter { known, wait_ms, limit }
            }
            Kind::Takedowns => {
                let bytes: Vec<u8> = unpack(kind, payload)?;
                Self::Takedowns(
                    bytes.chunks(TAKEDOWN_BYTES).map(|bytes| takedown_of(kind, bytes)).collect::<Result<_, _>>()?,
                )
            }
            Kind::TakedownHeads => unpack(kind, payload).map(|()| Self::TakedownHeads)?,
            Kind::Heads => {
                let heads: Vec<u8> = unpack(kind, payload)?;
                Self::Heads(Heads::decode(&heads).map_err(|why| bad(kind, &why))?)
            }
            Kind::Tracks => {
                let (volume, partition, after, limit) = unpack(kind, payload)?;
                Self::Tracks { volume, partition, after, limit }
            }
            Kind::TrackList => {
                let (tracks, next): (Vec<(TrackId, u64, Vec<u8>)>, _) = unpack(kind, payload)?;
                let track =
                    |(id, bytes, tags): (_, _, Vec<u8>)| Ok(ListedTrack { id, bytes, tags: unpack_tags(kind, &tags)? });
                Self::TrackList { tracks: tracks.into_iter().map(track).collect::<Result<_, _>>()?, next }
            }
            _ => unreachable!("decode sends only its own kinds here, not {kind:?}"),
        };
        feed.check()?;
        Ok(feed)
    }

    /// The limits that the types do not hold.
    fn check(&self) -> Result<(), BadMessage> {
        let limit = |holds: bool, field: &'static str, got: u64| {
            if holds { Ok(()) } else { Err(BadMessage::Limit { kind: self.kind(), field, got }) }
        };
        match self {
            Self::Issue { reason, .. } => {
                limit(reason.len() <= REASON_BYTES_MAX, "the reason's length", reason.len() as u64)
            }
            Self::ReceiptList { holders: Some(HolderReceipts { copies, .. }), .. } => {
                limit(copies.len() <= COPIES_MAX, "the number of copies", copies.len() as u64)
            }
            Self::TakedownsAfter { wait_ms, limit: records, .. } => {
                limit(*wait_ms <= TAKEDOWNS_WAIT_MS_MAX, "the wait in ms", u64::from(*wait_ms))?;
                limit((1..=TAKEDOWNS_MAX).contains(records), "the number of takedowns asked for", u64::from(*records))
            }
            Self::Takedowns(records) => {
                limit(records.len() <= TAKEDOWNS_MAX as usize, "the number of takedowns", records.len() as u64)
            }
            Self::Tracks { limit: tracks, .. } => {
                limit((1..=TRACKS_MAX).contains(tracks), "the number of tracks asked for", u64::from(*tracks))
            }
            Self::TrackList { tracks, .. } => {
                limit(tracks.len() <= TRACKS_MAX as usize, "the number of tracks", tracks.len() as u64)?;
                let odd = tracks.iter().find(|track| !(1..=TRACK_BYTES_MAX).contains(&track.bytes));
                odd.map_or(Ok(()), |track| limit(false, "a track's length, which is 1 to 512 MiB,", track.bytes))
            }
            _ => Ok(()),
        }
    }
}

fn takedown_of(kind: Kind, bytes: &[u8]) -> Result<Takedown, BadMessage> {
    Takedown::decode(bytes).map_err(|why| bad(kind, &why))
}

fn bad(kind: Kind, why: &impl ToString) -> BadMessage {
    BadMessage::Payload { kind, why: why.to_string() }
}
