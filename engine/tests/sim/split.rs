//! A volume that is split over another number of handles at each start: it agrees with a map, and frees the segments of
//! earlier splits.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadwax_engine::sim::lives::{Known, Oracle, audio, compare, config, formatted, put};
use deadwax_engine::sim::{Dice, Life, SimDisk, SimHost, SimSettings};
use deadwax_engine::{Host as _, Recovery, Volume, VolumeConfig};
use deadwax_track::{KIB, TrackId};

use super::{scale, seeds};

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let paths = disk.paths().into_iter();
    paths.filter(|path| path.extension().is_some_and(|kind| kind == "segment")).collect()
}

/// Opens the volume's handles, each a while after the one before it, so that the first is at work when the last comes.
async fn open_split(
    host: &SimHost,
    segment_bytes: u64,
    shards: usize,
    dice: &mut Dice,
) -> (Vec<Volume<SimHost>>, Vec<Recovery>) {
    let mut opening = Vec::new();
    for shard in 0..shards {
        let config = VolumeConfig { shard, shards, ..config(segment_bytes) };
        opening.push(host.task(Volume::open(host.clone(), config)));
        host.sleep(Duration::from_micros(dice.roll(8000))).await;
    }
    let mut opened = (Vec::new(), Vec::new());
    for handle in opening {
        opened.extend([handle.await.expect("opens")]);
    }
    opened
}

#[test]
fn segments_of_another_number_of_shards_are_freed() {
    for (before, after) in [(1, 2), (1, 3), (2, 1), (3, 2)] {
        let mut disk = formatted(SimSettings::new(1));
        let tracks: Vec<_> = (0..120).map(|seed| audio(seed, if seed % 30 == 0 { 100 } else { 40 * KIB })).collect();
        let stored = tracks.clone();
        let life = disk.run(|host| async move {
            let (volumes, _) = open_split(&host, 1024 * KIB, before, &mut Dice::new(1)).await;
            for track in &stored {
                put(&volumes[TrackId::of(track).shard(before)], track).await.expect("puts");
            }
            for volume in volumes {
                volume.close().await;
            }
        });
        assert!(matches!(life, Life::Ended(())), "{life:?}");
        let (old, stored) = (segments(&disk), tracks.clone());
        let life = disk.run(|host| async move {
            // Those that were open are sealed by the first start, and known so by all handles from the second on.
            for volume in open_split(&host, 1024 * KIB, after, &mut Dice::new(2)).await.0 {
                volume.close().await;
            }
            let (volumes, _) = open_split(&host, 1024 * KIB, after, &mut Dice::new(2)).await;
            for (number, track) in stored.iter().enumerate().filter(|(number, _)| number % 30 > 0) {
                let deleted = volumes[TrackId::of(track).shard(after)].delete(&TrackId::of(track)).await;
                deleted.unwrap_or_else(|error| panic!("track {number}: {error}"));
            }
            // Whoever removes a file may have come before the last handle let go of it.
            for _ in 0..2 {
                for volume in &volumes {
                    volume.compact().await.expect("compacts");
                }
            }
            for volume in volumes {
                let scrubbed = volume.scrub_pass(1 << 40).await.expect("scrubs");
                assert_eq!((scrubbed.damaged, scrubbed.files_damaged), (0, 0));
                volume.close().await;
            }
        });
        assert!(matches!(life, Life::Ended(())), "{life:?}");
        let left: Vec<_> = segments(&disk).into_iter().filter(|path| old.contains(path)).collect();
        assert!(left.is_empty(), "{left:?}, made by {before}, not freed by {after}");
        let life = disk.run(|host| async move {
            let (volumes, recovery) = open_split(&host, 1024 * KIB, 1, &mut Dice::new(3)).await;
            assert_eq!((recovery[0].tracks, recovery[0].damaged), (4, 0));
            for track in tracks.iter().step_by(30) {
                compare(&volumes[0], &TrackId::of(track), track, 0, track.len()).await.expect("reads");
            }
        });
        assert!(matches!(life, Life::Ended(())), "{life:?}");
    }
}

type Shared = Rc<RefCell<Oracle>>;

