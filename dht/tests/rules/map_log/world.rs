//! A seeded world of nodes, drives and wires for the map log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use deadwax_dht::NodeId;
use deadwax_dht::log::{
    BadHistory, Batch, Consensus, ConsensusConfig, Durable, Effect, History, Message, Outcome, Persist, Proposal,
    ProposeError, Record, Refusal, Ticket,
};

use super::cluster::{Random, history, node_id};

/// How bad the world is.
#[derive(Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) loss_percent: u64,
    pub(crate) twice_percent: u64,
    pub(crate) latency_ms_max: u64,
    pub(crate) drive_ms_max: u64,
}

impl Faults {
    pub(crate) const NONE: Self = Self { loss_percent: 0, twice_percent: 0, latency_ms_max: 5, drive_ms_max: 5 };
}

pub(crate) struct Machine {
    pub(crate) id: NodeId,
    pub(crate) up: bool,
    /// Counts the starts: what was meant for an earlier life is void.
    pub(crate) life: u64,
    pub(crate) history: History,
    /// What it finds of its history after a crash.
    saved: History,
    pub(crate) voter: Option<Consensus>,
    disk: Option<Durable>,
    /// Steps on their way to the drive.
    steps: VecDeque<Persist>,
    drive_free_at: u64,
    /// Machines of different sides do not hear each other.
    pub(crate) side: usize,
}

enum Event {
    Message {
        from: usize,
        to: usize,
        bytes: Vec<u8>,
    },
    /// A node asks another what it is missing.
    Ask {
        from: usize,
        to: usize,
        epoch: u64,
    },
    Answer {
        to: usize,
        bytes: Vec<u8>,
    },
    Persisted {
        at: usize,
        life: u64,
        number: u64,
    },
    Tick {
        at: usize,
        life: u64,
    },
    Gossip {
        at: usize,
    },
}

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) random: Random,
    pub(crate) faults: Faults,
    pub(crate) machines: Vec<Machine>,
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    trace: blake3::Hasher,
    /// The one history: the hash of each epoch's record.
    pub(crate) epochs: BTreeMap<u64, [u8; 32]>,
    /// What proposers were told.
    pub(crate) outcomes: BTreeMap<Ticket, Outcome>,
    next_ticket: u64,
    pub(crate) retired: usize,
    pub(crate) snapshots: usize,
}

impl World {
    /// Machines 1 to `machines`, of which the first `voters` vote.
    pub(crate) fn new(seed: u64, machines: u8, voters: u8, faults: Faults) -> Self {
        let genesis = history(machines, voters);
        let mut world = Self {
            now: 0,
            random: Random(seed),
            faults,
            machines: Vec::new(),
            events: BTreeMap::new(),
            next_event: 0,
            trace: blake3::Hasher::new(),
            epochs: BTreeMap::from([(genesis.epoch(), genesis.head())]),
            outcomes: BTreeMap::new(),
            next_ticket: 0,
            retired: 0,
            snapshots: 0,
        };
        for number in 1..=machines {
            let id = node_id(number);
            let disk = genesis.state().seat_of(&id).map(|seat| Durable::founding(seat, &genesis));
            world.machines.push(Machine {
                id,
                up: false,
                life: 0,
                history: genesis.clone(),
                saved: genesis.clone(),
                voter: None,
                disk,
                steps: VecDeque::new(),
                drive_free_at: 0,
                side: 0,
            });
        }
        for at in 0..world.machines.len() {
            world.start(at);
            let first = world.random.below(500);
            world.later(first, Event::Gossip { at });
        }
        world
    }

    fn later(&mut self, ms: u64, event: Event) {
        self.events.insert((self.now + ms, self.next_event), event);
        self.next_event += 1;
    }

    fn note(&mut self, what: &str, numbers: &[u64]) {
        self.trace.update(what.as_bytes());
        for number in [self.now].iter().chain(numbers) {
            self.trace.update(&number.to_le_bytes());
        }
    }

    /// What happened so far, as a hash.
    pub(crate) fn trace(&self) -> blake3::Hash {
        self.trace.finalize()
    }

