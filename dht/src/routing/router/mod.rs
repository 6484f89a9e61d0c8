//! One node's routing: whom it knows, what it keeps, what it is looking for.

mod errands;
mod publish;
mod serve;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use deadwax_track::Partition;

use self::errands::Join;
use self::publish::{Publish, Walk};
use super::distance::Key;
use super::lookup::{Lookup, LookupStep, Outcome, Told};
use super::message::{Contact, Request, Response};
use super::record::{PartitionRecord, Records};
use super::settings::RouterSettings;
use super::table::Table;
use crate::{Map, NodeId};

/// One node's part in routing, without the I/O.
///
/// **How to drive it.** Call a command ([`join_via`](Self::join_via), [`set_map`](Self::set_map),
/// [`resolve`](Self::resolve), [`publish`](Self::publish)) or tell what came (`handle_*`); then, each time, and when the
/// time of [`next_deadline`](Self::next_deadline) has come, carry out what [`poll`](Self::poll) returns. Times are
/// milliseconds of one clock that never goes back. Contacts that the driver hands in are of nodes whose key the connection
/// has shown and whom it admits; the router believes what they say about themselves, and no more.
///
/// **Failures.** A request that is not answered within [`RouterSettings::request_ms`] has failed by itself; the driver may
/// say so earlier. A node that lost everybody joins again by the addresses it was given.
///
/// **Bounds.** The table's and the store's own; one lookup for joining, three for refreshing, `publishes_max` and
/// `resolves_max` more, each of at most 8 k requests; k announcements for each of `publishes_max` records; a ping a bucket;
/// three questions about the map at a time.
#[derive(Debug)]
pub struct Router {
    own: Contact,
    settings: RouterSettings,
    table: Table,
    records: Records,
    map: Option<Arc<Map>>,
    /// The newest epoch heard of, and who has that map.
    heard: Option<(u64, Contact)>,
    next_number: u64,
    requests: BTreeMap<u64, Pending>,
    lookups: BTreeMap<u64, Running>,
    publishes: BTreeMap<u64, Publish>,
    /// Partitions whose announcement failed, and when to try again; oldest first.
    again: VecDeque<(u64, Partition)>,
    join: Join,
    walk: Walk,
    map_due: u64,
    sweep_due: u64,
    /// Since when the node has been there for others to tell it their records.
    here_since: Option<u64>,
    heard_at: u64,
    /// Until when most of our neighbours count as cut off from us, or we from them.
    alone_until: u64,
    effects: Vec<Effect>,
}

/// Whom a request goes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Who must answer; none: whoever is there.
    pub id: Option<NodeId>,
    /// `host:port`.
    pub address: Arc<str>,
}

/// What the driver carries out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Send this, and tell what comes of it under this number.
    Send {
        /// The request's number.
        number: u64,
        /// To whom.
        to: Peer,
        /// What.
        request: Request,
    },
    /// The node has joined: it knows its neighbours.
    Joined,
    /// A [`Resolution::Looking`] has ended.
    Resolved {
        /// The lookup's number.
        number: u64,
        /// How; never [`Outcome::Nodes`].
        outcome: Outcome,
        /// How many rounds it took, see [`Lookup::rounds`].
        rounds: u32,
        /// How many requests it took.
        requests: usize,
    },
    /// A record was announced.
    Published {
        /// Which partition.
        partition: Partition,
        /// How many nodes keep it.
        copies: usize,
        /// Whether these are enough, see [`Lookup`]. If not, and the node has a map, it tries again in a minute.
        enough: bool,
    },
    /// Somebody says that there is a newer map than the node has: fetch it, check it, and hand it to
    /// [`set_map`](Router::set_map). Said again, by up to three nodes each time, for as long as that is so.
    FetchMap {
        /// Its epoch.
        epoch: u64,
        /// Who has it.
        from: Contact,
    },
}

/// How a partition is resolved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// The map says it, with no lookup.
    Known(PartitionRecord),
    /// An [`Effect::Resolved`] of this number will say it.
    Looking(u64),
}

/// So many are under way that one more would wait: try again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} are under way, which is the most")]
pub struct Busy(pub usize);

#[derive(Debug)]
struct Pending {
    to: Peer,
    about: About,
    deadline: u64,
}

/// What a request is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum About {
    /// Finding out who is at an address that one may join by.
    Knock,
    /// Whether a table's contact lives.
    Ping,
    Lookup(u64),
    Publish(u64),
    MapEpoch,
}

#[derive(Debug)]
struct Running {
    lookup: Lookup,
    purpose: Purpose,
    /// When to poll it next.
    until: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    Join,
    Refresh,
    Resolve,
    Publish,
}

