//! What clients and nodes want of tracks here: who is let in, and what is said at the end.

use std::collections::BTreeMap;

use deadwax_track::TrackId;

use super::effect::{Effect, Finished, Refused};
use super::input::{Done, Request, Verb};
use super::planted::Bug;
use super::{Core, Part};
use crate::NodeId;
use crate::admission::{Admission, Admitted, Class, Offer};
use crate::repair::Busy;
use crate::takedown::Verdict;

/// The requests that are under way or wait for their turn.
pub(super) struct Requests {
    admission: Admission,
    live: BTreeMap<u64, Request>,
    /// What is being served to other nodes: the request's number, and repair's.
    serves: BTreeMap<u64, u64>,
}

impl Requests {
    pub(super) const fn new(admission: Admission) -> Self {
        Self { admission, live: BTreeMap::new(), serves: BTreeMap::new() }
    }
}

impl Core {
    pub(super) fn take_request(&mut self, request: Request) {
        let number = request.number;
        if let Err(why) = self.admit(&request) {
            self.effects.push(Effect::Refuse { number, why });
            return;
        }
        if let Verb::Pull { from, urgent, bytes } = request.verb {
            return self.serve(request, from, urgent, bytes);
        }
        let class = if request.verb == Verb::Get { Class::Read } else { Class::Write };
        let offer = match self.planted(Bug::NeverBusy) {
            false => self.requests.admission.offer(self.now, number, class, request.deadline),
            true => Offer::Admit,
        };
        match offer {
            Offer::Admit => {
                self.requests.live.insert(number, request);
                self.effects.push(Effect::Go(request));
                if self.planted(Bug::AcknowledgeEarly) && request.verb == Verb::Put {
                    let answer = Finished::Stored { epoch: request.epoch };
                    self.effects.push(Effect::Finish { number, answer });
                }
            }
            Offer::Queued => {
                self.requests.live.insert(number, request);
            }
            Offer::Busy => self.effects.push(Effect::Refuse { number, why: Refused::Busy }),
            Offer::Expired => self.effects.push(Effect::Refuse { number, why: Refused::Expired }),
        }
        self.touch(Part::Requests);
    }

    /// A pull has a bound of its own, and its share of the drives.
    fn serve(&mut self, request: Request, from: NodeId, urgent: bool, bytes: u64) {
        let number = request.number;
        if request.deadline <= self.now {
            self.effects.push(Effect::Refuse { number, why: Refused::Expired });
            return;
        }
        match self.copies.repair.may_serve(self.now, from, bytes, urgent) {
            Ok(serve) => {
                self.requests.live.insert(number, request);
                self.requests.serves.insert(number, serve);
                self.effects.push(Effect::Go(request));
            }
            Err(Busy { after_ms }) => self.effects.push(Effect::Refuse { number, why: Refused::Later { after_ms } }),
        }
    }

    /// Whether a request may begin.
    fn admit(&mut self, request: &Request) -> Result<(), Refused> {
        if !self.copies.has_volume(&request.volume) {
            return Err(Refused::NoVolume);
        }
        match self.gate(&request.track) {
            Verdict::Barred(name) => return Err(Refused::TakenDown(name)),
            Verdict::Stale(_) if self.planted(Bug::ServeStale) => {}
            Verdict::Stale(_) => return Err(Refused::Stale),
            Verdict::Pass => {}
        }
        let epoch = self.epoch();
        if request.verb == Verb::Put && !self.planted(Bug::AcceptOldEpoch) {
            if request.epoch > epoch {
                self.ask_epochs();
                return Err(Refused::Behind { epoch });
            }
            if self.moved_since(&request.track, request.epoch) || !self.holds(request) {
                return Err(Refused::Moved { epoch });
            }
        }
        Ok(())
    }

    /// Whether the volume is a holder of the track at this node's epoch.
    fn holds(&self, request: &Request) -> bool {
        self.layout().is_some_and(|layout| layout.sets(request.track.partition()).has(&request.volume))
    }

    /// Whether the holders of the track's partition may have changed since `epoch`.
    fn moved_since(&self, track: &TrackId, epoch: u64) -> bool {
        self.history().is_none_or(|history| history.moved_since(track.partition(), epoch))
    }

