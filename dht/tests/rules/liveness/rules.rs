//! Standing and brakes of one machine, whose neighbours are played by the test: they answer probes, and one tells what
//! became of the others.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_dht::liveness::{
    DeadBy, DownBy, Effect, FAILING_MS, FAILURES_MAX, Liveness, LivenessSettings, MASS_WINDOW_MS, SILENCE_MS, Standing,
    mass,
};
use deadwax_dht::{Map, NodeId};

use super::net::{MINUTE, SECOND, id, map, one_cell};

const ALIVE: u8 = 0;
const DOWN: u8 = 2;

struct Lab {
    now: u64,
    map: Map,
    machine: Liveness,
    /// By index: the life of each that is there. Node 0 is the machine, node 1 tells the news.
    there: BTreeMap<usize, u64>,
    lives: BTreeMap<usize, u64>,
    effects: Vec<Effect>,
    sent: Vec<Vec<u8>>,
}

impl Lab {
    fn new(zones: &[usize]) -> Self {
        let map = map(zones);
        let now = 1_000_000;
        let mut machine = Liveness::new(id(0), 1, map.cluster().prefix(), 42, LivenessSettings::default(), now);
        machine.set_map(now, &one_cell(&map), &BTreeSet::new(), &BTreeSet::new());
        let there: BTreeMap<usize, u64> = (1..map.nodes().len()).map(|index| (index, 1)).collect();
        Self { now, map, machine, lives: there.clone(), there, effects: Vec::new(), sent: Vec::new() }
    }

    fn put_identity(out: &mut Vec<u8>, node: NodeId, life: u64) {
        out.extend(node.as_bytes());
        out.extend(life.to_le_bytes());
    }

    fn datagram(&self, kind: u8, probe: u8, from: usize, updates: &[(usize, u64, u8)]) -> Vec<u8> {
        let mut out = vec![1, kind, probe, 0];
        out.extend(self.map.cluster().prefix().to_le_bytes());
        Self::put_identity(&mut out, id(from), self.lives[&from]);
        out.extend([0, 0]);
        Self::put_identity(&mut out, id(0), 1);
        out.extend(u16::try_from(updates.len()).unwrap().to_be_bytes());
        for &(node, life, state) in updates {
            Self::put_identity(&mut out, id(node), life);
            out.extend([0, 0, state]);
        }
        out
    }

    fn hear(&mut self, from: usize, bytes: &[u8]) {
        self.machine.handle_datagram(self.now, id(from), bytes);
        self.poll();
    }

    fn poll(&mut self) {
        for effect in self.machine.poll(self.now) {
            if let Effect::Send { to, bytes, .. } = &effect {
                self.sent.push(bytes.clone());
                let to = (1..self.map.nodes().len()).find(|&index| id(index) == *to).unwrap();
                if bytes[1] == 0 && self.there.contains_key(&to) {
                    let ack = self.datagram(1, bytes[2], to, &[]);
                    self.machine.handle_datagram(self.now, id(to), &ack);
                }
            } else {
                self.effects.push(effect);
            }
        }
    }

    /// Time passes; node 1 says something each second.
    fn run(&mut self, ms: u64) {
        let until = self.now + ms;
        while self.now < until {
            self.now += SECOND;
            let gossip = self.datagram(8, 0, 1, &[]);
            self.hear(1, &gossip);
        }
    }

    fn vanish(&mut self, nodes: impl Iterator<Item = usize>) {
        for node in nodes {
            self.there.remove(&node);
            let gossip = self.datagram(8, 0, 1, &[(node, self.lives[&node], DOWN)]);
            self.hear(1, &gossip);
            assert!(!self.machine.is_up(&id(node)));
        }
    }

    fn come_back(&mut self, nodes: impl Iterator<Item = usize>) {
        for node in nodes {
            let life = self.lives[&node] + 1;
            self.lives.insert(node, life);
            self.there.insert(node, life);
            let gossip = self.datagram(8, 0, 1, &[(node, life, ALIVE)]);
            self.hear(1, &gossip);
            assert!(!matches!(self.machine.standing(&id(node)), Some(Standing::Down { .. })));
        }
    }
}

fn ids(nodes: impl Iterator<Item = usize>) -> Vec<NodeId> {
    let mut ids: Vec<NodeId> = nodes.map(id).collect();
    ids.sort();
    ids
}

