//! A host that counts, and fails, hangs and crawls when told to.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use deadwax_engine::{Access, DirectorySpace, File, FileKey, GlommioHost, Host, LockError, Priority};

/// What fails, and what was done.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) flushes: Cell<u64>,
    pub(crate) writes: Cell<u64>,
    /// A flush waits until this many writes are done.
    pub(crate) hold_flushes_until: Cell<u64>,
    /// Of segments: not those that ask whether the superblock is still there.
    pub(crate) reads: Cell<u64>,
    pub(crate) fail_writes: Cell<bool>,
    pub(crate) fail_flushes: Cell<bool>,
    pub(crate) fail_creates: Cell<bool>,
    /// What a create that fails says; EIO where nothing is set.
    pub(crate) create_errno: Cell<Option<i32>>,
    /// Reads of this stretch of any segment fail.
    pub(crate) fail_reads_in: Cell<Option<(u64, u64)>>,
    pub(crate) punched: RefCell<Vec<(u64, u64)>>,
    /// What operations of these kinds do not come back from.
    pub(crate) hung: RefCell<Vec<Op>>,
    /// What every operation fails with.
    pub(crate) errno: Cell<Option<i32>>,
    /// How long every operation takes, in the time of the host.
    pub(crate) delay: Cell<Duration>,
    /// Operations at the real drive.
    busy: Cell<usize>,
    /// The host's time, where it is not the machine's.
    clock: Option<Cell<Duration>>,
    sleepers: RefCell<Vec<Waker>>,
}

/// What is asked of a drive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    Open,
    Read,
    Write,
    Flush,
    /// All that has to do with names and space.
    Names,
}

#[derive(Clone)]
pub(crate) struct ScriptedHost {
    real: GlommioHost,
    pub(crate) script: Rc<Script>,
}

impl ScriptedHost {
    pub(crate) fn new() -> Self {
        Self { real: GlommioHost::new(), script: Rc::default() }
    }

    /// A host whose time passes only in [`pass`](Self::pass), so that the real drive takes none of it.
    pub(crate) fn with_a_clock() -> Self {
        let script = Script { clock: Some(Cell::default()), ..Script::default() };
        Self { real: GlommioHost::new(), script: Rc::new(script) }
    }

    /// Lets time pass, while all that the drive can do is done at once. Ends early where `until` says so; answers the
    /// time that passed.
    pub(crate) async fn pass(&self, time: Duration, until: impl Fn() -> bool) -> Duration {
        const STEP: Duration = Duration::from_millis(50);
        let clock = self.script.clock.as_ref().expect("a host with a clock");
        let began = clock.get();
        loop {
            // Tasks have had their turns once the executor went round some times with nothing at the drive.
            let mut idle_rounds = 0;
            while idle_rounds < 10 {
                self.real.sleep(Duration::from_micros(50)).await;
                idle_rounds = if self.script.busy.get() == 0 { idle_rounds + 1 } else { 0 };
            }
            let passed = clock.get() - began;
            if passed >= time || until() {
                return passed;
            }
            clock.set(clock.get() + STEP);
            self.script.wake();
        }
    }

    /// What hung comes back.
    pub(crate) fn release(&self) {
        self.script.hung.borrow_mut().clear();
        self.script.wake();
    }
}

impl Script {
    fn wake(&self) {
        self.sleepers.take().into_iter().for_each(Waker::wake);
    }

