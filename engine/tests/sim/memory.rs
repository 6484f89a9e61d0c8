//! Whatever is asked of a volume, its memory stays within its budgets.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use deadwax_engine::sim::lives::{audio, config, formatted, put};
use deadwax_engine::sim::{Dice, Life, SimHost, SimSettings};
use deadwax_engine::{Error, ErrorKind, Host as _, Volume, VolumeConfig};
use deadwax_track::{KIB, MIB, TrackId};

/// Far more at once than the small budgets have room for.
const LANES: u64 = 300;
const TURNS: u64 = 4;

/// What came of a load.
#[derive(Clone, Copy, Debug)]
struct Load {
    buffer_bytes_peak: u64,
    done: u64,
    busy: u64,
}

/// Puts and reads of large and small tracks by all lanes at once; readers dawdle with a block in their hands.
fn load(config: VolumeConfig) -> Load {
    let settings = SimSettings { capacity_bytes: 2048 * MIB, ..SimSettings::new(1) };
    let life = formatted(settings).run(|host| async move {
        let (volume, _) = Volume::open(host.clone(), config).await.expect("opens");
        let stored: Rc<RefCell<Vec<TrackId>>> = Rc::default();
        let (done, busy) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| {
                let (host, volume, stored) = (host.clone(), volume.clone(), stored.clone());
                let (done, busy) = (done.clone(), busy.clone());
                host.clone().task(async move {
                    let mut dice = Dice::new(lane);
                    let mut turns = 0;
                    while turns < TURNS {
                        match turn(&host, &volume, &stored, &mut dice).await {
                            Ok(()) => turns += 1,
                            Err(error) if error.kind() == ErrorKind::Busy => {
                                busy.set(busy.get() + 1);
                                host.sleep(Duration::from_millis(1 + dice.roll(50))).await;
                            }
                            Err(error) => panic!("{error}"),
                        }
                    }
                    done.set(done.get() + turns);
                })
            })
            .collect();
        for lane in lanes {
            lane.await;
        }
        volume.close().await;
        Load { buffer_bytes_peak: host.buffer_bytes_peak() as u64, done: done.get(), busy: busy.get() }
    });
    match life {
        Life::Ended(load) => load,
        life => panic!("{life:?}"),
    }
}

async fn turn(
    host: &SimHost,
    volume: &Volume<SimHost>,
    stored: &RefCell<Vec<TrackId>>,
    dice: &mut Dice,
) -> Result<(), Error> {
    if dice.roll(2) == 0 || stored.borrow().is_empty() {
        let bytes = [60 * KIB, 300 * KIB, 1500 * KIB][dice.index(3)];
        let track = audio(dice.number(), bytes);
        put(volume, &track).await?;
        stored.borrow_mut().push(TrackId::of(&track));
        return Ok(());
    }
    let id = {
        let stored = stored.borrow();
        stored[dice.index(stored.len())]
    };
    let mut reader = volume.read(&id, None).await?;
    while let Some(block) = reader.next().await {
        let block = block?;
        host.sleep(Duration::from_millis(1 + dice.roll(5))).await;
        assert!(block.len() > 0);
    }
    Ok(())
}

#[test]
fn memory_stays_within_the_budgets_whatever_the_load() {
    let small =
        VolumeConfig { put_bytes_max: 4 * MIB, write_bytes_max: 2 * MIB, read_bytes_max: 6 * MIB, ..config(64 * MIB) };
    let bound = small.memory_bytes_max();
    let load_on_small = load(small.clone());
    assert!(load_on_small.buffer_bytes_peak <= bound, "{load_on_small:?}, of {bound} at most");
    assert!(load_on_small.busy > 0 && load_on_small.done == LANES * TURNS, "{load_on_small:?}");
    // The same load takes more where it may: the budgets are what held it.
    let large = VolumeConfig { put_bytes_max: 512 * MIB, read_bytes_max: 512 * MIB, ..small };
    let load_on_large = load(large);
    assert!(load_on_large.buffer_bytes_peak > 2 * bound && load_on_large.busy == 0, "{load_on_large:?}, {bound}");
}
