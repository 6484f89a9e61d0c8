//! What a node does unasked: join, refresh its table, ask for the map.

use std::sync::Arc;

use deadwax_track::Partition;

use super::super::distance::Key;
use super::{About, Contact, Directory, Effect, Lookup, NodeId, Outcome, Peer, Purpose, Request, Router};
use crate::random::Random;

/// The most addresses that a node joins by.
const ADDRESSES_MAX: usize = 64;
/// How many refreshes run at a time.
const REFRESHES_MAX: usize = 3;
/// How many nodes are asked for the map's epoch at a time.
const MAP_ASKED: usize = 3;
/// The most nodes that are noted as not answering; those beyond are told of and asked as if they lived.
const DOUBTS_MAX: usize = 4_096;
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

    /// The full map, from here on: partitions are resolved with no lookup, what others ask is answered from all its
    /// nodes, and those partitions that the node holds are announced. A node with the map has joined. An older map than
    /// the node has is dropped.
    ///
    /// `own` is what the node holds by this map, rising ([`Directory::held`]); `changed` those of them of which an
    /// earlier map that this node announced said something else: all of them where there was none, or that is not
    /// known. They are announced within `announce_ms`, the others when it is their turn.
    pub fn set_map(&mut self, now: u64, directory: Arc<Directory>, own: Arc<[Partition]>, changed: &[Partition]) {
        debug_assert!(own.is_sorted(), "partitions are given in rising order");
        let epoch = directory.map().epoch();
        if self.epoch() >= epoch {
            return;
        }
        self.table.retain(|id| !directory.has(id));
        if self.directory.replace(directory).is_none() {
            let settings = &self.settings;
            self.table.set_refresh_ms(now, settings.refresh_ms.max(settings.refresh_mapped_ms));
        }
        self.records.drop_until_epoch(epoch);
        self.map_due = now.saturating_add(self.settings.map_check_ms);
        if self.join.state != JoinState::Joined {
            self.join.state = JoinState::Joined;
            self.here_since.get_or_insert(now);
            self.effects.push(Effect::Joined);
        }
        self.handle_held(now, own, changed);
    }

    /// The driver knows that this node is down: it is told to nobody until it is [up](Self::handle_up), or heard of.
    pub fn handle_down(&mut self, now: u64, id: &NodeId) {
        self.doubt(*id, u8::MAX);
        for _ in 0..self.settings.failures_max {
            self.table.handle_failed(now, id);
        }
    }

    /// The driver knows that this node lives.
    pub fn handle_up(&mut self, id: &NodeId) {
        self.doubts.remove(id);
    }

    /// Notes `failures` more of a node.
    pub(super) fn doubt(&mut self, id: NodeId, failures: u8) {
        let count = self.doubts.get(&id).copied().unwrap_or(0);
        if count > 0 || self.doubts.len() < DOUBTS_MAX {
            self.doubts.insert(id, count.saturating_add(failures));
        }
    }

    pub(super) fn is_doubtful(&self, id: &NodeId) -> bool {
        !self.doubts.is_empty() && self.doubts.get(id).is_some_and(|failures| *failures >= self.settings.failures_max)
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
        if self.directory.is_some() {
            return;
        }
        let mut due = now;
        if self.join.next == 0 {
            due = now.saturating_add(self.join.wait_ms);
            self.join.wait_ms = (2 * self.join.wait_ms).min(KNOCK_AGAIN_MS.1);
        }
        self.join.state = JoinState::Due(due);
    }

    /// The neighbours are in the table now. The rest of it is filled by looking something up in each bucket.
    pub(super) fn handle_neighbours(&mut self, now: u64) {
        if self.directory.is_some() {
            return;
        }
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
            self.sweep_due = now.saturating_add(self.settings.refresh_ms);
        }
        let mut random = Random(random);
        while self.may_refresh() {
            let Some(bucket) = self.table.refresh_due(now) else { return };
            let words = [(); 4].map(|()| random.draw());
            let key: Key = self.table.refresh_key(bucket, words);
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
        let met_nobody = self.directory.is_none() && matches!(outcome, Outcome::Nodes(nodes) if nodes.is_empty());
        if met_nobody && self.table.contacts().all(|(_, doubtful)| doubtful) && !self.join.addresses.is_empty() {
            self.join.state = JoinState::Due(now);
        }
    }

    /// Asks some contacts for the newest epoch.
    pub(super) fn poll_map(&mut self, now: u64, random: u64) {
        if self.map_due().is_none_or(|due| now < due) {
            return;
        }
        let missing = self.directory.is_none();
        let wait_ms = if missing { self.settings.map_missing_ms } else { self.settings.map_check_ms };
        self.map_due = now.saturating_add(wait_ms);
        // What was heard is forgotten unless it is heard again.
        self.heard = None;
        let mut random = Random(random);
        for _ in 0..MAP_ASKED {
            if let Some(contact) = self.anybody(&mut random) {
                self.send(now, contact.into(), About::MapEpoch, Request::MapEpoch);
            }
        }
    }

    /// One of the map's nodes or, without the map, of the table's: the one nearest to a random key may be any.
    fn anybody(&self, random: &mut Random) -> Option<Contact> {
        match &self.directory {
            Some(directory) if !directory.contacts().is_empty() => {
                let contact = &directory.contacts()[random.below(directory.contacts().len())];
                (contact.id != self.own.id && !self.is_doubtful(&contact.id)).then(|| contact.clone())
            }
            _ => self.table.nearest(&Key::from_words([(); 4].map(|()| random.draw())), 1).pop(),
        }
    }

    pub(super) fn map_due(&self) -> Option<u64> {
        (self.join.state == JoinState::Joined).then_some(self.map_due)
    }

    /// Somebody told of the newest map that they know of. Each that is newer than ours is fetched: one that turns out
    /// not to be there must not hide another.
    pub(super) fn handle_epoch(&mut self, now: u64, epoch: u64, holder: Contact) {
        if epoch <= self.epoch() || holder.id == self.own.id {
            return;
        }
        self.unmapped_until = now.saturating_add(self.settings.expire_ms);
        if self.heard.as_ref().is_none_or(|(heard, _)| epoch > *heard) {
            self.heard = Some((epoch, holder.clone()));
        }
        self.effects.push(Effect::FetchMap { epoch, from: holder });
    }
}
