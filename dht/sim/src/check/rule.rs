//! The rules by name, so that it can be asked which one a mistake breaks.

use std::fmt;

/// A rule of the table in `check/mod.rs`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[expect(missing_docs, reason = "the table says what each asks for")]
pub enum Rule {
    Bytes,
    NoFalseAbsent,
    Durable,
    FirstSet,
    AbsentOwed,
    Resurrection,
    Receipts,
    OneOfTwo,
    Needed,
    Readable,
    ReadableAfterHealing,
    Writable,
    NoService,
    NoTakedownInvented,
    OneHistory,
    OneSeat,
    OneLayout,
    Answered,
    Placement,
    Movement,
    Convergence,
    Bounds,
    Progress,
    Standstill,
    Versions,
    Codec,
    Panic,
}

/// A rule that was broken, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// What happened, for people.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.text)
    }
}
