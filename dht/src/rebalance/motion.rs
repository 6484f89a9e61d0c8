//! The partitions that are in motion: how far each is, whom it waits for, and which volumes are busy with it.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_track::Partition;

use super::facts::{Facts, coming};
use crate::VolumeId;
use crate::log::{Move, Stage, State, Transition};

/// How much longer than the lease it may be before a node that is declared dead calls nothing absent, in ms: clocks differ
/// a little.
const SLACK_MS: u64 = 2_000;

/// What can be done with a partition in motion.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Due {
    Abort,
    Finish,
    Settle,
    Sync,
}

impl Due {
    pub(super) const ALL: [Self; 4] = [Self::Abort, Self::Finish, Self::Settle, Self::Sync];
}

#[derive(Clone, Debug)]
struct Moving {
    transition: Transition,
    /// The epoch at which it was first seen here: reports of earlier ones may be of an earlier move.
    since: u64,
    /// New holders that have not reported.
    missing: Vec<VolumeId>,
    /// Old holders that may not know yet that readers ask the new ones.
    unaware: Vec<VolumeId>,
}

/// Partitions that come to a volume, and that go.
#[derive(Clone, Copy, Default, Debug)]
struct Load {
    arriving: u32,
    going: u32,
}

#[derive(Default, Debug)]
pub(super) struct Motions {
    all: BTreeMap<Partition, Moving>,
    /// The partitions that wait until the node of an old holder knows that readers ask the new ones.
    waiting: BTreeMap<VolumeId, BTreeSet<Partition>>,
    due: BTreeMap<Due, BTreeSet<Partition>>,
    load: BTreeMap<VolumeId, Load>,
    /// How many old holders could call a track absent.
    absent_quorum: usize,
    /// How long a node that hears of no majority could call a track absent still, in ms.
    silenced_ms: u64,
    /// When an old holder that is dead will have fallen silent, for which partitions wait: they are looked at again.
    silent_at: Option<u64>,
    /// Partitions whose data moves, those that were proposed to among them.
    loaded: usize,
}

impl Motions {
    pub(super) fn new(lease_ms: u64) -> Self {
        Self { silenced_ms: lease_ms.saturating_add(SLACK_MS), ..Self::default() }
    }

