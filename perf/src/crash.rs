//! `deadwax-perf crash`: the engine's own crash test for longer. Random lives of volumes on simulated drives, beside a
//! map.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use deadwax_engine::sim::lives::{self, Limits, Ran};
use serde_json::json;

use crate::report::{Board, Report};

/// How often what was done so far is shown.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// How long to run.
#[derive(Args, Clone)]
pub(crate) struct Options {
    /// How many operations to do at least.
    #[arg(long, default_value_t = 10_000_000)]
    operations: u64,
    /// How many crashes to go through at least.
    #[arg(long, default_value_t = 100_000)]
    crashes: u64,
    /// How many drives live at once [default: one for each core].
    #[arg(long)]
    threads: Option<usize>,
}

/// Begins with the drive of `seed`. The first that is not what it should be ends the run with an error that names its
/// seed.
pub(crate) fn run(options: &Options, seed: u64) -> anyhow::Result<Report> {
    let threads = match options.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism().context("count the cores")?.get(),
    };
    ensure!(threads > 0, "no thread would run anything");
    let limits = Limits { operations_min: options.operations, crashes_min: options.crashes, threads, first_seed: seed };
    let (started, shown) = (Instant::now(), Mutex::new(Instant::now()));
    let ran = lives::run(&limits, |ran| {
        let mut shown = shown.lock().expect("no panic while held");
        if shown.elapsed() >= PROGRESS_EVERY {
            *shown = Instant::now();
            let Ran { seeds, operations, crashes } = ran;
            eprintln!("{} s: {operations} operations, {crashes} crashes, {seeds} drives", started.elapsed().as_secs());
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    let ran = ran.map_err(|failure| {
        let again =
            format!("DEADWAX_SIM_SEED={} cargo test -p deadwax-engine --test sim a_volume_is_a_map", failure.seed);
        anyhow::Error::new(failure).context(format!("a volume is not what it should be; replay with {again}"))
    })?;
    let mut board = Board::default();
    #[expect(clippy::cast_precision_loss, reason = "counts, far below 2^52")]
    {
        board.add_plain("crash_seeds", "drives", ran.seeds as f64);
        board.add_plain("crash_operations", "ops", ran.operations as f64);
        board.add_plain("crash_crashes", "crashes", ran.crashes as f64);
        board.add_plain("crash_operations_per_s", "ops/s", ran.operations as f64 / seconds);
    }
    // The first one would have ended the run.
    board.add_plain("crash_violations", "drives", 0.0);
    let settings =
        json!({ "operations": options.operations, "crashes": options.crashes, "threads": threads, "seed": seed });
    Ok(Report::new(settings, board.figures()))
}
