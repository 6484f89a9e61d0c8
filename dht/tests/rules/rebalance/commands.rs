//! What operators ask, and what they are told.

use std::collections::BTreeSet;

use deadwax_dht::log::{BadChange, Change, Refusal};
use deadwax_dht::rebalance::{Answer, Command, Effect, Refused, Stall};
use deadwax_dht::{BadMap, Node, NodeId, Policy};

use super::world::{BYTES, World, fast, node};

#[test]
fn a_command_is_answered_when_it_is_done_and_again_if_it_is_so_already() {
    let mut world = World::new(11, 6, fast());
    let some = world.state().spec().nodes[4].clone();
    let address = Command::SetAddress { node: some.id, address: "elsewhere:1".to_owned() };
    assert_eq!(world.done(address.clone()), Ok(Answer::Done { epoch: 2 }));
    assert_eq!(world.done(address), Ok(Answer::Done { epoch: 2 }));
    let volume = some.volumes[0].id;
    assert_eq!(world.done(Command::DrainVolume { volume, drain: true }), Ok(Answer::Done { epoch: 3 }));
    assert_eq!(world.done(Command::DrainNode { node: some.id, drain: false }), Ok(Answer::Done { epoch: 4 }));
    let one_zone = Policy { zones_min: 1, ..Policy::default() };
    assert_eq!(world.done(Command::SetPolicy(one_zone)), Ok(Answer::Done { epoch: 5 }));
    let voters = world.state().spec().nodes[1..4].iter().map(|node| node.id).collect();
    assert_eq!(world.done(Command::SetVoters(voters)), Ok(Answer::Done { epoch: 6 }));
}

#[test]
fn what_cannot_be_is_refused_with_its_reason() {
    let mut world = World::new(12, 6, fast());
    let spec = world.state().spec().clone();
    let (some, missing) = (&spec.nodes[4], NodeId::from_bytes([0; 32]));
    let refused = |world: &mut World, command| world.done(command).expect_err("it cannot be");
    assert_eq!(refused(&mut world, Command::RemoveNode(missing)), Refused::NoNode(missing));
    assert!(
        matches!(refused(&mut world, Command::RemoveNode(some.id)), Refused::NotDrained { partitions } if partitions > 10_000)
    );
    let twin = deadwax_dht::Node { zone: "c".to_owned(), ..some.clone() };
    assert_eq!(refused(&mut world, Command::AddNode(twin)), Refused::NodeExists(some.id));
    let mut address = node(&mut world.dice, "a", 1000);
    address.address.clone_from(&some.address);
    let twice = Refused::Map(BadMap::AddressTwice(some.address.clone()));
    assert_eq!(refused(&mut world, Command::AddNode(address)), twice);
    let copies = Policy { copies: 2, ..Policy::default() };
    assert_eq!(refused(&mut world, Command::SetPolicy(copies)), Refused::Copies { got: 2, copies: 3 });
    for got in [1, 3] {
        let quorum = Command::SetPolicy(Policy { write_quorum: got, ..Policy::default() });
        assert_eq!(refused(&mut world, quorum), Refused::WriteQuorum { got, write_quorum: 2 });
    }
    let two = Command::SetVoters(vec![some.id, spec.nodes[0].id]);
    assert_eq!(refused(&mut world, two), Refused::Log(Refusal::Rule(BadChange::Voters(2))));
    let ahead = Command::RollBack { to: 9, spec: Box::new(spec.clone()), leaving: BTreeSet::new() };
    assert_eq!(refused(&mut world, ahead), Refused::RollBack(9));
    assert_eq!(world.history.epoch(), 1, "nothing came of any");
}

/// Goes back to an epoch that is kept.
pub(crate) fn roll_back(world: &World, to: u64) -> Command {
    let then = world.history.state_at(to).expect("kept");
    Command::RollBack { to, spec: Box::new(then.spec().clone()), leaving: then.leaving().clone() }
}

#[test]
fn a_rollback_brings_back_what_was_to_be_emptied_and_leaves_the_dead_dead() {
    let mut world = World::new(20, 6, fast());
    let nodes = world.state().spec().nodes.clone();
    let drives = |at: usize| nodes[at].volumes.iter().map(|volume| volume.id).collect::<BTreeSet<_>>();
    let drain = |at: usize, drain: bool| Command::DrainNode { node: nodes[at].id, drain };
    world.done(drain(4, true)).expect("a good command");
    // Taken while the epochs are kept for certain.
    let (to_the_first, back) = (roll_back(&world, 1), roll_back(&world, world.history.epoch()));
    world.done(drain(4, false)).expect("a good command");
    world.done(drain(5, true)).expect("a good command");
    world.done(Command::SetDead { node: nodes[3].id, dead: true }).expect("a good command");
    let joiner = node(&mut world.dice, "a", 1000);
    let new = joiner.volumes.iter().map(|volume| volume.id).collect();
    world.done(Command::AddNode(joiner)).expect("a good command");
    world.done(back).expect("a good command");
    assert_eq!(*world.state().leaving(), &drives(4) | &new, "what was drained then, and what came since");
    assert_eq!(*world.state().dead(), BTreeSet::from([nodes[3].id]));
    world.done(to_the_first).expect("a good command");
    assert_eq!(*world.state().leaving(), new, "no drain had begun");
}

