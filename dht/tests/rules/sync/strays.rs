//! Strays reach the holders that lack them, and go only when every holder that lives has them.

use super::network::{FAIR, Network, Random, Weather, track_in};

fn network(seed: u64) -> Network {
    let mut network = Network::new(seed, 5 + Random(seed).index(6), 2, 32, 3);
    network.fill(600);
    network.start_all();
    network.run(60_000);
    network
}

/// Puts while node 0 is down; its share goes to a stand-in.
fn puts_with_stand_ins(network: &mut Network, puts: usize) -> u64 {
    let partitions = network.partitions();
    let mut strays = 0;
    for _ in 0..puts {
        let partition = network.random.pick(&partitions);
        let track = network.put(partition, 0, 50);
        let holders = network.holders[&partition].clone();
        if holders.iter().any(|volume| network.owner[volume] == 0) {
            let stand_in =
                *network.owner.iter().find(|(volume, node)| **node != 0 && !holders.contains(volume)).expect("one").0;
            network.store(stand_in, track);
            strays += 1;
        }
        network.run(200);
    }
    strays
}

#[test]
fn a_stand_ins_copies_go_when_the_holder_is_back_and_has_them() {
    for seed in 0..5 {
        let mut network = network(seed);
        network.weather = if seed % 2 == 0 { FAIR } else { Weather { lost: 5, doubled: 5, delay_max: 200 } };
        network.stop(0);
        let strays = puts_with_stand_ins(&mut network, 120);
        network.run(120_000);
        assert_eq!(network.covered, 0, "a holder lacks all of them, seed {seed}");
        network.start(0);
        network.run(200_000);
        assert_eq!(network.covered, strays, "seed {seed}");
        network.assert_equal();
    }
}

#[test]
fn a_stray_that_no_holder_has_is_pulled_by_all_of_them_before_it_goes() {
    for seed in 0..5 {
        let mut network = network(seed);
        let partition = network.partitions()[4];
        let holders = network.holders[&partition].clone();
        let stray = *network.owner.keys().find(|volume| !holders.contains(volume)).expect("one");
        let tracks: Vec<_> = (0..600).map(|_| track_in(&mut network.random, partition.0)).collect();
        for track in &tracks {
            network.store(stray, *track);
            holders.iter().for_each(|holder| {
                network.missing.insert((*holder, *track), network.now);
            });
        }
        network.run(60_000);
        network.run(120_000);
        assert_eq!(network.covered, 600, "seed {seed}");
        network.assert_equal();
        assert!(network.missing.is_empty());
        assert!(network.pulls <= 1_836, "{} pulls of 1,800, seed {seed}", network.pulls);
    }
}

/// A node that restarts soon after its clock began has them on its drives.
#[test]
fn strays_of_before_a_start_are_offered_however_young_the_clock_is() {
    let mut network = Network::new(3, 6, 2, 32, 3);
    network.now = 0;
    let partition = network.partitions()[4];
    let holders = network.holders[&partition].clone();
    let stray = *network.owner.keys().find(|volume| !holders.contains(volume)).expect("one");
    for _ in 0..20 {
        let track = track_in(&mut network.random, partition.0);
        network.turn(stray, track, true);
    }
    network.start_all();
    network.run(120_000);
    assert_eq!(network.covered, 20);
    network.assert_equal();
}

#[test]
fn while_a_holder_is_dead_the_others_get_what_they_lack_and_nothing_goes() {
    let mut network = network(9);
    network.stop(0);
    network.dead.insert(0);
    for node in 1..network.nodes.len() {
        network.layout(node);
    }
    let strays = puts_with_stand_ins(&mut network, 60);
    network.run(120_000);
    // The dead holder's copies are to be made anew: of what the stand-ins have, for all that is known.
    assert_eq!(network.covered, 0);
    network.dead.clear();
    network.start(0);
    for node in 0..network.nodes.len() {
        network.layout(node);
    }
    network.run(300_000);
    assert_eq!(network.covered, strays, "all have all now");
    let partition = network.partitions()[2];
    let holders = network.holders[&partition].clone();
    let stray = *network.owner.iter().find(|(volume, node)| **node != 0 && !holders.contains(volume)).expect("one").0;
    for holder in &holders {
        let node = network.owner[holder];
        network.dead.insert(node);
        if node != network.owner[&stray] {
            network.stop(node);
        }
    }
    let track = track_in(&mut network.random, partition.0);
    (1..network.nodes.len()).for_each(|node| network.layout(node));
    network.store(stray, track);
    network.run(200_000);
    assert!(network.nodes[network.owner[&stray]].volumes[&stray].contains(&track), "the last copy stays");
}
