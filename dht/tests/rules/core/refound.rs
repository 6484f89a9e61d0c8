//! Most voters are lost for good, and the log begins anew at a node that is left.

use std::collections::BTreeSet;

use deadwax_dht::core::{Alarm, Finished, Input, Verb};
use deadwax_dht::log::{Consensus, RECORDS_MAX};
use deadwax_dht::rebalance::Command;
use deadwax_track::TrackId;

use super::village::{MINUTE, SECOND, Village, track};

/// Three of the five that vote; and those that are left, of which the last does not vote. They hold nearly all.
const LOST: [usize; 3] = [3, 4, 5];
const LEFT: [usize; 3] = [0, 1, 2];
/// How long it takes until the only voter has given two others seats, or until all that are left serve.
const SOON: u64 = MINUTE;

/// So many nodes, and tracks on all their holders. A seed gives other times.
fn stored(nodes: usize, seed: u64, tracks: u64) -> Village {
    let mut village = Village::new(nodes, 5);
    village.run(MINUTE + 137 * seed);
    let voters = [0, 1, 3, 4, 5].map(|at| village.id(at)).to_vec();
    while village.try_command(Command::SetVoters(voters.clone())).is_err() {}
    for number in 1..=tracks {
        for (at, volume) in village.holders(&track(number)) {
            village.store(at, volume, track(number));
        }
    }
    village.run(MINUTE);
    village
}

fn rack(village: &Village, number: usize) -> Command {
    Command::SetRack { node: village.id(2), rack: Some(format!("rack {number}")) }
}

fn set_up(village: &mut Village, houses: &[usize], up: bool) {
    houses.iter().for_each(|at| village.houses[*at].up = up);
}

/// The house of these that leads.
fn leader(village: &Village, of: &[usize]) -> usize {
    let leads = |at: &&usize| village.houses[**at].core.voter().is_some_and(Consensus::leads);
    *of.iter().find(leads).expect("one of them leads")
}

fn epoch(village: &Village, at: usize) -> u64 {
    village.houses[at].core.epoch()
}

fn voters(village: &Village, at: usize) -> BTreeSet<usize> {
    let state = village.houses[at].core.history().expect("it has a map").state();
    (0..village.houses.len()).filter(|at| state.voters().iter().any(|voter| voter.node == village.id(*at))).collect()
}

/// The houses that say of others that they have another log.
fn parted(village: &Village) -> BTreeSet<usize> {
    let warns = |at: &usize| !village.houses[*at].core.status().warnings.is_empty();
    (0..village.houses.len()).filter(|at| village.houses[*at].up).filter(warns).collect()
}

#[test]
fn what_is_left_of_a_cluster_decides_serves_and_heals_again_also_what_was_behind() {
    const TRACKS: u64 = 1_000;
    for seed in 0..3 {
        let mut village = stored(6, seed, TRACKS);
        village.houses[2].up = false;
        let command = rack(&village, 1);
        village.try_command(command).expect("most voters are there");
        set_up(&mut village, &LOST, false);
        village.run(2 * MINUTE);
        let lacking = (1..=TRACKS).filter(|number| village.copies(&track(*number)) < 2).count();
        assert!(lacking > 5, "the lost ones held something");
        let (known, behind) = (epoch(&village, 1), epoch(&village, 2));
        assert!(known > behind);
        village.refound(1, &LOST);
        village.run(10 * SECOND);
        assert_eq!(leader(&village, &LEFT), 1, "it votes alone");
        let command = rack(&village, 2);
        village.ask_command(1, command).expect("it decides");
        village.houses[2].up = true;
        village.restart(2);
        village.run(SOON);
        assert_eq!(epoch(&village, 2), epoch(&village, 1), "what was behind goes on from where it was");
        assert_eq!(voters(&village, 2), LEFT.into(), "two others were given seats");
        for at in LEFT {
            let core = &village.houses[at].core;
            assert!(core.may_serve().is_ok() && core.voter().is_some(), "house {at}");
        }
        village.run(5 * MINUTE);
        for number in 1..=TRACKS {
            assert_eq!(village.copies(&track(number)), 3, "track {number}, seed {seed}");
        }
        // Any one of those that vote now may be lost.
        set_up(&mut village, &[1], false);
        village.run(MINUTE);
        let (at, command) = (leader(&village, &[0, 2]), rack(&village, 3));
        village.ask_command(at, command).expect("most voters are there");
        let new = track(TRACKS + 1);
        let (at, volume) = village.holders(&new).into_iter().find(|(at, _)| village.houses[*at].up).expect("it is up");
        let stored = village.ask(at, Verb::Put, volume, &new);
        assert!(matches!(stored, Ok(Finished::Stored { .. })), "{stored:?}");
    }
}

