//! Sixteen bytes that say where an id's record lies.
//!
//! ```text
//! bit  128          80               40              10               4      0
//!       | key of id | block address  | track bytes   | header blocks  | kind |
//! ```
//!
//! The key stands on top, so that the order of packed entries is the order of keys, and no two entries are equal unless
//! they say the same of the same key: entries with equal keys need no care of their own.

use deadwax_track::{TRACK_BYTES_MAX, TrackId};

const ADDRESS_BITS: u32 = 40;
const TRACK_BYTES_BITS: u32 = 30;
const HEADER_BLOCKS_BITS: u32 = 6;
const KIND_BITS: u32 = 4;
const KEY_SHIFT: u32 = ADDRESS_BITS + TRACK_BYTES_BITS + HEADER_BLOCKS_BITS + KIND_BITS;

const _: () = assert!(KEY_SHIFT as usize + 8 * KEY_BYTES == u128::BITS as usize);
const _: () = assert!(TRACK_BYTES_MAX < 1 << TRACK_BYTES_BITS);

/// How much of an id an entry keeps: its first bytes, big-endian.
pub(crate) const KEY_BYTES: usize = 6;

/// The part of an id that an entry keeps. Ids are in the order of their keys; several may share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Key(pub(crate) [u8; KEY_BYTES]);

impl Key {
    pub(crate) fn of(id: &TrackId) -> Self {
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(&id.as_bytes()[..KEY_BYTES]);
        Self(key)
    }

    /// The lowest id of this key.
    pub(crate) fn lowest_id(self) -> TrackId {
        let mut bytes = [0; 32];
        bytes[..KEY_BYTES].copy_from_slice(&self.0);
        TrackId::from_bytes(bytes)
    }

    /// Not above any entry of this key, and above all entries of lower keys.
    pub(super) fn lowest(self) -> u128 {
        let mut bytes = [0; 16];
        bytes[..KEY_BYTES].copy_from_slice(&self.0);
        u128::from_be_bytes(bytes)
    }

    pub(super) fn of_entry(entry: u128) -> Self {
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(&entry.to_be_bytes()[..KEY_BYTES]);
        Self(key)
    }
}

/// The key of an entry as a number, for reckoning how far apart entries are.
pub(super) fn key_number(entry: u128) -> u64 {
    (entry >> KEY_SHIFT) as u64
}

/// What the record holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EntryKind {
    Track,
    CompressedTrack,
    Takedown,
}

/// Where a record lies, and what must be known of it before it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    /// Of the record's first block on the volume, in blocks; below 2^40.
    pub(crate) address: u64,
    /// Of the track as it was put; zero for a takedown.
    pub(crate) track_bytes: u64,
    /// How many blocks the record's header has; below 2^6.
    pub(crate) header_blocks: u8,
    pub(crate) kind: EntryKind,
}

impl Slot {
    /// The entry for the id. Panics where a field does not fit: formats are checked before anything is indexed.
    pub(super) fn pack(self, key: Key) -> u128 {
        assert!(self.address >> ADDRESS_BITS == 0, "block address {} has more than 40 bits", self.address);
        assert!(self.track_bytes >> TRACK_BYTES_BITS == 0, "{} track bytes are more than 30 bits", self.track_bytes);
        assert!(self.header_blocks >> HEADER_BLOCKS_BITS == 0, "{} header blocks are too many", self.header_blocks);
        let kind: u128 = match self.kind {
            EntryKind::Track => 0,
            EntryKind::CompressedTrack => 1,
            EntryKind::Takedown => 2,
        };
        let low = u128::from(self.header_blocks) << KIND_BITS | kind;
        let low = u128::from(self.track_bytes) << (HEADER_BLOCKS_BITS + KIND_BITS) | low;
        let low = u128::from(self.address) << (TRACK_BYTES_BITS + HEADER_BLOCKS_BITS + KIND_BITS) | low;
        key.lowest() | low
    }

    pub(super) fn unpack(entry: u128) -> Self {
        let field = |shift: u32, bits: u32| {
            let value = (entry >> shift) & ((1 << bits) - 1);
            u64::try_from(value).expect("no field has more than 40 bits")
        };
        let kind = match field(0, KIND_BITS) {
            0 => EntryKind::Track,
            1 => EntryKind::CompressedTrack,
            2 => EntryKind::Takedown,
            other => panic!("an entry in memory has kind {other}"),
        };
        let header_blocks = u8::try_from(field(KIND_BITS, HEADER_BLOCKS_BITS)).expect("six bits");
        let track_bytes = field(KIND_BITS + HEADER_BLOCKS_BITS, TRACK_BYTES_BITS);
        let address = field(KIND_BITS + HEADER_BLOCKS_BITS + TRACK_BYTES_BITS, ADDRESS_BITS);
        Self { address, track_bytes, header_blocks, kind }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_survives_packing_at_the_ends_of_its_fields() {
        let key = Key([0xff, 0, 1, 2, 3, 0xfe]);
        for address in [0, 1, (1 << 40) - 1] {
            for track_bytes in [0, 1, TRACK_BYTES_MAX, (1 << 30) - 1] {
                for header_blocks in [0, 1, 63] {
                    for kind in [EntryKind::Track, EntryKind::CompressedTrack, EntryKind::Takedown] {
                        let slot = Slot { address, track_bytes, header_blocks, kind };
                        let entry = slot.pack(key);
                        assert_eq!((Key::of_entry(entry), Slot::unpack(entry)), (key, slot));
                    }
                }
            }
        }
    }

    #[test]
    fn keys_are_in_the_order_of_ids() {
        let id = |first: u8, sixth: u8| {
            let mut bytes = [9; 32];
            (bytes[0], bytes[5]) = (first, sixth);
            TrackId::from_bytes(bytes)
        };
        let ids = [id(0, 0), id(0, 1), id(0, 255), id(1, 0), id(255, 254), id(255, 255)];
        assert!(ids.windows(2).all(|pair| Key::of(&pair[0]) < Key::of(&pair[1])));
        assert!(ids.windows(2).all(|pair| Key::of(&pair[0]).lowest() < Key::of(&pair[1]).lowest()));
    }

    #[test]
    #[should_panic(expected = "has more than 40 bits")]
    fn an_address_that_does_not_fit_is_refused() {
        Slot { address: 1 << 40, track_bytes: 1, header_blocks: 1, kind: EntryKind::Track }.pack(Key([0; KEY_BYTES]));
    }
}
