//! The limits of messages that their types do not hold.

use deadwax_track::{PARTITIONS, PIECES_MAX, TRACK_BYTES_MAX};

use super::bad_message::BadMessage;
use super::core_status::{NOT_UP_MAX, WARNINGS_MAX};
use super::message::{ADDRESS_BYTES_MAX, DIGEST_PARTITIONS_MAX, ERROR_MESSAGE_BYTES_MAX, IDS_MAX, Message};
use super::status::VOLUMES_PER_NODE_MAX;

impl Message {
    /// The limits that the types do not hold.
    pub(super) fn check(&self) -> Result<(), BadMessage> {
        let limit = |holds: bool, field: &'static str, got: u64| {
            if holds { Ok(()) } else { Err(BadMessage::Limit { kind: self.kind(), field, got }) }
        };
        let track = |bytes: u64| {
            limit((1..=TRACK_BYTES_MAX).contains(&bytes), "the track's length, which is 1 to 512 MiB,", bytes)
        };
        match self {
            Self::Data(bytes) | Self::Peer { bytes, .. } | Self::Epochs { bytes, .. } => {
                limit(!bytes.is_empty(), "the data's length, which is not 0,", 0)
            }
            Self::Hello { protocol_min, protocol_max, .. } => limit(
                protocol_min <= protocol_max,
                "the oldest protocol, which is not above the newest,",
                u64::from(*protocol_min),
            ),
            Self::Error { message, .. } => {
                limit(message.len() <= ERROR_MESSAGE_BYTES_MAX, "the text's length", message.len() as u64)
            }
            Self::Introduction { address, .. } => {
                limit(address.len() <= ADDRESS_BYTES_MAX, "the address's length", address.len() as u64)
            }
            Self::Put { bytes, .. }
            | Self::StandIn { bytes, .. }
            | Self::Stored { bytes, .. }
            | Self::Found { bytes }
            | Self::Present { bytes } => track(*bytes),
            Self::TrackInfo { bytes, pieces, .. } => {
                limit(pieces.len() as u64 <= PIECES_MAX, "the number of pieces", pieces.len() as u64)?;
                track(*bytes)
            }
            Self::NodeStatus(status) => limit(
                status.volumes.len() <= VOLUMES_PER_NODE_MAX,
                "the number of volumes",
                status.volumes.len() as u64,
            ),
            Self::Digests { first, count, .. } => {
                limit(*count <= DIGEST_PARTITIONS_MAX, "the number of partitions", u64::from(*count))?;
                limit(u32::from(first.0) + count <= PARTITIONS, "the number of partitions", u64::from(*count))
            }
            Self::DigestList(digests) => {
                limit(digests.len() <= DIGEST_PARTITIONS_MAX as usize, "the number of digests", digests.len() as u64)
            }
            Self::List { limit: ids, .. } => {
                limit((1..=IDS_MAX).contains(ids), "the number of ids asked for", u64::from(*ids))
            }
            Self::Ids(ids) => limit(ids.len() <= IDS_MAX as usize, "the number of ids", ids.len() as u64),
            Self::CommandAnswer(answer) => {
                answer.beyond_limit().map_or(Ok(()), |(field, got)| limit(false, field, got as u64))
            }
            Self::CoreStatus(Some(status)) => {
                let (not_up, warnings) = (status.not_up.len(), status.warnings.len());
                limit(not_up <= NOT_UP_MAX, "the number of nodes that are not up", not_up as u64)?;
                limit(warnings <= WARNINGS_MAX, "the number of warnings", warnings as u64)
            }
            _ => Ok(()),
        }
    }
}
