//! Whom a put or a get may ask, by index.

use deadwax_track::Partition;

use crate::{Holder, Map};

/// The most targets of one request: two sets of holders and some stand-ins. Stand-ins beyond it are left out.
pub const TARGETS_MAX: usize = 64;

/// The volumes that a request for one partition may go to, at one epoch: its holders, in one set or two while the
/// partition moves, then those that may stand in for them. [`PutQuorum`](crate::PutQuorum) and
/// [`GetPlan`](crate::GetPlan) name each by its index here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Targets {
    epoch: u64,
    /// The holders, each once, those of the first set first; then the stand-ins.
    volumes: Vec<Holder>,
    holders: usize,
    /// The sets, a bit an index.
    first: u64,
    second: Option<u64>,
}

impl Targets {
    /// The targets at `epoch`. `first` and `second`: the sets of holders as
    /// [`log::Holders::sets`](crate::log::Holders::sets) has them. `stand_ins`: volumes in placement order, of
    /// any zone; holders among them do not count. A get needs none.
    ///
    /// # Panics
    /// If the sets have more than [`TARGETS_MAX`] holders: a policy has 16 copies at most.
    #[must_use]
    pub fn new(epoch: u64, first: &[Holder], second: Option<&[Holder]>, stand_ins: &[Holder]) -> Self {
        let mut volumes: Vec<Holder> = Vec::with_capacity(first.len() + stand_ins.len());
        let set = |holders: &[Holder], volumes: &mut Vec<Holder>| {
            let mut bits = 0;
            for holder in holders {
                let known = volumes.iter().position(|other| other.volume == holder.volume);
                let index = known.unwrap_or_else(|| {
                    volumes.push(*holder);
                    volumes.len() - 1
                });
                assert!(index < TARGETS_MAX, "{} holders in a set, {} in the first", holders.len(), first.len());
                bits |= 1 << index;
            }
            bits
        };
        let first_bits = set(first, &mut volumes);
        let second_bits = second.map(|second| set(second, &mut volumes));
        let holders = volumes.len();
        for candidate in stand_ins {
            let known = volumes.iter().any(|other| other.volume == candidate.volume);
            if !known && volumes.len() < TARGETS_MAX {
                volumes.push(*candidate);
            }
        }
        Self { epoch, volumes, holders, first: first_bits, second: second_bits }
    }

    /// The holders of a partition that does not move, by the map alone, without stand-ins.
    #[must_use]
    pub fn of(map: &Map, partition: Partition) -> Self {
        Self::new(map.epoch(), map.holders(partition), None, &[])
    }

    /// The epoch at which they are the holders.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// All targets: the holders, then the stand-ins.
    #[must_use]
    pub fn volumes(&self) -> &[Holder] {
        &self.volumes
    }

    /// The holders, of both sets. Their indexes are those below this slice's length.
    #[must_use]
    pub fn holders(&self) -> &[Holder] {
        &self.volumes[..self.holders]
    }

    /// Whether the target is of the first set: one whose word on absence counts.
    #[must_use]
    pub fn is_first(&self, target: usize) -> bool {
        target < TARGETS_MAX && self.first & (1 << target) != 0
    }

    /// How many holders the first set has.
    #[must_use]
    pub const fn first_count(&self) -> usize {
        self.first.count_ones() as usize
    }

    /// The sets, one or two, a bit an index.
    pub(crate) fn sets(&self) -> impl Iterator<Item = u64> {
        std::iter::once(self.first).chain(self.second)
    }
}
