//! A slow holder is asked again elsewhere, rarely; a get goes on where it was, by a newer map, and ends in time.

use std::collections::BTreeMap;

use deadwax_dht::{
    Failure, FailureKind, GetPlan, GetStep, HEDGE_MS_MIN, HedgeBudget, Holder, Latency, Node, NodeId, Policy,
    REQUESTS_PER_HEDGE, ReadDeadlines, Reader, Readers, Targets, Verdict, VolumeId,
};
use deadwax_track::ByteRange;

use super::{DEADLINES, EPOCH, TRACK_BYTES, range};
use crate::random::Random;

fn hedged(order: &[(usize, u64)], read_quorum: usize) -> Readers {
    let reader = |(holder, ms): &(usize, u64)| Reader { holder: *holder, hedge_ms: Some(*ms), is_down: false };
    let voters = order.iter().map(|(holder, _)| *holder).collect();
    Readers { order: order.iter().map(reader).collect(), voters, read_quorum, epoch: EPOCH }
}

/// A budget that has so many hedges to give.
fn saved(hedges: u32) -> HedgeBudget {
    let mut budget = HedgeBudget::default();
    (0..hedges * REQUESTS_PER_HEDGE).for_each(|_| budget.note_request());
    budget
}

fn ask(holder: usize, hedge: bool) -> GetStep {
    GetStep::Ask { holder, range: range(), hedge }
}

#[test]
fn the_first_to_deliver_wins_and_the_other_is_dropped() {
    for winner in [0, 1] {
        let (mut get, mut budget) =
            (GetPlan::new(hedged(&[(0, 30), (1, 40), (2, 50)], 2), range(), DEADLINES), saved(1));
        assert_eq!(get.poll(0, &mut budget), ask(0, false));
        assert_eq!(get.poll(0, &mut budget), GetStep::Wait { until: 30 });
        get.handle_found(10, 0, TRACK_BYTES);
        assert_eq!(get.poll(30, &mut budget), ask(1, true), "found is no byte yet");
        assert_eq!(get.poll(30, &mut budget), GetStep::Wait { until: 60 }, "a third is not asked");
        get.handle_found(35, 1, TRACK_BYTES);
        let loser = 1 - winner;
        assert!(get.handle_data(45, winner, 3));
        assert!(!get.handle_data(45, loser, 3), "the loser's bytes are not taken");
        get.handle_end(loser);
        get.handle_absent(loser, EPOCH);
        get.handle_failed(loser, Failure::new(FailureKind::TakenDown { number: 1 }, "too late"));
        assert_eq!(get.poll(45, &mut budget), GetStep::Drop { holder: loser });
        assert_eq!(get.poll(45, &mut budget), GetStep::Wait { until: 95 });
        assert_eq!(get.failures().count(), 0);
        let mut samples = [get.take_sample(), get.take_sample()];
        samples.sort_unstable();
        assert_eq!(samples, [Some((0, 45)), Some((1, 15))]);
        // The winner breaks off: the loser is the next to go on, from here.
        get.handle_failed(winner, Failure::new(FailureKind::Unreachable, "told so"));
        let rest = ByteRange::new(7, 14).expect("not empty");
        assert_eq!(get.poll(46, &mut budget), GetStep::Ask { holder: loser, range: rest, hedge: false });
    }
}

#[test]
fn nobody_is_asked_beside_another_without_a_budget_or_only_to_ask_one_that_is_down() {
    let readers = || hedged(&[(0, 1), (1, 40)], 2);
    let mut get = GetPlan::new(readers(), range(), DEADLINES);
    let mut none = HedgeBudget::default();
    assert_eq!(get.poll(0, &mut none), ask(0, false));
    assert_eq!(get.poll(0, &mut none), GetStep::Wait { until: HEDGE_MS_MIN });
    assert_eq!(get.poll(HEDGE_MS_MIN, &mut none), GetStep::Wait { until: 100 }, "asked once, not at every poll");
    let mut down = readers();
    down.order[1].is_down = true;
    let (mut get, mut budget) = (GetPlan::new(down, range(), DEADLINES), saved(1));
    assert_eq!(get.poll(0, &mut budget), ask(0, false));
    assert_eq!(get.poll(HEDGE_MS_MIN, &mut budget), GetStep::Wait { until: 100 });
    assert!(budget.take(), "and nothing was paid");
}

