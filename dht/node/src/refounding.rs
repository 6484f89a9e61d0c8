//! Refounding: how a cluster's log goes on when most of those who vote are lost for good.
//!
//! One node that is left writes one more record behind its own history, by which it alone votes, in a new seat, as a founder
//! has one: it begins with that record on its drive, and nothing that was promised in another seat counts. So it leads as soon
//! as it starts, the others learn of the record as of any other, and it gives them seats. What it had not heard of when it
//! wrote that is not of this log: so it must be the one of those that are left whose history is the newest.

use std::collections::BTreeSet;
use std::path::PathBuf;

use deadwax_dht::NodeId;
use deadwax_dht::log::{Durable, History, Voter};

use crate::init::{self, Lock};
use crate::system::System;
use crate::{Config, Error};

/// A node that does not run, and cannot be started meanwhile, whose history may become the cluster's.
pub struct Refounding {
    dir: PathBuf,
    node: NodeId,
    history: History,
    seat: Option<Durable>,
    _lock: Lock,
}

impl Refounding {
    /// Reads what the node of these settings knows. Nothing is changed.
    ///
    /// # Errors
    /// The node runs; it has no key, no state or no map; its state is damaged.
    pub fn open(config: &Config) -> Result<Self, Error> {
        let lock = init::lock(&config.dir)?;
        let node = init::load_key(&config.dir)?.node_id();
        let (history, seat) = System::read(&config.dir)?;
        let history = history.ok_or_else(|| {
            refuse("this node has never heard of the map: take another one that is left, or `deadwax cluster init`")
        })?;
        let seat = seat.filter(|durable| history.state().seat_of(&node) == Some(durable.seat));
        Ok(Self { dir: config.dir.clone(), node, history, seat, _lock: lock })
    }

    /// The node.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// What it knows.
    #[must_use]
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// The history in which the log begins anew here without those that are `lost`. Nothing is changed.
    ///
    /// # Errors
    /// It is among the lost, or not in the map, nor are they; or enough are left that vote, so that they can change the map.
    pub fn without(&self, lost: &BTreeSet<NodeId>) -> Result<History, Error> {
        let state = self.history.state();
        let left = |voters: &[Voter]| voters.iter().filter(|voter| !lost.contains(&voter.node)).count();
        let decides = |voters: &[Voter]| voters.is_empty() || 2 * left(voters) > voters.len();
        if decides(state.voters()) && decides(state.outgoing()) {
            let (left, of) = (left(state.voters()), state.voters().len());
            let why =
                "these decide without the others: start them, and `deadwax cluster apply voters` and `apply dead` do";
            return Err(refuse(&format!("of {of} nodes that vote {left} are not lost; {why}")));
        }
        let lost = lost.iter().copied().collect();
        self.history.refound(self.seat.clone(), self.node, lost).map_err(|why| refuse(&why.to_string()))
    }

    /// Makes it so, durably: from its next start on the node votes alone. Answers the epoch.
    ///
    /// # Errors
    /// As of [`without`](Self::without); a drive that refuses.
    pub fn refound(self, lost: &BTreeSet<NodeId>) -> Result<u64, Error> {
        let history = self.without(lost)?;
        let seat = history.state().seat_of(&self.node).expect("it has just got it");
        System::refound(&self.dir, &history, seat)?;
        Ok(history.epoch())
    }
}

fn refuse(why: &str) -> Error {
    Error::Refounding(why.to_owned())
}
