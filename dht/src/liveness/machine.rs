//! One node's view of who is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::brake::{Brake, MASS_WINDOW_MS, mass};
use super::contact::Contact;
use super::report::{DeadBy, DownBy, NodeReport, Report, Standing};
use super::runtime::Event;
use super::swim::Swim;
use crate::{Map, NodeId};

/// How long a node must be silent to be dead, in ms of this node's contact with others.
pub const SILENCE_MS: u64 = 30 * 60 * 1_000;
/// How many requests in a row must fail for a node to count as down.
pub const FAILURES_MAX: u8 = 3;
/// How long that lasts after the last failure, in ms: then it is tried again.
pub const FAILING_MS: u64 = 30 * 1_000;

/// What the driver carries out or shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Send this. It may get lost.
    Send {
        /// To whom: as a datagram that proves to it who this node is.
        to: NodeId,
        /// `host:port`, of the map.
        address: Arc<str>,
        /// At most [`DATAGRAM_BYTES_MAX`](super::DATAGRAM_BYTES_MAX).
        bytes: Vec<u8>,
    },
    /// A node stands otherwise than before.
    Changed {
        /// Which.
        node: NodeId,
        /// How it stands now.
        standing: Standing,
    },
    /// A mass of this zone vanished: see [`Liveness::brake`].
    Braked {
        /// Which zone.
        zone: String,
    },
    /// The zone's brake is off.
    Unbraked {
        /// Which zone.
        zone: String,
    },
}

/// A node's absence, as SWIM tells it.
#[derive(Clone, Copy, Debug)]
struct Absence {
    since_ms: u64,
    /// When it began, in ms of contact: of the mass that vanished with it.
    fell_at: u64,
    /// Since when nothing was heard from it, in ms of contact.
    silent_from: u64,
    /// Since when it is dead by silence, in ms of the driver's clock.
    silent: Option<u64>,
    /// An operator said that this absence is no reason to stop.
    released: bool,
}

#[derive(Debug)]
struct Peer {
    zone: Arc<str>,
    address: Arc<str>,
    absence: Option<Absence>,
    /// Requests that failed since one succeeded, the first and the last of them.
    failures: u8,
    failing_from: u64,
    failed_at: u64,
    /// Since when the map's log calls it dead.
    declared: Option<u64>,
}

impl Peer {
    fn standing(&self, now: u64) -> Standing {
        if let Some(since_ms) = self.declared {
            return Standing::Dead { since_ms, by: DeadBy::Declared };
        }
        if let Some(absence) = self.absence {
            return match absence.silent {
                Some(since_ms) => Standing::Dead { since_ms, by: DeadBy::Silence },
                None => Standing::Down { since_ms: absence.since_ms, by: DownBy::Swim },
            };
        }
        if self.failures >= FAILURES_MAX && now.saturating_sub(self.failed_at) < FAILING_MS {
            return Standing::Down { since_ms: self.failing_from, by: DownBy::Requests };
        }
        Standing::Up
    }
}

/// Who is there, as far as this node knows: SWIM, the standing of each node, and the brakes.
///
/// **How to drive it.** [`set_map`](Self::set_map) first. Then tell what comes (`handle_datagram`, `request_*`), and call
/// [`poll`](Self::poll) after each and when [`next_deadline`](Self::next_deadline) has come, and carry out what it gives.
/// Times are ms of one clock; where it jumps, or nobody polls for a while, that time does not count against anybody.
/// Equal inputs and seeds give equal effects.
///
/// **Failures.** Datagrams may be lost, doubled and late. One that is not of this cluster, not from the node that it names,
/// or from or about a node that the map does not have is ignored, in whole or in that part.
///
/// **Bounds.** A few hundred bytes for each node of the map. At most 256 datagrams for an input or a poll; about 2 a second
/// where nothing happens and 20 where news are spread, of at most 1,400 bytes each. Handling one takes time in proportion
/// to the number of nodes: where there are 10,000, some 0.1 ms, and as much again for each change that it tells.
pub struct Liveness {
    node: NodeId,
    swim: Swim,
    contact: Contact,
    now: u64,
    peers: BTreeMap<NodeId, Peer>,
    /// Those with an absence.
    absent: BTreeSet<NodeId>,
    /// Those with failures.
    failing: BTreeSet<NodeId>,
    /// How many live in each zone, this node among them, without those declared dead.
    zones: BTreeMap<Arc<str>, usize>,
    brakes: BTreeMap<Arc<str>, Brake>,
    effects: Vec<Effect>,
}

