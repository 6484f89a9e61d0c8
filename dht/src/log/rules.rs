//! What each change does to a state, and what it may not do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use deadwax_track::Partition;

use super::change::Change;
use super::state::{Grant, Refounding, State, Token, Voter};
use super::transition::{Move, Stage, Transition};
use super::{MOVES_MAX, REFOUNDINGS_MAX, TOKENS_MAX, VOTERS_MAX, VOTERS_MIN};
use crate::map::{VolumeLists, check as check_spec, holders_in};
use crate::{BadMap, MapSpec, Node, NodeId, Override, TokenName, VolumeId};

/// Why a change cannot be. Ask the operator, or plan anew from the newest state: the same change will not do later.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum BadChange {
    #[error(transparent)]
    Map(#[from] BadMap),
    #[error("a genesis can only be the first record")]
    Genesis,
    #[error("epoch {epoch} cannot roll back to epoch {to}, or the map given for it is another's")]
    RollBack { to: u64, epoch: u64 },
    #[error("it changes nothing")]
    Nothing,
    #[error("the cluster is finalised at protocol {is}, which cannot be lowered to {got}")]
    Lowered { got: u8, is: u8 },
    #[error("it came with protocol {since}, and the cluster is finalised at {is}: finalise it at {since} first")]
    NotFinalised { since: u8, is: u8 },
    #[error("no node {0} is in the map")]
    NoNode(NodeId),
    #[error("no volume {0} is in the map")]
    NoVolume(VolumeId),
    #[error("{0} voters; there are {VOTERS_MIN} to {VOTERS_MAX}")]
    Voters(usize),
    #[error("node {0} is named twice as a voter")]
    VoterTwice(NodeId),
    #[error("node {0} does not vote")]
    NotVoter(NodeId),
    #[error("a change of voters is under way")]
    VotersChange,
    #[error("node {0} votes, but is not in the map")]
    VoterNotInMap(NodeId),
    #[error("seat {0} is out of order, or was never given")]
    Seat(u64),
    #[error("it names {0} volumes; it may name 1 to {MOVES_MAX}")]
    Volumes(usize),
    #[error("volume {0} is named twice")]
    VolumeTwice(VolumeId),
    #[error("volume {0} is leaving, but is not in the map")]
    LeavingNotInMap(VolumeId),
    #[error("a map planned at epoch {got} cannot follow epoch {epoch}, or is another cluster's")]
    Reshape { got: u64, epoch: u64 },
    #[error("a reshape has {got} copies; there are {copies}, and no override holds another number in place")]
    Copies { got: u8, copies: u8 },
    #[error("node {0} is declared dead, but is not in the map")]
    DeadNotInMap(NodeId),
    #[error("it names {0} partitions; it may name 1 to {MOVES_MAX}")]
    Partitions(usize),
    #[error("partition {} is named twice", .0.0)]
    PartitionTwice(Partition),
    #[error("partition {} is in transition", .0.0)]
    InTransition(Partition),
    #[error("partition {} is not in transition", .0.0)]
    NotInTransition(Partition),
    #[error("partition {} is at stage {is:?}, which does not come before {wanted}", .partition.0)]
    Stage { partition: Partition, is: Stage, wanted: &'static str },
    #[error("partition {} is not held by the volumes that the move says", .0.0)]
    OldHolders(Partition),
    #[error("partition {}: its new holders are the old ones", .0.0)]
    SameHolders(Partition),
    #[error("partition {}, which moves: {got} new holders, there are {copies} copies", .partition.0)]
    NewHolders { partition: Partition, got: usize, copies: u8 },
    #[error("partition {}, which moves, needs volume {volume}, which is not in the map", .partition.0)]
    NeededVolume { partition: Partition, volume: VolumeId },
    #[error("{0} tokens; the most is {TOKENS_MAX}")]
    Tokens(usize),
    #[error("token {0} is named twice")]
    TokenTwice(TokenName),
    #[error("token {0} is not there: it was used, or taken back")]
    NoToken(TokenName),
    #[error("a log is begun anew by a node that is left of it, not by a decision")]
    Refound,
    #[error("node {0} cannot be lost: it is the one that is to vote")]
    LostVoter(NodeId),
    #[error("the log was begun anew {0} times, or in no order; the most is {REFOUNDINGS_MAX}")]
    Refoundings(usize),
}

/// `state` with `change` done, its epoch as before. [`check`] has not been asked yet.
pub(super) fn apply(mut state: State, change: &Change) -> Result<State, BadChange> {
    let (since, is) = (change.since(), state.protocol);
    if since > is {
        return Err(BadChange::NotFinalised { since, is });
    }
    match change {
        Change::Genesis { .. } => return Err(BadChange::Genesis),
        Change::AddNode(node) => state.spec.nodes.push(node.clone()),
        Change::RemoveNode(id) => {
            node(&mut state, id)?;
            state.spec.nodes.retain(|node| node.id != *id);
            forget_gone(&mut state);
        }
        Change::AddVolume { node: id, volume } => node(&mut state, id)?.volumes.push(*volume),
        Change::RetireVolume(id) => {
            let node = owner(&mut state, id)?;
            node.volumes.retain(|volume| volume.id != *id);
            state.leaving.remove(id);
        }
        Change::SetWeight { volume: id, weight } => {
            let volumes = owner(&mut state, id)?.volumes.iter_mut();
            volumes.filter(|volume| volume.id == *id).for_each(|volume| volume.weight = *weight);
        }
        Change::SetZone { node: id, zone } => node(&mut state, id)?.zone.clone_from(zone),
        Change::SetRack { node: id, rack } => node(&mut state, id)?.rack.clone_from(rack),
        Change::SetAddress { node: id, address } => node(&mut state, id)?.address.clone_from(address),
        Change::SetPolicy(policy) => state.spec.policy = *policy,
        Change::SetOverrides(overrides) => {
            distinct(overrides.iter().map(|over| over.partition))?;
            let moving = |over: &&Override| state.transitions.contains_key(&over.partition);
            if let Some(over) = overrides.iter().find(moving) {
                return Err(BadChange::InTransition(over.partition));
            }
            let holders = overrides.iter().map(|over| (over.partition, over.volumes.clone()));
            set_overrides(&mut state, holders.collect());
        }
        Change::Begin(moves) => begin(&mut state, moves)?,
        Change::Advance { partitions, to } => advance(&mut state, partitions, *to)?,
        Change::Finish(partitions) => finish(&mut state, partitions)?,
        Change::Abort(partitions) => abort(&mut state, partitions)?,
        Change::SetVoters(voters) => return seat(state, voters),
        Change::RenewSeats(voters) => return renew(state, voters),
        Change::SettleVoters => state.outgoing.clear(),
        Change::SetDead { node: id, dead } => {
            node(&mut state, id)?;
            if *dead {
                state.dead.insert(*id)
            } else {
                state.dead.remove(id)
            };
        }
        Change::RollBack { to, spec } => {
            let epoch = state.spec.epoch;
            if spec.epoch != *to || *to >= epoch || spec.cluster != state.spec.cluster {
                return Err(BadChange::RollBack { to: *to, epoch });
            }
            state.spec = (**spec).clone();
            state.spec.epoch = epoch;
            forget_gone(&mut state);
        }
        Change::SetLeaving { volumes, leaving } => set_leaving(&mut state, volumes, *leaving)?,
        Change::Reshape { spec } => reshape(&mut state, spec)?,
        Change::Finalise { protocol: got } if *got < is => return Err(BadChange::Lowered { got: *got, is }),
        Change::Finalise { protocol } => state.protocol = *protocol,
        Change::SetTokens(tokens) => set_tokens(&mut state, tokens)?,
        Change::Admit { token, spec } => admit(&mut state, token, spec)?,
        Change::Refound { voter, lost } => refound(&mut state, *voter, lost)?,
    }
    Ok(state)
}

fn node<'a>(state: &'a mut State, id: &NodeId) -> Result<&'a mut Node, BadChange> {
    state.spec.nodes.iter_mut().find(|node| node.id == *id).ok_or(BadChange::NoNode(*id))
}

