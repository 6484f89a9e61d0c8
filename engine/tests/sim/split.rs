//! A volume that is split over another number of handles at each start: it agrees with a map, and frees the segments of
//! earlier splits, on drives that refuse operations too.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadwax_engine::sim::lives::{DIRECTORY, Known, Oracle, audio, compare, config, formatted, put};
use deadwax_engine::sim::{Dice, Life, SimDisk, SimFaults, SimHost, SimSettings};
use deadwax_engine::{Error, ErrorKind, Host as _, Recovery, Volume, VolumeConfig};
use deadwax_track::{KIB, TrackId};

use super::{replays, scale, seeds};

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
) -> Result<(Vec<Volume<SimHost>>, Vec<Recovery>), Error> {
    let mut opening = Vec::new();
    for shard in 0..shards {
        let config = VolumeConfig { shard, shards, ..config(segment_bytes) };
        opening.push(host.task(Volume::open(host.clone(), config)));
        host.sleep(Duration::from_micros(dice.roll(8000))).await;
    }
    let mut opened = (Vec::new(), Vec::new());
    for handle in opening {
        opened.extend([handle.await?]);
    }
    Ok(opened)
}

#[test]
fn segments_of_another_number_of_shards_are_freed() {
    for (before, after) in [(1, 2), (1, 3), (2, 1), (3, 2)] {
        let mut disk = formatted(SimSettings::new(1));
        let tracks: Vec<_> = (0..120).map(|seed| audio(seed, if seed % 30 == 0 { 100 } else { 40 * KIB })).collect();
        let stored = tracks.clone();
        let life = disk.run(|host| async move {
            let (volumes, _) = open_split(&host, 1024 * KIB, before, &mut Dice::new(1)).await.expect("opens");
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
            let (volumes, _) = open_split(&host, 1024 * KIB, after, &mut Dice::new(2)).await.expect("opens");
            for volume in volumes {
                volume.close().await;
            }
            let (volumes, _) = open_split(&host, 1024 * KIB, after, &mut Dice::new(2)).await.expect("opens");
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
            let (volumes, recovery) = open_split(&host, 1024 * KIB, 1, &mut Dice::new(3)).await.expect("opens");
            assert_eq!((recovery[0].tracks, recovery[0].damaged), (4, 0));
            for track in tracks.iter().step_by(30) {
                compare(&volumes[0], &TrackId::of(track), track, 0, track.len()).await.expect("reads");
            }
        });
        assert!(matches!(life, Life::Ended(())), "{life:?}");
    }
}

type Shared = Rc<RefCell<Oracle>>;

/// What tasks do to the volumes, and what the oracle hears of it.
#[derive(Clone)]
struct World {
    oracle: Shared,
    /// Whether the drive refuses operations in this life.
    faulty: bool,
    /// How many operations were answered with an error.
    refused: Rc<Cell<u64>>,
}

impl World {
    /// What an operation answered. After an error, all may be that could be while it went on.
    fn answered<T>(&self, outcome: Result<T, Error>) -> Option<T> {
        if let Err(error) = &outcome {
            let kinds = [ErrorKind::Io, ErrorKind::Corrupt, ErrorKind::Fenced, ErrorKind::NotFound];
            assert!(self.faulty && kinds.contains(&error.kind()), "on a drive that works: {error}");
            self.refused.set(self.refused.get() + 1);
        }
        outcome.ok()
    }

    async fn store(self, volume: Volume<SimHost>, bytes: Rc<[u8]>) {
        let id = TrackId::of(&bytes);
        let known = Known { present: true, ..Known::absent(bytes.clone()) };
        self.oracle.borrow_mut().tracks.insert(id, known);
        if self.answered(put(&volume, &bytes).await).is_some() {
            self.oracle.borrow_mut().known(&id).set_present();
        }
    }

    async fn delete(self, volume: Volume<SimHost>, id: TrackId) {
        self.oracle.borrow_mut().known(&id).absent = true;
        if self.answered(volume.delete(&id).await).is_some() {
            self.oracle.borrow_mut().known(&id).set_absent();
        }
    }

    /// Its record is one block: nothing is left of it from the moment at which a move erases its header.
    async fn take_down(self, volume: Volume<SimHost>, id: TrackId, number: u64) {
        self.oracle.borrow_mut().known(&id).barred.insert(number);
        if let Some(recorded) = self.answered(volume.take_down(&id, number).await) {
            assert_eq!(recorded, number, "{id} was never taken down before");
            self.oracle.borrow_mut().known(&id).set_barred(number);
        }
    }
}

