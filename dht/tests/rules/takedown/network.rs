//! A seeded network of nodes that follow each other's logs in virtual time, and what must hold at every moment.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_dht::takedown::{
    Answer, Ask, Gate, Heads, Lease, LeaseRules, RECORDS_MAX, Standing, TAKEDOWN_BYTES, Takedown, TakedownLog, Verdict,
};
use deadwax_dht::{NodeId, NodeKey};
use deadwax_track::TrackId;

use super::seeded::{Random, key, log, track};

/// The default rules, ten times faster.
pub(crate) const RULES: LeaseRules = LeaseRules { lease_ms: 6_000, grace_ms: 60_000, minority_ms: 6_000 };
/// How often a node asks the others in turn: all of them within a third of the lease.
const ROUND_MS: u64 = 2_000;
pub(crate) const ISSUERS: u8 = 3;

pub(crate) struct Machine {
    pub(crate) id: NodeId,
    pub(crate) up: bool,
    /// Counts starts and wakes: what was meant for an earlier life is void.
    life: u64,
    /// The file of records, byte for byte.
    pub(crate) disk: Vec<u8>,
    pub(crate) log: TakedownLog,
    pub(crate) lease: Lease,
    /// Its clock is the world's and this.
    clock_ahead: u64,
    /// Machines of different sides do not hear each other.
    pub(crate) side: usize,
    barred: BTreeSet<TrackId>,
    /// Whether its log lost records that it had flushed, and it has not caught up since.
    pub(crate) lost: bool,
}

impl Machine {
    pub(crate) fn now(&self, world: u64) -> u64 {
        world + self.clock_ahead
    }

    fn records(&self) -> Vec<Takedown> {
        self.disk.chunks(TAKEDOWN_BYTES).map(|bytes| Takedown::decode(bytes).expect("as written")).collect()
    }

    fn record(&self, slot: u32) -> Takedown {
        let from = slot as usize * TAKEDOWN_BYTES;
        Takedown::decode(&self.disk[from..from + TAKEDOWN_BYTES]).expect("as written")
    }
}

enum Event {
    Round { at: usize, life: u64 },
    Ask { from: usize, to: usize, life: u64, asked: u64, bytes: Vec<u8> },
    Answer { from: usize, to: usize, life: u64, asked: u64, bytes: Vec<u8> },
}

/// A takedown, and when it was in how many logs.
pub(crate) struct Issued {
    pub(crate) track: TrackId,
    heads: Heads,
    pub(crate) majority_at: Option<u64>,
    pub(crate) half_at: Option<u64>,
}

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) random: Random,
    pub(crate) loss_percent: u64,
    pub(crate) machines: Vec<Machine>,
    pub(crate) issued: Vec<Issued>,
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    next_track: u64,
    trace: blake3::Hasher,
    /// How often each verdict was seen on tracks that were taken down: a run without them shows nothing.
    pub(crate) verdicts: BTreeMap<&'static str, u64>,
}

impl World {
    pub(crate) fn new(seed: u64, machines: u8) -> Self {
        let ids: Vec<NodeId> = (1..=machines).map(|number| key(number).node_id()).collect();
        let machine = |index: usize| {
            let clock_ahead = 1_000_000 * (index as u64 + 1);
            let lease = Lease::new(ids[index], RULES, Standing::WHOLE, clock_ahead).expect("good rules");
            Machine {
                id: ids[index],
                up: true,
                life: 0,
                disk: Vec::new(),
                log: log(ISSUERS),
                lease,
                clock_ahead,
                side: 0,
                barred: BTreeSet::new(),
                lost: false,
            }
        };
        let mut world = Self {
            now: 0,
            random: Random(seed),
            loss_percent: 0,
            machines: (0..ids.len()).map(machine).collect(),
            issued: Vec::new(),
            events: BTreeMap::new(),
            next_event: 0,
            next_track: 0,
            trace: blake3::Hasher::new(),
            verdicts: BTreeMap::new(),
        };
        for at in 0..ids.len() {
            world.begin(at);
        }
        world
    }

    fn push(&mut self, in_ms: u64, event: Event) {
        self.events.insert((self.now + in_ms, self.next_event), event);
        self.next_event += 1;
    }

    /// Tells a machine's lease the members, and sets off its rounds.
    fn begin(&mut self, at: usize) {
        let ids: Vec<NodeId> = self.machines.iter().map(|machine| machine.id).collect();
        let now = self.machines[at].now(self.now);
        self.machines[at].lease.set_members(&ids, 1, now);
        let (life, first) = (self.machines[at].life, self.random.below(ROUND_MS));
        self.push(first, Event::Round { at, life });
    }

