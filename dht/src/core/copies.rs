//! What this node's volumes hold, what they lack, and what they should not have: anti-entropy and repair.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use deadwax_track::{Partition, TrackId};

use super::message::Message;
use super::planted::Bug;
use super::{Core, CoreConfig, Effect, Part};
use crate::log::Stage;
use crate::partitions::Partitions;
use crate::random::Random;
use crate::repair::{PullError, Reason, Repair, Source, Want};
use crate::sync::{self, Holder, Sync};
use crate::takedown::Verdict;
use crate::wire::PartitionDigest;
use crate::{Layout, NodeId, VolumeId};

/// How long a pull waits for this node to learn whether it may, in ms.
const STALE_MS: u64 = 5_000;

/// The volumes, and the machines that keep them whole.
pub(super) struct Copies {
    sync: Sync,
    pub(super) repair: Repair,
    /// The volumes that are there, the node's own, whether or not the map has them.
    up: BTreeSet<VolumeId>,
    /// What was found equal since the volume came up: by own volume and the other one.
    equal: BTreeMap<(VolumeId, VolumeId), Partitions>,
    /// The layout that the machines were told.
    layout: Option<Arc<Layout>>,
}

impl Copies {
    pub(super) fn new(now: u64, config: &CoreConfig) -> Self {
        let mut random = Random(config.seed ^ 0x636f_7069_6573);
        Self {
            sync: Sync::new(random.draw(), config.settings.sync, now),
            repair: Repair::new(config.settings.repair, random.draw(), now),
            up: BTreeSet::new(),
            equal: BTreeMap::new(),
            layout: None,
        }
    }

    /// Bytes of a partition, as far as this node's volumes tell: its tracks by the mean length of those that are known.
    pub(super) fn partition_bytes_mean(&self) -> u64 {
        let held = self.layout.as_ref().map_or(0, |layout| self.up.iter().map(|up| layout.held_by(up).len()).sum());
        let digests = self.up.iter().flat_map(|up| self.sync.inventory().digests(up));
        let tracks: u64 = digests.map(|digest| u64::from(digest.tracks)).sum();
        tracks.saturating_mul(self.repair.track_bytes_mean()) / u64::try_from(held).expect("64 bits").max(1)
    }

    /// Whether that says something of the cluster: a volume that is empty may be a new one among full ones, unless it was
    /// found equal with the others.
    pub(super) fn tells_of_others(&self) -> bool {
        let has_tracks = |up: &VolumeId| self.sync.inventory().digests(up).next().is_some();
        self.up.iter().any(has_tracks) || !self.up.is_empty() && self.sync.pending().0 == 0
    }

    pub(super) fn has_volume(&self, volume: &VolumeId) -> bool {
        self.up.contains(volume)
    }

    pub(super) fn volumes(&self) -> impl Iterator<Item = VolumeId> {
        self.up.iter().copied()
    }

    pub(super) fn forget(&mut self, volume: &VolumeId, track: &TrackId) {
        self.repair.forget(volume, track);
    }

    /// Whether an own volume was equal to another in a partition, at some time since both it came up and the partition
    /// got its present holders.
    pub(super) fn was_equal(&self, volume: &VolumeId, partition: Partition, with: &VolumeId) -> bool {
        self.equal.get(&(*volume, *with)).is_some_and(|equal| equal.contains(partition))
    }

    /// How many comparisons in a row of an own volume with another had no answer.
    pub(super) fn unanswered(&self, volume: &VolumeId, with: &VolumeId) -> u8 {
        self.sync.unanswered(*volume, *with)
    }

    /// Forgets with whom an own volume was equal in a partition, but for those that `stay`.
    fn forget_equal(&mut self, volume: VolumeId, partition: Partition, stay: impl Fn(&VolumeId) -> bool) {
        let (least, most) = (VolumeId::from_bytes([0; 16]), VolumeId::from_bytes([0xff; 16]));
        for ((_, other), equal) in self.equal.range_mut((volume, least)..=(volume, most)) {
            if !stay(other) {
                equal.remove(partition);
            }
        }
    }
}

impl Core {
    /// What is being pulled, and why not more.
    #[must_use]
    pub const fn repair(&self) -> &Repair {
        &self.copies.repair
    }

    /// What there is, and with whom it is equal.
    #[must_use]
    pub const fn sync(&self) -> &Sync {
        &self.copies.sync
    }

    pub(super) fn take_repair_now(&mut self) {
        self.copies.sync.compare_all(self.now);
        self.copies.repair.hasten(self.now);
        self.touch(Part::Sync);
        self.touch(Part::Repair);
    }

