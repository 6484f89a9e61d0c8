//! Drives that are out while their nodes live: since when, as a voter has heard it, and what keeps a mass of them from moving
//! data.

use std::collections::{BTreeMap, BTreeSet};

use super::brake::{MASS_WINDOW_MS, mass};
use super::machine::SILENCE_MS;
use crate::log::State;
use crate::{NodeId, VolumeId};

/// How often a node says which of its drives are out, in ms, while some are.
pub(crate) const TOLD_MS: u64 = 10 * 1_000;
/// How long its word counts, in ms: several in a row are lost. What comes later begins anew, as the drive may have been there.
pub(crate) const LAPSE_MS: u64 = 60 * 1_000;

#[derive(Debug)]
struct Outage {
    node: NodeId,
    /// When it was heard of: of the mass that went with it.
    fell_at: u64,
    /// Since when it counts.
    since: u64,
    heard_at: u64,
}

/// A zone where a mass of drives went out at once: a controller, a shelf, a kernel. While it holds, none of them is given up.
///
/// It ends when no more are out than half of the mass that it took; then the time of these begins anew. An operator gives a
/// drive up whatever holds it.
#[derive(Debug)]
struct Brake {
    since_ms: u64,
    mass: usize,
    of: usize,
    out: usize,
}

/// The drives that are out, as far as their nodes say so: what each says counts for [`LAPSE_MS`].
///
/// **How to drive it.** [`hear`](Self::hear) what nodes say, and [`look`](Self::look) after what is news and every
/// [`TOLD_MS`], until it [is idle](Self::is_idle). Times are ms of one clock.
#[derive(Default, Debug)]
pub(crate) struct Outages {
    all: BTreeMap<VolumeId, Outage>,
    brakes: BTreeMap<String, Brake>,
    /// Those that were out for so long without a break, as of the last look.
    lost: BTreeSet<VolumeId>,
}

impl Outages {
    /// A node says that of its drives just these are out. Whether that is news.
    pub(crate) fn hear(&mut self, now: u64, node: NodeId, out: &[VolumeId]) -> bool {
        let before = self.all.len();
        self.all.retain(|volume, outage| outage.node != node || out.contains(volume));
        let mut is_news = self.all.len() != before;
        for volume in out {
            let known = self.all.get_mut(volume).filter(|known| known.node == node && !known.is_stale(now));
            if let Some(known) = known {
                known.heard_at = now;
            } else {
                self.all.insert(*volume, Outage { node, fell_at: now, since: now, heard_at: now });
                is_news = true;
            }
        }
        is_news
    }

    /// Works out which are lost, and where brakes hold. Takes time by the drives of the map.
    pub(crate) fn look(&mut self, now: u64, state: &State) {
        let mut zones: BTreeMap<&str, (usize, Vec<VolumeId>)> = BTreeMap::new();
        let mut before = std::mem::take(&mut self.all);
        for node in state.spec().nodes.iter().filter(|node| !state.dead().contains(&node.id)) {
            let (of, out) = zones.entry(&node.zone).or_default();
            for volume in &node.volumes {
                let leaves = state.leaving().contains(&volume.id);
                *of += usize::from(!leaves);
                let known = before.remove(&volume.id);
                let Some(mut outage) = known.filter(|known| known.node == node.id && !known.is_stale(now)) else {
                    continue;
                };
                if leaves {
                    // Where an operator takes it back, its time begins then.
                    (outage.fell_at, outage.since) = (now, now);
                } else {
                    out.push(volume.id);
                }
                self.all.insert(volume.id, outage);
            }
        }
        self.lost.clear();
        self.brakes.retain(|zone, _| zones.contains_key(zone.as_str()));
        for (zone, (of, out)) in zones {
            if !self.is_braked(now, zone, of, &out) {
                let long = |volume: &VolumeId| now - self.all[volume].since >= SILENCE_MS;
                self.lost.extend(out.into_iter().filter(long));
            }
        }
    }

    /// Whether nothing is out.
    pub(crate) fn is_idle(&self) -> bool {
        self.all.is_empty() && self.brakes.is_empty()
    }

    /// Those that are not leaving, and were out for [`SILENCE_MS`] without a break, where no brake holds.
    pub(crate) const fn lost(&self) -> &BTreeSet<VolumeId> {
        &self.lost
    }

    /// What each brake holds, a sentence each for people.
    pub(crate) fn sentences(&self, now: u64) -> impl Iterator<Item = String> {
        self.brakes.iter().map(move |(zone, Brake { since_ms, mass, of, out })| {
            format!(
                "zone {zone}: {out} of {of} drives are out while their nodes live, {mass} or more went within {} minutes, {} s \
                 ago; none of them is given up until most are back: one that is lost is by `deadwax volume retire`",
                MASS_WINDOW_MS / 60_000,
                now.saturating_sub(*since_ms) / 1_000,
            )
        })
    }

    /// Follows the brake of a zone that has `of` drives, of which these are `out`; whether it holds.
    fn is_braked(&mut self, now: u64, zone: &str, of: usize, out: &[VolumeId]) -> bool {
        if let Some(brake) = self.brakes.get_mut(zone) {
            if out.len() > brake.mass / 2 {
                brake.out = out.len();
                return true;
            }
            self.brakes.remove(zone);
            for volume in out {
                let outage = self.all.get_mut(volume).expect("it is out");
                (outage.fell_at, outage.since) = (now, now);
            }
            return false;
        }
        let fresh = out.iter().filter(|volume| now - self.all[*volume].fell_at <= MASS_WINDOW_MS).count();
        let holds = fresh > 0 && fresh >= mass(of);
        if holds {
            let brake = Brake { since_ms: now, mass: mass(of), of, out: out.len() };
            self.brakes.insert(zone.to_owned(), brake);
        }
        holds
    }
}

