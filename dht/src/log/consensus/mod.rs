//! A voter: the crate `raft`, driven by messages and time that come in as arguments.

mod durable;
mod effect;
mod elections;
mod followers;
mod message;
mod store;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, Entry as RaftEntry, Message as RaftMessage,
    MessageType,
};
use raft::{RawNode, SnapshotStatus, StateRole};

pub use self::durable::{Durable, Entry, Persist, Snapshot, Vote};
pub use self::effect::{BadMessage, BadStart, Effect, Outcome, ProposeError};
pub use self::elections::ConsensusConfig;
use self::elections::Elections;
use self::followers::Followers;
pub use self::message::Message;
use self::store::LogStore;
use super::batch::Batch;
use super::change::Change;
use super::history::History;
use super::record::{Proposal, Ticket};
use super::state::State;
use crate::NodeId;

/// The most proposals that wait for a decision.
const PROPOSALS_MAX: usize = 256;
/// The most steps that wait for the drive; beyond them messages are dropped.
const STEPS_MAX: usize = 64;
/// The log is cut when it has so many decided entries: a voter that is further behind gets a snapshot.
const COMPACT_ENTRIES: u64 = 64;
/// The most seats of which the node is remembered: those of today, and those that voters ahead of this one speak from.
const PEERS_MAX: usize = 64;

/// A voter of the map log.
///
/// The driver passes on what comes (`handle_message`, `tick` at [`next_deadline`](Self::next_deadline), `propose`,
/// `acknowledge`), and after each does what [`poll`](Self::poll) gives until it gives nothing. Times are milliseconds
/// of any one clock that does not go back. Equal inputs give equal effects.
///
/// The node keeps a [`History`] of its own beside this one, fed by [`Effect::Committed`] and by its peers: where that
/// one says that the node has another seat or none ([`State::seat_of`]), the voter is dropped. A voter that was removed
/// while it was cut off learns of it in no other way.
///
/// **A seat is never taken up twice.** The driver may delete a voter's durable state only when the node's own history,
/// which says that the seat is gone, is durable: found at an earlier epoch after a crash, it would send the node back
/// to that seat with an empty log, and the others could not tell that it forgot what it promised.
pub struct Consensus {
    raft: RawNode<LogStore>,
    history: History,
    elections: Elections,
    followers: Followers,
    /// Proposals made here that are not decided.
    waiting: BTreeSet<Ticket>,
    /// Which node each seat's messages go to.
    peers: BTreeMap<u64, NodeId>,
    /// Steps that are not durable yet, and what is held back for them, in order.
    steps: VecDeque<Step>,
    steps_made: u64,
    effects: VecDeque<Effect>,
    /// Snapshots that were sent and not answered: by seat, the ticks until they count as lost.
    snapshots: BTreeMap<u64, u64>,
    led: bool,
    /// Whether the voters changed since the log was cut.
    voters_changed: bool,
    retired: bool,
}

/// What waits until a step is durable, or until those before it are if it has none.
struct Step {
    number: Option<u64>,
    /// Raft's number for it.
    ready: Option<u64>,
    /// The index of a snapshot that came with it.
    snapshot: Option<u64>,
    messages: Vec<RaftMessage>,
}

impl Consensus {
    /// A voter that starts from `durable`, with the node's `history` where that has none yet (it joins).
    ///
    /// `now`: ms. What is in the log and committed is decided again, so that epochs come as [`Effect::Committed`] that
    /// the node knows.
    pub fn start(config: &ConsensusConfig, now: u64, durable: Durable, history: &History) -> Result<Self, BadStart> {
        durable.check().map_err(BadStart::Durable)?;
        let history = durable.history().unwrap_or_else(|| Ok(history.clone()))?;
        let raft_config = config.to_raft(durable.seat, durable.snapshot.index);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raft = RawNode::new(&raft_config, LogStore(durable), &logger)
            .map_err(|error| BadStart::Config(error.to_string()))?;
        let mut consensus = Self {
            raft,
            history,
            elections: Elections::new(config, now),
            followers: Followers::new(2 * config.election_ticks as u64),
            waiting: BTreeSet::new(),
            peers: BTreeMap::new(),
            steps: VecDeque::new(),
            steps_made: 0,
            effects: VecDeque::new(),
            snapshots: BTreeMap::new(),
            led: false,
            voters_changed: false,
            retired: false,
        };
        consensus.remember_voters();
        consensus.go_on();
        Ok(consensus)
    }

    /// This voter's seat.
    #[must_use]
    pub const fn seat(&self) -> u64 {
        self.raft.raft.r.id
    }

