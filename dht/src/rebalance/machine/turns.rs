//! Operators' commands, one after the other: each as the records that it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use deadwax_track::Partition;

use super::{COMMANDS_MAX, Purpose, Rebalance};
use crate::log::{Change, Refusal, Stage, VOTERS_MAX, VOTERS_MIN};
use crate::rebalance::command::Command;
use crate::rebalance::effect::{Answer, Decision, Effect, Forecast, Refused};
use crate::rebalance::pin::pinned;
use crate::rebalance::target::arrived;
use crate::{BadMap, Map, MapSpec, Node, NodeId, PartitionBytes, Plan, VolumeId};

/// How often a command is tried when other changes come in between.
const TRIES_MAX: u32 = 8;

/// A command in its turn.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) number: u64,
    pub(super) command: Command,
    pub(super) forecast: bool,
    /// When it was given, in ms since 1970.
    time_ms: u64,
    pub(super) tries: u32,
    /// A record of it was proposed, and may have come to be, whatever was heard of that.
    pub(super) proposed: bool,
    /// A record of it came to be.
    pub(super) begun: bool,
}

/// What a command comes to in its turn.
pub(super) enum Next {
    Done,
    /// A change of voters is to be settled first, which the log does by itself; or it is to be seen who is in its seat, or
    /// what the nodes speak.
    Wait,
    /// A record; and of a reshape the map, which knows all its holders.
    Propose(Change, Option<Arc<Map>>),
}

impl Rebalance {
    /// An operator wants this at `time_ms` (since 1970); [`Effect::Answer`] with `number` says what came of it. Commands have
    /// their turn in order.
    pub fn command(&mut self, number: u64, command: Command, time_ms: u64) {
        self.enqueue(number, command, false, time_ms);
    }

    /// An operator asks what this would do.
    pub fn forecast(&mut self, number: u64, command: Command, time_ms: u64) {
        self.enqueue(number, command, true, time_ms);
    }

    /// The numbers of the commands that wait, and of each whether something of it may be done: whoever drops the planner
    /// answers them.
    pub fn drain_commands(&mut self) -> Vec<(u64, bool)> {
        self.commands.drain(..).map(|turn| (turn.number, turn.proposed)).collect()
    }

    fn enqueue(&mut self, number: u64, command: Command, forecast: bool, time_ms: u64) {
        if self.commands.len() >= COMMANDS_MAX {
            return self.effects.push(Effect::Answer { number, result: Err(Refused::Busy) });
        }
        let turn = Turn { number, command, forecast, time_ms, tries: 0, proposed: false, begun: false };
        self.commands.push_back(turn);
    }

    /// The nodes that commands name as voters, where one of those that wait may give or take a seat, and its turn may
    /// come with the next poll: tell [`set_eligible`](Self::set_eligible) before it.
    #[must_use]
    pub fn named_voters(&self, now: u64) -> Option<Vec<NodeId>> {
        let mut named = None;
        for turn in self.commands.iter().filter(|_| self.pending.is_empty() && now >= self.command_at) {
            match &turn.command {
                Command::SetVoters(voters) => named.get_or_insert_with(Vec::new).extend(voters),
                Command::RemoveNode(_) => _ = named.get_or_insert_default(),
                _ => {}
            }
        }
        named
    }

    /// The nodes that may get a seat, each with its present process, which alone may take it: those that are up, and were
    /// heard of at an epoch. `leader`: the node that asks. `idle`: the voters that do not follow the leader in their
    /// seats: they are away, their seats were lost, or are to be taken yet. None: the leader has led too short a time to know.
    pub fn set_eligible(&mut self, leader: NodeId, eligible: BTreeMap<NodeId, u64>, idle: Option<BTreeSet<NodeId>>) {
        (self.leader, self.eligible, self.idle) = (Some(leader), eligible, idle);
    }

