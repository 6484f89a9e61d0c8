//! Tracks on volumes that do not hold their partitions: offered to all holders until each has them.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_track::{Partition, TrackId};

use super::lists::Task;
use super::machine::{Effect, Holder, Sync};
use super::message::{Body, Message};
use super::shares::Share;
use super::{ANSWER_MS, IDS_MAX, OFFERS_MAX, WAIT_MS_MAX};
use crate::{NodeId, VolumeId};

type Place = (VolumeId, Partition);

/// An offer under way.
#[derive(Debug)]
struct Offer {
    number: u64,
    ids: Vec<TrackId>,
    /// There are more behind these.
    more: bool,
    holders: Vec<Holder>,
    /// Others are dead, and not replaced yet.
    has_dead: bool,
    answers: BTreeMap<VolumeId, Vec<bool>>,
}

#[derive(Debug)]
struct Stray {
    /// When something is to be done: begin, or give up waiting.
    due: u64,
    /// When the last offer to these holders ended.
    offered_at: Option<u64>,
    /// Rounds in a row that left something uncovered.
    failures: u8,
    /// Where the next offer goes on in this round.
    after: Option<TrackId>,
    /// Something of this round is not covered.
    left: bool,
    offer: Option<Offer>,
}

/// The partitions with strays: some 200 bytes each.
#[derive(Default, Debug)]
pub(super) struct Strays {
    of: BTreeMap<Place, Stray>,
    due: BTreeSet<(u64, Place)>,
    offers: BTreeMap<u64, Place>,
}

impl Strays {
    fn set_due(&mut self, place: Place, due: u64) {
        let stray = self.of.get_mut(&place).expect("the caller knows it");
        self.due.remove(&(stray.due, place));
        stray.due = due;
        self.due.insert((due, place));
    }

