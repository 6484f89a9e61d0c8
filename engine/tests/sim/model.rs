//! Random lives of a volume: operations from several tasks, crashes at every device operation, and the map that is always right.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use deadwax_engine::sim::{Dice, Life, SimDisk, SimHost, SimSettings};
use deadwax_engine::{Error, Recovery, Volume, VolumeConfig};
use deadwax_track::{KIB, MIB};

use super::oracle::Oracle;
use super::world::World;
use super::{DIRECTORY, config, formatted};

/// How many operations and crashes a regular run has at least. `DEADWAX_SIM_SCALE` multiplies both.
const OPERATIONS_MIN: u64 = 1_000_000;
const CRASHES_MIN: u64 = 10_000;
/// How many lives a drive has before the next seed's drive takes its place.
const LIVES: u64 = 25;
/// The most operations of a life.
const OPERATIONS_A_LIFE_MAX: u64 = 230;
/// How many seeds run at once.
const THREADS: usize = 2;

/// A drive, what it should hold, and the chance that decides what happens to it.
pub(crate) struct Story {
    pub(crate) disk: SimDisk,
    pub(crate) oracle: Rc<RefCell<Oracle>>,
    pub(crate) dice: Dice,
    pub(crate) config: VolumeConfig,
    pub(crate) operations: Rc<Cell<u64>>,
    pub(crate) crashes: u64,
}

/// How a life goes.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) shards: usize,
    /// Tasks that do operations at the same time.
    pub(crate) lanes: u64,
    pub(crate) operations: u64,
    /// The device operation at which the life is cut, counted from the first of these operations on.
    pub(crate) cut_after: Option<u64>,
    pub(crate) close: bool,
    pub(crate) faulty: bool,
}

impl Story {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let capacity_bytes = [6, 12, 64][dice.index(3)] * MIB;
        let segment_bytes = [256, 512, 1024, 2048][dice.index(4)] * KIB;
        let disk = formatted(SimSettings { capacity_bytes, ..SimSettings::new(dice.number()) });
        Self { disk, oracle: Rc::default(), dice, config: config(segment_bytes), operations: Rc::default(), crashes: 0 }
    }

    /// One life, and what becomes of the drive after it.
    fn live(&mut self) {
        let dice = &mut self.dice;
        let operations = 1 + dice.roll(OPERATIONS_A_LIFE_MAX);
        let plan = Plan {
            shards: if dice.roll(8) == 0 { 2 } else { 1 },
            lanes: 1 + dice.roll(4),
            operations,
            cut_after: (dice.roll(6) > 0).then(|| 1 + dice.roll(2 * operations)),
            close: dice.roll(2) == 0,
            faulty: false,
        };
        // Some are cut while the volume is opened and checked, and some not at all.
        self.disk.settings().cut_at = (plan.cut_after.is_none() && dice.roll(2) == 0).then(|| 1 + dice.roll(100));
        let life = self.run(plan, |opened| match opened {
            Ok(recovery) => {
                let damaged: u64 = recovery.iter().map(|one| one.damaged).sum();
                assert_eq!(damaged, 0, "nothing was damaged: {recovery:?}");
            }
            Err(error) => panic!("does not open: {error}"),
        });
        match life {
            Life::Ended(()) if self.dice.roll(2) == 0 => {}
            // The process is killed; what it wrote is in the drive.
            Life::Cut if self.dice.roll(8) == 0 => self.crashes += 1,
            Life::Ended(()) | Life::Cut => {
                self.crashes += 1;
                self.disk.lose_power();
            }
            Life::Stuck => panic!("the volume waits for what never comes"),
        }
    }

    /// Opens the volume, checks all that it holds, and does operations until the plan is fulfilled or the life is cut.
    pub(crate) fn run(&mut self, plan: Plan, opened: impl FnOnce(Result<Vec<Recovery>, Error>)) -> Life<()> {
        let (oracle, operations, config) = (self.oracle.clone(), self.operations.clone(), self.config.clone());
        let dice = Dice::new(self.dice.number());
        self.disk.run(|host| async move {
            let (volumes, recovery) = match open(&host, &config, plan.shards).await {
                Ok(opened) => opened,
                Err(error) => return opened(Err(error)),
            };
            let expected = recovery.iter().fold((0, 0), |sum, one| (sum.0 + one.tracks, sum.1 + one.takedowns));
            opened(Ok(recovery));
            if !plan.faulty {
                // Taken out while it is compared: a life that is cut meanwhile leaves it as it was.
                let mut settled = oracle.borrow().clone();
                let found = settled.settle(&volumes).await;
                assert_eq!(expected, found, "tracks and takedowns that the recovery counted");
                *oracle.borrow_mut() = settled;
            }
            let world = World {
                host: host.clone(),
                volumes,
                oracle,
                dice: RefCell::new(dice),
                operations,
                faulty: plan.faulty,
            };
            world.oracle.borrow_mut().tracks.values_mut().for_each(|known| known.busy = false);
            if let Some(operations) = plan.cut_after {
                host.cut_after(operations);
            }
            live_on(&host, world, plan).await;
        })
    }
}

