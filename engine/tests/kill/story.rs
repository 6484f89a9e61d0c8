//! What the process under load tells: each operation before it begins, and what came of it after it returned.
//!
//! One line each, written at once: shorter than a pipe's atomic write, a line is told whole or not at all.

use std::fmt;
use std::str::FromStr;

/// What is done to a track. To add one: here, in [`settle`](crate::model), and in the load.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Operation {
    Put,
    /// A put that is dropped before its end.
    Abort,
    TakeDown,
    /// A delete: the track may be put again.
    Delete,
    Read,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Outcome {
    /// Done, and durable.
    Done,
    /// The track is stored already.
    Stored,
    /// It is not stored.
    Missing,
    /// It was taken down.
    Barred,
    /// The volume is full.
    NoSpace,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Line {
    /// The executor runs, the volume is about to be opened.
    Opening,
    Opened,
    Begin(Operation, u64),
    End(Operation, u64, Outcome),
    /// Hollow segments are about to be freed: no track changes by that.
    Compacting,
    Compacted,
    /// What must never happen. The load is over.
    Failed(String),
}

const OPERATIONS: [(Operation, &str); 5] = [
    (Operation::Put, "put"),
    (Operation::Abort, "abort"),
    (Operation::TakeDown, "take_down"),
    (Operation::Delete, "delete"),
    (Operation::Read, "read"),
];

const OUTCOMES: [(Outcome, &str); 5] = [
    (Outcome::Done, "done"),
    (Outcome::Stored, "stored"),
    (Outcome::Missing, "missing"),
    (Outcome::Barred, "barred"),
    (Outcome::NoSpace, "no_space"),
];

fn name<T: Copy + PartialEq>(of: T, all: &[(T, &'static str)]) -> &'static str {
    all.iter().find(|(value, _)| *value == of).expect("all are listed").1
}

fn named<T: Copy>(name: &str, all: &[(T, &'static str)]) -> Result<T, String> {
    all.iter().find(|(_, known)| *known == name).map(|(value, _)| *value).ok_or_else(|| format!("no {name} is known"))
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opening => f.write_str("opening"),
            Self::Opened => f.write_str("opened"),
            Self::Compacting => f.write_str("compacting"),
            Self::Compacted => f.write_str("compacted"),
            Self::Begin(operation, number) => write!(f, "begin {} {number}", name(*operation, &OPERATIONS)),
            Self::End(operation, number, outcome) => {
                write!(f, "end {} {number} {}", name(*operation, &OPERATIONS), name(*outcome, &OUTCOMES))
            }
            Self::Failed(why) => write!(f, "failed {}", why.replace('\n', " ")),
        }
    }
}

impl FromStr for Line {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|error| format!("{text}: {error}"));
        if let Some(why) = text.strip_prefix("failed ") {
            return Ok(Self::Failed(why.to_owned()));
        }
        match text.split(' ').collect::<Vec<_>>()[..] {
            ["opening"] => Ok(Self::Opening),
            ["opened"] => Ok(Self::Opened),
            ["compacting"] => Ok(Self::Compacting),
            ["compacted"] => Ok(Self::Compacted),
            ["begin", operation, track] => Ok(Self::Begin(named(operation, &OPERATIONS)?, number(track)?)),
            ["end", operation, track, outcome] => {
                Ok(Self::End(named(operation, &OPERATIONS)?, number(track)?, named(outcome, &OUTCOMES)?))
            }
            _ => Err(format!("no line of the story: {text}")),
        }
    }
}
