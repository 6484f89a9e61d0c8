//! Neighbouring leaves, and how they share entries so that all stay well filled.
//!
//! A B*-tree's rule, wider: before a leaf splits, the leaves around it must be full, too, so that eight become nine; and
//! before one is given up, those around it must be able to take its entries and still have room.

use super::leaf::{LEAF_ENTRIES_MAX, Leaf};

/// A group with as many is split by its table.
pub(super) const GROUP_LEAVES_MAX: usize = 128;
/// One with fewer takes from a neighbour or joins it.
pub(super) const GROUP_LEAVES_MIN: usize = 32;
/// Two that join must not soon split again.
const GROUP_LEAVES_JOINED_MAX: usize = 96;

/// How many leaves share entries at a time. More would fill leaves better and move more bytes each time.
const WINDOW_LEAVES: usize = 8;
/// Leaves share what they have as long as each then has room for this many; otherwise they get one leaf more.
const ROOM_MIN: usize = 8;
/// A leaf with fewer looks for leaves to share with: 0.7 of what it could hold, for 23 bytes an entry.
const COUNT_MIN: usize = LEAF_ENTRIES_MAX * 7 / 10;
/// Leaves that give up one of them hold at most this many each: 0.9, so that not the next insertion needs it back.
const COUNT_GIVEN_UP_MAX: usize = LEAF_ENTRIES_MAX * 9 / 10;
/// Leaves that share because one has few have at least this many above [`COUNT_MIN`] then, or leave it at that.
const SPARE_MIN: usize = 16;

/// So many entries at most are shared anew at a time.
pub(super) const SCRATCH_ENTRIES: usize = WINDOW_LEAVES * LEAF_ENTRIES_MAX;

// Where there is a whole window, a leaf with few entries always finds a way to more.
const _: () = assert!((WINDOW_LEAVES - 1) * COUNT_GIVEN_UP_MAX >= WINDOW_LEAVES * (COUNT_MIN + SPARE_MIN));
// What was shared out among one leaf more is not shared out among one less at the next removal.
const _: () = assert!(WINDOW_LEAVES * (LEAF_ENTRIES_MAX - ROOM_MIN) / (WINDOW_LEAVES + 1) > COUNT_MIN + SPARE_MIN);
const _: () = assert!(GROUP_LEAVES_MIN >= WINDOW_LEAVES && GROUP_LEAVES_MIN * 2 < GROUP_LEAVES_JOINED_MAX);

pub(super) struct Group {
    /// The lowest entry that each leaf may hold. Apart from the leaves, so that a search stays within a few cache lines.
    firsts: Vec<u128>,
    leaves: Vec<Leaf>,
}

impl Group {
    fn empty() -> Self {
        // All at once: growing would leave gaps of every size behind.
        Self { firsts: Vec::with_capacity(GROUP_LEAVES_MAX), leaves: Vec::with_capacity(GROUP_LEAVES_MAX) }
    }

    /// For entries from zero on.
    pub(super) fn new() -> Self {
        let mut group = Self::empty();
        group.firsts.push(0);
        group.leaves.push(Leaf::new());
        group
    }

    pub(super) fn first(&self) -> u128 {
        self.firsts[0]
    }

    pub(super) fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// Which leaf holds the entry if any does, and where in it, or where it would be.
    pub(super) fn search(&self, entry: u128) -> (usize, Result<usize, usize>) {
        // Not less than the group's first: the table looked.
        let leaf = self.firsts.partition_point(|first| *first <= entry) - 1;
        let end = self.firsts.get(leaf + 1).copied().unwrap_or(u128::MAX);
        (leaf, self.leaves[leaf].search(entry, (self.firsts[leaf], end)))
    }

    /// Answers whether it was new. The group may have [`GROUP_LEAVES_MAX`] leaves then, and must be split.
    pub(super) fn insert(&mut self, entry: u128, scratch: &mut Vec<u128>) -> bool {
        let (mut leaf, mut found) = self.search(entry);
        if found.is_err() && self.leaves[leaf].is_full() {
            self.make_room(leaf, scratch);
            (leaf, found) = self.search(entry);
        }
        match found {
            Ok(_) => false,
            Err(at) => {
                self.leaves[leaf].insert(at, entry);
                true
            }
        }
    }

    /// Answers whether it was there. The group may have fewer than [`GROUP_LEAVES_MIN`] leaves then.
    pub(super) fn remove(&mut self, entry: u128, scratch: &mut Vec<u128>) -> bool {
        let (leaf, Ok(at)) = self.search(entry) else { return false };
        self.leaves[leaf].remove(at);
        if self.leaves[leaf].count() < COUNT_MIN {
            self.fill_up(leaf, scratch);
        }
        true
    }

    /// The leaves around one: where they start, how many, and how many entries they hold.
    fn window(&self, leaf: usize) -> (usize, usize, usize) {
        let count = self.leaves.len().min(WINDOW_LEAVES);
        let start = leaf.saturating_sub(count / 2).min(self.leaves.len() - count);
        (start, count, self.leaves[start..start + count].iter().map(Leaf::count).sum())
    }

