//! The log as the crate `raft` reads it: what was handed to the driver to make durable, kept in memory.

use raft::eraftpb::{Entry as RaftEntry, Snapshot as RaftSnapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

use super::durable::{Durable, Persist};

/// A voter's log in memory. Raft looks here for whatever it has passed on, durable yet or not: it counts by itself what
/// was acknowledged.
pub(super) struct LogStore(pub(super) Durable);

impl LogStore {
    pub(super) fn apply(&mut self, step: &Persist) {
        self.0.apply(step);
    }

    fn at(&self, index: u64) -> raft::Result<usize> {
        let after = index.checked_sub(self.0.snapshot.index + 1).ok_or(Error::Store(StorageError::Compacted))?;
        usize::try_from(after).map_err(|_| Error::Store(StorageError::Unavailable))
    }
}

impl Storage for LogStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.0.vote.to_raft(), self.0.snapshot.conf()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<RaftEntry>> {
        let range = self.at(low)?..self.at(high)?;
        let entries = self.0.entries.get(range).ok_or(Error::Store(StorageError::Unavailable))?;
        let mut room = max_size.into().unwrap_or(u64::MAX);
        let mut fits = |bytes: usize| {
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            let fits = bytes <= room;
            room = room.saturating_sub(bytes);
            fits
        };
        // The first is given whatever its length: Raft could not go on without it.
        let count = entries.iter().take_while(|entry| fits(entry.data.len() + entry.context.len() + 32)).count();
        Ok(entries.iter().take(count.max(1)).map(super::Entry::to_raft).collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.0.snapshot.index {
            return Ok(self.0.snapshot.term);
        }
        let entry = self.0.entries.get(self.at(index)?);
        entry.map(|entry| entry.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.0.snapshot.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.0.last_index())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<RaftSnapshot> {
        if self.0.snapshot.index == 0 || self.0.snapshot.index < request_index {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(self.0.snapshot.to_raft())
    }
}
