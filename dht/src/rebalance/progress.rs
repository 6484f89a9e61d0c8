//! What status shows of the rebalance.

use std::collections::BTreeSet;

use crate::VolumeId;

/// How far it is. Partitions are counted.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Progress {
    /// In motion: new holders copy.
    pub joint: usize,
    /// In motion: new holders have all.
    pub synced: usize,
    /// Arrived; the old copies are to be released.
    pub settled: usize,
    /// Waiting: a holder is dead.
    pub waiting_copies: usize,
    /// Waiting: zones or racks are not as they could be.
    pub waiting_zones: usize,
    /// Waiting: a holder is leaving.
    pub waiting_leaving: usize,
    /// Waiting: a volume has more than its share.
    pub waiting_balance: usize,
    /// Held by a brake: a holder was declared dead in a zone where a mass vanished, or shares are off for that reason.
    pub braked: usize,
    /// No live copy is left: only its dead holders could bring it back.
    pub lost: usize,
    /// Something changed since the last plan: there may be more to move.
    pub planning: bool,
    /// What keeps it from going on, if something does.
    pub stall: Option<Stall>,
}

/// Why nothing goes on, or not all of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stall {
    /// Fewer nodes are neither dead nor leaving than there are copies: there is nowhere to move to.
    TooFewNodes {
        /// How many nodes are left.
        nodes: usize,
        /// How many copies there are.
        copies: u8,
    },
    /// So many drives were out for too long, and cannot leave: too few nodes have others.
    Kept {
        /// How many drives.
        drives: usize,
        /// How many copies there are.
        copies: u8,
    },
    /// A proposal is not decided: a majority of the voters may be missing.
    NoDecision {
        /// Since when, in ms of the driver's clock.
        since_ms: u64,
    },
    /// Brakes hold what there is to do.
    Brake {
        /// In these zones.
        zones: BTreeSet<String>,
    },
    /// New holders have not yet reported that they have all, or old ones that they know: this one is waited for by the most
    /// partitions. A new one that is up itself waits for old ones that are down, until they are up or declared dead.
    Reports {
        /// Which volume.
        volume: VolumeId,
        /// How many partitions wait for it.
        partitions: usize,
    },
    /// Of this many partitions there is no live copy.
    Lost {
        /// How many.
        partitions: usize,
    },
}

impl Stall {
    /// A sentence for people, at `now` in ms of the driver's clock.
    #[must_use]
    pub fn sentence(&self, now: u64) -> String {
        match self {
            Self::TooFewNodes { nodes, copies } => format!(
                "{nodes} nodes are neither dead nor leaving, too few for {copies} copies: there is nowhere to move to, add nodes"
            ),
            Self::Kept { drives, copies } => format!(
                "{drives} drives are lost, and too few nodes have others for {copies} copies: nothing is made anew elsewhere, \
                 replace them or add nodes"
            ),
            Self::NoDecision { since_ms } => format!(
                "a change is not decided for {} s: a majority of the voters may be missing",
                now.saturating_sub(*since_ms) / 1_000
            ),
            Self::Brake { zones } => {
                let zones: Vec<&str> = zones.iter().map(String::as_str).collect();
                format!("much vanished at once, nothing moves on its account: zone {}", zones.join(", "))
            }
            Self::Reports { volume, partitions } => {
                format!("{partitions} partitions wait for volume {volume}, which copies, or is down")
            }
            Self::Lost { partitions } => format!("of {partitions} partitions no live copy is left"),
        }
    }
}