async fn store(volume: Volume<SimHost>, oracle: Shared, bytes: Rc<[u8]>) {
    let id = TrackId::of(&bytes);
    let known = Known { present: true, ..Known::absent(bytes.clone()) };
    oracle.borrow_mut().tracks.insert(id, known);
    put(&volume, &bytes).await.expect("puts");
    oracle.borrow_mut().known(&id).set_present();
}

async fn delete(volume: Volume<SimHost>, oracle: Shared, id: TrackId) {
    oracle.borrow_mut().known(&id).absent = true;
    volume.delete(&id).await.expect("deletes");
    oracle.borrow_mut().known(&id).set_absent();
}

/// One life of a volume that is split over `shards`: it holds what it must, loses most of that, and gets other tracks.
async fn split_life(host: SimHost, oracle: Shared, shards: usize, seed: u64, cut_after: Option<u64>) {
    let mut dice = Dice::new(seed);
    let (volumes, recovery) = open_split(&host, 256 * KIB, shards, &mut dice).await;
    let mut settled = oracle.borrow().clone();
    let found = settled.settle(&volumes).await;
    let counted = recovery.iter().fold((0, 0, 0), |sum, one| (sum.0 + one.tracks, sum.1, sum.2 + one.damaged));
    assert_eq!(counted, (found.0, found.1, 0));
    *oracle.borrow_mut() = settled;
    if let Some(operations) = cut_after {
        host.cut_after(operations);
    }
    let present: Vec<_> =
        oracle.borrow().tracks.iter().filter(|(_, known)| known.is_present()).map(|(id, _)| *id).collect();
    let doomed = present.into_iter().filter(|_| dice.roll(10) > 0).collect::<Vec<_>>();
    let mut tasks = Vec::new();
    for id in doomed {
        tasks.push(host.task(delete(volumes[id.shard(shards)].clone(), oracle.clone(), id)));
        if dice.roll(3) == 0 {
            let bytes: Rc<[u8]> = audio(dice.number(), 1 + dice.roll(40 * KIB)).into();
            let volume = volumes[TrackId::of(&bytes).shard(shards)].clone();
            tasks.push(host.task(store(volume, oracle.clone(), bytes)));
        }
    }
    for _ in 0..25 {
        let bytes: Rc<[u8]> = audio(dice.number(), 1 + dice.roll(40 * KIB)).into();
        let volume = volumes[TrackId::of(&bytes).shard(shards)].clone();
        tasks.push(host.task(store(volume, oracle.clone(), bytes)));
    }
    for task in tasks {
        task.await;
    }
    for volume in &volumes {
        volume.compact().await.expect("compacts");
    }
    for volume in volumes {
        volume.close().await;
    }
}

#[test]
fn a_volume_that_is_split_anew_again_and_again_agrees_with_a_map_and_frees_its_segments() {
    const SEEDS: u64 = 40;
    const LIVES: u64 = 12;
    let (started, freed) = (AtomicU64::new(0), AtomicU64::new(0));
    let story = |seed| {
        let (mut disk, mut dice, oracle) = (formatted(SimSettings::new(seed)), Dice::new(seed), Shared::default());
        // By how many shards each file was made.
        let mut made: BTreeMap<PathBuf, usize> = BTreeMap::new();
        for _ in 0..LIVES {
            let shards = 1 + dice.index(3);
            disk.settings().cut_at = (dice.roll(4) == 0).then(|| 1 + dice.roll(150));
            let cut_after = (dice.roll(2) == 0).then(|| 1 + dice.roll(800));
            let (known, seed) = (oracle.clone(), dice.number());
            let life = disk.run(|host| split_life(host, known, shards, seed, cut_after));
            assert!(!matches!(life, Life::Stuck), "it waits for what never comes");
            if dice.roll(2) == 0 {
                disk.lose_power();
            }
            let paths = segments(&disk);
            let gone = made.iter().filter(|(path, by)| **by != shards && !paths.contains(path)).count();
            freed.fetch_add(gone as u64, Ordering::Relaxed);
            made.retain(|path, _| paths.contains(path));
            for path in paths {
                made.entry(path).or_insert(shards);
            }
        }
    };
    seeds("split anew", story, || started.fetch_add(1, Ordering::Relaxed) >= SEEDS * scale());
    let freed = freed.into_inner();
    println!("{freed} segments of other splits were freed");
    assert!(freed > SEEDS, "{freed} segments of other splits were freed");
}
