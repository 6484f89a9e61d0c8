//! Records that say who holds a partition, and the store of those that a node keeps for others.

use std::collections::BTreeMap;
use std::sync::Arc;

use deadwax_track::Partition;

use super::distance::{Distance, Key};
use super::message::ADDRESS_BYTES_MAX;
use crate::{Map, NodeId, VolumeId};

/// The most holders in a record: the most copies that a map's policy may ask for.
pub const RECORD_HOLDERS_MAX: usize = 16;

/// Who holds a partition, at one epoch of the map. A hint: the holders themselves say what they have, and a track
/// proves itself by its id, so that the worst a wrong record does is to cost a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionRecord {
    /// Which partition.
    pub partition: Partition,
    /// The epoch of the map that says so; the first is 1.
    pub epoch: u64,
    /// Its holders, in order of preference; 1 to [`RECORD_HOLDERS_MAX`].
    pub holders: Vec<RecordHolder>,
}

/// A volume that holds a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordHolder {
    /// Its node.
    pub node: NodeId,
    /// The volume.
    pub volume: VolumeId,
    /// `host:port` of the node's cluster port.
    pub address: Arc<str>,
}

impl PartitionRecord {
    /// What `map` says about `partition`. At the map's first question about a partition this costs 100 ns a volume.
    #[must_use]
    pub fn from_map(map: &Map, partition: Partition) -> Self {
        let holder = |holder: &crate::Holder| {
            let node = &map.nodes()[holder.node];
            RecordHolder { node: node.id, volume: holder.volume, address: node.address.as_str().into() }
        };
        Self { partition, epoch: map.epoch(), holders: map.holders(partition).iter().map(holder).collect() }
    }

    /// Whether the record keeps its bounds, so that it may be stored and passed on.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        let fits = |holder: &RecordHolder| (1..=ADDRESS_BYTES_MAX).contains(&holder.address.len());
        self.epoch > 0 && (1..=RECORD_HOLDERS_MAX).contains(&self.holders.len()) && self.holders.iter().all(fits)
    }

    /// Whether `node` is one of the holders.
    #[must_use]
    pub fn names(&self, node: &NodeId) -> bool {
        self.holders.iter().any(|holder| holder.node == *node)
    }
}

/// The records that a node keeps for others: one a partition, the newest epoch, for a day after it was last announced.
///
/// At most `records_max` of them. When there are more, those farthest from the node go: they have other nodes nearer.
#[derive(Clone, Debug)]
pub struct Records {
    own: Key,
    records_max: usize,
    expire_ms: u64,
    kept: BTreeMap<Partition, Kept>,
    /// The nearest record that was let go or refused for want of room: of keys beyond it the store cannot say that it
    /// would know them.
    crowded_from: Option<Distance>,
}

#[derive(Clone, Debug)]
struct Kept {
    record: PartitionRecord,
    until: u64,
}

impl Records {
    /// An empty store for the node `own`.
    #[must_use]
    pub fn new(own: NodeId, records_max: usize, expire_ms: u64) -> Self {
        Self { own: own.into(), records_max, expire_ms, kept: BTreeMap::new(), crowded_from: None }
    }

    /// Takes in a record that keeps its bounds. The epoch that is kept afterwards, this one or a newer one; none if
    /// there is no room for it. Of two records of one epoch the first stays; hearing of the same again prolongs it.
    pub fn keep(&mut self, now: u64, record: PartitionRecord) -> Option<u64> {
        let partition = record.partition;
        let until = now.saturating_add(self.expire_ms);
        if let Some(kept) = self.kept.get_mut(&partition).filter(|kept| now < kept.until) {
            if record.epoch > kept.record.epoch {
                *kept = Kept { record, until };
            } else if record == kept.record {
                kept.until = until;
            }
            return Some(kept.record.epoch);
        }
        let epoch = record.epoch;
        self.kept.insert(partition, Kept { record, until });
        if self.kept.len() > self.records_max {
            self.drop_expired(now);
        }
        if self.kept.len() > self.records_max {
            self.drop_farthest();
        }
        self.kept.contains_key(&partition).then_some(epoch)
    }

    /// The record of `partition`, if one is kept and has not expired.
    #[must_use]
    pub fn get(&self, now: u64, partition: Partition) -> Option<&PartitionRecord> {
        self.kept.get(&partition).filter(|kept| now < kept.until).map(|kept| &kept.record)
    }

    /// Whether the store had room for whatever was announced about `partition`.
    #[must_use]
    pub fn has_room_for(&self, partition: Partition) -> bool {
        let distance = self.own.distance(&partition.into());
        self.crowded_from.is_none_or(|from| distance < from)
    }

    /// Forgets records of this epoch and earlier ones: the map says what they said.
    pub(super) fn drop_until_epoch(&mut self, epoch: u64) {
        self.kept.retain(|_, kept| kept.record.epoch > epoch);
    }

    /// Forgets what has expired.
    pub fn drop_expired(&mut self, now: u64) {
        self.kept.retain(|_, kept| now < kept.until);
    }

    /// How many records are kept, the expired ones that were not dropped yet among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    fn drop_farthest(&mut self) {
        let distance = |partition: &Partition| self.own.distance(&Key::from(*partition));
        let Some(farthest) = self.kept.keys().copied().max_by_key(distance) else { return };
        let gone = distance(&farthest);
        self.crowded_from = Some(self.crowded_from.map_or(gone, |from| from.min(gone)));
        self.kept.remove(&farthest);
    }
}
