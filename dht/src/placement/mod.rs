//! Who holds a partition: weighted rendezvous over volumes, in integers only, and a table of exceptions that evens out
//! what chance leaves uneven.
//!
//! Each volume draws a number for each partition (`draw.rs`). The lowest draws hold the partition, as far as zones,
//! racks and nodes allow (`roster.rs` says how many copies each zone takes, `choice.rs` picks). These rules are nested,
//! so that taking draws in order is the best choice, and one more volume changes at most one holder of a partition.
//!
//! [`Assignment`] is the result for all partitions; from one map to the next only what a changed volume can touch is
//! drawn again. `fair.rs` says what each volume should hold, [`balance`] which partitions must lie elsewhere for that,
//! and `arrivals.rs` who takes over the copies of a volume that is lost or leaves.

mod arrivals;
mod assignment;
mod balance;
mod choice;
mod draw;
mod fair;
mod log2;
mod roster;
mod table;

pub(crate) use self::assignment::{Assignment, GONE, Step};
pub(crate) use self::balance::{Balanced, rebalance, rebalance_on, settle};
pub(crate) use self::fair::COPY;
pub(crate) use self::roster::{Roster, Seat};
use crate::VolumeId;

/// A volume that holds a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Its node: an index into [`Map::nodes`](crate::Map::nodes).
    pub node: usize,
    /// The volume.
    pub volume: VolumeId,
    /// Its zone: an index into [`Map::zones`](crate::Map::zones).
    pub zone: usize,
}
