//! When a node tells the voters outside its cell who of the cell is not there.
//!
//! The first [`SPEAKERS`] members of a cell that are there do, each as it sees the cell: every half a minute, and soon
//! after something changed.

use crate::NodeId;
use crate::random::Random;

/// How many members speak for a cell: one may be wrong or new, and another's word be lost.
const SPEAKERS: u32 = 3;
/// How often each speaks, in ms of the driver's clock.
const PERIOD_MS: u64 = 30 * 1_000;
/// How long a change waits at most, so that others that belong to it go with it.
const PAUSE_MS: u64 = 2_000;

#[derive(Debug)]
pub(super) struct Herald {
    /// The voters outside the cell.
    voters: Vec<NodeId>,
    speaks: bool,
    /// Whether something is to be told before the period is over.
    owes: bool,
    said: u64,
    said_at: u64,
    due: u64,
    random: Random,
}

impl Herald {
    pub(super) const fn new(seed: u64) -> Self {
        Self { voters: Vec::new(), speaks: false, owes: false, said: 0, said_at: 0, due: 0, random: Random(seed) }
    }

    /// Speaks to these from here on; soon, as they or the cell are new.
    pub(super) fn set_voters(&mut self, now: u64, voters: Vec<NodeId>) {
        self.voters = voters;
        (self.speaks, self.owes) = (false, false);
        self.said_at = now;
    }

    /// These are absent, bit by bit, where this node is the one numbered `own`.
    pub(super) fn set_absent(&mut self, now: u64, own: u32, absent: u64) {
        let before = (!absent & ((1 << own) - 1)).count_ones();
        let did = std::mem::replace(&mut self.speaks, before < SPEAKERS && !self.voters.is_empty());
        // Whoever need not speak any more still tells what it has not told: its last word counts for a while.
        self.owes |= if did { absent != self.said } else { self.speaks };
        if self.owes {
            let soon = now.max(self.said_at.min(now) + self.random.draw() % PAUSE_MS);
            self.due = if did { self.due.min(soon) } else { soon };
        }
        self.said = absent;
    }

    /// When to speak.
    pub(super) fn deadline(&self) -> Option<u64> {
        (self.speaks || self.owes).then_some(self.due)
    }

    /// The voters to be told now, and of whom.
    pub(super) fn poll(&mut self, now: u64) -> Option<(&[NodeId], u64)> {
        // A clock that went back must not silence it.
        self.due = self.due.min(now + PERIOD_MS);
        if self.voters.is_empty() || !(self.speaks || self.owes) || now < self.due {
            return None;
        }
        self.owes = false;
        (self.said_at, self.due) = (now, now + PERIOD_MS - self.random.draw() % (PERIOD_MS / 8));
        Some((&self.voters, self.said))
    }
}
