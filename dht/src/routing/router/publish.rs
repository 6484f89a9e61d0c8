//! How a holder announces its partitions' records.

use deadwax_track::{PARTITIONS, Partition};

use super::{About, Busy, Effect, Lookup, Outcome, PartitionRecord, Purpose, Request, Response, Router};
use crate::Map;

/// How many partitions the walk looks at in one poll: 16,000 volumes cost 100 ms then, once a map.
const STEP_PARTITIONS: u32 = 64;
/// How long after a failed announcement the next is tried, in ms.
const AGAIN_MS: u64 = 60_000;
/// The most partitions whose announcement is to be tried again; those beyond wait for the next walk.
const AGAIN_MAX: usize = 1_024;

/// A record that is being announced: a lookup of the nodes nearest to its key, then the record to each.
#[derive(Debug)]
pub(super) struct Publish {
    record: PartitionRecord,
    lookup: Option<u64>,
    in_flight: usize,
    copies: usize,
    needed: usize,
}

/// Goes through all partitions at an even pace, once each republish time, and announces those that the node holds. It
/// needs no list of them, and the announcements are spread over the hour.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// The next partition; at [`PARTITIONS`] the walk rests until its time.
    next: u32,
    due: u64,
    /// Between one step and the next, in ms.
    step_ms: u64,
}

impl Router {
    /// Announces `record` to the k nodes nearest to its partition, once; an [`Effect::Published`] says how it went. A node
    /// that has the map does this by itself, for what it holds.
    ///
    /// # Errors
    ///
    /// [`Busy`]: `publishes_max` are being announced.
    ///
    /// # Panics
    ///
    /// If the node is not one of the holders, or the record does not keep its bounds.
    pub fn publish(&mut self, now: u64, record: PartitionRecord) -> Result<(), Busy> {
        assert!(record.is_bounded() && record.names(&self.own.id), "a holder announces its own: {record:?}");
        if self.publishes.len() >= self.settings.publishes_max {
            return Err(Busy(self.settings.publishes_max));
        }
        let key = record.partition.into();
        let lookup = Lookup::for_nodes(now, key, self.own.id, self.settings.lookup());
        let lookup = self.start(now, lookup, key, Purpose::Publish);
        let number = self.number();
        self.publishes.insert(number, Publish { record, lookup: Some(lookup), in_flight: 0, copies: 0, needed: 0 });
        Ok(())
    }

    /// The nodes nearest to the record's key are known.
    pub(super) fn handle_keepers(&mut self, now: u64, lookup: u64, found: &Lookup, outcome: Outcome) {
        let Outcome::Nodes(mut nodes) = outcome else { return };
        let publish = self.publishes.iter_mut().find(|(_, publish)| publish.lookup == Some(lookup));
        let Some((&number, publish)) = publish else { return };
        let (key, k) = (publish.record.partition.into(), self.settings.k);
        let record = publish.record.clone();
        publish.lookup = None;
        publish.needed = found.keepers() / 2 + 1;
        let nearer = nodes.iter().filter(|node| node.key().distance(&key) < self.own.key().distance(&key)).count();
        if nearer < k {
            // We are one of the nearest ourselves.
            nodes.truncate(k - 1);
            publish.copies += usize::from(self.records.keep(now, record.clone()).is_some());
            publish.needed = (found.keepers() + 1).min(k) / 2 + 1;
        }
        publish.in_flight = nodes.len();
        if nodes.is_empty() {
            return self.end_publish(now, number);
        }
        for node in nodes {
            self.send(now, node.into(), About::Publish(number), Request::Announce(record.clone()));
        }
    }

    /// One of the nearest answered the announcement, or failed.
    pub(super) fn handle_announced(&mut self, now: u64, number: u64, response: &Response) {
        let Some(publish) = self.publishes.get_mut(&number) else { return };
        publish.in_flight -= 1;
        // It may keep a newer one: then that is what others will find.
        publish.copies += usize::from(matches!(response, Response::Kept { epoch } if *epoch >= publish.record.epoch));
        if publish.in_flight == 0 {
            self.end_publish(now, number);
        }
    }

    fn end_publish(&mut self, now: u64, number: u64) {
        let Some(publish) = self.publishes.remove(&number) else { return };
        let (partition, copies) = (publish.record.partition, publish.copies);
        let enough = copies >= publish.needed;
        if !enough && self.map.is_some() && self.again.len() < AGAIN_MAX {
            self.again.push_back((now.saturating_add(AGAIN_MS), partition));
        }
        self.effects.push(Effect::Published { partition, copies, enough });
    }

    /// Begins a walk that is done soon: the map is new.
    pub(super) fn start_walk(&mut self, now: u64) {
        self.again.clear();
        self.walk = Walk { next: 0, due: now, step_ms: step_ms(self.settings.announce_ms) };
    }

    pub(super) fn poll_walk(&mut self, now: u64) {
        let Some(map) = self.map.clone() else { return };
        while let Some(&(due, partition)) = self.again.front()
            && due <= now
            && self.publishes.len() < self.settings.publishes_max
        {
            self.again.pop_front();
            self.publish_own(now, &map, partition);
        }
        if now < self.walk.due {
            return;
        }
        // A step ends early where too many are under way, and goes on when one of them has ended.
        let end = (self.walk.next / STEP_PARTITIONS + 1) * STEP_PARTITIONS;
        while self.walk.next < end.min(PARTITIONS) && self.publishes.len() < self.settings.publishes_max {
            let partition = Partition(u16::try_from(self.walk.next).expect("below the number of partitions"));
            self.walk.next += 1;
            self.publish_own(now, &map, partition);
        }
        if self.walk.next == end.min(PARTITIONS) {
            self.walk.due = now.saturating_add(self.walk.step_ms);
        }
        if self.walk.next == PARTITIONS {
            self.walk.next = 0;
            self.walk.step_ms = step_ms(self.settings.republish_ms);
        }
    }

    pub(super) fn walk_due(&self) -> Option<u64> {
        let can = self.map.is_some() && self.publishes.len() < self.settings.publishes_max;
        let again = self.again.front().map(|(due, _)| *due);
        can.then(|| again.map_or(self.walk.due, |due| due.min(self.walk.due)))
    }

    fn publish_own(&mut self, now: u64, map: &Map, partition: Partition) {
        if map.holders(partition).iter().any(|holder| map.nodes()[holder.node].id == self.own.id) {
            let record = PartitionRecord::from_map(map, partition);
            self.publish(now, record).expect("asked whether there is room");
        }
    }
}

fn step_ms(walk_ms: u64) -> u64 {
    (walk_ms / u64::from(PARTITIONS / STEP_PARTITIONS)).max(1)
}