    fn ensure(&mut self, place: Place, due: u64, gap: u64) {
        let Some(stray) = self.of.get(&place) else {
            let new = Stray { due, offered_at: None, failures: 0, after: None, left: false, offer: None };
            self.of.insert(place, new);
            return self.set_due(place, due);
        };
        let wanted = stray.offered_at.map_or(due, |offered_at| due.max(offered_at + gap));
        if stray.offer.is_none() && stray.failures == 0 && stray.due >= wanted {
            self.set_due(place, wanted);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    pub(super) fn remove(&mut self, volume: VolumeId, partition: Partition) {
        self.restart(volume, partition);
        if let Some(stray) = self.of.remove(&(volume, partition)) {
            self.due.remove(&(stray.due, (volume, partition)));
        }
    }

    /// The holders are others: what they said does not count any more.
    pub(super) fn restart(&mut self, volume: VolumeId, partition: Partition) {
        if let Some(stray) = self.of.get_mut(&(volume, partition)) {
            (stray.after, stray.left, stray.failures, stray.offered_at) = (None, false, 0, None);
            if let Some(offer) = stray.offer.take() {
                self.offers.remove(&offer.number);
            }
        }
    }

    pub(super) fn forget(&mut self, volume: VolumeId) {
        self.of(volume).into_iter().for_each(|partition| self.remove(volume, partition));
    }

    /// The partitions with strays on a volume.
    pub(super) fn of(&self, volume: VolumeId) -> Vec<Partition> {
        let all = (volume, Partition(0))..=(volume, Partition(u16::MAX));
        self.of.range(all).map(|((_, partition), _)| *partition).collect()
    }

    /// A holder is back.
    pub(super) fn hasten(&mut self, now: u64) {
        let waiting = self.of.iter_mut().filter(|(_, stray)| stray.offer.is_none() && stray.failures > 0);
        let mut places = Vec::new();
        for (place, stray) in waiting {
            stray.failures = 0;
            places.push(*place);
        }
        places.into_iter().for_each(|place| self.set_due(place, now));
    }

    pub(super) fn next(&self) -> Option<u64> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The track was erased: it is not to be called covered.
    fn drop_track(&mut self, place: Place, track: &TrackId) {
        if let Some(offer) = self.of.get_mut(&place).and_then(|stray| stray.offer.as_mut())
            && let Ok(at) = offer.ids.binary_search(track)
        {
            offer.answers.values_mut().for_each(|held| held[at] = false);
        }
    }
}

impl Sync {
    /// Something about a partition changed that the volume may not hold: are there strays?
    pub(super) fn check_stray(&mut self, now: u64, volume: VolumeId, partition: Partition) {
        if !self.inventory.is_open(&volume) || self.holds(&volume, partition) {
            return;
        }
        if self.inventory.of(&volume, partition).tracks == 0 {
            self.strays.remove(volume, partition);
            self.shares.get_mut(&volume).map(|shares| shares.remove(partition));
        } else {
            self.strays.ensure((volume, partition), now + self.settings.settle_ms, self.settings.gap_ms);
        }
    }

    pub(super) fn erased_stray(&mut self, volume: VolumeId, track: &TrackId) {
        self.strays.drop_track((volume, track.partition()), track);
    }

    pub(super) fn poll_strays(&mut self, now: u64) {
        while let Some((_, place)) = self.strays.due.first().copied().filter(|(due, _)| *due <= now) {
            let (volume, partition) = place;
            if self.strays.of[&place].offer.is_some() {
                self.end_offer(now, place);
                continue;
            }
            let share = self.shares.get(&volume).and_then(|shares| shares.get(partition));
            let Some(Share::Stray(holders)) = share else {
                self.effects.push(Effect::Holders { volume, partition });
                self.strays.set_due(place, now + WAIT_MS_MAX);
                continue;
            };
            let has_dead = holders.iter().any(|holder| holder.dead);
            let holders: Vec<Holder> = holders.iter().filter(|holder| !holder.dead).copied().collect();
            if holders.is_empty() {
                // Nobody could have it: it stays.
                self.strays.set_due(place, now + WAIT_MS_MAX);
                continue;
            }
            let number = self.random.draw();
            let list = if self.strays.offers.len() < OFFERS_MAX && self.lists_budget.is_open(now) {
                self.lists.add(now, volume, partition, Task::Offer(number))
            } else {
                None
            };
            let Some(list) = list else {
                let again = self.lists_budget.opens(now).max(now + 200) + self.random.draw() % 500;
                self.strays.set_due(place, again);
                continue;
            };
            self.effects.push(Effect::List { number: list, volume, partition });
            let offer = Offer { number, ids: Vec::new(), more: false, holders, has_dead, answers: BTreeMap::new() };
            self.strays.of.get_mut(&place).expect("seen above").offer = Some(offer);
            self.strays.offers.insert(number, place);
            self.strays.set_due(place, now + ANSWER_MS);
        }
    }

    /// The list is here: off it goes.
    pub(super) fn offer(&mut self, now: u64, volume: VolumeId, partition: Partition, number: u64, ids: Vec<TrackId>) {
        let Some(stray) = self.strays.of.get_mut(&(volume, partition)) else { return };
        let after = stray.after;
        let Some(offer) = stray.offer.as_mut().filter(|offer| offer.number == number && offer.ids.is_empty()) else {
            return;
        };
        let mut left = ids.into_iter().filter(|id| after.is_none_or(|after| *id > after)).peekable();
        offer.ids = left.by_ref().take(IDS_MAX).collect();
        offer.more = left.peek().is_some();
        if offer.ids.is_empty() {
            self.end_offer(now, (volume, partition));
            return;
        }
        let (holders, ids) = (offer.holders.clone(), offer.ids.clone());
        for holder in holders {
            let body = Body::Offer { number, ids: ids.clone() };
            self.send_list(now, holder.node, Message { from: volume, to: holder.volume, body });
        }
    }

    pub(super) fn handle_has(&mut self, node: NodeId, from: VolumeId, number: u64, held: &[bool]) {
        let Some(place) = self.strays.offers.get(&number).copied() else { return };
        let stray = self.strays.of.get_mut(&place).expect("offers name strays");
        let offer = stray.offer.as_mut().expect("offers name strays that are offered");
        let known = offer.holders.iter().any(|holder| (holder.volume, holder.node) == (from, node));
        if known && held.len() == offer.ids.len() {
            offer.answers.entry(from).or_insert_with(|| held.to_vec());
            if offer.answers.len() == offer.holders.len() {
                // All have answered: the next poll ends it.
                self.strays.set_due(place, 0);
            }
        }
    }

    fn end_offer(&mut self, now: u64, place: Place) {
        let (settle, gap) = (self.settings.settle_ms, self.settings.gap_ms);
        let jitter = self.random.draw() % settle.max(1);
        let stray = self.strays.of.get_mut(&place).expect("the caller knows it");
        let offer = stray.offer.take().expect("the caller knows it");
        self.strays.offers.remove(&offer.number);
        let answered = offer.answers.len() == offer.holders.len();
        for (at, track) in offer.ids.iter().enumerate() {
            // A dead holder's copy is another's to make, and this one may be what it is made of.
            if answered && !offer.has_dead && offer.answers.values().all(|held| held[at]) {
                self.effects.push(Effect::Covered { volume: place.0, track: *track });
            } else {
                stray.left = true;
            }
        }
        stray.offered_at = Some(now);
        let due = if offer.more && answered {
            stray.after = offer.ids.last().copied();
            now + 100
        } else {
            let left = std::mem::take(&mut stray.left) || !answered;
            stray.after = None;
            stray.failures = if answered { 0 } else { stray.failures.saturating_add(1).min(8) };
            let wait = if left { gap << stray.failures } else { WAIT_MS_MAX };
            now + wait.min(WAIT_MS_MAX) + jitter
        };
        self.strays.set_due(place, due);
    }
}