    fn make_room(&mut self, leaf: usize, scratch: &mut Vec<u128>) {
        let (start, count, entries) = self.window(leaf);
        let enough = entries + count * ROOM_MIN <= count * LEAF_ENTRIES_MAX;
        self.share(start, count, if enough { count } else { count + 1 }, scratch);
    }

    fn fill_up(&mut self, leaf: usize, scratch: &mut Vec<u128>) {
        let (start, count, entries) = self.window(leaf);
        if count > 1 && entries <= (count - 1) * COUNT_GIVEN_UP_MAX {
            self.share(start, count, count - 1, scratch);
        } else if entries >= count * (COUNT_MIN + SPARE_MIN) {
            self.share(start, count, count, scratch);
        }
    }

    /// Spreads what the `before` leaves from `start` on hold evenly over `after` leaves, one more or less at most.
    fn share(&mut self, start: usize, before: usize, after: usize, scratch: &mut Vec<u128>) {
        scratch.clear();
        self.leaves[start..start + before].iter().for_each(|leaf| scratch.extend_from_slice(leaf.entries()));
        if after > before {
            self.leaves.insert(start + before, Leaf::new());
            self.firsts.insert(start + before, 0);
        } else if after < before {
            self.leaves.remove(start + after);
            self.firsts.remove(start + after);
        }
        let mut taken = 0;
        for index in 0..after {
            let end = scratch.len() * (index + 1) / after;
            let part = &scratch[taken..end];
            self.leaves[start + index].set(part);
            // What lies below the first leaf's entries stays its own.
            if index > 0 {
                self.firsts[start + index] = part[0];
            }
            taken = end;
        }
    }

    /// Keeps the lower half of the leaves; the upper half is answered.
    pub(super) fn split(&mut self) -> Self {
        let middle = self.leaves.len() / 2;
        let mut upper = Self::empty();
        upper.firsts.extend(self.firsts.drain(middle..));
        upper.leaves.extend(self.leaves.drain(middle..));
        upper
    }

    /// Takes all leaves of the next group, or evens out with it. Answers whether that one has none left.
    pub(super) fn join(&mut self, next: &mut Self) -> bool {
        let all = self.leaves.len() + next.leaves.len();
        if all <= GROUP_LEAVES_JOINED_MAX {
            self.firsts.append(&mut next.firsts);
            self.leaves.append(&mut next.leaves);
            return true;
        }
        let middle = all / 2;
        if let Some(missing) = middle.checked_sub(self.leaves.len()) {
            self.firsts.extend(next.firsts.drain(..missing));
            self.leaves.extend(next.leaves.drain(..missing));
        } else {
            next.firsts.splice(..0, self.firsts.drain(middle..));
            next.leaves.splice(..0, self.leaves.drain(middle..));
        }
        false
    }

    /// What the group and its leaves have of the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        let leaf = allocated_bytes(LEAF_ENTRIES_MAX * size_of::<u128>());
        let firsts = allocated_bytes(self.firsts.capacity() * size_of::<u128>());
        let leaves = allocated_bytes(self.leaves.capacity() * size_of::<Leaf>());
        self.leaves.len() * leaf + firsts + leaves
    }
}

#[cfg(test)]
impl Group {
    /// Asserts what the group relies on, and that all its entries lie in front of `end`. Answers how many they are.
    pub(super) fn check(&self, end: u128, alone: bool) -> usize {
        let (leaves, firsts) = (self.leaves.len(), self.firsts.len());
        assert!(leaves == firsts && leaves < GROUP_LEAVES_MAX, "{leaves} leaves from {firsts} entries on");
        assert!(alone || leaves >= GROUP_LEAVES_MIN, "{leaves} leaves beside other groups");
        assert_eq!((self.leaves.capacity(), self.firsts.capacity()), (GROUP_LEAVES_MAX, GROUP_LEAVES_MAX));
        for (index, leaf) in self.leaves.iter().enumerate() {
            let (first, count) = (self.firsts[index], leaf.count());
            let next = self.firsts.get(index + 1).copied().unwrap_or(end);
            assert!(first < next, "leaf {index} of {leaves} starts at {first:x}, and the next at {next:x}");
            assert!(leaf.entries().is_sorted_by(|one, other| one < other), "leaf {index} of {leaves} is in disorder");
            let inside = |entry: &u128| (first..next).contains(entry);
            assert!(leaf.entries().iter().all(inside), "leaf {index} of {leaves} holds another's");
            assert!(leaves < WINDOW_LEAVES || count >= COUNT_MIN, "leaf {index} of {leaves} holds {count}");
        }
        self.leaves.iter().map(Leaf::count).sum()
    }
}

/// What glibc's malloc sets aside for a request: eight bytes more, in steps of 16, 32 at least.
/// Source: its `malloc.c`, `request2size`.
pub(crate) fn allocated_bytes(bytes: usize) -> usize {
    const WORD: usize = 8;
    const STEP: usize = 16;
    if bytes == 0 { 0 } else { (bytes + WORD).next_multiple_of(STEP).max(2 * STEP) }
}
