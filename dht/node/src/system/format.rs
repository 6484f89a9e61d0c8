//! The bytes of the journal's header and of the frame around each record; `record.rs` has what is inside.
//!
//! ```text
//! journal: | header | the checkpoint's records | the records since |
//! header:  | magic 8 │ version u32 │ the checkpoint's records u32 │ CRC-32 of the bytes before it u32 |
//! record:  | payload's length u32 │ kind u8 │ zeros 3 │ number u64 │ synced u64 │ CRC-32 u32 | payload |
//! ```
//!
//! All numbers are little-endian. A record's CRC-32 is over its header's other bytes and its payload. `number` counts
//! the journal's records from 0. `synced` is how many of them were durable when this one was written: 0 in a
//! checkpoint, which becomes a journal when all of it is durable.
//!
//! **What the medium may do.** Until a flush returns, what was written may be there in part, in any order: a record may
//! be whole where the one before it is torn. So a whole record behind a bad one proves damage only if its `synced` says
//! that the bad one was durable.

const MAGIC: [u8; 8] = *b"DWXSYSTM";
/// The version of the journal. 1: the first. Of the header the magic and the version stay where they are in all.
pub(super) const VERSION: u32 = 1;
pub(super) const HEADER_BYTES: usize = 20;
pub(super) const FRAME_BYTES: usize = 28;
/// A longer record is nonsense. What is in it has bounds of its own, below this one.
pub(super) const PAYLOAD_BYTES_MAX: u32 = 512 << 20;

const HEADER_CRC_AT: usize = HEADER_BYTES - 4;
const FRAME_CRC_AT: usize = FRAME_BYTES - 4;
const _: () = assert!(HEADER_CRC_AT == 8 + 4 + 4 && FRAME_CRC_AT == 4 + 1 + 3 + 8 + 8);

/// Why bytes are no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BadHeader {
    /// Something else altogether.
    Foreign,
    /// Of another version.
    Version(u32),
    /// The checksum is wrong.
    Checksum,
}

/// The header of a journal with a checkpoint of so many records.
pub(super) fn header(checkpoint_records: u32) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&checkpoint_records.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..HEADER_CRC_AT]);
    bytes[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// How many records the checkpoint has, by a journal's header.
pub(super) fn read_header(bytes: &[u8; HEADER_BYTES]) -> Result<u32, BadHeader> {
    if bytes[..8] != MAGIC {
        return Err(BadHeader::Foreign);
    }
    match u32_at(bytes, 8) {
        VERSION => {}
        other => return Err(BadHeader::Version(other)),
    }
    if u32_at(bytes, HEADER_CRC_AT) != crc32fast::hash(&bytes[..HEADER_CRC_AT]) {
        return Err(BadHeader::Checksum);
    }
    Ok(u32_at(bytes, 12))
}

/// What stands before a record's payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    /// The payload's, in bytes: at most [`PAYLOAD_BYTES_MAX`].
    pub(super) length: u32,
    /// What the payload is.
    pub(super) kind: u8,
    /// Which record of the journal.
    pub(super) number: u64,
    /// How many records were durable when it was written.
    pub(super) synced: u64,
    crc: u32,
}

impl Frame {
    /// The frame in these bytes, if they can be one. Whether they are, its checksum says.
    pub(super) fn read(bytes: &[u8; FRAME_BYTES]) -> Option<Self> {
        let length = u32_at(bytes, 0);
        let fits = length <= PAYLOAD_BYTES_MAX && bytes[5..8] == [0; 3];
        let frame = Self {
            length,
            kind: bytes[4],
            number: u64_at(bytes, 8),
            synced: u64_at(bytes, 16),
            crc: u32_at(bytes, FRAME_CRC_AT),
        };
        fits.then_some(frame)
    }

    /// Whether `payload` is what was written with this frame.
    pub(super) fn holds(&self, payload: &[u8]) -> bool {
        let mut bytes = [0; FRAME_BYTES];
        self.write_to(&mut bytes);
        checksum(&bytes, payload) == self.crc
    }

    fn write_to(&self, bytes: &mut [u8; FRAME_BYTES]) {
        bytes[..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4] = self.kind;
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.synced.to_le_bytes());
    }
}

/// Appends a record to `out`.
///
/// # Panics
/// When the payload is longer than [`PAYLOAD_BYTES_MAX`]: it could not be read again.
pub(super) fn push_record(out: &mut Vec<u8>, kind: u8, number: u64, synced: u64, payload: &[u8]) {
    let length = u32::try_from(payload.len()).ok().filter(|length| *length <= PAYLOAD_BYTES_MAX);
    let Some(length) = length else {
        panic!("a record of {} bytes, the most is {PAYLOAD_BYTES_MAX}", payload.len());
    };
    let mut bytes = [0; FRAME_BYTES];
    Frame { length, kind, number, synced, crc: 0 }.write_to(&mut bytes);
    let crc = checksum(&bytes, payload);
    bytes[FRAME_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&bytes);
    out.extend_from_slice(payload);
}

fn checksum(frame: &[u8; FRAME_BYTES], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&frame[..FRAME_CRC_AT]);
    crc.update(payload);
    crc.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
