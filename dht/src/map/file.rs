//! The map as a file: the one place of this crate that touches a file system.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::{BadMap, Map};

/// The longest map that is read, in bytes: 10,000 nodes with many volumes each.
const MAP_BYTES_MAX: u64 = 64 << 20;

/// The map could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MapFileError {
    /// The file system says no.
    #[error("{action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// The file is no map.
    #[error("{}: {source}", .path.display())]
    Bad {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: BadMap,
    },
}

impl Map {
    /// Reads and checks the map in `path`. Blocks: not for a thread that serves.
    pub fn load(path: &Path) -> Result<Self, MapFileError> {
        let io = |source| MapFileError::Io { action: "read map", path: path.to_owned(), source };
        let bytes = fs::metadata(path).map_err(io)?.len();
        if bytes > MAP_BYTES_MAX {
            return Err(io(io::Error::other(format!("it has {bytes} bytes, a map at most {MAP_BYTES_MAX}"))));
        }
        let text = fs::read_to_string(path).map_err(io)?;
        Self::parse(&text).map_err(|source| MapFileError::Bad { path: path.to_owned(), source })
    }

    /// Writes the map to `path`. On return it is durable; whoever reads meanwhile, or after a crash, sees the old map
    /// or the new one, never a part. Blocks.
    pub fn save(&self, path: &Path) -> Result<(), MapFileError> {
        let io = |source| MapFileError::Io { action: "write map", path: path.to_owned(), source };
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let mut file = File::create(&beside).map_err(io)?;
        file.write_all(self.to_toml().as_bytes()).map_err(io)?;
        file.sync_all().map_err(io)?;
        fs::rename(&beside, path).map_err(io)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
    }
}
