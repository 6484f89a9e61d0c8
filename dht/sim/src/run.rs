//! One seed, from the founding of a cluster to the last check.

use std::fmt;
use std::sync::{Arc, OnceLock};

use deadwax_dht::core::CoreSettings;
use deadwax_dht::{AdmissionLimits, ClassLimits};

use crate::check::{Era, Rule, Violation};
use crate::clock::{MINUTE, Micros, SECOND};
use crate::faults::FaultKind;
use crate::probe::{Probe, Probes};
use crate::random::Random;
use crate::topology::{SMALL, Topology, large};
use crate::trace::{Kind, NONE};
use crate::world::{Event, World};

/// How often the run looks whether all is settled.
const LOOK: Micros = 10 * SECOND;
/// How often the run looks whether each core gets on.
const WATCH: Micros = MINUTE;
/// Cores start, compare their takedowns and their partitions before gateways begin.
const WARM_UP: Micros = 75 * SECOND;

/// What a run is to be.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// Only these kinds of fault; empty: all. [`FaultKind::DriveAway`] alone strikes once.
    pub only: Vec<FaultKind>,
    /// A small cluster by its name in [`Report::topology`]; none: drawn by the seed.
    pub shape: Option<&'static str>,
    /// A large cluster; none: a small one, drawn by the seed.
    pub scale: Option<Scale>,
    /// Whether each core works out by itself who holds what at an epoch, at the cost of time; none: one seed of eight.
    pub own_layouts: Option<bool>,
    /// A track, by its number in a report, whose every line is written to standard error.
    pub follow: Option<u32>,
    /// A mistake on purpose in all cores.
    #[cfg(feature = "planted")]
    pub bug: Option<deadwax_dht::core::Bug>,
}

impl Scenario {
    /// A run of a small cluster with all kinds of fault.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            only: Vec::new(),
            shape: None,
            scale: None,
            own_layouts: None,
            follow: None,
            #[cfg(feature = "planted")]
            bug: None,
        }
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The cluster.
    pub topology: &'static str,
    /// Which rules were broken; empty: none.
    pub violations: Vec<Violation>,
    /// A hash over all that happened: equal for equal seeds.
    pub trace: u128,
    /// How many things happened.
    pub events: u64,
    /// How many steps cores made.
    pub steps: u64,
    /// The newest epoch of the map.
    pub epoch: u64,
    /// Simulated microseconds.
    pub time: u64,
    /// The longest time from a healing until all was settled, in microseconds.
    pub settled_after: u64,
    /// Rare states that were come to.
    pub probes: Probes,
    /// How often each kind of fault struck, as [`FaultKind::ALL`] has them.
    pub faults: Vec<u64>,
    /// The last events, where a rule was broken.
    pub log: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {} ({}), at {}.{:03} s:",
            self.seed,
            self.topology,
            self.time / SECOND,
            self.time % SECOND / 1_000
        )?;
        for violation in &self.violations {
            writeln!(f, "  {violation}")?;
        }
        writeln!(f, "replay it with DEADWAX_SIM_SEED={}; its last events:", self.seed)?;
        f.write_str(&self.log)
    }
}

/// Clusters are prepared once for all runs.
fn topology(scenario: &Scenario) -> Arc<Topology> {
    static PREPARED: [OnceLock<Arc<Topology>>; SMALL.len()] = [const { OnceLock::new() }; SMALL.len()];
    let mut drawn = Random::stream(scenario.seed, 0x70b0).below(SMALL.iter().map(|(_, weight)| weight).sum());
    let mut at = 0;
    while drawn >= SMALL[at].1 {
        drawn -= SMALL[at].1;
        at += 1;
    }
    if let Some(name) = scenario.shape {
        at = SMALL.iter().position(|(shape, _)| shape.name == name).expect("one of the small clusters");
    }
    PREPARED[at].get_or_init(|| Arc::new(Topology::prepare(SMALL[at].0))).clone()
}

/// A large cluster for a long time, with little load and some faults an hour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale {
    /// How many nodes; a multiple of ten.
    pub nodes: usize,
    /// How many simulated minutes the faults last.
    pub minutes: u64,
    /// How many faults.
    pub faults: u64,
}

