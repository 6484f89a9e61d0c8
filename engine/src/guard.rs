//! Stands between a volume and its drive: times what is at the drive, and when the drive is given up lets nobody wait
//! for it any longer. What counts as too slow or too broken is judged in `health`.
//!
//! A volume that is *out* answers Fenced to all who wait and all who come. What changes the drive and is still under
//! way then is not dropped but left to itself, and keeps the volume locked: a write that comes through after a minute must
//! not meet the same volume, reopened, with something else in that place.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::config::VolumeConfig;
use crate::error::Error;
use crate::format::BLOCK;
use crate::health::{Health, TICK, is_bad_read, is_gone};
use crate::host::{Access, DirectorySpace, File, FileKey, Host, LockError, Priority, is_passing};
use crate::identity::{SEGMENTS_DIR, SUPERBLOCK_FILE, VolumeIdentity, parse};
use crate::signal::Signal;
use crate::volume::VolumeState;

/// Why a drive was given up, as the error of an operation that it did not do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Out {
    why: String,
    /// It hangs or crawls, which may pass, or files were taken from it: what is on it now may serve.
    may_pass: bool,
}

impl Out {
    /// Also of a drive from which files were taken: the rest of it may be opened at once.
    pub(crate) const fn hung(why: String) -> Self {
        Self { why, may_pass: true }
    }

    pub(crate) const fn lost(why: String) -> Self {
        Self { why, may_pass: false }
    }

    pub(crate) fn into_state(self) -> VolumeState {
        if self.may_pass { VolumeState::Hung(self.why) } else { VolumeState::Out(self.why) }
    }
}

impl From<Out> for Error {
    fn from(out: Out) -> Self {
        if out.may_pass { Self::Hung(out.why) } else { Self::Fenced(out.why) }
    }
}

impl fmt::Display for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Out {}

/// The reason, where an operation failed because its drive had been given up.
pub(crate) fn out_reason(error: &io::Error) -> Option<Out> {
    error.get_ref()?.downcast_ref::<Out>().cloned()
}

/// What a volume handle knows of its drive.
pub(crate) struct Guard {
    dir: PathBuf,
    superblock: PathBuf,
    segments_dir: PathBuf,
    expected: VolumeIdentity,
    health: RefCell<Health>,
    /// Whether what `health` says counts.
    judged: bool,
    /// Of the tasks that wait for the drive, by the places that `health` gave.
    wakers: RefCell<Vec<Option<Waker>>>,
    out: RefCell<Option<Out>>,
    /// Notified at each change of the volume's state.
    pub(crate) changed: Signal,
    /// Whether the superblock was what was expected once: until then whoever opens the volume says what is wrong with it.
    known: Cell<bool>,
    checking: Cell<bool>,
    space: Cell<DirectorySpace>,
}

impl Guard {
    /// Why the volume is out, if it is.
    pub(crate) fn out(&self) -> Option<Out> {
        self.out.borrow().clone()
    }

    /// Fails where the volume is out.
    pub(crate) fn serving(&self) -> Result<(), Error> {
        self.out().map_or(Ok(()), |out| Err(out.into()))
    }

    /// Takes the volume out, for what this handle found out: see [`set_out`](Self::set_out).
    pub(crate) fn fence(&self, out: Out) {
        if self.out.borrow().is_none() {
            tracing::error!(dir = %self.dir.display(), why = %out, "volume fenced: out until it is reopened");
            self.set_out(out);
        }
    }

    /// Takes the volume out: all who wait for the drive are answered, and nothing goes to it any more.
    pub(crate) fn set_out(&self, out: Out) {
        if self.out.borrow().is_some() {
            return;
        }
        *self.out.borrow_mut() = Some(out);
        let wakers: Vec<_> = self.wakers.borrow_mut().iter_mut().filter_map(Option::take).collect();
        wakers.into_iter().for_each(Waker::wake);
        self.changed.notify();
    }

    /// The space of the drive's file system, as last measured: at most some seconds ago.
    pub(crate) fn space(&self) -> DirectorySpace {
        self.space.get()
    }

    fn fail(&self) -> Option<io::Error> {
        self.out().map(io::Error::other)
    }

    /// Heeds a verdict that the drive is no good, however fast it is.
    fn heed(&self, verdict: Option<String>) {
        if let Some(why) = verdict {
            self.fence(Out::lost(why));
        }
    }

