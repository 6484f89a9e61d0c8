//! Who holds what at one epoch, worked out once and shared.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use deadwax_track::Partition;

use crate::liveness::Cells;
use crate::log::{BadHistory, Batch, History, State};
use crate::partitions::Partitions;
use crate::routing::Directory;
use crate::takedown::witnesses;
use crate::{BadMap, Holder, Map, NodeId, VolumeId};

/// How many epochs a [`LayoutCache`] keeps: the newest, and the one before.
const KEPT_MAX: usize = 2;
/// How many one keeps that many cores share: those that nodes are at that lag behind, too.
const SHARED_KEPT_MAX: usize = 8;

/// How many partitions may change for what volumes hold to be told from the epoch before; beyond, it is worked out anew.
const CHANGED_MAX: usize = 16_384;

/// An epoch's map and state together: who holds a partition, also while it moves. Immutable, shared as `Arc<Layout>`; a few
/// MiB, most of them worked out when first asked for.
#[derive(Debug)]
pub struct Layout {
    map: Arc<Map>,
    state: Arc<State>,
    head: [u8; 32],
    volumes: BTreeMap<VolumeId, Holder>,
    cells: Arc<Cells>,
    directory: Arc<Directory>,
    /// The layout before, by its head, and the partitions whose holders are others since, or dead, or alive again.
    changed: Option<([u8; 32], Vec<Partition>)>,
    witnesses: OnceLock<Vec<NodeId>>,
    /// What each volume holds, in any set, rising.
    held: OnceLock<Held>,
    /// What nodes hold, of those that asked.
    nodes: Mutex<BTreeMap<NodeId, Arc<[Partition]>>>,
}

/// Each volume's partitions, rising.
type Held = BTreeMap<VolumeId, Arc<[Partition]>>;

/// The one or two sets of a partition's holders. See [`Holders`](crate::log::Holders) for what each is good for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sets {
    /// Readers ask these first, and only these may say that a track is absent.
    pub first: Vec<Holder>,
    /// The other set, while there are two: a write needs its quorum there, too.
    pub second: Option<Vec<Holder>>,
}

impl Sets {
    /// The sets, one or two.
    pub fn each(&self) -> impl Iterator<Item = &[Holder]> {
        std::iter::once(self.first.as_slice()).chain(self.second.as_deref())
    }

    /// All holders, each once, in the order in which readers ask.
    #[must_use]
    pub fn union(&self) -> Vec<Holder> {
        let mut all = self.first.clone();
        let more = self.second.iter().flatten();
        all.extend(more.filter(|holder| !self.first.iter().any(|first| first.volume == holder.volume)));
        all
    }

    /// Whether `volume` is a holder, in either set.
    #[must_use]
    pub fn has(&self, volume: &VolumeId) -> bool {
        self.each().flatten().any(|holder| holder.volume == *volume)
    }
}

impl Layout {
    /// The layout of the history's newest epoch. `earlier`, any other of the same cluster, spares work.
    fn new(history: &History, earlier: Option<&Self>) -> Result<Self, BadMap> {
        let map = Arc::new(history.map()?);
        let (state, head) = (history.state().clone(), history.head());
        let Some(earlier) = earlier else {
            let cells = Arc::new(Cells::new(&map));
            return Ok(Self::with(map, state, head, cells));
        };
        map.learn_from(&earlier.map);
        let alike = earlier.map.nodes() == map.nodes();
        let cells = if alike { earlier.cells.clone() } else { Arc::new(Cells::new(&map)) };
        let mut new = Self::with(map, state, head, cells);
        let changed = if alike && earlier.map.policy() == new.map.policy() {
            new.compare_moves(earlier)
        } else {
            (0..=u16::MAX).map(Partition).filter(|partition| new.differs(earlier, *partition)).collect()
        };
        if let Some(held) = earlier.held.get().filter(|_| changed.len() < CHANGED_MAX) {
            new.held = OnceLock::from(new.follow_held(earlier, held, &changed));
        }
        new.changed = Some((earlier.head, changed));
        Ok(new)
    }

