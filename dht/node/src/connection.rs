//! One connection: the greeting, then one request at a time.

mod greeting;

use std::os::fd::RawFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use deadwax_dht::core::{BadEnvelope, Done, Envelope, Verb};
use deadwax_dht::wire::{
    AT_ONCE_BYTES_MAX, BadFrame, ErrorCode, Feed, FrameHeader, Joining, Kind, Message, Newer, Repairing, Scrubbing,
    Stamp, parts,
};
use deadwax_dht::{NodeId, VolumeId};
use deadwax_engine::Priority;
use deadwax_track::{ByteRange, TRACK_BYTES_MAX, Tags, TrackId};
use futures_lite::future::or;
use glommio::timer::sleep;

use crate::admission::Caller;
use crate::answers;
use crate::drain::Guest;
use crate::driver::{Late, Turn, Wish};
use crate::operators;
use crate::parcel::Parcel;
use crate::refusal::Refusal;
use crate::scrubs;
use crate::shard::Shard;
use crate::socket::{ReceiveError, Received, Socket};
use crate::takedowns;
use crate::transfer::{self, Broken, Put, Sink, Stored};

/// A connection being served.
pub(crate) struct Connection {
    shard: Rc<Shard>,
    socket: Socket,
    caller: Caller,
    /// By which version of who is admitted.
    judged: u64,
    /// Which node is at the other end, and where it listens; none: a client.
    peer: Option<(NodeId, Arc<str>)>,
    /// What came of its message.
    parcel: Parcel,
    /// How long the next request is of use, in ms, where its sender said so.
    within_ms: Option<u32>,
    /// The last request that was refused, and how many bytes of a track may be on their way that were sent with it.
    unwanted: (u32, usize),
}

/// How long a put whose bytes came with it may take before its sender hears that it is under way: well below what clients
/// wait for a first answer.
const READY_LATE: Duration = Duration::from_millis(500);

/// A put's part with the core.
enum PutTurn<'a> {
    /// It was let in.
    Begun(Turn),
    /// Its bytes came with it.
    Late(Late<'a>),
}

impl PutTurn<'_> {
    /// It is stored, or was. What may be said of it.
    async fn finish(self, shard: &Rc<Shard>, bytes: u64) -> Result<Option<u64>, Refusal> {
        match self {
            Self::Begun(turn) => turn.finish(Done::Stored, bytes).await,
            Self::Late(late) => late.stored(shard).await,
        }
    }
}

/// What comes next.
enum Next {
    /// A request, or what passes for one.
    Request(Received),
    /// A frame of a later version than was agreed on. It was passed over.
    Newer(Newer),
}

/// Why a connection ended.
enum End {
    /// The peer closed between requests, or the node is draining.
    Closed,
    /// The socket failed or was silent too long: there is nobody to tell.
    Lost(std::io::Error),
    /// What came cannot be gone on from: the peer is told, then the connection is closed.
    Refused(u32, Refusal),
}

impl From<std::io::Error> for End {
    fn from(why: std::io::Error) -> Self {
        Self::Lost(why)
    }
}

impl Connection {
    pub(crate) fn new(shard: Rc<Shard>, socket: Socket) -> Self {
        let parcel = Parcel::new(Arc::clone(&shard.node));
        Self { shard, socket, caller: Caller::Anyone, judged: 0, peer: None, parcel, within_ms: None, unwanted: (0, 0) }
    }

    /// Its descriptor, for the list of guests.
    pub(crate) fn fd(&self) -> RawFd {
        self.socket.fd()
    }

    /// Serves until the peer closes, fails, or breaks the protocol, or `guest` is asked to leave.
    pub(crate) async fn serve(self, guest: &Guest) -> Self {
        let (mut connection, end) = self.requests(guest).await;
        match end {
            Ok(()) | Err(End::Closed) => {}
            Err(End::Lost(why)) => tracing::debug!(%why, "connection lost"),
            Err(End::Refused(request, why)) => {
                tracing::debug!(code = ?why.code, message = why.message, "connection refused");
                connection.shard.node.counters.garbage.add(1);
                connection.last_word(request, &why.reply()).await;
            }
        }
        connection
    }

