//! Which rare states a run came to: a run that never met them shows little.

use std::collections::BTreeMap;
use std::fmt;

macro_rules! probes {
    ($($probe:ident = $text:literal,)*) => {
        /// A rare state.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[expect(missing_docs, reason = "each has its text")]
        pub enum Probe { $($probe,)* }

        impl Probe {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$probe,)*];

            /// The state, for people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$probe => $text,)* }
            }
        }
    };
}

probes! {
    Puts = "puts acknowledged",
    PutsDegraded = "puts acknowledged while a holder was down",
    PutsFailed = "puts that were not acknowledged",
    PutAgain = "puts of a track that was there",
    Gets = "gets that got the bytes",
    GetsDegraded = "gets that got the bytes though a holder failed",
    GetsResumed = "gets that went on at another holder in the middle",
    GetsMoving = "gets that got the bytes within tolerance, of a partition that moved",
    GetsAbsent = "gets of what was never put, told so",
    GetsUnavailable = "gets that could not be told",
    GetsGone = "gets of what was taken down, told so",
    PutsAtOnce = "copies of puts that did not ask to begin",
    StandIns = "copies taken by a stand-in",
    StraysReleased = "a stand-in's copy handed back and erased",
    MovedReleased = "a copy erased where its partition had been",
    HedgesSent = "hedges sent",
    HedgesWon = "hedges that delivered while the first holder was still asked",
    Moved = "requests told that holders had moved",
    Behind = "requests told that the node was behind",
    Stale = "requests refused because takedowns might be missing",
    Busy = "requests refused as busy",
    Expired = "requests refused past their deadline",
    Unsettled = "absences that were not proved",
    Pulls = "copies pulled",
    PullsFailed = "pulls that failed",
    PullsCut = "pulls cut in the middle",
    PullsUnproved = "pulls of bytes that did not hash to the id",
    PiecesUnproved = "pieces that a reader refused, as they did not prove themselves",
    RotFound = "rotten copies found",
    RotMended = "rotten copies rewritten",
    Wasted = "pulls of what lay there already, or had just been erased",
    Epochs = "epochs decided",
    Joint = "partitions that began to move",
    Settled = "partitions that came to their new holders",
    Aborted = "transitions taken back",
    JointInterrupted = "faults of a process, a drive or a wire that struck a holder while its partition moved",
    JointPut = "puts acknowledged while their partition moved",
    Elections = "votes cast, and durable",
    QuorumLost = "times that the map had no quorum of voters",
    EpochsByPeer = "epochs learned from peers",
    Checkpoints = "nodes that began from a checkpoint",
    OwnLayouts = "epochs whose layout a core worked out by itself, compared",
    EpochsSkipped = "nodes that caught up by a checkpoint, without the records that they missed",
    Takedowns = "takedowns made",
    TakedownsSpread = "takedowns that a majority had",
    ByWord = "requests served by who goes by a witness's word",
    Barred = "requests told that the track was taken down",
    BarredAmid = "copies stored whose track was taken down on the way",
    BarredErased = "copies erased by takedowns",
    Halts = "nodes that halted for a later one of their name",
    Commands = "commands carried out",
    CommandsRefused = "commands refused",
    Joins = "nodes that joined",
    JoinsByToken = "nodes that joined by a token",
    Leaves = "nodes that left",
    Upgraded = "nodes upgraded to the next version",
    RolledBack = "nodes rolled back to the version before",
    Finalised = "clusters finalised at the next version",
    Deaths = "nodes declared dead",
    DriveGivenUp = "drives given up whose copies were all made anew elsewhere",
    Crashes = "crashes",
    TornWrites = "writes under way at a crash",
    SystemWritesLost = "steps of a system drive lost in a crash",
    Lost = "messages lost",
    Doubled = "messages doubled",
    Reordered = "messages that overtook others",
    Corrupted = "frames corrupted and refused",
    Resets = "transfers reset in the middle",
    Converged = "times that all was settled after faults",
    Full = "writes refused for want of space",
    DriveErrors = "operations that a drive failed",
}

const COUNT: usize = Probe::ALL.len();

/// How often each state was come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probes([u64; COUNT]);

impl Default for Probes {
    fn default() -> Self {
        Self([0; COUNT])
    }
}

impl Probes {
    pub(crate) const fn hit(&mut self, probe: Probe) {
        self.0[probe as usize] += 1;
    }

    pub(crate) const fn add(&mut self, probe: Probe, count: u64) {
        self.0[probe as usize] += count;
    }

    /// How often.
    #[must_use]
    pub const fn count(&self, probe: Probe) -> u64 {
        self.0[probe as usize]
    }

    /// Adds another run's.
    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }

    /// Those that were never come to. Pulls in vain need not be.
    #[must_use]
    pub fn missing(&self) -> Vec<Probe> {
        let wanted = Probe::ALL.iter().copied().filter(|probe| *probe != Probe::Wasted);
        wanted.filter(|probe| self.count(*probe) == 0).collect()
    }

    /// By their texts.
    #[must_use]
    pub fn by_text(&self) -> BTreeMap<&'static str, u64> {
        Probe::ALL.iter().map(|probe| (probe.text(), self.count(*probe))).collect()
    }
}

impl fmt::Display for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for probe in Probe::ALL {
            writeln!(f, "{:>12} {}", self.count(*probe), probe.text())?;
        }
        Ok(())
    }
}
