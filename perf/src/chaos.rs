//! `deadwax-perf chaos`: a cluster of real processes under a load that is checked, while everything fails.
//!
//! Six masters in two zones, with a log, and a gateway: each a process in a network namespace of its own, each master with
//! a drive of its own. Clients put, get and take down tracks. An operator is at work meanwhile ([`operator`]): a seventh
//! master joins and leaves, one of the six is replaced, drives are added and retired, others are drained, weighed and
//! restarted. Faults come from a seed ([`schedule`]), or are those of a [`scenario`], in storms; after each the cluster has
//! to be whole again within a stated time, and all that was acknowledged is read. What may be answered is the [`oracle`]'s
//! to say, and what has to be is [`availability`]'s. Each run keeps a journal of faults and observations; where a rule is
//! broken, its folder stays.
//!
//! Where namespaces are not permitted all run on loopback, and what needs networks and drives of their own is left out.
//! Absent on purpose: loss of power (the kernel stays up; `deadwax-perf crash` has it), the machine's own clock, which is
//! everybody's, and a step of a clock under a running process: a time namespace is set before its first process, so that
//! clocks are set across a restart.

mod availability;
mod corpus;
mod drives;
mod errands;
mod exchange;
mod fault;
mod heal;
mod journal;
mod load;
#[cfg(test)]
mod load_lies;
mod network;
mod operator;
mod oracle;
mod processes;
mod scenario;
mod schedule;
mod site;
mod stage;
mod weather;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use deadwax_track::MIB;
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};

use self::availability::{CUT_MS_MAX, Tally};
use self::corpus::Corpus;
use self::fault::Fault;
use self::journal::Journal;
use self::load::Load;
use self::oracle::{Rule, Violation};
use self::processes::ProcessFault;
use self::scenario::Scenario;
use self::schedule::{Planned, Shape};
use self::site::{Files, Kind, Site};
use self::stage::Stage;
use crate::folder::Folder;
use crate::report::{Board, Report};
use crate::tracks::Random;

/// Folders of real tracks, separated by colons.
const TRACKS_VARIABLE: &str = "DEADWAX_TEST_TRACKS";
/// How long a new cluster may take until it is whole.
const START_MAX: Duration = Duration::from_secs(60);
/// How long writes that were begun may go on: as long as a holder may take to make them durable, and some.
const WRITES_MAX: Duration = Duration::from_secs(60);
/// How long a calm lasts, so that it meets puts and takedowns, too.
const CALM: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_millis(10);
/// How often memory and deaths are looked at in a storm.
const WATCH: Duration = Duration::from_millis(200);

/// How to hurt the cluster.
#[derive(Args)]
pub(crate) struct Options {
    /// Replay these faults, at their times, instead of some that are drawn.
    #[arg(long, value_enum, value_name = "NAME", conflicts_with_all = ["faults", "storm", "seconds", "no_changes", "no_replacement"])]
    scenario: Option<Scenario>,
    /// Faults in all.
    #[arg(long, default_value_t = 100)]
    faults: usize,
    /// Faults of a storm, after which the cluster may heal. With 1, how long each kind takes to heal is exact.
    #[arg(long, default_value_t = 34, value_parser = clap::value_parser!(u16).range(1..))]
    storm: u16,
    /// Seconds in which the faults of a storm begin.
    #[arg(long, default_value_t = 40.0)]
    seconds: f64,
    /// Seconds in which the cluster must be whole after a storm. A difference of two holders is found within 60, by
    /// design; then it is pulled.
    #[arg(long, default_value_t = 90)]
    heal: u64,
    /// Seconds more where an operator has changed what the cluster is made of: partitions move in batches, and one that moves
    /// while a node is down waits for it. Thrice as many where a master is replaced: all that it has moves away, and back.
    #[arg(long, default_value_t = 300)]
    moving: u64,
    /// Leave the cluster as it is made: no master joins, is drained or leaves, and weights stay.
    #[arg(long)]
    no_changes: bool,
    /// Leave the six founders where they are: none is drained, removed and replaced, for which all that it has moves twice.
    #[arg(long)]
    no_replacement: bool,
    /// Have masters and the gateway speak TLS. They do so by themselves where the seed is even.
    #[arg(long)]
    tls: bool,
    /// Clients at once.
    #[arg(long, default_value_t = 6)]
    clients: u16,
    /// The most bytes of different tracks, MiB; three copies of each are stored. A quarter may come at once, the others little
    /// by little.
    #[arg(long, default_value_t = 400)]
    mib: u64,
    /// Keep the run's folder, with journal and logs, also where no rule was broken.
    #[arg(long)]
    keep: bool,
    /// A folder on the drive; the cluster's files go there.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// The binary to hurt; the `deadwax` beside this one by default.
    #[arg(long)]
    deadwax: Option<PathBuf>,
}

