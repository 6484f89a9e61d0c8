//! The checkers are checked: each mistake on purpose is found within so many seeds. `DEADWAX_SIM_BUG=Name` looks for one.

use deadwax_dht::core::Bug;
use deadwax_dht_sim::{Scenario, Summary};

/// Every mistake is found by one of so many seeds.
const SEEDS_MAX: u64 = 240;

#[test]
fn each_mistake_is_found() {
    let one = std::env::var("DEADWAX_SIM_BUG").ok();
    let mut missed = Vec::new();
    for bug in Bug::ALL.into_iter().filter(|bug| one.as_ref().is_none_or(|one| *one == format!("{bug:?}"))) {
        let scenario = |seed| Scenario { bug: Some(bug), ..Scenario::new(seed) };
        let summary = Summary::of(0..SEEDS_MAX, 2, 1, &scenario);
        match summary.failures.first() {
            Some(report) => {
                println!("{bug:?}: seed {} after {} runs: {}", report.seed, summary.runs, report.violations[0])
            }
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found by {SEEDS_MAX} seeds: {missed:?}");
}
