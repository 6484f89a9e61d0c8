//! What a core wants done, done: the part of a daemon.

use deadwax_dht::core::{Alarm, Destination, EPOCHS_MAX, Effect, Envelope, Finished, Input, Message, Refused};
use deadwax_dht::log::{Batch, Change, History, Stage};
use deadwax_dht::{FailureKind, NodeId, VolumeId};
use deadwax_track::{Partition, TrackId};

use super::{Event, Op, Reply, Work, World};
use crate::check::Rule;
use crate::clock::{Micros, SECOND};
use crate::drive::{State, SystemOp};
use crate::probe::Probe;
use crate::trace::{GATEWAY, Kind, NONE};

/// How long a connection to a host that does not answer is tried.
const CONNECT: Micros = 4 * SECOND;

/// A message's number and name, for the trace.
pub(crate) const fn tag(message: &Message) -> (u64, &'static str) {
    match message {
        Message::Swim(_) => (1, "swim"),
        Message::Raft(_) => (2, "raft"),
        Message::Seek(..) => (3, "seek"),
        Message::Found(..) => (4, "found"),
        Message::Behind(_) => (5, "behind"),
        Message::Epochs(_) => (6, "epochs"),
        Message::TakedownAsk(..) => (7, "takedowns?"),
        Message::TakedownAnswer(..) => (8, "takedowns"),
        Message::ReceiptsAsk(..) => (10, "receipts?"),
        Message::Receipts(_) => (11, "receipts"),
        Message::Sync(_) => (12, "sync"),
        Message::Synced(_) => (13, "synced"),
        Message::Knows => (14, "knows"),
        Message::Superseded(_) => (15, "superseded"),
        Message::SpokenAsk => (17, "spoken?"),
        Message::Spoken(_) => (18, "spoken"),
        Message::Out(_) => (19, "out"),
        #[allow(unreachable_patterns, reason = "for what comes")]
        _ => (16, "other"),
    }
}

impl World {
    pub(super) fn carry_out(&mut self, host: u32, effect: Effect) {
        match effect {
            Effect::Send { to, envelope } => self.send(host, &to, envelope),
            Effect::Go(request) => self.go(host, &request),
            Effect::Refuse { number, why } => self.refused(host, number, why),
            Effect::Finish { number, answer } => self.finished(host, number, answer),
            Effect::Told { .. } => {}
            Effect::Epochs { number, batch } => {
                let gateway = u32::try_from(number).expect("a gateway's number");
                self.post((host, GATEWAY + gateway), Event::Map { gateway, batch });
            }
            Effect::List { number, volume, partition } => self.list(host, number, &volume, partition),
            Effect::Pull(pull) => {
                self.check_pull(host, &pull);
                self.pull(host, &pull);
            }
            Effect::Erase { volume, track, barred } => self.erase(host, &volume, track, barred),
            Effect::TakeSeat(seat) => {
                if !self.checks.seats.insert(seat) {
                    self.checks.violate(Rule::OneSeat, format!("n{host} begins seat {seat}, which was begun before"));
                }
                self.system(host, SystemOp::TakeSeat(seat));
            }
            Effect::Persist { seat, step } => self.system(host, SystemOp::Persist(seat, step)),
            Effect::Stand(standing) => {
                if standing.intact {
                    // What a fault took from it is there again.
                    self.hosts[host as usize].well_since = self.now;
                }
                self.system(host, SystemOp::Stand(standing));
            }
            Effect::Save(batch) => self.save(host, batch),
            Effect::DropSeat(seat) => self.system(host, SystemOp::DropSeat(seat)),
            Effect::Append { number, records } => self.system(host, SystemOp::Append(number, records)),
            Effect::ReadTakedowns { number, slots } => {
                let file = &self.hosts[host as usize].system.takedowns;
                let records = slots.iter().map(|slot| file.get(*slot as usize).cloned()).collect();
                // Read at once: the file is in memory. Told after this step.
                self.later_step(host, Input::TakedownsRead { number, records });
            }
            Effect::TakenDown { number, result } => self.taken_down(host, number, &result),
            // Nobody waits for these here: the oracle knows who has what.
            Effect::Spread { .. } | Effect::Receipts { .. } => {}
            Effect::Answer { number, result } => self.command_answered(host, number, &result),
            Effect::Halt { life } => {
                self.note(Kind::Halt, host, NONE, life);
                self.hit(Probe::Halts);
                self.hosts[host as usize].halted = true;
            }
            Effect::Outdated(unfit) => self.outdated(host, unfit),
            // No issuer's key is in two places here, and all nodes name all issuers.
            Effect::Alarm(alarm) => {
                let rule = match alarm {
                    Alarm::OtherLog { .. } => Rule::OneHistory,
                    Alarm::Forked { .. } | Alarm::Stranger { .. } => Rule::NoTakedownInvented,
                };
                self.checks.violate(rule, format!("n{host}: {alarm}"));
            }
        }
    }