#[test]
fn a_get_past_its_deadline_ends_and_says_so_but_time_with_the_reader_does_not_count() {
    let deadlines = ReadDeadlines { whole: Some(120), ..DEADLINES };
    let (mut get, mut budget) = (GetPlan::new(hedged(&[(0, 500), (1, 500)], 2), range(), deadlines), saved(0));
    assert_eq!(get.poll(0, &mut budget), ask(0, false));
    get.handle_found(60, 0, TRACK_BYTES);
    assert!(get.handle_data(60, 0, 1));
    get.handle_away(60);
    get.handle_resumed(1_000);
    assert_eq!(get.poll(1_000, &mut budget), GetStep::Wait { until: 1_050 });
    assert!(get.handle_data(1_040, 0, 1));
    assert_eq!(get.poll(1_040, &mut budget), GetStep::Wait { until: 1_060 });
    assert_eq!(get.poll(1_060, &mut budget), GetStep::Failed(Verdict::Expired));
}

#[test]
fn absence_counts_at_the_plans_epoch_from_the_first_set_only() {
    let at = |node: usize| {
        let byte = u8::try_from(node).expect("small");
        Holder { node, volume: VolumeId::from_bytes([byte; 16]), zone: 0 }
    };
    let targets = Targets::new(EPOCH, &[at(0), at(1), at(2)], Some(&[at(2), at(3), at(4)]), &[]);
    let readers = || {
        let order = (0..5).map(|holder| Reader { holder, hedge_ms: None, is_down: false }).collect();
        Readers::new(&targets, &Policy::default(), order)
    };
    assert_eq!((readers().voters, readers().read_quorum), (vec![0, 1, 2], 2));
    // What each of the five says in turn: nothing that counts, absent (at an epoch).
    let end = |says: [Option<u64>; 5]| {
        let (mut get, mut budget) = (GetPlan::new(readers(), range(), DEADLINES), HedgeBudget::default());
        let mut steps = vec![];
        loop {
            match get.poll(0, &mut budget) {
                GetStep::Ask { holder, .. } => match says[holder] {
                    Some(epoch) => get.handle_absent(holder, epoch),
                    None => get.handle_failed(holder, Failure::new(FailureKind::Busy, "not settled")),
                },
                GetStep::Moved { epoch } => steps.push(GetStep::Moved { epoch }),
                step => {
                    steps.push(step);
                    return steps;
                }
            }
        }
    };
    let now = Some(EPOCH);
    assert_eq!(end([now, now, None, None, None]), [GetStep::NotFound]);
    assert_eq!(end([None, now, now, None, None]), [GetStep::NotFound]);
    assert_eq!(end([now, None, None, now, now]), [GetStep::Failed(Verdict::Busy)]);
    assert_eq!(end([now, Some(EPOCH - 1), None, now, now]), [GetStep::Failed(Verdict::Unavailable)]);
    let moved = |epoch| GetStep::Moved { epoch };
    let unavailable = GetStep::Failed(Verdict::Unavailable);
    // Whoever cannot get the newer map may ask on, for bytes.
    assert_eq!(end([Some(9), now, now, now, now]), [moved(9), unavailable.clone()]);
    assert_eq!(end([Some(9), Some(8), Some(10), now, now]), [moved(9), moved(10), unavailable]);
}

/// What a holder sends in one request, and when, in ms.
struct Sending {
    from: u64,
    chunks: Vec<(u64, u64)>,
    breaks: bool,
}

