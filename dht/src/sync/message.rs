//! The bytes of anti-entropy's messages.

use deadwax_track::{Partition, TrackId};

use super::branch::Branch;
use super::{ENTRIES_MAX, IDS_MAX, SHORTS_MAX};
use crate::VolumeId;
use crate::log::{BadBytes, Reader, Writer};

/// The version of a message's bytes. 1: the first.
const VERSION: u8 = 1;
/// The most bytes of a message.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// The most bits of an id that choose its bucket.
pub const BITS_MAX: u8 = 10;

const _: () = assert!(100 + 8 * SHORTS_MAX + (2 << BITS_MAX) < MESSAGE_BYTES_MAX);
const _: () = assert!(100 + 32 * IDS_MAX + 8 * SHORTS_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(100 + 11 * ENTRIES_MAX < MESSAGE_BYTES_MAX);

/// A branch and what the sender has in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Which branch.
    pub branch: Branch,
    /// XOR over its partitions that sender and receiver share, as the sender sees it; 0: they share none there.
    pub digest: u64,
}

/// What volumes tell each other: from a volume of the sender to one of the receiver's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The sender's volume.
    pub from: VolumeId,
    /// The receiver's volume.
    pub to: VolumeId,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// A step of a comparison. Of the branches that the receiver sent last (step 0: none), those in `range` that
    /// overlap none of these are equal; those that do are answered by all their children that are shared, or by
    /// themselves.
    Compare {
        /// The sender's number of the comparison.
        number: u64,
        /// The receiver's; 0 where the sender does not know it yet.
        echo: u64,
        /// Counts the messages of the comparison, from 0.
        step: u8,
        /// The sender wants an answer even if there is nothing to say but that all is equal.
        wants: bool,
        /// What of the receiver's last message was looked at: partitions from the first number to before the second.
        range: (u32, u32),
        /// In rising order; none overlaps another.
        entries: Vec<Entry>,
    },
    /// A partition was found to differ: send the digests of its buckets, unless it is equal by now.
    Ask {
        /// Which partition.
        partition: Partition,
        /// The digest of the partition alone, as in an [`Entry`].
        cell: u64,
    },
    /// What the sender has of a partition, in `2^bits` ranges of ids of equal width.
    Buckets {
        /// Which partition.
        partition: Partition,
        /// What the short forms are mixed with: nobody can make tracks whose short forms collide.
        salt: u64,
        /// XOR of the short forms of each bucket's ids; as many as there are buckets.
        digests: Vec<u64>,
    },
    /// The sender's ids in those buckets that differ.
    Shorts {
        /// Which partition.
        partition: Partition,
        /// The salt of the buckets.
        salt: u64,
        /// How many buckets, as a power of two.
        bits: u8,
        /// Which buckets: rising.
        buckets: Vec<u16>,
        /// The short forms of the ids in them: rising.
        shorts: Vec<u64>,
    },
    /// Ids that the receiver seems to lack, and short forms of those that the sender lacks.
    Ids {
        /// Which partition.
        partition: Partition,
        /// Tracks that the sender has: rising, all of the partition.
        has: Vec<TrackId>,
        /// The salt of `wants`.
        salt: u64,
        /// Short forms of ids that the sender lacks: rising. The receiver answers with those ids.
        wants: Vec<u64>,
    },
    /// Strays of the sender, whose holder the receiver is: which of them does it have?
    Offer {
        /// To be repeated in the answer.
        number: u64,
        /// Rising, all of one partition; one at least.
        ids: Vec<TrackId>,
    },
    /// Which of the offered tracks are held by the sender, as a holder.
    Has {
        /// The number of the offer.
        number: u64,
        /// A byte for each, 1: held.
        held: Vec<bool>,
    },
}

impl Message {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION);
        out.volume(&self.from);
        out.volume(&self.to);
        match &self.body {
            Body::Compare { number, echo, step, wants, range, entries } => {
                out.u8(1);
                out.u64(*number);
                out.u64(*echo);
                out.u8(*step);
                out.bool(*wants);
                out.u32(range.0);
                out.u32(range.1);
                out.list(entries.iter(), |out, entry| {
                    out.u8(entry.branch.depth);
                    out.u16(entry.branch.first);
                    out.u64(entry.digest);
                });
            }
            Body::Ask { partition, cell } => {
                out.u8(2);
                out.u16(partition.0);
                out.u64(*cell);
            }
            Body::Buckets { partition, salt, digests } => {
                out.u8(3);
                out.u16(partition.0);
                out.u64(*salt);
                write_shorts(&mut out, digests);
            }
            Body::Shorts { partition, salt, bits, buckets, shorts } => {
                out.u8(4);
                out.u16(partition.0);
                out.u64(*salt);
                out.u8(*bits);
                out.list(buckets.iter(), |out, bucket| out.u16(*bucket));
                write_shorts(&mut out, shorts);
            }
            Body::Ids { partition, has, salt, wants } => {
                out.u8(5);
                out.u16(partition.0);
                write_ids(&mut out, has);
                out.u64(*salt);
                write_shorts(&mut out, wants);
            }
            Body::Offer { number, ids } => {
                out.u8(6);
                out.u64(*number);
                write_ids(&mut out, ids);
            }
            Body::Has { number, held } => {
                out.u8(7);
                out.u64(*number);
                out.list(held.iter(), |out, held| out.bool(*held));
            }
        }
        out.finish()
    }

    /// The message of these bytes. An error: its sender is faulty, drop it.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let mut from = Reader::new(bytes, "message of anti-entropy", MESSAGE_BYTES_MAX)?;
        from.version(VERSION)?;
        let message = Self { from: from.volume()?, to: from.volume()?, body: Body::read(&mut from)? };
        from.finish()?;
        Ok(message)
    }
}

