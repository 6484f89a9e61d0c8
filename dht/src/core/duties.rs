//! What partitions in motion ask of this node: to show that it has what they hold, and that it knows where they are.
//!
//! The leader moves a partition from stage to stage on two kinds of report, which both go to all voters and are
//! repeated until the stage is over. *Synced*: a new holder has found its digest equal with all old ones that are neither
//! declared dead nor leaving, all of them at the epoch of the move or later. Another that is down is waited for, as those
//! that are up may have lost what it has. *Knows*: an old holder knows that readers ask the new set now, so that it will
//! not call anything absent; without that, two old holders that are cut off together could, after the new set has
//! taken a write alone.

use std::collections::BTreeMap;

use deadwax_track::Partition;

use super::message::Message;
use super::planted::Bug;
use super::{Core, Part};
use crate::log::{Stage, Transition};
use crate::rebalance::{Synced, old_holders_needed};
use crate::{Layout, NodeId, VolumeId};

/// How often a report is repeated, in ms.
const AGAIN_MS: u64 = 2_000;
/// The most partitions of one report; the others follow with the next.
const REPORTED_MAX: usize = 1_024;

/// The partitions in motion of which this node's volumes are holders.
#[derive(Default)]
pub(super) struct Duties {
    /// New holders that have yet to show that they have all.
    joining: Vec<(Partition, VolumeId)>,
    /// Whether a volume of this node is an old holder of a partition whose readers ask the new ones.
    leaves: bool,
    due: Option<u64>,
}

impl Core {
    pub(super) fn renew_duties(&mut self, layout: &Layout) {
        let volumes = layout.map().node(&self.config.node).map_or(&[][..], |node| &node.volumes);
        let own = |volume: &&VolumeId| volumes.iter().any(|own| own.id == **volume);
        let mut duties = Duties::default();
        for (partition, transition) in layout.state().transitions() {
            match transition.stage {
                Stage::Joint => {
                    let new = transition.new.iter().filter(own);
                    let joining = new.filter(|volume| !transition.old.contains(volume));
                    duties.joining.extend(joining.map(|volume| (*partition, *volume)));
                }
                Stage::Synced => duties.leaves |= transition.old.iter().any(|volume| own(&volume)),
                Stage::Settled => {}
            }
        }
        duties.due = (duties.leaves || !duties.joining.is_empty()).then_some(self.now);
        self.duties = duties;
        self.touch(Part::Duties);
    }

    pub(super) fn poll_duties(&mut self) -> u64 {
        let Some(due) = self.duties.due else { return u64::MAX };
        if self.now < due {
            return due;
        }
        let Some(layout) = self.layout().cloned() else { return u64::MAX };
        let mut synced: BTreeMap<VolumeId, Vec<Partition>> = BTreeMap::new();
        for (partition, volume) in &self.duties.joining {
            let transition = &layout.state().transitions()[partition];
            if self.has_all(&layout, *partition, *volume, transition) {
                let partitions = synced.entry(*volume).or_default();
                if partitions.len() < REPORTED_MAX {
                    partitions.push(*partition);
                }
            }
        }
        let epoch = layout.epoch();
        for (volume, partitions) in synced {
            self.tell_voters(&layout, &Message::Synced(Synced { volume, epoch, partitions }));
        }
        if self.duties.leaves {
            self.tell_voters(&layout, &Message::Knows);
        }
        let due = self.now + AGAIN_MS;
        self.duties.due = Some(due);
        due
    }

    /// Whether a new holder has all that any acknowledged put wrote to the old ones: it is equal with all that are neither
    /// declared dead nor leaving (a drive that is lost leaves, and is never equal again). So many that every write quorum
    /// has one of them are needed, but not enough: that one may have rotted, or come back with an old image of its drive.
    fn has_all(&self, layout: &Layout, partition: Partition, volume: VolumeId, transition: &Transition) -> bool {
        let dead = layout.state().dead();
        let lives = |old: &&VolumeId| layout.node_of(old).is_some_and(|node| !dead.contains(&node));
        let living: Vec<&VolumeId> = transition.old.iter().filter(lives).collect();
        let (old, policy) = (transition.old.len(), layout.map().policy());
        let needed = old_holders_needed(policy, old, old - living.len());
        let (equal, other): (Vec<&VolumeId>, Vec<&VolumeId>) =
            living.into_iter().partition(|old| self.copies.was_equal(&volume, partition, old));
        let others_leave = other.into_iter().all(|old| layout.state().leaving().contains(old));
        let hasty = self.planted(Bug::SyncedEarly) || (self.planted(Bug::SyncedByOne) && !equal.is_empty());
        (others_leave && equal.len() >= needed) || hasty
    }

    fn tell_voters(&mut self, layout: &Layout, message: &Message) {
        let voters: Vec<NodeId> = layout.state().voters().iter().map(|voter| voter.node).collect();
        for voter in voters {
            if voter == self.config.node {
                match message {
                    Message::Synced(synced) => self.take_synced(voter, synced),
                    _ => self.take_knows(voter, layout.epoch()),
                }
            } else {
                self.send(voter, message.clone());
            }
        }
    }
}