    /// Learns from how an operation ended.
    fn learn(&self, error: &io::Error, what: &str) {
        if self.judged && is_gone(error) {
            self.fence(Out::lost(format!("the drive is gone: {what}: {error}")));
        }
    }

    fn learn_read(&self, outcome: Option<&io::Error>, file: impl FnOnce() -> PathBuf, offset: u64, now: Duration) {
        match outcome {
            None => self.health.borrow_mut().read_succeeded(),
            Some(error) if self.judged && is_bad_read(error) => {
                let verdict = self.health.borrow_mut().read_failed(file(), offset, now);
                self.heed(verdict.map(|why| format!("{why}: {error}")));
            }
            Some(_) => {}
        }
    }

    /// Learns what the superblock's file had in it.
    fn learn_superblock(&self, read: io::Result<Vec<u8>>) {
        let unreadable = |why: &str| {
            let verdict = self.health.borrow_mut().check_failed(why);
            self.heed(verdict);
        };
        match read {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                self.fence(Out::lost("its directory is gone: the drive was pulled or unmounted".to_owned()));
            }
            Err(error) if is_passing(&error) || out_reason(&error).is_some() => {}
            Err(error) => unreadable(&error.to_string()),
            Ok(bytes) => match parse(&self.superblock, &bytes) {
                Err(error) => unreadable(&error.to_string()),
                Ok(found) if found == self.expected => self.health.borrow_mut().check_succeeded(),
                Ok(found) if found.node != self.expected.node => {
                    self.fence(Out::lost("another node's volume is in its directory now".to_owned()));
                }
                Ok(found) => {
                    self.fence(Out::lost(format!("another volume is in its directory now: {}", found.volume)));
                }
            },
        }
    }
}

/// A place among the operations at the drive, until it is dropped.
struct Flight<'a> {
    guard: &'a Guard,
    place: usize,
    now: &'a dyn Fn() -> Duration,
    ended: bool,
}

impl<'a> Flight<'a> {
    fn begin(guard: &'a Guard, what: &'static str, now: &'a dyn Fn() -> Duration) -> Self {
        let place = guard.health.borrow_mut().begin(what, now());
        let mut wakers = guard.wakers.borrow_mut();
        if wakers.len() <= place {
            wakers.resize(place + 1, None);
        }
        Self { guard, place, now, ended: false }
    }

    fn wake_by(&self, context: &Context<'_>) {
        let waker = &mut self.guard.wakers.borrow_mut()[self.place];
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.guard.wakers.borrow_mut()[self.place] = None;
        let (mut health, now) = (self.guard.health.borrow_mut(), (self.now)());
        if self.ended { health.end(self.place, now) } else { health.forget(self.place, now) }
    }
}

/// A host whose drive is guarded.
pub(crate) struct Guarded<H: Host> {
    host: H,
    guard: Rc<Guard>,
    /// Kept by what is still at the drive after the volume was closed.
    lock: Rc<RefCell<Weak<H::Lock>>>,
}

impl<H: Host> Clone for Guarded<H> {
    fn clone(&self) -> Self {
        Self { host: self.host.clone(), guard: self.guard.clone(), lock: self.lock.clone() }
    }
}

impl<H: Host> Guarded<H> {
    /// Guards the drive of the volume that is opened with `config`, and watches it until the last clone is dropped.
    pub(crate) fn new(host: H, config: &VolumeConfig) -> Self {
        let health = RefCell::new(Health::new(config.health.unwrap_or_default(), host.now()));
        let guard = Rc::new(Guard {
            dir: config.dir.clone(),
            superblock: config.dir.join(SUPERBLOCK_FILE),
            segments_dir: config.dir.join(SEGMENTS_DIR),
            expected: config.expected,
            health,
            judged: config.health.is_some(),
            wakers: RefCell::default(),
            out: RefCell::default(),
            changed: Signal::default(),
            known: Cell::new(false),
            checking: Cell::new(false),
            space: Cell::new(DirectorySpace { total_bytes: 0, free_bytes: 0 }),
        });
        let guarded = Self { host, guard, lock: Rc::default() };
        if let Some(limits) = config.health {
            let (host, guard, lock) = (guarded.host.clone(), Rc::downgrade(&guarded.guard), guarded.lock.clone());
            let watch = watch(host, guard, lock, limits.check_period);
            guarded.host.spawn(Priority::Repair, watch);
        }
        guarded
    }