impl Outage {
    const fn is_stale(&self, now: u64) -> bool {
        now.saturating_sub(self.heard_at) > LAPSE_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::History;
    use crate::{ClusterId, MAP_VERSION, MapSpec, Node, Policy, Volume};

    const MINUTE: u64 = 60 * 1_000;

    fn volume(node: u8, at: u8) -> VolumeId {
        VolumeId::from_bytes([16 * node + at; 16])
    }

    fn id(node: u8) -> NodeId {
        NodeId::from_bytes([node; 32])
    }

    /// Four nodes of three drives each, in one zone: of twelve drives three are a mass.
    fn state() -> State {
        let node = |at: u8| Node {
            id: id(at),
            zone: "here".into(),
            rack: None,
            address: format!("10.0.0.{at}:7881"),
            volumes: (0..3).map(|drive| Volume { id: volume(at, drive), weight: 1 }).collect(),
        };
        let policy = Policy { copies: 1, write_quorum: 1, zones_min: 1 };
        let (version, cluster, nodes) = (MAP_VERSION, ClusterId::from_bytes([1; 16]), (1..=4).map(node).collect());
        let spec = MapSpec { version, cluster, epoch: 1, policy, nodes, overrides: vec![] };
        let history = History::genesis(spec, (1..=3).map(id).collect()).expect("a good genesis");
        (**history.state()).clone()
    }

    /// For so long each node says every ten seconds that these of its drives are out.
    fn pass(outages: &mut Outages, now: &mut u64, ms: u64, out: &[(u8, &[VolumeId])]) {
        let (end, state) = (*now + ms, state());
        while *now < end {
            out.iter().for_each(|(node, out)| _ = outages.hear(*now, id(*node), out));
            outages.look(*now, &state);
            *now += TOLD_MS;
        }
    }

    #[test]
    fn a_drive_is_lost_after_half_an_hour_without_a_break() {
        let (mut outages, mut now) = (Outages::default(), 5 * MINUTE);
        let out = [volume(1, 0)];
        pass(&mut outages, &mut now, 29 * MINUTE, &[(1, &out)]);
        assert!(outages.lost().is_empty());
        pass(&mut outages, &mut now, 2 * MINUTE, &[(1, &out)]);
        assert!(outages.lost().iter().eq(&out), "{outages:?}");
        pass(&mut outages, &mut now, TOLD_MS, &[(1, &[])]);
        assert!(outages.lost().is_empty() && outages.is_idle(), "it is back: {outages:?}");
    }

    #[test]
    fn one_that_comes_and_goes_never_is_nor_one_of_which_nothing_is_heard() {
        let (mut outages, mut now) = (Outages::default(), 0);
        let out = [volume(1, 0)];
        for round in 0..8 {
            pass(&mut outages, &mut now, 25 * MINUTE, &[(1, &out)]);
            assert!(outages.lost().is_empty(), "round {round}");
            if round % 2 == 0 {
                pass(&mut outages, &mut now, TOLD_MS, &[(1, &[])]);
            } else {
                // The node is gone, or this one stood still: what was then, nobody knows.
                now += LAPSE_MS + TOLD_MS;
            }
        }
    }

    #[test]
    fn a_mass_is_not_until_most_are_back_and_then_begins_anew() {
        let (mut outages, mut now) = (Outages::default(), 0);
        let [one, two, three] = [1, 2, 3].map(|node| volume(node, 0));
        pass(&mut outages, &mut now, 9 * MINUTE, &[(1, &[one])]);
        pass(&mut outages, &mut now, 90 * MINUTE, &[(1, &[one]), (2, &[two]), (3, &[three])]);
        assert!(outages.lost().is_empty(), "{outages:?}");
        let told: Vec<String> = outages.sentences(now).collect();
        assert!(told[0].starts_with("zone here: 3 of 12 drives are out"), "{told:?}");
        pass(&mut outages, &mut now, 29 * MINUTE, &[(1, &[one]), (2, &[]), (3, &[])]);
        assert!(outages.sentences(now).next().is_none() && outages.lost().is_empty(), "{outages:?}");
        pass(&mut outages, &mut now, 2 * MINUTE, &[(1, &[one])]);
        assert!(outages.lost().contains(&one), "{outages:?}");
    }

    #[test]
    fn those_that_go_one_after_the_other_are_no_mass() {
        let (mut outages, mut now) = (Outages::default(), 0);
        let [one, two, three] = [1, 2, 3].map(|node| volume(node, 0));
        pass(&mut outages, &mut now, 11 * MINUTE, &[(1, &[one])]);
        pass(&mut outages, &mut now, 11 * MINUTE, &[(1, &[one]), (2, &[two])]);
        pass(&mut outages, &mut now, 31 * MINUTE, &[(1, &[one]), (2, &[two]), (3, &[three])]);
        assert_eq!(outages.lost().len(), 3, "{outages:?}");
    }
}
