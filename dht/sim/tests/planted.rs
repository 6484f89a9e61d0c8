//! The checkers are checked: each mistake on purpose is found within so many seeds, as a breach of the rule that it breaks.
//! `DEADWAX_SIM_BUG=Name` looks for one.

use deadwax_dht::core::Bug;
use deadwax_dht_sim::{PLANTED_SEEDS_MAX, Search};

#[test]
fn each_mistake_is_found_by_the_rule_that_it_breaks() {
    let one = std::env::var("DEADWAX_SIM_BUG").ok();
    let mut missed = Vec::new();
    for bug in Bug::ALL.into_iter().filter(|bug| one.as_ref().is_none_or(|one| *one == format!("{bug:?}"))) {
        let Search { found, by_others } = Search::of(bug, 2);
        for report in by_others {
            println!("{bug:?}: seed {}, by another rule: {}", report.seed, report.violations[0]);
        }
        match found {
            Some(report) => println!("{bug:?}: seed {}: {}", report.seed, report.violations[0]),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found by {PLANTED_SEEDS_MAX} seeds: {missed:?}");
}
