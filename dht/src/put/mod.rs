//! When a put may begin, who stands in for whom, and when it is stored.

mod step;

use crate::failure::{Failure, FailureKind, Verdict};
use crate::{Policy, Targets};

pub use self::step::{Grace, PutStep};

/// The rules of one put: which volumes take part, when it is acknowledged, when it is given up.
///
/// The driver does what [`poll`](Self::poll) says, tells what each target does (`handle_*`), and polls again after each
/// of them and at the time that a `Wait` names. Times are milliseconds of any one clock. It polls O(targets).
///
/// **Two phases.** *Opening*: holders answer that they are ready, or have the track already, or fail. All are waited
/// for, the late ones for a grace: a quorum that has the track already does not end the put while another holder may
/// lack it, so that a put which is repeated heals. *Streaming*, after `poll` said [`Begin`](PutStep::Begin): the ready
/// ones get the bytes and become durable or fail.
///
/// **Acknowledged** when each set of holders has [`Policy::write_quorum`] durable copies, and all durable copies lie in
/// [`Policy::zones_min`] zones, or as many as the holders lie in; and one at least was sent, unless all that were sent
/// to have failed. Given up when that is out of reach, not before; or when the deadline has passed.
///
/// **Stand-ins.** A holder that is suspect, fails or is late in opening has its share taken by the next volume in its
/// zone that holds no copy on its node. A stand-in counts as a copy and for the zones, never for the quorum, because a
/// reader's quorum of *absent* asks only holders: of the holders A, B and C let A and the stand-in for B be durable,
/// and the put acknowledged. Then B, which is back, and C truly say *absent*, which is a read quorum, and a stored
/// track is *not found*. Nobody stands in once the bytes flow: those that were sent are gone. Nor for a holder that
/// said [`Invalid`](FailureKind::Invalid): what one finds wrong, all would.
///
/// **At once.** A small track's bytes go with the offer ([`at_once`](Self::at_once)), so a target may be durable without
/// having been ready; the put may then be acknowledged while it opens, as late targets have the bytes, too.
///
/// **A newer map.** One target that says [`Moved`](FailureKind::Moved), at any time before the acknowledgement, ends
/// the put at this epoch: the holders may be others, and what a quorum of the old ones has may have been copied to them
/// already, without this track. A node therefore says so, too, instead of that it stored the track, when the
/// partition's holders changed since it said that it was ready.
#[derive(Clone, Debug)]
pub struct PutQuorum {
    targets: Targets,
    takes: Vec<Take>,
    copies_needed: usize,
    zones_needed: usize,
    grace: Grace,
    deadline: Option<u64>,
    /// When the put first could have begun without the targets that have not answered.
    able_since: Option<u64>,
    phase: Phase,
    at_once: bool,
    moved: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Opening,
    Streaming,
    Acknowledged,
}

/// A target's part.
#[derive(Clone, Debug)]
struct Take {
    /// The zone as a bit: the zones of a put, numbered as they occur.
    zone: u64,
    suspect: bool,
    state: State,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    Unasked,
    Asked {
        since: u64,
    },
    Ready,
    /// It has the track; `already`: it had it before.
    Durable {
        already: bool,
    },
    Failed(Failure),
    /// A stand-in that is not needed after all.
    Dismissed,
}

impl State {
    const fn is_open(&self) -> bool {
        matches!(self, Self::Ready | Self::Durable { .. })
    }

    const fn is_live(&self) -> bool {
        matches!(self, Self::Unasked | Self::Asked { .. } | Self::Ready | Self::Durable { .. })
    }

    /// Whether another may take the share of a holder that failed so.
    const fn can_be_stood_in_for(&self) -> bool {
        use FailureKind::{Invalid, Moved, TakenDown};
        matches!(self, Self::Failed(failure) if !matches!(failure.kind, TakenDown { .. } | Invalid | Moved { .. }))
    }
}

impl PutQuorum {
    /// A put to `targets`. `suspects`: the holders (by index) that were out of reach when last heard of. `deadline`:
    /// when it is given up, whatever has come by then.
    #[must_use]
    pub fn new(targets: Targets, policy: &Policy, suspects: &[usize], grace: Grace, deadline: Option<u64>) -> Self {
        let mut zones: Vec<usize> = Vec::new();
        let mut zone_bit = |zone: usize| {
            let at = zones.iter().position(|other| *other == zone).unwrap_or_else(|| {
                zones.push(zone);
                zones.len() - 1
            });
            1 << at
        };
        let take = |(index, volume): (usize, &crate::Holder)| Take {
            zone: zone_bit(volume.zone),
            suspect: suspects.contains(&index),
            state: State::Unasked,
        };
        let takes: Vec<Take> = targets.volumes().iter().enumerate().map(take).collect();
        let zones = takes[..targets.holders().len()].iter().fold(0, |all, take| all | take.zone).count_ones() as usize;
        Self {
            takes,
            copies_needed: usize::from(policy.write_quorum),
            zones_needed: usize::from(policy.zones_min).min(zones),
            grace,
            deadline,
            able_since: None,
            phase: Phase::Opening,
            at_once: false,
            moved: None,
            targets,
        }
    }

