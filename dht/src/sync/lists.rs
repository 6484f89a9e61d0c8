//! The lists of ids that are asked of the driver, and what is done with them: the exchange of one partition.
//!
//! ```text
//! Ask ─▶ Buckets ─▶ Shorts ─▶ Ids (what the asker lacks, and what the other wants) ─▶ Ids
//! ```
//!
//! Nothing is kept between two of these messages.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_track::{Partition, TrackId};

use super::machine::{Effect, Sync, slot};
use super::message::{Body, Message};
use super::{HURRY_MS, IDS_MAX, IDS_SENT_MAX, LISTS_MAX, buckets};
use crate::{NodeId, VolumeId};

/// A list that was not answered for so long may be forgotten for another, in ms.
const LOST_MS: u64 = 30_000;

/// What a list is for.
#[derive(Debug)]
pub(super) enum Task {
    /// A peer's message is answered.
    Answer { from: VolumeId, node: NodeId, body: Body },
    /// Strays are offered: the offer's number.
    Offer(u64),
}

#[derive(Debug)]
struct List {
    volume: VolumeId,
    partition: Partition,
    task: Task,
    at: u64,
    /// What was stored and erased since it was asked for: it may have it or not.
    turned: BTreeMap<TrackId, bool>,
}

#[derive(Default, Debug)]
pub(super) struct Lists {
    of: BTreeMap<u64, List>,
    by_partition: BTreeSet<(VolumeId, Partition, u64)>,
    last: u64,
}

impl Lists {
    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    /// The number of a new list; nothing where there are too many.
    pub(super) fn add(&mut self, now: u64, volume: VolumeId, partition: Partition, task: Task) -> Option<u64> {
        if self.of.len() >= LISTS_MAX {
            let oldest =
                self.of.first_key_value().filter(|(_, list)| list.at + LOST_MS < now).map(|(number, _)| *number);
            self.take(oldest?);
        }
        self.last += 1;
        self.of.insert(self.last, List { volume, partition, task, at: now, turned: BTreeMap::new() });
        self.by_partition.insert((volume, partition, self.last));
        Some(self.last)
    }

    fn take(&mut self, number: u64) -> Option<List> {
        let list = self.of.remove(&number)?;
        self.by_partition.remove(&(list.volume, list.partition, number));
        Some(list)
    }

    pub(super) fn forget(&mut self, volume: VolumeId) {
        self.of.retain(|_, list| list.volume != volume);
        self.by_partition.retain(|(of, _, _)| *of != volume);
    }

    pub(super) fn turn(&mut self, volume: VolumeId, partition: Partition, track: &TrackId, stored: bool) {
        for (_, _, number) in self.by_partition.range((volume, partition, 0)..=(volume, partition, u64::MAX)) {
            self.of.get_mut(number).expect("indexed").turned.insert(*track, stored);
        }
    }
}

impl Sync {
    /// The answer to [`Effect::List`]: all ids of the partition, in any order, as of a time since it was asked for.
    pub fn handle_listed(&mut self, now: u64, number: u64, ids: Vec<TrackId>) {
        let Some(list) = self.lists.take(number) else { return };
        let ids: BTreeSet<TrackId> = ids.into_iter().filter(|id| !list.turned.contains_key(id)).collect();
        let turned = list.turned.iter().filter(|(_, stored)| **stored).map(|(id, _)| *id);
        let mut ids: Vec<TrackId> = ids.into_iter().chain(turned).collect();
        ids.sort_unstable();
        match list.task {
            Task::Offer(offer) => self.offer(now, list.volume, list.partition, offer, ids),
            Task::Answer { from, node, body } => self.answer(now, list.volume, (from, node), body, &ids),
        }
    }

    pub(super) fn send_list(&mut self, now: u64, to: NodeId, message: Message) {
        self.lists_budget.pay(now, message.encode().len());
        self.effects.push(Effect::Send { to, message });
    }

