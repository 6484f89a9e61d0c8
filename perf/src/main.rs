//! `deadwax-perf`: what performance engineers measure and tune Deadwax with.
//!
//! Every command prints a table for people and, with `--json FILE`, figures for programs; each figure stands beside a
//! ceiling that was measured in the same run on the same machine. Start at [`gateway`] (the whole system over HTTP) or
//! [`device`] (the drive with raw `io_uring`). Absent on purpose: timed assertions. A figure is read, not tested.

mod device;
mod gateway;
mod http;
mod machine;
mod nginx;
mod report;
mod ring;
mod system;
mod tracks;

use std::path::PathBuf;

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
    /// Puts, gets and ranges over HTTP through a whole cluster on loopback, beside nginx and the raw drive.
    Gateway(gateway::Options),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let report = match cli.command {
        Command::Device(options) => device::run(&options, cli.seed)?,
        Command::Gateway(options) => gateway::run(&options, cli.seed)?,
    };
    report.print();
    if let Some(path) = cli.json {
        report.write_json(&path)?;
    }
    Ok(())
}
