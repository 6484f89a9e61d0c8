//! What waits for an event, not for a timer: moves, and what a node missed while it was away.

use std::collections::BTreeSet;

use deadwax_dht::core::Input;
use deadwax_dht::rebalance::{Answer, Command};
use deadwax_dht::{Volume, VolumeId};
use deadwax_track::Partition;

use super::village::{MINUTE, SECOND, Village, track};

/// How long what asks for nothing but some small copies may take, in ms.
const SOON: u64 = 10 * SECOND;
/// How long it may take until a node that was away is whole again, in ms. One that only stood still does not know that it was
/// away: what differs may be on its way to it, for all it knows.
const WHOLE: u64 = 15 * SECOND;

/// A cluster with a log, and so many tracks, each on all its holders.
fn stored(tracks: u64) -> Village {
    let mut village = Village::new(4, 3);
    village.run(MINUTE);
    for number in 1..=tracks {
        for (at, volume) in village.holders(&track(number)) {
            village.store(at, volume, track(number));
        }
    }
    village.run(MINUTE);
    village
}

/// The time until it holds, in steps of 100 ms.
fn until(village: &mut Village, within: u64, holds: impl Fn(&Village) -> bool) -> u64 {
    let began = village.now;
    while !holds(village) {
        village.run(100);
        assert!(village.now - began <= within, "after {within} ms not yet, {:?}", village.progress());
    }
    village.now - began
}

fn moving(village: &Village) -> BTreeSet<Partition> {
    village.houses[0].core.layout().expect("it has a map").state().transitions().keys().copied().collect()
}

#[test]
fn a_batch_of_moves_takes_seconds() {
    let mut village = stored(4_000);
    village.add_house();
    village.run(MINUTE);
    let node = village.houses[4].node.clone();
    village.command(Command::AddNode(node));
    let (mut slowest, mut begun) = (0, BTreeSet::new());
    for _ in 0..10 {
        until(&mut village, SOON, |village| !moving(village).is_subset(&begun));
        let batch: BTreeSet<Partition> = moving(&village).difference(&begun).copied().collect();
        slowest = slowest.max(until(&mut village, SOON, |village| moving(village).is_disjoint(&batch)));
        begun.extend(batch);
    }
    println!("the slowest of ten batches took {slowest} ms");
    let moved: usize = village.houses[4].disk.values().map(BTreeSet::len).sum();
    assert!(moved > 5, "{moved} tracks moved: the batches were empty");
}

/// It is waited for until it is certain that it is lost, and then no more: neither at the next batch of what it held, nor at
/// any after that.
#[test]
fn a_drive_that_is_lost_is_waited_for_once() {
    let mut village = stored(4_000);
    let (old, new) = (village.houses[2].volumes[0], VolumeId::from_bytes([0x77; 16]));
    village.houses[2].disk.insert(old, BTreeSet::new());
    village.step(2, Input::VolumeDown(old));
    village.houses[2].disk.insert(new, BTreeSet::new());
    village.houses[2].volumes = vec![new];
    village.step(2, Input::VolumeUp { volume: new, digests: Vec::new(), track_bytes: 0 });
    let node = village.id(2);
    village.command(Command::AddVolume { node, volume: Volume { id: new, weight: 1_000 } });
    village.command(Command::DrainVolume { volume: old, drain: true });
    let (mut took, mut begun) = (Vec::new(), BTreeSet::new());
    for number in 0..6 {
        let within = if number == 0 { 4 * MINUTE } else { 20 * SECOND };
        until(&mut village, within, |village| !moving(village).is_subset(&begun));
        let batch: BTreeSet<Partition> = moving(&village).difference(&begun).copied().collect();
        took.push(until(&mut village, within, |village| moving(village).is_disjoint(&batch)));
        begun.extend(batch);
    }
    println!("the first six batches took {took:?} ms");
    assert!(took[0] >= 2 * MINUTE, "it was not waited for: {took:?}");
    let copied = village.houses[2].disk[&new].len();
    assert!(copied > 5, "{copied} tracks were copied: the batches were empty");
}

/// It is known to be empty, where the leader's volume was found equal with the others.
#[test]
fn all_of_a_cluster_with_nothing_in_it_moves_at_once() {
    let mut village = Village::new(4, 3);
    village.volume_moving_bytes = 16 << 30;
    (0..4).for_each(|at| village.restart(at));
    village.add_house();
    village.run(20 * SECOND);
    let node = village.houses[4].node.clone();
    village.command(Command::AddNode(node));
    until(&mut village, SOON, |village| !moving(village).is_empty());
    let batch = moving(&village);
    assert!(batch.len() > 500, "{} partitions move at once", batch.len());
    until(&mut village, SOON, |village| moving(village).is_disjoint(&batch));
}

#[test]
fn a_node_that_was_away_has_soon_what_it_missed_whether_its_process_ended_or_not() {
    for ended in [true, false] {
        let mut village = stored(0);
        let away = if village.leader() == 2 { 1 } else { 2 };
        village.houses[away].up = false;
        village.run(20 * SECOND);
        for number in 1..=50 {
            for (at, volume) in village.holders(&track(number)) {
                if at != away {
                    village.store(at, volume, track(number));
                }
            }
            village.run(SECOND);
        }
        village.run(2 * MINUTE);
        village.houses[away].up = true;
        if ended {
            village.restart(away);
        } else {
            village.step(away, Input::Tick);
        }
        let whole = |village: &Village| (1..=50).all(|number| village.copies(&track(number)) == 3);
        let healed = until(&mut village, WHOLE, whole);
        println!("whole after {healed} ms; its process ended: {ended}");
    }
}

/// What a node has heard of the others suffices for the members of now, and for one more.
#[test]
fn a_cluster_that_has_just_started_serves_on_when_another_member_comes() {
    let mut village = stored(0);
    for at in 0..4 {
        village.restart(at);
    }
    village.run(10 * SECOND);
    village.add_house();
    village.houses[4].up = false;
    let node = village.houses[4].node.clone();
    village.command(Command::AddNode(node));
    for _ in 0..300 {
        village.run(100);
        for (at, house) in village.houses.iter().enumerate().take(4) {
            assert!(house.core.may_serve().is_ok(), "{at} does not serve");
        }
    }
}

/// The settings guess 30 MB, which is seven times too much here.
#[test]
fn a_forecast_goes_by_the_lengths_that_tracks_have() {
    let mut village = stored(4_000);
    village.track_bytes = 4_000_000;
    for at in 0..4 {
        village.restart(at);
    }
    village.run(MINUTE);
    let volume = village.houses[3].volumes[0];
    let forecast = village.try_forecast(Command::SetWeight { volume, weight: 1_000 });
    let Ok(Answer::Forecast(forecast)) = forecast else { panic!("it is told: {forecast:?}") };
    let told: u64 = forecast.shares.iter().map(|share| share.bytes_after).sum();
    let stored = 3 * 4_000 * village.track_bytes;
    assert!((stored * 9 / 10..stored * 11 / 10).contains(&told), "{told} bytes, {stored} are stored");
}
