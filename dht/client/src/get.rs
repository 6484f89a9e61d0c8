//! Reading a range of a track, whatever its holders do meanwhile.

use bytes::Bytes;
use deadwax_dht::wire::{ErrorCode, Message};
use deadwax_dht::{Failure, GetPlan, GetStep, Holder, NodeId, ReadDeadlines};
use deadwax_track::{ByteRange, TrackId};
use tokio::time::timeout_at;

use crate::connection::unexpected;
use crate::error::Holders;
use crate::pool::Lease;
use crate::{Client, Error};

/// The bytes of a range, as they come.
#[derive(Debug)]
pub struct GetStream {
    client: Client,
    id: TrackId,
    holders: Vec<Holder>,
    plan: GetPlan,
    /// Whom to ask, until it has answered.
    asking: Option<(usize, ByteRange)>,
    /// The holder (an index) that was asked last, and so sent what came last.
    asked: usize,
    lease: Option<Lease>,
    bytes_total: u64,
    ended: bool,
}

/// What the stream came to.
enum Came {
    Found(u64),
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
        let (holders, mut order) = self.reading_order(&id);
        let map = &self.inner.map;
        order.sort_by_key(|index| avoid.contains(&map.nodes()[holders[*index].node].id));
        let config = &self.inner.config;
        // The pool's own deadlines, for a connection and then for the answer, are those that a request usually meets:
        // it knows why.
        let deadlines = ReadDeadlines { first_ms: 2 * config.first_ms + 1, stall_ms: config.read_stall_ms };
        let read_quorum = self.inner.map.policy().read_quorum(holders.len());
        let plan = GetPlan::new(&order, read_quorum, range, deadlines);
        let client = self.clone();
        let mut stream =
            GetStream { client, id, holders, plan, asking: None, asked: 0, lease: None, bytes_total: 0, ended: false };
        match stream.advance().await? {
            Came::Found(bytes) => stream.bytes_total = bytes,
            Came::Bytes(_) | Came::End => unreachable!("a plan takes no bytes and no end before the track is found"),
        }
        Ok(stream)
    }
}

impl GetStream {
    /// The whole track's length.
    #[must_use]
    pub const fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    /// The node that sent the bytes which [`next`](Self::next) gave last, or that is about to send the first.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.client.inner.map.nodes()[self.holders[self.asked].node].id
    }

    /// The next bytes of the range, nothing at its end. After an error there is nothing more. May be dropped while it
    /// waits, and called again.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        if self.ended {
            return None;
        }
        self.plan.handle_resumed(self.client.now());
        loop {
            match self.advance().await {
                Ok(Came::Found(_)) => {}
                Ok(Came::Bytes(bytes)) => return Some(Ok(bytes)),
                Ok(Came::End) => {
                    self.ended = true;
                    return None;
                }
                Err(error) => {
                    self.ended = true;
                    self.lease = None;
                    return Some(Err(error));
                }
            }
        }
    }

    /// Follows the plan until something comes of it.
    async fn advance(&mut self) -> Result<Came, Error> {
        loop {
            let until = match self.plan.poll(self.client.now()) {
                GetStep::Ask { holder, range, until } => {
                    self.lease = None;
                    self.asking = Some((holder, range));
                    self.asked = holder;
                    until
                }
                GetStep::Wait { until } => until,
                GetStep::Done => return Ok(Came::End),
                GetStep::NotFound => return Err(Error::NotFound),
                GetStep::Failed(verdict) => {
                    let map = &self.client.inner.map;
                    let holders = Holders::of(map, &self.holders, self.plan.failures());
                    let (next, absent) = (self.plan.next_byte(), self.plan.absent());
                    let what = || format!("get {} from byte {next}: {absent} holders do not have it", self.id);
                    return Err(Error::of(verdict, what, holders));
                }
            };
            // Where the time is over, the plan knows at the next poll.
            if let Ok(reply) = timeout_at(self.client.at(until), self.hear()).await
                && let Some(came) = self.handle(reply)
            {
                return Ok(came);
            }
        }
    }

    /// The next word of the holder that is asked. Dropped and called again, it goes on.
    async fn hear(&mut self) -> Result<Message, Failure> {
        if let Some((holder, range)) = self.asking {
            let holder = self.holders[holder];
            let request = Message::Get { volume: holder.volume, id: self.id, range };
            let (lease, reply) = self.client.inner.pool.ask(holder.node, &request).await.inspect_err(|_| {
                self.asking = None;
            })?;
            self.asking = None;
            self.lease = Some(lease);
            return Ok(reply);
        }
        let lease = self.lease.as_mut().expect("a plan that waits has a connection to wait for");
        lease.connection.receiver.receive().await
    }

    fn handle(&mut self, reply: Result<Message, Failure>) -> Option<Came> {
        let now = self.client.now();
        match reply {
            Ok(Message::Found { bytes }) => {
                self.plan.handle_found(now, bytes);
                return (self.plan.track_bytes() == Some(bytes)).then_some(Came::Found(bytes));
            }
            Ok(Message::Data(bytes)) => {
                return self.plan.handle_data(now, bytes.len() as u64).then_some(Came::Bytes(bytes));
            }
            Ok(Message::End) => {
                self.plan.handle_end();
                self.give_back();
            }
            Ok(Message::Error { code: ErrorCode::NotFound, .. }) => {
                self.plan.handle_absent();
                self.give_back();
            }
            Ok(Message::Error { code, message }) => self.plan.handle_failed(Failure::from_reply(code, message)),
            Ok(other) => self.plan.handle_failed(unexpected(&other)),
            Err(failure) => self.plan.handle_failed(failure),
        }
        None
    }

    fn give_back(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}
