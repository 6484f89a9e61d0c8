//! Copies beside the map: where an acknowledged track must lie, and who may say that it has none.

use std::collections::BTreeSet;

use deadwax_dht::takedown::Receipt;
use deadwax_dht::{Layout, VolumeId};
use deadwax_track::{Partition, TrackId};

use super::Rule;
use crate::world::World;

impl World {
    /// Where a volume of the map is.
    fn place(&self, layout: &Layout, volume: &VolumeId) -> Option<(u32, usize)> {
        let host = *self.registry.get(&layout.node_of(volume)?)?;
        Some((host, self.hosts[host as usize].drive(volume)?))
    }

    fn lies_on(&self, layout: &Layout, volume: &VolumeId, id: &TrackId) -> bool {
        let place = self.place(layout, volume);
        place.is_some_and(|(host, drive)| self.hosts[host as usize].drives[drive].has_good(id))
    }

    /// How many copies of a track faults may have destroyed since all was whole.
    pub(super) fn struck(&self, track: u32) -> usize {
        usize::from(self.faults.struck_tracks.contains(&track))
    }

    /// A read quorum of the first set may say *absent*: so an acknowledged track has a write quorum there, less what faults
    /// destroyed, at whatever epoch is the newest.
    pub(super) fn check_first_set(&mut self, layout: &Layout, track: u32, when: &str) {
        let known = self.oracle.get(track);
        if known.takedown_asked.is_some() || known.acked.is_none() {
            return;
        }
        let first = layout.sets(known.id.partition()).first;
        let have = first.iter().filter(|holder| self.lies_on(layout, &holder.volume, &known.id)).count();
        let due = usize::from(layout.map().policy().write_quorum).min(first.len());
        if have + self.struck(track) < due {
            let (epoch, lies) = (layout.epoch(), self.where_is(&known.id));
            let text =
                format!("track {track} {when}: {have} of its first holders have it at epoch {epoch}; it is on{lies}");
            self.checks.violate(Rule::FirstSet, text);
        }
    }

    /// The zones of an acknowledged track's copies are as many as the policy wants and its holders lie in, by the map of the
    /// put: by a newer one a node may be elsewhere, as for tracks that were put before; what it moves mends both.
    pub(super) fn check_zones(&mut self, layout: &Layout, track: u32) {
        let known = self.oracle.get(track);
        let hosts = self.hosts.iter().filter(|host| host.is_member());
        // By the map's word: a node may be said to be elsewhere than it is.
        let good = hosts.flat_map(|host| &host.drives).filter(|drive| drive.has_good(&known.id));
        let have: BTreeSet<usize> =
            good.filter_map(|drive| layout.volume(&drive.id)).map(|holder| holder.zone).collect();
        let sets = layout.sets(known.id.partition());
        let zones: BTreeSet<usize> = sets.union().iter().map(|holder| holder.zone).collect();
        let due = usize::from(layout.map().policy().zones_min).min(zones.len());
        if known.takedown_asked.is_none() && have.len() + self.struck(track) < due {
            self.checks
                .violate(Rule::Durable, format!("track {track} is acknowledged in {} zones of {due}", have.len()));
        }
    }

    /// At a new epoch, tracks whose holders changed lie where they must.
    pub(super) fn check_moves(&mut self, layout: &Layout, moved: &BTreeSet<Partition>) {
        for track in 0..self.oracle.len() {
            if moved.contains(&self.oracle.get(track).id.partition()) {
                self.check_first_set(layout, track, "after a move");
            }
        }
    }

    /// What is no track's holder is erased only when all who hold it have it: all of one set, but for the dead and those
    /// on whom faults destroyed data.
    pub(super) fn check_released(&mut self, host: u32, track: u32) {
        let layout = self.layout();
        let known = self.oracle.get(track);
        let dead = layout.state().dead();
        let spared = |volume: &VolumeId| {
            let node = layout.node_of(volume);
            let place = self.place(&layout, volume).map(|(host, _)| host);
            node.is_none_or(|node| dead.contains(&node)) || place.is_none() || place == self.faults.struck()
        };
        let sets = layout.sets(known.id.partition());
        let full = |set: &[deadwax_dht::Holder]| {
            set.iter().all(|holder| spared(&holder.volume) || self.lies_on(&layout, &holder.volume, &known.id))
        };
        if !sets.each().any(full) {
            let lies = self.where_is(&known.id);
            let text = format!("n{host} erased its stray of track {track}, which not all holders have; it is on{lies}");
            self.checks.violate(Rule::Needed, text);
        }
    }

    /// Volumes that lost copies, or missed them while they were away, may not say *absent* until they have them.
    pub(crate) fn owe(&mut self, volume: VolumeId, track: u32) {
        if self.oracle.get(track).acked.is_some() {
            self.checks.owed.insert((volume, track));
        }
    }

    /// A track is acknowledged: holders that are away owe it when they come back.
    pub(super) fn owe_those_away(&mut self, layout: &Layout, track: u32) {
        let id = self.oracle.get(track).id;
        for holder in layout.sets(id.partition()).first {
            let place = self.place(layout, &holder.volume);
            let away = place.is_some_and(|(host, _)| self.hosts[host as usize].core.is_none());
            if away && !self.lies_on(layout, &holder.volume, &id) {
                self.owe(holder.volume, track);
            }
        }
    }

    /// A volume says that it does not have a track.
    pub(crate) fn check_absent(&mut self, host: u32, volume: &VolumeId, track: u32) {
        let known = self.oracle.get(track);
        if known.takedown_asked.is_none() && self.checks.owed.contains(&(*volume, track)) {
            let lies = self.where_is(&known.id);
            let text = format!("n{host} says that track {track} is absent, which it lost or missed; it is on{lies}");
            self.checks.violate(Rule::AbsentOwed, text);
        }
    }

    /// A node says that copies are gone: they are.
    pub(crate) fn check_receipts(&mut self, host: u32, receipts: &[Receipt]) {
        for receipt in receipts {
            let at = &self.hosts[host as usize];
            let drive = at.drive(&receipt.volume).map(|drive| &at.drives[drive]);
            if drive.is_some_and(|drive| drive.tracks.contains_key(&receipt.track)) {
                let track = self.oracle.number(&receipt.track);
                self.checks
                    .violate(Rule::Receipts, format!("n{host} gave a receipt for track {track}, which is still there"));
            }
        }
    }
}
