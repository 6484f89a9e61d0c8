//! What partitions in motion ask of this node: to show that it has what they hold, and that it knows where they are.
//!
//! The leader moves a partition from stage to stage on two kinds of report, which both go to all voters and are
//! repeated until the stage is over. *Synced*: a new holder has found its digest equal with all old ones, all of them at
//! the epoch of the move or later. One that is down is waited for until it is declared dead, as those that are up may have
//! lost what it has. One that leaves the cluster may be a drive that is lost: it is waited for only until its node has
//! answered for two minutes without it, once for all that it held. *Knows*: an old holder knows that readers ask the new
//! set now, so that it will not call anything absent; without that, two old holders that are cut off together could, after
//! the new set has taken a write alone.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_track::Partition;

use super::message::Message;
use super::planted::Bug;
use super::{Core, Part};
use crate::log::Stage;
use crate::rebalance::{SYNCED_PARTITIONS_MAX, Synced, old_holders_needed};
use crate::sync::WAIT_MS_MAX;
use crate::{Layout, NodeId, VolumeId};

/// How often a report is repeated, in ms.
const AGAIN_MS: u64 = 2_000;
/// How soon another report follows where there is more to tell, in ms.
const MORE_MS: u64 = 250;
/// An old holder that leaves is lost when its node has answered for so long, in ms, without a word of the volume: longer
/// than sync ever waits between two comparisons.
const GONE_MS: u64 = 2 * WAIT_MS_MAX;
/// And when so many comparisons in a row had no answer.
const UNANSWERED: u8 = 3;
/// One that was lost counts so again when its node has answered for so long, in ms, after nobody looked, as between two
/// batches of what it held: a volume that came back meanwhile is asked every second then, and answers.
const STILL_GONE_MS: u64 = 2 * AGAIN_MS;
/// A node has not answered if nothing came from it for so long, in ms: five questions are lost.
const HEARD_MS: u64 = 5 * AGAIN_MS;

/// The partitions in motion of which this node's volumes are holders.
#[derive(Default)]
pub(super) struct Duties {
    /// New holders that have yet to show that they have all.
    joining: Vec<(Partition, VolumeId)>,
    /// Of own volumes, and old holders that leave and answer nothing while their nodes do: since when.
    silent: BTreeMap<(VolumeId, VolumeId), Silence>,
    /// Whether a volume of this node is an old holder of a partition whose readers ask the new ones.
    leaves: bool,
    due: Option<u64>,
    /// When it reported last.
    told_at: u64,
}

/// A volume answers no comparison, and its node answers. A word of the volume ends it.
#[derive(Clone, Copy)]
struct Silence {
    from: u64,
    /// When that was looked at last.
    until: u64,
    /// Which the node has to know: at another epoch it would say nothing.
    epoch: u64,
    /// It lasted so long that the volume is lost.
    lost: bool,
}