    pub(crate) fn guard(&self) -> &Rc<Guard> {
        &self.guard
    }

    /// Runs what changes nothing on the drive; lets go of it where the volume goes out. (glommio keeps what the kernel
    /// writes into until the kernel is done with it.)
    async fn ask<T>(&self, what: &'static str, task: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let mut task = pin!(task);
        self.wait(what, |context| task.as_mut().poll(context)).await
    }

    /// Runs what changes the drive. Where the volume goes out the task goes on without anybody, to its end. Once the volume was
    /// locked it stays so until that: nothing changes it without the lock.
    async fn change<T: 'static>(
        &self,
        what: &'static str,
        task: impl Future<Output = io::Result<T>> + 'static,
    ) -> io::Result<T> {
        if let Some(out) = self.guard.fail() {
            return Err(out);
        }
        let lock = self.lock.borrow().upgrade();
        if lock.is_none() && self.guard.known.get() {
            return Err(io::Error::other(Out::lost("the volume was closed".to_owned())));
        }
        let mut task: Option<Pin<Box<dyn Future<Output = io::Result<T>>>>> = Some(Box::pin(task));
        let outcome = self
            .wait(what, |context| {
                let polled = task.as_mut().expect("not polled after its end").as_mut().poll(context);
                if polled.is_ready() {
                    task = None;
                }
                polled
            })
            .await;
        if let Some(task) = task {
            self.host.spawn(Priority::Repair, async move {
                drop(task.await);
                drop(lock);
            });
        }
        outcome
    }

    /// Waits for what `poll` asks of the drive, or until the volume is out.
    async fn wait<T>(
        &self,
        what: &'static str,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> io::Result<T> {
        if let Some(out) = self.guard.fail() {
            return Err(out);
        }
        let now = || self.host.now();
        let mut flight = Flight::begin(&self.guard, what, &now);
        let outcome = poll_fn(|context| {
            if let Poll::Ready(outcome) = poll(context) {
                flight.ended = true;
                return Poll::Ready(outcome);
            }
            if let Some(out) = self.guard.fail() {
                return Poll::Ready(Err(out));
            }
            flight.wake_by(context);
            Poll::Pending
        })
        .await;
        drop(flight);
        if let Err(error) = &outcome {
            self.guard.learn(error, what);
        }
        outcome
    }
}

impl<H: Host> Host for Guarded<H> {
    type File = GuardedFile<H>;
    type Buffer = H::Buffer;
    type ReadBuffer = H::ReadBuffer;
    type Lock = Rc<H::Lock>;

    fn buffer(&self, bytes: usize) -> H::Buffer {
        self.host.buffer(bytes)
    }

    async fn open(&self, path: &Path, access: Access) -> io::Result<GuardedFile<H>> {
        let file = if access == Access::Create {
            let (host, path) = (self.host.clone(), path.to_owned());
            self.change("create", async move { host.open(&path, access).await }).await?
        } else {
            self.ask("open", self.host.open(path, access)).await?
        };
        Ok(GuardedFile { file: Rc::new(file), host: self.clone() })
    }

    async fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.ask("list", self.host.list(directory)).await
    }

    async fn find(&self, paths: Vec<PathBuf>) -> io::Result<Vec<Option<FileKey>>> {
        self.ask("look for files", self.host.find(paths)).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (host, from, to) = (self.host.clone(), from.to_owned(), to.to_owned());
        self.change("rename", async move { host.rename(&from, &to).await }).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let (host, path) = (self.host.clone(), path.to_owned());
        self.change("remove", async move { host.remove(&path).await }).await
    }

    async fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let (host, directory) = (self.host.clone(), directory.to_owned());
        self.change("flush of a directory", async move { host.sync_directory(&directory).await }).await
    }

    async fn space(&self, directory: &Path) -> io::Result<DirectorySpace> {
        let space = self.ask("look at free space", self.host.space(directory)).await?;
        self.guard.space.set(space);
        Ok(space)
    }

    async fn punches_holes(&self, directory: &Path) -> bool {
        self.ask("look at the file system", async { Ok(self.host.punches_holes(directory).await) })
            .await
            .unwrap_or(false)
    }

    fn file_bytes_max(&self) -> Option<u64> {
        self.host.file_bytes_max()
    }

    async fn lock(&self, file: &Path, shard: usize, shards: usize) -> Result<Rc<H::Lock>, LockError> {
        let locked = self.ask("lock", async { Ok(self.host.lock(file, shard, shards).await) }).await?;
        let lock = Rc::new(locked?);
        *self.lock.borrow_mut() = Rc::downgrade(&lock);
        // A volume is locked once its identity was checked.
        self.guard.known.set(true);
        Ok(lock)
    }

    fn now(&self) -> Duration {
        self.host.now()
    }

    fn unix_seconds(&self) -> u64 {
        self.host.unix_seconds()
    }

    fn random_u64(&self) -> u64 {
        self.host.random_u64()
    }

    async fn yield_if_needed(&self) {
        self.host.yield_if_needed().await;
    }

    async fn sleep(&self, time: Duration) {
        self.host.sleep(time).await;
    }

    fn spawn(&self, priority: Priority, task: impl Future<Output = ()> + 'static) {
        self.host.spawn(priority, task);
    }
}