    fn save(&mut self, host: u32, batch: Box<Batch>) {
        let before = self.hosts[host as usize].system.history.as_ref().map(History::epoch);
        match (&batch.checkpoint, before) {
            (None, _) => self.checks.bound("epochs taken in a step", host, batch.records.len(), EPOCHS_MAX),
            (Some(checkpoint), Some(before)) if before < checkpoint.record.epoch => self.hit(Probe::EpochsSkipped),
            (Some(_), _) => {}
        }
        if self.own_layouts {
            self.check_own_layout(host);
        }
        self.system(host, SystemOp::Save(batch));
    }

    /// An input that follows at once, after what is being carried out.
    fn later_step(&mut self, host: u32, input: Input) {
        let life = self.hosts[host as usize].life;
        self.queue.push(self.now, Event::Input { host, life, input: Box::new(input) });
    }

    /// The host that a message goes to. None: there is no such address, or another lives there.
    fn resolve(&self, to: &Destination) -> (Option<u32>, Option<NodeId>) {
        match to {
            Destination::Node(id) => (self.registry.get(id).copied(), Some(*id)),
            Destination::At(id, address) => {
                let host = self.addresses.get(address).copied();
                let meant = |host: &u32| id.is_none_or(|id| self.hosts[*host as usize].id == id);
                (host.filter(meant), *id)
            }
        }
    }

    fn send(&mut self, from: u32, to: &Destination, envelope: Box<Envelope>) {
        let word = tag(&envelope.message);
        let (Some(to), _) = self.resolve(to) else { return };
        if let Message::Receipts(receipts) = &envelope.message {
            self.check_receipts(from, receipts);
        }
        self.count_message(&envelope.message);
        if from == to {
            return;
        }
        self.count_sent(from, word.1);
        let link = (from, to);
        let fate = self.network.message(self.now, link, self.zones_of(link));
        let datagram = matches!(envelope.message, Message::Swim(_));
        let Some(after) = fate.after.filter(|_| !fate.corrupt) else {
            self.hit(if fate.corrupt { Probe::Corrupted } else { Probe::Lost });
            self.trace.message(self.now, Kind::Lost, (from, to), word, envelope.epoch);
            if fate.corrupt {
                self.checks.corrupt(&envelope, &mut self.random);
            } else if !datagram {
                let life = self.hosts[from as usize].life;
                self.queue.push(self.now + CONNECT, Event::Unreachable { host: from, life, peer: to });
            }
            return;
        };
        if fate.held {
            self.hit(Probe::Reordered);
        }
        // A share goes through its bytes, so that codecs are in the game.
        let envelope = if self.random.below(32) == 0 { self.checks.through_bytes(envelope) } else { envelope };
        if let Some(again) = fate.again {
            self.hit(Probe::Doubled);
            self.queue.push(self.now + again, Event::Message { from, to, envelope: envelope.clone() });
        }
        self.queue.push(self.now + after, Event::Message { from, to, envelope });
    }

    fn count_sent(&mut self, from: u32, what: &str) {
        let second = self.now / SECOND;
        let most = super::SENT_MAX + 20 * u32::try_from(self.hosts.len()).expect("few hosts");
        let at = &mut self.hosts[from as usize];
        at.sent = if at.sent.0 == second { (second, at.sent.1 + 1) } else { (second, 1) };
        if at.sent.1 > most {
            self.checks.violate(
                Rule::Progress,
                format!("n{from} sends more than {most} messages in second {second}, the last: {what}"),
            );
        }
    }

    fn count_message(&mut self, message: &Message) {
        if let Message::Epochs(batch) = message {
            self.hit(Probe::EpochsByPeer);
            if batch.checkpoint.is_some() {
                self.hit(Probe::Checkpoints);
            }
        }
    }

    /// A message is there. Where no process is, the connection is refused.
    pub(super) fn arrive(&mut self, from: u32, to: u32, envelope: Box<Envelope>) {
        let word = tag(&envelope.message);
        if self.hosts[to as usize].core.is_none() {
            if !matches!(envelope.message, Message::Swim(_)) {
                let life = self.hosts[from as usize].life;
                self.post((to, from), Event::Unreachable { host: from, life, peer: to });
            }
            return;
        }
        self.trace.message(self.now, Kind::Message, (to, from), word, envelope.epoch);
        self.check_version(to, &envelope);
        let sender = &self.hosts[from as usize];
        let (from, address) = (sender.id, sender.address.clone());
        self.step(to, Input::Message { from, address, envelope });
    }