impl Core {
    pub(super) fn renew_duties(&mut self, layout: &Layout) {
        let volumes = layout.map().node(&self.config.node).map_or(&[][..], |node| &node.volumes);
        let own = |volume: &&VolumeId| volumes.iter().any(|own| own.id == **volume);
        let (silent, told_at) = (std::mem::take(&mut self.duties.silent), self.duties.told_at);
        let mut duties = Duties { silent, told_at, ..Duties::default() };
        duties.silent.retain(|(_, old), _| layout.state().leaving().contains(old));
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

    /// A volume was found equal with another: it may have all of what comes to it, and says so soon.
    pub(super) fn hasten_report(&mut self, volume: &VolumeId) {
        let Some(due) = self.duties.due else { return };
        if self.duties.joining.iter().any(|(_, joining)| joining == volume) {
            self.duties.due = Some(due.min(self.now.max(self.duties.told_at + MORE_MS)));
            self.touch(Part::Duties);
        }
    }

    pub(super) fn poll_duties(&mut self) -> u64 {
        let Some(due) = self.duties.due else { return u64::MAX };
        if self.now < due {
            return due;
        }
        let Some(layout) = self.layout().cloned() else { return u64::MAX };
        let mut synced: BTreeMap<VolumeId, Vec<Partition>> = BTreeMap::new();
        let lost = self.lost_leavers(&layout);
        for (partition, volume) in &self.duties.joining {
            if self.has_all(&layout, *partition, volume, &lost) {
                let partitions = synced.entry(*volume).or_default();
                if partitions.len() < SYNCED_PARTITIONS_MAX {
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
        (self.duties.due, self.duties.told_at) = (Some(due), self.now);
        due
    }

    /// Of own volumes that join, and old holders that leave: the pairs of which the old one is lost, as a drive that failed
    /// and is replaced is. Its node answers, and it does not.
    fn lost_leavers(&mut self, layout: &Layout) -> BTreeSet<(VolumeId, VolumeId)> {
        let leaving = layout.state().leaving();
        let mut pairs = BTreeSet::new();
        for (partition, volume) in self.duties.joining.iter().filter(|_| !leaving.is_empty()) {
            let old = layout.state().transitions()[partition].old.iter().filter(|old| leaving.contains(*old));
            pairs.extend(old.map(|old| (*volume, *old)));
        }
        let mut nodes: BTreeSet<NodeId> = pairs.iter().filter_map(|(_, old)| layout.node_of(old)).collect();
        nodes.remove(&self.config.node);
        nodes.into_iter().for_each(|node| self.ping(node));
        let mut lost = BTreeSet::new();
        for pair in pairs {
            let fresh = Silence { from: self.now, until: self.now, epoch: layout.epoch(), lost: false };
            let mut silence = self.duties.silent.remove(&pair).unwrap_or(fresh);
            if self.now - silence.until > HEARD_MS {
                silence = if silence.lost { Silence { from: self.now, ..silence } } else { fresh };
            }
            let since = self.now.saturating_sub(HEARD_MS);
            let answers = layout.node_of(&pair.1).is_some_and(|node| self.was_heard(&node, silence.epoch, since));
            // Of a node that was not asked for long, no answer is due yet.
            let due = !silence.lost || self.now - silence.from > HEARD_MS;
            if !answers && due {
                silence = fresh;
            }
            silence.until = self.now;
            let lasted = self.now - silence.from;
            silence.lost |= lasted >= GONE_MS && self.copies.unanswered(&pair.0, &pair.1) >= UNANSWERED;
            if silence.lost && answers && lasted >= STILL_GONE_MS {
                lost.insert(pair);
            }
            self.duties.silent.insert(pair, silence);
        }
        lost
    }

    /// A volume said something: it is not lost.
    pub(super) fn volume_spoke(&mut self, volume: &VolumeId) {
        self.duties.silent.retain(|(_, old), _| old != volume);
    }

    /// Whether a new holder has all that any acknowledged put wrote to the old ones: it is equal with all that are neither
    /// declared dead nor lost. So many that every write quorum has one of them are needed, but not enough: that one may have
    /// rotted, or come back with an old image of its drive.
    fn has_all(
        &self,
        layout: &Layout,
        partition: Partition,
        volume: &VolumeId,
        lost: &BTreeSet<(VolumeId, VolumeId)>,
    ) -> bool {
        let transition = &layout.state().transitions()[&partition];
        let dead = layout.state().dead();
        let lives = |old: &&VolumeId| {
            layout.node_of(old).is_some_and(|node| !dead.contains(&node)) && !lost.contains(&(*volume, **old))
        };
        let living: Vec<&VolumeId> = transition.old.iter().filter(lives).collect();
        let (old, policy) = (transition.old.len(), layout.map().policy());
        // Where all are lost it is an operator's to say that nothing is to be had.
        let least = usize::from(transition.old.iter().any(|old| lost.contains(&(*volume, *old))));
        let needed = old_holders_needed(policy, old, old - living.len()).max(least);
        let is_equal = |old: &&&VolumeId| self.copies.was_equal(volume, partition, old);
        let equal = living.iter().filter(is_equal).count();
        let hasty = self.planted(Bug::SyncedEarly) || (self.planted(Bug::SyncedByOne) && equal > 0);
        (equal == living.len() && equal >= needed) || hasty
    }

    pub(super) fn tell_voters(&mut self, layout: &Layout, message: &Message) {
        let voters: Vec<NodeId> = layout.state().voters().iter().map(|voter| voter.node).collect();
        for voter in voters {
            if voter == self.config.node {
                match message {
                    Message::Synced(synced) => self.take_synced(voter, synced),
                    Message::Out(out) => self.take_out(voter, out),
                    _ => self.take_knows(voter, layout.epoch()),
                }
            } else {
                self.send(voter, message.clone());
            }
        }
    }
}
