//! What goes in comes back.

use deadwax_engine::{ErrorKind, Presence};
use deadwax_track::{KIB, MIB, PIECE_BYTES, Partition, Tags, TrackId, piece_count};

use super::*;

/// Each size sits on a boundary: byte; block less trailer; frame; header and frames in one write of 1 MiB, or not; piece;
/// one read of 16 frames; several writes; more pieces than a header block lists.
const SIZES: [u64; 20] = [
    1,
    4063,
    4064,
    4065,
    65_503,
    65_496,
    65_505,
    PIECE_BYTES - 1,
    PIECE_BYTES,
    PIECE_BYTES + 1,
    15 * 65_496,
    15 * 65_496 + 57_304,
    16 * 65_496,
    16 * 65_496 + 1,
    MIB - 1,
    MIB,
    MIB + 1,
    5 * MIB,
    5 * MIB + 77,
    33 * MIB + 5,
];

#[test]
fn every_size_and_range_comes_back_and_does_so_after_a_restart() {
    let (_dir, config) = volume_dir();
    run(async {
        let (volume, _) = open(&config).await;
        for size in SIZES {
            let track = audio(size, size);
            let stored = put(&volume, &track).await.expect("puts");
            assert_eq!((stored.bytes, stored.pieces), (size, piece_count(size)));
            assert_whole(&volume, &track).await;
        }
        volume.close().await;
        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.tracks, recovery.torn, recovery.damaged), (SIZES.len() as u64, 0, 0));
        for size in SIZES {
            let track = audio(size, size);
            let id = TrackId::of(&track);
            assert_eq!(volume.presence(&id).await.expect("looks up"), Presence::Present { bytes: size });
            assert_whole(&volume, &track).await;
            let middle = size / 2;
            for (start, end) in
                [(0, 1), (size - 1, size), (middle, size), (middle, middle + 1), (size / 3, size - size / 5)]
            {
                let got = get_range(&volume, &id, start, end).await.expect("reads");
                let expected = usize::try_from(start).expect("fits")..usize::try_from(end).expect("fits");
                assert!(got == track[expected], "{start}..{end} of {size}");
            }
            let info = volume.info(&id).await.expect("reads");
            assert_eq!((info.bytes, info.tags, info.manifest.id()), (size, tags("x"), id));
        }
        let usage = volume.usage();
        assert_eq!((usage.tracks, usage.track_bytes), (SIZES.len() as u64, SIZES.iter().sum()));
        volume.close().await;
    });
}

#[test]
fn bytes_that_are_not_the_announced_track_are_refused_and_leave_nothing() {
    let (_dir, config) = volume_dir();
    run(async {
        let (volume, _) = open(&config).await;
        let track = audio(1, 3 * MIB);
        let id = TrackId::of(&track);
        for (bytes, announced) in [(0, 0), (0, 513 * MIB)] {
            let _: u64 = bytes;
            let error = volume.put(id, announced, &Tags::default()).await.err().expect("refused");
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        }
        // Short.
        let mut writer = volume.put(id, 3 * MIB, &Tags::default()).await.expect("begins");
        writer.write(&track[1..]).await.expect("takes");
        assert_eq!(writer.finish().await.expect_err("short").kind(), ErrorKind::Invalid);
        // Long, and the writer is then of no use.
        let mut writer = volume.put(id, 3 * MIB, &Tags::default()).await.expect("begins");
        writer.write(&track).await.expect("takes");
        assert_eq!(writer.write(&[0]).await.expect_err("long").kind(), ErrorKind::Invalid);
        assert_eq!(writer.finish().await.expect_err("failed").kind(), ErrorKind::Invalid);
        // Another track's.
        let mut writer = volume.put(id, 3 * MIB, &Tags::default()).await.expect("begins");
        writer.write(&audio(2, 3 * MIB)).await.expect("takes");
        assert_eq!(writer.finish().await.expect_err("other bytes").kind(), ErrorKind::Invalid);
        // Dropped on the way.
        let mut writer = volume.put(id, 3 * MIB, &Tags::default()).await.expect("begins");
        writer.write(&track[..2 << 20]).await.expect("takes");
        drop(writer);
        assert_eq!(volume.presence(&id).await.expect("looks up"), Presence::Absent);
        assert_eq!(volume.usage().record_bytes, 0);
        put(&volume, &track).await.expect("puts after all");
        volume.close().await;
        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.tracks, recovery.torn), (1, 0));
        assert_whole(&volume, &track).await;
    });
}

