//! Random operations against a map that is always right.

use std::collections::BTreeMap;

use deadwax_engine::{ErrorKind, Presence};
use deadwax_track::{KIB, MIB, TrackId};

use super::*;

/// SplitMix64: one seed replays all.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % below
    }

    fn size(&mut self) -> u64 {
        match self.roll(4) {
            0 => 1 + self.roll(5000),
            1 => 65_496 * (1 + self.roll(3)) + self.roll(3) - 1,
            2 => 1 + self.roll(300 * KIB),
            _ => 1 + self.roll(3 * MIB),
        }
    }
}

enum Known {
    Present(Vec<u8>),
    TakenDown(u64),
}

async fn step(volume: &Volume<GlommioHost>, model: &mut BTreeMap<TrackId, Known>, dice: &mut Dice) {
    let any = |dice: &mut Dice, model: &BTreeMap<TrackId, Known>| {
        let index = dice.roll(model.len().max(1) as u64);
        model.keys().nth(usize::try_from(index).expect("fits")).copied()
    };
    match dice.roll(10) {
        0..4 => {
            let size = dice.size();
            let track = audio(dice.roll(200), size);
            let outcome = put(volume, &track).await;
            match model.get(&TrackId::of(&track)) {
                None => drop(outcome.expect("puts")),
                Some(Known::Present(_)) => assert_eq!(outcome.expect_err("stored").kind(), ErrorKind::AlreadyStored),
                Some(Known::TakenDown(_)) => assert_eq!(outcome.expect_err("barred").kind(), ErrorKind::TakenDown),
            }
            model.entry(TrackId::of(&track)).or_insert(Known::Present(track));
        }
        4 => {
            let track = audio(1000 + dice.roll(1000), dice.size());
            let mut writer = volume.put(TrackId::of(&track), track.len() as u64, &tags("x")).await.expect("begins");
            let upto = usize::try_from(dice.roll(track.len() as u64)).expect("fits");
            writer.write(&track[..upto]).await.expect("takes");
        }
        5 => {
            let Some(id) = any(dice, model) else { return };
            let number = dice.roll(1000);
            let recorded = volume.take_down(&id, number).await.expect("takes down");
            let expected = match model[&id] {
                Known::TakenDown(first) => first,
                Known::Present(_) => number,
            };
            assert_eq!(recorded, expected);
            model.insert(id, Known::TakenDown(expected));
        }
        _ => {
            let Some(id) = any(dice, model) else { return };
            match &model[&id] {
                Known::TakenDown(number) => {
                    assert_eq!(volume.presence(&id).await.expect("looks up"), Presence::TakenDown { number: *number })
                }
                Known::Present(track) => {
                    let start = dice.roll(track.len() as u64);
                    let end = start + 1 + dice.roll(track.len() as u64 - start);
                    let got = get_range(volume, &id, start, end).await.expect("reads");
                    let expected = usize::try_from(start).expect("fits")..usize::try_from(end).expect("fits");
                    assert!(got == track[expected], "{start}..{end} of {}", track.len());
                }
            }
        }
    }
}

/// Waits until nothing of a volume that was dropped is under way: the executor's end would leave it locked for this process.
async fn unlocked(config: &VolumeConfig) {
    let superblock = std::fs::File::open(config.dir.join("volume.deadwax")).expect("opens");
    while superblock.try_lock().is_err() {
        glommio::timer::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[test]
fn a_volume_is_a_map_whatever_happens() {
    for seed in 1..=4 {
        let (_dir, mut config) = volume_dir();
        config.segment_bytes = 4 * MIB;
        let mut dice = Dice(seed);
        let mut model = BTreeMap::new();
        for round in 0..5 {
            println!("seed {seed}, round {round}");
            run(async {
                let (volume, recovery) = open(&config).await;
                let present = model.values().filter(|known| matches!(known, Known::Present(_))).count() as u64;
                assert_eq!((recovery.tracks, recovery.torn, recovery.damaged), (present, 0, 0));
                assert_eq!(recovery.takedowns, model.len() as u64 - present);
                for _ in 0..60 {
                    step(&volume, &mut model, &mut dice).await;
                }
                // Half of the rounds end without a close, like a process that is killed.
                if round % 2 == 0 {
                    volume.close().await;
                } else {
                    drop(volume);
                    unlocked(&config).await;
                }
            });
        }
    }
}