    /// Brings the first command one step on. Nothing is undecided. Whether it was a forecast.
    pub(super) fn take_turn(&mut self, now: u64, bytes: PartitionBytes<'_>) -> bool {
        let Some(turn) = self.commands.front() else { return false };
        let next = match (self.next_change(turn), &turn.command) {
            // Of all others a forecast says what they would move, whatever they have to wait for.
            (Ok(Next::Wait), command) if turn.forecast && !matches!(command, Command::Finalise { .. }) => {
                Ok(Next::Done)
            }
            (next, _) => next,
        };
        match next {
            Err(refused) => self.answer(Err(refused)),
            Ok(Next::Done | Next::Propose(..)) if turn.forecast => {
                let result = self.foresee(turn, bytes).map(Answer::Forecast);
                self.answer(result);
                return true;
            }
            Ok(Next::Done) => self.answer(Ok(Answer::Done { epoch: self.state.epoch() })),
            Ok(Next::Wait) => self.put_off(now),
            Ok(Next::Propose(change, known)) => {
                if let Some(known) = known {
                    self.known = known;
                }
                self.commands[0].proposed = true;
                self.propose(now, Purpose::Command, change);
            }
        }
        false
    }

    fn answer(&mut self, result: Result<Answer, Refused>) {
        let turn = self.commands.pop_front().expect("it is its turn");
        self.effects.push(Effect::Answer { number: turn.number, result });
    }

    /// What a command comes to at the newest state.
    fn next_change(&self, turn: &Turn) -> Result<Next, Refused> {
        let wish = turn.command.wish(&self.state, turn.proposed, turn.time_ms)?;
        match turn.command.change(&wish, &self.state, turn.time_ms) {
            None => Ok(Next::Done),
            Some(Change::Finalise { protocol }) => self.finalise(protocol, turn),
            Some(Change::SetVoters(voters)) => self.seat(voters.into_iter().map(|grant| grant.node).collect(), turn),
            Some(Change::Reshape { spec }) => {
                self.map.learn_from(&self.known);
                let partitions = self.held_by(&turn.command.removed(&self.state));
                if partitions > 0 {
                    return Err(Refused::NotDrained { partitions });
                }
                if let Command::RemoveNode(node) = &turn.command
                    && self.state.seat_of(node).is_some()
                {
                    return self.unseat(node, turn);
                }
                self.reshape(*spec, |spec| Change::Reshape { spec })
            }
            Some(Change::Admit { token, spec }) => {
                self.map.learn_from(&self.known);
                self.reshape(*spec, |spec| Change::Admit { token, spec })
            }
            Some(change) => Ok(Next::Propose(change, None)),
        }
    }

    /// A record of this map, with pins by which nothing moves.
    fn reshape(&self, spec: MapSpec, change: impl FnOnce(Box<MapSpec>) -> Change) -> Result<Next, Refused> {
        let map = pinned(&self.map, MapSpec { epoch: self.state.epoch(), ..spec })?;
        Ok(Next::Propose(change(Box::new(map.spec().clone())), Some(Arc::new(map))))
    }

