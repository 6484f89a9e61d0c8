//! What a cell tells those outside, and the bytes of it.
//!
//! ```text
//!  0  u8   version   1
//!  1  u8   kind      10 a summary, 11 a question: beyond those of SWIM's datagrams, among which they come
//!  2  u16  zero
//!  4  u64  cluster   as in SWIM's datagrams
//! 12       sender    32 bytes of node id
//! 44  u64  cell      only in a summary: the hash of the cell's members
//! 52  u64  absent    only in a summary: bit i is the i-th member, who is not there
//! ```
//!
//! Little-endian, nothing follows. A voter's question asks for a summary, whatever the cell's other members do. One
//! whose cell is not as the receiver's map has it is ignored: the maps differ, which does not last.

use super::datagram::BadDatagram;
use crate::NodeId;
use crate::log::{BadBytes, Reader, Writer};

/// The version of these bytes. 1: the first.
const VERSION: u8 = 1;
const SUMMARY: u8 = 10;
const QUESTION: u8 = 11;
/// The most bytes.
const BYTES_MAX: usize = 60;

/// One message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Summary {
    pub(super) cluster: u64,
    pub(super) sender: NodeId,
    pub(super) what: What,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    Absent { cell: u64, absent: u64 },
    Question,
}

/// Whether `bytes` are, by their kind, one of these and none of SWIM's.
pub(super) fn is_summary(bytes: &[u8]) -> bool {
    bytes.get(1).is_some_and(|kind| *kind >= SUMMARY)
}

impl Summary {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION);
        out.u8(if self.what == What::Question { QUESTION } else { SUMMARY });
        out.u16(0);
        out.u64(self.cluster);
        out.node(&self.sender);
        if let What::Absent { cell, absent } = self.what {
            out.u64(cell);
            out.u64(absent);
        }
        out.finish()
    }

    /// The message of these bytes, which must be `cluster`'s. Total.
    pub(super) fn decode(cluster: u64, bytes: &[u8]) -> Result<Self, BadDatagram> {
        let summary = Self::read(bytes).map_err(|error| match error {
            BadBytes::Version(got) => BadDatagram::Field { field: "version", got },
            BadBytes::Tag { what, got } => BadDatagram::Field { field: what, got },
            _ => BadDatagram::Length,
        })?;
        if summary.cluster == cluster { Ok(summary) } else { Err(BadDatagram::Cluster) }
    }

    fn read(bytes: &[u8]) -> Result<Self, BadBytes> {
        let mut from = Reader::new(bytes, "summary", BYTES_MAX)?;
        from.version(VERSION)?;
        let kind = from.u8()?;
        for _ in 0..2 {
            let zero = from.u8()?;
            if zero != 0 {
                return Err(BadBytes::Tag { what: "zero", got: zero });
            }
        }
        let (cluster, sender) = (from.u64()?, from.node()?);
        let what = match kind {
            SUMMARY => What::Absent { cell: from.u64()?, absent: from.u64()? },
            QUESTION => What::Question,
            got => return Err(BadBytes::Tag { what: "kind", got }),
        };
        from.finish()?;
        Ok(Self { cluster, sender, what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_as_drawn_and_every_cut_and_extra_byte_is_found() {
        let (cluster, sender) = (0x1122_3344_5566_7788, NodeId::from_bytes([3; 32]));
        let head = |kind| [&[1, kind, 0, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11][..], &[3; 32]].concat();
        let cases = [
            (
                What::Absent { cell: 0x0506, absent: 1 << 63 },
                [&head(10)[..], &[6, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80]].concat(),
            ),
            (What::Question, head(11)),
        ];
        for (what, bytes) in cases {
            let summary = Summary { cluster, sender, what };
            assert_eq!(summary.encode(), bytes);
            assert!(is_summary(&bytes));
            assert_eq!(Summary::decode(cluster, &bytes), Ok(summary));
            assert_eq!(Summary::decode(1, &bytes), Err(BadDatagram::Cluster));
            for len in 0..bytes.len() {
                assert_eq!(Summary::decode(cluster, &bytes[..len]), Err(BadDatagram::Length), "{len} bytes");
            }
            assert_eq!(Summary::decode(cluster, &[&bytes[..], &[0]].concat()), Err(BadDatagram::Length));
            for (at, field) in [(0, "version"), (1, "kind"), (2, "zero"), (3, "zero")] {
                let mut bytes = bytes.clone();
                bytes[at] = 77;
                assert_eq!(Summary::decode(cluster, &bytes), Err(BadDatagram::Field { field, got: 77 }));
            }
        }
    }
}
