//! What cores say to each other, and the bytes of it: the one place that knows an envelope's.

use deadwax_track::TrackId;

use crate::log::{BadBytes, BadState, Batch, Reader, Writer};
use crate::routing::{Answered, Asked};
use crate::wire::{PROTOCOL_OF_NODES, PROTOCOL_VERSION, VOLUMES_PER_NODE_MAX};
use crate::{NodeId, VolumeId, liveness, log, rebalance, sync, takedown};

/// The version of an envelope's bytes. 1: the first; 2: with the name of the sender's log.
const VERSION: u8 = 2;
/// The bytes before the message's own.
const HEADER_BYTES: usize = TAG_AT + 1;
const TAG_AT: usize = 1 + 1 + 8 + 8 + 8;
/// The tag of records of the map's log.
const EPOCHS: u8 = 6;
/// The most bytes of an envelope: a voter's message with a snapshot is the largest.
pub const ENVELOPE_BYTES_MAX: usize = HEADER_BYTES + log::MESSAGE_BYTES_MAX;
/// The most tracks of one question for receipts, and the most receipts of one answer.
pub const RECEIPTS_MAX: usize = 256;
/// The most nodes of one [`Spoken`](Message::Spoken): a cell.
pub const SPEAKERS_MAX: usize = liveness::CELL_NODES_MAX;

const _: () = assert!(log::BATCH_BYTES_MAX <= log::MESSAGE_BYTES_MAX);
const _: () = assert!(takedown::Answer::BYTES_MAX <= log::MESSAGE_BYTES_MAX);

/// A message with what every message says of its sender.
///
/// ```text
/// version u8 │ protocol u8 │ epoch u64 │ line u64 │ life u64 │ tag u8 │ the message, to the end
///   1 swim             its datagram         9 receipts ask     volume 16, tracks: count u32, 32 each
///   2 raft             its message         10 receipts         count u32, 153 each
///   3 seek             asked               11 sync             its message
///   4 found            answered            12 synced           its report
///   5 behind           epoch u64           13 knows            —
///   6 epochs           batch               14 superseded       life u64
///   7 takedown ask     number u64, ask     15 spoken ask       —
///   8 takedown answer  number u64, answer  16 spoken           count u32, 37 each: node 32, protocol u8, age u32
///                                          17 out              volumes: count u32, 16 each
/// ```
///
/// Bytes that are none are an error: drop them; whoever waits for an answer asks again. The first two bytes keep their
/// places in all versions. What is added to the messages is sent only where the cluster is finalised at its version of the
/// protocol ([`Core::may_use`](super::Core::may_use)).
#[derive(Clone, PartialEq, Debug)]
pub struct Envelope {
    /// The newest version of the protocol that the sender speaks, whatever the cluster is finalised at.
    pub protocol: u8,
    /// The sender's epoch; 0: it has no map.
    pub epoch: u64,
    /// The name of its log ([`State::line_at`](log::State::line_at)): of one that was begun anew it is another.
    pub line: u64,
    /// When the sender's process started, in ms since 1970: of two processes of one name, the later one is the node.
    pub life: u64,
    /// What it says.
    pub message: Message,
}

/// What a core says to another.
#[derive(Clone, PartialEq, Debug)]
pub enum Message {
    /// Of liveness: a datagram.
    Swim(Vec<u8>),
    /// Between voters.
    Raft(Box<log::Message>),
    /// A question of routing.
    Seek(Asked),
    /// Its answer.
    Found(Answered),
    /// Send what comes after this epoch.
    Behind(u64),
    /// Records of the map log, that the receiver lacks.
    Epochs(Box<Batch>),
    /// What takedowns are there?
    TakedownAsk(u64, takedown::Ask),
    /// Its answer.
    TakedownAnswer(u64, takedown::Answer),
    /// Are these gone from this volume? At most [`RECEIPTS_MAX`].
    ReceiptsAsk(VolumeId, Vec<TrackId>),
    /// They are. At most [`RECEIPTS_MAX`].
    Receipts(Vec<takedown::Receipt>),
    /// Anti-entropy.
    Sync(sync::Message),
    /// To voters: a new holder has all that the old ones have.
    Synced(rebalance::Synced),
    /// To voters: the sender knows its envelope's epoch.
    Knows,
    /// A process of the receiver's name lives that started then.
    Superseded(u64),
    /// Which versions of the protocol do the nodes of your cell speak?
    SpokenAsk,
    /// These, as the sender has lately heard from themselves. At most [`SPEAKERS_MAX`].
    Spoken(Vec<Speaker>),
    /// To voters: of the sender's drives that the map has, just these are out, for a while already. At most
    /// [`VOLUMES_PER_NODE_MAX`].
    Out(Vec<VolumeId>),
}

