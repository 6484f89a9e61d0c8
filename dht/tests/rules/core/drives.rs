//! A drive that is out while its node lives.

use deadwax_dht::VolumeId;
use deadwax_dht::core::Input;
use deadwax_dht::rebalance::{Command, Stall};

use super::village::{MINUTE, SECOND, Village, track};

const TRACKS: u64 = 2_000;
/// Of two on the same node, which is not the leader's.
const NODE: usize = 3;
/// How long it may take from 30 minutes of absence on until all copies are there again, in ms: the drive's node speaks after a
/// minute, and two more pass until it is sure that the drive answers nothing.
const WHOLE: u64 = 10 * MINUTE;

/// Five nodes, the last two of two drives each, and some tracks on all their holders.
fn stored() -> Village {
    let mut village = Village::with_drives(5, 3, 2);
    village.run(MINUTE);
    for number in 1..=TRACKS {
        for (at, volume) in village.holders(&track(number)) {
            village.store(at, volume, track(number));
        }
    }
    village.run(MINUTE);
    village
}

fn epoch(village: &Village) -> u64 {
    village.houses[0].core.epoch()
}

fn leaves(village: &Village, volume: &VolumeId) -> bool {
    village.houses[0].core.layout().expect("it has a map").state().leaving().contains(volume)
}

fn held(village: &Village, volume: &VolumeId) -> usize {
    village.houses[0].core.layout().expect("it has a map").held_by(volume).len()
}

/// Whether each track has all its copies on drives that are there.
fn is_whole(village: &Village, out: &VolumeId) -> bool {
    (1..=TRACKS)
        .map(track)
        .all(|track| village.copies(&track) == 3 && village.holders(&track).iter().all(|(_, holder)| holder != out))
}

#[test]
fn one_that_stays_out_is_given_up_and_has_copies_again_by_an_operators_word() {
    let mut village = stored();
    let volume = village.houses[NODE].volumes[0];
    let (before, had) = (held(&village, &volume), village.houses[NODE].disk[&volume].len());
    assert!(before > 100 && had > 5, "{before} partitions and {had} tracks are on it: too few to tell");
    village.step(NODE, Input::VolumeDown(volume));
    village.run(29 * MINUTE);
    assert!(!leaves(&village, &volume) && held(&village, &volume) == before, "it was given up too early");
    village.run(3 * MINUTE);
    assert!(leaves(&village, &volume), "it was not given up: {:?}", village.progress());
    village.run(WHOLE);
    assert_eq!(held(&village, &volume), 0, "{:?}", village.progress());
    assert!(is_whole(&village, &volume), "{:?}", village.progress());
    // It is there again, with what it had: strays, that go when they were compared.
    village.volume_up(NODE, volume);
    village.run(3 * MINUTE);
    assert_eq!((held(&village, &volume), village.houses[NODE].disk[&volume].len()), (0, 0), "and {had} copies before");
    village.command(Command::DrainVolume { volume, drain: false });
    village.run(WHOLE);
    let has = held(&village, &volume);
    assert!(has.abs_diff(before) <= before / 50, "{has} of {before}, {:?}", village.progress());
    assert!((1..=TRACKS).all(|number| village.copies(&track(number)) == 3 && village.strays(&track(number)) == 0));
}

#[test]
fn one_that_comes_and_goes_moves_nothing_nor_does_a_node_that_starts() {
    let mut village = stored();
    let volume = village.houses[NODE].volumes[0];
    let before = epoch(&village);
    for _ in 0..3 {
        village.step(NODE, Input::VolumeDown(volume));
        village.run(29 * MINUTE);
        village.volume_up(NODE, volume);
        village.run(SECOND);
    }
    village.restart(NODE);
    village.run(5 * MINUTE);
    assert_eq!(epoch(&village), before, "{:?}", village.progress());
    let leader = village.leader();
    assert!(village.houses[leader].core.status().warnings.is_empty());
}

/// It is counted by each voter for itself.
#[test]
fn a_leader_that_goes_does_not_begin_anew() {
    let mut village = stored();
    let volume = village.houses[NODE].volumes[0];
    village.step(NODE, Input::VolumeDown(volume));
    village.run(29 * MINUTE);
    let leader = village.leader();
    village.houses[leader].up = false;
    village.run(3 * MINUTE);
    let other = (0..3).find(|at| *at != leader).expect("two others vote");
    let layout = village.houses[other].core.layout().expect("it has a map");
    assert!(layout.state().leaving().contains(&volume), "it was not given up");
}

/// Of three drives of a zone two are a mass.
#[test]
fn those_that_go_at_once_wait_for_an_operator() {
    let mut village = stored();
    let [one, two] = village.houses[NODE].volumes[..] else { panic!("two drives") };
    village.step(NODE, Input::VolumeDown(one));
    village.run(5 * MINUTE);
    village.step(NODE, Input::VolumeDown(two));
    let before = epoch(&village);
    village.run(60 * MINUTE);
    assert_eq!(epoch(&village), before, "{:?}", village.progress());
    let leader = village.leader();
    let brakes = village.houses[leader].core.status().warnings;
    assert!(brakes[0].starts_with("zone odd: 2 of 3 drives are out"), "{brakes:?}");
    for volume in [one, two] {
        village.command(Command::DrainVolume { volume, drain: true });
        village.run(MINUTE);
    }
    village.run(WHOLE);
    assert_eq!((held(&village, &one), held(&village, &two)), (0, 0), "{:?}", village.progress());
    assert!(village.houses[leader].core.status().warnings.is_empty());
}

#[test]
fn where_there_is_nowhere_to_go_it_stays_and_that_is_said() {
    let mut village = Village::new(3, 3);
    village.run(MINUTE);
    let before = epoch(&village);
    let volume = village.houses[2].volumes[0];
    village.step(2, Input::VolumeDown(volume));
    village.run(35 * MINUTE);
    assert_eq!(epoch(&village), before);
    let stall = village.progress().and_then(|progress| progress.stall);
    assert_eq!(stall, Some(Stall::Kept { drives: 1, copies: 3 }));
}
