//! One node's view of who is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::brake::{Brake, MASS_WINDOW_MS, mass};
use super::cells::{Cells, Place};
use super::contact::Contact;
use super::herald::Herald;
use super::peer::{Absence, FAILING_MS, Peer};
use super::report::{NodeReport, Report, Standing};
use super::runtime::Event;
use super::summary::{Summary, What, is_summary};
use super::swim::Swim;
use super::watch::Watch;
use crate::NodeId;

/// How long a node must be silent to be dead, in ms of this node's contact with others.
pub const SILENCE_MS: u64 = 30 * 60 * 1_000;
/// How often those with an absence or failures are looked through, in ms.
const SWEEP_MS: u64 = 1_000;

/// What may differ from node to node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LivenessSettings {
    /// How often the node probes another of its cell, in ms: 500 to 10,000. Default 1,000. Longer costs less where
    /// nothing happens, and a crash is found later: about two of it, and two for the suspicion. Hazard: where nodes
    /// differ in it, those that are probed rarely are found late.
    pub probe_ms: u64,
}

impl Default for LivenessSettings {
    fn default() -> Self {
        Self { probe_ms: 1_000 }
    }
}

/// What the driver carries out or shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Send this. It may get lost.
    Send {
        /// To whom: as a datagram that proves to it who this node is.
        to: NodeId,
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

/// Who is there, as far as this node knows: SWIM, the standing of each node, and the brakes.
///
/// **How to drive it.** [`set_map`](Self::set_map) first. Then tell what comes (`handle_datagram`, `request_*`), and
/// call [`poll`](Self::poll) after each and when [`next_deadline`](Self::next_deadline) has come, and carry out what it
/// gives. Times are ms of one clock; where it jumps, or nobody polls for a while, that time does not count against
/// anybody. Equal inputs and seeds give equal effects.
///
/// **Failures.** Datagrams may be lost, doubled and late. One that is not of this cluster, not from the node that it
/// names, or from or about a node that the map does not have is ignored, in whole or in that part.
///
/// **Cells.** SWIM runs among the nodes of the node's own [cell](Cells). A node of another cell is up unless requests
/// to it fail, or the map's log calls it dead; but a voter hears from the cells who of them is not there, and judges
/// all nodes. Only a voter's [`dead`](Self::dead) is to be acted upon.
///
/// **Bounds.** Some 10 KB, and 100 bytes for each node that is not up; at a voter 200 bytes more for each cell. At most
/// 256 datagrams for an input or a poll, and for a voter 64 for each cell that fell silent; about 2 a probe's period
/// where nothing happens and 20 a second where news are spread, of at most 1,400 bytes each. Handling one takes time in
/// proportion to the number of nodes in the cell: some microseconds.
pub struct Liveness {
    pub(super) node: NodeId,
    pub(super) cluster: u64,
    swim: Swim,
    pub(super) contact: Contact,
    pub(super) herald: Herald,
    pub(super) watch: Watch,
    pub(super) now: u64,
    pub(super) cells: Arc<Cells>,
    /// None: the map does not have this node.
    pub(super) own: Option<Place>,
    voters: BTreeSet<NodeId>,
    /// Of whom something is known. Whoever of the map is not here is up.
    pub(super) peers: BTreeMap<NodeId, Peer>,
    /// Those with an absence.
    pub(super) absent: BTreeSet<NodeId>,
    /// Those with failures.
    failing: BTreeSet<NodeId>,
    swept_at: u64,
    /// How many of each zone are declared dead.
    pub(super) declared: BTreeMap<Arc<str>, usize>,
    brakes: BTreeMap<Arc<str>, Brake>,
    effects: Vec<Effect>,
}

impl Liveness {
    /// The view of `node`, which knows nobody yet.
    ///
    /// `life`: which start of its process this is; each must have a larger one, such as ms since 1970 at the start.
    /// Where it is not larger the node's first seconds are confused, and it goes on from the life that others remember.
    /// `cluster`: [`ClusterId::prefix`](crate::ClusterId::prefix). `seed`: another for each node and start. `now`: ms.
    #[must_use]
    pub fn new(node: NodeId, life: u64, cluster: u64, seed: u64, settings: LivenessSettings, now: u64) -> Self {
        let probe_ms = settings.probe_ms.clamp(500, 10_000);
        Self {
            node,
            cluster,
            swim: Swim::new(node, life, cluster, seed, probe_ms, now),
            contact: Contact::new(now, probe_ms),
            herald: Herald::new(!seed),
            watch: Watch::default(),
            now,
            cells: Arc::new(Cells::default()),
            own: None,
            voters: BTreeSet::new(),
            peers: BTreeMap::new(),
            absent: BTreeSet::new(),
            failing: BTreeSet::new(),
            swept_at: now,
            declared: BTreeMap::new(),
            brakes: BTreeMap::new(),
            effects: Vec::new(),
        }
    }

    /// Takes over the map's cells, whom its log calls dead ([`State::dead`](crate::log::State::dead)), and the log's
    /// voters. A node that is new in it counts as up until it fails to answer; one that is gone from it is forgotten. A
    /// node that is no voter any more forgets what other cells told.
    pub fn set_map(&mut self, now: u64, cells: &Arc<Cells>, dead: &BTreeSet<NodeId>, voters: &BTreeSet<NodeId>) {
        self.now = now;
        let mut was: BTreeMap<NodeId, Standing> =
            self.peers.iter().map(|(node, peer)| (*node, peer.standing())).collect();
        self.cells = cells.clone();
        self.own = cells.place(&self.node);
        self.voters.clone_from(voters);
        let own_cell = self.own.map(|place| place.cell);
        self.set_members(own_cell);
        let watches = self.watches();
        self.peers.retain(|node, peer| {
            let cell = cells.place(node).map(|place| place.cell);
            if !watches && cell != own_cell {
                peer.absence = None;
            }
            peer.declared = peer.declared.filter(|_| dead.contains(node));
            cell.is_some() && *node != self.node && !peer.is_blank()
        });
        for node in dead.iter().filter(|node| cells.contains(node) && **node != self.node) {
            self.peers.entry(*node).or_default().declared.get_or_insert(now);
            was.entry(*node).or_insert(Standing::Up);
        }
        self.declared.clear();
        for node in dead.iter().filter(|node| cells.contains(node)) {
            *self.declared.entry(cells.zone(node).clone()).or_default() += 1;
        }
        let known = &self.peers;
        self.absent.retain(|node| known.get(node).is_some_and(|peer| peer.absence.is_some()));
        self.failing.retain(|node| known.contains_key(node));
        for (node, was) in was {
            let standing = known.get(&node).map_or(Standing::Up, |peer| peer.standing());
            if standing != was && cells.contains(&node) {
                self.effects.push(Effect::Changed { node, standing });
            }
        }
        for brake in self.brakes.values_mut() {
            let counts = |node: &NodeId, peer: &Peer| {
                peer.absence.is_some() && peer.declared.is_none() && **cells.zone(node) == *brake.zone
            };
            brake.nodes.retain(|node| known.get(node).is_some_and(|peer| counts(node, peer)));
        }
        self.lift();
        self.follow();
        self.tell();
    }

    /// Tells SWIM, the herald and the watch what the map says.
    fn set_members(&mut self, own_cell: Option<u32>) {
        let cells = self.cells.clone();
        let members = own_cell.into_iter().flat_map(|cell| cells.members(cell as usize)).copied();
        self.swim.set_members(self.now, members);
        let outside = |node: &&NodeId| cells.place(node).is_some_and(|place| Some(place.cell) != own_cell);
        self.herald.set_voters(self.now, self.voters.iter().filter(outside).copied().collect());
        if self.watches() {
            self.watch.set_cells(&cells, own_cell, self.contact.contact_ms());
        } else {
            self.watch.clear();
        }
    }

    /// Whether this node judges those of other cells.
    pub(super) fn watches(&self) -> bool {
        self.own.is_some() && self.cells.count() > 1 && self.voters.contains(&self.node)
    }

    /// Handles a datagram that `from` sent, as the driver has proof.
    pub fn handle_datagram(&mut self, now: u64, from: NodeId, bytes: &[u8]) {
        self.now = now;
        if is_summary(bytes) {
            self.handle_summary(from, bytes);
            return;
        }
        if self.swim.handle_datagram(now, from, bytes) {
            self.heard(from);
        }
        self.follow();
    }

    fn handle_summary(&mut self, from: NodeId, bytes: &[u8]) {
        let Ok(summary) = Summary::decode(self.cluster, bytes) else { return };
        let Some(place) = self.cells.place(&from).filter(|_| summary.sender == from && from != self.node) else {
            return;
        };
        self.heard(from);
        match summary.what {
            What::Question if self.voters.contains(&from) => self.summarize([from].iter(), self.absent_here()),
            What::Question => {}
            What::Absent { cell, absent } => {
                let contact_ms = self.contact.contact_ms();
                if cell == self.cells.name(place.cell) && self.watch.hear(cell, place.at, absent, contact_ms) {
                    self.judge(place.cell);
                }
            }
        }
    }

    /// A request to `node` was answered, in whatever way.
    pub fn request_succeeded(&mut self, now: u64, node: NodeId) {
        self.now = now;
        if self.cells.contains(&node) && node != self.node {
            if self.failing.remove(&node) {
                self.change(node, |peer| peer.failures = 0);
            }
            self.heard(node);
        }
    }

    /// A request to `node` had no answer, or no connection: [`FAILURES_MAX`](super::FAILURES_MAX) in a row make it count as down for
    /// [`FAILING_MS`]. They never make it dead.
    pub fn request_failed(&mut self, now: u64, node: NodeId) {
        self.now = now;
        if self.cells.contains(&node) && node != self.node {
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
        self.look();
        // What each of these finds may wait for the next poll.
        if !(self.absent.is_empty() && self.failing.is_empty()) && now.abs_diff(self.swept_at) >= SWEEP_MS {
            self.swept_at = now;
            self.bury();
            self.forgive();
        }
        if let Some((voters, absent)) = self.herald.poll(now) {
            let voters = voters.to_vec();
            self.summarize(voters.iter(), absent);
        }
        for (to, bytes) in self.swim.take_outbox() {
            self.send(to, bytes);
        }
        std::mem::take(&mut self.effects)
    }

    /// When to poll next, in ms: at most a probe's period ahead.
    #[must_use]
    pub fn next_deadline(&self) -> u64 {
        let swim = self.swim.next_deadline();
        self.herald.deadline().map_or(swim, |due| due.min(swim))
    }

    pub(super) fn send(&mut self, to: NodeId, bytes: Vec<u8>) {
        self.effects.push(Effect::Send { to, bytes });
    }

    /// How `node` stands; none: the map does not have it. A node is up for itself, but where the log calls it dead:
    /// that the node learns from the log.
    #[must_use]
    pub fn standing(&self, node: &NodeId) -> Option<Standing> {
        if *node == self.node {
            return Some(Standing::Up);
        }
        match self.peers.get(node) {
            Some(peer) => Some(peer.standing()),
            None => self.cells.contains(node).then_some(Standing::Up),
        }
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
        let dead = self.peers.iter().filter(|(_, peer)| peer.standing().is_dead());
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
        let mut up = self.cells.nodes() - usize::from(self.own.is_some());
        let mut not_up = Vec::new();
        for (node, peer) in &self.peers {
            let standing = peer.standing();
            if standing.is_up() {
                continue;
            }
            up -= 1;
            let silent = |absence: Absence| self.contact.contact_ms() - absence.silent_from;
            let (zone, silent_ms) = (self.cells.zone(node).to_string(), peer.absence.map_or(0, silent));
            not_up.push(NodeReport { node: *node, zone, standing, silent_ms });
        }
        Report { up, not_up, brakes: self.brakes.values().cloned().collect(), heard_ms: self.contact.heard_at() }
    }

    /// Changes what is known of a node of the map.
    fn change(&mut self, node: NodeId, change: impl FnOnce(&mut Peer)) {
        let mut peer = self.peers.get(&node).copied().unwrap_or_default();
        let was = peer.standing();
        change(&mut peer);
        let standing = peer.standing();
        if peer.is_blank() {
            self.peers.remove(&node);
        } else {
            self.peers.insert(node, peer);
        }
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
        let events = self.swim.take_events();
        if events.is_empty() {
            return;
        }
        for event in events {
            match event {
                Event::Down(node) => self.fell(node),
                Event::Up(node) => self.rose(node),
            }
        }
        self.tell();
    }

    pub(super) fn rose(&mut self, node: NodeId) {
        if self.absent.remove(&node) {
            self.change(node, |peer| peer.absence = None);
        }
        if let Some(brake) = self.brakes.get_mut(self.cells.zone(&node))
            && brake.nodes.remove(&node)
        {
            self.lift();
        }
    }

    pub(super) fn fell(&mut self, node: NodeId) {
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
        if self.peers[&node].declared.is_some() {
            return;
        }
        let zone = self.cells.zone(&node).clone();
        if let Some(brake) = self.brakes.get_mut(&zone) {
            brake.nodes.insert(node);
            return;
        }
        let fresh = |node: &&NodeId| {
            let peer = &self.peers[*node];
            let at_once = |absence: Absence| {
                absence.silent.is_none() && !absence.released && contact_ms - absence.fell_at <= MASS_WINDOW_MS
            };
            *self.cells.zone(node) == zone && peer.declared.is_none() && peer.absence.is_some_and(at_once)
        };
        let nodes: BTreeSet<NodeId> = self.absent.iter().filter(fresh).copied().collect();
        let of = self.zone_nodes(&zone);
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
                absence.silent.is_none()
                    && contact_ms - absence.silent_from >= SILENCE_MS
                    && (absence.released || !self.brakes.contains_key(self.cells.zone(node)))
                    && self.is_sure(node)
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
            self.change(node, |peer| peer.failures = 0);
        }
    }
}
