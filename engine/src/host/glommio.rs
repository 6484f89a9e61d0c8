//! The real machine, through glommio: io_uring with O_DIRECT.
//!
//! Of glommio 0.9's files only the calls below are sound for us; its stream writers take a short write for success.
//! If the first file that an executor opens on a device is empty and writable, glommio takes it for a polled device and
//! all I/O crawls or fails: a volume opens its superblock first, which has a block in it and is opened to be read.

use std::future::Future;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use glommio::io::{DmaBuffer, DmaFile, OpenOptions, ReadResult};

use super::lock::{self, VolumeLock};
use super::{Access, DirectorySpace, File, Host, LockError};

/// The host of a glommio executor. Use it only on the executor that it was made on.
#[derive(Clone)]
pub struct GlommioHost {
    started: Rc<Instant>,
}

impl GlommioHost {
    /// The host of the executor that runs the caller.
    #[must_use]
    pub fn new() -> Self {
        Self { started: Rc::new(Instant::now()) }
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
        let file = options.dma_open(path).await.map_err(os)?;
        Ok(GlommioFile { file, path: path.to_owned() })
    }

    async fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(directory)?;
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        glommio::io::rename(from, to).await.map_err(os)
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        glommio::io::remove(path).await.map_err(os)
    }

    async fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let directory = glommio::io::Directory::open(directory).await.map_err(os)?;
        directory.sync().await.map_err(os)?;
        directory.close().await.map_err(os)
    }

    fn space(&self, directory: &Path) -> io::Result<DirectorySpace> {
        let space = rustix::fs::statvfs(directory)?;
        Ok(DirectorySpace {
            total_bytes: space.f_blocks.saturating_mul(space.f_frsize),
            free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
        })
    }

    fn lock(&self, file: &Path, shard: usize, shards: usize) -> Result<VolumeLock, LockError> {
        lock::lock(file, shard, shards)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn random_u64(&self) -> u64 {
        getrandom::u64().expect("the kernel gives random numbers once it is up")
    }

    async fn yield_if_needed(&self) {
        glommio::yield_if_needed().await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        glommio::spawn_local(task).detach();
    }
}

/// A file opened with O_DIRECT.
pub struct GlommioFile {
    file: DmaFile,
    path: PathBuf,
}

impl File for GlommioFile {
    type Buffer = GlommioBuffer;
    type ReadBuffer = ReadResult;

    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    async fn bytes(&self) -> io::Result<u64> {
        self.file.file_size().await.map_err(os)
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

    fn data_after(&self, offset: u64) -> io::Result<Option<u64>> {
        // SAFETY: the descriptor is open for as long as `self.file` is, which outlives this call.
        let fd = unsafe { BorrowedFd::borrow_raw(self.file.as_raw_fd()) };
        match rustix::fs::seek(fd, rustix::fs::SeekFrom::Data(offset)) {
            Ok(data) => Ok(Some(data)),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            // A file system that cannot tell.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => Ok(Some(offset)),
            Err(error) => Err(error.into()),
        }
    }
}
