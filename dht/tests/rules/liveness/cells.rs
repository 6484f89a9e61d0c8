//! Networks of several cells: what voters learn of cells that they are not in.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_dht::NodeId;
use deadwax_dht::liveness::{CELL_NODES_MAX, Cells, LivenessSettings, SILENCE_MS};

use super::net::{MINUTE, Net, SECOND, id, map};

const VOTERS: [usize; 3] = [0, 7, 25];

/// Two zones of 20 nodes, in cells of at most 16.
fn net(seed: u64) -> Net {
    let net = Net::with_cells(&[20, 20], 16, &VOTERS, LivenessSettings::default(), seed);
    assert!(net.cells.count() >= 3, "{} cells", net.cells.count());
    net
}

/// Nodes that are neither voters nor in a voter's cell, and no two in one cell.
fn strangers(net: &Net) -> Vec<usize> {
    let cell = |index: usize| net.cells.cell_of(&id(index));
    let mut taken: BTreeSet<_> = [cell(VOTERS[0])].into();
    (0..net.machines.len()).filter(|index| !VOTERS.contains(index) && taken.insert(cell(*index))).collect()
}

fn sets(cells: &Cells) -> BTreeSet<Vec<NodeId>> {
    let sorted = |cell| {
        let mut members: Vec<NodeId> = cells.members(cell).copied().collect();
        members.sort();
        members
    };
    (0..cells.count()).map(sorted).collect()
}

#[test]
fn cells_hold_everybody_once_and_a_join_changes_few() {
    for (nodes, cells_max) in [(0, 1), (1, 1), (64, 1), (65, 3), (1_000, 40), (3_000, 120)] {
        let cells = if nodes == 0 { Cells::default() } else { Cells::new(&map(&[nodes])) };
        assert!(cells.count() <= cells_max, "{nodes} nodes, {} cells", cells.count());
        let all: BTreeSet<NodeId> = sets(&cells).into_iter().flatten().collect();
        assert_eq!((all.len(), cells.nodes()), (nodes, nodes));
        assert!(sets(&cells).iter().all(|cell| cell.len() <= CELL_NODES_MAX));
        assert!(
            (0..nodes).all(|index| cells.members(cells.cell_of(&id(index)).unwrap()).any(|node| *node == id(index)))
        );
    }
    for nodes in 300..330 {
        let (before, after) = (sets(&Cells::new(&map(&[nodes]))), sets(&Cells::new(&map(&[nodes + 1]))));
        assert!(before.difference(&after).count() == 1 && after.difference(&before).count() <= 2, "{nodes} nodes");
    }
}

#[test]
fn a_crash_is_found_by_every_voter_in_half_a_minute_and_a_restart_too() {
    for seed in 0..3 {
        println!("seed {seed}");
        let mut net = net(seed);
        net.run(40 * SECOND);
        assert!(net.is_settled() && net.accused() == (0, 0));
        for node in strangers(&net) {
            net.crash(node);
            let crashed = net.now;
            net.run(30 * SECOND);
            assert!(net.is_settled(), "node {node}");
            let last = net.detected(node, crashed).into_iter().max();
            println!("node {node}: the last to know after {last:?} ms");
            net.start(node, crashed);
            net.run(30 * SECOND);
            assert!(net.is_settled(), "node {node} is back");
        }
    }
}

#[test]
fn idle_cells_are_quiet() {
    let mut net = net(1);
    net.run(40 * SECOND);
    let before = net.datagrams;
    net.run(60 * SECOND);
    let quiet = net.datagrams - before;
    // Ping and answer, and the summaries of three members for each cell and voter.
    assert!(quiet <= 60 * 40 * 21 / 10 + 200, "{quiet} datagrams");
}

#[test]
fn half_an_hour_of_silence_is_death_for_the_voters() {
    let mut net = net(6);
    net.run(40 * SECOND);
    let node = strangers(&net)[0];
    net.crash(node);
    net.run(SILENCE_MS);
    assert!(VOTERS.iter().all(|&by| net.machine(by).dead().is_empty() && !net.machine(by).is_up(&id(node))));
    net.run(MINUTE);
    for by in VOTERS {
        assert_eq!(net.machine(by).dead(), [id(node)], "by node {by}");
        assert!(net.machine(by).report().brakes.is_empty());
    }
    net.start(node, 2);
    net.run(30 * SECOND);
    assert!(net.is_settled() && net.machine(0).dead().is_empty());
}

