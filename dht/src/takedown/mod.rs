//! Takedowns: legal deletes, which every node follows and none forgets.
//!
//! **Promise.** What was taken down is never un-barred. A node that cannot tell whether it knows all takedowns does not
//! serve: [`Gate`] is asked on every put, get, repair and announce, and on every window of a long answer.
//!
//! **Participants.** *Issuers* are the Ed25519 keys (RFC 8032) that may take tracks down; the map lists them and never
//! drops one, because a new node must still be able to check what an old issuer signed. Each issuer has its own chain
//! of [`Takedown`]s, so that both sides of a cut may issue: a log is the union of the chains, and logs merge by union.
//! A *driver* (a node's daemon, a simulation) moves messages, writes records to the drive, and tells the time.
//!
//! **Where to start.** [`Follow`] is what a driver drives: it owns the log and the lease, and does the rounds.
//! [`TakedownLog`] is the set; [`Heads`] says how far one has it; [`Lease`] says whether this node may
//! serve; [`Gate`] asks both; [`Receipts`] prove that copies are gone; [`Ask`] and [`Answer`] are the two messages.
//!
//! **A round** ([`Follow`] does it). Every few seconds, with each member in turn: note the time, send [`Ask`] (its
//! `known` is [`TakedownLog::locator`]). The other answers with its heads, whether it is [`Lease::synced`], and the
//! records at the slots that [`TakedownLog::since`] names. Merge them, **write and flush what [`Merged::append`] holds
//! before anything further is sent**, erase [`Merged::barred`]. If [`TakedownLog::covers`] the heads now, tell
//! [`Lease::compared`] with the time of the question; if not, ask again.
//!
//! **Bound on service after a takedown.** Members are the map's [`witnesses`]: its nodes that are not declared dead
//! where there are at most 16, else 16 of them, spread over the zones; n in all. All other nodes only ask. A node
//! serves while it compared with at least half of the members (rounded up, itself among them if it is one) within the
//! lease, 60 s, and with a majority within the grace, 1 h, each counted from when it *asked*, by its own clock. Hence:
//!
//! - in the flushed chains (not among the held) of a majority of members (n/2 rounded down, plus 1): no node begins to
//!   serve it later than the **lease** (60 s) after, cut or no cut, because any half meets any majority in a node that
//!   has it;
//! - in those of just half, as when two equal sites are cut apart: no later than the **grace** (1 h) after;
//! - held by fewer, on the small side of a cut: barred on that side as it spreads; the large side cannot know and has
//!   no bound until the cut heals. Status must say so, and a second issuer on the large side is the cure. Where there
//!   are more than 16 nodes the side that has the majority of *witnesses* is the large one, whatever else it has.
//!
//! Why so. DESIGN says that a node too far behind does not serve, and that reads go on without the map's voters. Voters
//! are nothing special here, so that the loss of the Raft quorum alone stops nothing. Half, not a majority, is
//! asked for within the lease, so that one of two sites serves on for the grace after the other is lost; within it an
//! operator declares the lost nodes dead, which makes n smaller, or puts others in their place. Fewer than half stop
//! after the lease: [`LeaseRules::minority_ms`] can lengthen that, and the first bound grows with it.
//!
//! **By word.** A node that is no witness need not ask half of them. A witness's answer says how long ago it had asked
//! half, and a majority, itself ([`Basis`]): what these had then the witness has, and so has whoever has merged its answer,
//! if not later than that before the question. It is the same comparison, only older, as clocks of about one rate measure
//! ages alike; so here a node's bound hangs on the clock of another, too. Witnesses go by their own comparisons alone, or
//! all could go by each other's. The word of a witness whose map is older than the last change of witnesses that the asker
//! knows of is not taken; what was told before that change counts for a sixth of the lease more, in which the asker asks
//! again.
//!
//! **What is acknowledged.** A takedown that is in the flushed chains of a majority: [`Follow::await_spread`] says when it
//! is. The first bound holds from then on.
//!
//! **When witnesses change.** k new ones take the place of k old ones. A takedown that 9 of 16 had is with 9 - k of the
//! 16 - k that stay. A new one counts for nobody (its answers say that it is not synced) until it has caught up, since
//! it became one, with 9 of those that count: as 9 and 9 - k are more than 16 - k, it then has the takedown, too. Until
//! it counts, 8 of the 16 - k that do are needed, which meet the 9 - k as well. The bounds thus hold on, for any number
//! of changes. A node that skipped maps does not know whether it was replaced meanwhile, nor who else was: it is a new
//! one, and takes all others for such as count, once they say so. Where too few do, as most skipped maps at once, it
//! counts when it has caught up with all that are not declared dead, as has one that became a witness in order.
//!
//! There are two exceptions. A node that does not know of the change goes by the earlier witnesses: for it the
//! bound is that of those, until the map reaches it (which every envelope's epoch hastens), and for what it was told for a
//! sixth of the lease more. And where most are replaced
//! at once (k over 7) a new one catches up with all that stay, which is all that can be had: what none of them has, as
//! a site was lost with it, is known only to the nodes of other sites that had followed it, and spreads no further by
//! rounds.
//!
//! **What it costs.** Where there are more than 16 nodes each asks one witness every 20 s, and the witnesses one every
//! second; at 10,000 nodes each witness answers 36 questions a second. A takedown is told to all witnesses at once, and
//! spreads from there to each node that serves within some 20 s, at most the lease.
//!
//! The bound assumes that clocks run at about one rate and count sleep (CLOCK_BOOTTIME; else [`Lease::void`]), and that
//! a node keeps what it flushed. One that lost its log, or joins, is not [`intact`](Standing::intact) and counts for nobody
//! until it has caught up with half of the members, all of them synced.
//!
//! **What happens on each failure.** *A message is lost, late or doubled:* ask again; merging is idempotent. *A record
//! comes before its predecessor:* barred at once, not counted in the heads until the gap is filled. *An issuer signs
//! two records of one number:* both are honoured, [`TakedownLog::forked`] names it. *Bytes are forged:* counted and
//! dropped. *A clock goes back:* the node is stale. *The drive loses the end of the log:* start with `intact` false.
//!
//! **Absent on purpose.** Sockets, drives, clocks. Ordinary deletes. Un-barring: a track taken down by mistake is put
//! again under other bytes, or the cluster's operators agree on a new log.

