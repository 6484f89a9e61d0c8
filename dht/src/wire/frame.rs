//! The header of every frame: the one place that knows its bytes.
//!
//! Little-endian, 40 bytes:
//!
//! ```text
//!  0  magic        4 bytes   "DWAX"
//!  4  version      u8        the oldest that has this kind of message, PROTOCOL_MIN at least
//!  5  kind         u8        which message the payload is
//!  6  flags        u16       none is defined: zero, and checked
//!  8  request      u32       the client counts its requests on a connection; a reply repeats the number
//! 12  payload      u32       bytes that follow the header
//! 16  epoch        u64       of the sender's map
//! 24  cluster      u64       first eight bytes of the cluster's id
//! 32  payload CRC  u32       CRC-32 (IEEE) of the payload
//! 36  header CRC   u32       CRC-32 (IEEE) of the 36 bytes before it
//! ```
//!
//! What every version keeps: the header's length, its CRC, and the places of the magic, the version, the request and
//! the payload's length. So whoever meets a frame of a later version can pass over it and say so ([`Newer`]).

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use deadwax_track::{KIB, MIB};

use crate::ClusterId;

/// The newest version that this code speaks. 1: the first. 2: a volume's status says why it does not serve. 3: nodes
/// speak to one another ([`Peer`](Kind::Peer), [`Pull`](Kind::Pull)), stand-ins, deadlines, the map's records
/// ([`Epochs`](Kind::Epochs)). 4: operators' commands ([`Command`](Kind::Command)), and how the cluster's rules stand;
/// takedowns by the cluster's log ([`Issue`](Kind::Issue)), and what gateways follow; a node says which versions it speaks
/// ([`NodeVersions`](Kind::NodeVersions)); nodes join by a token ([`Join`](Kind::Join)); a small track's bytes go with its
/// `Put`; over TLS, as it may be, who is not admitted hears so.
pub const PROTOCOL_VERSION: u8 = 4;
/// The first in which nodes speak to one another, and a cluster has a log. The log and what is in the nodes' envelopes
/// have no versions of their own: what came later to either is of a later version of the protocol.
pub const PROTOCOL_OF_NODES: u8 = 3;
/// The first in which a cluster's log has the tokens by which nodes join.
pub const PROTOCOL_OF_TOKENS: u8 = 4;
/// The oldest: nodes of two versions that follow each other serve together while a cluster is upgraded.
pub const PROTOCOL_MIN: u8 = 2;
/// The bytes of a header.
pub const HEADER_BYTES: usize = 40;
/// The most track bytes in one [`Data`](Kind::Data) frame.
pub const DATA_BYTES_MAX: usize = mib(1);
/// The most bytes of a track that may follow their [`Put`](Kind::Put) at once, before the node is ready.
pub const AT_ONCE_BYTES_MAX: usize = kib(256);
/// The first version of the protocol in which they may.
pub const AT_ONCE_SINCE: u8 = 4;
/// The most bytes after a header, of any kind.
pub const FRAME_PAYLOAD_MAX: usize = mib(1) + kib(128);

const MAGIC: [u8; 4] = *b"DWAX";
const HEADER_CRC_AT: usize = 36;

const _: () = assert!(0 < PROTOCOL_MIN && PROTOCOL_MIN <= PROTOCOL_VERSION);
const _: () = assert!(PROTOCOL_OF_NODES <= PROTOCOL_OF_TOKENS && PROTOCOL_OF_TOKENS <= PROTOCOL_VERSION);
const _: () = assert!(HEADER_CRC_AT + 4 == HEADER_BYTES);
const _: () = assert!(AT_ONCE_BYTES_MAX <= DATA_BYTES_MAX);
const _: () = assert!(DATA_BYTES_MAX <= FRAME_PAYLOAD_MAX && FRAME_PAYLOAD_MAX < u32::MAX as usize);

#[expect(clippy::cast_possible_truncation, reason = "small constants, evaluated by the compiler")]
const fn mib(count: u64) -> usize {
    (count * MIB) as usize
}

