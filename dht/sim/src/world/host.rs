//! A machine: its process, if one runs, its clocks and its drives.

use std::sync::Arc;

use deadwax_dht::core::Core;
use deadwax_dht::wire::Protocols;
use deadwax_dht::{NodeId, NodeKey, VolumeId};

use super::event::Event;
use super::load::Load;
use crate::check::Standstill;
use crate::clock::{Clock, Micros};
use crate::drive::{Drive, System};

/// What a paused process finds waiting is bounded by its sockets' buffers: what is beyond is lost.
pub(crate) const HELD_MAX: usize = 20_000;

/// Where a machine is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// In the map, or on its way in.
    Member,
    /// Not used yet, or not any more.
    Spare,
    /// It runs under the name of the host of this number.
    Clone(u32),
}

/// A machine.
pub(crate) struct Host {
    pub(crate) id: NodeId,
    pub(crate) key: NodeKey,
    pub(crate) issuer: Option<NodeKey>,
    pub(crate) zone: usize,
    pub(crate) address: Arc<str>,
    pub(crate) role: Role,
    pub(crate) core: Option<Box<Core>>,
    /// Counts starts and stops: what was meant for an earlier life is void.
    pub(crate) life: u32,
    pub(crate) paused: bool,
    pub(crate) held: Vec<Event>,
    pub(crate) clock: Clock,
    pub(crate) drives: Vec<Drive>,
    pub(crate) system: System,
    /// Which versions of the protocol the program here speaks.
    pub(crate) protocols: Protocols,
    /// It said that another lives under its name, or that it is too old or too new.
    pub(crate) halted: bool,
    /// It is to crash in the middle of its next write.
    pub(crate) armed: bool,
    /// How many faults touch it now.
    pub(crate) faults: u32,
    /// When the last of them ended.
    pub(crate) well_since: Micros,
    /// Ticks in the current second: a core that is never done spins.
    pub(crate) ticks: (Micros, u32),
    /// Messages sent in the current second.
    pub(crate) sent: (Micros, u32),
    pub(crate) load: Load,
    pub(crate) standstill: Standstill,
    /// Of clients' requests since the last word to the core, in microseconds.
    pub(crate) latencies: Vec<u64>,
    pub(crate) latency_due: bool,
}

impl Host {
    pub(crate) fn drive(&self, volume: &VolumeId) -> Option<usize> {
        self.drives.iter().position(|drive| drive.id == *volume)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.core.is_some() && !self.paused && !self.halted
    }

    pub(crate) const fn is_member(&self) -> bool {
        matches!(self.role, Role::Member)
    }
}

impl Host {
    /// A second machine with this one's name, at another address, and with drives that are empty.
    pub(crate) fn double(&self, address: Arc<str>, system: System, of: u32, now: Micros) -> Self {
        Self {
            id: self.id,
            key: self.key.clone(),
            issuer: None,
            zone: self.zone,
            address,
            role: Role::Clone(of),
            core: None,
            life: 0,
            paused: false,
            held: Vec::new(),
            clock: Clock::new(now, 0),
            drives: self.drives.iter().map(|drive| Drive::new(drive.id)).collect(),
            system,
            protocols: self.protocols,
            halted: false,
            armed: false,
            faults: 0,
            well_since: now,
            ticks: (0, 0),
            sent: (0, 0),
            load: Load::default(),
            standstill: Standstill::default(),
            latencies: Vec::new(),
            latency_due: false,
        }
    }
}
