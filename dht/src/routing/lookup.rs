//! One search for the nodes nearest to a key, or for a record that they keep.

use deadwax_track::Partition;

use super::distance::{Distance, Key};
use super::message::Contact;
use super::record::PartitionRecord;
use crate::NodeId;

/// How a lookup goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LookupRules {
    /// How many nodes nearest to the key keep its record; also the most requests under way, slow ones aside.
    pub k: usize,
    /// How many requests are under way while nearer nodes are still being found; 1 to `k`.
    pub alpha: usize,
    /// How many records end a search; the newest epoch of them is the answer. One is fastest; more make it unlikely to
    /// be told an old epoch by a node that missed the new one.
    pub records_min: usize,
    /// A request that has had no answer for so long, in ms, no longer holds up others. Its answer still counts.
    pub patience_ms: u64,
    /// How long the whole lookup may take, in ms.
    pub lookup_ms: u64,
}

/// An iterative search (Maymounkov and Mazières, "Kademlia", 2002, section 2.3), without the I/O.
///
/// The driver does what [`poll`](Self::poll) says, tells what came (`handle_*`), and polls again after each, or when
/// the time has come that `poll` named. It ends each request that it was told to send: by its answer, or, after a
/// deadline of its own, as failed. Times are milliseconds of any one clock.
///
/// The nearest node that was not asked is asked next, `alpha` at a time; once one has answered that is among the k
/// nearest, after what it told, too, it has told of its own neighbours, and all of the k nearest are asked at once. A
/// search for a record ends as soon as [`records_min`](LookupRules::records_min) nodes have told of one. In a search
/// for a record that nobody told of yet, slow ones are replaced by others only if more than a quarter of the k nearest
/// are slow or dead: with fewer, the others can say that it is absent, which no others can say for them.
///
/// **What absence means.** *Not found* is said only if, of the k nearest nodes that the lookup ever heard of, dead ones
/// among them, three quarters said that they are [settled](super::Response::NoRecord) and keep no such record, none is
/// still to be heard, and nobody at all told of a record. Where fewer than
/// k nodes are known, all of them must have said so. A record counts as announced once most of the k nearest keep it;
/// so the two have a node in common as long as fewer than a quarter of them have changed places between. Everything
/// less certain is *unreachable*: too many are silent or too new, or we are cut off. What is not promised: a part of
/// the network that was split off for more than a day, whose nodes have forgotten the others, finds that nobody there
/// knows a record.
///
/// Bounds: 4 k candidates, k requests under way that are not slow yet, 8 k requests in all.
#[derive(Clone, Debug)]
pub struct Lookup {
    target: Key,
    partition: Option<Partition>,
    rules: LookupRules,
    own: NodeId,
    deadline: u64,
    /// Nearest first.
    candidates: Vec<Candidate>,
    /// For each request that may be sent now, the round in which the one before it ended.
    slots: Vec<u32>,
    wide: bool,
    asked: usize,
    best: Option<PartitionRecord>,
    records: usize,
    round: u32,
}

#[derive(Clone, Debug)]
struct Candidate {
    distance: Distance,
    contact: Contact,
    /// The round in which it was told of.
    told: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Known,
    Asked {
        round: u32,
        slow_at: u64,
    },
    /// It had its time, and its slot is free; it may still answer.
    Slow {
        round: u32,
    },
    Answered {
        settled: bool,
    },
    Failed,
}

/// What a node that was asked knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// The record, where one was asked for and the node keeps it.
    pub record: Option<PartitionRecord>,
    /// Whether it would know of a record if there were one.
    pub settled: bool,
    /// Whom it knows near the key; those beyond the first k are not looked at.
    pub nodes: Vec<Contact>,
}

/// What the driver does next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LookupStep {
    /// Ask this node, and poll again. Said once.
    Ask(Contact),
    /// Wait for an answer.
    Wait {
        /// When to poll again at the latest.
        until: u64,
    },
    /// It has ended.
    Done(Outcome),
}

/// How a lookup ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The record, of the newest epoch that was told.
    Found(PartitionRecord),
    /// There is no such record. [`Lookup`] says what that takes.
    NotFound,
    /// The nodes nearest to the key that answered, nearest first, at most k; what a search for nodes ends with.
    Nodes(Vec<Contact>),
    /// It cannot be told whether there is such a record.
    Unreachable,
}

impl Lookup {
    /// A search for the nodes nearest to `key`. `own` is who asks, and is never asked.
    #[must_use]
    pub fn for_nodes(now: u64, key: Key, own: NodeId, rules: LookupRules) -> Self {
        assert!((1..=rules.k).contains(&rules.alpha) && rules.records_min > 0, "alpha is 1 to k: {rules:?}");
        Self {
            target: key,
            partition: None,
            rules,
            own,
            deadline: now.saturating_add(rules.lookup_ms),
            candidates: Vec::new(),
            slots: vec![0; rules.alpha],
            wide: false,
            asked: 0,
            best: None,
            records: 0,
            round: 0,
        }
    }

