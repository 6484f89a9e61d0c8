//! What the voter that leads plans: dead nodes, moves, operators' commands.

use std::collections::{BTreeMap, BTreeSet};

use super::effect::{CommandRefused, Effect};
use super::planted::Bug;
use super::{Core, Part};
use crate::log::{Earlier, Outcome, Proposal, ProposeError, Ticket};
use crate::rebalance::{self, Command, Decision, Rebalance, Synced};
use crate::{Layout, NodeId, PartitionBytes};

/// The planner, where this node's voter leads.
#[derive(Default)]
pub(super) struct Planner {
    rebalance: Option<Rebalance>,
    /// Counts the proposals of this process.
    tickets: u64,
    /// Proposals that the log has, and the planner's number for each.
    proposed: BTreeMap<u64, u64>,
    /// Each partition's bytes, as far as this node's volumes tell; for forecasts.
    bytes_mean: u64,
    /// When it is worked out next how many partitions move at once, in ms.
    pace_at: u64,
    /// When it is looked next whether voters have lost their seats, in ms.
    seats_at: u64,
}

/// How often it is looked whether voters have lost their seats, in ms.
const SEATS_MS: u64 = 5_000;

/// How often it is worked out how many partitions move at once, in ms: it follows what the cluster stores, a moment after a
/// cluster was started, too.
const PACE_MS: u64 = 5_000;

impl Core {
    /// What moves and what waits, where this node leads.
    #[must_use]
    pub fn progress(&self) -> Option<rebalance::Progress> {
        self.planner.rebalance.as_ref().map(|rebalance| rebalance.progress(self.now))
    }

    /// Begins to plan, or stops.
    pub(super) fn renew_planner(&mut self) {
        let leads = self.leads();
        if leads == self.planner.rebalance.is_some() {
            return;
        }
        if let Some(mut rebalance) = self.planner.rebalance.take() {
            for (number, begun) in rebalance.drain_commands() {
                let why = self.not_leader(begun);
                self.effects.push(Effect::Answer { number, result: Err(why) });
            }
        }
        self.planner.proposed.clear();
        if let Some(layout) = self.layout().cloned().filter(|_| leads) {
            let lease_ms = self.config.settings.lease.lease_ms;
            let settings = rebalance::Settings { lease_ms, ..self.config.settings.rebalance };
            let rebalance = Rebalance::new(settings, self.now, layout.map().clone(), layout.state().clone());
            self.planner.pace_at = self.now;
            self.planner.seats_at = self.now + SEATS_MS;
            self.planner.rebalance = Some(rebalance);
            self.tell_planner_of_silence();
            self.tell_planner_of_outages();
        }
        self.touch(Part::Planner);
    }

    pub(super) fn tell_planner_of_layout(&mut self, layout: &Layout) {
        if let Some(rebalance) = &mut self.planner.rebalance {
            rebalance.set_layout(self.now, layout.map().clone(), layout.state().clone());
            self.touch(Part::Planner);
        }
    }

    /// Who is dead by silence, and which zones are braked, has changed.
    pub(super) fn tell_planner_of_silence(&mut self) {
        let Some(layout) = self.layout().cloned() else { return };
        if self.planner.rebalance.is_none() {
            return;
        }
        let declared = layout.state().dead();
        let mut dead = self.contacts.liveness.dead();
        let hasty = self.planted(Bug::DownIsDead);
        if hasty {
            dead = self.contacts.liveness.report().not_up.iter().map(|report| report.node).collect();
        }
        let silent: BTreeSet<NodeId> = dead.into_iter().filter(|node| !declared.contains(node)).collect();
        let zones = layout.map().zones();
        let braked: BTreeSet<String> =
            zones.iter().filter(|zone| !hasty && self.contacts.liveness.brake(zone).is_some()).cloned().collect();
        if let Some(rebalance) = &mut self.planner.rebalance {
            rebalance.set_silent(self.now, silent, braked);
        }
        self.touch(Part::Planner);
    }

    /// A new holder says that it has all.
    pub(super) fn take_synced(&mut self, from: NodeId, synced: &Synced) {
        let its_own = self.layout().is_some_and(|layout| layout.node_of(&synced.volume) == Some(from));
        if let Some(rebalance) = self.planner.rebalance.as_mut().filter(|_| its_own) {
            rebalance.handle_synced(self.now, synced);
            self.touch(Part::Planner);
        }
    }

    /// A node says that it is at this epoch.
    pub(super) fn take_knows(&mut self, from: NodeId, epoch: u64) {
        if let Some(rebalance) = &mut self.planner.rebalance {
            rebalance.handle_knows(self.now, from, epoch);
            self.touch(Part::Planner);
        }
    }

    pub(super) fn take_command(&mut self, number: u64, command: Command, forecast: bool, time_ms: u64) {
        let refuse = |why| Effect::Answer { number, result: Err(why) };
        let command = match (command, self.history()) {
            (Command::RollBack { to, .. }, Some(history)) if self.planner.rebalance.is_some() => {
                let Some(Earlier { spec, leaving }) = history.earlier(to) else {
                    let (oldest, newest) = (history.earliest(), history.epoch());
                    return self.effects.push(refuse(CommandRefused::Forgotten { to, oldest, newest }));
                };
                Command::RollBack { to, spec: Box::new(spec), leaving }
            }
            (command, _) => command,
        };
        let not_leader = self.not_leader(false);
        let Some(rebalance) = &mut self.planner.rebalance else {
            return self.effects.push(refuse(not_leader));
        };
        if forecast {
            rebalance.forecast(number, command, time_ms);
            self.planner.bytes_mean = self.copies.partition_bytes_mean();
        } else {
            rebalance.command(number, command, time_ms);
        }
        self.touch(Part::Planner);
    }

