//! The two messages by which logs follow each other.

use super::heads::bounded;
use super::{Basis, Heads, RECORDS_MAX, TAKEDOWN_BYTES, Takedown};
use crate::log::{BadBytes, Reader, Writer};

/// The version of both messages. 1: the first.
const VERSION: u8 = 1;

/// What do you have that I lack? The asker notes when it sent it.
///
/// ```text
/// version u8 │ known: heads
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ask {
    /// What the asker has: [`TakedownLog::locator`](super::TakedownLog::locator).
    pub known: Heads,
}

impl Ask {
    /// The most bytes.
    pub const BYTES_MAX: usize = 1 + Heads::BYTES_MAX;

    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION);
        self.known.write(&mut out);
        out.finish()
    }

    /// The question of these bytes: at most [`Ask::BYTES_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let mut from = Reader::new(bytes, "question", Self::BYTES_MAX)?;
        from.version(VERSION)?;
        let ask = Self { known: Heads::read(&mut from)? };
        from.finish()?;
        Ok(ask)
    }
}

/// What I have, all of it flushed.
///
/// ```text
/// version u8 │ synced u8 │ basis u8: 0 none, 1: epoch u64, half_age u32, majority_age u32, in ms │ heads
/// count u32 │ takedowns, 256 bytes each
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Whether it has caught up since it started: [`Lease::synced`](super::Lease::synced).
    pub synced: bool,
    /// What it knows of the members' logs by its own comparisons: [`Lease::basis`](super::Lease::basis), taken at one
    /// moment with the heads.
    pub basis: Option<Basis>,
    /// [`TakedownLog::heads`](super::TakedownLog::heads), taken at one moment with what follows.
    pub heads: Heads,
    /// Records that the asker lacks, or the first [`RECORDS_MAX`] of them.
    pub records: Vec<Takedown>,
}

impl Answer {
    /// The most bytes.
    pub const BYTES_MAX: usize = 23 + Heads::BYTES_MAX + RECORDS_MAX * TAKEDOWN_BYTES;

    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION);
        out.bool(self.synced);
        out.bool(self.basis.is_some());
        if let Some(Basis { epoch, half_age, majority_age }) = self.basis {
            out.u64(epoch);
            out.u32(half_age);
            out.u32(majority_age);
        }
        self.heads.write(&mut out);
        out.list(self.records.iter(), |out, record| out.raw(&record.encode()));
        out.finish()
    }

    /// The answer of these bytes: at most [`Answer::BYTES_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let mut from = Reader::new(bytes, "answer", Self::BYTES_MAX)?;
        from.version(VERSION)?;
        let synced = from.bool("synced")?;
        let basis = from.bool("basis")?.then(|| Basis::read(&mut from)).transpose()?;
        let heads = Heads::read(&mut from)?;
        let records = from.list(TAKEDOWN_BYTES, Takedown::read)?;
        bounded("takedowns", records.len(), RECORDS_MAX)?;
        from.finish()?;
        Ok(Self { synced, basis, heads, records })
    }
}

impl Basis {
    fn read(from: &mut Reader<'_>) -> Result<Self, BadBytes> {
        Ok(Self { epoch: from.u64()?, half_age: from.u32()?, majority_age: from.u32()? })
    }
}