    /// A search for the record of `partition`.
    #[must_use]
    pub fn for_partition(now: u64, partition: Partition, own: NodeId, rules: LookupRules) -> Self {
        let lookup = Self::for_nodes(now, partition.into(), own, rules);
        Self { partition: Some(partition), ..lookup }
    }

    /// Nodes to begin with.
    pub fn handle_seeds(&mut self, seeds: Vec<Contact>) {
        for contact in seeds {
            self.add(contact, 0, State::Known);
        }
    }

    /// Nodes that were there and do not answer. They are not asked, unless somebody else tells of them, but stand in
    /// the way of *not found*.
    pub fn handle_doubtful(&mut self, doubtful: Vec<Contact>) {
        for contact in doubtful {
            self.add(contact, 0, State::Failed);
        }
    }

    /// A record that the asking node keeps itself.
    pub fn handle_own_record(&mut self, record: PartitionRecord) {
        self.take_record(record);
    }

    /// The node answered.
    pub fn handle_answer(&mut self, id: &NodeId, told: Told) {
        let Some(round) = self.end_request(id, State::Answered { settled: told.settled }) else { return };
        for contact in told.nodes.into_iter().take(self.rules.k) {
            self.add(contact, round, State::Known);
        }
        if let Some(record) = told.record.filter(|record| Some(record.partition) == self.partition) {
            self.take_record(record);
        }
        // Where a record was told of, a few more of its keepers are wanted, not all.
        if !self.wide && self.records == 0 && (self.is_near(id) || self.has_arrived()) {
            self.wide = true;
            self.slots.extend(std::iter::repeat_n(round, self.rules.k - self.rules.alpha));
        }
    }

    /// The node did not answer in time, could not be reached, or answered nonsense.
    pub fn handle_failed(&mut self, id: &NodeId) {
        self.end_request(id, State::Failed);
    }

    /// What to do next.
    pub fn poll(&mut self, now: u64) -> LookupStep {
        if self.partition.is_some() && self.records >= self.rules.records_min {
            return LookupStep::Done(self.end());
        }
        if now >= self.deadline {
            return LookupStep::Done(self.end());
        }
        self.free_slow(now);
        if self.records == 0 && self.partition.is_some() && self.is_absent() {
            return LookupStep::Done(self.end());
        }
        if let Some(at) = self.next()
            && self.asked < 8 * self.rules.k
        {
            if let Some(slot) = self.take_slot() {
                let candidate = &mut self.candidates[at];
                let round = 1 + slot.max(candidate.told);
                candidate.state = State::Asked { round, slow_at: now.saturating_add(self.rules.patience_ms) };
                self.asked += 1;
                return LookupStep::Ask(candidate.contact.clone());
            }
        } else if self.living().all(|candidate| matches!(candidate.state, State::Answered { .. } | State::Known)) {
            return LookupStep::Done(self.end());
        }
        let slow_at = self.candidates.iter().filter_map(|candidate| match candidate.state {
            State::Asked { slow_at, .. } => Some(slow_at),
            _ => None,
        });
        LookupStep::Wait { until: slow_at.min().map_or(self.deadline, |until| until.min(self.deadline)) }
    }

    /// The key that is looked for.
    #[must_use]
    pub const fn target(&self) -> Key {
        self.target
    }

    /// The partition whose record is looked for, if one is.
    #[must_use]
    pub const fn partition(&self) -> Option<Partition> {
        self.partition
    }

    /// How many rounds it took: the longest chain of requests of which each had to wait for the one before, be it
    /// because that one told of its node or because its slot had to come free (a request that is slow, at the end of
    /// its patience).
    #[must_use]
    pub const fn rounds(&self) -> u32 {
        self.round
    }

    /// How many requests were sent.
    #[must_use]
    pub const fn requests(&self) -> usize {
        self.asked
    }

    /// How many nodes, dead ones among them, should keep the record as far as the lookup knows: k, or fewer where
    /// fewer were heard of.
    #[must_use]
    pub fn keepers(&self) -> usize {
        self.candidates.len().min(self.rules.k)
    }

    /// The k nearest that have not failed.
    fn living(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates.iter().filter(|candidate| candidate.state != State::Failed).take(self.rules.k)
    }

    /// The nearest that may be asked. Slow ones are waited for, but others are asked meanwhile in their place.
    fn next(&self) -> Option<usize> {
        let hopeful = |state: State| !matches!(state, State::Failed | State::Slow { .. });
        let of = if self.is_nearly_absent() { self.rules.k } else { usize::MAX };
        let near = self.candidates.iter().enumerate().take(of).filter(|(_, candidate)| hopeful(candidate.state));
        near.take(self.rules.k).find(|(_, candidate)| candidate.state == State::Known).map(|(at, _)| at)
    }

