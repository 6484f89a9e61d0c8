//! The map log in a simulated world: messages are lost, doubled and reordered, machines are cut off and crash, voters
//! are replaced. Seeds replay; a failure prints its seed, and `DEADWAX_SEED` runs that one alone; `DEADWAX_SEEDS` runs
//! so many.

pub(crate) mod cluster;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use deadwax_dht::NodeId;
use deadwax_dht::log::{Change, Outcome, ProposeError, Refusal};
use deadwax_track::Partition;

use self::cluster::{any_change, move_to, node_id, rack, volume_id};
use self::world::{Faults, World};
use crate::random;

/// How many worlds the regular run makes.
const SEEDS: u64 = 210;
/// After all is well, the longest until a change is decided, in ms: two elections that tie, and one that does not, of
/// at most 2 s each, and some messages.
const RESUME_MS: u64 = 8_000;

fn each_seed(seeds: u64, run: impl Fn(u64)) {
    let number = |name| std::env::var(name).ok().map(|number: String| number.parse::<u64>().expect("a number"));
    let seeds = number("DEADWAX_SEEDS").unwrap_or(seeds);
    for seed in number("DEADWAX_SEED").map_or(0..seeds, |seed| seed..seed + 1) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!("failed with DEADWAX_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

fn faults(seed: u64) -> Faults {
    Faults {
        loss_percent: [0, 5, 20][usize::try_from(seed % 3).expect("small")],
        twice_percent: 10,
        latency_ms_max: [5, 40, 150][usize::try_from(seed / 3 % 3).expect("small")],
        drive_ms_max: [2, 20, 80][usize::try_from(seed / 9 % 3).expect("small")],
    }
}

/// One of the things that go wrong.
fn mishap(world: &mut World, voters: usize) {
    let machines = world.machines.len();
    match world.random.below(10) {
        0 | 1 => {
            let at = world.random.index(machines);
            world.crash(at);
        }
        2 | 3 => {
            let at = world.random.index(machines);
            world.start(at);
        }
        4 => {
            for at in 0..machines {
                world.machines[at].side = world.random.index(2);
            }
        }
        5 => world.machines.iter_mut().for_each(|machine| machine.side = 0),
        6 => {
            // The leader alone is what hurts most.
            if let Some(at) = world.leaders().first().copied() {
                if world.random.percent(50) {
                    world.crash(at);
                } else {
                    world.machines[at].side = 2;
                }
            }
        }
        7 => {
            let Some(at) = world.leaders().first().copied() else { return };
            let voters = replaced(world, at, voters);
            let base = world.machines[at].history.epoch();
            let _ = world.offer(at, base, Change::set_voters(voters, |_| 9));
        }
        8 => {
            // The power fails: what was said too early is now missed by all.
            (0..machines).for_each(|at| world.crash(at));
            (0..machines).for_each(|at| world.start(at));
        }
        _ => {}
    }
}

/// The voters that the leader knows, with one replaced by a machine that does not vote.
fn replaced(world: &mut World, leader: usize, count: usize) -> Vec<NodeId> {
    let state = world.machines[leader].history.state().clone();
    let mut voters: Vec<NodeId> = state.voters().iter().map(|voter| voter.node).collect();
    let others = world.machines.iter().map(|machine| machine.id).filter(|id| state.seat_of(id).is_none());
    let others: Vec<NodeId> = others.filter(|id| state.spec().nodes.iter().any(|node| node.id == *id)).collect();
    if !others.is_empty() {
        let goes = world.random.index(voters.len());
        voters[goes] = world.random.pick(&others);
    }
    assert_eq!(voters.len(), count);
    voters
}

/// Somebody wants something, and asks whom they believe to lead.
fn want(world: &mut World, fresh: &mut u8) {
    let planner = world.random.index(world.machines.len());
    let history = world.machines[planner].history.clone();
    let change = any_change(&mut world.random, &history, fresh);
    // Machines stay in the map: the world has to send to them.
    if matches!(change, Change::RemoveNode(_)) {
        return;
    }
    let leaders = world.leaders();
    let at = if leaders.is_empty() { planner } else { world.random.pick(&leaders) };
    let _ = world.offer(at, history.epoch(), change);
}

fn bad_world(seed: u64) -> World {
    let voters = [3, 5, 7][usize::try_from(seed % 3).expect("small")];
    let mut world = World::new(seed ^ 0xdead_0a85, voters + 3, voters, faults(seed / 3));
    let mut fresh = 100;
    for _ in 0..80 {
        let later = world.now + 20 + world.random.below(200);
        world.run_until(later);
        if world.random.percent(60) {
            want(&mut world, &mut fresh);
        } else if world.random.percent(50) {
            mishap(&mut world, usize::from(voters));
        }
    }
    world
}

/// All is well again: how long until a new change is decided, and until all know it.
fn recover(world: &mut World) {
    world.heal();
    let healed = world.now;
    let mut taken = None;
    while world.now < healed + RESUME_MS {
        world.run_until(world.now + 50);
        match taken {
            None => {
                if let Some(at) = world.leaders().into_iter().max_by_key(|at| world.machines[*at].history.epoch()) {
                    let change = rack(world.random.next());
                    let base = world.machines[at].voter.as_ref().expect("it leads").history().epoch();
                    taken = world.offer(at, base, change).ok().map(|ticket| (at, ticket));
                }
            }
            Some((at, ticket)) => match world.outcomes.get(&ticket) {
                Some(Outcome::Record(_)) => break,
                Some(_) => taken = None,
                // A leader that learns from a peer that its seat is gone answers nobody any more.
                None if !world.leaders().contains(&at) => taken = None,
                None => {}
            },
        }
    }
    assert!(world.now < healed + RESUME_MS, "no change was decided within {RESUME_MS} ms{}", world.picture());
    assert!(world.wait(RESUME_MS, World::agrees), "not all machines know the newest epoch{}", world.picture());
    world.check_all();
}

#[test]
fn one_history_whatever_goes_wrong() {
    let mut sums = [0; 5];
    let sums_of = std::sync::Mutex::new(&mut sums);
    each_seed(SEEDS, |seed| {
        let mut world = bad_world(seed);
        recover(&mut world);
        let clashes = world.refusals().filter(|refusal| matches!(refusal, Refusal::Clash { .. })).count();
        let counts = [world.records().count(), clashes, world.outcomes.len(), world.retired, world.snapshots];
        let mut sums = sums_of.lock().expect("no other thread");
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    });
    println!("records, clashes, outcomes, voters retired, snapshots taken: {sums:?}");
    if std::env::vars().all(|(name, _)| !name.starts_with("DEADWAX_SEED")) {
        // A run counts only if what it is about came to be.
        let [records, clashes, outcomes, retired, snapshots] = sums;
        assert!(records > 2_000 && clashes > 10 && outcomes > records, "{sums:?}");
        assert!(retired > 10 && snapshots > 20, "{sums:?}");
    }
}

#[test]
fn equal_seeds_make_equal_worlds() {
    each_seed(12, |seed| {
        let trace = |seed| {
            let mut world = bad_world(seed);
            recover(&mut world);
            world.trace()
        };
        let first = trace(seed);
        assert_eq!(first, trace(seed), "the same seed went another way");
        assert_ne!(first, trace(seed + 1_000), "another seed went the same way");
    });
}

#[test]
fn without_a_quorum_nothing_is_decided_and_all_goes_on_at_the_last_epoch() {
    each_seed(20, |seed| {
        let voters = [3, 5, 7][usize::try_from(seed % 3).expect("small")];
        let mut world = World::new(seed, voters + 2, voters, Faults::NONE);
        assert!(world.wait(RESUME_MS, |world| !world.leaders().is_empty()), "no leader");
        let leader = world.leaders()[0];
        world.offer(leader, 1, rack(1)).expect("it leads");
        assert!(world.wait(RESUME_MS, |world| world.newest() == 2 && world.agrees()), "not decided");
        // A minority keeps the leader; the rest is each for itself.
        let minority = usize::from(voters / 2);
        let mut others = 1;
        let mut with_leader = 1;
        for at in 0..world.machines.len() {
            let votes = world.machines[at].voter.is_some();
            if at == leader || (votes && with_leader < minority) {
                with_leader += usize::from(at != leader);
                world.machines[at].side = 0;
            } else {
                world.machines[at].side = others;
                others += 1;
            }
        }
        let _ = world.offer(leader, 2, rack(2));
        world.run_until(world.now + 20_000);
        assert_eq!(world.newest(), 2, "a minority decided");
        assert!(world.leaders().is_empty(), "a leader without a majority steps down");
        for machine in &world.machines {
            assert_eq!(machine.history.epoch(), 2);
            assert_eq!(machine.history.since(1).records.len(), 1);
            assert_eq!(machine.history.state().holders(Partition(9)).union().len(), 3);
            assert_eq!(machine.history.map().expect("a good map").epoch(), 2);
        }
        let base = world.machines[leader].history.epoch();
        let refused = world.offer(leader, base, rack(3)).expect_err("it does not lead");
        assert!(matches!(refused, Some(ProposeError::NotLeader { .. })), "{refused:?}");
        recover(&mut world);
    });
}

#[test]
fn all_voters_are_replaced_one_by_one_under_load() {
    each_seed(12, |seed| {
        let voters = [3, 5, 7][usize::try_from(seed % 3).expect("small")];
        let mut world = World::new(seed, 2 * voters, voters, Faults { loss_percent: 5, ..Faults::NONE });
        for step in 1..=voters {
            let wanted: Vec<NodeId> = (step + 1..=step + voters).map(node_id).collect();
            let end = world.now + 3 * RESUME_MS;
            let settled = |world: &World| {
                world.machines.iter().any(|machine| {
                    let state = machine.history.state();
                    state.outgoing().is_empty() && state.voters().iter().all(|voter| wanted.contains(&voter.node))
                })
            };
            while !settled(&world) && world.now < end {
                if let Some(at) = world.leaders().first().copied() {
                    let base = world.machines[at].voter.as_ref().expect("it leads").history().epoch();
                    let _ = world.offer(at, base, Change::set_voters(wanted.clone(), |_| 9));
                    let _ = world.offer(at, base, rack(world.now));
                }
                world.run_until(world.now + 100);
            }
            assert!(settled(&world), "voter {step} was not replaced");
        }
        recover(&mut world);
        assert!(world.machines[..usize::from(voters)].iter().all(|machine| machine.voter.is_none()), "all are gone");
        let seats: Vec<u64> = world.machines[0].history.state().voters().iter().map(|voter| voter.seat).collect();
        assert!(seats.iter().all(|seat| *seat > u64::from(voters)), "seats were given twice: {seats:?}");
    });
}

#[test]
fn a_leader_that_is_replaced_says_so_before_it_goes() {
    each_seed(20, |seed| {
        let mut world = World::new(seed, 6, 3, Faults::NONE);
        assert!(world.wait(RESUME_MS, |world| !world.leaders().is_empty()), "no leader");
        let leader = world.leaders()[0];
        let stay: Vec<NodeId> = (0..4).filter(|at| *at != leader).map(|at| world.machines[at].id).collect();
        world.offer(leader, 1, Change::set_voters(stay, |_| 9)).expect("it leads");
        assert!(world.wait(RESUME_MS, |world| world.retired == 1), "it does not go");
        // Much sooner than they would call an election.
        world.run_until(world.now + 200);
        let joint = world.machines.iter().filter_map(|machine| machine.voter.as_ref()).filter(|voter| voter.is_joint());
        assert!(joint.count() <= 1, "a majority still counts those that went{}", world.picture());
    });
}

#[test]
fn disjoint_changes_both_land_and_of_clashing_ones_exactly_one() {
    let mut world = World::new(1, 6, 3, Faults::NONE);
    assert!(world.wait(RESUME_MS, |world| !world.leaders().is_empty()), "no leader");
    let at = world.leaders()[0];
    let history = world.machines[at].history.clone();
    let begin = |partition, nodes| Change::Begin(vec![move_to(&history, Partition(partition), nodes)]);
    let weight = |volume, weight| Change::SetWeight { volume, weight };
    // All are offered before any is decided.
    let offers = [
        begin(1, [1, 2, 3]),
        begin(2, [1, 2, 3]),
        begin(1, [2, 3, 4]),
        weight(volume_id(6, 2), 7),
        weight(volume_id(6, 2), 8),
        weight(volume_id(6, 2), 7),
    ];
    let tickets = offers.map(|change| world.offer(at, 1, change).expect("it leads"));
    assert!(world.wait(RESUME_MS, |world| world.outcomes.len() == 6), "not all are decided");
    let outcome = |number: usize| &world.outcomes[&tickets[number]];
    for lands in [0, 1, 3] {
        assert!(matches!(outcome(lands), Outcome::Record(_)), "{lands}: {:?}", outcome(lands));
    }
    for clashes in [2, 4] {
        assert!(matches!(outcome(clashes), Outcome::Refused(Refusal::Clash { .. })), "{:?}", outcome(clashes));
    }
    assert_eq!(outcome(5), &Outcome::Refused(Refusal::Already { epoch: 4 }));
    assert_eq!(world.newest(), 4);
}