/// A file on a guarded drive.
pub(crate) struct GuardedFile<H: Host> {
    file: Rc<H::File>,
    host: Guarded<H>,
}

impl<H: Host> File for GuardedFile<H> {
    type Buffer = H::Buffer;
    type ReadBuffer = H::ReadBuffer;

    fn path(&self) -> PathBuf {
        self.file.path()
    }

    fn key(&self) -> io::Result<Option<FileKey>> {
        self.file.key()
    }

    async fn bytes(&self) -> io::Result<u64> {
        self.host.ask("look at a file", self.file.bytes()).await
    }

    async fn allocated_bytes(&self) -> io::Result<u64> {
        self.host.ask("look at a file", self.file.allocated_bytes()).await
    }

    async fn read_at(&self, offset: u64, bytes: usize) -> io::Result<H::ReadBuffer> {
        let outcome = self.host.ask("read", self.file.read_at(offset, bytes)).await;
        let (guard, now) = (&self.host.guard, self.host.now());
        guard.learn_read(outcome.as_ref().err(), || self.file.path(), offset, now);
        outcome
    }

    async fn write_at(&self, offset: u64, buffer: H::Buffer) -> io::Result<()> {
        let file = self.file.clone();
        self.host.change("write", async move { file.write_at(offset, buffer).await }).await
    }

    async fn fdatasync(&self) -> io::Result<()> {
        self.host.ask("flush", self.file.fdatasync()).await
    }

    async fn preallocate(&self, bytes: u64) -> io::Result<()> {
        let file = self.file.clone();
        self.host.change("preallocation", async move { file.preallocate(bytes).await }).await
    }

    async fn punch_hole(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let file = self.file.clone();
        self.host.change("erasure", async move { file.punch_hole(offset, bytes).await }).await
    }

    async fn data(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        self.host.ask("look for holes", self.file.data(range)).await
    }
}

/// Asks for a verdict each tick, and from time to time whether the drive is still there, until the volume is dropped.
async fn watch<H: Host>(host: H, guard: Weak<Guard>, lock: Rc<RefCell<Weak<H::Lock>>>, check_period: Duration) {
    let mut checked: Option<Duration> = None;
    loop {
        {
            let Some(guard) = guard.upgrade() else { break };
            if guard.out.borrow().is_some() {
                break;
            }
            let now = host.now();
            let verdict = guard.health.borrow_mut().verdict(now);
            verdict.into_iter().for_each(|why| guard.fence(Out::hung(why)));
            let due = checked.is_none_or(|checked| now.saturating_sub(checked) >= check_period);
            if due && guard.known.get() && !guard.checking.replace(true) {
                checked = Some(now);
                let guarded = Guarded { host: host.clone(), guard, lock: lock.clone() };
                // A task of its own: where the drive hangs, so does this.
                host.spawn(Priority::Repair, async move {
                    guarded.check().await;
                    guarded.guard.checking.set(false);
                });
            }
        }
        host.sleep(TICK).await;
    }
}

impl<H: Host> Guarded<H> {
    /// Whether the drive is still there and still the same, and how much room it has.
    async fn check(&self) {
        let read = async {
            let file = self.open(&self.guard.superblock, Access::Read).await?;
            let block = file.read_at(0, BLOCK).await?;
            Ok(block.to_vec())
        };
        let read = read.await;
        self.guard.learn_superblock(read);
        if let Err(error) = self.space(&self.guard.segments_dir).await {
            tracing::debug!(%error, dir = %self.guard.dir.display(), "cannot measure the free space");
        }
    }
}
