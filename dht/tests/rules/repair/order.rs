//! What goes first, and that nothing waits for ever.

use std::collections::BTreeSet;

use deadwax_dht::repair::{Reason, RepairSettings, Source, Stall, Want};
use deadwax_track::{Partition, TrackId};

use super::node::{MB, Random, node, pull, pulls, quick, repair, small, source, track, volume, want};

const REASONS: [Reason; 4] = [Reason::Rot, Reason::Missing, Reason::Moving, Reason::Stray];

#[test]
fn fewest_copies_go_first_then_zones_then_reasons_then_partitions() {
    let seed = 1;
    let mut dice = Random(seed);
    for round in 0..200 {
        let mut repair = repair(quick());
        let mut due = Vec::new();
        // The sixteenth pull would go by chance.
        for number in 0..15 {
            let (copies, zoneless) = (1 + small(&mut dice, 3), dice.percent(30));
            let reason = dice.pick(&REASONS);
            let track = track(u16::from(small(&mut dice, 3)), number);
            repair.want(0, Want { copies, zoneless, reason, ..want(track) }, &[source(1)]);
            due.push((copies, !zoneless, reason, track));
        }
        due.sort_unstable();
        // Partitions go round: each class starts where the one before it ended.
        let classes = |due: &[(u8, bool, Reason, TrackId)]| -> Vec<(u8, bool, Reason)> {
            due.iter().map(|(copies, zoned, reason, _)| (*copies, *zoned, *reason)).collect()
        };
        let got: Vec<_> = pulls(&mut repair, 0, 99)
            .iter()
            .map(|pull| *due.iter().find(|(.., track)| *track == pull.track).expect("wanted"))
            .collect();
        assert_eq!(classes(&got), classes(&due), "seed {seed}, round {round}");
        for class in got.chunk_by(|a, b| (a.0, a.1, a.2) == (b.0, b.1, b.2)) {
            let falls = class.windows(2).filter(|pair| pair[0].3 > pair[1].3).count();
            assert!(falls <= 1, "seed {seed}, round {round}: {class:?}");
        }
    }
}

#[test]
fn one_class_goes_by_partition_and_id() {
    let mut repair = repair(quick());
    let tracks = [track(1, 1), track(1, 2), track(1, 9), track(2, 0), track(7, 3), track(7, 4), track(65_535, 0)];
    tracks.iter().rev().for_each(|track| repair.want(0, want(*track), &[source(1)]));
    let got: Vec<TrackId> = pulls(&mut repair, 0, 99).iter().map(|pull| pull.track).collect();
    assert_eq!(got, tracks);
}

#[test]
fn what_is_urgent_and_comes_late_goes_first() {
    let mut repair = repair(quick());
    (0..10).for_each(|number| repair.want(0, want(track(1, number)), &[source(1)]));
    pulls(&mut repair, 0, 3);
    repair.want(0, Want { copies: 1, ..want(track(9, 0)) }, &[source(1)]);
    repair.want(0, Want { zoneless: true, ..want(track(8, 0)) }, &[source(1)]);
    // Told anew, a track changes its place.
    repair.want(0, Want { copies: 1, zoneless: true, ..want(track(1, 9)) }, &[source(1)]);
    let first: Vec<TrackId> = pulls(&mut repair, 0, 3).iter().map(|pull| pull.track).collect();
    assert_eq!(first, [track(1, 9), track(9, 0), track(8, 0)]);
}

