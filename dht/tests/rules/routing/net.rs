//! A network of routers: virtual time, latencies, drops, deaths and splits, all from one seed.

use std::collections::BTreeMap;

use deadwax_dht::NodeId;
use deadwax_dht::routing::{
    Contact, Effect, Outcome, PartitionRecord, RecordHolder, Request, Resolution, Response, Router, RouterSettings,
};
use deadwax_track::Partition;

// Not by `crate`: `deadwax-perf` has this file, too.
pub(crate) use super::random::Random;

pub(crate) const SECOND: u64 = 1_000;
pub(crate) const MINUTE: u64 = 60 * SECOND;
pub(crate) const HOUR: u64 = 60 * MINUTE;

enum Event {
    Wake,
    Request { from: usize, number: u64, request: Request },
    Response { from: usize, number: u64, response: Response },
}

/// How one resolution ended.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) outcome: Outcome,
    pub(crate) rounds: u32,
    pub(crate) requests: usize,
    pub(crate) ms: u64,
}

pub(crate) struct Net {
    pub(crate) now: u64,
    pub(crate) routers: Vec<Router>,
    contacts: Vec<Contact>,
    pub(crate) alive: Vec<bool>,
    /// Messages pass only between nodes of one side.
    pub(crate) side: Vec<u8>,
    /// Messages lost of a thousand.
    pub(crate) drops_permille: u64,
    pub(crate) random: Random,
    pub(crate) settings: RouterSettings,
    /// What the routers want of their drivers, but for sending: when, which, what.
    pub(crate) said: Vec<(u64, usize, Effect)>,
    pub(crate) messages: u64,
    events: BTreeMap<(u64, u64), (usize, Event)>,
    sequence: u64,
    wake_at: Vec<u64>,
    trace: blake3::Hasher,
}

impl Net {
    pub(crate) fn new(seed: u64, settings: RouterSettings) -> Self {
        Self {
            // Late enough that a node can have been there for long.
            now: 100 * HOUR,
            routers: vec![],
            contacts: vec![],
            alive: vec![],
            side: vec![],
            drops_permille: 0,
            random: Random(seed),
            settings,
            said: vec![],
            messages: 0,
            events: BTreeMap::new(),
            sequence: 0,
            wake_at: vec![],
            trace: blake3::Hasher::new(),
        }
    }

    pub(crate) fn contact(&self, node: usize) -> Contact {
        self.contacts[node].clone()
    }

    /// A node that knows nobody.
    pub(crate) fn add(&mut self) -> usize {
        let node = self.routers.len();
        self.contacts.push(contact(node));
        self.routers.push(Router::new(self.contact(node), self.settings));
        self.alive.push(true);
        self.side.push(0);
        self.wake_at.push(u64::MAX);
        node
    }

    /// A node that joins by these.
    pub(crate) fn join(&mut self, via: &[usize]) -> usize {
        let node = self.add();
        let now = self.now;
        self.routers[node].join_via(now, via.iter().map(|via| address(*via).into()));
        self.poll(node);
        node
    }

    /// Nodes that have been there for long, with tables as such nodes have them: of each bucket's part of the keyspace,
    /// k nodes drawn at random, or all where there are fewer.
    pub(crate) fn seed(&mut self, count: usize) {
        let nodes: Vec<usize> = (0..count).map(|_| self.add()).collect();
        let mut sorted: Vec<(NodeId, usize)> = nodes.iter().map(|node| (node_id(*node), *node)).collect();
        sorted.sort_unstable();
        for &node in &nodes {
            let (mut start, mut end) = (0, sorted.len());
            let own = *node_id(node).as_bytes();
            for bucket in 0..=u8::MAX {
                if end - start == 1 {
                    break;
                }
                // Where the ids with this bit set begin, among those that share the bits before it.
                let (byte, mask) = (usize::from(bucket / 8), 0x80 >> (bucket % 8));
                let middle = start + sorted[start..end].partition_point(|(id, _)| id.as_bytes()[byte] & mask == 0);
                let set = own[byte] & mask != 0;
                let (far, near) = if set { (start..middle, middle..end) } else { (middle..end, start..middle) };
                self.seed_bucket(node, &sorted[far]);
                (start, end) = (near.start, near.end);
            }
            self.routers[node].assume_joined(self.now, 0);
        }
        // Quiet until something is asked of them.
        for node in nodes {
            self.poll(node);
        }
    }

