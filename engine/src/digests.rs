//! How many tracks each partition has, and the XOR of their ids: what replicas compare first.

use deadwax_track::{Partition, TrackId};

/// So many bytes of an id go into a digest.
const DIGEST_BYTES: usize = 16;
const PARTITIONS_COUNT: usize = 1 << 16;
/// A small cluster's volume holds every partition, a large one's a few runs of them: 5 KiB at a time.
const PAGE_PARTITIONS: usize = 256;
const PAGES_COUNT: usize = PARTITIONS_COUNT / PAGE_PARTITIONS;

#[derive(Clone, Copy, Default)]
struct Digest {
    tracks: u32,
    xor: [u8; DIGEST_BYTES],
}

struct Page {
    digests: [Digest; PAGE_PARTITIONS],
    tracks: u64,
}

/// The digests of all 65,536 partitions: 1.3 MB when all have tracks, nothing when none has.
#[derive(Default)]
pub(crate) struct Digests {
    /// Empty, or one place for each page. A page is there while one of its partitions has tracks.
    pages: Vec<Option<Box<Page>>>,
}

impl Digests {
    /// Counts a track that was not counted before.
    pub(crate) fn add(&mut self, id: &TrackId) {
        let (page, index) = place(id.partition());
        if self.pages.is_empty() {
            self.pages.resize_with(PAGES_COUNT, || None);
        }
        let page = self.pages[page]
            .get_or_insert_with(|| Box::new(Page { digests: [Digest::default(); PAGE_PARTITIONS], tracks: 0 }));
        page.tracks += 1;
        page.digests[index].tracks += 1;
        page.digests[index].mix(id);
    }

    /// Counts a track no longer. It must have been counted: a count below zero is a broken invariant and panics.
    pub(crate) fn remove(&mut self, id: &TrackId) {
        let (place, index) = place(id.partition());
        let held = self.pages.get_mut(place).and_then(Option::as_deref_mut);
        let page = held.filter(|page| page.digests[index].tracks > 0);
        let page = page.unwrap_or_else(|| panic!("no track of partition {} is counted, nor {id}", id.partition().0));
        page.tracks -= 1;
        page.digests[index].tracks -= 1;
        page.digests[index].mix(id);
        if page.tracks == 0 {
            self.pages[place] = None;
        }
    }

    /// How many tracks the partition has.
    #[cfg(test)]
    pub(crate) fn tracks(&self, partition: Partition) -> u32 {
        self.get(partition).map_or(0, |digest| digest.tracks)
    }

    /// For each of the `count` partitions from `first` on that holds tracks: how many, and the XOR of the ids' first 16
    /// bytes.
    pub(crate) fn range(
        &self,
        first: Partition,
        count: u32,
    ) -> impl Iterator<Item = (Partition, u32, [u8; DIGEST_BYTES])> {
        let end = u32::from(first.0).saturating_add(count);
        let partitions = (first.0..=u16::MAX).take_while(move |number| u32::from(*number) < end).map(Partition);
        partitions.filter_map(|partition| {
            let digest = self.get(partition).filter(|digest| digest.tracks > 0)?;
            Some((partition, digest.tracks, digest.xor))
        })
    }

    fn get(&self, partition: Partition) -> Option<&Digest> {
        let (page, index) = place(partition);
        let page = self.pages.get(page)?.as_ref()?;
        Some(&page.digests[index])
    }
}

impl Digest {
    fn mix(&mut self, id: &TrackId) {
        self.xor.iter_mut().zip(id.as_bytes()).for_each(|(sum, byte)| *sum ^= byte);
    }
}

/// In which page a partition stands, and where in it.
fn place(partition: Partition) -> (usize, usize) {
    let number = usize::from(partition.0);
    (number / PAGE_PARTITIONS, number % PAGE_PARTITIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(partition: u16, rest: u8) -> TrackId {
        let mut bytes = [rest; 32];
        bytes[..2].copy_from_slice(&partition.to_be_bytes());
        TrackId::from_bytes(bytes)
    }

    fn partitions(digests: &Digests, first: u16, count: u32) -> Vec<u16> {
        digests.range(Partition(first), count).map(|(partition, ..)| partition.0).collect()
    }

    #[test]
    fn digests_follow_what_is_counted() {
        let mut digests = Digests::default();
        [id(7, 1), id(7, 2), id(7, 3), id(8, 1), id(0xffff, 9)].iter().for_each(|id| digests.add(id));
        digests.remove(&id(7, 2));
        let mut xor = [1 ^ 3; 16];
        xor[..2].fill(0);
        assert_eq!(digests.range(Partition(7), 1).collect::<Vec<_>>(), [(Partition(7), 2, xor)]);
        assert_eq!([6, 7, 8, 0xffff].map(|number| digests.tracks(Partition(number))), [0, 2, 1, 1]);
    }

    #[test]
    fn a_range_has_its_ends() {
        let mut digests = Digests::default();
        [0, 7, 255, 256, 0xffff].iter().for_each(|partition| digests.add(&id(*partition, 1)));
        assert_eq!(partitions(&digests, 0, 65_536), [0, 7, 255, 256, 0xffff]);
        assert_eq!(partitions(&digests, 1, u32::MAX), [7, 255, 256, 0xffff]);
        assert_eq!(partitions(&digests, 7, 249), [7, 255]);
        assert_eq!(partitions(&digests, 256, 1), [256]);
        assert_eq!(partitions(&digests, 0xffff, 1), [0xffff]);
        assert_eq!(partitions(&digests, 0, 0), [0; 0]);
    }

    #[test]
    fn a_page_goes_with_its_last_track() {
        let mut digests = Digests::default();
        assert!(digests.pages.is_empty());
        [id(7, 1), id(8, 1), id(300, 1)].iter().for_each(|id| digests.add(id));
        let pages = |digests: &Digests| digests.pages.iter().flatten().count();
        assert_eq!(pages(&digests), 2);
        digests.remove(&id(8, 1));
        assert_eq!(pages(&digests), 2);
        digests.remove(&id(7, 1));
        assert_eq!(pages(&digests), 1);
        digests.remove(&id(300, 1));
        assert_eq!((pages(&digests), partitions(&digests, 0, 65_536)), (0, vec![]));
        // All of them, with the places for them.
        assert!(PAGES_COUNT * (size_of::<Page>() + size_of::<usize>()) < 1_330_000);
    }

    #[test]
    #[should_panic(expected = "no track of partition 7 is counted")]
    fn a_track_that_was_not_counted_cannot_go() {
        let mut digests = Digests::default();
        digests.add(&id(8, 1));
        digests.remove(&id(7, 1));
    }
}