    fn system(&mut self, host: u32, op: SystemOp) {
        let at = &mut self.hosts[host as usize];
        let done = at.system.begin(self.now, op, &mut self.random);
        let life = at.life;
        let pending = at.system.pending();
        self.queue.push(done, Event::System { host, life });
        self.crash_amid(host, done);
        self.checks.bound("steps waiting for a system drive", host, pending, 20_000);
    }

    pub(super) fn system_done(&mut self, host: u32, life: u32) {
        let at = &mut self.hosts[host as usize];
        if at.life != life {
            return;
        }
        match at.system.finish(&self.layouts) {
            Some(SystemOp::Save(batch)) => {
                let epoch = at.system.history.as_ref().map_or(0, History::epoch);
                self.note(Kind::Save, host, NONE, epoch);
                self.saved(host, &batch);
                self.step(host, Input::Saved { epoch });
            }
            Some(SystemOp::Persist(seat, step)) => {
                self.probes.add(Probe::Elections, std::mem::take(&mut at.system.votes));
                self.note(Kind::Persist, host, NONE, step.number);
                self.step(host, Input::Persisted { seat, number: step.number });
            }
            Some(SystemOp::Append(number, _)) => {
                self.note(Kind::Append, host, NONE, number);
                self.takedowns_grew(host);
                self.step(host, Input::Appended { number });
            }
            Some(SystemOp::TakeSeat(_) | SystemOp::DropSeat(_) | SystemOp::Stand(_)) | None => {}
        }
    }

    /// A history went on at this host: it must be the one history, and may be the newest.
    fn saved(&mut self, host: u32, batch: &Batch) {
        self.checks.epochs.see(host, batch, &mut self.checks.violations);
        let Some(history) = &self.hosts[host as usize].system.history else { return };
        if history.epoch() <= self.newest.epoch() {
            return;
        }
        let before = std::mem::replace(&mut self.newest, history.clone());
        for epoch in before.epoch() + 1..=self.newest.epoch() {
            let Some(record) = self.newest.record(epoch).cloned() else { continue };
            self.check_change(&record.change);
            let count = |count: usize| count as u64;
            match &record.change {
                Change::Begin(moves) => self.probes.add(Probe::Joint, count(moves.len())),
                Change::Advance { partitions, to: Stage::Settled } => {
                    self.probes.add(Probe::Settled, count(partitions.len()));
                }
                Change::Abort(partitions) => self.probes.add(Probe::Aborted, count(partitions.len())),
                Change::SetDead { dead: true, .. } => self.probes.hit(Probe::Deaths),
                Change::Finalise { .. } => self.probes.hit(Probe::Finalised),
                Change::Admit { .. } => self.probes.hit(Probe::JoinsByToken),
                _ => {}
            }
            self.probes.hit(Probe::Epochs);
        }
        self.check_layout();
        self.check_witnesses();
    }

    fn list(&mut self, host: u32, number: u64, volume: &VolumeId, partition: Partition) {
        self.list_begun(host, number, *volume);
        match self.hosts[host as usize].drive(volume) {
            Some(drive) => self.work(host, drive, Work::List { number, partition }, 0, false),
            None => self.later_step(host, Input::Listed { number, tracks: None }),
        }
    }

    fn erase(&mut self, host: u32, volume: &VolumeId, id: TrackId, barred: bool) {
        if let Some(drive) = self.hosts[host as usize].drive(volume) {
            let core = self.hosts[host as usize].core.as_ref();
            let epoch = core.map_or(0, |core| core.epoch());
            self.work(host, drive, Work::Erase { id, barred, epoch }, 0, true);
        }
    }

    /// Gives a drive something to do.
    pub(super) fn work(&mut self, host: u32, drive: usize, work: Work, bytes: u64, write: bool) {
        let at = &mut self.hosts[host as usize];
        let life = at.life;
        let done = at.drives[drive].finish(self.now, bytes, write);
        let op = self.ops.insert(Op { host, life, drive, work });
        self.queue.push(done, Event::Drive { op });
        if write {
            self.hosts[host as usize].drives[drive].writing.push(op);
            self.crash_amid(host, done);
        }
    }

