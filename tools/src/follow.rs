//! Staying until what a change moves has moved.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::bail;
use deadwax_dht::VolumeId;
use deadwax_dht_client::{Client, LogStatus};

use crate::progress::{duration, size};
use crate::unread::tell;

/// How often it is asked.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How often a plain line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// For how long nobody may answer.
const SILENT_MAX: Duration = Duration::from_secs(120);
/// For how long nothing may change: longer than the half hour after which a node that is silent counts as dead.
const STILL_MAX: Duration = Duration::from_secs(3_600);

/// Stays until `emptied` hold nothing by a map of `epoch` or later, or, where none are to be emptied, until nothing moves.
/// Shows how far it is on the standard error.
pub async fn follow(client: &Client, epoch: u64, emptied: &[VolumeId]) -> anyhow::Result<()> {
    let mut line = Line::new();
    let (mut heard, mut came_on, mut was) = (Instant::now(), Instant::now(), None);
    loop {
        let status = client.core_status().await.filter(|status| status.moves.is_some());
        if status.is_some() {
            heard = Instant::now();
        } else if heard.elapsed() > SILENT_MAX {
            bail!("no node that leads the map's log answered for {} s; what was begun goes on", SILENT_MAX.as_secs());
        }
        let held = held(client, emptied).await;
        // What is drained is done with when it is empty, whatever else moves.
        let is_settled = |status: &LogStatus| status.epoch >= epoch && (status.settled || !emptied.is_empty());
        let is_done = status.as_ref().is_some_and(is_settled) && held == Some(0);
        if is_done {
            line.end();
            return Ok(());
        }
        let stuck =
            status.as_ref().and_then(|status| status.moves.as_ref()).filter(|moves| moves.stuck && !moves.planning);
        if let Some(moves) = stuck.filter(|moves| moves.left() == 0) {
            line.end();
            bail!("what it asks for cannot move: {}", moves.stall.as_deref().unwrap_or("nobody says why"));
        }
        let is = (held, status.as_ref().map(|status| (status.epoch, status.tracks_left, status.bytes_left)));
        if was.replace(is) != Some(is) {
            came_on = Instant::now();
        } else if came_on.elapsed() > STILL_MAX {
            line.end();
            let how = status.as_ref().map_or_else(|| "nobody leads".to_owned(), moving);
            bail!("nothing has changed for {} minutes: {how}; what was begun goes on", STILL_MAX.as_secs() / 60);
        }
        line.show(&status.map_or_else(|| "nobody leads at the moment".to_owned(), |status| sentence(&status, held)));
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// How many partitions are on these volumes; nothing: it is not known.
pub async fn held(client: &Client, volumes: &[VolumeId]) -> Option<usize> {
    let layout = client.newest().await?;
    Some(volumes.iter().map(|volume| layout.held_by(volume).len()).sum())
}

/// How far it is, in a line.
fn sentence(status: &LogStatus, held: Option<usize>) -> String {
    let mut parts = vec![moving(status)];
    if let Some(held) = held.filter(|held| *held > 0) {
        parts.push(format!("{held} copies to go from what is drained"));
    }
    parts.join("; ")
}

/// What moves, in a line.
#[must_use]
pub fn moving(status: &LogStatus) -> String {
    let Some(moves) = &status.moves else { return "nobody who leads says what moves".to_owned() };
    if status.settled {
        return "nothing moves".to_owned();
    }
    let mut line = format!("{} partitions move, {} wait", moves.moving(), moves.waiting());
    if moves.planning {
        line.push_str(", more may follow");
    }
    if status.tracks_left > 0 {
        let (tracks, left, rate) = (status.tracks_left, size(status.bytes_left), size(status.rate_bytes_s));
        line.push_str(&format!("; {tracks} tracks to copy, {left} left at {rate}/s"));
        if let Some(eta_ms) = status.eta_ms {
            line.push_str(&format!(", {}", duration(eta_ms / 1_000)));
        }
    }
    if let Some(stall) = &moves.stall {
        line.push_str(&format!(" ({stall})"));
    }
    if !status.silent.is_empty() {
        line.push_str(&format!("; {} nodes do not say what they lack", status.silent.len()));
    }
    line
}

/// One line that is written anew on a terminal, and now and then elsewhere.
struct Line {
    terminal: bool,
    shown: Option<Instant>,
}

impl Line {
    fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), shown: None }
    }

    fn show(&mut self, text: &str) {
        if self.terminal {
            eprint!("\r\x1b[K{text}");
        } else if self.shown.is_none_or(|shown| shown.elapsed() >= LINE_EVERY) {
            tell(text);
        } else {
            return;
        }
        self.shown = Some(Instant::now());
    }

    fn end(&mut self) {
        if self.terminal && self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