#[expect(clippy::cast_possible_truncation, reason = "small constants, evaluated by the compiler")]
const fn kib(count: u64) -> usize {
    (count * KIB) as usize
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $since:literal, $min:expr, $max:expr;)*) => {
        /// Which message a frame carries. A number, once given, is never reused.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$doc])* $name = $number,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The kind with this number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The first version of the protocol that has it.
            #[must_use]
            pub const fn since(self) -> u8 {
                match self {
                    $(Self::$name => $since,)*
                }
            }

            /// The fewest and most payload bytes of this kind: known before memory is taken for them.
            #[must_use]
            pub const fn payload_bounds(self) -> (usize, usize) {
                match self {
                    $(Self::$name => ($min, $max),)*
                }
            }
        }
    };
}

kinds! {
    /// Client: first on a connection.
    Hello = 1, 1, 19, 51;
    /// Node: the answer to it.
    Welcome = 2, 1, 41, 41;
    /// Node: the answer to any request that failed.
    Error = 3, 1, 12, kib(4);
    /// Client: offers a track.
    Put = 16, 1, 66, kib(20);
    /// Node: send the bytes.
    Ready = 17, 1, 0, 0;
    /// Node: the track is durable.
    Stored = 18, 1, 13, 13;
    /// Either: track bytes, raw.
    Data = 19, 1, 1, DATA_BYTES_MAX;
    /// Client: offers a track in place of a holder that is not there.
    StandIn = 20, 3, 66, kib(20);
    /// Client: the next request is of no use after a while.
    Within = 21, 3, 4, 4;
    /// Client: asks for a range of a track.
    Get = 32, 1, 64, 64;
    /// Node: the range follows.
    Found = 33, 1, 8, 8;
    /// Node: that was all of it.
    End = 34, 1, 0, 0;
    /// Node, to a node: asks for a range of a track of which it lacks a copy.
    Pull = 35, 3, 65, 65;
    /// Client: asks for tags and manifest.
    Info = 48, 1, 48, 48;
    /// Node: tags and manifest.
    TrackInfo = 49, 1, 26, kib(100);
    /// Client: asks whether a track is there.
    Has = 50, 1, 48, 48;
    /// Node: it is.
    Present = 51, 1, 8, 8;
    /// Node: it is not.
    Absent = 52, 1, 0, 0;
    /// Node: it was taken down.
    TakenDown = 53, 1, 8, 8;
    /// Client: takes a track down.
    TakeDown = 54, 1, 56, 56;
    /// Client: asks how the node is.
    Status = 64, 1, 0, 0;
    /// Node: how it is.
    NodeStatus = 65, 1, 84, FRAME_PAYLOAD_MAX;
    /// Client: asks for digests of partitions.
    Digests = 80, 1, 22, 22;
    /// Node: the digests.
    DigestList = 81, 1, 8, FRAME_PAYLOAD_MAX;
    /// Client: asks for the ids in a partition.
    List = 82, 1, 23, 55;
    /// Node: the ids.
    Ids = 83, 1, 8, FRAME_PAYLOAD_MAX;
    /// Node, to a node: who it is.
    Introduction = 97, 3, 40, kib(1);
    /// Node, to a node: an envelope of the cluster's core, or a part of one. Not answered.
    Peer = 96, 3, 2, FRAME_PAYLOAD_MAX;
    /// Client: asks for the map's records after an epoch.
    EpochsAfter = 112, 3, 8, 8;
    /// Node: the records, or a part of them.
    Epochs = 113, 3, 2, FRAME_PAYLOAD_MAX;
    /// Client: an operator's command.
    Command = 120, 4, 15, kib(16);
    /// Node: what came of it.
    CommandAnswer = 121, 4, 4, FRAME_PAYLOAD_MAX;
    /// Client: asks how the cluster's rules stand at the node.
    AskCore = 122, 4, 0, 0;
    /// Node: how they stand.
    CoreStatus = 123, 4, 1, kib(128);
    /// Anybody, first on a connection: asks who is there.
    Who = 124, 4, 0, 0;
    /// Node: who is there.
    Here = 125, 4, 50, 50;
    /// Client: takes a track down by the cluster's log.
    Issue = 128, 4, 40, 118;
    /// Node: enough nodes have the takedown.
    Issued = 129, 4, 16, 16;
    /// Node: it signs no takedowns.
    NotIssuer = 130, 4, 4, 4;
    /// Client: asks for a takedown and its receipts.
    Receipts = 131, 4, 8, 8;
    /// Node: both.
    ReceiptList = 132, 4, 265, kib(16);
    /// Client: asks for takedowns that it has not heard of.
    TakedownsAfter = 133, 4, 21, FRAME_PAYLOAD_MAX;
    /// Node: some.
    Takedowns = 134, 4, 8, mib(1);
    /// Client: asks how far a node's takedowns go.
    TakedownHeads = 137, 4, 0, 0;
    /// Node: so far.
    Heads = 138, 4, 13, FRAME_PAYLOAD_MAX;
    /// Client: asks for the tracks in a partition.
    Tracks = 135, 4, 23, 55;
    /// Node: the tracks, with their tags.
    TrackList = 136, 4, 9, FRAME_PAYLOAD_MAX;
    /// A node that has a token, first on a connection: it is to be in the map.
    Join = 140, 4, 69, kib(16);
    /// A node, or whoever may command: asks whom the node lets in.
    AskAdmits = 141, 4, 0, 0;
    /// Node: by its settings, these.
    Admits = 142, 4, 24, FRAME_PAYLOAD_MAX;
    /// Client: asks which versions the node speaks.
    Versions = 144, 4, 0, 0;
    /// Node: which, and at which the cluster is finalised.
    NodeVersions = 145, 4, 3, 4;
    /// Client: asks how the checking of all that the node's drives hold goes.
    AskScrubs = 146, 4, 0, 0;
    /// Node: how it goes.
    Scrubs = 147, 4, 8, kib(24);
    /// Client: has a volume checked now, or all.
    Scrub = 148, 4, 9, 25;
    /// Client: asks how far the node is with finding and mending what it lacks.
    AskRepair = 149, 4, 0, 0;
    /// Client: has it compared anew, and tried now.
    RepairNow = 150, 4, 0, 0;
    /// Node: how far it is.
    RepairReport = 151, 4, 1, kib(16);
}