/// What a run saw, besides what the load counted.
#[derive(Default)]
struct Seen {
    faults: usize,
    /// How many of each kind.
    kinds: BTreeMap<&'static str, usize>,
    /// Seconds from when each fault was lifted until all was whole, by kind.
    healed: BTreeMap<&'static str, Vec<f64>>,
    /// Seconds from the end of each storm.
    after_storms: Vec<f64>,
}

pub(crate) fn run(options: &Options, seed: u64) -> anyhow::Result<Report> {
    let told = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&told))?;
    }
    let stage = Stage::enter(&told)?;
    let deadwax = match &options.deadwax {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("deadwax"),
    };
    ensure!(deadwax.exists(), "{} is not there: build it first, cargo build -p deadwax", deadwax.display());
    let folders: Vec<PathBuf> =
        std::env::var_os(TRACKS_VARIABLE).map(|folders| std::env::split_paths(&folders).collect()).unwrap_or_default();
    let corpus = if folders.is_empty() { Corpus::generated(seed) } else { Corpus::of_folders(&folders, seed)? };
    let folder = Folder::new(&options.dir)?;
    let files = Files::new(folder.path());
    let journal = Arc::new(Journal::new(&files.journal())?);
    if let Stage::Loopback(why) = &stage {
        journal.tell(format_args!("no namespaces here, so no networks and drives of their own, and no clocks: {why}"));
    }
    if folders.is_empty() {
        journal.tell(format_args!("tracks are generated: {TRACKS_VARIABLE} names no folders"));
    }
    let shape = Shape {
        seed,
        faults: options.faults,
        storm: usize::from(options.storm),
        storm_ms: u64::try_from(Duration::try_from_secs_f64(options.seconds)?.as_millis())?,
        staged: stage.has_namespaces(),
        changes: !options.no_changes,
        replaces: !options.no_replacement,
    };
    let storms = match &options.scenario {
        Some(scenario) => vec![scenario.storm(shape.staged)],
        None => schedule::plan(&shape),
    };
    ensure!(
        storms.iter().any(|storm| !storm.is_empty()),
        "all faults of this scenario need networks and drives of our own: be root, with iproute2 and util-linux"
    );
    let what = options.scenario.map_or("drawn", |scenario| scenario.name);
    journal.tell(format_args!("seed {seed}, {} faults, {what}, storms: {}", storms.concat().len(), storms.len()));
    let kind = Kind { staged: shape.staged, tls: options.tls || seed.is_multiple_of(2) };
    let site = Site::start(&deadwax, &files, kind, &journal)?;
    let load = Load::new(site.gateway, corpus, Arc::clone(&journal));
    let (storms, seen) = (&storms[..], Seen::default());
    let mut run = Run { options, shape, kind, site, load: &load, storms, told: &told, seen, hurt: None };
    let result = run.storms();
    let report = run.report(&folders);
    drop(run);
    let good = load.all_broken().is_empty();
    // Who stops a run wants nothing of it, unless it has found something.
    if good && told.load(Ordering::Relaxed) {
        return Ok(report.failed("stopped by a signal".to_owned()));
    }
    if good && result.is_ok() && !options.keep {
        return Ok(report);
    }
    let kept = format!("journal, logs and drives of seed {seed} are in {}", folder.keep().display());
    eprintln!("{kept}");
    match result {
        Ok(()) if good => Ok(report),
        Ok(()) => Ok(report.failed(format!("rules were broken; {kept}"))),
        Err(why) => Ok(report.failed(format!("{why:#}; {kept}"))),
    }
}

/// A run under way.
struct Run<'a> {
    options: &'a Options,
    shape: Shape,
    kind: Kind,
    site: Site,
    load: &'a Load,
    storms: &'a [Vec<Planned>],
    told: &'a AtomicBool,
    seen: Seen,
    /// The node that lost something since all was whole.
    hurt: Option<usize>,
}