/// Where a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    WarmUp,
    Faults,
    Healing,
    Reading,
    Over,
}

/// How long the cluster may take until all is settled, from a healing on.
///
/// Processes start, elect a leader (20 s), hear of the newest epoch (10 s) and catch up with takedowns (30 s). Then partitions
/// compare each minute; what differs is pulled (a minute, at the tracks of a small cluster), compared again, and what is a stray is
/// released a round later: five rounds. A node whose counterpart was out of reach is asked again after two minutes
/// at most. Each change of the map has three stages, with a round for each, and starts when its predecessor has settled.
#[must_use]
pub(crate) fn bound(jobs: usize) -> Micros {
    15 * MINUTE + jobs as u64 * 10 * MINUTE
}

/// A run under way.
pub(crate) struct Run {
    phase: Phase,
    eras: u64,
    long: bool,
    healed_at: Micros,
    jobs_at: usize,
    scale: Option<Scale>,
    settled_after: Micros,
    reading_since: Micros,
    /// The reads of this time are begun.
    read: bool,
}

impl World {
    /// The run looks at the whole: it is called by an event, again and again.
    pub(crate) fn look(&mut self) {
        let mut run = self.run_state.take().expect("a run is under way");
        let next = match run.phase {
            Phase::WarmUp => {
                self.gateways_begin(self.now);
                self.era_begins(&mut run)
            }
            Phase::Faults => {
                self.heal();
                (run.phase, run.healed_at) = (Phase::Healing, self.now);
                run.jobs_at = self.operator.open().count();
                self.clients.every *= 4;
                self.trace.say(self.now, Kind::Phase, (NONE, NONE), 0, "healing");
                LOOK
            }
            Phase::Healing => self.healing(&mut run),
            Phase::Reading => self.reading(&mut run),
            Phase::Over => 0,
        };
        if run.phase != Phase::Over {
            self.queue.push(self.now + next, Event::Look);
        }
        self.run_state = Some(run);
    }

    pub(crate) fn watch(&mut self) {
        self.check_standstill();
        self.queue.push(self.now + WATCH, Event::Watch);
    }

    fn era_begins(&mut self, run: &mut Run) -> Micros {
        run.phase = Phase::Faults;
        run.eras -= 1;
        self.checks.era = Era::default();
        if let Some(Scale { minutes, faults, .. }) = run.scale {
            self.clients.every = 20 * SECOND;
            self.plan_faults(faults, minutes * MINUTE, false);
            return minutes * MINUTE;
        }
        let length = if run.long { 45 * MINUTE } else { self.faults.random.between(2, 6) * MINUTE };
        let count = self.faults.random.between(2, 9);
        self.clients.every = if run.long { 20 * SECOND } else { 2 * SECOND };
        self.trace.say(self.now, Kind::Phase, (NONE, NONE), 0, "faults");
        self.plan_faults(count, length, run.long);
        length
    }

    fn healing(&mut self, run: &mut Run) -> Micros {
        for host in 0..u32::try_from(self.hosts.len()).expect("few hosts") {
            self.scrub(host);
            if self.hosts[host as usize].halted && self.hosts[host as usize].is_member() {
                self.start_halted(host);
            }
        }
        let gone = self.now - run.healed_at;
        match self.unsettled() {
            None => {
                run.settled_after = run.settled_after.max(gone);
                self.hit(Probe::Converged);
                run.phase = Phase::Reading;
                self.trace.say(self.now, Kind::Phase, (NONE, NONE), gone / SECOND, "settled");
                self.faults.forgive();
                self.clients.every = 0;
                // What is under way ends within 30 s.
                35 * SECOND
            }
            Some(what) if gone > bound(run.jobs_at) => {
                self.checks.violate(Rule::Convergence, format!("{} s after the healing: {what}", gone / SECOND));
                LOOK
            }
            Some(_) => LOOK,
        }
    }

