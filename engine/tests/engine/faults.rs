//! A drive that fails harms only itself.

use deadwax_engine::{ErrorKind, Presence, VolumeState};
use deadwax_track::{MIB, TrackId};

use super::host::ScriptedHost;
use super::*;

#[test]
fn puts_that_finish_together_share_a_flush() {
    let (_dir, config) = volume_dir();
    run(async {
        let host = ScriptedHost::new();
        let (volume, _) = Volume::open(host.clone(), config).await.expect("opens");
        put(&volume, &audio(0, 1000)).await.expect("makes the segment");
        let before = host.script.flushes.get();
        // The first flush goes on until all 32 have written: it covers those that came before it, the next one the rest.
        host.script.hold_flushes_until.set(host.script.writes.get() + 32);
        let tasks: Vec<_> = (1..=32)
            .map(|seed| {
                let volume = volume.clone();
                glommio::spawn_local(async move { put(&volume, &audio(seed, 20_000)).await })
            })
            .collect();
        for task in tasks {
            task.await.expect("puts");
        }
        let flushes = host.script.flushes.get() - before;
        assert!(flushes <= 2, "{flushes} flushes for 32 puts");
    });
}

#[test]
fn any_range_that_fits_one_read_is_one_device_read() {
    let (_dir, config) = volume_dir();
    run(async {
        let host = ScriptedHost::new();
        let (volume, _) = Volume::open(host.clone(), config).await.expect("opens");
        let track = audio(0, 5 * MIB);
        put(&volume, &track).await.expect("puts");
        for (start, end) in [(0, 1), (65_000, 66_000), (1_234_567, 1_300_000), (5 * MIB - 1, 5 * MIB), (100, 900_000)] {
            let before = host.script.reads.get();
            get_range(&volume, &TrackId::of(&track), start, end).await.expect("reads");
            assert_eq!(host.script.reads.get() - before, 1, "{start}..{end}");
        }
    });
}

#[test]
fn a_failed_write_closes_the_segment_and_the_next_put_opens_another() {
    let (dir, config) = volume_dir();
    run(async {
        let host = ScriptedHost::new();
        let (volume, _) = Volume::open(host.clone(), config.clone()).await.expect("opens");
        let (before, failed, after) = (audio(0, 3 * MIB), audio(1, 3 * MIB), audio(2, 3 * MIB));
        put(&volume, &before).await.expect("puts");
        host.script.fail_writes.set(true);
        assert_eq!(put(&volume, &failed).await.expect_err("fails").kind(), ErrorKind::Io);
        host.script.fail_writes.set(false);
        assert_eq!(volume.presence(&TrackId::of(&failed)).await.expect("looks up"), Presence::Absent);
        assert_whole(&volume, &before).await;
        put(&volume, &after).await.expect("puts in another segment");
        put(&volume, &failed).await.expect("puts in another segment");
        assert_eq!(volume.usage().state, VolumeState::Open);
        assert_eq!(segments(dir.path()).len(), 2);
        volume.close().await;
        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.tracks, recovery.torn), (3, 0));
        for track in [before, failed, after] {
            assert_whole(&volume, &track).await;
        }
    });
}

#[test]
fn a_failed_flush_acknowledges_none_that_waited_for_it() {
    let (_dir, config) = volume_dir();
    run(async {
        let host = ScriptedHost::new();
        let (volume, _) = Volume::open(host.clone(), config.clone()).await.expect("opens");
        put(&volume, &audio(0, 1000)).await.expect("puts");
        host.script.fail_flushes.set(true);
        let tasks: Vec<_> = (1..=5)
            .map(|seed| {
                let volume = volume.clone();
                glommio::spawn_local(async move { put(&volume, &audio(seed, 20_000)).await })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.expect_err("not durable").kind(), ErrorKind::Io);
        }
        host.script.fail_flushes.set(false);
        assert_eq!(volume.usage().tracks, 1);
        for seed in 1..=5 {
            put(&volume, &audio(seed, 20_000)).await.expect("puts in another segment");
        }
        volume.close().await;
        let (_, recovery) = open(&config).await;
        assert_eq!(recovery.tracks, 6);
    });
}

