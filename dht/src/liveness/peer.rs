//! What is known of a node other than that it is there.

use super::report::{DeadBy, DownBy, Standing};

/// How many requests in a row must fail for a node to count as down.
pub const FAILURES_MAX: u8 = 3;
/// How long that lasts after the last failure, in ms: then it is tried again.
pub const FAILING_MS: u64 = 30 * 1_000;

/// A node's absence, as SWIM tells it, or its cell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Absence {
    pub(super) since_ms: u64,
    /// When it began, in ms of contact: of the mass that vanished with it.
    pub(super) fell_at: u64,
    /// Since when nothing was heard from it, in ms of contact.
    pub(super) silent_from: u64,
    /// Since when it is dead by silence, in ms of the driver's clock.
    pub(super) silent: Option<u64>,
    /// An operator said that this absence is no reason to stop.
    pub(super) released: bool,
}

#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Peer {
    pub(super) absence: Option<Absence>,
    /// Requests that failed since one succeeded, the first and the last of them.
    pub(super) failures: u8,
    pub(super) failing_from: u64,
    pub(super) failed_at: u64,
    /// Since when the map's log calls it dead.
    pub(super) declared: Option<u64>,
}

impl Peer {
    /// Changes of a field alone make it another, never time alone: so each can be told.
    pub(super) const fn standing(&self) -> Standing {
        if let Some(since_ms) = self.declared {
            return Standing::Dead { since_ms, by: DeadBy::Declared };
        }
        if let Some(absence) = self.absence {
            return match absence.silent {
                Some(since_ms) => Standing::Dead { since_ms, by: DeadBy::Silence },
                None => Standing::Down { since_ms: absence.since_ms, by: DownBy::Swim },
            };
        }
        if self.failures >= FAILURES_MAX {
            return Standing::Down { since_ms: self.failing_from, by: DownBy::Requests };
        }
        Standing::Up
    }

    /// Whether nothing is known.
    pub(super) const fn is_blank(&self) -> bool {
        self.absence.is_none() && self.failures == 0 && self.declared.is_none()
    }
}
