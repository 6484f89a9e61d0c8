//! Reading a range of a track, whatever its holders do meanwhile.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use deadwax_dht::wire::{ErrorCode, Message};
use deadwax_dht::{Failure, FailureKind, GetPlan, GetStep, NodeId, ReadDeadlines, Targets, Verdict};
use deadwax_track::{ByteRange, TrackId};
use tokio::time::timeout_at;

use crate::connection::unexpected;
use crate::error::Holders;
use crate::follower::Course;
use crate::known::Known;
use crate::pool::Lease;
use crate::{Client, Error};

/// The bytes of a range, as they come.
#[derive(Debug)]
pub struct GetStream {
    client: Client,
    id: TrackId,
    course: Course,
    /// The nodes that are asked last.
    avoid: Vec<NodeId>,
    targets: Targets,
    plan: GetPlan,
    /// One, or two while a second holder is asked beside a slow one.
    requests: Vec<Request>,
    /// The node that was asked or answered last, and so sent what came last.
    asked: NodeId,
    end: u64,
    /// The track's length, once a holder told it.
    found: Option<u64>,
    /// Whether a holder, by this map or an earlier one, showed that the track was stored.
    seen: bool,
    /// Why the plan cannot go on by this map, until it is known whether there is a newer one.
    halted: Option<Halt>,
    ended: bool,
}

/// What ends a plan unless there is a newer map.
#[derive(Clone, Copy, Debug)]
enum Halt {
    /// A holder has a map of this epoch.
    Moved(u64),
    /// No holder could give the bytes.
    Failed(Verdict),
}

/// A request that is under way. Dropped, it closes its connection.
struct Request {
    holder: usize,
    /// Until the first answer.
    asking: Option<Asking>,
    lease: Option<Lease>,
}

type Asking = Pin<Box<dyn Future<Output = Result<(Lease, Message), Failure>> + Send + Sync>>;

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("holder", &self.holder).field("lease", &self.lease).finish_non_exhaustive()
    }
}

impl Request {
    /// The holder's next word. Dropped and called again, it goes on; not after a failure.
    async fn hear(&mut self) -> Result<Message, Failure> {
        if let Some(asking) = &mut self.asking {
            let (lease, reply) = asking.as_mut().await?;
            self.asking = None;
            self.lease = Some(lease);
            return Ok(reply);
        }
        let lease = self.lease.as_mut().expect("who has answered has a connection");
        lease.connection.receiver.receive().await
    }
}

/// What the stream came to.
enum Came {
    Found,
    Bytes(Bytes),
    End,
}

impl Client {
    /// Asks for `range` of a track. Returns when a holder has begun to send it; `Invalid` where the range goes beyond
    /// the track's end.
    pub async fn get(&self, id: TrackId, range: ByteRange) -> Result<GetStream, Error> {
        self.get_avoiding(id, range, &[]).await
    }

    /// As [`get`](Self::get), but asks the nodes `avoid` after all others: what they sent before did not pass its
    /// proof, say. They are still asked where no other can give the bytes.
    pub async fn get_avoiding(&self, id: TrackId, range: ByteRange, avoid: &[NodeId]) -> Result<GetStream, Error> {
        // The pool's own deadlines, for a connection and then for the answer, are those that a request usually meets:
        // it knows why.
        let config = &self.inner.config;
        let deadlines = ReadDeadlines {
            first_ms: 2 * config.first_ms + 1,
            stall_ms: config.read_stall_ms,
            whole: Some(self.now().saturating_add(config.get_ms)),
        };
        let course = self.course();
        let (targets, plan) = self.get_plan(&course.known, id, range, avoid, deadlines);
        let asked = course.known.node_id(targets.holders()[0].node);
        let mut stream = GetStream {
            client: self.clone(),
            id,
            course,
            avoid: avoid.to_vec(),
            targets,
            plan,
            requests: Vec::with_capacity(2),
            asked,
            end: range.end(),
            found: None,
            seen: false,
            halted: None,
            ended: false,
        };
        match stream.advance().await? {
            Came::Found => Ok(stream),
            Came::Bytes(_) | Came::End => unreachable!("a plan takes no bytes and no end before the track is found"),
        }
    }