    pub(super) fn take_volume_up(&mut self, volume: VolumeId, digests: Vec<PartitionDigest>, track_bytes: u64) {
        let tracks = digests.iter().map(|digest| u64::from(digest.tracks)).sum();
        self.copies.repair.learn_lengths(Some(volume), tracks, track_bytes);
        let partitions: BTreeSet<Partition> = digests.iter().map(|digest| digest.partition).collect();
        if !self.copies.up.insert(volume) {
            self.take_volume_down(volume);
            self.copies.up.insert(volume);
        }
        self.copies.sync.open_volume(self.now, volume, digests);
        self.begin_sweep(volume, partitions);
        self.touch(Part::Sync);
        self.touch(Part::Outages);
    }

    pub(super) fn take_volume_down(&mut self, volume: VolumeId) {
        if self.copies.up.remove(&volume) {
            self.copies.sync.close_volume(self.now, volume);
            self.copies.repair.forget_volume(&volume);
            self.forget_erasing(volume);
            self.end_sweep(&volume);
            self.copies.equal.retain(|(own, _), _| *own != volume);
            self.touch(Part::Sync);
            self.touch(Part::Repair);
            self.touch(Part::Outages);
        }
    }

    /// Tells the machines who holds what now: what changed, or all.
    pub(super) fn renew_copies(&mut self, layout: &Arc<Layout>) {
        let before = self.copies.layout.replace(layout.clone());
        let own = layout.map().node(&self.config.node).map_or(&[][..], |node| &node.volumes);
        let mut own: Vec<VolumeId> = own.iter().map(|volume| volume.id).collect();
        // A volume that the map has no more may have strays.
        own.extend(self.copies.up.iter().filter(|volume| !own.contains(volume)).copied().collect::<Vec<_>>());
        self.copies.equal.retain(|(_, other), _| layout.volume(other).is_some());
        self.copies.repair.keep_nodes(|node| layout.directory().has(node));
        match before.as_ref().and_then(|before| Some((before, layout.changed_since(before)?))) {
            Some((before, changed)) => {
                for partition in changed {
                    own.iter().for_each(|volume| self.renew_partition(before, layout, *volume, *partition));
                }
            }
            None => {
                // What was equal under holders that are not known any more may have come and gone since: all is
                // compared anew.
                self.copies.equal.clear();
                self.copies.sync.forget_layout(self.now);
                for volume in &own {
                    let held = layout.held_by(volume).iter().copied();
                    let others = |partition, into: &mut Vec<VolumeId>| {
                        layout.each_holder(partition, |other| {
                            into.extend((other.volume != *volume).then_some(other.volume))
                        });
                    };
                    let holder = |volume: &VolumeId| co_holder(layout, &layout.volume(volume).expect("a holder"));
                    self.copies.sync.set_volume(self.now, *volume, held, others, holder);
                }
            }
        }
        self.touch(Part::Sync);
    }

    fn renew_partition(&mut self, before: &Layout, layout: &Layout, volume: VolumeId, partition: Partition) {
        let (had, has) = (before.sets(partition).has(&volume), layout.sets(partition).has(&volume));
        // Strays, too, are offered to those who hold the partition now.
        if !had && !has && !self.copies.sync.has_tracks(&volume, partition) {
            return;
        }
        let others = others(layout, partition, &volume);
        let stays = |other: &VolumeId| had && has && others.iter().any(|holder| holder.volume == *other);
        self.copies.forget_equal(volume, partition, stays);
        self.copies.sync.set_partition(self.now, volume, partition, has, &others);
        if had && !has {
            self.copies.repair.cancel(partition);
        }
    }

    pub(super) fn tell_copies_of(&mut self, node: NodeId, up: bool) {
        self.copies.repair.set_up(node, up);
        self.receipts.set_reachable(&node, up);
        if up {
            self.copies.sync.handle_reachable(self.now, node);
            self.touch(Part::Sync);
        }
        self.touch(Part::Repair);
    }

    /// A node was heard of after a silence, whether it is called up or not.
    pub(super) fn tell_copies_of_word(&mut self, node: NodeId) {
        self.copies.sync.handle_heard(self.now, node);
        self.copies.repair.handle_heard(node);
        self.touch(Part::Sync);
        self.touch(Part::Repair);
    }

    pub(super) fn take_stored(&mut self, volume: VolumeId, track: TrackId) {
        self.copies.sync.stored(self.now, volume, track);
        self.copies.repair.forget(&volume, &track);
        let holds = self.layout().is_some_and(|layout| layout.sets(track.partition()).has(&volume));
        if self.planted(Bug::PullAgain) && holds {
            self.take_rotten(volume, track);
        }
        if self.planted(Bug::ForgetStandIn) && !holds {
            self.effects.push(Effect::Erase { volume, track, barred: false });
        }
        if matches!(self.gate(&track), Verdict::Barred(_)) && !self.planted(Bug::ResurrectAtEnd) {
            // It was on its way when it was taken down.
            self.effects.push(Effect::Erase { volume, track, barred: true });
        }
        self.touch(Part::Sync);
    }

