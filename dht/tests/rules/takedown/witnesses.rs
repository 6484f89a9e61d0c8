//! Large networks, whose nodes compare with witnesses only: the machine of the rounds under cuts, crashes, losses, slow
//! drives and witnesses that change.

mod joins;

use std::collections::{BTreeMap, BTreeSet};

use deadwax_dht::NodeId;
use deadwax_dht::takedown::{
    Answer, Ask, Follow, FollowEffect, LeaseRules, Standing, Takedown, TakedownLog, Verdict, WITNESSES_MAX, witnesses,
};
use deadwax_track::TrackId;

use super::seeded::{Random, key, log, track};

/// The default rules, ten times faster.
const RULES: LeaseRules = LeaseRules { lease_ms: 6_000, grace_ms: 60_000, minority_ms: 6_000 };
const ISSUERS: u8 = 2;

enum Event {
    Poll { at: usize, life: u64 },
    Ask { from: usize, to: usize, number: u64, bytes: Vec<u8> },
    Answer { from: usize, to: usize, number: u64, bytes: Vec<u8> },
    Read { at: usize, life: u64, read: u64, slots: Vec<u32> },
    Flush { at: usize, life: u64, append: u64, records: Vec<Takedown> },
    Learn { at: usize, life: u64, version: usize },
}

struct Machine {
    id: NodeId,
    follow: Follow,
    up: bool,
    life: u64,
    /// Flushed.
    disk: Vec<Takedown>,
    /// What a log of that is.
    on_disk: TakedownLog,
    flushes_until: u64,
    side: usize,
    /// The version of the witnesses that it knows.
    version: usize,
    wake: u64,
}

struct Issued {
    track: TrackId,
    issuer: u8,
    majority_at: Option<u64>,
    half_at: Option<u64>,
}

struct World {
    now: u64,
    random: Random,
    zones: usize,
    machines: Vec<Machine>,
    /// By version.
    witnesses: Vec<Vec<NodeId>>,
    dead: BTreeSet<NodeId>,
    loss_percent: u64,
    /// How long a new map takes to all, at most.
    learn_ms: u64,
    rules: LeaseRules,
    issued: Vec<Issued>,
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    /// By machine.
    asks: Vec<u64>,
    served: u64,
    barred: u64,
    stale: u64,
}

impl World {
    fn new(seed: u64, machines: u8, zones: usize) -> Self {
        Self::with(RULES, seed, machines, zones)
    }

    fn with(rules: LeaseRules, seed: u64, machines: u8, zones: usize) -> Self {
        let machine = |number: u8| {
            let id = key(number).node_id();
            let follow =
                Follow::new(id, rules, log(ISSUERS), Standing::WHOLE, seed + u64::from(number), 0).expect("good rules");
            Machine {
                id,
                follow,
                up: true,
                life: 0,
                disk: Vec::new(),
                on_disk: log(ISSUERS),
                flushes_until: 0,
                side: 0,
                version: 0,
                wake: 0,
            }
        };
        let mut world = Self {
            now: 0,
            random: Random(seed),
            zones,
            machines: (1..=machines).map(machine).collect(),
            witnesses: Vec::new(),
            dead: BTreeSet::new(),
            loss_percent: 0,
            learn_ms: 3_000,
            rules,
            issued: Vec::new(),
            events: BTreeMap::new(),
            next_event: 0,
            asks: vec![0; usize::from(machines)],
            served: 0,
            barred: 0,
            stale: 0,
        };
        world.witnesses.push(world.choose());
        (0..world.machines.len()).for_each(|at| world.learn(at, 0));
        world
    }

    fn choose(&self) -> Vec<NodeId> {
        let nodes = self.machines.iter().enumerate().map(|(at, machine)| (machine.id, at % self.zones));
        witnesses(nodes, &self.dead)
    }

    fn current(&self) -> &Vec<NodeId> {
        self.witnesses.last().expect("at least one")
    }

    fn index(&self, id: &NodeId) -> usize {
        self.machines.iter().position(|machine| machine.id == *id).expect("one of them")
    }

    fn id(&self, at: usize) -> NodeId {
        self.machines[at].id
    }

    fn push(&mut self, in_ms: u64, event: Event) {
        self.events.insert((self.now + in_ms, self.next_event), event);
        self.next_event += 1;
    }

