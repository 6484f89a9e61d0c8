//! The machine: what comes in, what is due, what goes out.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_track::{Partition, TrackId};

use super::FIRST_MS;
use super::budget::Budget;
use super::inventory::Inventory;
use super::lists::Lists;
use super::message::{Body, Message};
use super::pair::Pair;
use super::shares::{PairIds, Share, Shares};
use super::strays::Strays;
use super::suspects::Suspects;
use crate::random::Random;
use crate::wire::PartitionDigest;
use crate::{NodeId, VolumeId};

/// Times and rates. The defaults keep the promise of 60 s.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long a change waits to be compared, in ms; 3,000. Shorter: puts under way are compared before they arrive
    /// everywhere.
    pub settle_ms: u64,
    /// How long a pair rests between comparisons, in ms; 10,000. Halved, a busy cluster sends twice as much.
    pub gap_ms: u64,
    /// How long a track must be missing to be told, in ms; 5,000. Shorter: tracks whose put is under way are pulled
    /// besides.
    pub grace_ms: u64,
    /// When a pair without a change is compared nevertheless, in ms; 600,000.
    pub safety_ms: u64,
    /// Bytes a second for comparisons; 20,000. Lower: a busy cluster finds differences later.
    pub digests_bytes_per_s: u64,
    /// Bytes a second for lists of ids; 256,000. Lower: it takes longer until all is known that was missed in an
    /// absence.
    pub lists_bytes_per_s: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            settle_ms: 3_000,
            gap_ms: 10_000,
            grace_ms: 5_000,
            safety_ms: 600_000,
            digests_bytes_per_s: 20_000,
            lists_bytes_per_s: 256_000,
        }
    }
}

/// A volume that holds a partition besides, or instead of, one of ours.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Holder {
    /// Which volume.
    pub volume: VolumeId,
    /// Its node.
    pub node: NodeId,
    /// The map's log calls the node dead: it is not asked, and no stray goes before it is replaced.
    pub dead: bool,
}

/// What the driver carries out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Send this. It may get lost. To this node itself where two of its volumes hold a partition: hand it back.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Answer with [`Sync::handle_listed`]: all ids of the partition on the volume. What is stored and erased meanwhile
    /// is told as always.
    List {
        /// To be repeated.
        number: u64,
        /// Which volume.
        volume: VolumeId,
        /// Which partition.
        partition: Partition,
    },
    /// Answer with [`Sync::set_partition`], `holds` false: who holds this partition, of which there are strays?
    Holders {
        /// The volume with the strays.
        volume: VolumeId,
        /// Which partition.
        partition: Partition,
    },
    /// A volume lacks a track of a partition that it holds. Told again only when a later comparison finds it missing
    /// still.
    Missing {
        /// Which volume of this node.
        volume: VolumeId,
        /// Which track.
        track: TrackId,
        /// Its partition.
        partition: Partition,
        /// Who has it: a holder, or a volume with a stray.
        from: (VolumeId, NodeId),
    },
    /// Two volumes were found to hold the same of these partitions, which they were not known to do before: at a time
    /// since the comparison began, and so since the volume was opened and the layout applied.
    Equal {
        /// Which volume of this node.
        volume: VolumeId,
        /// Which other volume.
        with: VolumeId,
        /// Which partitions.
        partitions: Vec<Partition>,
    },
    /// Every holder has this stray, and none of them is dead: erase it, and tell by [`Sync::erased`].
    Covered {
        /// Which volume of this node.
        volume: VolumeId,
        /// Which track.
        track: TrackId,
    },
}

/// One node's part in anti-entropy.
///
/// **How to drive it.** [`set_layout`](Self::set_layout) and [`open_volume`](Self::open_volume) first, in any order;
/// then tell what happens, and call [`poll`](Self::poll) after it and when [`next_deadline`](Self::next_deadline) has
/// come, and carry out what it gives. Times are ms of one clock. Equal inputs and seeds give equal effects.
///
/// **Costs.** Telling of a track takes time in proportion to its partition's holders, a comparison of equal pairs is
/// one hash. Memory: some 100 bytes for each partition that a volume holds, and 400 for each pair.
pub struct Sync {
    pub(super) settings: Settings,
    pub(super) random: Random,
    pub(super) inventory: Inventory,
    pub(super) shares: BTreeMap<VolumeId, Shares>,
    pub(super) pairs: Vec<Option<Pair>>,
    pub(super) free: Vec<u32>,
    pub(super) index: BTreeMap<(VolumeId, VolumeId), u32>,
    pub(super) by_node: BTreeSet<(NodeId, u32)>,
    pub(super) timers: BTreeSet<(u64, u32)>,
    pub(super) lists: Lists,
    pub(super) strays: Strays,
    pub(super) suspects: Suspects,
    pub(super) effects: Vec<Effect>,
    pub(super) digests_budget: Budget,
    pub(super) lists_budget: Budget,
}

