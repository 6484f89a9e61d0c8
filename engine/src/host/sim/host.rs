//! The seam, on the simulated machine.

use std::borrow::Cow;
use std::cell::Cell;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::io::Errno;

use super::disk::{Disk, NodeNumber};
use super::machine::{Machine, Operation, SimBuffer, SimLock, failed};
use super::node::BLOCK;
use super::settings::Kind;
use super::{Access, DirectorySpace, Fault, File, FileKey, Host, LockError, Priority};

/// The host of one life of a [`SimDisk`](super::SimDisk).
#[derive(Clone)]
pub struct SimHost {
    pub(super) machine: Rc<Machine>,
}

impl SimHost {
    /// How many device operations this life has asked for.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.machine.operations()
    }

    /// Cuts this life at the `operations`th device operation from now on, whatever the settings say.
    pub fn cut_after(&self, operations: u64) {
        self.machine.cut_after(operations);
    }

    /// The most bytes that were in buffers at once, in this life: to write from, or read into.
    #[must_use]
    pub fn buffer_bytes_peak(&self) -> usize {
        self.machine.buffer_bytes_peak()
    }

    /// Writes down all that is asked of the drive from now on: see [`SimDisk::record`](super::SimDisk::record).
    pub fn record(&self, base: &Path) {
        self.machine.disk().trace.borrow_mut().begin(base);
    }

    /// Writes a line of the caller's own between those of the drive, where they are written down.
    pub fn note(&self, line: std::fmt::Arguments<'_>) {
        self.machine.disk().trace.borrow_mut().note(line);
    }

    /// Changes names. A change that fails is done or not: what an error leaves behind, no file system promises.
    fn change_name(&self, operation: &Operation, change: impl Fn(&mut Disk) -> io::Result<()>) -> io::Result<()> {
        let mut disk = self.machine.disk();
        let outcome = failed(operation);
        if outcome.is_ok() || disk.dice.roll(2) == 0 {
            change(&mut disk)?;
        }
        outcome
    }

    /// Runs a task on this machine; its value is there to be waited for.
    pub fn task<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> SimTask<T> {
        let left = Rc::new(std::cell::RefCell::new(Left { value: None, waker: None }));
        let leaves = left.clone();
        self.machine.executor.spawn(async move {
            let value = task.await;
            let waker = {
                let mut left = leaves.borrow_mut();
                left.value = Some(value);
                left.waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        SimTask(left)
    }
}

/// Ready with the value of a task that was started with [`SimHost::task`]. Dropping it does not end the task.
pub struct SimTask<T>(Rc<std::cell::RefCell<Left<T>>>);

struct Left<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

impl<T> Future for SimTask<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut left = self.0.borrow_mut();
        if let Some(value) = left.value.take() {
            return Poll::Ready(value);
        }
        left.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Host for SimHost {
    type File = SimFile;
    type Buffer = SimBuffer;
    type ReadBuffer = SimBuffer;
    type Lock = SimLock;

    fn buffer(&self, bytes: usize) -> SimBuffer {
        self.machine.buffer(bytes)
    }

    async fn open(&self, path: &Path, access: Access) -> io::Result<SimFile> {
        let what = if access == Access::Create { "create" } else { "open" };
        let operation = self.machine.begin(Kind::Open, what, path, format_args!("")).await;
        let outcome = failed(&operation).and_then(|()| {
            let mut disk = self.machine.disk();
            let number = match access {
                Access::Create => disk.create(path, operation.done_at),
                Access::Read | Access::Write => disk.find(path)?,
            };
            disk.open(number);
            Ok(number)
        });
        // Made before the wait: it closes what was opened if the wait is given up.
        let file = outcome.map(|number| SimFile {
            machine: self.machine.clone(),
            number,
            path: path.to_owned(),
            writable: access != Access::Read,
            flush_errors_told: Cell::new(self.machine.disk().node(number).flush_errors),
        });
        self.machine.end(&operation).await;
        file
    }

    async fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        Ok(self.machine.disk().list(directory))
    }

    async fn find(&self, paths: Vec<PathBuf>) -> io::Result<Vec<Option<FileKey>>> {
        let disk = self.machine.disk();
        Ok(paths.iter().map(|path| disk.find(path).ok().map(key_of)).collect())
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let name = to.file_name().unwrap_or_default().display();
        let operation = self.machine.begin(Kind::Name, "rename", from, format_args!("to {name}")).await;
        let outcome = self.change_name(&operation, |disk| disk.rename(from, to, operation.done_at));
        self.machine.end(&operation).await;
        outcome
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let operation = self.machine.begin(Kind::Name, "remove", path, format_args!("")).await;
        let outcome = self.change_name(&operation, |disk| disk.remove(path, operation.done_at));
        self.machine.end(&operation).await;
        outcome
    }

    async fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let operation = self.machine.begin(Kind::Name, "dirsync", directory, format_args!("")).await;
        self.machine.end(&operation).await;
        let mut disk = self.machine.disk();
        match failed(&operation) {
            Ok(()) => disk.directory_flushed(directory, operation.began),
            Err(error) => {
                disk.directory_flush_failed(directory, operation.began);
                Err(error)
            }
        }
    }

    async fn space(&self, _directory: &Path) -> io::Result<DirectorySpace> {
        let disk = self.machine.disk();
        let free_bytes = disk.blocks_free() * BLOCK as u64;
        Ok(DirectorySpace { total_bytes: disk.settings.capacity_bytes, free_bytes })
    }

    async fn punches_holes(&self, _directory: &Path) -> bool {
        self.machine.disk().settings.holes
    }

    async fn lock(&self, file: &Path, shard: usize, shards: usize) -> Result<SimLock, LockError> {
        self.machine.lock(file, shard, shards)
    }

    fn now(&self) -> Duration {
        self.machine.executor.now()
    }

    fn unix_seconds(&self) -> u64 {
        1_700_000_000 + self.now().as_secs()
    }

    fn random_u64(&self) -> u64 {
        self.machine.chance.borrow_mut().number()
    }

    async fn yield_if_needed(&self) {
        // One in four is at its turn's end.
        if !self.machine.is_in_turn() && self.machine.executor.dice().roll(4) == 0 {
            next_turn().await;
        }
    }

    async fn sleep(&self, time: Duration) {
        let executor = &self.machine.executor;
        executor.until(executor.now().saturating_add(time)).await;
    }

    fn spawn(&self, _priority: Priority, task: impl Future<Output = ()> + 'static) {
        self.machine.executor.spawn(task);
    }
}