    /// Tells the peer that there are too many connections, and closes.
    pub(crate) async fn turn_away(&mut self) {
        self.shard.node.counters.connections_refused.add(1);
        if self.let_in().await.is_err() {
            return;
        }
        let most = self.shard.node.config.connections_max;
        let busy = Message::error(ErrorCode::Busy, format!("the node serves {most} connections already"));
        self.last_word(0, &busy).await;
    }

    async fn last_word(&mut self, request: u32, message: &Message) {
        if self.reply(request, message).await.is_ok() {
            self.socket.close_politely().await;
        }
    }

    /// Serves requests while they come. Puts run where they leave the shard's time to those who read: the connection
    /// goes there and comes back.
    async fn requests(mut self, guest: &Guest) -> (Self, Result<(), End>) {
        self.socket.rest(self.shard.node.config.stall_timeout());
        match self.greet().await {
            Ok(None) => {}
            Ok(Some(shown)) => {
                let end = self.join(shown).await;
                return (self, end);
            }
            Err(end) => return (self, Err(end)),
        }
        while guest.begin_idle() {
            let outcome = match self.next(guest).await {
                Ok(Next::Request(
                    received @ Received { message: Ok(Message::Put { .. } | Message::StandIn { .. }), .. },
                )) => {
                    let (host, mut putting) = (self.shard.host.clone(), self);
                    let put = async move {
                        let outcome = putting.request(received).await;
                        (putting, outcome)
                    };
                    let outcome;
                    (self, outcome) = host.run(Priority::Write, put).await;
                    outcome
                }
                Ok(Next::Request(Received { header, message: Ok(Message::Feed(feed)) })) => {
                    self.feed(&header, feed, guest).await
                }
                Ok(Next::Request(received)) => self.request(received).await,
                Ok(Next::Newer(newer)) => self.refuse_newer(newer).await,
                Err(end) => Err(end),
            };
            if let Err(end) = outcome {
                return (self, Err(end));
            }
            self.socket.shrink();
        }
        (self, Ok(()))
    }

    /// The next request, as long as it takes to come.
    async fn next(&mut self, guest: &Guest) -> Result<Next, End> {
        let config = &self.shard.node.config;
        self.socket.rest(config.idle_timeout());
        let begun = self.socket.begins().await;
        guest.end_idle();
        self.socket.press(config.stall_timeout());
        begun?;
        match self.socket.header().await {
            Ok(header) => {
                // Before its payload is waited for: whoever is shut out meanwhile gets nothing more, whatever he asks.
                self.judge_again(header.stamp.request)?;
                Ok(Next::Request(self.socket.receive_after(header).await?))
            }
            Err(ReceiveError::Frame(BadFrame::Newer(newer))) => {
                self.judge_again(newer.request)?;
                self.socket.pass_over(&newer).await?;
                Ok(Next::Newer(newer))
            }
            Err(why) => Err(why.into()),
        }
    }

    /// Says of a request that it came after the version agreed on. The stream goes on behind it.
    async fn refuse_newer(&mut self, newer: Newer) -> Result<(), End> {
        let spoken = self.shard.node.config.protocols().newest();
        let why = format!(
            "the request came with protocol {}, this connection speaks {} and this node {spoken} at most: ask a node that \
             speaks it, or run a later version of the program here",
            newer.version, newer.newest
        );
        self.refuse(newer.request, Refusal::new(ErrorCode::Version, why)).await
    }