async fn open(
    host: &SimHost,
    config: &VolumeConfig,
    shards: usize,
) -> Result<(Vec<Volume<SimHost>>, Vec<Recovery>), Error> {
    let opening: Vec<_> = (0..shards)
        .map(|shard| host.task(Volume::open(host.clone(), VolumeConfig { shard, shards, ..config.clone() })))
        .collect();
    let (mut volumes, mut recovery) = (Vec::new(), Vec::new());
    for handle in opening {
        let (volume, found) = handle.await?;
        volumes.push(volume);
        recovery.push(found);
    }
    Ok((volumes, recovery))
}

async fn live_on(host: &SimHost, world: World, plan: Plan) {
    let (world, left) = (Rc::new(world), Rc::new(Cell::new(plan.operations)));
    let lanes: Vec<_> = (0..plan.lanes)
        .map(|_| {
            let (world, left) = (world.clone(), left.clone());
            host.task(async move {
                while left.get() > 0 {
                    left.set(left.get() - 1);
                    world.step().await;
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.await;
    }
    if plan.close {
        for volume in &world.volumes {
            volume.clone().close().await;
        }
    }
}

/// Runs `story` for one seed after the other, on several threads, until `enough`. A failure prints its seed.
pub(crate) fn seeds(name: &str, story: impl Fn(u64) + Sync, enough: impl Fn() -> bool + Sync) {
    if let Some(seed) = std::env::var("DEADWAX_SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return story(seed);
    }
    let (next, failure) = (AtomicU64::new(1), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !enough() && failure.lock().expect("no panic while held").is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| story(seed))) {
                        eprintln!("{name}: replay with DEADWAX_SIM_SEED={seed}");
                        failure.lock().expect("no panic while held").get_or_insert(panic);
                    }
                }
            });
        }
    });
    if let Some(panic) = failure.into_inner().expect("no panic while held") {
        resume_unwind(panic);
    }
}

/// By how much a run is to be longer than the regular one.
pub(crate) fn scale() -> u64 {
    std::env::var("DEADWAX_SIM_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1)
}

#[test]
fn a_volume_is_a_map_through_ten_thousand_crashes() {
    let (operations, crashes) = (AtomicU64::new(0), AtomicU64::new(0));
    let done = || (operations.load(Ordering::Relaxed), crashes.load(Ordering::Relaxed));
    let enough = || done().0 >= OPERATIONS_MIN * scale() && done().1 >= CRASHES_MIN * scale();
    let replays = std::env::var("DEADWAX_SIM_SEED").is_ok();
    seeds(
        "model",
        |seed| {
            let mut story = Story::new(seed);
            if replays {
                story.disk.record(Path::new(DIRECTORY));
            }
            for life in 0..LIVES {
                let before = story.operations.get();
                let lived = catch_unwind(AssertUnwindSafe(|| story.live()));
                if let Err(panic) = lived {
                    eprintln!("seed {seed}, life {life}, after {} operations of it", story.operations.get() - before);
                    if replays {
                        eprintln!("{}", story.disk.recorded());
                    }
                    resume_unwind(panic);
                }
                if replays {
                    eprintln!("life {life}\n{}", story.disk.recorded());
                    story.disk.record(Path::new(DIRECTORY));
                }
            }
            operations.fetch_add(story.operations.get(), Ordering::Relaxed);
            crashes.fetch_add(story.crashes, Ordering::Relaxed);
        },
        enough,
    );
    let (operations, crashes) = done();
    println!("{operations} operations, {crashes} crashes");
    assert!(replays || enough(), "{operations} operations, {crashes} crashes");
}
