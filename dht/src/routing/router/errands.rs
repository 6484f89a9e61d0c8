//! What a node does unasked: join, refresh its table, ask for the map.

use std::sync::Arc;

use super::super::distance::Key;
use super::{About, Contact, Effect, Lookup, Outcome, Peer, Purpose, Request, Router};
use crate::Map;
use crate::random::Random;

/// The most addresses that a node joins by.
const ADDRESSES_MAX: usize = 64;
/// How many refreshes run at a time.
const REFRESHES_MAX: usize = 3;
/// How many nodes are asked for the map's epoch at a time.
const MAP_ASKED: usize = 3;
/// How long a node waits, at first and at most, when nobody is at any of the addresses, in ms.
const KNOCK_AGAIN_MS: (u64, u64) = (1_000, 60_000);

/// How a node gets to know others.
#[derive(Debug)]
pub(super) struct Join {
    addresses: Vec<Arc<str>>,
    next: usize,
    wait_ms: u64,
    state: JoinState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum JoinState {
    /// Nobody was named: the first node of all, or one that others find.
    Idle,
    /// An address is to be tried.
    Due(u64),
    /// An answer is waited for, or the lookup of our own id runs.
    Busy,
    Joined,
}

impl Join {
    pub(super) fn new() -> Self {
        Self { addresses: Vec::new(), next: 0, wait_ms: KNOCK_AGAIN_MS.0, state: JoinState::Idle }
    }
}

impl Router {
    /// Joins the network by whoever is at one of these addresses (`host:port`), tried in turn until one answers; those
    /// beyond the first 64 are not looked at. The own one among them does no harm.
    pub fn join_via(&mut self, now: u64, addresses: impl IntoIterator<Item = Arc<str>>) {
        self.join.addresses = addresses.into_iter().take(ADDRESSES_MAX).collect();
        self.join.next = 0;
        if !self.join.addresses.is_empty() && self.join.state != JoinState::Busy {
            self.join.state = JoinState::Due(now);
        }
    }

    /// The node is part of the network as it is: the first one of all, or one whose table the caller filled
    /// ([`table_mut`](Self::table_mut)) and that has been here since `since`.
    pub fn assume_joined(&mut self, now: u64, since: u64) {
        self.join.state = JoinState::Joined;
        self.here_since = Some(since);
        self.heard_at = now;
    }

    /// The full map, from here on: partitions are resolved with no lookup, and those that the node holds are announced.
    /// An older one than the node has is dropped.
    pub fn set_map(&mut self, now: u64, map: Arc<Map>) {
        if self.map.as_ref().is_some_and(|old| old.epoch() >= map.epoch()) {
            return;
        }
        self.map = Some(map);
        self.map_due = now.saturating_add(self.settings.map_check_ms);
        self.start_walk(now);
    }

    pub(super) fn poll_join(&mut self, now: u64) {
        if !matches!(self.join.state, JoinState::Due(due) if due <= now) {
            return;
        }
        let address = self.join.addresses[self.join.next].clone();
        self.join.next = (self.join.next + 1) % self.join.addresses.len();
        self.join.state = JoinState::Busy;
        self.send(now, Peer { id: None, address }, About::Knock, Request::Ping);
    }

    pub(super) fn join_due(&self) -> Option<u64> {
        match self.join.state {
            JoinState::Due(due) => Some(due),
            _ => None,
        }
    }

    /// Somebody is there, and in the table now: ask for our own neighbours.
    pub(super) fn handle_knocked(&mut self, now: u64) {
        let key = self.own.key();
        let lookup = Lookup::for_nodes(now, key, self.own.id, self.settings.lookup());
        self.start(now, lookup, key, Purpose::Join);
    }

    /// Nobody was at the address, or only we. The next one is tried at once; after a whole turn, a little later.
    pub(super) fn handle_no_answer(&mut self, now: u64) {
        let mut due = now;
        if self.join.next == 0 {
            due = now.saturating_add(self.join.wait_ms);
            self.join.wait_ms = (2 * self.join.wait_ms).min(KNOCK_AGAIN_MS.1);
        }
        self.join.state = JoinState::Due(due);
    }

    /// The neighbours are in the table now. The rest of it is filled by looking something up in each bucket.
    pub(super) fn handle_neighbours(&mut self, now: u64) {
        if self.table.contacts().all(|(_, doubtful)| doubtful) {
            return self.handle_no_answer(now);
        }
        self.join.state = JoinState::Joined;
        self.join.wait_ms = KNOCK_AGAIN_MS.0;
        self.here_since.get_or_insert(now);
        self.table.refresh_all(now);
        self.map_due = now;
        self.effects.push(Effect::Joined);
    }

    pub(super) fn poll_refresh(&mut self, now: u64, random: u64) {
        if now >= self.sweep_due {
            self.records.drop_expired(now);
            self.sweep_due = now.saturating_add(self.settings.republish_ms);
        }
        let mut random = Random(random);
        while self.may_refresh() {
            let Some(bucket) = self.table.refresh_due(now) else { return };
            let words = [(); 4].map(|()| random.draw());
            let key: Key = self.own.key().in_bucket(bucket, words);
            let lookup = Lookup::for_nodes(now, key, self.own.id, self.settings.lookup());
            self.start(now, lookup, key, Purpose::Refresh);
        }
    }

    pub(super) fn refresh_due(&self) -> Option<u64> {
        if self.may_refresh() { self.table.next_refresh() } else { None }
    }

    fn may_refresh(&self) -> bool {
        self.join.state == JoinState::Joined && self.running(Purpose::Refresh) < REFRESHES_MAX
    }

    /// A refresh that met nobody: all that we knew are gone, so we begin anew with the addresses.
    pub(super) fn handle_refreshed(&mut self, now: u64, outcome: &Outcome) {
        let met_nobody = matches!(outcome, Outcome::Nodes(nodes) if nodes.is_empty());
        if met_nobody && self.table.contacts().all(|(_, doubtful)| doubtful) && !self.join.addresses.is_empty() {
            self.join.state = JoinState::Due(now);
        }
    }

    /// Asks some contacts for the newest epoch.
    pub(super) fn poll_map(&mut self, now: u64, random: u64) {
        if self.map_due().is_none_or(|due| now < due) {
            return;
        }
        let missing = self.map.is_none();
        let wait_ms = if missing { self.settings.map_missing_ms } else { self.settings.map_check_ms };
        self.map_due = now.saturating_add(wait_ms);
        // What was heard is forgotten unless it is heard again.
        self.heard = None;
        let mut random = Random(random);
        // The contacts nearest to random keys: any of the table may be one of them.
        for _ in 0..MAP_ASKED {
            let words = [(); 4].map(|()| random.draw());
            let key = Key::from_words(words);
            for contact in self.table.nearest(&key, 1) {
                self.send(now, contact.into(), About::MapEpoch, Request::MapEpoch);
            }
        }
    }

    pub(super) fn map_due(&self) -> Option<u64> {
        (self.join.state == JoinState::Joined).then_some(self.map_due)
    }

    /// Somebody told of the newest map that they know of. Each that is newer than ours is fetched: one that turns out not
    /// to be there must not hide another.
    pub(super) fn handle_epoch(&mut self, epoch: u64, holder: Contact) {
        let own = self.map.as_ref().map_or(0, |map| map.epoch());
        if epoch <= own || holder.id == self.own.id {
            return;
        }
        if self.heard.as_ref().is_none_or(|(heard, _)| epoch > *heard) {
            self.heard = Some((epoch, holder.clone()));
        }
        self.effects.push(Effect::FetchMap { epoch, from: holder });
    }
}
