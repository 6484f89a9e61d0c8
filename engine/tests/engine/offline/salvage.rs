//! `salvage`: whatever is destroyed, exactly the tracks come back whose records are whole.

use super::*;

fn none() -> BTreeSet<TrackId> {
    BTreeSet::new()
}

#[test]
fn a_whole_volume_gives_all_that_it_holds() {
    for closed in [true, false] {
        let lived = Lived::new(closed);
        let report = lived.salvages_all_but(lived.path(), &none());
        assert_eq!((report.damaged, report.duplicates, report.taken_down), (0, 0, 0), "{report:?}");
        assert_eq!(report.findings, []);
        let (_, sink) = salvaged(lived.path());
        assert!(sink.kept.values().all(|(_, tags)| tags.get("title") == Some("x")), "tags come with them");
    }
}

#[test]
fn nothing_but_the_records_is_needed() {
    let lived = Lived::new(true);
    std::fs::remove_file(lived.path().join("volume.deadwax")).expect("removes");
    std::fs::remove_dir_all(lived.path().join("snapshots")).expect("removes");
    for path in segments(lived.path()) {
        overwrite(&path, 0, &[0; 4096]);
        let bytes = std::fs::read(&path).expect("reads");
        for (block, at) in bytes.chunks(4096).zip((0..).step_by(4096)) {
            if block.starts_with(b"DWXLISTG") {
                overwrite(&path, at, &[0xff; 4096]);
            }
        }
    }
    let report = lived.salvages_all_but(lived.path(), &none());
    assert_eq!((report.damaged, report.taken_down), (0, 0), "{report:?}");
    // A bare folder of segments, under any names.
    let bare = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    for (index, path) in segments(lived.path()).iter().enumerate() {
        std::fs::copy(path, bare.path().join(format!("#{index}"))).expect("copies");
    }
    lived.salvages_all_but(bare.path(), &none());
}

#[test]
fn one_file_gives_its_own_tracks() {
    let lived = Lived::new(true);
    let (mut all, places) = (BTreeSet::new(), lived.places());
    for path in segments(lived.path()) {
        let here: BTreeSet<_> = places.iter().filter(|(_, (file, _))| *file == path).map(|(id, _)| *id).collect();
        let elsewhere = places.keys().filter(|id| !here.contains(id)).copied().collect();
        lived.salvages_all_but(&path, &elsewhere);
        all.extend(here);
    }
    assert_eq!(all.len(), lived.tracks.len());
}

/// Overwrites stretches of the segments, headers, footers and all.
#[test]
fn stretches_that_are_destroyed_cost_only_their_tracks() {
    for seed in 1..=16 {
        let lived = Lived::new(seed % 2 == 0);
        let places = lived.places();
        let mut state = seed;
        let mut holes: Vec<(std::path::PathBuf, std::ops::Range<u64>)> = Vec::new();
        for path in segments(lived.path()) {
            for _ in 0..dice(&mut state, 3) {
                let length = std::fs::metadata(&path).expect("there").len();
                let start = dice(&mut state, length);
                let bytes = (1 + dice(&mut state, 100_000)).min(length - start);
                let junk = if dice(&mut state, 2) == 0 { vec![0; 100_000] } else { audio(seed, 100_000) };
                overwrite(&path, start, &junk[..usize::try_from(bytes).expect("fits")]);
                holes.push((path.clone(), start..start + bytes));
            }
        }
        let touched = |id: &TrackId, header_too: bool| {
            let (path, offset) = &places[id];
            let bytes = lived.tracks[id].len() as u64;
            // The last frame's zeros are covered by its checksum, so all of its blocks count.
            let end = offset + 4096 + (bytes + bytes.div_ceil(65_496) * 40).next_multiple_of(4096);
            let start = if header_too { *offset } else { offset + 4096 };
            holes.iter().any(|(file, hole)| file == path && hole.start < end && start < hole.end)
        };
        let (report, sink) = salvaged(lived.path());
        for (id, track) in &lived.tracks {
            // Where only the header is lost, a listing may still tell where the frames are.
            let (whole, hopeless) = (!touched(id, true), touched(id, false));
            let kept = sink.kept.get(id);
            assert!(!whole || kept.is_some(), "seed {seed}: {id} was not harmed and is lost: {report:#?}");
            assert!(!hopeless || kept.is_none(), "seed {seed}: {id} cannot be whole");
            assert!(kept.is_none_or(|(bytes, _)| bytes == track), "seed {seed}: {id} differs");
        }
        assert!(sink.kept.keys().all(|id| lived.tracks.contains_key(id)), "seed {seed}: a deleted track came back");
        assert_eq!(sink.kept.len() as u64, report.salvaged, "seed {seed}");
    }
}