    /// Ready once `done` says so; asked again whenever time passes.
    async fn until(&self, done: impl Fn() -> bool) {
        poll_fn(|context| {
            if done() {
                return Poll::Ready(());
            }
            self.sleepers.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    async fn sleep(&self, time: Duration) {
        let clock = self.clock.as_ref().expect("a host with a clock");
        let end = clock.get() + time;
        self.until(|| clock.get() >= end).await;
    }

    /// Does `task` at the drive, as the script says.
    async fn at_drive<T>(&self, op: Op, task: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        if !self.delay.get().is_zero() {
            self.sleep(self.delay.get()).await;
        }
        self.until(|| !self.hung.borrow().contains(&op)).await;
        if let Some(errno) = self.errno.get() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let _busy = Busy::new(&self.busy);
        task.await
    }
}

/// Counts an operation while it is at the drive, whether it is waited for or not.
struct Busy<'a>(&'a Cell<usize>);

impl<'a> Busy<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

pub(crate) struct ScriptedFile {
    real: <GlommioHost as Host>::File,
    script: Rc<Script>,
}

fn fail_if(flag: &Cell<bool>) -> io::Result<()> {
    // EIO, as from a drive.
    if flag.get() { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
}

impl Host for ScriptedHost {
    type File = ScriptedFile;
    type Buffer = <GlommioHost as Host>::Buffer;
    type ReadBuffer = <GlommioHost as Host>::ReadBuffer;
    type Lock = <GlommioHost as Host>::Lock;

    fn buffer(&self, bytes: usize) -> Self::Buffer {
        let mut buffer = self.real.buffer(bytes);
        // Whatever was there before.
        buffer.fill(0xa5);
        buffer
    }

    async fn open(&self, path: &Path, access: Access) -> io::Result<ScriptedFile> {
        if access == Access::Create {
            if let Some(errno) = self.script.create_errno.get() {
                return Err(io::Error::from_raw_os_error(errno));
            }
            fail_if(&self.script.fail_creates)?;
        }
        let real = self.script.at_drive(Op::Open, self.real.open(path, access)).await?;
        Ok(ScriptedFile { real, script: self.script.clone() })
    }

    async fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.script.at_drive(Op::Names, self.real.list(directory)).await
    }

    async fn find(&self, paths: Vec<PathBuf>) -> io::Result<Vec<Option<FileKey>>> {
        self.script.at_drive(Op::Names, self.real.find(paths)).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.script.at_drive(Op::Names, self.real.rename(from, to)).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.script.at_drive(Op::Names, self.real.remove(path)).await
    }

    async fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.script.at_drive(Op::Flush, self.real.sync_directory(directory)).await
    }

    async fn space(&self, directory: &Path) -> io::Result<DirectorySpace> {
        self.script.at_drive(Op::Names, self.real.space(directory)).await
    }

    async fn punches_holes(&self, directory: &Path) -> bool {
        self.real.punches_holes(directory).await
    }

    async fn lock(&self, file: &Path, shard: usize, shards: usize) -> Result<Self::Lock, LockError> {
        self.script.at_drive(Op::Open, async { Ok(self.real.lock(file, shard, shards).await) }).await?
    }

    fn now(&self) -> Duration {
        self.script.clock.as_ref().map_or_else(|| self.real.now(), Cell::get)
    }

    fn unix_seconds(&self) -> u64 {
        self.real.unix_seconds()
    }

    fn random_u64(&self) -> u64 {
        self.real.random_u64()
    }

    async fn yield_if_needed(&self) {
        self.real.yield_if_needed().await;
    }

    async fn sleep(&self, time: Duration) {
        if self.script.clock.is_some() { self.script.sleep(time).await } else { self.real.sleep(time).await }
    }

    fn spawn(&self, priority: Priority, task: impl Future<Output = ()> + 'static) {
        self.real.spawn(priority, task);
    }
}

impl File for ScriptedFile {
    type Buffer = <GlommioHost as Host>::Buffer;
    type ReadBuffer = <GlommioHost as Host>::ReadBuffer;

    fn path(&self) -> PathBuf {
        self.real.path()
    }

    fn key(&self) -> io::Result<Option<FileKey>> {
        self.real.key()
    }

    async fn bytes(&self) -> io::Result<u64> {
        self.script.at_drive(Op::Open, self.real.bytes()).await
    }

    async fn allocated_bytes(&self) -> io::Result<u64> {
        self.script.at_drive(Op::Names, self.real.allocated_bytes()).await
    }

    async fn read_at(&self, offset: u64, bytes: usize) -> io::Result<Self::ReadBuffer> {
        let segment = self.path().file_name().is_some_and(|name| name != "volume.deadwax");
        self.script.reads.set(self.script.reads.get() + u64::from(segment));
        if segment
            && let Some((start, end)) = self.script.fail_reads_in.get()
            && offset < end
            && offset + bytes as u64 > start
        {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.script.at_drive(Op::Read, self.real.read_at(offset, bytes)).await
    }

    async fn write_at(&self, offset: u64, buffer: Self::Buffer) -> io::Result<()> {
        fail_if(&self.script.fail_writes)?;
        let outcome = self.script.at_drive(Op::Write, self.real.write_at(offset, buffer)).await;
        self.script.writes.set(self.script.writes.get() + 1);
        outcome
    }

    async fn fdatasync(&self) -> io::Result<()> {
        self.script.flushes.set(self.script.flushes.get() + 1);
        fail_if(&self.script.fail_flushes)?;
        while self.script.writes.get() < self.script.hold_flushes_until.get() {
            glommio::executor().yield_task_queue_now().await;
        }
        self.script.at_drive(Op::Flush, self.real.fdatasync()).await
    }

    async fn preallocate(&self, bytes: u64) -> io::Result<()> {
        self.script.at_drive(Op::Names, self.real.preallocate(bytes)).await
    }

    async fn punch_hole(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.script.punched.borrow_mut().push((offset, bytes));
        self.script.at_drive(Op::Names, self.real.punch_hole(offset, bytes)).await
    }

    async fn data(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        self.script.at_drive(Op::Names, self.real.data(range)).await
    }
}