fn owner<'a>(state: &'a mut State, id: &VolumeId) -> Result<&'a mut Node, BadChange> {
    let has = |node: &&mut Node| node.volumes.iter().any(|volume| volume.id == *id);
    state.spec.nodes.iter_mut().find(has).ok_or(BadChange::NoVolume(*id))
}

/// The state in which these nodes vote, and for a while those, too, that voted before. Who voted before keeps its seat,
/// the others get new ones.
pub(super) fn seat(state: State, voters: &[Grant]) -> Result<State, BadChange> {
    // Before any loop over them: the list may come from a peer.
    if !(VOTERS_MIN..=VOTERS_MAX).contains(&voters.len()) {
        return Err(BadChange::Voters(voters.len()));
    }
    give(state, voters, |is_named| is_named)
}

/// The state in which these voters have new seats, and for a while those, too, that they had before.
fn renew(state: State, voters: &[Grant]) -> Result<State, BadChange> {
    if voters.len() > VOTERS_MAX {
        return Err(BadChange::Voters(voters.len()));
    }
    if let Some(other) = voters.iter().find(|grant| state.voter(&grant.node).is_none()) {
        return Err(BadChange::NotVoter(other.node));
    }
    give(state, voters, |is_named| !is_named)
}

/// One node votes, in a new seat, so that nothing that was promised in an earlier one counts; those that are lost are dead.
fn refound(state: &mut State, voter: NodeId, lost: &[NodeId]) -> Result<(), BadChange> {
    node(state, &voter)?;
    if lost.contains(&voter) {
        return Err(BadChange::LostVoter(voter));
    }
    // That they are in the map is asked of the state that comes of it.
    state.dead.extend(lost);
    state.dead.remove(&voter);
    state.seats = state.seats.checked_add(1).ok_or(BadChange::Seat(u64::MAX))?;
    state.voters = vec![Voter { seat: state.seats, node: voter, life: 0 }];
    state.outgoing.clear();
    state.refounded.push(Refounding { epoch: state.spec.epoch.saturating_add(1), node: voter });
    Ok(())
}