    pub(super) const fn planner_mut(&mut self) -> Option<&mut Rebalance> {
        self.planner.rebalance.as_mut()
    }

    fn not_leader(&self, begun: bool) -> CommandRefused {
        let state = self.layout().map(|layout| layout.state().clone());
        let voters = state.iter().flat_map(|state| state.voters()).map(|voter| voter.node).collect();
        CommandRefused::NotLeader { leader: self.voter().and_then(crate::log::Consensus::leader), voters, begun }
    }

    /// Tells the planner who may get a seat, where a command may give one. Whoever is named and was not heard of, be it that
    /// this node has just begun to lead, is asked: the next try finds its answer.
    fn tell_planner_of_eligible(&mut self) {
        let (Some(rebalance), Some(layout)) = (&self.planner.rebalance, self.layout().cloned()) else { return };
        let watches = self.now >= self.planner.seats_at;
        let voting = || layout.state().voters().iter().map(|voter| voter.node).collect();
        let Some(named) = rebalance.named_voters(self.now).or_else(|| watches.then(voting)) else { return };
        let nodes = layout.map().nodes().iter().map(|node| node.id);
        // Who has another log takes nothing from this one.
        let parted: BTreeSet<NodeId> = self.parted().collect();
        let eligible: BTreeMap<NodeId, u64> = nodes
            .filter(|node| !parted.contains(node))
            .filter_map(|node| Some((node, self.life_with_epoch(&node)?)))
            .collect();
        let follows = |seat| self.voter().is_some_and(|voter| voter.is_followed_by(seat));
        let voters = layout.state().voters().iter().filter(|voter| !follows(voter.seat));
        let idle: BTreeSet<NodeId> = voters.map(|voter| voter.node).collect();
        let is_sure = idle.is_empty() || self.voter().is_some_and(crate::log::Consensus::knows_followers);
        named.into_iter().filter(|node| !eligible.contains_key(node)).for_each(|node| self.ping(node));
        if let Some(rebalance) = &mut self.planner.rebalance {
            rebalance.set_eligible(self.config.node, eligible, is_sure.then_some(idle));
            if watches {
                self.planner.seats_at = self.now + SEATS_MS;
                rebalance.watch_seats(self.now);
            }
        }
    }

    pub(super) fn poll_planner(&mut self) -> u64 {
        self.tell_planner_of_eligible();
        self.pace_planner();
        self.tell_planner_of_speakers();
        let bytes = PartitionBytes::Uniform(self.planner.bytes_mean);
        let Some(rebalance) = &mut self.planner.rebalance else { return u64::MAX };
        for effect in rebalance.poll(self.now, bytes) {
            match effect {
                rebalance::Effect::Propose { number, base, change } => {
                    self.planner.tickets += 1;
                    let ticket = Ticket { node: self.config.node, number: self.config.life + self.planner.tickets };
                    self.propose(number, &Proposal { ticket, base, change });
                }
                rebalance::Effect::Answer { number, result } => {
                    let result = result.map_err(CommandRefused::Planner);
                    self.effects.push(Effect::Answer { number, result });
                }
            }
        }
        let rebalance = self.planner.rebalance.as_ref();
        let due = rebalance.and_then(Rebalance::next_deadline).unwrap_or(u64::MAX);
        if rebalance.is_some() { due.min(self.planner.seats_at) } else { due }
    }

    /// Small partitions move many at once.
    fn pace_planner(&mut self) {
        let settings = self.config.settings.rebalance;
        if settings.volume_moving_bytes == 0 || self.planner.rebalance.is_none() || self.now < self.planner.pace_at {
            return;
        }
        self.planner.pace_at = self.now.saturating_add(PACE_MS);
        let most = u32::try_from(settings.moving_max).unwrap_or(u32::MAX).max(settings.volume_moving_max);
        // Where nothing is known of their size they count as large.
        if !self.copies.tells_of_others() {
            return;
        }
        let count = settings.volume_moving_bytes.checked_div(self.copies.partition_bytes_mean()).unwrap_or(u64::MAX);
        let max = u32::try_from(count).unwrap_or(u32::MAX).clamp(settings.volume_moving_max, most);
        if let Some(rebalance) = &mut self.planner.rebalance {
            rebalance.set_volume_moving_max(self.now, max);
        }
    }

    fn propose(&mut self, number: u64, proposal: &Proposal) {
        let proposed = self.propose_to_voter(proposal);
        let decision = match proposed {
            Ok(()) => {
                self.planner.proposed.insert(proposal.ticket.number, number);
                return;
            }
            Err(ProposeError::Refused(refusal)) => Decision::Refused(refusal),
            Err(_) => Decision::Unknown,
        };
        if let Some(rebalance) = &mut self.planner.rebalance {
            rebalance.decided(self.now, number, decision);
        }
    }

    pub(super) fn take_decided(&mut self, ticket: Ticket, outcome: Outcome) {
        let Some(number) = self.planner.proposed.remove(&ticket.number) else { return };
        let decision = match outcome {
            Outcome::Record(record) => Decision::Record(record.epoch),
            Outcome::Refused(refusal) => Decision::Refused(refusal),
            Outcome::Unknown => Decision::Unknown,
        };
        if let Some(rebalance) = &mut self.planner.rebalance {
            rebalance.decided(self.now, number, decision);
            self.touch(Part::Planner);
        }
    }
}
