//! Tracks that shrink are stored compressed, and nobody who reads them can tell.

use deadwax_engine::{ErrorKind, Presence};
use deadwax_track::{KIB, MIB, PIECE_BYTES, TrackId};
use futures_lite::future::zip;

use super::*;

/// Each size sits on a boundary: the least that is compressed; frame; piece; first write; one read of pieces; more pieces than
/// a header block lists with their ends.
const SIZES: [u64; 16] = [
    64 * KIB - 1,
    64 * KIB,
    65_496 + 1,
    100_003,
    PIECE_BYTES - 1,
    PIECE_BYTES,
    PIECE_BYTES + 1,
    16 * 65_496,
    MIB - 8192,
    MIB,
    MIB + 1,
    4 * PIECE_BYTES + 2,
    5 * PIECE_BYTES,
    5 * MIB + 77,
    9 * MIB,
    31 * MIB + 5,
];

/// What a wave file may hold: a few tones on each of two channels, and a little noise.
fn pcm(seed: u64, bytes: u64) -> Vec<u8> {
    let noise = audio(seed, bytes.div_ceil(2));
    let tones = [(110.0 + (seed % 400) as f64, 5000.0), (440.3, 2500.0), (1320.7, 700.0)];
    let sample = |index: usize| {
        let time = (index / 2) as f64 / 44_100.0;
        let phase = if index.is_multiple_of(2) { 0.0 } else { 0.6 };
        let tone = tones.iter().map(|(hertz, loud)| (time * hertz * std::f64::consts::TAU + phase).sin() * loud);
        let value: f64 = tone.sum::<f64>() + f64::from(noise[index] % 32);
        #[expect(clippy::cast_possible_truncation, reason = "a sum of at most 8,231")]
        let value = value as i16;
        value.to_le_bytes()
    };
    let mut out: Vec<u8> = (0..noise.len()).flat_map(sample).collect();
    out.truncate(usize::try_from(bytes).expect("fits"));
    out
}

/// What a record takes that is stored as it is, with the tags of these tests.
fn plain_record_bytes(track_bytes: u64) -> u64 {
    let header = (128 + 16 + track_bytes.div_ceil(PIECE_BYTES) * 32).next_multiple_of(4096);
    let rest = track_bytes % 65_496;
    let last = if rest == 0 { 0 } else { (rest + 40).next_multiple_of(4096) };
    header + track_bytes / 65_496 * 65_536 + last
}

/// A number below `below`, the next of a series.
fn draw(state: &mut u64, below: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % below
}

async fn assert_ranges<H: Host>(volume: &Volume<H>, track: &[u8], seed: u64) {
    let (id, size, mut state) = (TrackId::of(track), track.len() as u64, seed | 1);
    for _ in 0..12 {
        let start = draw(&mut state, size);
        let end = start + 1 + draw(&mut state, (size - start).min(3 * PIECE_BYTES));
        let end = end.min(size);
        let got = get_range(volume, &id, start, end).await.expect("reads");
        let expected = usize::try_from(start).expect("fits")..usize::try_from(end).expect("fits");
        assert!(got == track[expected], "{start}..{end} of {size}, seed {seed}");
    }
}

fn allocated_bytes(dir: &Path) -> u64 {
    let blocks = |path: &std::path::PathBuf| std::os::unix::fs::MetadataExt::blocks(&path.metadata().expect("stats"));
    segments(dir).iter().map(|path| blocks(path) * 512).sum()
}

