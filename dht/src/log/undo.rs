//! What takes operators' changes back, for longer than records are kept.
//!
//! Of each change of nodes, drives, weights, zones, racks, addresses, policy or drains a history keeps what was there before,
//! so that a rollback reaches it, however many records of moves came since. It decides nothing: the record that a rollback
//! becomes has the whole map in it. But it depends on the chain alone, so that any node that comes to lead has it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::codec::{BadBytes, Reader, Writer};
use super::spec::{read_node, read_policy, read_volumes, write_node, write_policy, write_volumes};
use super::state::State;
use super::{UNDOS_BYTES_MAX, UNDOS_MAX};
use crate::{MapSpec, Node, NodeId, Policy, VolumeId};

/// What a rollback to an epoch brings back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Earlier {
    /// The epoch's map, without overrides; its nodes perhaps in another order.
    pub spec: MapSpec,
    /// The drives that were to be emptied.
    pub leaving: BTreeSet<VolumeId>,
}

impl Earlier {
    /// What there is now.
    pub(super) fn now(state: &State) -> Self {
        let MapSpec { version, cluster, epoch, policy, ref nodes, .. } = *state.spec();
        let spec = MapSpec { version, cluster, epoch, policy, nodes: nodes.clone(), overrides: Vec::new() };
        Self { spec, leaving: state.leaving().clone() }
    }

    /// Goes back to before a change, from right after it.
    pub(super) fn take_back(&mut self, undo: &Undo) {
        let came: BTreeSet<&NodeId> = undo.came.iter().collect();
        self.spec.nodes.retain(|node| !came.contains(&node.id));
        let mut before: BTreeMap<&NodeId, &Node> = undo.nodes.iter().map(|node| (&node.id, node)).collect();
        for node in &mut self.spec.nodes {
            if let Some(was) = before.remove(&node.id) {
                node.clone_from(was);
            }
        }
        self.spec.nodes.extend(before.into_values().cloned());
        self.spec.policy = undo.policy.unwrap_or(self.spec.policy);
        undo.drained.iter().for_each(|volume| _ = self.leaving.remove(volume));
        self.leaving.extend(&undo.undrained);
    }
}

/// What one record changed, as it was before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Undo {
    /// The record's.
    pub(super) epoch: u64,
    policy: Option<Policy>,
    /// Nodes that were others, or went.
    nodes: Vec<Node>,
    came: Vec<NodeId>,
    /// What was to be emptied until then.
    undrained: Vec<VolumeId>,
    /// What is to be emptied since then.
    drained: Vec<VolumeId>,
}

impl Undo {
    const BYTES_MIN: usize = 8 + 1 + 4 * 4;

    /// Of the record that made `after` of `before`; none where it changed nothing that a rollback brings back.
    pub(super) fn between(before: &State, after: &State) -> Option<Self> {
        let is: BTreeMap<&NodeId, &Node> = after.spec().nodes.iter().map(|node| (&node.id, node)).collect();
        let was: BTreeSet<&NodeId> = before.spec().nodes.iter().map(|node| &node.id).collect();
        let came = is.keys().filter(|id| !was.contains(*id)).map(|id| **id).collect();
        let nodes = before.spec().nodes.iter().filter(|node| is.get(&node.id) != Some(node)).cloned().collect();
        let (left, leaves) = (before.leaving(), after.leaving());
        let undo = Self {
            epoch: after.epoch(),
            policy: (before.spec().policy != after.spec().policy).then_some(before.spec().policy),
            nodes,
            came,
            undrained: left.difference(leaves).copied().collect(),
            drained: leaves.difference(left).copied().collect(),
        };
        let is_any = undo.policy.is_some()
            || !(undo.nodes.is_empty() && undo.came.is_empty() && undo.undrained.is_empty() && undo.drained.is_empty());
        is_any.then_some(undo)
    }

    fn write(&self, out: &mut Writer) {
        out.u64(self.epoch);
        out.bool(self.policy.is_some());
        if let Some(policy) = self.policy {
            write_policy(out, policy);
        }
        out.list(self.nodes.iter(), write_node);
        out.list(self.came.iter(), Writer::node);
        write_volumes(out, &self.undrained);
        write_volumes(out, &self.drained);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, BadBytes> {
        Ok(Self {
            epoch: from.u64()?,
            policy: if from.bool("policy")? { Some(read_policy(from)?) } else { None },
            nodes: from.list(32, read_node)?,
            came: from.list(32, Reader::node)?,
            undrained: read_volumes(from)?,
            drained: read_volumes(from)?,
        })
    }

    fn bytes(&self) -> usize {
        let mut out = Writer::default();
        self.write(&mut out);
        out.finish().len()
    }
}

/// The last changes up to an epoch. A copy shares them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Undos {
    /// From this epoch on earlier maps are known.
    pub(super) since: u64,
    /// Rising, all after it.
    list: VecDeque<Arc<Undo>>,
    bytes: usize,
}

impl Undos {
    /// None, from an epoch on.
    pub(super) const fn since(epoch: u64) -> Self {
        Self { since: epoch, list: VecDeque::new(), bytes: 0 }
    }

    /// Takes the next. The newest stays, whatever its length.
    pub(super) fn push(&mut self, undo: Arc<Undo>) {
        self.bytes += undo.bytes();
        self.list.push_back(undo);
        while self.list.len() > UNDOS_MAX || (self.bytes > UNDOS_BYTES_MAX && self.list.len() > 1) {
            let oldest = self.list.pop_front().expect("there are several");
            self.bytes -= oldest.bytes();
            self.since = oldest.epoch;
        }
    }

    /// The oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Undo> {
        self.list.iter().map(|undo| &**undo)
    }

    pub(super) fn write(&self, out: &mut Writer) {
        out.u64(self.since);
        out.list(self.list.iter(), |out, undo| undo.write(out));
    }

    /// Those up to `epoch`.
    pub(super) fn read(from: &mut Reader<'_>, epoch: u64) -> Result<Self, BadBytes> {
        let since = from.u64()?;
        let list = from.list(Undo::BYTES_MIN, Undo::read)?;
        let (got, max) = (list.len(), UNDOS_MAX);
        if got > max {
            return Err(BadBytes::TooLong { what: "list of earlier changes", got, max });
        }
        let epochs = || [since].into_iter().chain(list.iter().map(|undo| undo.epoch));
        if !epochs().is_sorted_by(|one, next| one < next) || epochs().next_back().is_some_and(|last| last > epoch) {
            return Err(BadBytes::Order("earlier changes"));
        }
        let bytes = list.iter().map(Undo::bytes).sum();
        Ok(Self { since, list: list.into_iter().map(Arc::new).collect(), bytes })
    }
}