    /// The same, where every target is sent the bytes with the offer.
    #[must_use]
    pub const fn at_once(mut self) -> Self {
        self.at_once = true;
        self
    }

    /// The target has reserved space and waits for the bytes.
    pub fn handle_ready(&mut self, target: usize) {
        if matches!(self.takes[target].state, State::Asked { .. }) {
            self.takes[target].state = State::Ready;
        }
    }

    /// The target's copy is durable; `already`: it was before the put.
    pub fn handle_stored(&mut self, target: usize, already: bool) {
        if matches!(self.takes[target].state, State::Asked { .. } | State::Ready) {
            self.takes[target].state = State::Durable { already };
        }
    }

    /// The target takes no further part. What was durable stays so. A target that says
    /// [`Moved`](FailureKind::Moved) to an epoch that is not newer has a fault and is left out.
    pub fn handle_failed(&mut self, target: usize, mut failure: Failure) {
        if !matches!(self.takes[target].state, State::Asked { .. } | State::Ready) {
            return;
        }
        if let FailureKind::Moved { epoch } = failure.kind {
            if epoch > self.targets.epoch() {
                self.moved = self.moved.max(Some(epoch));
            } else {
                failure.kind = FailureKind::Refused;
            }
        }
        self.takes[target].state = State::Failed(failure);
    }

    /// What to do next.
    pub fn poll(&mut self, now: u64) -> PutStep {
        let (copies, zones) = self.durable();
        if self.phase == Phase::Acknowledged {
            return PutStep::Acknowledged { copies, zones };
        }
        if let Some(number) = self.taken_down() {
            return PutStep::GiveUp(Verdict::TakenDown { number });
        }
        if let Some(epoch) = self.moved {
            return PutStep::Moved { epoch };
        }
        let durable = |state: &State| matches!(state, State::Durable { .. });
        if self.is_enough(durable) && self.sent_a_copy() {
            self.phase = Phase::Acknowledged;
            return PutStep::Acknowledged { copies, zones };
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return PutStep::GiveUp(Verdict::Expired);
        }
        if self.has_quorums(State::is_live)
            && self.phase == Phase::Opening
            && let Some(target) = self.next_to_ask(now)
        {
            self.takes[target].state = State::Asked { since: now };
            return PutStep::Ask { target };
        }
        // Who could still stand in where a zone lacks its copy was just asked.
        if !self.is_enough(|state| state.is_live() && *state != State::Unasked) {
            return PutStep::GiveUp(Verdict::of(self.failures().map(|(_, failure)| failure)));
        }
        if self.phase == Phase::Streaming {
            return PutStep::Wait { until: self.deadline };
        }
        self.poll_opening(now)
    }

    fn poll_opening(&mut self, now: u64) -> PutStep {
        let late = self.next_lateness(now);
        let wait = |until: Option<u64>, deadline: Option<u64>| PutStep::Wait {
            until: [until, late, deadline].into_iter().flatten().min(),
        };
        if !self.is_enough(State::is_open) {
            return wait(None, self.deadline);
        }
        let since = *self.able_since.get_or_insert(now);
        let until = self.patience(since);
        if now < until {
            return wait(Some(until), self.deadline);
        }
        self.dismiss_spare_stand_ins();
        if !self.takes.iter().any(|take| take.state == State::Ready) {
            let (copies, zones) = self.durable();
            return PutStep::Already { copies, zones };
        }
        self.phase = Phase::Streaming;
        for take in &mut self.takes {
            if let State::Asked { since } = take.state {
                let why = format!("not ready after {} ms, when a quorum was", now.saturating_sub(since));
                take.state = State::Failed(Failure::new(FailureKind::Stalled, why));
            }
        }
        let ready = |index: &usize| self.takes[*index].state == State::Ready;
        PutStep::Begin { to: (0..self.takes.len()).filter(ready).collect() }
    }

    /// Until when a put that could begin since `since` waits for those that have not answered.
    fn patience(&self, since: u64) -> u64 {
        let (holders, stand_ins) = self.takes.split_at(self.targets.holders().len());
        let well = since.saturating_add(self.grace.well_ms);
        let mut until = since;
        for take in holders.iter().filter(|take| matches!(take.state, State::Asked { .. })) {
            until = until.max(if take.suspect { since.saturating_add(self.grace.suspect_ms) } else { well });
        }
        for take in stand_ins {
            if let State::Asked { since } = take.state
                && self.wanting(take.zone, |state| !state.is_open()) > self.standing(take.zone, State::is_open)
            {
                until = until.max(since.saturating_add(self.grace.stand_in_ms).min(well));
            }
        }
        until
    }

