//! Networks of nodes: cuts, losses, crashes, old states, sleep, forks.

use std::collections::BTreeMap;

use deadwax_dht::takedown::Verdict;

use super::network::{ISSUERS, RULES, World};
use super::seeded::{key, track};

const YEAR_MS: u64 = 365 * 86_400_000;

/// A node that knows all and serves: everything is settled.
fn settled(seed: u64, machines: u8) -> World {
    let mut world = World::new(seed, machines);
    world.run(5_000);
    for at in 0..world.machines.len() {
        assert_eq!(world.verdict(at, &track(u64::MAX - 1)), Verdict::Pass, "machine {at}");
    }
    world
}

/// One random fault, repair or takedown.
fn disturb(world: &mut World, images: &mut BTreeMap<usize, Vec<u8>>) {
    let at = world.random.index(world.machines.len());
    let up = world.machines[at].up;
    match world.random.below(12) {
        0..4 => {
            // Each issuer has a node of its own, and issues only where that node is not behind its own records.
            let issuer = world.random.index(usize::from(ISSUERS));
            if world.machines[issuer].up && !world.machines[issuer].lost {
                world.issue(issuer, u8::try_from(issuer + 1).expect("few"));
            }
        }
        4 if up => world.stop(at),
        5 if !up => world.start(at, None),
        6 => {
            images.insert(at, world.machines[at].disk.clone());
        }
        7 => {
            // One machine at a time may have lost what it had, and issuers' nodes do not (a fork has its own test).
            let may = at >= usize::from(ISSUERS) && world.machines.iter().all(|machine| !machine.lost);
            if let Some(image) = images.remove(&at).filter(|_| may) {
                world.stop(at);
                world.start(at, Some(image));
                assert!(!world.machines[at].lease.synced());
            }
        }
        8 if world.random.percent(50) => {
            // Two sides, as even as can be or with one node more on the one.
            let (members, first) = (world.machines.len(), world.random.index(world.machines.len()));
            let many = members / 2 + world.random.index(2);
            (0..members).for_each(|index| world.machines[index].side = 1);
            (first..first + many).for_each(|index| world.machines[index % members].side = 0);
        }
        8 => (0..world.machines.len()).for_each(|index| world.machines[index].side = world.random.index(3)),
        9 => world.machines.iter_mut().for_each(|machine| machine.side = 0),
        10 => world.loss_percent = [0, 0, 5, 40][world.random.index(4)],
        _ if up => world.forge(at),
        _ => {}
    }
}

fn random_run(seed: u64) -> ([u8; 32], BTreeMap<&'static str, u64>) {
    let mut world = settled(seed, 4 + u8::try_from(seed % 4).expect("small"));
    let mut images = BTreeMap::new();
    for _ in 0..40 {
        disturb(&mut world, &mut images);
        let ms = [50, 2_000, 8_000, 15_000][world.random.index(4)];
        world.run(ms);
    }
    (world.heal(), world.verdicts)
}

#[test]
fn no_service_after_the_bound_and_one_log_after_healing() {
    let mut verdicts = BTreeMap::new();
    for seed in 0..40 {
        println!("seed {seed}");
        for (verdict, count) in random_run(seed).1 {
            *verdicts.entry(verdict).or_insert(0) += count;
        }
    }
    println!("{verdicts:?}");
    assert!(
        verdicts.len() == 3 && verdicts.values().all(|count| *count > 100),
        "a run that shows nothing: {verdicts:?}"
    );
}

/// `cargo test --release -p deadwax-dht --test rules many_seeds -- --ignored --nocapture`
#[test]
#[ignore = "takes minutes"]
fn many_seeds() {
    for seed in 1_000..3_000 {
        println!("seed {seed}");
        random_run(seed);
    }
}

#[test]
fn equal_seeds_replay() {
    assert_eq!(random_run(7), random_run(7));
    assert_ne!(random_run(7).0, random_run(8).0);
}

