//! One node's part in SWIM: the crate `foca`, held to the map.

use std::collections::BTreeSet;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::{Config, Foca, Member, Message, NoCustomBroadcast, PeriodicParams, State};

use super::contact::LivedClock;
use super::datagram::{ACK, Codec, DATAGRAM_BYTES_MAX, Datagram};
use super::identity::Identity;
use super::runtime::{Event, Runtime};
use crate::NodeId;
use crate::random::Random;

/// How long a probe's answer may take before others are asked to probe, in ms: well over a round trip between the
/// sites, and what is left of the second suffices for the round through others.
const ROUND_TRIP_MS: u64 = 400;
/// How often news are spread where there are any, in ms; to how many.
const GOSSIP_MS: u64 = 200;
const GOSSIP_FANOUT: usize = 3;
/// How many are asked to probe for us.
const INDIRECT: usize = 3;
/// How often a node asks another whom it knows, in periods of the probes.
const FEED_PERIODS: u64 = 30;
/// How often nodes that are down are spoken to, in ms; how many. It heals a cluster that fell apart, and is all that a
/// node does that has nobody left.
const CALL_MS: u64 = 5_000;
const CALLED: usize = 2;
/// At the start, so many nodes are told at once that this life has begun.
const GREETED: usize = 3;
/// What SWIM is set to in a cluster of so many nodes; the crate's own settings for LANs, but worked out in integers.
///
/// A suspect has 4 s and one more for each doubling to speak up: 6 s in a cluster of 3, 11 s of 200, 17 s of 10,000, as
/// the suspicion and its denial each need a logarithm's number of rounds (SWIM, section 5). For the same reason news
/// are passed on twice and once more for each doubling, by each who has them: 8 times in a cell of 64, as memberlist does. `new_wan`'s times, five times as long, are for the open
/// Internet: zones are sites with lines of their own. Where probes are rarer than once a second, a suspect has two
/// seconds more for each second more: always longer than what a process that was stopped can miss at once.
fn config(nodes: usize, probe_ms: u64) -> Config {
    let doublings = u8::try_from((nodes + 1).ilog2()).expect("at most 64");
    let count = |count| NonZeroUsize::new(count).expect("not zero");
    let every = |ms, num| PeriodicParams { frequency: Duration::from_millis(ms), num_members: count(num) };
    Config {
        probe_period: Duration::from_millis(probe_ms),
        probe_rtt: Duration::from_millis(ROUND_TRIP_MS),
        num_indirect_probes: count(INDIRECT),
        max_transmissions: NonZeroU8::new(2 + doublings).expect("not zero"),
        suspect_to_down_after: Duration::from_millis((2 + u64::from(doublings)) * 1_000 + 2 * probe_ms),
        // Members are those of the map: they leave with it.
        remove_down_after: None,
        max_packet_size: count(DATAGRAM_BYTES_MAX),
        notify_down_members: true,
        periodic_announce: Some(every(FEED_PERIODS * probe_ms, 1)),
        // `Swim::call` does that, also where nobody is left.
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(every(GOSSIP_MS, GOSSIP_FANOUT)),
    }
}

/// A datagram that is believed: as it came, or in part.
enum Admitted {
    Whole,
    Altered(Datagram),
}

/// SWIM among the nodes of a cell.
///
/// foca's errors are not looked at: each is of a datagram that contradicts itself, which is dropped, or of a late
/// timer, after which foca goes on by itself.
pub(super) struct Swim {
    node: NodeId,
    codec: Codec,
    foca: Foca<Identity, Codec, Random, NoCustomBroadcast>,
    runtime: Runtime,
    clock: LivedClock,
    random: Random,
    /// The map's, without this one; and those of them that are down.
    others: BTreeSet<NodeId>,
    down: BTreeSet<NodeId>,
    call_due: u64,
    greeted: bool,
    probe_ms: u64,
}

