//! When the holders of each partition changed last.

use std::sync::Arc;

use deadwax_track::Partition;

use super::touch::Touch;

const PARTITIONS: usize = 1 << 16;

/// Since which epoch each partition lies where it lies: known for longer than records are kept, since a put may take
/// longer than 64 records of a rebalance do.
///
/// Known from the epoch on at which this history began, so it may differ between two histories of one chain: no
/// decision of the log rests on it.
#[derive(Clone, Debug)]
pub(super) struct Moves {
    /// What happened up to this epoch is not known.
    began: u64,
    /// The newest epoch that may have moved every partition.
    all: u64,
    /// The newest epoch that named each partition; empty: none did. Copies of a history share these 512 KiB until the
    /// next record that names one.
    each: Arc<Vec<u64>>,
}

impl Moves {
    pub(super) fn since(began: u64) -> Self {
        Self { began, all: began, each: Arc::default() }
    }

    /// The record of `epoch`, newer than all before, touched this.
    pub(super) fn note(&mut self, epoch: u64, touch: &Touch) {
        if touch.moves_all() {
            self.all = epoch;
            self.each = Arc::default();
            return;
        }
        let mut named = touch.moved().peekable();
        if named.peek().is_some() {
            let each = Arc::make_mut(&mut self.each);
            each.resize(PARTITIONS, 0);
            named.for_each(|partition| each[usize::from(partition.0)] = epoch);
        }
    }

    /// Whether `partition` may have moved after `epoch`.
    pub(super) fn moved_since(&self, partition: Partition, epoch: u64) -> bool {
        let named = self.each.get(usize::from(partition.0)).copied().unwrap_or_default();
        epoch < self.all.max(named)
    }

    /// Whether this knows all that `other` does about what came before it.
    pub(super) const fn reaches(&self, other: &Self) -> bool {
        self.began <= other.began
    }

    /// Forgets what `other` does not know, so that both say the same.
    pub(super) fn forget_as(&mut self, other: &Self) {
        self.began = self.began.max(other.began);
        self.all = self.all.max(self.began);
    }
}
