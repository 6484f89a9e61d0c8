//! What was found damaged on the drive, for whoever repairs it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use deadwax_track::TrackId;

use crate::error::Error;
use crate::host::Host;
use crate::signal::Signal;
use crate::volume::{Inner, Volume, VolumeState};

/// How many findings may wait for whoever repairs? Further ones are dropped and counted: scrub finds them again.
const FINDINGS_MAX: usize = 4096;

/// A record that is not what was written, found by a read, by scrub, or by a move.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The track, as far as listings or the record itself tell.
    pub id: TrackId,
    /// The segment's number.
    pub segment: u64,
    /// Where in the segment's file the bad block starts.
    pub offset: u64,
    /// What was found.
    pub what: String,
    /// Whether the volume counts this very track for certain: it is in digests and lists until it is stored anew.
    pub counted: bool,
}

/// Findings that nobody took yet, each place once.
#[derive(Default)]
pub(crate) struct Findings {
    waiting: RefCell<VecDeque<Damage>>,
    found: Cell<u64>,
    dropped: Cell<u64>,
    arrived: Signal,
}

impl<H: Host> Volume<H> {
    /// The next damaged record, as soon as there is one; nothing once the volume is closed. The volume itself goes on as before:
    /// a damaged track is not served, and [`delete`](Self::delete) and a new put heal it. At most 4,096 wait.
    pub async fn next_damage(&self) -> Option<Damage> {
        let findings = &self.inner.findings;
        loop {
            if let Some(damage) = findings.waiting.borrow_mut().pop_front() {
                return Some(damage);
            }
            if *self.inner.state.borrow() == VolumeState::Closed {
                return None;
            }
            findings.arrived.wait().await;
        }
    }

    /// How many damaged records were found since the volume was opened, and how many of these findings were dropped because
    /// nobody took them.
    #[must_use]
    pub fn damage_found(&self) -> (u64, u64) {
        (self.inner.findings.found.get(), self.inner.findings.dropped.get())
    }
}

impl<H: Host> Inner<H> {
    /// Reports an error of the kind Corrupt, of a track that is counted; others are nothing to repair.
    pub(crate) fn report(&self, error: &Error) {
        self.report_of(error, true);
    }

    /// As [`report`](Self::report); `counted`: whether it is certain that the volume counts the track that it names.
    pub(crate) fn report_of(&self, error: &Error, counted: bool) {
        let Error::Corrupt { id, segment, offset, what } = error else { return };
        let findings = &self.findings;
        let mut waiting = findings.waiting.borrow_mut();
        if waiting.iter().any(|known| (known.segment, known.offset) == (*segment, *offset)) {
            return;
        }
        tracing::error!(%error, "damaged record found");
        findings.found.set(findings.found.get() + 1);
        if waiting.len() >= FINDINGS_MAX {
            waiting.pop_front();
            findings.dropped.set(findings.dropped.get() + 1);
        }
        waiting.push_back(Damage { id: *id, segment: *segment, offset: *offset, what: what.clone(), counted });
        drop(waiting);
        findings.arrived.notify();
    }

    /// Whoever waits for damage learns that there will be no more.
    pub(crate) fn end_findings(&self) {
        self.findings.arrived.notify();
    }
}