mod barred;
mod chain;
mod exchange;
mod follow;
mod gate;
mod heads;
mod lease;
mod receipts;
mod record;
mod takedown_log;
mod witnesses;

pub use exchange::{Answer, Ask};
pub use follow::{APPENDS_MAX, Follow, FollowEffect, QUESTIONS_MAX, Quorum, READS_MAX, SPREADS_MAX, Spread};
pub use gate::{Gate, Verdict};
pub use heads::{Heads, Mark};
pub use lease::{BadRules, Basis, Lease, LeaseRules, Stale, Standing};
pub use receipts::{BadReceipt, CopyState, Progress, Receipt, Receipts};
pub use record::{Name, REASON_BYTES_MAX, TAKEDOWN_BYTES, Takedown};
pub use takedown_log::{BadIssuer, BadLog, IssueError, Merged, TakedownLog};
pub use witnesses::{WITNESSES_MAX, witnesses};

/// The most issuers. The map lists them; one a site is usual.
pub const ISSUERS_MAX: usize = 64;
/// The most branches of one issuer's chain. An issuer restored from an old image adds one; one whose key leaked may add
/// any number, and what is beyond is refused and counted. Logs that differ in it do not cover each other, so that their
/// nodes stop serving: whoever has such a key could as well take everything down.
pub const BRANCHES_MAX: usize = 16;
/// The most records of one [`Answer`], and the most that [`TakedownLog::merge`] takes at once.
pub const RECORDS_MAX: usize = 1_024;
/// The most records whose predecessors are missing.
pub const HELD_MAX: usize = 4_096;
/// The most marks of one issuer in [`Heads`]: some 33 a branch.
pub const MARKS_MAX: usize = 40 * BRANCHES_MAX;
/// The most members: the design's largest cluster.
pub const MEMBERS_MAX: usize = 10_000;
/// The most tracks whose receipts are awaited at once.
pub const OPEN_MAX: usize = 65_536;
/// The most copies of one track that are followed: holders of all epochs since it was put.
pub const COPIES_MAX: usize = 256;
