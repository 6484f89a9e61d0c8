//! Who votes: the log goes on, whoever is named or removed.

use std::collections::BTreeSet;

use deadwax_dht::NodeId;
use deadwax_dht::core::{CommandRefused, Destination, Effect, Input, Message};
use deadwax_dht::rebalance::{Answer, Command, Refused};

use super::village::{MINUTE, Village};

/// So long after a seat was lost its node has not got another yet, and the others go on.
const BEFORE_SEATS: u64 = MINUTE / 3;

fn voters(village: &Village) -> BTreeSet<NodeId> {
    let layout = village.houses[2].core.layout().expect("it has a map");
    layout.state().voters().iter().map(|voter| voter.node).collect()
}

/// Whether a change is decided.
fn goes_on(village: &mut Village) -> bool {
    let (node, before) = (village.houses[2].node.id, village.houses[2].core.epoch());
    let rack = Some(format!("rack {before}"));
    village.try_command(Command::SetRack { node, rack }).is_ok() && village.houses[2].core.epoch() > before
}

/// Gives a command to whoever leads, again where that one goes amid it.
fn try_again(village: &mut Village, command: &Command) -> Result<Answer, CommandRefused> {
    loop {
        match village.try_command(command.clone()) {
            Err(CommandRefused::NotLeader { .. }) => {}
            answer => return answer,
        }
    }
}

#[test]
fn nodes_that_know_no_map_yet_are_named_voters_only_once_they_do() {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    for at in [5, 6] {
        village.add_house();
        village.houses[at].up = false;
        let node = village.houses[at].node.clone();
        village.try_command(Command::AddNode(node)).expect("a good command");
    }
    let id = |village: &Village, at: usize| village.houses[at].node.id;
    let seats = vec![id(&village, 2), id(&village, 5), id(&village, 6)];
    let refused = CommandRefused::Planner(Refused::Unheard(id(&village, 5)));
    assert_eq!(village.try_command(Command::SetVoters(seats.clone())), Err(refused));
    assert!(goes_on(&mut village));
    for at in [5, 6] {
        village.houses[at].up = true;
        village.restart(at);
    }
    village.run(MINUTE);
    village.try_command(Command::SetVoters(seats.clone())).expect("they are up, and know the map");
    village.run(MINUTE);
    assert_eq!(voters(&village), seats.into_iter().collect());
    assert!(goes_on(&mut village));
    for at in [5, 6] {
        assert!(village.houses[at].core.voter().is_some(), "it has taken its seat");
    }
}

#[test]
fn a_new_leader_asks_whom_it_has_not_heard_of() {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    village.houses[4].up = false;
    // What it has sent arrives.
    village.run(100);
    for at in 0..3 {
        village.restart(at);
    }
    while village.leaders() == 0 {
        village.run(10);
    }
    let (leader, node) = (village.leader(), village.houses[4].node.id);
    let seats: Vec<NodeId> = [0, 1, 4].map(|at| village.houses[at].node.id).to_vec();
    let command = Command::SetVoters(seats.clone());
    let input = Input::Command { number: 9, command: command.clone(), forecast: false, time_ms: 0 };
    let effects = village.houses[leader].core.step(village.now, input);
    let refused = Err(CommandRefused::Planner(Refused::Unheard(node)));
    assert!(effects.contains(&Effect::Answer { number: 9, result: refused }), "{effects:?}");
    let asks = |effect: &Effect| {
        let Effect::Send { to, envelope } = effect else { return false };
        *to == Destination::Node(node) && matches!(&envelope.message, Message::Seek(_))
    };
    assert!(effects.iter().any(asks), "{effects:?}");
    village.houses[4].up = true;
    village.run(MINUTE);
    village.try_command(command).expect("it has answered");
    assert_eq!(voters(&village), seats.into_iter().collect());
}

