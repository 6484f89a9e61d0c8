//! Gateways: clients at each site that put and get by the rules of `dht`, and know what was promised to them.

pub(crate) mod get;
mod map;
mod oracle;
mod put;

use std::collections::BTreeMap;
use std::sync::Arc;

use deadwax_dht::log::History;
use deadwax_dht::{HedgeBudget, Latency, Layout, NodeId};

use self::get::GetOp;
pub(crate) use self::oracle::Oracle;
use self::put::PutOp;
use crate::clock::{MILLI, Micros, SECOND};
use crate::random::Random;
use crate::slab::{Key, Slab};
use crate::trace::GATEWAY;
use crate::world::{Event, Reply, World};

/// How long a node that could not be reached is thought to be down.
const DOWN: Micros = 10 * SECOND;

/// One client.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) zone: usize,
    pub(crate) history: History,
    pub(crate) layout: Arc<Layout>,
    pub(crate) latency: Latency,
    pub(crate) budget: HedgeBudget,
    /// Until when nodes are thought to be down.
    pub(crate) down: BTreeMap<NodeId, Micros>,
    /// Requests that wait for a newer map.
    pub(crate) waiting: Vec<Key>,
    /// Counts the questions for the map.
    pub(crate) asked: u32,
    pub(crate) asking: bool,
}

impl Gateway {
    fn is_down(&self, node: &NodeId, now: Micros) -> bool {
        self.down.get(node).is_some_and(|until| *until > now)
    }
}

/// A request of a client.
#[derive(Debug)]
pub(crate) struct ClientOp {
    pub(crate) gateway: u32,
    pub(crate) track: u32,
    pub(crate) began: Micros,
    /// Whether the track's put had been acknowledged when this began.
    pub(crate) known: bool,
    pub(crate) attempts: u32,
    /// It is a check of the run's own, at a time when all must be readable.
    pub(crate) must: bool,
    pub(crate) kind: OpKind,
    /// The time that it waits for, so that other wakes are of no use.
    pub(crate) wake_at: Micros,
}

/// What the request is.
#[derive(Debug)]
pub(crate) enum OpKind {
    Put(Box<PutOp>),
    Get(Box<GetOp>),
    /// It waits for a map to begin anew with.
    PutWaits,
    GetWaits,
}

/// All gateways, and what they are to do.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) ops: Slab<ClientOp>,
    pub(crate) random: Random,
    /// The mean time between requests of a gateway; 0: none are made.
    pub(crate) every: Micros,
    /// Per cent of requests that are puts.
    pub(crate) puts: u64,
    /// The most tracks that are made.
    pub(crate) tracks_max: u32,
    /// Nodes take on so little that they may be busy at any time.
    pub(crate) few: bool,
    /// Reads that the run itself asked for and that are not answered yet.
    pub(crate) musts: usize,
}

impl Clients {
    pub(crate) fn new(seed: u64, gateways: usize, zones: usize, history: &History, layout: &Arc<Layout>) -> Self {
        let gateway = |number: usize| Gateway {
            zone: number % zones,
            history: history.clone(),
            layout: layout.clone(),
            latency: Latency::new(),
            budget: HedgeBudget::default(),
            down: BTreeMap::new(),
            waiting: Vec::new(),
            asked: 0,
            asking: false,
        };
        Self {
            gateways: (0..gateways).map(gateway).collect(),
            ops: Slab::new(),
            random: Random::stream(seed, 0xc11e),
            every: SECOND,
            puts: 30,
            tracks_max: 400,
            few: false,
            musts: 0,
        }
    }

    pub(crate) fn zone(&self, gateway: u32) -> usize {
        self.gateways[gateway as usize].zone
    }
}

impl World {
    /// Gateways begin to ask.
    pub(crate) fn gateways_begin(&mut self, at: Micros) {
        for gateway in 0..self.clients.gateways.len() {
            let gateway = u32::try_from(gateway).expect("few gateways");
            let first = at + self.clients.random.below(2 * SECOND);
            self.queue.push(first, Event::Gateway { gateway });
        }
    }

    /// A gateway begins a request, and plans the next.
    pub(crate) fn gateway_next(&mut self, gateway: u32) {
        let every = self.clients.every;
        if every == 0 {
            return;
        }
        let next = self.clients.random.between(every / 10, every * 2);
        self.queue.push(self.now + next, Event::Gateway { gateway });
        let (made, most, puts) = (self.oracle.len(), self.clients.tracks_max, self.clients.puts);
        if made == 0 || self.clients.random.percent(puts) {
            let again = made > 0 && (made >= most || self.clients.random.percent(10));
            let track = if again {
                u32::try_from(self.clients.random.below(u64::from(made))).expect("below a u32")
            } else {
                self.oracle.make(&mut self.clients.random, &self.topology.partitions)
            };
            return self.put_begins(gateway, track);
        }
        if self.clients.random.percent(10)
            && let Some(track) = self.some_taken_down()
        {
            return self.get_begins(gateway, track, false);
        }
        let track = if self.clients.random.percent(4) {
            self.oracle.make(&mut self.clients.random, &self.topology.partitions)
        } else {
            u32::try_from(self.clients.random.below(u64::from(made))).expect("below a u32")
        };
        self.get_begins(gateway, track, false);
    }

    fn some_taken_down(&mut self) -> Option<u32> {
        let asked = (0..).zip(&self.oracle.tracks).filter(|(_, track)| track.takedown_asked.is_some());
        let asked: Vec<u32> = asked.map(|(number, _)| number).collect();
        self.clients.random.pick(&asked)
    }

    pub(crate) fn client_go_on(&mut self, op: Key) {
        let Some(at) = self.clients.ops.get(op) else { return };
        if at.wake_at > self.now {
            return;
        }
        match at.kind {
            OpKind::Put(_) => self.put_polls(op),
            OpKind::Get(_) => self.get_polls(op),
            OpKind::PutWaits | OpKind::GetWaits => {}
        }
    }

    /// Wakes a request at a time of its own clock, in ms.
    fn client_later(&mut self, op: Key, until_ms: u64) {
        let at = until_ms.saturating_mul(MILLI).max(self.now + 1);
        if let Some(op) = self.clients.ops.get_mut(op) {
            op.wake_at = at;
        }
        self.queue.push(at, Event::Client { op });
    }

    pub(crate) fn client_reply(&mut self, op: Key, target: u32, flow: Key, reply: Reply) {
        match self.clients.ops.get(op).map(|op| &op.kind) {
            Some(OpKind::Put(_)) => self.put_reply(op, target as usize, flow, reply),
            Some(OpKind::Get(_)) => self.get_reply(op, target as usize, flow, reply),
            _ => self.hang_up(flow),
        }
    }

    /// A node could not be reached: it is asked last for a while.
    fn note_down(&mut self, gateway: u32, node: NodeId) {
        let until = self.now + DOWN;
        self.clients.gateways[gateway as usize].down.insert(node, until);
    }

    const fn now_ms(&self) -> u64 {
        self.now / MILLI
    }

    const fn endpoint(gateway: u32) -> u32 {
        GATEWAY + gateway
    }
}
