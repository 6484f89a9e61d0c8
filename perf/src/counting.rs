//! A host that counts what the engine asks of the drive, and passes everything on.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use deadwax_engine::{Access, DirectorySpace, File, FileKey, Host, LockError, Priority};

/// What was asked so far: bytes and calls.
#[derive(Default, Debug)]
pub(crate) struct Counts {
    pub(crate) written_bytes: Cell<u64>,
    pub(crate) read_bytes: Cell<u64>,
    pub(crate) writes: Cell<u64>,
    pub(crate) reads: Cell<u64>,
    pub(crate) flushes: Cell<u64>,
}

fn add(counter: &Cell<u64>, what: u64) {
    counter.set(counter.get() + what);
}

/// Another host, counted. Clones count together.
#[derive(Clone)]
pub(crate) struct Counting<H> {
    host: H,
    pub(crate) counts: Rc<Counts>,
}

impl<H> Counting<H> {
    pub(crate) fn new(host: H) -> Self {
        Self { host, counts: Rc::default() }
    }
}

impl<H: Host> Host for Counting<H> {
    type File = CountedFile<H::File>;
    type Buffer = H::Buffer;
    type ReadBuffer = H::ReadBuffer;
    type Lock = H::Lock;

    fn buffer(&self, bytes: usize) -> H::Buffer {
        self.host.buffer(bytes)
    }

    async fn open(&self, path: &Path, access: Access) -> io::Result<Self::File> {
        Ok(CountedFile { file: self.host.open(path, access).await?, counts: Rc::clone(&self.counts) })
    }

    async fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.host.list(directory).await
    }

    async fn find(&self, paths: Vec<PathBuf>) -> io::Result<Vec<Option<FileKey>>> {
        self.host.find(paths).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.host.rename(from, to).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.host.remove(path).await
    }

    async fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        add(&self.counts.flushes, 1);
        self.host.sync_directory(directory).await
    }

    async fn space(&self, directory: &Path) -> io::Result<DirectorySpace> {
        self.host.space(directory).await
    }

    async fn punches_holes(&self, directory: &Path) -> bool {
        self.host.punches_holes(directory).await
    }

    async fn lock(&self, file: &Path, shard: usize, shards: usize) -> Result<H::Lock, LockError> {
        self.host.lock(file, shard, shards).await
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

/// A file of it.
pub(crate) struct CountedFile<F> {
    file: F,
    counts: Rc<Counts>,
}

impl<F: File> File for CountedFile<F>
where
    F::Buffer: std::ops::Deref<Target = [u8]>,
{
    type Buffer = F::Buffer;
    type ReadBuffer = F::ReadBuffer;

    fn path(&self) -> PathBuf {
        self.file.path()
    }

    fn key(&self) -> io::Result<Option<FileKey>> {
        self.file.key()
    }

    async fn bytes(&self) -> io::Result<u64> {
        self.file.bytes().await
    }

    async fn allocated_bytes(&self) -> io::Result<u64> {
        self.file.allocated_bytes().await
    }

    async fn read_at(&self, offset: u64, bytes: usize) -> io::Result<F::ReadBuffer> {
        add(&self.counts.reads, 1);
        add(&self.counts.read_bytes, bytes as u64);
        self.file.read_at(offset, bytes).await
    }

    async fn write_at(&self, offset: u64, buffer: F::Buffer) -> io::Result<()> {
        add(&self.counts.writes, 1);
        add(&self.counts.written_bytes, buffer.len() as u64);
        self.file.write_at(offset, buffer).await
    }

    async fn fdatasync(&self) -> io::Result<()> {
        add(&self.counts.flushes, 1);
        self.file.fdatasync().await
    }

    async fn preallocate(&self, bytes: u64) -> io::Result<()> {
        self.file.preallocate(bytes).await
    }

    async fn punch_hole(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.file.punch_hole(offset, bytes).await
    }

    async fn data(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        self.file.data(range).await
    }
}
