//! One thing that is wrong with some wires.

use crate::clock::Micros;

/// Which wires.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Reach {
    All,
    /// From the first to the second.
    Link(u32, u32),
    /// Between the two.
    Pair(u32, u32),
    /// All of a host's.
    Host(u32),
    /// From a host.
    From(u32),
    /// To a host.
    To(u32),
    /// Between those of this rising list and all others.
    Across(Vec<u32>),
    /// Between a host and those of this rising list.
    Some(u32, Vec<u32>),
}

/// What is wrong. Chances are in millionths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Act {
    Cut,
    /// Cut, but for the first `up` of each `period`.
    Flap {
        period: Micros,
        up: Micros,
    },
    Drop(u64),
    Double(u64),
    Reorder(u64),
    Delay(Micros),
    Jitter(Micros),
    /// Bytes take so many times as long.
    Slow(u64),
    Corrupt(u64),
    Reset(u64),
}

/// A fault of the network.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) name: u32,
    pub(crate) reach: Reach,
    pub(crate) act: Act,
}

impl Reach {
    pub(crate) fn covers(&self, from: u32, to: u32) -> bool {
        match self {
            Self::All => true,
            Self::Link(one, other) => (*one, *other) == (from, to),
            Self::Pair(one, other) => (*one, *other) == (from, to) || (*other, *one) == (from, to),
            Self::Host(host) => *host == from || *host == to,
            Self::From(host) => *host == from,
            Self::To(host) => *host == to,
            Self::Across(side) => side.binary_search(&from).is_ok() != side.binary_search(&to).is_ok(),
            Self::Some(host, others) => {
                let among = |other: &u32| others.binary_search(other).is_ok();
                (*host == from && among(&to)) || (*host == to && among(&from))
            }
        }
    }
}
