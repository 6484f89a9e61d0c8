//! What is wrong with bytes that are no message.

use super::frame::Kind;

/// The payload is no message of its kind.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadMessage {
    /// The bytes do not decode.
    #[error("{kind:?} message does not decode: {why}")]
    Payload {
        /// The frame's kind.
        kind: Kind,
        /// What is wrong.
        why: String,
    },
    /// Bytes follow the message.
    #[error("{kind:?} message is followed by {bytes} bytes")]
    Trailing {
        /// The frame's kind.
        kind: Kind,
        /// How many.
        bytes: usize,
    },
    /// A field is outside its limits.
    #[error("{kind:?} message breaks a limit: {field} is {got}")]
    Limit {
        /// The frame's kind.
        kind: Kind,
        /// Which field, and what it may be.
        field: &'static str,
        /// What it is.
        got: u64,
    },
}