    fn with(map: Arc<Map>, state: Arc<State>, head: [u8; 32], cells: Arc<Cells>) -> Self {
        let volumes = map.roster().volumes().iter().map(|seat| (seat.holder().volume, seat.holder())).collect();
        let directory = Arc::new(Directory::new(map.clone()));
        Self {
            map,
            state,
            head,
            volumes,
            cells,
            directory,
            changed: None,
            witnesses: OnceLock::new(),
            held: OnceLock::new(),
            nodes: Mutex::default(),
        }
    }

    /// The partitions that are otherwise than in `earlier`, which has the same nodes: placement puts all where it did, but
    /// for overrides and moves.
    fn compare_moves(&self, earlier: &Self) -> Vec<Partition> {
        let dead = |layout: &Self| layout.state.dead().clone();
        if dead(self) != dead(earlier) {
            return (0..=u16::MAX).map(Partition).filter(|partition| self.differs(earlier, *partition)).collect();
        }
        let mut named = Partitions::default();
        for layout in [self, earlier] {
            let overrides = layout.map.spec().overrides.iter().map(|over| over.partition);
            let all = overrides.chain(layout.state.transitions().keys().copied());
            all.for_each(|partition| _ = named.insert(partition));
        }
        named.iter().filter(|partition| self.differs(earlier, *partition)).collect()
    }

    /// Whether a partition has other holders than in `earlier`, or one of them died or came back.
    fn differs(&self, earlier: &Self, partition: Partition) -> bool {
        let dead = |layout: &Self, holder: &Holder| layout.state.dead().contains(&layout.map.nodes()[holder.node].id);
        if [self, earlier].iter().all(|layout| !layout.state.transitions().contains_key(&partition)) {
            let alike = |(one, other): (Holder, Holder)| {
                one.volume == other.volume && dead(self, &one) == dead(earlier, &other)
            };
            let (held, before) = (self.map.held(partition.0), earlier.map.held(partition.0));
            return held.len() != before.len() || !self.held_at(partition).zip(earlier.held_at(partition)).all(alike);
        }
        let holders = |layout: &Self| -> Vec<Vec<(VolumeId, bool)>> {
            let dead = |holder: &Holder| dead(layout, holder);
            let set = |set: &[Holder]| set.iter().map(|holder| (holder.volume, dead(holder))).collect();
            layout.sets(partition).each().map(set).collect()
        };
        holders(self) != holders(earlier)
    }

    /// What each volume holds, where that is known of `earlier` and these partitions changed.
    fn follow_held(&self, earlier: &Self, held: &Held, changed: &[Partition]) -> Held {
        let mut held = held.clone();
        let mut turned: BTreeMap<VolumeId, Vec<(Partition, bool)>> = BTreeMap::new();
        for partition in changed {
            let (was, is) = (earlier.sets(*partition), self.sets(*partition));
            for (one, other, comes) in [(&was, &is, false), (&is, &was, true)] {
                for holder in one.union().iter().filter(|holder| !other.has(&holder.volume)) {
                    turned.entry(holder.volume).or_default().push((*partition, comes));
                }
            }
        }
        for (volume, turns) in turned {
            let mut partitions: BTreeSet<Partition> =
                held.get(&volume).into_iter().flat_map(|held| held.iter()).copied().collect();
            for (partition, comes) in turns {
                if comes {
                    partitions.insert(partition)
                } else {
                    partitions.remove(&partition)
                };
            }
            held.insert(volume, partitions.into_iter().collect());
        }
        held.retain(|volume, _| self.volumes.contains_key(volume));
        held
    }

    /// The partitions whose holders are others than in `earlier`, or died, or came back. None: that is not known, or
    /// `earlier` is not of the epoch before: holders may have come and gone between the two.
    #[must_use]
    pub fn changed_since(&self, earlier: &Self) -> Option<&[Partition]> {
        let next = self.epoch() == earlier.epoch() + 1;
        self.changed.as_ref().filter(|(head, _)| next && *head == earlier.head).map(|(_, changed)| changed.as_slice())
    }

