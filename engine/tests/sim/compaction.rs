//! Compaction on a drive that fails in the midst of it, and beside a segment that is damaged.

use std::path::{Path, PathBuf};
use std::time::Duration;

use deadwax_engine::sim::lives::{DIRECTORY, audio, compare, config, formatted, put};
use deadwax_engine::sim::{Fault, Life, Order, SimDisk, SimHost, SimSettings, segments_of};
use deadwax_engine::{ErrorKind, Presence, Volume, VolumeState};
use deadwax_track::{KIB, TrackId};

const SEGMENT_BYTES: u64 = 512 * KIB;
/// So many fill a segment, beside a small track: up to the last block that puts may have.
const FILLING: u64 = 11;
/// How many segments are hollow.
const HOLLOW: u64 = 3;

/// What stays in each of the segments: the first record of each.
fn kept(segment: u64) -> Vec<u8> {
    audio(segment, 100)
}

fn filling(segment: u64, number: u64) -> Vec<u8> {
    // Ten of ten blocks, and one of seven.
    audio(100 * (segment + 1) + number, if number < FILLING - 1 { 36_000 } else { 24_000 })
}

fn path_of(segment: u64) -> PathBuf {
    segments_of(Path::new(DIRECTORY)).join(format!("{segment:010}.segment"))
}

async fn open(host: &SimHost) -> Volume<SimHost> {
    Volume::open(host.clone(), config(SEGMENT_BYTES)).await.expect("opens").0
}

/// Sealed segments of which little is left, and one that is open. The process was killed before any of them was freed.
fn hollow(seed: u64) -> SimDisk {
    let latency = Duration::from_micros(100);
    let mut disk =
        formatted(SimSettings { order: Order::InTurn, latency: (latency, latency), ..SimSettings::new(seed) });
    let life = disk.run(|host| async move {
        let volume = open(&host).await;
        for segment in 0..HOLLOW {
            put(&volume, &kept(segment)).await.expect("puts");
            for number in 0..FILLING {
                put(&volume, &filling(segment, number)).await.expect("puts");
            }
        }
        put(&volume, &audio(99, 40 * KIB)).await.expect("puts in a segment that stays");
        for segment in 0..HOLLOW {
            for number in 1..FILLING {
                volume.delete(&TrackId::of(&filling(segment, number))).await.expect("deletes");
            }
        }
        // The last ones go all at once, and when they are gone, so is the process.
        let deletes = [0, 1, 2].map(|segment| {
            let volume = volume.clone();
            host.task(async move { volume.delete(&TrackId::of(&filling(segment, 0))).await.expect("deletes") })
        });
        for delete in deletes {
            delete.await;
        }
        host.cut_after(1);
        std::future::pending::<()>().await;
    });
    assert!(matches!(life, Life::Cut), "{life:?}");
    assert!((0..=HOLLOW).all(|segment| disk.bytes(&path_of(segment)).is_some()));
    disk
}

/// What a life with a fault came to.
struct Compacted {
    disk: SimDisk,
    /// What the operation asked of the drive that the fault met.
    asked: String,
    /// How the kept tracks read after it.
    kept: Vec<Result<(), ErrorKind>>,
    state: VolumeState,
    /// What came of deleting the kept track of the first segment.
    gone: Option<Result<(), ErrorKind>>,
}

/// Lets the volume free its hollow segments, with `fault` at the operation `at` after it was opened. Nothing where the life
/// has no such operation.
fn compact(seed: u64, at: u64, fault: Fault, delete: bool) -> Option<Compacted> {
    let mut disk = hollow(seed);
    let mut copy = disk.clone();
    assert!(matches!(copy.run(|host| async move { drop(open(&host).await) }), Life::Ended(())));
    let number = copy.operations() + at;
    disk.settings().faults.planned = vec![(number, fault)];
    disk.record(Path::new(DIRECTORY));
    let life = disk.run(|host| async move {
        let volume = open(&host).await;
        // What cannot be moved stays, and holds up nobody.
        drop(volume.compact().await);
        let mut read = Vec::new();
        for segment in 0..HOLLOW {
            let track = kept(segment);
            let outcome = compare(&volume, &TrackId::of(&track), &track, 0, track.len()).await;
            read.push(outcome.map_err(|error| error.kind()));
        }
        let state = volume.state();
        let mut gone = None;
        if delete {
            gone = Some(volume.delete(&TrackId::of(&kept(0))).await.map_err(|error| error.kind()));
        }
        volume.close().await;
        (read, state, gone)
    });
    let trace = disk.recorded();
    disk.settings().faults.planned.clear();
    let number = number.to_string();
    let mut lines = trace.lines().filter_map(|line| line.trim().split_once(' '));
    let asked = lines.find(|(first, what)| *first == number && *what != "done")?.1.split_whitespace();
    let asked = asked.collect::<Vec<_>>().join(" ");
    match life {
        Life::Ended((kept, state, gone)) => Some(Compacted { disk, asked, kept, state, gone }),
        life => panic!("{life:?} at operation {number}: {asked}"),
    }
}

