//! The core as a whole, in a world without faults: what each of its parts is for happens, and by itself.

mod bytes;
mod drives;
mod haste;
mod peers;
mod refound;
mod rollback;
mod takedowns;
mod tokens;
mod versions;
mod village;
mod voters;

use std::collections::BTreeSet;

use deadwax_dht::VolumeId;
use deadwax_dht::core::{Done, Effect, Finished, Input, Refused, Request, Verb};
use deadwax_dht::log::Stage;
use deadwax_dht::rebalance::{Command, Stall};
use deadwax_track::TrackId;

use self::village::{MINUTE, SECOND, Village, track};

#[test]
fn a_cluster_begins_to_serve_and_to_say_what_is_absent() {
    let mut village = Village::new(5, 3);
    village.run(30 * SECOND);
    assert_eq!(village.leaders(), 1);
    for house in &village.houses {
        assert!(house.core.may_serve().is_ok());
    }
    village.run(60 * SECOND);
    let (at, volume) = village.holders(&track(1))[0];
    assert!(matches!(village.ask(at, Verb::Get, volume, &track(1)), Ok(Finished::Absent { .. })));
}

/// Whoever starts a cluster asks it at once; until it knows what is absent it can only say that it cannot tell.
#[test]
fn a_cluster_that_is_started_again_soon_says_what_is_absent() {
    let mut village = Village::new(3, 3);
    village.run(MINUTE);
    // Their names' order decides who goes on where two compare themselves with each other at once.
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for apart_ms in [0, 50, 200, 600] {
            village.houses.iter_mut().for_each(|house| house.up = false);
            village.run(MINUTE);
            for at in order {
                village.run(apart_ms);
                village.houses[at].up = true;
                village.restart(at);
            }
            village.run(2 * SECOND);
            for (at, volume) in village.holders(&track(1)) {
                let said = village.ask(at, Verb::Get, volume, &track(1));
                assert!(
                    matches!(said, Ok(Finished::Absent { .. })),
                    "{order:?}, {apart_ms} ms apart: {at} says {said:?}"
                );
            }
        }
    }
}

#[test]
fn what_one_holder_has_all_have_soon() {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    for number in 1..=20 {
        let (at, volume) = village.holders(&track(number))[0];
        village.store(at, volume, track(number));
    }
    village.run(90 * SECOND);
    for number in 1..=20 {
        assert_eq!(village.copies(&track(number)), 3, "track {number}");
    }
}

#[test]
fn a_stand_ins_copy_goes_to_the_holders_and_is_gone() {
    let mut village = Village::new(6, 3);
    village.run(MINUTE);
    let holders = village.holders(&track(1));
    let at = (0..6).find(|at| holders.iter().all(|(holder, _)| holder != at)).expect("six nodes, three holders");
    let volume = village.houses[at].volumes[0];
    village.store(at, volume, track(1));
    village.run(2 * MINUTE);
    assert_eq!(village.copies(&track(1)), 3);
    assert!(!village.houses[at].disk[&volume].contains(&track(1)));
}

#[test]
fn the_tracks_of_a_node_that_is_gone_for_good_are_protected_anew() {
    let mut village = Village::new(6, 3);
    village.run(MINUTE);
    for number in 1..=30 {
        for (at, volume) in village.holders(&track(number)) {
            village.store(at, volume, track(number));
        }
    }
    village.run(MINUTE);
    village.houses[5].up = false;
    village.run(29 * MINUTE);
    let dead = |village: &Village| village.houses[0].core.layout().expect("it has a map").state().dead().len();
    assert_eq!(dead(&village), 0, "silence is not long enough");
    village.run(6 * MINUTE);
    assert_eq!(dead(&village), 1);
    village.run(30 * MINUTE);
    for number in 1..=30 {
        assert_eq!(village.copies(&track(number)), 3, "track {number}");
    }
}

#[test]
fn a_node_that_joins_gets_its_share_and_the_others_let_go() {
    let mut village = Village::new(4, 3);
    village.run(MINUTE);
    for number in 1..=40 {
        for (at, volume) in village.holders(&track(number)) {
            village.store(at, volume, track(number));
        }
    }
    village.add_house();
    village.run(MINUTE);
    let node = village.houses[4].node.clone();
    village.command(Command::AddNode(node));
    village.run(40 * MINUTE);
    let layout = village.houses[4].core.layout().expect("it has the map").clone();
    assert!(layout.state().transitions().is_empty(), "{:?}", village.progress());
    let held: usize = village.houses[4].volumes.iter().map(|volume| layout.held_by(volume).len()).sum();
    assert!(held > 0);
    for number in 1..=40 {
        assert_eq!(village.copies(&track(number)), 3, "track {number}");
        assert_eq!(village.strays(&track(number)), 0, "track {number}");
    }
}

/// Of an acknowledged track one copy was lost with an old image of a drive, and the other is on a node that is down: the
/// other old holders, though enough for a write quorum, do not have it.
#[test]
fn a_move_waits_for_an_old_holder_that_is_down() {
    let mut village = Village::new(4, 3);
    village.run(MINUTE);
    let down = if village.leader() == 2 { 1 } else { 2 };
    village.houses[down].up = false;
    village.add_house();
    village.run(10 * SECOND);
    let node = village.houses[4].node.clone();
    village.command(Command::AddNode(node));
    waits_for(&mut village, down);
}

#[test]
fn a_move_waits_for_a_node_that_went_down_while_it_was_drained() {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    let down = if village.leader() == 2 { 1 } else { 2 };
    let node = village.houses[down].node.id;
    village.command(Command::DrainNode { node, drain: true });
    village.houses[down].up = false;
    waits_for(&mut village, down);
}

