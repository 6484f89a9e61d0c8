//! Who is there, and who knows whom: liveness and routing.

use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use deadwax_track::Partition;

use super::message::{Envelope, Message};
use super::planted::Bug;
use super::{Core, CoreConfig, Destination, Effect, Part};
use crate::liveness::{self, Liveness};
use crate::random::{IdHasher, Random};
use crate::routing::{self, Answered, Asked, Contact, Router};
use crate::{Layout, NodeId};

/// The most nodes of which it is known when they started.
const LIVES_MAX: usize = 16_384;
/// Who was not heard of for so long, in ms, may have been asked in vain: as long as anti-entropy waits for an answer.
const SILENT_MS: u64 = crate::sync::ANSWER_MS;
/// How far ahead of this node's clock a process may have started, in ms: a day. What is said to be later is believed of
/// nobody, or one wrong word would end a node for good.
const AHEAD_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// What was heard of a node's newest process.
#[derive(Clone, Copy)]
pub(super) struct Life {
    /// When it started.
    life: u64,
    /// The newest version of the protocol that it speaks.
    pub(super) protocol: u8,
    /// The newest epoch that it said it knows.
    epoch: u64,
    /// When it said something last.
    pub(super) heard_at: u64,
}

/// The machines that know other nodes.
pub(super) struct Contacts {
    pub(super) liveness: Liveness,
    pub(super) router: Router,
    /// The newest process of each node that was heard of. Asked at each message; never gone through.
    lives: HashMap<NodeId, Life, BuildHasherDefault<IdHasher>>,
    /// The layout that the machines were told, and what this node's volumes hold by it.
    layout: Option<Arc<Layout>>,
    own: Arc<[Partition]>,
    random: Random,
}

impl Contacts {
    pub(super) fn new(now: u64, config: &CoreConfig) -> Self {
        let mut random = Random(config.seed ^ 0x636f_6e74_6163_7473);
        let own = Contact::new(config.node, config.address.clone());
        Self {
            liveness: Liveness::new(
                config.node,
                config.life,
                config.cluster.prefix(),
                random.draw(),
                config.settings.liveness,
                now,
            ),
            router: Router::new(own, config.settings.router),
            lives: HashMap::default(),
            layout: None,
            own: Arc::default(),
            random,
        }
    }

    pub(super) fn begin(&mut self, now: u64, config: &CoreConfig) {
        self.router.join_via(now, config.seeds.iter().cloned());
    }
}

impl Core {
    pub(super) fn renew_contacts(&mut self, layout: &Arc<Layout>) {
        let directory = layout.directory();
        // Most epochs have the nodes of the one before.
        if self.contacts.layout.as_ref().is_none_or(|before| !Arc::ptr_eq(before.cells(), layout.cells())) {
            self.contacts.lives.retain(|node, _| directory.has(node));
        }
        let voters: BTreeSet<NodeId> = layout.state().voters().iter().map(|voter| voter.node).collect();
        self.contacts.liveness.set_map(self.now, layout.cells(), layout.state().dead(), &voters);
        let own = self.own_partitions(layout);
        // What changed of these is announced soon. After a start, others have announced what changed meanwhile.
        let before = self.contacts.layout.replace(layout.clone());
        let changed = before.as_ref().and_then(|before| layout.changed_since(before));
        let of_own =
            |changed: &[Partition]| changed.iter().copied().filter(|each| own.binary_search(each).is_ok()).collect();
        let changed: Vec<Partition> = changed.map_or_else(Vec::new, of_own);
        self.contacts.router.set_map(self.now, layout.directory().clone(), own, &changed);
        self.touch(Part::Liveness);
        self.touch(Part::Router);
    }

    /// What this node's volumes hold, told from the layout before where that is known.
    fn own_partitions(&mut self, layout: &Arc<Layout>) -> Arc<[Partition]> {
        let before = self.contacts.layout.as_ref();
        let Some(changed) = before.and_then(|before| layout.changed_since(before)) else {
            self.contacts.own = layout.held_in(&self.config.node);
            return self.contacts.own.clone();
        };
        let volumes = layout.map().node(&self.config.node).map_or(&[][..], |node| &node.volumes);
        let holds = |partition: Partition| {
            let sets = layout.sets(partition);
            volumes.iter().any(|volume| sets.has(&volume.id))
        };
        let own = &self.contacts.own;
        let turns = |partition: &&Partition| own.binary_search(partition).is_ok() != holds(**partition);
        let turned: BTreeSet<Partition> = changed.iter().filter(turns).copied().collect();
        if !turned.is_empty() {
            let stay = own.iter().copied().filter(|partition| !turned.contains(partition));
            let come = turned.iter().copied().filter(|partition| own.binary_search(partition).is_err());
            let mut own: Vec<Partition> = stay.chain(come).collect();
            own.sort_unstable();
            self.contacts.own = own.into();
        }
        self.contacts.own.clone()
    }

