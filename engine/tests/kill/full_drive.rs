//! Drives that soon run full, for the kills that fall there. What may be had depends on who runs the test and where, so
//! there are stand-ins: the same kills, with the same checks, on whatever fills up.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use deadwax_track::MIB;
use tempfile::TempDir;

use crate::drive::{FileSystem, LoopDrive};

/// How large the stand-ins are: as the loop-mounted ext4.
const STAND_IN_BYTES: u64 = 64 * MIB;
/// Set for a test that runs within a namespace, to where its drive is.
const VARIABLE: &str = "DEADWAX_ENGINE_TEST_MEMORY_DRIVE";
/// How a test's process ends that failed; any other end but success means that it never began.
const FAILED: i32 = 101;

/// What makes a volume run full.
pub(crate) enum FullDrive {
    /// A file system of its own in a loop-mounted file: real blocks run out. Takes root.
    Loop(LoopDrive),
    /// A bounded tmpfs: real pages run out. See [`in_namespace`].
    Memory(PathBuf),
    /// A directory of any file system, with a volume that may take no more than so much: its own count runs out, and the
    /// system never says ENOSPC. Always to be had.
    Limit(TempDir),
}

impl FullDrive {
    /// A loop-mounted one, or why there is none.
    pub(crate) fn mounted() -> Result<Self, String> {
        LoopDrive::mount(FileSystem::Ext4).map(Self::Loop)
    }

    /// One whose volume has a limit.
    pub(crate) fn limited() -> Self {
        Self::Limit(TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory"))
    }

    /// The tmpfs of the namespace in which this process runs, if it does.
    pub(crate) fn of_namespace() -> Option<Self> {
        std::env::var_os(VARIABLE).map(|path| Self::Memory(path.into()))
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Loop(drive) => drive.path(),
            Self::Memory(path) => path,
            Self::Limit(dir) => dir.path(),
        }
    }

    /// What the volume must be told to take at most.
    pub(crate) fn capacity_bytes_max(&self) -> Option<u64> {
        matches!(self, Self::Limit(_)).then_some(STAND_IN_BYTES)
    }
}

/// Runs a test of this program anew, in a user namespace where it has a bounded tmpfs, which goes with its process. No
/// privileges are needed, but a system that lets users make namespaces, and Linux 6.6, which has O_DIRECT on a tmpfs.
/// Answers what the test printed, or why it could not run; panics where it failed.
pub(crate) fn in_namespace(test: &str) -> Result<String, String> {
    let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let script = format!(
        "set -e; mount -t tmpfs -o size={STAND_IN_BYTES} small \"$0\"
         dd if=/dev/zero of=\"$0/probe\" bs=4096 count=1 oflag=direct status=none; rm \"$0/probe\"
         exec \"$1\" --exact \"$2\" --nocapture"
    );
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .arg(dir.path())
        .arg(std::env::current_exe().expect("this program"))
        .arg(test)
        .env(VARIABLE, dir.path())
        .output()
        .map_err(|error| format!("unshare: {error}"))?;
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.code().is_some_and(|code| code != FAILED), "{}\n{said}\n{errors}", output.status);
    if !output.status.success() {
        return Err(errors.trim().to_owned());
    }
    // A harness to which no name fits runs nothing, and is content.
    assert!(said.contains("test result: ok. 1 passed;"), "no test is called {test}:\n{said}");
    Ok(said.into_owned())
}

/// Past the test harness, which keeps what tests print.
pub(crate) fn say(line: &str) {
    std::io::stderr().write_all(format!("\n{line}\n").as_bytes()).expect("stderr takes it");
}
