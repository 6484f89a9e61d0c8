//! The machine.

mod drives;
mod finalise;
mod seats;
mod turns;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use deadwax_track::Partition;

use self::turns::Turn;
use super::command::Wish;
use super::effect::{Decision, Effect};
use super::facts::Facts;
use super::motion::{Due, Motions};
use super::progress::{Progress, Stall};
use super::queue::Queue;
use super::synced::Synced;
use super::target::{Reason, Rules, target};
use crate::log::{Change, MOVES_MAX, Move, Refusal, Stage, State};
use crate::{Map, NodeId, PartitionBytes, VolumeId};

/// The most proposals that are not decided.
pub const PROPOSALS_MAX: usize = 8;
/// The most commands that wait. One more is refused as busy.
pub const COMMANDS_MAX: usize = 64;
/// A proposal that is not decided after this time is shown as a stall, in ms.
const DECISION_MS: u64 = 10_000;

/// How much moves at once, and how often things are done. They need not be equal on all voters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The most partitions that come to a volume at once, and the most that go from it. Default 32: more are copied at
    /// once, each more slowly.
    pub volume_moving_max: u32,
    /// Where partitions are so small that this many bytes are more of them than [`volume_moving_max`](Self::volume_moving_max),
    /// that many come to a volume at once: a core works out how many. Default 0: that many never are.
    pub volume_moving_bytes: u64,
    /// The most partitions whose data moves at once, in the whole cluster. Default 4,096. Each costs every node some
    /// hundred bytes, and every record that is made meanwhile the same.
    pub moving_max: usize,
    /// How long what can be done is put off, in ms, so that one record does many; where it is all there is, only for half as
    /// long after the record before. Default 1,000.
    pub batch_ms: u64,
    /// The least time between two plans, in ms. Default 5,000: a plan takes 40 ms for 100 volumes, seconds for 10,000.
    pub plan_interval_ms: u64,
    /// How long a node that is cut off may call tracks absent still, in ms: the lease
    /// ([`LeaseRules::lease_ms`](crate::takedown::LeaseRules::lease_ms)), which a core fills in. Default 60,000.
    pub lease_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            volume_moving_max: 32,
            volume_moving_bytes: 0,
            moving_max: 4_096,
            batch_ms: 1_000,
            plan_interval_ms: 5_000,
            lease_ms: 60_000,
        }
    }
}

/// What a proposal is for.
#[derive(Debug)]
enum Purpose {
    Begin(Vec<Move>),
    Step(Vec<Partition>),
    Dead(NodeId),
    GiveUp,
    Seats,
    Command,
}

#[derive(Debug)]
struct Pending {
    purpose: Purpose,
    since_ms: u64,
    /// The epoch of the record that it became, while the layout is not there yet.
    landed: Option<u64>,
}

/// The planner of a voter that leads. Made when it begins to lead, dropped when it does no more.
///
/// **How to drive it.** Tell what happens ([`set_layout`](Self::set_layout), [`set_silent`](Self::set_silent),
/// [`set_lost`](Self::set_lost), [`handle_synced`](Self::handle_synced), [`decided`](Self::decided),
/// [`command`](Self::command), and, where [`named_voters`](Self::named_voters) or [`finalises`](Self::finalises) asks for
/// it, [`set_eligible`](Self::set_eligible) or [`set_speakers`](Self::set_speakers)), call
/// [`poll`](Self::poll) after each and when [`next_deadline`](Self::next_deadline) has come, and carry out what it
/// gives. Equal inputs give equal effects. Where nothing is to be done there is no deadline.
///
/// **Cost.** Most inputs cost microseconds; an epoch, in proportion to what is in motion and to the number of nodes; a
/// poll at which it plans, 40 ms for 100 volumes and up to seconds for 10,000 (the first of a leader, and where zones
/// take another number of copies). Memory: 2 MiB for the holders of all partitions, and some hundred bytes for each
/// partition that is to move.
pub struct Rebalance {
    settings: Settings,
    map: Arc<Map>,
    state: Arc<State>,
    /// A map that knows all its holders, from which the next ones are told in milliseconds.
    known: Arc<Map>,
    facts: Facts,
    motions: Motions,
    queue: Queue,
    rules: Option<Rules>,
    pending: BTreeMap<u64, Pending>,
    /// Partitions that a change was proposed for.
    busy: BTreeSet<Partition>,
    numbers: u64,
    commands: VecDeque<Turn>,
    command_at: u64,
    /// Who may get a seat, as of the last turn that could give one.
    eligible: BTreeMap<NodeId, u64>,
    /// The voters that are not in their seats; none: it is not known yet.
    idle: Option<BTreeSet<NodeId>>,
    leader: Option<NodeId>,
    /// The voters that were seen to have lost their seats each time, and how often.
    seats_lost: BTreeMap<NodeId, u32>,
    /// What the nodes speak, as of the last turn that depends on it.
    speakers: BTreeMap<NodeId, u8>,
    silent: BTreeSet<NodeId>,
    /// The drives that were out for too long while their nodes live.
    lost: BTreeSet<VolumeId>,
    braked: BTreeSet<String>,
    /// The target may be another than the queue says.
    stale: bool,
    plan_at: u64,
    flush_at: Option<u64>,
    /// When what is all there is may be proposed, so that records are few.
    rested_at: u64,
    /// Something arrived since the last plan: the next may find more to do.
    moved: bool,
    too_few: bool,
    effects: Vec<Effect>,
}

