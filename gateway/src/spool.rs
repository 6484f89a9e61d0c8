//! Where an upload waits whose id is not known yet: a file without a name, gone with the process.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use deadwax_track::{Manifest, TrackHasher, TrackId};
use rustix::fs::{Mode, OFlags, open};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

/// Bytes gathered before a write, and read back at once: large enough that changing threads costs little.
const BATCH_BYTES: usize = 1024 * 1024;

/// The spool directory, and how many files it may hold at once.
pub(crate) struct Spool {
    dir: PathBuf,
    room: Arc<Semaphore>,
}

/// An upload being written. Dropping it frees its space.
pub(crate) struct SpoolWriter {
    file: Arc<File>,
    batch: BytesMut,
    written: u64,
    hasher: TrackHasher,
    room: OwnedSemaphorePermit,
}

/// An upload that is all here.
pub(crate) struct Spooled {
    pub(crate) id: TrackId,
    pub(crate) manifest: Manifest,
    file: Arc<File>,
    read: u64,
    _room: OwnedSemaphorePermit,
}

impl Spool {
    /// Uses `dir`, made if it is not there. Fails where no nameless file can be made in it.
    pub(crate) fn open(dir: &Path, spools_max: usize) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let spool =
            Self { dir: dir.to_owned(), room: Arc::new(Semaphore::new(spools_max.min(Semaphore::MAX_PERMITS))) };
        nameless(&spool.dir)?.write_all_at(b"room for one", 0)?;
        Ok(spool)
    }

    /// A place for one upload, or nothing where as many as may are under way.
    pub(crate) async fn begin(&self) -> io::Result<Option<SpoolWriter>> {
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else { return Ok(None) };
        let dir = self.dir.clone();
        let file = blocking(move || nameless(&dir)).await?;
        let (batch, hasher) = (BytesMut::new(), TrackHasher::new());
        Ok(Some(SpoolWriter { file: Arc::new(file), batch, written: 0, hasher, room }))
    }
}

/// A file that has no name, so that nothing is left of it after a crash.
fn nameless(dir: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    Ok(File::from(open(dir, flags, Mode::RUSR | Mode::WUSR)?))
}

/// Runs `work` where it may wait for a drive.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

impl SpoolWriter {
    /// Takes in the next bytes. On return they are in memory or in the file; the caller bounds how many come.
    pub(crate) async fn write(&mut self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = BATCH_BYTES - self.batch.len();
            self.batch.extend_from_slice(&bytes.split_to(room.min(bytes.len())));
            if self.batch.len() == BATCH_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        let (file, mut batch, at) = (Arc::clone(&self.file), std::mem::take(&mut self.batch), self.written);
        let mut hasher = std::mem::take(&mut self.hasher);
        self.written += batch.len() as u64;
        // Hashed there too: a serving thread has better to do.
        let worked = blocking(move || {
            hasher.update(&batch);
            file.write_all_at(&batch, at)?;
            batch.clear();
            Ok((hasher, batch))
        });
        (self.hasher, self.batch) = worked.await?;
        Ok(())
    }

    /// Ends the upload; nothing where it was empty.
    pub(crate) async fn finish(mut self) -> io::Result<Option<Spooled>> {
        self.flush().await?;
        let found = self.hasher.finish();
        Ok(found.map(|(id, manifest)| Spooled { id, manifest, file: self.file, read: 0, _room: self.room }))
    }
}

impl Spooled {
    /// The next bytes, in order; nothing after the last.
    pub(crate) async fn read(&mut self) -> io::Result<Option<Bytes>> {
        let left = self.manifest.track_bytes() - self.read;
        let batch = usize::try_from(left).unwrap_or(BATCH_BYTES).min(BATCH_BYTES);
        if batch == 0 {
            return Ok(None);
        }
        let (file, at) = (Arc::clone(&self.file), self.read);
        let bytes = blocking(move || {
            let mut bytes = vec![0; batch];
            file.read_exact_at(&mut bytes, at)?;
            Ok(Bytes::from(bytes))
        });
        self.read += batch as u64;
        bytes.await.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_spooled_comes_back_and_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let spool = Spool::open(&dir.path().join("made"), 1).expect("writable");
        let bytes: Vec<u8> = (0..BATCH_BYTES + 12_345).map(|n| u8::try_from(n % 251).expect("small")).collect();
        let mut writer = spool.begin().await.expect("a file").expect("room");
        assert!(spool.begin().await.expect("no error").is_none(), "one at a time");
        for part in bytes.chunks(70_001) {
            writer.write(Bytes::copy_from_slice(part)).await.expect("written");
        }
        let mut spooled = writer.finish().await.expect("written").expect("not empty");
        assert_eq!(spooled.id, TrackId::of(&bytes));
        let mut back = Vec::new();
        while let Some(part) = spooled.read().await.expect("readable") {
            back.extend_from_slice(&part);
        }
        assert!(back == bytes);
        drop(spooled);
        let empty = spool.begin().await.expect("a file").expect("room again");
        assert!(empty.finish().await.expect("written").is_none());
        assert_eq!(std::fs::read_dir(dir.path().join("made")).expect("a directory").count(), 0);
    }

    #[test]
    fn a_place_that_is_no_directory_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(Spool::open(file.path(), 1).is_err());
        assert!(Spool::open(&file.path().join("below"), 1).is_err());
    }
}