    fn learn(&mut self, at: usize, version: usize) {
        let machine = &mut self.machines[at];
        machine.version = version;
        let id = machine.id;
        machine.follow.set_witnesses(self.now, &id, &self.witnesses[version], version as u64);
        self.carry_out(at);
    }

    /// The log of the map calls these dead, and all who are up learn it within seconds.
    fn declare(&mut self, dead: BTreeSet<NodeId>) {
        self.dead = dead;
        self.witnesses.push(self.choose());
        let version = self.witnesses.len() - 1;
        for at in 0..self.machines.len() {
            let (life, in_ms) = (self.machines[at].life, self.random.below(self.learn_ms));
            self.push(in_ms, Event::Learn { at, life, version });
        }
        self.spread();
    }

    fn stop(&mut self, at: usize) {
        self.machines[at].up = false;
        self.machines[at].life += 1;
    }

    fn start(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        let log = log(ISSUERS).rebuild(machine.disk.iter().cloned()).expect("its own file");
        let kept = machine.follow.lease().standing();
        machine.follow = Follow::new(machine.id, self.rules, log, kept, self.now, self.now).expect("good rules");
        (machine.up, machine.flushes_until) = (true, 0);
        // The map that it had, then the log's changes since.
        for version in machine.version..self.witnesses.len() {
            self.learn(at, version);
        }
    }

    fn issue(&mut self, at: usize, issuer: u8) {
        let id = track(self.issued.len() as u64);
        let (now, machine) = (self.now, &mut self.machines[at]);
        if machine.follow.issue(now, &key(issuer), id, now, "licence ended").is_ok() {
            self.issued.push(Issued { track: id, issuer, majority_at: None, half_at: None });
            self.carry_out(at);
        }
    }

    /// Notes which takedowns a majority of the witnesses has flushed, with all of its issuer's before.
    fn spread(&mut self) {
        let members = self.current().clone();
        let disks: Vec<BTreeSet<TrackId>> = members
            .iter()
            .map(|id| self.machines[self.index(id)].disk.iter().map(|record| record.track).collect())
            .collect();
        for index in 0..self.issued.len() {
            let issuer = self.issued[index].issuer;
            let chain: Vec<TrackId> = self.issued[..=index]
                .iter()
                .filter(|issued| issued.issuer == issuer)
                .map(|issued| issued.track)
                .collect();
            let have = disks.iter().filter(|disk| chain.iter().all(|track| disk.contains(track))).count();
            let issued = &mut self.issued[index];
            if have > members.len() / 2 {
                issued.majority_at = issued.majority_at.or(Some(self.now));
            }
            issued.half_at = if 2 * have >= members.len() { issued.half_at.or(Some(self.now)) } else { None };
        }
    }

    fn send(&mut self, from: usize, to: usize, event: Event) {
        if self.machines[from].side == self.machines[to].side && !self.random.percent(self.loss_percent) {
            let latency = 1 + self.random.below(100);
            self.push(latency, event);
        }
    }