    /// Serves one request. An error ends the connection; a refusal that does not is answered here.
    async fn request(&mut self, received: Received) -> Result<(), End> {
        let Received { header, message } = received;
        let request = header.stamp.request;
        self.check_cluster(&header)?;
        let message = match message {
            Ok(Message::Data(bytes)) if self.passes_over(request, bytes.len()) => return Ok(()),
            Ok(message) => message,
            // The frame was whole: the stream is sound, only the request is not.
            Err(why) => return self.refuse(request, Refusal::invalid(why.to_string())).await,
        };
        let fixed = self.shard.node.core.is_none();
        if !is_of_node(&message)
            && let Err(why) = self.check_epoch(&header)
        {
            return self.refuse(request, why).await;
        }
        let within_ms = self.within_ms.take();
        let wish = |verb, volume, track| self.wish(&header, within_ms, verb, volume, track);
        let answer = match message {
            Message::Put { volume, id, bytes, tags } => {
                let wish = wish(Verb::Put, volume, id);
                return self.put(request, wish, bytes, tags).await;
            }
            Message::StandIn { .. } if fixed => {
                let why = "the map here never changes: nothing would bring home what a stand-in holds";
                return self.refuse(request, Refusal::new(ErrorCode::WrongNode, why.to_owned())).await;
            }
            Message::StandIn { volume, id, bytes, tags } => {
                let wish = wish(Verb::StandIn, volume, id);
                return self.put(request, wish, bytes, tags).await;
            }
            Message::Get { volume, id, range } => {
                let wish = wish(Verb::Get, volume, id);
                return self.get(request, wish, range).await;
            }
            Message::Pull { volume, id, range, urgent } if !fixed => {
                let Some((from, _)) = self.peer.as_ref() else { return Err(not_introduced(request)) };
                // More than there is of a track is nobody's range.
                let bytes = range.len().min(TRACK_BYTES_MAX);
                let wish = wish(Verb::Pull { from: *from, urgent, bytes }, volume, id);
                return self.get(request, wish, range).await;
            }
            Message::Info { volume, id } => {
                let wish = wish(Verb::Get, volume, id);
                answers::info(&self.shard, wish).await
            }
            Message::Has { volume, id } => {
                let wish = wish(Verb::Get, volume, id);
                return match answers::has(&self.shard, wish).await {
                    Ok((here, epoch)) => self.reply_at(request, &here, epoch).await,
                    Err(why) => self.refuse(request, why).await,
                };
            }
            Message::TakeDown { volume, id, number } => answers::take_down(&self.shard, &volume, id, number).await,
            Message::Status => answers::status(&self.shard).await,
            Message::Versions => Ok(answers::versions(&self.shard.node)),
            Message::Digests { volume, first, count } => answers::digests(&self.shard, &volume, first, count).await,
            Message::List { volume, partition, after, limit } => {
                answers::list(&self.shard, &volume, partition, after, limit).await
            }
            other => return self.request_aside(request, other).await,
        };
        self.answer(request, answer).await
    }

    async fn answer(&mut self, request: u32, answer: Result<Message, Refusal>) -> Result<(), End> {
        match answer {
            Ok(message) => self.reply(request, &message).await,
            Err(why) => self.refuse(request, why).await,
        }
    }

    /// Serves a request about takedowns by the cluster's log, or about what is stored.
    async fn feed(&mut self, header: &FrameHeader, feed: Feed, guest: &Guest) -> Result<(), End> {
        let (request, shard) = (header.stamp.request, Rc::clone(&self.shard));
        self.check_cluster(header)?;
        let within_ms = self.within_ms.take();
        let answer = match (self.check_epoch(header), feed) {
            (Err(why), _) => Err(why),
            (_, Feed::Issue { id, reason }) => takedowns::issue(&shard, id, reason).await,
            (_, Feed::Receipts { number }) => takedowns::receipts(&shard, number).await,
            (_, Feed::TakedownsAfter { known, wait_ms, limit }) => {
                takedowns::after(&shard, guest, known, wait_ms, limit).await
            }
            (_, Feed::TakedownHeads) => takedowns::heads(&shard).await,
            (_, Feed::Tracks { volume, partition, after, limit }) => {
                let wish = |volume, track| self.wish(header, within_ms, Verb::Get, volume, track);
                takedowns::tracks(&shard, wish, volume, partition, after, limit).await
            }
            (_, other) => {
                let why = format!("{:?} is no request", Message::Feed(other).kind());
                return Err(End::Refused(request, Refusal::invalid(why)));
            }
        };
        self.answer(request, answer).await
    }