    /// The map. Ask [`sets`](Self::sets), not the map, who holds a partition.
    #[must_use]
    pub const fn map(&self) -> &Arc<Map> {
        &self.map
    }

    /// The state of the map log.
    #[must_use]
    pub const fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// How its nodes are cut into cells, within which they look after one another.
    #[must_use]
    pub const fn cells(&self) -> &Arc<Cells> {
        &self.cells
    }

    /// Its nodes as routing has them.
    #[must_use]
    pub const fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// With whom nodes compare their takedowns: see [`witnesses`].
    #[must_use]
    pub fn witnesses(&self) -> &[NodeId] {
        self.witnesses.get_or_init(|| {
            let nodes = self.map.nodes().iter().map(|node| (node.id, node.zone.as_str()));
            witnesses(nodes, self.state.dead())
        })
    }

    /// The partitions that `node`'s volumes hold, in any set, rising.
    #[must_use]
    pub fn held_in(&self, node: &NodeId) -> Arc<[Partition]> {
        let volumes = self.map.node(node).map_or(&[][..], |node| &node.volumes);
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = nodes.get(node) {
            return held.clone();
        }
        let held: Arc<[Partition]> = match volumes {
            [volume] => self.held().get(&volume.id).cloned().unwrap_or_default(),
            volumes => {
                let held = volumes.iter().flat_map(|volume| self.held_by(&volume.id));
                let mut held: Vec<Partition> = held.copied().collect();
                held.sort_unstable();
                held.dedup();
                held.into()
            }
        };
        nodes.insert(*node, held.clone());
        held
    }

    /// The epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.map.epoch()
    }

    /// Where a volume is: none if the map does not have it. Its indexes are those of [`map`](Self::map).
    #[must_use]
    pub fn volume(&self, volume: &VolumeId) -> Option<Holder> {
        self.volumes.get(volume).copied()
    }

    /// The node that a volume of the map is in.
    #[must_use]
    pub fn node_of(&self, volume: &VolumeId) -> Option<NodeId> {
        self.volume(volume).map(|holder| self.map.nodes()[holder.node].id)
    }

    /// Who holds `partition`. A volume that the map has no more (an old holder of a settled move) is left out.
    #[must_use]
    pub fn sets(&self, partition: Partition) -> Sets {
        match self.state.transitions().get(&partition) {
            None => Sets { first: self.held_at(partition).collect(), second: None },
            Some(_) => {
                let holders = self.state.holders(partition);
                let mut sets = holders.sets().map(|set| set.iter().filter_map(|volume| self.volume(volume)).collect());
                Sets { first: sets.next().expect("there is a first set"), second: sets.next() }
            }
        }
    }

    /// Calls `visit` with each holder that [`sets`](Self::sets) has, once.
    pub(crate) fn each_holder(&self, partition: Partition, mut visit: impl FnMut(&Holder)) {
        if self.state.transitions().contains_key(&partition) {
            self.sets(partition).union().iter().for_each(visit);
        } else {
            self.held_at(partition).for_each(|holder| visit(&holder));
        }
    }

    /// Where the map puts a partition: as [`Map::holders`], without keeping it for the next question.
    fn held_at(&self, partition: Partition) -> impl Iterator<Item = Holder> {
        let seats = self.map.roster().volumes();
        self.map.held(partition.0).iter().map(|volume| seats[*volume as usize].holder())
    }

    /// Whom a put asks for holders of `partition` that are not there: of each zone the `count` volumes that come next in
    /// placement's order, on other nodes than the holders. Takes some 20 ns for each volume of the map.
    #[must_use]
    pub fn stand_ins(&self, partition: Partition, count: usize) -> Vec<Holder> {
        let nodes: Vec<usize> = self.sets(partition).each().flatten().map(|holder| holder.node).collect();
        self.map.roster().stand_ins(partition, &nodes, count)
    }

    /// The partitions that `volume` holds, in any set, rising.
    #[must_use]
    pub fn held_by(&self, volume: &VolumeId) -> &[Partition] {
        self.held().get(volume).map_or(&[], |held| held)
    }

    fn held(&self) -> &Held {
        self.held.get_or_init(|| {
            let seats = self.map.roster().volumes();
            let mut held: Vec<Vec<Partition>> = vec![Vec::new(); seats.len()];
            let index: BTreeMap<VolumeId, usize> = seats.iter().map(|seat| seat.holder().volume).zip(0..).collect();
            for partition in (0..=u16::MAX).map(Partition) {
                if self.state.transitions().contains_key(&partition) {
                    for holder in self.sets(partition).union() {
                        held[index[&holder.volume]].push(partition);
                    }
                } else {
                    self.map.held(partition.0).iter().for_each(|volume| held[*volume as usize].push(partition));
                }
            }
            seats.iter().map(|seat| seat.holder().volume).zip(held.into_iter().map(Arc::from)).collect()
        })
    }
}