/// One get from holders of random speed; every byte is checked to come once and in order.
fn get_of_random_speed(random: &mut Random, budget: &mut HedgeBudget, counts: &mut [u64; 3]) {
    let bytes = 1 + random.below(1_000);
    let whole = ByteRange::new(0, bytes).expect("not empty");
    let deadlines = ReadDeadlines { first_ms: 400, stall_ms: 200, whole: None };
    let mut get = GetPlan::new(hedged(&[(0, 25), (1, 25), (2, 25)], 2), whole, deadlines);
    let (mut now, mut next) = (0, 0);
    let mut sending: BTreeMap<usize, Sending> = BTreeMap::new();
    loop {
        match get.poll(now, budget) {
            GetStep::Ask { holder, range, hedge } => {
                counts[usize::from(hedge)] += 1;
                assert!(counts[1] * u64::from(REQUESTS_PER_HEDGE) <= counts[0], "too many hedges: {counts:?}");
                assert_eq!((range.start(), range.end()), (next, bytes));
                let (mut at, mut left, mut chunks) = (now, bytes - next, vec![]);
                at += if random.percent(10) { random.below(600) } else { random.below(20) };
                while left > 0 {
                    let chunk = 1 + random.below(left);
                    chunks.push((at, chunk));
                    (left, at) = (left - chunk, at + random.below(30) + 300 * u64::from(random.percent(2)));
                }
                let breaks = random.percent(5);
                chunks.truncate(if breaks { random.index(chunks.len() + 1) } else { chunks.len() });
                chunks.reverse();
                get.handle_found(now, holder, bytes);
                let before = sending.insert(holder, Sending { from: next, chunks, breaks });
                assert!(before.is_none() && sending.len() <= 2, "{holder} was still under way");
            }
            GetStep::Drop { holder } => {
                let dropped = sending.remove(&holder).expect("was under way");
                assert!(!get.handle_data(now, holder, 1), "a word after the drop is not taken");
                counts[2] += u64::from(!dropped.chunks.is_empty());
            }
            GetStep::Wait { until } => {
                assert!(until > now);
                let first =
                    sending.iter().map(|(holder, all)| (all.chunks.last().map_or(now, |chunk| chunk.0), *holder)).min();
                let (at, holder) = first.expect("somebody was asked");
                now = now.max(at.min(until));
                if at > now {
                    continue;
                }
                let all = sending.get_mut(&holder).expect("it is the first");
                match all.chunks.pop() {
                    Some((_, chunk)) => {
                        assert!(get.handle_data(now, holder, chunk), "who was not dropped is heard");
                        assert_eq!(all.from, next, "in order, and once");
                        (next, all.from) = (next + chunk, all.from + chunk);
                        assert_eq!(get.next_byte(), next);
                    }
                    None if all.breaks => {
                        sending.remove(&holder);
                        get.handle_failed(holder, Failure::new(FailureKind::Unreachable, "told so"));
                    }
                    None => get.handle_end(holder),
                }
            }
            GetStep::Done => return assert_eq!(next, bytes),
            GetStep::Failed(_) => return assert!(next < bytes),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn hedges_are_at_most_a_twentieth_and_bytes_come_once_and_in_order() {
    for seed in 0..20 {
        let (mut random, mut budget, mut counts) = (Random(seed), HedgeBudget::default(), [0; 3]);
        let run = std::panic::AssertUnwindSafe(|| {
            (0..1_000).for_each(|_| get_of_random_speed(&mut random, &mut budget, &mut counts));
        });
        assert!(std::panic::catch_unwind(run).is_ok(), "seed {seed}");
        assert!(counts[1] > 30 && counts[2] > 30, "seed {seed}: requests, hedges and losers: {counts:?}");
    }
}

#[test]
fn the_order_is_by_reach_set_zone_and_speed() {
    let node = |byte: u8| Node {
        id: NodeId::from_bytes([byte; 32]),
        zone: String::new(),
        rack: None,
        address: String::new(),
        volumes: vec![],
    };
    let nodes: Vec<Node> = (0..6).map(node).collect();
    let at = |node: usize, zone: usize| {
        let byte = u8::try_from(node).expect("small");
        Holder { node, volume: VolumeId::from_bytes([byte; 16]), zone }
    };
    let (old, new) = ([at(0, 1), at(1, 0), at(2, 0)], [at(3, 0), at(4, 0), at(2, 0)]);
    let targets = Targets::new(EPOCH, &old, Some(&new), &[at(5, 0)]);
    let mut latency = Latency::new();
    let order = |latency: &Latency, now, zone, down: &[usize]| -> Vec<usize> {
        let order = latency.order(now, &targets, &nodes, zone, |node| down.contains(&node));
        order.iter().map(|reader| reader.holder).collect()
    };
    assert_eq!(order(&latency, 0, None, &[]), [0, 1, 2, 3, 4]);
    assert_eq!(order(&latency, 0, Some(0), &[]), [1, 2, 0, 3, 4]);
    assert_eq!(order(&latency, 0, Some(0), &[1]), [2, 0, 3, 4, 1]);
    assert_eq!(latency.p95(&nodes[1].id), None);
    for n in 0..100 {
        latency.record(0, nodes[1].id, if n % 10 == 9 { 190 } else { 40 });
        latency.record(0, nodes[2].id, 3);
    }
    assert_eq!(order(&latency, 0, Some(0), &[]), [2, 1, 0, 3, 4]);
    assert_eq!(order(&latency, 60_000, Some(0), &[]), [1, 2, 0, 3, 4], "long ago: it is tried again");
    assert_eq!((latency.p95(&nodes[1].id), latency.p95(&nodes[2].id)), (Some(192), Some(3)));
    assert!(latency.p95(&nodes[3].id).is_some(), "by all nodes");
    let hedge = latency.order(0, &targets, &nodes, Some(0), |_| false)[0].hedge_ms;
    assert_eq!(hedge, Some(HEDGE_MS_MIN));
}
