//! `deadwax-perf chaos`, run short: processes are killed and stopped, links cut, drives filled and spoilt, and no rule is
//! broken.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

const SEED: &str = "1";
/// What a run does that has networks and drives of its own, and what any run does.
const STAGED: [&str; 10] = [
    "set_clock",
    "cut_link",
    "cut_one_way",
    "cut_front",
    "cut_zones",
    "cut_zone",
    "slow",
    "full_drive",
    "hung_drive",
    "unmount",
];
const ALWAYS: [&str; 8] =
    ["kill", "stop", "kill_zone", "kill_gateway", "rot", "lost_segment", "lost_system", "restart_all"];
/// Figures that count what must never happen.
const NEVER: [&str; 12] = [
    "acked_lost",
    "wrong_bytes",
    "false_absent",
    "takedowns_broken",
    "false_takedowns",
    "unexpected_answers",
    "silences",
    "not_healed",
    "damaged",
    "died",
    "memory_exceeded",
    "unanswered",
];

/// What an operator does meanwhile: a master joins, is drained and removed; others are drained and come back.
const CHANGES: [&str; 4] = ["join", "leave", "drain_and_back", "weight"];

/// A run takes the whole machine: one at a time.
static MACHINE: Mutex<()> = Mutex::new(());

/// Runs it, and gives its figures and settings; nothing, where this machine permits none of its faults. No rule may be broken.
fn chaos(arguments: &[&str]) -> Option<Run> {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let perf = Path::new(env!("CARGO_BIN_EXE_deadwax-perf"));
    let deadwax = perf.with_file_name("deadwax");
    assert!(deadwax.exists(), "{} is not there: run `cargo build -p deadwax`", deadwax.display());
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let json = dir.path().join("figures.json");
    let output = Command::new(perf)
        .arg("chaos")
        .args(arguments)
        .args(["--seed", SEED, "--dir"])
        .args([Path::new(env!("CARGO_TARGET_TMPDIR")), Path::new("--json"), &json])
        .output()
        .expect("deadwax-perf runs");
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("need networks and drives of our own") {
        left_out(&said);
        return None;
    }
    assert!(output.status.success(), "{said}");
    let run = Run(serde_json::from_slice(&std::fs::read(&json).expect("the figures")).expect("JSON"));
    NEVER.iter().for_each(|name| assert_eq!(run.value(name), Some(0.0), "{name}: {run}"));
    // A load that got nothing through would have proved nothing, and so would one of which nothing had to be answered.
    [("puts_acked", 10.0), ("gets_right", 50.0), ("heal_seconds_p99", 0.1)]
        .iter()
        .for_each(|(name, least)| run.at_least(name, *least));
    [("reads_calm", 50.0), ("puts_calm", 20.0)].iter().for_each(|(name, least)| run.judged_at_least(name, *least));
    if !run.is_staged() {
        left_out("no networks, drives and clocks of their own: see the first lines of `deadwax-perf chaos`");
    }
    Some(run)
}

/// What this machine did not permit is told by whoever runs all tests, as nobody reads what those print that went well.
fn left_out(why: &str) {
    println!("not run: {why}");
    let told = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos-left-out");
    let mut told = OpenOptions::new().create(true).append(true).open(told).expect("opens");
    writeln!(told, "{why}").expect("writes");
}

/// The report of a run.
struct Run(Value);

impl Run {
    fn value(&self, name: &str) -> Option<f64> {
        let figures = self.0["figures"].as_array().expect("a list");
        figures.iter().find(|figure| figure["name"] == name).and_then(|figure| figure["value"].as_f64())
    }

    fn at_least(&self, name: &str, least: f64) {
        assert!(self.value(name).is_some_and(|value| value >= least), "{name}: {self}");
    }

    /// That so many requests of this kind had to be answered, where something can be told of most: not while the machine stands
    /// still again and again.
    fn judged_at_least(&self, kind: &str, least: f64) {
        let count = |what: &str| self.value(&format!("{kind}_{what}")).unwrap_or_else(|| panic!("{kind}: {self}"));
        if count("untold") > count("asked") / 2.0 {
            return left_out(&format!("the machine stood still so often that of most {kind} nothing can be told"));
        }
        self.at_least(&format!("{kind}_judged"), least);
    }

    /// Whether it had networks and drives of its own.
    fn is_staged(&self) -> bool {
        self.0["settings"]["namespaces"] == true
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

#[test]
fn a_hundred_faults_of_all_kinds_break_no_rule() {
    let run = chaos(&["--faults", "100", "--storm", "50", "--seconds", "36", "--mib", "100", "--no-replacement"]);
    let run = run.expect("some faults need no networks of our own");
    assert_eq!(run.value("faults"), Some(100.0), "{run}");
    let kinds = ALWAYS.iter().chain(&CHANGES).chain(if run.is_staged() { &STAGED[..] } else { &[] });
    kinds.for_each(|kind| run.at_least(&format!("faults_{kind}"), 1.0));
    run.at_least("tracks_live", 25.0);
    run.judged_at_least("reads_storm", 500.0);
    // One site's masters alone are hurt in the second storm, so that all its reads are answered; in the first, reads find a
    // copy but where masters of both sites are away at once. Who answers less than most does not go to the next holder.
    run.at_least("reads_storm_answered", 0.75);
}

/// Runs a scenario, which must have done all its faults where there is a stage.
fn scenario(name: &str, faults: f64) -> Option<Run> {
    let run = chaos(&["--scenario", name, "--mib", "60"])?;
    run.at_least("faults", if run.is_staged() { faults } else { 0.0 });
    Some(run)
}

#[test]
fn a_segment_that_is_removed_under_a_master_is_missed_and_replaced() {
    if let Some(run) = scenario("removed-segment", 1.0) {
        run.at_least("volumes_revived", 1.0);
    }
}

#[test]
fn drives_that_hung_come_back_by_themselves() {
    if let Some(run) = scenario("drives-hang", 2.0) {
        run.at_least("volumes_revived", 2.0);
    }
}

#[test]
fn a_master_joins_while_zones_are_cut_off() {
    scenario("zone-cut-amid-join", 4.0);
}

#[test]
fn whoever_leads_dies_while_copies_move() {
    scenario("leaders-die-amid-moves", 8.0);
}