/// A majority of seven had it, and of the four that are left one: the others, though they are a majority of those, serve
/// nothing before they have asked that one.
#[test]
fn nobody_serves_what_was_taken_down_though_most_that_had_it_are_lost() {
    const WITHOUT: [usize; 3] = [1, 2, 6];
    let mut village = stored(7, 0, 0);
    set_up(&mut village, &WITHOUT, false);
    village.run(SECOND);
    let taken: TrackId = track(1);
    let input = Input::TakeDown { number: 1, track: taken, time: village.now, reason: "a court's order".to_owned() };
    village.step(0, input);
    village.run(10 * SECOND);
    set_up(&mut village, &LOST, false);
    set_up(&mut village, &[0], false);
    village.refound(1, &LOST);
    for at in [2, 6] {
        village.houses[at].up = true;
        village.restart(at);
    }
    village.run(3 * MINUTE);
    for at in WITHOUT {
        assert!(village.houses[at].core.may_serve().is_err(), "house {at} does not know of it");
    }
    village.houses[0].up = true;
    village.restart(0);
    village.run(SOON);
    for at in [0, 1, 2, 6] {
        let core = &village.houses[at].core;
        assert!(core.may_serve().is_ok() && core.takedown_log().number_of(&taken).is_some(), "house {at}");
    }
}

#[test]
fn one_that_was_called_lost_and_comes_back_alone_is_a_dead_node_of_the_new_log() {
    let mut village = stored(6, 0, 0);
    set_up(&mut village, &LOST, false);
    village.run(MINUTE);
    village.refound(2, &LOST);
    village.run(SOON);
    village.houses[4].up = true;
    village.restart(4);
    village.run(SOON);
    assert_eq!(epoch(&village, 4), epoch(&village, 1));
    assert!(village.houses[4].core.voter().is_none(), "its seat is of the log that was");
    assert!(village.alarms.is_empty() && parted(&village).is_empty());
    let command = Command::SetDead { node: village.id(4), dead: false };
    village.ask_command(leader(&village, &LEFT), command).expect("it is back");
}

#[test]
fn one_that_was_called_lost_brings_the_takedowns_that_it_alone_knows() {
    const LOST: [usize; 3] = [0, 3, 4];
    let mut village = stored(6, 0, 0);
    set_up(&mut village, &[1, 2, 5], false);
    village.run(SECOND);
    let taken = take_down(&mut village, 1);
    set_up(&mut village, &LOST, false);
    village.refound(1, &LOST);
    for at in [2, 5] {
        village.houses[at].up = true;
        village.restart(at);
    }
    village.run(SOON);
    assert!(knowing(&village, &taken).is_disjoint(&[1, 2, 5].into()));
    village.houses[0].up = true;
    village.restart(0);
    village.run(SOON);
    assert!(knowing(&village, &taken).is_superset(&[0, 1, 2, 5].into()), "{:?}", knowing(&village, &taken));
    assert!([0, 1, 2, 5].iter().all(|at| village.houses[*at].core.may_serve().is_ok()));
}

/// House 0, whose settings name an issuer, takes a track down.
fn take_down(village: &mut Village, number: u64) -> TrackId {
    let taken = track(number);
    let input = Input::TakeDown { number, track: taken, time: village.now, reason: "a court's order".to_owned() };
    village.step(0, input);
    village.run(SECOND);
    taken
}

