//! `deadwax-perf cluster`: three masters that hold three copies, and a client of theirs in this process.
//!
//! Each round measures every figure beside its ceiling: the same pattern through a bare ring on the same drive, for puts
//! three times over, as all copies lie on it. A rate is that of a closed loop, which has always so many requests under
//! way. Latencies are those of an open loop at 70 % of that rate: requests begin when it is their time, whether or not
//! others have ended, and each is measured from then, so that what waits while masters stall is counted.
//!
//! *Cold* means that every byte is read from the drive as the machine sees it: masters read past the page cache and the
//! client keeps nothing. The drive may have a cache of its own; the ceiling has it, too.

mod idle;
mod load;
mod masters;
mod measure;
mod rebuild;
mod stock;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
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
    /// Whether masters and client speak TLS; with both, by turns.
    #[arg(long, value_enum, default_value_t = Tls::Both)]
    tls: Tls,
    /// Measure only these. Ask for `rebuild` by name: it takes minutes.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Part::USUAL)]
    only: Vec<Part>,
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

/// Whether the nodes are asked who they are, and all is encrypted.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tls {
    On,
    Off,
    Both,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Puts of 4 MiB.
    Put4m,
    /// Puts of 64 KiB.
    Put64k,
    /// Puts of the sizes that tracks have.
    PutReal,
    /// Gets and ranges.
    Get,
    /// Ranges while a master that lost everything gets it back; once, after the rounds. Of masters with a log: others do
    /// not copy by themselves.
    Rebuild,
    /// What a master takes while nobody asks for anything; once, before the rounds.
    Idle,
}

impl Part {
    const USUAL: [Self; 4] = [Self::Put4m, Self::Put64k, Self::PutReal, Self::Get];
}

/// A kind of masters.
#[derive(Clone, Copy)]
struct Mode {
    log: bool,
    tls: bool,
}

impl Options {
    /// The kinds of masters to measure: the second is compared with the first.
    fn modes(&self) -> Vec<Mode> {
        let tls = self.tls == Tls::On;
        match (self.compare, self.tls) {
            (true, _) => vec![Mode { log: false, tls }, Mode { log: true, tls }],
            (false, Tls::Both) => vec![Mode { log: !self.no_log, tls: false }, Mode { log: !self.no_log, tls: true }],
            (false, _) => vec![Mode { log: !self.no_log, tls }],
        }
    }
}

pub(crate) fn run(options: &Options, seed: u64) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, measure(options, seed))
}

async fn measure(options: &Options, seed: u64) -> anyhow::Result<Report> {
    let folder = Folder::new(&options.dir)?;
    let deadwax = crate::system::executable(options.deadwax.as_deref())?;
    let seconds = Duration::from_secs_f64(options.seconds);
    let (mut board, mut benches) = (Board::default(), Vec::new());
    for (number, mode) in options.modes().into_iter().enumerate() {
        let masters = Masters::start(&deadwax, &folder.path().join(number.to_string()), mode).await?;
        let bytes_max = options.mib * MIB;
        if options.only.contains(&Part::Idle) {
            idle::measure(&masters, decorate(options, mode), &mut board).await.context("watch idle masters")?;
        }
        benches.push((
            mode.log,
            number,
            Bench::new(masters, decorate(options, mode), &options.only, seconds, bytes_max, seed),
        ));
    }
    // Round 0 warms memory up and is not counted.
    for round in 0..=options.rounds {
        let mut uncounted = Board::default();
        let board = if round == 0 { &mut uncounted } else { &mut board };
        let ceilings = Ceilings::measure(&options.dir, seconds.min(Duration::from_secs(1)), seed ^ round as u64)?;
        // Each goes first as often as the other.
        benches.rotate_left(round.min(1));
        let mut found = Vec::new();
        for (_, number, bench) in &mut benches {
            found.push((*number, bench.round(board, &ceilings, round as u64).await?));
        }
        found.sort_by_key(|(number, _)| *number);
        if let [(_, base), (_, other)] = &found[..] {
            let (what, beside) = if options.compare { ("log", "without a log") } else { ("tls", "without TLS") };
            for ((name, base), (_, other)) in base.iter().zip(other) {
                board.add_beside(&format!("{what}_{name}"), "of both", *other, *base, beside);
            }
        }
    }
    for (has_log, _, mut bench) in benches {
        if has_log && options.only.contains(&Part::Rebuild) {
            bench.rebuild(&mut board).await.context("rebuild a master")?;
        }
        bench.end().await?;
    }
    let settings = json!({ "dir": options.dir, "rounds": options.rounds, "seconds": options.seconds,
        "mib": options.mib, "log": !options.no_log, "compare": options.compare,
        "tls": options.tls != Tls::Off, "masters": 3, "copies": 3,
        "seed": seed });
    Ok(Report::new(settings, board.figures()))
}

/// What the names of the figures of these masters begin and end with.
const fn decorate(options: &Options, mode: Mode) -> (&'static str, &'static str) {
    let before = if options.compare && !mode.log { "fixed_" } else { "" };
    (before, if mode.tls { "_tls" } else { "" })
}
