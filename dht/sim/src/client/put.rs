//! A put, as a gateway drives it.

use std::sync::Arc;

use deadwax_dht::core::Verb;
use deadwax_dht::{Failure, FailureKind, Grace, Holder, Layout, PutQuorum, PutStep, Targets, Verdict};

use super::map::ATTEMPTS_MAX;
use super::{ClientOp, OpKind, World};
use crate::clock::{Micros, SECOND};
use crate::probe::Probe;
use crate::slab::Key;
use crate::trace::{Kind, NONE};
use crate::world::serving::Question;
use crate::world::{Asker, Event, FlowStep, Reply};

/// How long a put may take, in all.
const PUT: Micros = 30 * SECOND;
const GRACE: Grace = Grace { well_ms: 2_000, suspect_ms: 200, stand_in_ms: 800 };
/// Of so many tracks one is small.
const AT_ONCE_EACH: u32 = 3;
/// How many volumes a gateway would ask to stand in.
const STAND_INS_MAX: usize = 4;

/// What a put has under way.
#[derive(Debug)]
pub(crate) struct PutOp {
    quorum: PutQuorum,
    /// By which volumes have their indexes: the gateway's may be newer.
    layout: Arc<Layout>,
    epoch: u64,
    legs: Vec<Option<Key>>,
    volumes: Vec<Holder>,
    holders: usize,
    streaming: bool,
    /// The bytes go with the offers.
    at_once: bool,
    moving: bool,
}

impl World {
    pub(crate) fn put_begins(&mut self, gateway: u32, track: u32) {
        let known = self.oracle.get(track).acked.is_some();
        if known {
            self.hit(Probe::PutAgain);
        }
        self.oracle.get_mut(track).tried = true;
        let (began, kind) = (self.now, OpKind::PutWaits);
        self.note(Kind::Put, Self::endpoint(gateway), NONE, u64::from(track));
        let op = ClientOp { gateway, track, began, known, attempts: 0, must: false, kind, wake_at: 0 };
        let key = self.clients.ops.insert(op);
        self.put_offers(key);
    }

    /// Begins with the map that there is.
    pub(super) fn put_offers(&mut self, key: Key) {
        let now = self.now;
        let Some(op) = self.clients.ops.get_mut(key) else { return };
        op.attempts += 1;
        let (gateway, track, deadline) = (op.gateway, op.track, (op.began + PUT) / 1_000);
        let partition = self.oracle.get(track).id.partition();
        let at = &self.clients.gateways[gateway as usize];
        let (layout, sets) = (at.layout.clone(), at.layout.sets(partition));
        let union = sets.union();
        let map = layout.map();
        let down = |holder: &&Holder| at.is_down(&map.nodes()[holder.node].id, now);
        let suspects: Vec<usize> = (0..union.len()).filter(|index| down(&&union[*index])).collect();
        let stand_ins = layout.stand_ins(partition, STAND_INS_MAX);
        let targets = Targets::new(layout.epoch(), &sets.first, sets.second.as_deref(), &stand_ins);
        let (volumes, holders) = (targets.volumes().to_vec(), targets.holders().len());
        let quorum = PutQuorum::new(targets, map.policy(), &suspects, GRACE, Some(deadline));
        let at_once = track.is_multiple_of(AT_ONCE_EACH);
        let quorum = if at_once { quorum.at_once() } else { quorum };
        let (legs, moving) = (vec![None; volumes.len()], sets.second.is_some());
        let put = PutOp {
            quorum,
            epoch: layout.epoch(),
            layout: layout.clone(),
            legs,
            volumes,
            holders,
            streaming: false,
            at_once,
            moving,
        };
        if let Some(op) = self.clients.ops.get_mut(key) {
            op.kind = OpKind::Put(Box::new(put));
        }
        self.put_polls(key);
    }

    pub(super) fn put_polls(&mut self, key: Key) {
        loop {
            let now_ms = self.now_ms();
            let Some(op) = self.clients.ops.get_mut(key) else { return };
            let OpKind::Put(put) = &mut op.kind else { return };
            match put.quorum.poll(now_ms) {
                PutStep::Ask { target } => self.put_asks(key, target),
                PutStep::Wait { until } => {
                    if let Some(until) = until {
                        self.client_later(key, until);
                    }
                    return;
                }
                PutStep::Begin { to } => self.put_streams(key, &to),
                PutStep::Already { .. } => return self.put_ends(key, Ok(())),
                PutStep::Acknowledged { .. } => return self.put_ends(key, Ok(())),
                PutStep::Moved { epoch } => return self.put_moved(key, epoch),
                PutStep::GiveUp(verdict) => return self.put_ends(key, Err(verdict)),
            }
        }
    }