    fn carry_out(&mut self, at: usize) {
        let life = self.machines[at].life;
        for effect in self.machines[at].follow.poll(self.now) {
            match effect {
                FollowEffect::Ask { to, number, ask } => {
                    self.asks[at] += 1;
                    let to = self.index(&to);
                    self.send(at, to, Event::Ask { from: at, to, number, bytes: ask.encode() });
                }
                FollowEffect::Answer { to, number, answer } => {
                    // What is said is flushed: whoever crashes now still has it.
                    let on_disk = &self.machines[at].on_disk;
                    assert!(on_disk.covers(&answer.heads), "machine {at} speaks of what it has not flushed");
                    let to = self.index(&to);
                    self.send(at, to, Event::Answer { from: at, to, number, bytes: answer.encode() });
                }
                FollowEffect::Read { read, slots } => {
                    assert!(slots.iter().all(|slot| (*slot as usize) < self.machines[at].disk.len()));
                    let in_ms = self.random.below(20);
                    self.push(in_ms, Event::Read { at, life, read, slots });
                }
                FollowEffect::Append { append, slot: _, records } => {
                    // Appends are flushed in order, one after the other.
                    let takes_ms = if self.random.percent(90) { 30 } else { 200 };
                    let until = self.machines[at].flushes_until.max(self.now) + takes_ms;
                    self.machines[at].flushes_until = until;
                    self.push(until - self.now, Event::Flush { at, life, append, records });
                }
                FollowEffect::Erase { .. } | FollowEffect::Serves(_) | FollowEffect::Spread { .. } => {}
                FollowEffect::Forked { .. } | FollowEffect::Stranger { .. } => panic!("no issuer forks, all are known"),
            }
        }
        if let Some(wake) = self.machines[at].follow.next_deadline().map(|wake| wake.max(self.now + 1))
            && self.machines[at].wake != wake
        {
            self.machines[at].wake = wake;
            self.push(wake - self.now, Event::Poll { at, life });
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        let at = match event {
            Event::Poll { at, .. }
            | Event::Read { at, .. }
            | Event::Flush { at, .. }
            | Event::Learn { at, .. }
            | Event::Ask { to: at, .. }
            | Event::Answer { to: at, .. } => at,
        };
        let from = match event {
            Event::Ask { from, .. } | Event::Answer { from, .. } => self.id(from),
            _ => self.id(at),
        };
        let machine = &mut self.machines[at];
        if !machine.up {
            return;
        }
        match event {
            Event::Poll { life, .. } if life == machine.life && machine.wake == now => {}
            Event::Ask { number, bytes, .. } => {
                machine.follow.handle_ask(now, from, number, &Ask::decode(&bytes).expect("as encoded"));
            }
            Event::Answer { number, bytes, .. } => {
                let answer = Answer::decode(&bytes).expect("as encoded");
                machine.follow.handle_answer(now, from, number, &answer);
            }
            Event::Read { life, read, slots, .. } if life == machine.life => {
                let records = slots.iter().map(|slot| machine.disk[*slot as usize].clone()).collect();
                machine.follow.handle_read(now, read, Some(records));
            }
            Event::Flush { life, append, records, .. } if life == machine.life => {
                machine.on_disk.merge(&records);
                machine.disk.extend(records);
                machine.follow.handle_appended(now, append);
                self.spread();
            }
            Event::Learn { life, version, .. } if life == machine.life && version > machine.version => {
                for version in machine.version + 1..=version {
                    self.learn(at, version);
                }
            }
            _ => return,
        }
        self.carry_out(at);
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            let until = end.min(self.now + 100 + self.random.below(300));
            while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= until) {
                let ((time, _), event) = entry.remove_entry();
                self.now = time;
                self.handle(event);
            }
            self.now = until;
            self.check();
        }
    }

    fn verdict(&self, at: usize, number: u64) -> Verdict {
        self.machines[at].follow.gate().check(&track(number), self.now)
    }

    fn serving(&self) -> usize {
        let up = (0..self.machines.len()).filter(|at| self.machines[*at].up);
        up.filter(|at| self.verdict(*at, u64::MAX) == Verdict::Pass).count()
    }

    fn check(&mut self) {
        let newest = self.witnesses.len() - 1;
        for at in 0..self.machines.len() {
            if !self.machines[at].up || self.machines[at].version != newest {
                continue;
            }
            for (number, issued) in self.issued.iter().enumerate() {
                match self.verdict(at, number as u64) {
                    Verdict::Barred(_) => self.barred += 1,
                    Verdict::Stale(_) => self.stale += 1,
                    Verdict::Pass => {
                        self.served += 1;
                        let late = |since: Option<u64>, bound| since.is_some_and(|since| self.now >= since + bound);
                        let what = format!("machine {at} serves {number} at {}", self.now);
                        assert!(
                            !late(issued.majority_at, self.rules.lease_ms),
                            "{what}: majority {:?}",
                            issued.majority_at
                        );
                        assert!(!late(issued.half_at, self.rules.grace_ms), "{what}: half {:?}", issued.half_at);
                    }
                }
            }
        }
    }

    fn heal(&mut self) {
        self.loss_percent = 0;
        for at in 0..self.machines.len() {
            self.machines[at].side = 0;
            if !self.machines[at].up {
                self.start(at);
            }
        }
        self.declare(BTreeSet::new());
        self.run(40_000);
        for at in 0..self.machines.len() {
            assert_eq!(self.verdict(at, u64::MAX), Verdict::Pass, "machine {at} does not serve");
            for number in 0..self.issued.len() {
                assert!(matches!(self.verdict(at, number as u64), Verdict::Barred(_)), "machine {at}, {number}");
            }
        }
    }
}

