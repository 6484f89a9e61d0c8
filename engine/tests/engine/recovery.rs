//! Torn tails, and what a restart makes of them.

use deadwax_engine::{ErrorKind, Presence};
use deadwax_track::{MIB, TrackId};

use super::host::ScriptedHost;
use super::*;

/// Three tracks in one segment, the volume as a crash leaves it; where each record starts.
fn three_tracks() -> (TempDir, VolumeConfig, Vec<Vec<u8>>, Vec<u64>) {
    let (dir, config) = volume_dir();
    let tracks: Vec<_> = (1..=3).map(|seed| audio(seed, 200_000)).collect();
    run(async {
        let (volume, _) = open(&config).await;
        for track in &tracks {
            put(&volume, track).await.expect("puts");
        }
    });
    // A header and four frames, the last of them short.
    (dir, config, tracks, vec![4096, 4096 + 204_800, 4096 + 2 * 204_800])
}

/// Opens and expects the tracks with these indexes; then stores one more, and reopens.
fn recovers(config: &VolumeConfig, tracks: &[Vec<u8>], kept: &[usize], torn: u64) {
    run(async {
        let (volume, recovery) = open(config).await;
        assert_eq!((recovery.tracks, recovery.torn), (kept.len() as u64, torn), "{recovery:?}");
        for (index, track) in tracks.iter().enumerate() {
            if kept.contains(&index) {
                assert_whole(&volume, track).await;
            } else {
                // A header that was half written may have been a whole one that rotted: no one says that it is absent.
                match volume.presence(&TrackId::of(track)).await {
                    Ok(presence) => assert_eq!((presence, recovery.damaged), (Presence::Absent, 0)),
                    Err(error) => assert_eq!((error.kind(), recovery.damaged), (ErrorKind::Corrupt, 1)),
                }
            }
        }
        put(&volume, &audio(77, 150_000)).await.expect("puts");
        volume.close().await;
        let (volume, recovery) = open(config).await;
        assert_eq!((recovery.tracks, recovery.torn), (kept.len() as u64 + 1, 0), "{recovery:?}");
        assert_whole(&volume, &audio(77, 150_000)).await;
        for index in kept {
            assert_whole(&volume, &tracks[*index]).await;
        }
    });
}

#[test]
fn a_header_that_was_not_written_leaves_no_track() {
    let (dir, config, tracks, at) = three_tracks();
    overwrite(&segments(dir.path())[0], at[2], &[0; 4096]);
    recovers(&config, &tracks, &[0, 1], 0);
}

#[test]
fn a_header_that_was_half_written_leaves_no_track() {
    let (dir, config, tracks, at) = three_tracks();
    // The first sectors arrived, the others did not.
    overwrite(&segments(dir.path())[0], at[2] + 128, &[0; 3968]);
    recovers(&config, &tracks, &[0, 1], 0);
}

#[test]
fn frames_that_were_not_written_are_not_believed() {
    for missing in [4096, 4096 + 65_536, 4096 + 3 * 65_536] {
        let (dir, config, tracks, at) = three_tracks();
        overwrite(&segments(dir.path())[0], at[2] + missing, &[0; 512]);
        recovers(&config, &tracks, &[0, 1], 1);
    }
}

#[test]
fn a_file_that_was_cut_off_loses_only_what_was_cut() {
    for (cut, kept) in [(4096 + 70_000, 2), (204_800 - 4096, 2), (0, 2)] {
        let (dir, config, tracks, at) = three_tracks();
        let file = std::fs::File::options().write(true).open(&segments(dir.path())[0]).expect("opens");
        file.set_len(at[2] + cut).expect("cuts");
        let torn = u64::from(cut > 0);
        recovers(&config, &tracks, &[0, 1][..kept], torn);
    }
}

#[test]
fn a_put_in_the_middle_that_never_finished_is_stepped_over() {
    let (_dir, config) = volume_dir();
    let (never, after) = (audio(1, 5 * MIB), audio(2, 2 * MIB));
    run(async {
        let (volume, _) = open(&config).await;
        let mut writer = volume.put(TrackId::of(&never), 5 * MIB, &tags("x")).await.expect("begins");
        writer.write(&never).await.expect("takes");
        put(&volume, &after).await.expect("puts");
        // As a crash leaves it: nothing is given back.
        std::mem::forget(writer);
        let (taken, other) = (
            volume.presence(&TrackId::of(&never)).await.expect("looks up"),
            volume.presence(&TrackId::of(&after)).await.expect("looks up"),
        );
        assert_eq!((taken, other), (Presence::Absent, Presence::Present { bytes: 2 * MIB }));
        volume.close().await;
        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.tracks, recovery.torn), (1, 0));
        assert_whole(&volume, &after).await;
        put(&volume, &never).await.expect("puts after all");
        assert_whole(&volume, &never).await;
    });
}