    /// The next holder that was not asked, or the next stand-in for one that needs it.
    fn next_to_ask(&self, now: u64) -> Option<usize> {
        let holders = self.targets.holders().len();
        let unasked = |index: &usize| self.takes[*index].state == State::Unasked;
        if let Some(holder) = (0..holders).find(unasked) {
            return Some(holder);
        }
        let late = |since: u64| now >= since.saturating_add(self.grace.stand_in_ms);
        let mut candidates = (holders..self.takes.len()).filter(unasked);
        candidates.find(|candidate| {
            let zone = self.takes[*candidate].zone;
            let in_zone = self.takes[..holders].iter().filter(|take| take.zone == zone);
            let wanting = in_zone.filter(|take| match take.state {
                State::Asked { since } => take.suspect || late(since),
                _ => take.state.can_be_stood_in_for(),
            });
            let standing = self.standing(zone, |state| match state {
                State::Asked { since } => !late(*since),
                _ => state.is_open(),
            });
            wanting.count() > standing && !self.node_is_taken(self.targets.volumes()[*candidate].node)
        })
    }

    /// Whether a copy is or may come to be on the node, or the node is out of reach.
    fn node_is_taken(&self, node: usize) -> bool {
        self.targets.volumes().iter().zip(&self.takes).any(|(volume, take)| {
            volume.node == node
                && match &take.state {
                    State::Unasked | State::Dismissed => false,
                    State::Asked { .. } | State::Ready | State::Durable { .. } => true,
                    State::Failed(failure) => {
                        matches!(failure.kind, FailureKind::Unreachable | FailureKind::Stalled)
                    }
                }
        })
    }

    /// How many holders of the zone are so.
    fn wanting(&self, zone: u64, is: impl Fn(&State) -> bool) -> usize {
        let holders = &self.takes[..self.targets.holders().len()];
        holders.iter().filter(|take| take.zone == zone && is(&take.state)).count()
    }

    /// How many stand-ins in the zone are so.
    fn standing(&self, zone: u64, is: impl Fn(&State) -> bool) -> usize {
        let stand_ins = &self.takes[self.targets.holders().len()..];
        stand_ins.iter().filter(|take| take.zone == zone && is(&take.state)).count()
    }

    /// Lets go the stand-ins whose holders are ready or durable after all.
    fn dismiss_spare_stand_ins(&mut self) {
        for at in self.targets.holders().len()..self.takes.len() {
            let zone = self.takes[at].zone;
            let wanting = self.wanting(zone, |state| !state.is_open());
            if self.takes[at].state == State::Ready && self.standing(zone, State::is_open) > wanting {
                self.takes[at].state = State::Dismissed;
            }
        }
    }

    /// When the next target that was asked will be late, so that another is asked.
    fn next_lateness(&self, now: u64) -> Option<u64> {
        let holders = self.targets.holders().len();
        if self.takes.len() == holders {
            return None;
        }
        let when = |(index, take): (usize, &Take)| match take.state {
            State::Asked { since } if index >= holders || !take.suspect => {
                Some(since.saturating_add(self.grace.stand_in_ms)).filter(|at| *at > now)
            }
            _ => None,
        };
        self.takes.iter().enumerate().filter_map(when).min()
    }

    /// Whether a target that was sent the bytes has them, or none will: copies that were there before the put do not
    /// show that it did anything.
    fn sent_a_copy(&self) -> bool {
        let any = |wanted: State| self.takes.iter().any(|take| take.state == wanted);
        let has_it = any(State::Durable { already: false });
        match self.phase {
            Phase::Opening => self.at_once && has_it,
            _ => has_it || !any(State::Ready),
        }
    }

    /// Whether those that are so are a quorum of each set and lie in zones enough.
    fn is_enough(&self, is: impl Fn(&State) -> bool) -> bool {
        self.count(&is).1 >= self.zones_needed && self.has_quorums(is)
    }

    fn has_quorums(&self, is: impl Fn(&State) -> bool) -> bool {
        let bits =
            (0..self.takes.len()).filter(|index| is(&self.takes[*index].state)).fold(0_u64, |all, at| all | 1 << at);
        self.targets.sets().all(|set| (set & bits).count_ones() as usize >= self.copies_needed)
    }

    /// How many targets are so, and in how many zones.
    fn count(&self, is: impl Fn(&State) -> bool) -> (usize, usize) {
        let such = || self.takes.iter().filter(|take| is(&take.state));
        (such().count(), such().fold(0_u64, |zones, take| zones | take.zone).count_ones() as usize)
    }

    /// How many copies are durable, stand-ins' included, in how many zones.
    #[must_use]
    pub fn durable(&self) -> (usize, usize) {
        self.count(|state| matches!(state, State::Durable { .. }))
    }

    /// The targets that failed, by index, and why.
    pub fn failures(&self) -> impl Iterator<Item = (usize, &Failure)> + Clone {
        self.takes.iter().enumerate().filter_map(|(index, take)| match &take.state {
            State::Failed(failure) => Some((index, failure)),
            _ => None,
        })
    }

    /// How many copies in each set, and in how many zones, a put needs.
    #[must_use]
    pub const fn needed(&self) -> (usize, usize) {
        (self.copies_needed, self.zones_needed)
    }

    /// Whom the put may ask.
    #[must_use]
    pub const fn targets(&self) -> &Targets {
        &self.targets
    }

    fn taken_down(&self) -> Option<u64> {
        self.failures().find_map(|(_, failure)| match failure.kind {
            FailureKind::TakenDown { number } => Some(number),
            _ => None,
        })
    }
}
