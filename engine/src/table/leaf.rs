//! A run of entries in order, in one piece of memory whose size never changes.

use super::slot::key_number;

/// Sixteen bytes each: with malloc's own word, 4 KiB. Pieces of one size leave no gaps that others cannot use.
pub(super) const LEAF_ENTRIES_MAX: usize = 255;

/// How far a search goes from its guess one by one: ids are hashes, so that a guess is seldom off by more.
const STEPS_MAX: usize = 24;

pub(super) struct Leaf {
    entries: Box<[u128; LEAF_ENTRIES_MAX]>,
    count: u16,
}

impl Leaf {
    pub(super) fn new() -> Self {
        Self { entries: Box::new([0; LEAF_ENTRIES_MAX]), count: 0 }
    }

    pub(super) fn count(&self) -> usize {
        usize::from(self.count)
    }

    pub(super) fn is_full(&self) -> bool {
        self.count() == LEAF_ENTRIES_MAX
    }

    pub(super) fn entries(&self) -> &[u128] {
        &self.entries[..self.count()]
    }

    /// Where the entry stands, or where it would.
    ///
    /// `bounds` are the lowest entry that the leaf may hold and the lowest of the next leaf: between them entries are
    /// spread evenly. Looking where the entry should be and going on from there touches few cache lines, and neighbours,
    /// which the processor fetches ahead. After a bad guess (crafted ids) the rest is halved again and again.
    pub(super) fn search(&self, entry: u128, bounds: (u128, u128)) -> Result<usize, usize> {
        let entries = self.entries();
        let guess = guess(entry, bounds, entries.len());
        let up = entries[guess..].iter().take(STEPS_MAX).take_while(|other| **other < entry).count();
        let down = entries[..guess].iter().rev().take(STEPS_MAX).take_while(|other| **other >= entry).count();
        let at = match (up, down) {
            (STEPS_MAX, _) => guess + up + entries[guess + up..].partition_point(|other| *other < entry),
            (_, STEPS_MAX) => entries[..guess - down].partition_point(|other| *other < entry),
            _ => guess + up - down,
        };
        if entries.get(at) == Some(&entry) { Ok(at) } else { Err(at) }
    }

    /// There must be room.
    pub(super) fn insert(&mut self, at: usize, entry: u128) {
        let count = self.count();
        assert!(count < LEAF_ENTRIES_MAX, "a leaf holds {count}");
        self.entries.copy_within(at..count, at + 1);
        self.entries[at] = entry;
        self.count += 1;
    }

    pub(super) fn remove(&mut self, at: usize) {
        let count = self.count();
        assert!(at < count, "a leaf of {count} has no entry {at}");
        self.entries.copy_within(at + 1..count, at);
        self.count -= 1;
    }

    /// Holds these instead of what it held; they must be in order and fit.
    pub(super) fn set(&mut self, entries: &[u128]) {
        self.entries[..entries.len()].copy_from_slice(entries);
        self.count = u16::try_from(entries.len()).expect("a leaf holds 255");
    }
}

/// Where the entry would stand among `count` that are spread evenly.
fn guess(entry: u128, (low, high): (u128, u128), count: usize) -> usize {
    let below = key_number(entry).saturating_sub(key_number(low));
    let all = key_number(high).saturating_sub(key_number(low)).max(1);
    // Keys have 48 bits and counts 8: the product fits.
    let at = below * count as u64 / all;
    usize::try_from(at).unwrap_or(count).min(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_finds_whatever_the_bounds_promise() {
        for count in [0, 1, 2, 7, 100, LEAF_ENTRIES_MAX] {
            let mut leaf = Leaf::new();
            // Far from even: squares of keys, and pairs that differ below the key.
            let held: Vec<u128> = (0..count as u128).map(|n| (10 + (n / 2) * (n / 2)) << 80 | (n % 2) << 4).collect();
            leaf.set(&held);
            let wanted = held.iter().flat_map(|entry| [entry - 1, *entry, entry + 1]);
            for entry in wanted.chain([0, u128::MAX]) {
                for bounds in [(0, u128::MAX), (10 << 80, 11 << 80), (10 << 80, 20_000 << 80), (u128::MAX, 0)] {
                    assert_eq!(leaf.search(entry, bounds), held.binary_search(&entry), "{entry:x} of {count}");
                }
            }
        }
    }
}