/// Opens the volume once more and looks at what must be there, and what must not.
fn look(compacted: &Compacted, power_lost: bool) {
    let mut disk = compacted.disk.clone();
    if power_lost {
        disk.lose_power();
    }
    let (gone, asked) = (compacted.gone, compacted.asked.clone());
    let life = disk.run(|host| async move {
        let volume = open(&host).await;
        for segment in 0..HOLLOW {
            let track = kept(segment);
            let id = TrackId::of(&track);
            for number in 0..FILLING {
                let presence = volume.presence(&TrackId::of(&filling(segment, number))).await.expect("looks up");
                assert_eq!(presence, Presence::Absent, "what was deleted before is back: {asked}");
            }
            let presence = volume.presence(&id).await.expect("looks up");
            match gone.filter(|_| segment == 0) {
                Some(Ok(())) => assert_eq!(presence, Presence::Absent, "a deleted track is back: {asked}"),
                Some(Err(ErrorKind::Io)) if presence == Presence::Absent => {}
                _ => compare(&volume, &id, &track, 0, track.len()).await.unwrap_or_else(|error| {
                    panic!("a track of segment {segment} is lost: {error}: {asked}");
                }),
            }
        }
        put(&volume, &audio(98, 40 * KIB)).await.expect("puts, now that the drive works");
        volume.close().await;
    });
    assert!(matches!(life, Life::Ended(())), "{life:?}");
}

#[test]
fn an_operation_of_compaction_that_fails_loses_no_track_and_brings_none_back() {
    let mut fenced = 0;
    for at in 1.. {
        let Some(compacted) = compact(1, at, Fault::Error, true) else { break };
        // The first record of the first segment was moved, and its old header stays.
        if compacted.asked == "punch segments/0000000000.segment 4096+4096" {
            assert!(matches!(compacted.state, VolumeState::ReadOnly(_)), "{:?}", compacted.state);
            assert_eq!(compacted.gone, Some(Err(ErrorKind::Fenced)), "it would come back");
            fenced += 1;
        }
        look(&compacted, false);
        look(&compacted, true);
    }
    assert_eq!(fenced, 1, "one operation punches what was moved");
}

#[test]
fn a_footer_that_rots_holds_up_no_other_segment_and_no_reader() {
    let footer = format!("read segments/0000000000.segment {}+", SEGMENT_BYTES - SEGMENT_BYTES / 64);
    let mut rotten = 0;
    // Which bit flips is up to the seed.
    for (seed, at) in (1..=8).flat_map(|seed| (1..20).map(move |at| (seed, at))) {
        let Some(compacted) = compact(seed, at, Fault::BitFlip, false) else { continue };
        if !compacted.asked.starts_with(&footer) {
            continue;
        }
        assert_eq!(compacted.kept, [Ok(()); 3]);
        assert_eq!(compacted.state, VolumeState::Open);
        let there = [0, 1, 2].map(|segment| compacted.disk.bytes(&path_of(segment)).is_some());
        assert_eq!(there[1..], [false; 2], "the others were freed");
        // Behind the listing there is a hole, which has no bits.
        rotten += u64::from(there[0]);
        look(&compacted, false);
        look(&compacted, true);
    }
    assert!(rotten > 0, "compaction reads a footer that rots");
}

#[test]
fn a_start_with_a_rotten_footer_walks_that_segment_and_believes_the_other_footers() {
    for byte in [0, 20, 100, 200] {
        let mut disk = hollow(1);
        disk.flip(&path_of(0), SEGMENT_BYTES - SEGMENT_BYTES / 64 + byte, 3);
        let life = disk.run(|host| async move {
            let (volume, recovery) = Volume::open(host.clone(), config(SEGMENT_BYTES)).await.expect("opens");
            assert_eq!((recovery.tracks, recovery.sealed, recovery.damaged), (HOLLOW + 1, HOLLOW - 1, 0));
            volume.compact().await.expect("compacts");
            for segment in 0..HOLLOW {
                let track = kept(segment);
                compare(&volume, &TrackId::of(&track), &track, 0, track.len()).await.expect("reads");
                for number in 0..FILLING {
                    let deleted = volume.presence(&TrackId::of(&filling(segment, number))).await;
                    assert_eq!(deleted.expect("looks up"), Presence::Absent);
                }
            }
            volume.close().await;
        });
        assert!(matches!(life, Life::Ended(())), "{life:?}");
        // The one that was walked may have a new footer, and be freed too.
        let there = [1, 2].map(|segment| disk.bytes(&path_of(segment)).is_some());
        assert_eq!(there, [false, false], "the others were freed");
    }
}
