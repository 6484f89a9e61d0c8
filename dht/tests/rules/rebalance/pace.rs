//! How fast things move, in which order, and what holds them.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_dht::VolumeId;
use deadwax_dht::log::Stage;
use deadwax_dht::rebalance::{Command, Rebalance, Settings, Stall};

use super::world::{World, coming, fast, node};

#[test]
fn a_volume_is_given_no_more_than_its_limit_at_once_and_records_are_few() {
    let settings = Settings { volume_moving_max: 40, moving_max: 100, ..Settings::default() };
    let mut world = World::new(21, 8, settings);
    let joiner = node(&mut world.dice, "a", 1000);
    world.done(Command::AddNode(joiner)).expect("a good command");
    let (start, epoch) = (world.now, world.history.epoch());
    for _ in 0..30 {
        world.round();
        let state = world.state();
        let mut arriving = BTreeMap::<VolumeId, usize>::new();
        let moving = state.transitions().values().filter(|each| each.stage != Stage::Settled);
        for each in moving.clone() {
            coming(&each.old, &each.new).for_each(|volume| *arriving.entry(*volume).or_default() += 1);
        }
        assert!(moving.count() <= 100 && arriving.values().all(|count| *count <= 40), "{arriving:?}");
    }
    let (seconds, records) = ((world.now - start) / 1_000, world.history.epoch() - epoch);
    assert!(world.pulled > 100 && records <= 4 * seconds + 8, "{records} records in {seconds} s, {}", world.pulled);
}

#[test]
fn who_is_silent_is_declared_dead_but_for_braked_zones() {
    let mut world = World::new(22, 8, fast());
    while world.round() {}
    let nodes = world.state().spec().nodes.clone();
    let (a, b) = (&nodes[0], &nodes[3]);
    world.planner.set_silent(world.now, BTreeSet::from([a.id, b.id]), BTreeSet::from([a.zone.clone()]));
    (0..3).for_each(|_| _ = world.round());
    assert_eq!(*world.state().dead(), BTreeSet::from([b.id]));
    world.planner.set_silent(world.now, BTreeSet::from([a.id, b.id]), BTreeSet::new());
    (0..3).for_each(|_| _ = world.round());
    assert_eq!(*world.state().dead(), BTreeSet::from([a.id, b.id]));
}

#[test]
fn nothing_moves_on_account_of_the_dead_of_a_braked_zone() {
    let mut world = World::new(22, 8, fast());
    let node = world.state().spec().nodes[0].clone();
    let zone = BTreeSet::from([node.zone.clone()]);
    world.planner.set_silent(world.now, BTreeSet::from([node.id]), zone.clone());
    world.done(Command::SetDead { node: node.id, dead: true }).expect("a good command");
    while world.round() {}
    let progress = world.planner.progress(world.now);
    assert!(progress.braked > 10_000 && world.state().transitions().is_empty(), "{progress:?}");
    assert_eq!((progress.stall, world.pulled), (Some(Stall::Brake { zones: zone }), 0));
    world.planner.set_silent(world.now, BTreeSet::from([node.id]), BTreeSet::new());
    (0..3).for_each(|_| _ = world.round());
    assert!(world.pulled > 0);
}

#[test]
fn a_new_holder_that_dies_is_given_up_and_one_that_says_nothing_is_named() {
    let mut world = World::new(23, 8, fast());
    let joiner = node(&mut world.dice, "a", 1000);
    let volume = joiner.volumes[0].id;
    world.mute.insert(volume);
    world.done(Command::AddNode(joiner.clone())).expect("a good command");
    while world.round() {}
    let moving = world.state().transitions().len();
    let progress = world.planner.progress(world.now);
    assert!(moving > 1_000 && progress.joint == moving, "{progress:?}");
    assert_eq!(progress.stall, Some(Stall::Reports { volume, partitions: moving }));
    world.done(Command::SetDead { node: joiner.id, dead: true }).expect("a good command");
    world.settle();
    assert_eq!(world.pulled, 0, "all were aborted, and the others are still even");
    world.done(Command::RemoveNode(joiner.id)).expect("it holds nothing");
}

