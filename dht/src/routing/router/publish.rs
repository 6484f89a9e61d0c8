//! How a holder announces its partitions' records.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use deadwax_track::Partition;

use super::super::message::ANNOUNCED_MAX;
use super::{
    About, Busy, Contact, Directory, Effect, Lookup, Outcome, PartitionRecord, Purpose, Request, Response, Router,
};

/// How long after a failed announcement the next is tried, in ms.
const AGAIN_MS: u64 = 60_000;
/// The most partitions whose announcement is to be tried again; those beyond wait for their turn.
const AGAIN_MAX: usize = 1_024;
/// Partitions that are due within so long of each other, in ms, are announced together: neighbours have the same
/// keepers, so that few messages carry them.
const STEP_MS: u64 = 60_000;
/// The same for those that are new in a map, in ms.
const STEP_SOON_MS: u64 = 1_000;

/// Records that are being announced: each to the k nodes nearest to its key, and to each of these what it shall keep.
#[derive(Debug)]
pub(super) struct Publish {
    records: Vec<Announced>,
    /// The search for the nearest, where a record is announced without the map.
    lookup: Option<u64>,
    /// For each message, which of the records it has.
    messages: Vec<Vec<usize>>,
    in_flight: usize,
}

#[derive(Debug)]
struct Announced {
    record: PartitionRecord,
    copies: usize,
    needed: usize,
}

/// Which of its partitions a node announces when.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// What the node holds, rising.
    own: Arc<[Partition]>,
    /// The turn goes on with the first of `own` that is not below this.
    next: u16,
    due: u64,
    /// What the last maps changed and was not announced since.
    soon: BTreeSet<Partition>,
    soon_due: u64,
    /// How many of `soon` are due together, and how long until the next, in ms: all are announced in time.
    soon_step: (usize, u64),
    /// Partitions whose announcement failed, and when to try again; oldest first.
    again: VecDeque<(u64, Partition)>,
}

/// How many of `count` partitions that are all announced within `all_ms` are due together, and how long until the next.
fn step(count: usize, all_ms: u64, step_ms: u64) -> (usize, u64) {
    let count = u64::try_from(count).expect("a usize has at most 64 bits").max(1);
    let size = (count * step_ms / all_ms.max(1)).clamp(1, ANNOUNCED_MAX as u64);
    let wait_ms = (all_ms.saturating_mul(size) / count).max(1);
    (usize::try_from(size).expect("at most 64"), wait_ms)
}