    /// The history as far as this voter knows it to be decided. It is not taken back, and after a start may be behind
    /// the node's own.
    #[must_use]
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// Whether this voter leads, as far as it knows.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.raft.raft.state == StateRole::Leader && !self.retired
    }

    /// The node that leads, as far as this voter knows.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.peers.get(&self.raft.raft.leader_id).copied()
    }

    /// Whether the voter in `seat` has written what this one, which leads, sent it in this term, and has answered within two
    /// election timeouts: it has taken its seat, and has not lost it since.
    #[must_use]
    pub fn is_followed_by(&self, seat: u64) -> bool {
        let answers = seat == self.seat() || self.followers.answers(seat);
        self.leads() && answers && self.raft.raft.prs().get(seat).is_some_and(|progress| progress.matched > 0)
    }

    /// Whether this voter has led for two election timeouts: whoever does not follow by now has not only had no time to.
    #[must_use]
    pub fn knows_followers(&self) -> bool {
        self.leads() && self.followers.is_settled()
    }

    /// The term that this voter is in.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.raft.raft.term
    }

    /// Whether a change of voters is under way: two sets of them decide, each by its majority.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.history.state().outgoing().is_empty()
    }

    /// When to call [`tick`](Self::tick) at the latest, in ms.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        (!self.retired).then(|| self.elections.next_tick())
    }

    /// What to do next.
    pub fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Time has come to `now`.
    pub fn tick(&mut self, now: u64) {
        for _ in 0..self.elections.ticks_until(now) {
            if self.retired {
                return;
            }
            self.raft.tick();
            self.followers.tick();
            self.tick_election();
            self.tick_snapshots();
            self.settle_voters();
            self.go_on();
        }
    }

    fn tick_election(&mut self) {
        let raft = &mut self.raft.raft;
        if raft.state == StateRole::Leader || !raft.promotable() || raft.election_elapsed < self.elections.timeout() {
            return;
        }
        // Raft counts on all that it knows being durable when it starts to ask for votes.
        if self.steps.is_empty() {
            raft.election_elapsed = 0;
            self.elections.draw();
            // It refuses while decided changes of voters are not applied here; the next timeout tries again.
            let _ = self.raft.campaign();
        }
    }

    /// A snapshot is big, may be lost, and is not asked for again: so it counts as lost after a while.
    fn tick_snapshots(&mut self) {
        let mut lost = Vec::new();
        for (seat, ticks) in &mut self.snapshots {
            *ticks = ticks.saturating_sub(1);
            if *ticks == 0 {
                lost.push(*seat);
            }
        }
        for seat in lost {
            self.snapshots.remove(&seat);
            self.raft.report_snapshot(seat, SnapshotStatus::Failure);
        }
    }

    /// The time of two sets of voters ends as soon as its beginning is decided, whoever leads then.
    fn settle_voters(&mut self) {
        if self.leads() && self.is_joint() && !self.raft.raft.has_pending_conf() {
            // Nobody waits for the answer, so the ticket only has to be one that nobody else uses.
            let ticket = Ticket { node: NodeId::from_bytes([0; 32]), number: self.seat() };
            let proposal = Proposal { ticket, base: self.history.epoch(), change: Change::SettleVoters };
            // Dropped only where too much is not decided: the next tick tries again.
            let _ = self.raft.propose_conf_change(proposal.encode(), ConfChangeV2::default());
        }
    }

    /// A message has come from `from`, a node whose key was proved.
    pub fn handle_message(&mut self, from: NodeId, message: Message) -> Result<(), BadMessage> {
        if self.retired || self.steps.len() >= STEPS_MAX {
            return Err(BadMessage::Busy);
        }
        let (to, seat) = (message.0.to, self.seat());
        if to != seat {
            return Err(BadMessage::Seat { to, seat });
        }
        self.check_sender(from, message.0.from)?;
        message.check(&self.raft).map_err(BadMessage::Wrong)?;
        if message.0.msg_type == MessageType::MsgSnapshot {
            let theirs = Snapshot::from_raft(message.0.get_snapshot()).history()?;
            if theirs.state().spec().cluster != self.history.state().spec().cluster {
                return Err(BadMessage::Wrong("its snapshot is of another cluster"));
            }
        }
        let answers = matches!(message.0.msg_type, MessageType::MsgAppendResponse | MessageType::MsgHeartbeatResponse);
        let (seat, of_this_term) = (message.0.from, message.0.term == self.term());
        // What Raft refuses comes from a voter that it does not know; it bears the loss.
        let _ = self.raft.step(message.0);
        if answers && of_this_term && self.leads() && self.raft.raft.prs().get(seat).is_some() {
            self.followers.heard(seat);
        }
        self.go_on();
        Ok(())
    }

    /// A seat that is not known yet is believed: it was given while this voter was behind. One that is another node's
    /// is not.
    fn check_sender(&mut self, node: NodeId, seat: u64) -> Result<(), BadMessage> {
        let known = self.peers.get(&seat).copied();
        if seat == 0 || seat == self.seat() || known.is_some_and(|known| known != node) {
            return Err(BadMessage::Sender { node, seat });
        }
        if known.is_none() && self.peers.len() < PEERS_MAX {
            self.peers.insert(seat, node);
        }
        Ok(())
    }

    /// Proposes a change. Whatever comes of it is told by [`Effect::Decided`].
    pub fn propose(&mut self, proposal: &Proposal) -> Result<(), ProposeError> {
        if !self.leads() {
            return Err(ProposeError::NotLeader { leader: self.leader().filter(|_| !self.retired) });
        }
        if self.waiting.contains(&proposal.ticket) {
            return Err(ProposeError::Twice);
        }
        if self.waiting.len() >= PROPOSALS_MAX || self.steps.len() >= STEPS_MAX {
            return Err(ProposeError::Busy);
        }
        self.history.decide(proposal)?;
        let bytes = proposal.encode();
        let proposed = if proposal.change.gives_seats() {
            // Raft would put an empty entry in its place, and the proposer would never hear of it.
            if self.raft.raft.has_pending_conf() {
                return Err(ProposeError::VotersChange);
            }
            let before = self.history.state();
            let after = before.after(&proposal.change).expect("checked when it was decided");
            let change = conf_change(before, &after);
            self.raft.propose_conf_change(bytes, change)
        } else {
            self.raft.propose(Vec::new(), bytes)
        };
        proposed.map_err(|_| ProposeError::Busy)?;
        self.waiting.insert(proposal.ticket);
        self.go_on();
        Ok(())
    }

    /// The step of this number, and all before it, are durable.
    pub fn acknowledge(&mut self, number: u64) {
        assert!(number <= self.steps_made, "step {number} was acknowledged, {} were made", self.steps_made);
        while self.steps.front().is_some_and(|step| step.number.is_none_or(|made| made <= number)) {
            let step = self.steps.pop_front().expect("there is one");
            if let Some(ready) = step.ready {
                self.raft.on_persist_ready(ready);
            }
            if let Some(index) = step.snapshot {
                self.raft.advance_apply_to(index);
            }
            self.send(step.messages);
        }
        self.go_on();
    }

    /// Does whatever Raft is ready for.
    fn go_on(&mut self) {
        while !self.retired && self.steps.len() < STEPS_MAX && self.raft.has_ready() {
            self.take_ready();
        }
        let leads = self.leads();
        if self.led && !leads {
            for ticket in std::mem::take(&mut self.waiting) {
                self.effects.push_back(Effect::Decided { ticket, outcome: Outcome::Unknown });
            }
        }
        if leads && !self.led {
            self.followers.begin();
        }
        self.led = leads;
    }

    fn take_ready(&mut self) {
        let mut ready = self.raft.ready();
        // A leader's messages need not wait for its own drive (Ongaro's thesis, section 10.2.1).
        let at_once = ready.take_messages();
        let decided = ready.take_committed_entries();
        let snapshot = (!ready.snapshot().is_empty()).then(|| Snapshot::from_raft(ready.snapshot()));
        let step = Persist {
            number: self.steps_made + 1,
            snapshot,
            local: false,
            entries: ready.entries().iter().map(Entry::from_raft).collect(),
            vote: ready.hs().map(Vote::from_raft),
        };
        let held = Step {
            number: (!step.is_empty()).then_some(step.number),
            ready: Some(ready.number()),
            snapshot: step.snapshot.as_ref().map(|snapshot| snapshot.index),
            messages: ready.take_persisted_messages(),
        };
        self.raft.mut_store().apply(&step);
        self.raft.advance_append_async(ready);
        self.send(at_once);
        if let Some(snapshot) = &step.snapshot {
            self.install(snapshot);
        }
        let durable_already = held.number.is_none() && self.steps.is_empty();
        self.steps.push_back(held);
        if !step.is_empty() {
            self.steps_made += 1;
            self.effects.push_back(Effect::Persist(step));
        }
        self.decide(&decided);
        if durable_already {
            let step = self.steps.pop_front().expect("it was put there");
            self.raft.on_persist_ready(step.ready.expect("it is Raft's"));
            self.send(step.messages);
        }
    }

    fn send(&mut self, messages: Vec<RaftMessage>) {
        for message in messages {
            let to = self.peers.get(&message.to).copied();
            if message.msg_type == MessageType::MsgSnapshot {
                self.snapshots.insert(message.to, self.elections.snapshot_ticks());
            }
            let message = Message(message);
            if let Some(to) = to.filter(|_| message.is_known()) {
                self.effects.push_back(Effect::Send { to, message });
            }
        }
    }

    /// Takes up the history that a leader sent. It is decided, so that it may be told before it is durable here.
    fn install(&mut self, snapshot: &Snapshot) {
        self.history = snapshot.history().expect("checked when the message came");
        self.remember_voters();
        self.effects.push_back(Effect::Committed(self.history.since(0)));
    }

    /// Seats that no voter has any more are forgotten when there are too many.
    fn remember_voters(&mut self) {
        let state = self.history.state();
        let voters: BTreeMap<u64, NodeId> = state.voters().iter().map(|voter| (voter.seat, voter.node)).collect();
        while self.peers.len() + voters.len() > PEERS_MAX {
            let Some(seat) = self.peers.keys().find(|seat| !voters.contains_key(seat)).copied() else { break };
            self.peers.remove(&seat);
        }
        self.peers.extend(voters);
    }

    /// Entries are committed: each becomes a record, or does not.
    fn decide(&mut self, entries: &[RaftEntry]) {
        let (mut records, mut applied, mut unreadable) = (Vec::new(), None, false);
        for entry in entries {
            // An entry without a proposal is a new leader's first.
            let bytes = if entry.context.is_empty() { &entry.data } else { &entry.context };
            if bytes.is_empty() {
                applied = Some(entry.index);
                continue;
            }
            let Ok(proposal) = Proposal::decode(bytes) else {
                // A leader writes only what it has decoded: so this is of a later version. Without it the history would be
                // another one here. The voter goes on from its durable state when it runs that version.
                self.retired = true;
                unreadable = true;
                break;
            };
            applied = Some(entry.index);
            let before = self.history.state().clone();
            let outcome = match self.history.commit(&proposal) {
                Ok(record) => {
                    match &proposal.change {
                        change if change.gives_seats() => {
                            self.change_voters(&conf_change(&before, self.history.state()));
                        }
                        Change::SettleVoters => self.change_voters(&ConfChangeV2::default()),
                        _ => {}
                    }
                    records.push(record.clone());
                    Outcome::Record(record)
                }
                Err(refusal) => Outcome::Refused(refusal),
            };
            if self.waiting.remove(&proposal.ticket) {
                self.effects.push_back(Effect::Decided { ticket: proposal.ticket, outcome });
            }
        }
        if !records.is_empty() {
            self.effects.push_back(Effect::Committed(Batch { checkpoint: None, records }));
        }
        if unreadable {
            self.effects.push_back(Effect::Unreadable);
        }
        if let Some(last) = applied {
            self.raft.advance_apply_to(last);
            self.compact(last);
        }
        let state = self.history.state();
        if state.voters().iter().chain(state.outgoing()).all(|voter| voter.seat != self.seat()) && !entries.is_empty() {
            // As leader it has told the others, with the messages of this round, that its end is decided.
            self.retired = true;
            self.effects.push_back(Effect::Retired);
        }
    }

    fn change_voters(&mut self, change: &ConfChangeV2) {
        self.remember_voters();
        self.raft.apply_conf_change(change).expect("changes of voters are decided one after the other");
        let progress = self.raft.raft.prs();
        self.followers.retain(|seat| progress.get(seat).is_some());
        self.voters_changed = true;
    }

    /// Cuts the log at `index`, up to which all is decided: when it is long; and when the voters changed, since one
    /// that joins can use only a snapshot that knows of it.
    fn compact(&mut self, index: u64) {
        let durable = &self.raft.store().0;
        if index < durable.snapshot.index + COMPACT_ENTRIES && !self.voters_changed {
            return;
        }
        self.voters_changed = false;
        let term = self.raft.raft.raft_log.term(index).expect("the log has what was just decided");
        let snapshot = Snapshot::of(&self.history, index, term);
        self.steps_made += 1;
        let number = self.steps_made;
        let step = Persist { number, snapshot: Some(snapshot), local: true, entries: Vec::new(), vote: None };
        self.raft.mut_store().apply(&step);
        self.steps.push_back(Step { number: Some(number), ready: None, snapshot: None, messages: Vec::new() });
        self.effects.push_back(Effect::Persist(step));
    }
}

/// What Raft is told when the voters of `after` follow those of `before`: seats that come, and seats that go, at once. Two sets of
/// voters decide until it is told that the change is over.
fn conf_change(before: &State, after: &State) -> ConfChangeV2 {
    let seats = |state: &State| state.voters().iter().map(|voter| voter.seat).collect::<BTreeSet<u64>>();
    let (before, after) = (seats(before), seats(after));
    let single = |kind: ConfChangeType, seat: u64| {
        let mut single = ConfChangeSingle { node_id: seat, ..ConfChangeSingle::default() };
        single.set_change_type(kind);
        single
    };
    let come = after.difference(&before).map(|seat| single(ConfChangeType::AddNode, *seat));
    let go = before.difference(&after).map(|seat| single(ConfChangeType::RemoveNode, *seat));
    let mut change = ConfChangeV2::default();
    change.set_transition(ConfChangeTransition::Explicit);
    change.set_changes(come.chain(go).collect::<Vec<_>>().into());
    change
}