impl Liveness {
    /// The view of `node`, which knows nobody yet.
    ///
    /// `life`: which start of its process this is; each must have a larger one, such as ms since 1970 at the start. Where
    /// it is not larger the node's first seconds are confused, and it goes on from the life that others remember.
    /// `cluster`: [`ClusterId::prefix`](crate::ClusterId::prefix). `seed`: another for each node and start. `now`: ms.
    #[must_use]
    pub fn new(node: NodeId, life: u64, cluster: u64, seed: u64, now: u64) -> Self {
        Self {
            node,
            swim: Swim::new(node, life, cluster, seed, now),
            contact: Contact::new(now),
            now,
            peers: BTreeMap::new(),
            absent: BTreeSet::new(),
            failing: BTreeSet::new(),
            zones: BTreeMap::new(),
            brakes: BTreeMap::new(),
            effects: Vec::new(),
        }
    }

    /// Takes over the map and whom its log calls dead ([`State::dead`](crate::log::State::dead)). A node that is new in it
    /// counts as up until it fails to answer; one that is gone from it is forgotten.
    pub fn set_map(&mut self, now: u64, map: &Map, dead: &BTreeSet<NodeId>) {
        self.now = now;
        self.swim.set_members(now, map.nodes().iter().map(|node| node.id));
        let mut before = std::mem::take(&mut self.peers);
        self.zones.clear();
        for node in map.nodes() {
            let zone: Arc<str> = node.zone.as_str().into();
            let counts = usize::from(!dead.contains(&node.id));
            *self.zones.entry(zone.clone()).or_default() += counts;
            if node.id == self.node {
                continue;
            }
            let old = before.remove(&node.id);
            let was = old.as_ref().map_or(Standing::Up, |peer| peer.standing(now));
            let declared = dead.contains(&node.id);
            let peer = Peer {
                zone,
                address: node.address.as_str().into(),
                absence: old.as_ref().and_then(|peer| peer.absence),
                failures: old.as_ref().map_or(0, |peer| peer.failures),
                failing_from: old.as_ref().map_or(0, |peer| peer.failing_from),
                failed_at: old.as_ref().map_or(0, |peer| peer.failed_at),
                declared: declared.then(|| old.and_then(|peer| peer.declared).unwrap_or(now)),
            };
            let standing = peer.standing(now);
            self.peers.insert(node.id, peer);
            if standing != was {
                self.effects.push(Effect::Changed { node: node.id, standing });
            }
        }
        let known = &self.peers;
        self.absent.retain(|node| known.contains_key(node));
        self.failing.retain(|node| known.contains_key(node));
        for brake in self.brakes.values_mut() {
            let counts = |peer: &Peer| peer.declared.is_none() && *peer.zone == *brake.zone;
            brake.nodes.retain(|node| known.get(node).is_some_and(counts));
        }
        self.lift();
        self.follow();
    }

    /// Handles a datagram that `from` sent, as the driver has proof.
    pub fn handle_datagram(&mut self, now: u64, from: NodeId, bytes: &[u8]) {
        self.now = now;
        if self.swim.handle_datagram(now, from, bytes) {
            self.heard(from);
        }
        self.follow();
    }

    /// A request to `node` was answered, in whatever way.
    pub fn request_succeeded(&mut self, now: u64, node: NodeId) {
        self.now = now;
        if self.peers.contains_key(&node) {
            self.failing.remove(&node);
            self.change(node, |peer| peer.failures = 0);
            self.heard(node);
        }
    }

    /// A request to `node` had no answer, or no connection: [`FAILURES_MAX`] in a row make it count as down for
    /// [`FAILING_MS`]. They never make it dead.
    pub fn request_failed(&mut self, now: u64, node: NodeId) {
        self.now = now;
        if self.peers.contains_key(&node) {
            self.failing.insert(node);
            self.change(node, |peer| {
                if peer.failures == 0 || now.saturating_sub(peer.failed_at) >= FAILING_MS {
                    (peer.failures, peer.failing_from) = (0, now);
                }
                peer.failures = peer.failures.saturating_add(1);
                peer.failed_at = now;
            });
        }
    }

