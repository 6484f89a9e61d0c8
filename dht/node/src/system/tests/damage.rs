//! Bytes that are not those that were written.

use super::cluster::Random;
use super::script::Script;
use super::{Files, Model, assert_between, look, models, opened, temporary};
use crate::Error;
use crate::system::format::{FRAME_BYTES, Frame, HEADER_BYTES, header, push_record};
use crate::system::journal::JOURNAL;
use crate::system::record::Record;
use crate::system::takedowns::TAKEDOWNS;

/// A drive after four calls: its bytes, where the last call's begin, what it held after each operation, and how many
/// of those came before the last call.
fn drive(seed: u64) -> (Files, usize, Vec<Model>, usize) {
    let dir = temporary();
    let founds = seed.is_multiple_of(2);
    let mut script = Script::new(seed, founds);
    let (mut system, start) = opened(dir.path(), founds);
    let groups: Vec<_> = (0..4).map(|_| script.ops(4)).collect();
    let mut last = 0;
    for group in &groups {
        last = Files::of(dir.path()).journal.len();
        system.apply(group).expect("a good drive");
    }
    (Files::of(dir.path()), last, models(start, &groups.concat()), 12)
}

fn damaged(result: &Result<Model, Error>, in_file: &str) -> bool {
    matches!(result, Err(Error::SystemDamaged { file, .. }) if *file == in_file)
}

#[test]
fn a_flipped_byte_is_found_wherever_it_is() {
    let dir = temporary();
    for seed in 40..43 {
        let mut random = Random(seed);
        let (files, last, models, before) = drive(seed);
        for at in 0..files.journal.len() {
            let mut flipped = files.clone();
            flipped.journal[at] ^= 1 << random.below(8);
            flipped.put(dir.path());
            let what = format!("seed {seed}, byte {at} of the journal");
            match look(dir.path()) {
                // As if the last flush had been torn.
                Ok(found) if at >= last => assert_between(&found, &models, before..=models.len() - 1, &what),
                Err(Error::SystemVersion { .. }) if (8..12).contains(&at) => {}
                other => assert!(damaged(&other, JOURNAL), "{what}: {other:?}"),
            }
        }
        for at in 0..files.takedowns.len() {
            let mut flipped = files.clone();
            flipped.takedowns[at] ^= 1 << random.below(8);
            flipped.put(dir.path());
            let result = look(dir.path());
            assert!(damaged(&result, TAKEDOWNS), "seed {seed}, byte {at} of the takedowns: {result:?}");
        }
    }
}

#[test]
fn files_that_were_cut_short_give_an_error_or_a_prefix() {
    let dir = temporary();
    for seed in 50..52 {
        let (files, _, models, _) = drive(seed);
        for length in 0..files.journal.len() {
            let cut = Files { journal: files.journal[..length].to_vec(), ..files.clone() };
            cut.put(dir.path());
            match look(dir.path()) {
                Ok(found) => assert_between(&found, &models, 0..=models.len() - 1, &format!("seed {seed}, {length}")),
                other => assert!(damaged(&other, JOURNAL), "seed {seed}, {length} bytes: {other:?}"),
            }
        }
        for length in 0..files.takedowns.len() {
            let cut = Files { takedowns: files.takedowns[..length].to_vec(), ..files.clone() };
            cut.put(dir.path());
            assert!(damaged(&look(dir.path()), TAKEDOWNS), "seed {seed}, {length} bytes of takedowns");
        }
    }
}

#[test]
fn takedowns_behind_those_that_count_are_cut_off() {
    let dir = temporary();
    let (files, _, models, _) = drive(44);
    for extra in [1, 255, 256, 300] {
        let mut longer = files.clone();
        longer.takedowns.resize(files.takedowns.len() + extra, 9);
        longer.put(dir.path());
        assert_eq!(look(dir.path()).expect("a crash is no damage"), *models.last().expect("some"));
        assert_eq!(Files::of(dir.path()).takedowns, files.takedowns, "{extra}");
    }
    // Whole ones of another drive are none of these.
    let (other, ..) = drive(46);
    assert!(!files.takedowns.is_empty() && other.takedowns.len() >= files.takedowns.len());
    Files { takedowns: other.takedowns, ..files }.put(dir.path());
    assert!(damaged(&look(dir.path()), TAKEDOWNS));
}