/// The version that two sides speak: the newest that both know. None: they have none in common.
#[must_use]
pub fn negotiate(own: std::ops::RangeInclusive<u8>, min: u8, max: u8) -> Option<u8> {
    let newest = (*own.end()).min(max);
    (newest >= (*own.start()).max(min)).then_some(newest)
}

/// What a sender writes into each of its frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The request's number.
    pub request: u32,
    /// The epoch of the sender's map.
    pub epoch: u64,
    /// [`ClusterId::prefix`] of the sender's cluster.
    pub cluster: u64,
}

impl Stamp {
    /// The stamp of a frame of request `request`, from a sender at `epoch` of `cluster`.
    #[must_use]
    pub fn new(request: u32, epoch: u64, cluster: &ClusterId) -> Self {
        Self { request, epoch, cluster: cluster.prefix() }
    }
}

/// Some of a track's bytes. Where they are a frame alone, its CRC is reckoned once, however many nodes they go to.
#[derive(Clone, Debug)]
pub struct Summed {
    bytes: Bytes,
    crc: Arc<OnceLock<u32>>,
}

impl Summed {
    /// Nothing is reckoned yet.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, crc: Arc::default() }
    }

    /// The bytes.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// A frame's header. Both sides read 40 bytes, [`decode`](Self::decode) them, read
