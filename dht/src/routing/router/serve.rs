//! What a node answers.

use deadwax_track::Partition;

use super::super::distance::Key;
use super::{Contact, PartitionRecord, Request, Response, Router};

impl Router {
    /// The answer to `request`. `from` is the node that asks; none: a client, which is no part of the network. Poll
    /// afterwards.
    pub fn handle_request(&mut self, now: u64, from: Option<&Contact>, request: Request) -> Response {
        if let Some(contact) = from {
            self.handle_seen(now, contact.clone());
        }
        match request {
            Request::Ping => Response::Pong,
            Request::FindNode(key) => Response::Nodes(self.nearest(&key, from)),
            Request::FindPartition(partition) => {
                let nodes = self.nearest(&partition.into(), from);
                match self.known(now, partition) {
                    Some(record) => Response::Record(record, nodes),
                    None => Response::NoRecord { settled: self.is_settled(now, partition), nodes },
                }
            }
            Request::Announce(record) => self.handle_announce(now, from, record),
            Request::MapEpoch => {
                let (epoch, holder) = self.newest_epoch().unzip();
                Response::MapEpoch { epoch: epoch.unwrap_or(0), from: holder }
            }
        }
    }

    /// What the map or the store says about `partition`, whichever is newer.
    fn known(&self, now: u64, partition: Partition) -> Option<PartitionRecord> {
        let kept = self.records.get(now, partition);
        match &self.map {
            Some(map) if kept.is_none_or(|kept| kept.epoch <= map.epoch()) => {
                Some(PartitionRecord::from_map(map, partition))
            }
            _ => kept.cloned(),
        }
    }

    /// Whether we would know of a record of `partition` if there were one.
    fn is_settled(&self, now: u64, partition: Partition) -> bool {
        let here = self.here_since.is_some_and(|since| now >= since.saturating_add(self.settings.settle_ms()));
        here && now >= self.alone_until && !self.is_alone() && self.records.has_room_for(partition)
    }

    /// Whether more than half of our neighbours are doubtful: a part of the network that is cut off looks like that from
    /// within, and holds few of the nodes that others announced their records to.
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

    /// A record is taken only from one of the holders that it names.
    fn handle_announce(&mut self, now: u64, from: Option<&Contact>, record: PartitionRecord) -> Response {
        let its_own = from.is_some_and(|from| record.names(&from.id));
        if !its_own || !record.is_bounded() {
            return Response::Refused;
        }
        match self.records.keep(now, record) {
            Some(epoch) => Response::Kept { epoch },
            None => Response::Refused,
        }
    }

    /// The map that we have; without one, the newest that we heard of. Who has a map repeats no hearsay, so that a false
    /// epoch cannot hide a true one for long.
    fn newest_epoch(&self) -> Option<(u64, Contact)> {
        let own = self.map.as_ref().map(|map| (map.epoch(), self.own.clone()));
        own.or_else(|| self.heard.clone())
    }

    fn nearest(&self, key: &Key, asker: Option<&Contact>) -> Vec<Contact> {
        let mut nodes = self.table.nearest(key, self.settings.k + 1);
        nodes.retain(|contact| asker.is_none_or(|asker| asker.id != contact.id));
        nodes.truncate(self.settings.k);
        nodes
    }
}
