//! One file a command. Each answers whether all went well, or why it could not begin or go on.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use deadwax_dht::wire::PROTOCOL_VERSION;

use crate::cli::{Change, Cli, Cluster, Command, Following, Volume};

mod cluster_change;
mod cluster_init;
mod cluster_issuer;
mod cluster_join;
mod cluster_rejoin;
mod cluster_token;
mod completions;
mod doctor;
mod gateway;
mod get;
mod import;
mod inspect;
mod master;
mod repair;
mod rm;
mod salvage;
mod scrub;
mod status;
mod up;
mod verify;
mod volume;

/// Runs the command, logging started, and answers the process's exit code: 0 where all went well, 1 where not; 2 where
/// `verify` could not check.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Up(up) => asynchronous(up::run(up, cli.log_json)),
        Command::Master(master) => master::run(&master),
        Command::Gateway(gateway) => gateway::run(&gateway),
        Command::Cluster(command) => cluster(command),
        Command::Volume(Volume::Add(add)) => asynchronous(volume::add(add)),
        Command::Volume(Volume::Retire(retire)) => asynchronous(volume::retire(retire)),
        Command::Import(import) => asynchronous(import::run(import)),
        Command::Get(get) => asynchronous(get::run(get)),
        Command::Rm(rm) => asynchronous(rm::run(rm)),
        Command::Repair(repair) => asynchronous(repair::run(repair)),
        Command::Scrub(scrub) => asynchronous(scrub::run(scrub)),
        Command::Status(status) => asynchronous(status::run(status)),
        Command::Doctor(doctor) => doctor::run(&doctor),
        Command::Inspect(inspect) => inspect::run(&inspect),
        // Its exit code tells damage from what could not be checked.
        Command::Verify(verify) => return verify::run(&verify),
        Command::Salvage(salvage) => salvage::run(&salvage),
        Command::Completions(completions) => completions::run(&completions),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("deadwax: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn cluster(command: Cluster) -> anyhow::Result<bool> {
    match command {
        Cluster::Init(init) => cluster_init::run(&init),
        Cluster::Rejoin(rejoin) => cluster_rejoin::run(&rejoin),
        Cluster::Issuer(issuer) => cluster_issuer::run(&issuer),
        Cluster::Join(join) => asynchronous(cluster_join::run(join)),
        Cluster::Token(token) => asynchronous(cluster_token::run(token)),
        Cluster::Plan(plan) => asynchronous(cluster_change::plan(plan)),
        Cluster::Apply(apply) => asynchronous(cluster_change::apply(&apply.change, &apply.masters, apply.following)),
        Cluster::Drain(drain) => {
            let change = Change::Drain { name: drain.name };
            asynchronous(cluster_change::apply(&change, &drain.masters, drain.following))
        }
        Cluster::Remove(remove) => {
            let change = Change::Remove { name: remove.name };
            asynchronous(cluster_change::apply(&change, &remove.masters, remove.following))
        }
        Cluster::Finalise(finalise) => {
            let change = Change::Finalise { protocol: PROTOCOL_VERSION };
            asynchronous(cluster_change::apply(
                &change,
                &finalise.masters,
                Following { wait: false, json: finalise.json },
            ))
        }
        Cluster::Rollback(back) => {
            let change = Change::Rollback { epoch: back.epoch };
            asynchronous(cluster_change::apply(&change, &back.masters, back.following))
        }
    }
}

/// Runs on this thread. The main thread must be it: `up`'s children live as long as the thread that made them.
fn asynchronous(command: impl Future<Output = anyhow::Result<bool>>) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(command);
    // A reader that waits for a slow drive must not keep the command from ending.
    runtime.shutdown_background();
    done
}

/// Prints a line for people or programs. Where nobody reads any more (`deadwax status | head`) that is an error, not a
/// panic.
fn say(line: impl Display) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
