//! The real machine, through glommio: io_uring with O_DIRECT.
//!
//! Of glommio 0.9's files only the calls below are sound for us; its stream writers take a short write for success.
//! If the first file that an executor opens on a device is empty and writable, glommio takes it for a polled device and
//! all I/O crawls or fails: a volume opens its superblock first, which has a block in it and is opened to be read.

use std::future::{Future, poll_fn};
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use glommio::io::{DmaBuffer, DmaFile, OpenOptions, ReadResult};
use glommio::{Latency, Shares, TaskQueueHandle};

use super::errand;
use super::executor::LATENCY;
use super::lock::{self, VolumeLock};
use super::names;
use super::{Access, DirectorySpace, File, FileKey, Host, LockError, Priority, STRETCHES_MAX};

/// The host of a glommio executor. Use it only on the executor that it was made on.
#[derive(Clone)]
pub struct GlommioHost {
    started: Rc<Instant>,
    queues: Option<Queues>,
}

/// One task queue a [`Priority`].
#[derive(Clone, Copy)]
struct Queues {
    read: TaskQueueHandle,
    write: TaskQueueHandle,
    repair: TaskQueueHandle,
    scrub: TaskQueueHandle,
}

/// How often does a handle ask whether another one's flush of the same directory is over? Segments are made rarely.
const NAMES_POLL: Duration = Duration::from_micros(200);

/// What the queues get of a busy shard's time, relative to each other. glommio's shares go from 1 to 1000.
const SHARES: [(&str, usize); 4] =
    [("engine-read", 1000), ("engine-write", 500), ("engine-repair", 100), ("engine-scrub", 20)];

impl GlommioHost {
    /// The host of the executor that runs the caller. All its tasks run in the queue of the task that spawns them.
    #[must_use]
    pub fn new() -> Self {
        Self { started: Rc::new(Instant::now()), queues: None }
    }

    /// The same, with a task queue for each [`Priority`]. Made once an executor; its clones share the queues.
    #[must_use]
    pub fn with_queues() -> Self {
        let [read, write, repair, scrub] = SHARES.map(|(name, shares)| {
            let latency = if shares >= 500 { Latency::Matters(LATENCY) } else { Latency::NotImportant };
            glommio::executor().create_task_queue(Shares::Static(shares), latency, name)
        });
        Self { started: Rc::new(Instant::now()), queues: Some(Queues { read, write, repair, scrub }) }
    }

    /// Runs `task` in the queue of its priority, and answers what it answers. Cancelled where the future is dropped.
    ///
    /// A volume does what it must do at once, such as hashing a put's bytes, in the task that calls it: a put that runs as
    /// [`Priority::Write`] leaves the shard's time to those who read.
    pub async fn run<T: 'static>(&self, priority: Priority, task: impl Future<Output = T> + 'static) -> T {
        match self.queue(priority) {
            Some(queue) => glommio::spawn_local_into(task, queue).expect("the executor's own queue").await,
            None => task.await,
        }
    }

    fn queue(&self, priority: Priority) -> Option<TaskQueueHandle> {
        self.queues.map(|queues| match priority {
            Priority::Read => queues.read,
            Priority::Write => queues.write,
            Priority::Repair => queues.repair,
            Priority::Scrub => queues.scrub,
        })
    }
}

impl Default for GlommioHost {
    fn default() -> Self {
        Self::new()
    }
}

/// The system's error: glommio's own conversion drops its number, by which callers tell a tired machine from a bad drive.
fn os(error: glommio::GlommioError<()>) -> io::Error {
    error.raw_os_error().map_or_else(|| error.into(), io::Error::from_raw_os_error)
}

/// glommio panics where a file that it just opened has lost its name before it looks at the file system: as where a drive
/// is unmounted in that moment.
async fn unpanicked<T>(open: impl Future<Output = T>) -> io::Result<T> {
    let mut open = pin!(open);
    poll_fn(|context| {
        match catch_unwind(AssertUnwindSafe(|| open.as_mut().poll(context))) {
            Ok(polled) => polled.map(Ok),
            // Not polled again: it is dropped.
            Err(_) => Poll::Ready(Err(io::ErrorKind::NotFound.into())),
        }
    })
    .await
}

/// DMA memory to write from.
pub struct GlommioBuffer(DmaBuffer);

impl Deref for GlommioBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl DerefMut for GlommioBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0.as_bytes_mut()
    }
}

impl Host for GlommioHost {
    type File = GlommioFile;
    type Buffer = GlommioBuffer;
    type ReadBuffer = ReadResult;
    type Lock = VolumeLock;

    fn buffer(&self, bytes: usize) -> GlommioBuffer {
        GlommioBuffer(glommio::allocate_dma_buffer(bytes))
    }