/// What a node was heard to speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Speaker {
    /// Which node.
    pub node: NodeId,
    /// The newest version of the protocol that it speaks.
    pub protocol: u8,
    /// How long ago it was heard, in ms.
    pub age_ms: u32,
}

/// The bytes are no envelope.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadEnvelope {
    /// They do not decode.
    #[error(transparent)]
    Bytes(#[from] BadBytes),
    /// The records in it break a rule.
    #[error(transparent)]
    State(#[from] BadState),
    /// The datagram in it is none.
    #[error("datagram has {got} bytes; the most is {max}")]
    Datagram {
        /// Its length.
        got: usize,
        /// The bound.
        max: usize,
    },
    /// It does not decode, and its sender speaks a later version of the protocol: it should not have sent it before the
    /// cluster was finalised at that one. Drop it and count it: whoever carried it does nothing wrong.
    #[error(
        "it speaks protocol {protocol}, {newest} is the newest that is spoken here, and its message is none of that"
    )]
    Later {
        /// What its sender speaks.
        protocol: u8,
        /// The newest that is spoken here.
        newest: u8,
        /// The sender's epoch, where it brings records of the map's log: tell
        /// [`Input::LaterRecords`](super::Input::LaterRecords).
        records_at: Option<u64>,
    },
}

impl Message {
    /// The version of the protocol that it came with.
    #[must_use]
    pub const fn since(&self) -> u8 {
        match self {
            Self::Swim(_)
            | Self::Raft(_)
            | Self::Seek(_)
            | Self::Found(_)
            | Self::Behind(_)
            | Self::Epochs(_)
            | Self::TakedownAsk(..)
            | Self::TakedownAnswer(..)
            | Self::ReceiptsAsk(..)
            | Self::Receipts(_)
            | Self::Sync(_)
            | Self::Synced(_)
            | Self::Knows
            | Self::Superseded(_)
            | Self::SpokenAsk
            | Self::Spoken(_)
            | Self::Out(_) => PROTOCOL_OF_NODES,
        }
    }

    const fn tag(&self) -> u8 {
        match self {
            Self::Swim(_) => 1,
            Self::Raft(_) => 2,
            Self::Seek(_) => 3,
            Self::Found(_) => 4,
            Self::Behind(_) => 5,
            Self::Epochs(_) => EPOCHS,
            Self::TakedownAsk(..) => 7,
            Self::TakedownAnswer(..) => 8,
            Self::ReceiptsAsk(..) => 9,
            Self::Receipts(_) => 10,
            Self::Sync(_) => 11,
            Self::Synced(_) => 12,
            Self::Knows => 13,
            Self::Superseded(_) => 14,
            Self::SpokenAsk => 15,
            Self::Spoken(_) => 16,
            Self::Out(_) => 17,
        }
    }

    /// Whether it is sent only to whoever asked.
    pub(super) const fn is_answer(&self) -> bool {
        matches!(self, Self::Found(_) | Self::TakedownAnswer(..) | Self::Receipts(_) | Self::Spoken(_))
    }

    fn write(&self, out: &mut Writer) {
        match self {
            Self::Swim(bytes) => out.raw(bytes),
            Self::Raft(message) => out.raw(&message.encode()),
            Self::Seek(asked) => out.raw(&asked.encode()),
            Self::Found(answered) => out.raw(&answered.encode()),
            Self::Behind(number) | Self::Superseded(number) => out.u64(*number),
            Self::Epochs(batch) => out.raw(&batch.encode()),
            Self::TakedownAsk(number, ask) => {
                out.u64(*number);
                out.raw(&ask.encode());
            }
            Self::TakedownAnswer(number, answer) => {
                out.u64(*number);
                out.raw(&answer.encode());
            }
            Self::ReceiptsAsk(volume, tracks) => {
                out.volume(volume);
                out.list(tracks.iter(), |out, track| out.raw(track.as_bytes()));
            }
            Self::Receipts(receipts) => out.list(receipts.iter(), |out, receipt| out.raw(&receipt.encode())),
            Self::Sync(message) => out.raw(&message.encode()),
            Self::Synced(synced) => out.raw(&synced.encode()),
            Self::Knows | Self::SpokenAsk => {}
            Self::Spoken(speakers) => out.list(speakers.iter(), |out, speaker| {
                out.node(&speaker.node);
                out.u8(speaker.protocol);
                out.u32(speaker.age_ms);
            }),
            Self::Out(volumes) => out.list(volumes.iter(), Writer::volume),
        }
    }

