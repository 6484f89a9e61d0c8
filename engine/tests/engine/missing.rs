//! Segment files that somebody removes, moves or replaces under an open volume: no put is acknowledged that would go with
//! them, the volume says so within some seconds, and opened again it counts what is left.

use std::path::PathBuf;
use std::time::Duration;

use deadwax_engine::{ErrorKind, Presence, VolumeState};

use super::*;

/// Within what time a file that is gone is to be missed.
const MISSED_WITHIN: Duration = Duration::from_secs(5);

/// Waits until the volume is out because of `path`, so that it may be opened again at once.
async fn missed(volume: &Volume<GlommioHost>, path: &Path, how: &str) {
    let open = VolumeState::Open;
    let late = async {
        glommio::timer::sleep(MISSED_WITHIN).await;
        open.clone()
    };
    let state = futures_lite::future::or(volume.state_after(&open), late).await;
    let VolumeState::Hung(why) = state else { panic!("not missed in {MISSED_WITHIN:?}: {state:?}") };
    assert!(why.contains(&path.display().to_string()) && why.contains(how), "{why}");
}

/// Puts tracks until there are two segments; answers the tracks of the first and those of the second.
async fn two_segments(volume: &Volume<GlommioHost>, dir: &Path) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for seed in 0.. {
        let track = audio(seed, 3 * MIB);
        put(volume, &track).await.expect("puts");
        let all = segments(dir);
        if all.len() == 1 {
            first.push(track)
        } else {
            second.push(track)
        }
        if second.len() == 2 {
            break;
        }
    }
    (first, second)
}

async fn are_absent(volume: &Volume<GlommioHost>, tracks: &[Vec<u8>]) {
    for track in tracks {
        assert_eq!(volume.presence(&TrackId::of(track)).await.expect("looks"), Presence::Absent);
    }
}

#[test]
fn no_put_is_acknowledged_into_a_file_that_was_removed() {
    let (dir, config) = volume_dir();
    run(async {
        let (volume, _) = open(&config).await;
        let (stored, after) = (audio(0, 3 * MIB), audio(1, 3 * MIB));
        put(&volume, &stored).await.expect("puts");
        // One is under way meanwhile.
        let mut writer = volume.put(TrackId::of(&after), after.len() as u64, &tags("x")).await.expect("begins");
        writer.write(&after[..after.len() / 3]).await.expect("writes");
        let removed: Vec<PathBuf> = segments(dir.path());
        removed.iter().for_each(|path| std::fs::remove_file(path).expect("removes"));
        writer.write(&after[after.len() / 3..]).await.expect("writes");
        let error = writer.finish().await.expect_err("it would be lost");
        assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
        missed(&volume, &removed[0], "was removed").await;
        assert_eq!(put(&volume, &audio(2, 1_000)).await.expect_err("out").kind(), ErrorKind::Fenced);
        volume.close().await;

        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.tracks, recovery.damaged), (0, 0), "{recovery:?}");
        are_absent(&volume, &[stored.clone(), after.clone()]).await;
        for track in [&stored, &after] {
            put(&volume, track).await.expect("puts");
            assert_whole(&volume, track).await;
        }
        volume.close().await;
        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.tracks, volume.state()), (2, VolumeState::Open));
    });
}

#[test]
fn a_sealed_segment_that_is_removed_is_missed_though_nobody_asks_for_its_tracks() {
    let (dir, config) = volume_dir();
    run(async {
        let (volume, _) = open(&config).await;
        let (first, second) = two_segments(&volume, dir.path()).await;
        let removed = segments(dir.path()).remove(0);
        std::fs::remove_file(&removed).expect("removes");
        missed(&volume, &removed, "was removed").await;
        volume.close().await;

        let (volume, recovery) = open(&config).await;
        assert_eq!(recovery.tracks, second.len() as u64, "{recovery:?}");
        are_absent(&volume, &first).await;
        for track in &second {
            assert_whole(&volume, track).await;
        }
        // They come back from other copies.
        for track in &first {
            put(&volume, track).await.expect("puts");
        }
        volume.close().await;
        let (volume, _) = open(&config).await;
        assert_eq!(volume.usage().tracks, (first.len() + second.len()) as u64);
    });
}

#[test]
fn a_segment_that_is_moved_away_or_replaced_by_a_copy_is_missed() {
    for replaced in [false, true] {
        let (dir, config) = volume_dir();
        run(async {
            let (volume, _) = open(&config).await;
            let track = audio(0, 3 * MIB);
            put(&volume, &track).await.expect("puts");
            let segment = segments(dir.path()).remove(0);
            let away = dir.path().join("away");
            if replaced {
                std::fs::copy(&segment, &away).expect("copies");
                std::fs::rename(&away, &segment).expect("renames");
                missed(&volume, &segment, "was replaced").await;
            } else {
                std::fs::rename(&segment, &away).expect("renames");
                missed(&volume, &segment, "was removed or moved").await;
                std::fs::rename(&away, &segment).expect("renames");
            }
            volume.close().await;
            let (volume, recovery) = open(&config).await;
            assert_eq!((recovery.tracks, recovery.damaged), (1, 0), "what is there counts");
            assert_whole(&volume, &track).await;
        });
    }
}

#[test]
fn a_volume_that_removes_its_own_segments_misses_none() {
    let (dir, config) = volume_dir();
    run(async {
        let (volume, _) = open(&config).await;
        let (first, second) = two_segments(&volume, dir.path()).await;
        for track in &first {
            volume.delete(&TrackId::of(track)).await.expect("deletes");
        }
        volume.compact().await.expect("compacts");
        assert_eq!(segments(dir.path()).len(), 1, "the hollow one is gone");
        glommio::timer::sleep(Duration::from_secs(3)).await;
        assert_eq!(volume.state(), VolumeState::Open);
        for track in &second {
            assert_whole(&volume, track).await;
        }
    });
}
