//! One connection to a node.

use std::io::{self, IoSlice};
use std::time::Duration;

use deadwax_dht::wire::{
    AT_ONCE_SINCE, BadFrame, Decoder, FrameHeader, Kind, Message, PROTOCOL_MIN, PROTOCOL_VERSION, Stamp, Summed,
};
use deadwax_dht::{ClusterId, Failure, FailureKind, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::ClientConfig;
use crate::secure::{self, Shared};

/// A greeted connection. One request at a time; whoever gives one up in the middle drops the connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
    /// The version of the protocol that both speak.
    protocol: u8,
}

/// The half that writes.
#[derive(Debug)]
pub(crate) struct Sender {
    socket: OwnedWriteHalf,
    /// Where the connection is TLS.
    session: Option<Shared>,
    stamp: Stamp,
}

/// The half that reads.
#[derive(Debug)]
pub(crate) struct Receiver {
    socket: OwnedReadHalf,
    /// The same as the sender's.
    session: Option<Shared>,
    decoder: Decoder,
    stamp: Stamp,
    /// The epoch of the node's map, by its last frame.
    pub(crate) epoch: u64,
}

impl Connection {
    /// Connects to and greets a node, by the map of `epoch`.
    pub(crate) async fn open(
        cluster: &ClusterId,
        epoch: u64,
        node: (&NodeId, &str),
        config: &ClientConfig,
    ) -> Result<Self, Failure> {
        let connect_ms = config.connect_ms;
        let opening = Self::open_at_leisure(cluster, epoch, node, config);
        let opening = timeout(Duration::from_millis(connect_ms), opening);
        let late = || Failure::new(FailureKind::Stalled, format!("did not greet within {connect_ms} ms"));
        opening.await.unwrap_or_else(|_| Err(late()))
    }

    /// Asks who is at an address, and whether it is `meant`, where that is known. The node closes after its answer.
    /// With TLS it has proved that it has the key of the node that it says it is.
    pub(crate) async fn who(
        address: &str,
        meant: Option<&NodeId>,
        config: &ClientConfig,
    ) -> Result<(ClusterId, NodeId), Failure> {
        let (mut connection, proved) = Self::call(address, meant, config).await?;
        match connection.ask_ungreeted(&Message::Who).await? {
            Message::Here { node, .. } if proved.is_some_and(|proved| proved != node) => {
                Err(Failure::new(FailureKind::Refused, format!("is not node {}, whose name it gives", node.short())))
            }
            Message::Here { node, .. } if meant.is_some_and(|meant| *meant != node) => {
                Err(Failure::new(FailureKind::Refused, format!("is node {node}, not the one that is meant")))
            }
            Message::Here { cluster, node, .. } => Ok((cluster, node)),
            Message::Error { code, message } => Err(Failure::from_reply(code, message)),
            other => Err(unexpected(&other)),
        }
    }

    /// Connects to `node`, or to whoever is there, and says nothing yet: of its cluster nothing need be known. With TLS also,
    /// whose key that has.
    pub(crate) async fn call(
        address: &str,
        node: Option<&NodeId>,
        config: &ClientConfig,
    ) -> Result<(Self, Option<NodeId>), Failure> {
        Self::connect(Stamp { request: 0, epoch: 0, cluster: 0 }, address, node, config).await
    }

    /// Says what may be said in place of a greeting, and gives what comes back. A node that does not listen to us at all says
    /// so first, and closes.
    pub(crate) async fn ask_ungreeted(&mut self, message: &Message) -> Result<Message, Failure> {
        let sent = self.sender.send(message).await;
        match (self.receiver.next().await, sent) {
            (Ok((_, reply)), _) => Ok(reply),
            (Err(_), Err(why)) | (Err(why), Ok(())) => Err(why),
        }
    }

    /// Connects to `node`, or to whoever is there; with TLS also, whose key that has.
    async fn connect(
        stamp: Stamp,
        address: &str,
        node: Option<&NodeId>,
        config: &ClientConfig,
    ) -> Result<(Self, Option<NodeId>), Failure> {
        let mut socket = TcpStream::connect(address).await.map_err(|error| broken("connect", &error))?;
        socket.set_nodelay(true).map_err(|error| broken("set TCP_NODELAY", &error))?;
        let (session, proved) = match &config.identity {
            Some(identity) => {
                let (session, proved) = secure::shake_hands(&mut socket, identity, node).await?;
                (Some(session), Some(proved))
            }
            None => (None, None),
        };
        let (receiver, sender) = socket.into_split();
        let sender = Sender { socket: sender, session: session.clone(), stamp };
        let receiver = Receiver { socket: receiver, session, decoder: Decoder::new(), stamp, epoch: 0 };
        Ok((Self { sender, receiver, protocol: PROTOCOL_MIN }, proved))
    }

