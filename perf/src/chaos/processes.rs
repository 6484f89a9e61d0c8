//! The processes of the cluster: started as their users start them, killed and stopped as nobody should.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::fault::{Claim, MASTERS_A_ZONE, PLACES, ZONES, name};
use super::journal::Journal;
use super::site::{Files, Site};

const GATEWAY: &str = "gateway";
/// Why a master that does not run is out of reach.
const NO_PROCESS: &str = "no process";
/// What processes log, as far as nobody set it: also what becomes of messages and pulls.
const LOG: (&str, &str) = ("DEADWAX_LOG", "info,deadwax_node::driver=debug");
/// How much of a log is shown where its process died.
const LAST_WORDS_BYTES: usize = 2_000;

/// A process fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ProcessFault {
    /// SIGKILL; started again when lifted.
    Kill { node: usize },
    /// SIGSTOP; SIGCONT when lifted.
    Stop { node: usize },
    /// SIGKILL to all masters of a zone at once.
    KillZone { zone: usize },
    /// SIGKILL to the gateway.
    KillGateway,
    /// SIGKILL and a start with clocks that are ahead by so much; when lifted the same back. The clocks of the machine
    /// itself are everybody's, so these are the ones that count from its start, by which nodes go.
    SetClock { node: usize, forward_s: u64 },
}

impl ProcessFault {
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::Stop { .. } => "stop",
            Self::KillZone { .. } => "kill_zone",
            Self::KillGateway => "kill_gateway",
            Self::SetClock { .. } => "set_clock",
        }
    }

    /// The masters that do not serve.
    pub(crate) fn cuts_off(&self) -> Vec<usize> {
        match *self {
            Self::Kill { node } | Self::Stop { node } | Self::SetClock { node, .. } => vec![node],
            Self::KillZone { zone } => masters_of(zone).collect(),
            Self::KillGateway => vec![],
        }
    }

    pub(crate) fn claims(&self) -> Vec<Claim> {
        match *self {
            Self::Kill { node } | Self::Stop { node } | Self::SetClock { node, .. } => vec![Claim::Master(node)],
            Self::KillZone { zone } => masters_of(zone).map(Claim::Master).collect(),
            Self::KillGateway => vec![Claim::Gateway],
        }
    }

    pub(crate) fn begin(&self, site: &mut Site) -> anyhow::Result<()> {
        let fleet = &mut site.fleet;
        match *self {
            Self::Kill { node } => fleet.kill_master(node),
            Self::Stop { node } => fleet.signal_master(node, Signal::STOP),
            Self::KillZone { zone } => masters_of(zone).try_for_each(|node| fleet.kill_master(node)),
            Self::KillGateway => fleet.kill_gateway(),
            Self::SetClock { node, forward_s } => {
                fleet.kill_master(node)?;
                fleet.start_master(node, Some(forward_s))
            }
        }
    }

    pub(crate) fn lift(&self, site: &mut Site) -> anyhow::Result<()> {
        let fleet = &mut site.fleet;
        match *self {
            Self::Kill { node } => fleet.start_master(node, None),
            Self::Stop { node } => fleet.signal_master(node, Signal::CONT),
            Self::KillZone { zone } => masters_of(zone).try_for_each(|node| fleet.start_master(node, None)),
            Self::KillGateway => fleet.start_gateway(),
            Self::SetClock { node, .. } => {
                fleet.kill_master(node)?;
                fleet.start_master(node, None)
            }
        }
    }
}

fn masters_of(zone: usize) -> std::ops::Range<usize> {
    zone * MASTERS_A_ZONE..(zone + 1) * MASTERS_A_ZONE
}

impl fmt::Display for ProcessFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Kill { node } => write!(f, "{} is killed", name(node)),
            Self::Stop { node } => write!(f, "{} is stopped", name(node)),
            Self::KillZone { zone } => write!(f, "all masters of zone {} are killed", ZONES[zone]),
            Self::KillGateway => f.write_str("the gateway is killed"),
            Self::SetClock { node, forward_s } => {
                write!(f, "{} is killed and started with clocks {forward_s} s ahead", name(node))
            }
        }
    }
}

