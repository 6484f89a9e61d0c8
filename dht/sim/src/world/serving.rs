//! Requests, as the node that serves them sees them.

use deadwax_dht::core::{Done, Input, Request, Verb};
use deadwax_dht::{FailureKind, VolumeId};
use deadwax_track::MIB;

use super::{Asker, Event, Flow, FlowStep, Op, Reply, Work, World};
use crate::clock::{MILLI, Micros, SECOND};
use crate::drive::tag_of;
use crate::probe::Probe;
use crate::slab::Key;
use crate::trace::{Kind, NONE};

/// How long a node waits for a put's bytes.
const BODY_LATE: Micros = 30 * SECOND;
/// How much of a track goes at once.
const PIECE_BYTES: u64 = MIB;

/// What somebody asks for.
pub(crate) struct Question {
    pub(crate) asker: Asker,
    pub(crate) link: (u32, u32),
    pub(crate) verb: Verb,
    pub(crate) volume: VolumeId,
    pub(crate) track: u32,
    pub(crate) epoch: u64,
    pub(crate) offset: u64,
    pub(crate) deadline: Micros,
    /// A put whose bytes come with it.
    pub(crate) at_once: bool,
}

impl World {
    /// Sends a request on its way.
    pub(crate) fn ask(&mut self, question: Question) -> Key {
        let Question { asker, link, verb, volume, track, epoch, offset, deadline, at_once } = question;
        let (id, bytes) = (self.oracle.get(track).id, self.oracle.get(track).bytes);
        let server_life = self.hosts[link.1 as usize].life;
        let flow = self.flows.insert(Flow {
            asker,
            asker_host: link.0,
            asker_open: true,
            server: link.1,
            server_life,
            // From when it arrives.
            server_open: false,
            verb,
            volume,
            track,
            id,
            bytes,
            epoch,
            deadline,
            offset,
            tag: tag_of(&id),
            already: false,
            why: FailureKind::Internal,
            replied_at: 0,
            began: self.now,
            begun: false,
            at_once,
            late: false,
        });
        self.note(Kind::Ask, link.0, link.1, u64::from(track));
        self.post(link, Event::Flow { flow, step: FlowStep::Arrive });
        flow
    }

    pub(super) fn flow_step(&mut self, key: Key, step: FlowStep) {
        let Some(flow) = self.flows.get(key) else { return };
        if let FlowStep::Reply(reply) = step {
            return self.replied(key, reply);
        }
        let (server, arrives) = (flow.server, matches!(step, FlowStep::Arrive));
        if arrives && self.hosts[server as usize].core.is_some() {
            return self.request_arrives(key);
        }
        if !arrives && !flow.server_open {
            return;
        }
        if self.hosts[server as usize].core.is_none() || self.hosts[server as usize].life != flow.server_life {
            return self.close(key, Reply::Failed(FailureKind::Unreachable));
        }
        match step {
            FlowStep::Body => self.body_arrives(key),
            FlowStep::Piece => self.send_piece(key),
            FlowStep::Hangup | FlowStep::BodyLate => self.done(key, Done::Failed, 0),
            FlowStep::Arrive | FlowStep::Reply(_) => {}
        }
    }

    fn request_arrives(&mut self, key: Key) {
        let (now, Some(flow)) = (self.now, self.flows.get_mut(key)) else { return };
        let host = flow.server;
        let at = &self.hosts[host as usize];
        (flow.server_life, flow.server_open) = (at.life, true);
        let Flow { mut verb, volume, id, epoch, .. } = *flow;
        flow.late = flow.at_once && at.core.as_ref().is_some_and(|core| core.epoch() == epoch);
        if flow.late {
            flow.began = now;
            return match at.drive(&volume) {
                Some(drive) => self.put_goes(host, drive, key),
                None => self.fail(key, FailureKind::Refused),
            };
        }
        let deadline = at.clock.now_ms(now) + flow.deadline.saturating_sub(now) / MILLI;
        if let Verb::Pull { bytes, .. } = &mut verb {
            // The index knows how long the track is.
            let copy = at.drive(&volume).and_then(|drive| at.drives[drive].tracks.get(&id));
            *bytes = copy.map_or(0, |copy| copy.bytes);
        }
        self.request_opened(host, verb);
        self.step(host, Input::Request(Request { number: key, verb, volume, track: id, epoch, deadline }));
        self.check_open(host, verb);
    }

