//! Random lives of a node, against a plain list of what it wants.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_dht::repair::{Pull, PullError, Reason, Repair, RepairSettings, Source, Want};
use deadwax_dht::{NodeId, VolumeId};
use deadwax_track::{Partition, TrackId};

use super::node::{MB, Random, node, small, source, track, volume, want};

const ERRORS: [PullError; 6] = [
    PullError::Unreachable,
    PullError::Lacks,
    PullError::Busy { after_ms: 700 },
    PullError::Corrupt,
    PullError::DriveFull,
    PullError::DriveFailed,
];

type Name = (VolumeId, TrackId);

struct Life {
    dice: Random,
    repair: Repair,
    now: u64,
    pulls_max: usize,
    /// What is wanted, of which reason, and who may have it.
    wanted: BTreeMap<Name, (Reason, BTreeSet<VolumeId>)>,
    in_flight: BTreeMap<u64, Pull>,
    /// In flight, and wanted all the time since.
    held: BTreeSet<Name>,
    down: BTreeSet<NodeId>,
    trace: blake3::Hasher,
}

impl Life {
    fn new(seed: u64) -> Self {
        let pulls_max = 3;
        let settings = RepairSettings { pulls_max, ..RepairSettings::default() };
        let repair = Repair::new(settings, seed, 0);
        let (wanted, in_flight, held, down) = <_>::default();
        let trace = blake3::Hasher::new();
        Self { dice: Random(seed), repair, now: 0, pulls_max, wanted, in_flight, held, down, trace }
    }

    fn sources(&mut self) -> Vec<Source> {
        let count = self.dice.below(4);
        let near = self.dice.percent(60);
        (0..count).map(|_| Source { near, ..source(small(&mut self.dice, 8)) }).collect()
    }

    fn name(&mut self) -> Name {
        let track = track(u16::from(small(&mut self.dice, 6)) * 9_000, self.dice.below(25));
        (volume(1 + small(&mut self.dice, 3)), track)
    }

    fn want(&mut self) {
        let (volume, track) = self.name();
        let reason = self.dice.pick(&[Reason::Rot, Reason::Missing, Reason::Moving, Reason::Stray]);
        let bytes = if self.dice.percent(50) { 0 } else { self.dice.below(90 * MB) };
        let (copies, zoneless) = (small(&mut self.dice, 4), self.dice.percent(20));
        let sources = self.sources();
        self.repair.want(self.now, Want { volume, bytes, copies, zoneless, reason, ..want(track) }, &sources);
        let entry = self.wanted.entry((volume, track)).or_insert((reason, BTreeSet::new()));
        entry.0 = reason;
        entry.1.extend(sources.iter().map(|source| source.volume));
    }

    fn drop(&mut self, name: &Name) {
        self.wanted.remove(name);
        self.held.remove(name);
    }

    fn end_a_pull(&mut self, result: Result<(), PullError>) {
        let numbers: Vec<u64> = self.in_flight.keys().copied().collect();
        if numbers.is_empty() {
            return;
        }
        let number = self.dice.pick(&numbers);
        let pull = self.in_flight.remove(&number).expect("listed");
        let name = (pull.volume, pull.track);
        self.repair.handle_pulled(self.now, number, self.dice.below(90 * MB), result);
        match result {
            Ok(()) | Err(PullError::Barred) => self.drop(&name),
            Err(PullError::Lacks | PullError::Corrupt) if self.held.contains(&name) => {
                self.wanted.get_mut(&name).expect("held").1.remove(&pull.from);
            }
            Err(_) => {}
        }
        self.held.remove(&name);
    }

    fn forget(&mut self) {
        match self.dice.below(20) {
            0 => {
                let gone = volume(1 + small(&mut self.dice, 3));
                self.repair.forget_volume(&gone);
                let names: Vec<Name> = self.wanted.keys().filter(|name| name.0 == gone).copied().collect();
                names.iter().for_each(|name| self.drop(name));
            }
            1..4 => {
                let partition = Partition(u16::from(small(&mut self.dice, 6)) * 9_000);
                self.repair.cancel(partition);
                let of = |(name, (reason, _)): &(&Name, &(Reason, _))| {
                    name.1.partition() == partition && *reason == Reason::Moving
                };
                let names: Vec<Name> = self.wanted.iter().filter(of).map(|(name, _)| *name).collect();
                names.iter().for_each(|name| self.drop(name));
            }
            _ => {
                let name = self.name();
                self.repair.forget(&name.0, &name.1);
                self.drop(&name);
            }
        }
    }