/// Ready when it is polled again.
async fn next_turn() {
    let mut polled = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// An open file of a [`SimHost`].
pub struct SimFile {
    machine: Rc<Machine>,
    number: NodeNumber,
    path: PathBuf,
    writable: bool,
    /// How many failed flushes of the file it has told of, or was opened after. Linux tells each open file of an error once,
    /// whichever of them it came to first (errseq_t).
    flush_errors_told: Cell<u64>,
}

const fn key_of(number: NodeNumber) -> FileKey {
    FileKey { device: 0, number }
}

impl SimFile {
    /// What the trace calls it: its name now, or where it was opened.
    fn name(&self) -> Cow<'_, Path> {
        let disk = self.machine.disk();
        let now = if disk.trace.borrow().is_on() { disk.name_of(self.number) } else { None };
        now.map_or(Cow::Borrowed(&self.path), Cow::Owned)
    }

    /// Where there is data in `range` now. All of it is, where the file system cannot tell.
    fn stretches(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut disk = self.machine.disk();
        let holes = disk.settings.holes;
        let node = disk.node(self.number);
        if holes {
            return node.data(range);
        }
        let all = range.start..range.end.min(node.bytes());
        Some(all).filter(|all| !all.is_empty()).into_iter().collect()
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(Errno::BADF.into()) }
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.machine.disk().close(self.number);
    }
}

impl File for SimFile {
    type Buffer = SimBuffer;
    type ReadBuffer = SimBuffer;

    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    fn key(&self) -> io::Result<Option<FileKey>> {
        Ok(self.machine.disk().node(self.number).named.then(|| key_of(self.number)))
    }