#[test]
fn a_mass_is_more_than_a_fifth_and_more_than_one() {
    let cases =
        [(0, 0), (1, 1), (2, 2), (3, 2), (5, 2), (9, 2), (10, 3), (14, 3), (15, 4), (99, 20), (100, 21), (200, 41)];
    for (nodes, expected) in cases {
        assert_eq!(mass(nodes), expected, "of {nodes}");
    }
}

#[test]
fn a_fifth_of_a_zone_dies_and_one_node_more_does_not() {
    // 20 of 100 are no mass.
    let mut lab = Lab::new(&[100]);
    lab.vanish(50..70);
    assert!(lab.machine.brake("a").is_none());
    lab.run(SILENCE_MS + MINUTE);
    assert_eq!(lab.machine.dead(), ids(50..70));
    // 21 are.
    let mut lab = Lab::new(&[100]);
    lab.vanish(50..71);
    lab.run(SILENCE_MS + MINUTE);
    assert!(lab.machine.dead().is_empty());
    let text = lab.machine.brake("a").unwrap().sentence(1_060_500);
    assert!(text.starts_with("zone a: 21 of 100 nodes are down, 21 or more vanished within 10 minutes, 60 s ago ("));
    assert!(text.contains(", and 16 more); nothing is moved"), "{text}");
    let report = lab.machine.report();
    assert_eq!((report.up, report.not_up.len(), report.brakes.len()), (78, 21, 1));
    assert!(report.not_up[0].silent_ms >= SILENCE_MS && report.not_up[0].zone == "a");
    // Half of a mass being back is not enough to end it, one more is; the rest have half an hour from there.
    lab.come_back(50..60);
    assert!(lab.machine.brake("a").is_some());
    lab.come_back(60..61);
    assert!(lab.machine.brake("a").is_none());
    lab.run(SILENCE_MS - MINUTE);
    assert!(lab.machine.dead().is_empty());
    lab.run(2 * MINUTE);
    assert_eq!(lab.machine.dead(), ids(61..71));
    assert!(lab.effects.contains(&Effect::Braked { zone: "a".into() }));
    assert!(lab.effects.contains(&Effect::Unbraked { zone: "a".into() }));
}

#[test]
fn only_what_vanishes_within_ten_minutes_is_a_mass() {
    let mut lab = Lab::new(&[10]);
    for node in [4, 5, 6] {
        lab.vanish(node..=node);
        lab.run(MASS_WINDOW_MS / 2 + MINUTE);
    }
    assert!(lab.machine.brake("a").is_none(), "three in 12 minutes");
    lab.vanish(7..8);
    assert!(lab.machine.brake("a").is_none(), "two in any 10 minutes");
    lab.vanish(8..9);
    assert_eq!(lab.machine.brake("a").unwrap().nodes.iter().copied().collect::<Vec<_>>(), ids([6, 7, 8].into_iter()));
    lab.run(SILENCE_MS + MINUTE);
    assert!(lab.machine.dead().is_empty(), "while it holds nobody in the zone dies");
}

#[test]
fn zones_are_judged_by_themselves() {
    let mut lab = Lab::new(&[6, 6, 1]);
    lab.vanish([3, 7].into_iter());
    assert!(lab.machine.report().brakes.is_empty(), "one in each");
    lab.vanish(12..13);
    assert!(lab.machine.brake("c").is_some(), "a zone of one node");
    lab.vanish(8..9);
    assert!(lab.machine.brake("b").is_some() && lab.machine.brake("a").is_none());
    lab.run(SILENCE_MS + MINUTE);
    assert_eq!(lab.machine.dead(), ids(3..4));
}

#[test]
fn an_operator_ends_a_brake() {
    let mut lab = Lab::new(&[4, 4]);
    lab.vanish(4..8);
    lab.run(SILENCE_MS / 2);
    assert!(!lab.machine.release(lab.now, "a") && lab.machine.release(lab.now, "b"));
    lab.run(SILENCE_MS / 2 - MINUTE);
    assert!(lab.machine.dead().is_empty(), "silence counts all the same");
    lab.run(2 * MINUTE);
    assert_eq!(lab.machine.dead(), ids(4..8));
    assert!(lab.machine.brake("b").is_none());
    // What comes back and vanishes again is a mass of its own.
    lab.come_back(4..8);
    lab.vanish(4..6);
    assert!(lab.machine.brake("b").is_some());
}

