//! Full drives, full queues, and directories that are not ours.

use std::time::Duration;

use deadwax_engine::{ErrorKind, VolumeConfig, VolumeId, VolumeIdentity, VolumeState, read_identity};
use deadwax_track::{KIB, MIB, TrackId};
use futures_lite::future::poll_once;

use super::host::{Op, ScriptedHost};
use super::*;

#[test]
fn a_full_volume_refuses_puts_and_goes_on_reading_and_taking_down() {
    let (_dir, mut config) = volume_dir();
    config.segment_bytes = MIB;
    config.capacity_bytes_max = Some(8 * MIB);
    config.reserve_bytes = MIB;
    run(async {
        let (volume, _) = open(&config).await;
        let mut stored = Vec::new();
        let full = loop {
            let track = audio(stored.len() as u64, 300 * KIB);
            match put(&volume, &track).await {
                Ok(_) => stored.push(track),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), ErrorKind::NoSpace, "{full}");
        assert!((14..26).contains(&stored.len()), "{} tracks", stored.len());
        assert_eq!(volume.usage().state, VolumeState::Open);
        assert!(volume.usage().free_bytes < 400 * KIB, "{:?}", volume.usage());
        for track in &stored {
            assert_whole(&volume, track).await;
        }
        // More takedowns than the stretch at a segment's end has blocks: the reserve serves them.
        for seed in 0..60_u64 {
            volume.take_down(&TrackId::of(&seed.to_le_bytes()), seed).await.expect("takes down");
        }
        assert_eq!(put(&volume, &audio(1000, 300 * KIB)).await.expect_err("full").kind(), ErrorKind::NoSpace);
        // Erasing gives the space back.
        for track in &stored[..8] {
            volume.take_down(&TrackId::of(track), 1).await.expect("takes down");
        }
        put(&volume, &audio(1001, 300 * KIB)).await.expect("there is room again");
        volume.close().await;
        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.tracks, recovery.takedowns), (stored.len() as u64 - 7, 68));
        for track in &stored[8..] {
            assert_whole(&volume, track).await;
        }
    });
}

#[test]
fn too_many_puts_are_answered_busy() {
    let (_dir, mut config) = volume_dir();
    // Two large tracks.
    config.put_bytes_max = 4 * MIB;
    run(async {
        let (volume, _) = open(&config).await;
        let begin = async |seed| volume.put(TrackId::of(&audio(seed, 3 * MIB)), 3 * MIB, &tags("x")).await;
        let first = begin(1).await.expect("begins");
        let _second = begin(2).await.expect("begins");
        assert_eq!(begin(3).await.err().expect("busy").kind(), ErrorKind::Busy);
        drop(first);
        // The place is free once upkeep has given the first one's space back.
        let third = audio(3, 3 * MIB);
        loop {
            match put(&volume, &third).await {
                Err(error) if error.kind() == ErrorKind::Busy => glommio::timer::sleep(Duration::from_millis(1)).await,
                outcome => break assert_eq!(outcome.expect("puts").bytes, 3 * MIB),
            }
        }
    });
}

#[test]
fn too_many_reads_are_answered_busy_and_those_let_in_go_on() {
    let (_dir, mut config) = volume_dir();
    // Two readers of large tracks.
    config.read_bytes_max = 4 * MIB;
    run(async {
        let (volume, _) = open(&config).await;
        let track = audio(1, 5 * MIB);
        put(&volume, &track).await.expect("puts");
        let id = TrackId::of(&track);
        let mut slow = volume.read(&id, None).await.expect("begins");
        let held = slow.next().await.expect("a block").expect("reads");
        let other = volume.read(&id, None).await.expect("begins");
        assert_eq!(volume.read(&id, None).await.err().expect("busy").kind(), ErrorKind::Busy);
        assert_eq!(get_range(&volume, &id, 0, 10).await.expect_err("busy").kind(), ErrorKind::Busy);
        // A range takes less.
        let _small = other.narrowed(ByteRange::new(0, 100).expect("a range"));
        assert_whole_by(slow, held, &track).await;
        assert_whole(&volume, &track).await;
    });
}