    async fn bytes(&self) -> io::Result<u64> {
        Ok(self.machine.disk().node(self.number).bytes())
    }

    async fn allocated_bytes(&self) -> io::Result<u64> {
        Ok(self.machine.disk().node(self.number).blocks_taken * BLOCK as u64)
    }

    async fn read_at(&self, offset: u64, bytes: usize) -> io::Result<SimBuffer> {
        let place = format_args!("{offset}+{bytes}");
        let operation = self.machine.begin(Kind::Read, "read", &self.name(), place).await;
        self.machine.end(&operation).await;
        failed(&operation)?;
        let mut buffer = self.machine.empty_buffer(bytes);
        let mut disk = self.machine.disk();
        if operation.fault == Some(Fault::BitFlip) {
            disk.rot(self.number, offset, bytes);
        }
        let whole = disk.node(self.number).read(offset, bytes, &mut buffer.memory);
        if whole { Ok(buffer) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    async fn write_at(&self, offset: u64, buffer: SimBuffer) -> io::Result<()> {
        self.check_writable()?;
        let place = format_args!("{offset}+{}", buffer.len());
        let operation = self.machine.begin(Kind::Write, "write", &self.name(), place).await;
        let outcome = self.machine.disk().write(self.number, offset, &buffer, operation.fault, operation.done_at);
        drop(buffer);
        self.machine.end(&operation).await;
        outcome
    }

    async fn fdatasync(&self) -> io::Result<()> {
        let operation = self.machine.begin(Kind::Flush, "flush", &self.name(), format_args!("")).await;
        self.machine.end(&operation).await;
        let mut disk = self.machine.disk();
        let node = disk.node(self.number);
        let outcome = failed(&operation);
        match outcome {
            Ok(()) => node.flushed(operation.began),
            Err(_) => node.flush_failed(operation.began),
        }
        let told = self.flush_errors_told.replace(node.flush_errors);
        if outcome.is_ok() && told < node.flush_errors { Err(Errno::IO.into()) } else { outcome }
    }

    async fn preallocate(&self, bytes: u64) -> io::Result<()> {
        self.check_writable()?;
        let operation =
            self.machine.begin(Kind::Preallocate, "preallocate", &self.name(), format_args!("{bytes}")).await;
        let outcome = failed(&operation).and_then(|()| {
            let mut disk = self.machine.disk();
            if disk.node(self.number).lacks(0, bytes) > disk.blocks_free() {
                return Err(Errno::NOSPC.into());
            }
            disk.node(self.number).preallocate(bytes, operation.done_at);
            Ok(())
        });
        self.machine.end(&operation).await;
        outcome
    }

    async fn punch_hole(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.check_writable()?;
        let place = format_args!("{offset}+{bytes}");
        let operation = self.machine.begin(Kind::Punch, "punch", &self.name(), place).await;
        let outcome = failed(&operation).and_then(|()| {
            let mut disk = self.machine.disk();
            if !disk.settings.holes {
                return Err(Errno::OPNOTSUPP.into());
            }
            disk.node(self.number).punch(offset, bytes, operation.done_at);
            Ok(())
        });
        self.machine.end(&operation).await;
        outcome
    }

    async fn data(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        let place = format_args!("{}+{}", range.start, range.end.saturating_sub(range.start));
        let operation = self.machine.begin(Kind::Look, "look", &self.name(), place).await;
        // As the real host, it asks for one stretch after the other: the last ones may be from much later than the first.
        let blocks = range.end.saturating_sub(range.start).div_ceil(BLOCK as u64);
        let turns = range.start + self.machine.disk().dice.roll(blocks + 1) * BLOCK as u64;
        let turns = turns.min(range.end.max(range.start));
        let mut stretches = self.stretches(range.start..turns);
        self.machine.end(&operation).await;
        failed(&operation)?;
        for later in self.stretches(turns..range.end) {
            match stretches.last_mut() {
                Some(last) if last.end == later.start => last.end = later.end,
                _ => stretches.push(later),
            }
        }
        Ok(stretches)
    }
}
