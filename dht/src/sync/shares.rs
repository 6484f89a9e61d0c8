//! What a volume of this node is to each partition.

use std::collections::BTreeMap;
use std::ops::Deref;

use deadwax_track::{PARTITIONS, Partition};

use super::machine::Holder;

/// From so many held partitions on a slot for each of all is faster, and takes little more than an entry for each.
const FEW_MAX: usize = 16_384;

/// The pairs of a partition: two where there are three copies, twice that while it moves.
#[derive(Clone, Debug)]
pub(super) enum PairIds {
    Few(u8, [u32; 2]),
    Many(Box<[u32]>),
}

impl From<&[u32]> for PairIds {
    fn from(ids: &[u32]) -> Self {
        let mut few = [0; 2];
        match few.get_mut(..ids.len()) {
            Some(some) => some.copy_from_slice(ids),
            None => return Self::Many(ids.into()),
        }
        Self::Few(u8::try_from(ids.len()).expect("at most two"), few)
    }
}

impl Deref for PairIds {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        match self {
            Self::Few(count, ids) => &ids[..usize::from(*count)],
            Self::Many(ids) => ids,
        }
    }
}

/// What a volume of this node is to a partition.
#[derive(Clone, Copy, Debug)]
pub(super) enum Share<'a> {
    /// It holds it, with these pairs.
    Held(&'a [u32]),
    /// It may have strays of it; these hold it.
    Stray(&'a [Holder]),
}

/// What a volume is to all partitions: each is held, or may have strays, or is nothing to it.
#[derive(Debug, Default)]
pub(super) struct Shares {
    held: Held,
    strays: BTreeMap<Partition, Box<[Holder]>>,
}

/// A volume of a small cluster holds nearly all partitions, one of a large cluster some hundred.
#[derive(Debug)]
enum Held {
    Few(BTreeMap<Partition, PairIds>),
    /// By partition, and how many there are.
    Many(Box<[Option<PairIds>]>, usize),
}

impl Default for Held {
    fn default() -> Self {
        Self::Few(BTreeMap::new())
    }
}

impl Held {
    fn many() -> Self {
        Self::Many(vec![None; PARTITIONS as usize].into(), 0)
    }
}

impl Shares {
    /// None yet, with room for so many that are held.
    pub(super) fn with_capacity(held: usize) -> Self {
        let held = if held > FEW_MAX { Held::many() } else { Held::default() };
        Self { held, strays: BTreeMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        let none_held = match &self.held {
            Held::Few(few) => few.is_empty(),
            Held::Many(_, count) => *count == 0,
        };
        none_held && self.strays.is_empty()
    }

    pub(super) fn get(&self, partition: Partition) -> Option<Share<'_>> {
        let held = match &self.held {
            Held::Few(few) => few.get(&partition),
            Held::Many(slots, _) => slots[usize::from(partition.0)].as_ref(),
        };
        match held {
            Some(ids) => Some(Share::Held(ids)),
            None => self.strays.get(&partition).map(|holders| Share::Stray(holders)),
        }
    }

    /// All partitions that it is something to, rising.
    pub(super) fn partitions(&self) -> Vec<Partition> {
        let mut all: Vec<Partition> = match &self.held {
            Held::Few(few) => few.keys().copied().collect(),
            Held::Many(slots, _) => {
                let slots = (0..=u16::MAX).zip(slots);
                slots.filter(|(_, slot)| slot.is_some()).map(|(partition, _)| Partition(partition)).collect()
            }
        };
        if !self.strays.is_empty() {
            all.extend(self.strays.keys());
            all.sort_unstable();
        }
        all
    }

    /// It holds the partition now. The pairs that it had there, if it did already.
    pub(super) fn hold(&mut self, partition: Partition, ids: &[u32]) -> Option<PairIds> {
        if !self.strays.is_empty() {
            self.strays.remove(&partition);
        }
        match &mut self.held {
            Held::Few(few) => {
                let old = few.insert(partition, ids.into());
                if few.len() > FEW_MAX {
                    let few = std::mem::take(few);
                    self.held = Held::many();
                    few.into_iter().for_each(|(partition, ids)| _ = self.hold(partition, &ids));
                }
                old
            }
            Held::Many(slots, count) => {
                let old = slots[usize::from(partition.0)].replace(ids.into());
                *count += usize::from(old.is_none());
                old
            }
        }
    }

    /// It may have strays of a partition that it does not hold.
    pub(super) fn set_stray(&mut self, partition: Partition, holders: &[Holder]) {
        self.strays.insert(partition, holders.into());
    }

    /// The partition is nothing to it any more. The pairs that it had there, if it held it.
    pub(super) fn remove(&mut self, partition: Partition) -> Option<PairIds> {
        self.strays.remove(&partition);
        match &mut self.held {
            Held::Few(few) => few.remove(&partition),
            Held::Many(slots, count) => {
                let old = slots[usize::from(partition.0)].take();
                *count -= usize::from(old.is_some());
                old
            }
        }
    }

    pub(super) fn forget_strays(&mut self) {
        self.strays.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn it_is_a_map_in_order_whichever_form_it_has() {
        let mut random = Random(11);
        let (mut shares, mut model) = (Shares::default(), BTreeMap::new());
        for round in 0..200_000_usize {
            let partition = Partition(u16::try_from(random.below(40_000)).expect("16 bits"));
            if random.below(10) < if round / 50_000 % 2 == 0 { 8 } else { 1 } {
                let ids: Vec<u32> = (0..u32::try_from(random.below(5)).expect("few")).collect();
                assert_eq!(shares.hold(partition, &ids).map(|ids| ids.to_vec()), model.insert(partition, ids));
            } else {
                assert_eq!(shares.remove(partition).map(|ids| ids.to_vec()), model.remove(&partition));
            }
            let got = shares.get(partition).map(|share| match share {
                Share::Held(ids) => ids.to_vec(),
                Share::Stray(_) => panic!("there are no strays"),
            });
            assert_eq!((got.as_ref(), shares.is_empty()), (model.get(&partition), model.is_empty()));
            if round % 10_000 == 0 {
                assert!(shares.partitions().iter().eq(model.keys()));
            }
        }
    }
}