#[test]
fn a_forecast_says_what_would_move_and_changes_nothing() {
    let mut world = World::new(13, 10, fast());
    world.round();
    let joiner = node(&mut world.dice, "a", 1000);
    world.planner.forecast(7, Command::AddNode(joiner.clone()), 0);
    let effects = world.planner.poll(world.now, BYTES);
    let [Effect::Answer { number: 7, result: Ok(Answer::Forecast(forecast)) }] = &effects[..] else {
        panic!("a forecast: {effects:?}");
    };
    assert_eq!(world.history.epoch(), 1);
    world.done(Command::AddNode(joiner.clone())).expect("a good command");
    world.settle();
    assert!(world.pulled.abs_diff(u64::try_from(forecast.bytes_to_move).expect("few")) < 200, "as foreseen");
    let share = forecast.shares.iter().find(|share| share.node == joiner.id).expect("it has a share");
    assert!(share.copies_before == 0 && share.copies_after > 5_000, "{share:?}");
    assert_eq!(forecast.unmet, []);
}

#[test]
fn a_forecast_is_refused_where_the_command_would_be() {
    let mut world = World::new(13, 5, fast());
    world.round();
    let node = world.state().spec().nodes[1].clone();
    for command in [Command::RemoveNode(node.id), Command::RemoveVolume(node.volumes[0].id)] {
        world.planner.forecast(7, command.clone(), 0);
        let effects = world.planner.poll(world.now, BYTES);
        let [Effect::Answer { number: 7, result: Err(Refused::NotDrained { partitions }) }] = &effects[..] else {
            panic!("{command:?}: {effects:?}");
        };
        assert!(*partitions > 1_000, "{partitions}");
    }
    // What a drain would move is foreseen, and what is to be emptied is named when it is removed too early, too.
    world.done(Command::DrainNode { node: node.id, drain: true }).expect("a good command");
    world.settle();
    world.planner.forecast(8, Command::RemoveNode(node.id), 0);
    let effects = world.planner.poll(world.now, BYTES);
    let foreseen = |effect: &Effect| matches!(effect, Effect::Answer { number: 8, result: Ok(Answer::Forecast(_)) });
    assert!(effects.iter().any(foreseen), "{effects:?}");
}

#[test]
fn where_too_few_nodes_are_left_nothing_moves_and_the_reason_is_told() {
    let mut world = World::new(14, 3, fast());
    let node = world.state().spec().nodes[2].id;
    world.done(Command::SetDead { node, dead: true }).expect("a good command");
    while world.round() {}
    assert!(world.state().transitions().is_empty());
    assert_eq!(world.planner.progress(world.now).stall, Some(Stall::TooFewNodes { nodes: 2, copies: 3 }));
}

#[test]
fn one_command_more_than_may_wait_is_busy() {
    let mut world = World::new(14, 3, fast());
    let node = world.state().spec().nodes[2].id;
    for number in 0..=64 {
        world.planner.command(number, Command::DrainNode { node, drain: true }, 0);
    }
    let effects = world.planner.poll(world.now, BYTES);
    assert_eq!(effects[0], Effect::Answer { number: 64, result: Err(Refused::Busy) });
}

fn voters(world: &World) -> BTreeSet<NodeId> {
    world.state().voters().iter().map(|voter| voter.node).collect()
}

fn set(nodes: &[NodeId]) -> BTreeSet<NodeId> {
    nodes.iter().copied().collect()
}

fn names(nodes: &[Node]) -> Vec<NodeId> {
    nodes.iter().map(|node| node.id).collect()
}

