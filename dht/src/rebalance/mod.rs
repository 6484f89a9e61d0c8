//! What moves where, decided by the voter that leads; and operators' commands as records of the log.
//!
//! **Promise.** A partition's holders change by transitions only, whatever an operator asks for or fails: a record that
//! changes nodes, weights, zones or racks pins every partition to where its copies are ([`pin`]), and what is then not
//! where it should be moves, one copy of a partition at a time where a set on the way keeps the rules. In the end no
//! dead or leaving volume holds anything that can be held elsewhere, and every volume has its fair share to within 2 %.
//!
//! **Participants.** The [`Rebalance`] at the voter that leads; the log ([`crate::log`]); new holders, who say with
//! [`Synced`] when they have all; operators with [`Command`]s. What a new holder lacks it pulls by itself (repair).
//!
//! **Where to start.** [`Rebalance`] is the machine, [`Settings`] its limits, [`Progress`] what it shows.
//!
//! **No memory.** Nothing is kept but in the log: who holds what, what is in transition, who is dead, which volumes
//! leave. The target follows from that, so a new leader takes up where the last one stopped, and two operations at once
//! are one target.
//!
//! **What happens on each failure.**
//!
//! - *A proposal is refused, or nobody knows:* what it was to do is planned anew from the newest state.
//! - *The leader changes:* the new one plans from the state. It counts only reports of epochs that it has seen the
//!   transition at; new holders report again.
//! - *A new holder dies, or is to be drained:* the transition is aborted. The old holders have everything.
//! - *An old holder is down:* the transition waits until it is up or declared dead, as it may have what others lost.
//! - *An old holder's drive is lost:* once it leaves, and its node has answered for two minutes without it, it is not
//!   waited for.
//! - *An old holder dies:* the transition goes on; the next target leaves it out. As it may live and be cut off, it is
//!   waited for as any other, for the lease at most, before readers are done with the old holders.
//! - *A node is silent for 30 minutes:* it is declared dead, unless its zone is braked. Where a zone is braked, nothing
//!   begins on account of its dead, either.
//! - *A drive is out for 30 minutes while its node lives:* it is to leave from then on, as by an operator's word, unless so many
//!   went at once that its zone is braked, or too few nodes have others. It has copies again by an operator's word only, as one
//!   that comes and goes would have them moved each time.
//! - *A node that votes is removed:* another gets its seat first, and its record waits until that is settled.
//! - *A node that is named as a voter is down, or new:* it gets no seat before it was heard of at an epoch.
//! - *A node is too old, or not heard, where the cluster is to be finalised:* nothing comes of it, and it is named.
//! - *A token is shown twice, be it to two nodes at once:* the log takes one record of it. Whoever is in the map already is
//!   done, whatever he shows.
//! - *No copy is left:* the partition stays where it is and is counted ([`Progress::lost`]): only the dead can bring it
//!   back.
//! - *Too few nodes are left for all copies:* nothing moves; the reason is shown.
//!
//! **Absent on purpose.** The copying (repair) and what is compared (sync). Changing the number of copies and the write
//! quorum: the one would need every partition's holders to be other in number; with the other, nodes that do not know of it
//! yet would call absent what was acknowledged by the lower of the two. Declaring a node alive by itself: an operator does,
//! as its drives may be others.

mod command;
mod command_bytes;
mod effect;
mod facts;
mod machine;
mod motion;
mod pin;
mod progress;
mod queue;
mod synced;
mod target;
mod token;

pub use command::Command;
pub use command_bytes::COMMAND_BYTES_MAX;
pub use effect::{Answer, Decision, Effect, Forecast, NAMED_MAX, Named, Refused};
pub use machine::{COMMANDS_MAX, PROPOSALS_MAX, Rebalance, Settings};
pub use pin::pin;
pub use progress::{Progress, Stall};
pub use synced::{SYNCED_PARTITIONS_MAX, Synced, old_holders_needed};
pub use target::Reason;