    pub(crate) fn stop(&mut self, at: usize) {
        self.machines[at].up = false;
        self.machines[at].life += 1;
    }

    /// Starts a machine from its disk, or from `image`, an earlier state of it.
    pub(crate) fn start(&mut self, at: usize, image: Option<Vec<u8>>) {
        let now = self.machines[at].now(self.now);
        let machine = &mut self.machines[at];
        let intact = image.is_none() && !machine.lost;
        if let Some(image) = image {
            machine.disk = image;
            machine.barred.clear();
            machine.lost = true;
        }
        machine.log = log(ISSUERS).rebuild(machine.records()).expect("its own file");
        machine.lease = Lease::new(machine.id, RULES, Standing { intact, counts: true }, now).expect("good rules");
        machine.up = true;
        assert!(machine.barred.iter().all(|id| machine.log.is_barred(id)), "machine {at} forgot a takedown");
        self.begin(at);
    }

    /// Wakes a machine that was stopped in its tracks: its memory is as it was. Its clock went on and jumps by `ahead`
    /// more, or stood still, and the driver says so.
    pub(crate) fn wake(&mut self, at: usize, ahead: u64, stood_still_ms: Option<u64>) {
        let machine = &mut self.machines[at];
        machine.up = true;
        machine.clock_ahead += ahead;
        if let Some(slept) = stood_still_ms {
            machine.clock_ahead -= slept;
            machine.lease.void(machine.clock_ahead + self.now);
        }
        let life = machine.life;
        self.push(0, Event::Round { at, life });
    }

    /// Has `issuer` take down a new track on machine `at`; true if it did.
    pub(crate) fn issue(&mut self, at: usize, issuer: u8) -> bool {
        let id = track(self.next_track);
        let (now, machine) = (self.now, &mut self.machines[at]);
        let Ok(record) = machine.log.issue(&key(issuer), id, now, "licence ended") else { return false };
        self.next_track += 1;
        machine.disk.extend(record.encode());
        machine.barred.insert(id);
        let heads = Ask::decode(&Ask { known: machine.log.heads() }.encode()).expect("as encoded").known;
        self.issued.push(Issued { track: id, heads, majority_at: None, half_at: None });
        self.spread();
        true
    }

    /// Sends machine `at` an answer by nobody: forged records, and true ones changed.
    pub(crate) fn forge(&mut self, at: usize) {
        let mut record = if self.machines[0].disk.is_empty() {
            let (track, reason) = (track(u64::MAX), String::new());
            let previous = [0; 32];
            Takedown { issuer: [0; 32], number: 1, previous, track, time: 0, reason, signature: [0; 64] }
                .sign(&NodeKey::from_bytes(&[99; 32]))
        } else {
            self.machines[0].record(0)
        };
        record.track = track(1_000_000 + self.random.below(1_000));
        let before = self.machines[at].log.clone();
        let merged = self.machines[at].log.merge(std::slice::from_ref(&record));
        assert!(merged.append.is_empty() && merged.forged + merged.strangers == 1, "{merged:?}");
        assert_eq!(before.heads(), self.machines[at].log.heads());
    }

    /// Notes in how many logs each takedown is by now. A crashed machine's log is on its disk.
    fn spread(&mut self) {
        let members = self.machines.len();
        for issued in &mut self.issued {
            let have = self.machines.iter().filter(|machine| machine.log.covers(&issued.heads)).count();
            if have > members / 2 {
                issued.majority_at = issued.majority_at.or(Some(self.now));
            }
            // What a machine lost counts for half no more; a majority is promised to bear it.
            issued.half_at = if 2 * have >= members { issued.half_at.or(Some(self.now)) } else { None };
        }
    }

    fn send(&mut self, from: usize, to: usize, event: Event) {
        let heard = self.machines[from].side == self.machines[to].side;
        if heard && !self.random.percent(self.loss_percent) {
            let delay = 1 + self.random.below(200);
            self.push(delay, event);
        }
    }

