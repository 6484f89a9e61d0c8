//! `deadwax-perf chaos`, run short: processes are killed and stopped, links cut, drives filled and spoilt, and no rule is
//! broken.

use std::path::Path;
use std::process::Command;

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
const NEVER: [&str; 11] = [
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
];

#[test]
fn a_hundred_faults_of_all_kinds_break_no_rule() {
    let perf = Path::new(env!("CARGO_BIN_EXE_deadwax-perf"));
    let deadwax = perf.with_file_name("deadwax");
    assert!(deadwax.exists(), "{} is not there: run `cargo build -p deadwax`", deadwax.display());
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let json = dir.path().join("figures.json");
    let output = Command::new(perf)
        .args(["chaos", "--faults", "100", "--storm", "50", "--seconds", "36", "--mib", "100", "--no-changes"])
        .args(["--seed", SEED, "--dir"])
        .args([Path::new(env!("CARGO_TARGET_TMPDIR")), Path::new("--json"), &json])
        .output()
        .expect("deadwax-perf runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("the figures")).expect("JSON");
    let value = |name: &str| {
        let figures = report["figures"].as_array().expect("a list");
        figures.iter().find(|figure| figure["name"] == name).and_then(|figure| figure["value"].as_f64())
    };
    assert_eq!(value("faults"), Some(100.0), "{report:#}");
    let staged = report["settings"]["namespaces"] == true;
    for kind in ALWAYS.iter().chain(if staged { &STAGED[..] } else { &[] }) {
        assert!(value(&format!("faults_{kind}")).is_some_and(|count| count >= 1.0), "{kind}: {report:#}");
    }
    NEVER.iter().for_each(|name| assert_eq!(value(name), Some(0.0), "{name}: {report:#}"));
    // A load that got nothing through would have proved nothing.
    for (name, least) in [("puts_acked", 10.0), ("gets_right", 50.0), ("heal_seconds_p99", 0.1)] {
        assert!(value(name).is_some_and(|value| value >= least), "{name}: {report:#}");
    }
}