#[test]
fn who_was_not_heard_of_gets_no_seat() {
    let mut world = World::new(15, 7, fast());
    let nodes = names(&world.state().spec().nodes.clone());
    world.away.insert(nodes[4]);
    let name =
        |world: &mut World, seats: [usize; 3]| world.done(Command::SetVoters(seats.map(|at| nodes[at]).to_vec()));
    assert_eq!(name(&mut world, [0, 1, 4]), Err(Refused::Unheard(nodes[4])));
    let missing = NodeId::from_bytes([0; 32]);
    assert_eq!(world.done(Command::SetVoters(vec![nodes[0], nodes[1], missing])), Err(Refused::NoNode(missing)));
    world.done(Command::SetDead { node: nodes[5], dead: true }).expect("a good command");
    assert_eq!(name(&mut world, [0, 1, 5]), Err(Refused::Unheard(nodes[5])));
    // Two that vote already and are away would be a majority.
    world.away.extend([nodes[0], nodes[1]]);
    assert_eq!(name(&mut world, [0, 1, 6]), Err(Refused::Unheard(nodes[0])));
    assert_eq!(voters(&world), set(&nodes[..3]));
    world.away.clear();
    assert!(name(&mut world, [0, 1, 4]).is_ok());
    assert_eq!(voters(&world), set(&[nodes[0], nodes[1], nodes[4]]));
}

#[test]
fn new_voters_are_a_minority_of_each_set_that_decides() {
    for (before, after) in [(0..3, 3..6), (0..3, 3..10), (0..3, 0..7), (0..7, 6..9), (0..7, 3..10), (0..5, 5..8)] {
        let what = format!("{before:?} to {after:?}");
        let mut world = World::new(18, 12, fast());
        let nodes = names(&world.state().spec().nodes.clone());
        world.done(Command::SetVoters(nodes[before.clone()].to_vec())).expect("all are there");
        while world.round() {}
        let start = world.history.epoch();
        world.done(Command::SetVoters(nodes[after.clone()].to_vec())).expect("all are there");
        assert_eq!(voters(&world), set(&nodes[after]), "{what}");
        let mut seated = set(&nodes[before]);
        for epoch in start + 1..=world.history.epoch() {
            let Change::SetVoters(grants) = &world.history.record(epoch).expect("kept").change else { continue };
            let next: BTreeSet<NodeId> = grants.iter().map(|grant| grant.node).collect();
            let new = next.difference(&seated).count();
            assert!(2 * new < next.len(), "{what}: {new} of {} are new", next.len());
            seated = next;
        }
    }
}

/// Looks at the seats as often as makes the leader sure that one is lost.
fn watch_long(world: &mut World) {
    while world.round() {}
    for _ in 0..6 {
        world.planner.watch_seats(world.now);
    }
    while world.round() {}
}

#[test]
fn a_voter_that_lost_its_seat_gets_another_once_that_is_sure() {
    let mut world = World::new(19, 3, fast());
    let nodes = names(&world.state().spec().nodes.clone());
    let seats = |world: &World| world.state().voters().iter().map(|voter| voter.seat).collect::<Vec<_>>();
    let again = Command::SetVoters(nodes.clone());
    assert_eq!(world.done(again.clone()), Ok(Answer::Done { epoch: 1 }));
    world.lost.insert(3);
    // A majority of them is to be there.
    let other = world.state().voters()[1].node;
    world.away.insert(other);
    assert!(matches!(world.done(again.clone()), Err(Refused::Unheard(_))));
    world.away.clear();
    let lost = world.state().voters()[2].node;
    assert_eq!(world.done(again.clone()), Err(Refused::Unheard(lost)), "it may have been just started");
    assert_eq!(seats(&world), [1, 2, 3]);
    // It is not done while the new seat is not taken either: the same process will take it.
    world.lost.insert(4);
    watch_long(&mut world);
    assert_eq!(seats(&world), [1, 2, 4]);
    assert_eq!(world.done(again.clone()), Err(Refused::Overtaken));
    watch_long(&mut world);
    assert_eq!(seats(&world), [1, 2, 4]);
    // That process has ended before it did.
    world.life += 1;
    watch_long(&mut world);
    world.done(again).expect("all are there");
    assert_eq!(seats(&world), [1, 2, 5]);
}

#[test]
fn a_lost_seat_is_renewed_before_another_node_gets_one_that_would_be_no_minority() {
    let mut world = World::new(19, 7, fast());
    let nodes = names(&world.state().spec().nodes.clone());
    world.lost.insert(world.state().voter(&nodes[2]).expect("it votes").seat);
    let wanted = [0, 2, 4].map(|at| nodes[at]);
    // Of who votes without its seat it is not known for a while whether it was just started.
    assert_eq!(world.done(Command::SetVoters(wanted.to_vec())), Err(Refused::Unheard(nodes[2])));
    assert_eq!(world.state().seats(), 3, "none is given yet");
    watch_long(&mut world);
    assert!(world.state().voter(&nodes[2]).expect("it votes").seat > 3);
    world.done(Command::SetVoters(wanted.to_vec())).expect("all three are there");
    assert_eq!(voters(&world), set(&wanted));
}

