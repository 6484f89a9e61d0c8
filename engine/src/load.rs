//! Opening one segment's file: its header, and its footer if it has one.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::VolumeConfig;
use crate::error::Error;
use crate::format::{BLOCK, BLOCK_BYTES, Damage, Listing, Part, RecordHeader, Role, SegmentHeader};
use crate::host::{Access, File, Host};
use crate::identity::SEGMENTS_DIR;
use crate::listings::read_listing;
use crate::open::{LOCK_POLL, check_file_limit};
use crate::segment::path_of;

/// How long may the last writes of a killed process take before the volume is left closed? They could land on what is
/// written after them. A drive that takes longer hangs.
const LAST_WRITES_MAX: Duration = Duration::from_secs(10);

/// A segment's file, open.
pub(crate) struct Loaded<H: Host> {
    pub(crate) header: SegmentHeader,
    pub(crate) file: H::File,
    pub(crate) path: PathBuf,
    pub(crate) file_bytes: u64,
    /// What it takes on the drive.
    pub(crate) allocated_bytes: u64,
    /// Of a sealed segment.
    pub(crate) footer: Option<Listing>,
    /// Something stands where the footer would.
    pub(crate) footer_written: bool,
    /// Where there should be a hole there are zeros: the file may be a copy that was made without the holes, which alone tell
    /// what was deleted. So its headers are read.
    pub(crate) filled: bool,
    pub(crate) bytes_read: u64,
    /// Its header was damaged, and made up from its first record.
    pub(crate) damaged: bool,
}

/// Opens a segment that may hold tracks of the handle; nothing where it cannot.
///
/// Errors: Foreign, Unsupported, CorruptFile, Io.
pub(crate) async fn load<H: Host>(
    host: &H,
    config: &VolumeConfig,
    number: u64,
    footers: bool,
) -> Result<Option<Loaded<H>>, Error> {
    let path = path_of(&config.dir.join(SEGMENTS_DIR), number);
    let io = |what| {
        let path = path.clone();
        move |source| Error::io(what, &path, source)
    };
    let Some(file) = open_to_write(host, config, &path).await? else { return Ok(None) };
    let file_bytes = file.bytes().await.map_err(io("measure"))? / BLOCK_BYTES * BLOCK_BYTES;
    let allocated_bytes = file.allocated_bytes().await.map_err(io("measure"))?;
    check_file_limit(host, &path, file_bytes)?;
    let block = file.read_at(0, BLOCK).await.map_err(io("read"))?;
    let mut bytes_read = BLOCK_BYTES;
    let (header, damaged) = match SegmentHeader::decode(&block) {
        Ok(header) => (header, false),
        Err(damage @ (Damage::Version(_) | Damage::Feature(_))) => {
            return Err(Error::Unsupported { path, what: format!("segment was {damage}") });
        }
        Err(damage) => {
            tracing::error!(path = %path.display(), %damage, "segment header is damaged, trying its first record");
            let first = file.read_at(BLOCK_BYTES, BLOCK).await.map_err(io("read"))?;
            let header = header_from_record(config, number, file_bytes, &first);
            let header = header.ok_or_else(|| Error::CorruptFile {
                path: path.clone(),
                what: format!("{damage}: salvage its tracks, or move it away and go on without them"),
            })?;
            (header, true)
        }
    };
    if header.volume != config.expected.volume || header.number != number {
        let what = format!("this is segment {} of volume {}: move it away", header.number, header.volume);
        return Err(Error::Foreign { path, what });
    }
    if header.shards as usize == config.shards && header.shard as usize != config.shard {
        return Ok(None);
    }
    let mut found = FoundFooter::default();
    if !damaged && header.footer_bytes > 0 && file_bytes >= header.bytes {
        found = look_for_footer(&file, &path, &header, footers).await?;
    }
    bytes_read += found.bytes_read;
    let FoundFooter { footer, written: footer_written, filled, .. } = found;
    Ok(Some(Loaded {
        header,
        file,
        path,
        file_bytes,
        allocated_bytes,
        footer,
        footer_written,
        filled,
        bytes_read,
        damaged,
    }))
}

