//! `deadwax-perf engine`: the storage engine on one core, beside raw `io_uring` with the same pattern on the same drive.
//!
//! The rounds interleave: each figure's ceiling is measured right before or after it, by the same thread.

mod mixed;
mod puts;
mod reads;
mod split;
mod starts;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::folder::Folder;
use crate::report::{Board, Report};
use crate::shard;

const MIB: usize = 1024 * 1024;

/// How to measure the engine.
#[derive(Args, Clone)]
pub(crate) struct Options {
    /// A folder on the drive to measure.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Rounds; medians are printed.
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    /// Seconds for each kind of read in each round.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// MiB of tracks for each kind of put in each round, and what the reads choose from. So much memory is taken.
    #[arg(long, default_value_t = 1024)]
    mib: usize,
    /// The core to run on.
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// Only these parts. Without it, those that take seconds.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// All parts, also those that take minutes and tens of gigabytes: restart, index and shards. With `only`: those, and `index`
    /// also at four times as many tracks.
    #[arg(long)]
    full: bool,
    /// How many tracks a volume has for `restart` and `index`.
    #[arg(long, default_value_t = 1_000_000)]
    tracks: u64,
    /// Over how many executors to split a volume for `shards`, each with a core of its own; more than there are cores
    /// are left out.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16])]
    shards: Vec<usize>,
}

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Part {
    /// Durable puts of 4 MiB tracks.
    Ingest,
    /// Durable puts of 64 KiB tracks.
    Put,
    /// Random ranges of 64 KiB.
    Range,
    /// Whole tracks of 4 MiB.
    Read,
    /// Random ranges while tracks come in.
    Mixed,
    /// The start of a volume of many tracks, after a close and after a kill.
    Restart,
    /// The memory of the index, at two sizes.
    Index,
    /// A volume split over several executors.
    Shards,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        let slow = matches!(part, Part::Restart | Part::Index | Part::Shards);
        if self.only.is_empty() { self.full || !slow } else { self.only.contains(&part) }
    }

    fn bytes(&self) -> usize {
        self.mib.max(16) * MIB
    }

    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

pub(crate) fn run(options: &Options, seed: u64) -> anyhow::Result<Report> {
    let folder = Folder::new(&options.dir)?;
    let (on_core, path) = (options.clone(), folder.path().to_owned());
    let mut board = shard::run(options.core, move || async move {
        let mut board = Board::default();
        if on_core.wants(Part::Ingest) || on_core.wants(Part::Put) {
            puts::measure(&on_core, &path, seed, &mut board).await?;
        }
        if on_core.wants(Part::Range) || on_core.wants(Part::Read) {
            reads::measure(&on_core, &path, seed, &mut board).await?;
        }
        if on_core.wants(Part::Mixed) {
            mixed::measure(&on_core, &path, seed, &mut board).await?;
        }
        Ok(board)
    })?;
    if options.wants(Part::Shards) {
        split::measure(options, folder.path(), seed, &mut board)?;
    }
    if options.wants(Part::Restart) || options.wants(Part::Index) {
        starts::measure(options, folder.path(), seed, &mut board)?;
    }
    let settings = json!({ "dir": options.dir, "rounds": options.rounds, "seconds": options.seconds,
        "mib": options.mib, "core": options.core, "tracks": options.tracks, "shards": options.shards, "seed": seed });
    Ok(Report::new(settings, board.figures()))
}
