//! What single changes move, and what they leave behind.

use deadwax_dht::log::State;
use deadwax_dht::rebalance::{Command, pin};
use deadwax_dht::{Map, MapSpec, Plan};
use deadwax_track::Partition;

use super::world::{BYTES, Random, World, fast, holders, node, spec};

/// What any fair placement has to move from `before` to what is left of `state`'s map.
fn unavoidable(before: &Map, world: &World) -> u64 {
    let plan = Plan::new(before, world.effective(), BYTES).expect("a good map");
    u64::try_from(plan.bytes_unavoidable()).expect("few copies")
}

/// Carries out `command`, and asserts that it moved little more than it must.
fn moves_little(world: &mut World, name: &str, command: Command) {
    world.what = format!("{name}, {}", world.what);
    let before = Map::new(MapSpec { nodes: world.effective().nodes, ..world.state().spec().clone() });
    let before = before.unwrap_or_else(|_| world.history.map().expect("a good map"));
    let pulled = world.pulled;
    world.done(command).expect("a good command");
    world.settle();
    let (moved, must) = (world.pulled - pulled, unavoidable(&before, world));
    let most = if before.nodes().len() < 50 { 110 } else { 105 };
    println!("{}: {moved} of {must}, {} overrides", world.what, overrides(&world.state()));
    assert!(moved * 100 <= must * most + 300, "{}: {moved} copies moved, {must} must", world.what);
}

fn overrides(state: &State) -> usize {
    state.spec().overrides.len()
}

fn all_sorts(nodes: usize, seed: u64) {
    let mut world = World::new(seed, nodes, fast());
    let what = world.what.clone();
    let joiner = node(&mut world.dice, "a", 2000);
    moves_little(&mut world, "join", Command::AddNode(joiner.clone()));
    let others: Vec<_> = world.state().spec().nodes[4..8].to_vec();
    world.what.clone_from(&what);
    moves_little(&mut world, "drain", Command::DrainNode { node: others[0].id, drain: true });
    let before = overrides(&world.state());
    world.done(Command::RemoveNode(others[0].id)).expect("it is empty");
    world.settle();
    assert!(overrides(&world.state()) < before, "what the drained node held is not pinned any more");
    let volume = others[1].volumes[0];
    world.what.clone_from(&what);
    moves_little(&mut world, "heavier", Command::SetWeight { volume: volume.id, weight: volume.weight * 3 / 2 });
    if nodes < 50 {
        return;
    }
    world.what.clone_from(&what);
    moves_little(&mut world, "lighter", Command::SetWeight { volume: joiner.volumes[0].id, weight: 1600 });
    world.what.clone_from(&what);
    moves_little(&mut world, "dead", Command::SetDead { node: others[2].id, dead: true });
}

#[test]
fn a_change_of_twenty_nodes_moves_little_more_than_it_must() {
    all_sorts(20, 7);
}

#[test]
#[ignore = "a minute: a hundred nodes"]
fn a_change_of_a_hundred_nodes_moves_little_more_than_it_must() {
    (1..4).for_each(|seed| all_sorts(100, seed));
}

#[test]
#[ignore = "minutes: thirty changes of thirty nodes"]
fn overrides_do_not_pile_up() {
    let mut world = World::new(5, 30, fast());
    for number in 0..30 {
        world.what = format!("change {number}");
        let joiner = node(&mut world.dice, ["a", "b"][number % 2], 1000);
        world.done(Command::AddNode(joiner)).expect("a good command");
        world.settle();
        let state = world.state();
        let voters: Vec<_> = state.voters().iter().map(|voter| voter.node).collect();
        let leaver = state.spec().nodes.iter().find(|node| !voters.contains(&node.id)).expect("more than vote").id;
        world.done(Command::DrainNode { node: leaver, drain: true }).expect("a good command");
        world.settle();
        world.done(Command::RemoveNode(leaver)).expect("it is empty");
        world.settle();
        println!("change {number}: {} overrides", overrides(&world.state()));
        assert!(overrides(&world.state()) < 20_000);
    }
}

#[test]
fn a_pinned_map_moves_nothing_and_pins_no_more_than_it_must() {
    let mut dice = Random(3);
    let before = Map::settled(spec(&mut dice, 12)).expect("a good map");
    let mut next = before.spec().clone();
    next.nodes.push(node(&mut dice, "b", 1000));
    next.nodes[0].volumes[0].weight = 3000;
    next.nodes[1].zone = "a".to_owned();
    let pinned = Map::new(pin(&before, next).expect("a good map")).expect("a good map");
    let free = Map::new(MapSpec { overrides: vec![], ..pinned.spec().clone() }).expect("a good map");
    let named: Vec<Partition> = pinned.spec().overrides.iter().map(|over| over.partition).collect();
    for partition in (0..=u16::MAX).map(Partition) {
        let was = holders(&before, partition);
        assert_eq!(was, holders(&pinned, partition), "partition {}", partition.0);
        assert_eq!(named.contains(&partition), was != holders(&free, partition), "partition {}", partition.0);
    }
}

#[test]
#[ignore = "prints how long a pin and a plan take for 10,000 volumes; run it in release"]
fn ten_thousand_volumes_are_pinned_in_well_under_a_second() {
    let mut dice = Random(3);
    let before = Map::settled(spec(&mut dice, 9_999)).expect("a good map");
    let mut next = before.spec().clone();
    next.nodes.push(node(&mut dice, "b", 1000));
    let start = std::time::Instant::now();
    let pinned = pin(&before, next).expect("a good map");
    println!("pin: {} ms, {} overrides", start.elapsed().as_millis(), pinned.overrides.len());
    assert!(start.elapsed().as_millis() < 1_000);
    let pinned = Map::new(pinned).expect("a good map");
    let start = std::time::Instant::now();
    let plan = Plan::onward(&before, pinned.spec().clone(), BYTES).expect("a good map");
    println!("plan: {} ms, {} copies", start.elapsed().as_millis(), plan.bytes_to_move());
}
