//! Storing a track on its holders, all at once.

use std::sync::Arc;

use bytes::Bytes;
use deadwax_dht::wire::{AT_ONCE_BYTES_MAX, Message, Summed};
use deadwax_dht::{Grace, PutQuorum, PutStep, Verdict};
use deadwax_track::{TRACK_BYTES_MAX, Tags, TrackId, piece_count};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::timeout_at;

use crate::error::Holders;
use crate::known::Known;
use crate::put_lane::{FRAME_BYTES, Lane, LaneEvent};
use crate::{Client, Error};

/// What the acknowledgement of a put says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stored {
    /// The track's length.
    pub bytes: u64,
    /// Its number of pieces.
    pub pieces: u64,
    /// Copies that are durable now; more may follow.
    pub copies: usize,
    /// Zones that they lie in.
    pub zones: usize,
    /// The map's epoch.
    pub epoch: u64,
}

/// A put that began.
#[derive(Debug)]
pub enum Put {
    /// All holders that can be reached have the track already, a quorum at least.
    Already(Stored),
    /// Holders that lack the track wait for the bytes; with those that have it they are a quorum at least.
    Writer(PutWriter),
}

/// Takes the bytes of a track. Dropped before [`finish`](Self::finish) returned, it aborts the put everywhere.
#[derive(Debug)]
pub struct PutWriter {
    client: Client,
    /// The map that it goes by.
    known: Arc<Known>,
    id: TrackId,
    bytes: u64,
    /// What a holder that has the track says; the caller may be wrong about it.
    true_bytes: u64,
    written: u64,
    /// The track, where it goes with the offers.
    whole: Option<Summed>,
    tags: Tags,
    quorum: Box<PutQuorum>,
    /// A task for each target that was asked and takes part.
    lanes: Vec<Option<Lane>>,
    sender: mpsc::Sender<(usize, LaneEvent)>,
    events: mpsc::Receiver<(usize, LaneEvent)>,
}

/// Why a put did not begin.
enum NotBegun {
    /// It is over.
    Failed(Error),
    /// A holder has a map of this epoch: offer it by that one. The error: where it cannot be had.
    Moved(u64, Error),
    /// The holders that there are do not suffice; by a newer map they may.
    GivenUp(Verdict, Error),
}

impl Client {
    /// Offers a track of `bytes` to all its holders, and returns when a write quorum has it or is ready for it, and the
    /// others had time to say. A holder that lacks it gets it, even where a quorum has it already: so a put that is
    /// repeated heals. The id must be of the bytes that follow; the holders prove it.
    pub async fn put(&self, id: TrackId, bytes: u64, tags: &Tags) -> Result<Put, Error> {
        self.offer(id, bytes, None, tags).await
    }

    /// Stores a small track, of at most [`AT_ONCE_BYTES_MAX`]: as [`put`](Self::put), but the bytes go with the offers,
    /// which saves a round trip. Returns when a write quorum is durable; true: all that can be reached had it before.
    pub async fn put_at_once(&self, id: TrackId, bytes: Bytes, tags: &Tags) -> Result<(Stored, bool), Error> {
        if bytes.len() > AT_ONCE_BYTES_MAX {
            return Err(Error::Invalid(format!("a track of {} bytes does not go at once", bytes.len())));
        }
        match self.offer(id, bytes.len() as u64, Some(Summed::new(bytes)), tags).await? {
            Put::Already(stored) => Ok((stored, true)),
            Put::Writer(writer) => Ok((writer.acknowledged().await?, false)),
        }
    }

    async fn offer(&self, id: TrackId, bytes: u64, whole: Option<Summed>, tags: &Tags) -> Result<Put, Error> {
        if !(1..=TRACK_BYTES_MAX).contains(&bytes) {
            return Err(Error::Invalid(format!("a track has 1 to {TRACK_BYTES_MAX} bytes, not {bytes}")));
        }
        let deadline = self.now().saturating_add(self.inner.config.put_ms);
        let (mut course, until) = (self.course(), Some(self.at(deadline)));
        loop {
            let writer = self.put_writer(&course.known, id, (bytes, whole.clone()), tags, deadline);
            let (newer, error) = match writer.open().await {
                Ok(put) => return Ok(put),
                Err(NotBegun::Failed(error)) => return Err(error),
                Err(NotBegun::Moved(epoch, error)) => (course.follow(self, epoch, until).await, error),
                Err(NotBegun::GivenUp(verdict, error)) => (course.follow_failed(self, verdict, until).await, error),
            };
            if !newer {
                return Err(error);
            }
        }
    }