    /// An operator's word that what vanished in `zone` is no accident: its brake is off, and those who are silent for
    /// long enough are dead. Returns whether there was a brake.
    pub fn release(&mut self, now: u64, zone: &str) -> bool {
        self.now = now;
        let Some((zone, brake)) = self.brakes.remove_entry(zone) else { return false };
        for node in brake.nodes {
            if let Some(absence) = self.peers.get_mut(&node).and_then(|peer| peer.absence.as_mut()) {
                absence.released = true;
            }
        }
        self.effects.push(Effect::Unbraked { zone: zone.to_string() });
        true
    }

    /// Does what is due, and gives what is to be carried out.
    #[must_use]
    pub fn poll(&mut self, now: u64) -> Vec<Effect> {
        self.now = now;
        self.swim.poll(now);
        self.follow();
        self.bury();
        self.forgive();
        for (to, bytes) in self.swim.take_outbox() {
            if let Some(peer) = self.peers.get(&to) {
                self.effects.push(Effect::Send { to, address: peer.address.clone(), bytes });
            }
        }
        std::mem::take(&mut self.effects)
    }

    /// When to poll next, in ms: at most a second ahead.
    #[must_use]
    pub fn next_deadline(&self) -> u64 {
        self.swim.next_deadline()
    }

    /// How `node` stands; none: the map does not have it. A node is up for itself, but where the log calls it dead: that
    /// the node learns from the log.
    #[must_use]
    pub fn standing(&self, node: &NodeId) -> Option<Standing> {
        if *node == self.node {
            return Some(Standing::Up);
        }
        self.peers.get(node).map(|peer| peer.standing(self.now))
    }

    /// Whether `node` is up.
    #[must_use]
    pub fn is_up(&self, node: &NodeId) -> bool {
        self.standing(node).is_some_and(|standing| standing.is_up())
    }

    /// Sorts `nodes` so that those likelier to answer come first ([`Standing::rank`]), and last those that the map does
    /// not have; among equals the order stays.
    pub fn order(&self, nodes: &mut [NodeId]) {
        nodes.sort_by_key(|node| self.standing(node).map_or(u8::MAX, |standing| standing.rank()));
    }

    /// The nodes whose tracks are to be protected anew, by name.
    #[must_use]
    pub fn dead(&self) -> Vec<NodeId> {
        let dead = self.peers.iter().filter(|(_, peer)| peer.standing(self.now).is_dead());
        dead.map(|(node, _)| *node).collect()
    }

    /// Why nothing is moved in `zone`, if that is so.
    #[must_use]
    pub fn brake(&self, zone: &str) -> Option<&Brake> {
        self.brakes.get(zone)
    }

