//! Takedowns: who has them durable, and since when a majority does.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_dht::VolumeId;
use deadwax_track::TrackId;

use super::{LEASE, Rule, WORD};
use crate::clock::Micros;
use crate::probe::Probe;
use crate::world::World;

/// How far one takedown has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spread {
    /// Hosts that have it in the whole beginning of its chain.
    pub(crate) hosts: BTreeSet<u32>,
    /// How many of them are witnesses by the newest map.
    pub(crate) members: usize,
    /// Since when these are a majority of the witnesses.
    pub(crate) majority: Option<Micros>,
}

impl World {
    /// The tracks of takedowns that a host has in chains without gaps.
    fn chained(&self, host: u32) -> Vec<TrackId> {
        let mut chains: BTreeMap<[u8; 32], BTreeMap<u64, TrackId>> = BTreeMap::new();
        for takedown in &self.hosts[host as usize].system.takedowns {
            chains.entry(takedown.issuer).or_default().insert(takedown.number, takedown.track);
        }
        let whole = |chain: BTreeMap<u64, TrackId>| {
            (1..)
                .zip(chain)
                .take_while(|(due, (number, _))| due == number)
                .map(|(_, (_, track))| track)
                .collect::<Vec<_>>()
        };
        chains.into_values().flat_map(whole).collect()
    }

    /// A host has more takedowns durable.
    pub(crate) fn takedowns_grew(&mut self, host: u32) {
        let member = self.checks.members.contains(&host);
        for track in self.chained(host) {
            let spread = self.checks.takedowns.entry(track).or_default();
            spread.members += usize::from(spread.hosts.insert(host) && member);
            self.count_majority(track);
        }
    }

    /// A host may have lost takedowns that were not durable.
    pub(crate) fn recount_takedowns(&mut self, host: u32) {
        let member = self.checks.members.contains(&host);
        let mut had = Vec::new();
        for (track, spread) in &mut self.checks.takedowns {
            if spread.hosts.remove(&host) {
                spread.members -= usize::from(member);
                had.push(*track);
            }
        }
        for track in self.chained(host) {
            let spread = self.checks.takedowns.entry(track).or_default();
            spread.members += usize::from(spread.hosts.insert(host) && member);
            had.push(track);
        }
        had.into_iter().for_each(|track| self.count_majority(track));
    }

    /// The newest map is another: it may have other witnesses.
    pub(crate) fn check_witnesses(&mut self) {
        if self.witnesses() != self.checks.members {
            (self.checks.members_since, self.checks.known) = (self.newest.epoch(), BTreeMap::new());
            self.rebuild_takedowns();
        }
    }

    fn witnesses(&self) -> BTreeSet<u32> {
        self.layout().witnesses().iter().filter_map(|node| self.registry.get(node).copied()).collect()
    }

    /// Since when a host knows the witnesses, at the latest; none: it does not.
    fn knows_witnesses(&mut self, host: u32) -> Option<Micros> {
        let core = self.hosts[host as usize].core.as_ref()?;
        (core.epoch() >= self.checks.members_since).then(|| *self.checks.known.entry(host).or_insert(self.now))
    }

    /// Hosts lost takedowns, or the map changed: counts all anew.
    pub(crate) fn rebuild_takedowns(&mut self) {
        self.checks.members = self.witnesses();
        for spread in self.checks.takedowns.values_mut() {
            (spread.members, spread.hosts) = (0, BTreeSet::new());
        }
        for host in 0..u32::try_from(self.hosts.len()).expect("few hosts") {
            let member = self.checks.members.contains(&host);
            for track in self.chained(host) {
                let spread = self.checks.takedowns.entry(track).or_default();
                spread.members += usize::from(spread.hosts.insert(host) && member);
            }
        }
        let tracks: Vec<TrackId> = self.checks.takedowns.keys().copied().collect();
        tracks.into_iter().for_each(|track| self.count_majority(track));
    }

    fn count_majority(&mut self, track: TrackId) {
        let needed = self.checks.members.len() / 2 + 1;
        let Some(spread) = self.checks.takedowns.get_mut(&track) else { return };
        if spread.members < needed {
            spread.majority = None;
        } else if spread.majority.is_none() {
            spread.majority = Some(self.now);
            self.probes.hit(Probe::TakedownsSpread);
        }
    }

    /// A node says that a copy counts: not of a track whose takedown it has.
    pub(crate) fn check_stored(&mut self, host: u32, track: u32) {
        let known = self.oracle.get(track);
        if known.takedown_asked.is_none() {
            return;
        }
        let file = &self.hosts[host as usize].system.takedowns;
        if file.iter().any(|takedown| takedown.track == known.id) {
            self.checks.violate(
                Rule::Resurrection,
                format!("n{host} says that track {track} is stored, and knows that it is taken down"),
            );
        }
    }

    /// A node begins to serve a track that it has: not one that is taken down for longer than the bound.
    pub(crate) fn check_served(&mut self, host: u32, track: u32, volume: &VolumeId) {
        let knows = self.knows_witnesses(host);
        if !self.layout().witnesses().contains(&self.hosts[host as usize].id) {
            self.hit(Probe::ByWord);
        }
        let known = self.oracle.get(track);
        // Who does not know of the witnesses goes by those before.
        let Some(knows) = knows.filter(|_| known.takedown_asked.is_some()) else { return };
        let (id, now) = (known.id, self.now);
        let at = &self.hosts[host as usize];
        let has = at.drive(volume).is_some_and(|drive| at.drives[drive].tracks.contains_key(&id));
        let since = self.checks.takedowns.get(&id).and_then(|spread| spread.majority);
        if has && now > knows + WORD && since.is_some_and(|since| now > since + LEASE) {
            let late = (now - since.unwrap_or_default()) / 1_000;
            self.checks.violate(
                Rule::NoService,
                format!("n{host} serves track {track}, {late} ms after a majority knew of its takedown"),
            );
        }
    }
}