    /// Whether a node is up, as far as is known.
    pub(super) fn is_up(&self, node: &NodeId) -> bool {
        self.contacts.liveness.is_up(node)
    }

    /// Who is there.
    #[must_use]
    pub const fn liveness(&self) -> &Liveness {
        &self.contacts.liveness
    }

    /// Whom the node knows.
    #[must_use]
    pub const fn router(&self) -> &Router {
        &self.contacts.router
    }

    pub(super) fn take_unreachable(&mut self, node: NodeId) {
        self.contacts.liveness.request_failed(self.now, node);
        self.touch(Part::Liveness);
    }

    /// A node answered what it was asked: it is no node that fails. Other messages show only that it can be heard.
    pub(super) fn take_answered(&mut self, node: NodeId) {
        self.contacts.liveness.request_succeeded(self.now, node);
        self.touch(Part::Liveness);
    }

    pub(super) fn take_envelope(&mut self, from: NodeId, address: &Arc<str>, envelope: Envelope) {
        if from == self.config.node {
            // Another process of this name; or a message to oneself, which no machine sends.
            if envelope.life > self.config.life {
                self.halt(envelope.life);
            }
            return;
        }
        let is_of_other_log = self.is_of_other_log(&envelope);
        if !self.is_alive(from, address, &envelope, is_of_other_log) {
            return;
        }
        if is_of_other_log {
            return self.take_parted(from, envelope.epoch, &envelope.message);
        }
        let same = match envelope.message {
            Message::Epochs(_) | Message::Behind(_) => true,
            _ => self.compare_epochs(from, envelope.epoch),
        };
        if envelope.message.is_answer() {
            self.take_answered(from);
        }
        match envelope.message {
            Message::Swim(bytes) => {
                self.contacts.liveness.handle_datagram(self.now, from, &bytes);
                self.touch(Part::Liveness);
            }
            Message::Raft(message) => self.take_raft(from, *message),
            Message::Seek(Asked { number, request }) => {
                let contact = Contact::new(from, address.clone());
                let response = self.contacts.router.handle_request(self.now, Some(&contact), request);
                let answered = Message::Found(Answered { number, response });
                self.send_to(Destination::At(Some(from), address.clone()), answered);
                self.touch(Part::Router);
            }
            Message::Found(Answered { number, response }) => {
                let contact = Contact::new(from, address.clone());
                self.contacts.router.handle_response(self.now, number, contact, response);
                self.touch(Part::Router);
            }
            Message::Behind(epoch) => self.take_behind(from, address, epoch),
            Message::Epochs(batch) => self.take_epochs(from, envelope.line, &batch),
            Message::Superseded(life) if life > self.config.life && self.is_credible(life) => self.halt(life),
            Message::Superseded(_) => {}
            Message::TakedownAsk(number, ask) => self.take_takedown_ask(from, number, &ask),
            Message::TakedownAnswer(number, answer) => self.take_takedown_answer(from, number, &answer),
            Message::ReceiptsAsk(volume, tracks) => self.take_receipts_ask(from, volume, &tracks),
            Message::Receipts(receipts) => self.take_receipts(&receipts),
            Message::Synced(synced) => self.take_synced(from, &synced),
            Message::Knows => self.take_knows(from, envelope.epoch),
            Message::Out(out) => self.take_out(from, &out),
            Message::SpokenAsk => self.take_spoken_ask(from),
            Message::Spoken(speakers) => self.take_spoken(from, &speakers),
            // Two that compare under different holders would find what is not there; the one that is behind is told,
            // and what was lost is asked again.
            Message::Sync(message) if same => self.take_sync(from, message),
            Message::Sync(_) => {}
        }
    }

    pub(super) fn take_seek(&mut self, number: u64, request: routing::Request) {
        let response = self.contacts.router.handle_request(self.now, None, request);
        self.effects.push(Effect::Told { number, response });
        self.touch(Part::Router);
    }