    fn put_writer(
        &self,
        known: &Arc<Known>,
        id: TrackId,
        (bytes, whole): (u64, Option<Summed>),
        tags: &Tags,
        deadline: u64,
    ) -> PutWriter {
        let targets = known.put_targets(id.partition());
        let holders = targets.holders();
        let suspects: Vec<usize> =
            (0..holders.len()).filter(|index| known.pool(holders[*index].node).is_doubted()).collect();
        let config = &self.inner.config;
        let grace = Grace {
            well_ms: config.put_grace_ms,
            suspect_ms: config.put_grace_suspect_ms,
            stand_in_ms: config.put_stand_in_ms,
        };
        let count = targets.volumes().len();
        // Room for every event there can be, so that no task waits for a put that is busy.
        let (sender, events) = mpsc::channel(2 * count);
        let quorum = PutQuorum::new(targets, known.map().policy(), &suspects, grace, Some(deadline));
        let quorum = Box::new(if whole.is_some() { quorum.at_once() } else { quorum });
        PutWriter {
            client: self.clone(),
            known: Arc::clone(known),
            id,
            bytes,
            true_bytes: bytes,
            written: if whole.is_some() { bytes } else { 0 },
            whole,
            tags: tags.clone(),
            quorum,
            lanes: (0..count).map(|_| None).collect(),
            sender,
            events,
        }
    }
}

impl PutWriter {
    async fn open(mut self) -> Result<Put, NotBegun> {
        loop {
            match self.quorum.poll(self.client.now()) {
                PutStep::Ask { target } => self.ask(target),
                PutStep::Wait { until } => self.wait(until).await,
                PutStep::Already { copies, zones } => return Ok(Put::Already(self.stored(copies, zones))),
                PutStep::Begin { .. } if self.true_bytes != self.bytes => {
                    let why = format!("the track has {} bytes, not {}", self.true_bytes, self.bytes);
                    return Err(NotBegun::Failed(Error::Invalid(why)));
                }
                PutStep::Begin { to } => {
                    for (index, lane) in self.lanes.iter_mut().enumerate() {
                        if !to.contains(&index) {
                            *lane = None;
                        }
                    }
                    return Ok(Put::Writer(self));
                }
                PutStep::GiveUp(verdict) => return Err(NotBegun::GivenUp(verdict, self.given_up(verdict))),
                PutStep::Moved { epoch } => {
                    let what =
                        format!("put {}: the map changed to epoch {epoch}, which could not be followed", self.id);
                    let holders = self.failures();
                    return Err(NotBegun::Moved(epoch, Error::Unavailable { what, holders }));
                }
                // Then the bytes went with the offers: all that is left is to be said.
                PutStep::Acknowledged { .. } => return Ok(Put::Writer(self)),
            }
        }
    }

    /// Starts the task that offers the track to the target.
    fn ask(&mut self, target: usize) {
        let targets = self.quorum.targets();
        let at = targets.volumes()[target];
        let (volume, id, bytes, tags) = (at.volume, self.id, self.bytes, self.tags.clone());
        let offer = if target < targets.holders().len() {
            Message::Put { volume, id, bytes, tags }
        } else {
            Message::StandIn { volume, id, bytes, tags }
        };
        self.lanes[target] = Some(Lane::start(
            &self.client,
            &self.known,
            (target, at.node),
            offer,
            (self.bytes, self.whole.clone()),
            &self.sender,
        ));
    }

