//! Drives that are out on nodes that live: each node says so of its own to the voters, and the leader has the copies of those
//! that stay out made anew elsewhere.
//!
//! A node speaks every few seconds while a drive of the map is not there, and for a while after, so that its return is heard,
//! too. It does not speak of one that went a moment ago: after a start drives are being opened, and one that hangs is opened
//! again. What it says of itself is all that is known of a drive: silence is none, and ends what was said before.

use std::collections::{BTreeMap, BTreeSet};

use super::message::Message;
use super::{Core, Part};
use crate::liveness::{LAPSE_MS, TOLD_MS};
use crate::wire::VOLUMES_PER_NODE_MAX;
use crate::{Layout, NodeId, VolumeId};

/// How long a drive is out, in ms, before its node says so.
const GRACE_MS: u64 = 60 * 1_000;

/// This node's own drives that the map has and that are not there.
#[derive(Default)]
pub(super) struct OwnOutages {
    /// Since when.
    since: BTreeMap<VolumeId, u64>,
    /// Which were told last, and when.
    told: Vec<VolumeId>,
    told_at: u64,
    /// Until when it is told, even that there are none.
    until: u64,
    /// When what was heard of others is looked at next.
    look_at: Option<u64>,
}

impl Core {
    pub(super) fn poll_outages(&mut self) -> u64 {
        let Some(layout) = self.layout().cloned() else { return u64::MAX };
        let again = self.tell_outages(&layout);
        again.min(self.look_at_outages(&layout))
    }

    /// Tells the voters which own drives are out. When to look again.
    fn tell_outages(&mut self, layout: &Layout) -> u64 {
        let now = self.now;
        let volumes = layout.map().node(&self.config.node).map_or(&[][..], |node| &node.volumes);
        let own = &mut self.own_outages;
        let before = std::mem::take(&mut own.since);
        let missing = volumes.iter().map(|volume| volume.id).filter(|volume| !self.copies.has_volume(volume));
        own.since = missing.map(|volume| (volume, before.get(&volume).copied().unwrap_or(now))).collect();
        let (long, short): (Vec<_>, Vec<_>) = own.since.iter().partition(|(_, since)| now - **since >= GRACE_MS);
        let out: Vec<VolumeId> = long.into_iter().map(|(volume, _)| *volume).take(VOLUMES_PER_NODE_MAX).collect();
        let next = short.into_iter().map(|(_, since)| since + GRACE_MS).min().unwrap_or(u64::MAX);
        if !out.is_empty() {
            own.until = now + LAPSE_MS;
        }
        if out != own.told || (now < own.until && now >= own.told_at + TOLD_MS) {
            (own.told, own.told_at) = (out.clone(), now);
            self.tell_voters(layout, &Message::Out(out));
        }
        let own = &self.own_outages;
        if now < own.until { next.min(own.told_at + TOLD_MS) } else { next }
    }

    /// A node says which of its drives are out.
    pub(super) fn take_out(&mut self, from: NodeId, out: &[VolumeId]) {
        let Some(layout) = self.layout().filter(|layout| layout.state().voter(&self.config.node).is_some()) else {
            return;
        };
        let out: Vec<VolumeId> = out.iter().filter(|volume| layout.node_of(volume) == Some(from)).copied().collect();
        if self.outages.hear(self.now, from, &out) {
            self.own_outages.look_at = Some(self.now);
            self.touch(Part::Outages);
        }
    }

    fn look_at_outages(&mut self, layout: &Layout) -> u64 {
        let Some(look_at) = self.own_outages.look_at else { return u64::MAX };
        if self.now < look_at {
            return look_at;
        }
        self.outages.look(self.now, layout.state());
        self.own_outages.look_at = (!self.outages.is_idle()).then_some(self.now + TOLD_MS);
        self.tell_planner_of_outages();
        self.own_outages.look_at.unwrap_or(u64::MAX)
    }

    /// Which drives are lost may have changed.
    pub(super) fn tell_planner_of_outages(&mut self) {
        let Some(layout) = self.layout().cloned() else { return };
        let map = layout.map();
        let is_braked = |volume: &VolumeId| {
            let zone = layout.volume(volume).map(|holder| &map.zones()[holder.zone]);
            zone.is_none_or(|zone| self.contacts.liveness.brake(zone).is_some())
        };
        let lost: BTreeSet<VolumeId> =
            self.outages.lost().iter().filter(|volume| !is_braked(volume)).copied().collect();
        let now = self.now;
        if let Some(rebalance) = self.planner_mut() {
            rebalance.set_lost(now, lost);
            self.touch(Part::Planner);
        }
    }
}
