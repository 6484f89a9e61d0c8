//! The bytes of routing's messages: little-endian, fixed width, one form for each value, see `log/codec.rs`.
//!
//! Golden bytes are in `tests/rules/routing/golden.txt`. Bytes that are no message are an error: drop the message, and
//! whoever waits for it finds that its request failed.

use super::distance::Key;
use super::message::{ADDRESS_BYTES_MAX, ANNOUNCED_MAX, CONTACTS_MAX, Contact, Request, Response};
use super::record::{PartitionRecord, RECORD_HOLDERS_MAX, RecordHolder};
use crate::log::{BadBytes, Reader, Writer};

/// The version of both messages. 1: the first.
const VERSION: u8 = 1;

const CONTACT_BYTES_MIN: usize = 32 + 2 + 1;
const CONTACT_BYTES_MAX: usize = 32 + 2 + ADDRESS_BYTES_MAX;
const RECORD_BYTES_MIN: usize = 2 + 8 + 4;
const RECORD_BYTES_MAX: usize = RECORD_BYTES_MIN + RECORD_HOLDERS_MAX * (16 + CONTACT_BYTES_MAX);

/// The most bytes of an [`Asked`] or [`Answered`]: an announcement of records of the longest kind.
pub const MESSAGE_BYTES_MAX: usize = 1 + 8 + 1 + 4 + ANNOUNCED_MAX * RECORD_BYTES_MAX;
const _: () = assert!(1 + 8 + 1 + RECORD_BYTES_MAX + 4 + CONTACTS_MAX * CONTACT_BYTES_MAX <= MESSAGE_BYTES_MAX);

/// A request, and the number that its answer names.
///
/// ```text
/// version u8 │ number u64 │ tag u8 │ what is asked
///   0 ping      —
///   1 node      key, 32 bytes
///   2 partition u16
///   3 announce  records, 1 to 64
///   4 map epoch —
/// record   partition u16 │ epoch u64 │ holders, 1 to 16: node 32 bytes, volume 16 bytes, address text
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// [`Effect::Send`](super::Effect::Send)'s number.
    pub number: u64,
    /// What is asked.
    pub request: Request,
}

/// An answer, and the number of its request.
///
/// ```text
/// version u8 │ number u64 │ tag u8 │ what is answered
///   0 pong      —
///   1 nodes     contacts
///   2 record    record │ contacts
///   3 no record settled u8 │ contacts
///   4 kept      epochs, u64 each, at most 64
///   5 map epoch epoch u64 │ whether somebody has it u8 │ contact
/// contacts at most 64: node 32 bytes, address text
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answered {
    /// The request's number.
    pub number: u64,
    /// What is answered.
    pub response: Response,
}

impl Asked {
    /// The bytes. Records, addresses and lists keep their bounds: a router's do.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION);
        out.u64(self.number);
        match &self.request {
            Request::Ping => out.u8(0),
            Request::FindNode(key) => {
                out.u8(1);
                out.raw(&key.to_bytes());
            }
            Request::FindPartition(partition) => {
                out.u8(2);
                out.u16(partition.0);
            }
            Request::Announce(records) => {
                out.u8(3);
                out.list(records.iter(), write_record);
            }
            Request::MapEpoch => out.u8(4),
        }
        out.finish()
    }

    /// The request of these bytes: at most [`MESSAGE_BYTES_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let mut from = Reader::new(bytes, "request", MESSAGE_BYTES_MAX)?;
        from.version(VERSION)?;
        let number = from.u64()?;
        let request = match from.u8()? {
            0 => Request::Ping,
            1 => Request::FindNode(Key::from_bytes(&from.array()?)),
            2 => Request::FindPartition(deadwax_track::Partition(from.u16()?)),
            3 => Request::Announce(read_records(&mut from)?),
            4 => Request::MapEpoch,
            got => return Err(BadBytes::Tag { what: "request", got }),
        };
        from.finish()?;
        Ok(Self { number, request })
    }
}

