//! A partition on its way from one set of holders to another.
//!
//! ```text
//! Stable(old) ── begin ──> Joint ── advance ──> Synced ── advance ──> Settled ── finish ──> Stable(new), released
//!      ^                     │                     │
//!      └────── abort ────────┴─────────────────────┘
//! ```
//!
//! *Joint -> Synced:* each new holder has found that it has what all old ones have that are not dead or lost (it says so
//! by [`Synced`](crate::rebalance::Synced)). *Synced -> Settled:* so many old holders know the epoch of `Synced` that
//! those who may not know it are fewer than a read quorum. Nobody writes to the old set from `Settled` on: old holders
//! who had not heard even of `Synced` would go on to say *absent* of what was written since, and be believed. *Settled
//! -> finished:* at once; what the old holders still have are strays from then on, and go when all new ones have them.
//! These are rules for those who propose the records ([`crate::rebalance`]); the log itself sees to the order only.
//!
//! The rule is that of joint consensus (Ongaro and Ousterhout, "In search of an understandable consensus algorithm",
//! 2014, section 6), for data instead of votes: as long as both sets count, a write needs its quorum in each of them,
//! so that either set alone may go on afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use deadwax_track::Partition;

use super::MOVES_MAX;
use super::codec::{BadBytes, Reader, Writer};
use super::lists::{Lists, write_lists};
use super::spec::read_partition;
use crate::VolumeId;

/// How far a transition is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// Writes go to both sets; the new one copies what the old one has.
    Joint,
    /// Each new holder has shown that it has what all old ones have that are not dead or lost. Writes still go to both.
    Synced,
    /// The new set holds the partition. The old one is asked no more, and keeps its copies until the transition is
    /// finished.
    Settled,
}

impl Stage {
    pub(super) fn write(self, out: &mut Writer) {
        out.u8(match self {
            Self::Joint => 1,
            Self::Synced => 2,
            Self::Settled => 3,
        });
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, BadBytes> {
        match from.u8()? {
            1 => Ok(Self::Joint),
            2 => Ok(Self::Synced),
            3 => Ok(Self::Settled),
            got => Err(BadBytes::Tag { what: "stage", got }),
        }
    }
}

/// A partition, who holds it and who shall.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move {
    /// Which partition.
    pub partition: Partition,
    /// Who holds it, in the map's order.
    pub old: Vec<VolumeId>,
    /// Who shall: as many as there are copies, no two on a node.
    pub new: Vec<VolumeId>,
}

pub(super) fn write_moves(out: &mut Writer, moves: &[Move]) {
    let numbers = write_lists(out, moves.iter().flat_map(|each| [&*each.old, &*each.new]));
    out.list(moves.iter().zip(numbers.chunks(2)), |out, (each, numbers)| {
        out.u16(each.partition.0);
        numbers.iter().for_each(|number| out.u32(*number));
    });
}

pub(super) fn read_moves(from: &mut Reader<'_>) -> Result<Vec<Move>, BadBytes> {
    let mut lists = Lists::read(from)?;
    let mut got = 0;
    let moves = from.list(10, |from| {
        got += 1;
        // A move has up to 50 times its bytes.
        if got > MOVES_MAX {
            return Err(BadBytes::TooLong { what: "list of moves", got, max: MOVES_MAX });
        }
        let partition = read_partition(from)?;
        Ok(Move { partition, old: lists.next(from)?.to_vec(), new: lists.next(from)?.to_vec() })
    })?;
    lists.finish()?;
    Ok(moves)
}

pub(super) fn write_transitions(out: &mut Writer, transitions: &BTreeMap<Partition, Transition>) {
    let numbers = write_lists(out, transitions.values().flat_map(|each| [&*each.old, &*each.new]));
    out.list(transitions.iter().zip(numbers.chunks(2)), |out, ((partition, transition), numbers)| {
        out.u16(partition.0);
        transition.stage.write(out);
        numbers.iter().for_each(|number| out.u32(*number));
    });
}

/// Transitions and their partitions, in the order in which they come.
pub(super) fn read_transitions(from: &mut Reader<'_>) -> Result<Vec<(Partition, Transition)>, BadBytes> {
    let mut lists = Lists::read(from)?;
    let transitions = from.list(11, |from| {
        let (partition, stage) = (read_partition(from)?, Stage::read(from)?);
        Ok((partition, Transition { stage, old: lists.next(from)?, new: lists.next(from)? }))
    })?;
    lists.finish()?;
    Ok(transitions)
}

/// A transition that is under way. A partition has one at most.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transition {
    /// How far it is.
    pub stage: Stage,
    /// The holders before. Shared between epochs.
    pub old: Arc<[VolumeId]>,
    /// The holders after.
    pub new: Arc<[VolumeId]>,
}

impl Transition {
    /// The volumes that must stay in the map while the transition is at this stage.
    pub(super) fn needed(&self) -> impl Iterator<Item = &VolumeId> {
        let old = if self.stage == Stage::Settled { &[][..] } else { &*self.old };
        old.iter().chain(&*self.new)
    }
}

/// The sets of holders of a partition, at an epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holders {
    /// The set that readers ask first. *Not found* may be said by a read quorum of this set.
    pub(super) first: Vec<VolumeId>,
    /// The other set, while there are two.
    pub(super) second: Option<Vec<VolumeId>>,
}

impl Holders {
    pub(super) fn of(transition: &Transition) -> Self {
        let (old, new) = (transition.old.to_vec(), transition.new.to_vec());
        match transition.stage {
            Stage::Joint => Self { first: old, second: Some(new) },
            Stage::Synced => Self { first: new, second: Some(old) },
            Stage::Settled => Self { first: new, second: None },
        }
    }

    /// The sets, one or two. A write needs its quorum in each; a reader asks them in this order, and a read quorum of
    /// the first may say *not found*: in `Joint` every acknowledged write has its quorum in the old set, in `Synced`
    /// each of the new ones has them all.
    pub fn sets(&self) -> impl Iterator<Item = &[VolumeId]> {
        std::iter::once(self.first.as_slice()).chain(self.second.as_deref())
    }

    /// All whom a write is sent to, and all who may be read from: each once, in the order in which readers ask.
    #[must_use]
    pub fn union(&self) -> Vec<VolumeId> {
        let mut seen = BTreeSet::new();
        self.sets().flatten().filter(|volume| seen.insert(**volume)).copied().collect()
    }

    /// Whether a write that is durable on `durable` counts: `copies` of them in each set, in `zones_min` zones or as
    /// many as the set lies in. `zone_of`: the zone of each volume of the map.
    #[must_use]
    pub fn is_written(
        &self,
        durable: &BTreeSet<VolumeId>,
        copies: usize,
        zones_min: usize,
        zone_of: &BTreeMap<VolumeId, &str>,
    ) -> bool {
        self.sets().all(|set| {
            let zones = |only: &dyn Fn(&&VolumeId) -> bool| {
                set.iter().filter(only).filter_map(|volume| zone_of.get(volume)).collect::<BTreeSet<_>>().len()
            };
            let here = |volume: &&VolumeId| durable.contains(*volume);
            set.iter().filter(here).count() >= copies && zones(&here) >= zones_min.min(zones(&|_| true))
        })
    }
}
