//! The map log: how a cluster agrees on its description, epoch by epoch.
//!
//! **Participants.** Three to seven *voters* keep a Raft log (Ongaro and Ousterhout, "In search of an understandable
//! consensus algorithm", 2014) of [`Proposal`]s; every node, voter or not, has a [`History`]: the chain of [`Record`]s
//! that came of them. A *driver* (a node's daemon, a simulation) moves messages, writes to the drive, and tells the
//! time.
//!
//! **Where to start.** [`Change`] is what can be asked for; [`State`] what an epoch describes and the rules;
//! [`History`] the verified chain; [`Consensus`] the voter.
//!
//! **The way of a change.** Somebody plans it at an epoch and sends it to the voter that leads, as a [`Proposal`].
//! [`Consensus::propose`] refuses at once what breaks a rule. When Raft has committed it, each voter decides it alone
//! and alike ([`History::decide`]): it becomes the next record unless a rule is broken, or a record that came after the
//! proposal's epoch touched what it touches. The proposer is told. Records go to all other nodes by [`History::since`],
//! from any that has them, and are checked by their hashes.
//!
//! **The way of a partition.** Its [`Stage`]s are records of this log; when each may come is for those who propose it
//! to know ([`crate::rebalance`]): `Synced` when the new holders have said that they have all, `Settled` only when
//! enough of the old ones know `Synced`'s epoch. `transition.rs` draws it.
//!
//! **The way to a later version.** The bytes here have none of their own that two programs could agree on. A state says
//! at which version of the protocol the cluster is finalised, each [`Change`] with which it came ([`Change::since`]), and
//! no state takes a later one. So a node of the version before reads all there is until [`Change::Finalise`], which
//! it reads, too, and by which it stops.
//!
//! **What happens on each failure.**
//!
//! - *Fewer than a majority of voters are there:* no change is decided. Every history stays and answers, so that reads
//!   and writes go on at the last epoch.
//! - *They are lost for good:* an operator has one node that is left write [`Change::Refound`] behind its history
//!   ([`History::refound`]), by which it is the only voter, in a new seat; others learn of it as of any record, and it gives
//!   them seats. What it did not know to be decided is not of this log. Whoever does decides on with the lost ones, should
//!   they come back, or two refound, has *another* log, of another name ([`State::line_at`]), and neither takes records of it.
//! - *A message is lost, comes twice or late:* Raft sends it again. Nothing depends on order.
//! - *A voter stops:* it goes on from its [`Durable`] state. One that has lost it must not vote in its old seat, and
//!   does not, since each seat names the process that may begin it ([`Voter::life`]): it
//!   gets a new one by [`Change::RenewSeats`], or another node does by [`Change::SetVoters`].
//! - *A voter cannot read what was decided:* it is of a later version. The voter stops until it runs that version,
//!   and its node with it.
//! - *A node was away for long:* [`History::since`] gives a checkpoint and the records after it.
//! - *A change was wrong, and much has moved since:* [`History::earlier`] says what was before it, which outlasts records.
//! - *Bytes are forged, or of another chain:* a typed error; nothing is changed.
//!
//! **Randomness.** Only a voter's election timeout is random, and comes from the seed in [`ConsensusConfig`]. The crate
//! `raft` draws its own from the system; its own timeout is set out of reach, and elections are called from here.
//!
//! **Absent on purpose.** Sockets, drives and clocks. Moving data (the mover does, told by [`State::transitions`]).
//! Signatures on records: peers are admitted by their keys, and voters are trusted (Raft's model, not Byzantine).

mod batch;
mod change;
mod codec;
mod consensus;
mod history;
mod lists;
mod moves;
mod record;
mod rules;
mod spec;
mod state;
mod touch;
mod transition;
mod undo;

pub use batch::{Batch, Checkpoint};
pub use change::Change;
pub use codec::BadBytes;
pub(crate) use codec::{Reader, Writer};
pub use consensus::{
    BadMessage, BadStart, Consensus, ConsensusConfig, Durable, Effect, Entry, Message, Outcome, Persist, ProposeError,
    Snapshot, Vote,
};
pub use history::{BadHistory, History, Refusal};
pub use record::{Proposal, Record, Ticket};
pub use rules::BadChange;
pub(crate) use spec::{
    read_node, read_policy, read_rack, read_spec, read_volume, write_node, write_policy, write_rack, write_spec,
    write_volume,
};
pub use state::{BadState, Grant, Refounding, State, Token, Voter};
pub use touch::Thing;
pub use transition::{Holders, Move, Stage, Transition};
pub use undo::Earlier;

const MIB: usize = 1 << 20;

/// The fewest voters, but for the time after a refounding: with two, either one's failure would stop the log.
pub const VOTERS_MIN: usize = 3;
/// The most voters: three of seven may fail, and every record is written seven times.
pub const VOTERS_MAX: usize = 7;
/// The most records that a history keeps behind its newest epoch.
pub const RECORDS_MAX: usize = 64;
/// The most bytes of those records together, where there are several; older ones are forgotten before their time where they
/// are large. In memory each partition that a map puts somewhere takes four times its bytes. What is kept decides proposals,
/// so that this may change only with a version of the protocol.
pub const RECORDS_BYTES_MAX: usize = 4 * MIB;
/// Of how many operators' changes a checkpoint keeps what was before them, beside the records that come after it.
pub const UNDOS_MAX: usize = 64;
/// The most bytes of that together, where there are several: one of a node has some hundred, and one of all nodes of the
/// largest map some MiB.
pub const UNDOS_BYTES_MAX: usize = 4 * MIB;
/// The most partitions that one change may name.
pub const MOVES_MAX: usize = 4_096;
/// How often a log may be begun anew.
pub const REFOUNDINGS_MAX: usize = 64;
/// The most tokens that were not used yet.
pub const TOKENS_MAX: usize = 64;
/// The most bytes of a state: 10,000 nodes of some 100 drives, with short names.
pub const STATE_BYTES_MAX: usize = 24 * MIB;
/// The most bytes of a record. One that rolls back, or reshapes, carries a whole map.
pub const RECORD_BYTES_MAX: usize = STATE_BYTES_MAX + 4 * 1024;
/// The most bytes of a proposal.
pub const PROPOSAL_BYTES_MAX: usize = RECORD_BYTES_MAX;
/// The most bytes of a batch: a checkpoint (its record, its state, and what was before changes: of one change no more than a
/// state has, and who came) and the records after it.
pub const BATCH_BYTES_MAX: usize = 2 * RECORD_BYTES_MAX + 2 * STATE_BYTES_MAX + 2 * MIB;
const _: () =
    assert!(RECORDS_BYTES_MAX <= RECORD_BYTES_MAX, "the records of a batch have no more bytes than the longest");
const _: () = assert!(UNDOS_BYTES_MAX <= STATE_BYTES_MAX, "several changes have no more bytes than the longest");
/// The most bytes of a message between voters: a snapshot is a batch.
pub const MESSAGE_BYTES_MAX: usize = BATCH_BYTES_MAX + MIB;