impl Swim {
    pub(super) fn new(node: NodeId, life: u64, cluster: u64, seed: u64, probe_ms: u64, now: u64) -> Self {
        let (codec, mut random) = (Codec { cluster }, Random(seed));
        let identity = Identity { node, life: life.max(1) };
        Self {
            node,
            codec,
            foca: Foca::new(identity, config(1, probe_ms), Random(random.draw()), codec),
            runtime: Runtime::default(),
            clock: LivedClock::new(now, probe_ms),
            random,
            others: BTreeSet::new(),
            down: BTreeSet::new(),
            call_due: 0,
            greeted: false,
            probe_ms,
        }
    }

    /// Believes in these nodes from here on. New ones are taken to be up until they fail to answer.
    pub(super) fn set_members(&mut self, now: u64, nodes: impl Iterator<Item = NodeId>) {
        self.runtime.now = self.clock.advance(now);
        let others: BTreeSet<NodeId> = nodes.filter(|&node| node != self.node).collect();
        let _ = self.foca.set_config(config(others.len() + 1, self.probe_ms));
        let gone: Vec<Member<Identity>> =
            self.foca.iter_membership_state().filter(|member| !others.contains(&member.id().node)).cloned().collect();
        for member in gone {
            let down = Member::new(*member.id(), member.incarnation(), State::Down);
            let _ = self.foca.apply_many(std::iter::once(down), false, &mut self.runtime);
            let _ = self.foca.handle_timer(foca::Timer::RemoveDown(*member.id()), &mut self.runtime);
        }
        let new: Vec<_> =
            others.difference(&self.others).map(|&node| Member::alive(Identity { node, life: 0 })).collect();
        let _ = self.foca.apply_many(new.into_iter(), false, &mut self.runtime);
        self.down.retain(|node| others.contains(node));
        self.others = others;
    }

    /// Handles what `from` sent. Returns whether it was believed.
    pub(super) fn handle_datagram(&mut self, now: u64, from: NodeId, bytes: &[u8]) -> bool {
        self.runtime.now = self.clock.advance(now);
        let Some(datagram) = self.admit(from, bytes) else { return false };
        let _ = match datagram {
            Admitted::Whole => self.foca.handle_data(bytes, &mut self.runtime),
            Admitted::Altered(datagram) => self.foca.handle_data(&datagram.encode(self.codec), &mut self.runtime),
        };
        // The timer that follows a probe has nothing to do once it is answered: it costs no poll of its own.
        if let [_, ACK, number, ..] = *bytes
            && self.runtime.probing == Some((from, number))
        {
            self.runtime.probing = None;
            if let Some(timer) = self.runtime.take_indirect() {
                let _ = self.foca.handle_timer(timer, &mut self.runtime);
            }
        }
        true
    }

    /// Whether a sender speaks under an earlier life than is known of it: its datagram was late, or its clock was set
    /// back. It is then told of the later one, which in the second case it goes on from.
    fn is_past(&mut self, from: Identity) -> bool {
        let later = |id: &&Identity| id.node == from.node && id.life > from.life;
        let Some(known) = self.foca.iter_membership_state().map(Member::id).find(later).copied() else { return false };
        let _ = self.foca.announce(known, &mut self.runtime);
        true
    }

    /// What of a datagram is to be believed.
    fn admit(&mut self, from: NodeId, bytes: &[u8]) -> Option<Admitted> {
        let mut is_whole = true;
        let mut datagram = Datagram::decode(self.codec, bytes).ok()?;
        let header = &mut datagram.header;
        if header.src.node != from || !self.others.contains(&from) || header.dst.node != self.node {
            return None;
        }
        if self.is_past(header.src) {
            return None;
        }
        // A sender that knew an earlier life of this node meant this node; but for the word that the earlier is over.
        let own = *self.foca.identity();
        if header.dst.life < own.life && header.message != Message::TurnUndead {
            is_whole &= header.dst == own;
            header.dst = own;
        }
        if datagram.third().is_some_and(|third| !self.others.contains(&third.node)) {
            return None;
        }
        // A process whose clock was set back begins a life that was before: it goes on from the last one known.
        let lives = datagram.updates.iter().map(Member::id).filter(|id| id.node == self.node).map(|id| id.life);
        let latest = lives.chain([datagram.header.dst.life]).max().unwrap_or(0);
        if let Some(life) = latest.checked_add(1).filter(|_| latest > own.life) {
            let _ = self.foca.change_identity(Identity { node: self.node, life }, &mut self.runtime);
            if datagram.header.message != Message::TurnUndead {
                datagram.header.dst = *self.foca.identity();
                is_whole = false;
            }
        }
        let own = *self.foca.identity();
        let count = datagram.updates.len();
        datagram.updates.retain(|update| *update.id() == own || self.others.contains(&update.id().node));
        is_whole &= datagram.updates.len() == count;
        Some(if is_whole { Admitted::Whole } else { Admitted::Altered(datagram) })
    }