    /// Gives these nodes seats, some of them first where many are new. Raft's two sets of voters keep the log one, however
    /// many change at once; but what is decided needs a majority of each from then on. One that is new may lose its seat
    /// by a restart before it has taken it: so a majority of each set are voters that are there already. Done is it when each
    /// is in its seat.
    fn seat(&self, wanted: Vec<NodeId>, turn: &Turn) -> Result<Next, Refused> {
        let votes = |node: &NodeId| self.state.voters().iter().any(|voter| voter.node == *node);
        let named: BTreeSet<&NodeId> = wanted.iter().collect();
        let is_so = wanted.len() == self.state.voters().len()
            && named.iter().copied().all(votes)
            && named.len() == wanted.len();
        if is_so && !wanted.iter().any(|node| self.is_idle(node)) {
            return Ok(Next::Done);
        }
        if !self.state.outgoing().is_empty() {
            return Ok(Next::Wait);
        }
        let is_known = |node: &NodeId| self.state.spec().nodes.iter().any(|other| other.id == *node);
        if let Some(missing) = wanted.iter().find(|node| !is_known(node)) {
            return Err(Refused::NoNode(*missing));
        }
        if let Some(away) = wanted.iter().find(|node| !votes(node) && !self.is_eligible(node)) {
            return Err(Refused::Unheard(*away));
        }
        // Others the log refuses.
        let is_set = named.len() == wanted.len() && (VOTERS_MIN..=VOTERS_MAX).contains(&wanted.len());
        if !is_set {
            return Ok(self.give_seats(wanted));
        }
        if self.idle.is_none() {
            return Ok(Next::Wait);
        }
        if let Some(voters) = self.next_voters(&wanted) {
            return Ok(self.give_seats(voters));
        }
        // One that is not heard of may have lost its seat, which is no vote.
        let away = wanted.iter().find(|node| !self.is_eligible(node) && self.is_idle(node));
        // Who has is given another by itself, once that is sure: a good seat that is taken away is a vote less for ever where
        // the process ends before it has taken the next one.
        let doubtful = wanted.iter().find(|node| self.has_lost_seat(node));
        let waits = match (away, doubtful) {
            (None, Some(_)) => turn.tries + 1 < TRIES_MAX,
            // Those that a record gave a seat have yet to take it.
            (None, None) if is_so => true,
            _ => !is_so && turn.begun,
        };
        if waits {
            return Ok(Next::Wait);
        }
        let away = away.or(doubtful);
        let away = away.or_else(|| wanted.iter().find(|node| !self.is_there(node)));
        Err(Refused::Unheard(*away.unwrap_or(&wanted[0])))
    }

    /// The next voters on the way to those that are wanted: as many of the new ones as can be, and in place of others
    /// some that vote already. None: these vote already, or too few of those that do are there for a single new one.
    fn next_voters(&self, wanted: &[NodeId]) -> Option<Vec<NodeId>> {
        let seated: Vec<NodeId> = self.state.voters().iter().map(|voter| voter.node).collect();
        let (kept, new): (Vec<NodeId>, Vec<NodeId>) = wanted.iter().partition(|node| seated.contains(node));
        let mut leaving: Vec<NodeId> = seated.into_iter().filter(|node| !wanted.contains(node)).collect();
        if new.is_empty() && leaving.is_empty() {
            return None;
        }
        // The leader goes last: it knows what is left to do.
        leaving.sort_by_key(|node| (self.leader != Some(*node), !self.is_there(node)));
        let with = |count: usize| {
            let stay = leaving.iter().take(wanted.len() - kept.len() - count);
            let old: Vec<NodeId> = kept.iter().chain(stay).copied().collect();
            let (size, there) = (old.len() + count, old.iter().filter(|node| self.is_there(node)).count());
            // The only voter of a log that was begun anew needs one of two that are new: there is no surer way to three.
            let is_first = self.state.voters().len() < VOTERS_MIN && size == VOTERS_MIN && there == old.len();
            let is_sure = size >= VOTERS_MIN && (2 * there > size || is_first);
            is_sure.then(|| old.into_iter().chain(new[..count].iter().copied()).collect())
        };
        let fewest = usize::from(!new.is_empty());
        (fewest..=new.len()).rev().find_map(with)
    }

    /// Whether a voter is up and follows in its seat.
    fn is_there(&self, node: &NodeId) -> bool {
        self.is_eligible(node) && !self.is_idle(node)
    }

    fn is_idle(&self, node: &NodeId) -> bool {
        self.idle.as_ref().is_none_or(|idle| idle.contains(node))
    }

    /// Whether a voter is up and will never follow in its seat: the seat is an earlier process's, whose state is not there any
    /// more. One that this process was given is yet to be taken.
    pub(super) fn has_lost_seat(&self, node: &NodeId) -> bool {
        let life = self.state.voters().iter().find(|voter| voter.node == *node).map(|voter| voter.life);
        let is_others = life.is_some_and(|life| self.eligible.get(node).is_some_and(|now| *now != life));
        is_others && self.is_eligible(node) && self.is_idle(node)
    }

