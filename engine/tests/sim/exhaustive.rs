//! Every crash point of a small scenario, and everything that a power loss can leave at each.
//!
//! The tracks are tiny, so that few sectors differ from what was there: a record's header is one sector, its frame two. All
//! subsets of those are tried, with each way in which the rest may survive: names, lengths, punches, and holes that became zeros.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use deadwax_engine::sim::lives::{Known, Oracle, config, formatted, put};
use deadwax_engine::sim::{Life, Order, SimDisk, SimHost, SimSettings};
use deadwax_engine::{Recovery, Volume};
use deadwax_track::{KIB, TrackId};

/// Goes through all sequences of choices.
#[derive(Default)]
struct Odometer {
    /// How many there were to choose from, and which is chosen.
    digits: Vec<(u64, u64)>,
    at: usize,
}

impl Odometer {
    fn choose(&mut self, options: u64) -> u64 {
        if self.at == self.digits.len() {
            self.digits.push((options, 0));
        }
        let (asked, chosen) = self.digits[self.at];
        assert_eq!(asked, options, "the same choices lead to the same questions");
        self.at += 1;
        chosen
    }

    /// Goes on to the next sequence; answers whether there is one.
    fn advance(&mut self) -> bool {
        self.at = 0;
        while let Some((options, chosen)) = self.digits.pop() {
            if chosen + 1 < options {
                self.digits.push((options, chosen + 1));
                return true;
            }
        }
        false
    }
}

type Shared = Rc<RefCell<Oracle>>;

async fn store(volume: Volume<SimHost>, oracle: Shared, name: u8) {
    let bytes: Rc<[u8]> = Rc::from([name; 3]);
    let id = TrackId::of(&bytes);
    let known = Known { present: true, ..Known::absent(bytes.clone()) };
    oracle.borrow_mut().tracks.insert(id, known);
    put(&volume, &bytes).await.expect("puts");
    oracle.borrow_mut().known(&id).set_present();
}

async fn take_down(volume: Volume<SimHost>, oracle: Shared, name: u8) {
    let id = TrackId::of(&[name; 3]);
    oracle.borrow_mut().known(&id).barred.insert(u64::from(name));
    volume.take_down(&id, u64::from(name)).await.expect("takes down");
    oracle.borrow_mut().known(&id).set_barred(u64::from(name));
}

async fn delete(volume: Volume<SimHost>, oracle: Shared, name: u8) {
    let id = TrackId::of(&[name; 3]);
    oracle.borrow_mut().known(&id).absent = true;
    volume.delete(&id).await.expect("deletes");
    oracle.borrow_mut().known(&id).set_absent();
}

/// One put that makes the segment, three at once, a takedown beside a put, a delete beside a put, a takedown alone, a close.
async fn scenario(host: SimHost, oracle: Shared) {
    let (volume, _) = Volume::open(host.clone(), config(256 * KIB)).await.expect("opens");
    store(volume.clone(), oracle.clone(), 1).await;
    let puts = [2, 3, 4].map(|name| host.task(store(volume.clone(), oracle.clone(), name)));
    for put in puts {
        put.await;
    }
    let takedown = host.task(take_down(volume.clone(), oracle.clone(), 1));
    store(volume.clone(), oracle.clone(), 5).await;
    takedown.await;
    let deletion = host.task(delete(volume.clone(), oracle.clone(), 2));
    store(volume.clone(), oracle.clone(), 6).await;
    deletion.await;
    take_down(volume.clone(), oracle, 5).await;
    volume.close().await;
}

/// Opens the volume, or is cut while it does.
fn reopen(disk: &mut SimDisk, oracle: &Oracle) -> Option<Recovery> {
    let mut oracle = oracle.clone();
    let life = disk.run(|host| async move {
        let (volume, recovery) = Volume::open(host, config(256 * KIB)).await.expect("opens");
        let found = oracle.settle(std::slice::from_ref(&volume)).await;
        assert_eq!((recovery.tracks, recovery.takedowns, recovery.damaged), (found.0, found.1, 0), "{recovery:?}");
        recovery
    });
    match life {
        Life::Ended(recovery) => Some(recovery),
        Life::Cut => None,
        Life::Stuck => panic!("waits for what never comes"),
    }
}

#[test]
fn every_crash_point_and_every_subset_of_what_was_not_flushed() {
    let latency = Duration::from_micros(100);
    let settings = SimSettings { order: Order::InTurn, latency: (latency, latency), ..SimSettings::new(1) };
    let (mut cut_at, mut outcomes, mut torn, mut most) = (0, 0_u64, 0, 0);
    loop {
        cut_at += 1;
        let mut disk = formatted(SimSettings { cut_at: Some(cut_at), ..settings.clone() });
        let oracle = Shared::default();
        let life = disk.run(|host| scenario(host, oracle.clone()));
        disk.settings().cut_at = None;
        let (mut odometer, before) = (Odometer::default(), outcomes);
        loop {
            let mut after = disk.clone();
            after.lose_power_as(&mut |options| odometer.choose(options));
            let recovery = reopen(&mut after.clone(), &oracle.borrow()).expect("nothing cuts it");
            torn += recovery.torn;
            // And once more with a crash in the recovery, at one point after the other.
            after.settings().cut_at = Some(1 + outcomes % 16);
            reopen(&mut after, &oracle.borrow());
            after.settings().cut_at = None;
            after.lose_power();
            reopen(&mut after, &oracle.borrow()).expect("nothing cuts it");
            outcomes += 1;
            if !odometer.advance() {
                break;
            }
        }
        most = most.max(outcomes - before);
        if matches!(life, Life::Ended(())) {
            break;
        }
    }
    println!("{} crash points, {outcomes} outcomes, at most {most} of one point, {torn} torn records", cut_at - 1);
    // Three records at once: a header is written, lost, or zeros; of a frame's two sectors any may be, or zeros.
    assert!(most >= 15 * 15 * 15 && torn > 0, "{most} outcomes of one point, {torn} torn");
}
