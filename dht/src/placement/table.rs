//! Who holds what, while it is being evened out: copies by volume, what each volume may have, and one move at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::assignment::{Assignment, GONE};
use super::fair::COPY;
use super::roster::Roster;

/// The holders of all partitions as indexes into a roster, so many a partition.
#[derive(Clone)]
pub(crate) struct Holdings {
    pub(super) copies: usize,
    pub(super) volumes: Vec<u32>,
}

impl Holdings {
    pub(crate) fn of(&self, partition: u16) -> &[u32] {
        &self.volumes[usize::from(partition) * self.copies..][..self.copies]
    }
}

/// How many copies are looked at, all together, for ways from one volume to another: a bound on time, a part of a second,
/// for a voter that leads is taken for dead after one. Clusters in which such ways are needed are small.
const LOOKS_MAX: usize = 20_000_000;
/// The same where a cluster is placed first: some seconds.
const LOOKS_SETTLING_MAX: usize = 200_000_000;

/// Exactly the fair share, in millionths of it.
pub(super) const WHOLE_PPM: u64 = 1_000_000;

/// A copy of `partition` given from one volume to another.
#[derive(Clone, Copy)]
pub(super) struct Move {
    pub(super) partition: u16,
    pub(super) from: u32,
    pub(super) to: u32,
}

pub(super) struct Table<'a> {
    pub(super) roster: &'a Roster,
    /// Where rendezvous puts the copies.
    pub(super) wanted: &'a Assignment,
    /// Where the copies were.
    pub(super) before: &'a Holdings,
    pub(super) held: Holdings,
    /// Copies of each volume, and the least and the most that it may have.
    pub(super) counts: Vec<u32>,
    pub(super) floors: Vec<u32>,
    pub(super) ceilings: Vec<u32>,
    pub(super) fair: &'a [u64],
    /// The partitions of each volume.
    partitions: Vec<Vec<u16>>,
    /// Where in its volume's `partitions` each copy of `held` is: of few volumes each has ten thousands.
    places: Vec<u32>,
    /// The volumes, emptiest first.
    order: BTreeSet<(u64, u32)>,
    /// Partitions that have a holder which they had not before.
    pub(super) moving: BTreeSet<u16>,
    /// Whether each partition lies elsewhere than rendezvous puts it.
    pub(super) overridden: Vec<bool>,
    /// Copies on volumes that had them not before.
    pub(super) moved: u32,
    /// See [`LOOKS_MAX`].
    looks_left: usize,
}

/// Where the next of these comes.
fn place(partitions: &[u16]) -> u32 {
    u32::try_from(partitions.len()).expect("a volume has at most a copy of each partition")
}

impl<'a> Table<'a> {
    /// For `tolerance`, see [`tolerate`](Self::tolerate).
    pub(super) fn new(
        roster: &'a Roster,
        wanted: &'a Assignment,
        before: &'a Holdings,
        held: Holdings,
        fair: &'a [u64],
        tolerance: u64,
    ) -> Self {
        let mut table = Self {
            roster,
            wanted,
            before,
            counts: vec![0; fair.len()],
            floors: Vec::new(),
            ceilings: Vec::new(),
            fair,
            partitions: vec![Vec::new(); fair.len()],
            places: vec![0; held.volumes.len()],
            order: BTreeSet::new(),
            moving: BTreeSet::new(),
            overridden: vec![false; usize::from(u16::MAX) + 1],
            moved: 0,
            looks_left: LOOKS_MAX,
            held,
        };
        table.tolerate(tolerance);
        for partition in 0..=u16::MAX {
            table.note(partition);
            let begin = usize::from(partition) * table.held.copies;
            for at in begin..begin + table.held.copies {
                let volume = table.held.volumes[at] as usize;
                table.counts[volume] += 1;
                table.places[at] = place(&table.partitions[volume]);
                table.partitions[volume].push(partition);
            }
        }
        table.order = (0..).zip(&table.counts).map(|(volume, _)| (table.fullness(volume), volume)).collect();
        table
    }

