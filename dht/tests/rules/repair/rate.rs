//! How fast: floor, ceiling, latency, and what is urgent.

use deadwax_dht::repair::{Pull, Reason, Repair, RepairSettings, Stall, Want};

use super::node::{MB, MINUTE, SECOND, next, node, repair, source, track, want};

const FLOOR: u64 = 20 * MB;
const CEILING: u64 = 60 * MB;
const FAST_US: u64 = 5_000;
const SLOW_US: u64 = 500_000;

/// Plenty of wants of `bytes` each.
fn plenty(repair: &mut Repair, now: u64, bytes: u64, template: Want) {
    let partition = if template.copies == 1 { 1 } else { 2 };
    for number in 0..2_000 {
        repair.want(now, Want { track: track(partition, number), bytes, ..template }, &[source(1)]);
    }
}

/// Runs for `ms` with a foreground of this latency (none: nobody asks) and pulls that take no time; bytes by urgency.
fn run(
    repair: &mut Repair,
    from: u64,
    ms: u64,
    latency_us: Option<u64>,
    mut bytes_of: impl FnMut(&Pull) -> u64,
) -> (u64, u64) {
    let (mut urgent, mut other) = (0, 0);
    let mut now = from;
    for observe_at in (from..from + ms).step_by(1_000) {
        if let Some(latency_us) = latency_us {
            repair.observe_foreground(observe_at, latency_us);
        }
        now = now.max(observe_at);
        while let Some((at, pull)) = next(repair, now, (observe_at + 999).min(from + ms - 1)) {
            now = at;
            let bytes = bytes_of(&pull);
            *(if pull.urgent { &mut urgent } else { &mut other }) += bytes;
            repair.handle_pulled(now, pull.number, bytes, Ok(()));
        }
    }
    (urgent, other)
}

fn assert_near(got: u64, due: u64, percent: u64, what: &str) {
    assert!(got.abs_diff(due) <= due * percent / 100, "{what}: {got}, due {due}");
}

#[test]
fn rises_to_the_ceiling_falls_to_the_floor_and_rises_again() {
    let mut repair = repair(RepairSettings { wants_max: 1_000_000, ..RepairSettings::default() });
    plenty(&mut repair, 0, 8 * MB, want(track(0, 0)));
    let all = |pull: &Pull| pull.bytes_hint;
    assert_eq!(repair.status(0).rate_bytes_s_max, FLOOR);
    run(&mut repair, 0, 40 * SECOND, Some(FAST_US), all);
    let (_, at_ceiling) = run(&mut repair, 40 * SECOND, MINUTE, Some(FAST_US), all);
    assert_near(at_ceiling, 60 * CEILING, 3, "at the ceiling");
    // Each second a quarter less: 45, 33.75, 25.3, 20.
    let mut rates = Vec::new();
    for second in 0..5 {
        let (_, bytes) = run(&mut repair, (100 + second) * SECOND, SECOND, Some(SLOW_US), all);
        rates.push((repair.status((100 + second) * SECOND).rate_bytes_s_max, bytes));
    }
    let rates: Vec<u64> = rates.iter().map(|(rate, _)| *rate).collect();
    assert_eq!(rates, [45 * MB, 33_750_000, 25_312_500, FLOOR, FLOOR]);
    plenty(&mut repair, 105 * SECOND, 8 * MB, want(track(0, 0)));
    let (_, at_floor) = run(&mut repair, 105 * SECOND, MINUTE, Some(SLOW_US), all);
    assert_near(at_floor, 60 * FLOOR, 3, "at the floor");
    // Calm again: in half a minute back at the ceiling, also where nobody asks anything any more.
    run(&mut repair, 165 * SECOND, 17 * SECOND, None, all);
    let halfway = repair.status(182 * SECOND).rate_bytes_s_max;
    assert_near(halfway, 40 * MB, 10, "on the way up");
    assert_eq!(repair.status(200 * SECOND).rate_bytes_s_max, CEILING);
}

#[test]
fn many_observations_in_a_second_count_once() {
    let mut repair = repair(RepairSettings::default());
    assert_eq!(repair.status(MINUTE).rate_bytes_s_max, CEILING);
    (0..900).for_each(|ms| repair.observe_foreground(MINUTE + ms, SLOW_US));
    assert_eq!(repair.status(MINUTE + 900).rate_bytes_s_max, CEILING / 4 * 3);
}

#[test]
fn a_large_track_leaves_a_debt_that_time_pays_and_a_wrong_guess_is_put_right() {
    for told in [512 << 20, 0] {
        let mut repair = repair(RepairSettings { pulls_max: 1, ..RepairSettings::default() });
        (0..400).for_each(|n| repair.want(0, Want { bytes: told, ..want(track(1, n)) }, &[source(1)]));
        let (_, bytes) = run(&mut repair, 0, 40 * SECOND, None, |_| 512 << 20);
        let (_, more) = run(&mut repair, 40 * SECOND, 10 * MINUTE, None, |_| 512 << 20);
        // What is thought of tracks of unknown length is known after the first ones.
        assert!(bytes <= 32 * 40 * MB + 160 * MB + (5 << 29), "told {told}: {bytes}");
        assert_near(more, 600 * CEILING, 3, "ten minutes");
    }
}