    /// Follows `state` at `now` (ms). `proposed`: what was proposed and is not decided; `busy`: partitions that a change was proposed
    /// for. Gives the partitions that are not in motion any more.
    pub(super) fn follow<'a>(
        &mut self,
        now: u64,
        state: &State,
        facts: &Facts,
        proposed: impl Iterator<Item = &'a Move>,
        busy: &BTreeSet<Partition>,
    ) -> Vec<Partition> {
        let mut before = std::mem::take(&mut self.all);
        self.waiting.clear();
        self.due.clear();
        self.load.clear();
        self.absent_quorum = state.spec().policy.read_quorum(usize::from(state.spec().policy.copies));
        (self.loaded, self.silent_at) = (0, None);
        for (partition, transition) in state.transitions() {
            let known = before.remove(partition).filter(|known| known.transition == *transition);
            let moving = known.unwrap_or_else(|| Moving {
                transition: transition.clone(),
                since: state.epoch(),
                missing: if transition.stage == Stage::Joint {
                    coming(&transition.old, &transition.new).copied().collect()
                } else {
                    Vec::new()
                },
                unaware: if transition.stage == Stage::Synced { transition.old.to_vec() } else { Vec::new() },
            });
            if transition.stage != Stage::Settled {
                self.take(&transition.old, &transition.new, facts);
            }
            if let Some(due) = self.due_of(now, &moving, facts).filter(|_| !busy.contains(partition)) {
                self.due.entry(due).or_default().insert(*partition);
            }
            for volume in &moving.unaware {
                self.waiting.entry(*volume).or_default().insert(*partition);
                let silent_at = self.silent_at(volume, facts).filter(|at| *at > now);
                self.silent_at = self.silent_at.into_iter().chain(silent_at).min();
            }
            self.all.insert(*partition, moving);
        }
        for each in proposed {
            self.take(&each.old, &each.new, facts);
        }
        before.into_keys().filter(|partition| !self.all.contains_key(partition)).collect()
    }

    fn due_of(&self, now: u64, moving: &Moving, facts: &Facts) -> Option<Due> {
        match moving.transition.stage {
            Stage::Settled => Some(Due::Finish),
            _ if facts.is_doomed(&moving.transition) => Some(Due::Abort),
            Stage::Synced => self.is_known(now, moving, facts).then_some(Due::Settle),
            Stage::Joint => moving.missing.is_empty().then_some(Due::Sync),
        }
    }

    /// Whether so many old holders know the stage that the others are too few to call anything absent.
    fn is_known(&self, now: u64, moving: &Moving, facts: &Facts) -> bool {
        let may_speak = |volume: &&VolumeId| self.silent_at(volume, facts).is_none_or(|at| now < at);
        moving.unaware.iter().filter(may_speak).count() < self.absent_quorum
    }

    /// From when on the node of `volume`, which is declared dead, and may live and be cut off, calls nothing absent: it
    /// last heard of a majority before that, and is sure of itself for the lease. A dead one that is not cut off learns of
    /// the new epoch as any other.
    fn silent_at(&self, volume: &VolumeId, facts: &Facts) -> Option<u64> {
        facts.dead_since(volume).map(|since| since.saturating_add(self.silenced_ms))
    }

    /// When partitions may go on, as a dead node will have fallen silent, in ms.
    pub(super) const fn next_deadline(&self) -> Option<u64> {
        self.silent_at
    }

    /// The node with these volumes knows `epoch`. Whether a partition can go on now. Looks only at partitions that wait
    /// for one of the volumes.
    pub(super) fn knows(
        &mut self,
        now: u64,
        epoch: u64,
        facts: &Facts,
        volumes: &[VolumeId],
        busy: &BTreeSet<Partition>,
    ) -> bool {
        let mut due = false;
        for volume in volumes {
            let Some(waiting) = self.waiting.remove(volume) else { continue };
            let since = |partition: &Partition| self.all[partition].since;
            let (told, still): (BTreeSet<Partition>, _) = waiting.into_iter().partition(|each| epoch >= since(each));
            if !still.is_empty() {
                self.waiting.insert(*volume, still);
            }
            for partition in told {
                let moving = self.all.get_mut(&partition).expect("what waits is in motion");
                moving.unaware.retain(|unaware| unaware != volume);
                let next = self.due_of(now, &self.all[&partition], facts);
                if next == Some(Due::Settle) && !busy.contains(&partition) {
                    due |= self.due.entry(Due::Settle).or_default().insert(partition);
                }
            }
        }
        due
    }

    /// Counts a move.
    pub(super) fn take(&mut self, old: &[VolumeId], new: &[VolumeId], facts: &Facts) {
        self.loaded += 1;
        for volume in coming(old, new) {
            self.load.entry(*volume).or_default().arriving += 1;
        }
        for volume in facts.givers(old, new) {
            self.load.entry(volume).or_default().going += 1;
        }
    }

    /// How many more may come to `volume`, or go from it, whichever are fewer, where `max` may.
    pub(super) fn room(&self, volume: &VolumeId, max: u32) -> u32 {
        self.load.get(volume).map_or(max, |load| max.saturating_sub(load.arriving.max(load.going)))
    }

    /// The volume that has no more room for a move, if one has none.
    pub(super) fn full(&self, old: &[VolumeId], new: &[VolumeId], facts: &Facts, max: u32) -> Option<VolumeId> {
        let load = |volume: &VolumeId| self.load.get(volume).copied().unwrap_or_default();
        let arriving = coming(old, new).find(|volume| load(volume).arriving >= max).copied();
        arriving.or_else(|| facts.givers(old, new).into_iter().find(|volume| load(volume).going >= max))
    }

    /// A new holder has all of `partition`. Whether the partition can go on now.
    pub(super) fn synced(&mut self, partition: Partition, volume: VolumeId, epoch: u64, is_busy: bool) -> bool {
        let Some(moving) = self.all.get_mut(&partition) else { return false };
        if moving.transition.stage != Stage::Joint || epoch < moving.since {
            return false;
        }
        let before = moving.missing.len();
        moving.missing.retain(|missing| *missing != volume);
        if moving.missing.len() == before || !moving.missing.is_empty() || is_busy {
            return false;
        }
        let aborts = self.due.get(&Due::Abort).is_some_and(|aborts| aborts.contains(&partition));
        !aborts && self.due.entry(Due::Sync).or_default().insert(partition)
    }

    /// Takes up to `max` partitions with which this can be done.
    pub(super) fn take_due(&mut self, due: Due, max: usize) -> Vec<Partition> {
        let Some(set) = self.due.get_mut(&due) else { return Vec::new() };
        let taken: Vec<Partition> = set.iter().take(max).copied().collect();
        taken.iter().for_each(|partition| _ = set.remove(partition));
        taken
    }

    pub(super) fn is_due(&self) -> bool {
        self.due.values().any(|set| !set.is_empty())
    }

    /// Whether something can be done with each that is in motion.
    pub(super) fn are_all_due(&self) -> bool {
        self.due.values().map(BTreeSet::len).sum::<usize>() == self.all.len()
    }

    pub(super) fn contains(&self, partition: Partition) -> bool {
        self.all.contains_key(&partition)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) const fn loaded(&self) -> usize {
        self.loaded
    }

    /// How many are at this stage.
    pub(super) fn count(&self, stage: Stage) -> usize {
        self.all.values().filter(|moving| moving.transition.stage == stage).count()
    }

    /// The volume that most partitions wait for, and how many do.
    pub(super) fn awaited(&self) -> Option<(VolumeId, usize)> {
        let mut waits = BTreeMap::<VolumeId, usize>::new();
        for volume in self.all.values().flat_map(|moving| moving.missing.iter().chain(&moving.unaware)) {
            *waits.entry(*volume).or_default() += 1;
        }
        waits.into_iter().max_by_key(|(volume, count)| (*count, std::cmp::Reverse(*volume)))
    }
}