    /// What status shows.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut up = 0;
        let mut not_up = Vec::new();
        for (node, peer) in &self.peers {
            let standing = peer.standing(self.now);
            if standing.is_up() {
                up += 1;
                continue;
            }
            let silent = |absence: Absence| self.contact.contact_ms() - absence.silent_from;
            let (zone, silent_ms) = (peer.zone.to_string(), peer.absence.map_or(0, silent));
            not_up.push(NodeReport { node: *node, zone, standing, silent_ms });
        }
        Report { up, not_up, brakes: self.brakes.values().cloned().collect(), heard_ms: self.contact.heard_at() }
    }

    /// Changes what is known of a node of the map.
    fn change(&mut self, node: NodeId, change: impl FnOnce(&mut Peer)) {
        let peer = self.peers.get_mut(&node).expect("a node of the map");
        let was = peer.standing(self.now);
        change(peer);
        let standing = peer.standing(self.now);
        if standing != was {
            self.effects.push(Effect::Changed { node, standing });
        }
    }

    /// `node` was heard: it is not silent, even where it counts as down until it begins a new life.
    fn heard(&mut self, node: NodeId) {
        self.contact.heard(self.now);
        let contact_ms = self.contact.contact_ms();
        if self.absent.contains(&node) {
            self.change(node, |peer| {
                if let Some(absence) = &mut peer.absence {
                    (absence.silent_from, absence.silent) = (contact_ms, None);
                }
            });
        }
    }

    /// Follows SWIM.
    fn follow(&mut self) {
        for event in self.swim.take_events() {
            match event {
                Event::Down(node) => self.fell(node),
                Event::Up(node) => {
                    self.absent.remove(&node);
                    self.change(node, |peer| peer.absence = None);
                    let zone = &self.peers[&node].zone;
                    if let Some(brake) = self.brakes.get_mut(zone) {
                        brake.nodes.remove(&node);
                        self.lift();
                    }
                }
            }
        }
    }

    fn fell(&mut self, node: NodeId) {
        let (now, contact_ms) = (self.now, self.contact.contact_ms());
        self.absent.insert(node);
        self.change(node, |peer| {
            peer.absence.get_or_insert(Absence {
                since_ms: now,
                fell_at: contact_ms,
                silent_from: contact_ms,
                silent: None,
                released: false,
            });
        });
        let peer = &self.peers[&node];
        if peer.declared.is_some() {
            return;
        }
        let zone = peer.zone.clone();
        if let Some(brake) = self.brakes.get_mut(&zone) {
            brake.nodes.insert(node);
            return;
        }
        let fresh = |peer: &Peer| {
            let at_once = |absence: Absence| {
                absence.silent.is_none() && !absence.released && contact_ms - absence.fell_at <= MASS_WINDOW_MS
            };
            peer.zone == zone && peer.declared.is_none() && peer.absence.is_some_and(at_once)
        };
        let nodes: BTreeSet<NodeId> = self.absent.iter().filter(|node| fresh(&self.peers[*node])).copied().collect();
        let of = self.zones[&zone];
        if nodes.len() >= mass(of) {
            let name = zone.to_string();
            self.effects.push(Effect::Braked { zone: name.clone() });
            self.brakes.insert(zone, Brake { zone: name, since_ms: now, nodes, mass: mass(of), of });
        }
    }

    /// Ends the brakes of those zones where most are back. The silence of the others counts from here, and they are
    /// part of what vanishes next.
    fn lift(&mut self) {
        let over: Vec<Arc<str>> =
            self.brakes.iter().filter(|(_, brake)| brake.is_over()).map(|(zone, _)| zone.clone()).collect();
        let contact_ms = self.contact.contact_ms();
        for zone in over {
            for node in self.brakes.remove(&zone).into_iter().flat_map(|brake| brake.nodes) {
                if let Some(absence) = self.peers.get_mut(&node).and_then(|peer| peer.absence.as_mut()) {
                    (absence.fell_at, absence.silent_from) = (contact_ms, contact_ms);
                }
            }
            self.effects.push(Effect::Unbraked { zone: zone.to_string() });
        }
    }

    /// Finds those who were silent for too long.
    fn bury(&mut self) {
        let (now, contact_ms) = (self.now, self.contact.contact_ms());
        let is_due = |node: &&NodeId| {
            let peer = &self.peers[*node];
            let silent = |absence: Absence| {
                let braked = self.brakes.contains_key(&peer.zone) && !absence.released;
                absence.silent.is_none() && !braked && contact_ms - absence.silent_from >= SILENCE_MS
            };
            peer.absence.is_some_and(silent)
        };
        let due: Vec<NodeId> = self.absent.iter().filter(is_due).copied().collect();
        for node in due {
            self.change(node, |peer| {
                if let Some(absence) = &mut peer.absence {
                    absence.silent = Some(now);
                }
            });
        }
    }

    /// Ends what failed requests say after a while.
    fn forgive(&mut self) {
        let now = self.now;
        let is_old = |node: &&NodeId| now.saturating_sub(self.peers[*node].failed_at) >= FAILING_MS;
        let old: Vec<NodeId> = self.failing.iter().filter(is_old).copied().collect();
        for node in old {
            self.failing.remove(&node);
            let peer = self.peers.get_mut(&node).expect("a node of the map");
            let counted = peer.failures >= FAILURES_MAX;
            peer.failures = 0;
            if counted {
                let standing = peer.standing(now);
                self.effects.push(Effect::Changed { node, standing });
            }
        }
    }
}