impl Router {
    /// The router of the node `own`, which knows nobody yet.
    #[must_use]
    pub fn new(own: Contact, settings: RouterSettings) -> Self {
        Self {
            table: Table::new(own.id, settings.table()),
            records: Records::new(own.id, settings.records_max, settings.expire_ms),
            own,
            settings,
            map: None,
            heard: None,
            next_number: 0,
            requests: BTreeMap::new(),
            lookups: BTreeMap::new(),
            publishes: BTreeMap::new(),
            again: VecDeque::new(),
            join: Join::new(),
            walk: Walk::default(),
            map_due: 0,
            sweep_due: 0,
            here_since: None,
            heard_at: 0,
            alone_until: 0,
            effects: Vec::new(),
        }
    }

    /// Who holds `partition`: from the map, or by a lookup.
    ///
    /// # Errors
    ///
    /// [`Busy`]: `resolves_max` are being resolved.
    pub fn resolve(&mut self, now: u64, partition: Partition) -> Result<Resolution, Busy> {
        if let Some(map) = &self.map {
            return Ok(Resolution::Known(PartitionRecord::from_map(map, partition)));
        }
        if self.running(Purpose::Resolve) >= self.settings.resolves_max {
            return Err(Busy(self.settings.resolves_max));
        }
        let mut lookup = Lookup::for_partition(now, partition, self.own.id, self.settings.lookup());
        if let Some(record) = self.records.get(now, partition) {
            lookup.handle_own_record(record.clone());
        }
        Ok(Resolution::Looking(self.start(now, lookup, partition.into(), Purpose::Resolve)))
    }

    /// The node `from` answered the request of this number. Answers to requests that have failed meanwhile are dropped.
    pub fn handle_response(&mut self, now: u64, number: u64, from: Contact, response: Response) {
        let Some(pending) = self.requests.remove(&number) else { return };
        if pending.to.id.is_some_and(|id| id != from.id) || from.id == self.own.id {
            // Another node has that address now, or it is our own.
            return self.fail(now, number, pending);
        }
        self.handle_seen(now, from.clone());
        match (pending.about, response) {
            (About::Knock, _) => self.handle_knocked(now),
            (About::Ping, _) => {}
            (About::Lookup(lookup), response) => {
                let told = match response {
                    Response::Nodes(nodes) => Some(Told { record: None, settled: false, nodes }),
                    Response::NoRecord { settled, nodes } => Some(Told { record: None, settled, nodes }),
                    Response::Record(record, nodes) if record.is_bounded() => {
                        Some(Told { record: Some(record), settled: true, nodes })
                    }
                    _ => None,
                };
                let Some(running) = self.lookups.get_mut(&lookup) else { return };
                running.until = now;
                match told {
                    Some(told) => running.lookup.handle_answer(&from.id, told),
                    None => running.lookup.handle_failed(&from.id),
                }
            }
            (About::Publish(publish), response) => self.handle_announced(now, publish, &response),
            (About::MapEpoch, Response::MapEpoch { epoch, from: Some(holder) }) if holder.is_bounded() => {
                self.handle_epoch(epoch, holder);
            }
            (About::MapEpoch, _) => {}
        }
    }

    /// The request of this number failed: its node could not be reached, or did not answer in time.
    pub fn handle_failed(&mut self, now: u64, number: u64) {
        if let Some(pending) = self.requests.remove(&number) {
            self.fail(now, number, pending);
        }
    }

    /// What to carry out now. `random` is a new random word each time.
    pub fn poll(&mut self, now: u64, random: u64) -> Vec<Effect> {
        let late: Vec<u64> =
            self.requests.iter().filter(|(_, pending)| pending.deadline <= now).map(|(number, _)| *number).collect();
        for number in late {
            self.handle_failed(now, number);
        }
        self.poll_join(now);
        self.poll_refresh(now, random);
        self.poll_map(now, random);
        self.poll_walk(now);
        self.poll_lookups(now);
        std::mem::take(&mut self.effects)
    }