/// [`payload_bytes`](Self::payload_bytes) more, [`check_payload`](Self::check_payload), then
/// [`Message::decode`](super::Message::decode).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// The version that it is written in.
    pub version: u8,
    /// Which message the payload is.
    pub kind: Kind,
    /// Who sent it, for which request.
    pub stamp: Stamp,
    payload_bytes: u32,
    payload_crc: u32,
}

/// The bytes are no frame of this protocol; nothing after them on the connection can be trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadFrame {
    /// The first bytes are not a frame's: something else speaks on the port.
    #[error("not a deadwax frame: it begins with {0:02x?}")]
    Magic([u8; 4]),
    /// The header was damaged on the way.
    #[error("frame header checksum is {got:08x}, its bytes give {expected:08x}")]
    HeaderCrc {
        /// What the bytes give.
        expected: u32,
        /// What the header says.
        got: u32,
    },
    /// The sender speaks a version that this code does not: before the oldest that it reads.
    #[error("frame has protocol version {0}, this program speaks {PROTOCOL_MIN} to {PROTOCOL_VERSION}")]
    Version(u8),
    /// A whole frame of a version that is not spoken here, or not on this connection. What follows it can be trusted.
    #[error(transparent)]
    Newer(Newer),
    /// The version has no such message.
    #[error("frame of protocol version {version} has kind {kind:?}, which came later")]
    TooNew {
        /// The frame's kind.
        kind: Kind,
        /// The version that it says it is of.
        version: u8,
    },
    /// No message has this number.
    #[error("frame has unknown kind {0}")]
    Kind(u8),
    /// A flag is set that this version does not know.
    #[error("frame has unknown flags {0:#06x}")]
    Flags(u16),
    /// The payload is shorter or longer than its kind allows.
    #[error("frame of kind {kind:?} has {min} to {max} payload bytes, this one says {got}")]
    PayloadLength {
        /// The frame's kind.
        kind: Kind,
        /// What its header says.
        got: u32,
        /// The fewest allowed.
        min: usize,
        /// The most allowed.
        max: usize,
    },
    /// The payload was damaged on the way, or is not as long as the header says.
    #[error("frame of kind {kind:?}: payload checksum is {got:08x}, its bytes give {expected:08x}")]
    PayloadCrc {
        /// The frame's kind.
        kind: Kind,
        /// What the bytes give.
        expected: u32,
        /// What the header says.
        got: u32,
    },
}

/// A frame of a later version than its receiver speaks: what is known of it all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("frame has protocol version {version}, {newest} is the newest that is spoken here")]
pub struct Newer {
    /// Its version.
    pub version: u8,
    /// The newest that the receiver speaks.
    pub newest: u8,
    /// Its request's number, by which the sender knows the answer.
    pub request: u32,
    /// The bytes after the header, [`FRAME_PAYLOAD_MAX`] at most: to be passed over.
    pub payload_bytes: usize,
}

