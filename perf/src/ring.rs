//! The drive through a bare `io_uring`: no library of ours, no library of others beyond the ring's own.
//!
//! This file holds `unsafe`: the ring is given pointers into [`Buffers`], which outlive every operation because
//! [`Ring::drain`] waits for all of them before a function returns.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use io_uring::{IoUring, opcode, types};
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::tracks::Random;

pub(crate) mod group;

const O_DIRECT: i32 = rustix::fs::OFlags::DIRECT.bits().cast_signed();
const MIB: usize = 1024 * 1024;

/// Page-aligned memory on huge pages where the kernel grants them, touched before it is used.
struct Buffers {
    start: *mut u8,
    bytes: usize,
}

impl Buffers {
    fn new(bytes: usize) -> anyhow::Result<Self> {
        let bytes = bytes.next_multiple_of(2 * MIB);
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice aliases nothing.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )?
        };
        // SAFETY: the range is the mapping made above. Advice that is refused costs speed only.
        let _ = unsafe { rustix::mm::madvise(start, bytes, Advice::LinuxHugepage) };
        let start = start.cast::<u8>();
        // SAFETY: the mapping is `bytes` long, writable, and ours alone.
        let all = unsafe { std::slice::from_raw_parts_mut(start, bytes) };
        // As hard to shrink as tracks are: what lies under the drive may treat other bytes better.
        let mut random = Random::new(bytes as u64);
        all.as_chunks_mut::<8>().0.iter_mut().for_each(|word| *word = random.next().to_le_bytes());
        Ok(Self { start, bytes })
    }

    /// What lies there. Nothing may be in flight to it.
    fn slice(&self, offset: usize, bytes: usize) -> &[u8] {
        assert!(offset + bytes <= self.bytes, "{offset} and {bytes} more lie beyond {}", self.bytes);
        // SAFETY: the range lies in the mapping, which was filled when it was made, and the kernel is done with it.
        unsafe { std::slice::from_raw_parts(self.at(offset), bytes) }
    }

    /// The same, to be changed.
    fn slice_mut(&mut self, offset: usize, bytes: usize) -> &mut [u8] {
        assert!(offset + bytes <= self.bytes, "{offset} and {bytes} more lie beyond {}", self.bytes);
        // SAFETY: as above, and nobody else has the buffers.
        unsafe { std::slice::from_raw_parts_mut(self.at(offset), bytes) }
    }

    fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.bytes, "offset {offset} lies beyond the buffers' {} bytes", self.bytes);
        self.start.wrapping_add(offset)
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no operation on it is under way: `Ring::drain` came before.
        let _ = unsafe { rustix::mm::munmap(self.start.cast(), self.bytes) };
    }
}

struct Ring {
    ring: IoUring,
    in_flight: usize,
}

impl Ring {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { ring: IoUring::new(256).context("set up an io_uring (is it permitted here?)")?, in_flight: 0 })
    }

    fn push(&mut self, entry: &io_uring::squeue::Entry) -> anyhow::Result<()> {
        // SAFETY: entries point into `Buffers` or at nothing; see the head of this file.
        unsafe { self.ring.submission().push(entry) }.context("the submission queue is full")?;
        self.in_flight += 1;
        Ok(())
    }

    /// Waits for one completion: its user data and result, which must not be an error.
    fn wait(&mut self) -> anyhow::Result<(u64, usize)> {
        loop {
            if let Some(done) = self.ring.completion().next() {
                self.in_flight -= 1;
                let result = usize::try_from(done.result())
                    .map_err(|_| std::io::Error::from_raw_os_error(-done.result()))
                    .context("the drive answered")?;
                return Ok((done.user_data(), result));
            }
            self.ring.submit_and_wait(1)?;
        }
    }

    /// A completion that is there already.
    fn ready(&mut self) -> anyhow::Result<Option<(u64, usize)>> {
        if self.ring.completion().is_empty() { Ok(None) } else { self.wait().map(Some) }
    }

    fn drain(&mut self) -> anyhow::Result<()> {
        while self.in_flight > 0 {
            self.wait()?;
        }
        Ok(())
    }
}

/// Where a run's file lies; removed at the end.
pub(crate) struct Scratch {
    path: std::path::PathBuf,
    file: File,
    bytes: u64,
}

impl Scratch {
    /// A preallocated file of `bytes` in `folder`, opened without the page cache.
    pub(crate) fn new(folder: &Path, bytes: u64) -> anyhow::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("deadwax-perf.{}.{number}.scratch", std::process::id()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(O_DIRECT)
            .open(&path)
            .with_context(|| format!("open {} without the page cache", path.display()))?;
        let scratch = Self { path, file, bytes };
        rustix::fs::fallocate(&scratch.file, rustix::fs::FallocateFlags::empty(), 0, bytes)
            .with_context(|| format!("reserve {bytes} bytes in {}", folder.display()))?;
        Ok(scratch)
    }