#[test]
fn a_leader_that_does_not_know_yet_who_follows_takes_no_seat() {
    let mut world = World::new(20, 7, fast());
    let nodes = names(&world.state().spec().nodes.clone());
    world.done(Command::SetVoters(nodes[..5].to_vec())).expect("all are there");
    while world.round() {}
    let kept = |world: &World| nodes[..4].iter().map(|node| world.state().seat_of(node)).collect::<Vec<_>>();
    let seats = kept(&world);
    world.knows = false;
    let wanted = [0, 1, 2, 3, 5].map(|at| nodes[at]).to_vec();
    let number = world.command(Command::SetVoters(wanted.clone()));
    for _ in 0..3 {
        world.round();
        assert!(!world.answers.contains_key(&number), "it waits");
    }
    assert_eq!(voters(&world), set(&nodes[..5]));
    world.knows = true;
    while world.round() {}
    assert!(world.answers[&number].is_ok());
    assert_eq!(voters(&world), set(&wanted));
    assert_eq!(kept(&world), seats);
}

#[test]
fn a_voter_that_is_removed_is_replaced_first_within_its_zone_if_that_can_be() {
    let mut world = World::new(16, 9, fast());
    let nodes = world.state().spec().nodes.clone();
    let votes = |at: usize| at < 3;
    let near: Vec<usize> = (3..9).filter(|at| nodes[*at].zone == nodes[0].zone).collect();
    let (other, heir) = (near[0], near[1]);
    world.away.insert(nodes[other].id);
    assert!(votes(0) && !votes(heir));
    world.done(Command::DrainNode { node: nodes[0].id, drain: true }).expect("a good command");
    assert!(matches!(world.done(Command::RemoveNode(nodes[0].id)), Err(Refused::NotDrained { .. })));
    assert_eq!(voters(&world), set(&names(&nodes[..3])), "nothing is done before it is empty");
    world.settle();
    world.done(Command::RemoveNode(nodes[0].id)).expect("it is empty");
    assert_eq!(voters(&world), set(&[nodes[1].id, nodes[2].id, nodes[heir].id]));
    assert!(world.state().spec().nodes.iter().all(|node| node.id != nodes[0].id));
}

#[test]
fn of_more_than_three_voters_one_may_go_without_another_in_its_place() {
    let mut world = World::new(17, 6, fast());
    let nodes = world.state().spec().nodes.clone();
    let four = names(&nodes[..4]);
    world.done(Command::SetVoters(four.clone())).expect("all are there");
    world.away.extend(names(&nodes[4..]));
    for at in [0, 1] {
        world.done(Command::SetDead { node: nodes[at].id, dead: true }).expect("a good command");
    }
    while world.round() {}
    let gone = nodes[0].id;
    // One of the three that would be left is dead: two are a majority.
    world.done(Command::RemoveNode(gone)).expect("it holds nothing");
    assert_eq!(voters(&world), set(&four[1..]));
    let is_in_map = |world: &World, id| world.state().spec().nodes.iter().any(|node| node.id == id);
    assert!(!is_in_map(&world, gone), "an operator may switch it off now");
    let last = nodes[1].id;
    assert_eq!(world.done(Command::RemoveNode(last)), Err(Refused::LastVoters(last)));
    world.away.remove(&nodes[5].id);
    world.done(Command::RemoveNode(last)).expect("another votes in its place");
    assert!(!is_in_map(&world, last));
    assert_eq!(voters(&world), set(&[nodes[2].id, nodes[3].id, nodes[5].id]));
}

#[test]
fn what_is_gone_by_a_record_that_was_not_heard_of_is_removed() {
    let mut world = World::new(18, 6, fast());
    let nodes = world.state().spec().nodes.clone();
    let (gone, volume) = (nodes[5].id, nodes[4].volumes[0].id);
    world.done(Command::SetDead { node: gone, dead: true }).expect("a good command");
    while world.round() {}
    world.deaf = true;
    let answer = world.done(Command::RemoveNode(gone)).expect("it is gone");
    assert_eq!(answer, Answer::Done { epoch: world.state().epoch() });
    assert!(!world.deaf && world.state().spec().nodes.iter().all(|node| node.id != gone));
    assert_eq!(world.done(Command::RemoveNode(gone)), Err(Refused::NoNode(gone)), "this one was never proposed");
    assert!(matches!(world.done(Command::RemoveVolume(volume)), Err(Refused::NotDrained { .. })));
}
