//! Which versions of the protocol a node speaks, and whether it may take part in a cluster.
//!
//! A cluster is *finalised* at one version: the one that its nodes use towards each other, and to which its log's records
//! keep. It is a part of the log's state, begins with the founders' and only rises, on an operator's word
//! ([`Command::Finalise`](crate::rebalance::Command::Finalise)). Programs of the next version serve at it beside those of
//! the one before, and can be rolled back, until it is raised.

use super::frame::{PROTOCOL_MIN, PROTOCOL_OF_NODES, PROTOCOL_VERSION};

/// From the oldest version to the newest that is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Protocols {
    oldest: u8,
    newest: u8,
}

impl Protocols {
    /// Those of this program.
    pub const BUILD: Self = Self { oldest: PROTOCOL_MIN, newest: PROTOCOL_VERSION };

    /// Those from `oldest`, which is not 0, to `newest`; none where there are none.
    #[must_use]
    pub const fn new(oldest: u8, newest: u8) -> Option<Self> {
        if 0 < oldest && oldest <= newest { Some(Self { oldest, newest }) } else { None }
    }

    /// The oldest.
    #[must_use]
    pub const fn oldest(self) -> u8 {
        self.oldest
    }

    /// The newest.
    #[must_use]
    pub const fn newest(self) -> u8 {
        self.newest
    }

    /// What may be used towards other nodes by one that does not know yet at which version its cluster is finalised.
    #[must_use]
    pub(crate) const fn unfinalised(self) -> u8 {
        if self.oldest > PROTOCOL_OF_NODES { self.oldest } else { PROTOCOL_OF_NODES }
    }

    /// Whether a node that speaks these may take part in a cluster that is finalised at this version.
    pub const fn fit(self, finalised: u8) -> Result<(), Unfit> {
        let Self { oldest, newest } = self;
        if newest < finalised {
            return Err(Unfit::TooOld { newest, finalised });
        }
        if oldest > finalised {
            return Err(Unfit::TooNew { oldest, finalised });
        }
        Ok(())
    }
}

/// Why a node must not take part: it would not read what others write, or they not what it writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unfit {
    /// Run a later program.
    #[error(
        "the cluster is finalised at protocol {finalised}, this node speaks {newest} at most: run a later version of the \
         program here, or, where the setting `protocol_max` holds it back, take that out"
    )]
    TooOld {
        /// The newest that it speaks.
        newest: u8,
        /// At which the cluster is finalised.
        finalised: u8,
    },
    /// Run an earlier program, and upgrade version by version.
    #[error(
        "the cluster is finalised at protocol {finalised}, this node speaks {oldest} and later only: run the earlier \
         version of the program that speaks both, on all nodes, finalise the cluster at {oldest}, then upgrade this one"
    )]
    TooNew {
        /// The oldest that it speaks.
        oldest: u8,
        /// At which the cluster is finalised.
        finalised: u8,
    },
    /// Others have written to the map's log what this program cannot read, though the log did not say before that it would
    /// be so.
    #[error(
        "the map's log has records that this node, which speaks protocol {newest} at most, cannot read: run a later \
         version of the program here"
    )]
    Records {
        /// The newest that this node speaks.
        newest: u8,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_fits_where_it_speaks_what_the_cluster_is_finalised_at() {
        let spoken = Protocols::new(3, 5).expect("some");
        let fits: Vec<u8> = (0..=9).filter(|finalised| spoken.fit(*finalised).is_ok()).collect();
        assert_eq!(fits, [3, 4, 5]);
        assert_eq!(spoken.fit(6), Err(Unfit::TooOld { newest: 5, finalised: 6 }));
        assert_eq!(spoken.fit(2), Err(Unfit::TooNew { oldest: 3, finalised: 2 }));
        for (oldest, newest) in [(0, 3), (4, 3)] {
            assert_eq!(Protocols::new(oldest, newest), None);
        }
    }
}
