//! One node's routing: whom it knows, what it keeps, what it is looking for.

mod errands;
mod publish;
mod serve;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use deadwax_track::Partition;

use self::errands::Join;
use self::publish::{Publish, Turns};
use super::directory::Directory;
use super::distance::Key;
use super::lookup::{Lookup, LookupStep, Outcome, Told};
use super::message::{Contact, Request, Response};
use super::record::{PartitionRecord, Records};
use super::settings::RouterSettings;
use super::table::Table;
use crate::NodeId;

/// One node's part in routing, without the I/O.
///
/// Without a map, the node knows whom it has met: the table. With one it knows all nodes of the map ([`Directory`]),
/// which many routers of a program may share, and the table has only those that are not in the map.
///
/// **How to drive it.** Call a command ([`join_via`](Self::join_via), [`set_map`](Self::set_map),
/// [`resolve`](Self::resolve), [`publish`](Self::publish)) or tell what came (`handle_*`); then, each time, and when
/// the time of [`next_deadline`](Self::next_deadline) has come, carry out what [`poll`](Self::poll) returns. Times are
/// milliseconds of one clock that never goes back. Contacts that the driver hands in are of nodes whose key the
/// connection has shown and whom it admits; the router believes what they say about themselves, and no more.
///
/// **Failures.** A request that is not answered within [`RouterSettings::request_ms`] has failed by itself; the driver
/// may say so earlier. A node that lost everybody joins again by the addresses it was given.
///
/// **Bounds.** The table's and the store's own; one lookup for joining, three for refreshing, `publishes_max` and
/// `resolves_max` more, each of at most 8 k requests; for each of `publishes_max` batches of at most
/// [`ANNOUNCED_MAX`](super::ANNOUNCED_MAX) records k announcements a record; a ping a bucket; three questions about the
/// map at a time; 4,096 nodes that are known not to answer. What waits for its turn is no more than what the node
/// holds.
#[derive(Debug)]
pub struct Router {
    own: Contact,
    settings: RouterSettings,
    table: Table,
    records: Records,
    directory: Option<Arc<Directory>>,
    /// How often nodes of the map failed in a row.
    doubts: BTreeMap<NodeId, u8>,
    /// The newest epoch heard of, and who has that map.
    heard: Option<(u64, Contact)>,
    next_number: u64,
    /// By number. All have the same time to answer, so that the first is due first.
    requests: BTreeMap<u64, Pending>,
    lookups: BTreeMap<u64, Running>,
    /// When each lookup is polled next.
    lookups_due: BTreeSet<(u64, u64)>,
    /// How many lookups there are of each purpose.
    running: [usize; 4],
    publishes: BTreeMap<u64, Publish>,
    join: Join,
    turns: Turns,
    map_due: u64,
    sweep_due: u64,
    /// Since when the node has been there for others to tell it their records.
    here_since: Option<u64>,
    heard_at: u64,
    /// Until when most of our neighbours count as cut off from us, or we from them.
    alone_until: u64,
    /// Until when somebody may have a map and not know of us.
    unmapped_until: u64,
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
    /// The announcement, and which of its messages.
    Publish(u64, usize),
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
            directory: None,
            doubts: BTreeMap::new(),
            heard: None,
            next_number: 0,
            requests: BTreeMap::new(),
            lookups: BTreeMap::new(),
            lookups_due: BTreeSet::new(),
            running: [0; 4],
            publishes: BTreeMap::new(),
            join: Join::new(),
            turns: Turns::default(),
            map_due: 0,
            sweep_due: 0,
            here_since: None,
            heard_at: 0,
            alone_until: 0,
            unmapped_until: 0,
            effects: Vec::new(),
        }
    }

    /// Who holds `partition`: from the map, or by a lookup.
    ///
    /// # Errors
    ///
    /// [`Busy`]: `resolves_max` are being resolved.
    pub fn resolve(&mut self, now: u64, partition: Partition) -> Result<Resolution, Busy> {
        if let Some(directory) = &self.directory {
            return Ok(Resolution::Known(directory.record(partition)));
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
                match told {
                    Some(told) => running.lookup.handle_answer(&from.id, told),
                    None => running.lookup.handle_failed(&from.id),
                }
                self.wake(lookup, now);
            }
            (About::Publish(publish, at), response) => self.handle_announced(now, publish, at, Some(response)),
            (About::MapEpoch, Response::MapEpoch { epoch, from: Some(holder) }) if holder.is_bounded() => {
                self.handle_epoch(now, epoch, holder);
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
        while let Some((&number, pending)) = self.requests.first_key_value()
            && pending.deadline <= now
        {
            self.handle_failed(now, number);
        }
        self.poll_join(now);
        self.poll_refresh(now, random);
        self.poll_map(now, random);
        self.poll_turns(now);
        self.poll_lookups(now);
        std::mem::take(&mut self.effects)
    }

    /// When to poll at the latest, if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self) -> u64 {
        if !self.effects.is_empty() {
            return 0;
        }
        let request = self.requests.first_key_value().map(|(_, pending)| pending.deadline);
        let lookup = self.lookups_due.first().map(|(due, _)| *due);
        let dues = [request, lookup, self.join_due(), self.refresh_due(), self.map_due(), self.turns_due()];
        dues.into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    /// The epoch of the map that the node has; 0: none.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.directory.as_ref().map_or(0, |directory| directory.map().epoch())
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
        let k = self.settings.k;
        lookup.handle_doubtful(self.table.nearest_doubtful(&key, k));
        if let Some(directory) = self.directory.as_ref().filter(|_| !self.doubts.is_empty()) {
            let doubtful = directory.nearest(&key).take(2 * k).filter(|contact| self.is_doubtful(&contact.id));
            lookup.handle_doubtful(doubtful.cloned().collect());
        }
        lookup.handle_seeds(self.nearest(&key, k, None));
        self.table.handle_lookup(now, &key);
        let number = self.number();
        self.running[purpose as usize] += 1;
        self.lookups.insert(number, Running { lookup, purpose, until: now });
        self.lookups_due.insert((now, number));
        number
    }

    const fn running(&self, purpose: Purpose) -> usize {
        self.running[purpose as usize]
    }

    /// The lookup is to be polled at `until`.
    fn wake(&mut self, number: u64, until: u64) {
        if let Some(running) = self.lookups.get_mut(&number) {
            self.lookups_due.remove(&(running.until, number));
            running.until = until;
            self.lookups_due.insert((until, number));
        }
    }

    fn poll_lookups(&mut self, now: u64) {
        while let Some(&(until, number)) = self.lookups_due.first()
            && until <= now
        {
            let Some(running) = self.lookups.get_mut(&number) else {
                unreachable!("a lookup that is due is there: {number}")
            };
            match running.lookup.poll(now) {
                LookupStep::Ask(contact) => {
                    let request = running.request();
                    self.send(now, contact.into(), About::Lookup(number), request);
                }
                LookupStep::Wait { until } => self.wake(number, until.max(now + 1)),
                LookupStep::Done(outcome) => {
                    self.lookups_due.remove(&(until, number));
                    if let Some(running) = self.lookups.remove(&number) {
                        self.running[running.purpose as usize] -= 1;
                        self.handle_done(now, number, &running, outcome);
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
            if self.directory.as_ref().is_some_and(|directory| directory.has(&id)) {
                self.doubt(id, 1);
            } else if self.directory.is_none() && self.is_alone() {
                // Whoever holds a record that we lack may be on the other side; for so long it would be kept there.
                self.alone_until = now.saturating_add(self.settings.expire_ms);
            }
        }
        match pending.about {
            About::Knock => self.handle_no_answer(now),
            About::Lookup(lookup) => {
                if let (Some(running), Some(id)) = (self.lookups.get_mut(&lookup), pending.to.id) {
                    running.lookup.handle_failed(&id);
                    self.wake(lookup, now);
                }
            }
            About::Publish(publish, at) => self.handle_announced(now, publish, at, None),
            About::Ping | About::MapEpoch => {}
        }
        debug_assert!(!self.requests.contains_key(&number), "request {number} has ended");
    }

    /// A contact asked or answered.
    fn handle_seen(&mut self, now: u64, contact: Contact) {
        // Who heard of nobody for so long that a refresh must have met somebody was cut off, and may have missed what
        // was announced.
        if now >= self.heard_at.saturating_add(self.settings.refresh_ms) {
            self.here_since = self.here_since.map(|_| now);
        }
        self.heard_at = now;
        if !contact.is_bounded() {
            return;
        }
        if self.directory.as_ref().is_some_and(|directory| directory.has(&contact.id)) {
            // The directory knows it. The table has the others, of whom there are few, and costs no pings.
            self.doubts.remove(&contact.id);
            return;
        }
        if !self.doubts.is_empty() {
            self.doubts.remove(&contact.id);
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
