//! Starts the process under load, and kills it at some moment.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::load::{Orders, VARIABLE};
use crate::story::Line;
use crate::tracks::Dice;

/// Without a line for so long, the process hangs.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How many lines of the story are waited for, at most, before it is cut off.
const LINES_MAX: u64 = 160;
/// How long after the last of those, at most: as long as a few writes and flushes take.
const SPIN_US: u64 = 1000;
/// One in so many dies while it opens the volume,
const AT_START: u64 = 8;
/// which takes about so long.
const START_US: u64 = 8000;
const SIGKILL: i32 = 9;

/// When to kill: so long after so many lines.
pub(crate) struct Moment {
    lines: u64,
    spin: Duration,
}

impl Moment {
    pub(crate) fn random(dice: &mut Dice) -> Self {
        let (lines, spin_us) =
            if dice.roll(AT_START) == 0 { (1, START_US) } else { (2 + dice.roll(LINES_MAX), SPIN_US) };
        Self { lines, spin: Duration::from_micros(dice.roll(spin_us)) }
    }
}

/// Runs the load until the moment comes, kills it, and answers all that it told.
pub(crate) fn run_and_kill(orders: &Orders, moment: &Moment) -> Result<Vec<Line>, String> {
    let (pipe, told) = std::io::pipe().expect("a pipe");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "works_as_a_process", "--nocapture"])
        .env(VARIABLE, orders.to_text())
        .stdin(Stdio::from(told))
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    let (lines, heard) = mpsc::channel();
    let listener = thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            if lines.send(line.expect("text")).is_err() {
                break;
            }
        }
    });
    let mut story = Vec::new();
    let mut hangs = false;
    while (story.len() as u64) < moment.lines {
        match heard.recv_timeout(SILENCE_MAX) {
            Ok(line) => story.push(line),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                hangs = true;
                break;
            }
            // It ended: how, its status tells.
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    let until = Instant::now() + moment.spin;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    child.kill().expect("kills");
    let status = child.wait().expect("waits");
    // The pipe's other end is closed now: what was told is all there.
    story.extend(heard);
    listener.join().expect("listens to the end");
    let story = story.iter().map(|line| line.parse()).collect::<Result<Vec<Line>, _>>()?;
    if hangs {
        return Err(format!("the load hangs after {:?}", story.last()));
    }
    if status.signal() != Some(SIGKILL) {
        return Err(format!("the load ended by itself, {status}, after {:?}", story.last()));
    }
    Ok(story)
}
