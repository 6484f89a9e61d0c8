//! One volume split over several executors, each on a core of its own, beside as many bare rings.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use anyhow::anyhow;
use deadwax_engine::VolumeConfig;
use deadwax_track::ByteRange;

use super::{MIB, Options};
use crate::load;
use crate::pool::Pool;
use crate::report::Board;
use crate::ring::group::{Durable, Group};
use crate::ring::{Scratch, latencies};
use crate::shard;
use crate::tracks::Random;

const TRACK_BYTES: usize = 4 * MIB;
/// Of each executor.
const PUTS_IN_FLIGHT: usize = 8;
const RANGES_IN_FLIGHT: usize = 32;
/// One frame's payload.
const RANGE_BYTES: u64 = super::reads::FRAME_PAYLOAD_BYTES;
const BESIDE: &str = "as many raw rings, a core each";

/// One of the executors.
struct Member {
    index: usize,
    of: usize,
    dir: PathBuf,
    folder: PathBuf,
    /// Of tracks that it puts.
    bytes: usize,
    time: Duration,
    seed: u64,
    together: Arc<Barrier>,
}

/// What one of them did, and a ring on the same core.
struct Did {
    puts: load::Took,
    ranges: load::Took,
    raw_puts_per_second: f64,
    raw_ranges_per_second: f64,
}

pub(super) fn measure(options: &Options, folder: &Path, seed: u64, board: &mut Board) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    for round in 0..options.rounds {
        for &of in options.shards.iter().filter(|&&of| of >= 1 && of <= cores) {
            let dir = folder.join("split");
            load::format(&dir)?;
            let together = Arc::new(Barrier::new(of));
            let members = (0..of).map(|index| {
                let (dir, folder, together) = (dir.clone(), folder.to_owned(), Arc::clone(&together));
                let bytes = (options.bytes() / of).max(TRACK_BYTES * PUTS_IN_FLIGHT);
                let seed = seed << 16 | round << 8 | index as u64;
                let member = Member { index, of, dir, folder, bytes, time: options.time(), seed, together };
                shard::spawn(index, move || member.run())
            });
            let threads = members.collect::<anyhow::Result<Vec<_>>>()?;
            let did = threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("an executor panicked"))?);
            show(of, &did.collect::<anyhow::Result<Vec<_>>>()?, board);
            std::fs::remove_dir_all(&dir)?;
        }
    }
    Ok(())
}

impl Member {
    async fn run(self) -> anyhow::Result<Did> {
        let mut pool = Pool::new(self.bytes, self.seed);
        pool.renew_where(TRACK_BYTES, usize::MAX, self.seed, |id| id.shard(self.of) == self.index);
        let pool = Rc::new(pool);
        let config = VolumeConfig { shard: self.index, shards: self.of, ..load::config(&self.dir) };
        let (volume, _, _) = load::open(config).await?;
        let count = pool.ids().len();
        let scratch = Scratch::new(&self.folder, (count * TRACK_BYTES) as u64)?;
        let group = Group {
            in_flight: PUTS_IN_FLIGHT,
            writes: TRACK_BYTES / MIB,
            write_bytes: MIB,
            count: count as u64,
            durable: Durable::Shared,
        };
        // Each waits for the others, its executor standing still: nothing of its own is under way.
        self.together.wait();
        let (raw_puts_per_second, _) = scratch.put(group)?;
        self.together.wait();
        let puts = load::put(&volume, &pool, Rc::new((0..count).collect()), PUTS_IN_FLIGHT).await?;
        self.together.wait();
        let (raw_ranges_per_second, _) = scratch.read(64 * 1024, RANGES_IN_FLIGHT, self.time, self.seed)?;
        self.together.wait();
        let mut random = Random::new(self.seed);
        let (reading, end) = (Rc::clone(&pool), std::time::Instant::now() + self.time);
        let next = move |_| {
            let id = reading.ids()[usize::try_from(random.below(count as u64)).ok()?];
            let start = random.below(TRACK_BYTES as u64 / RANGE_BYTES) * RANGE_BYTES;
            let range = ByteRange::new(start, start + RANGE_BYTES)?;
            (std::time::Instant::now() < end).then_some((id, range))
        };
        let ranges = load::read(&volume, RANGES_IN_FLIGHT, next).await?;
        volume.close().await;
        Ok(Did { puts, ranges, raw_puts_per_second, raw_ranges_per_second })
    }
}

/// Adds what all did at once.
fn show(of: usize, did: &[Did], board: &mut Board) {
    let (mut puts, mut ranges) = (latencies(), latencies());
    for one in did {
        puts.add(&one.puts.latency).expect("histograms of one kind");
        ranges.add(&one.ranges.latency).expect("histograms of one kind");
    }
    let sum = |of: &dyn Fn(&Did) -> f64| did.iter().map(of).sum::<f64>();
    #[expect(clippy::cast_precision_loss, reason = "a rate, printed to one digit")]
    let raw = sum(&|one| one.raw_puts_per_second * TRACK_BYTES as f64 / 1e6);
    let value = sum(&|one| one.puts.megabytes_per_second());
    board.add(&format!("shards_{of}_ingest_4m"), "MB/s", value, &puts, Some(raw), BESIDE);
    let (value, raw) = (sum(&|one| one.ranges.per_second()), sum(&|one| one.raw_ranges_per_second));
    board.add(&format!("shards_{of}_range_64k"), "1/s", value, &ranges, Some(raw), BESIDE);
}
