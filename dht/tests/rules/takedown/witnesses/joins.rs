//! A node that joins soon after a start.

use std::collections::BTreeSet;

use deadwax_dht::takedown::{LeaseRules, Verdict};

use super::World;

/// A fourth node joins three soon after they were started, up to 3 s apart: the first of them that then does not serve.
fn join_after_a_start(seed: u64) -> Option<String> {
    let mut world = World::with(LeaseRules::default(), seed, 4, 1);
    (0..4).for_each(|at| world.stop(at));
    world.dead = BTreeSet::from([world.id(3)]);
    world.witnesses = vec![world.choose()];
    let mut starts: Vec<(u64, usize)> = (0..3).map(|at| (1_000 + world.random.below(3_001), at)).collect();
    starts.sort_unstable();
    for (start, at) in starts {
        world.run(start - world.now);
        world.start(at);
    }
    world.run(8_000);
    assert_eq!(world.serving(), 3, "seed {seed}");
    // It is a member before it runs.
    world.learn_ms = 100;
    world.declare(BTreeSet::new());
    for moment in 0..200 {
        world.run(10);
        if moment == 100 {
            world.start(3);
        }
        if let Some(at) = (0..3).find(|at| world.verdict(*at, u64::MAX) != Verdict::Pass) {
            return Some(format!("seed {seed}: machine {at}, {moment} moments after"));
        }
    }
    world.run(2 * world.rules.lease_ms);
    assert_eq!(world.serving(), 4, "seed {seed}");
    None
}

#[test]
fn nobody_stops_serving_because_a_node_joins_soon_after_a_start() {
    let stopped: Vec<String> = (0..100).filter_map(join_after_a_start).collect();
    assert!(stopped.is_empty(), "{} of 100 runs: {stopped:?}", stopped.len());
}