    async fn open(&self, path: &Path, access: Access) -> io::Result<GlommioFile> {
        let mut options = OpenOptions::new();
        options.read(true);
        match access {
            Access::Read => &mut options,
            Access::Write => options.write(true),
            Access::Create => options.write(true).create(true).truncate(true).mode(0o644),
        };
        let file = unpanicked(options.dma_open(path)).await?.map_err(os)?;
        if access != Access::Read {
            lock::pin(borrow(&file))?;
        }
        Ok(GlommioFile { file, path: path.to_owned(), pinned: access != Access::Read })
    }

    async fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let directory = directory.to_owned();
        errand::run(move || {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(directory)? {
                names.extend(entry?.file_name().into_string());
            }
            Ok(names)
        })
        .await
    }

    async fn find(&self, paths: Vec<PathBuf>) -> io::Result<Vec<Option<FileKey>>> {
        errand::run(move || {
            let find = |path: PathBuf| match rustix::fs::stat(path) {
                Ok(stat) => Ok(Some(key_of(&stat))),
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
                Err(error) => Err(error.into()),
            };
            paths.into_iter().map(find).collect()
        })
        .await
    }

    // Not glommio's own: it has all such calls of an executor wait in one line, behind those to a drive that hangs.
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        errand::run(move || std::fs::rename(from, to)).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        errand::run(move || std::fs::remove_file(path)).await
    }

    async fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        // glommio has the kernel look for relative ones nowhere.
        let directory = std::path::absolute(directory)?;
        let turn = loop {
            match names::turn(&directory) {
                Some(turn) => break turn,
                None => glommio::timer::sleep(NAMES_POLL).await,
            }
        };
        turn.check()?;
        let flush = async {
            let directory = glommio::io::Directory::open(&directory).await.map_err(os)?;
            directory.sync().await.map_err(os)?;
            directory.close().await.map_err(os)
        };
        let flushed = flush.await;
        turn.end(&flushed);
        flushed
    }

    async fn space(&self, directory: &Path) -> io::Result<DirectorySpace> {
        let directory = directory.to_owned();
        errand::run(move || {
            let space = rustix::fs::statvfs(directory)?;
            Ok(DirectorySpace {
                total_bytes: space.f_blocks.saturating_mul(space.f_frsize),
                free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
            })
        })
        .await
    }

    async fn punches_holes(&self, directory: &Path) -> bool {
        // ext4, XFS, btrfs, tmpfs.
        const KNOWN: [i64; 4] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994];
        let directory = directory.to_owned();
        let asked = errand::run(move || Ok(rustix::fs::statfs(directory)?)).await;
        asked.is_ok_and(|fs| KNOWN.contains(&fs.f_type) && fs.f_bsize <= 4096)
    }

    fn file_bytes_max(&self) -> Option<u64> {
        rustix::process::getrlimit(rustix::process::Resource::Fsize).current
    }

    async fn lock(&self, file: &Path, shard: usize, shards: usize) -> Result<VolumeLock, LockError> {
        let file = file.to_owned();
        errand::run(move || Ok(lock::lock(&file, shard, shards))).await?
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn unix_seconds(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    fn random_u64(&self) -> u64 {
        getrandom::u64().expect("the kernel gives random numbers once it is up")
    }

    async fn yield_if_needed(&self) {
        glommio::yield_if_needed().await;
    }

    async fn sleep(&self, time: Duration) {
        glommio::timer::sleep(time).await;
    }

    fn spawn(&self, priority: Priority, task: impl Future<Output = ()> + 'static) {
        match self.queue(priority) {
            Some(queue) => glommio::spawn_local_into(task, queue).expect("the executor's own queue").detach(),
            None => glommio::spawn_local(task).detach(),
        };
    }
}

/// A file opened with O_DIRECT.
pub struct GlommioFile {
    file: DmaFile,
    path: PathBuf,
    pinned: bool,
}

fn borrow(file: &DmaFile) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open for as long as `file` is, which the borrow is bound to.
    unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) }
}

const fn key_of(stat: &rustix::fs::Stat) -> FileKey {
    FileKey { device: stat.st_dev, number: stat.st_ino }
}

impl GlommioFile {
    /// Runs `call`, which blocks, on another thread: with a descriptor of its own, for the call may outlive the file.
    async fn errand<T: Send + 'static>(
        &self,
        call: impl FnOnce(OwnedFd) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let fd = borrow(&self.file).try_clone_to_owned()?;
        errand::run(move || call(fd)).await
    }
}

