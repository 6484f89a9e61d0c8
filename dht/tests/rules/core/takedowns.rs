//! What is taken down goes, and each voter has the proof, whatever is restarted.

use deadwax_dht::core::{Input, Refused, Verb};
use deadwax_dht::takedown::TakedownLog;
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
