//! What a node has taken on, as its driver sees it, beside what its settings allow.

use std::collections::BTreeMap;

use deadwax_dht::VolumeId;
use deadwax_dht::core::Verb;
use deadwax_dht::sync::LISTS_MAX;

use super::World;
use crate::clock::{Micros, SECOND};
use crate::slab::Key;

/// A core may forget a listing that was not answered for 30 s by its clock, and ask for another in its place.
const LIST_LOST: Micros = 29 * SECOND;
const CLASSES: [&str; 3] = ["reads", "writes", "pulls of others"];

/// Requests that a node has not ended, by class, and listings under way.
#[derive(Debug, Default)]
pub(crate) struct Load {
    open: [usize; 3],
    begun: [usize; 3],
    /// By number: since when, and of which volume.
    lists: BTreeMap<u64, (Micros, VolumeId)>,
}

impl Load {
    pub(super) fn listed(&mut self, number: u64) {
        self.lists.remove(&number);
    }

    /// A volume came or went: its listings are of no use.
    pub(super) fn forget_volume(&mut self, volume: &VolumeId) {
        self.lists.retain(|_, (_, of)| of != volume);
    }

    /// A new process begins without listings.
    pub(super) fn forget_lists(&mut self) {
        self.lists.clear();
    }
}

const fn class(verb: Verb) -> usize {
    match verb {
        Verb::Get => 0,
        Verb::Put | Verb::StandIn => 1,
        Verb::Pull { .. } => 2,
    }
}

impl World {
    /// How many requests of each class may be under way, and how many more may wait.
    const fn limits(&self) -> [(usize, usize); 3] {
        let (admission, serves) = (&self.settings.admission, self.settings.repair.serves_max);
        let (read, write) = (admission.read, admission.write);
        [(read.under_way_max, read.queue_max), (write.under_way_max, write.queue_max), (serves, 0)]
    }

    /// A request is before the core.
    pub(super) fn request_opened(&mut self, host: u32, verb: Verb) {
        self.hosts[host as usize].load.open[class(verb)] += 1;
    }

    /// The core has said what becomes of a request that came.
    pub(super) fn check_open(&mut self, host: u32, verb: Verb) {
        let class = class(verb);
        let (under_way, waiting) = self.limits()[class];
        let open = self.hosts[host as usize].load.open[class];
        self.checks.bound(&format!("{} not ended", CLASSES[class]), host, open, under_way + waiting);
    }

    /// The core lets a request begin.
    pub(super) fn request_begun(&mut self, host: u32, verb: Verb) {
        let class = class(verb);
        let begun = &mut self.hosts[host as usize].load.begun[class];
        *begun += 1;
        self.checks.bound(&format!("{} begun", CLASSES[class]), host, *begun, self.limits()[class].0);
    }

    /// The node is done with a request.
    pub(super) fn request_shut(&mut self, key: Key) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        if std::mem::replace(&mut flow.server_open, false) && !flow.late {
            let load = &mut self.hosts[flow.server as usize].load;
            load.open[class(flow.verb)] -= 1;
            load.begun[class(flow.verb)] -= usize::from(flow.begun);
        }
    }

    /// A core asks for a list.
    pub(super) fn list_begun(&mut self, host: u32, number: u64, volume: VolumeId) {
        let (now, lists) = (self.now, &mut self.hosts[host as usize].load.lists);
        lists.retain(|_, (since, _)| *since + LIST_LOST > now);
        lists.insert(number, (now, volume));
        self.checks.bound("listings under way", host, lists.len(), LISTS_MAX);
    }

    /// A volume begins another pull.
    pub(super) fn check_pulls(&mut self, host: u32, volume: &VolumeId) {
        let own = |pull: &super::PullUnderWay| pull.host == host && pull.volume == *volume;
        let pulls = self.pulls.iter().filter(|(_, pull)| own(pull)).count();
        self.checks.bound(&format!("pulls of {volume} under way"), host, pulls, self.settings.repair.pulls_max.max(1));
    }
}