    fn get_plan(
        &self,
        known: &Known,
        id: TrackId,
        range: ByteRange,
        avoid: &[NodeId],
        deadlines: ReadDeadlines,
    ) -> (Targets, GetPlan) {
        let (targets, mut readers) = self.readers(known, id.partition());
        for reader in &mut readers.order {
            reader.is_down |= avoid.contains(&known.node_id(targets.holders()[reader.holder].node));
        }
        readers.order.sort_by_key(|reader| reader.is_down);
        (targets, GetPlan::new(readers, range, deadlines))
    }
}

impl GetStream {
    /// The whole track's length.
    #[must_use]
    pub const fn bytes_total(&self) -> u64 {
        self.found.expect("a stream is given out when a holder was found")
    }

    /// The node that sent the bytes which [`next`](Self::next) gave last, or that is about to send the first.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.asked
    }

    /// The next bytes of the range, nothing at its end. After an error there is nothing more. May be dropped while it
    /// waits, and called again.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        if self.ended {
            return None;
        }
        loop {
            self.plan.handle_resumed(self.client.now());
            match self.advance().await {
                Ok(Came::Found) => {}
                Ok(Came::Bytes(bytes)) => return Some(Ok(bytes)),
                Ok(Came::End) => {
                    self.ended = true;
                    return None;
                }
                Err(error) => {
                    self.ended = true;
                    self.requests.clear();
                    return Some(Err(error));
                }
            }
        }
    }

    /// Follows the plan until something comes of it.
    async fn advance(&mut self) -> Result<Came, Error> {
        loop {
            if let Some(halt) = self.halted {
                self.follow(halt).await?;
            }
            let now = self.client.now();
            let (known, holders) = (&self.course.known, self.targets.holders());
            let step = self.client.reading(|reading| {
                let step = self.plan.poll(now, &mut reading.hedges);
                while let Some((holder, ms)) = self.plan.take_sample() {
                    reading.latency.record(now, known.node_id(holders[holder].node), ms);
                }
                step
            });
            let until = match step {
                GetStep::Ask { holder, range, hedge } => {
                    self.ask(holder, range);
                    if !hedge {
                        self.asked = self.node_of(holder);
                    }
                    continue;
                }
                GetStep::Drop { holder } => {
                    self.end(holder);
                    continue;
                }
                GetStep::Moved { epoch } => {
                    self.halted = Some(Halt::Moved(epoch));
                    continue;
                }
                GetStep::Wait { until } => until,
                GetStep::Done => return Ok(Came::End),
                GetStep::NotFound if self.seen => return Err(self.failed(Verdict::Unavailable)),
                GetStep::NotFound => return Err(Error::NotFound),
                GetStep::Failed(verdict) => {
                    self.halted = Some(Halt::Failed(verdict));
                    continue;
                }
            };
            // Where the time is over, the plan knows at the next poll.
            if let Ok((holder, reply)) = timeout_at(self.client.at(until), self.hear()).await
                && let Some(came) = self.handle(holder, reply)
            {
                self.asked = self.node_of(holder);
                self.plan.handle_away(self.client.now());
                return Ok(came);
            }
        }
    }

    /// Begins anew, from the next byte on, by a newer map; where there is none, goes on by this one or fails. May be
    /// dropped while it waits, and called again.
    async fn follow(&mut self, halt: Halt) -> Result<(), Error> {
        let until = self.plan.deadlines().whole.map(|whole| self.client.at(whole));
        let newer = match halt {
            Halt::Moved(epoch) => self.course.follow(&self.client, epoch, until).await,
            Halt::Failed(verdict) => self.course.follow_failed(&self.client, verdict, until).await,
        };
        self.halted = None;
        if !newer {
            return match halt {
                // The other holders may have the bytes.
                Halt::Moved(_) => Ok(()),
                Halt::Failed(verdict) => Err(self.failed(verdict)),
            };
        }
        self.requests.clear();
        self.seen |= self.plan.failures().any(|(_, failure)| failure.kind == FailureKind::Corrupt);
        let rest = ByteRange::new(self.plan.next_byte(), self.end).expect("a plan whose bytes all came has ended well");
        let deadlines = self.plan.deadlines();
        (self.targets, self.plan) = self.client.get_plan(&self.course.known, self.id, rest, &self.avoid, deadlines);
        Ok(())
    }

    fn failed(&self, verdict: Verdict) -> Error {
        let holders = Holders::of(self.course.known.map(), self.targets.holders(), self.plan.failures());
        let (next, absent) = (self.plan.next_byte(), self.plan.absent());
        let what = || format!("get {} from byte {next}: {absent} holders do not have it", self.id);
        Error::of(verdict, what, holders)
    }

    /// The node of a holder of the present map.
    fn node_of(&self, holder: usize) -> NodeId {
        self.course.known.node_id(self.targets.holders()[holder].node)
    }

    fn ask(&mut self, holder: usize, range: ByteRange) {
        let place = self.targets.holders()[holder];
        let request = Message::Get { volume: place.volume, id: self.id, range };
        let known = Arc::clone(&self.course.known);
        let asking: Asking = Box::pin(async move { known.ask(place.node, &request).await });
        self.requests.push(Request { holder, asking: Some(asking), lease: None });
    }

    /// Forgets the holder's request, and closes its connection.
    fn end(&mut self, holder: usize) {
        self.requests.retain(|request| request.holder != holder);
    }

    /// The next word of a holder that was asked. Dropped and called again, it goes on.
    async fn hear(&mut self) -> (usize, Result<Message, Failure>) {
        match self.requests.as_mut_slice() {
            [one] => (one.holder, one.hear().await),
            [one, two] => {
                let (first, second) = (one.holder, two.holder);
                tokio::select! {
                    biased;
                    reply = one.hear() => (first, reply),
                    reply = two.hear() => (second, reply),
                }
            }
            other => unreachable!("a plan waits for one holder or two, not {}", other.len()),
        }
    }

    fn handle(&mut self, holder: usize, reply: Result<Message, Failure>) -> Option<Came> {
        let now = self.client.now();
        match reply {
            Ok(Message::Found { bytes }) if self.found.is_some_and(|known| known != bytes) => {
                let why = format!("says the track has {bytes} bytes, another said {}", self.bytes_total());
                self.fail(holder, Failure::new(FailureKind::Corrupt, why));
            }
            Ok(Message::Found { bytes }) => {
                self.plan.handle_found(now, holder, bytes);
                if self.plan.track_bytes() == Some(bytes) {
                    self.seen = true;
                    self.found = Some(bytes);
                    return Some(Came::Found);
                }
            }
            Ok(Message::Data(bytes)) => {
                return self.plan.handle_data(now, holder, bytes.len() as u64).then_some(Came::Bytes(bytes));
            }
            Ok(Message::End) => {
                self.plan.handle_end(holder);
                self.give_back(holder);
            }
            Ok(Message::Error { code: ErrorCode::NotFound, .. }) => {
                let epoch = self.give_back(holder);
                self.plan.handle_absent(holder, epoch);
            }
            Ok(Message::Error { code, message }) => self.fail(holder, Failure::from_reply(code, message)),
            Ok(other) => self.fail(holder, unexpected(&other)),
            Err(failure) => self.fail(holder, failure),
        }
        None
    }

    fn fail(&mut self, holder: usize, failure: Failure) {
        self.end(holder);
        self.plan.handle_failed(holder, failure);
    }

    /// Keeps the connection of a holder that has said all. Also, the epoch of its map.
    fn give_back(&mut self, holder: usize) -> u64 {
        let at = self.requests.iter().position(|request| request.holder == holder);
        let request = self.requests.remove(at.expect("who spoke was asked"));
        let lease = request.lease.expect("who has answered has a connection");
        let epoch = lease.connection.receiver.epoch;
        lease.give_back();
        epoch
    }
}
