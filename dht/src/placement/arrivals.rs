//! Who takes over lost copies: spread so that no volume gets many more than its part. How long a lost volume's copies are
//! one too few is decided by the volume to which most of them come.
//!
//! Rendezvous spreads them by chance: of a volume lost from 50, 80 copies come to each other volume, and to one of them
//! 104. Here copies that are on their way are sent elsewhere: not one more travels, and every volume stays within its
//! bounds.

use std::collections::{BTreeMap, BTreeSet};

use super::assignment::GONE;
use super::fair::COPY;
use super::table::{Move, Table};

/// How many lost copies may come to a volume, in hundredths of its part, and one more: from rough to fine, for where
/// bounds leave few that can take any, the fullest are relieved first. Less would cost more overrides than it saves time.
const PARTS: [u64; 4] = [200, 150, 125, 110];
/// A newcomer has less than this part of its fair share of before: it takes what it is given, and is left out of account.
const NEWCOMER: u64 = 4;
/// How many copies are looked at, all together: a bound on time, a part of a second. Reached where the rules leave almost
/// no choice; then copies stay as they lie.
const LOOKS_MAX: usize = 4_000_000;

/// The lost copies on their way.
struct Arrivals {
    /// The partitions of those that come to each volume.
    partitions: Vec<Vec<u16>>,
    /// Each volume's part, in parts of a [`COPY`]: in proportion to its fair share. None for newcomers.
    parts: Vec<Option<u64>>,
    /// The volumes that have a part, and what comes to them beside their fair share; the least first.
    order: BTreeSet<(u64, u32)>,
    looks: usize,
}

/// Spreads the copies that come in the place of lost ones, within everyone's bounds: first over all volumes, then, as the
/// rules may let few copies go to another zone, what comes to each zone over that.
pub(super) fn spread(table: &mut Table<'_>) {
    let mut looks = 0;
    for within_zones in [false, true] {
        let mut arrivals = Arrivals::of(table, within_zones, looks);
        for part in PARTS {
            let volumes = arrivals.order.iter().rev().map(|(_, volume)| *volume);
            let over: Vec<u32> = volumes.filter(|volume| arrivals.over(*volume, part) > 0).collect();
            over.into_iter().for_each(|volume| arrivals.relieve(table, volume, part));
        }
        looks = arrivals.looks;
    }
}

impl Arrivals {
    fn of(table: &Table<'_>, within_zones: bool, looks: usize) -> Self {
        let volumes = table.counts.len();
        let (mut partitions, mut stayed) = (vec![Vec::new(); volumes], table.counts.clone());
        for &partition in &table.moving {
            let lost = table.before.of(partition).contains(&GONE);
            for &volume in table.held.of(partition).iter().filter(|volume| table.is_new(partition, **volume)) {
                stayed[volume as usize] -= 1;
                if lost {
                    partitions[volume as usize].push(partition);
                }
            }
        }
        let mut all = Self { partitions, parts: vec![None; volumes], order: BTreeSet::new(), looks };
        if all.partitions.iter().all(Vec::is_empty) {
            return all;
        }
        let taking = |volume: usize| u64::from(stayed[volume]) * COPY * NEWCOMER >= table.fair[volume];
        let zone = |volume: usize| if within_zones { table.roster.volumes()[volume].holder().zone } else { 0 };
        // What comes to each zone's volumes, or to all, and their fair shares.
        let mut zones = BTreeMap::<usize, (u64, u64)>::new();
        for volume in (0..volumes).filter(|volume| taking(*volume)) {
            let sums = zones.entry(zone(volume)).or_default();
            sums.0 += all.partitions[volume].len() as u64;
            sums.1 += table.fair[volume];
        }
        for (number, volume) in (0..volumes).zip(0..).filter(|(number, _)| taking(*number)) {
            let (copies, fair) = zones[&zone(number)];
            let part = u128::from(copies) * u128::from(COPY) * u128::from(table.fair[number]) / u128::from(fair.max(1));
            all.parts[number] = Some(u64::try_from(part).expect("a part of all copies"));
            all.order.insert((all.load(table, volume), volume));
        }
        all
    }

    /// What comes to `volume` beside its fair share, in millionths.
    fn load(&self, table: &Table<'_>, volume: u32) -> u64 {
        self.partitions[volume as usize].len() as u64 * COPY * 1_000_000 / table.fair[volume as usize].max(1)
    }

    /// How many copies may come to `volume`.
    fn most(&self, volume: u32, part: u64) -> usize {
        let own = self.parts[volume as usize].unwrap_or(0);
        usize::try_from((own / 100 * part + COPY) / COPY).expect("at most a copy of each partition")
    }

    /// How many more come to `volume` than may.
    fn over(&self, volume: u32, part: u64) -> usize {
        self.partitions[volume as usize].len().saturating_sub(self.most(volume, part))
    }

    /// Sends copies that come to `from` to those to which fewest come.
    fn relieve(&mut self, table: &mut Table<'_>, from: u32, part: u64) {
        let mut out_of_reach = BTreeSet::from([from]);
        while self.over(from, part) > 0 && table.can_spare(from) && self.looks < LOOKS_MAX {
            let fits = |to: &u32| {
                !out_of_reach.contains(to)
                    && table.has_room(*to)
                    && self.partitions[*to as usize].len() < self.most(*to, part)
            };
            let Some(to) = self.order.iter().map(|(_, volume)| *volume).find(fits) else { return };
            match self.find(table, from, to) {
                Some(at) => self.send(table, from, at, to),
                None => _ = out_of_reach.insert(to),
            }
        }
    }

    /// Which of the copies that come to `from` is best sent to `to`: one that rendezvous wants there, or that has an override
    /// already, or any.
    fn find(&mut self, table: &Table<'_>, from: u32, to: u32) -> Option<usize> {
        let partitions = &self.partitions[from as usize];
        self.looks += partitions.len();
        let change = |partition| Move { partition, from, to };
        let able = |partition| table.is_new(partition, to) && table.may(change(partition));
        let cost = |partition: u16| match table.overridden[usize::from(partition)] {
            true if table.mends(change(partition)) => 0,
            overridden => 2 - u8::from(overridden),
        };
        (0..=2).find_map(|price| partitions.iter().position(|of| cost(*of) == price && able(*of)))
    }

    fn send(&mut self, table: &mut Table<'_>, from: u32, at: usize, to: u32) {
        for volume in [from, to] {
            self.order.remove(&(self.load(table, volume), volume));
        }
        let partition = self.partitions[from as usize].swap_remove(at);
        self.partitions[to as usize].push(partition);
        for volume in [from, to] {
            self.order.insert((self.load(table, volume), volume));
        }
        table.make(Move { partition, from, to });
    }
}
