//! Whole clusters of cores in virtual time, with all that may go wrong.
//!
//! `DEADWAX_SIM_SEED=N` replays one seed; `DEADWAX_SIM_SEEDS=N` runs so many; `DEADWAX_SIM_TRACK=N` shows all that happens to a
//! track.

use std::ops::Range;

use deadwax_dht_sim::{FaultKind, Probe, Scale, Scenario, Summary, run};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

fn seeds(regular: u64) -> Range<u64> {
    match number("DEADWAX_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DEADWAX_SIM_SEEDS").unwrap_or(regular),
    }
}

fn scenario(seed: u64) -> Scenario {
    let follow = number("DEADWAX_SIM_TRACK").map(|track| u32::try_from(track).expect("a track's number"));
    Scenario { follow, ..Scenario::new(seed) }
}

fn texts(summary: &Summary) -> String {
    summary.failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn clusters_keep_their_promises_whatever_goes_wrong() {
    let seeds = seeds(2_000);
    let many = seeds.end - seeds.start >= 1_000;
    let summary = Summary::of(
        seeds,
        2,
        usize::try_from(number("DEADWAX_SIM_FAILURES").unwrap_or(3)).expect("a count"),
        &scenario,
    );
    println!("{summary}");
    assert!(summary.failures.is_empty(), "{}", texts(&summary));
    let missing: Vec<&str> = summary.probes.missing().into_iter().map(|probe| probe.text()).collect();
    assert!(!many || missing.is_empty(), "states that no run came to: {missing:?}");
    let idle = summary.faults_missing();
    assert!(!many || idle.is_empty(), "faults that struck in no run: {idle:?}");
}

#[test]
fn a_seed_replays_bit_for_bit() {
    for seed in 0..3 {
        let (one, other) = (run(&Scenario::new(seed)), run(&Scenario::new(seed)));
        assert_eq!((one.trace, one.events, one.steps, one.time), (other.trace, other.events, other.steps, other.time));
        assert_ne!(one.trace, run(&Scenario::new(seed + 1)).trace);
    }
}

/// What 1,000 nodes of 24 hours take in five minutes is checked by `deadwax-perf sim`; this shows that large clusters hold.
#[test]
fn a_hundred_nodes_hold_for_an_hour() {
    let scale = Some(Scale { nodes: 100, minutes: 60, faults: 12 });
    let report = run(&Scenario { scale, ..scenario(1) });
    println!("{} events, {} steps in {} simulated s", report.events, report.steps, report.time / 1_000_000);
    assert!(report.violations.is_empty(), "{report}");
}

/// Nobody types anything: 40 minutes after it went out all that it held has its copies elsewhere. Back again it has copies again,
/// and is compared with the others before it counts.
#[test]
fn a_drive_that_stays_out_on_a_node_that_lives_is_given_up_by_itself() {
    for shape in ["6 in 2 zones", "4 in 1 zone"] {
        for seed in 0..3 {
            let only = vec![FaultKind::DriveAway];
            let report = run(&Scenario { only, shape: Some(shape), ..Scenario::new(seed) });
            assert!(report.violations.is_empty(), "{report}");
            assert_eq!(report.probes.count(Probe::DriveGivenUp), 1, "{shape}, seed {seed}: it was not given up");
        }
    }
}
