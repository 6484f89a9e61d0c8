//! `inspect`: what the files say, in numbers that can be foretold.

use deadwax_engine::offline::{RecordState, inspect, inspect_segment};

use super::*;

#[test]
fn a_small_volume_is_told_to_the_byte() {
    let (dir, config) = volume_dir();
    let config = VolumeConfig { segment_bytes: 512 * KIB, ..config };
    let tracks = [audio(1, 150_000), audio(2, 10), audio(3, 150_000), audio(4, 200_000)];
    run(async {
        let (volume, _) = open(&config).await;
        for track in &tracks[..3] {
            put(&volume, track).await.expect("puts");
        }
        volume.delete(&TrackId::of(&tracks[0])).await.expect("deletes");
        volume.take_down(&TrackId::of(&tracks[1]), 9).await.expect("takes down");
        // Does not fit: the first segment is sealed.
        put(&volume, &tracks[3]).await.expect("puts");
        volume.close().await;
    });
    let report = inspect(dir.path()).expect("looks");
    assert_eq!((report.volume, report.in_use, report.superblock_fault.as_ref()), (Some(IDENTITY.volume), false, None));
    assert_eq!(report.node, Some("09".repeat(32)));
    assert_eq!(report.segments.len(), 2);
    let (first, second) = (&report.segments[0], &report.segments[1]);
    assert_eq!((first.number, first.bytes, first.file_bytes, first.sealed), (0, 512 * KIB, 512 * KIB, true));
    assert_eq!((first.tracks, first.track_bytes, first.takedowns), (1, 150_000, 1));
    // Headers of a block each; frames of twice 64 and 20 KiB; and the takedown's block.
    let record = 4096 + 2 * 65_536 + 20_480;
    assert_eq!((first.live_bytes, first.deleted, first.deleted_bytes), (record + 4096, 2, record + 8192));
    assert_eq!((first.damaged, first.listing_faults.len(), first.records.len()), (0, 0, 0));
    assert_eq!((second.sealed, second.tracks, second.track_bytes), (false, 1, 200_000));
    assert_eq!(report.snapshots.len(), 1);
    assert_eq!(report.snapshots[0].listings.iter().map(|listing| listing.segment).collect::<Vec<_>>(), [1]);

    let first = inspect_segment(dir.path(), 0).expect("looks");
    let rows: Vec<_> =
        first.records.iter().map(|row| (row.offset, row.state, row.takedown, row.track_bytes, row.listed)).collect();
    let (deleted, whole) = (RecordState::Deleted, RecordState::Whole);
    assert_eq!(
        rows,
        [
            (4096, deleted, false, 150_000, true),
            (4096 + record, deleted, false, 10, true),
            (4096 + record + 8192, whole, false, 150_000, true),
            (4096 + 2 * record + 8192, whole, true, 0, true),
        ]
    );
    assert_eq!(first.records[2].id, TrackId::of(&tracks[2]));
    assert_eq!((first.records[2].title.as_deref(), first.records[2].sequence), (Some("x"), Some(3)));
    assert_eq!(first.records[3].takedown_number, Some(9));
    assert_eq!(inspect_segment(dir.path(), 5).expect_err("none such").kind(), ErrorKind::Invalid);
}

#[test]
fn a_segment_without_a_header_is_still_told() {
    let lived = Lived::new(true);
    let before = inspect(lived.path()).expect("looks");
    overwrite(&segments(lived.path())[0], 0, &[0; 4096]);
    let after = inspect(lived.path()).expect("looks");
    let (was, is) = (&before.segments[0], &after.segments[0]);
    assert!(is.header_fault.is_some() && is.sealed, "{is:#?}");
    assert_eq!((&was.generation, was.tracks, was.deleted), (&is.generation, is.tracks, is.deleted));
}
