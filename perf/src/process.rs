//! What the kernel says of this process's memory, and children of this program.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

/// What a child that filled or opened a volume found. Printed as one line of JSON, its last.
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
pub(crate) struct Found {
    /// Tracks that the volume has.
    pub(crate) tracks: u64,
    /// What opening it took.
    pub(crate) open_seconds: f64,
    /// What opening it read from the drive.
    pub(crate) read_bytes: u64,
    /// What all took.
    pub(crate) seconds: f64,
    /// Resident before the volume was opened, when lanes had done the same to a small one.
    pub(crate) resident_before: u64,
    /// Resident at the end, and the most that it was since it was opened, or since the work on it began.
    pub(crate) resident_after: u64,
    pub(crate) resident_peak: u64,
    /// By how many there are fewer segments at the end.
    pub(crate) segments_freed: u64,
}

/// Bytes of this process that are in memory.
pub(crate) fn resident() -> anyhow::Result<u64> {
    status("VmRSS:")
}

/// The most of them since [`forget_peak`].
pub(crate) fn peak() -> anyhow::Result<u64> {
    status("VmHWM:")
}

/// Lets [`peak`] begin anew. Source: proc(5), `clear_refs`.
pub(crate) fn forget_peak() -> anyhow::Result<()> {
    std::fs::write("/proc/self/clear_refs", "5").context("forget the peak of memory")
}

fn status(name: &str) -> anyhow::Result<u64> {
    status_of("self", name)
}

/// A size of a process, in bytes. Source: proc(5), `status`.
pub(crate) fn status_of(process: &str, name: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).context("the kernel counts memory")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// Runs this program with `arguments`; gives the last line that it printed. `killed`: it ends itself by SIGKILL.
pub(crate) fn child(arguments: &[String], killed: bool) -> anyhow::Result<Found> {
    let output = Command::new(std::env::current_exe()?).args(arguments).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success() != killed, "{arguments:?} ended with {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().last().with_context(|| format!("{arguments:?} printed nothing"))?;
    Ok(serde_json::from_str(line)?)
}
