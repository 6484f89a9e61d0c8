//! A machine that cannot run a master says so, in words that tell what to do, before anything starts.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// `io_uring_setup(2)`, the same number on every 64-bit Linux.
const IO_URING_SETUP: i64 = 425;

/// Runs `deadwax` with `arguments` where `io_uring` is blocked the way container runtimes do it.
fn without_io_uring(arguments: &[&std::ffi::OsStr]) -> Output {
    let rules = BTreeMap::from([(IO_URING_SETUP, vec![])]);
    let arch = std::env::consts::ARCH.try_into().expect("a known machine");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(1), arch).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a program");
    let mut command = Command::new(env!("CARGO_BIN_EXE_deadwax"));
    command.args(arguments);
    // SAFETY: between fork and exec this makes two system calls on memory prepared before; it takes no lock and
    // allocates nothing.
    unsafe {
        command.pre_exec(move || seccompiler::apply_filter(&program).map_err(|_| std::io::ErrorKind::Other.into()));
    }
    command.output().expect("deadwax runs")
}

/// A cluster of one node, at rest. Gives its folder and its master's settings.
fn one_node() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let node = format!("here@127.0.0.1:9={}", dir.path().join("drive").display());
    let output = Command::new(env!("CARGO_BIN_EXE_deadwax"))
        .args(["cluster", "init", "--node", &node, "--data"])
        .arg(dir.path())
        .output()
        .expect("cluster init runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let config = dir.path().join("master-1/master.toml");
    (dir, config)
}

fn assert_says(output: &Output, words: &[&str]) {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{text}");
    for word in words {
        assert!(text.contains(word), "does not say {word:?}: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn blocked_io_uring_is_an_error_that_says_what_to_do() {
    let (dir, config) = one_node();
    let output = without_io_uring(&["master".as_ref(), "--config".as_ref(), config.as_os_str()]);
    assert_says(&output, &["io_uring", "seccomp"]);
    let output = without_io_uring(&["doctor".as_ref(), dir.path().as_os_str()]);
    assert_says(&output, &["io_uring", "seccomp"]);
}

#[test]
fn too_little_lockable_memory_is_an_error_that_says_what_to_do() {
    let (dir, config) = one_node();
    let limited = |arguments: &[&std::ffi::OsStr]| {
        Command::new("prlimit")
            .arg("--memlock=65536:65536")
            .arg(env!("CARGO_BIN_EXE_deadwax"))
            .args(arguments)
            .output()
            .expect("prlimit, of util-linux, runs")
    };
    let output = limited(&["master".as_ref(), "--config".as_ref(), config.as_os_str()]);
    assert_says(&output, &["memlock", "512"]);
    let output = limited(&["doctor".as_ref(), dir.path().as_os_str()]);
    assert_says(&output, &["memlock", "512"]);
}

#[test]
fn a_healthy_machine_passes() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_deadwax")).arg("doctor").arg(dir.path()).output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_deadwax"))
        .args(["cluster", "init", "--node", "here@127.0.0.1:9=/proc/deadwax", "--data"])
        .arg(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder").path())
        .output()
        .expect("cluster init runs");
    assert_says(&output, &["/proc/deadwax"]);
    let output = Command::new(env!("CARGO_BIN_EXE_deadwax")).args(["doctor", "/proc"]).output().expect("runs");
    assert_says(&output, &["/proc"]);
}
