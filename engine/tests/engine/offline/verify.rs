//! `verify`: clean where all is well, and naming exactly what is not.

use std::os::unix::fs::FileExt;

use super::*;

#[test]
fn a_volume_that_was_closed_is_clean() {
    let lived = Lived::new(true);
    let report = verified(lived.path());
    assert_eq!(report.findings, [], "{report:?}");
    assert_eq!(report.tracks, lived.tracks.len() as u64);
    assert_eq!(report.track_bytes, lived.tracks.values().map(|track| track.len() as u64).sum::<u64>());
    assert_eq!(report.takedowns, lived.taken_down.len() as u64);
    assert_eq!(report.deleted, (lived.deleted.len() + lived.taken_down.len()) as u64, "what was deleted is listed");
    assert_eq!(report.volume, Some(IDENTITY.volume));
    assert!(report.sealed >= 2 && report.segments > report.sealed, "{report:?}");
}

#[test]
fn a_volume_whose_process_was_killed_is_clean() {
    let lived = Lived::new(false);
    let report = verified(lived.path());
    assert_eq!(report.findings, [], "{report:?}");
    assert_eq!(report.tracks, lived.tracks.len() as u64);
}

#[test]
fn a_volume_in_use_is_not_checked() {
    let (dir, config) = volume_dir();
    run(async {
        let (volume, _) = open(&config).await;
        let error = offline::verify(dir.path(), &mut |_| {}, &mut |_| {}).expect_err("in use");
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert!(offline::inspect(dir.path()).expect("looks").in_use);
        volume.close().await;
    });
    assert_eq!(verified(dir.path()).findings, []);
    assert!(!offline::inspect(dir.path()).expect("looks").in_use);
}

#[test]
fn what_is_no_volume_is_refused() {
    let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let error = offline::verify(dir.path(), &mut |_| {}, &mut |_| {}).expect_err("no volume");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

/// Flips one bit somewhere in each of some records, sealed and not, and expects these tracks and no others.
#[test]
fn exactly_the_damaged_tracks_are_named() {
    for seed in 1..=12 {
        let lived = Lived::new(true);
        let places = lived.places();
        let mut state = seed;
        let mut expected = BTreeSet::new();
        for (id, (path, offset)) in &places {
            if dice(&mut state, 4) > 0 {
                continue;
            }
            let bytes = lived.tracks[id].len() as u64;
            // The record: its header, and frames with 40 bytes of trailer for each 65,496.
            let stored = 4096 + (bytes + bytes.div_ceil(65_496) * 40).next_multiple_of(4096);
            let at = offset + dice(&mut state, stored);
            let file = std::fs::File::options().read(true).write(true).open(path).expect("opens");
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("reads");
            byte[0] ^= 1 << dice(&mut state, 8);
            file.write_all_at(&byte, at).expect("writes");
            expected.insert(*id);
        }
        let report = verified(lived.path());
        assert_eq!(damaged(&report), expected, "seed {seed}: {report:#?}");
        assert_eq!(report.damaged, expected.len() as u64, "seed {seed}: each is named once: {report:#?}");
        assert_eq!(report.tracks, (lived.tracks.len() - expected.len()) as u64, "seed {seed}");
        for finding in &report.findings {
            let id = finding.id.expect("named");
            assert_eq!((&finding.path, finding.offset), (&places[&id].0, places[&id].1), "seed {seed}");
        }
    }
}

#[test]
fn a_listed_record_that_was_zeroed_is_no_deleted_one() {
    let lived = Lived::new(true);
    let (id, (path, offset)) = lived.places().into_iter().next().expect("tracks");
    overwrite(&path, offset, &[0; 4096]);
    let report = verified(lived.path());
    assert_eq!(damaged(&report), BTreeSet::from([id]), "{report:#?}");
    assert_eq!(kinds(&report), [FindingKind::Header]);
}

#[test]
fn lost_headers_footers_and_snapshots_are_named() {
    let lived = Lived::new(true);
    let all = segments(lived.path());
    overwrite(&all[0], 0, &[0; 4096]);
    overwrite(&lived.path().join("volume.deadwax"), 100, b"x");
    overwrite(&lived.path().join("snapshots/0000.snapshot"), 100, b"x");
    let footer = find(&all[1], b"DWXLISTG").expect("sealed");
    let last = std::fs::read(&all[1]).expect("reads");
    let at = last.chunks(4096).rposition(|block| block.starts_with(b"DWXLISTG")).expect("sealed") as u64 * 4096;
    assert!(footer <= at);
    overwrite(&all[1], at + 60, b"x");
    let report = verified(lived.path());
    assert_eq!(
        kinds(&report),
        [FindingKind::Superblock, FindingKind::Snapshot, FindingKind::Segment, FindingKind::Listing],
        "{report:#?}"
    );
    assert_eq!(report.tracks, lived.tracks.len() as u64, "the tracks are not harmed");
}

/// The snapshot is older than a segment of which nothing is left but its header, and tells nothing of it.
#[test]
fn a_segment_that_came_after_the_snapshot_and_lost_all_its_records_did_not_lose_its_footer() {
    let (dir, config) = volume_dir();
    let snapshot = dir.path().join("snapshots/0000.snapshot");
    run(async {
        let (volume, _) = open(&config).await;
        put(&volume, &audio(1, 10 * MIB)).await.expect("puts");
        volume.close().await;
        let before = std::fs::read(&snapshot).expect("reads");
        let (volume, _) = open(&config).await;
        let track = audio(2, 8 * MIB);
        put(&volume, &track).await.expect("puts");
        volume.delete(&TrackId::of(&track)).await.expect("deletes");
        volume.close().await;
        // Whoever is killed writes none at the end.
        std::fs::write(&snapshot, before).expect("writes");
    });
    assert_eq!(segments(dir.path()).len(), 2);
    let report = verified(dir.path());
    assert_eq!((report.findings, report.tracks), (Vec::new(), 1));
}

#[test]
fn a_torn_tail_is_no_damage_and_a_rotten_listed_record_is() {
    let (dir, config) = volume_dir();
    let track = audio(1, 200_000);
    run(async {
        let (volume, _) = open(&config).await;
        put(&volume, &track).await.expect("puts");
    });
    // Never listed: as far as anybody can tell, a crash came before its flush.
    overwrite(&segments(dir.path())[0], 8192, &[1; 512]);
    let report = verified(dir.path());
    assert_eq!((kinds(&report), report.damaged), (vec![FindingKind::Torn], 0), "{report:#?}");

    let (dir, config) = volume_dir();
    run(async {
        let (volume, _) = open(&config).await;
        put(&volume, &track).await.expect("puts");
        volume.close().await;
    });
    overwrite(&segments(dir.path())[0], 8192, &[1; 512]);
    let report = verified(dir.path());
    assert_eq!((kinds(&report), report.damaged), (vec![FindingKind::Track], 1), "{report:#?}");
}

#[test]
fn a_second_record_of_a_track_and_one_that_was_taken_down_are_told() {
    let lived = Lived::new(true);
    let copy = |from: &Path, to: &Path| std::fs::copy(from, to).expect("copies");
    let other = Lived::new(true);
    // As a crash in a move leaves it: the same tracks in another segment.
    let (first, number) = (&segments(other.path())[0], segments(lived.path()).len() + 7);
    let target = lived.path().join(format!("segments/{number:010}.segment"));
    copy(first, &target);
    let report = verified(lived.path());
    assert!(report.findings.iter().any(|finding| finding.kind == FindingKind::Duplicate), "{report:#?}");
    assert!(report.findings.iter().any(|finding| finding.kind == FindingKind::Segment), "its number is another's");
}
