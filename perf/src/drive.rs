//! What the kernel counts for the drive under a folder.

use std::path::Path;

/// A sector of these counters, whatever the drive's own are.
const SECTOR_BYTES: u64 = 512;
/// The field of sectors written. Source: the kernel's `Documentation/block/stat.rst`.
const SECTORS_WRITTEN_AT: usize = 6;

/// Bytes written to the drive since it was found, by anyone; nothing where the folder is on none.
pub(crate) fn written_bytes(folder: &Path) -> Option<u64> {
    let device = rustix::fs::stat(folder).ok()?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let text = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    let sectors: u64 = text.split_whitespace().nth(SECTORS_WRITTEN_AT)?.parse().ok()?;
    Some(sectors * SECTOR_BYTES)
}
