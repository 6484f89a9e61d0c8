//! Comparisons of pairs: their beginning, their steps, and their end.

use std::collections::BTreeMap;

use deadwax_track::Partition;

use super::branch::Branch;
use super::inventory::Contents;
use super::machine::{Effect, Sync, slot};
use super::message::{Body, Entry, Message};
use super::pair::{Pair, Session, WHOLE};
use super::{ANSWER_MS, CROSS_MS, FIRST_MS, HURRIES_MAX, HURRY_MS, LISTS_AFTER_MS, WAIT_MS_MAX};
use crate::{NodeId, VolumeId};

impl Sync {
    fn none_or(&self, volume: &VolumeId) -> &BTreeMap<Partition, Contents> {
        const NONE: &BTreeMap<Partition, Contents> = &BTreeMap::new();
        self.inventory.volume(volume).unwrap_or(NONE)
    }

    pub(super) fn begin(&mut self, now: u64, id: u32) {
        let number = self.random.draw().max(1);
        let mut pair = self.pairs[slot(id)].take().expect("the caller knows it");
        let root = pair.entry(self.none_or(&pair.own), Branch::ROOT);
        pair.pending = std::mem::take(&mut pair.unequal);
        pair.session = Some(Session::new(number, 0, true, now));
        self.send_compare(now, &mut pair, vec![root], WHOLE, false);
        self.pairs[slot(id)] = Some(pair);
    }

    /// Sends the next step of the pair's comparison.
    fn send_compare(&mut self, now: u64, pair: &mut Pair, entries: Vec<Entry>, range: (u32, u32), wants: bool) {
        let session = pair.session.as_mut().expect("the caller has one");
        session.sent.clone_from(&entries);
        session.deadline = now + if pair.hurries > 0 { HURRY_MS } else { ANSWER_MS };
        let (number, echo, step) = (session.number, session.peer, session.step);
        let body = Body::Compare { number, echo, step, wants, range, entries };
        let message = Message { from: pair.own, to: pair.peer, body };
        let length = message.encode().len();
        session.bytes += length as u64;
        self.digests_budget.pay(now, length);
        self.effects.push(Effect::Send { to: pair.node, message });
    }

    /// Ends the pair's comparison, if there is one, and says when the next is.
    pub(super) fn end(&mut self, now: u64, id: u32, answered: bool) {
        let pair = self.pairs[slot(id)].as_mut().expect("the caller knows it");
        let Some(session) = pair.end() else { return };
        (pair.compared_at, pair.compared_bytes) = (now, session.bytes);
        let settings = &self.settings;
        let in_hurry = !pair.fresh.is_empty();
        let (mut wait, mut jitter) = (settings.gap_ms, (settings.settle_ms / 2).max(1));
        if answered {
            (pair.failures, pair.hurries) = (0, if in_hurry { HURRIES_MAX } else { 0 });
            pair.leaves_at = if in_hurry { now } else { now + LISTS_AFTER_MS };
            // What differs is compared again when something of it has come.
            if in_hurry && (session.cut || session.changed || !session.differs) {
                (wait, jitter) = (pair.rest_ms(settings.gap_ms), FIRST_MS);
            } else if session.cut {
                wait = settings.settle_ms;
            } else if session.differs && !session.news && !session.changed {
                wait = WAIT_MS_MAX;
            }
        } else if pair.hurries > 0 {
            // Whoever began it: where both did, and crossed, each may wait for an answer that it no longer takes itself.
            pair.hurries -= 1;
            (wait, jitter) = (0, FIRST_MS);
        } else if session.initiator && session.step == 0 {
            pair.failures = pair.failures.saturating_add(1).min(8);
            wait = (ANSWER_MS << (pair.failures - 1)).min(WAIT_MS_MAX);
        }
        pair.compare_at = now + wait + self.random.draw() % jitter;
        self.set_timer(now, id);
    }

    /// What a peer sent. What does not fit is ignored.
    pub fn handle_message(&mut self, now: u64, from: NodeId, message: Message) {
        match message.body {
            Body::Compare { number, echo, step, wants, range, entries } => {
                let pair = self
                    .index
                    .get(&(message.to, message.from))
                    .copied()
                    .filter(|id| self.pairs[slot(*id)].as_ref().is_some_and(|pair| pair.node == from));
                if let Some(id) = pair.filter(|_| self.inventory.is_open(&message.to))
                    && self.accept(now, id, number, echo, step)
                {
                    self.compare(now, id, step, wants, range, &entries);
                }
            }
            Body::Has { number, held } => self.handle_has(from, message.from, number, &held),
            body => self.handle_list(now, from, Message { body, ..message }),
        }
    }

    /// Whether the message is the next step of a comparison, or begins one.
    fn accept(&mut self, now: u64, id: u32, number: u64, echo: u64, step: u8) -> bool {
        let pair = self.pairs[slot(id)].as_mut().expect("the caller knows it");
        if step > 0 {
            let Some(session) = &mut pair.session else { return false };
            let next = session.number == echo && session.step.checked_add(1) == Some(step);
            if !next || session.peer != 0 && session.peer != number {
                return false;
            }
            (session.peer, session.step) = (number, step);
            return true;
        }
        if self.digests_budget.is_ruined(now) || number == 0 || echo != 0 {
            return false;
        }
        if let Some(session) = &pair.session {
            // Both began, and the lower volume goes on, unless it was not heard; or the message came twice.
            let is_unheard = session.step == 0 && now - session.began >= CROSS_MS;
            if session.peer == number || session.initiator && pair.own < pair.peer && !is_unheard {
                return false;
            }
            pair.end();
        }
        pair.pending = std::mem::take(&mut pair.unequal);
        pair.session = Some(Session::new(self.random.draw().max(1), number, false, now));
        true
    }

    fn compare(&mut self, now: u64, id: u32, step: u8, wants: bool, range: (u32, u32), entries: &[Entry]) {
        let mut pair = self.pairs[slot(id)].take().expect("the caller knows it");
        let own = self.none_or(&pair.own);
        let asked = pair.session.as_ref().and_then(|session| session.sent.first().copied());
        let looked = pair.look(now, own, entries, range, step > 0);
        let root = pair.entry(own, Branch::ROOT);
        if !looked.equal.is_empty() {
            let (volume, with) = (pair.own, pair.peer);
            self.effects.push(Effect::Equal { volume, with, partitions: looked.equal });
        }
        let session = pair.session.as_mut().expect("accepted");
        session.differs |= !entries.is_empty() && step > 0;
        session.cut |= looked.range != WHOLE || range != WHOLE;
        let quiet = looked.answer.is_empty();
        // The root was equal. The peer may believe it of us, too, if nothing changed here since we said it.
        let stale = step == 1 && entries.is_empty() && asked.is_none_or(|asked| asked.digest != root.digest);
        let last_step = step >= 250;
        let wants_more = !quiet || step == 0 && !pair.pending.is_empty();
        if step == 0 || (!quiet || wants && !stale) && !last_step {
            pair.session.as_mut().expect("accepted").step = step + 1;
            self.send_compare(now, &mut pair, looked.answer, looked.range, wants_more);
            pair.session.as_mut().expect("accepted").sent = if quiet { vec![root] } else { looked.sent };
        }
        self.pairs[slot(id)] = Some(pair);
        if quiet && !(step == 0 && wants_more) {
            self.end(now, id, true);
        } else {
            self.set_timer(now, id);
        }
    }
}
