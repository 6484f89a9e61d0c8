//! What may be set about routing.

use super::lookup::LookupRules;
use super::table::TableRules;

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;

/// How a [`Router`](super::Router) behaves. `k` and the announcing times must agree across the cluster; the rest may
/// differ by node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouterSettings {
    /// Contacts a bucket, contacts an answer, and nodes that keep a record. Default 20. More cost memory and
    /// announcing, and spare rounds.
    pub k: usize,
    /// Requests under way in a lookup that is still approaching. Default 3. More cost requests and spare waiting where
    /// many nodes are dead.
    pub alpha: usize,
    /// Records that end a lookup. Default 2: one node that missed an epoch is outvoted.
    pub records_min: usize,
    /// How long a request may hold up others of its lookup, in ms. Default 500.
    pub patience_ms: u64,
    /// How long a request may go without an answer, in ms. Default 2,000.
    pub request_ms: u64,
    /// How long a lookup may take, in ms. Default 15,000.
    pub lookup_ms: u64,
    /// Failures in a row that make a contact doubtful. Default 2: one lost packet costs nobody their place.
    pub failures_max: u8,
    /// How long the oldest contact of a full bucket may be silent before another may challenge it, in ms. Default
    /// 15 minutes. Less costs pings.
    pub quiet_ms: u64,
    /// How long a bucket may go without a lookup in it, in ms. Default 1 hour.
    pub refresh_ms: u64,
    /// The same for a node that has the map, which asks nobody for the way, in ms. Default 1 day. Not less than
    /// `refresh_ms`.
    pub refresh_mapped_ms: u64,
    /// How often a record is announced while all its holders live, in ms: they take turns, each its own
    /// ([`turn_ms`](Self::turn_ms)). Default 6 hours. Less costs k messages a partition each time.
    pub republish_ms: u64,
    /// In what time a holder announces what is new in a new map, in ms. Default 5 minutes.
    pub announce_ms: u64,
    /// How long a record is kept after it was last announced, in ms. Default 24 hours. At least twice `republish_ms`.
    pub expire_ms: u64,
    /// How often a node without a map asks for one, in ms. Default 1 minute.
    pub map_missing_ms: u64,
    /// How often a node with a map asks for a newer one, in ms. Default 10 minutes; frames tell epochs, too.
    pub map_check_ms: u64,
    /// The most records kept for others. Default 16,384: a node's share where there are 80, some 4 MiB.
    pub records_max: usize,
    /// The most partitions that are being resolved at a time; one more is busy. Default 64.
    pub resolves_max: usize,
    /// The most records that are being announced at a time. Default 16.
    pub publishes_max: usize,
}

impl Default for RouterSettings {
    fn default() -> Self {
        Self {
            k: 20,
            alpha: 3,
            records_min: 2,
            patience_ms: 500,
            request_ms: 2 * SECOND_MS,
            lookup_ms: 15 * SECOND_MS,
            failures_max: 2,
            quiet_ms: 15 * MINUTE_MS,
            refresh_ms: HOUR_MS,
            refresh_mapped_ms: 24 * HOUR_MS,
            republish_ms: 6 * HOUR_MS,
            announce_ms: 5 * MINUTE_MS,
            expire_ms: 24 * HOUR_MS,
            map_missing_ms: MINUTE_MS,
            map_check_ms: 10 * MINUTE_MS,
            records_max: 16_384,
            resolves_max: 64,
            publishes_max: 16,
        }
    }
}

impl RouterSettings {
    /// The rules of the table.
    #[must_use]
    pub const fn table(&self) -> TableRules {
        TableRules { k: self.k, failures_max: self.failures_max, quiet_ms: self.quiet_ms, refresh_ms: self.refresh_ms }
    }

    /// The rules of a lookup.
    #[must_use]
    pub const fn lookup(&self) -> LookupRules {
        LookupRules {
            k: self.k,
            alpha: self.alpha,
            records_min: self.records_min,
            patience_ms: self.patience_ms,
            lookup_ms: self.lookup_ms,
        }
    }

    /// How often one of `holders` holders announces a record, in ms. As many as can take turns so that each by itself
    /// still comes before the record expires, with a `republish_ms` to spare: no holder needs to know of the others'
    /// clocks or lives, and a record is kept for as long as any of them lives.
    #[must_use]
    pub fn turn_ms(&self, holders: usize) -> u64 {
        let turns = (self.expire_ms / self.republish_ms.max(1)).saturating_sub(1).max(1);
        self.republish_ms.saturating_mul(turns.min(u64::try_from(holders).unwrap_or(u64::MAX)).max(1))
    }

    /// How long a node is new, in ms: in that time every record that is kept anywhere has been announced once.
    #[must_use]
    pub const fn settle_ms(&self) -> u64 {
        self.expire_ms
    }
}
