//! The faults that there are, in groups. A group's module draws, injects and lifts its own; a new group is a variant here
//! and a module beside the others.

use std::fmt;

use super::drives::DriveFault;
use super::network::NetworkFault;
use super::operator::OperatorFault;
use super::processes::ProcessFault;

/// Zones of the cluster; nodes 0, 1, 2 are in the first.
pub(crate) const ZONES: [&str; 2] = ["east", "west"];
/// Masters of a zone.
pub(crate) const MASTERS_A_ZONE: usize = 3;
/// Masters that the cluster begins with.
pub(crate) const MASTERS: usize = ZONES.len() * MASTERS_A_ZONE;
/// One more, in the first zone, that joins and leaves; each time it joins it is another node, in the place of the last.
pub(crate) const SEVENTH: usize = MASTERS;
/// Places for masters.
pub(crate) const PLACES: usize = MASTERS + 1;

/// Something that goes wrong for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    Process(ProcessFault),
    Network(NetworkFault),
    Drive(DriveFault),
    Operator(OperatorFault),
}

/// What a fault needs for itself: two that claim the same do not overlap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Claim {
    /// The life of this master.
    Master(usize),
    /// The life of the gateway.
    Gateway,
    /// What lies on this master's drive.
    Drive(usize),
    /// What goes from one of these to the other.
    Path(usize, usize),
    /// What goes between this master and the gateway.
    Front(usize),
    /// How fast this master's link is.
    Link(usize),
    /// What goes between the zones.
    Zones,
    /// How much of all this master is to hold.
    Share(usize),
}

impl Fault {
    /// Its name in figures.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Process(fault) => fault.kind(),
            Self::Network(fault) => fault.kind(),
            Self::Drive(fault) => fault.kind(),
            Self::Operator(fault) => fault.kind(),
        }
    }

    pub(crate) fn claims(&self) -> Vec<Claim> {
        match self {
            Self::Process(fault) => fault.claims(),
            Self::Network(fault) => fault.claims(),
            Self::Drive(fault) => fault.claims(),
            Self::Operator(fault) => fault.claims(),
        }
    }

    /// How often copies move because an operator wants it so: what is drained and replaced has all of its moved.
    pub(crate) const fn moves(&self) -> u64 {
        match self {
            Self::Operator(OperatorFault::Replace { .. }) => 3,
            Self::Operator(fault) if fault.moves() => 1,
            _ => 0,
        }
    }

    /// Whether it takes networks and drives of our own.
    pub(crate) const fn needs_stage(&self) -> bool {
        match self {
            Self::Network(_) | Self::Process(ProcessFault::SetClock { .. }) => true,
            Self::Drive(fault) => {
                matches!(fault, DriveFault::Fill { .. } | DriveFault::Unmount { .. } | DriveFault::Hang { .. })
            }
            _ => false,
        }
    }

    /// The masters that a gateway may not reach, or not fast, while it is under way.
    pub(crate) fn cuts_off(&self) -> Vec<usize> {
        match self {
            Self::Process(fault) => fault.cuts_off(),
            Self::Network(fault) => fault.cuts_off(),
            Self::Drive(
                DriveFault::Hang { node } | DriveFault::Unmount { node } | DriveFault::LoseSegment { node, .. },
            )
            | Self::Operator(OperatorFault::Rejoin { node }) => vec![*node],
            // Who has no room reads on. What operators do is borne, but for the masters that they kill: those are told of then.
            Self::Drive(_) | Self::Operator(_) => vec![],
        }
    }

    /// The masters that are the worse for it: those too of which copies are destroyed, or that an operator kills.
    pub(crate) fn hurts(&self) -> Vec<usize> {
        let killed = match self {
            Self::Operator(OperatorFault::Replace { node }) => Some(*node),
            _ => None,
        };
        self.cuts_off().into_iter().chain(self.destroys()).chain(killed).collect()
    }

    /// Whether masters are within reach again soon after it is lifted. One whose drive was hurt may still lack copies, or look
    /// for its drive now and then.
    pub(crate) const fn is_over_when_lifted(&self) -> bool {
        matches!(self, Self::Process(_) | Self::Network(_))
    }

    /// Whether it destroys copies or what a node must remember. All that do so hit one node until the cluster has
    /// healed: it promises to bear the loss of one copy of a track, not of two.
    pub(crate) const fn destroys(&self) -> Option<usize> {
        match self {
            Self::Drive(DriveFault::Rot { node, .. } | DriveFault::LoseSegment { node, .. })
            | Self::Operator(OperatorFault::Rejoin { node }) => Some(*node),
            _ => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(fault) => fault.fmt(f),
            Self::Network(fault) => fault.fmt(f),
            Self::Drive(fault) => fault.fmt(f),
            Self::Operator(fault) => fault.fmt(f),
        }
    }
}

/// The number of a master's zone.
pub(crate) const fn zone_of(node: usize) -> usize {
    if node < MASTERS { node / MASTERS_A_ZONE } else { 0 }
}

/// What people call a master.
pub(crate) fn name(node: usize) -> String {
    format!("master-{}", node + 1)
}