    /// All that was acknowledged is read once, from any gateway.
    fn reading(&mut self, run: &mut Run) -> Micros {
        if self.clients.every == 0 && self.clients.musts == 0 && !run.read {
            (run.read, run.reading_since) = (true, self.now);
            for track in 0..self.oracle.len() {
                if self.oracle.get(track).acked.is_some() {
                    let gateway = self.clients.random.below(self.clients.gateways.len() as u64);
                    self.get_begins(u32::try_from(gateway).expect("few gateways"), track, true);
                }
            }
            return 5 * SECOND;
        }
        if self.clients.musts > 0 {
            if self.now > run.reading_since + 10 * MINUTE {
                let text = format!("{} reads have not ended, 10 minutes after all was settled", self.clients.musts);
                self.checks.violate(Rule::ReadableAfterHealing, text);
            }
            return 5 * SECOND;
        }
        run.read = false;
        if run.eras > 0 {
            self.clients.every = 2 * SECOND;
            self.gateways_begin(self.now);
            return self.era_begins(run);
        }
        run.phase = Phase::Over;
        0
    }
}

/// What cores are set to.
fn settings(is_large: bool, few_at_once: bool) -> CoreSettings {
    // Voters' heartbeats are half of all steps of a small cluster at the default of 100 ms, and show nothing new.
    let mut settings = CoreSettings { voter_tick_ms: 250, ..CoreSettings::default() };
    if few_at_once {
        // Nodes that take on little, so that requests wait, expire and are refused.
        let few = ClassLimits { under_way_max: 1, queue_max: 2 };
        settings.admission = AdmissionLimits { read: few, write: few };
    }
    if is_large {
        // As an operator of so many nodes would set them: what nothing happens to is looked at rarely.
        settings.liveness.probe_ms = 10_000;
        settings.sync.safety_ms = 3_600_000;
    }
    settings
}

/// Runs one seed.
#[must_use]
pub fn run(scenario: &Scenario) -> Report {
    let topology = match scenario.scale {
        Some(scale) => Arc::new(Topology::prepare(large(scale.nodes))),
        None => topology(scenario),
    };
    let mut random = Random::stream(scenario.seed, 0x4321);
    let gateways = topology.zones.max(2);
    let few_at_once = random.percent(15);
    let settings = settings(scenario.scale.is_some(), few_at_once);
    let mut world = World::new(scenario.seed, topology.clone(), settings, gateways);
    world.clients.few = few_at_once;
    world.faults.map_changes = scenario.scale.is_some() || random.percent(35);
    world.faults.only.clone_from(&scenario.only);
    let own_layouts = scenario.scale.is_none() && scenario.seed % 8 == 7;
    world.own_layouts = scenario.own_layouts.unwrap_or(own_layouts);
    world.trace.follow = scenario.follow;
    #[cfg(feature = "planted")]
    {
        world.bug = scenario.bug;
    }
    let long = scenario.scale.is_none() && random.below(32) == 0 || scenario.only == [FaultKind::DriveAway];
    let eras = if long || scenario.scale.is_some() { 1 } else { 1 + u64::from(random.percent(30)) };
    world.run_state = Some(Run {
        phase: Phase::WarmUp,
        eras,
        long,
        healed_at: 0,
        jobs_at: 0,
        scale: scenario.scale,
        settled_after: 0,
        reading_since: 0,
        read: false,
    });
    world.queue.push(WARM_UP, Event::Look);
    world.queue.push(WARM_UP, Event::Watch);
    let go = || {
        while world.checks.violations.is_empty() && world.run_state.as_ref().is_some_and(|run| run.phase != Phase::Over)
        {
            world.run_some();
        }
    };
    // A broken invariant of a core is a finding as any other, to be shown with its seed.
    if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(go)) {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        world.checks.violate(Rule::Panic, text.unwrap_or_default());
    }
    let settled_after = world.run_state.as_ref().map_or(0, |run| run.settled_after);
    let log = if world.checks.violations.is_empty() {
        String::new()
    } else {
        format!("{}under way: {}\n{}", world.trace.text(), world.faults.text(), world.state_text())
    };
    Report {
        seed: scenario.seed,
        topology: topology.name,
        violations: std::mem::take(&mut world.checks.violations),
        trace: world.trace.hash(),
        events: world.trace.count,
        steps: world.steps,
        epoch: world.newest.epoch(),
        time: world.now,
        settled_after,
        probes: world.probes,
        faults: world.faults.counts,
        log,
    }
}