    fn seed_bucket(&mut self, node: usize, far: &[(NodeId, usize)]) {
        let k = self.settings.k;
        let mut chosen: Vec<usize> = (0..far.len()).collect();
        if far.len() > k {
            chosen.clear();
            while chosen.len() < k {
                let at = self.random.index(far.len());
                if !chosen.contains(&at) {
                    chosen.push(at);
                }
            }
        }
        for at in chosen {
            let contact = self.contact(far[at].1);
            let ping = self.routers[node].table_mut().handle_seen(self.now, contact);
            assert_eq!(ping, None, "no bucket overflows");
        }
    }

    /// Lets time pass until `end`.
    pub(crate) fn run_until(&mut self, end: u64) {
        while self.step(end) {}
        self.now = end;
    }

    pub(crate) fn run_for(&mut self, ms: u64) {
        self.run_until(self.now + ms);
    }

    fn step(&mut self, end: u64) -> bool {
        let Some(entry) = self.events.first_entry() else { return false };
        let (at, _) = *entry.key();
        if at > end {
            return false;
        }
        let (node, event) = entry.remove();
        self.now = at;
        if !self.alive[node] {
            return true;
        }
        let (kind, other) = match &event {
            Event::Wake => (0, 0),
            Event::Request { from, .. } => (1, *from),
            Event::Response { from, .. } => (2, *from),
        };
        for word in [at, kind, node as u64, other as u64] {
            self.trace.update(&word.to_le_bytes());
        }
        match event {
            Event::Wake if self.wake_at[node] != at => return true,
            Event::Wake => self.wake_at[node] = u64::MAX,
            Event::Request { from, number, request } => {
                let asker = self.contact(from);
                let response = self.routers[node].handle_request(at, Some(&asker), request);
                self.check_answer(&response);
                self.deliver(node, from, Event::Response { from: node, number, response });
            }
            Event::Response { from, number, response } => {
                let answerer = self.contact(from);
                self.routers[node].handle_response(at, number, answerer, response);
            }
        }
        self.poll(node);
        true
    }

    fn check_answer(&self, response: &Response) {
        if let Response::Nodes(nodes) | Response::Record(_, nodes) | Response::NoRecord { nodes, .. } = response {
            assert!(nodes.len() <= self.settings.k, "{} contacts in an answer", nodes.len());
        }
    }

    /// Carries out what the router says.
    pub(crate) fn poll(&mut self, node: usize) {
        let random = self.random.next();
        for effect in self.routers[node].poll(self.now, random) {
            match effect {
                Effect::Send { number, to, request } => {
                    self.deliver(node, node_at(&to.address), Event::Request { from: node, number, request });
                }
                effect => self.said.push((self.now, node, effect)),
            }
        }
        let wake = self.routers[node].next_deadline().max(self.now);
        if wake < self.wake_at[node] {
            self.wake_at[node] = wake;
            self.push(wake, node, Event::Wake);
        }
    }

    fn deliver(&mut self, from: usize, to: usize, event: Event) {
        self.messages += 1;
        let latency = 5 + self.random.next() % 75;
        let lost = self.random.next() % 1000 < self.drops_permille;
        if !lost && self.side.get(to) == Some(&self.side[from]) {
            self.push(self.now + latency, to, event);
        }
    }