/// Gives seats to those that are named and have none any more. `stays`: whether a voter does that is named, or is not.
fn give(mut state: State, voters: &[Grant], stays: impl Fn(bool) -> bool) -> Result<State, BadChange> {
    let mut wanted: BTreeMap<NodeId, u64> = BTreeMap::new();
    if let Some(twice) = voters.iter().find(|grant| wanted.insert(grant.node, grant.life).is_some()) {
        return Err(BadChange::VoterTwice(twice.node));
    }
    if !state.outgoing.is_empty() {
        return Err(BadChange::VotersChange);
    }
    let before = state.voters.clone();
    state.voters.retain(|voter| stays(wanted.contains_key(&voter.node)));
    state.voters.iter().for_each(|voter| _ = wanted.remove(&voter.node));
    for (node, life) in wanted {
        state.seats = state.seats.checked_add(1).ok_or(BadChange::Seat(u64::MAX))?;
        state.voters.push(Voter { seat: state.seats, node, life });
    }
    if state.voters != before {
        state.outgoing = before;
    }
    Ok(state)
}

fn set_leaving(state: &mut State, volumes: &[VolumeId], leaving: bool) -> Result<(), BadChange> {
    if !(1..=MOVES_MAX).contains(&volumes.len()) {
        return Err(BadChange::Volumes(volumes.len()));
    }
    let mut named = BTreeSet::new();
    if let Some(twice) = volumes.iter().find(|volume| !named.insert(**volume)) {
        return Err(BadChange::VolumeTwice(*twice));
    }
    if leaving {
        // That they are in the map is asked of the state that comes of it.
        state.leaving.extend(named);
    } else {
        if let Some(other) = volumes.iter().find(|volume| !state.leaving.contains(volume)) {
            owner(state, other)?;
        }
        state.leaving.retain(|volume| !named.contains(volume));
    }
    Ok(())
}