    pub(crate) fn run_until(&mut self, time: u64) {
        while self.events.first_key_value().is_some_and(|((at, _), _)| *at <= time) {
            let ((at, _), event) = self.events.pop_first().expect("there is one");
            self.now = at;
            self.happen(event);
        }
        self.now = time;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Message { from, to, bytes } => self.receive(from, to, &bytes),
            Event::Ask { from, to, epoch } => {
                if self.machines[to].up && self.machines[from].side == self.machines[to].side {
                    let batch = self.machines[to].history.since(epoch);
                    if !batch.is_empty() {
                        let latency = 1 + self.random.below(self.faults.latency_ms_max);
                        self.later(latency, Event::Answer { to: from, bytes: batch.encode() });
                    }
                }
            }
            Event::Answer { to, bytes } => self.take_answer(to, &bytes),
            Event::Persisted { at, life, number } => {
                if self.machines[at].life == life {
                    let machine = &mut self.machines[at];
                    let step = machine.steps.pop_front().expect("in order");
                    assert_eq!(step.number, number);
                    write(&mut machine.disk, &step, machine.voter.as_ref());
                    if let Some(voter) = &mut machine.voter {
                        voter.acknowledge(number);
                    }
                    self.do_effects(at);
                }
            }
            Event::Tick { at, life } => {
                if self.machines[at].life == life && self.machines[at].voter.is_some() {
                    let now = self.now;
                    let voter = self.machines[at].voter.as_mut().expect("just seen");
                    voter.tick(now);
                    let next = voter.next_deadline();
                    self.do_effects(at);
                    if let Some(next) = next {
                        self.later(next.saturating_sub(now).max(1), Event::Tick { at, life });
                    }
                }
            }
            Event::Gossip { at } => {
                let to = self.random.index(self.machines.len());
                if self.machines[at].up && to != at && !self.random.percent(self.faults.loss_percent) {
                    let epoch = self.machines[at].history.epoch();
                    let latency = 1 + self.random.below(self.faults.latency_ms_max);
                    self.later(latency, Event::Ask { from: at, to, epoch });
                }
                self.later(400, Event::Gossip { at });
            }
        }
    }

    fn receive(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let sender = self.machines[from].id;
        if !self.machines[to].up || self.machines[from].side != self.machines[to].side {
            return;
        }
        let message = Message::decode(bytes).expect("what was encoded");
        let hash = u64::from_le_bytes(*blake3::hash(bytes).as_bytes().first_chunk().expect("32 bytes"));
        self.note("message", &[from as u64, to as u64, hash]);
        if let Some(voter) = &mut self.machines[to].voter {
            // Late ones for an earlier seat, and those that come while the drive is slow, are refused.
            let _ = voter.handle_message(sender, message);
            self.do_effects(to);
        }
    }

    fn take_answer(&mut self, to: usize, bytes: &[u8]) {
        if !self.machines[to].up {
            return;
        }
        let batch = Batch::decode(bytes).expect("what was encoded");
        let before = self.machines[to].history.epoch();
        let further = match self.machines[to].history.catch_up(&batch) {
            Ok(further) => further,
            // It asked before it crashed, and forgot something since.
            Err(BadHistory::Gap { .. }) => 0,
            Err(error) => panic!("an honest peer's batch was refused: {error}"),
        };
        self.note("caught up", &[to as u64, further]);
        self.check_epochs(to, before);
    }

    /// Does what the voter wants, and what follows for the node.
    fn do_effects(&mut self, at: usize) {
        let before = self.machines[at].history.epoch();
        while let Some(effect) = self.machines[at].voter.as_mut().and_then(Consensus::poll) {
            match effect {
                Effect::Persist(step) => self.persist(at, step),
                Effect::Send { to, message } => self.send(at, to, &message),
                Effect::Committed(batch) => {
                    let machine = &mut self.machines[at];
                    let voter = machine.voter.as_ref().expect("it said so");
                    if machine.history.catch_up(&batch).is_err() {
                        // The node's own history was behind what the voter began with.
                        let all = voter.history().since(machine.history.epoch());
                        machine.history.catch_up(&all).expect("the voter's is good");
                    }
                }
                Effect::Decided { ticket, outcome } => {
                    self.note("decided", &[ticket.number]);
                    let known = self.outcomes.insert(ticket, outcome);
                    assert!(known.is_none(), "ticket {} was answered twice", ticket.number);
                }
                Effect::Unreadable => panic!("all are of one version"),
                Effect::Retired => {
                    self.retired += 1;
                    self.drop_voter(at);
                }
            }
        }
        self.check_epochs(at, before);
    }

    fn persist(&mut self, at: usize, step: Persist) {
        let delay = self.random.below(self.faults.drive_ms_max);
        let machine = &mut self.machines[at];
        machine.drive_free_at = machine.drive_free_at.max(self.now) + delay;
        let (ms, life, number) = (machine.drive_free_at - self.now, machine.life, step.number);
        self.snapshots += usize::from(step.snapshot.is_some() && !step.local);
        machine.steps.push_back(Persist::decode(&step.encode()).expect("what was encoded"));
        self.later(ms, Event::Persisted { at, life, number });
    }

    fn send(&mut self, from: usize, to: NodeId, message: &Message) {
        let to = self.machines.iter().position(|machine| machine.id == to).expect("a machine");
        let bytes = message.encode();
        let copies = 1 + u64::from(self.random.percent(self.faults.twice_percent));
        for _ in 0..copies {
            if !self.random.percent(self.faults.loss_percent) {
                let latency = 1 + self.random.below(self.faults.latency_ms_max);
                self.later(latency, Event::Message { from, to, bytes: bytes.clone() });
            }
        }
    }

    /// No two nodes ever have different records of an epoch, and a node's voter follows what its history says.
    fn check_epochs(&mut self, at: usize, before: u64) {
        let history = &self.machines[at].history;
        let newest = history.epoch();
        assert!(newest >= before, "a history went back");
        if newest == before {
            return;
        }
        for epoch in before.max(history.oldest())..=newest {
            let hash = history.hash(epoch).expect("it is kept");
            let known = *self.epochs.entry(epoch).or_insert(hash);
            assert_eq!(known, hash, "two records of epoch {epoch}");
        }
        self.note("epoch", &[at as u64, newest]);
        self.check_seat(at);
    }

    fn check_seat(&mut self, at: usize) {
        let machine = &self.machines[at];
        let wanted = machine.history.state().seat_of(&machine.id);
        let seat = machine.voter.as_ref().map(Consensus::seat);
        if seat.is_some() && seat != wanted {
            self.drop_voter(at);
        }
        if let Some(seat) = wanted.filter(|_| self.machines[at].voter.is_none()) {
            let durable = self.machines[at].disk.clone().filter(|disk| disk.seat == seat);
            self.start_voter(at, durable.unwrap_or_else(|| Durable::joining(seat)));
        }
    }

    fn drop_voter(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        // Durable before the voter's state goes: or it might take up the same seat with an empty log.
        machine.saved = machine.history.clone();
        (machine.voter, machine.disk) = (None, None);
        machine.steps.clear();
        machine.life += 1;
    }

    fn start_voter(&mut self, at: usize, durable: Durable) {
        let config = ConsensusConfig { tick_ms: 100, ..ConsensusConfig::new(self.random.next()) };
        let durable = Durable::decode(&durable.encode()).expect("what was encoded");
        let machine = &mut self.machines[at];
        let voter = Consensus::start(&config, self.now, durable, &machine.history).expect("a good state");
        let wait = voter.next_deadline().expect("it runs") - self.now;
        machine.voter = Some(voter);
        let life = machine.life;
        self.later(wait, Event::Tick { at, life });
        self.do_effects(at);
    }

    pub(crate) fn start(&mut self, at: usize) {
        if self.machines[at].up {
            return;
        }
        self.note("start", &[at as u64]);
        self.machines[at].up = true;
        self.check_seat(at);
    }

    /// The machine stops. Of the steps that were on their way to its drive, some are there.
    pub(crate) fn crash(&mut self, at: usize) {
        if !self.machines[at].up {
            return;
        }
        self.note("crash", &[at as u64]);
        let there = self.random.index(self.machines[at].steps.len() + 1);
        let saves_history = self.random.percent(50);
        let machine = &mut self.machines[at];
        for step in machine.steps.drain(..).take(there) {
            write(&mut machine.disk, &step, machine.voter.as_ref());
        }
        machine.voter = None;
        machine.up = false;
        machine.life += 1;
        machine.drive_free_at = 0;
        if saves_history {
            machine.saved = machine.history.clone();
        }
        machine.history = machine.saved.clone();
    }

    /// All is well from here on.
    pub(crate) fn heal(&mut self) {
        self.faults = Faults::NONE;
        for at in 0..self.machines.len() {
            self.machines[at].side = 0;
            self.start(at);
        }
    }

    /// Offers a change, planned at `base`, to a voter. Returns its ticket if the voter took it.
    pub(crate) fn offer(
        &mut self,
        at: usize,
        base: u64,
        change: deadwax_dht::log::Change,
    ) -> Result<Ticket, Option<ProposeError>> {
        let ticket = Ticket { node: self.machines[at].id, number: self.next_ticket };
        self.next_ticket += 1;
        let proposal = Proposal { ticket, base, change };
        let bytes = proposal.encode();
        assert_eq!(Proposal::decode(&bytes).as_ref(), Ok(&proposal));
        let voter = self.machines[at].voter.as_mut().ok_or(None)?;
        let taken = voter.propose(&proposal);
        self.note("offer", &[at as u64, ticket.number, u64::from(taken.is_ok())]);
        self.do_effects(at);
        taken.map(|()| ticket).map_err(Some)
    }

    pub(crate) fn leaders(&self) -> Vec<usize> {
        let leads = |at: &usize| self.machines[*at].voter.as_ref().is_some_and(Consensus::leads);
        (0..self.machines.len()).filter(leads).collect()
    }

    pub(crate) fn newest(&self) -> u64 {
        *self.epochs.last_key_value().expect("the genesis").0
    }

    /// What was told to be a record.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.outcomes.values().filter_map(|outcome| match outcome {
            Outcome::Record(record) => Some(&**record),
            _ => None,
        })
    }

    pub(crate) fn refusals(&self) -> impl Iterator<Item = &Refusal> {
        self.outcomes.values().filter_map(|outcome| match outcome {
            Outcome::Refused(refusal) => Some(refusal),
            _ => None,
        })
    }

    /// Goes on until `done`, `ms` at most. Whether it came to be.
    pub(crate) fn wait(&mut self, ms: u64, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + ms;
        while !done(self) && self.now < end {
            self.run_until(self.now + 20);
        }
        done(self)
    }

    /// Whether all machines, and all voters by Raft alone, are at the newest epoch.
    pub(crate) fn agrees(&self) -> bool {
        let newest = self.newest();
        self.machines.iter().all(|machine| {
            let voter = machine.voter.as_ref().map(|voter| voter.history().epoch());
            machine.history.epoch() == newest && voter.is_none_or(|epoch| epoch == newest)
        })
    }

    /// Where every machine stands, for a failure's message.
    pub(crate) fn picture(&self) -> String {
        let of = |machine: &Machine| {
            let voter = machine.voter.as_ref();
            let voter = voter.map(|voter| {
                let (seat, epoch) = (voter.seat(), voter.history().epoch());
                format!(
                    " seat {seat} term {} epoch {epoch} joint {} leads {}",
                    voter.term(),
                    voter.is_joint(),
                    voter.leads()
                )
            });
            let state = machine.history.state();
            let seats: Vec<u64> = state.voters().iter().chain(state.outgoing()).map(|voter| voter.seat).collect();
            format!("\n  epoch {} voters {seats:?}{}", machine.history.epoch(), voter.unwrap_or_default())
        };
        self.machines.iter().map(of).collect()
    }

    /// Every node's state is the same, bit for bit, and has no record that was told and is not there.
    pub(crate) fn check_all(&self) {
        let states: BTreeSet<[u8; 32]> = self.machines.iter().map(|machine| machine.history.state().hash()).collect();
        assert_eq!(states.len(), 1, "states differ");
        for record in self.records() {
            assert_eq!(self.epochs.get(&record.epoch), Some(&record.hash()), "epoch {} was lost", record.epoch);
        }
    }
}

fn write(disk: &mut Option<Durable>, step: &Persist, voter: Option<&Consensus>) {
    let seat = voter.expect("it wrote this").seat();
    disk.get_or_insert_with(|| Durable::joining(seat)).apply(step);
}
