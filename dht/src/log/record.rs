//! A record of the log, and a proposal of one.

use super::change::Change;
use super::codec::{BadBytes, Reader, Writer};
use super::{PROPOSAL_BYTES_MAX, RECORD_BYTES_MAX};
use crate::NodeId;

/// The version of a record's bytes. 1, which was never released: with each list of volumes wherever it is meant; 2: with
/// [numbers](super::lists).
const RECORD_VERSION: u8 = 2;
/// The version of a proposal's bytes: as a record's.
const PROPOSAL_VERSION: u8 = 2;

/// One epoch: what changed, chained to the epoch before it.
///
/// ```text
/// version u8 │ epoch u64 │ previous 32 │ state 32 │ change: tag u8, its fields
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The epoch that it makes: one more than its predecessor's.
    pub epoch: u64,
    /// BLAKE3 of the predecessor's bytes; zeros in the first record.
    pub previous: [u8; 32],
    /// BLAKE3 of the state's bytes after the change: whoever comes to another state has found a fault before it acts
    /// on it, and a checkpoint is bound to the chain.
    pub state: [u8; 32],
    /// What changed.
    pub change: Change,
}

impl Record {
    /// The record's bytes.
    ///
    /// # Panics
    ///
    /// When a name in the change has 64 KiB or more; no record of a [`History`](super::History) does.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(RECORD_VERSION);
        out.u64(self.epoch);
        out.raw(&self.previous);
        out.raw(&self.state);
        self.change.write(&mut out);
        out.finish()
    }

    /// The record of these bytes: at most [`RECORD_BYTES_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let mut from = Reader::new(bytes, "record", RECORD_BYTES_MAX)?;
        from.version(RECORD_VERSION)?;
        let record = Self {
            epoch: from.u64()?,
            previous: from.array()?,
            state: from.array()?,
            change: Change::read(&mut from)?,
        };
        from.finish()?;
        Ok(record)
    }

    /// BLAKE3 of the record's bytes: what its successor calls `previous`.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.encode()).as_bytes()
    }
}

/// The name that a proposer gives its proposal, to know the answer by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket {
    /// The proposer.
    pub node: NodeId,
    /// Its own number for the proposal; not used twice.
    pub number: u64,
}

/// A change that somebody wants, and what they knew when they wanted it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// Whose it is.
    pub ticket: Ticket,
    /// The epoch that the change was planned at. It still comes to be after later ones that touched nothing it touches.
    pub base: u64,
    /// What is to change.
    pub change: Change,
}

impl Proposal {
    /// The proposal's bytes.
    ///
    /// # Panics
    ///
    /// When a name in the change has 64 KiB or more.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(PROPOSAL_VERSION);
        out.node(&self.ticket.node);
        out.u64(self.ticket.number);
        out.u64(self.base);
        self.change.write(&mut out);
        out.finish()
    }

    /// The proposal of these bytes: at most [`PROPOSAL_BYTES_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let mut from = Reader::new(bytes, "proposal", PROPOSAL_BYTES_MAX)?;
        from.version(PROPOSAL_VERSION)?;
        let ticket = Ticket { node: from.node()?, number: from.u64()? };
        let proposal = Self { ticket, base: from.u64()?, change: Change::read(&mut from)? };
        from.finish()?;
        Ok(proposal)
    }
}