pub(super) fn slot(id: u32) -> usize {
    usize::try_from(id).expect("32 bits")
}

impl Sync {
    /// `seed`: another for each node and start.
    #[must_use]
    pub fn new(seed: u64, settings: Settings, now: u64) -> Self {
        Self {
            settings,
            random: Random(seed),
            inventory: Inventory::default(),
            shares: BTreeMap::new(),
            pairs: Vec::new(),
            free: Vec::new(),
            index: BTreeMap::new(),
            by_node: BTreeSet::new(),
            timers: BTreeSet::new(),
            lists: Lists::default(),
            strays: Strays::default(),
            suspects: Suspects::default(),
            effects: Vec::new(),
            digests_budget: Budget::new(settings.digests_bytes_per_s, now),
            lists_budget: Budget::new(settings.lists_bytes_per_s, now),
        }
    }

    /// What the volumes hold, as it was told.
    #[must_use]
    pub const fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// A volume takes part from now on, with what it holds now.
    pub fn open_volume(&mut self, now: u64, volume: VolumeId, digests: impl IntoIterator<Item = PartitionDigest>) {
        self.inventory.open(volume, digests);
        self.renew(now, volume);
        let partitions = self.inventory.volume(&volume).into_iter().flatten();
        let partitions: Vec<Partition> = partitions.map(|(partition, _)| *partition).collect();
        for partition in partitions {
            self.check_stray(now, volume, partition);
        }
    }

    /// All partitions of all volumes are compared anew, whatever was found before, and strays offered again now that found no
    /// taker.
    pub fn compare_all(&mut self, now: u64) {
        let volumes: Vec<VolumeId> = self.inventory.volumes().collect();
        for volume in volumes {
            let of = |id: &u32| self.pairs[slot(*id)].as_ref().expect("the index names pairs").failures;
            let failures: Vec<u8> = self.pairs_of(volume).iter().map(of).collect();
            self.renew(now, volume);
            // Who did not answer before has not answered yet.
            for (id, failures) in self.pairs_of(volume).into_iter().zip(failures) {
                self.pairs[slot(id)].as_mut().expect("the index names pairs").failures = failures;
            }
        }
        self.strays.hasten(now);
    }

    /// The volume takes part no more.
    pub fn close_volume(&mut self, now: u64, volume: VolumeId) {
        self.inventory.close(&volume);
        self.strays.forget(volume);
        self.lists.forget(volume);
        if let Some(shares) = self.shares.get_mut(&volume) {
            // Whose they are may change while the volume is gone.
            shares.forget_strays();
        }
        self.renew(now, volume);
    }

    /// The pairs of an own volume, by the other's name.
    pub(super) fn pairs_of(&self, volume: VolumeId) -> Vec<u32> {
        let zero = VolumeId::from_bytes([0; 16]);
        let own = self.index.range((volume, zero)..).take_while(|((own, _), _)| *own == volume);
        own.map(|(_, id)| *id).collect()
    }

    fn renew(&mut self, now: u64, volume: VolumeId) {
        let ids = self.pairs_of(volume);
        let none = BTreeMap::new();
        for id in ids {
            let pair = self.pairs[slot(id)].as_mut().expect("the index names pairs");
            pair.forget(self.inventory.volume(&volume).unwrap_or(&none));
            pair.compare_at = now + self.random.draw() % FIRST_MS;
            self.set_timer(now, id);
        }
    }

    /// Whether there are tracks of the partition on the volume.
    #[must_use]
    pub fn has_tracks(&self, volume: &VolumeId, partition: Partition) -> bool {
        self.inventory.of(volume, partition).tracks != 0
    }

    /// A track is on the volume that was not: readable from now on. Each is told once.
    pub fn stored(&mut self, now: u64, volume: VolumeId, track: TrackId) {
        self.suspects.remove(&(volume, track));
        self.turn(now, volume, &track, true);
    }

