//! Nodes whose volumes are sets of ids, a network between them, and what must hold at every step.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_dht::sync::{Effect, Holder, MESSAGE_BYTES_MAX, Message, Settings, Sync};
use deadwax_dht::wire::PartitionDigest;
use deadwax_dht::{NodeId, VolumeId};
use deadwax_track::{Partition, TrackId};

pub(crate) use crate::random::Random;

pub(crate) fn node_id(node: usize) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(node as u64 * 77 + 5).to_be_bytes());
    NodeId::from_bytes(bytes)
}

/// Volume `index` of node `node`.
pub(crate) fn volume_id(node: usize, index: usize) -> VolumeId {
    let mut bytes = [0; 16];
    // The order of volumes is not that of nodes.
    bytes[0] = u8::try_from((node * 101 + index * 37) % 251).expect("below 251");
    bytes[8..12].copy_from_slice(&u32::try_from(node).expect("few").to_be_bytes());
    bytes[12..].copy_from_slice(&u32::try_from(index).expect("few").to_be_bytes());
    VolumeId::from_bytes(bytes)
}

pub(crate) fn track_in(random: &mut Random, partition: u16) -> TrackId {
    let mut bytes = [0; 32];
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&random.next().to_be_bytes());
    }
    bytes[..2].copy_from_slice(&partition.to_be_bytes());
    TrackId::from_bytes(bytes)
}

#[derive(Clone, Debug)]
enum Event {
    Deliver { to: usize, from: usize, message: Message },
    Listed { node: usize, life: u64, number: u64, ids: Vec<TrackId> },
    Store { node: usize, volume: VolumeId, track: TrackId, pulled: bool },
    Erase { node: usize, volume: VolumeId, track: TrackId },
    Layout { node: usize },
    Wake { node: usize },
}

pub(crate) struct Node {
    pub(crate) sync: Option<Sync>,
    pub(crate) life: u64,
    pub(crate) volumes: BTreeMap<VolumeId, BTreeSet<TrackId>>,
    wake: Option<u64>,
    pub(crate) sent_bytes: u64,
    second: (u64, u64),
    pub(crate) second_bytes_max: u64,
}

/// Chances in percent, delays in ms.
#[derive(Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) delay_max: u64,
}

pub(crate) const FAIR: Weather = Weather { lost: 0, doubled: 0, delay_max: 60 };

type Place = (VolumeId, Partition);

pub(crate) struct Network {
    pub(crate) now: u64,
    pub(crate) seed: u64,
    pub(crate) random: Random,
    pub(crate) weather: Weather,
    pub(crate) nodes: Vec<Node>,
    pub(crate) owner: BTreeMap<VolumeId, usize>,
    /// All holders of a partition, in all sets.
    pub(crate) holders: BTreeMap<Partition, Vec<VolumeId>>,
    pub(crate) dead: BTreeSet<usize>,
    events: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    /// What a volume holds of a partition, since when.
    history: BTreeMap<Place, Vec<(u64, u128)>>,
    digests: BTreeMap<Place, (u32, u128)>,
    /// Missing tracks: since when.
    pub(crate) missing: BTreeMap<(VolumeId, TrackId), u64>,
    /// How long each was missing until it was told.
    pub(crate) found_ms: Vec<u64>,
    pulling: BTreeSet<(VolumeId, TrackId)>,
    pub(crate) pulls: u64,
    pub(crate) covered: u64,
    pub(crate) messages: u64,
    pub(crate) trace: u64,
    /// Nobody pulls, to see what is told again.
    pub(crate) pulls_stopped: bool,
}

