//! A cluster's life: changes at random, two at once, with lost decisions, late layouts and other leaders.

use deadwax_dht::rebalance::Command;

use super::commands::roll_back;
use super::world::{World, fast, node};

/// Some operation, as a command.
fn any(world: &mut World) -> Command {
    let spec = world.state().spec().clone();
    let (dead, leaving) = (world.state().dead().clone(), world.state().leaving().clone());
    let live: Vec<_> = spec.nodes.iter().filter(|node| !dead.contains(&node.id)).collect();
    let at = world.dice.index(live.len());
    let (some, volume) = (live[at].id, live[at].volumes[0]);
    let spare = world.effective().nodes.len() > 8;
    match world.dice.below(10) {
        0 | 1 => Command::AddNode(node(&mut world.dice, ["a", "b"][at % 2], 1000)),
        2 if spare => Command::DrainNode { node: some, drain: true },
        3 => match leaving.first() {
            Some(volume) => Command::DrainVolume { volume: *volume, drain: false },
            None => Command::SetWeight { volume: volume.id, weight: volume.weight * 3 / 2 },
        },
        4 => Command::SetWeight { volume: volume.id, weight: (volume.weight * 2 / 3).max(800) },
        5 => Command::SetZone { node: some, zone: if live[at].zone == "a" { "b" } else { "a" }.to_owned() },
        6 if spare && dead.is_empty() => Command::SetDead { node: some, dead: true },
        7 if !dead.is_empty() => Command::SetDead { node: *dead.first().expect("one"), dead: false },
        8 => {
            let to = world.history.oldest().max(world.history.epoch().saturating_sub(30));
            roll_back(world, to)
        }
        _ => Command::AddNode(node(&mut world.dice, ["a", "b"][at % 2], 2000)),
    }
}

/// Lives through `changes`, and removes what was emptied.
fn live(seed: u64, changes: usize) {
    let mut world = World::new(seed, 12, fast());
    world.mischief = 10;
    for number in 0..changes {
        world.what = format!("seed {seed}, change {number}");
        let count = 1 + world.dice.below(2);
        for _ in 0..count {
            // The second comes while the first is under way.
            let command = any(&mut world);
            world.command(command);
            let rounds = world.dice.below(12);
            for _ in 0..rounds {
                world.round();
            }
        }
        world.settle();
        let overrides = world.state().spec().overrides.len();
        assert!(overrides < 45_000, "seed {seed}: {overrides} overrides");
        let state = world.state();
        let empty = |volumes: &[deadwax_dht::Volume]| volumes.iter().all(|own| state.leaving().contains(&own.id));
        let gone = |node: &&deadwax_dht::Node| empty(&node.volumes) || state.dead().contains(&node.id);
        for node in state.spec().nodes.iter().filter(gone) {
            world.mischief = 0;
            let answer = world.done(Command::RemoveNode(node.id));
            assert!(answer.is_ok(), "seed {seed}: a drained node cannot be removed: {answer:?}");
            world.mischief = 10;
        }
    }
    world.settle();
}

#[test]
fn whatever_is_asked_and_whatever_fails_every_epoch_keeps_the_promises() {
    live(1, 2);
}

#[test]
#[ignore = "minutes: the same for more seeds and longer lives"]
fn longer_lives_keep_the_promises() {
    let from: u64 = std::env::var("DEADWAX_SEED").map_or(100, |seed| seed.parse().expect("a number"));
    (from..from + 12).for_each(|seed| live(seed, 12));
}