    fn push(&mut self, at: u64, node: usize, event: Event) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), (node, event));
    }

    /// Stops a node that nobody is told about.
    pub(crate) fn kill(&mut self, node: usize) {
        self.alive[node] = false;
    }

    pub(crate) fn living(&self) -> Vec<usize> {
        (0..self.routers.len()).filter(|node| self.alive[*node]).collect()
    }

    pub(crate) fn random_living(&mut self) -> usize {
        loop {
            let node = self.random.index(self.routers.len());
            if self.alive[node] {
                return node;
            }
        }
    }

    /// Announces a record of `partition` whose first holder is `node`; how many keep it, and whether these are enough.
    pub(crate) fn publish(&mut self, node: usize, partition: Partition, epoch: u64) -> (usize, bool) {
        let seen = self.said.len();
        self.routers[node].publish(self.now, record(node, partition, epoch)).expect("not busy");
        self.poll(node);
        loop {
            for (_, _, effect) in &self.said[seen..] {
                if let Effect::Published { partition: which, copies, enough } = effect
                    && *which == partition
                {
                    return (*copies, *enough);
                }
            }
            self.run_for(10);
        }
    }

    /// Resolves each partition from the node beside it, all at once but for 5 ms between one and the next.
    pub(crate) fn resolve(&mut self, which: &[(usize, Partition)]) -> Vec<Resolved> {
        let seen = self.said.len();
        let mut begun = BTreeMap::new();
        for (index, (node, partition)) in which.iter().enumerate() {
            match self.routers[*node].resolve(self.now, *partition).expect("not busy") {
                Resolution::Looking(number) => begun.insert((*node, number), (index, self.now)),
                Resolution::Known(_) => panic!("node {node} has a map"),
            };
            self.poll(*node);
            self.run_for(5);
        }
        let mut ends = BTreeMap::new();
        let mut at = seen;
        while ends.len() < which.len() {
            while let Some((when, node, effect)) = self.said.get(at) {
                at += 1;
                if let Effect::Resolved { number, outcome, rounds, requests } = effect {
                    let (index, began) = begun[&(*node, *number)];
                    let ms = when - began;
                    let end = Resolved { outcome: outcome.clone(), rounds: *rounds, requests: *requests, ms };
                    assert!(ends.insert(index, end).is_none(), "a resolution ends once");
                }
            }
            self.run_for(1);
        }
        ends.into_values().collect()
    }

    /// The living nodes nearest to the partition, nearest first.
    pub(crate) fn nearest(&self, partition: Partition, count: usize) -> Vec<usize> {
        let mut nodes = self.living();
        let key = partition.into();
        nodes.sort_by_cached_key(|node| self.contact(*node).key().distance(&key));
        nodes.truncate(count);
        nodes
    }

    pub(crate) fn keeps(&self, node: usize, partition: Partition) -> bool {
        self.routers[node].records().get(self.now, partition).is_some()
    }

    /// What happened, in 32 bytes.
    pub(crate) fn trace(&self) -> blake3::Hash {
        self.trace.finalize()
    }
}

pub(crate) fn contact(node: usize) -> Contact {
    Contact::new(node_id(node), address(node))
}

pub(crate) fn node_id(node: usize) -> NodeId {
    NodeId::from_bytes(*blake3::hash(&(node as u64).to_le_bytes()).as_bytes())
}

pub(crate) fn address(node: usize) -> String {
    format!("10.0.0.1:{}", node + 1)
}

/// Which node is at this address.
pub(crate) fn node_at(address: &str) -> usize {
    let port: usize = address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("host:port");
    port - 1
}

pub(crate) fn record(node: usize, partition: Partition, epoch: u64) -> PartitionRecord {
    let holder = |node: usize| RecordHolder {
        node: node_id(node),
        volume: deadwax_dht::VolumeId::from_bytes([7; 16]),
        address: address(node).into(),
    };
    PartitionRecord { partition, epoch, holders: vec![holder(node)] }
}

/// The value that so many of a hundred do not exceed.
pub(crate) fn percentile<T: Copy + Ord>(values: impl Iterator<Item = T>, percent: usize) -> T {
    let mut sorted: Vec<T> = values.collect();
    sorted.sort_unstable();
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}