    fn put_asks(&mut self, key: Key, target: usize) {
        let Some(op) = self.clients.ops.get(key) else { return };
        let OpKind::Put(put) = &op.kind else { return };
        let (gateway, track, holder, epoch) = (op.gateway, op.track, put.volumes[target], put.epoch);
        let at_once = put.at_once;
        let verb = if target < put.holders { Verb::Put } else { Verb::StandIn };
        let deadline = op.began + PUT;
        let layout = put.layout.clone();
        let host = self.volume_host(&layout, holder.node);
        let flow = self.ask(Question {
            at_once,
            asker: Asker::Client { op: key, target: u32::try_from(target).expect("few targets") },
            link: (Self::endpoint(gateway), host),
            verb,
            volume: holder.volume,
            track,
            epoch,
            offset: 0,
            deadline,
        });
        if let Some(ClientOp { kind: OpKind::Put(put), .. }) = self.clients.ops.get_mut(key) {
            put.legs[target] = Some(flow);
        }
    }

    fn put_streams(&mut self, key: Key, to: &[usize]) {
        let Some(op) = self.clients.ops.get_mut(key) else { return };
        let OpKind::Put(put) = &mut op.kind else { return };
        put.streaming = true;
        let (legs, at_once) = (put.legs.clone(), put.at_once);
        for (target, leg) in legs.into_iter().enumerate() {
            let Some(flow) = leg else { continue };
            match to.contains(&target) {
                true if at_once => {}
                true => self.put_body(flow),
                false => self.hang_up(flow),
            }
        }
    }

    fn put_body(&mut self, key: Key) {
        let Some(flow) = self.flows.get(key) else { return };
        let (link, bytes) = ((flow.asker_host, flow.server), flow.bytes);
        let zones = self.zones_of(link);
        if let Some(after) = self.network.flow(self.now, link, zones, bytes) {
            self.queue.push(self.now + after, Event::Flow { flow: key, step: FlowStep::Body });
        }
    }

    pub(super) fn put_reply(&mut self, key: Key, target: usize, flow: Key, reply: Reply) {
        let Some(op) = self.clients.ops.get_mut(key) else { return };
        let (gateway, track) = (op.gateway, op.track);
        let OpKind::Put(put) = &mut op.kind else { return };
        let node = put.volumes[target].node;
        if put.legs[target] != Some(flow) {
            return self.hang_up(flow);
        }
        match reply {
            Reply::Ready => put.quorum.handle_ready(target),
            Reply::Stored { already } => put.quorum.handle_stored(target, already),
            Reply::Failed(kind) => {
                put.quorum.handle_failed(target, Failure::new(kind, ""));
                if kind == FailureKind::Unreachable {
                    let id = put.layout.map().nodes()[node].id;
                    self.note_down(gateway, id);
                }
            }
            Reply::Found { .. } | Reply::Data { .. } | Reply::End | Reply::Absent { .. } | Reply::Later { .. } => {}
        }
        if matches!(reply, Reply::Stored { .. } | Reply::Failed(_)) {
            self.hang_up(flow);
        }
        self.note(Kind::Reply, Self::endpoint(gateway), NONE, u64::from(track));
        self.put_polls(key);
    }

    fn put_moved(&mut self, key: Key, epoch: u64) {
        let Some(op) = self.clients.ops.get_mut(key) else { return };
        let (gateway, attempts) = (op.gateway, op.attempts);
        let OpKind::Put(put) = std::mem::replace(&mut op.kind, OpKind::PutWaits) else { return };
        for flow in put.legs.into_iter().flatten() {
            self.hang_up(flow);
        }
        if attempts >= ATTEMPTS_MAX {
            return self.put_ends(key, Err(Verdict::Unavailable));
        }
        if self.clients.gateways[gateway as usize].layout.epoch() >= epoch {
            return self.put_offers(key);
        }
        self.await_map(key, gateway);
    }

    fn put_ends(&mut self, key: Key, result: Result<(), Verdict>) {
        let Some(op) = self.clients.ops.remove(key) else { return };
        let (now, gateway, track) = (self.now, op.gateway, op.track);
        let (mut degraded, mut layout) = (false, None);
        if let OpKind::Put(put) = op.kind {
            layout = Some(put.layout);
            degraded = put.quorum.failures().next().is_some();
            if put.moving && result.is_ok() {
                self.hit(Probe::JointPut);
            }
            // Of a put that is acknowledged, those go on that are at it.
            for flow in put.legs.into_iter().flatten() {
                if result.is_err() || !(put.streaming || put.at_once) {
                    self.hang_up(flow);
                } else if let Some(flow) = self.flows.get_mut(flow) {
                    flow.asker_open = false;
                }
            }
        }
        match result {
            Ok(()) => {
                let layout = layout.expect("who acknowledges has offered the track");
                let known = self.oracle.get_mut(track);
                known.acked.get_or_insert(now);
                self.hit(if degraded { Probe::PutsDegraded } else { Probe::Puts });
                self.note(Kind::Acknowledged, Self::endpoint(gateway), NONE, u64::from(track));
                self.check_acknowledged(track, &layout);
            }
            Err(verdict) => {
                self.hit(Probe::PutsFailed);
                self.note(Kind::PutFailed, Self::endpoint(gateway), NONE, u64::from(track));
                self.check_put_failed(&verdict, op.began, track);
            }
        }
    }
}