#[test]
fn what_was_released_is_no_part_of_the_next_mass() {
    let mut lab = Lab::new(&[4, 6]);
    lab.vanish(4..7);
    assert!(lab.machine.release(lab.now, "b"));
    lab.vanish(7..8);
    assert!(lab.machine.brake("b").is_none(), "one node");
    lab.vanish(8..9);
    assert_eq!(lab.machine.brake("b").unwrap().nodes.len(), 2);
    lab.run(SILENCE_MS + MINUTE);
    assert_eq!(lab.machine.dead(), ids(4..7), "the later brake holds only those that came under it");
}

#[test]
fn the_maps_word_stands_above_silence_and_return() {
    let mut lab = Lab::new(&[5]);
    let dead: BTreeSet<NodeId> = [id(3)].into();
    lab.machine.set_map(lab.now, &one_cell(&lab.map), &dead, &BTreeSet::new());
    let declared = Some(Standing::Dead { since_ms: lab.now, by: DeadBy::Declared });
    lab.run(10 * SECOND);
    assert_eq!((lab.machine.standing(&id(3)), lab.machine.dead()), (declared, vec![id(3)]), "though it answers");
    lab.vanish(3..4);
    lab.vanish(2..3);
    assert!(lab.machine.brake("a").is_none(), "the dead are no part of a mass");
    lab.come_back(3..4);
    lab.vanish(4..5);
    assert!(lab.machine.brake("a").is_some());
    // A declared death takes a node out of the brake's count.
    lab.machine.set_map(lab.now, &one_cell(&lab.map), &[id(3), id(4)].into(), &BTreeSet::new());
    assert!(lab.machine.brake("a").is_none());
    lab.come_back(2..3);
    lab.machine.set_map(lab.now, &one_cell(&lab.map), &BTreeSet::new(), &BTreeSet::new());
    assert_eq!(lab.machine.dead(), [], "the word is taken back");
    assert!(lab.machine.is_up(&id(3)) && !lab.machine.is_up(&id(4)));
}

#[test]
fn a_word_from_the_silent_makes_them_down_and_then_up() {
    let mut lab = Lab::new(&[8]);
    lab.vanish(5..6);
    lab.run(SILENCE_MS + MINUTE);
    assert!(matches!(lab.machine.standing(&id(5)), Some(Standing::Dead { by: DeadBy::Silence, .. })));
    // It speaks under the life that was called down: it is heard, and told to begin another.
    let gossip = lab.datagram(8, 0, 5, &[]);
    lab.hear(5, &gossip);
    assert!(matches!(lab.machine.standing(&id(5)), Some(Standing::Down { by: DownBy::Swim, .. })));
    lab.come_back(5..6);
    assert_eq!(lab.machine.standing(&id(5)), Some(Standing::Up));
}

/// Whether a node is up, wherever that is told.
fn told_up(node: usize) -> impl Fn(&Effect) -> Option<bool> {
    move |effect| match effect {
        Effect::Changed { node: told, standing } if *told == id(node) => Some(standing.is_up()),
        _ => None,
    }
}

#[test]
fn failed_requests_are_a_hint_that_fades() {
    let mut lab = Lab::new(&[4]);
    lab.run(5 * SECOND);
    let from = lab.now;
    for _ in 1..FAILURES_MAX {
        lab.machine.request_failed(lab.now, id(2));
    }
    assert!(lab.machine.is_up(&id(2)));
    lab.machine.request_failed(lab.now, id(2));
    let down = Standing::Down { since_ms: from, by: DownBy::Requests };
    assert_eq!(lab.machine.standing(&id(2)), Some(down));
    lab.vanish(3..4);
    let mut nodes = [id(9), id(3), id(2), id(1), id(0)];
    lab.machine.order(&mut nodes);
    assert_eq!(nodes, [id(1), id(0), id(2), id(3), id(9)]);
    lab.run(FAILING_MS);
    assert!(lab.machine.is_up(&id(2)), "it is tried again");
    assert_eq!(lab.effects.iter().filter_map(told_up(2)).collect::<Vec<bool>>(), [false, true]);
    for _ in 0..FAILURES_MAX {
        lab.machine.request_failed(lab.now, id(2));
    }
    lab.machine.request_succeeded(lab.now, id(2));
    assert!(lab.machine.is_up(&id(2)));
    // Another that fails, or one that is answered, just as the others have faded, hides nothing of it.
    for answered in [false, true] {
        lab.poll();
        lab.effects.clear();
        (0..FAILURES_MAX).for_each(|_| lab.machine.request_failed(lab.now, id(2)));
        lab.run(FAILING_MS - SECOND);
        lab.now += SECOND;
        if answered {
            lab.machine.request_succeeded(lab.now, id(2));
        } else {
            lab.machine.request_failed(lab.now, id(2));
        }
        lab.run(2 * FAILING_MS);
        let told: Vec<bool> = lab.effects.iter().filter_map(told_up(2)).collect();
        assert_eq!(told, [false, true], "answered: {answered}");
    }
    // However long they go on, they kill nobody.
    for _ in 0..40 {
        lab.machine.request_failed(lab.now, id(2));
        lab.run(MINUTE);
    }
    assert!(!lab.machine.dead().contains(&id(2)));
}