    /// A track is no more on the volume, which was. Each is told once.
    pub fn erased(&mut self, now: u64, volume: VolumeId, track: TrackId) {
        self.erased_stray(volume, &track);
        self.turn(now, volume, &track, false);
    }

    fn turn(&mut self, now: u64, volume: VolumeId, track: &TrackId, stored: bool) {
        let Some((before, after)) = self.inventory.turn(&volume, track, stored) else { return };
        let partition = track.partition();
        self.lists.turn(volume, partition, track, stored);
        let difference = before.cell(partition) ^ after.cell(partition);
        match self.shares.get(&volume).and_then(|shares| shares.get(partition)) {
            Some(Share::Held(ids)) => {
                let ids = PairIds::from(ids);
                for id in ids.iter().copied() {
                    self.pairs[slot(id)].as_mut().expect("shares name pairs").change(partition, difference);
                    self.hasten(now, id);
                }
            }
            Some(Share::Stray(_)) | None => self.check_stray(now, volume, partition),
        }
    }

    /// The pair has a change to compare, unless it is busy. A peer that does not answer is asked when its wait is over.
    pub(super) fn hasten(&mut self, now: u64, id: u32) {
        let pair = self.pairs[slot(id)].as_mut().expect("the caller knows it");
        if let Some(session) = &mut pair.session {
            session.changed = true;
        } else {
            let Settings { settle_ms, gap_ms, .. } = self.settings;
            let (settled_at, rest_ms, jitter) = if pair.fresh.is_empty() {
                (now + settle_ms, gap_ms, (settle_ms / 2).max(1))
            } else {
                (now, pair.rest_ms(gap_ms), FIRST_MS)
            };
            // It may not be due by itself: there was nothing to prove when it was put off.
            let rested_at = if pair.failures == 0 { pair.compared_at + rest_ms } else { pair.compare_at };
            let at = settled_at.max(rested_at) + self.random.draw() % jitter;
            // Lists go before it.
            let due = if pair.leaves.is_empty() { pair.timer } else { Some(pair.compare_at) };
            if due.is_none_or(|due| due > at) {
                pair.compare_at = at;
                self.set_timer(now, id);
            }
        }
    }

    /// A node is up again: what changed meanwhile is compared soon.
    pub fn handle_reachable(&mut self, now: u64, node: NodeId) {
        self.hasten_with(now, node, |pair| pair.failures > 0 || !pair.unequal.is_empty());
    }

    /// A node said something after a silence: what it did not answer is compared soon.
    pub fn handle_heard(&mut self, now: u64, node: NodeId) {
        self.hasten_with(now, node, |pair| pair.failures > 0);
    }

    fn hasten_with(&mut self, now: u64, node: NodeId, waits: impl Fn(&Pair) -> bool) {
        let ids: Vec<u32> = self.by_node.range((node, 0)..=(node, u32::MAX)).map(|(_, id)| *id).collect();
        for id in ids {
            let pair = self.pairs[slot(id)].as_mut().expect("the set names pairs");
            if waits(pair) {
                pair.hurry();
                pair.compare_at = now + self.random.draw() % FIRST_MS;
                self.set_timer(now, id);
            }
        }
        self.strays.hasten(now);
    }

    /// Whether the partition on this volume was equal to that on the peer's volume since neither changed, as far as is
    /// known here.
    #[must_use]
    pub fn is_equal(&self, volume: VolumeId, partition: Partition, peer: VolumeId) -> bool {
        let pair = self.index.get(&(volume, peer)).and_then(|id| self.pairs[slot(*id)].as_ref());
        self.inventory.is_open(&volume) && pair.is_some_and(|pair| pair.is_equal(partition))
    }

    /// How many comparisons in a row of this volume with the peer's had no answer, up to 8.
    #[must_use]
    pub fn unanswered(&self, volume: VolumeId, peer: VolumeId) -> u8 {
        let pair = self.index.get(&(volume, peer)).and_then(|id| self.pairs[slot(*id)].as_ref());
        pair.map_or(0, |pair| pair.failures)
    }

    /// Whether this node's volume holds the partition.
    pub(super) fn holds(&self, volume: &VolumeId, partition: Partition) -> bool {
        let share = self.shares.get(volume).and_then(|shares| shares.get(partition));
        self.inventory.is_open(volume) && matches!(share, Some(Share::Held(_)))
    }

