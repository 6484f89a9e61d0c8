//! Where a run takes place: in namespaces of its own, where the machine permits.
//!
//! There the program starts itself anew by `unshare` (util-linux), as the first process of namespaces for the network,
//! mounts and processes. When it ends, however that is, the kernel ends every process that it started and takes links,
//! rules and mounts away with it: nothing can be left behind. Who started it waits, hands signals on, and takes it along
//! where it is killed itself.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process_group};

/// Tells the program that it was started within its namespaces.
const INSIDE: &str = "DEADWAX_CHAOS_INSIDE";
/// `unshare` itself heeds no signal but SIGKILL, which it is sent when its parent ends.
const BOUND: [&str; 3] = ["--pdeathsig", "KILL", "unshare"];
const UNSHARE: [&str; 6] = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
const POLL: Duration = Duration::from_millis(20);
/// All that a run wants to do there, once: `/run` is where `ip netns` keeps names.
const PROBE: &str = "mount -t tmpfs tmpfs /run && ip netns add probe && ip link add v0 type veth peer name v1 \
    && tc qdisc replace dev v0 root tbf rate 1mbit burst 16kb limit 64kb \
    && ip rule add from 10.1.1.2 to 10.1.2.2 blackhole && unshare --time --boottime 1 true \
    && losetup --find >/dev/null && command -v nsenter mkfs.ext4 >/dev/null";

/// What this machine lets a run do.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// Each process has a network of its own, each master a drive of its own.
    Namespaces,
    /// All share loopback and one drive, for this reason.
    Loopback(String),
}

impl Stage {
    /// Where namespaces are permitted, starts the program anew in its own, and comes back there; the process that called
    /// first ends with it. Call on the main thread, before there is anything to clean up. `told`: a signal came.
    pub(crate) fn enter(told: &AtomicBool) -> anyhow::Result<Self> {
        if std::env::var_os(INSIDE).is_some() {
            run("mount", &["-t", "tmpfs", "tmpfs", "/run"])?;
            return Ok(Self::Namespaces);
        }
        if let Err(why) = run("setpriv", &[&BOUND[..], &UNSHARE, &["sh", "-c", PROBE]].concat()) {
            return Ok(Self::Loopback(format!("{why:#}")));
        }
        let mut again = Command::new("setpriv");
        again.args(BOUND).args(UNSHARE).arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
        let mut child = again.env(INSIDE, "1").process_group(0).spawn().context("start anew by unshare")?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process has a number")?;
        loop {
            if let Some(status) = child.try_wait()? {
                std::process::exit(status.code().unwrap_or(1));
            }
            if told.swap(false, Ordering::Relaxed) {
                kill_process_group(group, Signal::TERM)?;
            }
            std::thread::sleep(POLL);
        }
    }

    pub(crate) const fn has_namespaces(&self) -> bool {
        matches!(self, Self::Namespaces)
    }
}

/// Runs a program of the system to its end; its last words are the error.
pub(crate) fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let said = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program).args(arguments).output().with_context(said)?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    anyhow::bail!("{}: {}: {}", said(), output.status, words.trim())
}