    /// Whoever places a cluster first has time.
    pub(super) const fn settling(mut self) -> Self {
        self.looks_left = LOOKS_SETTLING_MAX;
        self
    }

    /// From now on, a volume may be off its fair share by `tolerance` thousandths of it, or by one copy.
    pub(super) fn tolerate(&mut self, tolerance: u64) {
        let slack = |share: u64| (share * tolerance / 1000).max(COPY);
        let whole = |copies: u64| u32::try_from(copies).expect("a volume has at most a copy of each partition");
        let floor = |share: &u64| whole(share.saturating_sub(slack(*share)).div_ceil(COPY));
        self.floors = self.fair.iter().map(floor).collect();
        self.ceilings = self.fair.iter().map(|share| whole((share + slack(*share)) / COPY)).collect();
    }

    /// Copies beside the fair share, in millionths.
    pub(super) fn fullness(&self, volume: u32) -> u64 {
        u64::from(self.counts[volume as usize]) * COPY * WHOLE_PPM / self.fair[volume as usize].max(1)
    }

    /// How many copies volumes have beyond their bounds, or lack.
    pub(super) fn off(&self) -> u32 {
        let volumes = 0..u32::try_from(self.counts.len()).expect("a map has fewer than 2^32 volumes");
        volumes.map(|volume| self.excess(volume) + self.lack(volume)).sum()
    }

    pub(super) fn has_room(&self, volume: u32) -> bool {
        self.counts[volume as usize] < self.ceilings[volume as usize]
    }

    pub(super) fn can_spare(&self, volume: u32) -> bool {
        self.counts[volume as usize] > self.floors[volume as usize]
    }

    /// Whether `volume` had no copy of `partition`.
    pub(super) fn is_new(&self, partition: u16, volume: u32) -> bool {
        !self.before.of(partition).contains(&volume)
    }

    fn arrivals(&self, partition: u16) -> u32 {
        self.held.of(partition).iter().map(|volume| u32::from(self.is_new(partition, *volume))).sum()
    }

    /// Takes note of where `partition` lies now.
    fn note(&mut self, partition: u16) {
        let (new, wanted) = (self.arrivals(partition), self.wanted.holders(partition));
        self.moved += new;
        if new > 0 {
            self.moving.insert(partition)
        } else {
            self.moving.remove(&partition)
        };
        let overridden = self.held.of(partition).iter().any(|volume| !wanted.contains(volume));
        self.overridden[usize::from(partition)] = overridden;
    }

    /// Whether who is to give the copy has it, and the rules allow the move.
    pub(super) fn may(&self, change: Move) -> bool {
        let held = self.held.of(change.partition);
        if held.contains(&change.to) || !held.contains(&change.from) {
            return false;
        }
        let mut after = [0; crate::map::COPIES_MAX as usize];
        let after = &mut after[..held.len()];
        for (slot, volume) in after.iter_mut().zip(held) {
            *slot = if *volume == change.from { change.to } else { *volume };
        }
        self.roster.allows(after)
    }

    /// 0 where a copy that was to travel stays, 1 where it makes no difference, 2 where one more travels.
    fn travels(&self, Move { partition, from, to }: Move) -> u8 {
        1 + u8::from(self.is_new(partition, to)) - u8::from(self.is_new(partition, from))
    }

    /// Whether rendezvous wants just this.
    pub(super) fn mends(&self, Move { partition, from, to }: Move) -> bool {
        let wanted = self.wanted.holders(partition);
        self.overridden[usize::from(partition)]
            && wanted.contains(&to)
            && self.held.of(partition).iter().all(|other| *other == from || wanted.contains(other))
    }

