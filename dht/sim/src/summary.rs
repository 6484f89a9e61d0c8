//! Many seeds, and what came of them together.

use std::fmt;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::faults::FaultKind;
use crate::probe::Probes;
use crate::run::{Report, Scenario, run};

/// What many runs came to.
#[derive(Debug, Default)]
pub struct Summary {
    /// How many runs.
    pub runs: u64,
    /// Events of all.
    pub events: u64,
    /// Steps of all cores.
    pub steps: u64,
    /// Simulated seconds of all.
    pub seconds: u64,
    /// The longest time from a healing until all was settled, in seconds, and its seed.
    pub settled_after: (u64, u64),
    /// Rare states of all.
    pub probes: Probes,
    /// How often each kind of fault struck.
    pub faults: Vec<u64>,
    /// Runs that broke a rule, the lowest seed first.
    pub failures: Vec<Report>,
}

impl Summary {
    /// Runs these seeds on so many threads, a seed each; no more are begun once `failures_max` have broken a rule. What comes of a
    /// seed does not depend on the others.
    #[must_use]
    pub fn of(
        seeds: Range<u64>,
        threads: usize,
        failures_max: usize,
        scenario: &(dyn Fn(u64) -> Scenario + Sync),
    ) -> Self {
        let (next, enough) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
        let sum = Mutex::new(Self { faults: vec![0; FaultKind::ALL.len()], ..Self::default() });
        let work = || {
            while !enough.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    return;
                }
                let report = run(&scenario(seed));
                let mut sum = sum.lock().expect("no thread panics with the sum");
                sum.add(report);
                if sum.failures.len() >= failures_max {
                    enough.store(true, Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
        let mut sum = sum.into_inner().expect("no thread panics with the sum");
        sum.failures.sort_by_key(|report| report.seed);
        sum
    }

    /// The kinds of fault that never struck.
    #[must_use]
    pub fn faults_missing(&self) -> Vec<FaultKind> {
        FaultKind::missing(&self.faults)
    }

    fn add(&mut self, report: Report) {
        self.runs += 1;
        self.events += report.events;
        self.steps += report.steps;
        self.seconds += report.time / 1_000_000;
        self.settled_after = self.settled_after.max((report.settled_after / 1_000_000, report.seed));
        self.probes.merge(&report.probes);
        self.faults.iter_mut().zip(&report.faults).for_each(|(sum, more)| *sum += more);
        if !report.violations.is_empty() {
            self.failures.push(report);
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, events, steps, seconds, settled_after: (settled, seed), .. } = self;
        writeln!(f, "{runs} runs, {seconds} simulated s, {events} events, {steps} steps")?;
        writeln!(f, "settled {settled} s after a healing at the latest, with seed {seed}")?;
        for (kind, count) in FaultKind::ALL.iter().zip(&self.faults) {
            writeln!(f, "{count:>12} {}", kind.text())?;
        }
        write!(f, "{}", self.probes)
    }
}