impl Run<'_> {
    /// All storms, until one breaks a rule.
    fn storms(&mut self) -> anyhow::Result<()> {
        let load = self.load;
        if let Err(why) = heal::wait(&mut self.site, load, START_MAX, self.told)? {
            anyhow::bail!("the new cluster was not whole within {START_MAX:?}: {why}");
        }
        load.whole();
        let (folder, journal) = (self.site.files.folder().to_owned(), Arc::clone(&self.site.journal));
        std::thread::scope(|scope| {
            for client in 0..u64::from(self.options.clients) {
                let seed = Random::new(self.shape.seed << 8 | client).next();
                scope.spawn(move || load.client(seed));
            }
            scope.spawn(move || {
                if let Err(why) = weather::watch(&folder, &journal, || load.is_ended()) {
                    journal.tell(format_args!("whether the machine stands still is not seen any more: {why:#}"));
                }
            });
            // Also where a fault turns out not to be possible: the scope waits for the clients.
            let _ended = load.ended_when_dropped();
            self.all()
        })
    }

    fn all(&mut self) -> anyhow::Result<()> {
        for (index, storm) in self.storms.iter().enumerate() {
            let lifted = self.storm(index, storm)?;
            self.calm(&lifted, index)?;
            if !self.load.all_broken().is_empty() {
                return Ok(());
            }
        }
        self.hold()?;
        self.verify()
    }

    /// Proves every copy on every drive, when no master runs that could mend it.
    fn verify(&mut self) -> anyhow::Result<()> {
        let members: Vec<usize> = self.site.members().collect();
        members.iter().try_for_each(|node| self.site.fleet.kill_master(*node))?;
        for node in members {
            if let Some(found) = self.site.fleet.verify(node)? {
                let what = format!("on the drive of {}:\n{found}", fault::name(node));
                self.load.violated(Violation { rule: Rule::Damaged, what });
            }
        }
        self.site.journal.say(format_args!("every copy is proved"));
        Ok(())
    }

    /// Bytes of tracks that may be put by the time when `passed` of `whole` of this storm has: a quarter of all is there to be
    /// hurt from the first storm on, and each storm meets puts.
    fn room(&self, index: usize, passed: u64, whole: u64) -> u64 {
        let (all, storms) = (self.options.mib * MIB, self.storms.len() as u64);
        all / 4 + all * 3 / 4 * (index as u64 * whole + passed.min(whole)) / (storms * whole)
    }

    /// Faults begin and are lifted at their times, and all the while tracks are put. Gives when each fault was lifted.
    fn storm(&mut self, index: usize, storm: &[Planned]) -> anyhow::Result<Vec<(Fault, Instant)>> {
        let mut events: Vec<(u64, bool, &Planned)> = Vec::new();
        events.extend(storm.iter().map(|planned| (planned.from_ms, true, planned)));
        events.extend(storm.iter().map(|planned| (planned.until_ms, false, planned)));
        events.sort_by_key(|(at, begins, planned)| (*at, *begins, planned.number));
        let (began, mut lifted, mut watched) = (Instant::now(), Vec::new(), Instant::now());
        let ends_ms = events.last().map_or(1, |(at, ..)| *at);
        for (at, begins, planned) in events {
            while began.elapsed() < Duration::from_millis(at) {
                ensure!(!self.told.load(Ordering::Relaxed), "stopped by a signal");
                if watched.elapsed() > WATCH {
                    let passed_ms = u64::try_from(began.elapsed().as_millis())?;
                    self.load.go(self.room(index, passed_ms, ends_ms));
                    heal::watch(&mut self.site, self.load)?;
                    watched = Instant::now();
                }
                std::thread::sleep(TICK);
            }
            if begins {
                self.site.journal.fault_begins(planned.to_string());
                self.begin(planned).with_context(|| planned.to_string())?;
                self.seen.faults += 1;
                *self.seen.kinds.entry(planned.fault.kind()).or_default() += 1;
            } else {
                self.lift(&planned.fault).with_context(|| planned.to_string())?;
                self.note(planned, false);
                self.site.journal.fault_is_lifted(&planned.to_string());
                lifted.push((planned.fault, Instant::now()));
            }
        }
        Ok(lifted)
    }

    /// Notes whom a fault keeps from serving: it is about to begin, or was lifted.
    fn note(&self, planned: &Planned, begins: bool) {
        let (fault, now) = (&planned.fault, self.site.journal.now());
        let mut availability = self.site.journal.availability();
        let long = planned.until_ms - planned.from_ms > CUT_MS_MAX;
        let mut hit: Vec<_> = fault.cuts_off().into_iter().chain(fault.destroys()).map(Some).collect();
        hit.extend(long.then_some(None));
        if begins {
            availability.disturbed(now);
            hit.into_iter().for_each(|node| availability.falls(now, node, fault.kind()));
        } else if fault.is_over_when_lifted() {
            hit.into_iter().for_each(|node| availability.rises(now, node, fault.kind()));
        }
    }

    fn begin(&mut self, planned: &Planned) -> anyhow::Result<()> {
        self.note(planned, true);
        if let Some(node) = planned.fault.destroys() {
            assert!(
                self.hurt.is_none_or(|hurt| hurt == node),
                "{planned}, and node {:?} lost copies before",
                self.hurt
            );
            self.hurt = Some(node);
        }
        match &planned.fault {
            Fault::Process(fault) => fault.begin(&mut self.site),
            Fault::Network(fault) => fault.begin(),
            Fault::Drive(fault) => {
                let samples = self.load.samples(&mut Random::new(self.shape.seed ^ planned.number as u64));
                fault.begin(&mut self.site, &samples)
            }
            Fault::Operator(fault) => fault.begin(&mut self.site),
        }
    }

    fn lift(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Process(fault) => {
                if *fault == ProcessFault::KillGateway {
                    self.load.gateway_starts();
                }
                fault.lift(&mut self.site)
            }
            Fault::Network(fault) => fault.lift(),
            Fault::Drive(fault) => fault.lift(&mut self.site),
            Fault::Operator(fault) => fault.lift(&mut self.site),
        }
    }

    /// Lets no write begin, and waits until none is under way.
    fn hold(&mut self) -> anyhow::Result<()> {
        let ended = Instant::now();
        while !self.load.hold() {
            if ended.elapsed() > WRITES_MAX {
                let what = format!("writes went on for {WRITES_MAX:?} after the storm");
                self.load.violated(Violation { rule: Rule::Silent, what });
                break;
            }
            ensure!(!self.told.load(Ordering::Relaxed), "stopped by a signal");
            heal::watch(&mut self.site, self.load)?;
            std::thread::sleep(TICK);
        }
        self.site.journal.say(format_args!("no write is under way"));
        Ok(())
    }

    /// Waits until all is whole, and reads it.
    fn calm(&mut self, lifted: &[(Fault, Instant)], index: usize) -> anyhow::Result<()> {
        let ended = Instant::now();
        self.hold()?;
        let rounds = lifted.iter().map(|(fault, _)| fault.moves()).max().unwrap_or(0);
        let within = self.options.heal + rounds * self.options.moving;
        let whole = heal::wait(&mut self.site, self.load, Duration::from_secs(within), self.told)?;
        match &whole {
            Ok(_) => {
                self.hurt = None;
                for (fault, at) in lifted {
                    self.seen.healed.entry(fault.kind()).or_default().push(at.elapsed().as_secs_f64());
                }
                self.seen.after_storms.push(ended.elapsed().as_secs_f64());
            }
            // That is what has to be said.
            Err(_) if self.load.broken(Rule::Died) > 0 => {}
            Err(why) => {
                let what = format!("not whole {within} s after the storm: {why}");
                self.load.violated(Violation { rule: Rule::NotHealed, what });
            }
        }
        let healed = ended.elapsed().as_secs_f64();
        let (faults, live) = (self.seen.faults, self.load.stored().len());
        self.site
            .journal
            .tell(format_args!("{faults} faults; whole {healed:.1} s after the storm; {live} tracks are stored"));
        if whole.is_ok() {
            self.load.whole();
            self.rest(index)?;
        }
        self.load.judge();
        for (name, peak, max) in self.site.too_large(usize::from(self.options.clients), self.load.track_count()) {
            let what = format!("{name} took {} MiB, its settings promise {}", peak / MIB, max / MIB);
            self.load.violated(Violation { rule: Rule::Memory, what });
        }
        Ok(())
    }

    /// All is whole: nothing is done to it for a while but what clients do, and that has to be answered.
    fn rest(&mut self, index: usize) -> anyhow::Result<()> {
        let began = Instant::now();
        self.load.go(self.room(index, 1, 1));
        heal::sweep(&mut self.site, self.load, index + 1 == self.storms.len(), self.told)?;
        self.site.journal.say(format_args!("all is read"));
        while began.elapsed() < CALM {
            ensure!(!self.told.load(Ordering::Relaxed), "stopped by a signal");
            heal::watch(&mut self.site, self.load)?;
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "counts and sizes, far below 2^52")]
    fn report(&mut self, folders: &[PathBuf]) -> Report {
        let mut board = Board::default();
        board.add_plain("faults", "", self.seen.faults as f64);
        for (name, rule) in RULES {
            board.add_plain(name, "", self.load.broken(rule) as f64);
        }
        for (kind, count) in &self.seen.kinds {
            board.add_plain(&format!("faults_{kind}"), "", *count as f64);
        }
        let mut all: Vec<f64> = self.seen.healed.values().flatten().copied().collect();
        spread(&mut board, "heal_seconds", &mut all);
        spread(&mut board, "heal_seconds_after_storm", &mut self.seen.after_storms.clone());
        for (kind, seconds) in &mut self.seen.healed {
            spread(&mut board, &format!("heal_seconds_{kind}"), seconds);
        }
        let counts = self.load.counts();
        for (name, count) in [
            ("puts_acked", &counts.puts_acked),
            ("gets_right", &counts.gets_right),
            ("taken_down", &counts.taken_down),
            ("unavailable", &counts.unavailable),
            ("broken_off", &counts.broken),
            ("absent", &counts.absent),
        ] {
            board.add_plain(name, "", count.load(Ordering::Relaxed) as f64);
        }
        let tallies = *self.site.journal.availability().tallies();
        answered(&mut board, "reads_storm", &tallies.reads_storm);
        answered(&mut board, "reads_calm", &tallies.reads_calm);
        answered(&mut board, "puts_storm", &tallies.puts_storm);
        answered(&mut board, "puts_calm", &tallies.puts_calm);
        board.add_plain("read_pause_max", "s", tallies.pause_ms as f64 / 1e3);
        board.add_plain("read_pause_max_judged", "s", tallies.pause_ms_judged as f64 / 1e3);
        board.add_plain("killed_while_moving", "", self.site.errands.killed_moving() as f64);
        board.add_plain("drives_hung", "", self.site.hung.times as f64);
        board.add_plain("volumes_revived", "", self.site.revived() as f64);
        let (clients, tracks) = (usize::from(self.options.clients), self.load.track_count());
        board.add_plain("tracks", "", tracks as f64);
        board.add_plain("tracks_live", "", self.load.stored().len() as f64);
        for (name, peak) in self.site.fleet.peaks() {
            let max = site::memory_max(name, clients, tracks) as f64 / MIB as f64;
            let name = format!("memory_peak_{name}");
            board.add_beside(&name, "MiB", *peak as f64 / MIB as f64, max, "what its settings promise");
        }
        let settings = json!({ "seed": self.shape.seed, "scenario": self.options.scenario.map(|scenario| scenario.name),
            "faults": self.storms.concat().len(), "storm": self.shape.storm, "storm_ms": self.shape.storm_ms,
            "heal_s": self.options.heal, "moving_s": self.options.moving, "clients": clients, "mib": self.options.mib,
            "changes": self.shape.changes, "replaces": self.shape.replaces, "tls": self.kind.tls,
            "namespaces": self.shape.staged, "tracks": if folders.is_empty() { json!("generated") } else { json!(folders) } });
        Report::new(settings, board.figures())
    }
}

