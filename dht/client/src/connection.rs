//! One connection to a node.

use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::Bytes;
use deadwax_dht::wire::{BadFrame, Decoder, FrameHeader, Kind, Message, PROTOCOL_MIN, PROTOCOL_VERSION, Stamp};
use deadwax_dht::{ClusterId, Failure, FailureKind, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

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
    stamp: Stamp,
}

/// The half that reads.
#[derive(Debug)]
pub(crate) struct Receiver {
    socket: OwnedReadHalf,
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
        connect_ms: u64,
    ) -> Result<Self, Failure> {
        let opening = timeout(Duration::from_millis(connect_ms), Self::open_at_leisure(cluster, epoch, node));
        let late = || Failure::new(FailureKind::Stalled, format!("did not greet within {connect_ms} ms"));
        opening.await.unwrap_or_else(|_| Err(late()))
    }

    async fn open_at_leisure(
        cluster: &ClusterId,
        epoch: u64,
        (node, address): (&NodeId, &str),
    ) -> Result<Self, Failure> {
        let socket = TcpStream::connect(address).await.map_err(|error| broken("connect", &error))?;
        socket.set_nodelay(true).map_err(|error| broken("set TCP_NODELAY", &error))?;
        let (receiver, sender) = socket.into_split();
        let stamp = Stamp::new(0, epoch, cluster);
        let sender = Sender { socket: sender, stamp };
        let receiver = Receiver { socket: receiver, decoder: Decoder::new(), stamp, epoch: 0 };
        let mut connection = Self { sender, receiver, protocol: PROTOCOL_MIN };
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

    /// Sends a request by the map of `epoch` and waits for the first reply to it.
    pub(crate) async fn ask(&mut self, epoch: u64, request: &Message) -> Result<Message, Failure> {
        let (since, protocol) = (request.kind().since(), self.protocol);
        if since > protocol {
            let why = format!("speaks protocol {protocol}, which has no {:?}", request.kind());
            return Err(Failure::new(FailureKind::Refused, why));
        }
        self.sender.stamp.request = self.sender.stamp.request.wrapping_add(1);
        self.sender.stamp.epoch = epoch;
        self.receiver.stamp = self.sender.stamp;
        self.sender.send(request).await?;
        self.receiver.receive().await
    }
}

impl Sender {
    async fn send(&mut self, message: &Message) -> Result<(), Failure> {
        let frame = message.frame(self.stamp);
        self.socket.write_all(&frame).await.map_err(|error| broken("send", &error))
    }

    /// Sends one frame of data, made of `parts`. A peer that takes nothing for `stall_ms` has failed.
    pub(crate) async fn send_data(&mut self, parts: &[Bytes], stall_ms: u64) -> Result<(), Failure> {
        let header = FrameHeader::new(Kind::Data, self.stamp, parts.iter().map(Bytes::as_ref)).encode();
        let mut slices = Vec::with_capacity(parts.len() + 1);
        slices.push(IoSlice::new(&header));
        slices.extend(parts.iter().map(|part| IoSlice::new(part)));
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            let writing = timeout(Duration::from_millis(stall_ms), self.socket.write_vectored(rest));
            let late = || Failure::new(FailureKind::Stalled, format!("took no bytes for {stall_ms} ms"));
            let wrote = writing.await.map_err(|_| late())?.map_err(|error| broken("send", &error))?;
            if wrote == 0 {
                return Err(broken("send", &io::Error::from(io::ErrorKind::WriteZero)));
            }
            IoSlice::advance_slices(&mut rest, wrote);
        }
        Ok(())
    }
}

impl Receiver {
    /// The next message. May be dropped while it waits, and called again.
    pub(crate) async fn receive(&mut self) -> Result<Message, Failure> {
        loop {
            if let Some(frame) = self.decoder.next_frame().map_err(bad_frame)? {
                let got = frame.header.stamp;
                self.epoch = got.epoch;
                // A node that could not read the request does not know its number.
                if frame.header.kind != Kind::Error
                    && (got.request != self.stamp.request || got.cluster != self.stamp.cluster)
                {
                    return Err(Failure::new(FailureKind::Internal, "answered another request"));
                }
                return Message::decode(frame.header.kind, frame.payload)
                    .map_err(|error| Failure::new(FailureKind::Internal, error.to_string()));
            }
            let read = self.socket.read_buf(self.decoder.space()).await;
            if read.map_err(|error| broken("receive", &error))? == 0 {
                return Err(Failure::new(FailureKind::Unreachable, "closed the connection"));
            }
        }
    }
}

fn broken(action: &str, error: &io::Error) -> Failure {
    Failure::new(FailureKind::Unreachable, format!("{action}: {error}"))
}

fn bad_frame(error: BadFrame) -> Failure {
    let kind = match error {
        BadFrame::HeaderCrc { .. } | BadFrame::PayloadCrc { .. } => FailureKind::Corrupt,
        BadFrame::Version(_) => FailureKind::Refused,
        _ => FailureKind::Internal,
    };
    Failure::new(kind, error.to_string())
}

/// A reply that does not belong to the request.
pub(crate) fn unexpected(reply: &Message) -> Failure {
    Failure::new(FailureKind::Internal, format!("answered {:?} out of turn", reply.kind()))
}