#[test]
fn old_holders_are_waited_for_until_they_know_that_readers_ask_the_new_ones() {
    let mut world = World::new(26, 8, fast());
    world.behind = true;
    let joiner = node(&mut world.dice, "a", 1000);
    world.done(Command::AddNode(joiner)).expect("a good command");
    while world.round() {}
    let state = world.state();
    assert!(state.transitions().len() > 1_000);
    assert!(state.transitions().values().all(|each| each.stage == Stage::Synced));
    world.behind = false;
    world.settle();
}

#[test]
fn an_old_holder_that_is_declared_dead_may_live_and_is_waited_for_until_its_lease_is_over() {
    for changes_leader in [false, true] {
        let mut world = World::new(27, 3, fast());
        let joiner = node(&mut world.dice, "a", 1000);
        let nodes = world.state().spec().nodes.clone();
        let [dies, says_nothing] = [&nodes[0], &nodes[1]];
        world.mute.extend([dies.volumes[0].id, says_nothing.volumes[0].id]);
        world.done(Command::AddNode(joiner)).expect("a good command");
        while world.round() {}
        let moving = world.state().transitions().clone();
        assert!(moving.len() > 1_000 && moving.values().all(|each| each.stage == Stage::Synced));
        world.done(Command::SetDead { node: dies.id, dead: true }).expect("a good command");
        let mut died = world.now;
        if changes_leader {
            world.now += 30_000;
            died = world.now;
            world.planner = Rebalance::new(world.settings, world.now, world.map.clone(), world.state());
        }
        let moves = |world: &World| {
            let state = world.state();
            moving.keys().all(|each| state.transitions().get(each).is_some_and(|each| each.stage == Stage::Synced))
        };
        while moves(&world) {
            assert!(world.round(), "it goes on by itself");
        }
        assert!((died + 60_000..died + 66_000).contains(&world.now), "{} after {died}", world.now);
    }
}

#[test]
fn what_has_fewest_copies_goes_first() {
    let settings = Settings { moving_max: 200, volume_moving_max: 200, ..Settings::default() };
    let mut world = World::new(24, 9, settings);
    let nodes = world.state().spec().nodes.clone();
    world.command(Command::DrainNode { node: nodes[8].id, drain: true });
    world.command(Command::SetDead { node: nodes[3].id, dead: true });
    world.command(Command::SetDead { node: nodes[4].id, dead: true });
    for _ in 0..30 {
        if !world.state().transitions().is_empty() {
            break;
        }
        world.round();
    }
    let (state, dead) = (world.state(), world.dead());
    assert!(state.transitions().len() > 50);
    for each in state.transitions().values() {
        assert_eq!(each.old.iter().filter(|volume| dead.contains(volume)).count(), 2, "{each:?}");
    }
}

#[test]
fn a_planner_with_nothing_to_do_has_no_deadline() {
    let mut world = World::new(25, 6, fast());
    while world.round() {}
    assert_eq!((world.planner.next_deadline(), world.history.epoch()), (None, 1));
}

#[test]
fn more_moves_at_once_from_when_more_may() {
    let mut world = World::new(24, 8, Settings { volume_moving_max: 4, ..Settings::default() });
    let joiner = node(&mut world.dice, "a", 1000);
    let volume = joiner.volumes[0].id;
    world.done(Command::AddNode(joiner)).expect("a good command");
    let mut most_arriving = || {
        let arriving = |world: &World| {
            let state = world.state();
            let moving = state.transitions().values().filter(|each| each.stage != Stage::Settled);
            moving.filter(|each| each.new.contains(&volume)).count()
        };
        let counts = (0..10).map(|_| {
            world.round();
            arriving(&world)
        });
        let most = counts.max().unwrap_or(0);
        world.planner.set_volume_moving_max(world.now, 400);
        most
    };
    let (before, after) = (most_arriving(), most_arriving());
    assert!((1..=4).contains(&before) && (100..=400).contains(&after), "{before}, then {after}");
}
