//! Where every track of a volume handle lies, in about 18 bytes each.
//!
//! An ordered set of 16-byte entries, each the first six bytes of an id and a [`Slot`]. A hit is a candidate: whoever
//! asks reads the record and compares the whole id. Entries stand in leaves of 4 KiB and leaves in groups, so that memory
//! grows and shrinks a leaf at a time. Any leaf but those of a small table is filled to 0.7 at least, whatever is
//! inserted and removed.
//!
//! Source for the sharing between leaves: Knuth, The Art of Computer Programming, volume 3, section 6.2.4 (B*-trees).

mod group;
mod leaf;
#[cfg(test)]
mod model;
mod slot;

use deadwax_track::{Partition, TrackId};

pub(crate) use group::allocated_bytes;
use group::{GROUP_LEAVES_MAX, GROUP_LEAVES_MIN, Group, SCRATCH_ENTRIES};
pub(crate) use slot::{EntryKind, Key, Slot};

pub(crate) struct Table {
    /// The lowest entry that each group may hold.
    firsts: Vec<u128>,
    /// Never empty.
    groups: Vec<Group>,
    len: u64,
    /// Where entries stand while they are shared anew among leaves.
    scratch: Vec<u128>,
}

impl Default for Table {
    fn default() -> Self {
        let scratch = Vec::with_capacity(SCRATCH_ENTRIES);
        Self { firsts: vec![0], groups: vec![Group::new()], len: 0, scratch }
    }
}

impl Table {
    /// Adds an entry beside those that the id's key has. Answers false where the very same is there already.
    pub(crate) fn insert(&mut self, id: &TrackId, slot: Slot) -> bool {
        let entry = slot.pack(Key::of(id));
        let at = self.group_of(entry);
        let inserted = self.groups[at].insert(entry, &mut self.scratch);
        if self.groups[at].leaves().len() >= GROUP_LEAVES_MAX {
            let upper = self.groups[at].split();
            self.firsts.insert(at + 1, upper.first());
            self.groups.insert(at + 1, upper);
        }
        self.len += u64::from(inserted);
        inserted
    }

    /// Removes exactly this entry. Answers whether it was there.
    pub(crate) fn remove(&mut self, id: &TrackId, slot: Slot) -> bool {
        let entry = slot.pack(Key::of(id));
        let at = self.group_of(entry);
        let removed = self.groups[at].remove(entry, &mut self.scratch);
        if self.groups[at].leaves().len() < GROUP_LEAVES_MIN && self.groups.len() > 1 {
            self.join(at);
        }
        self.len -= u64::from(removed);
        removed
    }

    /// Puts `new` in the place of exactly `old`. Answers whether `old` was there; otherwise nothing changes.
    pub(crate) fn replace(&mut self, id: &TrackId, old: Slot, new: Slot) -> bool {
        let found = self.remove(id, old);
        if found {
            self.insert(id, new);
        }
        found
    }

    /// Every entry with the id's key, by address. One or none, but for crafted ids and tracks that were put twice.
    pub(crate) fn candidates(&self, id: &TrackId) -> impl Iterator<Item = Slot> {
        let key = Key::of(id);
        self.from(key).take_while(move |(other, _)| *other == key).map(|(_, slot)| slot)
    }

    /// Every entry from this key on, in the order of keys, then addresses.
    pub(crate) fn from(&self, key: Key) -> Entries<'_> {
        self.entries(key.lowest())
    }

    /// Every entry past this one, which need not be there: to go on after others had the table.
    #[cfg(test)]
    pub(crate) fn after(&self, key: Key, slot: Slot) -> Entries<'_> {
        match slot.pack(key).checked_add(1) {
            Some(next) => self.entries(next),
            None => Entries { table: self, group: self.groups.len(), leaf: 0, at: 0 },
        }
    }

    /// The partition's entries in the order of keys; those from `from`'s key on, which may include it and others of its
    /// key.
    pub(crate) fn of_partition(
        &self,
        partition: Partition,
        from: Option<&TrackId>,
    ) -> impl Iterator<Item = (Key, Slot)> {
        let top = partition.0.to_be_bytes();
        let lowest = Key([top[0], top[1], 0, 0, 0, 0]);
        let start = from.map_or(lowest, |id| Key::of(id).max(lowest));
        self.from(start).take_while(move |(key, _)| key.0.starts_with(&top))
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// What the table has of the heap, with malloc's overhead.
    pub(crate) fn heap_bytes(&self) -> u64 {
        let groups: usize = self.groups.iter().map(Group::heap_bytes).sum();
        let top = allocated_bytes(self.groups.capacity() * size_of::<Group>())
            + allocated_bytes(self.firsts.capacity() * size_of::<u128>());
        let scratch = allocated_bytes(self.scratch.capacity() * size_of::<u128>());
        (groups + top + scratch) as u64
    }

    fn group_of(&self, entry: u128) -> usize {
        // The first of all is zero.
        self.firsts.partition_point(|first| *first <= entry) - 1
    }

    fn entries(&self, lowest: u128) -> Entries<'_> {
        let group = self.group_of(lowest);
        let (leaf, found) = self.groups[group].search(lowest);
        let (Ok(at) | Err(at)) = found;
        Entries { table: self, group, leaf, at }
    }

    /// Gives a group with few leaves some of a neighbour's, or all.
    fn join(&mut self, at: usize) {
        let lower = at.min(self.groups.len() - 2);
        let (left, right) = self.groups.split_at_mut(lower + 1);
        if left[lower].join(&mut right[0]) {
            self.groups.remove(lower + 1);
            self.firsts.remove(lower + 1);
        } else {
            self.firsts[lower + 1] = right[0].first();
        }
    }
}

/// Entries in order, from some place on.
pub(crate) struct Entries<'a> {
    table: &'a Table,
    group: usize,
    leaf: usize,
    at: usize,
}

impl Iterator for Entries<'_> {
    type Item = (Key, Slot);

    fn next(&mut self) -> Option<(Key, Slot)> {
        loop {
            let group = self.table.groups.get(self.group)?;
            let Some(leaf) = group.leaves().get(self.leaf) else {
                (self.group, self.leaf, self.at) = (self.group + 1, 0, 0);
                continue;
            };
            if let Some(entry) = leaf.entries().get(self.at) {
                self.at += 1;
                return Some((Key::of_entry(*entry), Slot::unpack(*entry)));
            }
            (self.leaf, self.at) = (self.leaf + 1, 0);
        }
    }
}
