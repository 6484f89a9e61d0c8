//! A get, as a gateway drives it.

use std::sync::Arc;

use deadwax_dht::core::Verb;
use deadwax_dht::{Failure, FailureKind, GetPlan, GetStep, Holder, Layout, ReadDeadlines, Readers, Targets, Verdict};
use deadwax_track::ByteRange;

use super::map::ATTEMPTS_MAX;
use super::{ClientOp, OpKind, World};
use crate::clock::{Micros, SECOND};
use crate::drive::tag_of;
use crate::probe::Probe;
use crate::slab::Key;
use crate::slip::Slip;
use crate::trace::{Kind, NONE};
use crate::world::serving::Question;
use crate::world::{Asker, Reply};

/// How long a get may take, in all.
const GET: Micros = 30 * SECOND;
const FIRST_MS: u64 = 3_000;
const STALL_MS: u64 = 3_000;

/// What a get has under way.
#[derive(Debug)]
pub(crate) struct GetOp {
    pub(super) plan: GetPlan,
    /// By which holders have their indexes: the gateway's may be newer.
    layout: Arc<Layout>,
    epoch: u64,
    legs: Vec<Option<Key>>,
    holders: Vec<Holder>,
    /// The hedge, while it and the holder that it was sent beside are asked and neither has delivered.
    hedge: Option<usize>,
    /// How much of the track the reader has, from its beginning.
    taken: u64,
}

/// How a get ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Bytes,
    NotFound,
    Failed(Verdict),
}

impl World {
    pub(crate) fn get_begins(&mut self, gateway: u32, track: u32, must: bool) {
        let known = self.oracle.get(track).acked.is_some();
        let (began, kind) = (self.now, OpKind::GetWaits);
        self.note(Kind::Get, Self::endpoint(gateway), NONE, u64::from(track));
        self.clients.musts += usize::from(must);
        let op = ClientOp { gateway, track, began, known, attempts: 0, must, kind, wake_at: 0 };
        let key = self.clients.ops.insert(op);
        self.get_asks(key, 0);
    }

    /// Begins, or goes on from byte `next`, with the map that there is.
    pub(super) fn get_asks(&mut self, key: Key, next: u64) {
        let (now, now_ms) = (self.now, self.now_ms());
        let Some(op) = self.clients.ops.get_mut(key) else { return };
        op.attempts += 1;
        let (gateway, track, whole) = (op.gateway, op.track, (op.began + GET) / 1_000);
        let mut taken = 0;
        if let OpKind::Get(get) = std::mem::replace(&mut op.kind, OpKind::GetWaits) {
            taken = get.taken;
            for flow in get.legs.into_iter().flatten() {
                self.hang_up(flow);
            }
        }
        let (id, bytes) = (self.oracle.get(track).id, self.oracle.get(track).bytes);
        let at = &self.clients.gateways[gateway as usize];
        let sets = at.layout.sets(id.partition());
        let map = at.layout.map();
        let targets = Targets::new(at.layout.epoch(), &sets.first, sets.second.as_deref(), &[]);
        let is_down = |node: usize| at.is_down(&map.nodes()[node].id, now);
        let order = at.latency.order(now_ms, &targets, map.nodes(), Some(at.zone), is_down);
        let readers = Readers::new(&targets, map.policy(), order);
        let range = ByteRange::new(next, bytes).expect("there is more to read");
        let deadlines = ReadDeadlines { first_ms: FIRST_MS, stall_ms: STALL_MS, whole: Some(whole) };
        let holders = targets.holders().to_vec();
        let plan = GetPlan::new(readers, range, deadlines);
        let (layout, epoch, legs) = (at.layout.clone(), at.layout.epoch(), vec![None; holders.len()]);
        if let Some(op) = self.clients.ops.get_mut(key) {
            op.kind = OpKind::Get(Box::new(GetOp { plan, layout, epoch, legs, holders, hedge: None, taken }));
        }
        self.get_polls(key);
    }

    pub(super) fn get_polls(&mut self, key: Key) {
        loop {
            let now_ms = self.now_ms();
            let Some(op) = self.clients.ops.get_mut(key) else { return };
            let (gateway, attempts) = (op.gateway, op.attempts);
            let OpKind::Get(get) = &mut op.kind else { return };
            let at = &mut self.clients.gateways[gateway as usize];
            let step = get.plan.poll(now_ms, &mut at.budget);
            while let Some((holder, ms)) = get.plan.take_sample() {
                let node = get.layout.map().nodes()[get.holders[holder].node].id;
                at.latency.record(now_ms, node, ms);
            }
            match step {
                GetStep::Ask { holder, range, hedge } => {
                    if hedge {
                        get.hedge = Some(holder);
                        self.hit(Probe::HedgesSent);
                    }
                    self.get_asks_holder(key, holder, range.start());
                }
                GetStep::Drop { holder } => {
                    let flow = get.legs[holder].take();
                    get.hedge = None;
                    if let Some(flow) = flow {
                        self.hang_up(flow);
                    }
                }
                GetStep::Wait { until } => return self.client_later(key, until),
                GetStep::Done => return self.get_ends(key, Outcome::Bytes),
                GetStep::NotFound => return self.get_ends(key, Outcome::NotFound),
                GetStep::Failed(verdict) => return self.get_ends(key, Outcome::Failed(verdict)),
                GetStep::Moved { epoch } => {
                    if attempts < ATTEMPTS_MAX && at.layout.epoch() < epoch {
                        return self.await_map(key, gateway);
                    }
                    if attempts < ATTEMPTS_MAX && at.layout.epoch() > get.epoch {
                        let next = get.plan.next_byte();
                        return self.get_asks(key, next);
                    }
                }
            }
        }
    }