fn reshape(state: &mut State, spec: &MapSpec) -> Result<(), BadChange> {
    let (epoch, policy) = (state.spec.epoch, state.spec.policy);
    if spec.epoch != epoch || spec.cluster != state.spec.cluster {
        return Err(BadChange::Reshape { got: spec.epoch, epoch });
    }
    if spec.policy.copies != policy.copies {
        return Err(BadChange::Copies { got: spec.policy.copies, copies: policy.copies });
    }
    state.spec = spec.clone();
    forget_gone(state);
    Ok(())
}

fn set_tokens(state: &mut State, tokens: &[Token]) -> Result<(), BadChange> {
    state.tokens.clear();
    // Before any work on them: the list may come from a peer.
    check_tokens(tokens.len())?;
    for token in tokens {
        if state.tokens.insert(token.name, token.until_ms).is_some() {
            return Err(BadChange::TokenTwice(token.name));
        }
    }
    Ok(())
}

/// A token is used up, and its bearer is in the map.
fn admit(state: &mut State, token: &TokenName, spec: &MapSpec) -> Result<(), BadChange> {
    state.tokens.remove(token).ok_or(BadChange::NoToken(*token))?;
    reshape(state, spec)
}

const fn check_tokens(count: usize) -> Result<(), BadChange> {
    if count > TOKENS_MAX { Err(BadChange::Tokens(count)) } else { Ok(()) }
}

/// Whoever is not in the map is neither dead nor leaving.
fn forget_gone(state: &mut State) {
    let nodes: BTreeSet<NodeId> = state.spec.nodes.iter().map(|node| node.id).collect();
    state.dead.retain(|node| nodes.contains(node));
    if !state.leaving.is_empty() {
        let volumes = volumes_of(&state.spec);
        let gone: Vec<VolumeId> = state.leaving.iter().filter(|volume| !volumes.contains(volume)).copied().collect();
        gone.iter().for_each(|volume| _ = state.leaving.remove(volume));
    }
}

fn volumes_of(spec: &MapSpec) -> BTreeSet<&VolumeId> {
    spec.nodes.iter().flat_map(|node| &node.volumes).map(|volume| &volume.id).collect()
}

fn distinct(partitions: impl ExactSizeIterator<Item = Partition>) -> Result<(), BadChange> {
    let count = partitions.len();
    if !(1..=MOVES_MAX).contains(&count) {
        return Err(BadChange::Partitions(count));
    }
    let mut seen = BTreeSet::new();
    for partition in partitions {
        if !seen.insert(partition) {
            return Err(BadChange::PartitionTwice(partition));
        }
    }
    Ok(())
}

/// Sets these overrides; none for those without volumes. The table is left in the order of partitions, so that it does
/// not depend on the order of changes.
fn set_overrides(state: &mut State, holders: BTreeMap<Partition, Arc<[VolumeId]>>) {
    let overrides = &mut state.spec.overrides;
    overrides.retain(|over| !holders.contains_key(&over.partition));
    let set = holders.into_iter().filter(|(_, volumes)| !volumes.is_empty());
    overrides.extend(set.map(|(partition, volumes)| Override { partition, volumes }));
    overrides.sort_by_key(|over| over.partition);
}