    pub(super) fn drive_done(&mut self, key: u64) {
        let Some(op) = self.ops.remove(key) else { return };
        let at = &mut self.hosts[op.host as usize];
        if at.life != op.life {
            return;
        }
        let drive = &mut at.drives[op.drive];
        drive.writing.retain(|other| *other != key);
        let fails = drive.state != State::Serving || drive.fails(&mut self.random);
        if fails {
            self.probes.hit(Probe::DriveErrors);
        }
        match op.work {
            Work::Read { flow } => self.read_done(op, flow, fails),
            Work::Write { flow } => self.write_done(op, flow, fails),
            Work::WritePull { pull } => self.pull_written(op, pull, fails),
            Work::List { number, partition } => {
                at.load.listed(number);
                let tracks = (!fails).then(|| drive.list(partition));
                self.note(Kind::List, op.host, NONE, u64::from(partition.0));
                self.step(op.host, Input::Listed { number, tracks });
            }
            Work::Erase { id, barred, epoch } => self.erase_done(op, id, (barred, epoch), fails),
        }
    }

    fn erase_done(&mut self, op: Op, id: TrackId, (barred, epoch): (bool, u64), fails: bool) {
        if fails {
            // A daemon tries again until the drive does it or is fenced.
            if self.hosts[op.host as usize].drives[op.drive].state == State::Serving {
                self.work(op.host, op.drive, op.work, 0, true);
            }
            return;
        }
        let number = self.oracle.number(&id);
        let drive = &mut self.hosts[op.host as usize].drives[op.drive];
        let copy = drive.tracks.remove(&id);
        if barred {
            drive.barred.insert(id);
        }
        let (volume, was_there) = (drive.id, copy.is_some_and(|copy| copy.told));
        self.note(Kind::Erase, op.host, NONE, u64::from(number));
        if let Some(copy) = copy {
            self.hit(match copy.stand_in {
                _ if barred => Probe::BarredErased,
                true => Probe::StraysReleased,
                false => Probe::MovedReleased,
            });
            // One that rotted is no copy.
            if copy.is_good(&id) {
                self.check_erased(op.host, &volume, number, barred);
                if !barred {
                    self.note_released(volume, id, epoch);
                }
            }
        }
        self.step(op.host, Input::Erased { volume, track: id, was_there });
    }

    fn refused(&mut self, host: u32, number: u64, why: Refused) {
        let (probe, kind) = match why {
            Refused::Busy | Refused::Later { .. } => (Probe::Busy, FailureKind::Busy),
            Refused::Expired => (Probe::Expired, FailureKind::Busy),
            Refused::TakenDown(name) => (Probe::Barred, FailureKind::TakenDown { number: name.number }),
            Refused::Stale => (Probe::Stale, FailureKind::Busy),
            Refused::Moved { epoch } => (Probe::Moved, FailureKind::Moved { epoch }),
            Refused::Behind { .. } => (Probe::Behind, FailureKind::Busy),
            Refused::NoVolume => (Probe::DriveErrors, FailureKind::Refused),
            Refused::Halted => (Probe::Halts, FailureKind::Unreachable),
        };
        self.hit(probe);
        let track = self.flows.get(number).map_or(u32::MAX, |flow| flow.track);
        self.trace.say(self.now, Kind::Refused, (host, NONE), u64::from(track), probe.text());
        let reply = if let Refused::Later { after_ms } = why { Reply::Later { after_ms } } else { Reply::Failed(kind) };
        self.close(number, reply);
    }

    fn finished(&mut self, host: u32, number: u64, answer: Finished) {
        let Some(flow) = self.flows.get(number) else { return };
        let (why, track, volume) = (flow.why, flow.track, flow.volume);
        let reply = match answer {
            Finished::Stored { .. } => Reply::Stored { already: flow.already },
            Finished::Sent => Reply::End,
            Finished::Absent { epoch } => Reply::Absent { epoch },
            Finished::Unsettled => Reply::Failed(FailureKind::Busy),
            Finished::TakenDown(name) => Reply::Failed(FailureKind::TakenDown { number: name.number }),
            Finished::Moved { epoch } => Reply::Failed(FailureKind::Moved { epoch }),
            Finished::Failed => Reply::Failed(why),
        };
        if let Finished::Stored { .. } = answer {
            self.check_stored(host, track);
        }
        if let Finished::Absent { .. } = answer {
            self.check_absent(host, &volume, track);
        }
        match answer {
            Finished::Unsettled => self.hit(Probe::Unsettled),
            Finished::TakenDown(_) => self.hit(Probe::Barred),
            Finished::Moved { .. } => self.hit(Probe::Moved),
            _ => {}
        }
        let text = match answer {
            Finished::Stored { .. } => "stored",
            Finished::Sent => "sent",
            Finished::Absent { .. } => "absent",
            Finished::Unsettled => "unsettled",
            Finished::TakenDown(_) => "taken down",
            Finished::Moved { .. } => "moved",
            Finished::Failed => "failed",
        };
        self.trace.say(self.now, Kind::Finish, (host, NONE), u64::from(track), text);
        self.close(number, reply);
    }
}
