//! What is known about a node, and about all of them.

use serde::Serialize;

use super::brake::Brake;
use crate::NodeId;

/// Why a node counts as down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DownBy {
    /// Others and this node could not reach it.
    Swim,
    /// It answers SWIM, but this node's requests to it fail.
    Requests,
}

/// Why a node counts as dead.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadBy {
    /// The map's log says so: an operator, or a leader that knew of its silence.
    Declared,
    /// It was silent for so long, as this node saw it.
    Silence,
}

/// How a node stands, as far as this one knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is there, or nothing is known against it.
    Up,
    /// It is not there at the moment: a hint. Nothing is moved.
    Down {
        /// Since when, in ms of the driver's clock.
        since_ms: u64,
        /// Why.
        by: DownBy,
    },
    /// Its tracks are to be protected anew.
    Dead {
        /// Since when, in ms of the driver's clock.
        since_ms: u64,
        /// Why.
        by: DeadBy,
    },
}

impl Standing {
    /// Whether it is up.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(self, Self::Up)
    }

    /// Whether it is dead.
    #[must_use]
    pub const fn is_dead(&self) -> bool {
        matches!(self, Self::Dead { .. })
    }

    /// In which order to ask nodes, lowest first: those up, those that fail but are heard, those down, the dead.
    #[must_use]
    pub const fn rank(&self) -> u8 {
        match self {
            Self::Up => 0,
            Self::Down { by: DownBy::Requests, .. } => 1,
            Self::Down { by: DownBy::Swim, .. } => 2,
            Self::Dead { .. } => 3,
        }
    }
}

/// One node of a [`Report`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct NodeReport {
    /// Which.
    pub node: NodeId,
    /// Its zone.
    pub zone: String,
    /// How it stands.
    pub standing: Standing,
    /// How long it was silent while this node was in contact with others, in ms. Zero where SWIM says that it is there.
    pub silent_ms: u64,
}

/// What status shows of liveness. The map's nodes without this one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// How many are up.
    pub up: usize,
    /// Those that are not, by name.
    pub not_up: Vec<NodeReport>,
    /// The zones where nothing is moved, by name.
    pub brakes: Vec<Brake>,
    /// When this node last heard from another, in ms of the driver's clock.
    pub heard_ms: u64,
}