/// One life of a volume that is split over `shards`: it holds what it must, loses most of that, and gets other tracks.
async fn split_life(host: SimHost, world: World, shards: usize, seed: u64, cut_after: Option<u64>) {
    let mut dice = Dice::new(seed);
    let opened = open_split(&host, 256 * KIB, shards, &mut dice).await;
    let Some((volumes, recovery)) = world.answered(opened) else { return };
    if !world.faulty {
        let mut settled = world.oracle.borrow().clone();
        let found = settled.settle(&volumes).await;
        let counted = recovery
            .iter()
            .fold((0, 0, 0), |sum, one| (sum.0 + one.tracks, sum.1 + one.takedowns, sum.2 + one.damaged));
        assert_eq!(counted, (found.0, found.1, 0));
        *world.oracle.borrow_mut() = settled;
    }
    if let Some(operations) = cut_after {
        host.cut_after(operations);
    }
    let volume_of = |id: &TrackId| volumes[id.shard(shards)].clone();
    let present: Vec<_> =
        world.oracle.borrow().tracks.iter().filter(|(_, known)| known.is_present()).map(|(id, _)| *id).collect();
    let doomed = present.into_iter().filter(|_| dice.roll(10) > 0).collect::<Vec<_>>();
    let mut tasks = Vec::new();
    for id in doomed {
        if dice.roll(12) == 0 {
            tasks.push(host.task(world.clone().take_down(volume_of(&id), id, dice.number())));
        } else {
            tasks.push(host.task(world.clone().delete(volume_of(&id), id)));
        }
        if dice.roll(3) == 0 {
            let bytes: Rc<[u8]> = audio(dice.number(), 1 + dice.roll(40 * KIB)).into();
            tasks.push(host.task(world.clone().store(volume_of(&TrackId::of(&bytes)), bytes)));
        }
    }
    for _ in 0..25 {
        let bytes: Rc<[u8]> = audio(dice.number(), 1 + dice.roll(40 * KIB)).into();
        tasks.push(host.task(world.clone().store(volume_of(&TrackId::of(&bytes)), bytes)));
    }
    for task in tasks {
        task.await;
    }
    for volume in &volumes {
        world.answered(volume.compact().await);
    }
    for volume in volumes {
        volume.close().await;
    }
}

/// A drive that refuses some of what it is asked for.
fn refusals(dice: &mut Dice) -> SimFaults {
    let often = [500, 3000, 20_000][dice.index(3)];
    SimFaults {
        read_errors: often,
        write_errors: often,
        flush_errors: often,
        name_errors: often,
        punch_errors: often,
        open_errors: often,
        look_errors: 10 * often,
        short_writes: often,
        ..SimFaults::default()
    }
}

/// What all stories together came to.
#[derive(Default, Debug)]
struct Seen {
    /// Segments that were made for another split than the one that freed them.
    freed: AtomicU64,
    takedowns: AtomicU64,
    refused: AtomicU64,
}

fn story(seed: u64, seen: &Seen) {
    const LIVES: u64 = 12;
    let (mut disk, mut dice, oracle) = (formatted(SimSettings::new(seed)), Dice::new(seed), Shared::default());
    let refused = Rc::new(Cell::new(0));
    // By how many shards each file was made.
    let mut made: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for _ in 0..LIVES {
        let shards = 1 + dice.index(3);
        disk.settings().cut_at = (dice.roll(4) == 0).then(|| 1 + dice.roll(150));
        let cut_after = (dice.roll(2) == 0).then(|| 1 + dice.roll(800));
        let faulty = seed.is_multiple_of(3) && dice.roll(2) == 0;
        disk.settings().faults = if faulty { refusals(&mut dice) } else { SimFaults::default() };
        let world = World { oracle: oracle.clone(), faulty, refused: refused.clone() };
        let seed = dice.number();
        if replays().is_some() {
            disk.record(Path::new(DIRECTORY));
        }
        let life = disk.run(|host| split_life(host, world, shards, seed, cut_after));
        if replays().is_some() {
            eprintln!("LIFE of {shards} shards, {faulty} faults, {life:?}\n{}", disk.recorded());
        }
        assert!(!matches!(life, Life::Stuck), "it waits for what never comes");
        if dice.roll(2) == 0 {
            disk.lose_power();
        }
        let paths = segments(&disk);
        let gone = made.iter().filter(|(path, by)| **by != shards && !paths.contains(path)).count();
        seen.freed.fetch_add(gone as u64, Ordering::Relaxed);
        made.retain(|path, _| paths.contains(path));
        for path in paths {
            made.entry(path).or_insert(shards);
        }
    }
    let takedowns = oracle.borrow().tracks.values().filter(|known| !known.barred.is_empty()).count();
    seen.takedowns.fetch_add(takedowns as u64, Ordering::Relaxed);
    seen.refused.fetch_add(refused.get(), Ordering::Relaxed);
}

#[test]
fn a_volume_that_is_split_anew_again_and_again_agrees_with_a_map_and_frees_its_segments() {
    const SEEDS: u64 = 200;
    let (started, seen) = (AtomicU64::new(0), Seen::default());
    let enough = || started.fetch_add(1, Ordering::Relaxed) >= SEEDS * scale();
    seeds("split anew", |seed| story(seed, &seen), enough);
    println!("{seen:?}");
    let Seen { freed, takedowns, refused } = seen;
    for (what, count) in [("freed", freed), ("takedowns", takedowns), ("refused", refused)] {
        let count = count.into_inner();
        assert!(replays().is_some() || count > SEEDS, "{what}: {count}");
    }
}