impl Network {
    pub(crate) fn new(seed: u64, nodes: usize, volumes: usize, partitions: u32, copies: usize) -> Self {
        let mut random = Random(seed);
        let mut holders = BTreeMap::new();
        let step = (1 << 16) / partitions;
        for number in 0..partitions {
            let partition = Partition(u16::try_from(number * step).expect("a partition"));
            holders.insert(partition, choose(&mut random, nodes, volumes, copies));
        }
        let all = (0..nodes).flat_map(|node| (0..volumes).map(move |index| (volume_id(node, index), node)));
        let node = |node| Node {
            sync: None,
            life: 0,
            volumes: (0..volumes).map(|index| (volume_id(node, index), BTreeSet::new())).collect(),
            wake: None,
            sent_bytes: 0,
            second: (0, 0),
            second_bytes_max: 0,
        };
        Self {
            now: 1_000,
            seed,
            random,
            weather: FAIR,
            nodes: (0..nodes).map(node).collect(),
            owner: all.collect(),
            holders,
            dead: BTreeSet::new(),
            events: BTreeMap::new(),
            sequence: 0,
            history: BTreeMap::new(),
            digests: BTreeMap::new(),
            missing: BTreeMap::new(),
            found_ms: Vec::new(),
            pulling: BTreeSet::new(),
            pulls: 0,
            covered: 0,
            messages: 0,
            trace: 0,
            pulls_stopped: false,
        }
    }

    pub(crate) fn partitions(&self) -> Vec<Partition> {
        self.holders.keys().copied().collect()
    }

    /// Puts tracks on all holders before anything starts.
    pub(crate) fn fill(&mut self, tracks: usize) {
        let partitions = self.partitions();
        for _ in 0..tracks {
            let partition = self.random.pick(&partitions);
            let track = track_in(&mut self.random, partition.0);
            for volume in self.holders[&partition].clone() {
                self.turn(volume, track, true);
            }
        }
    }