#[test]
fn sound_of_every_size_shrinks_and_comes_back_and_does_so_after_a_restart() {
    let (_dir, config) = volume_dir();
    run(async {
        let (volume, _) = open(&config).await;
        for size in SIZES {
            let track = pcm(size, size);
            let before = volume.usage().record_bytes;
            put(&volume, &track).await.expect("puts");
            let record = volume.usage().record_bytes - before;
            let plain = plain_record_bytes(size);
            let compressed = size >= 64 * KIB;
            assert!(if compressed { record * 4 < plain * 3 } else { record == plain }, "{size}: {record} of {plain}");
            assert_whole(&volume, &track).await;
        }
        volume.close().await;
        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.tracks, recovery.torn, recovery.damaged), (SIZES.len() as u64, 0, 0));
        for size in SIZES {
            let track = pcm(size, size);
            assert_whole(&volume, &track).await;
            assert_ranges(&volume, &track, size).await;
            let info = volume.info(&TrackId::of(&track)).await.expect("reads");
            assert_eq!((info.bytes, info.tags, info.manifest.id()), (size, tags("x"), TrackId::of(&track)));
        }
        let usage = volume.usage();
        assert_eq!(usage.track_bytes, SIZES.iter().sum::<u64>());
        assert!(usage.record_bytes * 4 < usage.track_bytes * 3, "{usage:?}");
        volume.close().await;
    });
}

#[test]
fn noise_takes_what_it_took_and_what_begins_as_noise_is_noise() {
    let (_dir, config) = volume_dir();
    run(async {
        let (volume, _) = open(&config).await;
        let mut expected = 0;
        for size in [64 * KIB, PIECE_BYTES, MIB, 3 * MIB + 9] {
            put(&volume, &audio(size, size)).await.expect("puts");
            expected += plain_record_bytes(size);
            assert_eq!(volume.usage().record_bytes, expected, "{size} bytes of noise");
        }
        let late = [audio(7, PIECE_BYTES), pcm(7, 2 * MIB)].concat();
        put(&volume, &late).await.expect("puts");
        assert_eq!(volume.usage().record_bytes, expected + plain_record_bytes(late.len() as u64));
        assert_whole(&volume, &late).await;
    });
}

#[test]
fn pieces_that_do_not_shrink_lie_among_those_that_do() {
    let (_dir, config) = volume_dir();
    let mixes = [
        [pcm(1, PIECE_BYTES), audio(1, 3 * MIB + 5)].concat(),
        [pcm(2, 3 * PIECE_BYTES), audio(2, PIECE_BYTES), pcm(3, MIB), audio(3, 77)].concat(),
        [b"Side A, side B. ".repeat(40_000), audio(4, 2 * MIB)].concat(),
        vec![0; 7 << 20],
    ];
    run(async {
        let (volume, _) = open(&config).await;
        for track in &mixes {
            let before = volume.usage().record_bytes;
            put(&volume, track).await.expect("puts");
            let (record, plain) = (volume.usage().record_bytes - before, plain_record_bytes(track.len() as u64));
            assert!(record < plain, "{record} of {plain}");
            assert_whole(&volume, track).await;
            assert_ranges(&volume, track, 5).await;
        }
        // Crashed: nothing was closed.
        drop(volume);
    });
    run(async {
        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.tracks, recovery.torn, recovery.damaged), (mixes.len() as u64, 0, 0));
        for track in &mixes {
            assert_whole(&volume, track).await;
        }
    });
}

#[test]
fn puts_side_by_side_give_back_what_they_saved() {
    let (dir, mut config) = volume_dir();
    config.segment_bytes = 64 * MIB;
    let tracks: Vec<_> = (0..8).map(|seed| pcm(seed, 6 * MIB)).collect();
    run(async {
        let (volume, _) = open(&config).await;
        for pair in tracks.chunks(2) {
            // The second one's space lies behind the first one's.
            let (first, second) = zip(put(&volume, &pair[0]), put(&volume, &pair[1])).await;
            first.expect("puts");
            second.expect("puts");
        }
        for track in &tracks {
            assert_whole(&volume, track).await;
        }
        let records = volume.usage().record_bytes;
        assert!(records * 4 < 48 * MIB * 3, "{records} bytes of records");
        // A segment's room that was never used counts too: the first of each pair left a hole, the second gave back the tail.
        let allocated = allocated_bytes(dir.path());
        let holes = 4 * (6 * MIB - records / 8);
        assert!(allocated <= 64 * MIB - holes + MIB, "{allocated} allocated, {records} bytes of records");
        volume.close().await;
        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.tracks, recovery.damaged), (8, 0));
        for track in &tracks {
            assert_whole(&volume, track).await;
        }
    });
}

