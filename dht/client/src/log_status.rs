//! How the cluster's rules stand, put together from what each node says of them.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_dht::liveness::SILENCE_MS;
use deadwax_dht::log::State;
use deadwax_dht::wire::{CoreStatus, MoveStatus, VolumeState};
use deadwax_dht::{Layout, NodeId};
use serde::{Deserialize, Serialize};

use crate::status::NodeReport;

/// By how many epochs a node may be behind before that is said: while copies move there is a new one each second.
const LAG_MAX: u64 = 8;

/// A cluster's log, and what moves by it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogStatus {
    /// The newest epoch that a node knows; 0 where none says.
    pub epoch: u64,
    /// Who leads, if a node that votes knows.
    pub leader: Option<NodeId>,
    /// Who votes, as far as the map's records are known.
    pub voters: Vec<NodeId>,
    /// Nodes that were declared dead.
    pub dead: Vec<NodeId>,
    /// How many volumes are to be emptied, and how many partitions are still on them.
    pub leaving: Leaving,
    /// What moves, as the node that leads says.
    pub moves: Option<MoveStatus>,
    /// How many tracks nodes want of one another.
    pub tracks_left: u64,
    /// Their bytes.
    pub bytes_left: u64,
    /// Bytes a second that came over the last minute, at all nodes.
    pub rate_bytes_s: u64,
    /// How long it takes at that rate; nothing: nothing came, or nothing is wanted.
    pub eta_ms: Option<u64>,
    /// Nodes that are not declared dead, and did not say how they stand: what they want, nobody knows.
    #[serde(default)]
    pub silent: Vec<NodeId>,
    /// Whether nothing moves, is to move, or is wanted at the newest epoch, as the node that leads and all that are not
    /// dead say.
    pub settled: bool,
}

/// What is to be emptied.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Leaving {
    /// Volumes.
    pub volumes: u64,
    /// Copies of partitions on them.
    pub partitions: u64,
}

impl LogStatus {
    /// From what the nodes said; nothing where none has a core. One that did not say has one, as far as can be told.
    pub(crate) fn of(nodes: &[NodeReport], layout: Option<&Layout>) -> Option<Self> {
        let cores: Vec<&CoreStatus> = nodes.iter().filter_map(|node| node.core.as_ref()).collect();
        if cores.is_empty() && nodes.iter().all(|node| node.core_error.is_none()) {
            return None;
        }
        let epoch = cores.iter().map(|core| core.epoch).max().unwrap_or(0);
        // One that leads knows best; an old leader may not have heard yet of the next.
        let leads = nodes
            .iter()
            .filter_map(|node| node.core.as_ref().filter(|core| core.moves.is_some()).map(|core| (node, core)));
        let leading = leads.max_by_key(|(_, core)| core.epoch);
        let said = || cores.iter().max_by_key(|core| (core.leader.is_some(), core.epoch)).and_then(|core| core.leader);
        let moves = leading.and_then(|(_, core)| core.moves.clone());
        let sum = |of: fn(&CoreStatus) -> u64| cores.iter().fold(0_u64, |sum, core| sum.saturating_add(of(core)));
        let bytes_left = sum(|core| core.pulls.bytes_left);
        let tracks_left = sum(|core| core.pulls.tracks_left);
        let rate_bytes_s = sum(|core| core.pulls.rate_bytes_s);
        let eta_ms = (bytes_left > 0 && rate_bytes_s > 0).then(|| bytes_left.saturating_mul(1_000) / rate_bytes_s);
        // An old leader's word counts as well: which one is old cannot always be told.
        let mut all_moves = cores.iter().filter_map(|core| core.moves.as_ref());
        let is_still = all_moves.all(|moves| moves.left() == 0 && !moves.planning && !moves.stuck && moves.lost == 0);
        let is_newest = leading.is_some_and(|(_, core)| core.epoch == epoch);
        let state = layout.map(|layout| layout.state());
        let is_dead = |node: &NodeId| state.is_some_and(|state| state.dead().contains(node));
        let silent: Vec<NodeId> =
            nodes.iter().filter(|node| node.core.is_none() && !is_dead(&node.id)).map(|node| node.id).collect();
        Some(Self {
            epoch,
            leader: leading.map(|(node, _)| node.id).or_else(said),
            voters: state.map_or_else(Vec::new, |state| state.voters().iter().map(|voter| voter.node).collect()),
            dead: state.map_or_else(Vec::new, |state| state.dead().iter().copied().collect()),
            leaving: layout.map_or_else(Leaving::default, leaving),
            settled: is_still && is_newest && silent.is_empty() && tracks_left == 0,
            silent,
            moves,
            tracks_left,
            bytes_left,
            rate_bytes_s,
            eta_ms,
        })
    }

