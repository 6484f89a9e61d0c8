//! Why one holder did not do what it was asked.

use std::fmt;

use crate::wire::ErrorCode;

/// What kind of failure it was: what the rules look at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailureKind {
    /// It could not be reached, or the connection broke.
    Unreachable,
    /// It did not answer, or stopped sending or taking bytes, for too long.
    Stalled,
    /// It is busy now.
    Busy,
    /// It has no space left.
    NoSpace,
    /// It says that the track was taken down.
    TakenDown {
        /// The takedown's number.
        number: u64,
    },
    /// It says that the request makes no sense, or that the bytes sent are not the id's.
    Invalid,
    /// What it holds or sent does not pass its checks.
    Corrupt,
    /// It has a newer map, by which it may not be the one to ask.
    Moved {
        /// The epoch of its map.
        epoch: u64,
    },
    /// It is another node, of another cluster, takes no part, or does not admit the asker.
    Refused,
    /// It does not speak a version of the protocol that has this.
    Version,
    /// It failed in some other way, or broke the protocol.
    Internal,
}

/// One holder's failure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What kind it was.
    pub kind: FailureKind,
    /// Why, for people.
    pub why: String,
}

impl Failure {
    /// A failure of this kind.
    #[must_use]
    pub fn new(kind: FailureKind, why: impl Into<String>) -> Self {
        Self { kind, why: why.into() }
    }

    /// The failure that an [`Error`](crate::wire::Message::Error) reply tells of. A reply of `NotFound` is no failure
    /// where one asked for a track (see [`ReadPlan`](crate::ReadPlan)); anywhere else it is one.
    #[must_use]
    pub fn from_reply(code: ErrorCode, message: impl Into<String>) -> Self {
        let kind = match code {
            ErrorCode::Busy | ErrorCode::Later { .. } => FailureKind::Busy,
            ErrorCode::TakenDown { number } => FailureKind::TakenDown { number },
            ErrorCode::NoSpace => FailureKind::NoSpace,
            ErrorCode::Corrupt => FailureKind::Corrupt,
            ErrorCode::Invalid => FailureKind::Invalid,
            ErrorCode::Moved { epoch } => FailureKind::Moved { epoch },
            ErrorCode::WrongNode | ErrorCode::WrongCluster | ErrorCode::Fenced | ErrorCode::NotAdmitted => {
                FailureKind::Refused
            }
            ErrorCode::Version => FailureKind::Version,
            ErrorCode::NotFound | ErrorCode::Internal => FailureKind::Internal,
        };
        Self { kind, why: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// What a request's failed holders amount to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The track was taken down: final.
    TakenDown {
        /// The takedown's number.
        number: u64,
    },
    /// The request is wrong: do not repeat it.
    Invalid,
    /// Every failed holder is full.
    NoSpace,
    /// Every failed holder is busy or full, at least one of them busy: try later.
    Busy,
    /// Every failed holder found its copy corrupt.
    Corrupt,
    /// The request's own deadline passed before it was decided.
    Expired,
    /// It cannot be told, or not be done, now.
    Unavailable,
}

impl Verdict {
    /// The verdict on these failures. The first two need one voice: a takedown is final whoever tells of it, and what
    /// one holder found wrong with a request would be wrong with it anywhere. The others need all voices.
    #[must_use]
    pub fn of<'a>(failures: impl IntoIterator<Item = &'a Failure> + Clone) -> Self {
        let any = |wanted: fn(&FailureKind) -> bool| failures.clone().into_iter().find(|failure| wanted(&failure.kind));
        let mut kinds = failures.clone().into_iter().map(|failure| failure.kind).peekable();
        let none = kinds.peek().is_none();
        if let Some(Failure { kind: FailureKind::TakenDown { number }, .. }) =
            any(|kind| matches!(kind, FailureKind::TakenDown { .. }))
        {
            return Self::TakenDown { number: *number };
        }
        if any(|kind| *kind == FailureKind::Invalid).is_some() {
            return Self::Invalid;
        }
        if none || any(|kind| !matches!(kind, FailureKind::NoSpace | FailureKind::Busy)).is_some() {
            let corrupt = !none && any(|kind| *kind != FailureKind::Corrupt).is_none();
            return if corrupt { Self::Corrupt } else { Self::Unavailable };
        }
        if any(|kind| *kind == FailureKind::Busy).is_some() { Self::Busy } else { Self::NoSpace }
    }
}
