//! Reading and writing listings: parts among a segment's records, its footer, and the volume's snapshot.

use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::config::READ_BYTES_MAX;
use crate::error::Error;
use crate::format::{BLOCK, BLOCK_BYTES, Damage, Listed, Listing, Part, Role, ScrubPlace, SnapshotHeader};
use crate::host::{Access, File, Host};
use crate::segment::Segment;
use crate::volume::Inner;

/// Reads `bytes` from `offset` in pieces.
pub(crate) async fn read_stretch<F>(file: &F, offset: u64, bytes: u64) -> io::Result<Vec<u8>>
where
    F: File,
    F::ReadBuffer: Deref<Target = [u8]>,
{
    let mut out = Vec::with_capacity(usize::try_from(bytes).expect("bounded by the caller"));
    let mut at = offset;
    while at < offset + bytes {
        let now = (offset + bytes - at).min(READ_BYTES_MAX);
        out.extend_from_slice(&file.read_at(at, usize::try_from(now).expect("at most a read")).await?);
        at += now;
    }
    Ok(out)
}

/// The listing at `offset`, if a whole one of this role and segment is there. Errors are the drive's.
pub(crate) async fn read_listing<F>(
    file: &F,
    (number, generation): (u64, u64),
    role: Role,
    place: Part,
) -> io::Result<Option<Listing>>
where
    F: File,
    F::ReadBuffer: Deref<Target = [u8]>,
{
    let bytes = read_stretch(file, place.offset, u64::from(place.bytes)).await?;
    let decoded = Listing::peek(&bytes).and_then(|length| match bytes.get(..length) {
        Some(bytes) => Listing::decode(bytes),
        None => Err(Damage::Field("length")),
    });
    let listing = decoded.ok().filter(|listing| {
        listing.role == role
            && listing.number == number
            && listing.generation == generation
            && listing.offset == place.offset
    });
    Ok(listing)
}

/// What a snapshot file holds.
pub(crate) struct Snapshot {
    pub(crate) header: SnapshotHeader,
    pub(crate) listings: Vec<Listing>,
}

/// Reads a snapshot; nothing where it is not whole: it only spares work.
pub(crate) async fn read_snapshot<H: Host>(host: &H, path: &Path) -> Option<Snapshot> {
    let read = try_snapshot(host, path).await;
    let log = |error| tracing::warn!(%error, path = %path.display(), "snapshot not used, segments are walked instead");
    read.map_err(log).ok()
}

async fn try_snapshot<H: Host>(host: &H, path: &Path) -> io::Result<Snapshot> {
    let refuse = |damage: Damage| io::Error::new(io::ErrorKind::InvalidData, damage.to_string());
    let file = host.open(path, Access::Read).await?;
    let header = SnapshotHeader::decode(&file.read_at(0, BLOCK).await?).map_err(refuse)?;
    if file.bytes().await? < header.bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let bytes = read_stretch(&file, BLOCK_BYTES, header.bytes - BLOCK_BYTES).await?;
    let mut rest = &bytes[..];
    let mut listings = Vec::new();
    for _ in 0..header.listings {
        let length = Listing::peek(rest).map_err(refuse)?;
        let (listing, after) = rest.split_at_checked(length).ok_or(io::ErrorKind::UnexpectedEof)?;
        rest = after;
        listings.push(Listing::decode(listing).map_err(refuse)?);
    }
    Ok(Snapshot { header, listings })
}

/// `snapshots/0003.snapshot`.
pub(crate) fn snapshot_path(snapshots: &Path, shard: usize) -> PathBuf {
    snapshots.join(format!("{shard:04}.snapshot"))
}

impl<H: Host> Inner<H> {
    /// Writes all of `bytes`, which are whole blocks, from `offset` on.
    pub(crate) async fn write_stretch(&self, file: &H::File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let piece_bytes = usize::try_from(READ_BYTES_MAX).expect("a megabyte");
        for (piece, at) in bytes.chunks(piece_bytes).zip((offset..).step_by(piece_bytes)) {
            let mut buffer = self.host.buffer(piece.len());
            buffer.copy_from_slice(piece);
            file.write_at(at, buffer).await?;
        }
        Ok(())
    }

    /// Writes a listing of `records` at `offset`. Not yet durable on return.
    pub(crate) async fn write_part(
        &self,
        segment: &Segment<H::File>,
        offset: u64,
        records: Vec<Listed>,
    ) -> io::Result<Part> {
        let listing = self.listing(segment, Role::Part, offset, Vec::new(), records);
        let bytes = listing.encode();
        self.write_stretch(&segment.file, offset, &bytes).await?;
        Ok(Part { offset, bytes: u32::try_from(bytes.len()).expect("a listing is bounded") })
    }

    fn listing(
        &self,
        segment: &Segment<H::File>,
        role: Role,
        offset: u64,
        parts: Vec<Part>,
        records: Vec<Listed>,
    ) -> Listing {
        Listing {
            role,
            number: segment.number,
            generation: segment.generation,
            offset,
            scanned_to: segment.settled_to(),
            sequence_max: self.commits.next_sequence() - 1,
            synced_sequence: self.commits.synced(),
            parts,
            records,
        }
    }

