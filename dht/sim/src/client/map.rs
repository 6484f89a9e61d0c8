//! How a gateway keeps its map new.

use deadwax_dht::log::Batch;

use super::{OpKind, World};
use crate::check::Rule;
use crate::clock::{Micros, SECOND};
use crate::slab::Key;
use crate::trace::{GATEWAY, Kind, NONE};
use crate::world::Event;

/// How long a node may take to give the map.
const PATIENCE: Micros = 2 * SECOND;
/// How often a request goes on with another map.
pub(super) const ATTEMPTS_MAX: u32 = 6;

impl World {
    /// A request needs a newer map than its gateway has.
    pub(super) fn await_map(&mut self, op: Key, gateway: u32) {
        let at = &mut self.clients.gateways[gateway as usize];
        at.waiting.push(op);
        if !at.asking {
            self.ask_map(gateway);
        }
    }

    fn ask_map(&mut self, gateway: u32) {
        let nodes = self.clients.gateways[gateway as usize].layout.map().nodes().len();
        let node = self.clients.random.index(nodes);
        let id = self.clients.gateways[gateway as usize].layout.map().nodes()[node].id;
        let host = self.registry.get(&id).copied().unwrap_or(0);
        let at = &mut self.clients.gateways[gateway as usize];
        at.asking = true;
        at.asked += 1;
        let (asked, since) = (at.asked, at.history.epoch());
        self.post((GATEWAY + gateway, host), Event::Want { gateway, host, since });
        self.queue.push(self.now + PATIENCE, Event::MapLate { gateway, asked });
    }

    pub(crate) fn gateway_map_late(&mut self, gateway: u32, asked: u32) {
        let at = &self.clients.gateways[gateway as usize];
        if !at.asking || at.asked != asked {
            return;
        }
        // Requests that have waited for too long go on with the map that there is.
        let old: Vec<Key> = at.waiting.iter().copied().filter(|op| self.is_old(*op)).collect();
        self.clients.gateways[gateway as usize].waiting.retain(|op| !old.contains(op));
        if self.clients.gateways[gateway as usize].waiting.is_empty() {
            self.clients.gateways[gateway as usize].asking = false;
        } else {
            self.ask_map(gateway);
        }
        for op in old {
            self.go_on_with_map(op);
        }
    }

    fn is_old(&self, op: Key) -> bool {
        self.clients.ops.get(op).is_none_or(|op| self.now - op.began > 10 * SECOND)
    }

    pub(crate) fn gateway_map(&mut self, gateway: u32, batch: &Batch) {
        let at = &mut self.clients.gateways[gateway as usize];
        if let Err(error) = self.layouts.catch_up(&mut at.history, batch) {
            self.checks
                .violate(Rule::OneHistory, format!("gateway {gateway} was given a history that is none: {error}"));
            return;
        }
        at.layout = self.layouts.layout(&at.history, Some(&at.layout)).expect("a checked history has a layout");
        at.asking = false;
        let epoch = at.layout.epoch();
        let waiting = std::mem::take(&mut at.waiting);
        self.note(Kind::Refreshed, GATEWAY + gateway, NONE, epoch);
        for op in waiting {
            self.go_on_with_map(op);
        }
    }

    fn go_on_with_map(&mut self, op: Key) {
        match self.clients.ops.get(op).map(|op| &op.kind) {
            Some(OpKind::PutWaits) => self.put_offers(op),
            Some(OpKind::GetWaits) => self.get_asks(op, 0),
            Some(OpKind::Get(get)) => {
                let next = get.plan.next_byte();
                let track = self.clients.ops.get(op).expect("found above").track;
                // A holder that was asked meanwhile may have sent all, and not yet said that this was all.
                if next < self.oracle.get(track).bytes {
                    self.get_asks(op, next);
                }
            }
            _ => {}
        }
    }
}
