//! Why a request to the cluster failed.

use std::fmt;

use deadwax_dht::{Failure, Holder, Map, NodeId, Verdict};

/// Why a request failed; the kind says what the caller does.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// A quorum says that there is no such track: final, at this epoch.
    #[error("no such track")]
    NotFound,
    /// The track was taken down: final.
    #[error("track was taken down, number {number}")]
    TakenDown {
        /// The takedown's number.
        number: u64,
    },
    /// It cannot be told, or not be done, now: try later. Never a way to say that a track is absent.
    #[error("unavailable: {what}: {holders}")]
    Unavailable {
        /// What could not be done.
        what: String,
        /// Which holders failed, and why.
        holders: Holders,
    },
    /// The holders are busy: try again soon.
    #[error("busy: {0}")]
    Busy(Holders),
    /// The holders are full.
    #[error("no space: {0}")]
    NoSpace(Holders),
    /// The request makes no sense, or the bytes are not the id's: do not repeat it.
    #[error("invalid: {0}")]
    Invalid(String),
    /// Every copy there is fails its checks.
    #[error("corrupt: {0}")]
    Corrupt(Holders),
}

/// Which holders failed, and why. At most one entry a holder.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Holders(pub Vec<HolderFailure>);

/// Why one holder failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HolderFailure {
    /// The node.
    pub node: NodeId,
    /// Its address.
    pub address: String,
    /// Why.
    pub why: String,
}

impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no holder failed");
        }
        for (index, holder) in self.0.iter().enumerate() {
            let between = if index == 0 { "" } else { "; " };
            write!(f, "{between}{}: {}", holder.address, holder.why)?;
        }
        Ok(())
    }
}

impl Holders {
    pub(crate) fn of<'a>(
        map: &Map,
        holders: &[Holder],
        failures: impl IntoIterator<Item = (usize, &'a Failure)>,
    ) -> Self {
        let entry = |(index, failure): (usize, &Failure)| {
            let node = &map.nodes()[holders[index].node];
            HolderFailure { node: node.id, address: node.address.clone(), why: failure.why.clone() }
        };
        Self(failures.into_iter().map(entry).collect())
    }
}

impl Error {
    /// The error that a verdict is; `what` was not done.
    pub(crate) fn of(verdict: Verdict, what: impl FnOnce() -> String, holders: Holders) -> Self {
        match verdict {
            Verdict::TakenDown { number } => Self::TakenDown { number },
            Verdict::Invalid => Self::Invalid(holders.to_string()),
            Verdict::NoSpace => Self::NoSpace(holders),
            Verdict::Busy => Self::Busy(holders),
            Verdict::Corrupt => Self::Corrupt(holders),
            Verdict::Expired => Self::Unavailable { what: format!("{}: its time is over", what()), holders },
            Verdict::Unavailable => Self::Unavailable { what: what(), holders },
        }
    }
}
