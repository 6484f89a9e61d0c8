//! What people and programs see of repair.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::class::Reason;

/// Wants of one class.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClassStatus {
    /// How many live copies are known: 1 stands for none, too, and 3 for more.
    pub copies: u8,
    /// Whether a zone that should have a copy has none.
    pub zoneless: bool,
    /// Why they are wanted.
    pub reason: Reason,
    /// How many.
    pub tracks: u64,
    /// Their bytes, in part by the mean length if some lengths are not known.
    pub bytes: u64,
}

/// Why nothing moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Stall {
    /// Nothing is wanted.
    Idle,
    /// An operator's word.
    Paused,
    /// The rate is used up for the moment: the more so where foreground latency holds it at the floor.
    Throttled,
    /// The own drives that lack something are full.
    DriveFull,
    /// The own drives that lack something fail.
    DriveFailed,
    /// The sources serve others.
    SourcesBusy,
    /// No source is up, or none can be reached.
    NoSourceUp,
    /// No node is known to have what is wanted.
    NoSource,
    /// All that is wanted failed lately, and is tried again.
    Retrying,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "nothing is wanted",
            Self::Paused => "paused by an operator",
            Self::Throttled => "the rate is used up for the moment",
            Self::DriveFull => "its drives are full",
            Self::DriveFailed => "its drives fail",
            Self::SourcesBusy => "the nodes that have copies serve others",
            Self::NoSourceUp => "no node that has copies can be reached",
            Self::NoSource => "no node is known to have copies",
            Self::Retrying => "all that is wanted failed lately, and is tried again",
        })
    }
}

/// A node's repair, as it stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RepairStatus {
    /// What is wanted, that which goes first first; classes of which there is nothing are left out.
    pub classes: Vec<ClassStatus>,
    /// How many tracks are wanted.
    pub tracks_left: u64,
    /// Their bytes, in part by the mean length if some lengths are not known.
    pub bytes_left: u64,
    /// Bytes a second that came, over the last minute.
    pub rate_bytes_s: u64,
    /// Bytes a second that may come at present, by foreground latency.
    pub rate_bytes_s_max: u64,
    /// How long it takes at the rate of the last minute, in ms; none if nothing came, or nothing is wanted.
    pub eta_ms: Option<u64>,
    /// Why nothing moves, if nothing does.
    pub stall: Option<Stall>,
    /// How long the oldest want has waited, in ms, to the second; 0 if there is none.
    pub oldest_ms: u64,
    /// Pulls in flight.
    pub pulls: usize,
    /// Pulls of others that are being served.
    pub serves: usize,
    /// Tracks that came, since the start.
    pub tracks_pulled: u64,
    /// Bytes that came, those of failed pulls too, since the start.
    pub bytes_pulled: u64,
    /// Pulls that failed, since the start.
    pub pulls_failed: u64,
    /// Wants that were dropped since the start: there were too many, or nobody had the track for long.
    pub wants_dropped: u64,
}
