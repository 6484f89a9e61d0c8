//! What is taken down goes, and each voter has the proof, whatever is restarted.

use deadwax_dht::core::{Alarm, Effect, Input, Refused, Verb};
use deadwax_dht::takedown::{CopyState, IssueError, TakedownLog};
use deadwax_track::TrackId;

use super::village::{CLUSTER, MINUTE, Village, key, track};

/// How many takedowns a voter has all receipts of.
fn complete(village: &Village, at: usize) -> u64 {
    village.houses[at].core.takedowns_complete()
}

fn take_down(village: &mut Village, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let input = Input::TakeDown { number, track: track(number), time: 0, reason: "law".to_owned() };
        village.step(0, input);
    }
}

#[test]
fn what_is_taken_down_is_gone_everywhere_and_receipted() {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    for (at, volume) in village.holders(&track(1)) {
        village.store(at, volume, track(1));
    }
    let effects = village.step(0, Input::TakeDown { number: 1, track: track(1), time: 0, reason: "law".to_owned() });
    assert!(effects.is_empty(), "it is told when it is durable");
    village.run(MINUTE);
    assert_eq!(village.copies(&track(1)), 0);
    let (at, volume) = village.holders(&track(1))[0];
    assert!(matches!(village.ask(at, Verb::Get, volume, &track(1)), Err(Refused::TakenDown(_))));
    assert!(matches!(village.ask(at, Verb::Put, volume, &track(1)), Err(Refused::TakenDown(_))));
    let complete = village.houses.iter().filter(|house| house.core.takedowns_complete() == 1).count();
    assert_eq!(complete, 3, "each voter has the receipts of all holders");
}

#[test]
fn a_voter_that_restarts_asks_for_all_receipts_anew() {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    take_down(&mut village, 0..10);
    village.run(MINUTE);
    assert_eq!(complete(&village, 1), 10);
    village.restart(1);
    assert_eq!(complete(&village, 1), 0);
    village.run(MINUTE);
    assert_eq!(complete(&village, 1), 10);
    assert_eq!(village.houses[1].core.takedown_progress(&track(1)), None, "it is not followed any more");
}

#[test]
fn a_volume_that_comes_up_with_much_that_is_barred_erases_it_bit_by_bit() {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    let mut log = TakedownLog::new(CLUSTER);
    log.allow(key(0).public()).expect("a good key");
    let tracks: Vec<TrackId> = (0..1_000).map(track).collect();
    let issue = |track: &TrackId| log.issue(&key(0), *track, 0, "law").expect("not barred yet");
    let volume = village.houses[3].volumes[0];
    village.houses[3].takedowns = tracks.iter().map(issue).collect();
    village.houses[3].disk.insert(volume, tracks.iter().copied().chain([track(5_000)]).collect());
    village.houses[3].erased_at_once = 0;
    village.restart(3);
    let left = village.houses[3].disk[&volume].len();
    assert!(left > 700, "not all at once");
    for track in &tracks {
        assert!(matches!(village.ask(3, Verb::Get, volume, track), Err(Refused::TakenDown(_))));
    }
    village.run(100);
    assert_eq!(village.houses[3].erased_at_once, 256);
    let left: Vec<&TrackId> = village.houses[3].disk[&volume].iter().collect();
    assert_eq!(left, [&track(5_000)]);
}

#[test]
fn an_operator_hears_of_an_issuer_whose_key_is_in_two_places() {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    take_down(&mut village, 0..1);
    village.run(MINUTE);
    assert!(village.alarms.is_empty());
    let mut log = TakedownLog::new(CLUSTER);
    log.allow(key(0).public()).expect("a good key");
    village.houses[3].takedowns = vec![log.issue(&key(0), track(7), 0, "law").expect("not barred yet")];
    village.restart(3);
    village.run(MINUTE);
    let forked = Alarm::Forked { issuer: key(0).public() };
    for at in 0..5 {
        assert!(village.alarms.contains(&(at, forked)), "house {at}: {:?}", village.alarms);
    }
    assert!(forked.to_string().contains("deadwax cluster issuer"), "{forked}");
}

#[test]
fn an_operator_hears_of_takedowns_that_a_node_drops_as_its_settings_name_nobody_who_signed_them() {
    let mut village = Village::new(5, 3);
    village.unnamed_at = Some(4);
    village.restart(4);
    village.run(MINUTE);
    take_down(&mut village, 0..1);
    village.run(MINUTE);
    let stranger = (4, Alarm::Stranger { issuer: key(0).public() });
    assert!(village.alarms.contains(&stranger) && village.alarms.iter().all(|alarm| *alarm == stranger));
    assert!(stranger.1.to_string().contains("`issuers`"), "{}", stranger.1);
}

#[test]
fn a_takedown_is_acknowledged_when_a_majority_and_the_holders_quorum_have_it() {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    village.houses[4].up = false;
    take_down(&mut village, 1..2);
    assert!(village.spreads.is_empty(), "nobody has it yet");
    village.run(1_000);
    let spread = village.spreads.remove(&1).expect("it came to three of five");
    assert!(spread.is_safe() && spread.have >= 3 && spread.members == 5, "{spread:?}");
    let refuse = |village: &mut Village, at, volume| {
        matches!(village.ask(at, Verb::Put, volume, &track(1)), Err(Refused::TakenDown(_)))
    };
    let holders = village.holders(&track(1));
    let refused = holders.iter().filter(|(at, volume)| *at != 4 && refuse(&mut village, *at, *volume)).count();
    assert!(refused >= 2, "{refused} of {} holders refuse a put", holders.len());
    // Asked again it has the same name, and is acknowledged anew.
    let again = Input::TakeDown { number: 2, track: track(1), time: 0, reason: String::new() };
    let effects = village.step(0, again);
    let already = |effect: &Effect| matches!(effect, Effect::TakenDown { result: Err(IssueError::Already(name)), .. } if name.number == 1);
    assert!(effects.iter().any(already), "{effects:?}");
    village.run(1_000);
    assert!(village.spreads.remove(&2).is_some_and(|spread| spread.is_safe()));
}

#[test]
fn a_takedown_that_most_do_not_hear_of_is_not_acknowledged() {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    for at in [2, 3, 4] {
        village.houses[at].up = false;
    }
    take_down(&mut village, 1..2);
    village.run(10_000);
    assert!(village.spreads.is_empty(), "it may come to a majority yet");
    village.run(15_000);
    let spread = village.spreads.remove(&1).expect("the wait is over");
    assert!(!spread.is_safe() && spread.have == 2, "{spread:?}");
}

#[test]
fn a_voter_shows_who_has_erased_and_follows_anew_what_it_forgot() {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    take_down(&mut village, 1..2);
    village.run(MINUTE);
    let ask = |village: &mut Village, at: usize, number| {
        village.step(at, Input::WantReceipts { number, track: track(1) });
        village.reports.remove(&number).expect("answered at once")
    };
    let report = ask(&mut village, 0, 1).expect("a voter follows");
    assert!(report.complete && report.copies.len() == village.holders(&track(1)).len(), "{report:?}");
    assert!(report.copies.iter().all(|(_, _, state)| matches!(state, CopyState::Erased(_))), "{report:?}");
    assert_eq!(ask(&mut village, 4, 2), None, "it is no voter");
    village.restart(1);
    village.run(MINUTE);
    assert!(ask(&mut village, 1, 3).is_some_and(|report| report.complete), "it went through the log again");
}
