//! `deadwax-perf cluster`: three masters that hold three copies, and a client of theirs in this process.
//!
//! Each round measures every figure beside its ceiling: the same pattern through a bare ring on the same drive, for puts
//! three times over, as all copies lie on it. A rate is that of a closed loop, which has always so many requests under
//! way. Latencies are those of an open loop at 70 % of that rate: requests begin when it is their time, whether or not
//! others have ended, and each is measured from then, so that what waits while masters stall is counted.
//!
//! *Cold* means that every byte is read from the drive as the machine sees it: masters read past the page cache and the
//! client keeps nothing. The drive may have a cache of its own; the ceiling has it, too.

mod load;
mod masters;
mod measure;
mod stock;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::folder::Folder;
use crate::report::{Board, Report};

use self::masters::Masters;
use self::measure::{Bench, Ceilings};

const MIB: u64 = 1024 * 1024;

/// How to load the masters.
#[derive(Args)]
pub(crate) struct Options {
    /// A folder on the drive to measure; the masters' data go there.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Rounds; medians are printed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The most seconds for each figure in each round.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// The most MiB to put for each figure in each round; each takes three times that on the drive.
    #[arg(long, default_value_t = 256)]
    mib: u64,
    /// Measure masters whose map is fixed, without a log.
    #[arg(long, conflicts_with = "compare")]
    no_log: bool,
    /// Measure masters without a log, too, by turns with those that have one; the ratios say what the log costs.
    #[arg(long)]
    compare: bool,
    /// The binary to measure; the `deadwax` beside this one by default.
    #[arg(long)]
    deadwax: Option<PathBuf>,
}

pub(crate) fn run(options: &Options, seed: u64) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, measure(options, seed))
}

async fn measure(options: &Options, seed: u64) -> anyhow::Result<Report> {
    let folder = Folder::new(&options.dir)?;
    let deadwax = crate::system::executable(options.deadwax.as_deref())?;
    let seconds = Duration::from_secs_f64(options.seconds);
    let mut benches = Vec::new();
    for has_log in if options.compare { vec![true, false] } else { vec![!options.no_log] } {
        let masters = Masters::start(&deadwax, &folder.path().join(format!("log-{has_log}")), has_log).await?;
        let prefix = if options.compare && !has_log { "fixed_" } else { "" };
        benches.push(Bench::new(masters, prefix, seconds, options.mib * MIB, seed));
    }
    let mut board = Board::default();
    // Round 0 warms memory up and is not counted.
    for round in 0..=options.rounds {
        let mut uncounted = Board::default();
        let board = if round == 0 { &mut uncounted } else { &mut board };
        let ceilings = Ceilings::measure(&options.dir, seconds.min(Duration::from_secs(1)), seed ^ round as u64)?;
        // Each goes first as often as the other.
        benches.rotate_left(round.min(1));
        let mut found = Vec::new();
        for bench in &mut benches {
            found.push((bench.has_log(), bench.round(board, &ceilings, round as u64).await?));
        }
        if let [(one_has_log, one), (_, other)] = &found[..] {
            let (log, fixed) = if *one_has_log { (one, other) } else { (other, one) };
            for ((name, log), (_, fixed)) in log.iter().zip(fixed) {
                board.add_beside(&format!("log_{name}"), "of both", *log, *fixed, "without a log");
            }
        }
    }
    for bench in benches {
        bench.end().await?;
    }
    let settings = json!({ "dir": options.dir, "rounds": options.rounds, "seconds": options.seconds,
        "mib": options.mib, "log": !options.no_log, "compare": options.compare, "masters": 3, "copies": 3,
        "seed": seed });
    Ok(Report::new(settings, board.figures()))
}
