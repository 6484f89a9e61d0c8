//! One connection: the greeting, then one request at a time.

use std::os::fd::RawFd;
use std::rc::Rc;

use deadwax_dht::wire::{
    BadFrame, ErrorCode, FrameHeader, Kind, Message, PROTOCOL_MIN, PROTOCOL_VERSION, Stamp, negotiate,
};
use deadwax_engine::Priority;
use deadwax_track::{ByteRange, Tags, TrackId};

use crate::answers;
use crate::drain::Guest;
use crate::refusal::Refusal;
use crate::shard::Shard;
use crate::socket::{ReceiveError, Received, Socket};
use crate::transfer::{self, Broken, Put, Stored};

/// A connection being served.
pub(crate) struct Connection {
    shard: Rc<Shard>,
    socket: Socket,
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

impl From<ReceiveError> for End {
    fn from(why: ReceiveError) -> Self {
        match why {
            ReceiveError::Closed => Self::Closed,
            ReceiveError::Io(why) => Self::Lost(why),
            ReceiveError::Frame(why @ BadFrame::Version(_)) => {
                Self::Refused(0, Refusal::new(ErrorCode::Version, why.to_string()))
            }
            ReceiveError::Frame(why) => Self::Refused(0, Refusal::invalid(why.to_string())),
        }
    }
}

impl Connection {
    pub(crate) fn new(shard: Rc<Shard>, socket: Socket) -> Self {
        Self { shard, socket }
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
        self.socket.set_read_timeout(self.shard.node.config.stall_timeout());
        if let Err(end) = self.greet().await {
            return (self, Err(end));
        }
        while guest.begin_idle() {
            let outcome = match self.next(guest).await {
                Ok(received @ Received { message: Ok(Message::Put { .. }), .. }) => {
                    let (host, mut putting) = (self.shard.host.clone(), self);
                    let put = async move {
                        let outcome = putting.request(received).await;
                        (putting, outcome)
                    };
                    let outcome;
                    (self, outcome) = host.run(Priority::Write, put).await;
                    outcome
                }
                Ok(received) => self.request(received).await,
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
    async fn next(&mut self, guest: &Guest) -> Result<Received, End> {
        let config = &self.shard.node.config;
        self.socket.set_read_timeout(config.idle_timeout());
        let header = self.socket.header().await?;
        guest.end_idle();
        self.socket.set_read_timeout(config.stall_timeout());
        Ok(self.socket.receive_after(header).await?)
    }

    async fn greet(&mut self) -> Result<(), End> {
        let Received { header, message } = self.socket.receive().await?;
        let request = header.stamp.request;
        let refuse = |code, why: String| Err(End::Refused(request, Refusal::new(code, why)));
        let (protocol_min, protocol_max, cluster, node) = match message {
            Ok(Message::Hello { protocol_min, protocol_max, cluster, node }) => {
                (protocol_min, protocol_max, cluster, node)
            }
            Ok(other) => {
                return refuse(ErrorCode::Invalid, format!("a connection begins with Hello, got {:?}", other.kind()));
            }
            Err(why) => return refuse(ErrorCode::Invalid, why.to_string()),
        };
        let own = Rc::clone(&self.shard);
        let Some(protocol) = negotiate(PROTOCOL_MIN..=PROTOCOL_VERSION, protocol_min, protocol_max) else {
            let ours = format!("{PROTOCOL_MIN} to {PROTOCOL_VERSION}");
            let why = format!("this node speaks protocol {ours}, you {protocol_min} to {protocol_max}");
            return refuse(ErrorCode::Version, why);
        };
        if cluster != own.node.cluster || header.stamp.cluster != own.node.cluster.prefix() {
            let why = format!("this node is in cluster {}, you mean {cluster}", own.node.cluster);
            return refuse(ErrorCode::WrongCluster, why);
        }
        if let Some(meant) = node.filter(|meant| *meant != own.node.id) {
            return refuse(ErrorCode::WrongNode, format!("this is node {}, you mean {meant}", own.node.id));
        }
        let welcome = Message::Welcome { protocol, node: own.node.id, epoch: own.node.epoch() };
        self.reply(request, &welcome).await
    }

    /// Serves one request. An error ends the connection; a refusal that does not is answered here.
    async fn request(&mut self, received: Received) -> Result<(), End> {
        let Received { header, message } = received;
        let request = header.stamp.request;
        self.check_cluster(&header)?;
        let message = match message {
            Ok(message) => message,
            // The frame was whole: the stream is sound, only the request is not.
            Err(why) => return self.refuse(request, Refusal::invalid(why.to_string())).await,
        };
        let epoch = self.shard.node.epoch();
        if header.stamp.epoch != epoch && !matches!(message, Message::Status) {
            let why = format!("this node's map has epoch {epoch}, yours {}", header.stamp.epoch);
            return self.refuse(request, Refusal::new(ErrorCode::Moved { epoch }, why)).await;
        }
        let answer = match message {
            Message::Put { volume, id, bytes, tags } => {
                return match self.shard.node.volume(&volume) {
                    Ok(volume) => self.put(request, volume, id, bytes, tags).await,
                    Err(why) => self.refuse(request, why).await,
                };
            }
            Message::Get { volume, id, range } => {
                return match self.shard.node.volume(&volume) {
                    Ok(volume) => self.get(request, volume, id, range).await,
                    Err(why) => self.refuse(request, why).await,
                };
            }
            Message::Info { volume, id } => answers::info(&self.shard, &volume, id).await,
            Message::Has { volume, id } => answers::has(&self.shard, &volume, id).await,
            Message::TakeDown { volume, id, number } => answers::take_down(&self.shard, &volume, id, number).await,
            Message::Status => answers::status(&self.shard).await,
            Message::Digests { volume, first, count } => answers::digests(&self.shard, &volume, first, count).await,
            Message::List { volume, partition, after, limit } => {
                answers::list(&self.shard, &volume, partition, after, limit).await
            }
            other => {
                let why = format!("{:?} is no request, or not at this point", other.kind());
                return Err(End::Refused(request, Refusal::invalid(why)));
            }
        };
        match answer {
            Ok(message) => self.reply(request, &message).await,
            Err(why) => self.refuse(request, why).await,
        }
    }

    async fn put(&mut self, request: u32, volume: usize, id: TrackId, bytes: u64, tags: Tags) -> Result<(), End> {
        let shard = Rc::clone(&self.shard);
        let counters = &shard.node.counters;
        let mut sink = match transfer::put(&shard, volume, id, bytes, tags).await {
            Err(why) => return self.refuse(request, why).await,
            Ok(Put::Already(Stored { bytes, pieces })) => {
                counters.puts_already.add(1);
                return self.reply(request, &Message::Stored { already: true, bytes, pieces }).await;
            }
            Ok(Put::Ready(sink)) => sink,
        };
        let taken = async {
            self.reply(request, &Message::Ready).await?;
            let mut left = bytes;
            while left > 0 {
                let count = self.data(request, left).await?;
                sink.write(&mut self.socket, count).await.map_err(|why| End::Refused(request, why))?;
                left -= count as u64;
            }
            sink.finish().await.map_err(|why| End::Refused(request, why))
        };
        match taken.await {
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

    async fn get(&mut self, request: u32, volume: usize, id: TrackId, range: ByteRange) -> Result<(), End> {
        let shard = Rc::clone(&self.shard);
        let counters = &shard.node.counters;
        let source = match transfer::get(&shard, volume, id, range).await {
            Ok(source) => source,
            Err(why) => return self.refuse(request, why).await,
        };
        let stamp = self.stamp(request);
        match source.send(&mut self.socket, stamp, range).await {
            Ok(()) => {
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
        self.reply(request, &why.reply()).await
    }
}