    pub(super) fn majority_is_there(&self) -> bool {
        let voters = self.state.voters();
        2 * voters.iter().filter(|voter| self.is_there(&voter.node)).count() > voters.len()
    }

    fn give_seats(&self, voters: Vec<NodeId>) -> Next {
        // Who is away votes already, and keeps what it has.
        let life = |node: &NodeId| self.eligible.get(node).copied().unwrap_or(0);
        Next::Propose(Change::set_voters(voters, life), None)
    }

    fn is_eligible(&self, node: &NodeId) -> bool {
        self.eligible.contains_key(node) && !self.state.dead().contains(node)
    }

    /// Takes the seat of a node that is to go: another node gets one, of its zone if that has one that may; else fewer
    /// vote.
    fn unseat(&self, leaver: &NodeId, turn: &Turn) -> Result<Next, Refused> {
        let state = &self.state;
        let mut voters: Vec<NodeId> = state.voters().iter().map(|voter| voter.node).collect();
        let leaves = |node: &Node| node.volumes.iter().all(|volume| state.leaving().contains(&volume.id));
        let may = |node: &&Node| self.is_eligible(&node.id) && !voters.contains(&node.id) && !leaves(node);
        let nodes = &state.spec().nodes;
        let zone = nodes.iter().find(|node| node.id == *leaver).map(|node| &node.zone);
        let next = nodes.iter().filter(may).min_by_key(|node| Some(&node.zone) != zone);
        voters.retain(|node| node != leaver);
        voters.extend(next.map(|node| node.id));
        if voters.len() < VOTERS_MIN {
            return Err(Refused::LastVoters(*leaver));
        }
        Ok(match self.seat(voters, turn)? {
            // It votes still, until the change is settled.
            Next::Done => Next::Wait,
            next => next,
        })
    }

    /// How many partitions these volumes hold, or hold part in moving.
    fn held_by(&self, volumes: &BTreeSet<VolumeId>) -> usize {
        if volumes.is_empty() {
            return 0;
        }
        let seats = self.map.roster().volumes();
        let names: Vec<bool> = seats.iter().map(|seat| volumes.contains(&seat.holder().volume)).collect();
        let moving = self.state.transitions();
        let held = (0..=u16::MAX).filter(|partition| {
            let moves = moving.get(&Partition(*partition)).is_some_and(|each| {
                let old: &[VolumeId] = if each.stage == Stage::Settled { &[] } else { &each.old };
                old.iter().chain(&*each.new).any(|volume| volumes.contains(volume))
            });
            moves || self.map.held(*partition).iter().any(|volume| names[*volume as usize])
        });
        held.count()
    }

    fn foresee(&self, turn: &Turn, bytes: PartitionBytes<'_>) -> Result<Forecast, Refused> {
        let wish = turn.command.wish(&self.state, false, turn.time_ms)?;
        let next = wish.effective();
        if next.nodes.is_empty() {
            return Err(BadMap::NoNodes.into());
        }
        Map::new(wish.spec)?;
        let before = arrived(&self.state, &self.facts, &self.known)?;
        Ok(Forecast::of(&Plan::onward(&before, next, bytes)?))
    }

    /// The command's proposal came to nothing: it is tried again, unless a rule forbids it or it was tried often.
    pub(super) fn command_refused(&mut self, now: u64, decision: Decision) {
        match decision {
            _ if self.commands.is_empty() => {}
            Decision::Refused(refusal @ (Refusal::Rule(_) | Refusal::TooLong { .. })) => {
                self.answer(Err(refusal.into()));
            }
            _ => self.put_off(now),
        }
    }

    /// Tries the first command again after a while, unless it was tried often.
    fn put_off(&mut self, now: u64) {
        let turn = self.commands.front_mut().expect("it is its turn");
        turn.tries += 1;
        if turn.tries >= TRIES_MAX {
            self.answer(Err(Refused::Overtaken));
        } else {
            self.command_at = now.saturating_add(self.settings.batch_ms);
        }
    }
}