    /// A map that does not change is the same at both ends.
    fn check_epoch(&self, header: &FrameHeader) -> Result<(), Refusal> {
        let (epoch, got) = (self.shard.node.epoch(), header.stamp.epoch);
        if self.shard.node.core.is_some() || got == epoch {
            return Ok(());
        }
        Err(Refusal::new(ErrorCode::Moved { epoch }, format!("this node's map has epoch {epoch}, yours {got}")))
    }

    /// What is not about a volume: of the next request, of who asks, and of the cluster's log.
    async fn request_aside(&mut self, request: u32, message: Message) -> Result<(), End> {
        let fixed = self.shard.node.core.is_none();
        match message {
            Message::Within { ms } => self.within_ms = Some(ms),
            Message::Introduction { node, address } if !fixed && self.peer.is_none() => {
                self.caller.may_speak_for(&node).map_err(|why| End::Refused(request, why))?;
                self.peer = Some((node, address.into()));
            }
            Message::Peer { more, bytes } if !fixed => self.envelope(request, more, &bytes)?,
            Message::EpochsAfter { epoch } if !fixed => self.epochs_after(request, epoch).await?,
            Message::Command { within_ms, forecast, command } => {
                let node = Arc::clone(&self.shard.node);
                return self
                    .answer(request, operators::command(&node, self.caller, within_ms, forecast, command).await)
                    .await;
            }
            Message::Joining(Joining::AskAdmits) => {
                let answer = operators::admits(&self.shard.node, self.caller);
                return self.answer(request, answer).await;
            }
            Message::Scrubbing(Scrubbing::AskScrubs) => {
                return self.answer(request, scrubs::status(&self.shard).await).await;
            }
            Message::Scrubbing(Scrubbing::Scrub { volume, bytes_per_second }) => {
                let begun = scrubs::begin(&self.shard, self.caller, volume, bytes_per_second).await;
                return self.answer(request, begun).await;
            }
            Message::Repairing(asked @ (Repairing::AskRepair | Repairing::RepairNow)) => {
                let (node, now) = (Arc::clone(&self.shard.node), asked == Repairing::RepairNow);
                return self.answer(request, operators::repair(&node, self.caller, now).await).await;
            }
            Message::AskCore => {
                let node = Arc::clone(&self.shard.node);
                return self.answer(request, operators::core_status(&node).await).await;
            }
            other => {
                let why = format!("{:?} is no request, or not at this point", other.kind());
                return Err(End::Refused(request, Refusal::invalid(why)));
            }
        }
        Ok(())
    }

    /// What the request that came with `header` wants of the core.
    fn wish(&self, header: &FrameHeader, within_ms: Option<u32>, verb: Verb, volume: VolumeId, track: TrackId) -> Wish {
        let patience = self.shard.node.config.stall_timeout_s.saturating_mul(1_000);
        let within_ms = within_ms.map_or(patience, u64::from);
        Wish { verb, volume, track, epoch: header.stamp.epoch, within_ms }
    }

    /// Sends the map's records after an epoch.
    async fn epochs_after(&mut self, request: u32, epoch: u64) -> Result<(), End> {
        let node = Arc::clone(&self.shard.node);
        let Some(core) = &node.core else { return Ok(()) };
        let batch = match core.epochs_after(epoch).await {
            Ok(batch) => batch.encode(),
            Err(why) => return self.refuse(request, why).await,
        };
        for (more, bytes) in parts(batch.into()) {
            self.reply(request, &Message::Epochs { more, bytes }).await?;
        }
        Ok(())
    }

