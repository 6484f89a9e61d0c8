//! A drive, what it should hold, and the lives that it goes through.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use deadwax_track::{KIB, MIB, PARTITIONS, Partition};

use super::fixture::{config, formatted};
use super::oracle::Oracle;
use super::world::World;
use crate::sim::{Dice, Life, SimDisk, SimHost, SimSettings};
use crate::{Change, Error, Recovery, Volume, VolumeConfig};

/// The most operations of a life.
const OPERATIONS_A_LIFE_MAX: u64 = 230;

/// A drive, what it should hold, and the chance that decides what happens to it.
pub struct Story {
    /// The drive, with the volume.
    pub disk: SimDisk,
    /// What the volume may hold.
    pub oracle: Rc<RefCell<Oracle>>,
    /// Decides what happens.
    pub dice: Dice,
    /// How the volume is opened, but for its shards.
    pub config: VolumeConfig,
    /// How many operations were begun.
    pub operations: Rc<Cell<u64>>,
    /// How often the power went or the process was killed.
    pub crashes: u64,
}

/// How a life goes.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Over how many handles the volume is split.
    pub shards: usize,
    /// Tasks that do operations at the same time.
    pub lanes: u64,
    /// How many operations all of them do together.
    pub operations: u64,
    /// The device operation at which the life is cut, counted from the first of these operations on.
    pub cut_after: Option<u64>,
    /// Whether the volume is closed in the end, or dropped.
    pub close: bool,
    /// Whether the drive fails: then operations may answer so, and nothing is compared when it is opened.
    pub faulty: bool,
}

impl Story {
    /// The story of `seed`, before its first life: an empty volume.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let capacity_bytes = [6, 12, 64][dice.index(3)] * MIB;
        let segment_bytes = [256, 512, 1024, 2048][dice.index(4)] * KIB;
        let disk = formatted(SimSettings { capacity_bytes, ..SimSettings::new(dice.number()) });
        Self { disk, oracle: Rc::default(), dice, config: config(segment_bytes), operations: Rc::default(), crashes: 0 }
    }

    /// One life on a drive that works, and what becomes of it after: it is closed, killed, or loses its power.
    /// Panics where the volume is not what it should be.
    pub fn live(&mut self) {
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

    /// One life by plan: opens the volume, shows `opened` what that answered, checks all that it holds, and does
    /// operations until the plan is fulfilled or the life is cut. Panics where the volume is not what it should be.
    pub fn run(&mut self, plan: Plan, opened: impl FnOnce(Result<Vec<Recovery>, Error>)) -> Life<()> {
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

/// What an observer of a volume adds up to.
type Counted = BTreeMap<Partition, (u32, [u8; 16])>;

/// Observes a volume from here on.
fn observe(volume: &Volume<SimHost>) -> Rc<RefCell<Counted>> {
    let counted = Rc::new(RefCell::new(Counted::new()));
    let seen = counted.clone();
    let digests = volume.observe(move |change| {
        let (id, more) = match change {
            Change::Stored(id) => (id, true),
            Change::Erased(id) => (id, false),
        };
        let mut counted = seen.borrow_mut();
        let (tracks, sum) = counted.entry(id.partition()).or_default();
        *tracks = if more { *tracks + 1 } else { tracks.checked_sub(1).expect("what is erased was counted") };
        sum.iter_mut().zip(id.half()).for_each(|(sum, byte)| *sum ^= byte);
    });
    counted.borrow_mut().extend(digests.into_iter().map(|(partition, tracks, sum)| (partition, (tracks, sum))));
    counted
}

/// What was observed must be what the volume counts, when nothing is under way.
fn check_observed(volume: &Volume<SimHost>, counted: &RefCell<Counted>) {
    let digests = volume.digests(Partition(0), PARTITIONS);
    let holds: Counted = digests.into_iter().map(|(partition, tracks, sum)| (partition, (tracks, sum))).collect();
    counted.borrow_mut().retain(|_, (tracks, _)| *tracks > 0);
    assert_eq!(*counted.borrow(), holds, "an observer heard of something else than what is counted");
}

async fn live_on(host: &SimHost, world: World, plan: Plan) {
    let observed: Vec<_> = world.volumes.iter().map(observe).collect();
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
    if !plan.faulty {
        world.volumes.iter().zip(&observed).for_each(|(volume, counted)| check_observed(volume, counted));
    }
    if plan.close {
        for volume in &world.volumes {
            volume.clone().close().await;
        }
    }
}