/// The rules that figures count, by name.
const RULES: [(&str, Rule); 12] = [
    ("acked_lost", Rule::AckedLost),
    ("wrong_bytes", Rule::WrongBytes),
    ("false_absent", Rule::FalseAbsent),
    ("takedowns_broken", Rule::TakedownBroken),
    ("false_takedowns", Rule::FalseTakedown),
    ("unexpected_answers", Rule::Unexpected),
    ("silences", Rule::Silent),
    ("not_healed", Rule::NotHealed),
    ("damaged", Rule::Damaged),
    ("died", Rule::Died),
    ("memory_exceeded", Rule::Memory),
    ("unanswered", Rule::Unavailable),
];

/// What came of requests of one kind, and the share that was answered of those of which something can be told.
#[expect(clippy::cast_precision_loss, reason = "counts, far below 2^52")]
fn answered(board: &mut Board, name: &str, tally: &Tally) {
    for (what, count) in [
        ("asked", tally.asked),
        ("untold", tally.untold),
        ("judged", tally.judged),
        ("unavailable", tally.unavailable),
        ("broken", tally.broken),
    ] {
        board.add_plain(&format!("{name}_{what}"), "", count as f64);
    }
    if let Some(share) = tally.answered() {
        board.add_plain(&format!("{name}_answered"), "", share);
    }
}

/// The median, the 99th percentile and the most of some seconds.
fn spread(board: &mut Board, name: &str, seconds: &mut [f64]) {
    seconds.sort_by(f64::total_cmp);
    let at = |percent: usize| seconds.get((seconds.len() * percent).div_ceil(100).saturating_sub(1));
    for (what, percent) in [("p50", 50), ("p99", 99), ("max", 100)] {
        if let Some(value) = at(percent) {
            board.add_plain(&format!("{name}_{what}"), "s", *value);
        }
    }
}