    /// Does what is due.
    pub(super) fn poll(&mut self, now: u64) {
        self.runtime.now = self.clock.advance(now);
        while let Some(timer) = self.runtime.due() {
            let _ = self.foca.handle_timer(timer, &mut self.runtime);
        }
        if self.foca.updates_backlog() > 0
            && let Some(timer) = self.runtime.gossip_due()
        {
            let _ = self.foca.handle_timer(timer, &mut self.runtime);
        }
        if self.has_calls() && self.call_due <= self.runtime.now {
            self.call_due = self.runtime.now + CALL_MS;
            self.call();
        }
    }

    /// Whether there is anybody to be spoken to.
    fn has_calls(&self) -> bool {
        if self.greeted { !self.down.is_empty() } else { !self.others.is_empty() }
    }

    /// Speaks to some who are down; the first time, to some of all.
    fn call(&mut self) {
        let (whom, count) = if self.greeted { (&self.down, CALLED) } else { (&self.others, GREETED) };
        self.greeted = true;
        for _ in 0..count.min(whom.len()) {
            let index = self.random.below(whom.len());
            let node = *whom.iter().nth(index).expect("an index below the count");
            let _ = self.foca.announce(Identity { node, life: 0 }, &mut self.runtime);
        }
    }

    /// When to poll, in ms of the driver's clock.
    pub(super) fn next_deadline(&self) -> u64 {
        let mut due = self.clock.lived_ms() + self.probe_ms;
        if self.has_calls() {
            due = due.min(self.call_due);
        }
        let timer = self.runtime.deadline(self.foca.updates_backlog() > 0);
        self.clock.when(timer.map_or(due, |timer| timer.min(due)))
    }

    /// Who came and went since the last call, in order.
    pub(super) fn take_events(&mut self) -> Vec<Event> {
        let mut events = std::mem::take(&mut self.runtime.events);
        for event in &events {
            match event {
                Event::Up(node) => self.down.remove(node),
                Event::Down(node) => self.down.insert(*node),
            };
        }
        events.retain(|(Event::Up(node) | Event::Down(node))| self.others.contains(node));
        self.down.retain(|node| self.others.contains(node));
        events
    }

    /// Datagrams to send. Whoever is suspected is told so (Lifeguard's buddy system): the news of it may have been
    /// spread already, but not to it.
    pub(super) fn take_outbox(&mut self) -> Vec<(NodeId, Vec<u8>)> {
        let outbox = std::mem::take(&mut self.runtime.outbox);
        outbox.into_iter().map(|(to, bytes)| (to.node, self.with_suspicion(to.node, bytes))).collect()
    }

    fn with_suspicion(&self, to: NodeId, bytes: Vec<u8>) -> Vec<u8> {
        let suspect = |member: &&Member<Identity>| member.id().node == to && member.state() == State::Suspect;
        let Some(member) = self.foca.iter_members().find(suspect) else { return bytes };
        let mut datagram = Datagram::decode(self.codec, &bytes).expect("foca's own bytes");
        if !datagram.has_room() || datagram.updates.iter().any(|update| update.id().node == to) {
            return bytes;
        }
        datagram.updates.push(member.clone());
        datagram.encode(self.codec)
    }
}
