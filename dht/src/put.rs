//! When a put may begin, and when it is stored.

use std::collections::BTreeSet;

use crate::failure::{Failure, FailureKind, Verdict};
use crate::{Holder, Policy};

/// The rules of one put: which holders take part, when it is acknowledged, when it is given up.
///
/// The driver asks every holder at once, tells what each does (`handle_*`), and acts on [`poll`](Self::poll), which it
/// calls after each of them and at the time that a `Wait` names. Times are milliseconds of any one clock.
///
/// A put passes two phases. *Opening*: holders answer that they are ready, or have the track already, or fail. All are
/// waited for, the late ones for a grace: a quorum that has the track already does not end the put while another holder
/// may lack it, so that a put which is repeated heals. *Streaming*, after `poll` said [`Begin`](PutStep::Begin): the
/// ready ones get the bytes and become durable or fail. It is acknowledged at [`Policy::write_quorum`] durable copies in
/// [`Policy::zones_min`] zones (or as many as the holders lie in), of which one at least was sent, unless all that were
/// sent to have failed; and given up when the quorum is out of reach, not before.
#[derive(Clone, Debug)]
pub struct PutQuorum {
    holders: Vec<PutHolder>,
    copies_needed: usize,
    zones_needed: usize,
    grace: Grace,
    /// When the put first could have begun without the holders that have not answered.
    able_since: Option<u64>,
    streaming: bool,
}

/// How long a put that could begin waits for holders that have not answered, in ms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grace {
    /// For a holder that was well when last heard of. A holder that is left out lacks its copy until it is repaired.
    pub well_ms: u64,
    /// For a holder that could not be reached when it was last heard of.
    pub suspect_ms: u64,
}

#[derive(Clone, Debug)]
struct PutHolder {
    zone: usize,
    suspect: bool,
    state: PutState,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum PutState {
    Asked,
    Ready,
    /// It has the track; `already`: it had it before.
    Durable {
        already: bool,
    },
    Failed(Failure),
}

/// What the driver does next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PutStep {
    /// Wait for a holder, or until this time if there is one.
    Wait {
        /// When to poll again, if nothing happens before.
        until: Option<u64>,
    },
    /// A quorum has the track already, and no holder is known to lack it: nothing is sent.
    Already {
        /// How many copies there are.
        copies: usize,
        /// In how many zones.
        zones: usize,
    },
    /// Send the bytes to these holders (indexes), and drop the others that have no copy. Said once.
    Begin {
        /// Which holders.
        to: Vec<usize>,
    },
    /// It is stored. Holders that are still at it may go on: each one that finishes is one copy more.
    Acknowledged {
        /// How many copies are durable now.
        copies: usize,
        /// In how many zones.
        zones: usize,
    },
    /// It cannot be stored. [`failures`](PutQuorum::failures) says why, holder by holder.
    GiveUp(Verdict),
}

impl PutQuorum {
    /// A put to `holders`, all of which are being asked. `suspects`: those (by index) that were out of reach when
    /// last heard of.
    #[must_use]
    pub fn new(holders: &[Holder], policy: &Policy, suspects: &[usize], grace: Grace) -> Self {
        let zones: BTreeSet<usize> = holders.iter().map(|holder| holder.zone).collect();
        let put_holder = |(index, holder): (usize, &Holder)| PutHolder {
            zone: holder.zone,
            suspect: suspects.contains(&index),
            state: PutState::Asked,
        };
        Self {
            holders: holders.iter().enumerate().map(put_holder).collect(),
            copies_needed: usize::from(policy.write_quorum),
            zones_needed: usize::from(policy.zones_min).min(zones.len()),
            grace,
            able_since: None,
            streaming: false,
        }
    }

    /// The holder has reserved space and waits for the bytes.
    pub fn handle_ready(&mut self, holder: usize) {
        if self.holders[holder].state == PutState::Asked {
            self.holders[holder].state = PutState::Ready;
        }
    }

    /// The holder's copy is durable; `already`: it was before the put.
    pub fn handle_stored(&mut self, holder: usize, already: bool) {
        if matches!(self.holders[holder].state, PutState::Asked | PutState::Ready) {
            self.holders[holder].state = PutState::Durable { already };
        }
    }

