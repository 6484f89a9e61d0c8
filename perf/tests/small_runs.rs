//! Every command of `deadwax-perf`, run small, so that none rots. Nothing here looks at how fast it was.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Runs `deadwax-perf` in a folder on the drive and looks at its figures: each must be there, and be a positive number.
fn figures(arguments: &[&str], expected: &[&str]) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let folder = dir.path().to_str().expect("UTF-8");
    let report = report(&[arguments, &["--dir", folder]].concat());
    for name in expected {
        let value = value(&report, name);
        assert!(value.is_some_and(|value| value > 0.0), "{name}: {value:?}");
    }
}

/// Runs `deadwax-perf` and gives the report that it writes for programs.
fn report(arguments: &[&str]) -> Value {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let json = dir.path().join("figures.json");
    let output = Command::new(env!("CARGO_BIN_EXE_deadwax-perf"))
        .args(arguments)
        .arg("--json")
        .arg(&json)
        .output()
        .expect("deadwax-perf runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("the figures")).expect("JSON");
    assert!(report["commit"].is_string() && report["machine"].is_object() && report["settings"].is_object());
    report
}

/// The value of a figure that must be there.
fn value(report: &Value, name: &str) -> Option<f64> {
    let figures = report["figures"].as_array().expect("a list");
    let figure = figures.iter().find(|figure| figure["name"] == name).unwrap_or_else(|| panic!("no {name}"));
    figure["value"].as_f64()
}

#[test]
fn device() {
    let names =
        ["append_1m_flush_8m", "overwrite_1m_flush_8m", "read_4k_depth_32", "read_64k_depth_32", "read_1m_depth_8"];
    figures(&["device", "--mib", "64", "--rounds", "1", "--seconds", "0.02"], &names);
}

#[test]
fn engine() {
    let names = [
        "ingest_4m_inflight_8",
        "cpu_write_s_per_gb",
        "write_amplification_4m",
        "put_64k_inflight_1",
        "put_64k_inflight_16",
        "put_64k_inflight_64",
        "write_amplification_64k",
        "range_64k_inflight_32",
        "range_64k_p99_ratio",
        "read_4m_inflight_8",
        "cpu_read_s_per_gb",
    ];
    figures(&["engine", "--mib", "32", "--rounds", "1", "--seconds", "0.02"], &names);
}

#[test]
fn engine_started_anew() {
    let names = [
        "restart_1m_tracks_s",
        "restart_1m_tracks_killed_s",
        "index_bytes_per_track_4m_growth_peak",
        "index_peak_growth_ratio",
        "index_peak_recovery_ratio",
        "index_peak_compaction_ratio",
        "index_peak_scrub_ratio_4m",
    ];
    figures(&["engine", "--only", "restart,index", "--full", "--tracks", "2000"], &names);
}

#[test]
fn engine_split() {
    let arguments =
        ["engine", "--only", "shards", "--shards", "1", "--mib", "32", "--rounds", "1", "--seconds", "0.02"];
    figures(&arguments, &["shards_1_ingest_4m", "shards_1_range_64k"]);
}

#[test]
fn life() {
    let arguments = ["life", "--capacity-mib", "192", "--segment-mib", "16", "--times", "2", "--track-kib-max", "512"];
    figures(&arguments, &["lifetime_write_amplification", "space_amplification", "deletes"]);
}

#[test]
fn crash() {
    let report = report(&["crash", "--operations", "20000", "--crashes", "200", "--threads", "2", "--seed", "3"]);
    assert!(value(&report, "crash_operations").is_some_and(|operations| operations >= 20_000.0), "{report}");
    assert!(value(&report, "crash_crashes").is_some_and(|crashes| crashes >= 200.0), "{report}");
    assert_eq!(value(&report, "crash_violations"), Some(0.0));
    for name in ["crash_seeds", "crash_operations_per_s"] {
        assert!(value(&report, name).is_some_and(|value| value > 0.0), "{report}");
    }
}

#[test]
fn placement() {
    let report = report(&["placement", "--volumes", "60", "--rounds", "1"]);
    let names = ["placement_settle_ms", "placement_join_ms", "placement_leave_ms", "placement_weight_ms"];
    for name in [&names[..], &["placement_incremental_ms", "placement_overrides"]].concat() {
        assert!(value(&report, name).is_some_and(|value| value > 0.0), "{name}: {report}");
    }
}

#[test]
fn cluster() {
    deadwax_is_there();
    let arguments = ["cluster", "--compare", "--mib", "4", "--rounds", "1", "--seconds", "0.2"];
    let names = [
        "put_4m_inflight_8",
        "put_64k_inflight_16",
        "get_cold_4m_inflight_8",
        "range_cold_64k_inflight_32",
        "cpu_s_per_gb_put",
        "cpu_s_per_gb_get",
        "first_byte_cold_range",
        "put_real_inflight_8",
        "get_real_zipf_inflight_8",
        "fixed_put_4m_inflight_8",
        "log_put_4m_inflight_8",
    ];
    figures(&arguments, &names);
}

/// `cargo test` makes it for the tests of its own crate.
fn deadwax_is_there() {
    let deadwax = Path::new(env!("CARGO_BIN_EXE_deadwax-perf")).with_file_name("deadwax");
    assert!(deadwax.exists(), "{} is not there: run `cargo build -p deadwax`", deadwax.display());
}

#[test]
fn gateway() {
    deadwax_is_there();
    let arguments = ["gateway", "--count", "3", "--kib", "300", "--rounds", "1", "--ranges", "50"];
    let names = [
        "put_inflight_1",
        "put_inflight_8",
        "get_first_inflight_8",
        "get_cached_inflight_8",
        "range_64k_cached_inflight_16",
        "memory_gateway",
        "memory_master-1",
    ];
    figures(&arguments, &names);
}

#[test]
fn the_last_words_of_a_run_that_fails_are_why() {
    let mut run = Command::new(env!("CARGO_BIN_EXE_deadwax-perf"));
    let output = run.args(["open", "/nowhere/at all"]).env("RUST_BACKTRACE", "1").output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("deadwax-perf: ") && last.contains("/nowhere/at all"), "{said}");
}
