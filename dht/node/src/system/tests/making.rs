//! Making a state, and starting with it.

use std::fs;
use std::path::Path;

use deadwax_dht::log::{Durable, History};
use deadwax_dht::takedown::Standing;

use super::cluster::{history, node_id, push, rack};
use super::{Files, Model, look, opened, path, temporary};
use crate::Error;
use crate::system::journal::JOURNAL;
use crate::system::takedowns::TAKEDOWNS;
use crate::system::{SYSTEM, System, SystemOp};

#[test]
fn a_founder_finds_its_cluster_and_its_seat() {
    let history = history(5, 3);
    for seat in [None, Some(2)] {
        let dir = temporary();
        System::found(dir.path(), &history, seat).expect("nothing is there");
        let (system, found) = System::open(dir.path(), 5_000).expect("just made");
        assert_eq!((found.life, system.epoch()), (5_000, 1));
        assert_eq!(found.kept.history.as_ref(), Some(&history));
        assert_eq!(found.kept.history.map(|history| history.since(0)), Some(history.since(0)));
        assert_eq!(found.kept.voter, seat.map(|seat| Durable::founding(seat, &history)));
        assert_eq!((found.kept.standing, found.kept.takedowns), (Standing::WHOLE, Vec::new()));
    }
}

#[test]
fn what_begins_anew_has_the_new_seat_alone_and_its_life_goes_on() {
    let dir = temporary();
    let (mut system, _) = opened(dir.path(), true);
    system.apply(&[SystemOp::Life(7_000)]).expect("a good drive");
    drop(system);
    let (known, seat) = System::read(dir.path()).expect("it was made");
    let lost = vec![node_id(2), node_id(3)];
    let history = known.expect("it founded").refound(seat, node_id(1), lost).expect("it can be");
    System::refound(dir.path(), &history, 4).expect("a good drive");
    let found = look(dir.path()).expect("just made");
    assert_eq!(found.seats, [(4, Durable::founding(4, &history))].into());
    assert_eq!((found.history, found.life), (Some(history), 7_000));
    assert_eq!(found.standing, Standing { intact: true, counts: false }, "it asks all that are left first");
}

#[test]
fn a_node_that_joins_finds_nothing() {
    let dir = temporary();
    System::join(dir.path()).expect("nothing is there");
    assert_eq!(look(dir.path()).expect("just made"), Model::default());
}

#[test]
fn without_a_state_nothing_is_opened() {
    let dir = temporary();
    let missing = |dir: &Path| matches!(System::open(dir, 1), Err(Error::NotInitialised { .. }));
    assert!(missing(dir.path()));
    assert!(missing(&dir.path().join("nowhere")));
    // A crash while it is made.
    fs::create_dir(dir.path().join(SYSTEM)).expect("a directory");
    assert!(missing(dir.path()));
    fs::write(path(dir.path(), TAKEDOWNS), []).expect("written");
    fs::write(path(dir.path(), "journal.new"), b"half").expect("written");
    assert!(missing(dir.path()));
    System::join(dir.path()).expect("what is there counts for nothing");
    look(dir.path()).expect("just made");
}

#[test]
fn a_journal_that_is_missing_is_not_made_anew_over_takedowns() {
    let dir = temporary();
    opened(dir.path(), true);
    fs::remove_file(path(dir.path(), JOURNAL)).expect("there");
    fs::write(path(dir.path(), TAKEDOWNS), [0; 256]).expect("written");
    for result in [System::open(dir.path(), 1).map(drop), System::join(dir.path())] {
        assert!(matches!(result, Err(Error::SystemDamaged { file: JOURNAL, .. })), "{result:?}");
    }
}

#[test]
fn making_again_changes_nothing_and_never_replaces_another() {
    let dir = temporary();
    let history = history(5, 3);
    let mut other = history.clone();
    push(&mut other, rack(1));
    let taken = |history: &History, seat| {
        let before = Files::of(dir.path());
        assert!(matches!(System::found(dir.path(), history, seat), Err(Error::SystemTaken(_))));
        assert!(matches!(System::join(dir.path()), Err(Error::SystemTaken(_))));
        assert_eq!(Files::of(dir.path()).journal, before.journal);
    };
    System::found(dir.path(), &history, Some(1)).expect("nothing is there");
    let first = Files::of(dir.path());
    System::found(dir.path(), &history, Some(1)).expect("the same");
    assert_eq!(Files::of(dir.path()).journal, first.journal);
    taken(&other, Some(1));
    taken(&history, Some(2));
    taken(&history, None);
    // Once it was opened it may have promised something.
    System::open(dir.path(), 1).expect("a good drive");
    taken(&history, Some(1));
}

#[test]
fn each_start_is_later_than_all_before_whatever_the_clock_says() {
    let dir = temporary();
    System::join(dir.path()).expect("nothing is there");
    let open = |clock| System::open(dir.path(), clock).expect("a good drive");
    let starts = [1_000, 500, 0, 5_000, 5_000].map(|clock| open(clock).1.life);
    assert_eq!(starts, [1_000, 1_001, 1_002, 5_000, 5_001]);
    let (mut system, _) = open(6_000);
    system.apply(&[SystemOp::Life(9_000), SystemOp::Life(8_000)]).expect("a good drive");
    assert_eq!(open(7_000).1.life, 9_001);
    let (mut system, _) = open(0);
    system.apply(&[SystemOp::Life(u64::MAX)]).expect("a good drive");
    assert!(matches!(System::open(dir.path(), 0), Err(Error::SystemDamaged { .. })));
}

#[test]
fn a_start_is_durable_before_anything_is_done() {
    let dir = temporary();
    opened(dir.path(), true);
    // What is on the drive right after, without a step.
    let (files, elsewhere) = (Files::of(dir.path()), temporary());
    files.put(elsewhere.path());
    assert_eq!(System::open(elsewhere.path(), 0).expect("a good drive").1.life, 1_001);
}