#[test]
fn who_leaves_the_map_is_forgotten_and_may_come_again() {
    let mut lab = Lab::new(&[6]);
    lab.vanish(4..6);
    assert!(lab.machine.brake("a").is_some());
    // Until the news of it has been passed on.
    lab.run(5 * SECOND);
    let smaller = map(&[4]);
    lab.machine.set_map(lab.now, &one_cell(&smaller), &BTreeSet::new(), &BTreeSet::new());
    lab.sent.clear();
    assert!(lab.machine.brake("a").is_none() && lab.machine.standing(&id(4)).is_none());
    let gossip = lab.datagram(8, 0, 5, &[(4, 9, ALIVE)]);
    lab.hear(5, &gossip);
    let gossip = lab.datagram(8, 0, 1, &[(4, 9, ALIVE), (5, 9, DOWN)]);
    lab.hear(1, &gossip);
    assert!(lab.machine.standing(&id(4)).is_none() && lab.machine.standing(&id(5)).is_none());
    lab.run(5 * SECOND);
    let names = |bytes: &Vec<u8>, index| bytes.windows(32).any(|window| window == id(index).as_bytes());
    assert!(lab.sent.iter().any(|bytes| names(bytes, 2)));
    assert!(!lab.sent.iter().any(|bytes| names(bytes, 4) || names(bytes, 5)), "it is not spoken of");
    lab.machine.set_map(lab.now, &one_cell(&lab.map), &BTreeSet::new(), &BTreeSet::new());
    assert!(lab.machine.is_up(&id(4)), "nothing is known against it");
    lab.run(MINUTE);
    assert!(!lab.machine.is_up(&id(4)), "it does not answer");
}

#[test]
fn ten_thousand_nodes_are_not_too_many() {
    let started = std::time::Instant::now();
    let mut lab = Lab::new(&[5_000, 5_000]);
    println!("10,000 nodes: {} ms to begin", started.elapsed().as_millis());
    let started = std::time::Instant::now();
    let ping = lab.datagram(0, 1, 1, &[]);
    for _ in 0..100 {
        lab.hear(1, &ping);
    }
    println!("10,000 nodes: {} us a ping answered", started.elapsed().as_micros() / 100);
    let started = std::time::Instant::now();
    let gossip: Vec<Vec<u8>> = (0..100)
        .map(|part| {
            let updates: Vec<_> = (0..25).map(|index| (5_000 + part * 25 + index, 1, DOWN)).collect();
            lab.datagram(8, 0, 1, &updates)
        })
        .collect();
    for bytes in &gossip {
        lab.machine.handle_datagram(lab.now, id(1), bytes);
        let effects = lab.machine.poll(lab.now);
        let sends = effects.iter().filter(|effect| matches!(effect, Effect::Send { .. })).count();
        assert!(sends <= 256, "{sends} datagrams for one");
    }
    println!("10,000 nodes, 2,500 of them down: {} us a datagram of 25 news", started.elapsed().as_micros() / 100);
    let brake = lab.machine.brake("b").expect("a quarter of all, half of the zone");
    assert_eq!((brake.nodes.len(), brake.mass, brake.of), (2_500, 1_001, 5_000));
    assert!(lab.machine.brake("a").is_none());
}
