//! A drive that hangs, crawls, fails all over or vanishes is given up within 5 s, and the others serve on. Time is the
//! scripted host's: the real drive takes none of it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use deadwax_engine::{ErrorKind, VolumeState};
use deadwax_track::{KIB, MIB, TrackId};

use super::host::{Op, ScriptedHost};
use super::*;

/// Within what time a drive is to be given up.
const FENCED_WITHIN: Duration = Duration::from_secs(5);
/// What may be wrong with a drive for a while; all else is wrong until somebody mends it.
const MAY_PASS: [&str; 3] = ["hangs", "a write has been at the drive", "too slow"];
const EIO: i32 = 5;
const ENODEV: i32 = 19;

type Answers = Rc<RefCell<Vec<Result<(), Error>>>>;

/// Runs a request as a task of its own; its answer goes to `answers`.
fn ask(answers: &Answers, request: impl Future<Output = Result<(), Error>> + 'static) {
    let answers = answers.clone();
    glommio::spawn_local(async move {
        let answer = request.await;
        answers.borrow_mut().push(answer);
    })
    .detach();
}

fn out(volume: &Volume<ScriptedHost>) -> Option<String> {
    match volume.state() {
        VolumeState::Out(why) | VolumeState::Hung(why) => Some(why),
        _ => None,
    }
}

/// Lets time pass until the volume is out; answers why, which must contain `word`.
async fn fenced_in_time(host: &ScriptedHost, volume: &Volume<ScriptedHost>, word: &str) -> String {
    let passed = host.pass(Duration::from_secs(60), || out(volume).is_some()).await;
    let why = out(volume).expect("fenced");
    assert!(passed <= FENCED_WITHIN, "fenced only after {passed:?}: {why}");
    assert!(why.contains(word), "{why}");
    let hung = matches!(volume.state(), VolumeState::Hung(_));
    assert_eq!(hung, MAY_PASS.contains(&word), "whether it may be opened again without an operator: {why}");
    why
}