    fn step(&mut self) {
        match self.dice.below(100) {
            0..40 => self.want(),
            40..60 => self.end_a_pull(Ok(())),
            60..75 => {
                let error = self.dice.pick(&ERRORS);
                self.end_a_pull(Err(error));
            }
            75..76 => self.end_a_pull(Err(PullError::Barred)),
            76..82 => self.forget(),
            82..88 => {
                let (node, up) = (node(small(&mut self.dice, 8)), self.dice.percent(60));
                self.repair.set_up(node, up);
                if up {
                    self.down.remove(&node)
                } else {
                    self.down.insert(node)
                };
            }
            88..92 => {
                let latency_us = self.dice.below(200_000);
                self.repair.observe_foreground(self.now, latency_us);
            }
            _ => self.now += self.dice.below(4_000),
        }
        self.poll();
    }

    fn poll(&mut self) {
        let before = self.repair.status(self.now).wants_dropped;
        while let Some(pull) = self.repair.poll(self.now) {
            let name = (pull.volume, pull.track);
            let (_, sources) = self.wanted.get(&name).expect("what is pulled is wanted");
            assert!(sources.contains(&pull.from), "pulled from one that has it not: {pull:?}");
            assert!(!self.down.contains(&pull.node), "pulled from one that is down: {pull:?}");
            assert!(self.held.insert(name), "pulled twice at a time: {pull:?}");
            assert!(self.in_flight.insert(pull.number, pull).is_none());
            let of_volume = self.in_flight.values().filter(|other| other.volume == pull.volume).count();
            assert!(of_volume <= self.pulls_max, "{of_volume} pulls in flight");
            self.trace.update(format!("{} {pull:?}", self.now).as_bytes());
        }
        assert!(self.repair.next_deadline() > self.now, "due, but nothing came");
        let status = self.repair.status(self.now);
        let mut gone = status.wants_dropped - before;
        // Dropped since nobody has them: any of those that nobody has.
        if gone > 0 {
            gone += status.tracks_left;
            assert_eq!(gone, self.wanted.len() as u64);
            // The machine does not say which; those without sources that rest are told anew, so that both lists agree.
            let orphans: Vec<Name> =
                self.wanted.iter().filter(|(_, (_, from))| from.is_empty()).map(|(name, _)| *name).collect();
            for name in orphans {
                self.repair.forget(&name.0, &name.1);
                self.drop(&name);
            }
        }
        let status = self.repair.status(self.now);
        assert_eq!(status.tracks_left, self.wanted.len() as u64);
        assert_eq!(status.classes.iter().map(|class| class.tracks).sum::<u64>(), self.wanted.len() as u64);
        assert_eq!(status.pulls, self.in_flight.len());
        assert_eq!(status.stall.is_none(), !self.in_flight.is_empty() && !self.wanted.is_empty(), "{status:?}");
    }

    /// Everybody is up, and every pull succeeds: all that anybody has comes.
    fn heal(&mut self) {
        (0..8).for_each(|number| self.repair.set_up(node(number), true));
        self.down.clear();
        let until = self.now + 2 * 3_600_000;
        while self.now < until {
            self.poll();
            while !self.in_flight.is_empty() {
                self.end_a_pull(Ok(()));
            }
            self.poll();
            if self.in_flight.is_empty() {
                let at = self.repair.next_deadline();
                if at == u64::MAX {
                    break;
                }
                self.now = at;
            }
        }
        assert_eq!(self.wanted.len(), 0, "left over: {:?}", self.wanted);
        assert_eq!(self.repair.next_deadline(), u64::MAX, "a timer, and nothing is wanted");
        assert_eq!(self.repair.sources_known(), 0, "sources are named, and nothing is wanted");
    }

    fn live(seed: u64, steps: usize) -> [u8; 32] {
        let mut life = Self::new(seed);
        for step in 0..steps {
            let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| life.step()));
            run.unwrap_or_else(|_| panic!("seed {seed}, step {step}"));
        }
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| life.heal()));
        run.unwrap_or_else(|_| panic!("seed {seed}, healing"));
        *life.trace.finalize().as_bytes()
    }
}

#[test]
fn random_lives_keep_to_the_rules_and_heal() {
    (0..60).for_each(|seed| {
        Life::live(seed, 2_000);
    });
}

#[test]
fn a_seed_replays_a_life() {
    assert_eq!(Life::live(5, 3_000), Life::live(5, 3_000));
    assert_ne!(Life::live(5, 3_000), Life::live(6, 3_000));
}
