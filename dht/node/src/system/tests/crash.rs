//! Crashes: what is on the drive then is what was durable, and any part of what was under way.

use super::cluster::Random;
use super::script::Script;
use super::{Files, Model, assert_between, look, models, opened, temporary};
use crate::system::SystemOp;

/// A call, with the drive before and after it.
struct Call {
    before: Files,
    after: Files,
    models: Vec<Model>,
}

/// Some calls on one drive, of one to five operations.
fn calls(seed: u64, count: usize) -> Vec<Call> {
    let dir = temporary();
    let founds = seed.is_multiple_of(2);
    let mut script = Script::new(seed, founds);
    let (mut system, mut model) = opened(dir.path(), founds);
    let mut calls = Vec::with_capacity(count);
    for _ in 0..count {
        let operations = 1 + script.random.index(5);
        let ops: Vec<SystemOp> = script.ops(operations);
        let before = Files::of(dir.path());
        system.apply(&ops).expect("a good drive");
        let models = models(model, &ops);
        model = models.last().expect("one").clone();
        calls.push(Call { before, after: Files::of(dir.path()), models });
    }
    calls
}

#[test]
fn a_crash_at_any_byte_leaves_a_prefix() {
    let dir = temporary();
    let found = |files: &Files| {
        files.put(dir.path());
        look(dir.path()).expect("a crash is no damage")
    };
    for seed in 0..4 {
        for (number, Call { before, after, models }) in calls(seed, 6).into_iter().enumerate() {
            let last = models.len() - 1;
            // Takedowns are written first: they count for nothing yet.
            for length in before.takedowns.len()..after.takedowns.len() {
                if length % 37 < 2 || length % 256 < 2 {
                    let takedowns = after.takedowns[..length].to_vec();
                    let files = Files { takedowns, ..before.clone() };
                    assert_eq!(found(&files), models[0], "seed {seed}, call {number}, {length} bytes of takedowns");
                }
            }
            let mut furthest = 0;
            for length in before.journal.len()..=after.journal.len() {
                let files = Files { journal: after.journal[..length].to_vec(), ..after.clone() };
                let found = found(&files);
                let what = format!("seed {seed}, call {number}, {length} bytes of the journal");
                // Longer is never less.
                assert_between(&found, &models, furthest..=last, &what);
                furthest += models[furthest..].iter().position(|model| *model == found).expect("one of them");
            }
            assert_eq!(models[furthest], models[last], "seed {seed}, call {number}: all of it");
        }
    }
}

/// Pages reach the drive in any order: those that did not are zeros.
fn lose(bytes: &mut [u8], random: &mut Random) {
    let size = 1 + random.index(64);
    let chance = random.below(100);
    bytes.chunks_mut(size).for_each(|page| {
        if random.percent(chance) {
            page.fill(0);
        }
    });
}

#[test]
fn a_crash_that_loses_any_part_of_the_last_flush_leaves_a_prefix() {
    let dir = temporary();
    for seed in 10..16 {
        let mut random = Random(seed);
        for (number, Call { before, after, models }) in calls(seed, 6).into_iter().enumerate() {
            for turn in 0..60 {
                let mut files = after.clone();
                lose(&mut files.journal[before.journal.len()..], &mut random);
                // Takedowns that are not counted yet may be anything, too.
                if turn % 2 == 0 {
                    files.journal.truncate(before.journal.len());
                    lose(&mut files.takedowns[before.takedowns.len()..], &mut random);
                }
                files.put(dir.path());
                let found = look(dir.path()).expect("a crash is no damage");
                let what = format!("seed {seed}, call {number}, turn {turn}");
                assert_between(&found, &models, 0..=models.len() - 1, &what);
            }
        }
    }
}

#[test]
fn after_a_crash_it_goes_on_and_crashes_again() {
    let dir = temporary();
    for seed in 20..30 {
        let mut random = Random(seed);
        let Call { before, after, models } = calls(seed, 3).pop().expect("three");
        let length = before.journal.len() + random.index(after.journal.len() - before.journal.len() + 1);
        let torn = Files { journal: after.journal[..length].to_vec(), ..after };
        torn.put(dir.path());
        let found = look(dir.path()).expect("a crash is no damage");
        assert_between(&found, &models, 0..=models.len() - 1, &format!("seed {seed}"));
        // What was cut off never comes back, whatever is written where it was.
        let (mut system, _) = crate::system::System::open(dir.path(), 0).expect("a good drive");
        let ops = [SystemOp::Life(6_000), SystemOp::TakeSeat(50), SystemOp::Save(Box::default())];
        let ops = &ops[..if found.history.is_some() { 3 } else { 2 }];
        system.apply(ops).expect("a good drive");
        let mut wanted = found;
        ops.iter().for_each(|op| wanted.apply(op));
        assert_eq!(look(dir.path()).expect("a good drive"), wanted, "seed {seed}");
    }
}
