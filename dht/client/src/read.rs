//! What is known of a track, from the first holder that can tell.

use deadwax_dht::wire::{ErrorCode, Message};
use deadwax_dht::{Failure, FailureKind, ReadPlan, ReadStep, Targets};
use deadwax_track::{Manifest, Tags, TrackId};

use crate::connection::unexpected;
use crate::error::Holders;
use crate::known::Known;
use crate::{Client, Error};

/// A track's length, tags and manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrackInfo {
    /// Its length.
    pub bytes: u64,
    /// Its tags.
    pub tags: Tags,
    /// Its manifest, proved against its id.
    pub manifest: Manifest,
}

/// Whether a track is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    /// It is.
    Present {
        /// Its length.
        bytes: u64,
    },
    /// A quorum says that it is not.
    Absent,
    /// It was taken down.
    TakenDown {
        /// The takedown's number.
        number: u64,
    },
}

/// What one holder's reply amounts to.
enum Answer<T> {
    Is(T),
    Absent,
    Failed(Failure),
}

impl Client {
    /// A track's length, tags and manifest. A holder whose manifest does not prove itself against the id is corrupt,
    /// and the next is asked.
    pub async fn info(&self, id: TrackId) -> Result<TrackInfo, Error> {
        let request = |volume| Message::Info { volume, id };
        self.read(id, "info", request, |reply| match reply {
            Message::TrackInfo { bytes, tags, pieces } => match Manifest::proved(&id, bytes, pieces) {
                Ok(manifest) => Answer::Is(TrackInfo { bytes, tags, manifest }),
                Err(error) => Answer::Failed(Failure::new(FailureKind::Corrupt, error.to_string())),
            },
            Message::Error { code: ErrorCode::NotFound, .. } => Answer::Absent,
            other => Answer::Failed(failure(other)),
        })
        .await
    }

    /// Whether a track is there. Where no quorum can tell, `Unavailable`.
    pub async fn presence(&self, id: TrackId) -> Result<Presence, Error> {
        let request = |volume| Message::Has { volume, id };
        let present = self.read(id, "presence", request, |reply| match reply {
            Message::Present { bytes } => Answer::Is(bytes),
            Message::Absent => Answer::Absent,
            Message::TakenDown { number } => {
                Answer::Failed(Failure::new(FailureKind::TakenDown { number }, "taken down"))
            }
            other => Answer::Failed(failure(other)),
        });
        match present.await {
            Ok(bytes) => Ok(Presence::Present { bytes }),
            Err(Error::NotFound) => Ok(Presence::Absent),
            Err(Error::TakenDown { number }) => Ok(Presence::TakenDown { number }),
            Err(error) => Err(error),
        }
    }

    async fn read<T>(
        &self,
        id: TrackId,
        what: &str,
        request: impl Fn(deadwax_dht::VolumeId) -> Message,
        answer: impl Fn(Message) -> Answer<T>,
    ) -> Result<T, Error> {
        let mut course = self.course();
        let (mut targets, mut plan) = self.read_plan(&course.known, &id);
        let mut seen = false;
        loop {
            let step = plan.poll();
            let newer = match step {
                ReadStep::Moved { epoch } => course.follow(self, epoch, None).await,
                ReadStep::Failed(verdict) => course.follow_failed(self, verdict, None).await,
                _ => false,
            };
            if newer {
                seen |= plan.failures().any(|(_, failure)| failure.kind == FailureKind::Corrupt);
                (targets, plan) = self.read_plan(&course.known, &id);
                if seen {
                    plan.handle_seen();
                }
                continue;
            }
            let holder = match step {
                ReadStep::Ask { holder } => holder,
                ReadStep::NotFound => return Err(Error::NotFound),
                // The newer map cannot be had: who has the track may still say so.
                ReadStep::Moved { .. } => continue,
                ReadStep::Failed(verdict) => {
                    let failures = Holders::of(course.known.map(), targets.holders(), plan.failures());
                    let absent = plan.absent();
                    let what = || format!("{what} of {id}: {absent} holders do not have it");
                    return Err(Error::of(verdict, what, failures));
                }
                ReadStep::Done => unreachable!("an answer is returned at once"),
            };
            let place = targets.holders()[holder];
            let (epoch, reply) = match course.known.ask(place.node, &request(place.volume)).await {
                Ok((lease, reply)) => {
                    let epoch = lease.connection.receiver.epoch;
                    lease.give_back();
                    (epoch, reply)
                }
                Err(failure) => {
                    plan.handle_failed(holder, failure, None);
                    continue;
                }
            };
            match answer(reply) {
                Answer::Is(it) => return Ok(it),
                Answer::Absent => plan.handle_absent(holder, epoch),
                Answer::Failed(failure) => plan.handle_failed(holder, failure, None),
            }
        }
    }

    fn read_plan(&self, known: &Known, id: &TrackId) -> (Targets, ReadPlan) {
        let (targets, readers) = self.readers(known, id.partition());
        (targets, ReadPlan::new(readers))
    }
}

/// The failure that a reply is which is not the one asked for.
pub(crate) fn failure(reply: Message) -> Failure {
    match reply {
        Message::Error { code, message } => Failure::from_reply(code, message),
        other => unexpected(&other),
    }
}