    /// Whether the nearest of those that may live has answered.
    fn has_arrived(&self) -> bool {
        let hopeful = |state: State| !matches!(state, State::Failed | State::Slow { .. });
        let nearest = self.candidates.iter().find(|candidate| hopeful(candidate.state));
        nearest.is_some_and(|candidate| matches!(candidate.state, State::Answered { .. }))
    }

    /// Whether the node is among the k nearest that are known.
    fn is_near(&self, id: &NodeId) -> bool {
        self.candidates.iter().take(self.rules.k).any(|candidate| candidate.contact.id == *id)
    }

    /// Whether the k nearest may still say that there is no record, whatever becomes of the slow ones.
    fn is_nearly_absent(&self) -> bool {
        let k = self.rules.k;
        let nearest = self.candidates.iter().take(k);
        let lost =
            |state: State| matches!(state, State::Failed | State::Slow { .. } | State::Answered { settled: false });
        let lost = nearest.filter(|candidate| lost(candidate.state)).count();
        self.wide && self.partition.is_some() && self.records == 0 && self.candidates.len() >= k && lost <= k / 4
    }

    /// The slot that came free in the earliest round.
    fn take_slot(&mut self) -> Option<u32> {
        let (at, _) = self.slots.iter().enumerate().min_by_key(|(_, round)| **round)?;
        Some(self.slots.swap_remove(at))
    }

    fn free_slow(&mut self, now: u64) {
        for candidate in &mut self.candidates {
            if let State::Asked { round, slow_at } = candidate.state
                && now >= slow_at
            {
                candidate.state = State::Slow { round };
                self.slots.push(round);
            }
        }
    }

    /// The round of the request to `id`, which has ended, if one was under way.
    fn end_request(&mut self, id: &NodeId, state: State) -> Option<u32> {
        let candidate = self.candidates.iter_mut().find(|candidate| candidate.contact.id == *id)?;
        let round = match candidate.state {
            State::Asked { round, .. } => {
                self.slots.push(round);
                round
            }
            State::Slow { round } => round,
            State::Known | State::Answered { .. } | State::Failed => return None,
        };
        candidate.state = state;
        self.round = self.round.max(round);
        Some(round)
    }

    fn take_record(&mut self, record: PartitionRecord) {
        self.records += 1;
        if self.best.as_ref().is_none_or(|best| record.epoch > best.epoch) {
            self.best = Some(record);
        }
    }

    fn add(&mut self, contact: Contact, told: u32, state: State) {
        if contact.id == self.own || !contact.is_bounded() {
            return;
        }
        let distance = contact.key().distance(&self.target);
        match self.candidates.binary_search_by_key(&distance, |candidate| candidate.distance) {
            // Only one that was doubtful from the start has failed without being asked: who tells of it may know
            // better.
            Ok(at) if state == State::Known && self.candidates[at].told == DOUBTFUL => {
                self.candidates[at] = Candidate { distance, contact, told, state };
            }
            Ok(_) => {}
            Err(at) => {
                let told = if state == State::Failed { DOUBTFUL } else { told };
                self.candidates.insert(at, Candidate { distance, contact, told, state });
                self.drop_farthest();
            }
        }
    }

    /// Keeps to the bound. The answer of one that is dropped will not be looked at, so its slot is free.
    fn drop_farthest(&mut self) {
        if self.candidates.len() > 4 * self.rules.k
            && let Some(Candidate { state: State::Asked { round, .. }, .. }) = self.candidates.pop()
        {
            self.slots.push(round);
        }
    }

    fn end(&mut self) -> Outcome {
        if self.partition.is_none() {
            let answered = |candidate: &&Candidate| matches!(candidate.state, State::Answered { .. });
            let near = self.candidates.iter().filter(answered).take(self.rules.k);
            return Outcome::Nodes(near.map(|candidate| candidate.contact.clone()).collect());
        }
        match self.best.take() {
            Some(record) => Outcome::Found(record),
            None if self.is_absent() => Outcome::NotFound,
            None => Outcome::Unreachable,
        }
    }

    /// See *What absence means* above.
    fn is_absent(&self) -> bool {
        let k = self.rules.k;
        let keepers = || self.candidates.iter().take(k);
        let known = keepers().count();
        let needed = if known < k { known } else { k - k / 4 };
        let settled = keepers().filter(|keeper| keeper.state == State::Answered { settled: true }).count();
        let heard = |state: State| matches!(state, State::Answered { .. } | State::Failed);
        known > 0 && settled >= needed && keepers().all(|keeper| heard(keeper.state))
    }
}

/// Stands in [`Candidate::told`] for nodes that were doubtful from the start.
const DOUBTFUL: u32 = u32::MAX;