    /// The voters that answer, and say that they are not in the seats that the log gave them: they have no vote.
    fn unseated<'a>(nodes: &'a [NodeReport], layout: Option<&Layout>) -> Vec<&'a NodeReport> {
        let Some(layout) = layout else { return Vec::new() };
        let is_out = |node: &&NodeReport| {
            let voter = layout.state().voters().iter().find(|voter| voter.node == node.id);
            // At another epoch it may have another seat.
            let core = node.core.as_ref().filter(|core| core.epoch == layout.epoch());
            voter.zip(core).is_some_and(|(voter, core)| core.seat != Some(voter.seat))
        };
        nodes.iter().filter(is_out).collect()
    }

    /// What is not as it should be, one sentence each.
    pub(crate) fn warnings(&self, nodes: &[NodeReport], layout: Option<&Layout>) -> Vec<String> {
        let mut warnings: Vec<String> = Self::unseated(nodes, layout)
            .into_iter()
            .map(|node| {
                format!(
                    "node {} is to vote, and has no vote: it has lost its seat, or has yet to take it; it gets another within a \
                     minute where most others vote",
                    node.address
                )
            })
            .collect();
        if self.leader.is_none() {
            warnings.push(
                "no node leads the map's log: nothing can be changed until most of those that vote are up".to_owned(),
            );
        }
        let address = |id: &NodeId| {
            nodes.iter().find(|node| node.id == *id).map_or_else(|| id.short(), |node| node.address.clone())
        };
        warnings.extend(self.dead.iter().map(|node| {
            format!("node {} is declared dead: remove it, or declare it alive when it is back", address(node))
        }));
        warnings.extend(layout.into_iter().flat_map(|layout| given_up(nodes, layout)));
        warnings.extend(unsaid(nodes));
        if let Some(leader) = self.leader.as_ref().filter(|_| self.moves.is_none()) {
            warnings.push(format!(
                "node {} leads the map's log and does not say what moves: nobody knows whether partitions are lost, or stuck",
                address(leader)
            ));
        }
        if let Some(moves) = &self.moves {
            if moves.lost > 0 {
                warnings.push(format!("of {} partitions no live copy is left", moves.lost));
            }
            if moves.waiting_copies > 0 {
                warnings.push(format!(
                    "{} partitions lack a copy and wait to be given another holder",
                    moves.waiting_copies
                ));
            }
            warnings.extend(
                moves
                    .stall
                    .iter()
                    .filter(|_| moves.stuck && moves.lost == 0)
                    .map(|stall| format!("moving is stuck: {stall}")),
            );
        }
        let cores = || nodes.iter().filter_map(|node| Some((node, node.core.as_ref()?)));
        for (node, core) in cores() {
            if core.epoch.saturating_add(LAG_MAX) < self.epoch {
                warnings.push(format!("node {} is at epoch {}, not {}", node.address, core.epoch, self.epoch));
            }
            if !core.may_serve {
                warnings.push(format!(
                    "node {} does not serve: it cannot tell whether it knows all takedowns, as it hears of too few nodes",
                    node.address
                ));
            }
            if let Some(stall) = core.pulls.stall.as_ref().filter(|_| core.pulls.stuck && core.pulls.tracks_left > 0) {
                warnings.push(format!("node {} lacks {} tracks: {stall}", node.address, core.pulls.tracks_left));
            }
        }
        let said: BTreeSet<&String> = cores().flat_map(|(_, core)| &core.warnings).collect();
        warnings.extend(said.into_iter().cloned());
        warnings.extend(unseen(nodes));
        warnings
    }
}

/// Volumes that leave and are out, while their nodes live: the cluster gave them up, or an operator did.
fn given_up(nodes: &[NodeReport], layout: &Layout) -> Vec<String> {
    let mut warnings = Vec::new();
    for node in nodes.iter().filter(|node| node.up) {
        let volumes = layout.map().node(&node.id).map_or(&[][..], |node| &node.volumes);
        for volume in volumes.iter().map(|volume| volume.id) {
            let mut said = node.volumes.iter().filter(|said| said.id == volume);
            if !layout.state().leaving().contains(&volume) || said.any(|said| said.state != VolumeState::Fenced) {
                continue;
            }
            warnings.push(format!(
                "volume {volume} of node {} is given up, as it was out for {} minutes, or was drained: its copies are made anew \
                 elsewhere, {} of its partitions are left; when it is back `deadwax cluster apply undrain-volume {volume}` gives \
                 it copies again, and where it is replaced `deadwax volume retire {volume}` takes it out of the map",
                node.address,
                SILENCE_MS / 60_000,
                layout.held_by(&volume).len(),
            ));
        }
    }
    warnings
}

