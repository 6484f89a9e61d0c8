//! The kinds of fault.

macro_rules! kinds {
    ($($kind:ident = $text:literal, $class:ident, $weight:literal;)*) => {
        /// What goes wrong.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[expect(missing_docs, reason = "each has its text")]
        pub enum FaultKind { $($kind,)* }

        impl FaultKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// For people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$kind => $text,)* }
            }

            /// Those that never struck, where each struck so often: in the order of [`Self::ALL`].
            #[must_use]
            pub fn missing(counts: &[u64]) -> Vec<Self> {
                let each = Self::ALL.iter().zip(counts);
                each.filter(|(_, count)| **count == 0).map(|(kind, _)| *kind).collect()
            }

            pub(crate) const fn changes_map(self) -> bool {
                use FaultKind::{DriveLost, Join, Leave, ManyEpochs, RollBack, TwoAtOnce, Upgrade, Voters};
                use FaultKind::{Weight, Zone};
                let joins = matches!(self, Join | Leave | TwoAtOnce);
                joins || matches!(self, DriveLost | ManyEpochs | RollBack | Upgrade | Voters | Weight | Zone)
            }

            pub(crate) const fn class(self) -> Class {
                match self { $(Self::$kind => Class::$class,)* }
            }

            /// How often it is drawn, beside the others.
            pub(crate) const fn weight(self) -> u64 {
                match self { $(Self::$kind => $weight,)* }
            }
        }
    };
}

/// What a fault is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    Network,
    Process,
    Drive,
    Clock,
    Members,
}

kinds! {
    Drop = "messages are lost", Network, 4;
    Duplicate = "messages come twice", Network, 4;
    Reorder = "messages overtake each other", Network, 4;
    Delay = "messages are late", Network, 4;
    Jitter = "messages take now less, now more time", Network, 4;
    OneWayCut = "a link is cut one way", Network, 5;
    PairCut = "two nodes do not hear each other", Network, 5;
    Isolated = "a node hears nobody", Network, 5;
    PartlyCut = "a node hears only some", Network, 4;
    ZoneSplit = "a zone is cut off", Network, 5;
    RandomSplit = "the cluster is cut in two", Network, 5;
    Flapping = "a node's link flaps", Network, 4;
    SlowLink = "a node's link is slow", Network, 3;
    Corrupt = "frames are corrupted", Network, 4;
    Reset = "transfers are reset in the middle", Network, 4;
    GatewayCut = "a gateway is cut off", Network, 2;
    Crash = "a process crashes", Process, 8;
    CrashLoop = "a process crashes again and again", Process, 4;
    Pause = "a process stands still", Process, 5;
    Rolling = "processes are restarted one after the other", Process, 2;
    Upgrade = "nodes are upgraded one by one, and the cluster finalised", Process, 3;
    Downgrade = "a node is rolled back to the version before", Process, 3;
    LostDisk = "a node comes back with an empty disk", Process, 4;
    OldDisk = "a node comes back with an old disk", Process, 4;
    LostSystem = "a node comes back without its system drive", Process, 4;
    OldSystem = "a node comes back with an old system drive", Process, 3;
    Cloned = "a node's identity is cloned", Process, 5;
    SiteLoss = "a site is lost, and returns", Process, 3;
    QuorumLoss = "the map loses its quorum", Process, 4;
    Rot = "bits rot", Drive, 5;
    DriveErrors = "a drive fails operations", Drive, 4;
    DriveFull = "a drive is full", Drive, 4;
    DriveSlow = "a drive is slow", Drive, 4;
    DriveOut = "a drive hangs and comes back", Drive, 4;
    DriveLost = "a drive is lost and replaced", Drive, 2;
    DriveAway = "a drive is out for more than 30 minutes, and comes back", Drive, 0;
    SystemSlow = "a system drive is slow", Drive, 3;
    Skew = "a clock runs fast or slow", Clock, 4;
    JumpAhead = "a wall clock jumps ahead", Clock, 3;
    JumpBack = "a wall clock jumps back", Clock, 3;
    Join = "a node joins", Members, 4;
    Leave = "a node leaves", Members, 3;
    Weight = "a weight changes", Members, 3;
    Zone = "a node changes its zone", Members, 2;
    TwoAtOnce = "two changes of the map at once", Members, 2;
    RollBack = "the map is rolled back", Members, 2;
    Voters = "other nodes vote", Members, 2;
    DeclaredDead = "a node is declared dead, and comes back", Members, 2;
    Silence = "a node is silent for more than 30 minutes", Members, 1;
    ManyEpochs = "a node is down for more epochs than are kept", Members, 1;
    Takedown = "a track is taken down", Members, 6;
    MassTakedown = "many tracks are taken down at once", Members, 3;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_that_never_struck_is_told() {
        let mut counts = vec![1; FaultKind::ALL.len()];
        assert_eq!((FaultKind::missing(&counts), FaultKind::ALL.len() >= 30), (vec![], true));
        counts[FaultKind::Flapping as usize] = 0;
        assert_eq!(FaultKind::missing(&counts), [FaultKind::Flapping]);
    }
}
