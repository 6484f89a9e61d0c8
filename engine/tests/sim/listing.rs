//! A partition is listed while its tracks are moved and the segments that they were in go.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use deadwax_engine::sim::lives::{DIRECTORY, audio, config, formatted, put};
use deadwax_engine::sim::{Life, Order, SimHost, SimSettings, segments_of};
use deadwax_engine::{Error, Volume};
use deadwax_track::{KIB, TrackId};

const SEGMENT_BYTES: u64 = 512 * KIB;
const SEGMENTS: usize = 4;
/// So many fill a segment, beside a small track.
const FILLING: u64 = 11;

/// Small tracks of one partition.
fn alike() -> Vec<Vec<u8>> {
    let partition = TrackId::of(&0_u64.to_le_bytes()).partition();
    let tracks = (0_u64..).map(|number| number.to_le_bytes().to_vec());
    tracks.filter(|track| TrackId::of(track).partition() == partition).take(SEGMENTS).collect()
}

/// Each of these tracks alone in a segment that is hollow once `fillings` are deleted.
async fn spread(volume: &Volume<SimHost>, tracks: &[Vec<u8>]) -> Result<Vec<TrackId>, Error> {
    let mut fillings = Vec::new();
    for (segment, track) in tracks.iter().enumerate() {
        put(volume, track).await?;
        for number in 0..FILLING {
            let filling =
                audio(100 * (segment as u64 + 1) + number, if number < FILLING - 1 { 36_000 } else { 24_000 });
            put(volume, &filling).await?;
            fillings.push(TrackId::of(&filling));
        }
    }
    put(volume, &audio(99, 40 * KIB)).await?;
    Ok(fillings)
}

#[test]
fn what_is_moved_while_it_is_listed_is_in_the_list() {
    let tracks = alike();
    for seed in 1..=30 {
        let latency = (Duration::from_micros(20), Duration::from_micros(if seed % 2 == 0 { 200 } else { 5000 }));
        let settings = SimSettings { order: Order::Random, latency, ..SimSettings::new(seed) };
        let tracks = tracks.clone();
        let mut disk = formatted(settings);
        let life = disk.run(|host| async move {
            let (volume, _) = Volume::open(host.clone(), config(SEGMENT_BYTES)).await.expect("opens");
            let fillings = spread(&volume, &tracks).await.expect("puts");
            let mut ids: Vec<_> = tracks.iter().map(|track| TrackId::of(track)).collect();
            ids.sort_unstable();
            let (there, done) = (volume.clone(), Rc::new(Cell::new(false)));
            let over = done.clone();
            let emptying = host.task(async move {
                for id in fillings {
                    there.delete(&id).await.expect("deletes");
                }
                there.compact().await.expect("compacts");
                over.set(true);
            });
            let mut lists = 0;
            while !done.get() {
                let listed = volume.list(ids[0].partition(), None, 100).await.expect("lists");
                assert_eq!(listed, ids, "seed {seed}, list {lists}");
                lists += 1;
            }
            emptying.await;
            volume.close().await;
            lists
        });
        assert!(matches!(life, Life::Ended(1..)), "seed {seed}: {life:?}");
        let first = segments_of(Path::new(DIRECTORY)).join("0000000000.segment");
        assert_eq!(disk.bytes(&first), None, "seed {seed}: nothing was moved");
    }
}