#[test]
fn aborted_puts_cost_no_space() {
    let (dir, mut config) = volume_dir();
    config.segment_bytes = 64 * MIB;
    run(async {
        let (volume, _) = open(&config).await;
        for seed in 0..20 {
            let track = audio(seed, 5 * MIB);
            let mut writer = volume.put(TrackId::of(&track), 5 * MIB, &Tags::default()).await.expect("begins");
            writer.write(&track[..4 << 20]).await.expect("takes");
            drop(writer);
            // The janitor runs as soon as this task waits for the drive.
            put(&volume, &audio(100 + seed, 50)).await.expect("puts");
        }
        volume.close().await;
    });
    let blocks: u64 = segments(dir.path())
        .iter()
        .map(|path| std::os::unix::fs::MetadataExt::blocks(&path.metadata().expect("stats")) * 512)
        .sum();
    // 100 MiB were begun in two segments of 64 MiB; what stays is room that was never used.
    assert!(blocks < 40 * MIB, "{blocks} bytes on the drive");
}

#[test]
fn the_second_of_two_puts_of_a_track_learns_that_it_is_stored() {
    let (_dir, config) = volume_dir();
    run(async {
        let (volume, _) = open(&config).await;
        let track = audio(1, 2 * MIB);
        let id = TrackId::of(&track);
        let mut first = volume.put(id, 2 * MIB, &tags("first")).await.expect("begins");
        let mut second = volume.put(id, 2 * MIB, &tags("second")).await.expect("begins");
        first.write(&track).await.expect("takes");
        second.write(&track).await.expect("takes");
        let (first, second) = futures_lite::future::zip(first.finish(), second.finish()).await;
        first.expect("stores");
        assert_eq!(second.expect_err("stored by the first").kind(), ErrorKind::AlreadyStored);
        assert_eq!(put(&volume, &track).await.expect_err("stored").kind(), ErrorKind::AlreadyStored);
        assert_eq!(volume.info(&id).await.expect("reads").tags, tags("first"));
        volume.close().await;
        let (volume, recovery) = open(&config).await;
        assert_eq!(recovery.tracks, 1);
        assert_whole(&volume, &track).await;
    });
}

#[test]
fn ranges_and_ids_that_are_not_there_say_so() {
    let (_dir, config) = volume_dir();
    run(async {
        let (volume, _) = open(&config).await;
        let track = audio(1, 1000);
        put(&volume, &track).await.expect("puts");
        let id = TrackId::of(&track);
        let beyond = get_range(&volume, &id, 500, 1001).await.expect_err("beyond");
        assert_eq!(beyond.kind(), ErrorKind::Invalid);
        let unknown = TrackId::of(b"unknown");
        assert_eq!(get_range(&volume, &unknown, 0, 1).await.expect_err("unknown").kind(), ErrorKind::NotFound);
        assert_eq!(volume.info(&unknown).await.expect_err("unknown").kind(), ErrorKind::NotFound);
        assert_eq!(volume.presence(&unknown).await.expect("looks up"), Presence::Absent);
        assert_eq!(volume.list(id.partition(), None, 10).await.expect("lists"), [id]);
        let digests = volume.digests(Partition(0), 65_536);
        assert_eq!(digests.len(), 1);
        assert_eq!((digests[0].0, digests[0].1, &digests[0].2[..]), (id.partition(), 1, &id.as_bytes()[..16]));
    });
}

#[test]
fn a_track_larger_than_a_segment_gets_one_of_its_own() {
    let (dir, mut config) = volume_dir();
    config.segment_bytes = 256 * KIB;
    run(async {
        let (volume, _) = open(&config).await;
        let (small, large) = (audio(1, 1000), audio(2, 3 * MIB));
        put(&volume, &small).await.expect("puts");
        put(&volume, &large).await.expect("puts");
        put(&volume, &audio(3, 1000)).await.expect("puts");
        assert_whole(&volume, &large).await;
        volume.close().await;
        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.tracks, recovery.segments), (3, 2));
        assert_whole(&volume, &large).await;
        assert_whole(&volume, &small).await;
    });
    assert_eq!(segments(dir.path()).len(), 2);
}