    pub(super) fn take_erased(&mut self, volume: VolumeId, track: TrackId, was_there: bool) {
        if was_there {
            self.copies.sync.erased(self.now, volume, track);
            self.touch(Part::Sync);
            if !matches!(self.gate(&track), Verdict::Barred(_)) {
                // It may hold the partition since the erasure began: what it was equal with has one track more.
                self.copies.forget_equal(volume, track.partition(), |_| false);
            }
        }
        self.swept(&volume, &track);
        self.sign_receipt(volume, track);
    }

    /// A copy is no copy any more: it is fetched anew from whoever holds the partition, too.
    pub(super) fn take_rotten(&mut self, volume: VolumeId, track: TrackId) {
        if self.planted(Bug::IgnoreRot) {
            return;
        }
        self.copies.sync.erased(self.now, volume, track);
        // It may have been one of just a write quorum of copies: it says nothing of absence until it has compared itself.
        self.copies.forget_equal(volume, track.partition(), |_| false);
        self.touch(Part::Sync);
        let Some(layout) = self.layout().cloned() else { return };
        if !layout.sets(track.partition()).has(&volume) {
            // A stray that rotted is no copy, and is to be none.
            self.effects.push(Effect::Erase { volume, track, barred: false });
            return;
        }
        let others = others(&layout, track.partition(), &volume);
        let from: Vec<(VolumeId, NodeId)> = others.iter().map(|holder| (holder.volume, holder.node)).collect();
        self.want(&layout, volume, track, &from, Some(Reason::Rot));
    }

    pub(super) fn take_listed(&mut self, number: u64, tracks: Option<Vec<TrackId>>) {
        // A list that failed is forgotten after a while, and its partition is compared again.
        if let Some(tracks) = tracks {
            self.copies.sync.handle_listed(self.now, number, tracks);
            self.touch(Part::Sync);
        }
    }

    pub(super) fn take_pulled(&mut self, number: u64, bytes: u64, result: Result<(), PullError>) {
        let answered = matches!(result, Ok(()) | Err(PullError::Lacks | PullError::Busy { .. } | PullError::Corrupt));
        if let Some(source) = self.copies.repair.source(number).filter(|_| answered) {
            self.take_answered(source);
        }
        self.copies.repair.handle_pulled(self.now, number, bytes, result);
        self.touch(Part::Repair);
    }

    pub(super) fn take_latency(&mut self, micros: u64) {
        self.copies.repair.observe_foreground(self.now, micros);
        self.touch(Part::Repair);
    }

    pub(super) fn take_sync(&mut self, from: NodeId, message: sync::Message) {
        self.volume_spoke(&message.from);
        self.copies.sync.handle_message(self.now, from, message);
        self.touch(Part::Sync);
    }

    pub(super) fn poll_sync(&mut self) -> u64 {
        let Some(layout) = self.layout().cloned() else { return u64::MAX };
        loop {
            let effects = self.copies.sync.poll(self.now);
            if effects.is_empty() {
                return self.copies.sync.next_deadline().unwrap_or(u64::MAX);
            }
            for effect in effects {
                self.carry_out_sync(&layout, effect);
            }
        }
    }

    fn carry_out_sync(&mut self, layout: &Arc<Layout>, effect: sync::Effect) {
        match effect {
            sync::Effect::Send { to, message } if to == self.config.node => self.take_sync(to, message),
            sync::Effect::Send { to, message } => self.send(to, Message::Sync(message)),
            sync::Effect::List { number, volume, partition } => {
                self.effects.push(Effect::List { number, volume, partition });
            }
            sync::Effect::Holders { volume, partition } => {
                let (holds, others) = (layout.sets(partition).has(&volume), others(layout, partition, &volume));
                self.copies.sync.set_partition(self.now, volume, partition, holds, &others);
            }
            sync::Effect::Missing { volume, track, from, .. } => self.want(layout, volume, track, &[from], None),
            sync::Effect::Equal { volume, with, partitions } => {
                let equal = self.copies.equal.entry((volume, with)).or_default();
                partitions.into_iter().for_each(|partition| _ = equal.insert(partition));
                self.hasten_report(&volume);
            }
            sync::Effect::Covered { volume, track } => {
                self.effects.push(Effect::Erase { volume, track, barred: false });
            }
        }
    }

