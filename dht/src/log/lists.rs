//! The bytes of lists of volumes: each volume's id once, each list once, and a number wherever a list is meant.
//!
//! A map names holders up to 65,536 times, and of few volumes there are few lists: so a number of 4 bytes stands for the 48 of
//! three ids. Volumes and lists come in the order in which they are named first, so that a value has one form.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::codec::{BadBytes, Reader, Writer};
use crate::VolumeId;
use crate::map::COPIES_MAX;

/// Writes what `lists` consist of, and gives each one's number.
pub(super) fn write_lists<'a>(out: &mut Writer, lists: impl Iterator<Item = &'a [VolumeId]>) -> Vec<u32> {
    // Most are shared: those that lie in the same place need not be compared.
    let mut by_place: HashMap<(*const VolumeId, usize), u32> = HashMap::new();
    let mut distinct = Numbered::default();
    let numbers = lists.map(|list| {
        let place = (list.as_ptr(), list.len());
        *by_place.entry(place).or_insert_with(|| distinct.number(list))
    });
    let numbers = numbers.collect();
    let mut volumes = Numbered::default();
    let indexes: Vec<Vec<u32>> =
        distinct.items.iter().map(|list| list.iter().map(|volume| volumes.number(volume)).collect()).collect();
    out.list(volumes.items.iter(), |out, volume| out.volume(volume));
    out.list(indexes.iter(), |out, list| out.list(list.iter(), |out, index| out.u32(*index)));
    numbers
}

/// Things in the order in which they came first.
struct Numbered<'a, T: ?Sized> {
    items: Vec<&'a T>,
    numbers: HashMap<&'a T, u32>,
}

impl<T: ?Sized> Default for Numbered<'_, T> {
    fn default() -> Self {
        Self { items: Vec::new(), numbers: HashMap::new() }
    }
}

impl<'a, T: ?Sized + Eq + std::hash::Hash> Numbered<'a, T> {
    fn number(&mut self, item: &'a T) -> u32 {
        *self.numbers.entry(item).or_insert_with(|| {
            self.items.push(item);
            u32::try_from(self.items.len() - 1).expect("checked: lists are bounded")
        })
    }
}

/// Lists that were read, to be named by their numbers.
pub(super) struct Lists {
    lists: Vec<Arc<[VolumeId]>>,
    named: Named,
}

impl Lists {
    /// Reads what [`write_lists`] wrote.
    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, BadBytes> {
        let volumes = from.list(16, Reader::volume)?;
        let mut named = Named { what: "volumes of lists", of: volumes.len(), seen: 0 };
        let lists: Vec<Arc<[VolumeId]>> = from.list(4, |from| {
            let list = from.list(4, |from| Ok(volumes[named.next(from)?]))?;
            // Before anything is made of it: a list may be meant often.
            let (what, got, max) = ("list of volumes", list.len(), usize::from(COPIES_MAX));
            if got > max { Err(BadBytes::TooLong { what, got, max }) } else { Ok(Arc::from(list)) }
        })?;
        named.finish()?;
        let once =
            |all: usize, distinct: usize| if all == distinct { Ok(()) } else { Err(BadBytes::Order(named.what)) };
        once(volumes.len(), volumes.iter().collect::<HashSet<_>>().len())?;
        once(lists.len(), lists.iter().collect::<HashSet<_>>().len())?;
        let named = Named { what: "lists of volumes", of: lists.len(), seen: 0 };
        Ok(Self { lists, named })
    }

    /// The list whose number comes next.
    pub(super) fn next(&mut self, from: &mut Reader<'_>) -> Result<Arc<[VolumeId]>, BadBytes> {
        Ok(self.lists[self.named.next(from)?].clone())
    }

    /// Whether each list was named.
    pub(super) fn finish(&self) -> Result<(), BadBytes> {
        self.named.finish()
    }
}

/// Sees that things are named in their order.
struct Named {
    what: &'static str,
    of: usize,
    seen: usize,
}

impl Named {
    fn next(&mut self, from: &mut Reader<'_>) -> Result<usize, BadBytes> {
        let number = usize::try_from(from.u32()?).map_err(|_| BadBytes::Order(self.what))?;
        if number > self.seen || number >= self.of {
            return Err(BadBytes::Order(self.what));
        }
        self.seen = self.seen.max(number + 1);
        Ok(number)
    }

    const fn finish(&self) -> Result<(), BadBytes> {
        if self.seen == self.of { Ok(()) } else { Err(BadBytes::Order(self.what)) }
    }
}
