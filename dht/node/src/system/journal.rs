//! The journal as it is written.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::format::{header, push_record};
use super::io;
use super::record::Record;
use super::state::State;
use crate::Error;

pub(super) const JOURNAL: &str = "journal";
/// A journal that is being made. It counts for nothing until it has the other name.
pub(super) const BESIDE: &str = "journal.new";

/// A journal is written anew when it has this many times its checkpoint's bytes, and [`GROWTH_BYTES`] more: so at most
/// a quarter of what is written is checkpoints, and a small state is not written anew at each turn. A start reads no
/// more than that.
const GROWTH: u64 = 4;
const GROWTH_BYTES: u64 = 16 << 20;
/// How many bytes of records are gathered for one write. Beyond, a flush has several.
const WRITE_BYTES: usize = 4 << 20;
/// What is kept of that memory: most steps have some hundred bytes.
const KEPT_BYTES: usize = 64 << 10;

/// The journal, open at its end.
#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    pub(super) file: File,
    /// How many bytes are written.
    end: u64,
    /// Records that are not written yet.
    gathered: Vec<u8>,
    /// How many records there are.
    records: u64,
    /// How many of them are durable.
    synced: u64,
    /// It is to be written anew when it is longer.
    pub(super) length_max: u64,
}

/// A journal that is nothing but a checkpoint of `state`: its bytes, and how many records it has.
pub(super) fn image(state: &State) -> (Vec<u8>, u64) {
    let records = state.checkpoint();
    let count = u32::try_from(records.len()).expect("a few, and a few seats");
    let mut bytes = header(count).to_vec();
    for (number, record) in (0..).zip(&records) {
        let (kind, payload) = record.encode();
        push_record(&mut bytes, kind, number, 0, &payload);
    }
    (bytes, u64::from(count))
}

/// Makes the entries of `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), Error> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|why| Error::Dir { dir: dir.to_owned(), why })
}

impl Journal {
    /// Writes a new journal in place of the one in `dir`, or the first. It is durable on return; a crash before leaves
    /// the earlier one, or this one whole.
    pub(super) fn create(dir: &Path, state: &State) -> Result<Self, Error> {
        let fail = |doing| io(dir, BESIDE, doing);
        let (bytes, records) = image(state);
        let beside = dir.join(BESIDE);
        let file = File::create(&beside).map_err(fail("make"))?;
        file.write_all_at(&bytes, 0).map_err(fail("write"))?;
        file.sync_all().map_err(fail("flush"))?;
        fs::rename(&beside, dir.join(JOURNAL)).map_err(fail("rename"))?;
        // Until then a crash may bring the earlier one back, without what is appended to this one.
        sync_dir(dir)?;
        let end = bytes.len() as u64;
        let length_max = GROWTH * end + GROWTH_BYTES;
        Ok(Self { dir: dir.to_owned(), file, end, gathered: Vec::new(), records, synced: records, length_max })
    }

    /// Puts a record behind those before it, not durable yet.
    pub(super) fn push(&mut self, record: &Record<'_>) -> Result<(), Error> {
        let (kind, payload) = record.encode();
        push_record(&mut self.gathered, kind, self.records, self.synced, &payload);
        self.records += 1;
        if self.gathered.len() > WRITE_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), Error> {
        self.file.write_all_at(&self.gathered, self.end).map_err(io(&self.dir, JOURNAL, "write"))?;
        self.end += self.gathered.len() as u64;
        self.gathered.clear();
        // One large record in a long time should not hold its memory.
        self.gathered.shrink_to(KEPT_BYTES);
        Ok(())
    }

    /// All records are durable on return.
    pub(super) fn sync(&mut self) -> Result<(), Error> {
        if self.synced < self.records {
            self.write()?;
            self.file.sync_data().map_err(io(&self.dir, JOURNAL, "flush"))?;
            self.synced = self.records;
        }
        Ok(())
    }

    /// Writes a new journal of `state`, which is what this one's records add up to, where this one has grown too long.
    pub(super) fn shorten(&mut self, state: &State) -> Result<(), Error> {
        if self.end > self.length_max {
            *self = Self::create(&self.dir, state)?;
        }
        Ok(())
    }
}
