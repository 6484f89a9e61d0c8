//! The nodes that are sources of something wanted: which may be asked now.

use std::collections::{BTreeMap, BTreeSet};

use crate::NodeId;
use crate::random::Random;

/// How long a node that could not be reached is left alone, in ms: doubled with each failure in a row, up to the
/// second.
const UNREACHABLE_MS: (u64, u64) = (1_000, 60_000);
/// The same for one that was busy.
const BUSY_MS: (u64, u64) = (250, 8_000);
/// The longest time to come again that a busy node is believed, in ms.
const BUSY_AFTER_MS_MAX: u64 = 30_000;
/// How often what waits for a node that is down looks again, in ms, unless it is told to be up.
const DOWN_MS: u64 = 20_000;
/// Nodes that are known as down; of more than so many none is: a pull from them fails, and that is all.
const DOWN_MAX: usize = 16_384;
/// Nodes that can be sources at a time.
const PEERS_MAX: usize = 16_384;

/// Why a node may not be asked now. In order of what is said where several do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Away {
    Busy,
    Unreachable,
    Down,
}

#[derive(Debug)]
struct Peer {
    node: NodeId,
    /// How many partitions of own volumes, and pulls in flight, name it. At zero it is forgotten.
    uses: u32,
    in_flight: u32,
    /// The turn of the last pull from it.
    turn: u64,
    down: bool,
    away_until: u64,
    away: Away,
    unreachable: u32,
    busy: u32,
}

#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: Vec<Option<Peer>>,
    free: Vec<u16>,
    names: BTreeMap<NodeId, u16>,
    down: BTreeSet<NodeId>,
}

/// A time of `ms` to half as much again.
pub(super) fn jittered(ms: u64, random: &mut Random) -> u64 {
    ms + random.draw() % (ms / 2 + 1)
}

/// `least` doubled `times` times, or `most`.
pub(super) fn doubled((least, most): (u64, u64), times: u32) -> u64 {
    least.checked_shl(times.min(32)).map_or(most, |ms| ms.min(most))
}

impl Peers {
    /// Another use of `node`: its number, or none if there are too many nodes.
    pub(super) fn hold(&mut self, node: NodeId) -> Option<u16> {
        if let Some(&number) = self.names.get(&node) {
            self.at(number).uses += 1;
            return Some(number);
        }
        let down = self.down.contains(&node);
        let (away, away_until) = (Away::Busy, 0);
        let peer = Peer { node, uses: 1, in_flight: 0, turn: 0, down, away_until, away, unreachable: 0, busy: 0 };
        let number = match self.free.pop() {
            Some(number) => number,
            None if self.peers.len() < PEERS_MAX => {
                self.peers.push(None);
                u16::try_from(self.peers.len() - 1).expect("PEERS_MAX is below 2^16")
            }
            None => return None,
        };
        self.peers[usize::from(number)] = Some(peer);
        self.names.insert(node, number);
        Some(number)
    }

    /// One use fewer.
    pub(super) fn release(&mut self, number: u16) {
        let peer = self.at(number);
        peer.uses -= 1;
        if peer.uses == 0 {
            let node = peer.node;
            self.names.remove(&node);
            self.peers[usize::from(number)] = None;
            self.free.push(number);
        }
    }

    fn at(&mut self, number: u16) -> &mut Peer {
        self.peers[usize::from(number)].as_mut().expect("a number is held by whoever names it")
    }

    fn get(&self, number: u16) -> &Peer {
        self.peers[usize::from(number)].as_ref().expect("a number is held by whoever names it")
    }

    pub(super) fn number(&self, node: &NodeId) -> Option<u16> {
        self.names.get(node).copied()
    }

    pub(super) fn node(&self, number: u16) -> NodeId {
        self.get(number).node
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether it may be asked; else why not, and when to look again.
    pub(super) fn open(&self, number: u16, now: u64) -> Result<(), (u64, Away)> {
        let peer = self.get(number);
        if peer.down {
            return Err((now.saturating_add(DOWN_MS), Away::Down));
        }
        if peer.away_until > now { Err((peer.away_until, peer.away)) } else { Ok(()) }
    }

    /// How much it is used by pulls: the lower the better.
    pub(super) fn load(&self, number: u16) -> (u32, u64) {
        let peer = self.get(number);
        (peer.in_flight, peer.turn)
    }

    /// Whether it is a source that may be asked again.
    pub(super) fn set_up(&mut self, node: NodeId, up: bool) -> bool {
        if up {
            self.down.remove(&node);
        } else if self.down.len() < DOWN_MAX {
            self.down.insert(node);
        }
        let down = self.down.contains(&node);
        let Some(number) = self.number(&node) else { return false };
        let peer = self.at(number);
        let is_back = std::mem::replace(&mut peer.down, down) && !down;
        if is_back {
            // It was started anew: what it did before says nothing.
            (peer.away_until, peer.unreachable) = (0, 0);
        }
        is_back
    }

    /// Whether it is a source that was left alone because it could not be reached, and may be asked again.
    pub(super) fn heard(&mut self, node: NodeId) -> bool {
        let Some(number) = self.number(&node) else { return false };
        let peer = self.at(number);
        let was_away = peer.unreachable > 0;
        if was_away && peer.away == Away::Unreachable {
            peer.away_until = 0;
        }
        peer.unreachable = 0;
        was_away && !peer.down
    }

    /// None is left alone any longer because it could not be reached.
    pub(super) fn forgive(&mut self) {
        for peer in self.peers.iter_mut().flatten().filter(|peer| peer.unreachable > 0) {
            if peer.away == Away::Unreachable {
                peer.away_until = 0;
            }
            peer.unreachable = 0;
        }
    }

    /// Forgets of all nodes but these that they are down.
    pub(super) fn keep(&mut self, is_kept: impl Fn(&NodeId) -> bool) {
        let gone: Vec<NodeId> = self.down.iter().filter(|node| !is_kept(node)).copied().collect();
        gone.into_iter().for_each(|node| _ = self.set_up(node, true));
    }

    /// A pull from it begins, in this turn.
    pub(super) fn begin(&mut self, number: u16, turn: u64) {
        let peer = self.at(number);
        peer.uses += 1;
        peer.in_flight += 1;
        peer.turn = turn;
    }

    /// A pull from it ended. [`release`](Self::release) its use when all is said about it.
    pub(super) fn end(&mut self, number: u16) {
        self.at(number).in_flight -= 1;
    }

    pub(super) fn served(&mut self, number: u16) {
        let peer = self.at(number);
        (peer.unreachable, peer.busy) = (0, 0);
    }

    pub(super) fn unreachable(&mut self, number: u16, now: u64, random: &mut Random) {
        let peer = self.at(number);
        let wait = jittered(doubled(UNREACHABLE_MS, peer.unreachable), random);
        // Several pulls that fail at once are one failure.
        if peer.away_until <= now || peer.away != Away::Unreachable {
            peer.unreachable = peer.unreachable.saturating_add(1);
            (peer.away_until, peer.away) = (now.saturating_add(wait).max(peer.away_until), Away::Unreachable);
        }
    }

    pub(super) fn busy(&mut self, number: u16, now: u64, after_ms: u64, random: &mut Random) {
        let peer = self.at(number);
        let wait = doubled(BUSY_MS, peer.busy).max(after_ms.min(BUSY_AFTER_MS_MAX));
        if peer.away_until <= now {
            peer.busy = peer.busy.saturating_add(1);
            (peer.away_until, peer.away) = (now.saturating_add(jittered(wait, random)), Away::Busy);
        }
    }
}