    /// Takes a message that needs the ids that are here.
    pub(super) fn handle_list(&mut self, now: u64, node: NodeId, message: Message) {
        let (volume, from) = (message.to, message.from);
        let (partition, offered) = match &message.body {
            Body::Compare { .. } | Body::Has { .. } => return,
            Body::Offer { ids, .. } => (ids[0].partition(), true),
            Body::Ask { partition, cell } => {
                if self.inventory.of(&volume, *partition).cell(*partition) == *cell {
                    return;
                }
                (*partition, false)
            }
            Body::Buckets { partition, .. } | Body::Shorts { partition, .. } | Body::Ids { partition, .. } => {
                (*partition, false)
            }
        };
        let shared = if offered { self.holds(&volume, partition) } else { self.shares(volume, partition, from, node) };
        if shared && !self.lists_budget.is_ruined(now) {
            let task = Task::Answer { from, node, body: message.body };
            if let Some(number) = self.lists.add(now, volume, partition, task) {
                self.effects.push(Effect::List { number, volume, partition });
            }
        }
    }

    fn answer(&mut self, now: u64, own: VolumeId, from: (VolumeId, NodeId), body: Body, ids: &[TrackId]) {
        let mut out = Vec::new();
        match body {
            Body::Ask { partition, .. } => {
                let salt = self.random.draw();
                let digests = buckets::digests(ids, salt, buckets::bits(ids.len()));
                out.push(Body::Buckets { partition, salt, digests });
            }
            Body::Buckets { partition, salt, digests } => {
                let (bits, buckets, shorts) = buckets::differing(ids, salt, &digests);
                if !buckets.is_empty() {
                    out.push(Body::Shorts { partition, salt, bits, buckets, shorts });
                }
            }
            Body::Shorts { partition, salt, bits, buckets, shorts } => {
                let (has, wants) = buckets::difference(ids, salt, bits, &buckets, &shorts);
                pages(partition, &has, salt, wants, &mut out);
            }
            Body::Ids { partition, has, salt, wants } => {
                self.suspect(now, own, from, &has, ids);
                if !wants.is_empty() {
                    let wanted = |id: &&TrackId| wants.binary_search(&buckets::short(id, salt)).is_ok();
                    let has: Vec<TrackId> = ids.iter().filter(wanted).take(IDS_SENT_MAX).copied().collect();
                    pages(partition, &has, salt, Vec::new(), &mut out);
                }
            }
            Body::Offer { number, ids: offered } => {
                self.suspect(now, own, from, &offered, ids);
                let held = offered.iter().map(|id| ids.binary_search(id).is_ok()).collect();
                out.push(Body::Has { number, held });
            }
            Body::Compare { .. } | Body::Has { .. } => {}
        }
        for body in out {
            self.send_list(now, from.1, Message { from: own, to: from.0, body });
        }
    }

    fn suspect(&mut self, now: u64, own: VolumeId, from: (VolumeId, NodeId), others: &[TrackId], ids: &[TrackId]) {
        let pair = self.index.get(&(own, from.0)).and_then(|id| self.pairs[slot(*id)].as_ref());
        let is_fresh = |id: &TrackId| pair.is_some_and(|pair| pair.fresh.contains(id.partition()));
        let grace_ms = if others.first().is_some_and(is_fresh) { HURRY_MS } else { self.settings.grace_ms };
        let due = now + grace_ms.min(self.settings.grace_ms);
        for id in others.iter().filter(|id| ids.binary_search(id).is_err()) {
            self.suspects.add(due, (own, *id), from);
        }
    }
}

/// Messages with these ids, and `wants` in the first.
fn pages(partition: Partition, has: &[TrackId], salt: u64, wants: Vec<u64>, out: &mut Vec<Body>) {
    let mut pages = has.chunks(IDS_MAX);
    let first = pages.next().unwrap_or_default();
    if !first.is_empty() || !wants.is_empty() {
        out.push(Body::Ids { partition, has: first.to_vec(), salt, wants });
    }
    out.extend(pages.map(|page| Body::Ids { partition, has: page.to_vec(), salt, wants: Vec::new() }));
}
