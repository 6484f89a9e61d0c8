//! What a volume handle does between requests: listings, seals, snapshots, and freeing hollow segments.

use std::rc::{Rc, Weak};

use crate::config::{SNAPSHOT_BYTES, SNAPSHOT_RECORDS, WRITE_BYTES};
use crate::format::Listed;
use crate::host::Host;
use crate::segment::{Segment, Space};
use crate::signal::Signal;
use crate::volume::{Inner, VolumeState};

/// Runs for as long as the volume is open, whenever there may be something to do.
pub(crate) async fn upkeep<H: Host>(volume: Weak<Inner<H>>, woken: Rc<Signal>) {
    loop {
        let next = woken.wait();
        let Some(volume) = volume.upgrade() else { break };
        let keeping = volume.keeping.acquire().await;
        if *volume.state.borrow() == VolumeState::Closed {
            break;
        }
        volume.clean_up().await;
        let open = *volume.state.borrow() == VolumeState::Open;
        if open && volume.holes.get() {
            volume.list_and_seal().await;
            if volume.is_snapshot_due() {
                volume.snapshot().await;
            }
        }
        drop(keeping);
        if open {
            volume.start_compaction();
        }
        drop(volume);
        next.await;
    }
}

impl<H: Host> Inner<H> {
    /// The record in `space` is durable and indexed.
    pub(crate) fn settle(&self, space: Space<H::File>, record: Listed) {
        let segment = space.segment.clone();
        let (records, bytes) = self.since_snapshot.get();
        self.since_snapshot.set((records + 1, bytes + space.bytes));
        space.holds(record);
        if segment.unlisted.borrow().is_due() || self.is_snapshot_due() || !self.takes_records(&segment) {
            self.upkeep.notify();
        }
    }

    /// Whether new records may still go to the segment.
    fn takes_records(&self, segment: &Segment<H::File>) -> bool {
        [&self.active, &self.reserve_segment]
            .iter()
            .any(|slot| slot.borrow().as_ref().is_some_and(|current| current.number == segment.number))
    }

    fn is_snapshot_due(&self) -> bool {
        let (records, bytes) = self.since_snapshot.get();
        records >= SNAPSHOT_RECORDS || bytes >= SNAPSHOT_BYTES
    }

    fn opened_segments(&self) -> Vec<Rc<Segment<H::File>>> {
        let segments = self.segments.borrow();
        self.open_segments.borrow().iter().filter_map(|number| segments.get(*number)).collect()
    }

    /// Brings to the drive what is due of listings and footers.
    pub(crate) async fn list_and_seal(&self) {
        self.write_due_listings().await;
        self.seal_what_is_full().await;
    }

    async fn write_due_listings(&self) {
        for segment in self.opened_segments() {
            loop {
                let due = segment.unlisted.borrow().due();
                let Some(due) = due.filter(|_| segment.writable().is_ok()) else { break };
                let _held = self.writes.acquire(WRITE_BYTES).await;
                match self.write_part(&segment, due.offset, due.records).await {
                    Ok(part) => segment.unlisted.borrow_mut().listed(part),
                    Err(source) => {
                        // On a full drive it stays unlisted, and the next start walks it.
                        drop(self.write_failed(&segment, 0, source));
                        break;
                    }
                }
            }
        }
    }

    async fn seal_what_is_full(&self) {
        for segment in self.opened_segments() {
            let ready = !self.takes_records(&segment)
                && segment.writable().is_ok()
                && !segment.damaged.get()
                && segment.is_idle()
                && segment.unlisted.borrow().can_be_sealed();
            if !ready {
                continue;
            }
            if let Err(error) = self.seal(&segment).await {
                self.segment_failed(&segment, &error);
            }
            self.open_segments.borrow_mut().remove(&segment.number);
        }
    }

    /// Writes the snapshot. Best effort: without it the next start walks more.
    pub(crate) async fn snapshot(&self) {
        self.since_snapshot.set((0, 0));
        if let Err(error) = self.write_snapshot().await {
            tracing::debug!(%error, "no snapshot: the next start walks what was written since the last one");
        }
    }
}
