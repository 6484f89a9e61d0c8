//! The file of takedowns: fixed records, found by their slots.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use deadwax_dht::takedown::{TAKEDOWN_BYTES, Takedown};

use super::{SystemOp, damaged, io};
use crate::Error;

pub(super) const TAKEDOWNS: &str = "takedowns";
/// How many records are read at a time.
const READ_RECORDS: u32 = 1_024;

/// How much of the file counts: what follows was never said to be durable.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Mark {
    /// The first so many takedowns.
    pub(super) count: u32,
    /// The CRC-32 of their bytes.
    pub(super) crc: u32,
}

impl Mark {
    fn extend(self, bytes: &[u8]) -> Self {
        let added = u32::try_from(bytes.len() / TAKEDOWN_BYTES).ok();
        let count = added.and_then(|added| self.count.checked_add(added)).expect("slots are u32");
        let mut crc = crc32fast::Hasher::new_with_initial(self.crc);
        crc.update(bytes);
        Self { count, crc: crc.finalize() }
    }

    const fn bytes(self) -> u64 {
        at(self.count)
    }
}

/// Where the record of a slot begins.
const fn at(slot: u32) -> u64 {
    slot as u64 * TAKEDOWN_BYTES as u64
}

/// The file, open.
#[derive(Debug)]
pub(super) struct TakedownFile {
    dir: PathBuf,
    pub(super) file: File,
}

impl TakedownFile {
    /// Opens the file in `dir`, makes it where it is missing, and cuts off what does not count. Its directory is not
    /// flushed.
    ///
    /// # Errors
    /// It is shorter than what counts.
    pub(super) fn open(dir: &Path, mark: Mark) -> Result<Self, Error> {
        let fail = |doing| io(dir, TAKEDOWNS, doing);
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join(TAKEDOWNS));
        let file = options.map_err(fail("open"))?;
        let length = file.metadata().map_err(fail("read"))?.len();
        if length < mark.bytes() {
            let (whole, count) = (length / at(1), mark.count);
            return Err(damaged(dir, TAKEDOWNS, format!("it has {whole} takedowns of the {count} that were flushed")));
        }
        if length > mark.bytes() {
            let (slots, bytes) = (mark.count, length - mark.bytes());
            tracing::info!(dir = %dir.display(), slots, bytes, "cut takedowns off: they were not flushed");
            file.set_len(mark.bytes()).map_err(fail("cut"))?;
        }
        Ok(Self { dir: dir.to_owned(), file })
    }

    /// All takedowns that count, checked against their checksum.
    pub(super) fn read_all(&self, mark: Mark) -> Result<Vec<Takedown>, Error> {
        // The file has as many bytes, see `open`.
        let mut records = Vec::with_capacity(usize::try_from(mark.count).expect("a u32 is a usize"));
        let mut read = Mark::default();
        let mut buffer = Vec::new();
        while read.count < mark.count {
            let some = READ_RECORDS.min(mark.count - read.count);
            buffer.resize(usize::try_from(at(some)).expect("some 256 KiB"), 0);
            self.file.read_exact_at(&mut buffer, read.bytes()).map_err(io(&self.dir, TAKEDOWNS, "read"))?;
            for (slot, bytes) in (read.count..).zip(buffer.chunks_exact(TAKEDOWN_BYTES)) {
                records.push(self.decode(slot, bytes)?);
            }
            read = read.extend(&buffer);
        }
        if read != mark {
            return Err(damaged(&self.dir, TAKEDOWNS, "its bytes are not those that were flushed".to_owned()));
        }
        Ok(records)
    }

    /// The takedowns of these slots, of the first `count`.
    pub(super) fn read(&self, count: u32, slots: &[u32]) -> Result<Vec<Takedown>, Error> {
        let read = |&slot: &u32| {
            let fail = io(&self.dir, TAKEDOWNS, "read");
            if slot >= count {
                let why = format!("slot {slot} is asked for, {count} are there");
                return Err(fail(std::io::Error::new(ErrorKind::UnexpectedEof, why)));
            }
            let mut bytes = [0; TAKEDOWN_BYTES];
            self.file.read_exact_at(&mut bytes, at(slot)).map_err(fail)?;
            self.decode(slot, &bytes)
        };
        slots.iter().map(read).collect()
    }

    fn decode(&self, slot: u32, bytes: &[u8]) -> Result<Takedown, Error> {
        Takedown::decode(bytes).map_err(|why| damaged(&self.dir, TAKEDOWNS, format!("slot {slot}: {why}")))
    }

    /// Writes the takedowns of all `ops` behind those that count: durable on return, but they do not count yet. Answers
    /// what counts after each [`SystemOp::Append`].
    ///
    /// # Panics
    /// When there are more than slots.
    pub(super) fn append(&self, mut mark: Mark, ops: &[SystemOp]) -> Result<Vec<Mark>, Error> {
        let start = mark.bytes();
        let (mut bytes, mut marks) = (Vec::new(), Vec::new());
        for op in ops {
            if let SystemOp::Append(_, records) = op {
                let from = bytes.len();
                records.iter().for_each(|record| bytes.extend_from_slice(&record.encode()));
                mark = mark.extend(&bytes[from..]);
                marks.push(mark);
            }
        }
        if !bytes.is_empty() {
            self.file.write_all_at(&bytes, start).map_err(io(&self.dir, TAKEDOWNS, "write"))?;
            self.file.sync_data().map_err(io(&self.dir, TAKEDOWNS, "flush"))?;
        }
        Ok(marks)
    }
}