    /// Whether both hold the partition, as this node sees it.
    pub(super) fn shares(&self, volume: VolumeId, partition: Partition, peer: VolumeId, node: NodeId) -> bool {
        let pair = self.index.get(&(volume, peer)).and_then(|id| self.pairs[slot(*id)].as_ref());
        let shared = |pair: &Pair| pair.node == node && pair.partitions.contains(partition);
        self.inventory.is_open(&volume) && pair.is_some_and(shared)
    }

    /// The pairs' partitions that wait to be proved equal, tracks that wait to be missing, and lists asked for.
    #[must_use]
    pub fn pending(&self) -> (usize, usize, usize) {
        let unequal = self.pairs.iter().flatten().map(|pair| pair.unequal.len() + pair.pending.len()).sum();
        (unequal, self.suspects.len(), self.lists.len())
    }

    /// The pairs' partitions that were not found equal, nor what differs, since a volume was opened, a peer was away, or all
    /// was to be compared anew; and those of the pairs whose peer does not answer. Changes since do not count: they are
    /// compared soon.
    #[must_use]
    pub fn unproved(&self) -> (usize, usize) {
        let open = self.pairs.iter().flatten().filter(|pair| self.inventory.is_open(&pair.own));
        open.fold((0, 0), |(waiting, unanswered), pair| {
            if pair.failures > 0 {
                (waiting, unanswered + pair.unequal.len() + pair.pending.len())
            } else {
                (waiting + pair.fresh.len(), unanswered)
            }
        })
    }

    /// When [`poll`](Self::poll) has something to do, if nothing comes before; nothing: only then.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.suspects.next(), self.strays.next()].into_iter().flatten().min()
    }

    /// What there is to do.
    pub fn poll(&mut self, now: u64) -> Vec<Effect> {
        while let Some((_, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.fire(now, id);
        }
        while let Some(((volume, track), from)) = self.suspects.due(now) {
            if self.holds(&volume, track.partition()) {
                self.effects.push(Effect::Missing { volume, track, partition: track.partition(), from });
            }
        }
        self.poll_strays(now);
        std::mem::take(&mut self.effects)
    }

    pub(super) fn set_timer(&mut self, now: u64, id: u32) {
        let pair = self.pairs[slot(id)].as_mut().expect("the caller knows it");
        let at = match &pair.session {
            _ if !self.inventory.is_open(&pair.own) => None,
            Some(session) => Some(session.deadline),
            None if !pair.leaves.is_empty() => Some(pair.leaves_at),
            None if !pair.unequal.is_empty() => Some(pair.compare_at),
            None if pair.own < pair.peer => {
                let jitter = self.random.draw() % (self.settings.safety_ms / 4).max(1);
                Some(pair.compared_at.max(now) + self.settings.safety_ms - jitter)
            }
            None => None,
        };
        if let Some(timer) = pair.timer {
            self.timers.remove(&(timer, id));
        }
        pair.timer = at;
        if let Some(at) = at {
            self.timers.insert((at, id));
        }
    }

    fn fire(&mut self, now: u64, id: u32) {
        let pair = self.pairs[slot(id)].as_mut().expect("timers name pairs");
        if pair.session.is_some() {
            self.end(now, id, false);
        } else if pair.leaves.is_empty() {
            if self.digests_budget.is_open(now) {
                self.begin(now, id);
            } else {
                pair.compare_at = self.digests_budget.opens(now) + 1 + self.random.draw() % 1_000;
                // Also where nothing is unequal, so that the timer moves on.
                pair.compared_at = now;
            }
        } else {
            self.ask(now, id);
        }
        self.set_timer(now, id);
    }

    /// Asks for the lists of partitions that differ, as far as the budget goes.
    fn ask(&mut self, now: u64, id: u32) {
        let pair = self.pairs[slot(id)].as_mut().expect("the caller knows it");
        let (own, peer, node) = (pair.own, pair.peer, pair.node);
        let mut asked = Vec::new();
        while asked.len() < 8 && self.lists_budget.is_open(now) {
            let Some(partition) = pair.leaves.pop_first() else { break };
            // What the answers will cost here; a peer pays for its own.
            self.lists_budget.pay(now, 200);
            asked.push(partition);
        }
        pair.leaves_at = (now + 50).max(self.lists_budget.opens(now));
        for partition in asked {
            let cell = self.inventory.of(&own, partition).cell(partition);
            self.send_list(now, node, Message { from: own, to: peer, body: Body::Ask { partition, cell } });
        }
    }
}