#[test]
fn witnesses_are_all_of_few_and_sixteen_of_many_in_proportion() {
    let ids: Vec<NodeId> = (0..=255).map(|number| key(number).node_id()).collect();
    let count = |sizes: &[usize]| {
        let zones = sizes.iter().enumerate().flat_map(|(zone, size)| std::iter::repeat_n(zone, *size));
        let nodes: Vec<(NodeId, usize)> = ids.iter().copied().zip(zones).collect();
        let zone: BTreeMap<NodeId, usize> = nodes.iter().copied().collect();
        let chosen = witnesses(nodes.into_iter(), &BTreeSet::new());
        assert!(chosen.is_sorted());
        let mut counts = vec![0; sizes.len()];
        chosen.iter().for_each(|id| counts[zone[id]] += 1);
        counts
    };
    for (sizes, expected) in [
        (&[][..], &[][..]),
        (&[1], &[1]),
        (&[10, 6], &[10, 6]),
        (&[10, 7], &[9, 7]),
        (&[100, 100], &[8, 8]),
        (&[60, 60, 60], &[6, 5, 5]),
        (&[200, 4, 4], &[10, 3, 3]),
        (&[200, 1, 4], &[12, 1, 3]),
        (&[30, 30, 30, 30, 30], &[4, 3, 3, 3, 3]),
        (&[100, 10, 10, 10, 10, 10, 10], &[10, 1, 1, 1, 1, 1, 1]),
    ] {
        assert_eq!(count(sizes), expected, "{sizes:?}");
    }
}

#[test]
fn a_join_or_a_death_changes_few_witnesses() {
    let nodes = |count: u8| (0..count).map(|number| (key(number).node_id(), number % 3));
    let chosen =
        |count, dead: &BTreeSet<NodeId>| -> BTreeSet<NodeId> { witnesses(nodes(count), dead).into_iter().collect() };
    for count in 30..200 {
        let (before, after) = (chosen(count, &BTreeSet::new()), chosen(count + 1, &BTreeSet::new()));
        assert!(before.difference(&after).count() <= 2, "{count} nodes");
        let dead: BTreeSet<NodeId> = before.iter().take(1).copied().collect();
        let after = chosen(count, &dead);
        assert!(after.len() == WITNESSES_MAX && before.difference(&after).count() <= 2, "{count} nodes, one dead");
    }
}

#[test]
fn forty_nodes_serve_follow_and_ask_no_more_than_they_must() {
    let mut world = World::new(1, 40, 3);
    world.run(5_000);
    assert_eq!(world.serving(), 40);
    let before = world.asks.clone();
    world.run(60_000);
    assert_eq!(world.serving(), 40);
    for (at, machine) in world.machines.iter().enumerate() {
        let per_lease = (world.asks[at] - before[at]) / (60_000 / RULES.lease_ms);
        // A witness asks one every sixtieth of the lease or a round trip; who goes by its word, every third.
        let bounds = if world.current().contains(&machine.id) { 30..=80 } else { 3..=5 };
        assert!(bounds.contains(&per_lease), "machine {at}: {per_lease} questions a lease");
    }
    // Issued on a node that is no witness.
    let at = (0..40).find(|at| !world.current().contains(&world.machines[*at].id)).unwrap();
    world.issue(at, 1);
    world.run(1_000);
    assert!(world.issued[0].majority_at.is_some(), "the witnesses hear of it at once");
    world.run(6_000);
    assert!((0..40).all(|at| matches!(world.verdict(at, 0), Verdict::Barred(_))));
}

#[test]
fn a_node_that_slept_does_not_serve_until_it_has_caught_up() {
    let mut world = World::new(2, 40, 2);
    world.run(5_000);
    world.stop(20);
    for _ in 0..5 {
        world.issue(0, 1);
        world.run(4_000);
    }
    // Its memory is as it was, and its clock ran on.
    world.machines[20].up = true;
    assert!((0..5).all(|number| matches!(world.verdict(20, number), Verdict::Stale(_))));
    world.machines[20].side = 1;
    world.carry_out(20);
    world.run(20_000);
    assert!((0..5).all(|number| matches!(world.verdict(20, number), Verdict::Stale(_))));
    world.heal();
}

#[test]
fn of_two_sites_that_are_cut_apart_each_serves_for_the_grace_only() {
    let mut world = World::new(3, 40, 2);
    world.run(5_000);
    (0..40).for_each(|at| world.machines[at].side = at % 2);
    world.issue(0, 1);
    world.run(5_000);
    assert_eq!(world.serving(), 40, "half of the witnesses are on each side");
    world.run(RULES.grace_ms);
    assert_eq!(world.serving(), 0);
    world.heal();
}