#[test]
fn the_last_class_goes_on_while_urgent_ones_never_end() {
    let mut repair = repair(quick());
    let low: Vec<TrackId> = (0..40).map(|number| track(60_000 + number, 5)).collect();
    for track in &low {
        repair.want(0, Want { copies: 3, reason: Reason::Stray, ..want(*track) }, &[source(1)]);
    }
    let mut came = BTreeSet::new();
    let mut total = 0;
    for number in 0.. {
        repair.want(number, Want { copies: 1, ..want(track(3, number % 1_000_000)) }, &[source(1)]);
        repair.want(number, Want { copies: 1, ..want(track(4, number % 1_000_000)) }, &[source(1)]);
        let pull = pull(&mut repair, number).expect("a pull");
        total += 1;
        came.extend(low.contains(&pull.track).then_some(pull.track));
        if came.len() == low.len() {
            break;
        }
        assert!(total < 5_000, "{} of {} came in {total} pulls", came.len(), low.len());
    }
    assert!(total > 16 * 40, "the last class took more than its share: all in {total} pulls");
}

#[test]
fn a_partition_does_not_wait_for_those_before_it() {
    let mut repair = repair(quick());
    repair.want(0, want(track(50_000, 0)), &[source(1)]);
    for number in 0..12u16 {
        // New wants at the front, each time before the last.
        repair.want(0, want(track(2_000 - number, 0)), &[source(1)]);
        repair.want(0, want(track(2_100 - number, 0)), &[source(1)]);
        if pull(&mut repair, 0).expect("a pull").track == track(50_000, 0) {
            assert!(number > 0);
            return;
        }
    }
    panic!("it still waits");
}

#[test]
fn volumes_of_equal_need_take_turns_and_have_their_own_limits() {
    let mut repair = repair(RepairSettings { pulls_max: 2, ..quick() });
    for number in 0..5 {
        for own in [1, 2, 3] {
            repair.want(0, Want { volume: volume(own), ..want(track(1, number)) }, &[source(1)]);
        }
    }
    let started: Vec<u8> = std::iter::from_fn(|| repair.poll(0)).map(|pull| pull.volume.as_bytes()[0]).collect();
    assert_eq!(started, [1, 2, 3, 1, 2, 3]);
    assert_eq!(repair.next_deadline(), u64::MAX, "nothing to do until a pull ends");
    repair.handle_pulled(0, 2, MB, Ok(()));
    assert_eq!(repair.poll(0).map(|pull| pull.volume), Some(volume(2)));
}

#[test]
fn wanted_again_is_wanted_once() {
    let mut repair = repair(quick());
    for _ in 0..5 {
        repair.want(0, want(track(1, 1)), &[source(1)]);
        repair.want(0, want(track(1, 1)), &[source(2), source(1)]);
    }
    assert_eq!(repair.status(0).tracks_left, 1);
    assert_eq!(repair.status(0).bytes_left, MB);
    let pull = repair.poll(0).expect("a pull");
    // While it is in flight, too.
    repair.want(0, want(track(1, 1)), &[source(3)]);
    assert_eq!(repair.poll(0), None);
    repair.handle_pulled(0, pull.number, MB, Ok(()));
    assert_eq!((repair.poll(0), repair.status(0).tracks_left, repair.sources_known()), (None, 0, 0));
    // The end of a pull is told once.
    repair.handle_pulled(0, pull.number, MB, Ok(()));
    assert_eq!(repair.status(0).bytes_pulled, MB);
}

#[test]
fn what_is_forgotten_or_cancelled_is_not_pulled() {
    let mut repair = repair(quick());
    let moving = |number| Want { reason: Reason::Moving, ..want(track(1, number)) };
    (0..4).for_each(|number| repair.want(0, moving(number), &[source(1)]));
    repair.want(0, Want { copies: 3, ..moving(9) }, &[]);
    repair.want(0, Want { volume: volume(2), ..moving(1) }, &[source(1)]);
    repair.want(0, Want { reason: Reason::Moving, ..want(track(2, 1)) }, &[source(1)]);
    repair.want(0, want(track(1, 50)), &[source(1)]);
    repair.want(0, Want { volume: volume(3), ..want(track(1, 50)) }, &[source(1)]);
    assert_eq!(repair.status(0).tracks_left, 9);
    repair.cancel(Partition(1));
    assert_eq!(repair.status(0).tracks_left, 3, "those of partition 1 that are moving went");
    repair.forget_volume(&volume(3));
    repair.forget(&volume(1), &track(1, 50));
    repair.forget(&volume(1), &track(1, 51));
    let rest: Vec<TrackId> = pulls(&mut repair, 0, 9).iter().map(|pull| pull.track).collect();
    assert_eq!(rest, [track(2, 1)]);
    assert_eq!((repair.status(0).stall, repair.sources_known()), (Some(Stall::Idle), 0));
    assert_eq!(repair.next_deadline(), u64::MAX);
}

