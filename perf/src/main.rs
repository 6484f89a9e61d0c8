//! `deadwax-perf`: what performance engineers measure and tune Deadwax with.
//!
//! Every command prints a table for people and, with `--json FILE`, figures for programs; each figure stands beside a
//! ceiling that was measured in the same run on the same machine. Start at [`gateway`] (the whole system over HTTP),
//! [`cluster`] (the masters alone), [`engine`] (the storage engine alone) or [`device`] (the drive with raw `io_uring`). Absent on purpose: timed assertions. A figure is read, not tested.

mod chaos;
mod cluster;
mod counting;
mod cpu;
mod crash;
mod device;
mod drive;
mod engine;
mod fill;
mod folder;
mod gateway;
mod http;
mod life;
mod load;
mod machine;
mod nginx;
mod placement;
mod pool;
mod process;
mod report;
mod ring;
#[cfg(feature = "competition")]
mod rivals;
mod shard;
mod sim;
mod system;
mod tracks;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measure Deadwax beside the machine's own ceilings.
#[derive(Parser)]
#[command(name = "deadwax-perf", version)]
struct Cli {
    /// Write the figures to this file as JSON, too.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Seed of everything random: offsets, contents, order.
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The drive's ceilings by raw `io_uring`: durable sequential writes, random reads, flush latency.
    Device(device::Options),
    /// The storage engine beside raw `io_uring` with the same pattern: durable puts, ranges, whole tracks, CPU.
    Engine(engine::Options),
    /// Make a volume of many tracks.
    Fill(fill::Options),
    /// Open a volume that `fill` made, and say what that took.
    Open(fill::Open),
    /// A volume's long life at 85 % full: what random puts and deletes cost in space and in writing.
    Life(life::Options),
    /// The engine's own crash test for longer: random lives of volumes on simulated drives, beside a map.
    Crash(crash::Options),
    /// How long it takes to work out who holds what after a change of a large cluster's map.
    Placement(placement::Options),
    /// Whole clusters in virtual time, with all that may go wrong; placement and routing at scale.
    Sim(sim::Options),
    /// The engine beside plain files, fjall and RocksDB.
    #[cfg(feature = "competition")]
    Rivals(rivals::Options),
    /// A cluster of real processes while everything fails: nothing acknowledged is lost, no byte is wrong, all heals.
    Chaos(chaos::Options),
    /// Puts, gets and ranges over HTTP through a whole cluster on loopback, beside nginx and the raw drive.
    Gateway(gateway::Options),
    /// Puts, gets and ranges by a client of three masters on loopback, beside the raw drive; and what the map's log costs.
    Cluster(cluster::Options),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // The last words, and whole: a backtrace after them would push them out of sight.
            eprintln!("deadwax-perf: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let report = match cli.command {
        Command::Device(options) => device::run(&options, cli.seed)?,
        Command::Engine(options) => engine::run(&options, cli.seed)?,
        Command::Fill(options) => return fill::run(&options, cli.seed),
        Command::Open(options) => return fill::open(&options, cli.seed),
        Command::Life(options) => life::run(&options, cli.seed)?,
        Command::Crash(options) => crash::run(&options, cli.seed)?,
        Command::Placement(options) => placement::run(&options, cli.seed)?,
        Command::Sim(options) => sim::run(&options, cli.seed)?,
        #[cfg(feature = "competition")]
        Command::Rivals(options) => rivals::run(&options, cli.seed)?,
        Command::Chaos(options) => chaos::run(&options, cli.seed)?,
        Command::Gateway(options) => gateway::run(&options, cli.seed)?,
        Command::Cluster(options) => cluster::run(&options, cli.seed)?,
    };
    report.print();
    if let Some(path) = cli.json {
        report.write_json(&path)?;
    }
    report.verdict()
}