#[test]
fn a_drive_that_keeps_failing_is_fenced_and_still_read() {
    for fail_creates in [false, true] {
        let (_dir, config) = volume_dir();
        run(async {
            let host = ScriptedHost::new();
            let (volume, _) = Volume::open(host.clone(), config.clone()).await.expect("opens");
            let track = audio(0, 200_000);
            put(&volume, &track).await.expect("puts");
            host.script.fail_creates.set(fail_creates);
            host.script.fail_flushes.set(true);
            for seed in 1..=2 {
                assert_eq!(put(&volume, &audio(seed, 1000)).await.expect_err("fails").kind(), ErrorKind::Io);
            }
            host.script.fail_creates.set(false);
            host.script.fail_flushes.set(false);
            let error = put(&volume, &audio(3, 1000)).await.expect_err("fenced");
            assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
            assert!(matches!(volume.usage().state, VolumeState::ReadOnly(_)));
            assert_eq!(volume.take_down(&TrackId::of(&track), 1).await.expect_err("fenced").kind(), ErrorKind::Fenced);
            assert_whole(&volume, &track).await;
            volume.close().await;
            let (volume, _) = open(&config).await;
            put(&volume, &audio(3, 1000)).await.expect("reopening heals it");
            assert_whole(&volume, &track).await;
        });
    }
}

#[test]
fn a_machine_short_of_files_or_memory_does_not_fence_the_volume() {
    let (_dir, config) = volume_dir();
    run(async {
        let host = ScriptedHost::new();
        let (volume, _) = Volume::open(host.clone(), config.clone()).await.expect("opens");
        // ENFILE, EMFILE, ENOMEM, EAGAIN, EINTR.
        for errno in [23, 24, 12, 11, 4] {
            host.script.create_errno.set(Some(errno));
            assert_eq!(put(&volume, &audio(1, 1000)).await.expect_err("fails").kind(), ErrorKind::Io);
            assert_eq!(volume.usage().state, VolumeState::Open, "errno {errno}");
        }
        host.script.create_errno.set(None);
        put(&volume, &audio(1, 1000)).await.expect("puts");
        assert_whole(&volume, &audio(1, 1000)).await;
    });
}

#[test]
fn the_real_host_says_which_error_the_system_gave() {
    let (dir, _) = volume_dir();
    run(async {
        let error = GlommioHost::new().open(&dir.path().join("none"), deadwax_engine::Access::Read).await;
        assert_eq!(error.err().expect("no such file").raw_os_error(), Some(2));
    });
}

#[test]
fn every_flipped_bit_of_a_record_is_found() {
    let (dir, config) = volume_dir();
    let (track, other) = (audio(1, 500), audio(2, 70_000));
    let id = TrackId::of(&track);
    run(async {
        let (volume, _) = open(&config).await;
        put(&volume, &track).await.expect("puts");
        put(&volume, &other).await.expect("puts");
        let path = segments(dir.path()).remove(0);
        let whole = std::fs::read(&path).expect("reads");
        // One bit in every byte of the frame's block, payload, padding and trailer alike.
        for at in 8192..12_288 {
            let bit = 1 << (at % 8);
            overwrite_without_sync(&path, at, &[whole[usize::try_from(at).expect("fits")] ^ bit]);
            let error = get_range(&volume, &id, 0, 500).await.expect_err("found");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}");
            overwrite_without_sync(&path, at, &whole[usize::try_from(at).expect("fits")..][..1]);
        }
        let error = {
            overwrite(&path, 9000, &[!whole[9000]]);
            get_range(&volume, &id, 0, 500).await.expect_err("found")
        };
        let message = error.to_string();
        assert!(message.contains(&id.to_string()) && message.contains("segment 0, offset 8192"), "{message}");
        overwrite(&path, 9000, &whole[9000..9001]);
        // And of the header, every 16th byte: `info` reads it.
        for at in (4096..8192).step_by(16) {
            overwrite_without_sync(&path, at, &[!whole[usize::try_from(at).expect("fits")]]);
            assert_eq!(volume.info(&id).await.expect_err("found").kind(), ErrorKind::Corrupt, "byte {at}");
            overwrite_without_sync(&path, at, &whole[usize::try_from(at).expect("fits")..][..1]);
        }
        assert_whole(&volume, &track).await;
        assert_whole(&volume, &other).await;
    });
}

/// Through the page cache, which O_DIRECT reads write back first.
fn overwrite_without_sync(path: &Path, offset: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    std::fs::File::options().write(true).open(path).expect("opens").write_all_at(bytes, offset).expect("writes");
}

