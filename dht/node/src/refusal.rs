//! Why a request was not served, as the wire tells it.

use deadwax_dht::wire::{ErrorCode, Message};

/// An error reply in the making.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    /// The epoch at which it is so, where that is not simply the node's.
    pub(crate) epoch: Option<u64>,
}

impl Refusal {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), epoch: None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Invalid, message)
    }

    /// A shard ended in the middle of a request: the node is stopping.
    pub(crate) fn shard_ended() -> Self {
        Self::new(ErrorCode::Internal, "the node is stopping")
    }

    pub(crate) fn reply(self) -> Message {
        Message::error(self.code, self.message)
    }
}
