//! Storing a track on its holders, all at once.

use bytes::Bytes;
use deadwax_dht::wire::{DATA_BYTES_MAX, Message};
use deadwax_dht::{Grace, PutQuorum, PutStep, Targets, Verdict};
use deadwax_track::{TRACK_BYTES_MAX, Tags, TrackId, piece_count};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::timeout_at;

use crate::error::Holders;
use crate::put_lane::{Lane, LaneEvent};
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
    id: TrackId,
    bytes: u64,
    /// What a holder that has the track says; the caller may be wrong about it.
    true_bytes: u64,
    written: u64,
    tags: Tags,
    quorum: Box<PutQuorum>,
    /// A task for each target that was asked and takes part.
    lanes: Vec<Option<Lane>>,
    sender: mpsc::Sender<(usize, LaneEvent)>,
    events: mpsc::Receiver<(usize, LaneEvent)>,
}

impl Client {
    /// Offers a track of `bytes` to all its holders, and returns when a write quorum has it or is ready for it, and the
    /// others had time to say. A holder that lacks it gets it, even where a quorum has it already: so a put that is
    /// repeated heals. The id must be of the bytes that follow; the holders prove it.
    pub async fn put(&self, id: TrackId, bytes: u64, tags: &Tags) -> Result<Put, Error> {
        if !(1..=TRACK_BYTES_MAX).contains(&bytes) {
            return Err(Error::Invalid(format!("a track has 1 to {TRACK_BYTES_MAX} bytes, not {bytes}")));
        }
        let map = &self.inner.map;
        let targets = Targets::of(map, id.partition());
        let holders = targets.holders();
        let suspects: Vec<usize> =
            (0..holders.len()).filter(|index| self.inner.pool.is_doubted(holders[*index].node)).collect();
        let config = &self.inner.config;
        let grace = Grace {
            well_ms: config.put_grace_ms,
            suspect_ms: config.put_grace_suspect_ms,
            // Nobody stands in yet.
            stand_in_ms: config.put_grace_ms,
        };
        let count = targets.volumes().len();
        // Room for every event there can be, so that no task waits for a put that is busy.
        let (sender, events) = mpsc::channel(2 * count);
        let deadline = self.now().saturating_add(config.put_ms);
        let quorum = Box::new(PutQuorum::new(targets, map.policy(), &suspects, grace, Some(deadline)));
        let (client, tags, lanes) = (self.clone(), tags.clone(), (0..count).map(|_| None).collect());
        PutWriter { client, id, bytes, true_bytes: bytes, written: 0, tags, quorum, lanes, sender, events }.open().await
    }
}

impl PutWriter {
    async fn open(mut self) -> Result<Put, Error> {
        loop {
            match self.quorum.poll(self.client.now()) {
                PutStep::Ask { target } => self.ask(target),
                PutStep::Wait { until } => self.wait(until).await?,
                PutStep::Already { copies, zones } => return Ok(Put::Already(self.stored(copies, zones))),
                PutStep::Begin { .. } if self.true_bytes != self.bytes => {
                    return Err(Error::Invalid(format!("the track has {} bytes, not {}", self.true_bytes, self.bytes)));
                }
                PutStep::Begin { to } => {
                    for (index, lane) in self.lanes.iter_mut().enumerate() {
                        if !to.contains(&index) {
                            *lane = None;
                        }
                    }
                    return Ok(Put::Writer(self));
                }
                PutStep::GiveUp(verdict) => return Err(self.given_up(verdict)),
                PutStep::Moved { .. } => return Err(self.given_up(Verdict::Unavailable)),
                PutStep::Acknowledged { .. } => unreachable!("nothing was sent"),
            }
        }
    }

    /// Starts the task that offers the track to the target.
    fn ask(&mut self, target: usize) {
        let at = self.quorum.targets().volumes()[target];
        let offer = Message::Put { volume: at.volume, id: self.id, bytes: self.bytes, tags: self.tags.clone() };
        self.lanes[target] = Some(Lane::start(&self.client, (target, at.node), offer, self.bytes, &self.sender));
    }

    /// Waits for what a holder does next.
    async fn wait(&mut self, until: Option<u64>) -> Result<(), Error> {
        let event = match until {
            Some(until) => timeout_at(self.client.at(until), self.events.recv()).await,
            None => Ok(self.events.recv().await),
        };
        match event {
            Ok(Some((holder, event))) => self.handle(holder, event),
            Ok(None) => unreachable!("we hold a sender"),
            Err(_) => {}
        }
        Ok(())
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
            let part = bytes.split_to(bytes.len().min(DATA_BYTES_MAX));
            for lane in self.lanes.iter().flatten() {
                // One that takes no more says why in its event.
                lane.send(part.clone()).await;
            }
            self.written += part.len() as u64;
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
            PutStep::Moved { .. } => Err(self.given_up(Verdict::Unavailable)),
            _ => Ok(()),
        }
    }

    /// Waits until a write quorum is durable. On return the track survives whatever the policy says that it does; the
    /// other holders go on by themselves.
    pub async fn finish(mut self) -> Result<Stored, Error> {
        if self.written != self.bytes {
            return Err(Error::Invalid(format!("{} of {} announced bytes came", self.written, self.bytes)));
        }
        loop {
            match self.quorum.poll(self.client.now()) {
                PutStep::Wait { until } => self.wait(until).await?,
                PutStep::Acknowledged { copies, zones } | PutStep::Already { copies, zones } => {
                    self.lanes.drain(..).flatten().for_each(Lane::release);
                    return Ok(self.stored(copies, zones));
                }
                PutStep::GiveUp(verdict) => return Err(self.given_up(verdict)),
                PutStep::Moved { .. } => return Err(self.given_up(Verdict::Unavailable)),
                PutStep::Begin { .. } | PutStep::Ask { .. } => {
                    unreachable!("the writer exists because all that was said before")
                }
            }
        }
    }

    fn stored(&self, copies: usize, zones: usize) -> Stored {
        let epoch = self.client.inner.map.epoch();
        Stored { bytes: self.true_bytes, pieces: piece_count(self.true_bytes), copies, zones, epoch }
    }

    fn given_up(&self, verdict: Verdict) -> Error {
        let failures = Holders::of(&self.client.inner.map, self.quorum.targets().volumes(), self.quorum.failures());
        let ((copies, zones), durable) = (self.quorum.needed(), self.quorum.durable().0);
        let what = || format!("put {}: needs {copies} copies in {zones} zones, has {durable}", self.id);
        Error::of(verdict, what, failures)
    }
}
