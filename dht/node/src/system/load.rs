//! The journal as it is read.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::format::{BadHeader, FRAME_BYTES, Frame, HEADER_BYTES, VERSION, read_header};
use super::journal::JOURNAL;
use super::record::Record;
use super::state::State;
use super::{damaged, io as fail};
use crate::Error;

/// How many bytes are searched at a time.
const WINDOW_BYTES: usize = 1 << 20;

/// What the journal in `dir` adds up to; none where there is no journal. Nothing is changed.
///
/// A torn tail is left out: records of the last flush, which did not return.
pub(super) fn load(dir: &Path) -> Result<Option<State>, Error> {
    let file = match File::open(dir.join(JOURNAL)) {
        Ok(file) => file,
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(fail(dir, JOURNAL, "open")(why)),
    };
    let length = file.metadata().map_err(fail(dir, JOURNAL, "read"))?.len();
    let journal = Reader { dir, file, length };
    let checkpoint_records = journal.header()?;
    let mut state = State::default();
    let (mut at, mut number) = (HEADER_BYTES as u64, 0);
    while let Some((frame, payload)) = journal.record(at)?.filter(|(frame, _)| frame.number == number) {
        let what = |why: &dyn std::fmt::Display| format!("record {number} at byte {at}: {why}");
        let bad = |why: &dyn std::fmt::Display| damaged(dir, JOURNAL, what(why));
        let record = Record::decode(frame.kind, &payload).map_err(|why| {
            if why.is_later() { Error::SystemLater { path: dir.join(JOURNAL), why: what(&why) } } else { bad(&why) }
        })?;
        state.apply(&record).map_err(|why| bad(&why))?;
        at += (FRAME_BYTES + payload.len()) as u64;
        number += 1;
    }
    if number < u64::from(checkpoint_records) {
        let why =
            format!("its checkpoint cannot be read at byte {at}, from record {number} of {checkpoint_records} on");
        return Err(damaged(dir, JOURNAL, why));
    }
    if let Some(witness) = journal.witness(at, number)? {
        let why =
            format!("record {number} at byte {at} cannot be read, and was flushed before the one at byte {witness}");
        return Err(damaged(dir, JOURNAL, why));
    }
    if at < length {
        let bytes = length - at;
        tracing::info!(dir = %dir.display(), records = number, bytes, "cut the journal's end off: it was not flushed");
    }
    Ok(Some(state))
}

struct Reader<'a> {
    dir: &'a Path,
    file: File,
    length: u64,
}

impl Reader<'_> {
    /// How many records the checkpoint has.
    fn header(&self) -> Result<u32, Error> {
        let mut bytes = [0; HEADER_BYTES];
        match self.file.read_exact_at(&mut bytes, 0) {
            Err(why) if why.kind() == ErrorKind::UnexpectedEof => {
                return Err(damaged(self.dir, JOURNAL, format!("it has {} bytes, less than a header", self.length)));
            }
            read => read.map_err(fail(self.dir, JOURNAL, "read"))?,
        }
        read_header(&bytes).map_err(|why| match why {
            BadHeader::Foreign => damaged(self.dir, JOURNAL, "it is no journal of a node".to_owned()),
            BadHeader::Checksum => damaged(self.dir, JOURNAL, "its header's checksum is wrong".to_owned()),
            BadHeader::Version(got) => Error::SystemVersion { path: self.dir.join(JOURNAL), got, known: VERSION },
        })
    }

    /// The record at byte `at`; none where there is no whole one.
    fn record(&self, at: u64) -> Result<Option<(Frame, Vec<u8>)>, Error> {
        self.try_record(at).map_err(fail(self.dir, JOURNAL, "read"))
    }

    fn try_record(&self, at: u64) -> io::Result<Option<(Frame, Vec<u8>)>> {
        let Some(rest) = self.length.checked_sub(at + FRAME_BYTES as u64) else { return Ok(None) };
        let mut bytes = [0; FRAME_BYTES];
        self.file.read_exact_at(&mut bytes, at)?;
        let Some(frame) = Frame::read(&bytes).filter(|frame| u64::from(frame.length) <= rest) else {
            return Ok(None);
        };
        // As many bytes are there.
        let mut payload = vec![0; usize::try_from(frame.length).expect("a u32 is a usize")];
        self.file.read_exact_at(&mut payload, at + FRAME_BYTES as u64)?;
        Ok(frame.holds(&payload).then_some((frame, payload)))
    }

    /// Where behind byte `from` there is a whole record that was written when record `number`, which should be at
    /// `from`, was durable. A length that cannot be trusted says nothing of where that is: every byte is tried.
    fn witness(&self, from: u64, number: u64) -> Result<Option<u64>, Error> {
        let mut window = vec![0; WINDOW_BYTES];
        let mut start = from;
        while start + FRAME_BYTES as u64 <= self.length {
            let size = usize::try_from(self.length - start).unwrap_or(WINDOW_BYTES).min(WINDOW_BYTES);
            self.file.read_exact_at(&mut window[..size], start).map_err(fail(self.dir, JOURNAL, "read"))?;
            for (at, bytes) in (start..).zip(window[..size].windows(FRAME_BYTES)) {
                // Spares reading what cannot be: between the two there are records, each with a frame.
                let between = number..=number + (at - from) / FRAME_BYTES as u64;
                let frame = bytes.as_array().and_then(Frame::read);
                let may_be = |frame: &Frame| between.contains(&frame.number) && frame.synced > number;
                if frame.as_ref().is_some_and(may_be) && self.record(at)?.is_some() {
                    return Ok(Some(at));
                }
            }
            start += (size - FRAME_BYTES + 1) as u64;
        }
        Ok(None)
    }
}
