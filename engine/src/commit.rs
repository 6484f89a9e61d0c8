//! Group commit: one flush makes every put durable whose header was written before it began.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use crate::error::Error;
use crate::host::{File as _, Host, Priority};
use crate::segment::Segment;
use crate::signal::{Signal, Slot};
use crate::volume::Inner;

/// The sequences of a volume handle, and who waits for a flush.
pub(crate) struct Commits<H: Host> {
    next: Cell<u64>,
    /// Given to a header that is not yet known durable.
    outstanding: RefCell<BTreeSet<u64>>,
    waiting: RefCell<Vec<Ticket<H>>>,
    running: Cell<bool>,
    idle: Signal,
}

struct Ticket<H: Host> {
    /// Of the header that was written; a deletion has none.
    sequence: Option<u64>,
    segment: Rc<Segment<H::File>>,
    done: Rc<Slot<Result<(), Error>>>,
}

impl<H: Host> Commits<H> {
    /// `next` is above every sequence on the drive.
    pub(crate) fn new(next: u64) -> Self {
        Self {
            next: Cell::new(next),
            outstanding: RefCell::default(),
            waiting: RefCell::default(),
            running: Cell::new(false),
            idle: Signal::default(),
        }
    }

    /// A sequence for a header, and the highest for which it and all below are durable (or will never be, their segment
    /// being poisoned: no header that names them as synced is ever written there).
    pub(crate) fn begin(&self) -> (u64, u64) {
        let sequence = self.next.get();
        self.next.set(sequence + 1);
        let mut outstanding = self.outstanding.borrow_mut();
        let synced = outstanding.first().copied().unwrap_or(sequence) - 1;
        outstanding.insert(sequence);
        (sequence, synced)
    }

    /// Up to which sequence all headers are durable, or will never be.
    pub(crate) fn synced(&self) -> u64 {
        self.outstanding.borrow().first().copied().unwrap_or(self.next.get()) - 1
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.next.get()
    }

    /// The header with this sequence could not be written.
    pub(crate) fn abandon(&self, sequence: u64) {
        self.outstanding.borrow_mut().remove(&sequence);
    }

    pub(crate) async fn wait_idle(&self) {
        while self.running.get() {
            self.idle.wait().await;
        }
    }
}

impl<H: Host> Inner<H> {
    /// Returns when the header with this sequence, written to `segment`, and all that was written or erased there before it
    /// are durable; or with the failure that poisoned the segment.
    pub(crate) async fn flushed(
        self: &Rc<Self>,
        segment: &Rc<Segment<H::File>>,
        sequence: Option<u64>,
    ) -> Result<(), Error> {
        let done = Slot::new();
        let ticket = Ticket { sequence, segment: segment.clone(), done: done.clone() };
        self.commits.waiting.borrow_mut().push(ticket);
        if !self.commits.running.replace(true) {
            let volume = self.clone();
            self.host.spawn(Priority::Write, async move {
                loop {
                    let batch = volume.commits.waiting.take();
                    if batch.is_empty() {
                        break;
                    }
                    volume.flush(batch).await;
                }
                volume.commits.running.set(false);
                volume.commits.idle.notify();
            });
        }
        done.take().await
    }

    async fn flush(&self, mut batch: Vec<Ticket<H>>) {
        batch.sort_by_key(|ticket| ticket.segment.number);
        for tickets in batch.chunk_by(|a, b| a.segment.number == b.segment.number) {
            let segment = &tickets[0].segment;
            let mut outcome = segment.writable();
            if outcome.is_ok() {
                let flushed = segment.file.fdatasync().await;
                outcome = flushed.map_err(|source| Error::io("flush", &segment.path, source));
                match &outcome {
                    Err(error) => self.segment_failed(segment, error),
                    // A write to the segment that failed meanwhile may be of one of these.
                    Ok(()) => outcome = segment.writable().and_then(|()| self.check_name(segment)),
                }
            }
            if outcome.is_ok() {
                self.failures.set(0);
            }
            for ticket in tickets {
                ticket.sequence.inspect(|sequence| self.commits.abandon(*sequence));
                ticket.done.fill(outcome.clone());
            }
        }
    }
}