    /// The holder takes no further part. What was durable stays so.
    pub fn handle_failed(&mut self, holder: usize, failure: Failure) {
        if matches!(self.holders[holder].state, PutState::Asked | PutState::Ready) {
            self.holders[holder].state = PutState::Failed(failure);
        }
    }

    /// What to do next.
    pub fn poll(&mut self, now: u64) -> PutStep {
        if let Some(number) = self.taken_down() {
            return PutStep::GiveUp(Verdict::TakenDown { number });
        }
        let (copies, zones) = self.durable();
        if self.streaming && self.enough(copies, zones) && self.sent_a_copy() {
            return PutStep::Acknowledged { copies, zones };
        }
        let (copies, zones) = self.count(|state| !matches!(state, PutState::Failed(_)));
        if !self.enough(copies, zones) {
            return PutStep::GiveUp(Verdict::of(self.failures().map(|(_, failure)| failure)));
        }
        if self.streaming { PutStep::Wait { until: None } } else { self.poll_opening(now) }
    }

    fn poll_opening(&mut self, now: u64) -> PutStep {
        let (copies, zones) = self.count(|state| matches!(state, PutState::Ready | PutState::Durable { .. }));
        if !self.enough(copies, zones) {
            return PutStep::Wait { until: None };
        }
        let since = *self.able_since.get_or_insert(now);
        let asked = || self.holders.iter().filter(|holder| holder.state == PutState::Asked);
        let grace_ms = if asked().any(|holder| !holder.suspect) {
            self.grace.well_ms
        } else if asked().any(|holder| holder.suspect) {
            self.grace.suspect_ms
        } else {
            0
        };
        let until = since.saturating_add(grace_ms);
        if now < until {
            return PutStep::Wait { until: Some(until) };
        }
        if !self.holders.iter().any(|holder| holder.state == PutState::Ready) {
            let (copies, zones) = self.durable();
            return PutStep::Already { copies, zones };
        }
        self.streaming = true;
        let late = || Failure::new(FailureKind::Stalled, format!("not ready {grace_ms} ms after a quorum was"));
        for holder in &mut self.holders {
            if holder.state == PutState::Asked {
                holder.state = PutState::Failed(late());
            }
        }
        let to = (0..self.holders.len()).filter(|index| self.holders[*index].state == PutState::Ready).collect();
        PutStep::Begin { to }
    }

    /// Whether a holder that was sent the bytes has them, or none will: copies that were there before the put do not
    /// show that it did anything.
    fn sent_a_copy(&self) -> bool {
        let any = |wanted: PutState| self.holders.iter().any(|holder| holder.state == wanted);
        any(PutState::Durable { already: false }) || !any(PutState::Ready)
    }

    /// How many copies are durable, in how many zones.
    #[must_use]
    pub fn durable(&self) -> (usize, usize) {
        self.count(|state| matches!(state, PutState::Durable { .. }))
    }

    /// The holders that failed, by index, and why.
    pub fn failures(&self) -> impl Iterator<Item = (usize, &Failure)> + Clone {
        self.holders.iter().enumerate().filter_map(|(index, holder)| match &holder.state {
            PutState::Failed(failure) => Some((index, failure)),
            _ => None,
        })
    }

    /// How many copies, in how many zones, a put needs.
    #[must_use]
    pub const fn needed(&self) -> (usize, usize) {
        (self.copies_needed, self.zones_needed)
    }

    fn taken_down(&self) -> Option<u64> {
        self.failures().find_map(|(_, failure)| match failure.kind {
            FailureKind::TakenDown { number } => Some(number),
            _ => None,
        })
    }

    fn count(&self, wanted: impl Fn(&PutState) -> bool) -> (usize, usize) {
        let wanted = || self.holders.iter().filter(|holder| wanted(&holder.state));
        let zones: BTreeSet<usize> = wanted().map(|holder| holder.zone).collect();
        (wanted().count(), zones.len())
    }

    const fn enough(&self, copies: usize, zones: usize) -> bool {
        copies >= self.copies_needed && zones >= self.zones_needed
    }
}
