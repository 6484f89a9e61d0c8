//! Cold reads, past the page cache: ranges and whole tracks, and a bare ring on a file of the same length.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use deadwax_track::{ByteRange, TrackId};

use super::{MIB, Options, Part};
use crate::cpu;
use crate::load::{self, Disk};
use crate::pool::Pool;
use crate::report::Board;
use crate::ring::Scratch;
use crate::tracks::Random;

const KIB: usize = 1024;
const TRACK_BYTES: usize = 4 * MIB;
/// What a frame carries, so that a range of it takes one frame from the drive.
pub(super) const FRAME_PAYLOAD_BYTES: u64 = 65_496;
const RANGE_BYTES: u64 = 64 * KIB as u64;
const RANGE_DEPTH: usize = 32;
const TRACK_DEPTH: usize = 8;
/// Reads that a reader of the engine has at the drive.
const READ_AHEAD: usize = 4;

pub(super) async fn measure(options: &Options, folder: &Path, seed: u64, board: &mut Board) -> anyhow::Result<()> {
    let mut pool = Pool::new(options.bytes(), seed);
    pool.renew(TRACK_BYTES, usize::MAX, seed << 16);
    let ids = pool.ids().to_vec();
    let dir = folder.join("volume");
    load::format(&dir)?;
    let (volume, _, _) = load::open(load::config(&dir)).await?;
    let numbers = Rc::new((0..ids.len()).collect());
    load::put(&volume, &Rc::new(pool), numbers, TRACK_DEPTH).await?;
    let scratch = Scratch::new(folder, options.bytes() as u64)?;
    scratch.write(8, 8 << 20)?;
    let bench = Bench { volume, ids, scratch, time: options.time() };
    // Round 0 warms memory up and is not counted.
    for round in 0..=options.rounds {
        let mut uncounted = Board::default();
        let board = if round == 0 { &mut uncounted } else { &mut *board };
        let salt = seed << 16 | round;
        if options.wants(Part::Range) {
            bench.ranges(salt, round % 2 == 0, board).await?;
        }
        if options.wants(Part::Read) {
            bench.whole(salt, round % 2 == 0, board).await?;
        }
    }
    bench.volume.close().await;
    Ok(())
}

/// What the reads read.
struct Bench {
    volume: Disk,
    ids: Vec<TrackId>,
    scratch: Scratch,
    time: Duration,
}

impl Bench {
    async fn ranges(&self, salt: u64, raw_first: bool, board: &mut Board) -> anyhow::Result<()> {
        let raw = || self.scratch.read(64 * KIB, RANGE_DEPTH, self.time, salt);
        let early = if raw_first { Some(raw()?) } else { None };
        let aligned = self.range(salt, true).await?;
        let anywhere = self.range(salt, false).await?;
        let per_second = aligned.per_second();
        let (ceiling, raw_latency) = match early {
            Some(early) => early,
            None => raw()?,
        };
        let beside = "raw ring, 64 KiB reads";
        let rows =
            [("range_64k_inflight_32", "range_64k", anywhere), ("range_frame_inflight_32", "range_frame", aligned)];
        for (name, stem, took) in rows {
            board.add(name, "1/s", took.per_second(), &took.latency, Some(ceiling), beside);
            #[expect(clippy::cast_precision_loss, reason = "microseconds, far below 2^52")]
            let at = |quantile| {
                took.latency.value_at_quantile(quantile) as f64 / raw_latency.value_at_quantile(quantile).max(1) as f64
            };
            board.add_plain(&format!("{stem}_p99_ratio"), "ratio", at(0.99));
            board.add_plain(&format!("{stem}_cpu"), "s/GB", took.cpu_per_gigabyte());
        }
        board.add("raw_64k_depth_32", "1/s", ceiling, &raw_latency, None, "");
        let (checked, checked_latency) = self.scratch.read_checked(64 * KIB, RANGE_DEPTH, self.time, salt)?;
        board.add(
            "raw_64k_checked_depth_32",
            "1/s",
            checked,
            &checked_latency,
            Some(ceiling),
            "the same, not looked at",
        );
        board.add_beside("range_frame_of_checked", "1/s", per_second, checked, "raw ring that checks, too");
        Ok(())
    }

    /// Ranges that are a frame each, or that start anywhere and so take two from the drive.
    async fn range(&self, salt: u64, aligned: bool) -> anyhow::Result<load::Took> {
        let (ids, end) = (self.ids.clone(), Instant::now() + self.time);
        let mut random = Random::new(salt);
        let next = move |_| {
            let id = ids[usize::try_from(random.below(ids.len() as u64)).ok()?];
            let (start, bytes) = if aligned {
                (random.below(TRACK_BYTES as u64 / FRAME_PAYLOAD_BYTES) * FRAME_PAYLOAD_BYTES, FRAME_PAYLOAD_BYTES)
            } else {
                (random.below(TRACK_BYTES as u64 - RANGE_BYTES), RANGE_BYTES)
            };
            let range = ByteRange::new(start, start + bytes).expect("a range of some bytes");
            (Instant::now() < end).then_some((id, range))
        };
        load::read(&self.volume, RANGE_DEPTH, next).await
    }

    async fn whole(&self, salt: u64, raw_first: bool, board: &mut Board) -> anyhow::Result<()> {
        let raw = || {
            let before = cpu::spent();
            let (rate, _) = self.scratch.read(MIB, TRACK_DEPTH * READ_AHEAD, self.time, salt)?;
            #[expect(clippy::cast_precision_loss, reason = "a rate, printed to one digit")]
            let rate = rate * MIB as f64 / 1e6;
            anyhow::Ok((rate, (cpu::spent() - before).as_secs_f64() / (rate * self.time.as_secs_f64() / 1e3)))
        };
        let early = if raw_first { Some(raw()?) } else { None };
        let (ids, end) = (self.ids.clone(), Instant::now() + self.time);
        let mut random = Random::new(salt);
        let next = move |_| {
            let id = ids[usize::try_from(random.below(ids.len() as u64)).ok()?];
            let range = ByteRange::new(0, TRACK_BYTES as u64).expect("a range of some bytes");
            (Instant::now() < end).then_some((id, range))
        };
        let took = load::read(&self.volume, TRACK_DEPTH, next).await?;
        let (ceiling, ceiling_cpu) = match early {
            Some(early) => early,
            None => raw()?,
        };
        let beside = "raw ring, 1 MiB reads, depth 32";
        board.add("read_4m_inflight_8", "MB/s", took.megabytes_per_second(), &took.latency, Some(ceiling), beside);
        board.add_beside("cpu_read_s_per_gb", "s/GB", took.cpu_per_gigabyte(), ceiling_cpu, "raw ring's CPU");
        Ok(())
    }
}