impl Rebalance {
    /// The planner of who leads from `now` (ms) on, at the newest epoch's map and state.
    ///
    /// # Panics
    /// If `map` and `state` are of different epochs.
    #[must_use]
    pub fn new(settings: Settings, now: u64, map: Arc<Map>, state: Arc<State>) -> Self {
        assert_eq!(map.epoch(), state.epoch(), "a map and a state of one epoch");
        let mut new = Self {
            settings,
            known: map.clone(),
            facts: Facts::of(&state, &Facts::default(), now),
            motions: Motions::new(settings.lease_ms),
            queue: Queue::default(),
            rules: None,
            pending: BTreeMap::new(),
            busy: BTreeSet::new(),
            numbers: 0,
            commands: VecDeque::new(),
            command_at: now,
            eligible: BTreeMap::new(),
            idle: None,
            leader: None,
            seats_lost: BTreeMap::new(),
            speakers: BTreeMap::new(),
            silent: BTreeSet::new(),
            lost: BTreeSet::new(),
            braked: BTreeSet::new(),
            stale: true,
            plan_at: now,
            flush_at: None,
            rested_at: now,
            moved: false,
            too_few: false,
            effects: Vec::new(),
            map,
            state,
        };
        new.follow(now);
        new
    }

    /// Takes over the newest epoch, as soon as it is known. An earlier one than the newest is ignored.
    ///
    /// # Panics
    /// If `map` and `state` are of different epochs.
    pub fn set_layout(&mut self, now: u64, map: Arc<Map>, state: Arc<State>) {
        assert_eq!(map.epoch(), state.epoch(), "a map and a state of one epoch");
        if state.epoch() <= self.state.epoch() {
            return;
        }
        let (was, is) = (self.state.spec(), state.spec());
        let alike = was.nodes == is.nodes && was.policy == is.policy;
        if !alike || self.state.dead() != state.dead() || self.state.leaving() != state.leaving() {
            self.facts = Facts::of(&state, &self.facts, now);
            self.forget_target();
        }
        (self.map, self.state) = (map, state);
        self.land();
        self.follow(now);
    }

    /// The nodes that have been silent for 30 minutes, and the zones that are braked, as the liveness of this node has
    /// it: whenever either changes.
    pub fn set_silent(&mut self, now: u64, silent: BTreeSet<NodeId>, braked: BTreeSet<String>) {
        if braked != self.braked {
            self.braked = braked;
            self.queue.release();
        }
        self.silent = silent;
        self.arm(now);
    }

    /// How many partitions may come to a volume at once, and go from it: from now on.
    pub fn set_volume_moving_max(&mut self, now: u64, max: u32) {
        if max != self.settings.volume_moving_max {
            self.settings.volume_moving_max = max;
            self.follow(now);
        }
    }

    /// A new holder has all of some partitions. The driver has checked that it was the volume's node that said so.
    pub fn handle_synced(&mut self, now: u64, report: &Synced) {
        let mut due = false;
        for partition in &report.partitions {
            let busy = self.busy.contains(partition);
            due |= self.motions.synced(*partition, report.volume, report.epoch, busy);
        }
        if due {
            self.arm(now);
        }
    }

