//! What partitions in motion ask of this node: to show that it has what they hold, and that it knows where they are.
//!
//! The leader moves a partition from stage to stage on two kinds of report, which both go to all voters and are
//! repeated until the stage is over. *Synced*: a new holder has found its digest equal with all old ones, all of them at
//! the epoch of the move or later. One that is down is waited for until it is declared dead, as those that are up may have
//! lost what it has. One that leaves the cluster may be a drive that is lost: it is waited for only until its node was
//! there for a while without it. *Knows*: an old holder knows that readers ask the new set now, so that it will
//! not call anything absent; without that, two old holders that are cut off together could, after the new set has
//! taken a write alone.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_track::Partition;

use super::message::Message;
use super::planted::Bug;
use super::{Core, Part};
use crate::log::Stage;
use crate::rebalance::{Synced, old_holders_needed};
use crate::{Layout, NodeId, VolumeId};

/// How often a report is repeated, in ms.
const AGAIN_MS: u64 = 2_000;
/// The most partitions of one report; the others follow with the next.
const REPORTED_MAX: usize = 1_024;
/// How long an old holder that leaves, and whose node is there, is waited for, in ms: in that time anti-entropy finds it
/// equal, or what it has.
const LEAVER_MS: u64 = 60_000;

/// The partitions in motion of which this node's volumes are holders.
#[derive(Default)]
pub(super) struct Duties {
    /// New holders that have yet to show that they have all.
    joining: Vec<(Partition, VolumeId)>,
    /// Old holders that leave and have been equal in nothing since.
    leavers: BTreeMap<VolumeId, Since>,
    /// Whether a volume of this node is an old holder of a partition whose readers ask the new ones.
    leaves: bool,
    due: Option<u64>,
}

/// A time, and the epoch that this node knew then.
#[derive(Clone, Copy)]
struct Since {
    at: u64,
    epoch: u64,
}

impl Core {
    pub(super) fn renew_duties(&mut self, layout: &Layout) {
        let volumes = layout.map().node(&self.config.node).map_or(&[][..], |node| &node.volumes);
        let own = |volume: &&VolumeId| volumes.iter().any(|own| own.id == **volume);
        let mut duties = Duties { leavers: std::mem::take(&mut self.duties.leavers), ..Duties::default() };
        duties.leavers.retain(|volume, _| layout.state().leaving().contains(volume));
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
        let mut leavers = std::mem::take(&mut self.duties.leavers);
        for (partition, volume) in &self.duties.joining {
            if self.has_all(&layout, *partition, volume, &mut leavers) {
                let partitions = synced.entry(*volume).or_default();
                if partitions.len() < REPORTED_MAX {
                    partitions.push(*partition);
                }
            }
        }
        let unheard = leavers
            .iter()
            .filter_map(|(old, since)| layout.node_of(old).filter(|node| !self.was_heard(node, since.epoch)));
        let unheard: BTreeSet<NodeId> = unheard.collect();
        unheard.into_iter().for_each(|node| self.ping(node));
        self.duties.leavers = leavers;
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

    /// Whether a new holder has all that any acknowledged put wrote to the old ones: it is equal with all that are not
    /// declared dead. So many that every write quorum has one of them are needed, but not enough: that one may have rotted,
    /// or come back with an old image of its drive. A drive that is lost leaves, and is never equal again: its node is there
    /// without it.
    fn has_all(
        &self,
        layout: &Layout,
        partition: Partition,
        volume: &VolumeId,
        leavers: &mut BTreeMap<VolumeId, Since>,
    ) -> bool {
        let transition = &layout.state().transitions()[&partition];
        let dead = layout.state().dead();
        let lives = |old: &&VolumeId| layout.node_of(old).is_some_and(|node| !dead.contains(&node));
        let living: Vec<&VolumeId> = transition.old.iter().filter(lives).collect();
        let (old, policy) = (transition.old.len(), layout.map().policy());
        let needed = old_holders_needed(policy, old, old - living.len());
        let (equal, other): (Vec<&VolumeId>, Vec<&VolumeId>) =
            living.into_iter().partition(|old| self.copies.was_equal(volume, partition, old));
        equal.iter().for_each(|old| _ = leavers.remove(*old));
        if self.planted(Bug::SyncedEarly) || (self.planted(Bug::SyncedByOne) && !equal.is_empty()) {
            return true;
        }
        let all_leave = other.iter().all(|old| layout.state().leaving().contains(*old));
        if equal.len() < needed || !all_leave {
            return false;
        }
        let now = Since { at: self.now, epoch: layout.epoch() };
        let mut is_lost = |old: &VolumeId| {
            let since = *leavers.entry(*old).or_insert(now);
            let is_there = |node: &NodeId| self.is_up(node) && self.was_heard(node, since.epoch);
            self.now - since.at >= LEAVER_MS && layout.node_of(old).is_some_and(|node| is_there(&node))
        };
        // Each of them is waited for from here on.
        other.into_iter().fold(true, |all, old| is_lost(old) && all)
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
