//! The map and its log: the node's history, its voter, and how epochs spread.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::message::Envelope;
use super::message::Message;
use super::planted::Bug;
use super::{Alarm, Core, Destination, Effect, Part};
use crate::log::{Batch, Change, Consensus, ConsensusConfig, Durable, History, RECORDS_MAX, Record};
use crate::log::{Effect as VoterEffect, Proposal, ProposeError, Voter};
use crate::random::Random;
use crate::{Layout, NodeId};

/// To how many nodes a new epoch is passed on by each that learns of it. They reach most; the others learn of it by the
/// epoch in the next message that they get.
const TOLD: usize = 3;
/// How often a node asks, and how often it tells the same node, what is missing, in ms.
const AGAIN_MS: u64 = 1_000;
/// How often a node's question for what it lacks is answered within [`AGAIN_MS`]: it asks once in that time, and each
/// answer may be a whole history.
const ANSWERED_MAX: u8 = 4;
/// The most epochs that one step comes further by records: each has a layout, which all machines are told of. A checkpoint
/// takes the history to its end at once, with one layout for all.
pub const EPOCHS_MAX: usize = 4;
/// The most nodes of which it is remembered what they were told, and how often they were answered.
const TOLD_MAX: usize = 256;
/// The most logs of which it is remembered that they are others, and the most nodes that have one.
const OTHERS_MAX: usize = 64;
/// For how long a node that was heard to have another log is named as such, in ms.
const OTHERS_MS: u64 = 60_000;
/// How often such a node is asked what was taken down, in ms.
const PARTED_ASKED_MS: u64 = 5_000;

/// The history, and the voter where the node has a seat.
pub(super) struct Epochs {
    history: Option<History>,
    /// Records that come next, without a gap, [`RECORDS_MAX`] at most.
    coming: VecDeque<Arc<Record>>,
    /// How many epochs this step came further by records.
    came: usize,
    layout: Option<Arc<Layout>>,
    voter: Option<Consensus>,
    /// A seat that was taken before the history that gives it was durable. It is this node's, with what was promised in it.
    taken: Option<Durable>,
    /// The seat whose state is to be dropped when the history of this epoch is durable.
    dropping: Option<(u64, u64)>,
    saved: u64,
    asked_at: Option<u64>,
    /// When each node was told last, and of which epoch.
    told: BTreeMap<NodeId, (u64, u64)>,
    /// Since when each node's questions are counted, and how many were answered.
    answered: BTreeMap<NodeId, (u64, u8)>,
    random: Random,
    /// The names of logs whose records do not follow this one's, though their epochs do.
    others: BTreeSet<u64>,
    /// When each node was heard last that has another log, and when it was asked last what was taken down there.
    parted: BTreeMap<NodeId, (u64, u64)>,
}

/// Makes room for one more node: the oldest goes.
fn make_room<T>(nodes: &mut BTreeMap<NodeId, (u64, T)>, max: usize) {
    if nodes.len() >= max
        && let Some(oldest) = nodes.iter().min_by_key(|(_, (at, _))| *at).map(|(node, _)| *node)
    {
        nodes.remove(&oldest);
    }
}

impl Epochs {
    pub(super) const fn new(history: Option<History>) -> Self {
        Self {
            history,
            coming: VecDeque::new(),
            came: 0,
            layout: None,
            voter: None,
            taken: None,
            dropping: None,
            saved: 0,
            asked_at: None,
            told: BTreeMap::new(),
            answered: BTreeMap::new(),
            random: Random(0),
            others: BTreeSet::new(),
            parted: BTreeMap::new(),
        }
    }

    pub(super) const fn begin_step(&mut self) {
        self.came = 0;
    }

    /// Whether records alone lead on from the newest epoch to those of `batch`.
    fn leads_to(&self, batch: &Batch) -> bool {
        let newest = self.coming.back().map(|record| record.epoch);
        let newest = newest.or_else(|| self.history.as_ref().map(History::epoch));
        let first = batch.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.record.epoch);
        newest.is_some_and(|newest| first <= newest)
    }

    /// Puts records behind those that wait. What is known, leaves a gap or finds no room is of no use: it is asked for again.
    fn queue(&mut self, records: &[Arc<Record>]) {
        let Some(history) = &self.history else { return };
        for record in records {
            let newest = self.coming.back().map_or_else(|| history.epoch(), |record| record.epoch);
            if record.epoch == newest + 1 && self.coming.len() < RECORDS_MAX {
                self.coming.push_back(record.clone());
            }
        }
    }
}