#[test]
fn a_node_that_votes_and_leads_can_be_removed() {
    let mut village = Village::new(6, 3);
    village.run(MINUTE);
    // Those that hold little.
    let seats = [3, 4, 5].map(|at| village.houses[at].node.id).to_vec();
    try_again(&mut village, &Command::SetVoters(seats)).expect("they are up");
    village.run(MINUTE);
    let at = village.leader();
    let node = village.houses[at].node.id;
    village.command(Command::DrainNode { node, drain: true });
    village.run(30 * MINUTE);
    try_again(&mut village, &Command::RemoveNode(node)).expect("it is empty");
    let layout = village.houses[2].core.layout().expect("it has a map").clone();
    assert!(layout.map().node(&node).is_none());
    assert_eq!((voters(&village).len(), voters(&village).contains(&node)), (3, false));
    assert!(village.houses[at].core.voter().is_none());
    assert_eq!(village.leaders(), 1);
}

/// A voter loses what it promised, and hears first of the time before it had its seat.
fn forfeits(old_image: bool) {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    village.houses[1].up = false;
    let named = |village: &Village, seats: [usize; 3]| seats.map(|at| village.houses[at].node.id).to_vec();
    let (with, without) = (named(&village, [0, 2, 4]), named(&village, [0, 2, 3]));
    village.try_command(Command::SetVoters(with.clone())).expect("they are up");
    village.run(MINUTE);
    assert_eq!(village.houses[4].core.voter().expect("it has taken its seat").seat(), 4);
    assert_eq!(village.houses[1].core.epoch(), 1);
    for (at, up) in [(0, false), (2, false), (3, false), (1, true)] {
        village.houses[at].up = up;
    }
    village.lose_system(4, old_image);
    village.run(MINUTE);
    assert_eq!(village.houses[4].core.epoch(), 1, "it has heard of those only that know no more");
    for at in [0, 2, 3] {
        village.houses[at].up = true;
    }
    village.run(BEFORE_SEATS);
    let newest = village.houses[2].core.epoch();
    assert!(newest > 1);
    assert_eq!(village.houses[4].core.epoch(), newest);
    assert!(village.houses[4].core.voter().is_none(), "another process had this seat");
    assert!(goes_on(&mut village));
    village.try_command(Command::SetVoters(without)).expect("they are up");
    village.run(MINUTE);
    village.try_command(Command::SetVoters(with)).expect("they are up");
    village.run(MINUTE);
    assert!(village.houses[4].core.voter().expect("it is a new seat").seat() > 4);
}

#[test]
fn a_voter_that_lost_its_drive_forfeits_its_seat_though_it_hears_first_of_an_earlier_epoch() {
    forfeits(false);
}

#[test]
fn a_voter_that_went_back_to_an_old_image_forfeits_a_seat_that_is_not_in_it() {
    forfeits(true);
}

/// House 4 of five has a seat; and voters without it.
fn house_four_votes() -> (Village, Vec<NodeId>) {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    let named = |seats: [usize; 3]| seats.map(|at| village.houses[at].node.id).to_vec();
    let (with, without) = (named([0, 2, 4]), named([0, 2, 3]));
    village.try_command(Command::SetVoters(with)).expect("they are up");
    village.run(MINUTE);
    (village, without)
}

#[test]
fn a_process_that_ends_between_its_seat_and_the_epoch_that_gives_it_keeps_the_seat() {
    let (mut village, without) = house_four_votes();
    village.lose_epochs(4);
    assert!(village.houses[4].core.voter().is_none());
    village.run(MINUTE);
    assert_eq!(village.houses[4].core.voter().expect("it is the same seat").seat(), 4);
    // One that is gone by then is dropped.
    village.try_command(Command::SetVoters(without)).expect("they are up");
    village.run(MINUTE);
    assert!(village.houses[4].durable.is_none());
    assert!(goes_on(&mut village));
}

#[test]
fn a_seat_that_was_taken_and_is_gone_by_the_epoch_that_comes_is_dropped() {
    let (mut village, without) = house_four_votes();
    village.houses[4].up = false;
    village.try_command(Command::SetVoters(without)).expect("they are up");
    village.run(MINUTE);
    assert!(village.houses[4].durable.is_some());
    village.houses[4].up = true;
    village.lose_epochs(4);
    village.run(MINUTE);
    assert!(village.houses[4].core.voter().is_none() && village.houses[4].durable.is_none());
}