#[test]
fn a_read_that_nobody_waits_for_keeps_its_memory_until_the_drive_is_done() {
    const BYTES_MAX: u64 = 4 * MIB;
    let (_dir, mut config) = volume_dir();
    config.read_bytes_max = BYTES_MAX;
    run(async {
        let host = ScriptedHost::new();
        let (volume, _) = Volume::open(host.clone(), config.clone()).await.expect("opens");
        let track = audio(1, 100 * KIB);
        put(&volume, &track).await.expect("puts");
        let id = TrackId::of(&track);
        host.script.hung.borrow_mut().push(Op::Read);
        let mut begun = 0;
        let refused = loop {
            // Its caller goes away at once.
            match poll_once(get_range(&volume, &id, 0, 10)).await {
                Some(answer) => break answer.expect_err("the drive hangs"),
                None => begun += 1,
            }
            assert!(begun <= BYTES_MAX / (64 * KIB), "{begun} reads are under way");
        };
        assert_eq!(refused.kind(), ErrorKind::Busy, "{refused}");
        host.release();
        while let Err(error) = get_range(&volume, &id, 0, 10).await {
            assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
            glommio::executor().yield_task_queue_now().await;
        }
        // All of it came back.
        assert_whole(&volume, &track).await;
        volume.close().await;
    });
}

/// The rest of a track comes though its reader's first block is still held.
async fn assert_whole_by(
    mut reader: deadwax_engine::Reader<GlommioHost>,
    first: deadwax_engine::Block<GlommioHost>,
    track: &[u8],
) {
    let mut got = first.payloads().flatten().copied().collect::<Vec<_>>();
    while let Some(block) = reader.next().await {
        block.expect("reads").payloads().for_each(|payload| got.extend_from_slice(payload));
    }
    assert!(got == track, "a track of {} bytes differs", track.len());
}

#[test]
fn budgets_that_nothing_fits_are_refused() {
    let (_dir, config) = volume_dir();
    run(async {
        for small in [
            VolumeConfig { put_bytes_max: MIB, ..config.clone() },
            VolumeConfig { write_bytes_max: 64 * KIB, ..config.clone() },
            VolumeConfig { read_bytes_max: MIB, ..config.clone() },
        ] {
            let error = Volume::open(GlommioHost::new(), small).await.err().expect("refused");
            assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains("_bytes_max"), "{error}");
        }
    });
}

#[test]
fn a_volume_may_be_named_by_a_relative_path() {
    let (dir, mut config) = volume_dir();
    let up = std::env::current_dir()
        .expect("a directory")
        .components()
        .skip(1)
        .map(|_| "..")
        .collect::<std::path::PathBuf>();
    config.dir = up.join(dir.path().strip_prefix("/").expect("absolute"));
    run(async {
        let (volume, _) = open(&config).await;
        let track = audio(1, 100_000);
        put(&volume, &track).await.expect("puts");
        assert_whole(&volume, &track).await;
        volume.close().await;
    });
}

#[test]
fn only_one_may_have_a_volume_open() {
    let (dir, config) = volume_dir();
    run(async {
        let (volume, _) = open(&config).await;
        let second = Volume::open(GlommioHost::new(), config.clone()).await.err().expect("locked");
        assert_eq!(second.kind(), ErrorKind::Locked, "{second}");
        let split = VolumeConfig { shard: 1, shards: 2, ..config.clone() };
        assert_eq!(Volume::open(GlommioHost::new(), split).await.err().expect("locked").kind(), ErrorKind::Locked);
        volume.close().await;
        // As another process holds it.
        let file = std::fs::File::open(dir.path().join("volume.deadwax")).expect("opens");
        file.lock().expect("locks");
        let error = Volume::open(GlommioHost::new(), config.clone()).await.err().expect("locked");
        assert!(error.to_string().contains("another process"), "{error}");
        file.unlock().expect("unlocks");
        open(&config).await;
    });
}

#[test]
fn a_volume_opens_once_the_last_writes_of_a_killed_process_are_done() {
    let (dir, config) = volume_dir();
    run(async {
        let (volume, _) = open(&config).await;
        put(&volume, &audio(1, 10)).await.expect("puts");
        volume.close().await;
    });
    // A copy is a volume that this process never had open.
    let copy = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    std::fs::create_dir(copy.path().join("segments")).expect("creates");
    for file in [dir.path().join("volume.deadwax"), segments(dir.path()).remove(0)] {
        std::fs::copy(&file, copy.path().join(file.strip_prefix(dir.path()).expect("within"))).expect("copies");
    }
    let config = VolumeConfig { dir: copy.path().to_owned(), ..config };
    // As a write holds the file it goes to, though its process is gone.
    let written = std::fs::File::open(&segments(copy.path())[0]).expect("opens");
    written.lock_shared().expect("locks");
    run(async {
        let opens = async { drop(open(&config).await) };
        let waits = futures_lite::future::or(
            async {
                opens.await;
                false
            },
            async {
                glommio::timer::sleep(std::time::Duration::from_millis(200)).await;
                true
            },
        );
        assert!(waits.await, "opened while a write was on its way");
        written.unlock().expect("unlocks");
        let (volume, _) = open(&config).await;
        assert_whole(&volume, &audio(1, 10)).await;
    });
}