impl FrameHeader {
    /// The header of a frame whose payload is `parts`, one after the other (a vectored write needs no joined copy). In
    /// the oldest version that has the kind: it is the same in all since, and whoever speaks any of them reads it.
    ///
    /// # Panics
    /// Where the parts together are shorter or longer than `kind` allows.
    #[must_use]
    pub fn new<'a>(kind: Kind, stamp: Stamp, parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut crc = crc32fast::Hasher::new();
        let mut bytes = 0_usize;
        for part in parts {
            crc.update(part);
            bytes += part.len();
        }
        Self::of(kind, stamp, bytes, crc.finalize())
    }

    /// The header of a [`Data`](Kind::Data) frame of `parts`, one after the other.
    ///
    /// # Panics
    /// Where they are empty together, or more than [`DATA_BYTES_MAX`].
    #[must_use]
    pub fn of_data(stamp: Stamp, parts: &[Summed]) -> Self {
        match parts {
            [alone] => {
                let crc = *alone.crc.get_or_init(|| crc32fast::hash(&alone.bytes));
                Self::of(Kind::Data, stamp, alone.bytes.len(), crc)
            }
            // To combine the CRCs of short parts would take longer than to reckon anew.
            parts => Self::new(Kind::Data, stamp, parts.iter().map(|part| &*part.bytes)),
        }
    }

    fn of(kind: Kind, stamp: Stamp, bytes: usize, payload_crc: u32) -> Self {
        let (min, max) = kind.payload_bounds();
        assert!((min..=max).contains(&bytes), "a {kind:?} frame has {min} to {max} bytes, got {bytes}");
        let payload_bytes = u32::try_from(bytes).expect("a frame's payload is below 4 GiB");
        let version = kind.since().max(PROTOCOL_MIN);
        Self { version, kind, stamp, payload_bytes, payload_crc }
    }

    /// How many bytes follow the header.
    #[must_use]
    pub const fn payload_bytes(&self) -> usize {
        self.payload_bytes as usize
    }

    /// The header as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[4] = self.version;
        out[5] = self.kind as u8;
        out[8..12].copy_from_slice(&self.stamp.request.to_le_bytes());
        out[12..16].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[16..24].copy_from_slice(&self.stamp.epoch.to_le_bytes());
        out[24..32].copy_from_slice(&self.stamp.cluster.to_le_bytes());
        out[32..36].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32fast::hash(&out[..HEADER_CRC_AT]);
        out[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header that these bytes are. After it, [`payload_bytes`](Self::payload_bytes) is within the kind's bounds,
    /// so a receiver may take memory for them.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, BadFrame> {
        Self::decode_up_to(PROTOCOL_VERSION, bytes)
    }

    /// As [`decode`](Self::decode), where `newest` is the newest version that is spoken: a kind that came after it is
    /// [`Newer`], as it is for a program that does not know it.
    pub fn decode_up_to(newest: u8, bytes: &[u8; HEADER_BYTES]) -> Result<Self, BadFrame> {
        let magic = array(bytes, 0);
        if magic != MAGIC {
            return Err(BadFrame::Magic(magic));
        }
        let expected = crc32fast::hash(&bytes[..HEADER_CRC_AT]);
        let got = u32::from_le_bytes(array(bytes, HEADER_CRC_AT));
        if expected != got {
            return Err(BadFrame::HeaderCrc { expected, got });
        }
        let (version, request) = (bytes[4], u32::from_le_bytes(array(bytes, 8)));
        let payload_bytes = u32::from_le_bytes(array(bytes, 12));
        if version > newest && payload_bytes as usize <= FRAME_PAYLOAD_MAX {
            let payload_bytes = payload_bytes as usize;
            return Err(BadFrame::Newer(Newer { version, newest, request, payload_bytes }));
        }
        if !(PROTOCOL_MIN..=newest).contains(&version) {
            return Err(BadFrame::Version(version));
        }
        let kind = Kind::from_number(bytes[5]).ok_or(BadFrame::Kind(bytes[5]))?;
        if kind.since() > version {
            return Err(BadFrame::TooNew { kind, version });
        }
        let flags = u16::from_le_bytes(array(bytes, 6));
        if flags != 0 {
            return Err(BadFrame::Flags(flags));
        }
        let (min, max) = kind.payload_bounds();
        if !(min..=max).contains(&(payload_bytes as usize)) {
            return Err(BadFrame::PayloadLength { kind, got: payload_bytes, min, max });
        }
        let stamp = Stamp {
            request,
            epoch: u64::from_le_bytes(array(bytes, 16)),
            cluster: u64::from_le_bytes(array(bytes, 24)),
        };
        Ok(Self { version, kind, stamp, payload_bytes, payload_crc: u32::from_le_bytes(array(bytes, 32)) })
    }

    /// Whether `payload` is the one that the header was made for.
    pub fn check_payload(&self, payload: &[u8]) -> Result<(), BadFrame> {
        let expected = crc32fast::hash(payload);
        if expected == self.payload_crc && payload.len() == self.payload_bytes() {
            return Ok(());
        }
        Err(BadFrame::PayloadCrc { kind: self.kind, expected, got: self.payload_crc })
    }
}

fn array<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}