impl Answered {
    /// The bytes. Records, addresses and lists keep their bounds: a router's do.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION);
        out.u64(self.number);
        match &self.response {
            Response::Pong => out.u8(0),
            Response::Nodes(nodes) => {
                out.u8(1);
                out.list(nodes.iter(), write_contact);
            }
            Response::Record(record, nodes) => {
                out.u8(2);
                write_record(&mut out, record);
                out.list(nodes.iter(), write_contact);
            }
            Response::NoRecord { settled, nodes } => {
                out.u8(3);
                out.bool(*settled);
                out.list(nodes.iter(), write_contact);
            }
            Response::Kept(epochs) => {
                out.u8(4);
                out.list(epochs.iter(), |out, epoch| out.u64(*epoch));
            }
            Response::MapEpoch { epoch, from } => {
                out.u8(5);
                out.u64(*epoch);
                out.bool(from.is_some());
                from.iter().for_each(|from| write_contact(&mut out, from));
            }
        }
        out.finish()
    }

    /// The answer of these bytes: at most [`MESSAGE_BYTES_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let mut from = Reader::new(bytes, "answer", MESSAGE_BYTES_MAX)?;
        from.version(VERSION)?;
        let number = from.u64()?;
        let response = match from.u8()? {
            0 => Response::Pong,
            1 => Response::Nodes(read_contacts(&mut from)?),
            2 => Response::Record(read_record(&mut from)?, read_contacts(&mut from)?),
            3 => Response::NoRecord { settled: from.bool("settled")?, nodes: read_contacts(&mut from)? },
            4 => Response::Kept(at_most("epochs", ANNOUNCED_MAX, from.list(8, Reader::u64)?)?),
            5 => Response::MapEpoch {
                epoch: from.u64()?,
                from: if from.bool("who has the map")? { Some(read_contact(&mut from)?) } else { None },
            },
            got => return Err(BadBytes::Tag { what: "answer", got }),
        };
        from.finish()?;
        Ok(Self { number, response })
    }
}

fn write_contact(out: &mut Writer, contact: &Contact) {
    out.node(&contact.id);
    out.text(&contact.address);
}

fn read_contact(from: &mut Reader<'_>) -> Result<Contact, BadBytes> {
    Ok(Contact { id: from.node()?, address: read_address(from)?.into() })
}

fn read_address(from: &mut Reader<'_>) -> Result<String, BadBytes> {
    let address = from.text()?;
    match address.len() {
        0 => Err(BadBytes::Short),
        got if got > ADDRESS_BYTES_MAX => Err(BadBytes::TooLong { what: "address", got, max: ADDRESS_BYTES_MAX }),
        _ => Ok(address),
    }
}

fn read_contacts(from: &mut Reader<'_>) -> Result<Vec<Contact>, BadBytes> {
    at_most("contacts", CONTACTS_MAX, from.list(CONTACT_BYTES_MIN, read_contact)?)
}

fn write_record(out: &mut Writer, record: &PartitionRecord) {
    out.u16(record.partition.0);
    out.u64(record.epoch);
    out.list(record.holders.iter(), |out, holder| {
        out.node(&holder.node);
        out.volume(&holder.volume);
        out.text(&holder.address);
    });
}

fn read_record(from: &mut Reader<'_>) -> Result<PartitionRecord, BadBytes> {
    let (partition, epoch) = (deadwax_track::Partition(from.u16()?), from.u64()?);
    let holders = from.list(16 + CONTACT_BYTES_MIN, |from| {
        Ok(RecordHolder { node: from.node()?, volume: from.volume()?, address: read_address(from)?.into() })
    })?;
    let record = PartitionRecord { partition, epoch, holders: at_most("holders", RECORD_HOLDERS_MAX, holders)? };
    if record.is_bounded() { Ok(record) } else { Err(BadBytes::Short) }
}

fn read_records(from: &mut Reader<'_>) -> Result<Vec<PartitionRecord>, BadBytes> {
    let records = at_most("records", ANNOUNCED_MAX, from.list(RECORD_BYTES_MIN, read_record)?)?;
    if records.is_empty() { Err(BadBytes::Short) } else { Ok(records) }
}

/// The list, unless it has more than `max` items.
fn at_most<T>(what: &'static str, max: usize, list: Vec<T>) -> Result<Vec<T>, BadBytes> {
    let got = list.len();
    if got > max { Err(BadBytes::TooLong { what, got, max }) } else { Ok(list) }
}