#[test]
fn a_seat_that_was_lost_in_the_present_term_is_no_majoritys() {
    let mut village = Village::new(6, 3);
    village.run(MINUTE);
    let leader = village.leader();
    let (lost, other) = ((leader + 1) % 3, (leader + 2) % 3);
    village.lose_system(lost, false);
    village.run(BEFORE_SEATS);
    assert_eq!(village.leader(), leader);
    assert!(village.houses[lost].core.voter().is_none());
    let wanted = [leader, lost, 5].map(|at| village.houses[at].node.id);
    // None is given to the one that is new before the lost one is given again, which happens by itself.
    village.try_command(Command::SetVoters(wanted.to_vec())).expect_err("it may be lost, or was just started");
    while village.houses[lost].core.voter().is_none() {
        assert!(!voters(&village).contains(&wanted[2]));
        village.run(100);
    }
    // The one that is new ends before it has its seat, and its next process may not take it.
    village.begin_command(Command::SetVoters(wanted.to_vec()));
    while !voters(&village).contains(&wanted[2]) {
        assert!(village.houses[other].core.voter().is_some());
        village.run(1);
    }
    village.houses[5].up = false;
    village.run(100);
    village.houses[5].up = true;
    village.lose_epochs(5);
    village.run(2 * MINUTE);
    assert!(goes_on(&mut village));
    assert_eq!(voters(&village), wanted.into_iter().collect());
    for at in [leader, lost, 5] {
        assert!(village.houses[at].core.voter().is_some(), "all are in their seats");
    }
}

#[test]
fn where_every_node_votes_a_lost_seat_is_given_again() {
    let mut village = Village::new(3, 3);
    village.run(MINUTE);
    let lost = (0..2).find(|at| *at != village.leader()).expect("one of two");
    village.lose_system(lost, false);
    village.run(BEFORE_SEATS);
    assert!(village.houses[lost].core.voter().is_none(), "it lost what it promised");
    let all = (0..3).map(|at| village.houses[at].node.id).collect();
    village.try_command(Command::SetVoters(all)).expect_err("it may be lost, or was just started");
    village.run(MINUTE);
    let voter = village.houses[lost].core.voter().expect("it has taken a new seat");
    assert_eq!(voter.seat(), 4);
    // Without one of the others it is needed.
    let other = (0..2).find(|at| *at != lost).expect("one of two");
    village.houses[other].up = false;
    village.run(MINUTE);
    while village.leaders() != 1 || village.leader() == other {
        village.run(100);
    }
    assert!(goes_on(&mut village));
}

#[test]
fn voters_that_lose_their_seats_by_turns_get_others_by_themselves() {
    let mut village = Village::new(6, 5);
    village.run(MINUTE);
    let seats = |village: &Village| {
        let layout = village.houses[5].core.layout().expect("it has a map");
        layout.state().voters().iter().map(|voter| voter.seat).collect::<Vec<_>>()
    };
    let (who, mut before) = (voters(&village), seats(&village));
    // A voter that was away, or started anew with what it had, keeps its seat.
    village.houses[4].up = false;
    village.run(MINUTE);
    village.houses[4].up = true;
    village.restart(3);
    village.run(2 * MINUTE);
    assert_eq!(seats(&village), before);
    // More than half of them in all: with seats that stay lost nobody could lead any more.
    for lost in 0..4 {
        village.lose_system(lost, false);
        village.run(2 * MINUTE);
        let voter = village.houses[lost].core.voter().expect("it has taken another seat");
        assert!(!before.contains(&voter.seat()), "{before:?}");
        assert_eq!(voters(&village), who, "the same nodes vote");
        assert!(goes_on(&mut village));
        before = seats(&village);
    }
}

/// What a village's leader says of a command, that is cut off before or after it was given.
fn cut_off(after: bool) -> Result<Answer, CommandRefused> {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    let leader = village.leader();
    let node = village.houses[leader].node.id;
    let others = (0..3).filter(|at| *at != leader);
    others.for_each(|at| village.houses[at].up = false);
    if !after {
        // It finds out that nobody follows it.
        village.run(MINUTE);
        assert_eq!(village.leaders(), 0);
    }
    village.ask_command(leader, Command::SetRack { node, rack: Some("a rack".to_owned()) })
}

#[test]
fn who_loses_the_lead_says_whether_a_command_was_begun() {
    for after in [true, false] {
        let refused = cut_off(after);
        assert!(matches!(&refused, Err(CommandRefused::NotLeader { begun, .. }) if *begun == after), "{refused:?}");
    }
}