#[test]
fn witnesses_that_die_are_replaced_and_what_they_knew_holds() {
    let mut world = World::new(4, 40, 3);
    world.run(5_000);
    for round in 0..8 {
        let issuer = 1 + u8::try_from(round % 2).expect("small");
        world.issue(usize::from(issuer), issuer);
        world.run(1_000);
        // Up to three of them at once, but no issuer's node.
        let victims: Vec<usize> =
            world.current().iter().map(|id| world.index(id)).filter(|at| *at > 2).take(3).collect();
        victims.iter().for_each(|at| world.stop(*at));
        world.run(3_000);
        let dead: BTreeSet<NodeId> = victims.iter().map(|at| world.machines[*at].id).collect();
        world.declare(dead);
        world.run(12_000);
        assert_eq!(world.serving(), 37, "round {round}");
        victims.iter().for_each(|at| world.start(*at));
    }
    world.heal();
}

#[test]
fn nobody_stops_serving_because_a_witness_is_replaced() {
    let mut world = World::with(LeaseRules::default(), 5, 40, 3);
    world.run(20_000);
    for round in 0..6 {
        let victim = world.current()[round % WITNESSES_MAX];
        world.declare(BTreeSet::from([victim]));
        for moment in 0..2 * world.rules.lease_ms / 500 {
            world.run(500);
            for at in 0..40 {
                let what = format!("round {round}, machine {at}, {moment} half seconds after");
                assert_eq!(world.verdict(at, u64::MAX), Verdict::Pass, "{what}");
            }
        }
    }
}

fn random_run(seed: u64) -> (u64, u64, u64) {
    let mut world = World::new(seed, 40, 2 + usize::try_from(seed % 3).expect("below 3"));
    world.run(5_000);
    for _ in 0..25 {
        let at = world.random.index(40);
        match world.random.below(10) {
            0..3 => {
                let issuer = world.random.index(usize::from(ISSUERS));
                if world.machines[issuer].up {
                    world.issue(issuer, u8::try_from(issuer + 1).expect("few"));
                }
            }
            // A crash loses what was being written; an issuer's node would then sign the number again.
            3 if at >= usize::from(ISSUERS) => {
                if world.machines[at].up {
                    world.stop(at)
                } else {
                    world.start(at)
                }
            }
            4 => {
                let zones = world.zones;
                (0..40).for_each(|at| world.machines[at].side = at % zones);
            }
            5 => (0..40).for_each(|at| world.machines[at].side = world.random.index(2)),
            6 | 7 => world.machines.iter_mut().for_each(|machine| machine.side = 0),
            8 => world.loss_percent = [0, 0, 5, 40][world.random.index(4)],
            _ => {
                // Up to three more are called dead or alive again at once.
                let mut dead = world.dead.clone();
                for _ in 0..3 {
                    let (at, down) = (world.random.index(40), 12);
                    let machine = &world.machines[at];
                    if machine.up {
                        dead.remove(&machine.id);
                    } else if dead.len() < down {
                        dead.insert(machine.id);
                    }
                }
                world.declare(dead);
            }
        }
        let ms = [50, 2_000, 8_000, 15_000][world.random.index(4)];
        world.run(ms);
    }
    world.heal();
    (world.served, world.barred, world.stale)
}

#[test]
fn no_service_after_the_bound_with_witnesses() {
    let mut seen = (0, 0, 0);
    for seed in 0..6 {
        println!("seed {seed}");
        let (served, barred, stale) = random_run(seed);
        seen = (seen.0 + served, seen.1 + barred, seen.2 + stale);
    }
    println!("served, barred, stale: {seen:?}");
    assert!(seen.0 > 100 && seen.1 > 1_000 && seen.2 > 1_000, "a run that shows nothing");
}

/// `cargo test --release -p deadwax-dht --test rules many_seeds_with_witnesses -- --ignored --nocapture`
#[test]
#[ignore = "takes minutes"]
fn many_seeds_with_witnesses() {
    for seed in 1_000..1_500 {
        println!("seed {seed}");
        random_run(seed);
    }
}

#[test]
fn equal_seeds_replay_with_witnesses() {
    assert_eq!(random_run(77), random_run(77));
}