    pub(super) fn make(&mut self, Move { partition, from, to }: Move) {
        self.moved -= self.arrivals(partition);
        [from, to].iter().for_each(|volume| _ = self.order.remove(&(self.fullness(*volume), *volume)));
        let at = self.slot(partition, from);
        self.held.volumes[at] = to;
        self.counts[to as usize] += 1;
        let place = place(&self.partitions[to as usize]);
        self.partitions[to as usize].push(partition);
        let left = std::mem::replace(&mut self.places[at], place);
        self.counts[from as usize] -= 1;
        let others = &mut self.partitions[from as usize];
        let gone = others.swap_remove(left as usize);
        debug_assert_eq!(gone, partition, "places lead to the copies that they are of");
        if let Some(&moved) = others.get(left as usize) {
            let moved = self.slot(moved, from);
            self.places[moved] = left;
        }
        [from, to].iter().for_each(|volume| _ = self.order.insert((self.fullness(*volume), *volume)));
        self.note(partition);
    }

    /// Where in `held` the copy of `partition` is that `volume` has.
    fn slot(&self, partition: u16, volume: u32) -> usize {
        let at = self.held.of(partition).iter().position(|holder| *holder == volume).expect("it has the copy");
        usize::from(partition) * self.held.copies + at
    }

    /// Brings every volume within its bounds, as far as the rules allow.
    pub(super) fn even_out(&mut self) {
        let volumes = 0..u32::try_from(self.counts.len()).expect("a map has fewer than 2^32 volumes");
        volumes.clone().for_each(|volume| self.relieve(volume));
        volumes.for_each(|volume| self.supply(volume));
    }

    fn excess(&self, volume: u32) -> u32 {
        self.counts[volume as usize].saturating_sub(self.ceilings[volume as usize])
    }

    fn lack(&self, volume: u32) -> u32 {
        self.floors[volume as usize].saturating_sub(self.counts[volume as usize])
    }

    /// Takes from a volume that has too many: first copies that can stay where they were, then such as travel in any
    /// case, at last any; and gives them to those that need them most.
    fn relieve(&mut self, volume: u32) {
        if self.excess(volume) == 0 {
            return;
        }
        let partitions = self.partitions[volume as usize].clone();
        let moving: Vec<u16> = partitions.into_iter().filter(|partition| self.moving.contains(partition)).collect();
        for travels in [0, 1] {
            for &partition in &moving {
                let had = self.before.of(partition).iter().filter(|to| **to != GONE && self.has_room(**to));
                let mut back = had.map(|to| Move { partition, from: volume, to: *to });
                let change = back.find(|change| self.travels(*change) == travels && self.may(*change));
                if let Some(change) = change.filter(|_| self.excess(volume) > 0) {
                    self.make(change);
                }
            }
        }
        for partition in moving {
            if self.excess(volume) == 0 || !self.is_new(partition, volume) {
                continue;
            }
            let needy = self.order.iter().map(|(_, to)| Move { partition, from: volume, to: *to });
            if let Some(change) = { needy }.find(|change| self.has_room(change.to) && self.may(*change)) {
                self.make(change);
            }
        }
        let mut out_of_reach = BTreeSet::new();
        while self.excess(volume) > 0 {
            let mut needy = self.order.iter().map(|(_, to)| *to).filter(|to| !out_of_reach.contains(to));
            let Some(to) = needy.find(|to| *to != volume && self.has_room(*to)) else { break };
            let room = self.ceilings[to as usize] - self.counts[to as usize];
            if self.give(volume, to, self.excess(volume).min(room).div_ceil(4)) == 0 {
                out_of_reach.insert(to);
            }
        }
        while self.excess(volume) > 0 && self.relay(volume, true) {}
    }

