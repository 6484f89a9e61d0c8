//! Whether what was taken down may be acknowledged: who of those that matter has it on the drive.

use std::collections::BTreeSet;

use super::{ANSWER_MS, Follow, FollowEffect, QUESTIONS_MAX};
use crate::NodeId;
use crate::takedown::{Heads, IssueError, Name, RECORDS_MAX};

/// The most takedowns whose spread is awaited at once; one more is [`IssueError::Busy`].
pub const SPREADS_MAX: usize = 1_024;
/// How long it is awaited, in ms. Those who are asked again and again for so long cannot be reached.
const SPREAD_MS: u64 = 20_000;
/// How long holders are waited for once a majority has it, in ms: they are busy, or down, and stop serving within the lease.
const HOLDERS_MS: u64 = 2_000;
/// How soon those who lack it are asked again, in ms: first, and at most.
const AGAIN_MS: (u64, u64) = (20, 1_000);

/// How far a takedown has come, in flushed chains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spread {
    /// How many members have it.
    pub have: usize,
    /// How many members there are.
    pub members: usize,
}

impl Spread {
    /// Whether a majority has it: nobody begins to serve the track later than the lease after that, cut or no cut.
    #[must_use]
    pub const fn is_safe(&self) -> bool {
        self.have > self.members / 2
    }
}

/// Of these nodes so many should have it, or a put might find a quorum that does not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quorum {
    /// A track's holders.
    pub nodes: Vec<NodeId>,
    /// How many.
    pub needed: usize,
}

#[derive(Debug)]
struct Wait {
    /// The caller's number for it.
    number: u64,
    /// Where the record is in this log. Several where the issuer forked: all count.
    slots: Vec<u32>,
    quorums: Vec<Quorum>,
    /// Who has it, flushed, but for this node.
    have: BTreeSet<NodeId>,
    /// Since when a majority has it.
    safe_since: Option<u64>,
    ends: u64,
}

/// The takedowns whose spread is awaited.
#[derive(Default, Debug)]
pub(super) struct Spreads {
    waits: Vec<Wait>,
    /// When those who lack them are asked again, and how long after that.
    due: u64,
    pause_ms: u64,
    /// Something came that may have been waited for.
    woken: bool,
}

impl Spreads {
    /// When to poll, in ms.
    pub(super) fn due(&self) -> Option<u64> {
        (!self.waits.is_empty()).then_some(self.due)
    }
}

impl Follow {
    /// Awaits that a takedown which this log has is flushed by a majority of the members, and then for a moment that these
    /// holders have it too: [`FollowEffect::Spread`] says so, with the caller's `number`, or after 20 s that it is not.
    /// Those who lack it are asked again and again meanwhile: who is asked, and lacks what the asker has, asks back.
    pub fn await_spread(&mut self, now: u64, number: u64, name: &Name, quorums: Vec<Quorum>) -> Result<(), IssueError> {
        self.pass(now);
        let slots = self.log.slots_of(name);
        if slots.is_empty() {
            // It waits for its predecessors, and is in no chain.
            return Err(IssueError::Behind);
        }
        if self.spreads.waits.len() >= SPREADS_MAX {
            return Err(IssueError::Busy);
        }
        let ends = now.saturating_add(SPREAD_MS);
        self.spreads.waits.push(Wait { number, slots, quorums, have: BTreeSet::new(), safe_since: None, ends });
        // One that was issued just now is told to all when it is flushed.
        (self.spreads.due, self.spreads.pause_ms) = (now + AGAIN_MS.0, AGAIN_MS.0);
        Ok(())
    }

    /// Of how many takedowns the spread is awaited.
    #[must_use]
    pub const fn spreads(&self) -> usize {
        self.spreads.waits.len()
    }

    /// A node says what it has flushed.
    pub(super) fn hear_spread(&mut self, from: NodeId, heads: &Heads) {
        if self.spreads.waits.is_empty() {
            return;
        }
        let lacks = self.log.since(heads, RECORDS_MAX);
        // Of one that lacks more than can be listed nothing can be said.
        if lacks.len() == RECORDS_MAX {
            return;
        }
        for wait in &mut self.spreads.waits {
            if !wait.slots.iter().any(|slot| lacks.contains(slot)) {
                wait.have.insert(from);
            }
        }
        self.wake_spreads();
    }

    /// Something came that may have been waited for.
    pub(super) fn wake_spreads(&mut self) {
        self.spreads.woken = true;
    }

    /// Says which are spread, or never will be in time, and asks on.
    pub(super) fn poll_spreads(&mut self) {
        let is_due = self.spreads.due().is_some_and(|due| self.now >= due);
        if !std::mem::take(&mut self.spreads.woken) && !is_due {
            return;
        }
        let mut waits = std::mem::take(&mut self.spreads.waits);
        waits.retain_mut(|wait| !self.is_over(wait));
        let lack: BTreeSet<NodeId> = waits.iter().flat_map(|wait| self.lacking(wait)).collect();
        self.spreads.waits = waits;
        if !is_due {
            return;
        }
        for node in lack {
            // One that is being asked has not answered yet.
            let asked =
                |question: &super::Question| question.to == node && self.now < question.asked.saturating_add(ANSWER_MS);
            if self.questions.len() < QUESTIONS_MAX && !self.questions.values().any(asked) {
                self.ask(node);
            }
        }
        self.spreads.due = self.now + self.spreads.pause_ms;
        self.spreads.pause_ms = (self.spreads.pause_ms * 2).min(AGAIN_MS.1);
    }

    fn has(&self, wait: &Wait, node: &NodeId) -> bool {
        if *node == self.me { self.is_kept(wait) } else { wait.have.contains(node) }
    }

    /// Whether it is on this node's drive.
    fn is_kept(&self, wait: &Wait) -> bool {
        wait.slots.iter().all(|slot| *slot < self.slots)
    }

    fn is_over(&mut self, wait: &mut Wait) -> bool {
        let (me, members) = (usize::from(self.lease.is_member()), self.witnesses.len());
        let have = self.witnesses.iter().filter(|node| wait.have.contains(*node)).count();
        let spread = Spread { have: have + me * usize::from(self.is_kept(wait)), members: members + me };
        if spread.is_safe() && self.is_kept(wait) {
            wait.safe_since.get_or_insert(self.now);
        }
        let reached =
            |quorum: &Quorum| quorum.nodes.iter().filter(|node| self.has(wait, node)).count() >= quorum.needed;
        let patient = wait.safe_since.is_some_and(|since| self.now < since.saturating_add(HOLDERS_MS));
        let over = match wait.safe_since {
            Some(_) => !patient || wait.quorums.iter().all(reached),
            None => self.now >= wait.ends,
        };
        if over {
            self.effects.push(FollowEffect::Spread { number: wait.number, spread });
        }
        over
    }

    /// Whom it waits for.
    fn lacking(&self, wait: &Wait) -> Vec<NodeId> {
        let holders = wait.quorums.iter().flat_map(|quorum| &quorum.nodes);
        let others = self.witnesses.iter().chain(holders).filter(|node| **node != self.me);
        others.filter(|node| !wait.have.contains(node)).copied().collect()
    }
}