    pub(crate) fn start_all(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.start(node));
    }

    pub(crate) fn start(&mut self, node: usize) {
        let seed = self.random.next();
        let mut sync = Sync::new(seed, Settings::default(), self.now);
        for volume in self.nodes[node].volumes.keys() {
            let places = self.digests.range((*volume, Partition(0))..=(*volume, Partition(u16::MAX)));
            let digest = |((_, partition), (tracks, digest)): (&Place, &(u32, u128))| PartitionDigest {
                partition: *partition,
                tracks: *tracks,
                digest: digest.to_le_bytes(),
            };
            sync.open_volume(self.now, *volume, places.map(digest).collect::<Vec<_>>());
        }
        self.nodes[node].sync = Some(sync);
        self.nodes[node].life += 1;
        self.layout(node);
        for other in 0..self.nodes.len() {
            let now = self.now;
            if let Some(sync) = &mut self.nodes[other].sync {
                sync.handle_reachable(now, node_id(node));
                self.act(other);
            }
        }
    }

    pub(crate) fn stop(&mut self, node: usize) {
        self.nodes[node].sync = None;
        self.nodes[node].wake = None;
    }

    fn others(&self, partition: Partition, volume: VolumeId) -> Vec<Holder> {
        let holders = self.holders.get(&partition).into_iter().flatten().filter(|other| **other != volume);
        let holder = |volume: &VolumeId| {
            let node = self.owner[volume];
            Holder { volume: *volume, node: node_id(node), dead: self.dead.contains(&node) }
        };
        holders.map(holder).collect()
    }

    /// Tells the node the whole layout.
    pub(crate) fn layout(&mut self, node: usize) {
        let mut items = Vec::new();
        for (partition, holders) in &self.holders {
            for volume in holders.iter().filter(|volume| self.owner[*volume] == node) {
                items.push((*volume, *partition, self.others(*partition, *volume)));
            }
        }
        let now = self.now;
        if let Some(sync) = &mut self.nodes[node].sync {
            sync.set_layout(
                now,
                items.iter().map(|(volume, partition, others)| (*volume, *partition, true, &others[..])),
            );
            self.act(node);
        }
    }

    /// Other holders for a partition; the nodes hear of it within `spread` ms.
    pub(crate) fn move_partition(&mut self, partition: Partition, holders: Vec<VolumeId>, spread: u64) {
        for volume in &holders {
            let has = |other: &VolumeId| self.nodes[self.owner[other]].volumes[other].range(range(partition));
            let tracks: BTreeSet<TrackId> = self.holders[&partition].iter().flat_map(has).copied().collect();
            for track in tracks {
                if !self.nodes[self.owner[volume]].volumes[volume].contains(&track) {
                    self.missing.entry((*volume, track)).or_insert(self.now + spread);
                }
            }
        }
        self.missing.retain(|(volume, track), _| track.partition() != partition || holders.contains(volume));
        self.holders.insert(partition, holders);
        for node in 0..self.nodes.len() {
            let delay = self.random.below(spread + 1);
            self.schedule(delay, Event::Layout { node });
        }
    }

    fn schedule(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + delay, self.sequence), event);
    }

    /// A put: on each of the holders that are up it arrives within `spread` ms; `skip` of them never get it.
    pub(crate) fn put(&mut self, partition: Partition, skip: usize, spread: u64) -> TrackId {
        let track = track_in(&mut self.random, partition.0);
        let mut holders = self.holders[&partition].clone();
        for _ in 0..skip {
            let left_out = holders.remove(self.random.index(holders.len()));
            self.missing.insert((left_out, track), self.now + spread);
        }
        for volume in holders {
            let node = self.owner[&volume];
            if self.nodes[node].sync.is_none() {
                self.missing.insert((volume, track), self.now + spread);
                continue;
            }
            let delay = self.random.below(spread + 1);
            self.schedule(delay, Event::Store { node, volume, track, pulled: false });
        }
        track
    }

    /// A volume gets a track now, whether it holds its partition or not.
    pub(crate) fn store(&mut self, volume: VolumeId, track: TrackId) {
        let node = self.owner[&volume];
        self.handle(Event::Store { node, volume, track, pulled: false });
    }

    pub(crate) fn erase(&mut self, volume: VolumeId, track: TrackId) {
        let node = self.owner[&volume];
        self.handle(Event::Erase { node, volume, track });
    }

    /// Changes the set and what is known of it; not what the node's machine knows.
    pub(crate) fn turn(&mut self, volume: VolumeId, track: TrackId, stored: bool) -> bool {
        let tracks = self.nodes[self.owner[&volume]].volumes.get_mut(&volume).expect("a volume");
        let turned = if stored { tracks.insert(track) } else { tracks.remove(&track) };
        if turned {
            let place = (volume, track.partition());
            let digest = self.digests.entry(place).or_default();
            digest.0 = if stored { digest.0 + 1 } else { digest.0 - 1 };
            digest.1 ^= u128::from_le_bytes(track.half());
            let digest = digest.1;
            let history = self.history.entry(place).or_insert_with(|| vec![(0, 0)]);
            history.push((self.now, digest));
            if history.len() > 64 {
                history.drain(..32);
            }
            if stored {
                self.missing.remove(&(volume, track));
            }
        }
        turned
    }

    pub(crate) fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.handle(event);
        }
        self.now = end;
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        let node = match event {
            Event::Deliver { to, from, message } => {
                let bytes = message.encode();
                for byte in &bytes[..bytes.len().min(64)] {
                    self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
                }
                self.trace = (self.trace ^ now ^ (to as u64) << 32).wrapping_mul(0x0100_0000_01b3);
                let message = Message::decode(&bytes).expect("what was encoded");
                let Some(sync) = &mut self.nodes[to].sync else { return };
                sync.handle_message(now, node_id(from), message);
                to
            }
            Event::Listed { node, life, number, ids } => {
                let same = self.nodes[node].life == life;
                let Some(sync) = self.nodes[node].sync.as_mut().filter(|_| same) else { return };
                sync.handle_listed(now, number, ids);
                node
            }
            Event::Store { node, volume, track, pulled } => {
                self.pulling.remove(&(volume, track));
                if self.nodes[node].sync.is_none() {
                    self.missing.entry((volume, track)).or_insert(now);
                    return;
                }
                self.pulls += u64::from(pulled);
                if self.turn(volume, track, true) {
                    self.nodes[node].sync.as_mut().expect("seen above").stored(now, volume, track);
                }
                node
            }
            Event::Erase { node, volume, track } => {
                if self.turn(volume, track, false)
                    && let Some(sync) = &mut self.nodes[node].sync
                {
                    sync.erased(now, volume, track);
                }
                node
            }
            Event::Layout { node } => return self.layout(node),
            Event::Wake { node } => {
                if self.nodes[node].wake != Some(now) {
                    return;
                }
                self.nodes[node].wake = None;
                node
            }
        };
        self.act(node);
    }

    /// Polls the node and carries out what it says.
    pub(crate) fn act(&mut self, node: usize) {
        let now = self.now;
        loop {
            let Some(sync) = &mut self.nodes[node].sync else { return };
            let effects = sync.poll(now);
            let next = sync.next_deadline();
            if effects.is_empty() {
                if let Some(next) = next {
                    assert!(next > now, "a poll leaves nothing that is due, seed {}", self.seed);
                    if self.nodes[node].wake.is_none_or(|wake| wake != next) {
                        self.nodes[node].wake = Some(next);
                        self.schedule(next - now, Event::Wake { node });
                    }
                }
                return;
            }
            effects.into_iter().for_each(|effect| self.carry_out(node, effect));
        }
    }

    fn carry_out(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::Send { to, message } => self.send(node, to, message),
            Effect::List { number, volume, partition } => {
                let ids = self.nodes[node].volumes[&volume].range(range(partition)).copied().collect();
                let (life, delay) = (self.nodes[node].life, self.random.below(20));
                self.schedule(delay, Event::Listed { node, life, number, ids });
            }
            Effect::Holders { volume, partition } => {
                let others = self.others(partition, volume);
                let holds = self.holders.get(&partition).is_some_and(|holders| holders.contains(&volume));
                let now = self.now;
                let sync = self.nodes[node].sync.as_mut().expect("it acts");
                sync.set_partition(now, volume, partition, holds, &others);
            }
            Effect::Missing { volume, track, partition, from } => self.missing(node, volume, track, partition, from),
            Effect::Equal { volume, with, partitions } => {
                for partition in partitions {
                    self.check_equal(volume, with, partition);
                }
            }
            Effect::Covered { volume, track } => {
                let holders = &self.holders[&track.partition()];
                for holder in holders {
                    let dead = self.dead.contains(&self.owner[holder]);
                    assert!(!dead, "covered, but {holder} is dead, seed {}", self.seed);
                    let has = self.nodes[self.owner[holder]].volumes[holder].contains(&track);
                    assert!(has, "covered, but {holder} lacks {track:?}, seed {}", self.seed);
                }
                assert!(!holders.contains(&volume), "a holder's own copy is no stray, seed {}", self.seed);
                self.covered += 1;
                self.schedule(0, Event::Erase { node, volume, track });
            }
        }
    }

    fn send(&mut self, node: usize, to: NodeId, message: Message) {
        let length = message.encode().len();
        assert!(length <= MESSAGE_BYTES_MAX);
        let second = self.now / 1_000;
        let sender = &mut self.nodes[node];
        sender.sent_bytes += length as u64;
        self.messages += 1;
        if sender.second.0 != second {
            sender.second = (second, 0);
        }
        sender.second.1 += length as u64;
        sender.second_bytes_max = sender.second_bytes_max.max(sender.second.1);
        let to = (0..self.nodes.len()).find(|node| node_id(*node) == to).expect("a node");
        let copies = 1 + usize::from(self.random.percent(self.weather.doubled));
        for _ in 0..copies {
            if !self.random.percent(self.weather.lost) {
                let delay = 1 + self.random.below(self.weather.delay_max);
                self.schedule(delay, Event::Deliver { to, from: node, message: message.clone() });
            }
        }
    }

    fn missing(
        &mut self,
        node: usize,
        volume: VolumeId,
        track: TrackId,
        partition: Partition,
        from: (VolumeId, NodeId),
    ) {
        assert_eq!(partition, track.partition());
        let source = self.owner[&from.0];
        assert_eq!(node_id(source), from.1);
        assert!(self.nodes[node].volumes.contains_key(&volume), "seed {}", self.seed);
        if let Some(since) = self.missing.get(&(volume, track)) {
            self.found_ms.push(self.now.saturating_sub(*since));
        }
        let there = self.nodes[source].sync.is_some() && self.nodes[source].volumes[&from.0].contains(&track);
        if there && !self.pulls_stopped && self.pulling.insert((volume, track)) {
            let delay = 100 + self.random.below(400);
            self.schedule(delay, Event::Store { node, volume, track, pulled: true });
        }
    }

    /// What this volume holds now is what the other held at some time since the comparison began.
    fn check_equal(&self, volume: VolumeId, with: VolumeId, partition: Partition) {
        let own = self.digests.get(&(volume, partition)).map_or(0, |digest| digest.1);
        let history = self.history.get(&(with, partition)).map_or(&[(0, 0)][..], |history| &history[..]);
        // Equal digests may be told by a message that is a comparison's whole length old.
        let begin = self.now.saturating_sub(6_000);
        let before = history.iter().rfind(|(at, _)| *at <= begin);
        let after = history.iter().filter(|(at, _)| *at > begin);
        let equal = before.into_iter().chain(after).any(|(_, digest)| *digest == own);
        assert!(equal, "{volume} is not equal to {with} in {partition:?} at {}, seed {}", self.now, self.seed);
    }

    /// All holders of all partitions have the same.
    pub(crate) fn assert_equal(&self) {
        for (partition, holders) in &self.holders {
            let live = holders.iter().filter(|volume| self.nodes[self.owner[*volume]].sync.is_some());
            let digests: BTreeSet<_> =
                live.map(|volume| self.digests.get(&(*volume, *partition)).copied().unwrap_or_default()).collect();
            assert!(digests.len() <= 1, "{partition:?} differs, seed {}", self.seed);
        }
    }

    /// All pairs know that they are equal.
    pub(crate) fn assert_known_equal(&self) {
        for (partition, holders) in &self.holders {
            for (one, other) in holders.iter().flat_map(|one| holders.iter().map(move |other| (one, other))) {
                if one != other {
                    let sync = self.nodes[self.owner[one]].sync.as_ref().expect("all are up");
                    assert!(sync.is_equal(*one, *partition, *other), "{one} {partition:?} {other}, seed {}", self.seed);
                }
            }
        }
    }

    pub(crate) fn found_ms_max(&self) -> u64 {
        self.found_ms.iter().copied().max().unwrap_or_default()
    }

    pub(crate) fn forget_bytes(&mut self) {
        for node in &mut self.nodes {
            (node.sent_bytes, node.second_bytes_max) = (0, 0);
        }
        self.messages = 0;
    }

    /// The most bytes a second that one node sent on average over `ms`, and in its worst second.
    pub(crate) fn rates(&self, ms: u64) -> (u64, u64) {
        let average = self.nodes.iter().map(|node| node.sent_bytes * 1_000 / ms).max().unwrap_or_default();
        (average, self.nodes.iter().map(|node| node.second_bytes_max).max().unwrap_or_default())
    }
}

/// Volumes on different nodes.
pub(crate) fn choose(random: &mut Random, nodes: usize, volumes: usize, copies: usize) -> Vec<VolumeId> {
    let mut chosen = BTreeSet::new();
    while chosen.len() < copies.min(nodes) {
        chosen.insert(random.index(nodes));
    }
    chosen.into_iter().map(|node| volume_id(node, random.index(volumes))).collect()
}

pub(crate) fn range(partition: Partition) -> std::ops::RangeInclusive<TrackId> {
    let (mut first, mut last) = ([0; 32], [0xff; 32]);
    first[..2].copy_from_slice(&partition.0.to_be_bytes());
    last[..2].copy_from_slice(&partition.0.to_be_bytes());
    TrackId::from_bytes(first)..=TrackId::from_bytes(last)
}
