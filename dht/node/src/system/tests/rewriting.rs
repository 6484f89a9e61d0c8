//! Writing the journal anew.

use std::fs;

use deadwax_dht::log::{Persist, Snapshot};

use super::script::Script;
use super::{Files, look, models, opened, path, temporary};
use crate::system::journal::{BESIDE, JOURNAL, image};
use crate::system::{System, SystemOp};

#[test]
fn a_crash_while_the_journal_is_written_anew_changes_nothing() {
    let (dir, elsewhere) = (temporary(), temporary());
    let mut script = Script::new(60, true);
    let (mut system, model) = opened(dir.path(), true);
    let ops = script.ops(12);
    system.apply(&ops).expect("a good drive");
    let wanted = models(model, &ops).pop().expect("the last");
    let (old, (new, _)) = (Files::of(dir.path()), image(&system.state));
    for length in 0..=new.len() {
        Files { beside: Some(new[..length].to_vec()), ..old.clone() }.put(elsewhere.path());
        assert_eq!(look(elsewhere.path()).expect("a good drive"), wanted, "{length} bytes of the new one");
        assert!(!path(elsewhere.path(), BESIDE).exists());
    }
    Files { journal: new.clone(), ..old.clone() }.put(elsewhere.path());
    assert_eq!(look(elsewhere.path()).expect("a good drive"), wanted, "the new one, with its name");
    // What the call does is just that.
    system.journal.length_max = 0;
    system.apply(&[SystemOp::DropSeat(1_000)]).expect("a good drive");
    assert_eq!(Files::of(dir.path()).journal, new);
    assert!(new.len() < old.journal.len());
}

#[test]
fn what_comes_after_the_journal_was_written_anew_is_found() {
    let dir = temporary();
    let mut script = Script::new(62, true);
    let (mut system, mut model) = opened(dir.path(), true);
    for turn in 0..10 {
        system.journal.length_max = if turn % 3 == 0 { 0 } else { 1 << 20 };
        let ops = script.ops(5);
        system.apply(&ops).expect("a good drive");
        ops.iter().for_each(|op| model.apply(op));
        let (files, elsewhere) = (Files::of(dir.path()), temporary());
        files.put(elsewhere.path());
        assert_eq!(look(elsewhere.path()).expect("a good drive"), model, "turn {turn}");
    }
}

#[test]
fn a_journal_does_not_grow_without_bound() {
    const MIB: usize = 1 << 20;
    let dir = temporary();
    let (mut system, mut model) = opened(dir.path(), true);
    let mut lengths = Vec::new();
    for number in 0..70 {
        let snapshot = Snapshot { index: number, term: 1, history: vec![1; MIB].into(), ..Snapshot::default() };
        let step = Persist { number, snapshot: Some(snapshot), local: true, entries: Vec::new(), vote: None };
        let op = SystemOp::Persist(1, Box::new(step));
        system.apply(std::slice::from_ref(&op)).expect("a good drive");
        model.apply(&op);
        lengths.push(fs::metadata(path(dir.path(), JOURNAL)).expect("there").len());
    }
    let rewritten = lengths.windows(2).filter(|two| two[1] < two[0]).count();
    assert_eq!(rewritten, 3, "{lengths:?}");
    assert!(lengths.iter().all(|length| *length < 21 * MIB as u64), "{lengths:?}");
    drop(system);
    assert_eq!(look(dir.path()).expect("a good drive"), model);
    let (system, _) = System::open(dir.path(), 0).expect("a good drive");
    assert!(fs::metadata(path(dir.path(), JOURNAL)).expect("there").len() < 2 * MIB as u64);
    drop(system);
}