#[test]
fn rot_in_a_record_that_was_synced_is_reported_and_not_cut() {
    let (dir, config, tracks, at) = three_tracks();
    // The first start after the writing checks the last records and says that they are durable.
    run(async { open(&config).await.0.close().await });
    for start in &at {
        overwrite(&segments(dir.path())[0], start + 4096, &[0; 512]);
    }
    run(async {
        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.tracks, recovery.torn), (3, 0));
        for track in &tracks {
            let error = get_range(&volume, &TrackId::of(track), 0, 1).await.expect_err("found");
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
    });
}

#[test]
fn a_track_that_contains_records_is_harmless() {
    let (dir, config, tracks, at) = three_tracks();
    // A record of ours, header and frames, at a block boundary of a track's own bytes, which starts a put that never
    // finishes: the walk looks at every block of it.
    let segment = std::fs::read(&segments(dir.path())[0]).expect("reads");
    let start = usize::try_from(at[1]).expect("fits");
    let mut forged = segment[start..start + 60_000].to_vec();
    forged.resize(3 << 20, 1);
    run(async {
        let (volume, _) = open(&config).await;
        let mut writer = volume.put(TrackId::of(&forged), 3 * MIB, &tags("x")).await.expect("begins");
        writer.write(&forged).await.expect("takes");
        std::mem::forget(writer);
        put(&volume, &audio(9, 10)).await.expect("puts");
        let mut inside = forged.clone();
        inside.extend(b"and one that finishes");
        put(&volume, &inside).await.expect("puts");
        volume.close().await;
        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.tracks, recovery.torn, recovery.damaged), (5, 0, 0));
        for track in &tracks {
            assert_whole(&volume, track).await;
        }
        assert_whole(&volume, &inside).await;
        assert_eq!(volume.presence(&TrackId::of(&forged)).await.expect("looks up"), Presence::Absent);
    });
    assert!(find(&segments(dir.path())[0], b"DWXRECRD").is_some());
}

#[test]
fn a_segment_that_lost_its_header_is_still_read() {
    let (dir, config, tracks, _) = three_tracks();
    overwrite(&segments(dir.path())[0], 0, &[0; 4096]);
    run(async {
        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.tracks, recovery.damaged), (3, 1));
        for track in &tracks {
            assert_whole(&volume, track).await;
        }
        put(&volume, &audio(9, 10)).await.expect("puts in another segment");
        volume.close().await;
    });
    assert_eq!(segments(dir.path()).len(), 2);
    // With its first record gone too, nothing can be told; what is in it is not passed over in silence.
    overwrite(&segments(dir.path())[0], 0, &[0; 8192]);
    run(async {
        let error = Volume::open(GlommioHost::new(), config).await.err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    });
}

#[test]
fn unfinished_segments_are_removed() {
    let (dir, config) = volume_dir();
    std::fs::write(dir.path().join("segments/0000000004.new"), "x").expect("writes");
    run(async { open(&config).await.0.close().await });
    assert!(segments(dir.path()).is_empty());
}

/// Where the three tracks' records end.
const TRACKS_END: u64 = 4096 + 3 * 204_800;

#[test]
fn a_drive_that_does_not_answer_at_open_costs_no_track() {
    let (_dir, config, tracks, at) = three_tracks();
    run(async {
        let host = ScriptedHost::new();
        host.script.fail_reads_in.set(Some((at[2] + 70_000, at[2] + 74_000)));
        let (volume, recovery) = Volume::open(host.clone(), config.clone()).await.expect("opens");
        assert_eq!((recovery.tracks, recovery.torn, recovery.damaged), (3, 0, 1), "{recovery:?}");
        let id = TrackId::of(&tracks[2]);
        assert_eq!(get_range(&volume, &id, 0, 200_000).await.expect_err("no answer").kind(), ErrorKind::Io);
        host.script.fail_reads_in.set(None);
        assert_whole(&volume, &tracks[2]).await;
        volume.close().await;
        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.tracks, recovery.torn, recovery.damaged), (3, 0, 0), "{recovery:?}");
        assert_whole(&volume, &tracks[2]).await;
    });
}