fn begin(state: &mut State, moves: &[Move]) -> Result<(), BadChange> {
    distinct(moves.iter().map(|each| each.partition))?;
    let partitions: Vec<Partition> = moves.iter().map(|each| each.partition).collect();
    let held = holders_in(&state.spec, &partitions);
    // The new holders keep the rules of an override: they become one.
    let mut later = state.spec.clone();
    let named: BTreeSet<Partition> = partitions.iter().copied().collect();
    later.overrides.retain(|over| !named.contains(&over.partition));
    let mut lists = VolumeLists::default();
    for (each, held) in moves.iter().zip(held) {
        let partition = each.partition;
        if state.transitions.contains_key(&partition) {
            return Err(BadChange::InTransition(partition));
        }
        if each.old != held {
            return Err(BadChange::OldHolders(partition));
        }
        if each.new == each.old {
            return Err(BadChange::SameHolders(partition));
        }
        let (old, new) = (lists.one(&each.old), lists.one(&each.new));
        later.overrides.push(Override { partition, volumes: new.clone() });
        let transition = Transition { stage: Stage::Joint, old, new };
        state.transitions.insert(partition, transition);
    }
    Ok(check_spec(&later)?)
}

fn transition(state: &mut State, partition: Partition) -> Result<&mut Transition, BadChange> {
    state.transitions.get_mut(&partition).ok_or(BadChange::NotInTransition(partition))
}

fn advance(state: &mut State, partitions: &[Partition], to: Stage) -> Result<(), BadChange> {
    distinct(partitions.iter().copied())?;
    let mut settled = BTreeMap::new();
    for partition in partitions.iter().copied() {
        let transition = transition(state, partition)?;
        match (transition.stage, to) {
            (Stage::Joint, Stage::Synced) | (Stage::Synced, Stage::Settled) => transition.stage = to,
            (is, _) => return Err(BadChange::Stage { partition, is, wanted: "the stage asked for" }),
        }
        if to == Stage::Settled {
            settled.insert(partition, transition.new.clone());
        }
    }
    pin(state, settled);
    Ok(())
}

fn finish(state: &mut State, partitions: &[Partition]) -> Result<(), BadChange> {
    distinct(partitions.iter().copied())?;
    for partition in partitions.iter().copied() {
        let is = transition(state, partition)?.stage;
        if is != Stage::Settled {
            return Err(BadChange::Stage { partition, is, wanted: "the end" });
        }
        state.transitions.remove(&partition);
    }
    Ok(())
}

fn abort(state: &mut State, partitions: &[Partition]) -> Result<(), BadChange> {
    distinct(partitions.iter().copied())?;
    let mut stay = BTreeMap::new();
    for partition in partitions.iter().copied() {
        let transition = transition(state, partition)?;
        let is = transition.stage;
        if is == Stage::Settled {
            // The old holders have missed writes since.
            return Err(BadChange::Stage { partition, is, wanted: "the way back" });
        }
        stay.insert(partition, transition.old.clone());
        state.transitions.remove(&partition);
    }
    pin(state, stay);
    Ok(())
}

/// From here on the map itself says that these volumes hold these partitions: by an override, unless placement says so.
fn pin(state: &mut State, mut holders: BTreeMap<Partition, Arc<[VolumeId]>>) {
    let partitions: Vec<Partition> = holders.keys().copied().collect();
    state.spec.overrides.retain(|over| !holders.contains_key(&over.partition));
    for (partition, placed) in partitions.iter().zip(holders_in(&state.spec, &partitions)) {
        if *holders[partition] == *placed {
            holders.remove(partition);
        }
    }
    set_overrides(state, holders);
}

/// What holds for every state, whatever led to it: also asked of states that came from a peer.
pub(super) fn check(state: &State) -> Result<(), BadChange> {
    check_spec(&state.spec)?;
    check_tokens(state.tokens.len())?;
    let refounded = &state.refounded;
    let rises = refounded.is_sorted_by(|one, next| one.epoch < next.epoch);
    if refounded.len() > REFOUNDINGS_MAX || !rises || refounded.last().is_some_and(|last| last.epoch > state.spec.epoch)
    {
        return Err(BadChange::Refoundings(refounded.len()));
    }
    let nodes: BTreeSet<&NodeId> = state.spec.nodes.iter().map(|node| &node.id).collect();
    check_voters(&state.voters, state, &nodes)?;
    if !state.outgoing.is_empty() {
        check_voters(&state.outgoing, state, &nodes)?;
    }
    if let Some(gone) = state.dead.iter().find(|node| !nodes.contains(node)) {
        return Err(BadChange::DeadNotInMap(*gone));
    }
    if !state.leaving.is_empty() {
        let volumes = volumes_of(&state.spec);
        if let Some(gone) = state.leaving.iter().find(|volume| !volumes.contains(volume)) {
            return Err(BadChange::LeavingNotInMap(*gone));
        }
    }
    check_transitions(state)
}

