//! What a node answers.

use deadwax_track::Partition;

use super::super::distance::Key;
use super::super::message::ANNOUNCED_MAX;
use super::{Contact, NodeId, PartitionRecord, Request, Response, Router};

impl Router {
    /// The answer to `request`. `from` is the node that asks; none: a client, which is no part of the network. Poll
    /// afterwards.
    pub fn handle_request(&mut self, now: u64, from: Option<&Contact>, request: Request) -> Response {
        if let Some(contact) = from {
            self.handle_seen(now, contact.clone());
        }
        let (k, asker) = (self.settings.k, from.map(|from| &from.id));
        match request {
            Request::Ping => Response::Pong,
            Request::FindNode(key) => Response::Nodes(self.nearest(&key, k, asker)),
            Request::FindPartition(partition) => {
                let nodes = self.nearest(&partition.into(), k, asker);
                match self.known(now, partition) {
                    Some(record) => Response::Record(record, nodes),
                    None => Response::NoRecord { settled: self.is_settled(now, partition), nodes },
                }
            }
            Request::Announce(records) => {
                let records = records.into_iter().take(ANNOUNCED_MAX);
                Response::Kept(records.map(|record| self.handle_announce(now, from, record)).collect())
            }
            Request::MapEpoch => {
                let (epoch, holder) = self.newest_epoch().unzip();
                Response::MapEpoch { epoch: epoch.unwrap_or(0), from: holder }
            }
        }
    }

    /// What the map or the store says about `partition`, whichever is newer.
    fn known(&self, now: u64, partition: Partition) -> Option<PartitionRecord> {
        let kept = self.records.get(now, partition);
        match &self.directory {
            Some(directory) if kept.is_none_or(|kept| kept.epoch <= directory.map().epoch()) => {
                Some(directory.record(partition))
            }
            _ => kept.cloned(),
        }
    }

    /// Whether we would know of a record of `partition` if there were one.
    fn is_settled(&self, now: u64, partition: Partition) -> bool {
        let here = self.here_since.is_some_and(|since| now >= since.saturating_add(self.settings.settle_ms()));
        let told = here && now >= self.unmapped_until && self.records.has_room_for(partition);
        told && now >= self.alone_until && !self.is_alone()
    }

    /// Whether more than half of our neighbours are doubtful: a part of the network that is cut off looks like that
    /// from within, and holds few of the nodes that others announced their records to.
    pub(super) fn is_alone(&self) -> bool {
        let own = self.own.key();
        let key = |contact: &Contact| contact.key().distance(&own);
        let (near, doubtful) =
            (self.table.nearest(&own, self.settings.k), self.table.nearest_doubtful(&own, self.settings.k));
        let mut both: Vec<_> = near.iter().map(|contact| (key(contact), false)).collect();
        both.extend(doubtful.iter().map(|contact| (key(contact), true)));
        both.sort_unstable();
        both.truncate(self.settings.k);
        2 * both.iter().filter(|(_, doubtful)| *doubtful).count() > both.len()
    }

    /// A record is taken only from one of the holders that it names. The epoch of what we then know; 0: not kept.
    fn handle_announce(&mut self, now: u64, from: Option<&Contact>, record: PartitionRecord) -> u64 {
        let its_own = from.is_some_and(|from| record.names(&from.id));
        if its_own && record.is_bounded() { self.keep(now, record) } else { 0 }
    }

    /// Keeps a record, unless the map says as much or more.
    pub(super) fn keep(&mut self, now: u64, record: PartitionRecord) -> u64 {
        match self.epoch() {
            epoch if epoch >= record.epoch => epoch,
            _ => self.records.keep(now, record).unwrap_or(0),
        }
    }

    /// The map that we have; without one, the newest that we heard of. Who has a map repeats no hearsay, so that a
    /// false epoch cannot hide a true one for long.
    fn newest_epoch(&self) -> Option<(u64, Contact)> {
        let own = self.directory.as_ref().map(|directory| (directory.map().epoch(), self.own.clone()));
        own.or_else(|| self.heard.clone())
    }

    /// The nodes nearest to `key`, of the map's and of those in the table; the doubtful ones, ourselves, and the asker
    /// aside.
    pub(super) fn nearest(&self, key: &Key, count: usize, asker: Option<&NodeId>) -> Vec<Contact> {
        let mut nodes = self.table.nearest(key, count + 1);
        nodes.retain(|contact| asker != Some(&contact.id) && !self.is_doubtful(&contact.id));
        if let Some(directory) = &self.directory {
            nodes.retain(|contact| !directory.has(&contact.id));
            let wanted = |id: &NodeId| asker != Some(id) && *id != self.own.id && !self.is_doubtful(id);
            let mapped = directory.nearest(key).filter(|contact| wanted(&contact.id)).take(count);
            if nodes.is_empty() {
                return mapped.cloned().collect();
            }
            nodes.extend(mapped.cloned());
            nodes.sort_by_cached_key(|contact| contact.key().distance(key));
        }
        nodes.truncate(count);
        nodes
    }
}
