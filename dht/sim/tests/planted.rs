//! The checkers are checked: each mistake on purpose is found within so many seeds, as a breach of the rule that it breaks.
//! `DEADWAX_SIM_BUG=Name` looks for one.

use deadwax_dht::core::Bug;
use deadwax_dht_sim::{FaultKind, Report, Rule, Scenario, Summary};

/// Every mistake is found by one of so many seeds.
const SEEDS_MAX: u64 = 240;

/// The rules that a mistake is to break: found by another one, by a panic even, it would show that a checker is blind.
const fn rules(bug: Bug) -> &'static [Rule] {
    match bug {
        Bug::AcknowledgeEarly => &[Rule::Durable],
        Bug::ForgetStandIn | Bug::CollectEarly => &[Rule::Needed],
        Bug::AcceptOldEpoch | Bug::SyncedEarly | Bug::SyncedByOne | Bug::DownIsDead => &[Rule::FirstSet],
        Bug::AbsentUnproved | Bug::AbsentAnywhere => &[Rule::AbsentOwed, Rule::NoFalseAbsent],
        Bug::ServeStale => &[Rule::NoService],
        Bug::ResurrectAtEnd => &[Rule::Resurrection],
        Bug::KeepSeat | Bug::TakeAnySeat => &[Rule::OneSeat],
        Bug::NeverHalt => &[Rule::OneOfTwo],
        Bug::NeverPull | Bug::IgnoreRot => &[Rule::Convergence],
        Bug::ReceiptEarly => &[Rule::Receipts],
    }
}

/// The faults among which a mistake shows that all kinds together seldom lead to; empty: all.
fn only(bug: Bug) -> Vec<FaultKind> {
    use FaultKind::{Crash, CrashLoop, DriveOut, Join, Leave, PairCut, SiteLoss, Weight, Zone};
    match bug {
        // A holder comes back without what it missed, amid a move.
        Bug::SyncedByOne => vec![Crash, CrashLoop, DriveOut, Join, Leave, PairCut, SiteLoss, Weight, Zone],
        _ => Vec::new(),
    }
}

/// The first seed that finds the mistake by one of its rules.
fn find(bug: Bug) -> Option<Report> {
    let scenario = |seed| Scenario { bug: Some(bug), only: only(bug), ..Scenario::new(seed) };
    let mut next = 0;
    while next < SEEDS_MAX {
        let summary = Summary::of(next..SEEDS_MAX, 2, 1, &scenario);
        next += summary.runs;
        for report in summary.failures {
            if report.violations.iter().any(|broken| rules(bug).contains(&broken.rule)) {
                return Some(report);
            }
            println!("{bug:?}: seed {}, by another rule: {}", report.seed, report.violations[0]);
        }
    }
    None
}

#[test]
fn each_mistake_is_found_by_the_rule_that_it_breaks() {
    let one = std::env::var("DEADWAX_SIM_BUG").ok();
    let mut missed = Vec::new();
    for bug in Bug::ALL.into_iter().filter(|bug| one.as_ref().is_none_or(|one| *one == format!("{bug:?}"))) {
        match find(bug) {
            Some(report) => println!("{bug:?}: seed {}: {}", report.seed, report.violations[0]),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found by {SEEDS_MAX} seeds: {missed:?}");
}
