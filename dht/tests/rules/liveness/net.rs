//! A network of machines on simulated time: latency, loss, cuts, crashes and stopped processes, all from one seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use deadwax_dht::liveness::{Cells, DATAGRAM_BYTES_MAX, Effect, Liveness, LivenessSettings, Standing};
use deadwax_dht::{MAP_VERSION, Map, MapSpec, Node, NodeId, Policy, Volume, VolumeId};

pub(crate) const SECOND: u64 = 1_000;
pub(crate) const MINUTE: u64 = 60 * SECOND;
/// What a stopped process's socket keeps for it.
const SOCKET_MAX: usize = 256;

pub(crate) fn id(index: usize) -> NodeId {
    NodeId::from_bytes(*blake3::hash(&index.to_le_bytes()).as_bytes())
}

/// A map whose zones `a`, `b`... have so many nodes.
pub(crate) fn map(zones: &[usize]) -> Map {
    let mut nodes = Vec::new();
    for (zone, &count) in zones.iter().enumerate() {
        for _ in 0..count {
            let index = nodes.len();
            let mut volume = [0; 16];
            volume[..8].copy_from_slice(&(index as u64 + 1).to_le_bytes());
            nodes.push(Node {
                id: id(index),
                zone: char::from(b'a' + u8::try_from(zone).unwrap()).to_string(),
                rack: None,
                address: format!("n{index}:1"),
                volumes: vec![Volume { id: VolumeId::from_bytes(volume), weight: 1 }],
            });
        }
    }
    let cluster = "00112233445566778899aabbccddeeff".parse().unwrap();
    let policy = Policy { copies: 1, write_quorum: 1, zones_min: 1 };
    Map::new(MapSpec { version: MAP_VERSION, cluster, epoch: 1, policy, nodes, overrides: Vec::new() }).unwrap()
}

/// All of `map` as one cell.
pub(crate) fn one_cell(map: &Map) -> Arc<Cells> {
    Arc::new(Cells::of_at_most(map, usize::MAX))
}

enum What {
    Wake,
    Datagram { from: usize, bytes: Vec<u8> },
}

/// What a machine said of another: when, who, of whom, what.
pub(crate) type Said = (u64, usize, usize, Standing);

pub(crate) struct Net {
    pub(crate) now: u64,
    pub(crate) map: Map,
    pub(crate) cells: Arc<Cells>,
    pub(crate) voters: BTreeSet<NodeId>,
    pub(crate) settings: LivenessSettings,
    pub(crate) machines: Vec<Option<Liveness>>,
    pub(crate) loss_percent: u64,
    /// From whom to whom nothing comes.
    pub(crate) cuts: BTreeSet<(usize, usize)>,
    pub(crate) said: Vec<Said>,
    pub(crate) datagrams: u64,
    pub(crate) longest: usize,
    index: BTreeMap<NodeId, usize>,
    stopped: BTreeMap<usize, Vec<(usize, Vec<u8>)>>,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    whats: BTreeMap<u64, What>,
    wakes: Vec<u64>,
    sent: u64,
    seed: u64,
    trace: blake3::Hasher,
}

impl Net {
    /// A network of one cell.
    pub(crate) fn new(zones: &[usize], seed: u64) -> Self {
        Self::with_cells(zones, usize::MAX, &[], LivenessSettings::default(), seed)
    }

    /// A network of cells of at most `cell_nodes_max`, with these voters.
    pub(crate) fn with_cells(
        zones: &[usize],
        cell_nodes_max: usize,
        voters: &[usize],
        settings: LivenessSettings,
        seed: u64,
    ) -> Self {
        let map = map(zones);
        let count = map.nodes().len();
        let mut net = Self {
            now: 0,
            machines: (0..count).map(|_| None).collect(),
            loss_percent: 0,
            cuts: BTreeSet::new(),
            said: Vec::new(),
            datagrams: 0,
            longest: 0,
            index: (0..count).map(|index| (id(index), index)).collect(),
            stopped: BTreeMap::new(),
            queue: BinaryHeap::new(),
            whats: BTreeMap::new(),
            wakes: vec![0; count],
            sent: 0,
            seed,
            trace: blake3::Hasher::new(),
            cells: Arc::new(Cells::of_at_most(&map, cell_nodes_max)),
            voters: voters.iter().map(|&index| id(index)).collect(),
            settings,
            map,
        };
        for index in 0..count {
            // Not all at once, or all would probe at once for ever.
            net.start(index, 1);
            let pause = net.draw() % 40;
            net.run(pause);
        }
        net
    }

    fn draw(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.seed >> 33
    }

    /// Starts a machine's process, which is its `life`th.
    pub(crate) fn start(&mut self, index: usize, life: u64) {
        let seed = self.draw();
        let mut machine = Liveness::new(id(index), life, self.map.cluster().prefix(), seed, self.settings, self.now);
        machine.set_map(self.now, &self.cells, &BTreeSet::new(), &self.voters);
        self.machines[index] = Some(machine);
        self.carry_out(index);
    }

    pub(crate) fn crash(&mut self, index: usize) {
        self.machines[index] = None;
    }

    /// As SIGSTOP does.
    pub(crate) fn stop(&mut self, index: usize) {
        self.stopped.insert(index, Vec::new());
    }

