//! One file a command. Each answers whether all went well, or why it could not begin or go on.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use deadwax_dht::wire::PROTOCOL_VERSION;
use serde_json::json;

use crate::cli::{Change, Cli, Cluster, Command, Following, Volume};
use crate::unread::{self, Unread, tell};

mod cluster_change;
mod cluster_init;
mod cluster_issuer;
mod cluster_join;
mod cluster_refound;
mod cluster_rejoin;
mod cluster_rollback;
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
mod unserved;
mod up;
mod verify;
mod volume;

/// The exit code where a volume could not be checked, so that nothing is known of it.
const NOT_CHECKED: u8 = 2;

/// Runs the command, logging started, and answers the process's exit code: 0 where all went well, 1 where not; 2 where
/// `verify` could not check; [`unread::EXIT_CODE`] where nobody reads what it prints any more.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let json = cli.json();
    // Its exit code tells damage from what could not be checked.
    let code = if matches!(cli.command, Command::Verify(_)) { NOT_CHECKED } else { 1 };
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
        Command::Verify(verify) => verify::run(&verify),
        Command::Salvage(salvage) => salvage::run(&salvage),
        Command::Completions(completions) => completions::run(&completions),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if error.is::<Unread>() => ExitCode::from(unread::EXIT_CODE),
        Err(error) => {
            tell(format_args!("deadwax: {error:#}"));
            if json {
                // Where nobody reads that either, the exit code still says it.
                let _ = say(failure(&error));
            }
            ExitCode::from(code)
        }
    }
}

/// Why something failed, for programs.
fn failure(error: &anyhow::Error) -> serde_json::Value {
    json!({"error": format!("{error:#}")})
}

fn cluster(command: Cluster) -> anyhow::Result<bool> {
    match command {
        Cluster::Init(init) => cluster_init::run(&init),
        Cluster::Rejoin(rejoin) => cluster_rejoin::run(&rejoin),
        Cluster::Refound(refound) => asynchronous(cluster_refound::run(refound)),
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
        Cluster::Rollback(back) => asynchronous(cluster_rollback::run(back)),
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

/// Prints a line for people or programs. Where nobody reads any more (`deadwax status | head`) it fails with [`Unread`].
fn say(line: impl Display) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").map_err(unread::or)
}
