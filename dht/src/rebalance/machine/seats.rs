//! Seats that were lost, with the system drives of their nodes, are given again; and those that a log lacks that was begun anew.

use super::{Purpose, Rebalance};
use crate::NodeId;
use crate::log::{Change, Grant, VOTERS_MIN};

/// How often in a row a voter is seen without its seat before it gets another: one that was just started has yet to follow.
const SEEN: u32 = 6;

impl Rebalance {
    /// Gives voters seats again that have lost theirs: each that is up, as another process than the one which had the seat, and
    /// did not follow the leader each of the last times. To be called every few seconds, after
    /// [`set_eligible`](Self::set_eligible). A seat that stays lost is no vote: who waits for an operator may wait until the
    /// next drives fail, and then nobody can be given a seat any more.
    pub fn watch_seats(&mut self, now: u64) {
        let is_settled = self.idle.is_some() && self.state.outgoing().is_empty();
        let voters = self.state.voters().iter().map(|voter| voter.node);
        let lost: Vec<NodeId> = voters.filter(|node| is_settled && self.has_lost_seat(node)).collect();
        self.seats_lost.retain(|node, _| lost.contains(node));
        lost.into_iter().for_each(|node| *self.seats_lost.entry(node).or_default() += 1);
        let long: Vec<Grant> = self
            .seats_lost
            .iter()
            .filter(|(_, seen)| **seen >= SEEN)
            .filter_map(|(node, _)| Some(Grant { node: *node, life: *self.eligible.get(node)? }))
            .collect();
        let is_free = self.pending.is_empty() && self.commands.is_empty();
        if !long.is_empty() && is_free && self.majority_is_there() {
            self.seats_lost.clear();
            return self.propose(now, Purpose::Seats, Change::RenewSeats(long));
        }
        if let Some(voters) = self.fewest_voters().filter(|_| is_settled && is_free) {
            self.propose(
                now,
                Purpose::Seats,
                Change::set_voters(voters, |node| self.eligible.get(node).copied().unwrap_or(0)),
            );
        }
    }

    /// As many voters as a log has at least, where one that was begun anew has fewer yet: others that are up, of other zones
    /// first. None: there are enough, or not so many nodes are up.
    fn fewest_voters(&self) -> Option<Vec<NodeId>> {
        let mut voters: Vec<NodeId> = self.state.voters().iter().map(|voter| voter.node).collect();
        if voters.len() >= VOTERS_MIN {
            return None;
        }
        let nodes = &self.state.spec().nodes;
        let zone = |id: &NodeId| nodes.iter().find(|node| node.id == *id).map(|node| &node.zone);
        while voters.len() < VOTERS_MIN {
            let may = |id: &&NodeId| !voters.contains(id) && !self.state.dead().contains(id) && zone(id).is_some();
            let alike = |id: &&NodeId| voters.iter().filter(|voter| zone(voter) == zone(id)).count();
            let next = self.eligible.keys().filter(may).min_by_key(alike)?;
            voters.push(*next);
        }
        Some(voters)
    }
}