    /// As SIGCONT does. First the timer goes off, then the socket is read: the order that is worse.
    pub(crate) fn go_on(&mut self, index: usize) {
        let datagrams = self.stopped.remove(&index).expect("it was stopped");
        self.carry_out(index);
        for (from, bytes) in datagrams {
            self.deliver(index, from, &bytes);
        }
    }

    pub(crate) fn machine(&self, index: usize) -> &Liveness {
        self.machines[index].as_ref().expect("it runs")
    }

    pub(crate) fn hash(&self) -> blake3::Hash {
        self.trace.finalize()
    }

    fn push(&mut self, at: u64, to: usize, what: What) {
        self.sent += 1;
        self.queue.push(Reverse((at, self.sent, to)));
        self.whats.insert(self.sent, what);
    }

    fn deliver(&mut self, to: usize, from: usize, bytes: &[u8]) {
        if let Some(machine) = &mut self.machines[to] {
            machine.handle_datagram(self.now, id(from), bytes);
            self.carry_out(to);
        }
    }

    fn carry_out(&mut self, index: usize) {
        let Some(machine) = &mut self.machines[index] else { return };
        let effects = machine.poll(self.now);
        let deadline = machine.next_deadline();
        assert!(deadline <= self.now + self.settings.probe_ms, "a deadline is a probe's period ahead at most");
        for effect in effects {
            match effect {
                Effect::Send { to, bytes } => {
                    let to = self.index[&to];
                    assert!(bytes.len() <= DATAGRAM_BYTES_MAX, "{} bytes", bytes.len());
                    self.longest = self.longest.max(bytes.len());
                    self.datagrams += 1;
                    self.trace.update(&self.now.to_le_bytes()).update(&index.to_le_bytes()).update(&bytes);
                    let (lost, latency) = (self.draw() % 100 < self.loss_percent, 1 + self.draw() % 20);
                    if !lost && !self.cuts.contains(&(index, to)) {
                        self.push(self.now + latency, to, What::Datagram { from: index, bytes });
                    }
                }
                Effect::Changed { node, standing } => {
                    self.trace.update(format!("{} {index} {node} {standing:?}", self.now).as_bytes());
                    self.said.push((self.now, index, self.index[&node], standing));
                }
                Effect::Braked { zone } | Effect::Unbraked { zone } => {
                    self.trace.update(zone.as_bytes());
                }
            }
        }
        // A deadline that has not moved has its wake-up already.
        let deadline = deadline.max(self.now + 1);
        if self.wakes[index] != deadline {
            self.wakes[index] = deadline;
            self.push(deadline, index, What::Wake);
        }
    }

    pub(crate) fn run(&mut self, ms: u64) {
        let until = self.now + ms;
        while let Some(&Reverse((at, number, to))) = self.queue.peek().filter(|next| next.0.0 <= until) {
            self.queue.pop();
            self.now = at;
            let what = self.whats.remove(&number).expect("it was sent");
            match (what, self.stopped.get_mut(&to)) {
                (What::Datagram { from, bytes }, Some(socket)) => {
                    if socket.len() < SOCKET_MAX {
                        socket.push((from, bytes));
                    }
                }
                (What::Datagram { from, bytes }, None) => self.deliver(to, from, &bytes),
                (What::Wake, Some(_)) => {}
                (What::Wake, None) => {
                    if self.wakes[to] == at {
                        self.carry_out(to);
                    }
                }
            }
        }
        self.now = until;
    }

    /// When each machine that runs first called `node` down after `since`, in ms after it.
    pub(crate) fn detected(&self, node: usize, since: u64) -> Vec<u64> {
        let mut first = BTreeMap::new();
        for &(at, by, of, standing) in &self.said {
            if of == node && at >= since && !standing.is_up() {
                first.entry(by).or_insert(at - since);
            }
        }
        first.into_values().collect()
    }

    /// How often somebody was called other than up, and dead.
    pub(crate) fn accused(&self) -> (usize, usize) {
        let down = self.said.iter().filter(|(.., standing)| !standing.is_up()).count();
        (down, self.said.iter().filter(|(.., standing)| standing.is_dead()).count())
    }

    /// Whether machine `by` is to know whether `of` is there.
    pub(crate) fn judges(&self, by: usize, of: usize) -> bool {
        self.voters.contains(&id(by)) || self.cells.cell_of(&id(by)) == self.cells.cell_of(&id(of))
    }

    /// Whether every machine that runs holds every machine that runs for up, and no other that it is to know of.
    pub(crate) fn is_settled(&self) -> bool {
        let running: Vec<usize> = (0..self.machines.len()).filter(|&index| self.machines[index].is_some()).collect();
        running.iter().all(|&by| {
            (0..self.machines.len()).all(|of| {
                let is_up = self.machines[of].is_some() || !self.judges(by, of);
                if self.machine(by).is_up(&id(of)) != is_up {
                    println!("{by} of {of}: {:?}", self.machine(by).standing(&id(of)));
                }
                self.machine(by).is_up(&id(of)) == is_up
            })
        })
    }

    /// Cuts the cells anew, of at most so many nodes.
    pub(crate) fn recut(&mut self, cell_nodes_max: usize) {
        self.cells = Arc::new(Cells::of_at_most(&self.map, cell_nodes_max));
        for index in 0..self.machines.len() {
            if let Some(machine) = &mut self.machines[index] {
                machine.set_map(self.now, &self.cells, &BTreeSet::new(), &self.voters);
                self.carry_out(index);
            }
        }
    }
}