    /// The core lets a request go on.
    pub(super) fn go(&mut self, host: u32, request: &Request) {
        let key = request.number;
        let Some(flow) = self.flows.get_mut(key) else {
            return self.later_done(host, key, Done::Failed, 0);
        };
        (flow.began, flow.begun) = (self.now, true);
        let (bytes, track) = (flow.bytes, flow.track);
        self.request_begun(host, request.verb);
        self.trace.note(self.now, Kind::Go, host, NONE, u64::from(track));
        let Some(drive) = self.hosts[host as usize].drive(&request.volume) else {
            return self.later_done(host, key, Done::Failed, 0);
        };
        match request.verb {
            Verb::Get | Verb::Pull { .. } => {
                self.check_served(host, track, &request.volume);
                self.work(host, drive, Work::Read { flow: key }, PIECE_BYTES.min(bytes), false);
            }
            Verb::Put | Verb::StandIn => self.put_goes(host, drive, key),
        }
    }

    /// A put may begin, or asks nobody.
    fn put_goes(&mut self, host: u32, drive: usize, key: Key) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let at = &self.hosts[host as usize].drives[drive];
        if at.tracks.contains_key(&flow.id) {
            flow.already = true;
            return self.later_done(host, key, Done::Stored, 0);
        }
        let refused = at.barred.contains(&flow.id);
        if at.full || refused {
            flow.why = if refused { FailureKind::TakenDown { number: 0 } } else { FailureKind::NoSpace };
            self.hit(Probe::Full);
            return self.later_done(host, key, Done::Failed, 0);
        }
        if flow.at_once {
            return self.body_arrives(key);
        }
        self.reply(key, Reply::Ready);
        self.queue.push(self.now + BODY_LATE, Event::Flow { flow: key, step: FlowStep::BodyLate });
    }

    fn later_done(&mut self, host: u32, number: Key, outcome: Done, bytes: u64) {
        let life = self.hosts[host as usize].life;
        if let Some(input) = self.end_of(number, outcome, bytes) {
            self.queue.push(self.now, Event::Input { host, life, input: Box::new(input) });
        }
    }

    fn done(&mut self, key: Key, outcome: Done, bytes: u64) {
        if let Some(flow) = self.flows.get(key) {
            let host = flow.server;
            if let Some(input) = self.end_of(key, outcome, bytes) {
                self.step(host, input);
            }
        }
    }

    /// What the core hears at a request's end. Of one that it has not heard of and that failed: nothing.
    fn end_of(&mut self, number: Key, outcome: Done, bytes: u64) -> Option<Input> {
        let Some(flow) = self.flows.get(number).filter(|flow| flow.late) else {
            return Some(Input::Done { number, outcome, bytes });
        };
        if outcome != Done::Stored {
            let why = flow.why;
            self.close(number, Reply::Failed(why));
            return None;
        }
        let Flow { verb, volume, id: track, epoch, .. } = *flow;
        self.hit(Probe::PutsAtOnce);
        Some(Input::StoredAtOnce(Request { number, verb, volume, track, epoch, deadline: u64::MAX }))
    }

    fn fail(&mut self, key: Key, why: FailureKind) {
        if let Some(flow) = self.flows.get_mut(key) {
            flow.why = why;
        }
        self.done(key, Done::Failed, 0);
    }

    /// A put's bytes have come: they go to the drive.
    fn body_arrives(&mut self, key: Key) {
        let Some(flow) = self.flows.get(key) else { return };
        let (host, volume, bytes, link) = (flow.server, flow.volume, flow.bytes, (flow.asker_host, flow.server));
        if self.network.breaks(link) {
            self.hit(Probe::Resets);
            return self.fail(key, FailureKind::Unreachable);
        }
        match self.hosts[host as usize].drive(&volume) {
            Some(drive) => self.work(host, drive, Work::Write { flow: key }, bytes, true),
            None => self.fail(key, FailureKind::Refused),
        }
    }

    pub(super) fn write_done(&mut self, op: Op, key: Key, fails: bool) {
        let Some(flow) = self.flows.get(key).filter(|flow| flow.server_open) else { return };
        let (id, bytes, tag, volume, track) = (flow.id, flow.bytes, flow.tag, flow.volume, flow.track);
        let (stand_in, began) = (flow.verb == Verb::StandIn, flow.began);
        if fails {
            return self.fail(key, FailureKind::Internal);
        }
        let drive = &mut self.hosts[op.host as usize].drives[op.drive];
        let (tell, barred) = (drive.store(id, bytes, tag), drive.barred.contains(&id));
        if stand_in {
            drive.mark_stand_in(&id);
        }
        if barred {
            self.hit(Probe::BarredAmid);
        }
        self.checks.owed.remove(&(volume, track));
        self.note(Kind::Write, op.host, NONE, u64::from(track));
        if stand_in {
            self.hit(Probe::StandIns);
        }
        if tell {
            self.step(op.host, Input::Stored { volume, track: id });
        }
        self.note_latency(op.host, self.now - began);
        self.done(key, Done::Stored, bytes);
    }

    pub(super) fn read_done(&mut self, op: Op, key: Key, fails: bool) {
        let Some(flow) = self.flows.get_mut(key).filter(|flow| flow.server_open) else { return };
        let (id, volume, began, track) = (flow.id, flow.volume, flow.began, flow.track);
        if fails {
            return self.fail(key, FailureKind::Internal);
        }
        let drive = &mut self.hosts[op.host as usize].drives[op.drive];
        let Some(copy) = drive.tracks.get_mut(&id) else { return self.done(key, Done::NotHere, 0) };
        if copy.rotten {
            let tell = std::mem::replace(&mut copy.told, false);
            self.hit(Probe::RotFound);
            self.note(Kind::Rotten, op.host, NONE, u64::from(track));
            if tell {
                self.step(op.host, Input::Rotten { volume, track: id });
            }
            return self.fail(key, FailureKind::Corrupt);
        }
        (flow.bytes, flow.tag) = (copy.bytes, copy.tag);
        let bytes = copy.bytes;
        self.note(Kind::Read, op.host, NONE, u64::from(track));
        self.note_latency(op.host, self.now - began);
        self.reply(key, Reply::Found { bytes });
        self.send_piece(key);
    }

    /// Sends the next piece of a get; after the last it is done.
    fn send_piece(&mut self, key: Key) {
        let Some(flow) = self.flows.get_mut(key).filter(|flow| flow.server_open) else { return };
        let bytes = PIECE_BYTES.min(flow.bytes.saturating_sub(flow.offset));
        let (link, tag) = ((flow.server, flow.asker_host), flow.tag);
        if bytes == 0 {
            let sent = flow.bytes;
            return self.done(key, Done::Sent, sent);
        }
        let offset = flow.offset;
        flow.offset += bytes;
        if self.network.breaks(link) {
            self.hit(Probe::Resets);
            return self.fail(key, FailureKind::Unreachable);
        }
        self.reply(key, Reply::Data { offset, bytes, tag });
        let next = self.now + bytes / 1_000;
        self.queue.push(next, Event::Flow { flow: key, step: FlowStep::Piece });
    }

    /// The node has said its last word.
    pub(super) fn close(&mut self, key: Key, reply: Reply) {
        self.reply(key, reply);
        self.request_shut(key);
        self.reap(key);
    }

    /// Sends an answer to the asker, if it still waits.
    pub(super) fn reply(&mut self, key: Key, reply: Reply) {
        let Some(flow) = self.flows.get(key).filter(|flow| flow.asker_open) else { return };
        let link = (flow.server, flow.asker_host);
        let bytes = if let Reply::Data { bytes, .. } = reply { bytes } else { 100 };
        let zones = self.zones_of(link);
        let Some(after) = self.network.flow(self.now, link, zones, bytes) else { return };
        let now = self.now;
        if let Some(flow) = self.flows.get_mut(key) {
            flow.replied_at = flow.replied_at.max(now + after);
            self.queue.push(flow.replied_at, Event::Flow { flow: key, step: FlowStep::Reply(reply) });
        }
    }

    fn replied(&mut self, key: Key, reply: Reply) {
        let Some(flow) = self.flows.get(key).filter(|flow| flow.asker_open) else { return };
        match flow.asker {
            Asker::Client { op, target } => self.client_reply(op, target, key, reply),
            Asker::Pull { pull } => self.pull_reply(pull, key, reply),
        }
    }
}