#[test]
fn a_node_that_slept_for_a_year_does_not_serve_what_was_taken_down_meanwhile() {
    // Its clock ran on; or stood still, and the driver tells the lease.
    for (ahead, still) in [(YEAR_MS, false), (0, true)] {
        let mut world = settled(1, 5);
        let asleep = world.now;
        world.stop(4);
        for _ in 0..10 {
            assert!(world.issue(0, 1));
            world.run(3_000);
        }
        let slept = world.now - asleep;
        world.wake(4, ahead, still.then_some(slept));
        for number in 0..10 {
            assert!(matches!(world.verdict(4, &track(number)), Verdict::Stale(_)), "at the moment it wakes");
        }
        world.machines[4].side = 1;
        world.run(100_000);
        assert!(matches!(world.verdict(4, &track(0)), Verdict::Stale(_)), "as long as nobody answers");
        world.machines[4].side = 0;
        world.run(5_000);
        for number in 0..10 {
            assert!(matches!(world.verdict(4, &track(number)), Verdict::Barred(_)));
        }
        assert_eq!(world.verdict(4, &track(99)), Verdict::Pass);
        world.heal();
    }
}

#[test]
fn an_issuer_on_each_side_of_a_cut() {
    let mut world = settled(2, 6);
    for at in 3..6 {
        world.machines[at].side = 1;
    }
    assert!(world.issue(0, 1) && world.issue(3, 2));
    world.run(5_000);
    for at in 0..6 {
        let (here, there) = if at < 3 { (0, 1) } else { (1, 0) };
        assert!(matches!(world.verdict(at, &track(here)), Verdict::Barred(_)));
        assert_eq!(world.verdict(at, &track(there)), Verdict::Pass, "half of the nodes serve on within the grace");
    }
    assert!(world.issued.iter().all(|issued| issued.half_at.is_some() && issued.majority_at.is_none()));
    world.run(RULES.grace_ms);
    for at in 0..6 {
        assert!(matches!(world.verdict(at, &track(99)), Verdict::Stale(_)), "and not after it");
    }
    world.heal();
}

#[test]
fn the_small_side_of_a_cut_stops_after_the_lease_and_the_large_one_serves_on() {
    let mut world = settled(3, 5);
    world.machines[3].side = 1;
    world.machines[4].side = 1;
    world.run(RULES.lease_ms);
    assert!(world.issue(0, 1));
    world.run(3 * RULES.grace_ms);
    for at in 0..5 {
        assert_eq!(world.verdict(at, &track(99)) == Verdict::Pass, at < 3, "machine {at}");
    }
    world.heal();
}

#[test]
fn a_cluster_that_restarts_at_once_serves_again() {
    let mut world = settled(4, 5);
    assert!(world.issue(0, 1));
    world.run(2_500);
    (0..5).for_each(|at| world.stop(at));
    world.run(100_000);
    (0..5).for_each(|at| world.start(at, None));
    assert!((0..5).all(|at| matches!(world.verdict(at, &track(99)), Verdict::Stale(_))));
    world.run(5_000);
    assert!((0..5).all(|at| world.verdict(at, &track(99)) == Verdict::Pass));
    world.heal();
}

#[test]
fn an_issuer_that_forks_is_named_and_both_its_takedowns_hold() {
    let mut world = settled(5, 5);
    assert!(world.issue(0, 1));
    world.run(5_000);
    // The same key issues on both sides of a cut.
    world.machines[4].side = 1;
    assert!(world.issue(0, 1) && world.issue(4, 1) && world.issue(4, 1));
    world.run(8_000);
    world.heal();
    for at in 0..5 {
        assert!((0..4).all(|number| matches!(world.verdict(at, &track(number)), Verdict::Barred(_))));
        assert_eq!(world.machines[at].log.forked().collect::<Vec<_>>(), [&key(1).public()]);
    }
}
