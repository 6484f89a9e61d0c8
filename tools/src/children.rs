//! Processes that `deadwax up` starts, and restarts where they die.
//!
//! A child is told its parent's process id (`--parent`), and [`die_with`] makes it end when the parent does, however
//! that was. So a killed `up` leaves nothing behind that holds its ports.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::backoff::Backoff;

/// A log that is longer when its process starts is put aside, so that two of these are the most that one fills.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Where a child that keeps dying is given up: after so many deaths, none after a life of [`LIFE_GOOD`].
const DEATHS_MAX: u32 = 10;
const LIFE_GOOD: Duration = Duration::from_secs(60);
/// How much of a log an error shows.
const TAIL_LINES: usize = 8;

/// What to run.
#[derive(Clone, Debug)]
pub struct Program {
    /// What people call it: `master-1`.
    pub name: String,
    /// The executable, this one as a rule.
    pub executable: PathBuf,
    /// Its arguments; `--parent` is added.
    pub arguments: Vec<OsString>,
    /// Where its output goes; appended.
    pub log: PathBuf,
}

/// Asks the kernel to end this process with SIGTERM when the process `parent` ends; false where it has already.
///
/// To be called first, on the main thread. The kernel watches the *thread* that made this process, so whoever calls
/// [`Program::start`] does so on a thread that lives as long as the child should.
pub fn die_with(parent: u32) -> io::Result<bool> {
    set_parent_process_death_signal(Some(Signal::TERM))?;
    // Asked after: where the parent died before the call above, the signal never comes.
    Ok(getppid().is_some_and(|pid| u32::try_from(pid.as_raw_nonzero().get()) == Ok(parent)))
}

impl Program {
    /// Starts it, once, in a process group of its own: a Ctrl-C meant for its parent does not reach it, so that the
    /// parent decides in which order its children stop. The child is killed where the result is dropped.
    pub fn start(&self) -> io::Result<Child> {
        if let Some(folder) = self.log.parent() {
            fs::create_dir_all(folder)?;
        }
        if self.log.metadata().is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
            fs::rename(&self.log, self.log.with_extension("log.1"))?;
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        Command::new(&self.executable)
            .args(&self.arguments)
            .arg("--parent")
            .arg(std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// The last lines of its log, of those that were written after the first `start` bytes.
    fn log_tail(&self, start: u64) -> String {
        tail(&self.log, start).unwrap_or_else(|error| format!("(cannot read {}: {error})", self.log.display()))
    }

    fn log_bytes(&self) -> u64 {
        self.log.metadata().map_or(0, |log| log.len())
    }
}

fn tail(log: &Path, start: u64) -> io::Result<String> {
    let mut file = fs::File::open(log)?;
    let start = file.metadata()?.len().saturating_sub(16 * 1024).max(start);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
}

/// Sends SIGTERM, waits for the end, and kills where `deadline` passes first. True where it ended by itself.
pub async fn stop(child: &mut Child, deadline: Duration) -> io::Result<bool> {
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let Some(id) = id else { return Ok(true) };
    kill_process(id, Signal::TERM)?;
    match timeout(deadline, child.wait()).await {
        Ok(status) => status.map(|_| true),
        Err(_) => child.kill().await.map(|()| false),
    }
}

/// What a kept child is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    /// Live; a death is an error, for nothing ever worked.
    Start,
    /// Live; after a death, again.
    Stay,
    /// End within so long.
    Stop(Duration),
}

/// A child that is started again where it dies.
#[derive(Debug)]
pub struct Keeper {
    program: Program,
    order: watch::Sender<Order>,
    task: JoinHandle<Result<(), String>>,
}

impl Keeper {
    /// Starts the program. Call on the thread of a current-thread runtime: see [`die_with`].
    pub fn start(program: Program) -> io::Result<Self> {
        let log_start = program.log_bytes();
        let child = program.start()?;
        let (order, orders) = watch::channel(Order::Start);
        let task = tokio::spawn(keep(program.clone(), child, log_start, orders));
        Ok(Self { program, order, task })
    }

    /// What is kept.
    #[must_use]
    pub const fn program(&self) -> &Program {
        &self.program
    }

    /// From now on a death is followed by a new start.
    pub fn settle(&self) {
        self.order.send_replace(Order::Stay);
    }

    /// Ready when the child is given up, with why: at its first death before [`settle`](Self::settle), or when it dies
    /// again and again. Not to be polled after that.
    pub fn poll_given_up(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        Pin::new(&mut self.task).poll(cx).map(|end| match end {
            Ok(Err(why)) => why,
            Ok(Ok(())) => format!("{} stopped", self.program.name),
            Err(error) => format!("{}: {error}", self.program.name),
        })
    }

