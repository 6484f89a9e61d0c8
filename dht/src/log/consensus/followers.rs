//! Who answers a leader.

use std::collections::BTreeMap;

/// When each seat last answered this voter as the leader of the present term. Raft's own note of it is forgotten at each of
/// its checks; and that a voter has once written something stays true for Raft, though its drive is lost.
pub(super) struct Followers {
    /// Ticks since this voter started.
    ticks: u64,
    /// A follower is heard of within so many ticks, even if several messages are lost.
    patience_ticks: u64,
    since: u64,
    answered: BTreeMap<u64, u64>,
}

impl Followers {
    pub(super) const fn new(patience_ticks: u64) -> Self {
        Self { ticks: 0, patience_ticks, since: 0, answered: BTreeMap::new() }
    }

    pub(super) const fn tick(&mut self) {
        self.ticks += 1;
    }

    /// This voter leads from here on.
    pub(super) fn begin(&mut self) {
        self.since = self.ticks;
        self.answered.clear();
    }

    /// Who sits in `seat`, which is one of the voters', has answered.
    pub(super) fn heard(&mut self, seat: u64) {
        self.answered.insert(seat, self.ticks);
    }

    /// Only these seats are voters'.
    pub(super) fn retain(&mut self, votes: impl Fn(u64) -> bool) {
        self.answered.retain(|seat, _| votes(*seat));
    }

    pub(super) fn answers(&self, seat: u64) -> bool {
        self.answered.get(&seat).is_some_and(|at| self.ticks - at <= self.patience_ticks)
    }

    /// Whether this voter leads for so long that whoever follows has answered.
    pub(super) const fn is_settled(&self) -> bool {
        self.ticks - self.since > self.patience_ticks
    }
}
