//! 10,000 nodes, none of which has the map.

use deadwax_dht::routing::{Outcome, RouterSettings};
use deadwax_track::Partition;

use super::net::{HOUR, Net, Resolved, percentile};

const NODES: usize = 10_000;
const RECORDS: u16 = 50;

/// 10,000 nodes that have been there for long, of which none asks for a map in the time of a test.
fn network(seed: u64, k: usize) -> Net {
    let settings = RouterSettings { k, map_missing_ms: HOUR, ..RouterSettings::default() };
    let mut net = Net::new(seed, settings);
    net.seed(NODES);
    net
}

fn partition(number: u16) -> Partition {
    Partition(number.wrapping_mul(40_503).wrapping_add(17))
}

fn publish(net: &mut Net) {
    for number in 0..RECORDS {
        let node = net.random_living();
        let (copies, enough) = net.publish(node, partition(number), 1);
        assert!(enough && copies == net.settings.k, "{copies} copies of {number}");
        let keep =
            net.nearest(partition(number), net.settings.k).iter().all(|node| net.keeps(*node, partition(number)));
        assert!(keep, "record {number} lies at the nearest nodes");
    }
}

fn resolve(net: &mut Net, lookups: usize, which: impl Fn(u16) -> Partition) -> Vec<Resolved> {
    let which: Vec<_> = (0..lookups)
        .map(|number| (net.random_living(), which(u16::try_from(number % usize::from(RECORDS)).expect("few"))))
        .collect();
    net.resolve(&which)
}

fn print(what: &str, ends: &[Resolved]) -> (u32, u32) {
    let rounds = |percent| percentile(ends.iter().map(|end| end.rounds), percent);
    let ms = |percent| percentile(ends.iter().map(|end| end.ms), percent);
    let requests: usize = ends.iter().map(|end| end.requests).sum();
    let count = |wanted: fn(&Outcome) -> bool| ends.iter().filter(|end| wanted(&end.outcome)).count();
    println!(
        "{what}: rounds p50 {} p99 {} max {}, requests mean {}.{}, ms p50 {} p99 {}, found {} not found {} unreachable {}",
        rounds(50),
        rounds(99),
        rounds(100),
        requests / ends.len(),
        requests * 10 / ends.len() % 10,
        ms(50),
        ms(99),
        count(|outcome| matches!(outcome, Outcome::Found(_))),
        count(|outcome| *outcome == Outcome::NotFound),
        count(|outcome| *outcome == Outcome::Unreachable),
    );
    (rounds(50), rounds(99))
}

fn kill_a_fifth(net: &mut Net) {
    for _ in 0..NODES / 5 {
        let node = net.random_living();
        net.kill(node);
    }
}

#[test]
fn ten_thousand_nodes_resolve_in_three_rounds_and_in_four_with_a_fifth_dead() {
    let mut net = network(1, 20);
    publish(&mut net);
    let ends = resolve(&mut net, 1_000, partition);
    let (_, p99) = print("10,000 nodes", &ends);
    assert!(p99 <= 3, "p99 is {p99} rounds");
    assert!(ends.iter().all(|end| matches!(end.outcome, Outcome::Found(_))), "every record is found");

    let ends = resolve(&mut net, 100, |number| Partition(partition(number).0 ^ 1));
    print("10,000 nodes, no such record", &ends);
    assert!(ends.iter().all(|end| end.outcome == Outcome::NotFound), "what nobody announced is not found");

    kill_a_fifth(&mut net);
    let ends = resolve(&mut net, 1_000, partition);
    let (_, p99) = print("a fifth dead", &ends);
    assert!(p99 <= 4, "p99 is {p99} rounds");
    assert!(ends.iter().all(|end| matches!(end.outcome, Outcome::Found(_))), "every record is found");

    let ends = resolve(&mut net, 100, |number| Partition(partition(number).0 ^ 1));
    print("a fifth dead, no such record", &ends);
}

#[test]
#[ignore = "takes a minute; prints the table of rounds and messages"]
fn k_20_beside_k_64() {
    for (seed, k) in [(1, 20), (2, 20), (3, 20), (1, 64)] {
        let mut net = network(seed, k);
        publish(&mut net);
        let ends = resolve(&mut net, 5_000, partition);
        print(&format!("seed {seed}, k = {k}"), &ends);
        kill_a_fifth(&mut net);
        let ends = resolve(&mut net, 5_000, partition);
        print(&format!("seed {seed}, k = {k}, a fifth dead"), &ends);
    }
}

/// Whether networks that grew by joining are like those that the other tests begin with.
#[test]
#[ignore = "takes minutes"]
fn ten_thousand_that_joined_are_like_those_that_were_seeded() {
    let settings = RouterSettings { map_missing_ms: 100 * HOUR, ..RouterSettings::default() };
    let mut net = Net::new(1, settings);
    net.seed(1);
    while net.routers.len() < NODES {
        let via = net.random_living();
        net.join(&[via]);
        net.run_for(100);
    }
    net.run_for(2 * HOUR);
    println!("{} messages", net.messages);
    publish(&mut net);
    let ends = resolve(&mut net, 5_000, partition);
    let (_, p99) = print("joined", &ends);
    let absent = |number| Partition(partition(number).0 ^ 1);
    let ends = resolve(&mut net, 500, absent);
    print("joined, no such record", &ends);
    assert!(p99 <= 3, "p99 is {p99} rounds");
    kill_a_fifth(&mut net);
    let ends = resolve(&mut net, 5_000, partition);
    let (_, p99) = print("joined, a fifth dead", &ends);
    assert!(p99 <= 4, "p99 is {p99} rounds");
    let ends = resolve(&mut net, 500, absent);
    print("joined, a fifth dead, no such record", &ends);
}