#[test]
fn bytes_of_another_place_are_never_served() {
    let (dir, config) = volume_dir();
    run(async {
        let (volume, _) = open(&config).await;
        let (a, b) = (audio(1, 3 * 65_496), audio(2, 3 * 65_496));
        put(&volume, &a).await.expect("puts");
        put(&volume, &b).await.expect("puts");
        let path = segments(dir.path()).remove(0);
        let bytes = std::fs::read(&path).expect("reads");
        let (frames_a, frames_b) = (8192, 8192 + 3 * 65_536 + 4096);
        let frame = |at: usize| &bytes[at..at + 65_536];
        // Another frame of the same track, and the same frame of another track: both whole, neither asked for.
        for wrong in [frame(frames_a + 65_536), frame(frames_b)] {
            overwrite(&path, frames_a as u64, wrong);
            let error = get_range(&volume, &TrackId::of(&a), 0, 10).await.expect_err("found");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            // The rest of the track is whole.
            let rest = get_range(&volume, &TrackId::of(&a), 65_496, 3 * 65_496).await.expect("reads");
            assert!(rest == a[65_496..]);
        }
        assert_whole(&volume, &b).await;
    });
}

#[test]
fn a_quota_that_is_used_up_is_a_full_drive() {
    let (_dir, config) = volume_dir();
    run(async {
        let host = ScriptedHost::new();
        let (volume, _) = Volume::open(host.clone(), config.clone()).await.expect("opens");
        host.script.fail_creates.set(true);
        // ENOSPC, EDQUOT, EFBIG.
        for errno in [28, 122, 27] {
            host.script.create_errno.set(Some(errno));
            assert_eq!(put(&volume, &audio(1, 1000)).await.expect_err("full").kind(), ErrorKind::NoSpace);
            assert_eq!(volume.presence(&TrackId::of(&audio(1, 1000))).await.expect("looks up"), Presence::Absent);
            assert_eq!(volume.usage().state, VolumeState::Open, "errno {errno}");
        }
        host.script.fail_creates.set(false);
        host.script.create_errno.set(None);
        put(&volume, &audio(1, 1000)).await.expect("there is room again");
        assert_whole(&volume, &audio(1, 1000)).await;
    });
}

#[test]
fn a_put_beside_a_damaged_header_takes_its_place_and_a_delete_is_for_good() {
    let (dir, config) = volume_dir();
    let track = audio(1, 300_000);
    let id = TrackId::of(&track);
    run(async {
        let (volume, _) = open(&config).await;
        put(&volume, &track).await.expect("puts");
        let path = &segments(dir.path())[0];
        // Of the record's header, in its checksum's reach.
        overwrite(path, 4096 + 100, &[0xff; 8]);
        assert_eq!(volume.presence(&id).await.expect_err("damaged").kind(), ErrorKind::Corrupt);
        put(&volume, &track).await.expect("heals");
        assert_eq!(volume.usage().tracks, 1);
        assert_whole(&volume, &track).await;
        volume.delete(&id).await.expect("deletes");
        assert_eq!(volume.presence(&id).await.expect("looks up"), Presence::Absent);
        assert_eq!(volume.usage().tracks, 0);
        volume.close().await;
        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.tracks, recovery.damaged), (0, 0), "{recovery:?}");
        assert_eq!(volume.presence(&id).await.expect("looks up"), Presence::Absent);
        volume.close().await;
    });
}

#[test]
fn a_put_whose_flush_failed_does_not_outlive_a_delete() {
    let (_dir, config) = volume_dir();
    let track = audio(1, 300_000);
    let id = TrackId::of(&track);
    run(async {
        let host = ScriptedHost::new();
        let (volume, _) = Volume::open(host.clone(), config.clone()).await.expect("opens");
        put(&volume, &audio(2, 1000)).await.expect("makes the segment");
        // The header reaches the drive, and then neither the flush nor erasing it works.
        host.script.fail_flushes.set(true);
        assert_eq!(put(&volume, &track).await.expect_err("fails").kind(), ErrorKind::Io);
        host.script.fail_flushes.set(false);
        put(&volume, &track).await.expect("puts elsewhere");
        let refused = volume.delete(&id).await.expect_err("it might come back");
        assert_eq!(refused.kind(), ErrorKind::Fenced, "{refused}");
        volume.close().await;
        let (volume, recovery) = open(&config).await;
        assert_eq!(recovery.tracks, 2, "{recovery:?}");
        volume.delete(&id).await.expect("deletes");
        volume.close().await;
        let (volume, recovery) = open(&config).await;
        assert_eq!(recovery.tracks, 1, "{recovery:?}");
        assert_eq!(volume.presence(&id).await.expect("looks up"), Presence::Absent);
        volume.close().await;
    });
}