impl Body {
    fn read(from: &mut Reader<'_>) -> Result<Self, BadBytes> {
        let partition = |from: &mut Reader<'_>| from.u16().map(Partition);
        match from.u8()? {
            1 => Self::read_compare(from),
            2 => Ok(Self::Ask { partition: partition(from)?, cell: from.u64()? }),
            3 => {
                let (partition, salt) = (partition(from)?, from.u64()?);
                let digests = bounded("buckets", 1 << BITS_MAX, from.list(8, Reader::u64)?)?;
                if !digests.len().is_power_of_two() {
                    return Err(BadBytes::Tag { what: "count of buckets", got: low(digests.len()) });
                }
                Ok(Self::Buckets { partition, salt, digests })
            }
            4 => Self::read_shorts(from),
            5 => {
                let partition = partition(from)?;
                let has = read_ids(from)?;
                if has.first().is_some_and(|id| id.partition() != partition) {
                    return Err(BadBytes::Order("ids of the partition"));
                }
                Ok(Self::Ids { partition, has, salt: from.u64()?, wants: read_shorts(from)? })
            }
            6 => {
                let (number, ids) = (from.u64()?, read_ids(from)?);
                if ids.is_empty() { Err(BadBytes::Short) } else { Ok(Self::Offer { number, ids }) }
            }
            7 => {
                let number = from.u64()?;
                let held = bounded("answers", IDS_MAX, from.list(1, |from| from.bool("held"))?)?;
                Ok(Self::Has { number, held })
            }
            got => Err(BadBytes::Tag { what: "message of anti-entropy", got }),
        }
    }

    fn read_compare(from: &mut Reader<'_>) -> Result<Self, BadBytes> {
        let (number, echo, step) = (from.u64()?, from.u64()?, from.u8()?);
        let (wants, range) = (from.bool("wants")?, (from.u32()?, from.u32()?));
        let entries = bounded(
            "entries",
            ENTRIES_MAX,
            from.list(11, |from| {
                let branch = Branch { depth: from.u8()?, first: from.u16()? };
                if !branch.is_sound() {
                    return Err(BadBytes::Tag { what: "depth of a branch", got: branch.depth });
                }
                Ok(Entry { branch, digest: from.u64()? })
            })?,
        )?;
        let after = |pair: &[Entry]| pair[0].branch.end() <= u32::from(pair[1].branch.first);
        if !entries.windows(2).all(after) {
            return Err(BadBytes::Order("branches"));
        }
        Ok(Self::Compare { number, echo, step, wants, range, entries })
    }

    fn read_shorts(from: &mut Reader<'_>) -> Result<Self, BadBytes> {
        let (partition, salt, bits) = (Partition(from.u16()?), from.u64()?, from.u8()?);
        if bits > BITS_MAX {
            return Err(BadBytes::Tag { what: "bits of buckets", got: bits });
        }
        let buckets = rising("buckets", bounded("buckets", 1 << BITS_MAX, from.list(2, Reader::u16)?)?)?;
        if let Some(&last) = buckets.last().filter(|last| **last >> bits != 0) {
            return Err(BadBytes::Tag { what: "bucket", got: low(usize::from(last)) });
        }
        Ok(Self::Shorts { partition, salt, bits, buckets, shorts: read_shorts(from)? })
    }
}

/// The lowest byte: errors carry no more.
fn low(number: usize) -> u8 {
    number.to_le_bytes()[0]
}

fn write_shorts(out: &mut Writer, shorts: &[u64]) {
    out.list(shorts.iter(), |out, short| out.u64(*short));
}

fn read_shorts(from: &mut Reader<'_>) -> Result<Vec<u64>, BadBytes> {
    rising("short forms", bounded("short forms", SHORTS_MAX, from.list(8, Reader::u64)?)?)
}

fn write_ids(out: &mut Writer, ids: &[TrackId]) {
    out.list(ids.iter(), |out, id| out.raw(id.as_bytes()));
}

/// Rising ids of one partition.
fn read_ids(from: &mut Reader<'_>) -> Result<Vec<TrackId>, BadBytes> {
    let ids = from.list(32, |from| from.array().map(TrackId::from_bytes))?;
    let ids = rising("ids", bounded("ids", IDS_MAX, ids)?)?;
    if ids.first().map(TrackId::partition) == ids.last().map(TrackId::partition) {
        Ok(ids)
    } else {
        Err(BadBytes::Order("ids of one partition"))
    }
}

fn bounded<T>(what: &'static str, max: usize, items: Vec<T>) -> Result<Vec<T>, BadBytes> {
    let got = items.len();
    if got > max { Err(BadBytes::TooLong { what, got, max }) } else { Ok(items) }
}

fn rising<T: Ord>(what: &'static str, items: Vec<T>) -> Result<Vec<T>, BadBytes> {
    if items.windows(2).all(|pair| pair[0] < pair[1]) { Ok(items) } else { Err(BadBytes::Order(what)) }
}