    fn get_asks_holder(&mut self, key: Key, target: usize, offset: u64) {
        let Some(op) = self.clients.ops.get(key) else { return };
        let OpKind::Get(get) = &op.kind else { return };
        let (gateway, track, holder, epoch) = (op.gateway, op.track, get.holders[target], get.epoch);
        let deadline = op.began + GET;
        let offset = if self.slips(Slip::ResumeAnywhere) { 0 } else { offset };
        let layout = get.layout.clone();
        let host = self.volume_host(&layout, holder.node);
        let flow = self.ask(Question {
            at_once: false,
            asker: Asker::Client { op: key, target: u32::try_from(target).expect("few targets") },
            link: (Self::endpoint(gateway), host),
            verb: Verb::Get,
            volume: holder.volume,
            track,
            epoch,
            offset,
            deadline,
        });
        let mut old = None;
        if let Some(ClientOp { kind: OpKind::Get(get), .. }) = self.clients.ops.get_mut(key) {
            old = get.legs[target].replace(flow);
        }
        if let Some(old) = old {
            self.hang_up(old);
        }
    }

    pub(super) fn get_reply(&mut self, key: Key, target: usize, flow: Key, reply: Reply) {
        let (now_ms, trusts) = (self.now_ms(), self.slips(Slip::ReadUnproved));
        let Some(op) = self.clients.ops.get_mut(key) else { return };
        let (gateway, track) = (op.gateway, op.track);
        let OpKind::Get(get) = &mut op.kind else { return };
        if get.legs[target] != Some(flow) {
            return self.hang_up(flow);
        }
        let node = get.holders[target].node;
        match reply {
            Reply::Found { bytes } => get.plan.handle_found(now_ms, target, bytes),
            // The reader proves each piece against the id.
            Reply::Data { tag, .. } if tag != tag_of(&self.oracle.get(track).id) && !trusts => {
                get.hedge = None;
                get.plan.handle_failed(target, Failure::new(FailureKind::Corrupt, ""));
                self.probes.hit(Probe::PiecesUnproved);
                self.hang_up(flow);
            }
            Reply::Data { offset, bytes, tag } => {
                if get.plan.handle_data(now_ms, target, bytes) {
                    if get.hedge.take() == Some(target) {
                        self.probes.hit(Probe::HedgesWon);
                    }
                    let due = std::mem::replace(&mut get.taken, offset + bytes);
                    self.check_bytes(track, (due, offset), tag);
                }
            }
            Reply::End => get.plan.handle_end(target),
            Reply::Absent { epoch } => {
                get.hedge = None;
                get.plan.handle_absent(target, epoch);
            }
            Reply::Failed(kind) => {
                get.hedge = None;
                if get.plan.next_byte() > 0 {
                    self.probes.hit(Probe::GetsResumed);
                }
                get.plan.handle_failed(target, Failure::new(kind, ""));
                if kind == FailureKind::Unreachable {
                    let id = get.layout.map().nodes()[node].id;
                    self.note_down(gateway, id);
                }
            }
            Reply::Ready | Reply::Stored { .. } | Reply::Later { .. } => {}
        }
        if matches!(reply, Reply::End | Reply::Absent { .. } | Reply::Failed(_)) {
            self.hang_up(flow);
        }
        self.note(Kind::Reply, Self::endpoint(gateway), NONE, u64::from(track));
        self.get_polls(key);
    }

    fn get_ends(&mut self, key: Key, outcome: Outcome) {
        let Some(op) = self.clients.ops.remove(key) else { return };
        let (mut taken, mut degraded) = (0, false);
        if let OpKind::Get(get) = op.kind {
            (taken, degraded) = (get.taken, get.plan.failures().next().is_some());
            for flow in get.legs.into_iter().flatten() {
                self.hang_up(flow);
            }
        }
        self.clients.musts -= usize::from(op.must);
        let (kind, probe) = match outcome {
            Outcome::Bytes => (Kind::Read200, if degraded { Probe::GetsDegraded } else { Probe::Gets }),
            Outcome::NotFound => (Kind::Read404, Probe::GetsAbsent),
            Outcome::Failed(Verdict::TakenDown { .. }) => (Kind::Read410, Probe::GetsGone),
            Outcome::Failed(_) => (Kind::ReadFailed, Probe::GetsUnavailable),
        };
        self.hit(probe);
        self.note(kind, Self::endpoint(op.gateway), NONE, u64::from(op.track));
        self.check_read(op.track, outcome, taken, (op.began, op.known, op.must));
    }
}