impl Core {
    /// The newest epoch that is known here; 0: none.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epochs.history.as_ref().map_or(0, History::epoch)
    }

    /// The history, once there is one.
    #[must_use]
    pub const fn history(&self) -> Option<&History> {
        self.epochs.history.as_ref()
    }

    /// The newest layout, once there is one.
    #[must_use]
    pub const fn layout(&self) -> Option<&Arc<Layout>> {
        self.epochs.layout.as_ref()
    }

    /// The voter of this node, if it has a seat.
    #[must_use]
    pub const fn voter(&self) -> Option<&Consensus> {
        self.epochs.voter.as_ref()
    }

    pub(super) fn leads(&self) -> bool {
        self.epochs.voter.as_ref().is_some_and(Consensus::leads)
    }

    pub(super) fn begin_epochs(&mut self, durable: Option<Durable>) {
        self.epochs.random = Random(self.config.seed ^ 0x6570_6f63_6873);
        let Some(history) = self.epochs.history.clone() else {
            self.epochs.taken = durable;
            return;
        };
        self.epochs.saved = history.epoch();
        let seat = history.state().seat_of(&self.config.node);
        match (seat, durable) {
            (Some(seat), Some(durable)) if durable.seat == seat || self.votes_still(durable.seat) => {
                self.start_voter(durable, &history);
            }
            // The process ended between the two: the record that gives it comes again.
            (_, Some(durable)) if durable.seat > history.state().seats() => self.epochs.taken = Some(durable),
            // A seat is taken before the history that gives it is durable: its state was lost. The seat is forfeited, since
            // it was given to an earlier process.
            (Some(seat), _) if self.planted(Bug::KeepSeat) => {
                self.effects.push(Effect::TakeSeat(seat));
                self.start_voter(Durable::joining(seat), &history);
            }
            (None, Some(durable)) => self.effects.push(Effect::DropSeat(durable.seat)),
            (_, _) => {}
        }
        self.renew_layout();
        self.stop_if_unfit();
    }

    fn start_voter(&mut self, durable: Durable, history: &History) {
        let seed = self.epochs.random.draw();
        let config = ConsensusConfig { tick_ms: self.config.settings.voter_tick_ms, ..ConsensusConfig::new(seed) };
        // Broken state promises nothing that could be kept: the seat is forfeited, since this process did not get it.
        if let Ok(voter) = Consensus::start(&config, self.now, durable, history) {
            self.epochs.voter = Some(voter);
            self.touch(Part::Voter);
        }
    }

    /// Whether whoever sent this has another log of the map, as far as can be told.
    pub(super) fn is_of_other_log(&self, envelope: &Envelope) -> bool {
        let Some(state) = self.history().map(History::state) else { return false };
        let Envelope { epoch, line, .. } = *envelope;
        if epoch <= state.epoch() {
            return epoch > 0 && line != state.line_at(epoch);
        }
        // Its epochs come after those at which this log was begun anew.
        let is_earlier = line == 0 || state.refounded().iter().any(|each| state.line_at(each.epoch) == line);
        (is_earlier && line != state.line_at(u64::MAX)) || self.epochs.others.contains(&line)
    }

    /// A node has another log. It cannot tell where it is the further one, unless it is given records that do not follow.
    pub(super) fn take_other_log(&mut self, node: NodeId, epoch: u64) {
        if epoch < self.epoch() {
            self.compare_epochs(node, epoch);
        }
        let (now, parted) = (self.now, &mut self.epochs.parted);
        if !parted.contains_key(&node) {
            make_room(parted, OTHERS_MAX);
        }
        parted.entry(node).or_default().0 = now;
        self.effects.push(Effect::Alarm(Alarm::OtherLog { node }));
    }

    /// What one log's nodes took down is to stay down where the other log is kept: its records are signed, and only added.
    /// Of these two nodes neither need be one of those that the other asks in turn.
    pub(super) fn take_parted(&mut self, from: NodeId, epoch: u64, message: &Message) {
        self.take_other_log(from, epoch);
        match message {
            Message::TakedownAsk(_, ask) => self.take_parted_takedown_ask(from, ask),
            Message::TakedownAnswer(_, answer) => self.take_parted_takedowns(from, answer),
            _ => {
                let Some((heard_at, asked_at)) = self.epochs.parted.get_mut(&from) else { return };
                if heard_at.saturating_sub(*asked_at) >= PARTED_ASKED_MS {
                    *asked_at = *heard_at;
                    self.ask_parted_takedowns(from);
                }
            }
        }
    }

    /// The nodes that were lately heard to have another log.
    pub(super) fn parted(&self) -> impl Iterator<Item = NodeId> {
        let lately = |at: u64| self.now.saturating_sub(at) < OTHERS_MS;
        self.epochs.parted.iter().filter(move |(_, (at, _))| lately(*at)).map(|(node, _)| *node)
    }

    /// Takes records from a node, if they are of this log.
    pub(super) fn take_epochs(&mut self, from: NodeId, line: u64, batch: &Batch) {
        if self.history().is_some_and(|history| history.parts_from(batch)) {
            let own = self.history().map(|history| history.state().line_at(u64::MAX));
            if own != Some(line) && self.epochs.others.len() < OTHERS_MAX {
                self.epochs.others.insert(line);
            }
            return self.take_other_log(from, u64::MAX);
        }
        self.take_batch(batch);
    }

    /// Takes records from a peer: those that follow wait for their turn.
    pub(super) fn take_batch(&mut self, batch: &Batch) {
        if self.epochs.leads_to(batch) {
            self.epochs.queue(&batch.records);
            return self.touch(Part::Epochs);
        }
        match &mut self.epochs.history {
            Some(history) => {
                if self.config.layouts.catch_up(history, batch).is_err() {
                    return;
                }
                self.epochs.coming.clear();
                self.forget_takedown_members();
            }
            None => {
                let Ok(history) = History::from_batch(batch) else { return };
                if history.state().spec().cluster != self.config.cluster {
                    return;
                }
                self.epochs.history = Some(history);
            }
        }
        self.take_epoch();
        self.tell_epoch();
    }

    /// Takes records from the own voter. It says each but once, so none of a peer's stands in their way.
    fn take_committed(&mut self, batch: &Batch) {
        if let Some(first) = batch.records.first() {
            self.epochs.coming.retain(|record| record.epoch < first.epoch);
        }
        self.take_batch(batch);
    }

    /// Takes records that wait, one by one: who was a holder or a witness meanwhile, and is one again, has missed something.
    pub(super) fn poll_epochs(&mut self) -> u64 {
        let before = self.epoch();
        while self.epochs.came < EPOCHS_MAX
            && let Some(record) = self.epochs.coming.pop_front()
            && let Some(history) = &mut self.epochs.history
        {
            let one = Batch { checkpoint: None, records: vec![record] };
            // Those before a bad one stay. A fork shows in the epochs' hashes.
            if self.config.layouts.catch_up(history, &one).is_err() {
                self.epochs.coming.clear();
                break;
            }
            self.epochs.came += 1;
            if matches!(one.records[0].change, Change::Refound { .. }) {
                // So many members are gone that what they had may be with any one of those that are left.
                self.forget_takedown_members();
            }
            self.take_epoch();
        }
        if self.epoch() > before {
            self.tell_epoch();
        }
        self.refill();
        if self.epochs.coming.is_empty() { u64::MAX } else { self.now }
    }

    /// Takes from the own voter what found no room when it said so, where no peer need be asked. A voter whose history is not
    /// this one's would be asked for ever.
    fn refill(&mut self) {
        let (Some(voter), Some(history)) = (&self.epochs.voter, &self.epochs.history) else { return };
        let (theirs, epoch) = (voter.history(), history.epoch());
        let goes_on = theirs.oldest() > epoch || theirs.hash(epoch) == Some(history.head());
        if self.epochs.coming.is_empty() && theirs.epoch() > epoch && goes_on {
            let batch = theirs.since(epoch);
            self.take_batch(&batch);
        }
    }

    /// The history has come to another epoch: all machines are told.
    fn take_epoch(&mut self) {
        let history = self.epochs.history.clone().expect("it has just grown");
        let voter = history.state().voter(&self.config.node).copied();
        let seat = voter.map(|voter| voter.seat);
        let sits = self.epochs.voter.as_ref().map(Consensus::seat);
        let given = |taken: &mut Durable| taken.seat <= history.state().seats();
        let taken = self.epochs.taken.take_if(given);
        // It may be heard in a new seat while it votes in the old one: whose majority may need it until the change is settled.
        let stays = sits.is_some_and(|sits| self.votes_still(sits));
        if (sits != seat && !stays) || taken.is_some() {
            if let Some(left) = sits {
                self.epochs.voter = None;
                self.epochs.dropping = Some((left, history.epoch()));
            }
            // Whatever an earlier process promised in its seat, this one, which has no state of it, does not know.
            let any = self.planted(Bug::KeepSeat) || self.planted(Bug::TakeAnySeat);
            let own = |voter: &Voter| voter.life == self.config.life || any;
            match (voter, taken) {
                (Some(voter), Some(taken)) if taken.seat == voter.seat => self.start_voter(taken, &history),
                (Some(voter), _) if own(&voter) => {
                    // Before the history that says so: a node that has a seat by its history has its state, too.
                    self.effects.push(Effect::TakeSeat(voter.seat));
                    self.start_voter(Durable::joining(voter.seat), &history);
                }
                (_, Some(taken)) => self.epochs.dropping = Some((taken.seat, history.epoch())),
                (_, None) => {}
            }
            self.touch(Part::Voter);
        }
        self.renew_layout();
    }

    /// Whether this node votes in `seat` until a change of voters is settled.
    fn votes_still(&self, seat: u64) -> bool {
        let Some(history) = &self.epochs.history else { return false };
        history.state().outgoing().iter().any(|voter| voter.node == self.config.node && voter.seat == seat)
    }

    /// Keeps what the history has got, and passes it on.
    fn tell_epoch(&mut self) {
        let Some(history) = self.epochs.history.clone() else { return };
        let since = history.since(self.epochs.saved);
        self.epochs.saved = history.epoch();
        self.effects.push(Effect::Save(Box::new(since.clone())));
        self.spread(&since);
        // Others are told before: this node may have been the only one to hear of it.
        self.stop_if_unfit();
    }

    fn renew_layout(&mut self) {
        let history = self.epochs.history.as_ref().expect("callers have one");
        // The state was checked by the log's rules, which include those of a map.
        let earlier = self.epochs.layout.as_deref();
        let layout = self.config.layouts.layout(history, earlier).expect("a state that was checked");
        self.epochs.layout = Some(layout.clone());
        self.renew_contacts(&layout);
        self.renew_takedowns(&layout);
        self.renew_receipts(&layout);
        self.renew_copies(&layout);
        self.renew_duties(&layout);
        self.touch(Part::Outages);
        self.tell_planner_of_layout(&layout);
    }

    /// Passes records on to a few; where they have a whole map, only word of them: whoever lacks them asks.
    fn spread(&mut self, batch: &Batch) {
        let whole = |record: &Arc<Record>| {
            matches!(record.change, Change::Reshape { .. } | Change::Admit { .. } | Change::RollBack { .. })
        };
        let is_large = batch.checkpoint.is_some() || batch.records.iter().any(whole);
        let Some(layout) = self.epochs.layout.clone() else { return };
        let nodes = layout.map().nodes();
        for _ in 0..TOLD.min(nodes.len().saturating_sub(1)) {
            let to = nodes[self.epochs.random.below(nodes.len())].id;
            if to != self.config.node {
                let news = if is_large { Message::Knows } else { Message::Epochs(Box::new(batch.clone())) };
                self.send(to, news);
            }
        }
    }

    pub(super) fn take_saved(&mut self, epoch: u64) {
        if let Some((seat, _)) = self.epochs.dropping.take_if(|(_, until)| *until <= epoch) {
            self.effects.push(Effect::DropSeat(seat));
        }
    }

    /// A sender is at this epoch: one of the two lacks something, or neither. Whether both are at the same.
    pub(super) fn compare_epochs(&mut self, from: NodeId, theirs: u64) -> bool {
        let ours = self.epoch();
        if theirs > ours {
            if self.epochs.asked_at.is_none_or(|at| self.now >= at.saturating_add(AGAIN_MS) || at > self.now) {
                self.epochs.asked_at = Some(self.now);
                self.send(from, Message::Behind(ours));
            }
        } else if theirs < ours {
            let told = self.epochs.told.get(&from).copied();
            if told.is_none_or(|(at, epoch)| epoch < ours || self.now >= at.saturating_add(AGAIN_MS)) {
                if told.is_none() {
                    make_room(&mut self.epochs.told, TOLD_MAX);
                }
                self.epochs.told.insert(from, (self.now, ours));
                self.tell_epochs(Destination::Node(from), theirs);
            }
        }
        theirs == ours
    }

    /// A node asks for what comes after `since`. What is asked too often is dropped: whoever lacks it asks again.
    pub(super) fn take_behind(&mut self, from: NodeId, address: &Arc<str>, since: u64) {
        if since >= self.epoch() {
            return;
        }
        let known = self.epochs.answered.get(&from).copied();
        let counts = known.filter(|(at, _)| self.now < at.saturating_add(AGAIN_MS));
        let (at, count) = counts.unwrap_or((self.now, 0));
        if count >= ANSWERED_MAX {
            return;
        }
        if known.is_none() {
            make_room(&mut self.epochs.answered, TOLD_MAX);
        }
        self.epochs.answered.insert(from, (at, count + 1));
        self.tell_epochs(Destination::At(Some(from), address.clone()), since);
    }

    fn tell_epochs(&mut self, to: Destination, since: u64) {
        let Some(history) = &self.epochs.history else { return };
        let batch = history.since(since);
        if !batch.is_empty() {
            self.send_to(to, Message::Epochs(Box::new(batch)));
        }
    }

    pub(super) fn take_want_epochs(&mut self, number: u64, since: u64) {
        let batch = self.epochs.history.as_ref().map(|history| history.since(since)).unwrap_or_default();
        self.effects.push(Effect::Epochs { number, batch: Box::new(batch) });
    }

    /// Somebody has seen a newer epoch: a voter may have it.
    pub(super) fn ask_epochs(&mut self) {
        let Some(layout) = self.epochs.layout.clone() else { return };
        let again = self.epochs.asked_at.is_none_or(|at| self.now >= at.saturating_add(AGAIN_MS));
        let voters = layout.state().voters();
        let voter = voters[self.epochs.random.below(voters.len())].node;
        if again && voter != self.config.node {
            self.epochs.asked_at = Some(self.now);
            let epoch = self.epoch();
            self.send(voter, Message::Behind(epoch));
        }
    }

    pub(super) fn take_raft(&mut self, from: NodeId, message: crate::log::Message) {
        if let Some(voter) = &mut self.epochs.voter {
            // What it drops Raft sends again.
            let _ = voter.handle_message(from, message);
            self.touch(Part::Voter);
        }
    }

    pub(super) fn take_persisted(&mut self, seat: u64, number: u64) {
        if let Some(voter) = self.epochs.voter.as_mut().filter(|voter| voter.seat() == seat) {
            voter.acknowledge(number);
            self.touch(Part::Voter);
        }
    }

    pub(super) fn poll_voter(&mut self) -> u64 {
        let now = self.now;
        let Some(voter) = &mut self.epochs.voter else {
            self.renew_planner();
            return u64::MAX;
        };
        voter.tick(now);
        while let Some(effect) = self.epochs.voter.as_mut().and_then(Consensus::poll) {
            self.carry_out(effect);
        }
        self.renew_planner();
        self.epochs.voter.as_ref().and_then(Consensus::next_deadline).unwrap_or(u64::MAX)
    }

    fn carry_out(&mut self, effect: VoterEffect) {
        match effect {
            VoterEffect::Persist(step) => {
                let seat = self.epochs.voter.as_ref().expect("it said so").seat();
                self.effects.push(Effect::Persist { seat, step: Box::new(step) });
            }
            VoterEffect::Send { to, message } => self.send(to, Message::Raft(Box::new(message))),
            VoterEffect::Committed(batch) => self.take_committed(&batch),
            VoterEffect::Decided { ticket, outcome } => self.take_decided(ticket, outcome),
            VoterEffect::Unreadable => self.take_later_records(u64::MAX),
            // It does nothing any more, and is dropped at the epoch that ends its seat, which may wait for its turn.
            VoterEffect::Retired => {}
        }
    }

    /// Proposes a change, where this node's voter leads.
    pub(super) fn propose_to_voter(&mut self, proposal: &Proposal) -> Result<(), ProposeError> {
        let Some(voter) = &mut self.epochs.voter else { return Err(ProposeError::NotLeader { leader: None }) };
        self.touched |= Part::Voter.bit();
        voter.propose(proposal)
    }
}