    /// Takes a part of another node's message; the last one goes to the core.
    fn envelope(&mut self, request: u32, more: bool, bytes: &[u8]) -> Result<(), End> {
        let Some((from, address)) = &self.peer else { return Err(not_introduced(request)) };
        let whole = self.parcel.take(bytes, more).map_err(|why| End::Refused(request, why))?;
        let Some(whole) = whole else { return Ok(()) };
        let node = &self.shard.node;
        let Some(core) = &node.core else { return Ok(()) };
        let heard = match Envelope::decode_up_to(node.config.protocols().newest(), &whole) {
            Ok(envelope) => core.hear(*from, Arc::clone(address), Box::new(envelope), whole.len()),
            Err(why @ BadEnvelope::Later { records_at, .. }) => {
                tracing::debug!(from = from.short(), %why, "a message of a node is dropped");
                node.counters.messages_later.add(1);
                // It ends this node: nobody who is not in the map may say so.
                let epoch = records_at.filter(|_| node.admission.is_node(from));
                epoch.is_none_or(|epoch| core.hear_later_records(epoch))
            }
            Err(why) => return Err(End::Refused(request, Refusal::invalid(why.to_string()))),
        };
        if !heard {
            node.counters.messages_dropped.add(1);
        }
        Ok(())
    }

    async fn put(&mut self, request: u32, wish: Wish, bytes: u64, tags: Tags) -> Result<(), End> {
        let shard = Rc::clone(&self.shard);
        let counters = &shard.node.counters;
        // Its bytes are here: by the time that the core had let it in it could be stored.
        let at_once = self.socket.has_more() && bytes <= AT_ONCE_BYTES_MAX as u64 && wish.epoch == shard.node.epoch();
        let begun = async {
            let volume = shard.node.volume(&wish.volume)?;
            let turn = if at_once {
                PutTurn::Late(Late::begin(shard.node.core.as_ref(), wish)?)
            } else {
                PutTurn::Begun(Turn::begin(&shard, wish).await?)
            };
            Ok((turn, transfer::put(&shard, volume, wish.track, bytes, tags).await?))
        };
        let (turn, sink) = match begun.await {
            Err(why) => return self.refuse(request, why).await,
            Ok((turn, Put::Already(Stored { bytes, pieces }))) => {
                if let Err(why) = turn.finish(&shard, 0).await {
                    return self.refuse(request, why).await;
                }
                counters.puts_already.add(1);
                self.unwanted = (request, AT_ONCE_BYTES_MAX);
                return self.reply(request, &Message::Stored { already: true, bytes, pieces }).await;
            }
            Ok((turn, Put::Ready(sink))) => (turn, sink),
        };
        match self.take_in(request, bytes, sink, turn).await {
            Ok(Stored { bytes, pieces }) => {
                counters.puts.add(1);
                counters.put_bytes.add(bytes);
                self.reply(request, &Message::Stored { already: false, bytes, pieces }).await
            }
            Err(why) => {
                counters.puts_aborted.add(1);
                Err(why)
            }
        }
    }

    /// Takes in the bytes of a put that may begin.
    async fn take_in(&mut self, request: u32, bytes: u64, mut sink: Sink, turn: PutTurn<'_>) -> Result<Stored, End> {
        let refused = |why| End::Refused(request, why);
        let mut is_ready_told = !self.socket.has_more();
        if is_ready_told {
            self.reply(request, &Message::Ready).await?;
        }
        let mut left = bytes;
        while left > 0 {
            let count = self.data(request, left).await?;
            sink.write(&mut self.socket, count).await.map_err(refused)?;
            left -= count as u64;
        }
        let mut finishing = pin!(sink.finish());
        let stored = loop {
            if is_ready_told {
                break finishing.await;
            }
            let late = async {
                sleep(READY_LATE).await;
                None
            };
            match or(async { Some(finishing.as_mut().await) }, late).await {
                Some(stored) => break stored,
                None => self.reply(request, &Message::Ready).await?,
            }
            is_ready_told = true;
        };
        let stored = stored.map_err(refused)?;
        turn.finish(&self.shard, stored.bytes).await.map_err(refused)?;
        Ok(stored)
    }

    /// Whether these are bytes that were sent with a put that was refused, or was stored already.
    fn passes_over(&mut self, request: u32, bytes: usize) -> bool {
        let (of, left) = self.unwanted;
        let passes = of == request && bytes <= left;
        if passes {
            self.unwanted = (of, left - bytes);
        }
        passes
    }

