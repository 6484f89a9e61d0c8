//! The checkers: what must hold, whatever goes wrong.
//!
//! | rule | bound, and why |
//! |---|---|
//! | no wrong byte | none: what is taken for a track's bytes, by a reader or for a copy, is a function of its id; a reader has them in order and without gaps, across holders and maps |
//! | no false *absent* | none: an acknowledged put has its quorum in the first set, which meets every read quorum |
//! | durable as acknowledged | copies on a write quorum of nodes at the moment of the acknowledgement |
//! | where it counts | at every epoch the first set has a write quorum of each acknowledged track, less what faults destroyed |
//! | no word of *absent* | by a volume that lost the track, or missed it while it was away |
//! | no resurrection | no node counts a copy of a track whose takedown it has durable |
//! | receipts | none for a copy that is there |
//! | one of two | of two processes of one name the older halts within 75 s of a whole network |
//! | no copy erased that is needed | after an erasure a write quorum of copies is left, less what faults destroyed |
//! | readable | with at most one node touched by faults for a minute, whatever moves, every acknowledged track is got of which nothing was destroyed |
//! | readable after healing | every acknowledged track is got, from each gateway, once the cluster says that it is settled |
//! | no service after a takedown | [`LEASE`] after a majority of the newest map's witnesses had it durable in its chain, by who knows of these witnesses for [`WORD`] |
//! | one history | each epoch has one record |
//! | one seat | a voter's seat is begun with empty state once: who lost what it promised there forfeits it |
//! | one layout | a core that works its layouts out by itself finds what others find at that epoch |
//! | answered | a node of which an operator is told that it is removed is not in the map |
//! | placement | no two holders on a node, in any set at any epoch; zones, when settled |
//! | movement | from one settled state to the next: of the copies that are pulled two of a hundred, and two more, may be of no use, as a good one lay there, or had just been erased though nothing moved; none for who is no holder by the puller's map; no partition moves without a reason |
//! | convergence | [`crate::run::bound`] |
//! | bounds | of all queues that the driver sees |
//! | no silent stall | a core that has tracks to pull, partitions to move or commands to carry out, and does nothing for 5 minutes, names a reason; once all is settled none does |
//! | progress | a core is not woken more than some thousand times a second |
//! | writable | with no node touched by faults for a minute, no move and no command under way, every put is acknowledged |
//! | no takedown invented | none |
//! | versions | none is sent a message, or record, that came after what it speaks; none has to stop as the cluster was finalised too early |
//! | codec | a message comes out of its bytes as it was |
//! | panic | none, of a core or of what drives it |

mod epochs;
mod movement;
mod places;
mod rule;
mod settled;
mod spread;
mod standstill;
mod state;
mod tracks;
mod versions;

use std::collections::{BTreeMap, BTreeSet};

use deadwax_dht::VolumeId;
use deadwax_dht::core::Envelope;
use deadwax_dht::log::History;
use deadwax_track::{Partition, TrackId};

pub(crate) use self::epochs::Epochs;
pub(crate) use self::movement::Era;
pub use self::rule::{Rule, Violation};
pub(crate) use self::spread::Spread;
pub(crate) use self::standstill::Standstill;
use crate::clock::{Micros, SECOND};
use crate::random::Random;

/// A node that compared just before a majority had a takedown serves for the lease of 60 s by its clock, which may be slow by a
/// two thousandth, and what it then let go may have waited in its queue.
pub(crate) const LEASE: Micros = 62 * SECOND;

/// What a node was told by earlier witnesses counts for so long when it hears of others: a sixth of the lease, by its clock.
pub(crate) const WORD: Micros = 11 * SECOND;

/// What was found wrong, and what the checkers remember.
#[derive(Debug)]
pub(crate) struct Checks {
    pub(crate) violations: Vec<Violation>,
    pub(crate) epochs: Epochs,
    pub(crate) takedowns: BTreeMap<TrackId, Spread>,
    /// Copies that volumes lost, or missed while they were away.
    pub(crate) owed: BTreeSet<(VolumeId, u32)>,
    /// Partitions with tracks that moved at the epoch before.
    pub(crate) moving: BTreeSet<Partition>,
    pub(crate) era: Era,
    /// The voters' seats that were begun.
    pub(crate) seats: BTreeSet<u64>,
    /// The hosts of the newest map's witnesses; since which epoch they are; and when each host was first seen to know them.
    pub(crate) members: BTreeSet<u32>,
    pub(crate) members_since: u64,
    pub(crate) known: BTreeMap<u32, Micros>,
}

impl Checks {
    pub(crate) fn new(history: &History) -> Self {
        Self {
            violations: Vec::new(),
            epochs: Epochs::new(history),
            takedowns: BTreeMap::new(),
            seats: history.state().voters().iter().map(|voter| voter.seat).collect(),
            members: BTreeSet::new(),
            members_since: 0,
            known: BTreeMap::new(),
            owed: BTreeSet::new(),
            moving: BTreeSet::new(),
            era: Era::default(),
        }
    }

    pub(crate) fn violate(&mut self, rule: Rule, text: String) {
        self.violations.push(Violation { rule, text });
    }

    /// A queue is within its bound.
    pub(crate) fn bound(&mut self, what: &str, host: u32, got: usize, most: usize) {
        if got > most {
            self.violate(Rule::Bounds, format!("n{host}: {got} {what}, the most is {most}"));
        }
    }

    /// A message that went through its bytes is what it was.
    pub(crate) fn through_bytes(&mut self, envelope: Box<Envelope>) -> Box<Envelope> {
        let bytes = envelope.encode();
        match Envelope::decode(&bytes) {
            Ok(same) if same == *envelope => Box::new(same),
            Ok(other) => {
                self.violate(
                    Rule::Codec,
                    format!("a message came out of its bytes as another: {envelope:?} as {other:?}"),
                );
                envelope
            }
            Err(error) => {
                self.violate(Rule::Codec, format!("a message does not decode: {error}: {envelope:?}"));
                envelope
            }
        }
    }

    /// A bit flips in a frame. Its checksum shows that, and the frame is dropped; but if it did not, a decoder must give a value
    /// or an error all the same.
    pub(crate) fn corrupt(&mut self, envelope: &Envelope, random: &mut Random) {
        let mut bytes = envelope.encode();
        if !bytes.is_empty() {
            let at = random.index(bytes.len());
            bytes[at] ^= 1 << random.below(8);
            let _ = Envelope::decode(&bytes);
        }
    }
}