    pub(super) fn poll_requests(&mut self) -> u64 {
        for turn in self.requests.admission.poll(self.now) {
            match turn {
                Admitted::Started { number } => {
                    let request = self.requests.live[&number];
                    // What was true when it came may be so no more.
                    match self.admit(&request) {
                        Ok(()) => self.effects.push(Effect::Go(request)),
                        Err(why) => {
                            self.end_request(number);
                            self.effects.push(Effect::Refuse { number, why });
                        }
                    }
                }
                Admitted::Expired { number } => {
                    self.requests.live.remove(&number);
                    self.effects.push(Effect::Refuse { number, why: Refused::Expired });
                }
            }
        }
        self.requests.admission.next_deadline().unwrap_or(u64::MAX)
    }

    fn end_request(&mut self, number: u64) {
        self.requests.live.remove(&number);
        self.requests.admission.done(number);
        self.touch(Part::Requests);
    }

    pub(super) fn take_done(&mut self, number: u64, outcome: Done, bytes: u64) {
        let Some(request) = self.requests.live.get(&number).copied() else { return };
        self.end_request(number);
        if let Some(serve) = self.requests.serves.remove(&number) {
            self.copies.repair.served(self.now, serve, bytes);
            if self.planted(Bug::CollectEarly) && outcome == Done::Sent {
                self.collect_early(&request);
            }
        }
        let answer = match (outcome, request.verb) {
            (Done::Stored, Verb::Put | Verb::StandIn) => {
                self.copies.repair.learn_lengths(None, 1, bytes);
                self.stored(&request)
            }
            (Done::NotHere, Verb::Get | Verb::Pull { .. }) => self.not_here(&request),
            (Done::Sent, Verb::Get | Verb::Pull { .. }) => Finished::Sent,
            _ => Finished::Failed,
        };
        self.effects.push(Effect::Finish { number, answer });
    }

    /// A put that is stored and that nobody let in: what would have kept it from beginning keeps it from being told so.
    pub(super) fn take_stored_at_once(&mut self, request: &Request) {
        let number = request.number;
        let effect = match self.admit(request) {
            Ok(()) => Effect::Finish { number, answer: self.stored(request) },
            Err(why) => Effect::Refuse { number, why },
        };
        self.effects.push(effect);
    }

    /// What a put is told whose copy is durable.
    fn stored(&self, request: &Request) -> Finished {
        match self.gate(&request.track) {
            // The takedown erases it: it was told of the copy.
            Verdict::Barred(_) if self.planted(Bug::ResurrectAtEnd) => {}
            Verdict::Barred(name) => return Finished::TakenDown(name),
            Verdict::Stale(_) if self.planted(Bug::ServeStale) => {}
            Verdict::Stale(_) => return Finished::Failed,
            Verdict::Pass => {}
        }
        let epoch = self.epoch();
        // Under other holders the asker's quorum may not be one. See the module's doc of `log::transition`.
        if self.planted(Bug::AcceptOldEpoch) {
            return Finished::Stored { epoch: request.epoch };
        }
        if request.verb == Verb::Put && (self.moved_since(&request.track, request.epoch) || !self.holds(request)) {
            return Finished::Moved { epoch };
        }
        Finished::Stored { epoch: request.epoch }
    }

    /// What is said of a track that the volume does not have.
    fn not_here(&mut self, request: &Request) -> Finished {
        let epoch = self.epoch();
        if self.planted(Bug::AbsentAnywhere) {
            return Finished::Absent { epoch: request.epoch };
        }
        if request.epoch > epoch {
            self.ask_epochs();
            return Finished::Unsettled;
        }
        let Some(layout) = self.layout() else { return Finished::Unsettled };
        let partition = request.track.partition();
        let first = layout.sets(partition).first.iter().any(|holder| holder.volume == request.volume);
        if self.moved_since(&request.track, request.epoch) || !first {
            return Finished::Moved { epoch };
        }
        let sure = self.takedowns.is_sure(self.now) || self.planted(Bug::AbsentUnproved);
        if sure && self.is_proved(&request.volume, partition) {
            Finished::Absent { epoch: request.epoch }
        } else {
            Finished::Unsettled
        }
    }

    fn collect_early(&mut self, request: &Request) {
        let partition = request.track.partition();
        let Some(layout) = self.layout() else { return };
        let moves = layout.state().transitions().get(&partition);
        if moves.is_some_and(|moves| !moves.new.contains(&request.volume)) {
            self.effects.push(Effect::Erase { volume: request.volume, track: request.track, barred: false });
        }
    }
}