impl Router {
    /// Announces `record` to the k nodes nearest to its partition, once; an [`Effect::Published`] says how it went. A
    /// node that has the map does this by itself, for what it holds.
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
        let records = vec![Announced { record, copies: 0, needed: 0 }];
        self.publishes.insert(number, Publish { records, lookup: Some(lookup), messages: vec![], in_flight: 0 });
        Ok(())
    }

    /// The nodes nearest to the record's key are known.
    pub(super) fn handle_keepers(&mut self, now: u64, lookup: u64, found: &Lookup, outcome: Outcome) {
        let Outcome::Nodes(mut nodes) = outcome else { return };
        let publish = self.publishes.iter().find(|(_, publish)| publish.lookup == Some(lookup));
        let Some(number) = publish.map(|(number, _)| *number) else { return };
        let Some(mut publish) = self.publishes.remove(&number) else { return };
        let announced = &mut publish.records[0];
        let (key, k) = (announced.record.partition.into(), self.settings.k);
        announced.needed = found.keepers() / 2 + 1;
        let nearer = nodes.iter().filter(|node| node.key().distance(&key) < self.own.key().distance(&key)).count();
        if nearer < k {
            // We are one of the nearest ourselves.
            nodes.truncate(k - 1);
            announced.copies += usize::from(self.keep(now, announced.record.clone()) > 0);
            announced.needed = (found.keepers() + 1).min(k) / 2 + 1;
        }
        let targets = nodes.into_iter().map(|node| (node, vec![0])).collect();
        self.send_records(now, number, publish.records, targets);
    }

    /// Announces what the map says of these, which we hold: with the map, no search is needed.
    fn announce(&mut self, now: u64, directory: &Directory, partitions: &[Partition]) {
        let mut targets: BTreeMap<Contact, Vec<usize>> = BTreeMap::new();
        let mut records = Vec::with_capacity(partitions.len());
        for (index, partition) in partitions.iter().enumerate() {
            let record = directory.record(*partition);
            let key = (*partition).into();
            let mut keepers = self.nearest(&key, self.settings.k, None);
            let own = self.own.key().distance(&key);
            let nearer = keepers.iter().filter(|node| node.key().distance(&key) < own).count();
            let is_keeper = nearer < self.settings.k;
            if is_keeper {
                keepers.truncate(self.settings.k - 1);
            }
            let keepers_all = keepers.len() + usize::from(is_keeper);
            for keeper in keepers {
                targets.entry(keeper).or_default().push(index);
            }
            // Having the map is as good as keeping its records.
            records.push(Announced { record, copies: usize::from(is_keeper), needed: keepers_all / 2 + 1 });
        }
        let number = self.number();
        self.send_records(now, number, records, targets);
    }

    fn send_records(&mut self, now: u64, number: u64, records: Vec<Announced>, targets: BTreeMap<Contact, Vec<usize>>) {
        let mut publish = Publish { records, lookup: None, in_flight: targets.len(), messages: vec![] };
        for (at, (target, which)) in targets.into_iter().enumerate() {
            let told = which.iter().map(|index| publish.records[*index].record.clone()).collect();
            publish.messages.push(which);
            self.send(now, target.into(), About::Publish(number, at), Request::Announce(told));
        }
        let is_done = publish.in_flight == 0;
        self.publishes.insert(number, publish);
        if is_done {
            self.end_publish(now, number);
        }
    }

    /// One of the nearest answered an announcement; none: it failed.
    pub(super) fn handle_announced(&mut self, now: u64, number: u64, message: usize, response: Option<Response>) {
        let Some(publish) = self.publishes.get_mut(&number) else { return };
        let which = std::mem::take(&mut publish.messages[message]);
        if let Some(Response::Kept(epochs)) = response
            && epochs.len() == which.len()
        {
            for (index, epoch) in which.into_iter().zip(epochs) {
                let announced = &mut publish.records[index];
                // It may know of a newer one: then that is what others will find.
                announced.copies += usize::from(epoch >= announced.record.epoch);
            }
        }
        publish.in_flight -= 1;
        if publish.in_flight == 0 {
            self.end_publish(now, number);
        }
    }

    fn end_publish(&mut self, now: u64, number: u64) {
        let Some(publish) = self.publishes.remove(&number) else { return };
        for Announced { record, copies, needed } in publish.records {
            let (partition, enough) = (record.partition, copies >= needed);
            if !enough && self.directory.is_some() && self.turns.again.len() < AGAIN_MAX {
                self.turns.again.push_back((now.saturating_add(AGAIN_MS), partition));
            }
            self.effects.push(Effect::Published { partition, copies, enough });
        }
    }

    /// There is a new map: the turn goes on with what the node holds now, what changed is announced soon.
    pub(super) fn handle_held(&mut self, now: u64, own: Arc<[Partition]>, changed: &[Partition]) {
        let is_first = self.turns.own.is_empty();
        self.turns.own = own;
        self.turns.soon.extend(changed);
        let held = &self.turns.own;
        self.turns.soon.retain(|partition| held.binary_search(partition).is_ok());
        if is_first && !held.is_empty() {
            // Holders of the same partition begin at different ones, so that they do not announce it at the same time.
            let begin = u64::from_be_bytes(*self.own.id.as_bytes().last_chunk().expect("ids have 32 bytes"));
            let begin = begin % u64::try_from(held.len()).expect("at most 65,536");
            self.turns.next = held[usize::try_from(begin).expect("below a length")].0;
            self.turns.due = now.saturating_add(self.turn_step().1);
        }
        let waits = self.turns.soon_due > now;
        self.turns.soon_step = step(self.turns.soon.len(), self.settings.announce_ms, STEP_SOON_MS);
        let next = now.saturating_add(self.turns.soon_step.1);
        self.turns.soon_due = if waits { self.turns.soon_due.min(next) } else { next };
    }

    fn turn_step(&self) -> (usize, u64) {
        let copies = self.directory.as_ref().map_or(1, |directory| usize::from(directory.map().policy().copies));
        step(self.turns.own.len(), self.settings.turn_ms(copies), STEP_MS)
    }

    pub(super) fn poll_turns(&mut self, now: u64) {
        if self.turns_due().is_none_or(|due| now < due) {
            return;
        }
        let Some(directory) = self.directory.clone() else { return };
        let mut partitions: Vec<Partition> = Vec::new();
        while let Some(&(due, partition)) = self.turns.again.front()
            && due <= now
            && partitions.len() < ANNOUNCED_MAX
        {
            self.turns.again.pop_front();
            if self.turns.own.binary_search(&partition).is_ok() {
                partitions.push(partition);
            }
        }
        if partitions.is_empty() && !self.turns.soon.is_empty() && self.turns.soon_due <= now {
            let (size, wait_ms) = self.turns.soon_step;
            let soon: Vec<Partition> = (0..size).filter_map(|_| self.turns.soon.pop_first()).collect();
            self.turns.soon_due = now.saturating_add(wait_ms);
            // One holder is enough; the others have their turns.
            partitions.extend(soon.into_iter().filter(|partition| self.is_first(&directory, *partition)));
        } else if partitions.is_empty() && !self.turns.own.is_empty() && self.turns.due <= now {
            let (size, wait_ms) = self.turn_step();
            let (own, next) = (&self.turns.own, self.turns.next);
            let first = own.partition_point(|partition| partition.0 < next);
            partitions.extend(own[first..].iter().take(size));
            let more = own.get(first + partitions.len()).or(own.first());
            self.turns.next = more.map_or(0, |partition| partition.0);
            self.turns.due = now.saturating_add(wait_ms);
        }
        if !partitions.is_empty() {
            self.announce(now, &directory, &partitions);
        }
    }

    /// Whether we are the first of the partition's holders that is not known to be down.
    fn is_first(&self, directory: &Directory, partition: Partition) -> bool {
        let map = directory.map();
        let mut holders = map.holders(partition).iter().map(|holder| map.nodes()[holder.node].id);
        holders.find(|id| *id == self.own.id || !self.is_doubtful(id)) == Some(self.own.id)
    }

    pub(super) fn turns_due(&self) -> Option<u64> {
        if self.directory.is_none() || self.publishes.len() >= self.settings.publishes_max {
            return None;
        }
        let soon = (!self.turns.soon.is_empty()).then_some(self.turns.soon_due);
        let turn = (!self.turns.own.is_empty()).then_some(self.turns.due);
        let again = self.turns.again.front().map(|(due, _)| *due);
        [soon, turn, again].into_iter().flatten().min()
    }
}
