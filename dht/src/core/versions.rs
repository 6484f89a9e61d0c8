//! Which versions of the protocol nodes speak, and what may be used towards them.
//!
//! Each envelope says what its sender speaks. In a large cluster a node hears the others of its cell, within a minute or
//! two, and few beside them. So the leader, when it is to finalise the cluster at a later version, asks some members of each
//! cell what they heard, and those whom it knows nothing of itself: nothing is sent for it at other times. What is heard of
//! a process lapses, as the node may have been rolled back since.

use std::collections::BTreeMap;

use super::Core;
use super::contacts::Life;
use super::effect::Effect;
use super::message::{Message, SPEAKERS_MAX, Speaker};
use super::planted::Bug;
use crate::NodeId;
use crate::liveness::Cells;
use crate::wire::Unfit;

/// How long it counts what a node was heard to speak, in ms: a few rounds of a cell's probes.
const HEARD_MS: u64 = 180_000;
/// How often nodes are asked, in ms.
const AGAIN_MS: u64 = 1_000;
/// How many members of a cell are asked at once: one may be down, or new.
const ASKED: usize = 3;
/// How many nodes are asked at once for themselves.
const PINGED_MAX: usize = 64;

/// What other nodes said of others.
#[derive(Default)]
pub(super) struct Versions {
    /// What a node was heard to speak, and when. Only nodes of the map; forgotten with the question.
    told: BTreeMap<NodeId, (u8, u64)>,
    asked_at: Option<u64>,
    /// How often was asked: others have their turn each time.
    turns: usize,
}

impl Core {
    /// The version of the protocol that may be used towards other nodes, and to which the log's records keep: the one at
    /// which the cluster is finalised, as far as is known here.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.history().map_or(self.config.protocols.unfinalised(), |history| history.state().protocol())
    }

    /// Whether what came with a version of the protocol may be used towards other nodes.
    #[must_use]
    pub fn may_use(&self, since: u8) -> bool {
        since <= self.protocol()
    }

    /// Ends this node's part where the cluster is finalised at what it does not speak.
    pub(super) fn stop_if_unfit(&mut self) {
        let Some(history) = self.history() else { return };
        if let Err(unfit) = self.config.protocols.fit(history.state().protocol()) {
            self.stop_as(unfit);
        }
    }

    fn stop_as(&mut self, unfit: Unfit) {
        if !self.halted {
            self.halted = true;
            self.effects.push(Effect::Outdated(unfit));
        }
    }

    /// There are records after `epoch` or at it that this program cannot read: to go on without them would be to go on alone.
    pub(super) fn take_later_records(&mut self, epoch: u64) {
        if epoch > self.epoch() {
            self.stop_as(Unfit::Records { newest: self.config.protocols.newest() });
        }
    }

    fn is_heard(&self, at: u64) -> bool {
        self.now.saturating_sub(at) <= HEARD_MS
    }

    /// What a node was last heard to speak, here or by others.
    fn speaks(&self, node: &NodeId) -> Option<u8> {
        if *node == self.config.node {
            return Some(self.config.protocols.newest());
        }
        let heard = self.life(node).map(|&Life { protocol, heard_at, .. }| (protocol, heard_at));
        let told = self.versions.told.get(node).copied();
        let (protocol, _) =
            heard.into_iter().chain(told).filter(|(_, at)| self.is_heard(*at)).max_by_key(|(_, at)| *at)?;
        Some(protocol)
    }

    /// Tells what the others of this node's cell speak.
    pub(super) fn take_spoken_ask(&mut self, from: NodeId) {
        let Some(layout) = self.layout().cloned() else { return };
        let Some(cell) = layout.cells().cell_of(&self.config.node) else { return };
        let heard = |node: &NodeId| {
            let &Life { protocol, heard_at, .. } = self.life(node).filter(|life| self.is_heard(life.heard_at))?;
            let age_ms = u32::try_from(self.now.saturating_sub(heard_at)).ok()?;
            Some(Speaker { node: *node, protocol, age_ms })
        };
        let speakers = layout.cells().members(cell).filter_map(heard).take(SPEAKERS_MAX).collect();
        self.send(from, Message::Spoken(speakers));
    }

    /// Hears what others of the sender's cell speak. Of other nodes it knows nothing.
    pub(super) fn take_spoken(&mut self, from: NodeId, speakers: &[Speaker]) {
        let Some(layout) = self.layout().cloned() else { return };
        let Some(cell) = layout.cells().cell_of(&from) else { return };
        // Whoever does not ask has no use for it.
        if self.versions.asked_at.is_none() {
            return;
        }
        for speaker in speakers.iter().filter(|speaker| layout.cells().cell_of(&speaker.node) == Some(cell)) {
            let at = self.now.saturating_sub(u64::from(speaker.age_ms));
            let known = self.versions.told.entry(speaker.node).or_insert((speaker.protocol, at));
            if at >= known.1 {
                *known = (speaker.protocol, at);
            }
        }
    }

    /// Tells the planner what the nodes speak, where a command waits that depends on it; and asks those of whom that is not
    /// known, or who spoke less than it takes.
    pub(super) fn tell_planner_of_speakers(&mut self) {
        let finalises = self.planner_mut().and_then(|rebalance| rebalance.finalises());
        let (Some(protocol), Some(layout)) = (finalises, self.layout().cloned()) else {
            self.versions = Versions::default();
            return;
        };
        let nodes = layout.map().nodes().iter().map(|node| node.id);
        let blind = self.planted(Bug::FinaliseUnheard);
        let speaks = |node: NodeId| Some((node, if blind { protocol } else { self.speaks(&node)? }));
        let spoken: BTreeMap<NodeId, u8> = nodes.clone().filter_map(speaks).collect();
        let lacks = |node: &NodeId| !layout.state().dead().contains(node) && spoken.get(node) < Some(&protocol);
        let lacking: Vec<NodeId> = nodes.filter(lacks).collect();
        if let Some(rebalance) = self.planner_mut() {
            rebalance.set_speakers(spoken);
        }
        let again = self.versions.asked_at.is_none_or(|at| self.now >= at.saturating_add(AGAIN_MS));
        if again && !lacking.is_empty() {
            self.versions.asked_at = Some(self.now);
            self.ask_for_speakers(layout.cells(), &lacking);
        }
    }

    fn ask_for_speakers(&mut self, cells: &Cells, lacking: &[NodeId]) {
        let turn = self.versions.turns;
        self.versions.turns = turn.wrapping_add(1);
        for at in 0..lacking.len().min(PINGED_MAX) {
            self.ping(lacking[turn.wrapping_mul(PINGED_MAX).wrapping_add(at) % lacking.len()]);
        }
        let own = cells.cell_of(&self.config.node);
        let mut asked: Vec<usize> = lacking.iter().filter_map(|node| cells.cell_of(node)).collect();
        asked.sort_unstable();
        asked.dedup();
        for cell in asked.into_iter().filter(|cell| Some(*cell) != own) {
            let up: Vec<NodeId> = cells.members(cell).copied().filter(|node| self.is_up(node)).collect();
            for at in 0..up.len().min(ASKED) {
                self.send(up[turn.wrapping_mul(ASKED).wrapping_add(at) % up.len()], Message::SpokenAsk);
            }
        }
    }
}
