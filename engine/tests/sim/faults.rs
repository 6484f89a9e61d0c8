//! Drives that fail and lie: errors are values, and no wrong byte is ever shown.

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use deadwax_engine::sim::lives::{DIRECTORY, Plan, Story, audio, compare, config, formatted, put};
use deadwax_engine::sim::{Life, SimFaults, SimSettings, segments_of};
use deadwax_engine::{ErrorKind, Host as _, Presence, Volume};
use deadwax_track::{KIB, TrackId};

use super::{replays, scale, seeds};

/// How many seeds are tried of each kind of fault.
const SEEDS: u64 = 60;
/// How many lives a drive has.
const LIVES: u64 = 12;
/// The most operations of a life.
const OPERATIONS_A_LIFE_MAX: u64 = 150;

/// What was seen of one kind of fault, over all seeds.
#[derive(Default, Debug)]
struct Seen {
    operations: AtomicU64,
    lives: AtomicU64,
    not_opened: AtomicU64,
    /// Tracks that were acknowledged, and how they read at the end.
    whole: AtomicU64,
    reported: AtomicU64,
    missing: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// Lives of one drive with faults, each with other odds.
fn live(story: &mut Story, faults: impl Fn(u32) -> SimFaults, seen: &Seen) {
    for _ in 0..LIVES {
        let dice = &mut story.dice;
        let operations = 1 + dice.roll(OPERATIONS_A_LIFE_MAX);
        let cut_after = (dice.roll(2) == 0).then(|| 1 + dice.roll(2 * operations));
        let plan =
            Plan { shards: 1, lanes: 1 + dice.roll(4), operations, cut_after, close: dice.roll(2) == 0, faulty: true };
        let often = [0, 500, 5000, 50_000][dice.index(4)];
        story.disk.settings().faults = faults(often);
        let opened = Cell::new(true);
        if replays().is_some() {
            story.disk.record(Path::new(DIRECTORY));
        }
        let life = story.run(plan, |outcome| {
            let allowed = [ErrorKind::Io, ErrorKind::Corrupt, ErrorKind::Foreign];
            if let Err(error) = outcome {
                assert!(allowed.contains(&error.kind()), "does not open: {error}");
                opened.set(false);
            }
        });
        if replays().is_some() {
            eprintln!("LIFE {:?} {}\n", life, story.disk.recorded());
        }
        assert!(!matches!(life, Life::Stuck), "it waits for what never comes");
        add(&seen.lives, 1);
        add(&seen.not_opened, u64::from(!opened.get()));
        if story.dice.roll(2) == 0 {
            story.disk.lose_power();
        }
    }
    add(&seen.operations, story.operations.get());
    let mut settings = story.disk.settings();
    settings.faults = SimFaults::default();
    settings.cut_at = None;
}

/// Reads every track that was acknowledged: whole, or with an error that says what is wrong.
fn read_all(story: &mut Story, seen: &Seen) {
    let (config, oracle) = (story.config.clone(), story.oracle.borrow().clone());
    let life = story.disk.run(|host| async move {
        let Ok((volume, _)) = Volume::open(host, config).await else { return };
        for (id, known) in oracle.tracks.iter().filter(|(_, known)| known.is_present()) {
            match compare(&volume, id, &known.bytes, 0, known.bytes.len()).await {
                Ok(()) => add(&seen.whole, 1),
                Err(error) if error.kind() == ErrorKind::NotFound => add(&seen.missing, 1),
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Io), "{id}: {error}");
                    add(&seen.reported, 1);
                }
            }
        }
    });
    assert!(matches!(life, Life::Ended(())), "{life:?}");
}

/// Whether enough seeds were run.
fn enough(started: &AtomicU64) -> bool {
    started.fetch_add(1, Ordering::Relaxed) >= SEEDS * scale()
}

#[test]
fn a_drive_that_refuses_operations_loses_nothing_that_was_acknowledged() {
    let (seen, started) = (Seen::default(), AtomicU64::new(0));
    let story = |seed| {
        let mut story = Story::new(seed);
        let faults = |often| SimFaults {
            read_errors: often,
            write_errors: often,
            flush_errors: often,
            punch_errors: often,
            open_errors: often,
            look_errors: often,
            name_errors: often,
            short_writes: often,
            no_space: often,
            slow: often / 10,
            ..SimFaults::default()
        };
        live(&mut story, faults, &seen);
        let plan = Plan { shards: 1, lanes: 1, operations: 20, cut_after: None, close: true, faulty: false };
        let life = story.run(plan, |opened| drop(opened.expect("opens, now that the drive works")));
        assert!(matches!(life, Life::Ended(())), "{life:?}");
        read_all(&mut story, &seen);
    };
    seeds("errors", story, || enough(&started));
    println!("{seen:?}");
    assert_eq!((seen.reported.into_inner(), seen.missing.into_inner()), (0, 0));
    assert!(seen.whole.into_inner() > 0);
}

#[test]
fn bits_that_flip_are_found_and_never_shown() {
    let (seen, started) = (Seen::default(), AtomicU64::new(0));
    let story = |seed| {
        let mut story = Story::new(seed);
        live(&mut story, |often| SimFaults { bit_flips: often, ..SimFaults::default() }, &seen);
        read_all(&mut story, &seen);
    };
    seeds("bit flips", story, || enough(&started));
    println!("{seen:?}");
    assert!(seen.reported.into_inner() > 0 && seen.whole.into_inner() > 0);
}

#[test]
fn a_drive_that_lies_about_writes_never_shows_a_wrong_byte() {
    let (seen, started) = (Seen::default(), AtomicU64::new(0));
    let story = |seed| {
        let mut story = Story::new(seed);
        let faults = |often| SimFaults { misdirected_writes: often, dropped_writes: often, ..SimFaults::default() };
        live(&mut story, faults, &seen);
        read_all(&mut story, &seen);
    };
    seeds("lies", story, || enough(&started));
    println!("{seen:?}");
    assert!(seen.whole.into_inner() > 0);
}

#[test]
fn no_put_is_acknowledged_into_a_segment_whose_name_is_gone() {
    for seed in 1..=SEEDS {
        let mut disk = formatted(SimSettings::new(seed));
        let life = disk.run(|host| async move {
            let (volume, _) = Volume::open(host.clone(), config(512 * KIB)).await.expect("opens");
            put(&volume, &audio(1, 10 * KIB)).await.expect("puts");
            let (other, late) = (volume.clone(), audio(2, 20 * KIB));
            // Under way when the file goes: stored before, or refused.
            let under_way = host.task(async move { put(&other, &late).await });
            let segment = segments_of(Path::new(DIRECTORY)).join("0000000000.segment");
            host.remove(&segment).await.expect("removes");
            drop(under_way.await);
            let error = put(&volume, &audio(3, 10 * KIB)).await.expect_err("it would be lost");
            assert_eq!(error.kind(), ErrorKind::Fenced, "seed {seed}: {error}");
            volume.close().await;

            let (volume, recovery) = Volume::open(host, config(512 * KIB)).await.expect("opens");
            assert_eq!((recovery.tracks, recovery.damaged), (0, 0), "seed {seed}");
            let gone = TrackId::of(&audio(1, 10 * KIB));
            assert_eq!(volume.presence(&gone).await.expect("looks"), Presence::Absent, "seed {seed}");
            put(&volume, &audio(3, 10 * KIB)).await.expect("puts");
            volume.close().await;
        });
        assert!(matches!(life, Life::Ended(())), "seed {seed}: {life:?}");
    }
}