#[test]
fn aborted_compressed_puts_leave_nothing() {
    let (_dir, config) = volume_dir();
    run(async {
        let (volume, _) = open(&config).await;
        let track = pcm(1, 5 * MIB);
        let id = TrackId::of(&track);
        for bytes in [PIECE_BYTES, PIECE_BYTES + 1, 4 * MIB] {
            let mut writer = volume.put(id, 5 * MIB, &tags("x")).await.expect("begins");
            writer.write(&track[..usize::try_from(bytes).expect("fits")]).await.expect("takes");
            drop(writer);
            put(&volume, &pcm(100 + bytes, 200_000)).await.expect("puts");
        }
        let mut writer = volume.put(id, 5 * MIB, &tags("x")).await.expect("begins");
        writer.write(&pcm(2, 5 * MIB)).await.expect("takes");
        assert_eq!(writer.finish().await.expect_err("another track's").kind(), ErrorKind::Invalid);
        assert_eq!(volume.presence(&id).await.expect("looks up"), Presence::Absent);
        put(&volume, &track).await.expect("puts after all");
        volume.close().await;
        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.tracks, recovery.torn, recovery.damaged), (4, 0, 0));
        assert_whole(&volume, &track).await;
    });
}

#[test]
fn deleting_gives_all_of_it_back_and_compaction_moves_it_under_a_reader() {
    let (dir, mut config) = volume_dir();
    config.segment_bytes = 32 * MIB;
    let kept = pcm(99, 1_200_000);
    let others: Vec<_> = (0..40).map(|seed| pcm(seed, 2 * MIB)).collect();
    run(async {
        let (volume, _) = open(&config).await;
        put(&volume, &kept).await.expect("puts");
        for track in &others {
            put(&volume, track).await.expect("puts");
        }
        let mut reader = volume.read(&TrackId::of(&kept), None).await.expect("reads");
        let mut got = Vec::new();
        let first = reader.next().await.expect("a block").expect("whole");
        first.payloads().for_each(|payload| got.extend_from_slice(payload));
        let before = segments(dir.path());
        for track in &others {
            volume.delete(&TrackId::of(track)).await.expect("deletes");
        }
        assert_eq!(volume.usage().tracks, 1);
        assert!(volume.usage().record_bytes < 900_000, "{:?}", volume.usage());
        volume.compact().await.expect("compacts");
        let after = segments(dir.path());
        assert!(after.first() != before.first(), "the first segment is gone: {before:?}, {after:?}");
        while let Some(block) = reader.next().await {
            block.expect("whole, wherever it is now").payloads().for_each(|payload| got.extend_from_slice(payload));
        }
        assert!(got == kept, "the track differs");
        assert_whole(&volume, &kept).await;
        volume.delete(&TrackId::of(&kept)).await.expect("deletes");
        assert_eq!(volume.usage().record_bytes, 0);
        volume.close().await;
    });
}

#[test]
fn a_flipped_bit_in_a_compressed_piece_is_damage_and_scrub_finds_it() {
    let (dir, config) = volume_dir();
    let track = pcm(5, 2 * MIB);
    let id = TrackId::of(&track);
    run(async {
        let (volume, _) = open(&config).await;
        put(&volume, &track).await.expect("puts");
        let path = &segments(dir.path())[0];
        let start = find(path, b"DWXRECRD").expect("a record");
        let at = start + 4096 + 3 * 65_536 + 1234;
        let byte = std::fs::read(path).expect("reads")[usize::try_from(at).expect("small")];
        overwrite(path, at, &[byte ^ 16]);
        let error = get_range(&volume, &id, 0, 2 * MIB).await.expect_err("damaged");
        let Error::Corrupt { offset, .. } = error else { panic!("{error}") };
        assert_eq!(offset, start + 4096 + 3 * 65_536);
        let whole = get_range(&volume, &id, 0, 1000).await.expect("another piece is whole");
        assert!(whole == track[..1000], "the first bytes differ");
        assert_eq!(volume.scrub_pass(1 << 40).await.expect("scrubs").damaged, 1);
    });
}