/// Opens a segment, once the last writes of a killed process are done; nothing where another handle found that nothing was left in
/// it, and removed it.
async fn open_to_write<H: Host>(host: &H, config: &VolumeConfig, path: &Path) -> Result<Option<H::File>, Error> {
    let started = host.now();
    loop {
        let error = match host.open(path, Access::Write).await {
            Ok(file) => return Ok(Some(file)),
            Err(error) => error,
        };
        match error.kind() {
            ErrorKind::NotFound if config.shards > 1 => {
                let directory = config.dir.join(SEGMENTS_DIR);
                let names = host.list(&directory).await.map_err(|source| Error::io("list", &directory, source))?;
                let there = names.iter().any(|name| path.file_name().is_some_and(|gone| gone == name.as_str()));
                return if there { Err(Error::io("open", path, error)) } else { Ok(None) };
            }
            ErrorKind::WouldBlock if host.now().saturating_sub(started) < LAST_WRITES_MAX => {
                host.sleep(LOCK_POLL).await
            }
            ErrorKind::WouldBlock => {
                let what =
                    format!("a process that was killed still writes {}: the drive is slow or hangs", path.display());
                return Err(Error::Locked { path: config.dir.clone(), what });
            }
            _ => return Err(Error::io("open", path, error)),
        }
    }
}

/// What stands where a segment's footer would.
#[derive(Default)]
struct FoundFooter {
    footer: Option<Listing>,
    written: bool,
    filled: bool,
    bytes_read: u64,
}

/// Looks for the footer, and whether the holes are there that should be. `wanted`: to use it. Errors: Io.
async fn look_for_footer<F>(file: &F, path: &Path, header: &SegmentHeader, wanted: bool) -> Result<FoundFooter, Error>
where
    F: File,
    F::ReadBuffer: std::ops::Deref<Target = [u8]>,
{
    let io = |what| move |source| Error::io(what, path, source);
    let mut found = FoundFooter::default();
    let place = Part { offset: header.bytes - u64::from(header.footer_bytes), bytes: header.footer_bytes };
    // A hole: not sealed.
    let told = file.data(place.offset..header.bytes).await.map_err(io("look for holes in"))?;
    if !told.is_empty() {
        // Space that was taken and never written is called data, too, once anybody read it through the page cache.
        let first = file.read_at(place.offset, BLOCK).await.map_err(io("read"))?;
        found.written = first.iter().any(|byte| *byte != 0);
        found.filled = !found.written;
    }
    if found.written && wanted {
        found.bytes_read = u64::from(place.bytes);
        let read = read_listing(file, (header.number, header.generation), Role::Footer, place).await;
        found.footer = read.unwrap_or_else(|error| {
            tracing::warn!(%error, path = %path.display(), "footer cannot be read");
            None
        });
        match &found.footer {
            None => {
                tracing::warn!(path = %path.display(), "footer is damaged, or was not written to its end: segment is walked");
            }
            // Behind the records of a sealed segment there is a hole, up to its footer.
            Some(listing) if listing.scanned_to < place.offset => {
                let data = file.data(listing.scanned_to..place.offset).await.map_err(io("look for holes in"))?;
                found.filled = !data.is_empty();
            }
            Some(_) => {}
        }
    }
    if found.filled {
        tracing::warn!(path = %path.display(), "segment has no holes where it should: its records are looked at one by one");
    }
    Ok(found)
}

/// The header of a segment that lost its own, from the record behind it. No split: nobody continues it.
fn header_from_record(config: &VolumeConfig, number: u64, bytes: u64, block: &[u8]) -> Option<SegmentHeader> {
    let record = RecordHeader::decode(block).ok().filter(|record| record.offset == BLOCK_BYTES)?;
    let volume = config.expected.volume;
    let generation = record.generation;
    Some(SegmentHeader { volume, number, generation, bytes, shard: 0, shards: u32::MAX, footer_bytes: 0 })
}
