//! A set of partitions, small or nearly all of them.

use deadwax_track::Partition;

/// From so many on a bit for each partition takes less than a number for each in the set.
const FEW_MAX: usize = 2_048;
const WORDS: usize = 1 << 10;

/// A set of partitions, in rising order: numbers while they are few, else a bitmap of 8 KiB. A node of a small cluster shares
/// nearly all with its neighbours, one of a large cluster a few with each of many.
#[derive(Clone, Debug)]
pub(crate) struct Partitions {
    len: usize,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    Few(Vec<u16>),
    Many(Box<[u64; WORDS]>),
}

impl Default for Partitions {
    fn default() -> Self {
        Self { len: 0, form: Form::Few(Vec::new()) }
    }
}

const fn place(partition: u16) -> (usize, u64) {
    ((partition >> 6) as usize, 1 << (partition & 63))
}

impl Partitions {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn contains(&self, partition: Partition) -> bool {
        match &self.form {
            Form::Few(few) => few.binary_search(&partition.0).is_ok(),
            Form::Many(words) => {
                let (word, bit) = place(partition.0);
                words[word] & bit != 0
            }
        }
    }

    /// Whether it was not in the set.
    pub(crate) fn insert(&mut self, partition: Partition) -> bool {
        match &mut self.form {
            Form::Few(few) => {
                let at = match few.last() {
                    Some(last) if *last < partition.0 => few.len(),
                    _ => match few.binary_search(&partition.0) {
                        Ok(_) => return false,
                        Err(at) => at,
                    },
                };
                few.insert(at, partition.0);
                if few.len() > FEW_MAX {
                    let mut words = Box::new([0; WORDS]);
                    for one in few.iter() {
                        let (word, bit) = place(*one);
                        words[word] |= bit;
                    }
                    self.form = Form::Many(words);
                }
            }
            Form::Many(words) => {
                let (word, bit) = place(partition.0);
                if words[word] & bit != 0 {
                    return false;
                }
                words[word] |= bit;
            }
        }
        self.len += 1;
        true
    }

    /// Whether it was in the set.
    pub(crate) fn remove(&mut self, partition: Partition) -> bool {
        match &mut self.form {
            Form::Few(few) => {
                let Ok(at) = few.binary_search(&partition.0) else { return false };
                few.remove(at);
            }
            Form::Many(words) => {
                let (word, bit) = place(partition.0);
                if words[word] & bit == 0 {
                    return false;
                }
                words[word] &= !bit;
                if self.len == 1 {
                    self.form = Form::Few(Vec::new());
                }
            }
        }
        self.len -= 1;
        true
    }

    pub(crate) fn last(&self) -> Option<Partition> {
        match &self.form {
            Form::Few(few) => few.last().copied().map(Partition),
            Form::Many(words) => {
                let (word, bits) = words.iter().enumerate().rfind(|(_, bits)| **bits != 0)?;
                let number = word * 64 + bits.ilog2() as usize;
                Some(Partition(u16::try_from(number).expect("below 65,536")))
            }
        }
    }

    pub(crate) fn pop_first(&mut self) -> Option<Partition> {
        let first = self.range(Partition(0), Partition(u16::MAX)).next()?;
        self.remove(first);
        Some(first)
    }

    /// Takes out those from `first` to `last`, both included, rising.
    pub(crate) fn take_range(&mut self, first: Partition, last: Partition) -> Vec<Partition> {
        let taken: Vec<Partition> = self.range(first, last).collect();
        if taken.len() == self.len {
            *self = Self::default();
        } else {
            taken.iter().for_each(|partition| _ = self.remove(*partition));
        }
        taken
    }

    /// All of `other` as well.
    pub(crate) fn extend_from(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        other.iter().for_each(|partition| _ = self.insert(partition));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Partition> {
        self.range(Partition(0), Partition(u16::MAX))
    }

    /// Those from `first` to `last`, both included.
    pub(crate) fn range(&self, first: Partition, last: Partition) -> impl Iterator<Item = Partition> {
        let (few, words) = match &self.form {
            Form::Few(few) => (&few[few.partition_point(|one| *one < first.0)..], None),
            Form::Many(words) => (&[][..], Some(words)),
        };
        let few = few.iter().copied().take_while(move |one| *one <= last.0);
        let many = words.into_iter().flat_map(move |words| Bits::new(words, first.0, last.0));
        few.chain(many).map(Partition)
    }
}

/// The set bits from one number to another.
struct Bits<'a> {
    words: &'a [u64; WORDS],
    word: usize,
    left: u64,
    last: u16,
}

impl<'a> Bits<'a> {
    fn new(words: &'a [u64; WORDS], first: u16, last: u16) -> Self {
        let (word, bit) = place(first);
        Self { words, word, left: words[word] & !(bit - 1), last }
    }
}

impl Iterator for Bits<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        while self.left == 0 {
            self.word += 1;
            if self.word >= WORDS || self.word > usize::from(self.last >> 6) {
                return None;
            }
            self.left = self.words[self.word];
        }
        let bit = self.left.trailing_zeros();
        self.left &= self.left - 1;
        let number = u16::try_from(self.word * 64).expect("below 1,024 words") + u16::try_from(bit).expect("below 64");
        (number <= self.last).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::random::Random;

    #[test]
    fn it_is_a_set_in_order_whichever_form_it_has() {
        let mut random = Random(7);
        let (mut set, mut model) = (Partitions::default(), BTreeSet::new());
        // Grows beyond the few and shrinks to nothing, again and again.
        for round in 0..60_000_usize {
            let partition = Partition(u16::try_from(random.below(6_000) * 10).expect("below 65,536"));
            if random.below(10) < if round / 10_000 % 2 == 0 { 8 } else { 1 } {
                assert_eq!(set.insert(partition), model.insert(partition));
            } else {
                assert_eq!(set.remove(partition), model.remove(&partition));
                if random.below(3) == 0 {
                    assert_eq!(set.pop_first(), model.pop_first());
                }
            }
            assert_eq!((set.len(), set.contains(partition)), (model.len(), model.contains(&partition)));
            if round % 500 == 0 {
                assert_eq!(set.last(), model.last().copied());
                assert!(set.iter().eq(model.iter().copied()));
                let (one, other) = (random.below(65_536), random.below(65_536));
                let number = |number| Partition(u16::try_from(number).expect("16 bits"));
                let (first, last) = (number(one.min(other)), number(one.max(other)));
                assert!(set.range(first, last).eq(model.range(first..=last).copied()), "{first:?} to {last:?}");
                let mut rest = set.clone();
                assert!(rest.take_range(first, last).into_iter().eq(model.range(first..=last).copied()));
                assert!(rest.iter().eq(model.iter().copied().filter(|one| !(first..=last).contains(one))));
            }
        }
    }
}
