//! Takedowns win, for ever.

use deadwax_engine::{ErrorKind, Presence};
use deadwax_track::{MIB, TrackId};

use super::*;

#[test]
fn a_takedown_erases_bars_and_survives() {
    let (dir, config) = volume_dir();
    let (track, other) = (audio(1, 3 * MIB), audio(2, 1000));
    let (id, never) = (TrackId::of(&track), TrackId::of(b"never stored"));
    run(async {
        let (volume, _) = open(&config).await;
        put(&volume, &track).await.expect("puts");
        put(&volume, &other).await.expect("puts");
        let mut reader = volume.read(&id, None).await.expect("reads");
        assert!(reader.next().await.expect("a block").is_ok());
        assert_eq!(volume.take_down(&id, 41).await.expect("takes down"), 41);
        assert_eq!(volume.take_down(&id, 42).await.expect("again"), 41);
        assert_eq!(volume.take_down(&never, 43).await.expect("takes down"), 43);
        let cut = reader.next().await.expect("an error").err().expect("no more bytes");
        assert_eq!(cut.kind(), ErrorKind::TakenDown);
        assert!(reader.next().await.is_none());
        for id in [id, never] {
            assert!(matches!(volume.presence(&id).await.expect("looks up"), Presence::TakenDown { .. }));
            assert_eq!(get_range(&volume, &id, 0, 1).await.expect_err("gone").kind(), ErrorKind::TakenDown);
            assert_eq!(volume.info(&id).await.expect_err("gone").kind(), ErrorKind::TakenDown);
        }
        assert_eq!(put(&volume, &track).await.expect_err("barred").kind(), ErrorKind::TakenDown);
        volume.close().await;
        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.tracks, recovery.takedowns), (1, 2));
        assert_eq!(volume.presence(&id).await.expect("looks up"), Presence::TakenDown { number: 41 });
        assert_eq!(put(&volume, &track).await.expect_err("barred").kind(), ErrorKind::TakenDown);
        assert_whole(&volume, &other).await;
    });
    // The bytes are off the drive.
    let segment = std::fs::read(&segments(dir.path())[0]).expect("reads");
    assert!(!segment.windows(64).any(|window| window == &track[..64] || window == &track[1 << 20..(1 << 20) + 64]));
}

#[test]
fn a_takedown_during_a_put_wins() {
    let (_dir, config) = volume_dir();
    run(async {
        let (volume, _) = open(&config).await;
        let track = audio(1, 2 * MIB);
        let id = TrackId::of(&track);
        let mut writer = volume.put(id, 2 * MIB, &tags("x")).await.expect("begins");
        writer.write(&track).await.expect("takes");
        volume.take_down(&id, 5).await.expect("takes down");
        assert_eq!(writer.finish().await.expect_err("barred").kind(), ErrorKind::TakenDown);
        assert_eq!(volume.presence(&id).await.expect("looks up"), Presence::TakenDown { number: 5 });
    });
}

#[test]
fn a_record_that_comes_back_after_its_takedown_is_erased_again() {
    let (dir, config) = volume_dir();
    let track = audio(1, 100_000);
    let id = TrackId::of(&track);
    let path = || segments(dir.path()).remove(0);
    run(async {
        let (volume, _) = open(&config).await;
        put(&volume, &track).await.expect("puts");
        volume.close().await;
    });
    let before = std::fs::read(path()).expect("reads");
    run(async {
        let (volume, _) = open(&config).await;
        volume.take_down(&id, 5).await.expect("takes down");
        volume.close().await;
    });
    // The hole was punched, and the power went before it was on the drive.
    overwrite(&path(), 4096, &before[4096..4096 + 106_496]);
    run(async {
        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.tracks, recovery.takedowns), (0, 1));
        assert_eq!(volume.presence(&id).await.expect("looks up"), Presence::TakenDown { number: 5 });
        volume.close().await;
    });
    assert_eq!(find(&path(), &track[..64]), None);
}
