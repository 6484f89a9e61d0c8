//! The cluster is finalised at a later version of the protocol once all nodes speak it.

use std::collections::BTreeMap;

use super::Rebalance;
use super::turns::{Next, Turn};
use crate::NodeId;
use crate::log::Change;
use crate::rebalance::command::Command;
use crate::rebalance::effect::{Named, Refused};

/// How often the command has its turn, [`batch_ms`](super::Settings::batch_ms) apart, before a node that was not heard, or
/// was heard to speak less, keeps it from being carried out: nodes are asked with the first.
const HEARINGS: u32 = 3;

impl Rebalance {
    /// The version at which a command that may have its turn with the next poll is to finalise the cluster: tell
    /// [`set_speakers`](Self::set_speakers) before it.
    #[must_use]
    pub fn finalises(&self) -> Option<u8> {
        let turn = self.commands.front().filter(|_| self.pending.is_empty())?;
        match turn.command {
            Command::Finalise { protocol } => Some(protocol),
            _ => None,
        }
    }

    /// The newest version that each node speaks, of those that were heard lately.
    pub fn set_speakers(&mut self, speakers: BTreeMap<NodeId, u8>) {
        self.speakers = speakers;
    }

    /// Whoever is dead is not asked: when it comes back, it finds what the cluster is finalised at and takes no part.
    pub(super) fn finalise(&self, protocol: u8, turn: &Turn) -> Result<Next, Refused> {
        let nodes = self.state.spec().nodes.iter().map(|node| node.id);
        let living: Vec<NodeId> = nodes.filter(|node| !self.state.dead().contains(node)).collect();
        let (heard, unheard): (Vec<NodeId>, Vec<NodeId>) =
            living.into_iter().partition(|node| self.speakers.contains_key(node));
        let old: Vec<NodeId> = heard.into_iter().filter(|node| self.speakers[node] < protocol).collect();
        match (Named::of(&old), Named::of(&unheard)) {
            (None, None) => Ok(Next::Propose(Change::Finalise { protocol }, None)),
            _ if turn.tries + 1 < HEARINGS => Ok(Next::Wait),
            (Some(nodes), _) => Err(Refused::TooOld { protocol, nodes }),
            (None, Some(nodes)) => Err(Refused::Unspoken { protocol, nodes }),
        }
    }
}