#[test]
fn rot_after_a_clean_stop_is_no_torn_tail() {
    let (dir, config) = volume_dir();
    let track = audio(1, 200_000);
    run(async {
        let (volume, _) = open(&config).await;
        put(&volume, &track).await.expect("puts");
        volume.close().await;
    });
    overwrite(&segments(dir.path())[0], 8192, &[0; 512]);
    run(async {
        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.tracks, recovery.torn), (1, 0), "{recovery:?}");
        let error = get_range(&volume, &TrackId::of(&track), 0, 1).await.expect_err("found");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        volume.close().await;
    });
    // Starts and stops with nothing put between them write nothing.
    let before = std::fs::read(&segments(dir.path())[0]).expect("reads");
    run(async { open(&config).await.0.close().await });
    assert!(std::fs::read(&segments(dir.path())[0]).expect("reads") == before);
}

#[test]
fn what_lies_behind_a_damaged_header_is_not_written_over() {
    // The checksum, the magic, the header's length, and the track's: the last two leave no length to go by.
    for (damage, byte) in [(12, 0xff), (0, 0xff), (18, 0xff), (29, 0xff)] {
        let (dir, config, tracks, at) = three_tracks();
        let path = segments(dir.path()).remove(0);
        overwrite(&path, at[2] + damage, &[byte]);
        let id = TrackId::of(&tracks[2]);
        let salvage = std::fs::read(&path).expect("reads");
        let (start, end) = (usize::try_from(at[2]).expect("fits"), usize::try_from(TRACKS_END).expect("fits"));
        run(async {
            let (volume, recovery) = open(&config).await;
            assert_eq!((recovery.tracks, recovery.damaged), (2, 1), "{recovery:?}");
            assert_eq!(volume.info(&id).await.expect_err("damaged").kind(), ErrorKind::Corrupt);
            assert_eq!(get_range(&volume, &id, 0, 1).await.expect_err("damaged").kind(), ErrorKind::Corrupt);
            put(&volume, &audio(77, 150_000)).await.expect("puts");
            put(&volume, &tracks[2]).await.expect("heals");
            assert_whole(&volume, &tracks[2]).await;
            volume.close().await;
            let (volume, recovery) = open(&config).await;
            assert_eq!((recovery.tracks, recovery.torn, recovery.damaged), (4, 0, 1), "{recovery:?}");
            assert_whole(&volume, &tracks[2]).await;
        });
        let after = std::fs::read(&path).expect("reads");
        assert!(after[start..end] == salvage[start..end], "damage at {damage}");
    }
}

#[test]
fn what_lies_behind_an_unreadable_header_is_not_written_over() {
    let (dir, config, tracks, at) = three_tracks();
    let path = segments(dir.path()).remove(0);
    let before = std::fs::read(&path).expect("reads");
    run(async {
        let host = ScriptedHost::new();
        host.script.fail_reads_in.set(Some((at[2], at[2] + 4096)));
        let (volume, recovery) = Volume::open(host.clone(), config.clone()).await.expect("opens");
        assert_eq!((recovery.tracks, recovery.damaged), (2, 1), "{recovery:?}");
        put(&volume, &audio(77, 150_000)).await.expect("puts");
        volume.close().await;
        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.tracks, recovery.damaged), (4, 0), "the drive gives it again: {recovery:?}");
        assert_whole(&volume, &tracks[2]).await;
    });
    let (start, end) = (usize::try_from(at[2]).expect("fits"), usize::try_from(TRACKS_END).expect("fits"));
    assert!(std::fs::read(&path).expect("reads")[start..end] == before[start..end]);
}

#[test]
fn a_takedown_whose_record_is_damaged_still_bars_puts() {
    let (dir, config) = volume_dir();
    let track = audio(1, 1000);
    let id = TrackId::of(&track);
    run(async {
        let (volume, _) = open(&config).await;
        volume.take_down(&id, 5).await.expect("takes down");
        volume.close().await;
    });
    overwrite(&segments(dir.path())[0], 4096 + 104, &[9]);
    run(async {
        let (volume, _) = open(&config).await;
        assert_eq!(put(&volume, &track).await.expect_err("may be barred").kind(), ErrorKind::Corrupt);
        assert_eq!(volume.take_down(&id, 6).await.expect("takes down"), 6);
        assert_eq!(put(&volume, &track).await.expect_err("barred").kind(), ErrorKind::TakenDown);
    });
}