/// Nodes that are up, and do not say how they stand.
fn unsaid(nodes: &[NodeReport]) -> impl Iterator<Item = String> {
    nodes.iter().filter(|node| node.up && node.core.is_none()).map(|node| {
        let why = node.core_error.as_deref().unwrap_or("it goes by a map that is a file, or its program is too old");
        format!("node {} does not say how it stands in the cluster's rules: {why}", node.address)
    })
}

/// Nodes that answer here, and that others do not reach.
fn unseen(nodes: &[NodeReport]) -> Vec<String> {
    let mut by: BTreeMap<NodeId, usize> = BTreeMap::new();
    for core in nodes.iter().filter_map(|node| node.core.as_ref()) {
        core.not_up.iter().for_each(|each| *by.entry(each.node).or_default() += 1);
    }
    let up = nodes.iter().filter(|node| node.up);
    let unseen = up.filter_map(|node| by.get(&node.id).map(|count| (node, count)));
    unseen
        .map(|(node, count)| format!("node {} answers here, and {count} others do not reach it", node.address))
        .collect()
}

fn leaving(layout: &Layout) -> Leaving {
    let state: &State = layout.state();
    let partitions = state.leaving().iter().map(|volume| layout.held_by(volume).len() as u64).sum();
    Leaving { volumes: state.leaving().len() as u64, partitions }
}

#[cfg(test)]
mod tests {
    use deadwax_dht::log::{Change, History, Proposal, Ticket};
    use deadwax_dht::wire::VolumeStatus;
    use deadwax_dht::{ClusterId, LayoutCache, MAP_VERSION, MapSpec, Node, Policy, Volume, VolumeId};

    use super::*;

    #[test]
    fn a_volume_that_leaves_and_is_out_is_named_with_what_to_do_when_it_is_back() {
        let id = |at: u8, drive: u8| VolumeId::from_bytes([16 * at + drive; 16]);
        let node = |at: u8| Node {
            id: NodeId::from_bytes([at; 32]),
            zone: "here".into(),
            rack: None,
            address: format!("10.0.0.{at}:7881"),
            volumes: (0..2).map(|drive| Volume { id: id(at, drive), weight: 1 }).collect(),
        };
        let policy = Policy { copies: 1, write_quorum: 1, zones_min: 1 };
        let (version, cluster, nodes) = (MAP_VERSION, ClusterId::from_bytes([1; 16]), (1..=3).map(node).collect());
        let spec = MapSpec { version, cluster, epoch: 1, policy, nodes, overrides: vec![] };
        let voters: Vec<NodeId> = (1..=3).map(|at| NodeId::from_bytes([at; 32])).collect();
        let ticket = Ticket { node: voters[0], number: 1 };
        let mut history = History::genesis(spec, voters).expect("a good genesis");
        let change = Change::SetLeaving { volumes: vec![id(1, 0), id(1, 1), id(2, 0), id(3, 0)], leaving: true };
        let record = history.decide(&Proposal { ticket, base: 1, change }).expect("they may leave");
        history.append(&record).expect("it comes next");
        let layout = LayoutCache::for_many().begin(&history, &history.map().expect("a map")).expect("a layout");
        let volume = |id, state| VolumeStatus {
            id,
            dir: String::new(),
            capacity_bytes: 0,
            free_bytes: 0,
            tracks: 0,
            track_bytes: 0,
            record_bytes: 0,
            takedowns: 0,
            state,
            reason: None,
        };
        let report = |at: u8, up, volumes| NodeReport {
            id: NodeId::from_bytes([at; 32]),
            address: format!("10.0.0.{at}:7881"),
            zone: "here".to_owned(),
            up,
            error: None,
            version: String::new(),
            uptime_s: 0,
            epoch: 0,
            shards: 0,
            resident_bytes: 0,
            volumes,
            scrubs: vec![],
            counters: BTreeMap::new(),
            core: None,
            core_error: None,
        };
        let nodes = [
            report(1, true, vec![volume(id(1, 0), VolumeState::Fenced), volume(id(1, 1), VolumeState::Serving)]),
            report(2, true, vec![volume(id(2, 1), VolumeState::Fenced)]),
            report(3, false, vec![]),
        ];
        let told = given_up(&nodes, &layout);
        assert_eq!(told.len(), 2, "{told:?}");
        for (warning, volume) in told.iter().zip([id(1, 0), id(2, 0)]) {
            assert!(warning.contains(&format!("apply undrain-volume {volume}` gives it copies again")), "{warning}");
        }
    }
}
