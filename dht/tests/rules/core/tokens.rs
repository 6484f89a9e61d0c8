//! Nodes that join by a token: each lets one in, once, until it expires.

use deadwax_dht::core::{CommandRefused, Input};
use deadwax_dht::log::{BadChange, Refusal, TOKENS_MAX};
use deadwax_dht::rebalance::{Answer, Command, Refused};
use deadwax_dht::wire::Protocols;
use deadwax_dht::{Node, TokenName, TokenSecret};

use super::village::{MINUTE, Village};

const HOUR: u64 = 60 * MINUTE;

fn token(number: u8) -> TokenName {
    TokenSecret::from_bytes([number; 16]).name()
}

/// Five houses with so many tokens for an hour, and two that are to join.
fn village(tokens: u8) -> (Village, Node, Node) {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    for number in 0..tokens {
        made(make(&mut village, number, HOUR));
    }
    village.add_house();
    village.add_house();
    let node = |at: usize| village.houses[at].node.clone();
    let (one, other) = (node(5), node(6));
    (village, one, other)
}

fn make(village: &mut Village, number: u8, ttl_ms: u64) -> Result<Answer, CommandRefused> {
    village.try_command(Command::MakeToken { name: token(number), ttl_ms })
}

fn admit(village: &mut Village, number: u8, node: &Node) -> Result<Answer, CommandRefused> {
    village.try_command(Command::Admit { token: token(number), node: node.clone() })
}

fn made(answer: Result<Answer, CommandRefused>) -> u64 {
    match answer {
        Ok(Answer::Done { epoch }) => epoch,
        other => panic!("it is done: {other:?}"),
    }
}

fn refused(answer: Result<Answer, CommandRefused>) -> Refused {
    match answer {
        Err(CommandRefused::Planner(why)) => why,
        other => panic!("it is refused: {other:?}"),
    }
}

/// How many tokens each of the first five knows of.
fn tokens(village: &Village) -> Vec<usize> {
    let houses = village.houses.iter().take(5).filter_map(|house| house.core.layout());
    houses.map(|layout| layout.state().tokens().len()).collect()
}

#[test]
fn a_token_lets_one_node_in_and_no_other() {
    let (mut village, one, other) = village(2);
    let epoch = made(admit(&mut village, 0, &one));
    made(admit(&mut village, 0, &one));
    assert_eq!(refused(admit(&mut village, 0, &other)), Refused::NoToken);
    let moved = Node { address: "10.9.9.9:1".to_owned(), ..one.clone() };
    assert_eq!(refused(admit(&mut village, 1, &moved)), Refused::NodeExists(one.id));
    village.run(MINUTE);
    assert_eq!(tokens(&village), [1; 5], "the other token is there yet");
    assert!(made(admit(&mut village, 1, &other)) > epoch);
    village.run(MINUTE);
    assert!(
        village.houses.iter().all(|house| house.core.layout().is_some()),
        "both have the map, and their share to come"
    );
}

#[test]
fn two_that_show_the_same_token_at_once_do_not_both_come_in() {
    let (mut village, one, other) = village(1);
    let leader = village.leader();
    let command = Command::Admit { token: token(0), node: one.clone() };
    village.step(leader, Input::Command { number: 101, command, forecast: false, time_ms: 0 });
    assert_eq!(refused(admit(&mut village, 0, &other)), Refused::NoToken);
    let layout = village.houses[leader].core.layout().expect("it has the map").clone();
    let inside = |node: &Node| layout.map().node(&node.id).is_some();
    assert_eq!((inside(&one), inside(&other)), (true, false));
}

#[test]
fn a_token_that_has_expired_lets_nobody_in_and_makes_room() {
    let (mut village, one, _) = village(1);
    village.run(HOUR);
    assert_eq!(refused(admit(&mut village, 0, &one)), Refused::TokenExpired);
    made(make(&mut village, 1, HOUR));
    village.run(MINUTE);
    assert_eq!(tokens(&village), [1; 5], "it is forgotten with the next that is made");
    assert_eq!(refused(admit(&mut village, 0, &one)), Refused::NoToken);
}

#[test]
fn tokens_are_bounded_and_can_be_revoked() {
    let (mut village, one, _) = village(0);
    let leader = village.leader();
    let max = u8::try_from(TOKENS_MAX).expect("few");
    for number in 0..max {
        let command = Command::MakeToken { name: token(number), ttl_ms: HOUR };
        let number = 1_000 + u64::from(number);
        village.step(leader, Input::Command { number, command, forecast: false, time_ms: village.now });
        village.run(5_000);
    }
    assert_eq!(tokens(&village), [TOKENS_MAX; 5]);
    assert_eq!(refused(make(&mut village, max, HOUR)), Refused::Tokens);
    made(make(&mut village, max - 1, HOUR));
    made(village.try_command(Command::RevokeTokens));
    assert_eq!(tokens(&village), [0; 5]);
    assert_eq!(refused(admit(&mut village, 0, &one)), Refused::NoToken);
}

#[test]
fn there_are_none_before_the_cluster_is_finalised_at_their_version() {
    let mut village = Village::finalised_at(3, 5, 3, vec![Protocols::BUILD]);
    village.run(MINUTE);
    let not_yet = Refused::Log(Refusal::Rule(BadChange::NotFinalised { since: 4, is: 3 }));
    assert_eq!(refused(make(&mut village, 0, HOUR)), not_yet);
    made(village.try_command(Command::Finalise { protocol: 4 }));
    made(make(&mut village, 0, HOUR));
    village.restart(1);
    village.run(MINUTE);
    assert_eq!(tokens(&village), [1; 5]);
}
