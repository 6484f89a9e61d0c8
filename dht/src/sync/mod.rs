//! Anti-entropy: volumes that hold the same partitions find out where they differ.
//!
//! **Promise.** What one co-holder has and another lacks is told as [`Effect::Missing`] within 60 s of the change that
//! made it so, as long as messages come through, and for less than 20 KB a second and node; only what is missing is
//! told. (After a long absence, with thousands of differences, it takes longer and more, see *Bytes*.) What is called
//! equal was equal at one time after the comparison began. A stray is called covered only when every holder has it.
//!
//! **Participants.** Each node has one [`Sync`]. Its driver tells it what the node's volumes hold (`open_volume`,
//! `stored`, `erased`), who holds what (`set_layout`), what peers send, and the ids that it asks for; see [`Sync`].
//!
//! **How.** Two volumes that share partitions are a *pair*. Each end keeps the XOR of a hash of every shared
//! partition's digest. A change makes the pair's partition *unequal*; a pair with unequal partitions is compared some 3
//! s later, and every 10 s at most: one message and one answer where all is equal. Else the two descend a tree of 16
//! children a branch, and 3 s later, for the partitions that differ, exchange digests of ranges of ids, then short forms of
//! the ids in the ranges that differ, then those ids: both directions at once. What is still missing 5 s later is told. All
//! this waits for puts under way, which arrive meanwhile. Pairs without a change are compared every 10 minutes, in case a
//! change was not told.
//!
//! *In a hurry* is what was not equal since it came to the pair: the partitions that move, those of a volume that was opened,
//! and what changed before a peer was back. A move waits for it, and nothing is called absent before. It is compared within
//! half a second, its lists are exchanged at once, what is missing a second later is told, and when something of it has come
//! it is compared again: at least a second after the last time, and later where that took more bytes. What nobody can pull
//! is in a hurry no more once its lists were exchanged three times.
//!
//! A *stray* is a track on a volume that does not hold its partition. It is offered to all holders, by its id; those
//! that lack it tell it missing.
//!
//! **What happens on each failure.**
//!
//! - *Messages are lost:* the comparison ends after 5 s and begins anew, after 10, 20, ... 60 s;
//!   in a hurry, the first four at once, after 1 s each. What follows the
//!   descent has no state at all: where it breaks off, the next comparison finds the same difference.
//! - *Messages come twice, late or in another order:* each names the comparison of both ends and its step, and is
//!   ignored where it does not fit. The lists' messages can be taken at any time: ids that are there are never missing.
//! - *A peer is down, or cut off:* 100 bytes a minute for each pair that is unequal; it is compared soon when it is back
//!   (`handle_reachable`), or was heard of (`handle_heard`).
//! - *The two see different layouts:* partitions that only one of them counts are never equal; compared again every
//!   minute.
//! - *A difference stays, because nobody can pull it:* its lists are exchanged three times, then every 2 minutes.
//! - *A queue is full:* lists not asked for, tracks not remembered: the next comparison finds them again.
//!
//! **Measured** (`tests/rules/sync/load.rs`): three nodes with 65,536 partitions and 300 puts a second send below 1.5 KB a
//! second and node, idle ones 5 bytes; the slowest difference was found after 18 s, and nothing was told that was not
//! missing. 60,000 tracks missed in an absence take some 3 minutes to find.
//!
//! **Bytes.** Two budgets a node, see [`Settings`]: comparisons have 20 KB a second; lists have more, because after a
//! long absence there may be a million of differences, each of which costs some 700 bytes to find and millions to mend.
//!
//! **Absent on purpose.** The ids themselves (the driver's index has them), pulling, and what may be erased besides
//! strays.

mod branch;
mod buckets;
mod budget;
mod compare;
mod inventory;
mod layout;
mod lists;
mod machine;
mod message;
mod pair;
mod shares;
mod strays;
mod suspects;

pub use branch::Branch;
pub use inventory::Inventory;
pub use machine::{Effect, Holder, Settings, Sync};
pub use message::{BITS_MAX, Body, Entry, MESSAGE_BYTES_MAX, Message};

/// The most entries of one message of a comparison.
pub const ENTRIES_MAX: usize = 4_096;
/// The most ids of one message.
pub const IDS_MAX: usize = 256;
/// The most short forms of one message.
pub const SHORTS_MAX: usize = 4_096;
/// The most ids that are sent because of one message, in several: the rest of a large difference goes the next time.
pub const IDS_SENT_MAX: usize = 4_096;
/// The most lists of ids that are asked of the driver at once; further messages that need one are dropped.
pub const LISTS_MAX: usize = 64;
/// The most tracks that wait to be called missing; further ones are found again.
pub const SUSPECTS_MAX: usize = 16_384;
/// The most stray partitions that are offered at once.
pub const OFFERS_MAX: usize = 16;
/// How long a comparison waits for an answer, in ms.
pub const ANSWER_MS: u64 = 5_000;
/// How long a comparison in a hurry is put off at most, in ms: a volume that was opened cannot say that anything is absent
/// before, and no put is under way on it yet that would have to settle.
pub const FIRST_MS: u64 = 500;
/// How often a pair in a hurry is compared without an answer before it takes its time, and how long it waits for each, in
/// ms: nodes that are started together are up one after another, and a peer may not know yet that a partition moves.
pub const HURRIES_MAX: u8 = 4;
/// See [`HURRIES_MAX`]; and how long a pair rests at least, and a track is missing before it is told, while that is in a
/// hurry.
pub const HURRY_MS: u64 = 1_000;
/// A pair that is in a hurry rests after a comparison until it took so many bytes a second: one that found nothing, or a
/// few partitions, goes on at once; one that found thousands has long lists to exchange, and much to pull.
pub const HURRY_BYTES_PER_S: u64 = 2_000;
/// Who hears from a peer so long after it began to compare itself, in ms, was not heard: messages that cross each other
/// on their way come sooner. Longer: a peer that was started later waits for the end of a comparison that it has not
/// heard of.
pub const CROSS_MS: u64 = 250;
/// How long lists wait after a partition was found to differ, in ms, unless something is in a hurry: puts under way arrive
/// meanwhile.
pub const LISTS_AFTER_MS: u64 = 3_000;
/// The longest wait for a peer that does not answer, in ms.
pub const WAIT_MS_MAX: u64 = 60_000;
/// How long an unchanged difference is left alone after it was exchanged, in ms.
pub const AGAIN_MS: u64 = 120_000;