    /// An own volume is to have a track.
    fn want(
        &mut self,
        layout: &Layout,
        volume: VolumeId,
        track: TrackId,
        from: &[(VolumeId, NodeId)],
        reason: Option<Reason>,
    ) {
        if self.gate(&track) != Verdict::Pass || self.planted(Bug::NeverPull) {
            return;
        }
        let partition = track.partition();
        let sets = layout.sets(partition);
        let zone_of = |volume: &VolumeId| layout.volume(volume).map(|holder| holder.zone);
        let own_zone = zone_of(&volume);
        let node = |holder: &crate::Holder| layout.map().nodes()[holder.node].id;
        let others: Vec<crate::Holder> = sets.union().into_iter().filter(|other| other.volume != volume).collect();
        // Who is equal to this volume lacks the track as well.
        let lacks = |other: &crate::Holder| self.copies.sync.is_equal(volume, partition, other.volume);
        let live = |other: &&crate::Holder| self.is_up(&node(other)) && !lacks(other);
        let live: Vec<&crate::Holder> = others.iter().filter(live).collect();
        let first = sets.first.iter().any(|holder| holder.volume == volume);
        let stray = |(source, _): &(VolumeId, NodeId)| !sets.has(source);
        let reason = reason.unwrap_or(match (from.iter().all(stray), first) {
            (true, _) => Reason::Stray,
            (false, true) => Reason::Missing,
            (false, false) => Reason::Moving,
        });
        let want = Want {
            volume,
            track,
            bytes: 0,
            copies: u8::try_from(live.len().max(1)).unwrap_or(u8::MAX),
            zoneless: reason == Reason::Missing && live.iter().all(|other| Some(other.zone) != own_zone),
            reason,
        };
        let near = |source: &VolumeId| own_zone.is_some() && zone_of(source) == own_zone;
        let source = |(volume, node): &(VolumeId, NodeId)| Source { volume: *volume, node: *node, near: near(volume) };
        let sources: Vec<Source> = from.iter().map(source).collect();
        self.copies.repair.want(self.now, want, &sources);
        self.touch(Part::Repair);
    }

    pub(super) fn poll_repair(&mut self) -> u64 {
        while let Some(pull) = self.copies.repair.poll(self.now) {
            let layout = self.layout();
            let holds = layout.is_some_and(|layout| layout.sets(pull.track.partition()).has(&pull.volume));
            match self.gate(&pull.track) {
                // The partition is elsewhere by now. What rotted here goes; what is good is not wanted.
                Verdict::Pass if !holds => {
                    self.effects.push(Effect::Erase { volume: pull.volume, track: pull.track, barred: false });
                    self.copies.repair.handle_pulled(self.now, pull.number, 0, Err(PullError::Barred));
                }
                Verdict::Pass if self.planted(Bug::LosePull) => {}
                Verdict::Pass => self.effects.push(Effect::Pull(pull)),
                Verdict::Barred(_) => {
                    self.copies.repair.handle_pulled(self.now, pull.number, 0, Err(PullError::Barred));
                }
                Verdict::Stale(_) => {
                    let busy = PullError::Busy { after_ms: STALE_MS };
                    self.copies.repair.handle_pulled(self.now, pull.number, 0, Err(busy));
                }
            }
        }
        self.copies.repair.next_deadline()
    }

    /// Whether a volume may say that its partition has no other tracks than it has: since it came up it was equal with
    /// all other holders that live, the old ones among them while they may still be asked. An old image of a drive lacks
    /// tracks of which it was one of just a write quorum of copies; each other holder may have the other.
    pub(super) fn is_proved(&self, volume: &VolumeId, partition: Partition) -> bool {
        let Some(layout) = self.layout() else { return false };
        if self.planted(Bug::AbsentUnproved) {
            return true;
        }
        let dead = layout.state().dead();
        let sets = layout.sets(partition);
        let transition = layout.state().transitions().get(&partition);
        let is_synced = transition.is_some_and(|transition| transition.stage == Stage::Synced);
        let holders = if is_synced { sets.union() } else { sets.first };
        let mut others = holders.into_iter().filter(|holder| holder.volume != *volume);
        others.all(|holder| {
            let node = layout.map().nodes()[holder.node].id;
            dead.contains(&node) || self.copies.was_equal(volume, partition, &holder.volume)
        })
    }
}

/// The other holders of a partition, in any set.
fn others(layout: &Layout, partition: Partition, volume: &VolumeId) -> Vec<Holder> {
    let mut others = Vec::with_capacity(4);
    layout.each_holder(partition, |other| {
        if other.volume != *volume {
            others.push(co_holder(layout, other));
        }
    });
    others
}

fn co_holder(layout: &Layout, holder: &crate::Holder) -> Holder {
    let (node, dead) = (layout.map().nodes()[holder.node].id, layout.state().dead());
    Holder { volume: holder.volume, node, dead: !dead.is_empty() && dead.contains(&node) }
}