/// All processes. Killed when dropped, also those that are stopped.
pub(crate) struct Fleet {
    deadwax: PathBuf,
    files: Files,
    /// Whether each has a network of its own.
    staged: bool,
    running: BTreeMap<String, Child>,
    /// Those that were told to end and have not.
    ending: BTreeSet<String>,
    /// The most memory that any life of each process took, in bytes.
    peaks: BTreeMap<String, u64>,
    /// Where it is noted who does not run.
    journal: Arc<Journal>,
}

impl Fleet {
    pub(crate) fn new(deadwax: &Path, files: &Files, staged: bool, journal: &Arc<Journal>) -> Self {
        let (running, ending, peaks) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        let (deadwax, files, journal) = (deadwax.to_owned(), files.clone(), Arc::clone(journal));
        Self { deadwax, files, staged, running, ending, peaks, journal }
    }

    /// The program that runs.
    pub(crate) fn deadwax(&self) -> &Path {
        &self.deadwax
    }

    pub(crate) fn runs(&self, node: usize) -> bool {
        self.running.contains_key(&name(node))
    }

    /// Tells a master to end, and starts it again when it has; call until that is so. One that is killed meanwhile, or does
    /// not run, is left to whoever did that.
    pub(crate) fn restart(&mut self, node: usize) -> anyhow::Result<bool> {
        let name = name(node);
        let Some(child) = self.running.get_mut(&name) else { return Ok(true) };
        if self.ending.insert(name.clone()) {
            falls(&self.journal, &name);
            kill_process(pid(child)?, Signal::TERM).with_context(|| format!("signal {name}"))?;
            return Ok(false);
        }
        // One that did not end well stays, for `take_died`.
        if !child.try_wait()?.is_some_and(|status| status.success()) {
            return Ok(false);
        }
        self.kill(&name)?;
        self.start_master(node, None)?;
        Ok(true)
    }

    /// Starts a master, with clocks that are `forward_s` ahead. It does not serve yet.
    pub(crate) fn start_master(&mut self, node: usize, forward_s: Option<u64>) -> anyhow::Result<()> {
        let config = self.files.master(node).join("master.toml");
        self.start(&name(node), "master", &config, forward_s)
    }

    pub(crate) fn start_gateway(&mut self) -> anyhow::Result<()> {
        let config = self.files.gateway_config();
        self.start(GATEWAY, "gateway", &config, None)
    }

    pub(crate) fn kill_master(&mut self, node: usize) -> anyhow::Result<()> {
        self.kill(&name(node))
    }

    pub(crate) fn kill_gateway(&mut self) -> anyhow::Result<()> {
        self.kill(GATEWAY)
    }

    pub(crate) fn signal_master(&mut self, node: usize, signal: Signal) -> anyhow::Result<()> {
        let name = name(node);
        let child = self.running.get(&name).with_context(|| format!("{name} does not run"))?;
        kill_process(pid(child)?, signal).with_context(|| format!("signal {name}"))
    }

