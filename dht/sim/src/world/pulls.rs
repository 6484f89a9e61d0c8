//! Pulls, as the node that lacks a copy carries them out.

use deadwax_dht::FailureKind;
use deadwax_dht::core::{Input, Verb};
use deadwax_dht::repair::{Pull, PullError};

use super::serving::Question;
use super::{Asker, Event, Op, PullUnderWay, Reply, Work, World};
use crate::check::Rule;
use crate::clock::{Micros, SECOND};
use crate::drive::tag_of;
use crate::probe::Probe;
use crate::slab::Key;
use crate::slip::Slip;
use crate::trace::{Kind, NONE};

/// How long a source may send nothing.
const STALL: Micros = 15 * SECOND;
/// How long a pull may take.
const PULL: Micros = 120 * SECOND;
/// When a busy source is asked again.
const BUSY_MS: u64 = 2_000;

impl World {
    pub(super) fn pull(&mut self, host: u32, pull: &Pull) {
        let at = &mut self.hosts[host as usize];
        let (life, drive) = (at.life, at.drive(&pull.volume));
        let source = self.registry.get(&pull.node).copied();
        let track = self.oracle.number(&pull.track);
        let fail = |why: PullError| Input::Pulled { number: pull.number, bytes: 0, result: Err(why) };
        let (Some(drive), Some(source)) = (drive, source) else {
            let input = Box::new(fail(if drive.is_none() { PullError::DriveFailed } else { PullError::Unreachable }));
            return self.queue.push(self.now, Event::Input { host, life, input });
        };
        if track == u32::MAX {
            self.checks.violate(Rule::Movement, format!("n{host} pulls a track that nobody ever made"));
            return;
        }
        self.note(Kind::Pull, host, source, u64::from(track));
        let (id, now) = (pull.track, self.now);
        let epoch = self.newest.epoch();
        let under_way = PullUnderWay {
            host,
            life,
            number: pull.number,
            drive,
            volume: pull.volume,
            id,
            flow: Key::MAX,
            got: 0,
            bytes: 0,
            tag: 0,
            progress_at: now,
            writing: false,
        };
        let key = self.pulls.insert(under_way);
        self.check_pulls(host, &pull.volume);
        let verb = Verb::Pull { from: self.hosts[host as usize].id, urgent: pull.urgent, bytes: 0 };
        let flow = self.ask(Question {
            at_once: false,
            asker: Asker::Pull { pull: key },
            link: (host, source),
            verb,
            volume: pull.from,
            track,
            epoch,
            offset: 0,
            deadline: now + PULL,
        });
        if let Some(pull) = self.pulls.get_mut(key) {
            pull.flow = flow;
        }
        self.queue.push(now + STALL, Event::PullLate { pull: key });
    }

    pub(super) fn pull_late(&mut self, key: Key) {
        let Some(pull) = self.pulls.get(key).copied() else { return };
        if pull.life != self.hosts[pull.host as usize].life || pull.writing {
            return;
        }
        let due = pull.progress_at + STALL;
        if due > self.now {
            return self.queue.push(due, Event::PullLate { pull: key });
        }
        self.pull_ends(key, Err(PullError::Unreachable));
    }

    /// Tells the core how a pull ended.
    fn pull_ends(&mut self, key: Key, result: Result<(), PullError>) {
        let Some(pull) = self.pulls.remove(key) else { return };
        self.hang_up(pull.flow);
        self.hit(if result.is_ok() { Probe::Pulls } else { Probe::PullsFailed });
        if result.is_err() && pull.got > 0 {
            self.hit(Probe::PullsCut);
        }
        let track = self.oracle.number(&pull.id);
        let text = if result.is_ok() { "whole" } else { "in vain" };
        self.trace.say(self.now, Kind::Pulled, (pull.host, NONE), u64::from(track), text);
        self.step(pull.host, Input::Pulled { number: pull.number, bytes: pull.got, result });
    }

    pub(super) fn pull_reply(&mut self, key: Key, _flow: Key, reply: Reply) {
        let (now, trusts) = (self.now, self.slips(Slip::StoreUnproved));
        let Some(pull) = self.pulls.get_mut(key) else { return };
        pull.progress_at = now;
        let proved = pull.got == pull.bytes && (pull.tag == tag_of(&pull.id) || trusts);
        match reply {
            Reply::Found { bytes } => pull.bytes = bytes,
            Reply::Data { bytes, tag, .. } => {
                pull.got += bytes;
                pull.tag = tag;
            }
            Reply::End if proved => self.pull_write(key),
            // What came does not hash to the id.
            Reply::End => {
                self.hit(Probe::PullsUnproved);
                self.pull_ends(key, Err(PullError::Corrupt));
            }
            Reply::Absent { .. } => self.pull_ends(key, Err(PullError::Lacks)),
            Reply::Ready | Reply::Stored { .. } => {}
            Reply::Later { after_ms } => self.pull_ends(key, Err(PullError::Busy { after_ms })),
            Reply::Failed(why) => {
                let error = match why {
                    FailureKind::Busy => PullError::Busy { after_ms: BUSY_MS },
                    FailureKind::Corrupt => PullError::Corrupt,
                    FailureKind::TakenDown { .. } => PullError::Barred,
                    FailureKind::Moved { .. } => PullError::Lacks,
                    _ => PullError::Unreachable,
                };
                self.pull_ends(key, Err(error));
            }
        }
    }

    fn pull_write(&mut self, key: Key) {
        let Some(pull) = self.pulls.get_mut(key) else { return };
        pull.writing = true;
        let pull = *pull;
        let drive = &self.hosts[pull.host as usize].drives[pull.drive];
        if drive.full {
            return self.pull_ends(key, Err(PullError::DriveFull));
        }
        if drive.barred.contains(&pull.id) {
            return self.pull_ends(key, Err(PullError::Barred));
        }
        self.work(pull.host, pull.drive, Work::WritePull { pull: key }, pull.bytes, true);
    }

    pub(super) fn pull_written(&mut self, op: Op, key: Key, fails: bool) {
        let Some(pull) = self.pulls.get(key).copied() else { return };
        if fails {
            return self.pull_ends(key, Err(PullError::DriveFailed));
        }
        let drive = &mut self.hosts[op.host as usize].drives[op.drive];
        let (volume, before) = (drive.id, drive.tracks.get(&pull.id).copied());
        let tell = drive.store(pull.id, pull.bytes, pull.tag);
        let had_good = before.is_some_and(|copy| copy.is_good(&pull.id));
        if before.is_some() && !had_good {
            self.hit(Probe::RotMended);
        }
        self.check_pulled(op.host, volume, &pull.id, had_good);
        let track = self.oracle.number(&pull.id);
        self.check_bytes(track, (0, 0), pull.tag);
        self.checks.owed.remove(&(volume, track));
        self.note(Kind::Write, op.host, NONE, u64::from(track));
        if tell {
            self.step(op.host, Input::Stored { volume, track: pull.id });
        }
        self.pull_ends(key, Ok(()));
    }
}