/// Pure results that the cores of one process share: a history that one of them has checked is not checked again by the
/// next, and a layout is worked out once. Who holds what is the same with and without it; whether it is known what changed
/// since the epoch before is not. A node has one of its own, a simulation of ten thousand nodes one for all; of a small
/// cluster, sometimes one for each, so that it would show if two worked it out differently.
#[derive(Clone, Debug)]
pub struct LayoutCache {
    kept: Arc<Mutex<VecDeque<Kept>>>,
    kept_max: usize,
}

type Kept = (History, Arc<Layout>);

/// That of one node.
impl Default for LayoutCache {
    fn default() -> Self {
        Self { kept: Arc::default(), kept_max: KEPT_MAX }
    }
}

impl LayoutCache {
    /// One for many cores in a process.
    #[must_use]
    pub fn for_many() -> Self {
        Self { kept_max: SHARED_KEPT_MAX, ..Self::default() }
    }

    fn keep(&self, kept: &mut VecDeque<Kept>, history: &History, layout: Layout) -> Arc<Layout> {
        let layout = Arc::new(layout);
        if kept.len() == self.kept_max {
            kept.pop_front();
        }
        kept.push_back((history.clone(), layout.clone()));
        layout
    }

    /// The layout of a history that begins with `map`, which knows already where all lies: seconds for a large cluster.
    pub fn begin(&self, history: &History, map: &Map) -> Result<Arc<Layout>, BadMap> {
        let begun = Arc::new(history.map()?);
        begun.learn_from(map);
        let layout = Layout::with(begun.clone(), history.state().clone(), history.head(), Arc::new(Cells::new(&begun)));
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(self.keep(&mut kept, history, layout))
    }

    /// The layout of `history`'s newest epoch. Where it is not known yet, `earlier`, the caller's last, spares work; without
    /// it the newest here does.
    pub fn layout(&self, history: &History, earlier: Option<&Layout>) -> Result<Arc<Layout>, BadMap> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let head = history.head();
        if let Some((_, layout)) = kept.iter().find(|(_, layout)| layout.head == head) {
            return Ok(layout.clone());
        }
        let layout = Layout::new(history, earlier.or(kept.back().map(|(_, layout)| &**layout)))?;
        Ok(self.keep(&mut kept, history, layout))
    }

    /// A cache of its own that begins with what this one has.
    #[must_use]
    pub fn branch(&self) -> Self {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        Self { kept: Arc::new(Mutex::new(kept.clone())), kept_max: self.kept_max }
    }

    /// What [`History::catch_up`] does.
    pub fn catch_up(&self, history: &mut History, batch: &Batch) -> Result<u64, BadHistory> {
        if let Some(last) = batch.records.last().filter(|last| last.epoch > history.epoch()) {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let known = kept.iter().find(|(known, _)| known.is_newest(last)).or_else(|| {
                let head = last.hash();
                kept.iter().find(|(_, layout)| layout.head == head)
            });
            let known = known.map(|(known, _)| known);
            let before = history.epoch();
            // A chain of hashes: who has that head, and ours before it, has checked just these records.
            if known.is_some_and(|known| history.take_over(known)) {
                return Ok(history.epoch() - before);
            }
        }
        history.catch_up(batch)
    }
}
