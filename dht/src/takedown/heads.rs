//! How far a log has each issuer's chain.

use std::collections::BTreeMap;

use super::chain::half;
use super::{ISSUERS_MAX, MARKS_MAX, Takedown};
use crate::log::{BadBytes, Reader, Writer};

/// The version of the bytes of heads. 1: the first.
const VERSION: u8 = 1;

/// A record that a log has, and with it all before it in its chain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mark {
    /// The record's number.
    pub number: u64,
    /// The first 16 bytes of its hash: 128 bits keep an issuer from making two records that pass for one.
    pub hash: [u8; 16],
}

/// Marks of each issuer, in rising order: the last record of every branch; in a question also records ever further back
/// (as in Bitcoin's block locator), so that the other finds where two branches parted without a second question.
///
/// ```text
/// version u8 │ count u32 │ each: issuer 32, count u32, each: number u64, hash 16
/// ```
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Heads(pub(super) BTreeMap<[u8; 32], Vec<Mark>>);

impl Heads {
    /// The most bytes of heads.
    pub const BYTES_MAX: usize = 5 + ISSUERS_MAX * (36 + 24 * MARKS_MAX);

    /// The marks of `issuer`, in rising order.
    #[must_use]
    pub fn of(&self, issuer: &[u8; 32]) -> &[Mark] {
        self.0.get(issuer).map_or(&[], Vec::as_slice)
    }

    /// Whether no issuer has said anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What whoever had these has when these records have come, which [`TakedownLog::since`](super::TakedownLog::since)
    /// gave for them: each takes its predecessor's place, or stands beside it where the issuer forked.
    #[must_use]
    pub fn advanced(mut self, records: &[Takedown]) -> Self {
        for record in records {
            let marks = self.0.entry(record.issuer).or_default();
            let previous = half(&record.previous);
            marks.retain(|mark| mark.number.checked_add(1) != Some(record.number) || mark.hash != previous);
            let new = Mark { number: record.number, hash: half(&record.hash()) };
            // No log has more branches.
            if let Err(at) = marks.binary_search(&new)
                && marks.len() < MARKS_MAX
            {
                marks.insert(at, new);
            }
        }
        // No log has more issuers: beyond, the sender is none.
        while self.0.len() > ISSUERS_MAX {
            self.0.pop_last();
        }
        self
    }

    /// BLAKE3 of the bytes. Two logs of equal [`TakedownLog::heads`](super::TakedownLog::heads) are equal.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        *blake3::hash(&self.encode()).as_bytes()
    }

    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        self.write(&mut out);
        out.finish()
    }

    pub(super) fn write(&self, out: &mut Writer) {
        out.u8(VERSION);
        out.list(self.0.iter(), |out, (issuer, marks)| {
            out.raw(issuer);
            out.list(marks.iter(), |out, mark| {
                out.u64(mark.number);
                out.raw(&mark.hash);
            });
        });
    }

    /// The heads of these bytes: at most [`Heads::BYTES_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let mut from = Reader::new(bytes, "heads", Self::BYTES_MAX)?;
        let heads = Self::read(&mut from)?;
        from.finish()?;
        Ok(heads)
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, BadBytes> {
        from.version(VERSION)?;
        let list = from.list(36, |from| {
            let issuer: [u8; 32] = from.array()?;
            let marks = from.list(24, |from| Ok(Mark { number: from.u64()?, hash: from.array()? }))?;
            bounded("marks", marks.len(), MARKS_MAX)?;
            rising("marks", &marks, |mark| *mark)?;
            Ok((issuer, marks))
        })?;
        bounded("issuers", list.len(), ISSUERS_MAX)?;
        rising("issuers", &list, |(issuer, _)| *issuer)?;
        if list.iter().any(|(_, marks)| marks.is_empty()) {
            // An issuer that has said nothing is not named: one form only.
            return Err(BadBytes::Short);
        }
        Ok(Self(list.into_iter().collect()))
    }
}

pub(super) fn bounded(what: &'static str, got: usize, max: usize) -> Result<(), BadBytes> {
    if got > max { Err(BadBytes::TooLong { what, got, max }) } else { Ok(()) }
}

fn rising<T, K: Ord>(what: &'static str, items: &[T], key: impl Fn(&T) -> K) -> Result<(), BadBytes> {
    if items.windows(2).all(|pair| key(&pair[0]) < key(&pair[1])) { Ok(()) } else { Err(BadBytes::Order(what)) }
}
