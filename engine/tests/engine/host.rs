//! A host that counts, and fails when told to.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use deadwax_engine::{Access, DirectorySpace, File, GlommioHost, Host, LockError};

/// What fails, and what was done.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) flushes: Cell<u64>,
    pub(crate) writes: Cell<u64>,
    /// A flush waits until this many writes are done.
    pub(crate) hold_flushes_until: Cell<u64>,
    pub(crate) reads: Cell<u64>,
    pub(crate) fail_writes: Cell<bool>,
    pub(crate) fail_flushes: Cell<bool>,
    pub(crate) fail_creates: Cell<bool>,
    /// What a create that fails says; EIO where nothing is set.
    pub(crate) create_errno: Cell<Option<i32>>,
    /// Reads of this stretch of any file fail.
    pub(crate) fail_reads_in: Cell<Option<(u64, u64)>>,
    pub(crate) punched: RefCell<Vec<(u64, u64)>>,
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
        Ok(ScriptedFile { real: self.real.open(path, access).await?, script: self.script.clone() })
    }

    async fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.real.list(directory).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.real.rename(from, to).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.real.remove(path).await
    }

    async fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.real.sync_directory(directory).await
    }

    fn space(&self, directory: &Path) -> io::Result<DirectorySpace> {
        self.real.space(directory)
    }

    fn lock(&self, file: &Path, shard: usize, shards: usize) -> Result<Self::Lock, LockError> {
        self.real.lock(file, shard, shards)
    }

    fn now(&self) -> Duration {
        self.real.now()
    }

    fn random_u64(&self) -> u64 {
        self.real.random_u64()
    }

    async fn yield_if_needed(&self) {
        self.real.yield_if_needed().await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.real.spawn(task);
    }
}

impl File for ScriptedFile {
    type Buffer = <GlommioHost as Host>::Buffer;
    type ReadBuffer = <GlommioHost as Host>::ReadBuffer;

    fn path(&self) -> PathBuf {
        self.real.path()
    }

    async fn bytes(&self) -> io::Result<u64> {
        self.real.bytes().await
    }

    async fn read_at(&self, offset: u64, bytes: usize) -> io::Result<Self::ReadBuffer> {
        self.script.reads.set(self.script.reads.get() + 1);
        if let Some((start, end)) = self.script.fail_reads_in.get()
            && offset < end
            && offset + bytes as u64 > start
        {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.real.read_at(offset, bytes).await
    }

    async fn write_at(&self, offset: u64, buffer: Self::Buffer) -> io::Result<()> {
        fail_if(&self.script.fail_writes)?;
        let outcome = self.real.write_at(offset, buffer).await;
        self.script.writes.set(self.script.writes.get() + 1);
        outcome
    }

    async fn fdatasync(&self) -> io::Result<()> {
        self.script.flushes.set(self.script.flushes.get() + 1);
        fail_if(&self.script.fail_flushes)?;
        while self.script.writes.get() < self.script.hold_flushes_until.get() {
            glommio::executor().yield_task_queue_now().await;
        }
        self.real.fdatasync().await
    }

    async fn preallocate(&self, bytes: u64) -> io::Result<()> {
        self.real.preallocate(bytes).await
    }

    async fn punch_hole(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.script.punched.borrow_mut().push((offset, bytes));
        self.real.punch_hole(offset, bytes).await
    }

    fn data_after(&self, offset: u64) -> io::Result<Option<u64>> {
        self.real.data_after(offset)
    }
}
