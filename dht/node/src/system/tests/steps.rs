//! Random operations, turn by turn, with restarts in between.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use deadwax_dht::log::{Durable, Persist};
use deadwax_dht::takedown::Standing;

use super::script::Script;
use super::{Files, Model, held, look, models, opened, temporary};
use crate::Error;
use crate::system::{System, SystemOp};

#[test]
fn what_was_applied_is_found_again() {
    for seed in 0..24 {
        let dir = temporary();
        let founds = seed % 2 == 0;
        let mut script = Script::new(seed, founds);
        let (mut system, mut model) = opened(dir.path(), founds);
        for _ in 0..20 {
            // At times the journal is written anew at every call.
            if script.random.percent(20) {
                system.journal.length_max = 0;
            }
            let count = script.random.index(7);
            let ops = script.ops(count);
            system.apply(&ops).expect("a good drive");
            ops.iter().for_each(|op| model.apply(op));
            assert_eq!(held(&system), model, "seed {seed}");
            if script.random.percent(30) {
                drop(system);
                let clock = script.random.below(4_000);
                let (again, found) = System::open(dir.path(), clock).expect("a good drive");
                model.life = clock.max(model.life + 1);
                assert_eq!((found.life, held(&again)), (model.life, model.clone()), "seed {seed}");
                system = again;
            }
        }
        drop(system);
        assert_eq!(look(dir.path()).expect("a good drive"), model, "seed {seed}");
    }
}

#[test]
fn nothing_to_do_writes_nothing() {
    let dir = temporary();
    let (mut system, _) = opened(dir.path(), true);
    let before = Files::of(dir.path());
    system.apply(&[]).expect("nothing to do");
    let after = Files::of(dir.path());
    assert_eq!((before.journal, before.takedowns), (after.journal, after.takedowns));
}

#[test]
fn takedowns_are_read_by_slot() {
    let dir = temporary();
    let (mut system, _) = opened(dir.path(), true);
    let mut script = Script::new(3, true);
    let ops: Vec<SystemOp> = script.ops(60).into_iter().filter(|op| matches!(op, SystemOp::Append(..))).collect();
    system.apply(&ops).expect("a good drive");
    let all = models(Model::default(), &ops).pop().expect("the last").takedowns;
    assert_eq!(system.read_takedowns(&[3, 0, 3]).expect("there"), [all[3].clone(), all[0].clone(), all[3].clone()]);
    assert!(system.read_takedowns(&[]).expect("nothing").is_empty());
    let beyond = u32::try_from(all.len()).expect("a few");
    assert!(matches!(system.read_takedowns(&[0, beyond]), Err(Error::SystemIo { .. })));
}

#[test]
fn the_voter_is_the_newest_seat_and_seats_left_behind_are_few() {
    let dir = temporary();
    let (mut system, _) = opened(dir.path(), true);
    let voter = |dir: &Path| System::open(dir, 0).expect("a good drive").1.kept.voter;
    system.apply(&[SystemOp::TakeSeat(4), SystemOp::TakeSeat(9)]).expect("a good drive");
    drop(system);
    assert_eq!(voter(dir.path()), Some(Durable::joining(9)));
    let (mut system, _) = System::open(dir.path(), 0).expect("a good drive");
    system.apply(&[SystemOp::DropSeat(9)]).expect("a good drive");
    assert_eq!(voter(dir.path()), Some(Durable::joining(4)));
    let (mut system, _) = System::open(dir.path(), 0).expect("a good drive");
    system.apply(&(10..100).map(SystemOp::TakeSeat).collect::<Vec<_>>()).expect("a good drive");
    assert_eq!(system.state.seats.keys().copied().collect::<Vec<_>>(), [96, 97, 98, 99]);
    assert_eq!(voter(dir.path()), Some(Durable::joining(99)));
}

#[test]
fn after_a_write_that_failed_nothing_is_taken_any_more() {
    let full = || File::options().read(true).write(true).open("/dev/full").expect("Linux has it");
    let mut script = Script::new(5, true);
    let append = std::iter::repeat_with(|| script.ops(1).remove(0)).find(|op| matches!(op, SystemOp::Append(..)));
    let append = append.expect("one comes");
    let stand = SystemOp::Stand(Standing::default());
    for (op, breaks_journal) in [(&stand, true), (&append, true), (&append, false)] {
        let dir = temporary();
        let (mut system, model) = opened(dir.path(), true);
        if breaks_journal {
            system.journal.file = full();
        } else {
            system.takedowns.file = full();
        }
        assert!(matches!(system.apply(std::slice::from_ref(op)), Err(Error::SystemIo { doing: "write", .. })));
        for ops in [&[][..], &[stand.clone()][..]] {
            assert!(matches!(system.apply(ops), Err(Error::SystemPoisoned(_))));
        }
        drop(system);
        assert_eq!(look(dir.path()).expect("a good drive"), model);
    }
}

#[test]
fn what_could_not_be_read_again_is_not_written() {
    let dir = temporary();
    let (mut system, mut model) = opened(dir.path(), true);
    let step = Persist { number: 1, snapshot: None, local: false, entries: Vec::new(), vote: None };
    let ops = [SystemOp::TakeSeat(7), SystemOp::Persist(8, Box::new(step))];
    let applied = catch_unwind(AssertUnwindSafe(|| system.apply(&ops)));
    assert!(applied.is_err(), "nobody took seat 8");
    assert!(matches!(system.apply(&ops[..1]), Err(Error::SystemPoisoned(_))));
    drop(system);
    let found = look(dir.path()).expect("a good drive");
    model.seats.extend(found.seats.contains_key(&7).then(|| (7, Durable::joining(7))));
    assert_eq!(found, model);
}