    /// Waits for what a holder does next.
    async fn wait(&mut self, until: Option<u64>) {
        let event = match until {
            Some(until) => timeout_at(self.client.at(until), self.events.recv()).await,
            None => Ok(self.events.recv().await),
        };
        match event {
            Ok(Some((holder, event))) => self.handle(holder, event),
            Ok(None) => unreachable!("we hold a sender"),
            Err(_) => {}
        }
    }

    fn handle(&mut self, holder: usize, event: LaneEvent) {
        match event {
            LaneEvent::Ready => self.quorum.handle_ready(holder),
            LaneEvent::Stored { already, bytes } => {
                if already {
                    self.true_bytes = bytes;
                }
                self.quorum.handle_stored(holder, already);
            }
            LaneEvent::Failed(failure) => {
                self.quorum.handle_failed(holder, failure);
                self.lanes[holder] = None;
            }
        }
    }

    /// Hands on the next bytes of the track. Returns when every holder that still takes part has room for more; a
    /// holder that stalls is left out while a quorum remains. Not durable yet. After an error the put is over.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        if bytes.len() as u64 > self.bytes - self.written {
            return Err(Error::Invalid(format!("more than the {} bytes that were announced", self.bytes)));
        }
        while !bytes.is_empty() {
            self.check()?;
            let part = Summed::new(bytes.split_to(bytes.len().min(FRAME_BYTES)));
            for lane in self.lanes.iter().flatten() {
                // One that takes no more says why in its event.
                lane.send(part.clone()).await;
            }
            self.written += part.bytes().len() as u64;
        }
        self.check()
    }

    /// Takes note of what the holders did meanwhile.
    fn check(&mut self) -> Result<(), Error> {
        while let Ok((holder, event)) = self.events.try_recv() {
            self.handle(holder, event);
        }
        match self.quorum.poll(self.client.now()) {
            PutStep::GiveUp(verdict) => Err(self.given_up(verdict)),
            PutStep::Moved { epoch } => Err(self.moved(epoch)),
            _ => Ok(()),
        }
    }

    /// Waits until a write quorum is durable. On return the track survives whatever the policy says that it does; the
    /// other holders go on by themselves.
    pub async fn finish(self) -> Result<Stored, Error> {
        if self.written != self.bytes {
            return Err(Error::Invalid(format!("{} of {} announced bytes came", self.written, self.bytes)));
        }
        self.acknowledged().await
    }

    async fn acknowledged(mut self) -> Result<Stored, Error> {
        loop {
            match self.quorum.poll(self.client.now()) {
                PutStep::Wait { until } => self.wait(until).await,
                PutStep::Acknowledged { copies, zones } | PutStep::Already { copies, zones } => {
                    self.lanes.drain(..).flatten().for_each(Lane::release);
                    return Ok(self.stored(copies, zones));
                }
                PutStep::GiveUp(verdict) => return Err(self.given_up(verdict)),
                PutStep::Moved { epoch } => return Err(self.moved(epoch)),
                PutStep::Begin { .. } | PutStep::Ask { .. } => {
                    unreachable!("the writer exists because all that was said before")
                }
            }
        }
    }

    fn stored(&self, copies: usize, zones: usize) -> Stored {
        let epoch = self.known.epoch();
        Stored { bytes: self.true_bytes, pieces: piece_count(self.true_bytes), copies, zones, epoch }
    }

    fn given_up(&self, verdict: Verdict) -> Error {
        let ((copies, zones), durable) = (self.quorum.needed(), self.quorum.durable().0);
        let what = || format!("put {}: needs {copies} copies in {zones} zones, has {durable}", self.id);
        Error::of(verdict, what, self.failures())
    }

    /// A holder has a newer map, and bytes that are gone cannot be sent by it.
    fn moved(&self, epoch: u64) -> Error {
        // Whoever repeats it finds the map there.
        self.client.follow_behind(epoch);
        let what = format!("put {}: the map changed to epoch {epoch} while its bytes were sent, repeat it", self.id);
        Error::Unavailable { what, holders: self.failures() }
    }

    fn failures(&self) -> Holders {
        Holders::of(self.known.map(), self.quorum.targets().volumes(), self.quorum.failures())
    }
}