    fn fd(&self) -> types::Fd {
        types::Fd(self.file.as_raw_fd())
    }

    /// Writes the whole file once in pieces of 1 MiB, `depth` at a time, flushing after every `flush_every` bytes and
    /// waiting for the flush. Gives MB/s (10^6) and the flushes' latency in microseconds.
    pub(crate) fn write(&self, depth: usize, flush_every: usize) -> anyhow::Result<(f64, Histogram<u64>)> {
        let buffers = Buffers::new(depth * MIB)?;
        let mut ring = Ring::new()?;
        let mut flushes = latencies();
        let started = Instant::now();
        let mut written = 0;
        while written < self.bytes {
            let group_end = (written + flush_every as u64).min(self.bytes);
            let mut slot = 0;
            while written < group_end {
                if ring.in_flight == depth {
                    let (done, bytes) = ring.wait()?;
                    ensure!(bytes == MIB, "a write of 1 MiB took {bytes} bytes");
                    slot = usize::try_from(done)?;
                }
                let entry = opcode::Write::new(self.fd(), buffers.at(slot * MIB), u32::try_from(MIB)?)
                    .offset(written)
                    .build()
                    .user_data(slot as u64);
                ring.push(&entry)?;
                ring.ring.submit()?;
                written += MIB as u64;
                slot += 1;
            }
            ring.drain()?;
            let flush_started = Instant::now();
            ring.push(&opcode::Fsync::new(self.fd()).flags(types::FsyncFlags::DATASYNC).build())?;
            ring.wait()?;
            flushes.saturating_record(micros(flush_started.elapsed()));
        }
        let seconds = started.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate, printed to one digit")]
        Ok((self.bytes as f64 / 1e6 / seconds, flushes))
    }

    /// Random aligned reads of `size` bytes, `depth` at a time, for `time`. Gives reads a second and their latency.
    pub(crate) fn read(
        &self,
        size: usize,
        depth: usize,
        time: Duration,
        seed: u64,
    ) -> anyhow::Result<(f64, Histogram<u64>)> {
        self.read_and(size, depth, time, seed, |_| ())
    }

    /// The same, with every read's bytes run through CRC-32: where the drive is a program that copies, as under a virtual
    /// machine, bytes that somebody looks at are slower to write over than bytes that lie in the drive's own cache.
    pub(crate) fn read_checked(
        &self,
        size: usize,
        depth: usize,
        time: Duration,
        seed: u64,
    ) -> anyhow::Result<(f64, Histogram<u64>)> {
        self.read_and(size, depth, time, seed, |bytes| {
            std::hint::black_box(crc32fast::hash(bytes));
        })
    }

    fn read_and(
        &self,
        size: usize,
        depth: usize,
        time: Duration,
        seed: u64,
        look: impl Fn(&[u8]),
    ) -> anyhow::Result<(f64, Histogram<u64>)> {
        let buffers = Buffers::new(depth * size)?;
        let mut ring = Ring::new()?;
        let mut latency = latencies();
        let mut random = Random::new(seed);
        let mut begun = vec![Instant::now(); depth];
        let started = Instant::now();
        let mut reads = 0_u64;
        let mut free: Vec<usize> = (0..depth).collect();
        loop {
            let over = started.elapsed() >= time;
            while let Some(slot) = free.pop_if(|_| !over) {
                let offset = random.below(self.bytes / size as u64) * size as u64;
                let entry = opcode::Read::new(self.fd(), buffers.at(slot * size), u32::try_from(size)?)
                    .offset(offset)
                    .build()
                    .user_data(slot as u64);
                begun[slot] = Instant::now();
                ring.push(&entry)?;
            }
            if ring.in_flight == 0 {
                break;
            }
            let (slot, bytes) = ring.wait()?;
            ensure!(bytes == size, "a read of {size} bytes gave {bytes}");
            let slot = usize::try_from(slot)?;
            look(buffers.slice(slot * size, size));
            latency.saturating_record(micros(begun[slot].elapsed()));
            reads += 1;
            free.push(slot);
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate, printed to one digit")]
        Ok((reads as f64 / started.elapsed().as_secs_f64(), latency))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// An empty histogram of microseconds up to a minute; longer ones count as a minute.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000, 3).expect("one to a minute, three digits, are valid bounds")
}

/// Whole microseconds, as histograms count them.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