#[test]
fn a_track_whose_header_alone_is_lost_comes_back_by_its_listing() {
    let lived = Lived::new(true);
    let places = lived.places();
    let sealed = &segments(lived.path())[0];
    let (id, (path, offset)) = places.iter().find(|(_, (path, _))| path == sealed).expect("a track in it");
    overwrite(path, *offset, &[0xff; 4096]);
    let report = lived.salvages_all_but(lived.path(), &none());
    assert_eq!(report.without_header, 1, "{report:?}");
    // Zeros are what a deleted record leaves where holes were lost.
    overwrite(path, *offset, &[0; 4096]);
    lived.salvages_all_but(lived.path(), &BTreeSet::from([*id]));
}

#[test]
fn a_damaged_track_is_reported_with_what_is_left_of_it() {
    let lived = Lived::new(true);
    let places = lived.places();
    let (id, track) = lived.tracks.iter().find(|(_, track)| track.len() >= 150_000).expect("a large one");
    let (path, offset) = &places[id];
    overwrite(path, offset + 4096 + 65_536 + 5, b"rot");
    let report = lived.salvages_all_but(lived.path(), &BTreeSet::from([*id]));
    assert_eq!((report.damaged, report.damaged_intact_bytes), (1, track.len() as u64 - 65_496), "{report:?}");
    assert_eq!((report.findings[0].id, report.findings[0].offset), (Some(*id), *offset));
}

#[test]
fn what_was_taken_down_stays_so_unless_it_is_asked_for() {
    // The takedown stands in one segment, a copy of the track from before in another.
    let (dir, config) = volume_dir();
    let track = audio(1, 5000);
    let id = TrackId::of(&track);
    let before = dir.path().join("before");
    run(async {
        let (volume, _) = open(&config).await;
        put(&volume, &track).await.expect("puts");
        std::fs::copy(&segments(dir.path())[0], &before).expect("copies");
        volume.take_down(&id, 3).await.expect("takes down");
        volume.close().await;
    });
    std::fs::rename(&before, dir.path().join("segments/0000000077.segment")).expect("renames");
    let (report, sink) = salvaged(dir.path());
    assert_eq!((report.salvaged, report.taken_down, sink.kept.len()), (0, 1, 0), "{report:?}");
    let mut sink = Memory::default();
    let options = SalvageOptions { taken_down_too: true };
    offline::salvage(dir.path(), options, &mut sink, &mut |_| {}, &mut |_| {}).expect("salvages");
    assert_eq!(sink.kept.keys().copied().collect::<Vec<_>>(), [id]);
}

#[test]
fn second_records_are_copied_once_and_stand_in_for_damaged_ones() {
    let lived = Lived::new(true);
    let twin = Lived::new(true);
    let target = lived.path().join("segments/0000000077.segment");
    std::fs::copy(&segments(lived.path())[0], &target).expect("copies");
    let report = lived.salvages_all_but(lived.path(), &none());
    assert!(report.duplicates > 0, "{report:?}");
    drop(twin);
    let places = lived.places();
    let (_, (_, offset)) = places.iter().find(|(_, (path, _))| *path == target).expect("a track in it");
    overwrite(&segments(lived.path())[0], offset + 4096, &[0xff; 512]);
    let report = lived.salvages_all_but(lived.path(), &none());
    assert_eq!(report.damaged, 0, "its twin is whole: {report:?}");
}