#[test]
fn urgent_tracks_get_the_floor_whatever_went_before_and_others_a_sixteenth_of_it() {
    let settings = RepairSettings { wants_max: 1_000_000, ..RepairSettings::default() };
    let mut repair = repair(settings);
    // Huge tracks that nobody needs now put the account deep into debt, then the foreground is slow.
    let low = Want { copies: 3, reason: Reason::Stray, ..want(track(0, 0)) };
    plenty(&mut repair, 0, 4 * MB, low);
    run(&mut repair, 0, SECOND, Some(SLOW_US), |_| 4 << 30);
    assert!(next(&mut repair, 2 * SECOND, 2 * SECOND).is_none());
    assert_eq!(repair.status(2 * SECOND).stall, Some(Stall::Throttled));
    plenty(&mut repair, 2 * SECOND, 4 * MB, Want { copies: 1, ..low });
    let (urgent, other) = run(&mut repair, 2 * SECOND, MINUTE, Some(SLOW_US), |pull| pull.bytes_hint);
    // With what eight seconds saved.
    assert_near(urgent, 68 * FLOOR, 4, "urgent amid debt");
    assert_eq!(other, 0, "the debt is not paid yet");
    // For hours nothing but urgent tracks, and the foreground always slow.
    let mut sums = (0, 0);
    for hour in 0..60 {
        let from = (62 + hour * 60) * SECOND;
        plenty(&mut repair, from, 4 * MB, Want { copies: 1, ..low });
        let (urgent, other) = run(&mut repair, from, MINUTE, Some(SLOW_US), |pull| pull.bytes_hint);
        sums = (sums.0 + urgent, sums.1 + other);
    }
    assert!(sums.0 >= 60 * 60 * FLOOR / 16 * 15 - 100 * MB, "urgent: {sums:?}");
    assert!(sums.0 + sums.1 <= 60 * 60 * FLOOR / 16 * 17 + 200 * MB, "all: {sums:?}");
    assert!(sums.1 > 0, "the others stand still: {sums:?}");
}

#[test]
fn urgent_tracks_alone_keep_to_the_ceiling() {
    let mut repair = repair(RepairSettings::default());
    plenty(&mut repair, 0, 3 * MB, Want { copies: 1, ..want(track(0, 0)) });
    run(&mut repair, 0, 40 * SECOND, None, |pull| pull.bytes_hint);
    let mut sum = 0;
    for minute in 0..5 {
        plenty(&mut repair, 0, 3 * MB, Want { copies: 1, ..want(track(0, 0)) });
        sum += run(&mut repair, 40 * SECOND + minute * MINUTE, MINUTE, None, |pull| pull.bytes_hint).0;
    }
    assert!((300 * CEILING / 100 * 97..=300 * CEILING + 60 * MB).contains(&sum), "{sum}");
}

#[test]
fn others_are_served_so_many_at_a_time_at_the_same_rate() {
    let mut repair = repair(RepairSettings { serves_max: 4, ..RepairSettings::default() });
    let now = MINUTE;
    let mut serve = |to: u8| repair.may_serve(now, node(to), 100 * MB, false);
    let numbers = [serve(1), serve(1), serve(2), serve(3)].map(|number| number.expect("a place"));
    repair.served(now, numbers[3], 100 * MB);
    let mut serve = |to: u8| repair.may_serve(now, node(to), 100 * MB, false);
    assert!(serve(1).is_err(), "one puller has half of the places at most");
    let last = serve(3).expect("a place");
    assert!(serve(4).is_err(), "all places are taken");
    assert_eq!(repair.status(now).serves, 4);
    repair.served(now, 99, MB);
    repair.served(now, numbers[3], MB);
    assert_eq!(repair.status(now).serves, 4, "what is not served is ignored");
    // 480 MB were saved, 1,380 are served: 15 s to pay. One was larger than it was said to be, one did not go to its
    // end.
    [(numbers[0], 980), (numbers[1], 0), (numbers[2], 100), (last, 200)]
        .iter()
        .for_each(|(number, bytes)| repair.served(now, *number, bytes * MB));
    assert_eq!(repair.status(now).serves, 0);
    let busy = repair.may_serve(now, node(1), MB, false).expect_err("in debt");
    assert_near(busy.after_ms, 15_000, 1, "when to come again");
    assert!(repair.may_serve(now, node(1), MB, true).is_ok(), "urgent tracks have a reserve");
    assert!(repair.may_serve(now + busy.after_ms + 20, node(2), MB, false).is_ok());
}

#[test]
fn what_is_served_keeps_to_the_ceiling() {
    let mut repair = repair(RepairSettings::default());
    let (mut served, mut now) = (0, 0);
    while now < 11 * MINUTE {
        match repair.may_serve(now, node(1), 25 * MB, false) {
            Ok(number) => {
                repair.served(now, number, 25 * MB);
                served += 25 * MB;
                assert!(served < 700 * CEILING, "no end of it at {now}");
            }
            Err(busy) => now += busy.after_ms,
        }
    }
    // The first half minute goes from the floor to the ceiling.
    assert_near(served, 660 * CEILING - 32 * 20 * MB, 2, "served in eleven minutes");
}
