//! A node that stops ends in bounded time, whatever hangs.
//!
//! What a thread waits for at a drive that hangs cannot be given up: who waits for that thread waits as long. So, once the
//! node is to stop, all that is done in order has a time, and then the process ends as it is: what was acknowledged is
//! durable.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How long the end may take beyond what requests under way are given: volumes are closed meanwhile, and one whose drive
/// hangs is out within 5 s.
const ORDERLY: Duration = Duration::from_secs(20);
/// How long the last words may take: they may go to a file on the drive that hangs.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The exit status then, as after any error.
const EXIT_HUNG: i32 = 1;

pub(crate) struct Ending {
    within: Duration,
    begun: AtomicBool,
    /// Disconnected when the node has ended.
    ended: flume::Receiver<()>,
}

impl Ending {
    /// Of a node that gives requests under way so long. It has ended when the other half is dropped.
    pub(crate) fn new(drain: Duration) -> (Self, flume::Sender<()>) {
        let (running, ended) = flume::bounded(1);
        (Self { within: drain + ORDERLY, begun: AtomicBool::new(false), ended }, running)
    }

    /// The node is to stop: from now on it has its time to end. Called again, it changes nothing.
    pub(crate) fn begin(&self) {
        if self.begun.swap(true, Ordering::Relaxed) {
            return;
        }
        let (within, ended) = (self.within, self.ended.clone());
        let watching = thread::Builder::new().name("ending".into()).spawn(move || {
            if ended.recv_timeout(within) == Err(flume::RecvTimeoutError::Timeout) {
                end(within);
            }
        });
        if let Err(why) = watching {
            tracing::error!(%why, "cannot start a thread to watch the node end: it may hang");
        }
    }
}

fn end(within: Duration) {
    let last_words = thread::spawn(move || {
        let (seconds, hung) = (within.as_secs(), waiting());
        tracing::error!(seconds, hung, "the node does not end in order: exit");
        eprintln!("deadwax: not ended in order after {seconds} s, as these threads wait for a drive: {hung}; exit");
    });
    let mut waited = Duration::ZERO;
    while !last_words.is_finished() && waited < LAST_WORDS {
        thread::sleep(LAST_WORDS / 20);
        waited += LAST_WORDS / 20;
    }
    std::process::exit(EXIT_HUNG);
}

/// The threads of this process that wait for a device and cannot be woken, as `proc_pid_stat(5)` says: `name (D)`.
fn waiting() -> String {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    let names = stats.filter_map(|stat| waits(&stat).map(str::to_owned)).collect::<Vec<_>>();
    if names.is_empty() { "none is seen to".to_owned() } else { names.join(", ") }
}

/// The name of a thread that waits so.
fn waits(stat: &str) -> Option<&str> {
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    rest.trim_start().starts_with('D').then_some(name)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Instant;

    use super::*;

    const VARIABLE: &str = "DEADWAX_NODE_TEST_ENDING";

    /// Not a test of its own: the body of the process that the next one starts.
    #[test]
    fn hangs_as_a_process() {
        let Some(ends) = std::env::var_os(VARIABLE) else { return };
        let (running, ended) = flume::bounded(1);
        let ending = Ending { within: Duration::from_millis(100), begun: AtomicBool::new(false), ended };
        ending.begin();
        ending.begin();
        if ends == "ends" {
            drop(running);
            thread::sleep(Duration::from_millis(500));
        } else {
            thread::sleep(Duration::from_secs(600));
        }
    }

    #[test]
    fn a_node_that_does_not_end_in_time_is_ended() {
        let run = |ends| {
            Command::new(std::env::current_exe().expect("this program"))
                .args(["--exact", "ending::tests::hangs_as_a_process", "--nocapture"])
                .env(VARIABLE, ends)
                .output()
                .expect("runs")
        };
        let began = Instant::now();
        let hung = run("hangs");
        assert_eq!(hung.status.code(), Some(EXIT_HUNG), "{hung:?}");
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
        let said = String::from_utf8_lossy(&hung.stderr);
        assert!(said.contains("not ended in order after"), "{said}");
        assert!(run("ends").status.success(), "one that ends in time is left alone");
    }

    #[test]
    fn who_waits_for_a_drive_is_named() {
        assert_eq!(waits("7 (system) D 1 7"), Some("system"));
        assert_eq!(waits("7 (a) b) D 1 7"), Some("a) b"));
        assert_eq!(waits("7 (D) S 1 7"), None);
        assert_eq!(waits(""), None);
        assert!(!waiting().is_empty());
    }
}