    fn ask(&mut self, at: usize, to: usize) {
        let machine = &self.machines[at];
        let (life, asked) = (machine.life, machine.now(self.now));
        let bytes = Ask { known: machine.log.locator() }.encode();
        self.send(at, to, Event::Ask { from: at, to, life, asked, bytes });
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Round { at, life } => {
                if self.machines[at].up && self.machines[at].life == life {
                    (0..self.machines.len()).filter(|to| *to != at).for_each(|to| self.ask(at, to));
                    self.push(ROUND_MS, Event::Round { at, life });
                }
            }
            Event::Ask { from, to, life, asked, bytes } => {
                let machine = &self.machines[to];
                if !machine.up {
                    return;
                }
                let known = Ask::decode(&bytes).expect("as encoded").known;
                // Small batches, so that catching up takes several.
                let limit = [3, RECORDS_MAX][usize::from(machine.disk.len().is_multiple_of(512))];
                let slots = machine.log.since(&known, limit);
                let records = slots.into_iter().map(|slot| machine.record(slot)).collect();
                let answer =
                    Answer { synced: machine.lease.synced(), basis: None, heads: machine.log.heads(), records };
                let bytes = answer.encode();
                self.send(to, from, Event::Answer { from: to, to: from, life, asked, bytes });
            }
            Event::Answer { from, to, life, asked, bytes } => {
                if self.machines[to].up && self.machines[to].life == life {
                    self.take(from, to, asked, &bytes);
                }
            }
        }
    }

    fn take(&mut self, from: usize, to: usize, asked: u64, bytes: &[u8]) {
        let answer = Answer::decode(bytes).expect("as encoded");
        let peer = self.machines[from].id;
        let now = self.machines[to].now(self.now);
        let machine = &mut self.machines[to];
        let merged = machine.log.merge(&answer.records);
        merged.append.iter().for_each(|record| machine.disk.extend(record.encode()));
        machine.barred.extend(&merged.barred);
        assert_eq!(merged.forged + merged.strangers + merged.refused, 0, "{merged:?}");
        if machine.log.covers(&answer.heads) {
            machine.lease.compared(&peer, answer.synced, asked, now);
            machine.lost &= !machine.lease.synced();
        } else if !merged.append.is_empty() {
            self.ask(to, from);
        }
        self.spread();
    }

    /// Lets `ms` pass, looking at all machines several times a second.
    pub(crate) fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            let until = end.min(self.now + 100 + self.random.below(300));
            while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= until) {
                let ((time, number), event) = entry.remove_entry();
                self.now = time;
                self.trace.update(&time.to_le_bytes()).update(&number.to_le_bytes());
                self.handle(event);
            }
            self.now = until;
            self.check();
        }
    }

    /// What the gate of machine `at` says of `track`.
    pub(crate) fn verdict(&self, at: usize, track: &TrackId) -> Verdict {
        let machine = &self.machines[at];
        Gate { log: &machine.log, lease: &machine.lease }.check(track, machine.now(self.now))
    }

    /// No service after the bound; nothing un-barred.
    pub(crate) fn check(&mut self) {
        for at in (0..self.machines.len()).filter(|at| self.machines[*at].up) {
            let machine = &self.machines[at];
            assert!(machine.barred.iter().all(|id| machine.log.is_barred(id)), "machine {at} forgot a takedown");
            for issued in &self.issued {
                let verdict = self.verdict(at, &issued.track);
                self.trace.update(format!("{verdict:?}").as_bytes());
                let seen = match verdict {
                    Verdict::Barred(_) => "barred",
                    Verdict::Stale(_) => "stale",
                    Verdict::Pass => "served",
                };
                *self.verdicts.entry(seen).or_default() += 1;
                if verdict == Verdict::Pass {
                    let late = |since: Option<u64>, bound| since.is_some_and(|since| self.now >= since + bound);
                    let what = format!("machine {at} serves {} at {}", issued.track, self.now);
                    assert!(!late(issued.majority_at, RULES.lease_ms), "{what}: majority {:?}", issued.majority_at);
                    assert!(!late(issued.half_at, RULES.grace_ms), "{what}: half {:?}", issued.half_at);
                }
            }
        }
    }

    /// Ends all faults, and sees that all machines come to one log and serve.
    pub(crate) fn heal(&mut self) -> [u8; 32] {
        self.loss_percent = 0;
        for at in 0..self.machines.len() {
            self.machines[at].side = 0;
            if !self.machines[at].up {
                self.start(at, None);
            }
        }
        self.run(20_000);
        let set = |machine: &Machine| machine.records().iter().map(Takedown::hash).collect::<BTreeSet<_>>();
        let first = (self.machines[0].log.heads(), set(&self.machines[0]));
        for (at, machine) in self.machines.iter().enumerate() {
            assert_eq!((machine.log.heads(), set(machine)), first, "machine {at}");
            assert_eq!(machine.log.held(), 0);
            let fresh = track(u64::MAX - 1);
            assert_eq!(self.verdict(at, &fresh), Verdict::Pass, "machine {at} does not serve");
            for issued in &self.issued {
                assert!(machine.log.is_barred(&issued.track), "machine {at} serves {}", issued.track);
            }
        }
        *self.trace.finalize().as_bytes()
    }
}