/// Nothing is answered but Fenced, and the reason.
async fn answers_fenced(volume: &Volume<ScriptedHost>, stored: &TrackId, why: &str) {
    let new = audio(1_000, 5_000);
    for error in [
        put(volume, &new).await.expect_err("fenced"),
        get_range(volume, stored, 0, 10).await.expect_err("fenced"),
        volume.info(stored).await.expect_err("fenced"),
        volume.take_down(&TrackId::of(&new), 1).await.expect_err("fenced"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
    assert_eq!(out(volume).as_deref(), Some(why));
}

#[test]
fn a_drive_that_hangs_is_out_within_5_s_and_whoever_waits_is_answered() {
    for hung in
        [vec![Op::Read], vec![Op::Write], vec![Op::Flush], vec![Op::Open, Op::Read, Op::Write, Op::Flush, Op::Names]]
    {
        let ((_dir, config), (_other_dir, other_config)) = (volume_dir(), volume_dir());
        run(async {
            let host = ScriptedHost::with_a_clock();
            let (volume, _) = Volume::open(host.clone(), config.clone()).await.expect("opens");
            let (other, _) = open(&other_config).await;
            let stored = audio(0, 3 * MIB);
            let id = TrackId::of(&stored);
            put(&volume, &stored).await.expect("puts");
            host.pass(Duration::from_secs(30), || false).await;
            assert_eq!(volume.state(), VolumeState::Open, "a drive that does its work");

            host.script.hung.borrow_mut().extend(&hung);
            let answers = Answers::default();
            for seed in 1..=3 {
                let (reader, writer) = (volume.clone(), volume.clone());
                ask(&answers, async move { get_range(&reader, &id, 0, 3 * MIB).await.map(drop) });
                ask(&answers, async move { put(&writer, &audio(seed, 2 * MIB)).await.map(drop) });
            }
            let why = fenced_in_time(&host, &volume, "hangs").await;
            host.pass(Duration::from_millis(50), || false).await;
            assert_eq!(answers.borrow().len(), 6, "nobody waits any more: {hung:?}");
            let kinds =
                answers.borrow().iter().filter_map(|answer| Some(answer.as_ref().err()?.kind())).collect::<Vec<_>>();
            assert!(kinds.iter().all(|kind| *kind == ErrorKind::Fenced) && kinds.len() >= 3, "{hung:?}: {kinds:?}");
            answers_fenced(&volume, &id, &why).await;
            put(&other, &stored).await.expect("the other drive serves on");
            assert_whole(&other, &stored).await;
            volume.close().await;
        });
    }
}

#[test]
fn a_drive_that_hangs_while_it_is_opened_is_given_up_within_5_s() {
    for hung in [Op::Open, Op::Names, Op::Read] {
        let (_dir, config) = volume_dir();
        run(async {
            let host = ScriptedHost::with_a_clock();
            let (volume, _) = Volume::open(host.clone(), config.clone()).await.expect("opens");
            put(&volume, &audio(0, 3 * MIB)).await.expect("puts");
            volume.close().await;
            host.script.hung.borrow_mut().push(hung);
            let (answers, opener) = (Answers::default(), (host.clone(), config.clone()));
            ask(&answers, async move { Volume::open(opener.0, opener.1).await.map(drop) });
            host.pass(FENCED_WITHIN, || !answers.borrow().is_empty()).await;
            let error = answers.borrow_mut().pop().expect("answered in time").expect_err("it hangs");
            assert!(matches!(error, Error::Hung(_)) && error.kind() == ErrorKind::Fenced, "{hung:?}: {error}");
            host.release();
            host.pass(Duration::from_secs(1), || false).await;
            let (volume, _) = Volume::open(host, config.clone()).await.expect("nothing holds it");
            assert_whole(&volume, &audio(0, 3 * MIB)).await;
        });
    }
}

#[test]
fn a_write_that_comes_through_late_does_not_meet_the_reopened_volume() {
    let (_dir, config) = volume_dir();
    run(async {
        let host = ScriptedHost::with_a_clock();
        let (volume, _) = Volume::open(host.clone(), config.clone()).await.expect("opens");
        put(&volume, &audio(0, 3 * MIB)).await.expect("puts");
        host.script.hung.borrow_mut().push(Op::Write);
        let (answers, writer) = (Answers::default(), volume.clone());
        ask(&answers, async move { put(&writer, &audio(1, 2 * MIB)).await.map(drop) });
        fenced_in_time(&host, &volume, "a write has been at the drive").await;
        volume.close().await;
        // The drive may still do it: a record that the reopened volume put there would be lost.
        let locked = Volume::open(GlommioHost::new(), config.clone()).await.err().expect("locked");
        assert_eq!(locked.kind(), ErrorKind::Locked, "{locked}");
        host.release();
        host.pass(Duration::from_secs(1), || false).await;
        let (volume, recovery) = open(&config).await;
        assert_eq!(recovery.tracks, 1, "what was not acknowledged is not there");
        assert_whole(&volume, &audio(0, 3 * MIB)).await;
        put(&volume, &audio(1, 2 * MIB)).await.expect("reopening heals it");
        assert_whole(&volume, &audio(1, 2 * MIB)).await;
    });
}

#[test]
fn a_drive_that_crawls_is_out_within_5_s() {
    for (tasks, delay_ms) in [(1, 1_500), (8, 2_500)] {
        let (_dir, config) = volume_dir();
        run(async {
            let host = ScriptedHost::with_a_clock();
            let (volume, _) = Volume::open(host.clone(), config.clone()).await.expect("opens");
            let stored = audio(0, 100 * KIB);
            let id = TrackId::of(&stored);
            put(&volume, &stored).await.expect("puts");
            host.script.delay.set(Duration::from_millis(delay_ms));
            let answers = Answers::default();
            for _ in 0..tasks {
                let volume = volume.clone();
                ask(&answers, async move {
                    loop {
                        get_range(&volume, &id, 0, 1_000).await?;
                    }
                });
            }
            let why = fenced_in_time(&host, &volume, "too slow").await;
            host.pass(Duration::from_millis(50), || false).await;
            assert_eq!(answers.borrow().len(), tasks, "nobody waits any more");
            answers_fenced(&volume, &id, &why).await;
        });
    }
}

#[test]
fn a_loaded_drive_is_left_alone() {
    let (_dir, config) = volume_dir();
    run(async {
        let host = ScriptedHost::with_a_clock();
        let (volume, _) = Volume::open(host.clone(), config.clone()).await.expect("opens");
        let stored = audio(0, 100 * KIB);
        let id = TrackId::of(&stored);
        put(&volume, &stored).await.expect("puts");
        host.script.delay.set(Duration::from_millis(800));
        let answers = Answers::default();
        for _ in 0..32 {
            let volume = volume.clone();
            ask(&answers, async move {
                loop {
                    get_range(&volume, &id, 0, 1_000).await?;
                }
            });
        }
        host.pass(Duration::from_secs(30), || false).await;
        assert_eq!(volume.state(), VolumeState::Open);
        volume.fence("the test ends");
        host.pass(Duration::from_millis(50), || false).await;
        assert_eq!(answers.borrow().len(), 32);
    });
}

#[test]
fn a_drive_whose_reads_fail_all_over_is_out_and_one_with_a_bad_place_is_not() {
    let (_dir, config) = volume_dir();
    run(async {
        let host = ScriptedHost::with_a_clock();
        let (volume, _) = Volume::open(host.clone(), config.clone()).await.expect("opens");
        let tracks: Vec<_> = (0..5).map(|seed| audio(seed, 2 * MIB)).collect();
        for track in &tracks {
            put(&volume, track).await.expect("puts");
        }
        host.script.fail_reads_in.set(Some((MIB, MIB + 1)));
        for _ in 0..20 {
            let error =
                get_range(&volume, &TrackId::of(&tracks[0]), 0, 2 * MIB).await.map(drop).expect_err("a bad place");
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        }
        host.pass(Duration::from_secs(5), || false).await;
        assert_eq!(volume.state(), VolumeState::Open, "one bad place is a damaged track");
        assert_whole(&volume, &tracks[4]).await;

        host.pass(Duration::from_secs(20), || false).await;
        host.script.fail_reads_in.set(Some((0, u64::MAX)));
        for track in &tracks {
            get_range(&volume, &TrackId::of(track), 0, 10).await.map(drop).expect_err("fails");
        }
        fenced_in_time(&host, &volume, "reads fail in 4 places").await;
    });
}

#[test]
fn an_idle_drive_that_dies_is_out_within_5_s() {
    for (errno, word) in [(EIO, "superblock"), (ENODEV, "the drive is gone")] {
        let (_dir, config) = volume_dir();
        run(async {
            let host = ScriptedHost::with_a_clock();
            let (volume, _) = Volume::open(host.clone(), config.clone()).await.expect("opens");
            host.pass(Duration::from_secs(2), || false).await;
            host.script.errno.set(Some(errno));
            fenced_in_time(&host, &volume, word).await;
            volume.close().await;
        });
    }
}

#[test]
fn a_volume_whose_directory_vanishes_or_is_exchanged_is_out_within_5_s() {
    let identities = [
        (None, "its directory is gone"),
        (
            Some(VolumeIdentity { volume: VolumeId([8; 16]), ..IDENTITY }),
            "another volume is in its directory now: 0808",
        ),
        (Some(VolumeIdentity { node: [1; 32], ..IDENTITY }), "another node's volume is in its directory now"),
    ];
    for (identity, word) in identities {
        let root = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let dir = root.path().join("volume");
        format_volume(&dir, &IDENTITY).expect("formats");
        let config = VolumeConfig { segment_bytes: 16 * MIB, ..VolumeConfig::new(&dir, IDENTITY) };
        run(async {
            let host = ScriptedHost::with_a_clock();
            let (volume, _) = Volume::open(host.clone(), config.clone()).await.expect("opens");
            let track = audio(0, 100 * KIB);
            put(&volume, &track).await.expect("puts");
            host.pass(Duration::from_secs(2), || false).await;
            std::fs::rename(&dir, root.path().join("away")).expect("renames");
            if let Some(identity) = identity {
                format_volume(&dir, &identity).expect("formats");
            }
            let why = fenced_in_time(&host, &volume, word).await;
            answers_fenced(&volume, &TrackId::of(&track), &why).await;
            volume.close().await;
            if identity.is_some() {
                assert!(segments(&dir).is_empty(), "nothing was written to the other volume");
                std::fs::remove_dir_all(&dir).expect("removes");
            }
            std::fs::rename(root.path().join("away"), &dir).expect("renames");
            let (volume, _) = open(&config).await;
            assert_whole(&volume, &track).await;
        });
    }
}

#[test]
fn a_volume_that_another_fences_says_so_to_whoever_asks_what_changed() {
    let (_dir, config) = volume_dir();
    run(async {
        let (volume, _) = open(&config).await;
        let track = audio(0, 100 * KIB);
        put(&volume, &track).await.expect("puts");
        let (first, second) = (volume.clone(), volume.clone());
        let (changed, _) = futures_lite::future::zip(first.state_after(&VolumeState::Open), async move {
            second.fence_writes("another shard's writes fail");
        })
        .await;
        assert_eq!(changed, VolumeState::ReadOnly("another shard's writes fail".to_owned()));
        assert_eq!(put(&volume, &audio(1, 10)).await.expect_err("read-only").kind(), ErrorKind::Fenced);
        assert_whole(&volume, &track).await;
        volume.fence("another shard's drive hangs");
        volume.fence("a second reason is not told");
        volume.fence_writes("nor is a lesser one");
        let known = changed;
        assert_eq!(volume.state_after(&known).await, VolumeState::Out("another shard's drive hangs".to_owned()));
        volume.close().await;
    });
}

#[test]
fn a_volume_without_limits_is_never_given_up() {
    let (_dir, mut config) = volume_dir();
    config.health = None;
    run(async {
        let host = ScriptedHost::with_a_clock();
        let (volume, _) = Volume::open(host.clone(), config.clone()).await.expect("opens");
        host.script.hung.borrow_mut().push(Op::Flush);
        let (answers, writer) = (Answers::default(), volume.clone());
        ask(&answers, async move { put(&writer, &audio(1, 1_000)).await.map(drop) });
        host.pass(Duration::from_secs(60), || false).await;
        assert_eq!((volume.state(), answers.borrow().len()), (VolumeState::Open, 0));
        host.release();
        host.pass(Duration::from_secs(1), || false).await;
        assert!(matches!(answers.borrow()[..], [Ok(())]));
    });
}