    /// The message of this tag that the rest of `from` is.
    fn read(tag: u8, mut from: Reader<'_>) -> Result<Self, BadEnvelope> {
        let message = match tag {
            1 => {
                let (bytes, max) = (from.rest(), crate::liveness::DATAGRAM_BYTES_MAX);
                if bytes.len() > max {
                    return Err(BadEnvelope::Datagram { got: bytes.len(), max });
                }
                Self::Swim(bytes.to_vec())
            }
            2 => Self::Raft(Box::new(log::Message::decode(from.rest())?)),
            3 => Self::Seek(Asked::decode(from.rest())?),
            4 => Self::Found(Answered::decode(from.rest())?),
            5 => Self::Behind(from.u64()?),
            EPOCHS => Self::Epochs(Box::new(Batch::decode(from.rest())?)),
            7 => Self::TakedownAsk(from.u64()?, takedown::Ask::decode(from.rest())?),
            8 => Self::TakedownAnswer(from.u64()?, takedown::Answer::decode(from.rest())?),
            9 => {
                let volume = from.volume()?;
                let tracks = from.list(32, |from| from.array().map(TrackId::from_bytes))?;
                Self::ReceiptsAsk(volume, bounded("tracks", tracks, RECEIPTS_MAX)?)
            }
            10 => {
                let receipt = |from: &mut Reader<'_>| takedown::Receipt::decode(from.raw(takedown::Receipt::BYTES)?);
                Self::Receipts(bounded("receipts", from.list(takedown::Receipt::BYTES, receipt)?, RECEIPTS_MAX)?)
            }
            11 => Self::Sync(sync::Message::decode(from.rest())?),
            12 => Self::Synced(rebalance::Synced::decode(from.rest())?),
            13 => Self::Knows,
            14 => Self::Superseded(from.u64()?),
            15 => Self::SpokenAsk,
            16 => {
                let speaker = |from: &mut Reader<'_>| {
                    Ok(Speaker { node: from.node()?, protocol: from.u8()?, age_ms: from.u32()? })
                };
                Self::Spoken(bounded("speakers", from.list(37, speaker)?, SPEAKERS_MAX)?)
            }
            17 => Self::Out(bounded("volumes", from.list(16, Reader::volume)?, VOLUMES_PER_NODE_MAX)?),
            got => return Err(BadBytes::Tag { what: "envelope", got }.into()),
        };
        from.finish()?;
        Ok(message)
    }
}

fn bounded<T>(what: &'static str, items: Vec<T>, max: usize) -> Result<Vec<T>, BadBytes> {
    let got = items.len();
    if got > max { Err(BadBytes::TooLong { what, got, max }) } else { Ok(items) }
}

impl Envelope {
    /// The envelope's bytes: at most [`ENVELOPE_BYTES_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION);
        out.u8(self.protocol);
        out.u64(self.epoch);
        out.u64(self.line);
        out.u64(self.life);
        out.u8(self.message.tag());
        self.message.write(&mut out);
        out.finish()
    }

    /// The envelope of these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadEnvelope> {
        Self::decode_up_to(PROTOCOL_VERSION, bytes)
    }

    /// As [`decode`](Self::decode), where `newest` is the newest version of the protocol that is spoken: what came after it
    /// does not decode, as with a program that does not know it.
    pub fn decode_up_to(newest: u8, bytes: &[u8]) -> Result<Self, BadEnvelope> {
        let read = Self::read(newest, bytes);
        match bytes {
            [version, protocol, ..] if read.is_err() && *protocol > newest && bytes.len() <= ENVELOPE_BYTES_MAX => {
                let has_records = *version == VERSION && bytes.get(TAG_AT) == Some(&EPOCHS);
                let epoch = || bytes[2..].first_chunk().copied().map(u64::from_le_bytes);
                let records_at = if has_records { epoch() } else { None };
                Err(BadEnvelope::Later { protocol: *protocol, newest, records_at })
            }
            _ => read,
        }
    }

    fn read(newest: u8, bytes: &[u8]) -> Result<Self, BadEnvelope> {
        let mut from = Reader::new(bytes, "envelope", ENVELOPE_BYTES_MAX)?;
        from.version(VERSION)?;
        let (protocol, epoch, line, life, tag) = (from.u8()?, from.u64()?, from.u64()?, from.u64()?, from.u8()?);
        let message = Message::read(tag, from)?;
        if message.since() > newest {
            return Err(BadBytes::Tag { what: "envelope", got: tag }.into());
        }
        Ok(Self { protocol, epoch, line, life, message })
    }
}