#[test]
fn a_zone_that_vanishes_brakes_at_every_voter_that_is_left() {
    let mut net = net(8);
    net.run(40 * SECOND);
    (20..40).for_each(|index| net.crash(index));
    net.run(60 * MINUTE);
    for by in [0, 7] {
        let brake = net.machine(by).brake("b").expect("the zone vanished");
        assert_eq!((brake.nodes.len(), brake.of), (20, 20), "by node {by}");
        assert!(net.machine(by).brake("a").is_none() && net.machine(by).dead().is_empty());
    }
    assert_eq!(net.accused().1, 0, "nobody is dead for anybody");
    (20..40).for_each(|index| net.start(index, 2));
    net.run(2 * MINUTE);
    assert!(net.is_settled() && net.machine(0).report().brakes.is_empty());
}

#[test]
fn a_cut_between_zones_moves_nothing_on_either_side() {
    let mut net = net(9);
    net.run(40 * SECOND);
    let (a, b) = (0..20, 20..40);
    net.cuts = a.flat_map(|x| b.clone().flat_map(move |y| [(x, y), (y, x)])).collect();
    net.run(60 * MINUTE);
    assert_eq!(net.machine(0).brake("b").map(|brake| brake.nodes.len()), Some(20));
    assert_eq!(net.machine(25).brake("a").map(|brake| brake.nodes.len()), Some(20));
    assert_eq!(net.accused().1, 0);
    net.cuts.clear();
    net.run(2 * MINUTE);
    assert!(net.is_settled());
}

#[test]
fn a_cell_that_falls_silent_is_asked_and_found_absent() {
    let mut net = net(10);
    net.run(40 * SECOND);
    let cell = net.cells.cell_of(&id(strangers(&net)[0])).unwrap();
    let members: Vec<usize> = (0..40).filter(|&index| net.cells.cell_of(&id(index)) == Some(cell)).collect();
    members.iter().for_each(|&index| net.crash(index));
    net.run(6 * MINUTE);
    let by = VOTERS.into_iter().find(|by| !members.contains(by)).unwrap();
    assert!(members.iter().all(|&node| !net.machine(by).is_up(&id(node))), "all of cell {cell}");
    let brakes: BTreeSet<_> = net.machine(by).report().brakes.into_iter().flat_map(|brake| brake.nodes).collect();
    assert!(brakes.len() >= 5, "a mass of a zone: {brakes:?}");
    net.run(60 * MINUTE);
    assert!(net.machine(by).dead().iter().all(|node| !brakes.contains(node)));
    members.iter().for_each(|&index| net.start(index, 2));
    net.run(2 * MINUTE);
    assert!(net.is_settled());
}

#[test]
fn reports_that_do_not_arrive_kill_nobody() {
    let mut net = net(11);
    net.run(40 * SECOND);
    // What the members of one cell say does not come to voter 0, just when one of them is back after 28 minutes.
    let cell = net.cells.cell_of(&id(strangers(&net)[0])).unwrap();
    let members: Vec<usize> = (0..40).filter(|&index| net.cells.cell_of(&id(index)) == Some(cell)).collect();
    net.crash(members[0]);
    net.run(SILENCE_MS - 2 * MINUTE);
    net.cuts = members.iter().map(|&from| (from, 0)).collect();
    net.start(members[0], 2);
    net.run(4 * MINUTE);
    assert!(net.machine(7).is_up(&id(members[0])), "the other voters hear of it");
    assert!(net.machine(0).dead().is_empty(), "what may be out of date kills nobody");
    net.cuts.clear();
    net.run(2 * MINUTE);
    assert!(net.is_settled());
}

#[test]
fn an_hour_of_heavy_loss_kills_nobody_in_cells() {
    let mut net = net(2);
    net.loss_percent = 30;
    net.run(60 * MINUTE);
    let (down, dead) = net.accused();
    println!("40 nodes in {} cells, 30 % lost for an hour: {down} false downs, {dead} deaths", net.cells.count());
    assert_eq!(dead, 0);
    assert!(down <= 40, "{down} false downs");
    net.loss_percent = 0;
    net.run(MINUTE);
    assert!(net.is_settled());
}

