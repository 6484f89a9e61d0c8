//! The files of a volume at rest, or what is left of them.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::format::{BLOCK, BLOCK_BYTES, Listing, Role, SnapshotHeader, Superblock};
use crate::identity::{SEGMENTS_DIR, SNAPSHOTS_DIR, SUPERBLOCK_FILE, VolumeIdentity};
use crate::segment::number_of;

/// A volume's directory, looked through. While it lives, no process can open the volume.
pub(super) struct Tree {
    pub(super) dir: PathBuf,
    /// Whose volume it is, or why that cannot be told.
    pub(super) identity: Result<VolumeIdentity, String>,
    /// By number, rising.
    pub(super) segments: Vec<(u64, PathBuf)>,
    /// By path, rising.
    pub(super) snapshots: Vec<SnapshotFile>,
    /// Names in the segments' directory that are no segments'.
    pub(super) strangers: Vec<PathBuf>,
    /// A process has the volume open: what is read may change meanwhile.
    pub(super) in_use: bool,
    _lock: Option<File>,
}

/// A snapshot's file.
pub(super) struct SnapshotFile {
    pub(super) path: PathBuf,
    /// What it holds, or why it is not whole.
    pub(super) contents: Result<(SnapshotHeader, Vec<Listing>), String>,
}

impl Tree {
    /// Looks through a volume's directory. Errors: Invalid (it is none), Io.
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        let superblock = dir.join(SUPERBLOCK_FILE);
        let segments_dir = dir.join(SEGMENTS_DIR);
        if !superblock.exists() && !segments_dir.is_dir() {
            return Err(Error::Invalid(format!(
                "{} is no volume: it has neither {SUPERBLOCK_FILE} nor {SEGMENTS_DIR}/",
                dir.display()
            )));
        }
        let (lock, in_use) = hold(&superblock);
        let identity = match fs::read(&superblock) {
            Ok(bytes) => Superblock::decode(&bytes).map(|found| found.0).map_err(|damage| damage.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let (mut segments, mut strangers) = (Vec::new(), Vec::new());
        for path in files_in(&segments_dir)? {
            let number = path.file_name().and_then(|name| name.to_str()).and_then(number_of);
            match number {
                Some(number) => segments.push((number, path)),
                None => strangers.push(path),
            }
        }
        segments.sort_unstable();
        let snapshots_dir = dir.join(SNAPSHOTS_DIR);
        let paths = if snapshots_dir.is_dir() { files_in(&snapshots_dir)? } else { Vec::new() };
        let is_snapshot = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "snapshot");
        let read = |path: PathBuf| SnapshotFile { contents: read_snapshot(&path), path };
        let snapshots = paths.into_iter().filter(is_snapshot).map(read).collect();
        Ok(Self { dir: dir.to_owned(), identity, segments, snapshots, strangers, in_use, _lock: lock })
    }

    /// The listings of open segments, by number and generation.
    pub(super) fn open_listings(&self) -> BTreeMap<(u64, u64), &Listing> {
        let whole = self.snapshots.iter().filter_map(|snapshot| snapshot.contents.as_ref().ok());
        let listings = whole.flat_map(|(_, listings)| listings).filter(|listing| listing.role == Role::Snapshot);
        listings.map(|listing| ((listing.number, listing.generation), listing)).collect()
    }
}

/// Keeps others from opening the volume, if nobody has it open; answers whether somebody has.
pub(super) fn hold(superblock: &Path) -> (Option<File>, bool) {
    let Ok(file) = File::open(superblock) else { return (None, false) };
    match file.try_lock_shared() {
        Ok(()) => (Some(file), false),
        Err(TryLockError::WouldBlock) => (None, true),
        // Some network file systems have no locks; nobody can have a volume open there either.
        Err(TryLockError::Error(_)) => (None, false),
    }
}

/// The plain files in a directory, by name.
pub(super) fn files_in(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                paths.push(entry.path());
            }
        }
        paths.sort();
        Ok(paths)
    };
    list().map_err(|source| Error::io("list", dir, source))
}

fn read_snapshot(path: &Path) -> Result<(SnapshotHeader, Vec<Listing>), String> {
    let text = |error: io::Error| error.to_string();
    let file = super::image::FileImage::open(path).map_err(text)?;
    let image: &dyn super::image::Image = &file;
    let mut block = [0; BLOCK];
    image.read_at(0, &mut block).map_err(text)?;
    let header = SnapshotHeader::decode(&block).map_err(|damage| damage.to_string())?;
    if image.bytes() < header.bytes {
        return Err("it is cut off".to_owned());
    }
    let mut listings = Vec::new();
    let mut at = BLOCK_BYTES;
    for _ in 0..header.listings {
        let listing = read_listing(image, at, header.bytes)?;
        at += listing.1;
        listings.push(listing.0);
    }
    Ok((header, listings))
}

/// The listing at `offset` of a file, all of it before `end`, and how many bytes it has; else what is wrong.
pub(super) fn read_listing(image: &dyn super::image::Image, offset: u64, end: u64) -> Result<(Listing, u64), String> {
    let text = |error: io::Error| error.to_string();
    let mut block = [0; BLOCK];
    image.read_at(offset, &mut block).map_err(text)?;
    let bytes = Listing::peek(&block).map_err(|damage| damage.to_string())?;
    if offset + bytes as u64 > end {
        return Err("it is cut off".to_owned());
    }
    let mut whole = vec![0; bytes];
    image.read_at(offset, &mut whole).map_err(text)?;
    let listing = Listing::decode(&whole).map_err(|damage| damage.to_string())?;
    Ok((listing, bytes as u64))
}