    /// A node is at this epoch: of partitions whose readers ask the new holders, it calls no track absent any more.
    /// Without that, old holders that are cut off together could, after the new ones have taken a write alone. Nodes
    /// with old holders of partitions at [`Stage::Synced`] say it every few seconds.
    pub fn handle_knows(&mut self, now: u64, node: NodeId, epoch: u64) {
        let Some(node) = self.map.node(&node) else { return };
        let volumes: Vec<VolumeId> = node.volumes.iter().map(|volume| volume.id).collect();
        if self.motions.knows(now, epoch, &self.facts, &volumes, &self.busy) {
            self.arm(now);
        }
    }

    /// What came of proposal `number`.
    pub fn decided(&mut self, now: u64, number: u64, decision: Decision) {
        let Some(mut pending) = self.pending.remove(&number) else { return };
        let is_command = matches!(pending.purpose, Purpose::Command);
        let epoch = match &decision {
            Decision::Record(epoch) | Decision::Refused(Refusal::Already { epoch }) => *epoch,
            Decision::Refused(_) | Decision::Unknown => {
                if is_command {
                    self.command_refused(now, decision);
                } else {
                    // What it was to do is in no queue any more.
                    self.forget_target();
                }
                self.follow(now);
                return;
            }
        };
        if let Some(turn) = self.commands.front_mut().filter(|_| is_command) {
            (turn.begun, turn.tries) = (true, 0);
        }
        pending.landed = Some(epoch);
        self.pending.insert(number, pending);
        self.land();
        self.follow(now);
    }

    /// Does what is due, and gives what is to be carried out. `bytes`: of each partition, for forecasts.
    #[must_use]
    pub fn poll(&mut self, now: u64, bytes: PartitionBytes<'_>) -> Vec<Effect> {
        if self.motions.next_deadline().is_some_and(|at| now >= at) {
            self.follow(now);
        }
        while !self.commands.is_empty() && self.pending.is_empty() && now >= self.command_at {
            let forecast = self.take_turn(now, bytes);
            if forecast {
                // Seconds, in a large cluster: the others wait for the next poll.
                break;
            }
        }
        if self.commands.is_empty() {
            self.declare_dead(now);
            self.give_up(now);
            self.plan(now);
            self.flush(now);
        }
        std::mem::take(&mut self.effects)
    }

