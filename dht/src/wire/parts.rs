//! What is longer than a frame, and goes out in parts.

use bytes::Bytes;

use super::frame::FRAME_PAYLOAD_MAX;

/// The most bytes of an envelope in one [`Peer`](super::Message::Peer) message, and of a batch in one
/// [`Epochs`](super::Message::Epochs).
pub const PEER_BYTES_MAX: usize = FRAME_PAYLOAD_MAX - 1;

/// The parts in which `bytes`, an envelope's or a batch's, go out as [`Peer`](super::Message::Peer) or
/// [`Epochs`](super::Message::Epochs): each with whether more follow.
pub fn parts(mut bytes: Bytes) -> impl Iterator<Item = (bool, Bytes)> {
    std::iter::from_fn(move || {
        let part = bytes.split_to(bytes.len().min(PEER_BYTES_MAX));
        (!part.is_empty()).then(|| (!bytes.is_empty(), part))
    })
}
