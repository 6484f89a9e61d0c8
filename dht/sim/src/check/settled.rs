//! Whether all is settled, and what is not.

use std::collections::BTreeSet;

use deadwax_dht::Layout;
use deadwax_dht::repair::Stall;
use deadwax_track::Partition;

use super::Rule;
use crate::drive::{Drive, State};
use crate::probe::Probe;
use crate::trace::name;
use crate::world::World;

impl World {
    /// Two holders of a set are never on one node, at any epoch.
    pub(crate) fn check_layout(&mut self) {
        let layout = self.layout();
        for partition in &self.topology.partitions {
            for set in layout.sets(*partition).each() {
                let nodes: BTreeSet<usize> = set.iter().map(|holder| holder.node).collect();
                if nodes.len() < set.len() {
                    let text = format!("epoch {}: two holders of partition {} on a node", layout.epoch(), partition.0);
                    self.checks.violate(Rule::Placement, text);
                }
            }
        }
        let moving = layout.state().transitions().keys().copied();
        let moving: BTreeSet<Partition> = moving.filter(|at| self.topology.partitions.contains(at)).collect();
        let moved = moving.union(&self.checks.moving).copied().collect();
        self.check_moves(&layout, &moved);
        self.checks.moving = moving;
        self.rebuild_takedowns();
    }

    /// A core that works out its layouts by itself, each from its own last, finds what everybody else does.
    pub(crate) fn check_own_layout(&mut self, host: u32) {
        let core = self.hosts[host as usize].core.as_ref().expect("it has just said something");
        let (Some(history), Some(own)) = (core.history(), core.layout().cloned()) else { return };
        let other = self.layouts.layout(history, None).expect("a core's history is sound");
        let node = &self.hosts[host as usize].id;
        let mut drives = self.hosts[host as usize].drives.iter().map(|drive| &drive.id);
        let alike = own.epoch() == other.epoch()
            && own.held_in(node) == other.held_in(node)
            && drives.all(|volume| own.held_by(volume) == other.held_by(volume))
            && self.topology.partitions.iter().all(|at| own.sets(*at) == other.sets(*at))
            && own.witnesses() == other.witnesses();
        self.hit(Probe::OwnLayouts);
        if !alike {
            self.checks
                .violate(Rule::OneLayout, format!("n{host} works out epoch {} otherwise than others do", own.epoch()));
        }
    }

    /// What is not settled yet: none where all is.
    pub(crate) fn unsettled(&self) -> Option<String> {
        if let Some(job) = self.operator.open().next() {
            return Some(format!("the operator's job to {}: {}", job.what, job.last));
        }
        let state = self.newest.state();
        if !state.transitions().is_empty() || !state.outgoing().is_empty() {
            return Some(format!(
                "{} partitions move, {} outgoing voters",
                state.transitions().len(),
                state.outgoing().len()
            ));
        }
        let named: BTreeSet<_> = state.spec().nodes.iter().map(|node| node.id).collect();
        for (number, host) in (0..).zip(&self.hosts) {
            if !host.is_member() || !named.contains(&host.id) {
                continue;
            }
            if !host.is_up() {
                return Some(format!("{} is not up", name(number)));
            }
            let epoch = host.system.history.as_ref().map_or(0, deadwax_dht::log::History::epoch);
            if epoch != self.newest.epoch() {
                return Some(format!("{} is at epoch {epoch}, not {}", name(number), self.newest.epoch()));
            }
        }
        let layout = self.layout();
        self.unsettled_tracks(&layout).or_else(|| self.unsettled_zones(&layout)).or_else(|| self.unsettled_work())
    }

    /// What cores say that they have yet to do, where all is as it should be: work that nobody does.
    fn unsettled_work(&self) -> Option<String> {
        let barred: Vec<_> = self.oracle.tracks.iter().filter(|track| track.taken_down.is_some()).collect();
        for (number, host) in (0..).zip(&self.hosts).filter(|(_, host)| host.is_member()) {
            let Some(core) = &host.core else { continue };
            if !core.standing().intact {
                return Some(format!("{} has not got its takedowns again", name(number)));
            }
            let repair = core.repair().status(host.clock.now_ms(self.now));
            if (repair.tracks_left, repair.stall) != (0, Some(Stall::Idle)) {
                return Some(format!("{} is not idle, and all is where it should be: {repair:?}", name(number)));
            }
            if let Some(stall) = core.progress().and_then(|progress| progress.stall) {
                return Some(format!("{} is held up, and nothing moves: {stall:?}", name(number)));
            }
            let open = |id: &deadwax_track::TrackId| core.takedown_progress(id).is_some_and(|it| !it.is_complete());
            if let Some(track) = barred.iter().find(|track| open(&track.id)) {
                return Some(format!("{} waits for receipts of {}, which is gone", name(number), track.id));
            }
        }
        None
    }

    pub(crate) fn unsettled_tracks(&self, layout: &Layout) -> Option<String> {
        let drives = || self.hosts.iter().filter(|host| host.is_member()).flat_map(|host| &host.drives);
        for (number, track) in self.oracle.tracks.iter().enumerate().filter(|(_, track)| track.tried) {
            let id = &track.id;
            let holders: BTreeSet<_> = layout.sets(id.partition()).first.iter().map(|holder| holder.volume).collect();
            let holds = |drive: &Drive| holders.contains(&drive.id);
            // What rotted where it is held no more is of no use to anybody, and in nobody's way.
            let counts = |drive: &Drive| drive.tracks.get(id).is_some_and(|copy| copy.told || holds(drive));
            let serving = drives().filter(|drive| drive.state == State::Serving);
            let have: BTreeSet<_> = serving.filter(|drive| counts(drive)).map(|drive| drive.id).collect();
            // One that only its issuer had, whose drive was lost, is lost.
            if track.taken_down.is_some()
                && self.checks.takedowns.get(id).is_some_and(|spread| !spread.hosts.is_empty())
            {
                if !have.is_empty() {
                    return Some(format!("track {number} is taken down and still there:{}", self.where_is(id)));
                }
                continue;
            }
            if track.takedown_asked.is_some() {
                continue;
            }
            // What was not acknowledged may be lost.
            if track.acked.is_none() && self.copies(id) == 0 {
                continue;
            }
            let good = |volume: &deadwax_dht::VolumeId| drives().any(|drive| drive.id == *volume && drive.has_good(id));
            if have != holders || !holders.iter().all(good) {
                let text: Vec<String> = holders.iter().map(|volume| volume.to_string()[..4].to_owned()).collect();
                return Some(format!("track {number} should be on {text:?}; it is on{}", self.where_is(id)));
            }
        }
        None
    }

    /// Zones as the policy wants them, as far as there are some: without the dead and the leaving.
    fn unsettled_zones(&self, layout: &Layout) -> Option<String> {
        let state = self.newest.state();
        let live = |node: &&deadwax_dht::Node| {
            !state.dead().contains(&node.id) && node.volumes.iter().any(|volume| !state.leaving().contains(&volume.id))
        };
        let zones: BTreeSet<&str> = state.spec().nodes.iter().filter(live).map(|node| node.zone.as_str()).collect();
        let due = usize::from(state.spec().policy.zones_min).min(zones.len());
        for partition in &self.topology.partitions {
            let holders = layout.sets(*partition).first;
            let have: BTreeSet<usize> = holders.iter().map(|holder| holder.zone).collect();
            if have.len() < due {
                return Some(format!("partition {} lies in {} zones of {due}", partition.0, have.len()));
            }
        }
        None
    }
}
