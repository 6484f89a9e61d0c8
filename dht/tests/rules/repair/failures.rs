//! What failures do, and what status says of them.

use deadwax_dht::repair::{PullError, RepairSettings, Stall, Want};

use super::node::{MB, MINUTE, SECOND, fail, next, node, pull, pulls, quick, repair, source, track, volume, want};

#[test]
fn a_source_that_cannot_be_reached_is_left_alone_for_longer_each_time() {
    let mut repair = repair(quick());
    (0..50).for_each(|number| repair.want(0, want(track(number, 0)), &[source(1)]));
    let (mut now, mut waits) = (0, Vec::new());
    for _ in 0..10 {
        fail(&mut repair, now, PullError::Unreachable);
        let (at, next) = next(&mut repair, now, now + 10 * MINUTE).expect("tried again");
        repair.handle_pulled(at, next.number, 0, Err(PullError::Lacks));
        waits.push(at - now);
        now = at;
        // Any want's failure counts for the source: the next one is another's.
    }
    assert!((1_000..=1_500).contains(&waits[0]), "{waits:?}");
    assert!(waits[5] >= 32_000 && waits[9] >= 60_000, "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= 90_000), "{waits:?}");
}

#[test]
fn another_source_is_asked_at_once() {
    for error in [PullError::Unreachable, PullError::Busy { after_ms: 0 }, PullError::Lacks, PullError::Corrupt] {
        let mut repair = repair(quick());
        repair.want(0, want(track(1, 1)), &[source(1), source(2)]);
        let first = fail(&mut repair, 0, error);
        let second = pull(&mut repair, 0).expect("another source");
        assert_ne!(first.node, second.node, "{error}");
        assert_eq!((repair.status(0).tracks_left, repair.sources_known()), (0, 0), "{error}");
    }
}

#[test]
fn a_busy_source_is_asked_again_when_it_said_and_not_much_later() {
    let mut repair = repair(quick());
    (0..9).for_each(|number| repair.want(0, want(track(number, 0)), &[source(1)]));
    fail(&mut repair, 0, PullError::Busy { after_ms: 4_000 });
    assert_eq!(next(&mut repair, 0, 3_999), None);
    assert_eq!(repair.status(10).stall, Some(Stall::SourcesBusy));
    let (at, again) = next(&mut repair, 0, MINUTE).expect("asked again");
    assert!((4_000..=6_000).contains(&at), "{at}");
    // A source that lies about it harms little.
    repair.handle_pulled(at, again.number, 0, Err(PullError::Busy { after_ms: u64::MAX }));
    assert!(next(&mut repair, at, at + MINUTE).is_some());
}

#[test]
fn pullers_of_one_busy_source_do_not_come_again_together() {
    let times = (0..20).map(|seed| {
        let mut repair = deadwax_dht::repair::Repair::new(quick(), seed, 0);
        repair.want(0, want(track(1, 0)), &[source(1)]);
        fail(&mut repair, 0, PullError::Busy { after_ms: 1_000 });
        next(&mut repair, 0, MINUTE).expect("asked again").0
    });
    let times: std::collections::BTreeSet<u64> = times.collect();
    assert!(times.len() > 15, "{times:?}");
}

#[test]
fn nothing_is_pulled_from_a_node_that_is_down_until_it_is_up() {
    let mut repair = repair(quick());
    repair.set_up(node(1), false);
    (0..9).for_each(|number| repair.want(0, want(track(number, 0)), &[source(1)]));
    assert_eq!(next(&mut repair, 0, 10 * MINUTE), None);
    assert_eq!(repair.status(10 * MINUTE).stall, Some(Stall::NoSourceUp));
    assert_eq!(repair.status(10 * MINUTE).oldest_ms, 10 * MINUTE);
    repair.want(10 * MINUTE, want(track(3, 0)), &[source(2)]);
    assert_eq!(pull(&mut repair, 10 * MINUTE).map(|pull| pull.node), Some(node(2)));
    repair.set_up(node(1), true);
    let (at, _) = next(&mut repair, 10 * MINUTE, 11 * MINUTE).expect("pulled");
    assert!(at <= 10 * MINUTE + 20 * SECOND, "{at}");
}

#[test]
fn an_operator_has_what_waits_tried_at_once() {
    for error in [PullError::Unreachable, PullError::DriveFull, PullError::DriveFailed] {
        let mut repair = repair(quick());
        repair.want(0, want(track(1, 0)), &[source(1)]);
        let mut now = 0;
        for _ in 0..8 {
            fail(&mut repair, now, error);
            assert_eq!(repair.poll(now + SECOND / 2), None, "{error}");
            repair.hasten(now + SECOND / 2);
            now += SECOND;
        }
        fail(&mut repair, now, error);
        let (at, again) = next(&mut repair, now, now + 10 * MINUTE).expect("tried again");
        assert!(at - now <= 45 * SECOND, "{error}: it waits as after its first failure, not its ninth: {}", at - now);
        repair.handle_pulled(at, again.number, MB, Ok(()));
        assert_eq!(repair.status(at).tracks_left, 0);
    }
    // A node that is down stays so, and a busy one is asked when it said.
    let mut repair = repair(quick());
    repair.set_up(node(1), false);
    repair.want(0, want(track(1, 0)), &[source(1)]);
    repair.want(0, want(track(2, 0)), &[source(2)]);
    fail(&mut repair, 0, PullError::Busy { after_ms: 4_000 });
    repair.hasten(1);
    assert_eq!(next(&mut repair, 1, 3_999), None);
    assert_eq!(next(&mut repair, 1, MINUTE).map(|(_, pull)| pull.node), Some(node(2)));
}

#[test]
fn who_was_down_and_leaves_the_map_is_up_when_it_is_in_it_again() {
    let mut repair = repair(quick());
    repair.set_up(node(1), false);
    repair.want(0, want(track(1, 0)), &[source(1)]);
    repair.keep_nodes(|other| *other == node(1));
    assert_eq!(next(&mut repair, 0, MINUTE), None);
    repair.keep_nodes(|_| false);
    assert!(next(&mut repair, MINUTE, 2 * MINUTE).is_some());
}

#[test]
fn one_source_that_is_down_does_not_hide_wants_that_have_another() {
    let mut repair = repair(quick());
    repair.set_up(node(1), false);
    (0..200).for_each(|number| repair.want(0, want(track(1, number)), &[source(1)]));
    (200..210).for_each(|number| repair.want(0, want(track(1, number)), &[source(2)]));
    (0..5).for_each(|number| repair.want(0, Want { copies: 3, ..want(track(1, 300 + number)) }, &[source(2)]));
    let mut got = 0;
    let mut now = 0;
    while let Some((at, pull)) = next(&mut repair, now, 60 * MINUTE) {
        repair.handle_pulled(at, pull.number, MB, Ok(()));
        (now, got) = (at, got + 1);
    }
    assert_eq!(got, 15);
}

#[test]
fn what_nobody_has_is_dropped_after_a_while_unless_a_source_is_told() {
    let mut repair = repair(quick());
    repair.want(0, want(track(1, 1)), &[]);
    repair.want(0, want(track(1, 2)), &[source(1)]);
    repair.want(0, want(track(1, 3)), &[source(1)]);
    fail(&mut repair, 0, PullError::Corrupt);
    fail(&mut repair, 0, PullError::Lacks);
    assert_eq!(repair.poll(0), None);
    assert_eq!(repair.status(0).stall, Some(Stall::NoSource));
    repair.want(5 * MINUTE, want(track(1, 1)), &[]);
    repair.want(5 * MINUTE, want(track(1, 2)), &[source(2)]);
    assert_eq!(pulls(&mut repair, 5 * MINUTE, 1)[0].track, track(1, 2));
    assert_eq!(repair.next_deadline(), 10 * MINUTE);
    assert_eq!(next(&mut repair, 5 * MINUTE, 60 * MINUTE), None);
    let status = repair.status(60 * MINUTE);
    assert_eq!((status.tracks_left, status.wants_dropped, repair.next_deadline()), (0, 2, u64::MAX));
}

#[test]
fn a_full_drive_rests_whole_and_others_go_on() {
    for (error, stall) in [(PullError::DriveFull, Stall::DriveFull), (PullError::DriveFailed, Stall::DriveFailed)] {
        let mut repair = repair(RepairSettings { pulls_max: 2, ..quick() });
        (0..9).for_each(|number| repair.want(0, want(track(number, 0)), &[source(1)]));
        let both = [repair.poll(0), repair.poll(0)].map(|pull| pull.expect("a pull").number);
        both.iter().for_each(|number| repair.handle_pulled(0, *number, 0, Err(error)));
        assert_eq!((repair.poll(0), repair.status(0).stall), (None, Some(stall)));
        repair.want(0, Want { volume: volume(2), ..want(track(1, 0)) }, &[source(1)]);
        assert_eq!(pull(&mut repair, 0).map(|pull| pull.volume), Some(volume(2)));
        let (at, first) = next(&mut repair, 0, MINUTE).expect("tried again");
        assert!((30_000..=45_000).contains(&at), "{at}");
        repair.handle_pulled(at, first.number, 0, Err(error));
        let (again, second) = next(&mut repair, at, 5 * MINUTE).expect("tried again");
        assert!(again - at >= 60_000, "{again}");
        repair.handle_pulled(again, second.number, MB, Ok(()));
        assert_eq!(pulls(&mut repair, again, 99).len(), 8);
    }
}

#[test]
fn a_track_that_always_fails_does_not_hold_up_the_others() {
    let mut repair = repair(quick());
    (0..10).for_each(|number| repair.want(0, want(track(1, number)), &[source(1), source(2)]));
    let (mut now, mut tries, mut came) = (0, 0, 0);
    while let Some((at, pull)) = next(&mut repair, now, 60 * MINUTE) {
        now = at;
        let bad = pull.track == track(1, 0);
        (tries, came) = (tries + u32::from(bad), came + u32::from(!bad));
        let result = if bad { Err(PullError::Unreachable) } else { Ok(()) };
        repair.handle_pulled(at, pull.number, 0, result);
        assert!(came == 9 || at < MINUTE, "the others wait: {came} at {at}");
    }
    assert!((12..60).contains(&tries), "{tries} tries in an hour");
    assert_eq!(repair.status(now + 1).stall, Some(Stall::Retrying));
}

#[test]
fn a_track_that_was_taken_down_is_wanted_no_more() {
    let mut repair = repair(quick());
    repair.want(0, want(track(1, 1)), &[source(1)]);
    fail(&mut repair, 0, PullError::Barred);
    assert_eq!((repair.poll(0), repair.status(0).tracks_left), (None, 0));
}

#[test]
fn status_tells_what_is_left_how_fast_it_goes_and_when_it_is_done() {
    let mut repair = repair(RepairSettings { floor_bytes_s: 10 * MB, ceiling_bytes_s: 10 * MB, ..quick() });
    (0..200).for_each(|number| repair.want(0, want(track(1, number)), &[source(1)]));
    (0..100)
        .for_each(|number| repair.want(0, Want { bytes: 10 * MB, copies: 1, ..want(track(2, number)) }, &[source(1)]));
    let status = repair.status(0);
    assert_eq!((status.bytes_left, status.tracks_left, status.eta_ms), (1_200 * MB, 300, None));
    let classes: Vec<(u8, u64, u64)> =
        status.classes.iter().map(|class| (class.copies, class.tracks, class.bytes)).collect();
    assert_eq!(classes, [(1, 100, 1_000 * MB), (2, 200, 200 * MB)]);
    let mut now = 0;
    while let Some((at, pull)) = next(&mut repair, now, 80 * SECOND) {
        repair.handle_pulled(at, pull.number, pull.bytes_hint, Ok(()));
        now = at;
    }
    let status = repair.status(80 * SECOND);
    assert!((9 * MB..=11 * MB).contains(&status.rate_bytes_s), "{status:?}");
    assert!((300 * MB..=330 * MB).contains(&status.bytes_left), "{status:?}");
    assert!((29_000..=35_000).contains(&status.eta_ms.expect("it goes")), "{status:?}");
    assert_eq!((status.oldest_ms, status.stall), (80_000, Some(Stall::Throttled)));
    repair.set_paused(true);
    assert_eq!(next(&mut repair, 80 * SECOND, 600 * SECOND), None);
    let status = repair.status(600 * SECOND);
    assert_eq!((status.stall, status.rate_bytes_s, status.eta_ms), (Some(Stall::Paused), 0, None));
    repair.set_paused(false);
    assert!(next(&mut repair, 600 * SECOND, 600 * SECOND).is_some());
}