/// Who knows that a track was taken down.
fn knowing(village: &Village, taken: &TrackId) -> BTreeSet<usize> {
    let knows = |at: &usize| village.houses[*at].core.takedown_log().number_of(taken).is_some();
    (0..village.houses.len()).filter(knows).collect()
}

/// So many changes are decided on each side of a cut, of which each takes the other one's nodes for lost; and a takedown
/// where house 0 is.
fn decided_on_both_sides(lost: [usize; 3], theirs: usize, ours: usize) {
    let mut village = stored(6, 0, 0);
    let left: Vec<usize> = (0..6).filter(|at| !lost.contains(at)).collect();
    village.cut = lost.into();
    village.run(MINUTE);
    village.refound(1, &lost);
    village.run(SOON);
    for (side, count) in [(&lost[..], theirs), (&left[..], ours)] {
        for number in 0..count {
            let (at, command) = (leader(&village, side), rack(&village, 10 * side[0] + number % 2));
            let input = Input::Command { number: 1, command, forecast: false, time_ms: village.now };
            village.step(at, input);
            village.run(SECOND / 10);
        }
    }
    let before: Vec<u64> = (0..6).map(|at| epoch(&village, at)).collect();
    assert!(before[lost[0]] > theirs as u64 && before[1] > ours as u64, "{before:?}");
    let taken = take_down(&mut village, 1);
    village.run(10 * SECOND);
    let issuers: BTreeSet<usize> = if lost.contains(&0) { lost.into() } else { left.iter().copied().collect() };
    assert_eq!(knowing(&village, &taken), issuers);
    village.cut.clear();
    village.run(2 * MINUTE);
    let saw: BTreeSet<usize> = village.alarms.iter().map(|(at, _)| *at).collect();
    assert_eq!(saw, (0..6).collect(), "both sides say so: {before:?}");
    assert!(village.alarms.iter().all(|(at, alarm)| match alarm {
        Alarm::OtherLog { node } => lost.contains(at) != lost.iter().any(|lost| village.id(*lost) == *node),
        _ => false,
    }));
    assert_eq!(parted(&village), (0..6).collect());
    assert_eq!(knowing(&village, &taken), (0..6).collect(), "what is down on one side is down on both");
    for at in 0..6 {
        let refounded = village.houses[at].core.history().expect("it has a map").state().refounded().len();
        assert_eq!(refounded, usize::from(left.contains(&at)), "house {at} keeps to its log");
    }
    let (at, command) = (leader(&village, &left), rack(&village, 77));
    village.ask_command(at, command).expect("the new log goes on");
    // What a node of the other log knows is taken, and counts for no lease.
    set_up(&mut village, &lost[1..], false);
    village.run(3 * MINUTE);
    assert!(village.houses[lost[0]].core.may_serve().is_err(), "it is alone with its log");
    set_up(&mut village, &lost[1..], true);
    // Whoever gives up the old one is let in, and has a part in the new one.
    for at in lost {
        village.lose_system(at, false);
    }
    village.run(SOON);
    for at in lost {
        assert_eq!(epoch(&village, at), epoch(&village, 1), "house {at}");
        let command = Command::SetDead { node: village.id(at), dead: false };
        village.ask_command(leader(&village, &left), command).expect("it is back");
    }
    village.run(2 * MINUTE);
    assert_eq!(parted(&village), BTreeSet::new());
    assert!((0..6).all(|at| village.houses[at].core.may_serve().is_ok()));
}

#[test]
fn where_the_lost_come_back_and_have_decided_neither_side_takes_the_others_records_and_both_say_so() {
    decided_on_both_sides(LOST, 1, 1);
    decided_on_both_sides([0, 3, 4], 1, 1);
}

#[test]
fn a_log_of_which_more_was_decided_than_is_kept_is_not_taken_for_this_one() {
    decided_on_both_sides(LOST, RECORDS_MAX + 20, 1);
}
