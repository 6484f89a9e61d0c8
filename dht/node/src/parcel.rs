//! Messages of other nodes that come in parts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use deadwax_dht::core::ENVELOPE_BYTES_MAX;
use deadwax_dht::wire::ErrorCode;

use crate::refusal::Refusal;
use crate::shard::Node;

/// The most bytes of messages that are not whole yet, of all connections together: two of the longest, as voters of a
/// large cluster send them; most messages come in one part.
const UNFINISHED_BYTES_MAX: usize = 2 * ENVELOPE_BYTES_MAX;

/// The parts that came of one message. Its memory is counted, and given back when it is dropped.
pub(crate) struct Parcel {
    node: Arc<Node>,
    bytes: Vec<u8>,
}

impl Parcel {
    pub(crate) const fn new(node: Arc<Node>) -> Self {
        Self { node, bytes: Vec::new() }
    }

    /// Takes the next part; after the last, the whole message.
    pub(crate) fn take(&mut self, part: &[u8], more: bool) -> Result<Option<Vec<u8>>, Refusal> {
        if self.bytes.len() + part.len() > ENVELOPE_BYTES_MAX {
            return Err(Refusal::invalid(format!("an envelope has {ENVELOPE_BYTES_MAX} bytes at most")));
        }
        if more {
            let unfinished = self.node.unfinished_bytes.fetch_add(part.len(), Ordering::Relaxed) + part.len();
            self.bytes.extend_from_slice(part);
            if unfinished > UNFINISHED_BYTES_MAX {
                let why = format!("{unfinished} bytes of messages are unfinished, the most is {UNFINISHED_BYTES_MAX}");
                return Err(Refusal::new(ErrorCode::Busy, why));
            }
            return Ok(None);
        }
        let mut whole = self.clear();
        whole.extend_from_slice(part);
        Ok(Some(whole))
    }

    fn clear(&mut self) -> Vec<u8> {
        self.node.unfinished_bytes.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        self.clear();
    }
}
