//! What an epoch says of volumes: who is dead and who leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::VolumeId;
use crate::log::{State, Transition};

/// Built anew only where nodes, the dead or the leaving change.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The volumes of dead nodes, their zones, and when the node was first seen to be dead here.
    dead: BTreeMap<VolumeId, (Arc<str>, u64)>,
    leaving: BTreeSet<VolumeId>,
}

impl Facts {
    /// What `state` says, seen at `now` (ms) by who knew `earlier`.
    pub(super) fn of(state: &State, earlier: &Self, now: u64) -> Self {
        let mut dead = BTreeMap::new();
        for node in state.spec().nodes.iter().filter(|node| state.dead().contains(&node.id)) {
            let zone: Arc<str> = node.zone.as_str().into();
            let since = |volume| earlier.dead_since(volume).unwrap_or(now);
            dead.extend(node.volumes.iter().map(|volume| (volume.id, (zone.clone(), since(&volume.id)))));
        }
        Self { dead, leaving: state.leaving().clone() }
    }

    pub(super) fn is_live(&self, volume: &VolumeId) -> bool {
        !self.dead.contains_key(volume)
    }

    /// Since when a volume's node is known here to be dead, if it is.
    pub(super) fn dead_since(&self, volume: &VolumeId) -> Option<u64> {
        self.dead.get(volume).map(|(_, since)| *since)
    }

    pub(super) fn is_leaving(&self, volume: &VolumeId) -> bool {
        self.leaving.contains(volume)
    }

    /// Whether some of `holders` are dead, and all of those in `braked` zones.
    pub(super) fn only_braked(&self, holders: &[VolumeId], braked: &BTreeSet<String>) -> bool {
        let mut dead = holders.iter().filter_map(|volume| self.dead.get(volume)).peekable();
        dead.peek().is_some() && dead.all(|(zone, _)| braked.contains(&**zone))
    }

    /// Whether a dead volume lies in a `braked` zone.
    pub(super) fn any_braked(&self, braked: &BTreeSet<String>) -> bool {
        !braked.is_empty() && self.dead.values().any(|(zone, _)| braked.contains(&**zone))
    }

    /// Whether a volume that is to get a copy will not: it is dead, or is to be emptied itself.
    pub(super) fn is_doomed(&self, transition: &Transition) -> bool {
        coming(&transition.old, &transition.new).any(|volume| !self.is_live(volume) || self.is_leaving(volume))
    }

    /// The volumes that a move takes from: those that go, or if none of them lives, the first that does.
    pub(super) fn givers(&self, old: &[VolumeId], new: &[VolumeId]) -> Vec<VolumeId> {
        let going: Vec<VolumeId> = coming(new, old).filter(|volume| self.is_live(volume)).copied().collect();
        if !going.is_empty() {
            return going;
        }
        old.iter().find(|volume| self.is_live(volume)).copied().into_iter().collect()
    }
}

/// Those of `new` that are not in `old`.
pub(super) fn coming<'a>(old: &'a [VolumeId], new: &'a [VolumeId]) -> impl Iterator<Item = &'a VolumeId> {
    new.iter().filter(|volume| !old.contains(volume))
}