    async fn open_at_leisure(
        cluster: &ClusterId,
        epoch: u64,
        (node, address): (&NodeId, &str),
        config: &ClientConfig,
    ) -> Result<Self, Failure> {
        let stamp = Stamp::new(0, epoch, cluster);
        let (mut connection, _) = Self::connect(stamp, address, Some(node), config).await?;
        let hello = Message::Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_VERSION,
            cluster: *cluster,
            node: Some(*node),
        };
        connection.sender.send(&hello).await?;
        match connection.receiver.receive().await? {
            Message::Welcome { protocol: protocol @ PROTOCOL_MIN..=PROTOCOL_VERSION, node: got, .. }
                if got == *node =>
            {
                connection.protocol = protocol;
                Ok(connection)
            }
            Message::Welcome { node: got, .. } if got != *node => {
                Err(Failure::new(FailureKind::Refused, format!("is node {}, not {}", got.short(), node.short())))
            }
            Message::Error { code, message } => Err(Failure::from_reply(code, message)),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether bytes of a put may go with it.
    pub(crate) const fn takes_at_once(&self) -> bool {
        self.protocol >= AT_ONCE_SINCE
    }

    /// Sends a request by the map of `epoch` and waits for the first reply to it. `data`: what a put is to take, which goes
    /// with it if the node [may be sent it](Self::takes_at_once).
    pub(crate) async fn ask(
        &mut self,
        epoch: u64,
        request: &Message,
        data: Option<&Summed>,
    ) -> Result<Message, Failure> {
        let (since, protocol) = (request.kind().since(), self.protocol);
        if since > protocol {
            let why = format!("speaks protocol {protocol}, which has no {:?}", request.kind());
            return Err(Failure::new(FailureKind::Version, why));
        }
        self.sender.stamp.request = self.sender.stamp.request.wrapping_add(1);
        self.sender.stamp.epoch = epoch;
        self.receiver.stamp = self.sender.stamp;
        match data.filter(|_| self.takes_at_once()) {
            Some(data) => self.sender.send_with(request, data).await?,
            None => self.sender.send(request).await?,
        }
        self.receiver.receive().await
    }
}

impl Connection {
    /// Gives up memory that an idle connection does not need.
    pub(crate) fn rest(&self) {
        if let Some(session) = &self.sender.session {
            secure::lock(session).shrink();
        }
    }
}

impl Sender {
    async fn send(&mut self, message: &Message) -> Result<(), Failure> {
        self.send_all(&mut [IoSlice::new(&message.frame(self.stamp))], None).await
    }

    /// Sends a message and a frame of data behind it, all at once.
    async fn send_with(&mut self, message: &Message, data: &Summed) -> Result<(), Failure> {
        let (frame, header) =
            (message.frame(self.stamp), FrameHeader::of_data(self.stamp, std::slice::from_ref(data)).encode());
        self.send_all(&mut [IoSlice::new(&frame), IoSlice::new(&header), IoSlice::new(data.bytes())], None).await
    }

    /// Sends one frame of data, made of `parts`. A peer that takes nothing for `stall_ms` has failed.
    pub(crate) async fn send_data(&mut self, parts: &[Summed], stall_ms: u64) -> Result<(), Failure> {
        let header = FrameHeader::of_data(self.stamp, parts).encode();
        let mut slices = Vec::with_capacity(parts.len() + 1);
        slices.push(IoSlice::new(&header));
        slices.extend(parts.iter().map(|part| IoSlice::new(part.bytes())));
        self.send_all(&mut slices, Some(stall_ms)).await
    }

    /// Sends all slices. A peer that takes nothing for `stall_ms`, if that is bounded here, has failed.
    async fn send_all(&mut self, mut slices: &mut [IoSlice<'_>], stall_ms: Option<u64>) -> Result<(), Failure> {
        let stall = stall_ms.map(Duration::from_millis);
        let failed = |error: io::Error| match (error.kind(), stall_ms) {
            (io::ErrorKind::TimedOut, Some(stall_ms)) => {
                Failure::new(FailureKind::Stalled, format!("took no bytes for {stall_ms} ms"))
            }
            _ => broken("send", &error),
        };
        if let Some(session) = &self.session {
            return secure::write(&self.socket, session, slices, stall).await.map_err(failed);
        }
        while !slices.is_empty() {
            let writing = self.socket.write_vectored(slices);
            let wrote = match stall {
                Some(stall) => timeout(stall, writing).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
                None => writing.await,
            };
            match wrote.map_err(failed)? {
                0 => return Err(failed(io::ErrorKind::WriteZero.into())),
                wrote => IoSlice::advance_slices(&mut slices, wrote),
            }
        }
        Ok(())
    }
}

impl Receiver {
    /// The next message. May be dropped while it waits, and called again.
    pub(crate) async fn receive(&mut self) -> Result<Message, Failure> {
        let (got, message) = self.next().await?;
        // A node that could not read the request does not know its number.
        let is_ours = got.request == self.stamp.request && got.cluster == self.stamp.cluster;
        if !is_ours && message.kind() != Kind::Error {
            return Err(Failure::new(FailureKind::Internal, "answered another request"));
        }
        Ok(message)
    }

    /// The next message, whatever request it is of.
    async fn next(&mut self) -> Result<(Stamp, Message), Failure> {
        loop {
            if let Some(frame) = self.decoder.next_frame().map_err(bad_frame)? {
                self.epoch = frame.header.stamp.epoch;
                let message = Message::decode(frame.header.kind, frame.payload)
                    .map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))?;
                return Ok((frame.header.stamp, message));
            }
            let read = match &self.session {
                None => self.socket.read_buf(self.decoder.space()).await,
                Some(session) => secure::read(&self.socket, session, self.decoder.space()).await,
            };
            if read.map_err(|error| broken("receive", &error))? == 0 {
                return Err(Failure::new(FailureKind::Unreachable, "closed the connection"));
            }
        }
    }
}

pub(crate) fn broken(action: &str, error: &io::Error) -> Failure {
    Failure::new(FailureKind::Unreachable, format!("{action}: {error}"))
}

fn bad_frame(error: BadFrame) -> Failure {
    let kind = match error {
        BadFrame::HeaderCrc { .. } | BadFrame::PayloadCrc { .. } => FailureKind::Corrupt,
        BadFrame::Version(_) | BadFrame::Newer(_) => FailureKind::Version,
        _ => FailureKind::Internal,
    };
    Failure::new(kind, error.to_string())
}

/// A reply that does not belong to the request.
pub(crate) fn unexpected(reply: &Message) -> Failure {
    Failure::new(FailureKind::Internal, format!("answered {:?} out of turn", reply.kind()))
}
