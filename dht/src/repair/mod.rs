//! A node's pulls: what its volumes lack, from whom it comes, in which order and how fast.
//!
//! **Promise.** All data that moves between nodes, but for clients' puts, moves by a pull of the node that lacks it:
//! repair of a dead node, rebalance, what anti-entropy found, hand-back of a stand-in's copies, a frame that rotted.
//! [`Repair`] is one node's queue of them. The track with the fewest copies goes first; nothing waits for ever; pulls
//! and what is served to others keep to a rate between a floor and a ceiling, which foreground latency decides; and at
//! any time [`Repair::status`] says what is left, how fast it goes, when it is done, and if nothing goes, why.
//!
//! **Participants.** The core tells what is wanted (it learns it by anti-entropy) and which nodes are up. The driver
//! carries out a [`Pull`] and tells its end. The node that is asked for a track asks its own [`Repair::may_serve`]
//! first.
//!
//! **On failure.** A source that cannot be reached, or is busy, is left alone for a while, and another is asked. One
//! that lacks the track, or whose copy is corrupt, is not asked for it again until it is told anew. An own drive that
//! is full or fails rests whole. What is wanted and has no source is dropped after some minutes, and what does not fit
//! into memory at once: **a want is a hint**. Anti-entropy compares what there is, and tells again whatever still
//! differs.
//!
//! **Bounds.** [`RepairSettings::wants_max`] wants: about 100 bytes each with what a partition takes if there are
//! sixteen a partition and volume, 250 if each is of another. An input takes time by the logarithm of the wants, and a
//! little for each own volume: 1 to 4 microseconds. Where nothing is wanted there is no timer.
//!
//! **Where to start.** [`Repair`]; it composes a queue for each own volume, what is known of the peers that are
//! sources, and a throttle.
//!
//! **Absent on purpose.** Messages: who asks whom for which bytes is the driver's, the same as for a client's get.
//! Order within a drive: pulls go by partition and then by id; the serving node's engine knows which segments those are
//! in. Whether a pulled track may be kept (takedowns, the map) is decided where it is stored.

mod class;
mod machine;
mod meter;
mod peers;
mod queue;
mod serving;
mod settings;
mod status;
mod throttle;
mod want;

pub use class::Reason;
pub use machine::Repair;
pub use serving::Busy;
pub use settings::RepairSettings;
pub use status::{ClassStatus, RepairStatus, Stall};
pub use want::{Pull, PullError, Source, Want};