#[test]
fn a_closed_volume_answers_nothing() {
    let (_dir, config) = volume_dir();
    run(async {
        let (volume, _) = open(&config).await;
        put(&volume, &audio(1, 10)).await.expect("puts");
        let mut writer = volume.put(TrackId::of(&audio(2, 10)), 10, &tags("x")).await.expect("begins");
        writer.write(&audio(2, 10)).await.expect("takes");
        let clone = volume.clone();
        volume.close().await;
        assert_eq!(writer.finish().await.expect_err("closed").kind(), ErrorKind::Fenced);
        assert_eq!(put(&clone, &audio(2, 10)).await.expect_err("closed").kind(), ErrorKind::Fenced);
        assert_eq!(
            get_range(&clone, &TrackId::of(&audio(1, 10)), 0, 1).await.expect_err("closed").kind(),
            ErrorKind::Fenced
        );
    });
}

async fn opening_fails(config: VolumeConfig, kind: ErrorKind, message: &str) {
    let error = Volume::open(GlommioHost::new(), config).await.err().expect("refused");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(message), "{error}");
}

#[test]
fn directories_that_are_not_this_volume_are_refused() {
    let (dir, config) = volume_dir();
    let superblock = dir.path().join("volume.deadwax");
    run(async {
        let node = VolumeIdentity { node: [1; 32], ..IDENTITY };
        opening_fails(VolumeConfig { expected: node, ..config.clone() }, ErrorKind::Foreign, "another node").await;
        let volume = VolumeIdentity { volume: VolumeId([1; 16]), ..IDENTITY };
        opening_fails(VolumeConfig { expected: volume, ..config.clone() }, ErrorKind::Foreign, "this is volume 0707")
            .await;
        let missing = VolumeConfig { dir: dir.path().join("missing"), ..config.clone() };
        opening_fails(missing, ErrorKind::Invalid, "is no volume").await;
        for wrong in [
            VolumeConfig { shard: 2, shards: 2, ..config.clone() },
            VolumeConfig { segment_bytes: 5, ..config.clone() },
        ] {
            opening_fails(wrong, ErrorKind::Invalid, "must be").await;
        }
        let whole = std::fs::read(&superblock).expect("reads");
        let mut newer = whole.clone();
        newer[8] = 2;
        let crc = {
            let mut crc = crc32fast::Hasher::new();
            crc.update(&newer[..12]);
            crc.update(&newer[16..]);
            crc.finalize()
        };
        newer[12..16].copy_from_slice(&crc.to_le_bytes());
        for (bytes, kind, message) in [
            (newer, ErrorKind::Unsupported, "newer version (2): upgrade deadwax"),
            (b"hello".to_vec(), ErrorKind::Corrupt, "5 bytes"),
            (vec![0; 4096], ErrorKind::Corrupt, "not a deadwax volume"),
            (whole[..4000].to_vec(), ErrorKind::Corrupt, "4000 bytes"),
        ] {
            std::fs::write(&superblock, bytes).expect("writes");
            opening_fails(config.clone(), kind, message).await;
            assert_eq!(read_identity(dir.path()).expect_err("refused").kind(), kind);
        }
        std::fs::write(&superblock, whole).expect("writes");
        open(&config).await;
    });
}

#[test]
fn formatting_refuses_what_is_not_empty_or_not_writable() {
    let (dir, _) = volume_dir();
    assert_eq!(read_identity(dir.path()).expect("reads"), Some(IDENTITY));
    let again = format_volume(dir.path(), &IDENTITY).expect_err("a volume already");
    assert!(again.to_string().contains("volume already"), "{again}");
    let other = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    assert_eq!(read_identity(other.path()).expect("reads"), None);
    std::fs::write(other.path().join("song.ogg"), "x").expect("writes");
    let full = format_volume(other.path(), &IDENTITY).expect_err("not empty");
    assert!(full.to_string().contains("song.ogg"), "{full}");
    // Not even root may write there.
    let error = format_volume(Path::new("/proc/deadwax"), &IDENTITY).expect_err("not writable");
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(error.to_string().starts_with("create directory /proc/deadwax"), "{error}");
    // A format that was cut off is finished by the next one.
    let cut = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    std::fs::create_dir(cut.path().join("segments")).expect("creates");
    std::fs::write(cut.path().join("volume.deadwax.new"), "x").expect("writes");
    format_volume(cut.path(), &IDENTITY).expect("formats");
}