#[test]
fn space_of_puts_that_a_crash_cut_off_is_given_back() {
    use std::os::unix::fs::MetadataExt;
    let (dir, config) = volume_dir();
    let (never, after, torn) = (audio(1, 5 * MIB), audio(2, 200_000), audio(3, 2 * MIB));
    run(async {
        let (volume, _) = open(&config).await;
        let mut writer = volume.put(TrackId::of(&never), 5 * MIB, &tags("x")).await.expect("begins");
        writer.write(&never).await.expect("takes");
        put(&volume, &after).await.expect("puts");
        std::mem::forget(writer);
        volume.close().await;
    });
    let path = segments(dir.path()).remove(0);
    let taken = || std::fs::metadata(&path).expect("there").blocks() * 512;
    let reopen = async |torn| {
        let host = ScriptedHost::new();
        let (volume, recovery) = Volume::open(host.clone(), config.clone()).await.expect("opens");
        assert_eq!((recovery.tracks, recovery.torn), (1, torn), "{recovery:?}");
        let punched: u64 = host.script.punched.borrow().iter().map(|(_, bytes)| bytes).sum();
        (volume, punched)
    };
    let before = taken();
    run(async {
        let (volume, punched) = reopen(0).await;
        assert!(punched >= 5 * MIB && before - taken() >= 5 * MIB, "{punched} bytes");
        put(&volume, &torn).await.expect("puts");
    });
    overwrite(&path, find_record(&path, &torn) + 8192, &[0; 512]);
    run(async {
        let (volume, punched) = reopen(1).await;
        assert!(punched >= 7 * MIB && before - taken() >= 7 * MIB, "{punched} bytes");
        assert_whole(&volume, &after).await;
        put(&volume, &torn).await.expect("puts");
        volume.close().await;
    });
    // Where something is damaged, nothing is erased. Without its snapshot the segment is walked, and the damage seen.
    std::fs::remove_file(dir.path().join("snapshots/0000.snapshot")).expect("removes");
    overwrite(&path, find_record(&path, &after) + 12, &[0xff; 4]);
    run(async {
        let host = ScriptedHost::new();
        let (_, recovery) = Volume::open(host.clone(), config).await.expect("opens");
        assert_eq!((recovery.tracks, recovery.damaged), (1, 1), "{recovery:?}");
        let in_segments = |(offset, bytes): &(u64, u64)| (*offset, *bytes) != (0, 4096);
        assert!(!host.script.punched.borrow().iter().any(in_segments));
    });
}

/// Where the track's record starts.
fn find_record(path: &Path, track: &[u8]) -> u64 {
    let (bytes, id) = (std::fs::read(path).expect("reads"), TrackId::of(track));
    let blocks = bytes.chunks(4096);
    let is_header = |block: &[u8]| block.starts_with(b"DWXRECRD") && block[40..72] == id.as_bytes()[..];
    blocks.map(is_header).position(|found| found).expect("stored") as u64 * 4096
}

#[test]
fn a_copy_without_holes_brings_no_deleted_track_back() {
    let (dir, config) = volume_dir();
    let tracks: Vec<_> = (0..40).map(|seed| audio(seed, 1_000_000)).collect();
    run(async {
        let (volume, _) = open(&config).await;
        for track in &tracks {
            put(&volume, track).await.expect("puts");
        }
        for track in tracks.iter().step_by(2) {
            volume.delete(&TrackId::of(track)).await.expect("deletes");
        }
        volume.close().await;
    });
    let sealed = segments(dir.path()).len();
    assert!(sealed > 2, "{sealed} segments");
    for path in segments(dir.path()) {
        // As a plain copy, or an image that was restored, leaves it.
        let bytes = std::fs::read(&path).expect("reads");
        std::fs::remove_file(&path).expect("removes");
        std::fs::write(&path, bytes).expect("writes");
    }
    run(async {
        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.tracks, recovery.damaged), (20, 0), "{recovery:?}");
        for (seed, track) in tracks.iter().enumerate() {
            if seed % 2 == 0 {
                let presence = volume.presence(&TrackId::of(track)).await.expect("looks up");
                assert_eq!(presence, deadwax_engine::Presence::Absent, "{seed}");
            } else {
                assert_whole(&volume, track).await;
            }
        }
        volume.close().await;
    });
}