    /// When to poll at the latest, if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self) -> u64 {
        if !self.effects.is_empty() {
            return 0;
        }
        let requests = self.requests.values().map(|pending| pending.deadline);
        let lookups = self.lookups.values().map(|running| running.until);
        let errands = [self.join_due(), self.refresh_due(), self.map_due(), self.walk_due()];
        requests.chain(lookups).chain(errands.into_iter().flatten()).min().unwrap_or(u64::MAX)
    }

    /// Whom the node knows.
    #[must_use]
    pub const fn table(&self) -> &Table {
        &self.table
    }

    /// For tests and simulations that begin with nodes that know one another.
    #[must_use]
    pub const fn table_mut(&mut self) -> &mut Table {
        &mut self.table
    }

    /// What the node keeps for others.
    #[must_use]
    pub const fn records(&self) -> &Records {
        &self.records
    }

    /// How many requests are under way.
    #[must_use]
    pub fn requests_under_way(&self) -> usize {
        self.requests.len()
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn send(&mut self, now: u64, to: Peer, about: About, request: Request) -> u64 {
        let number = self.number();
        let deadline = now.saturating_add(self.settings.request_ms);
        self.requests.insert(number, Pending { to: to.clone(), about, deadline });
        self.effects.push(Effect::Send { number, to, request });
        number
    }

    /// Begins a lookup with the nearest that we know, and in the map.
    fn start(&mut self, now: u64, mut lookup: Lookup, key: Key, purpose: Purpose) -> u64 {
        lookup.handle_doubtful(self.table.nearest_doubtful(&key, self.settings.k));
        lookup.handle_seeds(self.table.nearest(&key, self.settings.k));
        self.table.handle_lookup(now, &key);
        let number = self.number();
        self.lookups.insert(number, Running { lookup, purpose, until: now });
        number
    }

    fn running(&self, purpose: Purpose) -> usize {
        self.lookups.values().filter(|running| running.purpose == purpose).count()
    }

    fn poll_lookups(&mut self, now: u64) {
        let due: Vec<u64> =
            self.lookups.iter().filter(|(_, running)| running.until <= now).map(|(number, _)| *number).collect();
        for number in due {
            let Some(mut running) = self.lookups.remove(&number) else { continue };
            loop {
                match running.lookup.poll(now) {
                    LookupStep::Ask(contact) => {
                        let request = running.request();
                        self.send(now, contact.into(), About::Lookup(number), request);
                    }
                    LookupStep::Wait { until } => {
                        running.until = until;
                        self.lookups.insert(number, running);
                        break;
                    }
                    LookupStep::Done(outcome) => {
                        self.handle_done(now, number, &running, outcome);
                        break;
                    }
                }
            }
        }
    }

    fn handle_done(&mut self, now: u64, number: u64, running: &Running, outcome: Outcome) {
        match running.purpose {
            Purpose::Join => self.handle_neighbours(now),
            Purpose::Refresh => self.handle_refreshed(now, &outcome),
            Purpose::Resolve => {
                let (rounds, requests) = (running.lookup.rounds(), running.lookup.requests());
                self.effects.push(Effect::Resolved { number, outcome, rounds, requests });
            }
            Purpose::Publish => self.handle_keepers(now, number, &running.lookup, outcome),
        }
    }

    fn fail(&mut self, now: u64, number: u64, pending: Pending) {
        if let Some(id) = pending.to.id {
            self.table.handle_failed(now, &id);
            if self.is_alone() {
                // Whoever holds a record that we lack may be on the other side; for so long it would be kept there.
                self.alone_until = now.saturating_add(self.settings.expire_ms);
            }
        }
        match pending.about {
            About::Knock => self.handle_no_answer(now),
            About::Lookup(lookup) => {
                if let (Some(running), Some(id)) = (self.lookups.get_mut(&lookup), pending.to.id) {
                    running.until = now;
                    running.lookup.handle_failed(&id);
                }
            }
            About::Publish(publish) => self.handle_announced(now, publish, &Response::Refused),
            About::Ping | About::MapEpoch => {}
        }
        debug_assert!(!self.requests.contains_key(&number), "request {number} has ended");
    }

    /// A contact asked or answered.
    fn handle_seen(&mut self, now: u64, contact: Contact) {
        // Who was cut off for an hour may have missed what was announced.
        if now >= self.heard_at.saturating_add(self.settings.republish_ms) {
            self.here_since = self.here_since.map(|_| now);
        }
        self.heard_at = now;
        if !contact.is_bounded() {
            return;
        }
        if let Some(oldest) = self.table.handle_seen(now, contact) {
            self.send(now, oldest.into(), About::Ping, Request::Ping);
        }
    }
}

impl Running {
    fn request(&self) -> Request {
        match self.lookup.partition() {
            Some(partition) => Request::FindPartition(partition),
            None => Request::FindNode(self.lookup.target()),
        }
    }
}

impl From<Contact> for Peer {
    fn from(contact: Contact) -> Self {
        Self { id: Some(contact.id), address: contact.address }
    }
}