    /// Seals a segment of which nothing is outstanding: durable on return, and what it did not use is free.
    pub(crate) async fn seal(&self, segment: &Rc<Segment<H::File>>) -> Result<(), Error> {
        let (parts, records) = segment.unlisted.borrow().contents();
        let footer = self.listing(segment, Role::Footer, segment.footer_at, parts, records).encode();
        let room = segment.bytes - segment.footer_at;
        assert!(footer.len() as u64 <= room, "a footer of {} bytes in {room}", footer.len());
        let io = |what| move |source| Error::io(what, &segment.path, source);
        self.write_stretch(&segment.file, segment.footer_at, &footer).await.map_err(io("write the footer of"))?;
        segment.file.fdatasync().await.map_err(io("flush"))?;
        segment.sealed.set(true);
        segment.unlisted.borrow_mut().forget();
        tracing::debug!(segment = segment.number, bytes = segment.tail(), "segment sealed");
        let gap = segment.footer_at - segment.tail();
        segment.punch(segment.tail(), gap).await?;
        let unused = room - footer.len() as u64;
        segment.punch(segment.bytes - unused, unused).await
    }

    /// Writes the snapshot: what the open segments hold, as far as it is settled. Durable on return.
    pub(crate) async fn write_snapshot(&self) -> Result<(), Error> {
        let path = snapshot_path(&self.snapshots_dir, self.config.shard);
        let open: Vec<_> = {
            let segments = self.segments.borrow();
            self.open_segments.borrow().iter().filter_map(|number| segments.get(*number)).collect()
        };
        let mut body = Vec::new();
        let mut listings = 0;
        for segment in open {
            // Of a sealed one the footer tells, and nothing else does any more.
            if segment.sealed.get() || segment.damaged.get() || segment.writable().is_err() {
                continue;
            }
            let (parts, records) = segment.unlisted.borrow().contents();
            if records.len() <= crate::format::LISTED_MAX {
                body.extend(self.listing(&segment, Role::Snapshot, 0, parts, records).encode());
                listings += 1;
            }
            self.host.yield_if_needed().await;
        }
        let share = |count: usize| u32::try_from(count).expect("bounded by the configuration");
        let header = SnapshotHeader {
            volume: self.config.expected.volume,
            shard: share(self.config.shard),
            shards: share(self.config.shards),
            bytes: BLOCK_BYTES + body.len() as u64,
            listings,
            scrub: self.scrub_place.get(),
            sequence_next: self.commits.next_sequence(),
        };
        let mut bytes = header.encode().to_vec();
        bytes.append(&mut body);
        let new = path.with_extension("new");
        let written = self.replace_file(&new, &path, &bytes).await;
        written.map_err(|source| Error::io("write snapshot", &path, source))
    }

    async fn replace_file(&self, new: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let file = self.host.open(new, Access::Create).await?;
        file.preallocate(bytes.len() as u64).await?;
        self.write_stretch(&file, 0, bytes).await?;
        file.fdatasync().await?;
        self.host.rename(new, path).await?;
        self.host.sync_directory(&self.snapshots_dir).await
    }

    /// The parts of a sealed segment's footer, and the records that none of them lists. Errors: CorruptFile, Io.
    pub(crate) async fn sealed_contents(&self, segment: &Segment<H::File>) -> Result<(Vec<Part>, Vec<Listed>), Error> {
        let place = Part { offset: segment.footer_at, bytes: footer_bytes(segment) };
        let footer = self.listing_at(segment, Role::Footer, place).await?;
        Ok((footer.parts, footer.records))
    }

    /// The records of a part. Errors: CorruptFile, Io.
    pub(crate) async fn part_of(&self, segment: &Segment<H::File>, part: Part) -> Result<Vec<Listed>, Error> {
        Ok(self.listing_at(segment, Role::Part, part).await?.records)
    }

    async fn listing_at(&self, segment: &Segment<H::File>, role: Role, place: Part) -> Result<Listing, Error> {
        let read = read_listing(&segment.file, (segment.number, segment.generation), role, place).await;
        let listing = read.map_err(|source| Error::io("read listing of", &segment.path, source))?;
        listing.ok_or_else(|| Error::CorruptFile {
            path: segment.path.clone(),
            what: format!("the listing at {} is not whole: the next start walks the segment instead", place.offset),
        })
    }

    /// What the listings say of the record at `offset`, where they say something: for records whose header is lost.
    pub(crate) async fn listed_at(&self, segment: &Segment<H::File>, offset: u64) -> Option<Listed> {
        let (mut parts, mut records) = segment.unlisted.borrow().contents();
        if segment.sealed.get() {
            (parts, records) = self.sealed_contents(segment).await.ok()?;
        }
        let find = |records: &[Listed]| records.iter().find(|listed| listed.offset == offset).copied();
        if let Some(listed) = find(&records) {
            return Some(listed);
        }
        for part in parts {
            if let Ok(records) = self.part_of(segment, part).await
                && let Some(listed) = find(&records)
            {
                return Some(listed);
            }
        }
        None
    }

    /// Where scrub goes on after a restart.
    pub(crate) fn set_scrub_place(&self, place: ScrubPlace) {
        self.scrub_place.set(place);
    }
}

pub(crate) fn footer_bytes<F>(segment: &Segment<F>) -> u32 {
    u32::try_from(segment.bytes - segment.footer_at).expect("a footer's place is small")
}
