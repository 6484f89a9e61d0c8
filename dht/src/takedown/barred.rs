//! The ids that are barred, in little memory.

/// A barred track: 37 bytes, without padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Entry {
    pub(super) id: [u8; 32],
    /// Big-endian, so that the derived order is by number.
    number: [u8; 4],
    /// An index into the log's issuers.
    pub(super) issuer: u8,
}

const _: () = assert!(size_of::<Entry>() == 37);

impl Entry {
    pub(super) const fn new(id: [u8; 32], number: u32, issuer: u8) -> Self {
        Self { id, number: number.to_be_bytes(), issuer }
    }

    pub(super) const fn number(&self) -> u32 {
        u32::from_be_bytes(self.number)
    }
}

/// Two sorted arrays: new ids go to the small one, which is at most a sixteenth of the large one (or [`SMALL_MIN`])
/// before it is merged into it. So a lookup is two binary searches, a million ids move some 16 times at most, and
/// memory is 37 bytes an id and at most a sixteenth more.
#[derive(Clone, Default, Debug)]
pub(super) struct Barred {
    pub(super) large: Vec<Entry>,
    pub(super) small: Vec<Entry>,
}

/// Below this many, the small array is not merged.
const SMALL_MIN: usize = 1_024;

impl Barred {
    /// The entry of `id`. Of several, the one with the lowest number; of several of one number, any: see
    /// [`all`](Self::all).
    pub(super) fn get(&self, id: &[u8; 32]) -> Option<&Entry> {
        self.all(id).min_by_key(|entry| entry.number)
    }

    /// All entries of `id`. Every takedown of it is kept, so that which one names it depends on the set alone.
    pub(super) fn all(&self, id: &[u8; 32]) -> impl Iterator<Item = &Entry> {
        let of = |entries: &'_ Vec<Entry>| {
            let from = entries.partition_point(|entry| entry.id < *id);
            from..from + entries[from..].iter().take_while(|entry| entry.id == *id).count()
        };
        let (large, small) = (of(&self.large), of(&self.small));
        self.large[large].iter().chain(&self.small[small])
    }

    /// At most `limit` distinct ids from `first` to `last`, rising.
    pub(super) fn between(&self, first: &[u8; 32], last: &[u8; 32], limit: usize) -> Vec<[u8; 32]> {
        let of = |entries: &'_ Vec<Entry>| {
            let from = entries.partition_point(|entry| entry.id < *first);
            let some = entries[from..].iter().take_while(|entry| entry.id <= *last).map(|entry| entry.id);
            some.take(limit + 1).collect::<Vec<_>>()
        };
        let mut ids = of(&self.large);
        ids.extend(of(&self.small));
        ids.sort_unstable();
        ids.dedup();
        ids.truncate(limit);
        ids
    }

    /// Adds entries; those that are there already change nothing.
    pub(super) fn add(&mut self, mut new: Vec<Entry>) {
        new.sort_unstable();
        new.dedup();
        new.retain(|entry| self.large.binary_search(entry).is_err() && self.small.binary_search(entry).is_err());
        merge(&mut self.small, &new);
        if self.small.len() > SMALL_MIN.max(self.large.len() / 16) {
            merge(&mut self.large, &std::mem::take(&mut self.small));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.large.len() + self.small.len()
    }

    /// Bytes that it takes, capacity and all.
    pub(super) fn bytes(&self) -> usize {
        (self.large.capacity() + self.small.capacity()) * size_of::<Entry>()
    }
}

/// Merges sorted `new` into sorted `into`, in place, from the back; no entry is in both.
fn merge(into: &mut Vec<Entry>, new: &[Entry]) {
    let (mut old, mut left) = (into.len(), new.len());
    into.reserve_exact(left);
    into.extend_from_slice(new);
    while left > 0 {
        if old > 0 && into[old - 1] > new[left - 1] {
            into[old + left - 1] = into[old - 1];
            old -= 1;
        } else {
            into[old + left - 1] = new[left - 1];
            left -= 1;
        }
    }
}
