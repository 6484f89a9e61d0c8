//! Bytes: what idle and busy clusters send. Run with `--nocapture` to see the numbers.

use std::time::Instant;

use deadwax_dht::sync::{LISTS_MAX, SUSPECTS_MAX};

use super::network::Network;

/// `puts` a second for `seconds`, of which `missed` in a thousand miss a holder.
fn busy(network: &mut Network, seconds: u64, puts: u64, missed: u64) -> u64 {
    let partitions = network.partitions();
    let mut missing = 0;
    for _ in 0..seconds * puts {
        let partition = network.random.pick(&partitions);
        let skip = usize::from(network.random.below(1_000) < missed);
        missing += skip as u64;
        network.put(partition, skip, 150);
        network.run(1_000 / puts);
        for node in &network.nodes {
            let (_, suspects, lists) = node.sync.as_ref().expect("up").pending();
            assert!(suspects <= SUSPECTS_MAX && lists <= LISTS_MAX);
        }
    }
    missing
}

fn measure(name: &str, nodes: usize, volumes: usize, partitions: u32, tracks: usize, load: (u64, u64, u64)) {
    let mut network = Network::new(1, nodes, volumes, partitions, 3);
    network.fill(tracks);
    let started = Instant::now();
    network.start_all();
    network.run(90_000);
    println!("{name}: start: {:?} bytes/s (average, worst second), {:?}", network.rates(90_000), started.elapsed());
    network.assert_known_equal();
    network.forget_bytes();
    network.run(1_200_000);
    let idle = network.rates(1_200_000);
    println!("{name}: idle: {idle:?} bytes/s");
    assert!(idle.0 < 200);
    network.forget_bytes();
    let (seconds, puts, missed) = load;
    let started = Instant::now();
    let missing = busy(&mut network, seconds, puts, missed);
    let steady = network.rates(seconds * 1_000);
    println!("{name}: {puts} puts/s: {steady:?} bytes/s, {} messages, {:?}", network.messages, started.elapsed());
    assert!(steady.0 < 20_000, "{steady:?} bytes/s");
    network.run(60_000);
    let (pulls, slowest) = (network.pulls, network.found_ms_max());
    println!("{name}: {pulls} pulls for {missing} missing, the slowest found after {slowest} ms");
    assert!(network.missing.is_empty(), "{} of {missing} are missing", network.missing.len());
    assert!(pulls * 100 <= missing * 102 + 100 && slowest <= 60_000);
    network.assert_equal();
}

#[test]
fn a_cluster_of_twelve_nodes_stays_below_its_bytes() {
    measure("12 nodes, 4,096 partitions", 12, 2, 4_096, 20_000, (120, 50, 10));
}

#[test]
fn three_nodes_with_all_partitions_stay_below_their_bytes() {
    measure("3 nodes, 65,536 partitions", 3, 4, 65_536, 400_000, (120, 300, 2));
    measure("3 nodes of one volume, 65,536 partitions", 3, 1, 65_536, 400_000, (120, 300, 2));
}

#[test]
fn a_node_that_missed_sixty_thousand_tracks_finds_them_all() {
    let mut network = Network::new(1, 3, 1, 65_536, 3);
    network.fill(400_000);
    network.start_all();
    network.run(60_000);
    network.stop(0);
    busy_without(&mut network, 60_000);
    network.run(30_000);
    network.forget_bytes();
    network.start(0);
    for minute in 1..=30 {
        network.run(60_000);
        println!("minute {minute}: {} missing, {:?} bytes/s", network.missing.len(), network.rates(60_000));
        network.forget_bytes();
        if network.missing.is_empty() {
            break;
        }
    }
    assert!(network.missing.is_empty());
    assert!(network.pulls <= 61_200, "{} pulls", network.pulls);
}

fn busy_without(network: &mut Network, puts: usize) {
    let partitions = network.partitions();
    for _ in 0..puts {
        let partition = network.random.pick(&partitions);
        network.put(partition, 0, 100);
        network.run(1);
    }
}