#[test]
fn the_result_of_a_pull_whose_volume_was_forgotten_does_no_harm() {
    let mut repair = repair(quick());
    repair.want(0, want(track(1, 1)), &[source(1)]);
    let pull = repair.poll(0).expect("a pull");
    repair.forget_volume(&volume(1));
    repair.want(0, want(track(1, 2)), &[source(1)]);
    assert_eq!(repair.poll(0), None, "the old pull still keeps the drive busy");
    repair.handle_pulled(0, pull.number, MB, Ok(()));
    assert_eq!(pulls(&mut repair, 0, 9).len(), 1);
    assert_eq!(repair.sources_known(), 0);
}

#[test]
fn memory_is_bounded_and_keeps_what_is_most_urgent() {
    let mut repair = repair(RepairSettings { wants_max: 100, ..quick() });
    let low = |number| Want { reason: Reason::Stray, ..want(track(7, number)) };
    (0..150).for_each(|number| repair.want(0, low(number), &[source(1)]));
    let status = repair.status(0);
    assert_eq!((status.tracks_left, status.wants_dropped), (100, 50));
    let high = |number| Want { copies: 1, ..want(track(9, number)) };
    (0..100).for_each(|number| repair.want(0, high(number), &[source(1)]));
    let status = repair.status(0);
    assert_eq!((status.tracks_left, status.wants_dropped), (100, 150));
    assert_eq!((status.classes.len(), status.classes[0].copies, status.classes[0].tracks), (1, 1, 100));
    // Neither goes for one of its own class, nor for a lower one.
    repair.want(0, high(100), &[source(1)]);
    repair.want(0, low(0), &[source(1)]);
    let status = repair.status(0);
    assert_eq!((status.tracks_left, status.wants_dropped), (100, 152));
    assert_eq!(pulls(&mut repair, 0, 999).len(), 100);
}

#[test]
fn of_many_sources_eight_are_kept_and_places_are_used_again() {
    let mut repair = repair(quick());
    let sources: Vec<Source> = (0..20).map(source).collect();
    repair.want(0, want(track(1, 1)), &sources);
    assert_eq!(repair.sources_known(), 8);
    repair.want(0, want(track(1, 2)), &sources[7..8]);
    repair.forget(&volume(1), &track(1, 1));
    assert_eq!(repair.sources_known(), 1);
    repair.want(0, want(track(1, 2)), &sources);
    assert_eq!(repair.sources_known(), 8);
}

#[test]
fn sources_share_the_load_and_near_ones_go_first() {
    let mut repair = repair(RepairSettings { pulls_max: 6, ..quick() });
    let sources = [1, 2, 3].map(source);
    (0..30).for_each(|number| repair.want(0, want(track(number, 0)), &sources));
    let mut started: Vec<u8> = std::iter::from_fn(|| repair.poll(0)).map(|pull| pull.node.as_bytes()[0]).collect();
    started.sort_unstable();
    assert_eq!(started, [1, 1, 2, 2, 3, 3]);
    let mut repair = super::node::repair(quick());
    let far = |number| Source { near: false, ..source(number) };
    (0..9).for_each(|number| repair.want(0, want(track(number, 0)), &[far(1), source(2), far(3)]));
    assert!(pulls(&mut repair, 0, 8).iter().all(|pull| pull.node == node(2)));
    repair.set_up(node(2), false);
    assert!(pulls(&mut repair, 0, 9).iter().all(|pull| pull.node != node(2)));
}
