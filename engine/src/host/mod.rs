//! The seam to the machine: everything that the engine asks of it.

mod errand;
mod executor;
mod glommio;
mod lock;
mod names;
mod pulse;
pub mod sim;
mod slab;

use std::future::Future;
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::executor::Executor;
pub use self::glommio::GlommioHost;
pub use self::pulse::{Beat, Pulse};

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// The file exists and is only read.
    Read,
    /// The file exists and is read and written.
    Write,
    /// The file is made, or emptied where it exists, then read and written.
    Create,
}

/// What a task is for. The more urgent go first where the shard is short of time: foreground reads, then writes, then
/// what repairs and moves, then what only checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Priority {
    /// Somebody waits for the bytes.
    Read,
    /// Somebody waits for a put or a delete.
    Write,
    /// Compaction, repair, snapshots: nobody waits, but space or safety does.
    Repair,
    /// Scrub: it may take days.
    Scrub,
}

/// The space of the file system that a directory is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirectorySpace {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// What this process may still take, in bytes.
    pub free_bytes: u64,
}

/// Which file it is, among all that the machine has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileKey {
    /// The file system, by the number of its device.
    pub device: u64,
    /// The file's number in it. No other file has it for as long as this one is open.
    pub number: u64,
}

/// Why a volume's directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("another process has it open: stop that one first")]
    Process,
    /// This process holds it, in a way that excludes this one.
    #[error("this process has it open already, {0}")]
    Handle(String),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What the engine stands on: files, time, chance and tasks of one single-threaded executor.
///
/// Cheap to clone. Paths are absolute or relative to the process; file offsets, lengths and buffers are multiples of
/// 4 KiB. None of the calls may block the executor for long.
#[expect(async_fn_in_trait, reason = "one executor runs on one thread: its futures need not be Send")]
pub trait Host: Clone + 'static {
    /// An open file.
    type File: File<Buffer = Self::Buffer, ReadBuffer = Self::ReadBuffer>;
    /// Memory to write from.
    type Buffer: DerefMut<Target = [u8]> + 'static;
    /// Memory that was read into.
    type ReadBuffer: Deref<Target = [u8]> + 'static;
    /// Held while a volume handle is open.
    type Lock: 'static;

    /// A buffer of `bytes`. Its contents are whatever was there before: the writer fills or zeroes all of it.
    fn buffer(&self, bytes: usize) -> Self::Buffer;

    /// Opens a file. To write it fails as `WouldBlock` while a process that was killed still has writes to it at the drive.
    async fn open(&self, path: &Path, access: Access) -> io::Result<Self::File>;

    /// The names in a directory, in no order. Those that are not UTF-8 are left out.
    async fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Which files are at these paths now, in their order; nothing for a path where there is none. One errand for all.
    async fn find(&self, paths: Vec<PathBuf>) -> io::Result<Vec<Option<FileKey>>>;

    /// Renames a file over another. Durable after [`sync_directory`](Self::sync_directory).
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    async fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable. Where that failed once, and the machine was not to blame, it fails in this process
    /// from then on, whichever handle asks: no later flush tells what became of the names before.
    async fn sync_directory(&self, directory: &Path) -> io::Result<()>;

    /// The space where `directory` is.
    async fn space(&self, directory: &Path) -> io::Result<DirectorySpace>;

    /// Whether the file system of `directory` punches holes of single blocks, and tells where they are: then listings of what
    /// a segment holds can be believed, because its holes show what was deleted since.
    async fn punches_holes(&self, directory: &Path) -> bool;

    /// How long a file of this process may become, in bytes; nothing where the process has no such limit.
    fn file_bytes_max(&self) -> Option<u64> {
        None
    }

    /// Keeps other processes out of the volume whose superblock is `file`, and other handles of this process from the
    /// same `shard`, or from opening it with another number of `shards`.
    async fn lock(&self, file: &Path, shard: usize, shards: usize) -> Result<Self::Lock, LockError>;

    /// Time that only rises, from any start.
    fn now(&self) -> Duration;

    /// Seconds since 1970, by a clock that may be set: only for what is told across restarts.
    fn unix_seconds(&self) -> u64;

    /// A number that nobody can guess.
    fn random_u64(&self) -> u64;

    /// Lets other tasks run where this one has had its share.
    async fn yield_if_needed(&self);

    /// Ready after `time`, or a little later.
    async fn sleep(&self, time: Duration);

    /// Runs a task to its end, on this executor. Called only from tasks of this executor.
    fn spawn(&self, priority: Priority, task: impl Future<Output = ()> + 'static);
}

/// Whether it is the machine that lacks something for a while (files, memory), and not the drive that fails.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let passing = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN, Errno::INTR];
    passing.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// The most stretches that [`File::data`] answers with: some ten milliseconds' worth of questions to a file system.
pub const STRETCHES_MAX: usize = 4096;

/// An open file of a [`Host`]. Offsets and lengths are multiples of 4 KiB.
#[expect(async_fn_in_trait, reason = "one executor runs on one thread: its futures need not be Send")]
pub trait File: 'static {
    /// Memory to write from.
    type Buffer;
    /// Memory that was read into.
    type ReadBuffer;

    /// Where it was opened.
    fn path(&self) -> PathBuf;

    /// Which file it is; nothing once it has no name any more: what is in it is gone when it is closed. Does not wait for the
    /// drive.
    fn key(&self) -> io::Result<Option<FileKey>>;

    /// The file's length.
    async fn bytes(&self) -> io::Result<u64>;

    /// What the file takes on the drive, in bytes.
    async fn allocated_bytes(&self) -> io::Result<u64>;

    /// Reads exactly `bytes` from `offset`; fewer is an error of kind `UnexpectedEof`.
    async fn read_at(&self, offset: u64, bytes: usize) -> io::Result<Self::ReadBuffer>;

    /// Writes all of `buffer` at `offset`; a short write is an error. Durable after [`fdatasync`](Self::fdatasync).
    /// Once polled, the write may go on though the future is dropped.
    async fn write_at(&self, offset: u64, buffer: Self::Buffer) -> io::Result<()>;

    /// Makes all writes durable that were complete before the call, and the file's length.
    async fn fdatasync(&self) -> io::Result<()>;

    /// Takes space for a length of `bytes`, which the file then has; new bytes read as zero.
    async fn preallocate(&self, bytes: u64) -> io::Result<()>;

    /// Gives the space of a stretch back; it reads as zero. Durable after [`fdatasync`](Self::fdatasync).
    async fn punch_hole(&self, offset: u64, bytes: u64) -> io::Result<()>;

    /// The stretches of `range` that may hold something other than zeros, rising and apart, none of them empty. Between them
    /// there are holes: punched, or never written; beyond the file's length there is nothing. A file system that cannot tell
    /// answers with one stretch. Not more than [`STRETCHES_MAX`] at a time: whoever gets so many asks again behind the last.
    async fn data(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>>;
}