    /// When to poll next if nothing happens before, in ms; none: nothing is to be done by itself.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        // A command whose proposal was refused at once has its answer since the last poll.
        if !self.effects.is_empty() {
            return Some(0);
        }
        let is_quiet = self.pending.is_empty();
        if !self.commands.is_empty() {
            return is_quiet.then_some(self.command_at);
        }
        let plan = (self.stale && is_quiet).then_some(self.plan_at);
        let may_flush = |at: &u64| !(self.is_full() || (self.stale && !is_quiet && *at >= self.plan_at));
        let flush = self.flush_at.filter(may_flush);
        plan.into_iter().chain(flush).chain(self.motions.next_deadline()).min()
    }

    /// What status shows. Counts what is in motion and what waits: call it when somebody asks.
    #[must_use]
    pub fn progress(&self, now: u64) -> Progress {
        let (motions, queue) = (&self.motions, &self.queue);
        Progress {
            joint: motions.count(Stage::Joint),
            synced: motions.count(Stage::Synced),
            settled: motions.count(Stage::Settled),
            waiting_copies: queue.count(Reason::Copies),
            waiting_zones: queue.count(Reason::Zones),
            waiting_leaving: queue.count(Reason::Leaving),
            waiting_balance: queue.count(Reason::Balance),
            braked: queue.braked(),
            lost: queue.lost(),
            // What is proposed is neither waiting nor in motion until it is decided.
            planning: self.stale || !self.pending.is_empty() || !self.commands.is_empty(),
            stall: self.stall(now),
        }
    }

    fn stall(&self, now: u64) -> Option<Stall> {
        let oldest = self.pending.values().filter(|each| each.landed.is_none()).map(|each| each.since_ms).min();
        if let Some(since_ms) = oldest.filter(|since| now.saturating_sub(*since) >= DECISION_MS) {
            return Some(Stall::NoDecision { since_ms });
        }
        if let Some((volume, partitions)) = self.motions.awaited() {
            return Some(Stall::Reports { volume, partitions });
        }
        if self.too_few {
            let nodes = Wish::of(&self.state).effective().nodes.len();
            return Some(Stall::TooFewNodes { nodes, copies: self.state.spec().policy.copies });
        }
        let drives = self.kept();
        if drives > 0 {
            return Some(Stall::Kept { drives, copies: self.state.spec().policy.copies });
        }
        if self.queue.braked() > 0 {
            return Some(Stall::Brake { zones: self.braked.clone() });
        }
        let partitions = self.queue.lost();
        (partitions > 0).then_some(Stall::Lost { partitions })
    }

    fn is_full(&self) -> bool {
        self.pending.len() >= PROPOSALS_MAX
    }

    fn forget_target(&mut self) {
        self.queue = Queue::default();
        self.stale = true;
    }

    /// Is done with proposals whose records the layout has.
    fn land(&mut self) {
        let epoch = self.state.epoch();
        let landed = |pending: &Pending| pending.landed.is_some_and(|landed| landed <= epoch);
        let done: Vec<u64> = self.pending.iter().filter(|(_, each)| landed(each)).map(|(number, _)| *number).collect();
        for number in done {
            let pending = self.pending.remove(&number).expect("just found");
            if let Purpose::Begin(moves) = pending.purpose {
                // Those that came and went between two layouts.
                for each in moves {
                    if !self.state.transitions().contains_key(&each.partition) {
                        self.returned(each.partition);
                    }
                }
            }
        }
    }

    fn returned(&mut self, partition: Partition) {
        let map = &self.map;
        self.queue.returned(partition, || map.holders(partition).iter().map(|holder| holder.volume).collect());
        self.moved = true;
    }

    /// Works out anew what is in motion and what is due.
    fn follow(&mut self, now: u64) {
        self.busy.clear();
        for pending in self.pending.values() {
            match &pending.purpose {
                Purpose::Begin(moves) => self.busy.extend(moves.iter().map(|each| each.partition)),
                Purpose::Step(partitions) => self.busy.extend(partitions),
                Purpose::Dead(_) | Purpose::GiveUp | Purpose::Seats | Purpose::Command => {}
            }
        }
        let undecided = self.pending.values().filter_map(|pending| match &pending.purpose {
            Purpose::Begin(moves) => Some(moves),
            _ => None,
        });
        let began = |each: &&Move| !self.state.transitions().contains_key(&each.partition);
        let proposed = undecided.flatten().filter(began);
        let left = self.motions.follow(now, &self.state, &self.facts, proposed, &self.busy);
        left.into_iter().for_each(|partition| self.returned(partition));
        let (motions, max) = (&self.motions, self.settings.volume_moving_max);
        self.queue.unpark(|volume| motions.room(volume, max));
        if self.moved && self.queue.is_idle() && self.motions.is_empty() && self.pending.is_empty() {
            self.stale = true;
        }
        self.arm(now);
    }

    /// Sets the time of the next batch if there is something for it: at once, where nothing is left to wait for.
    fn arm(&mut self, now: u64) {
        let may_begin = self.queue.has_runnable() && self.motions.loaded() < self.settings.moving_max;
        let is_to_say = self.undeclared().next().is_some() || !self.given_up().is_empty();
        if may_begin || self.motions.is_due() || is_to_say {
            let is_whole = self.motions.are_all_due() && self.pending.is_empty();
            let at = if is_whole { now.max(self.rested_at) } else { now.saturating_add(self.settings.batch_ms) };
            self.flush_at = Some(self.flush_at.map_or(at, |before| before.min(at)));
        } else {
            self.flush_at = None;
        }
    }

    fn propose(&mut self, now: u64, purpose: Purpose, change: Change) {
        self.numbers += 1;
        let (number, base) = (self.numbers, self.state.epoch());
        self.pending.insert(number, Pending { purpose, since_ms: now, landed: None });
        self.effects.push(Effect::Propose { number, base, change });
    }

    /// The silent who are to be declared dead.
    fn undeclared(&self) -> impl Iterator<Item = NodeId> {
        let asked = |node: &NodeId| {
            self.pending.values().any(|pending| matches!(&pending.purpose, Purpose::Dead(other) if other == node))
        };
        let may = move |node: &&NodeId| {
            let known = self.map.node(node).is_some_and(|node| !self.braked.contains(&node.zone));
            known && !self.state.dead().contains(*node) && !asked(node)
        };
        self.silent.iter().filter(may).copied()
    }

    fn declare_dead(&mut self, now: u64) {
        let room = PROPOSALS_MAX - self.pending.len().min(PROPOSALS_MAX);
        if room == 0 || self.silent.is_empty() || self.flush_at.is_none_or(|at| now < at) {
            return;
        }
        let nodes: Vec<NodeId> = self.undeclared().take(room).collect();
        for node in nodes {
            self.propose(now, Purpose::Dead(node), Change::SetDead { node, dead: true });
        }
    }

    /// Works out the target, if it may be another and enough time has passed since.
    fn plan(&mut self, now: u64) {
        if !self.stale || now < self.plan_at || !self.pending.is_empty() {
            return;
        }
        (self.stale, self.moved, self.too_few) = (false, false, false);
        self.plan_at = now.saturating_add(self.settings.plan_interval_ms);
        let motions = &self.motions;
        match target(&self.state, &self.facts, &self.known) {
            Some(target) => {
                self.known = target.base;
                self.rules = Some(target.rules);
                self.queue.fill(target.wanted, |partition| motions.contains(partition));
            }
            None => {
                self.queue = Queue::default();
                self.too_few = true;
            }
        }
        // What was just planned need not wait for a batch: it is one.
        self.flush_at = None;
        self.arm(now);
        self.flush_at = self.flush_at.map(|_| now);
    }

    /// Proposes what is due, each kind in one record.
    fn flush(&mut self, now: u64) {
        if self.flush_at.is_none_or(|at| now < at) {
            return;
        }
        if self.stale && now >= self.plan_at {
            // The plan waits for decisions, and this waits for the plan.
            self.flush_at = Some(now);
            return;
        }
        for due in Due::ALL {
            if self.is_full() {
                return;
            }
            let partitions = self.motions.take_due(due, MOVES_MAX);
            if partitions.is_empty() {
                continue;
            }
            self.busy.extend(&partitions);
            let change = match due {
                Due::Abort => Change::Abort(partitions.clone()),
                Due::Finish => Change::Finish(partitions.clone()),
                Due::Settle => Change::Advance { partitions: partitions.clone(), to: Stage::Settled },
                Due::Sync => Change::Advance { partitions: partitions.clone(), to: Stage::Synced },
            };
            self.propose(now, Purpose::Step(partitions), change);
        }
        if !self.is_full() {
            self.begin(now);
        }
        self.flush_at = None;
        self.rested_at = now.saturating_add(self.settings.batch_ms / 2);
        self.arm(now);
    }

    /// Proposes as many moves as there is room for, the most urgent first.
    fn begin(&mut self, now: u64) {
        let Some(rules) = &self.rules else { return };
        let (settings, facts) = (self.settings, &self.facts);
        let any_braked = facts.any_braked(&self.braked);
        let mut moves = Vec::new();
        while moves.len() < MOVES_MAX && self.motions.loaded() < settings.moving_max {
            let (motions, busy) = (&self.motions, &self.busy);
            let Some(each) = self.queue.next(|named| motions.contains(named) || busy.contains(&named)) else { break };
            let partition = each.key.partition;
            // Where the dead are held by a brake, shares and zones are off on their account.
            let follows = any_braked && matches!(each.key.reason, Reason::Zones | Reason::Balance);
            if follows || facts.only_braked(&each.from, &self.braked) {
                self.queue.brake(each.key);
                continue;
            }
            let new = rules.next(partition, &each.from, &each.to, facts);
            if let Some(volume) = self.motions.full(&each.from, &new, facts, settings.volume_moving_max) {
                self.queue.park(each.key, volume);
                continue;
            }
            self.motions.take(&each.from, &new, facts);
            if new == each.to {
                self.queue.done(partition);
            }
            self.busy.insert(partition);
            moves.push(Move { partition, old: each.from, new });
        }
        if !moves.is_empty() {
            self.propose(now, Purpose::Begin(moves.clone()), Change::Begin(moves));
        }
    }
}