    /// Whether the sender is the newest process of its name; the others are told. Of this log it knows nothing where it has
    /// another.
    fn is_alive(&mut self, from: NodeId, address: &Arc<str>, envelope: &Envelope, is_of_other_log: bool) -> bool {
        let Envelope { protocol, life, .. } = *envelope;
        let epoch = if is_of_other_log { 0 } else { envelope.epoch };
        let known = self.contacts.lives.get_mut(&from);
        let newest = known.as_ref().map(|known| known.life);
        if let Some(known) = known.filter(|known| known.life == life) {
            known.epoch = known.epoch.max(epoch);
            let heard_at = std::mem::replace(&mut known.heard_at, self.now);
            if self.now - heard_at >= SILENT_MS {
                self.tell_copies_of_word(from);
            }
            return true;
        }
        let later = |newest: &u64| *newest > life && self.is_credible(*newest);
        if let Some(newest) = newest.filter(later).filter(|_| !self.planted(Bug::NeverHalt)) {
            self.send_to(Destination::At(Some(from), address.clone()), Message::Superseded(newest));
            return false;
        }
        if newest.is_some() || self.contacts.lives.len() < LIVES_MAX {
            self.contacts.lives.insert(from, Life { life, protocol, epoch, heard_at: self.now });
        }
        true
    }

    /// What was heard of a node's newest process.
    pub(super) fn life(&self, node: &NodeId) -> Option<&Life> {
        self.contacts.lives.get(node)
    }

    /// The process of a node that is up, if it knows an epoch.
    pub(super) fn life_with_epoch(&self, node: &NodeId) -> Option<u64> {
        if *node == self.config.node {
            return Some(self.config.life);
        }
        let known = self.contacts.lives.get(node).filter(|known| known.epoch > 0 && self.is_up(node));
        known.map(|known| known.life)
    }

    /// Whether a node has sent something since this time, and knows this epoch.
    pub(super) fn was_heard(&self, node: &NodeId, epoch: u64, since: u64) -> bool {
        let heard = |known: &Life| known.epoch >= epoch && known.heard_at >= since;
        *node == self.config.node || self.contacts.lives.get(node).is_some_and(heard)
    }

    /// Asks a node for any answer: each says which epoch its sender knows.
    pub(super) fn ping(&mut self, node: NodeId) {
        // The router has no question of this number, and so passes over the answer.
        self.send(node, Message::Seek(Asked { number: u64::MAX, request: routing::Request::Ping }));
    }

    /// Whether a process can have started then, as far as this node's clock tells.
    const fn is_credible(&self, life: u64) -> bool {
        let clock = self.config.life.saturating_add(self.now - self.began);
        life <= clock.saturating_add(AHEAD_MS_MAX)
    }

    fn halt(&mut self, life: u64) {
        if self.planted(Bug::NeverHalt) {
            return;
        }
        self.halted = true;
        self.effects.push(Effect::Halt { life });
    }

    pub(super) fn poll_liveness(&mut self) -> u64 {
        let mut changed = false;
        for effect in self.contacts.liveness.poll(self.now) {
            match effect {
                liveness::Effect::Send { to, bytes } => self.send(to, Message::Swim(bytes)),
                liveness::Effect::Changed { node, standing } => {
                    changed = true;
                    if standing.is_up() {
                        self.contacts.router.handle_up(&node);
                    } else {
                        self.contacts.router.handle_down(self.now, &node);
                    }
                    self.tell_copies_of(node, standing.is_up());
                }
                liveness::Effect::Braked { .. } | liveness::Effect::Unbraked { .. } => changed = true,
            }
        }
        if changed {
            self.tell_planner_of_silence();
        }
        self.contacts.liveness.next_deadline()
    }

    pub(super) fn poll_router(&mut self) -> u64 {
        let random = self.contacts.random.draw();
        for effect in self.contacts.router.poll(self.now, random) {
            match effect {
                routing::Effect::Send { number, to, request } => {
                    self.send_to(Destination::At(to.id, to.address), Message::Seek(Asked { number, request }));
                }
                routing::Effect::FetchMap { from, .. } => {
                    let epoch = self.epoch();
                    self.send_to(Destination::At(Some(from.id), from.address), Message::Behind(epoch));
                }
                routing::Effect::Joined | routing::Effect::Resolved { .. } | routing::Effect::Published { .. } => {}
            }
        }
        self.contacts.router.next_deadline()
    }
}
