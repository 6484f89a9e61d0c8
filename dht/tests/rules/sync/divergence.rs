//! Differences are found in time, only they move, and nothing is called equal that is not.

use std::collections::BTreeSet;

use super::network::{FAIR, Network, Random, Weather, choose, volume_id};

/// `DEADWAX_SEEDS`: how many seeds; 6.
fn seeds() -> std::ops::Range<u64> {
    0..std::env::var("DEADWAX_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(6)
}

const BAD: Weather = Weather { lost: 10, doubled: 10, delay_max: 400 };

fn network(seed: u64) -> Network {
    let mut random = Random(seed);
    let (nodes, volumes) = (3 + random.index(18), 1 + random.index(3));
    let mut network = Network::new(seed, nodes, volumes, 64, 3);
    network.fill(2_000);
    network.start_all();
    network
}

#[test]
fn a_put_that_reached_only_some_holders_is_found_within_a_minute_and_pulled_once() {
    for seed in seeds() {
        let mut network = network(seed);
        network.run(90_000);
        assert_eq!(network.pulls, 0, "equal volumes move nothing, seed {seed}");
        network.assert_known_equal();
        let partitions = network.partitions();
        let mut missed = 0;
        for _ in 0..3_000 {
            let partition = network.random.pick(&partitions);
            let skip = usize::from(network.random.percent(10)) * (1 + network.random.index(2));
            missed += skip as u64;
            network.put(partition, skip, 2_000);
            network.run(40);
        }
        network.run(60_000);
        assert!(network.missing.is_empty(), "{} are missing, seed {seed}", network.missing.len());
        assert!(network.found_ms_max() <= 60_000, "found after {} ms, seed {seed}", network.found_ms_max());
        assert!(network.pulls * 100 <= missed * 102, "{} pulls for {missed}, seed {seed}", network.pulls);
        network.assert_equal();
        network.run(60_000);
        network.assert_known_equal();
    }
}

#[test]
fn all_is_compared_anew_when_an_operator_wants_it_and_nothing_moves_for_it() {
    for seed in seeds() {
        let mut network = network(seed);
        network.run(90_000);
        network.assert_known_equal();
        let now = network.now;
        for node in 0..network.nodes.len() {
            let sync = network.nodes[node].sync.as_mut().expect("all are up");
            assert_eq!(sync.unproved(), (0, 0), "seed {seed}");
            sync.compare_all(now);
            let shared = sync.unproved().0;
            assert!(shared > 0 || network.nodes[node].volumes.values().all(BTreeSet::is_empty), "seed {seed}");
            network.act(node);
        }
        network.run(20_000);
        network.assert_known_equal();
        assert_eq!(network.pulls, 0, "seed {seed}");
        // Of a node that is away the others say that it does not answer.
        network.stop(0);
        let now = network.now;
        for node in 1..network.nodes.len() {
            network.nodes[node].sync.as_mut().expect("the others are up").compare_all(now);
            network.act(node);
        }
        network.run(120_000);
        let others = network.nodes[1..].iter().map(|node| node.sync.as_ref().expect("up").unproved());
        let (waiting, unanswered) = others.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        assert!(waiting == 0 && unanswered > 0, "{waiting} {unanswered}, seed {seed}");
    }
}

#[test]
fn bad_networks_only_take_longer() {
    for seed in seeds() {
        let mut network = network(seed);
        network.weather = BAD;
        network.run(120_000);
        let partitions = network.partitions();
        for _ in 0..1_000 {
            let partition = network.random.pick(&partitions);
            let skip = usize::from(network.random.percent(20));
            network.put(partition, skip, 5_000);
            network.run(100);
        }
        network.run(240_000);
        assert!(network.missing.is_empty(), "{} are missing, seed {seed}", network.missing.len());
        network.assert_equal();
        network.weather = FAIR;
        network.run(180_000);
        network.assert_known_equal();
    }
}

#[test]
fn a_node_that_restarts_with_an_old_set_gets_what_it_lost_and_gives_what_others_lack() {
    for seed in seeds() {
        let mut network = network(seed);
        network.run(60_000);
        network.stop(0);
        // What it has lost of its drive, and what others lack.
        let lost: Vec<_> = network.nodes[0]
            .volumes
            .iter()
            .flat_map(|(volume, tracks)| tracks.iter().map(|track| (*volume, *track)))
            .step_by(9)
            .collect();
        for (volume, track) in &lost {
            network.turn(*volume, *track, false);
            network.missing.insert((*volume, *track), network.now + 60_000);
        }
        let partitions = network.partitions();
        for _ in 0..600 {
            let partition = network.random.pick(&partitions);
            network.put(partition, 0, 1_000);
            network.run(100);
        }
        let missing = network.missing.len() as u64;
        network.missing.values_mut().for_each(|since| *since = network.now);
        network.start(0);
        network.run(60_000);
        assert!(network.missing.is_empty(), "{} of {missing} are missing, seed {seed}", network.missing.len());
        assert_eq!(network.pulls, missing, "seed {seed}");
        network.run(60_000);
        network.assert_known_equal();
    }
}

#[test]
fn both_directions_are_found_by_one_comparison_and_erasures_make_no_claims() {
    for seed in seeds() {
        let mut network = network(seed);
        network.run(90_000);
        let partition = network.partitions()[7];
        let holders = network.holders[&partition].clone();
        let track = network.put(partition, 0, 10);
        network.run(1_000);
        network.erase(holders[0], track);
        network.missing.insert((holders[0], track), network.now);
        let other = network.put(partition, 0, 10);
        network.run(100);
        network.erase(holders[1], other);
        network.missing.insert((holders[1], other), network.now);
        network.run(60_000);
        assert!(network.missing.is_empty() && network.pulls == 2, "{} pulls, seed {seed}", network.pulls);
        // One that all erase is not missed.
        for holder in holders {
            network.erase(holder, track);
            network.run(500);
        }
        network.run(90_000);
        assert_eq!(network.pulls, 2, "seed {seed}");
        network.assert_equal();
    }
}

#[test]
fn large_partitions_and_empty_volumes_are_filled() {
    let mut network = Network::new(5, 3, 1, 2, 3);
    network.fill(30_000);
    let partition = network.partitions()[0];
    let volume = network.holders[&partition][0];
    let lost: Vec<_> = network.nodes[0].volumes[&volume].iter().copied().collect();
    for track in &lost {
        network.turn(volume, *track, false);
    }
    network.start_all();
    network.run(300_000);
    network.assert_equal();
    assert_eq!(network.pulls, lost.len() as u64);
}

#[test]
fn what_nobody_can_pull_is_told_again_but_rarely() {
    let mut network = Network::new(3, 3, 1, 16, 3);
    network.fill(500);
    network.start_all();
    network.run(60_000);
    network.pulls_stopped = true;
    let partition = network.partitions()[3];
    network.put(partition, 1, 10);
    network.run(60_000);
    assert!(!network.found_ms.is_empty());
    let told = network.found_ms.len();
    network.forget_bytes();
    network.run(1_200_000);
    let again = network.found_ms.len() - told;
    assert!((5..=40).contains(&again), "told {again} times more in 20 minutes");
    assert!(network.rates(1_200_000).0 < 50, "{:?} bytes a second", network.rates(1_200_000));
}

#[test]
fn layouts_change_under_way_and_views_may_differ_for_long() {
    for seed in seeds() {
        let mut network = network(seed);
        network.run(60_000);
        let (nodes, volumes) = (network.nodes.len(), network.nodes[0].volumes.len());
        for round in 0..8 {
            let partitions = network.partitions();
            let partition = network.random.pick(&partitions);
            let old = network.holders[&partition].clone();
            let new = choose(&mut network.random, nodes, volumes, 3);
            let both: BTreeSet<_> = old.iter().chain(&new).copied().collect();
            network.move_partition(partition, both.into_iter().collect(), 30_000);
            for _ in 0..50 {
                let partition = network.random.pick(&partitions);
                let skip = usize::from(network.random.percent(10));
                network.put(partition, skip, 500);
                network.run(1_000);
            }
            network.run(100_000);
            assert!(network.missing.is_empty(), "{} are missing, round {round}, seed {seed}", network.missing.len());
            network.assert_equal();
            network.move_partition(partition, new, 30_000);
        }
        network.run(150_000);
        network.assert_known_equal();
        for (volume, node) in &network.owner {
            for track in &network.nodes[*node].volumes[volume] {
                assert!(network.holders[&track.partition()].contains(volume), "a stray is left, seed {seed}");
            }
        }
    }
}

/// As the drive of an old holder, which is lost: what was to be proved moves away, and another partition comes.
#[test]
fn a_peer_that_did_not_answer_is_asked_again_when_there_is_something_to_prove() {
    for (own, peer) in [(0, 1), (1, 0)] {
        let mut network = Network::new(5, 3, 1, 2, 3);
        let partitions = network.partitions();
        let (with, without) = ([volume_id(own, 0), volume_id(peer, 0)], [volume_id(own, 0), volume_id(2, 0)]);
        partitions.iter().for_each(|partition| network.move_partition(*partition, with.to_vec(), 0));
        network.start_all();
        network.run(60_000);
        network.assert_known_equal();
        let unanswered = |network: &Network| {
            let sync = network.nodes[own].sync.as_ref().expect("it runs");
            sync.unanswered(with[0], with[1])
        };
        network.stop(peer);
        network.put(partitions[0], 0, 0);
        network.run(20_000);
        assert!(unanswered(&network) > 0, "n{own} asks");
        network.move_partition(partitions[0], without.to_vec(), 0);
        network.run(60_000);
        let before = unanswered(&network);
        network.move_partition(partitions[0], with.to_vec(), 0);
        network.run(150_000);
        assert!(unanswered(&network) >= before + 2, "n{own} asks on");
    }
}

#[test]
fn equal_seeds_give_equal_traces() {
    let trace = |seed| {
        let mut network = network(seed);
        network.weather = BAD;
        let partitions = network.partitions();
        for _ in 0..300 {
            let partition = network.random.pick(&partitions);
            let skip = usize::from(network.random.percent(30));
            network.put(partition, skip, 1_000);
            network.run(200);
        }
        (network.trace, network.messages, network.pulls)
    };
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}