/// Partitions begin to move from a node that is down: what it alone has is waited for.
fn waits_for(village: &mut Village, down: usize) {
    let volume = village.houses[down].volumes[0];
    let mut moving = BTreeSet::new();
    while moving.is_empty() {
        village.run(SECOND);
        let layout = village.houses[0].core.layout().expect("it has a map");
        let moves = layout.state().transitions().iter();
        let waits = moves.filter(|(_, each)| each.old.contains(&volume));
        moving.extend(waits.map(|(partition, _)| *partition));
    }
    let wanted = (0..).map(track).find(|track| moving.contains(&track.partition())).expect("there is one");
    village.houses[down].disk.get_mut(&volume).expect("its own").insert(wanted);
    village.run(20 * MINUTE);
    let layout = village.houses[0].core.layout().expect("it has a map").clone();
    for partition in moving {
        let stage = layout.state().transitions().get(&partition).map(|each| each.stage);
        assert_eq!(stage, Some(Stage::Joint), "{:?}", village.progress());
    }
    let stall = village.progress().expect("it leads").stall;
    assert!(matches!(stall, Some(Stall::Reports { .. })), "{stall:?}");
    village.houses[down].up = true;
    village.restart(down);
    let transition = layout.state().transitions()[&wanted.partition()].clone();
    let is_new = |volume: &deadwax_dht::VolumeId| transition.new.contains(volume) && !transition.old.contains(volume);
    for second in 0..30 * 60 {
        village.run(SECOND);
        let layout = village.houses[0].core.layout().expect("it has a map");
        let now = layout.state().transitions().get(&wanted.partition());
        if now.is_none_or(|now| now.stage != Stage::Joint) {
            let disks = village.houses.iter().flat_map(|house| &house.disk);
            let have = disks.filter(|(volume, tracks)| is_new(volume) && tracks.contains(&wanted)).count();
            assert_eq!(have, 1, "after {second} s, before the new holder has what the old one alone had");
            break;
        }
    }
    village.run(10 * MINUTE);
    let layout = village.houses[0].core.layout().expect("it has a map");
    assert!(!layout.state().transitions().contains_key(&wanted.partition()), "it has moved");
    assert_eq!(village.copies(&wanted), 3);
}

#[test]
fn of_two_processes_of_one_name_the_later_stays() {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    village.clone_house(4);
    village.run(MINUTE);
    assert!(village.houses[4].halted);
    assert!(!village.houses[5].halted);
}

/// What came with its bytes, and so was let in by nobody, is told of at the end as what was.
#[test]
fn a_put_that_did_not_ask_to_begin_counts_by_the_same_rules() {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    let (wanted, gone) = (track(7), track(8));
    let (at, volume) = village.holders(&wanted)[0];
    let epoch = village.houses[at].core.epoch();
    let request = Request { number: 1, verb: Verb::Put, volume, track: wanted, epoch, deadline: u64::MAX };
    village.store(at, volume, wanted);
    let mut told = |request: Request| {
        let mut effects = village.step(at, Input::StoredAtOnce(request));
        (effects.len() == 1).then(|| effects.remove(0)).expect("one answer")
    };
    assert_eq!(told(request), Effect::Finish { number: 1, answer: Finished::Stored { epoch } });
    let refused = |why| Effect::Refuse { number: 1, why };
    let volume = VolumeId::from_bytes([99; 16]);
    assert_eq!(told(Request { volume, ..request }), refused(Refused::NoVolume));
    village.step(0, Input::TakeDown { number: 8, track: gone, time: 0, reason: "law".to_owned() });
    village.run(10 * SECOND);
    let (at, volume) = village.holders(&gone)[0];
    let effects = village.step(at, Input::StoredAtOnce(Request { volume, track: gone, ..request }));
    assert!(matches!(effects[..], [Effect::Refuse { number: 1, why: Refused::TakenDown(_) }]), "{effects:?}");
    let ahead = Request { epoch: epoch + 1, ..request };
    let effects = village.step(at, Input::StoredAtOnce(Request { volume: village.holders(&wanted)[0].1, ..ahead }));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Finish { .. })), "{effects:?}");
}

/// A put by an old epoch is sent back, and one whose holders change meanwhile is not acknowledged.
#[test]
fn a_put_counts_only_while_its_holders_stay() {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    let wanted: TrackId = track(7);
    let (at, volume) = village.holders(&wanted)[0];
    let epoch = village.houses[at].core.epoch();
    let request = Request { number: 77, verb: Verb::Put, volume, track: wanted, epoch, deadline: u64::MAX };
    let effects = village.step(at, Input::Request(request));
    assert_eq!(effects, [Effect::Go(request)]);
    village.command(Command::SetPolicy(deadwax_dht::Policy { zones_min: 1, ..deadwax_dht::Policy::default() }));
    village.run(10 * SECOND);
    assert!(village.houses[at].core.epoch() > epoch);
    village.store(at, volume, wanted);
    let effects = village.step(at, Input::Done { number: 77, outcome: Done::Stored, bytes: 1 });
    assert!(matches!(effects[..], [Effect::Finish { number: 77, answer: Finished::Moved { .. } }]), "{effects:?}");
    let at_once = Request { number: 79, ..request };
    let effects = village.step(at, Input::StoredAtOnce(at_once));
    assert!(matches!(effects[..], [Effect::Refuse { number: 79, why: Refused::Moved { .. } }]), "{effects:?}");
    let late = Request { number: 78, ..request };
    let effects = village.step(at, Input::Request(late));
    assert!(matches!(effects[..], [Effect::Refuse { number: 78, why: Refused::Moved { .. } }]), "{effects:?}");
}