    /// Gives to a volume that has too few: first copies that were to leave it, then such as travel in any case, at last
    /// any; of the fullest, or at least of such as have more than their share.
    fn supply(&mut self, volume: u32) {
        if self.lack(volume) == 0 {
            return;
        }
        let moving: Vec<u16> = self.moving.iter().copied().collect();
        for (travels, full) in [(0, true), (0, false), (1, true), (1, false)] {
            for &partition in &moving {
                if self.lack(volume) == 0 {
                    return;
                }
                let from = self.held.of(partition).iter().map(|from| Move { partition, from: *from, to: volume });
                let spare = |from: u32| self.can_spare(from) && (!full || self.fullness(from) > WHOLE_PPM);
                let mut change = from.filter(|change| spare(change.from) && self.travels(*change) == travels);
                if let Some(change) = change.find(|change| self.may(*change)) {
                    self.make(change);
                }
            }
        }
        let mut out_of_reach = BTreeSet::new();
        while self.lack(volume) > 0 {
            let mut fullest =
                self.order.iter().rev().map(|(_, from)| *from).filter(|from| !out_of_reach.contains(from));
            let Some(from) = fullest.find(|from| *from != volume && self.can_spare(*from)) else { break };
            let spare = self.counts[from as usize] - self.floors[from as usize];
            if self.give(from, volume, self.lack(volume).min(spare).div_ceil(4)) == 0 {
                out_of_reach.insert(from);
            }
        }
        while self.lack(volume) > 0 && self.relay(volume, false) {}
    }

    /// Where no volume that could take a copy from `volume` (or, if not `away`, give it one) is within reach: passes
    /// one on by way of others, on the shortest way there is. Whether it did.
    fn relay(&mut self, volume: u32, away: bool) -> bool {
        let mut came_from = BTreeMap::from([(volume, volume)]);
        let mut queue = VecDeque::from([volume]);
        while let Some(at) = queue.pop_front() {
            for next in 0..u32::try_from(self.counts.len()).expect("a map has fewer than 2^32 volumes") {
                let (from, to) = if away { (at, next) } else { (next, at) };
                if came_from.contains_key(&next) || self.looks_left == 0 {
                    continue;
                }
                let partitions = &self.partitions[from as usize];
                let found = partitions.iter().position(|of| self.may(Move { partition: *of, from, to }));
                let looked = found.map_or(partitions.len(), |at| at + 1);
                self.looks_left = self.looks_left.saturating_sub(looked);
                if found.is_none() {
                    continue;
                }
                came_from.insert(next, at);
                if if away { self.has_room(next) } else { self.can_spare(next) } {
                    return self.pass_on(&came_from, next, away);
                }
                queue.push_back(next);
            }
        }
        false
    }

    /// Goes back from `end` the way that it was found. The last on the way moves first, and as many copies as the
    /// others can pass on in their turn.
    fn pass_on(&mut self, came_from: &BTreeMap<u32, u32>, end: u32, away: bool) -> bool {
        let (ceiling, floor, count) = (&self.ceilings, &self.floors, self.counts[end as usize]);
        let able = if away { ceiling[end as usize] - count } else { count - floor[end as usize] };
        let (mut at, mut way) = (end, vec![end]);
        while came_from[&at] != at {
            at = came_from[&at];
            way.push(at);
        }
        let mut some = able.min(self.excess(at).max(self.lack(at))).div_ceil(4);
        for step in way.windows(2) {
            some = if away { self.give(step[1], step[0], some) } else { self.give(step[0], step[1], some) };
        }
        some > 0
    }

    /// Gives up to `some` copies, such that fewest partitions become overridden. How many it gave. (Callers ask for a
    /// part of what they need, so that others take part.)
    fn give(&mut self, from: u32, to: u32, some: u32) -> u32 {
        let mut given = 0;
        let partitions = self.partitions[from as usize].clone();
        for round in [Self::mends, Self::is_overridden, Self::is_any] {
            for &partition in &partitions {
                let change = Move { partition, from, to };
                if given == some {
                    return given;
                }
                if round(self, change) && self.may(change) {
                    self.make(change);
                    given += 1;
                }
            }
        }
        given
    }

    fn is_overridden(&self, change: Move) -> bool {
        self.overridden[usize::from(change.partition)]
    }

    fn is_any(&self, _: Move) -> bool {
        true
    }
}
