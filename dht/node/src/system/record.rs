//! What the journal's records say, and their payloads' bytes.
//!
//! ```text
//! 1 life      life u64, ms since 1970
//! 2 stand     intact u8 │ counts u8
//! 3 save      a batch's bytes
//! 4 take      seat u64
//! 5 drop      seat u64
//! 6 persist   seat u64 │ a step's bytes
//! 7 seat      a durable state's bytes; in checkpoints
//! 8 appended  takedowns u32 │ CRC-32 of all of them u32
//! ```

use std::borrow::Cow;

use deadwax_dht::log::{BadBytes, BadState, Batch, Durable, Persist};
use deadwax_dht::takedown::Standing;

use super::takedowns::Mark;

const LIFE: u8 = 1;
const STAND: u8 = 2;
const SAVE: u8 = 3;
const TAKE_SEAT: u8 = 4;
const DROP_SEAT: u8 = 5;
const PERSIST: u8 = 6;
const SEAT: u8 = 7;
const APPENDED: u8 = 8;

/// One record of the journal.
#[derive(Clone, Debug)]
pub(super) enum Record<'a> {
    /// A process of this node's name started then.
    Life(u64),
    /// How whole the file of takedowns is.
    Stand(Standing),
    /// What follows the history that was saved before, or a whole one.
    Save(Cow<'a, Batch>),
    /// This seat begins, with nothing promised.
    TakeSeat(u64),
    /// This seat is of no use any more.
    DropSeat(u64),
    /// A step of this seat.
    Persist(u64, Cow<'a, Persist>),
    /// A seat with all that its steps have come to.
    Seat(Cow<'a, Durable>),
    /// From here on so many of the file's takedowns count: they were durable before this was written.
    Appended(Mark),
}

/// A record is whole and says nothing that this program knows.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadPayload {
    /// A kind that there is not.
    #[error("its kind is {0}, which means nothing")]
    Kind(u8),
    /// Not as many bytes as its kind has.
    #[error("it has {got} bytes, which its kind has not")]
    Length {
        /// How many.
        got: usize,
    },
    /// A standing that is neither yes nor no.
    #[error("its standing means nothing")]
    Standing,
    /// A step or a durable state that is none.
    #[error(transparent)]
    Bytes(#[from] BadBytes),
    /// A batch that is none.
    #[error(transparent)]
    State(#[from] BadState),
}

impl BadPayload {
    /// Whether it is what a later version of the map's log looks like: the record is whole, and so it is no damage.
    pub(super) fn is_later(&self) -> bool {
        let (Self::Bytes(bad) | Self::State(BadState::Bytes(bad))) = self else { return false };
        matches!(bad, BadBytes::Version(_) | BadBytes::Tag { what: "change", .. })
    }
}

impl Record<'_> {
    /// Its kind, and its payload.
    pub(super) fn encode(&self) -> (u8, Vec<u8>) {
        match self {
            Record::Life(life) => (LIFE, life.to_le_bytes().to_vec()),
            Record::Stand(standing) => (STAND, vec![u8::from(standing.intact), u8::from(standing.counts)]),
            Record::Save(batch) => (SAVE, batch.encode()),
            Record::TakeSeat(seat) => (TAKE_SEAT, seat.to_le_bytes().to_vec()),
            Record::DropSeat(seat) => (DROP_SEAT, seat.to_le_bytes().to_vec()),
            Record::Persist(seat, step) => (PERSIST, [&seat.to_le_bytes()[..], &step.encode()].concat()),
            Record::Seat(durable) => (SEAT, durable.encode()),
            Record::Appended(mark) => (APPENDED, [mark.count.to_le_bytes(), mark.crc.to_le_bytes()].concat()),
        }
    }

    /// The record of these bytes. Any bytes give one or an error.
    pub(super) fn decode(kind: u8, payload: &[u8]) -> Result<Record<'static>, BadPayload> {
        Ok(match kind {
            LIFE => Record::Life(number(payload)?),
            STAND => Record::Stand(match *payload {
                [intact @ 0..=1, counts @ 0..=1] => Standing { intact: intact == 1, counts: counts == 1 },
                _ => return Err(BadPayload::Standing),
            }),
            SAVE => Record::Save(Cow::Owned(Batch::decode(payload)?)),
            TAKE_SEAT => Record::TakeSeat(number(payload)?),
            DROP_SEAT => Record::DropSeat(number(payload)?),
            PERSIST => {
                let short = BadPayload::Length { got: payload.len() };
                let (seat, step) = payload.split_first_chunk().ok_or(short)?;
                Record::Persist(u64::from_le_bytes(*seat), Cow::Owned(Persist::decode(step)?))
            }
            SEAT => Record::Seat(Cow::Owned(Durable::decode(payload)?)),
            APPENDED => {
                let both = number(payload)?;
                let (crc, count) = (both >> 32, both & u64::from(u32::MAX));
                let half = |half: u64| u32::try_from(half).expect("32 bits");
                Record::Appended(Mark { count: half(count), crc: half(crc) })
            }
            other => return Err(BadPayload::Kind(other)),
        })
    }
}

fn number(payload: &[u8]) -> Result<u64, BadPayload> {
    let bytes = payload.try_into().map_err(|_| BadPayload::Length { got: payload.len() })?;
    Ok(u64::from_le_bytes(bytes))
}