fn check_voters(voters: &[Voter], state: &State, nodes: &BTreeSet<&NodeId>) -> Result<(), BadChange> {
    // Whoever begins a log anew is its only voter for a while.
    let min = if state.refounded.is_empty() { VOTERS_MIN } else { 1 };
    if !(min..=VOTERS_MAX).contains(&voters.len()) {
        return Err(BadChange::Voters(voters.len()));
    }
    let (mut seated, mut last) = (BTreeSet::new(), 0);
    for voter in voters {
        if voter.seat <= last || voter.seat > state.seats {
            return Err(BadChange::Seat(voter.seat));
        }
        last = voter.seat;
        if !seated.insert(voter.node) {
            return Err(BadChange::VoterTwice(voter.node));
        }
        if !nodes.contains(&voter.node) {
            return Err(BadChange::VoterNotInMap(voter.node));
        }
    }
    Ok(())
}

fn check_transitions(state: &State) -> Result<(), BadChange> {
    if state.transitions.is_empty() {
        return Ok(());
    }
    let volumes = volumes_of(&state.spec);
    let copies = state.spec.policy.copies;
    for (partition, transition) in &state.transitions {
        let partition = *partition;
        if let Some(volume) = transition.needed().find(|volume| !volumes.contains(volume)) {
            return Err(BadChange::NeededVolume { partition, volume: *volume });
        }
        let got = transition.new.len();
        if transition.stage != Stage::Settled && got != usize::from(copies) {
            return Err(BadChange::NewHolders { partition, got, copies });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClusterId, MAP_VERSION, Policy, Volume};

    #[test]
    fn a_change_comes_to_be_only_where_the_cluster_is_finalised_at_its_version() {
        let node = |at: u8| {
            let volumes = vec![Volume { id: VolumeId::from_bytes([at; 16]), weight: 1 }];
            let (id, address) = (NodeId::from_bytes([at; 32]), format!("10.0.0.{at}:7881"));
            Node { id, zone: "here".into(), rack: None, address, volumes }
        };
        let policy = Policy { copies: 1, write_quorum: 1, zones_min: 1 };
        let (version, cluster, nodes) = (MAP_VERSION, ClusterId::from_bytes([1; 16]), (1..=4).map(node).collect());
        let spec = MapSpec { version, cluster, epoch: 1, policy, nodes, overrides: vec![] };
        let voters: Vec<NodeId> = spec.nodes[..3].iter().map(|node| node.id).collect();
        let change = Change::SetDead { node: voters[0], dead: true };
        let since = change.since();
        let early = State::genesis(&spec, &voters, since - 1).expect("a state");
        assert_eq!(early.after(&change), Err(BadChange::NotFinalised { since, is: since - 1 }));
        let state = State::genesis(&spec, &voters, since).expect("a state");
        assert_eq!(state.after(&change).map(|state| state.protocol()), Ok(since));
        let raised = state.after(&Change::Finalise { protocol: since + 2 }).expect("it rises");
        assert_eq!(raised.protocol(), since + 2);
        for (protocol, why) in [
            (since + 2, BadChange::Nothing),
            (since + 1, BadChange::Lowered { got: since + 1, is: since + 2 }),
            (0, BadChange::Lowered { got: 0, is: since + 2 }),
        ] {
            assert_eq!(raised.after(&Change::Finalise { protocol }), Err(why));
        }
    }
}