    /// Reads a data frame's payload, checked; answers its length, of which at most `left` may come.
    async fn data(&mut self, request: u32, left: u64) -> Result<usize, End> {
        let header = self.socket.header().await?;
        self.check_cluster(&header)?;
        let count = header.payload_bytes();
        let refuse = |why: String| Err(End::Refused(request, Refusal::invalid(why)));
        if header.kind != Kind::Data || header.stamp.request != request {
            return refuse(format!("after Ready comes the put's data, got {:?}", header.kind));
        }
        if count as u64 > left {
            return refuse(format!("the put has {left} bytes left, the frame has {count}"));
        }
        self.socket.payload(&header).await?;
        Ok(count)
    }

    async fn get(&mut self, request: u32, wish: Wish, range: ByteRange) -> Result<(), End> {
        let shard = Rc::clone(&self.shard);
        let counters = &shard.node.counters;
        let begun = async {
            let volume = shard.node.volume(&wish.volume)?;
            let turn = Turn::begin(&shard, wish).await?;
            match transfer::get(&shard, volume, wish.track, range).await {
                Ok(source) => Ok((turn, source)),
                Err(why) if why.code == ErrorCode::NotFound => Err(turn.not_here(why).await),
                Err(why) => Err(why),
            }
        };
        let (turn, source) = match begun.await {
            Ok(begun) => begun,
            Err(why) => return self.refuse(request, why).await,
        };
        let stamp = self.stamp(request);
        match source.send(&mut self.socket, stamp, range).await {
            Ok(()) => {
                turn.end(Done::Sent, range.len());
                counters.gets.add(1);
                counters.get_bytes.add(range.len());
                Ok(())
            }
            Err(why) => {
                counters.gets_aborted.add(1);
                match why {
                    Broken::Refused(why) => self.refuse(request, why).await,
                    Broken::Io(why) => Err(why.into()),
                }
            }
        }
    }

    fn check_cluster(&self, header: &FrameHeader) -> Result<(), End> {
        if header.stamp.cluster == self.shard.node.cluster.prefix() {
            return Ok(());
        }
        let why = format!("this node is in cluster {}, the frame is of another", self.shard.node.cluster);
        Err(End::Refused(header.stamp.request, Refusal::new(ErrorCode::WrongCluster, why)))
    }

    fn stamp(&self, request: u32) -> Stamp {
        self.shard.node.stamp(request)
    }

    async fn reply(&mut self, request: u32, message: &Message) -> Result<(), End> {
        let stamp = self.stamp(request);
        Ok(self.socket.send(message, stamp).await?)
    }

    async fn refuse(&mut self, request: u32, why: Refusal) -> Result<(), End> {
        let counters = &self.shard.node.counters;
        if why.code == ErrorCode::Busy { &counters.busy } else { &counters.errors }.add(1);
        let epoch = why.epoch;
        self.unwanted = (request, AT_ONCE_BYTES_MAX);
        self.reply_at(request, &why.reply(), epoch).await
    }

    /// Replies with what is so at this epoch, where that is not simply the node's.
    async fn reply_at(&mut self, request: u32, message: &Message, epoch: Option<u64>) -> Result<(), End> {
        let stamp = self.stamp(request);
        let stamp = Stamp { epoch: epoch.unwrap_or(stamp.epoch), ..stamp };
        Ok(self.socket.send(message, stamp).await?)
    }
}

/// Whether a request is about the node and the cluster, and not of partitions that an epoch gives to volumes.
const fn is_of_node(message: &Message) -> bool {
    matches!(
        message,
        Message::Status
            | Message::AskCore
            | Message::Scrubbing(_)
            | Message::Repairing(_)
            | Message::Command { .. }
            | Message::Versions
    )
}

/// The sender asks for what only nodes may have.
fn not_introduced(request: u32) -> End {
    End::Refused(request, Refusal::invalid("only a node may ask this, and it introduces itself first"))
}
