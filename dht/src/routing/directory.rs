//! The map's nodes, sorted by id: whom a node that has the map knows.

use std::collections::BTreeMap;
use std::sync::Arc;

use deadwax_track::Partition;

use super::distance::Key;
use super::message::Contact;
use super::record::{PartitionRecord, RecordHolder};
use crate::{Map, NodeId};

/// A map, and its nodes by where they are in the keyspace. Made once a map and shared: a program that simulates many
/// nodes keeps one for all of them.
///
/// Memory: beside the map some 60 bytes a node and its address.
#[derive(Debug)]
pub struct Directory {
    map: Arc<Map>,
    /// By id.
    contacts: Vec<Contact>,
    /// For each node of the map, in its order, its place among `contacts`.
    places: Vec<u32>,
}

impl Directory {
    /// The directory of `map`: 10,000 nodes are sorted in some milliseconds.
    #[must_use]
    pub fn new(map: Arc<Map>) -> Self {
        let contact = |node: &crate::Node| Contact::new(node.id, node.address.as_str());
        let mut sorted: Vec<(Contact, usize)> = map.nodes().iter().map(contact).zip(0..).collect();
        sorted.sort_unstable();
        let mut places = vec![0; sorted.len()];
        for (place, (_, node)) in (0..).zip(&sorted) {
            places[*node] = place;
        }
        Self { contacts: sorted.into_iter().map(|(contact, _)| contact).collect(), places, map }
    }

    /// The map.
    #[must_use]
    pub const fn map(&self) -> &Arc<Map> {
        &self.map
    }

    /// Its nodes, by id.
    #[must_use]
    pub fn contacts(&self) -> &[Contact] {
        &self.contacts
    }

    /// Whether the map has a node of this id.
    #[must_use]
    pub fn has(&self, id: &NodeId) -> bool {
        self.contacts.binary_search_by_key(id, |contact| contact.id).is_ok()
    }

    /// All nodes, those nearest to `key` first. The first k of n take O(k + log n) steps, and each step a binary
    /// search.
    pub fn nearest(&self, key: &Key) -> impl Iterator<Item = &Contact> {
        Nearest { contacts: &self.contacts, key: *key, ahead: vec![(0, self.contacts.len(), 0)] }
    }

    /// What each node holds, rising: of those that hold anything. Worked out for all at once, 10 ns a volume and
    /// partition where the map does not know yet.
    #[must_use]
    pub fn held(&self) -> BTreeMap<NodeId, Arc<[Partition]>> {
        let mut held: Vec<Vec<Partition>> = vec![Vec::new(); self.places.len()];
        for partition in (0..=u16::MAX).map(Partition) {
            for holder in self.map.holders(partition) {
                held[holder.node].push(partition);
            }
        }
        let held = self.map.nodes().iter().zip(held).filter(|(_, held)| !held.is_empty());
        held.map(|(node, held)| (node.id, held.into())).collect()
    }

    /// What the map says about `partition`.
    #[must_use]
    pub fn record(&self, partition: Partition) -> PartitionRecord {
        let holder = |holder: &crate::Holder| {
            let contact = &self.contacts[self.places[holder.node] as usize];
            RecordHolder { node: contact.id, volume: holder.volume, address: contact.address.clone() }
        };
        let holders = self.map.holders(partition).iter().map(holder).collect();
        PartitionRecord { partition, epoch: self.map.epoch(), holders }
    }
}

/// Walks the tree that the sorted ids are: of each subtree first the half that has the key's next bit.
struct Nearest<'a> {
    contacts: &'a [Contact],
    key: Key,
    /// Subtrees that are still to be walked, the next last: from, to, and how many leading bits its ids have in common.
    ahead: Vec<(usize, usize, u32)>,
}

impl<'a> Iterator for Nearest<'a> {
    type Item = &'a Contact;

    fn next(&mut self) -> Option<&'a Contact> {
        loop {
            let (from, to, bit) = self.ahead.pop()?;
            let ids = &self.contacts[from..to];
            match ids {
                [] => {}
                [contact] => return Some(contact),
                // Ids are distinct, so that they differ before they end.
                _ => {
                    let middle = from + ids.partition_point(|contact| contact.key().bits(bit, 1) == 0);
                    let (zeros, ones) = ((from, middle, bit + 1), (middle, to, bit + 1));
                    let (near, far) = if self.key.bits(bit, 1) == 0 { (zeros, ones) } else { (ones, zeros) };
                    self.ahead.extend([far, near]);
                }
            }
        }
    }
}