/// The first stretch of data from `offset` on, which may be beyond where the caller looks; nothing at the end.
fn next_data(fd: impl AsFd, offset: u64) -> io::Result<Option<Range<u64>>> {
    use rustix::fs::{SeekFrom, seek};
    use rustix::io::Errno;
    let untold = || Ok(Some(offset..rustix::fs::fstat(&fd)?.st_size.cast_unsigned()).filter(|all| !all.is_empty()));
    let start = match seek(&fd, SeekFrom::Data(offset)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // A file system that cannot tell.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return untold(),
        Err(error) => return Err(error.into()),
    };
    match seek(&fd, SeekFrom::Hole(start)) {
        Ok(end) => Ok(Some(start..end)),
        // It was cut off between the two questions.
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Drop for GlommioFile {
    fn drop(&mut self) {
        // glommio closes the descriptor some time later, or never where its executor ends first. A process that is killed
        // does not come here: its file stays pinned for as long as writes to it are at the drive.
        if self.pinned {
            lock::unpin(borrow(&self.file));
        }
    }
}

impl File for GlommioFile {
    type Buffer = GlommioBuffer;
    type ReadBuffer = ReadResult;

    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    fn key(&self) -> io::Result<Option<FileKey>> {
        // Not an errand: a local file system answers from the inode, which an open file keeps in memory.
        let stat = rustix::fs::fstat(borrow(&self.file))?;
        Ok((stat.st_nlink > 0).then(|| key_of(&stat)))
    }

    async fn bytes(&self) -> io::Result<u64> {
        self.file.file_size().await.map_err(os)
    }

    async fn allocated_bytes(&self) -> io::Result<u64> {
        // Whatever a block of the file system is, this count is of 512 bytes.
        self.errand(|fd| Ok(rustix::fs::fstat(fd)?.st_blocks.cast_unsigned() * 512)).await
    }

    async fn read_at(&self, offset: u64, bytes: usize) -> io::Result<ReadResult> {
        let read = self.file.read_at_aligned(offset, bytes).await.map_err(os)?;
        if read.len() == bytes { Ok(read) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    async fn write_at(&self, offset: u64, buffer: GlommioBuffer) -> io::Result<()> {
        let expected = buffer.len();
        let written = self.file.write_at(buffer.0, offset).await.map_err(os)?;
        if written == expected { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    async fn fdatasync(&self) -> io::Result<()> {
        self.file.fdatasync().await.map_err(os)
    }

    async fn preallocate(&self, bytes: u64) -> io::Result<()> {
        self.file.pre_allocate(bytes, false).await.map_err(os)
    }

    async fn punch_hole(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.file.deallocate(offset, bytes).await.map_err(os)
    }

    async fn data(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        self.errand(move |fd| {
            let (mut stretches, mut at) = (Vec::new(), range.start);
            while at < range.end
                && stretches.len() < STRETCHES_MAX
                && let Some(data) = next_data(&fd, at)?
                && data.start < range.end
            {
                at = data.end;
                stretches.push(data.start..data.end.min(range.end));
            }
            Ok(stretches)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::hint::black_box;

    use super::*;
    use crate::host::{Executor, Pulse};

    /// Tasks that never wait, one of each priority: what they get done by the time that they have done so much together.
    #[test]
    fn a_busy_shard_gives_its_time_by_urgency() {
        const PRIORITIES: [Priority; 4] = [Priority::Scrub, Priority::Repair, Priority::Write, Priority::Read];
        const ALL: u64 = 60_000;
        let executor = Executor::new("busy", None, 1 << 20).expect("io_uring works here");
        let done = executor.run(Pulse::start(1, None).expect("a thread").beat(0), async {
            let host = GlommioHost::with_queues();
            // Until an executor first looks at its rings it measures no time: see `Executor`.
            host.sleep(Duration::from_millis(1)).await;
            let (total, done) = (Rc::new(Cell::new(0)), Rc::new([const { Cell::new(0_u64) }; 4]));
            for (priority, number) in PRIORITIES.into_iter().zip(0..) {
                let (total, done, yielding) = (total.clone(), done.clone(), host.clone());
                host.spawn(priority, async move {
                    while total.get() < ALL {
                        black_box(crc32fast::hash(&[0; 64 * 1024]));
                        total.set(total.get() + 1);
                        done[number].set(done[number].get() + 1);
                        yielding.yield_if_needed().await;
                    }
                });
            }
            let total = total.clone();
            host.run(Priority::Read, async move {
                while total.get() < ALL {
                    glommio::executor().yield_task_queue_now().await;
                }
            })
            .await;
            done.each_ref().map(Cell::get)
        });
        let [scrub, repair, write, read] = done;
        // By their shares it is 1 to 5 to 25 to 50; but where the core goes to other processes in the midst of a turn, that time
        // counts as the queue's own.
        assert!(read > repair && write > scrub && read > 10 * scrub, "scrub first: {done:?}");
    }
}
