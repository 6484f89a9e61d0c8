//! What one node gives another that is behind.

use std::sync::Arc;

use super::codec::{BadBytes, Reader, Writer};
use super::history::BadHistory;
use super::record::Record;
use super::state::{BadState, State};
use super::undo::Undos;
use super::{BATCH_BYTES_MAX, RECORDS_MAX};

/// The version of a batch's bytes. 1, which was never released: without what was before changes; 2: with it.
const BATCH_VERSION: u8 = 2;

/// A state, and the record that made it: where a chain can be taken up without what was before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// The record of the checkpoint's epoch.
    pub record: Record,
    /// The state after it.
    pub state: State,
    /// What was before changes up to it. Nothing but the sender's word says so.
    pub(super) undos: Undos,
}

impl Checkpoint {
    /// Whether the state is the one that the record speaks of.
    pub(super) fn check(&self) -> Result<(), BadHistory> {
        let epoch = self.record.epoch;
        if self.state.epoch() != epoch || self.state.hash() != self.record.state {
            return Err(BadHistory::State { epoch });
        }
        Ok(())
    }
}

/// What a node is missing: records, and a checkpoint before them where it is too far behind for records alone. A copy
/// of it shares them: those with a whole map have megabytes in a large cluster.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Batch {
    /// Where to begin, unless the receiver goes on from what it has.
    pub checkpoint: Option<Arc<Checkpoint>>,
    /// Records, each the successor of the one before; [`RECORDS_MAX`] at most.
    pub records: Vec<Arc<Record>>,
}

impl Batch {
    /// Whether there is nothing in it: the receiver is as far as the sender.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.checkpoint.is_none() && self.records.is_empty()
    }

    /// The batch's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(BATCH_VERSION);
        out.bool(self.checkpoint.is_some());
        if let Some(checkpoint) = &self.checkpoint {
            out.blob(&checkpoint.record.encode());
            out.blob(&checkpoint.state.encode());
            checkpoint.undos.write(&mut out);
        }
        out.list(self.records.iter(), |out, record| out.blob(&record.encode()));
        out.finish()
    }

    /// The batch of these bytes: at most [`BATCH_BYTES_MAX`]. The chain is not checked yet: a
    /// [`History`](super::History) does.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadState> {
        let mut from = Reader::new(bytes, "batch", BATCH_BYTES_MAX)?;
        from.version(BATCH_VERSION)?;
        let checkpoint = if from.bool("checkpoint")? {
            let record = Record::decode(from.blob()?)?;
            let state = State::decode(from.blob()?)?;
            let undos = Undos::read(&mut from, record.epoch)?;
            Some(Arc::new(Checkpoint { record, state, undos }))
        } else {
            None
        };
        let records = from.list(4, |from| Record::decode(from.blob()?).map(Arc::new))?;
        if records.len() > RECORDS_MAX {
            return Err(BadBytes::TooLong { what: "list of records", got: records.len(), max: RECORDS_MAX }.into());
        }
        from.finish()?;
        Ok(Self { checkpoint, records })
    }
}
