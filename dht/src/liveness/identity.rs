//! Who takes part in SWIM.

use crate::NodeId;

/// A node, and which of its lives: a process that starts, or that was called down by mistake, begins a later one.
///
/// What is known about a life that was called down is never taken back (SWIM, section 4.2); a later life replaces it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    pub(super) node: NodeId,
    /// 0: no life in particular; so is a node named of which only the map has told.
    pub(super) life: u64,
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(Self { node: self.node, life: self.life.checked_add(1)? })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.life > adversary.life
    }
}
