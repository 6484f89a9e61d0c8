//! A partition that moves takes a put in both of its sets, and stand-ins take the shares of holders that fail.

use std::collections::BTreeSet;

use deadwax_dht::{Failure, FailureKind, Holder, PutQuorum, PutStep, Targets, Verdict, VolumeId};

use super::{GRACE, POLICY};

/// What a target does in a put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Does {
    Stores,
    HasIt,
    FailsToOpen,
    FailsInMidStream,
    IsSilent,
}

const ALL: [Does; 5] = [Does::Stores, Does::HasIt, Does::FailsToOpen, Does::FailsInMidStream, Does::IsSilent];
const DEADLINE: u64 = 10_000;

/// The nodes of the first set, of the second, and those that may stand in.
type Sets = (&'static [usize], Option<&'static [usize]>, &'static [usize]);

fn volume(node: usize, zone: usize) -> Holder {
    let byte = u8::try_from(node).expect("small");
    Holder { node, volume: VolumeId::from_bytes([byte; 16]), zone }
}

fn failure(kind: FailureKind) -> Failure {
    Failure::new(kind, "told so")
}

/// Plays a put to its end: how it ended, who is durable, who was asked, when it ended.
fn play(mut put: PutQuorum, does: &[Does]) -> (PutStep, BTreeSet<usize>, Vec<usize>, u64) {
    let (mut now, mut durable, mut asked, mut sent) = (0, BTreeSet::new(), vec![], vec![]);
    for _ in 0..1_000 {
        match put.poll(now) {
            PutStep::Ask { target } => {
                assert!(!asked.contains(&target), "asked twice");
                asked.push(target);
                match does[target] {
                    Does::Stores | Does::FailsInMidStream => put.handle_ready(target),
                    Does::HasIt => {
                        durable.insert(target);
                        put.handle_stored(target, true);
                    }
                    Does::FailsToOpen => put.handle_failed(target, failure(FailureKind::NoSpace)),
                    Does::IsSilent => {}
                }
            }
            PutStep::Begin { to } => sent = to,
            PutStep::Wait { until } => match sent.pop() {
                Some(target) if does[target] == Does::Stores => {
                    durable.insert(target);
                    put.handle_stored(target, false);
                }
                Some(target) => put.handle_failed(target, failure(FailureKind::Stalled)),
                None => {
                    let until = until.expect("nobody has anything more to say");
                    assert!(until > now, "waits for the past");
                    now = until;
                }
            },
            end => return (end, durable, asked, now),
        }
    }
    panic!("a put without an end: {put:?}");
}

fn zones(targets: &Targets, of: impl IntoIterator<Item = usize>) -> usize {
    of.into_iter().map(|target| targets.volumes()[target].zone).collect::<BTreeSet<_>>().len()
}

fn check(targets: &Targets, sets: &[&[usize]], does: &[Does]) {
    let holders = targets.holders().len();
    let put = PutQuorum::new(targets.clone(), &POLICY, &[], GRACE, Some(DEADLINE));
    let (end, durable, asked, _) = play(put, does);
    let what = format!("{does:?}: {end:?}, durable {durable:?}, asked {asked:?}");
    let needed = zones(targets, 0..holders).min(2);
    let quorums = |of: &dyn Fn(usize) -> bool| sets.iter().all(|set| set.iter().filter(|at| of(**at)).count() >= 2);
    match end {
        PutStep::Acknowledged { copies, zones: told } | PutStep::Already { copies, zones: told } => {
            assert!(quorums(&|at| durable.contains(&at)), "{what}");
            assert!(zones(targets, durable.iter().copied()) >= needed, "{what}");
            assert_eq!((copies, told), (durable.len(), zones(targets, durable.iter().copied())), "{what}");
        }
        PutStep::GiveUp(_) => {
            let good = |at: usize| matches!(does[at], Does::Stores | Does::HasIt);
            let opens = |at: usize| !matches!(does[at], Does::FailsToOpen | Does::IsSilent);
            let zone = |at: usize| targets.volumes()[at].zone;
            let wanted = |at: usize| (0..holders).any(|holder| zone(holder) == zone(at) && !opens(holder));
            let stand_ins = (holders..does.len()).filter(|at| good(*at) && wanted(*at));
            let reached = zones(targets, (0..holders).filter(|at| good(*at)).chain(stand_ins));
            assert!(!quorums(&good) || reached < needed, "given up although it could succeed: {what}");
        }
        other => panic!("{other:?}: {what}"),
    }
}

#[test]
fn an_acknowledgement_means_a_quorum_of_each_set_and_the_zones() {
    let at = |node: usize| volume(node, usize::from(node == 2 || node == 4 || node == 7));
    let of = |nodes: &[usize]| nodes.iter().map(|node| at(*node)).collect::<Vec<_>>();
    let cases: [Sets; 4] = [
        (&[0, 1, 2], None, &[6, 7]),
        (&[0, 1, 2], Some(&[1, 2, 3]), &[7]),
        (&[0, 1, 2], Some(&[2, 3, 4]), &[]),
        (&[0, 1], Some(&[2, 3, 4]), &[7]),
    ];
    for (first, second, stand_ins) in cases {
        let (old, new) = (of(first), second.map(of));
        let targets = Targets::new(3, &old, new.as_deref(), &of(stand_ins));
        let index = |node: &usize| targets.volumes().iter().position(|volume| volume.node == *node).expect("there");
        let sets: Vec<Vec<usize>> =
            std::iter::once(first).chain(second).map(|set| set.iter().map(index).collect()).collect();
        let sets: Vec<&[usize]> = sets.iter().map(Vec::as_slice).collect();
        let count = targets.volumes().len();
        for mut code in 0..ALL.len().pow(u32::try_from(count).expect("small")) {
            let does: Vec<Does> = (0..count)
                .map(|_| {
                    let does = ALL[code % ALL.len()];
                    code /= ALL.len();
                    does
                })
                .collect();
            check(&targets, &sets, &does);
        }
    }
}

#[test]
fn a_stand_in_is_asked_at_once_for_a_suspect_soon_for_a_late_one_and_never_for_a_well_one() {
    let holders = [volume(0, 0), volume(1, 0), volume(2, 1)];
    let stand_ins = [volume(3, 1), volume(4, 0), volume(5, 1)];
    let targets = || Targets::new(1, &holders, None, &stand_ins);
    use Does::{FailsToOpen, HasIt, IsSilent, Stores};
    let asked = |suspects: &[usize], does: [Does; 6]| {
        let (end, durable, asked, now) =
            play(PutQuorum::new(targets(), &POLICY, suspects, GRACE, Some(DEADLINE)), &does);
        assert!(matches!(end, PutStep::Acknowledged { .. }), "{end:?}");
        (durable.into_iter().collect::<Vec<_>>(), asked[3..].to_vec(), now)
    };
    assert!(asked(&[], [Stores; 6]).1.is_empty());
    let (durable, stood_in, now) = asked(&[2], [Stores, Stores, IsSilent, Stores, Stores, Stores]);
    assert_eq!((stood_in, now), (vec![3], GRACE.suspect_ms));
    assert!(durable.contains(&3));
    // A suspect that is well after all needs no stand-in.
    let (durable, stood_in, now) = asked(&[2], [Stores; 6]);
    assert_eq!((stood_in, now, durable.contains(&3)), (vec![], 0, false));
    let (_, stood_in, now) = asked(&[], [Stores, Stores, IsSilent, Stores, Stores, Stores]);
    assert_eq!((stood_in, now), (vec![3], GRACE.stand_in_ms + GRACE.well_ms), "only then could it begin at all");
    // The next, where a stand-in fails or is late too.
    let (_, stood_in, _) = asked(&[], [Stores, Stores, FailsToOpen, FailsToOpen, Stores, Stores]);
    assert_eq!(stood_in, [3, 5]);
    let (_, stood_in, now) = asked(&[], [Stores, Stores, FailsToOpen, IsSilent, Stores, HasIt]);
    assert_eq!((stood_in, now), (vec![3, 5], GRACE.stand_in_ms));
}

#[test]
fn a_stand_in_is_not_on_a_node_that_has_a_copy_or_is_out_of_reach() {
    let on = |node: usize, byte: u8| Holder { volume: VolumeId::from_bytes([byte; 16]), ..volume(node, 0) };
    let holders = [on(0, 0), on(1, 1), on(2, 2)];
    for (kind, expected) in [(FailureKind::NoSpace, 4), (FailureKind::Unreachable, 5)] {
        let targets = Targets::new(1, &holders, None, &[on(1, 11), on(2, 12), on(3, 13)]);
        let mut put = PutQuorum::new(targets, &POLICY, &[], GRACE, None);
        for target in 0..3 {
            assert_eq!(put.poll(0), PutStep::Ask { target });
        }
        put.handle_failed(2, failure(kind));
        assert_eq!(put.poll(0), PutStep::Ask { target: expected }, "{kind:?}");
    }
}

#[test]
fn nobody_stands_in_for_a_holder_that_finds_the_put_invalid() {
    let holders = [volume(0, 0), volume(1, 0), volume(2, 0)];
    let targets = Targets::new(1, &holders, None, &[volume(3, 0)]);
    let mut put = PutQuorum::new(targets, &POLICY, &[], GRACE, None);
    for target in 0..3 {
        assert_eq!(put.poll(0), PutStep::Ask { target });
    }
    put.handle_failed(0, failure(FailureKind::Invalid));
    assert_eq!(put.poll(0), PutStep::Wait { until: Some(GRACE.stand_in_ms) });
    put.handle_failed(1, failure(FailureKind::TakenDown { number: 9 }));
    assert_eq!(put.poll(0), PutStep::GiveUp(Verdict::TakenDown { number: 9 }));
}

#[test]
fn a_put_past_its_deadline_is_given_up_and_says_so() {
    let holders = [volume(0, 0), volume(1, 0), volume(2, 0)];
    let open = || {
        let mut put = PutQuorum::new(Targets::new(1, &holders, None, &[]), &POLICY, &[], GRACE, Some(1_000));
        for target in 0..3 {
            assert_eq!(put.poll(0), PutStep::Ask { target });
        }
        put
    };
    let mut opening = open();
    assert_eq!(opening.poll(0), PutStep::Wait { until: Some(1_000) });
    assert_eq!(opening.poll(999), PutStep::Wait { until: Some(1_000) });
    assert_eq!(opening.poll(1_000), PutStep::GiveUp(Verdict::Expired));
    let mut streaming = open();
    (0..3).for_each(|target| streaming.handle_ready(target));
    assert_eq!(streaming.poll(900), PutStep::Begin { to: vec![0, 1, 2] });
    streaming.handle_stored(0, false);
    assert_eq!(streaming.poll(950), PutStep::Wait { until: Some(1_000) });
    let mut late = streaming.clone();
    assert_eq!(late.poll(1_000), PutStep::GiveUp(Verdict::Expired));
    // What is stored is stored, however late one looks.
    streaming.handle_stored(1, false);
    assert_eq!(streaming.poll(1_001), PutStep::Acknowledged { copies: 2, zones: 1 });
}

#[test]
fn one_target_with_a_newer_map_ends_the_put_until_it_is_acknowledged() {
    let holders = [volume(0, 0), volume(1, 0), volume(2, 0)];
    let open = |epoch| {
        let mut put = PutQuorum::new(Targets::new(epoch, &holders, None, &[]), &POLICY, &[], GRACE, None);
        for target in 0..3 {
            assert_eq!(put.poll(0), PutStep::Ask { target });
        }
        put
    };
    let moved = || failure(FailureKind::Moved { epoch: 5 });
    let mut opening = open(4);
    opening.handle_stored(0, true);
    opening.handle_stored(1, true);
    opening.handle_failed(2, moved());
    assert_eq!(opening.poll(0), PutStep::Moved { epoch: 5 });
    let mut streaming = open(4);
    (0..3).for_each(|target| streaming.handle_ready(target));
    assert!(matches!(streaming.poll(0), PutStep::Begin { .. }));
    streaming.handle_stored(0, false);
    let mut acknowledged = streaming.clone();
    streaming.handle_failed(2, moved());
    streaming.handle_stored(1, false);
    assert_eq!(streaming.poll(0), PutStep::Moved { epoch: 5 });
    acknowledged.handle_stored(1, false);
    assert!(matches!(acknowledged.poll(0), PutStep::Acknowledged { copies: 2, .. }));
    acknowledged.handle_failed(2, moved());
    assert!(matches!(acknowledged.poll(0), PutStep::Acknowledged { copies: 2, .. }), "it was told");
    // The epoch that the put has already is no newer one: that target has a fault.
    let mut confused = open(5);
    confused.handle_failed(2, moved());
    assert_eq!(confused.poll(0), PutStep::Wait { until: None });
}
