//! `deadwax-perf device`: what the drive gives to a bare ring.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::report::{Board, Report};
use crate::ring::Scratch;

const MIB: u64 = 1024 * 1024;

/// How to measure the drive.
#[derive(Args)]
pub(crate) struct Options {
    /// A folder on the drive to measure.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Size of the scratch file, MiB.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Rounds; medians are printed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds for each kind of read in each round.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

/// What the latency beside a write is.
const FLUSH: &str = "latency of a flush";

/// Sizes and depths of random reads, with the names of their figures.
const READS: [(&str, usize, usize); 9] = [
    ("read_4k_depth_1", 4 << 10, 1),
    ("read_4k_depth_8", 4 << 10, 8),
    ("read_4k_depth_32", 4 << 10, 32),
    ("read_64k_depth_1", 64 << 10, 1),
    ("read_64k_depth_8", 64 << 10, 8),
    ("read_64k_depth_32", 64 << 10, 32),
    ("read_1m_depth_1", 1 << 20, 1),
    ("read_1m_depth_8", 1 << 20, 8),
    ("read_1m_depth_32", 1 << 20, 32),
];

pub(crate) fn run(options: &Options, seed: u64) -> anyhow::Result<Report> {
    let bytes = options.mib.max(64) * MIB;
    let mut board = Board::default();
    for round in 0..options.rounds {
        // A new file appends (extents are converted as they are written); the same file again overwrites.
        let scratch = Scratch::new(&options.dir, bytes)?;
        let (rate, flush) = scratch.write(8, 8 << 20)?;
        board.add("append_1m_flush_8m", "MB/s", rate, &flush, None, FLUSH);
        let (rate, flush) = scratch.write(8, 8 << 20)?;
        board.add("overwrite_1m_flush_8m", "MB/s", rate, &flush, None, FLUSH);
        for (name, size, depth) in READS {
            let time = Duration::from_secs_f64(options.seconds);
            let (rate, latency) = scratch.read(size, depth, time, seed + round as u64)?;
            board.add(name, "1/s", rate, &latency, None, "");
        }
    }
    let settings = json!({ "dir": options.dir, "mib": options.mib, "rounds": options.rounds,
        "seconds": options.seconds, "seed": seed });
    Ok(Report::new(settings, board.figures()))
}
