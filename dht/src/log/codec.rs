//! Bytes of the log's values: little-endian, fixed width, one way to write each value.
//!
//! Numbers as they are; text after its length as u16; a list after its count as u32; an option's and an enum's tag one
//! byte. What follows what is in the `encode` and `decode` of each type, side by side; golden bytes are in
//! `tests/rules/log_golden.txt`. Reading is total: any bytes give a value or a [`BadBytes`], no count is believed before the
//! bytes for it are there, and bytes left over are an error, so that a value has one form only and its hash means it.

use crate::{NodeId, VolumeId};

/// The bytes are not a value of the log. Who sent them is faulty: drop them, ask another peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadBytes {
    /// They end too early.
    #[error("bytes end too early")]
    Short,
    /// This many follow the value.
    #[error("{0} bytes follow the value")]
    Extra(usize),
    /// A version that this program does not read.
    #[error("version is {0}, which this program does not read: use the one that wrote it, or a newer one")]
    Version(u8),
    /// A tag that means nothing.
    #[error("tag of {what} is {got}")]
    Tag {
        /// Of what.
        what: &'static str,
        /// The tag.
        got: u8,
    },
    /// Text that is not UTF-8.
    #[error("text is not UTF-8")]
    Text,
    /// A list that is not in order, or has an item twice.
    #[error("list of {0} is not in rising order")]
    Order(&'static str),
    /// More bytes than such a value may have.
    #[error("{what} has {got} bytes; the most is {max}")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// Its length in bytes.
        got: usize,
        /// The bound.
        max: usize,
    },
}

/// Writes values. A length that does not fit its field is a broken invariant of ours: callers check bounds first.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.raw(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    pub(crate) fn node(&mut self, id: &NodeId) {
        self.raw(id.as_bytes());
    }

    pub(crate) fn volume(&mut self, id: &VolumeId) {
        self.raw(id.as_bytes());
    }

    /// `text` has been checked to have less than 64 KiB.
    pub(crate) fn text(&mut self, text: &str) {
        self.u16(u16::try_from(text.len()).expect("checked: names are short"));
        self.raw(text.as_bytes());
    }

    pub(crate) fn blob(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).expect("checked: below the bounds of log/mod.rs"));
        self.raw(bytes);
    }

    pub(crate) fn list<T>(&mut self, items: impl ExactSizeIterator<Item = T>, mut write: impl FnMut(&mut Self, T)) {
        self.u32(u32::try_from(items.len()).expect("checked: lists are bounded"));
        items.for_each(|item| write(self, item));
    }
}

/// Reads what [`Writer`] wrote.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A reader of `bytes`, which are `what`, of which there may be `max`.
    pub(crate) fn new(bytes: &'a [u8], what: &'static str, max: usize) -> Result<Self, BadBytes> {
        let got = bytes.len();
        if got > max { Err(BadBytes::TooLong { what, got, max }) } else { Ok(Self(bytes)) }
    }

    pub(crate) fn finish(self) -> Result<(), BadBytes> {
        if self.0.is_empty() { Ok(()) } else { Err(BadBytes::Extra(self.0.len())) }
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn raw(&mut self, length: usize) -> Result<&'a [u8], BadBytes> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(BadBytes::Short)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], BadBytes> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(BadBytes::Short)?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, BadBytes> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, BadBytes> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, BadBytes> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, BadBytes> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn bool(&mut self, what: &'static str) -> Result<bool, BadBytes> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            got => Err(BadBytes::Tag { what, got }),
        }
    }

    pub(crate) fn version(&mut self, version: u8) -> Result<(), BadBytes> {
        let got = self.u8()?;
        if got == version { Ok(()) } else { Err(BadBytes::Version(got)) }
    }

    pub(crate) fn node(&mut self) -> Result<NodeId, BadBytes> {
        self.array().map(NodeId::from_bytes)
    }

    pub(crate) fn volume(&mut self) -> Result<VolumeId, BadBytes> {
        self.array().map(VolumeId::from_bytes)
    }

    pub(crate) fn text(&mut self) -> Result<String, BadBytes> {
        let length = self.u16()?;
        let bytes = self.raw(usize::from(length))?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| BadBytes::Text)
    }

    pub(crate) fn blob(&mut self) -> Result<&'a [u8], BadBytes> {
        let length = self.u32()?;
        self.raw(usize::try_from(length).map_err(|_| BadBytes::Short)?)
    }

    /// A list of items of `item_bytes_min` bytes at least, so that memory is taken only for bytes that are there.
    pub(crate) fn list<T>(
        &mut self,
        item_bytes_min: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, BadBytes>,
    ) -> Result<Vec<T>, BadBytes> {
        let count = usize::try_from(self.u32()?).map_err(|_| BadBytes::Short)?;
        if count > self.0.len() / item_bytes_min {
            return Err(BadBytes::Short);
        }
        (0..count).map(|_| read(self)).collect()
    }
}
