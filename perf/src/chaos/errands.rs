//! What the operator is at, besides faults that begin and end at their times: steps, one after the other, each of which
//! may take as long as the cluster needs. A command is given again until it is carried out, as people do.

use std::collections::VecDeque;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::drives::destroy;
use super::fault::name;
use super::heal::status;
use super::site::Site;

/// The most steps that wait: a storm has some tens.
const STEPS_MAX: usize = 1024;
/// How long before a command that failed is given again, and how often the cluster is asked how it is.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long a master that was restarted is waited for, before the next: it may be cut off from the gateway.
const AWAIT_MAX: Duration = Duration::from_secs(10);
/// How long partitions may take to move after a change that moves some: by then they have, unless none had to.
const MOVING_MAX: Duration = Duration::from_secs(60);
/// What commands say that are to remove what is removed already.
const REMOVED: [&str; 2] = ["nothing is to be removed", "is removed already"];

/// Something that is done before the next thing is begun.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// A `deadwax` command, until it succeeds.
    Run(Vec<String>),
    /// A master's place gets a new drive, and nothing of who was there before.
    Furnish(usize),
    /// A master is started, if it does not run.
    Start(usize),
    /// A master is killed as soon as partitions move.
    KillMoving(usize),
    /// A master, which the cluster no longer knows, is killed, and all that it has destroyed.
    Destroy(usize),
    /// Commands go by the map of this master, which has joined, from now on.
    Publish(usize),
    /// A master has a second drive, on which nothing is.
    Insert(usize),
    /// A master is to read its settings again, if it runs.
    HangUp(usize),
    /// The second drive of a master is emptied, and taken out of the cluster.
    Retire(usize),
    /// It is taken out of the master's settings, ...
    Forget(usize),
    /// ... and destroyed.
    PullOut(usize),
    /// A master is told to end, and when it has is started again; where it does not run, nothing is done.
    End(usize),
    /// A master answers again.
    Await(usize),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(arguments) => write!(f, "deadwax {}", arguments.join(" ")),
            Self::Furnish(node) => write!(f, "the place of {} is given a new drive", name(*node)),
            Self::Start(node) => write!(f, "{} is started", name(*node)),
            Self::KillMoving(node) => write!(f, "{} is killed once partitions move", name(*node)),
            Self::Destroy(node) => write!(f, "{} is destroyed", name(*node)),
            Self::Publish(node) => write!(f, "commands go by the map of {}", name(*node)),
            Self::Insert(node) => write!(f, "{} is given a second drive", name(*node)),
            Self::HangUp(node) => write!(f, "{} reads its settings again", name(*node)),
            Self::Retire(node) => write!(f, "the second drive of {} is retired", name(*node)),
            Self::Forget(node) => write!(f, "{} forgets its second drive", name(*node)),
            Self::PullOut(node) => write!(f, "the second drive of {} is pulled out", name(*node)),
            Self::End(node) => write!(f, "{} is told to end", name(*node)),
            Self::Await(node) => write!(f, "{} is waited for", name(*node)),
        }
    }
}

/// The steps that are not done.
#[derive(Default)]
pub(crate) struct Errands {
    steps: VecDeque<Step>,
    /// When the first of them was begun.
    begun: Option<Instant>,
    /// Before this nothing is asked again.
    rests_until: Option<Instant>,
    /// The command that runs, and how long the operator's log was before.
    command: Option<(Child, u64)>,
    /// How often a master was killed while partitions moved.
    killed_moving: usize,
}

impl Errands {
    pub(crate) fn push(&mut self, step: Step) {
        assert!(self.steps.len() < STEPS_MAX, "{STEPS_MAX} steps wait");
        self.steps.push_back(step);
    }

    pub(crate) fn extend(&mut self, steps: impl IntoIterator<Item = Step>) {
        steps.into_iter().for_each(|step| self.push(step));
    }

    /// What it is at; nothing: all is done.
    pub(crate) fn current(&self) -> Option<&Step> {
        self.steps.front()
    }

    pub(crate) const fn killed_moving(&self) -> usize {
        self.killed_moving
    }
}

impl Drop for Errands {
    fn drop(&mut self) {
        if let Some((mut command, _)) = self.command.take() {
            // One that has ended, has.
            drop(command.kill().and_then(|()| command.wait()));
        }
    }
}

/// Does what can be done now. Call it often.
pub(crate) fn advance(site: &mut Site) -> anyhow::Result<()> {
    while let Some(step) = site.errands.current().cloned() {
        if site.errands.rests_until.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        if site.errands.begun.is_none() {
            site.journal.say(format_args!("operator: {step}"));
            site.errands.begun = Some(Instant::now());
        }
        if !is_done(site, &step).with_context(|| step.to_string())? {
            return Ok(());
        }
        site.journal.say(format_args!("operator, done: {step}"));
        site.errands.steps.pop_front();
        (site.errands.begun, site.errands.rests_until) = (None, None);
    }
    Ok(())
}