#[test]
fn flapping_kills_nobody_and_ends_well_in_cells() {
    let mut net = net(7);
    let node = strangers(&net)[1];
    for life in 2..20 {
        net.run(90 * SECOND);
        net.crash(node);
        net.run(90 * SECOND);
        net.start(node, life);
    }
    net.run(40 * SECOND);
    assert!(net.is_settled());
    assert_eq!(net.accused().1, 0, "54 minutes, but never half an hour of silence");
}

#[test]
fn cells_that_are_cut_anew_keep_what_the_voters_know() {
    let mut net = net(12);
    net.run(40 * SECOND);
    let node = strangers(&net)[0];
    net.crash(node);
    net.run(SILENCE_MS / 2);
    for cell_nodes_max in [8, 4, 5] {
        net.recut(cell_nodes_max);
        net.run(4 * MINUTE);
        assert!(net.is_settled(), "cells of {cell_nodes_max}");
    }
    net.run(SILENCE_MS / 2 - 11 * MINUTE);
    // But for the voters who came into its cell, for whom the half hour may have begun anew.
    let outside: Vec<usize> =
        VOTERS.into_iter().filter(|by| !net.cells.cell_of(&id(*by)).eq(&net.cells.cell_of(&id(node)))).collect();
    assert!(!outside.is_empty());
    for by in outside {
        assert_eq!(net.machine(by).dead(), [id(node)], "by node {by}");
    }
    assert!(net.accused().1 <= 40);
}

#[test]
fn who_votes_no_more_forgets_other_cells_and_a_new_voter_learns() {
    let mut net = net(13);
    net.run(40 * SECOND);
    let node = strangers(&net)[0];
    net.crash(node);
    net.run(MINUTE);
    assert!(!net.machine(0).is_up(&id(node)));
    let next = (0..40).find(|&index| !VOTERS.contains(&index) && !net.judges(index, node)).unwrap();
    net.voters = [id(next)].into();
    net.recut(16);
    assert!(net.machine(0).is_up(&id(node)) || net.judges(0, node));
    net.run(MINUTE);
    assert!(!net.machine(next).is_up(&id(node)) && net.is_settled());
}

#[test]
fn rare_probes_find_a_crash_too() {
    let settings = LivenessSettings { probe_ms: 5 * SECOND };
    let mut net = Net::with_cells(&[20, 20], 16, &VOTERS, settings, 5);
    net.run(2 * MINUTE);
    assert!(net.is_settled() && net.accused() == (0, 0));
    let node = strangers(&net)[0];
    net.crash(node);
    net.run(MINUTE);
    assert!(net.is_settled() && net.accused().1 == 0);
    net.run(SILENCE_MS + MINUTE);
    assert_eq!(net.machine(7).dead(), [id(node)]);
}

#[test]
fn equal_seeds_replay_to_equal_traces_in_cells() {
    let run = |seed| {
        let mut net = net(seed);
        net.loss_percent = 10;
        net.run(20 * SECOND);
        net.crash(4);
        net.run(60 * SECOND);
        net.start(4, 2);
        net.run(20 * SECOND);
        net.hash()
    };
    assert_eq!(run(21), run(21));
    assert_ne!(run(21), run(22));
}

/// `cargo test --release -p deadwax-dht --test rules idle_cost -- --ignored --nocapture`
#[test]
#[ignore = "measures, in release only"]
fn idle_cost_of_a_thousand_nodes() {
    let mut costs = BTreeMap::new();
    for probe_ms in [1_000, 2_000, 5_000] {
        let settings = LivenessSettings { probe_ms };
        let mut net = Net::with_cells(&[500, 500], CELL_NODES_MAX, &VOTERS, settings, 1);
        net.run(MINUTE);
        // Who starts late is called down meanwhile.
        net.said.clear();
        let (before, started, simulated_s) = (net.datagrams, std::time::Instant::now(), 120);
        net.run(simulated_s * SECOND);
        let (spent, per) = (started.elapsed().as_nanos(), u128::from(simulated_s) * 1_000);
        println!(
            "probes every {probe_ms} ms: {} ns and {} thousandths of a datagram a node and second, the network included",
            spent / per,
            u128::from(net.datagrams - before) * 1_000 / per
        );
        assert_eq!(net.accused(), (0, 0));
        costs.insert(probe_ms, spent);
    }
    assert!(costs[&5_000] < costs[&1_000]);
}
