//! What the engine is compared with, each set up to be durable on return and as fast as its documentation says.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Keeps values by key. Used by many threads at once.
pub(super) trait Store: Sync {
    /// Durable on return.
    fn put(&self, key: &[u8; 32], value: &[u8]) -> anyhow::Result<()>;
    /// Reads all of the value; gives its length.
    fn get(&self, key: &[u8; 32]) -> anyhow::Result<usize>;
}

/// A new store of this name in `dir`, which is empty.
pub(super) fn open(name: &str, dir: &Path) -> anyhow::Result<Box<dyn Store>> {
    Ok(match name {
        "files" => Box::new(Files::open(dir)?),
        "fjall" => Box::new(Fjall::open(dir)?),
        "rocksdb" => Box::new(Rocks::open(dir)?),
        _ => bail!("no rival is called {name}"),
    })
}

/// Drops what the page cache holds of the files below `dir`.
pub(super) fn forget_pages(dir: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            forget_pages(&path)?;
        } else if let Ok(file) = File::open(&path) {
            file.sync_data()?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// A file a track: written, flushed, renamed, and its directory flushed.
struct Files {
    dir: PathBuf,
    directory: File,
}

impl Files {
    fn open(dir: &Path) -> anyhow::Result<Self> {
        Ok(Self { dir: dir.to_owned(), directory: File::open(dir)? })
    }

    fn path(&self, key: &[u8; 32]) -> PathBuf {
        let name: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        self.dir.join(name)
    }
}

impl Store for Files {
    fn put(&self, key: &[u8; 32], value: &[u8]) -> anyhow::Result<()> {
        let path = self.path(key);
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(value)?;
        file.sync_data()?;
        fs::rename(&new, &path)?;
        Ok(self.directory.sync_all()?)
    }

    fn get(&self, key: &[u8; 32]) -> anyhow::Result<usize> {
        Ok(fs::read(self.path(key))?.len())
    }
}

/// With key-value separation, as its documentation advises for large values.
struct Fjall {
    database: fjall::Database,
    tracks: fjall::Keyspace,
}

impl Fjall {
    fn open(dir: &Path) -> anyhow::Result<Self> {
        let database = fjall::Database::builder(dir).open()?;
        let options =
            || fjall::KeyspaceCreateOptions::default().with_kv_separation(Some(fjall::KvSeparationOptions::default()));
        let tracks = database.keyspace("tracks", options)?;
        Ok(Self { database, tracks })
    }
}

impl Store for Fjall {
    fn put(&self, key: &[u8; 32], value: &[u8]) -> anyhow::Result<()> {
        let mut batch = self.database.batch().durability(Some(fjall::PersistMode::SyncData));
        batch.insert(&self.tracks, key.as_slice(), value);
        Ok(batch.commit()?)
    }

    fn get(&self, key: &[u8; 32]) -> anyhow::Result<usize> {
        Ok(self.tracks.get(key)?.context("fjall has the track")?.len())
    }
}

/// With blob files for all values.
struct Rocks {
    database: rocksdb::DB,
    sync: rocksdb::WriteOptions,
}

impl Rocks {
    fn open(dir: &Path) -> anyhow::Result<Self> {
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        options.set_enable_blob_files(true);
        options.set_min_blob_size(4096);
        options.set_compression_type(rocksdb::DBCompressionType::None);
        let mut sync = rocksdb::WriteOptions::default();
        sync.set_sync(true);
        Ok(Self { database: rocksdb::DB::open(&options, dir)?, sync })
    }
}

impl Store for Rocks {
    fn put(&self, key: &[u8; 32], value: &[u8]) -> anyhow::Result<()> {
        Ok(self.database.put_opt(key, value, &self.sync)?)
    }

    fn get(&self, key: &[u8; 32]) -> anyhow::Result<usize> {
        Ok(self.database.get_pinned(key)?.context("RocksDB has the track")?.len())
    }
}