    /// `deadwax cluster rejoin`, as an operator types it.
    pub(crate) fn rejoin(&self, node: usize) -> anyhow::Result<()> {
        let config = self.files.master(node).join("master.toml");
        let output = Command::new(&self.deadwax).args(["cluster", "rejoin", "--config"]).arg(&config).output()?;
        ensure!(output.status.success(), "cluster rejoin: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// `deadwax verify` of the drives of a master that does not run: what is damaged there, if anything is.
    pub(crate) fn verify(&self, node: usize) -> anyhow::Result<Option<String>> {
        let mut said = String::new();
        for volume in self.files.volumes(node).iter().filter(|volume| volume.exists()) {
            let output = Command::new(&self.deadwax).arg("verify").arg(volume).output()?;
            if !output.status.success() {
                said.push_str(&String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
            }
        }
        Ok((!said.is_empty()).then_some(said))
    }

    fn start(&mut self, name: &str, command: &str, config: &Path, forward_s: Option<u64>) -> anyhow::Result<()> {
        let path = self.files.log(name);
        let log = OpenOptions::new().create(true).append(true).open(&path)?;
        let mut start = if self.staged { Command::new("nsenter") } else { Command::new(&self.deadwax) };
        if self.staged {
            start.arg(format!("--net=/run/netns/{name}"));
            if let Some(seconds) = forward_s.map(|seconds| seconds.to_string()) {
                start.args(["unshare", "--time", "--boottime", &seconds, "--monotonic", &seconds]);
            }
            start.arg(&self.deadwax);
        }
        start.args([command, "--config"]).arg(config);
        // It ends with this process, however that ends.
        start.arg("--parent").arg(std::process::id().to_string());
        if std::env::var_os(LOG.0).is_none() {
            start.env(LOG.0, LOG.1);
        }
        let child = start
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        self.running.insert(name.to_owned(), child);
        rises(&self.journal, name);
        Ok(())
    }

    fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        self.ending.remove(name);
        let Some(mut child) = self.running.remove(name) else { return Ok(()) };
        falls(&self.journal, name);
        note_peak(&mut self.peaks, name, &child);
        child.kill().and_then(|()| child.wait()).map(drop).with_context(|| format!("kill {name}"))
    }

    /// Those that ended although nobody killed them, with how and their last words. They are started again.
    pub(crate) fn take_died(&mut self) -> anyhow::Result<Vec<String>> {
        let mut died: Vec<(String, ExitStatus)> = Vec::new();
        for (name, child) in &mut self.running {
            let told = self.ending.contains(name);
            if let Some(status) = child.try_wait()?.filter(|status| !(told && status.success())) {
                died.push((name.clone(), status));
            }
        }
        let mut said = Vec::new();
        for (name, status) in died {
            let words = self.last_words(&name);
            // It was being started when its drive was unmounted, and is right not to: it is tried again until it is back.
            if !words.trim_end().ends_with("or mount its drive") {
                said.push(format!("{name} ended with {status}; its log ends with\n{words}"));
            }
            self.running.remove(&name);
            self.ending.remove(&name);
            falls(&self.journal, &name);
            match place_of(&name) {
                Some(node) => self.start_master(node, None)?,
                None => self.start_gateway()?,
            }
        }
        Ok(said)
    }

    fn last_words(&self, name: &str) -> String {
        let log = fs::read(self.files.log(name)).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(LAST_WORDS_BYTES)..]).into_owned()
    }

    /// Looks at the memory of all that run.
    pub(crate) fn note_peaks(&mut self) {
        for (name, child) in &self.running {
            note_peak(&mut self.peaks, name, child);
        }
    }

    /// Kills all, also those that are stopped.
    pub(crate) fn end(&mut self) {
        for child in self.running.values_mut() {
            drop(child.kill());
        }
        for (_, mut child) in std::mem::take(&mut self.running) {
            drop(child.wait());
        }
    }

    /// The most memory of each, in bytes.
    pub(crate) const fn peaks(&self) -> &BTreeMap<String, u64> {
        &self.peaks
    }
}

/// The place of a master; none: it is the gateway.
fn place_of(process: &str) -> Option<usize> {
    (0..PLACES).find(|node| name(*node) == process)
}

/// Notes that a process is about to end: without the gateway nothing can be told of masters.
fn falls(journal: &Journal, process: &str) {
    let now = journal.now();
    journal.availability().falls(now, place_of(process), NO_PROCESS);
}

/// Notes that it was started.
fn rises(journal: &Journal, process: &str) {
    let now = journal.now();
    journal.availability().rises(now, place_of(process), NO_PROCESS);
}

fn note_peak(peaks: &mut BTreeMap<String, u64>, name: &str, child: &Child) {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0);
    let peak = peaks.entry(name.to_owned()).or_default();
    *peak = (*peak).max(kib * 1024);
}

fn pid(child: &Child) -> anyhow::Result<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process has a number")
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.end();
    }
}