/// Does what can be done of a step now; whether that was all.
fn is_done(site: &mut Site, step: &Step) -> anyhow::Result<bool> {
    match step {
        Step::Run(arguments) => is_carried_out(site, arguments),
        Step::Furnish(node) => site.furnish(*node).map(|()| true),
        Step::Start(node) => {
            if !site.fleet.runs(*node) {
                site.settle_in(*node)?;
                site.fleet.start_master(*node, None)?;
            }
            Ok(true)
        }
        Step::KillMoving(node) => kill_moving(site, *node),
        Step::Destroy(node) => {
            site.fleet.kill_master(*node)?;
            site.clear(*node).map(|()| true)
        }
        Step::Publish(node) => site.publish_map_of(*node).map(|()| true),
        Step::Insert(node) => site.insert(&site.files.second(*node)).map(|()| true),
        Step::HangUp(node) => hang_up(site, *node),
        Step::Retire(node) => retire(site, *node),
        Step::Forget(node) => site.forget_second(*node).map(|()| true),
        Step::PullOut(node) => destroy(&site.files.second(*node), site.staged).map(|()| true),
        // Whose drive is unmounted just now would not start on what is there in its place.
        Step::End(node) if site.fleet.runs(*node) && !site.files.segments(*node).exists() => Ok(false),
        Step::End(node) => site.fleet.restart(*node),
        Step::Await(node) => {
            let waited = site.errands.begun.is_some_and(|begun| begun.elapsed() > AWAIT_MAX);
            let address = site.address(*node);
            Ok(waited || !site.fleet.runs(*node) || ask(site).is_some_and(|now| is_up(&now, &address)))
        }
    }
}

/// How the cluster is, if it says so; then not again for a moment.
fn ask(site: &mut Site) -> Option<Value> {
    site.errands.rests_until = Some(Instant::now() + ASK_AGAIN);
    status(site.gateway).ok()
}

pub(crate) fn nodes(now: &Value) -> impl Iterator<Item = &Value> {
    now["nodes"].as_array().into_iter().flatten()
}

pub(crate) fn volumes(node: &Value) -> impl Iterator<Item = &Value> {
    node["volumes"].as_array().into_iter().flatten()
}

fn is_up(now: &Value, address: &str) -> bool {
    nodes(now).any(|node| node["address"] == address && node["up"] == true)
}

fn hang_up(site: &mut Site, node: usize) -> anyhow::Result<bool> {
    if site.fleet.runs(node) {
        site.fleet.signal_master(node, Signal::HUP)?;
    }
    Ok(true)
}

/// The volume's id is what its master says it is. One that its master does not have any more was retired.
fn retire(site: &mut Site, node: usize) -> anyhow::Result<bool> {
    if site.errands.command.is_some() {
        return is_carried_out(site, &[]);
    }
    let dir = site.files.volumes(node)[1].display().to_string();
    let Some(now) = ask(site).filter(|now| is_up(now, &site.address(node))) else { return Ok(false) };
    let found = nodes(&now).flat_map(volumes).find(|volume| volume["dir"] == *dir);
    let Some(volume) = found.and_then(|volume| volume["id"].as_str()) else { return Ok(true) };
    is_carried_out(site, &site.retire_volume(volume))
}

fn kill_moving(site: &mut Site, node: usize) -> anyhow::Result<bool> {
    let Some(now) = ask(site) else { return Ok(false) };
    let moves = &now["log"]["moves"];
    let moving: u64 = ["joint", "synced", "settled"].iter().filter_map(|stage| moves[*stage].as_u64()).sum();
    if moving > 0 {
        site.fleet.kill_master(node)?;
        site.errands.killed_moving += 1;
        site.journal.say(format_args!("{} is killed while {moving} partitions move", name(node)));
        return Ok(true);
    }
    let waited = site.errands.begun.is_some_and(|begun| begun.elapsed() > MOVING_MAX);
    Ok(waited && now["log"]["settled"] == true)
}

fn is_carried_out(site: &mut Site, arguments: &[String]) -> anyhow::Result<bool> {
    let path = site.files.log("operator");
    let Some((command, said)) = &mut site.errands.command else {
        let log = OpenOptions::new().create(true).append(true).open(&path)?;
        let said = log.metadata()?.len();
        let mut command = Command::new(site.fleet.deadwax());
        command.args(arguments).env_remove("DEADWAX_GATEWAY").stdin(Stdio::null());
        let child = command.stdout(log.try_clone()?).stderr(log).spawn().context("start the command")?;
        site.errands.command = Some((child, said));
        return Ok(false);
    };
    let Some(ended) = command.try_wait()? else { return Ok(false) };
    let said = fs::read(&path)?.split_off(usize::try_from(*said)?);
    site.errands.command = None;
    // Wrong usage never becomes right.
    ensure!(ended.code() != Some(2), "{ended}; see {}", path.display());
    // The answer may be lost of what was done.
    let said = String::from_utf8_lossy(&said);
    if ended.success() || REMOVED.iter().any(|word| said.contains(word)) {
        return Ok(true);
    }
    if site.errands.rests_until.is_none() {
        site.journal
            .say(format_args!("operator: it fails, and is given again until it does not: see {}", path.display()));
    }
    site.errands.rests_until = Some(Instant::now() + ASK_AGAIN);
    Ok(false)
}
