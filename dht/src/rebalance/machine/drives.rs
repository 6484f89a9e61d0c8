//! Drives that are lost while their nodes live leave the cluster, as by an operator's word.

use std::collections::BTreeSet;

use super::{Purpose, Rebalance};
use crate::VolumeId;
use crate::log::{Change, MOVES_MAX};

impl Rebalance {
    /// The drives that were out for 30 minutes without a break while their nodes live, and that no brake holds, as this node has
    /// heard it: whenever that changes.
    pub fn set_lost(&mut self, now: u64, lost: BTreeSet<VolumeId>) {
        self.lost = lost;
        self.arm(now);
    }

    /// The lost drives that are to leave: as many as leave enough nodes with others for all copies. What holds nothing but
    /// copies that can be nowhere else keeps them, until there is somewhere.
    pub(super) fn given_up(&self) -> Vec<VolumeId> {
        if self.lost.is_empty() || self.pending.values().any(|each| matches!(each.purpose, Purpose::GiveUp)) {
            return Vec::new();
        }
        let mut leaving = self.state.leaving().clone();
        let nodes = || self.state.spec().nodes.iter().filter(|node| !self.state.dead().contains(&node.id));
        let mut left = nodes().filter(|node| node.volumes.iter().any(|each| !leaving.contains(&each.id))).count();
        let copies = usize::from(self.state.spec().policy.copies);
        let mut given_up = Vec::new();
        for volume in self.lost.iter().filter(|volume| !self.state.leaving().contains(*volume)).take(MOVES_MAX) {
            let Some(node) = nodes().find(|node| node.volumes.iter().any(|each| each.id == *volume)) else { continue };
            let is_last = node.volumes.iter().all(|each| each.id == *volume || leaving.contains(&each.id));
            if is_last && left <= copies {
                continue;
            }
            left -= usize::from(is_last);
            leaving.insert(*volume);
            given_up.push(*volume);
        }
        given_up
    }

    /// How many lost drives cannot leave, as there are too few nodes with others.
    pub(super) fn kept(&self) -> usize {
        let lost = self.lost.iter().filter(|volume| !self.state.leaving().contains(*volume)).count();
        let given_up = self.given_up().len();
        if self.pending.is_empty() { lost - given_up } else { 0 }
    }

    pub(super) fn give_up(&mut self, now: u64) {
        if self.is_full() || self.flush_at.is_none_or(|at| now < at) {
            return;
        }
        let volumes = self.given_up();
        if !volumes.is_empty() {
            self.propose(now, Purpose::GiveUp, Change::SetLeaving { volumes, leaving: true });
        }
    }
}
