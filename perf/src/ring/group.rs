//! Durable puts through a bare ring, with the engine's pattern: some in flight, and one flush for all that wait.

use std::time::Instant;

use anyhow::ensure;
use deadwax_track::TrackId;
use hdrhistogram::Histogram;
use io_uring::{opcode, squeue, types};

use crate::pool::Pool;

use super::{Buffers, Ring, Scratch, latencies, micros};

/// What is put: so many of them, `in_flight` at a time, each of `writes` writes of `write_bytes`.
#[derive(Clone, Copy)]
pub(crate) struct Group {
    pub(crate) in_flight: usize,
    pub(crate) writes: usize,
    pub(crate) write_bytes: usize,
    pub(crate) count: u64,
    pub(crate) durable: Durable,
}

/// How a put becomes durable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durable {
    /// By a flush that all share which wait by then.
    Shared,
    /// By a flush of its own, which the kernel begins when the put's one write is done: nobody wakes in between.
    Linked,
    /// By its one write, which is a durable one (`RWF_DSYNC`).
    Written,
}

/// Of `pwritev2`(2).
const RWF_DSYNC: i32 = 2;
/// The user data of a flush; writes have their slot's number.
const FLUSH: u64 = u64::MAX;

/// Where one put stands.
struct Slot {
    begun: Instant,
    writes_left: usize,
}

/// The puts of one run.
struct Run<'a> {
    scratch: &'a Scratch,
    group: Group,
    buffers: Buffers,
    ring: Ring,
    slots: Vec<Slot>,
    next: u64,
    /// Written, for the next flush.
    waiting: Vec<usize>,
    /// In the flush that runs.
    flushing: Vec<usize>,
    latency: Histogram<u64>,
    /// Tracks that are copied, hashed and checksummed on their way; without them, memory is written as it lies.
    tracks: Option<&'a Pool>,
}

impl Scratch {
    /// Puts `group` one behind the other from the file's start. Gives puts a second, and their latency.
    pub(crate) fn put(&self, group: Group) -> anyhow::Result<(f64, Histogram<u64>)> {
        self.put_of(group, None)
    }

    /// The same with the bytes of `tracks`, and the work that nobody is spared who names a track by its hash and proves its
    /// frames by checksums: one copy, BLAKE3, CRC-32. On this thread, as a shard does it.
    pub(crate) fn put_hashed(&self, group: Group, tracks: &Pool) -> anyhow::Result<(f64, Histogram<u64>)> {
        self.put_of(group, Some(tracks))
    }

    fn put_of(&self, group: Group, tracks: Option<&Pool>) -> anyhow::Result<(f64, Histogram<u64>)> {
        let put_bytes = (group.writes * group.write_bytes) as u64;
        ensure!(group.count * put_bytes <= self.bytes, "{} puts do not fit the file", group.count);
        let buffers = Buffers::new(group.in_flight * group.writes * group.write_bytes)?;
        let started = Instant::now();
        let mut run = Run {
            scratch: self,
            group,
            buffers,
            ring: Ring::new()?,
            slots: (0..group.in_flight).map(|_| Slot { begun: started, writes_left: 0 }).collect(),
            next: 0,
            waiting: vec![],
            flushing: vec![],
            latency: latencies(),
            tracks,
        };
        for slot in 0..group.in_flight {
            run.begin(slot)?;
        }
        while run.ring.in_flight > 0 {
            let first = run.ring.wait()?;
            run.done(first)?;
            while let Some(more) = run.ring.ready()? {
                run.done(more)?;
            }
            run.flush()?;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate, printed to one digit")]
        Ok((group.count as f64 / started.elapsed().as_secs_f64(), run.latency))
    }
}

impl Run<'_> {
    fn begin(&mut self, slot: usize) -> anyhow::Result<()> {
        let Group { writes, write_bytes, count, durable, .. } = self.group;
        if self.next == count {
            return Ok(());
        }
        self.slots[slot] = Slot { begun: Instant::now(), writes_left: writes };
        if let Some(tracks) = self.tracks {
            let (id, bytes) = tracks.track(usize::try_from(self.next)?);
            ensure!(bytes.len() == writes * write_bytes, "a track of {} bytes is not the group's", bytes.len());
            let into = self.buffers.slice_mut(slot * bytes.len(), bytes.len());
            let named = TrackId::of(bytes);
            into.copy_from_slice(bytes);
            std::hint::black_box(crc32fast::hash(into));
            ensure!(named == id, "a track is not what its id says");
        }
        for write in 0..writes {
            let from = self.buffers.at((slot * writes + write) * write_bytes);
            let offset = (self.next * writes as u64 + write as u64) * write_bytes as u64;
            let entry = opcode::Write::new(self.scratch.fd(), from, u32::try_from(write_bytes)?).offset(offset);
            let entry = if durable == Durable::Written { entry.rw_flags(RWF_DSYNC) } else { entry };
            let linked = if durable == Durable::Linked { squeue::Flags::IO_LINK } else { squeue::Flags::empty() };
            self.ring.push(&entry.build().user_data(slot as u64).flags(linked))?;
        }
        if durable == Durable::Linked {
            self.flushing.push(slot);
            self.ring.push(&self.flush_entry())?;
        }
        self.next += 1;
        Ok(())
    }

    fn done(&mut self, (what, bytes): (u64, usize)) -> anyhow::Result<()> {
        if what == FLUSH {
            for slot in std::mem::take(&mut self.flushing) {
                self.latency.saturating_record(micros(self.slots[slot].begun.elapsed()));
                self.begin(slot)?;
            }
            return Ok(());
        }
        ensure!(bytes == self.group.write_bytes, "a write of {} bytes took {bytes}", self.group.write_bytes);
        let slot = usize::try_from(what)?;
        self.slots[slot].writes_left -= 1;
        if self.slots[slot].writes_left > 0 || self.group.durable == Durable::Linked {
            return Ok(());
        }
        self.waiting.push(slot);
        if self.group.durable == Durable::Written {
            std::mem::swap(&mut self.waiting, &mut self.flushing);
            return self.done((FLUSH, 0));
        }
        Ok(())
    }

    /// Starts a flush for all that wait, unless one runs.
    fn flush(&mut self) -> anyhow::Result<()> {
        if self.flushing.is_empty() && !self.waiting.is_empty() {
            std::mem::swap(&mut self.waiting, &mut self.flushing);
            self.ring.push(&self.flush_entry())?;
        }
        Ok(())
    }

    fn flush_entry(&self) -> squeue::Entry {
        opcode::Fsync::new(self.scratch.fd()).flags(types::FsyncFlags::DATASYNC).build().user_data(FLUSH)
    }
}