    /// Begins to stop the child, and kills it after `deadline`; [`stop`](Self::stop) waits for its end.
    pub fn ask_to_stop(&self, deadline: Duration) {
        self.order.send_replace(Order::Stop(deadline));
    }

    /// Stops the child; kills it after `deadline`.
    pub async fn stop(self, deadline: Duration) {
        self.ask_to_stop(deadline);
        if !self.task.is_finished()
            && let Err(error) = self.task.await
        {
            tracing::error!(name = self.program.name, %error, "cannot wait for a child");
        }
    }
}

async fn keep(
    program: Program,
    mut child: Child,
    log_start: u64,
    mut orders: watch::Receiver<Order>,
) -> Result<(), String> {
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(15), DEATHS_MAX);
    loop {
        let born = Instant::now();
        let status = tokio::select! {
            status = child.wait() => status,
            deadline = told_to_stop(&mut orders) => return end(&program, &mut child, deadline).await,
        };
        let status = describe(status);
        if *orders.borrow() == Order::Start {
            // Where the log was put aside at the start, all of the new one is of this life.
            let log_start = if log_start > LOG_BYTES_MAX { 0 } else { log_start };
            return Err(format!("{} {status}; its log ends with\n{}", program.name, program.log_tail(log_start)));
        }
        if born.elapsed() >= LIFE_GOOD {
            backoff.restart();
        }
        // A failed start counts as a death: the next may go well.
        child = loop {
            let Some(delay) = backoff.delay() else {
                return Err(format!("{} {status}, for the {DEATHS_MAX}th time: given up", program.name));
            };
            tracing::warn!(name = program.name, status, ?delay, log = %program.log.display(), "restarting");
            if timeout(delay, told_to_stop(&mut orders)).await.is_ok() {
                return Ok(());
            }
            match program.start() {
                Ok(child) => break child,
                Err(error) => tracing::error!(name = program.name, %error, "cannot start"),
            }
        };
    }
}

async fn told_to_stop(orders: &mut watch::Receiver<Order>) -> Duration {
    loop {
        if let Order::Stop(deadline) = *orders.borrow_and_update() {
            return deadline;
        }
        if orders.changed().await.is_err() {
            // Its keeper is gone, and so should the child be.
            return Duration::ZERO;
        }
    }
}

async fn end(program: &Program, child: &mut Child, deadline: Duration) -> Result<(), String> {
    match stop(child, deadline).await {
        Ok(true) => Ok(()),
        Ok(false) => {
            tracing::warn!(name = program.name, ?deadline, "killed: it did not stop in time");
            Ok(())
        }
        Err(error) => Err(format!("cannot stop {}: {error}", program.name)),
    }
}

fn describe(status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("ended ({status})"),
        Err(error) => format!("cannot be waited for ({error})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(dir: &Path, script: &str) -> Program {
        Program {
            name: "test".to_owned(),
            executable: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            log: dir.join("logs/test.log"),
        }
    }

    #[tokio::test]
    async fn a_child_that_never_worked_is_given_up_with_its_last_words() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut keeper = Keeper::start(shell(dir.path(), "echo no luck >&2; exit 3")).expect("started");
        let why = std::future::poll_fn(|cx| keeper.poll_given_up(cx)).await;
        assert!(why.contains("exit status: 3") && why.contains("no luck"), "{why}");
    }

    #[tokio::test]
    async fn a_child_that_dies_is_started_again_and_stops_when_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let lives = dir.path().join("lives");
        let script = format!("echo >> {0}; [ $(wc -l < {0}) -lt 3 ] && exit 1; exec sleep 1000", lives.display());
        let keeper = Keeper::start(shell(dir.path(), &script)).expect("started");
        keeper.settle();
        let thrice = async {
            while fs::read(&lives).map_or(0, |lives| lives.len()) < 3 {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), thrice).await.expect("three lives");
        timeout(Duration::from_secs(5), keeper.stop(Duration::from_secs(60))).await.expect("stopped by SIGTERM");
    }

    #[tokio::test]
    async fn a_child_that_does_not_listen_is_killed() {
        let dir = tempfile::tempdir().expect("a folder");
        let ready = dir.path().join("ready");
        let script = format!("trap '' TERM; touch {}; while :; do sleep 0.05; done", ready.display());
        let mut child = shell(dir.path(), &script).start().expect("started");
        while !ready.exists() {
            tokio::task::yield_now().await;
        }
        assert!(!stop(&mut child, Duration::from_millis(50)).await.expect("killed"));
    }
}