#[test]
fn foreign_and_newer_journals_are_refused() {
    let dir = temporary();
    let (files, ..) = drive(40);
    let message = |journal: Vec<u8>| {
        Files { journal, ..files.clone() }.put(dir.path());
        look(dir.path()).expect_err("not a journal that can be read").to_string()
    };
    let mut newer = files.journal.clone();
    newer[8] = 2;
    let text = message(newer);
    assert!(text.contains("is of version 2, this program reads version 1: run a newer one"), "{text}");
    let mut foreign = files.journal.clone();
    foreign[..8].copy_from_slice(b"DWXOTHER");
    for journal in [foreign, b"something else that is long enough".to_vec(), vec![0; 5_000]] {
        let text = message(journal);
        assert!(text.contains("system/journal is damaged: it is no journal of a node; remove "), "{text}");
    }
    for journal in [Vec::new(), files.journal[..HEADER_BYTES - 1].to_vec()] {
        let text = message(journal);
        assert!(text.contains("less than a header"), "{text}");
    }
    // Nothing was written over it.
    assert_eq!(Files::of(dir.path()).journal.len(), HEADER_BYTES - 1);
}

/// The kinds and payloads of a journal's records.
fn records(journal: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (mut rest, mut records) = (&journal[HEADER_BYTES..], Vec::new());
    while let Some((bytes, after)) = rest.split_first_chunk::<FRAME_BYTES>() {
        let frame = Frame::read(bytes).expect("a good journal");
        let (payload, after) = after.split_at(usize::try_from(frame.length).expect("short"));
        records.push((frame.kind, payload.to_vec()));
        rest = after;
    }
    records
}

#[test]
fn nonsense_with_a_right_checksum_is_no_panic() {
    let dir = temporary();
    let mut random = Random(7);
    let (files, ..) = drive(40);
    let good = records(&files.journal);
    let mut refused = 0;
    for _ in 0..1_500 {
        let mut bad = good.clone();
        let at = random.index(bad.len());
        match random.below(4) {
            0 => bad[at].0 = u8::try_from(random.below(12)).expect("small"),
            1 => _ = bad.remove(at),
            2 => {
                let length = random.index(bad[at].1.len() + 1);
                bad[at].1.truncate(length);
            }
            _ => {
                let byte = random.index(bad[at].1.len());
                bad[at].1[byte] ^= 1 << random.below(8);
            }
        }
        let mut journal = header(u32::try_from(random.below(8)).expect("small")).to_vec();
        for (number, (kind, payload)) in (0..).zip(&bad) {
            push_record(&mut journal, *kind, number, 0, payload);
        }
        Files { journal, ..files.clone() }.put(dir.path());
        refused += usize::from(look(dir.path()).is_err());
    }
    assert!(refused > 700, "{refused} were refused");
    for _ in 0..20_000 {
        let length = random.index(40);
        let payload: Vec<u8> = (0..length).map(|_| u8::try_from(random.below(4)).expect("small")).collect();
        drop(Record::decode(u8::try_from(random.below(12)).expect("small"), &payload));
    }
}

#[test]
fn lengths_are_not_believed() {
    let dir = temporary();
    let (files, last, models, before) = drive(40);
    // In place of the last call's records one that says it is long.
    for length in [u32::MAX, 512 << 20, 1 << 20] {
        let mut long = files.clone();
        long.journal[last..last + 4].copy_from_slice(&length.to_le_bytes());
        long.put(dir.path());
        assert_eq!(look(dir.path()).expect("as if it was torn"), models[before]);
    }
}
