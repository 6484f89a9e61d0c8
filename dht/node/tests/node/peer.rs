//! The other end of a connection: a blocking socket and the wire's own codec.

use std::io::{IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use deadwax_dht::wire::{
    DATA_BYTES_MAX, ErrorCode, FrameHeader, HEADER_BYTES, Kind, Message, NodeStatus, PROTOCOL_MIN, PROTOCOL_VERSION,
    Stamp,
};
use deadwax_dht::{ClusterId, NodeId, VolumeId};
use deadwax_dht_tls::{Identity, Session};
use deadwax_track::{ByteRange, Tags, TrackId};

/// A connection to a node. Panics where the node does not answer as it should.
pub(crate) struct Peer {
    pub(crate) socket: TcpStream,
    /// Where the connection is TLS.
    session: Option<Session>,
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) epoch: u64,
    pub(crate) request: u32,
    /// The version of the protocol that was agreed on.
    pub(crate) protocol: u8,
}

/// `count` bytes that differ by `seed` and do not repeat at any power of two.
pub(crate) fn audio(seed: u32, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let mut out = Vec::with_capacity(count + 4);
    while out.len() < count {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        out.extend(state.to_le_bytes());
    }
    out.truncate(count);
    out
}

pub(crate) fn tags(title: &str) -> Tags {
    Tags::new([("title".to_owned(), title.to_owned())]).expect("good tags")
}

impl Peer {
    pub(crate) fn connect(address: SocketAddr, cluster: ClusterId, node: NodeId, epoch: u64) -> Self {
        let socket = TcpStream::connect(address).expect("the node listens");
        socket.set_nodelay(true).expect("set");
        // No test waits this long for anything but a node that hangs.
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        socket.set_write_timeout(Some(Duration::from_secs(60))).expect("set");
        Self { socket, session: None, cluster, node, epoch, request: 0, protocol: PROTOCOL_MIN }
    }

    /// Shakes hands as `identity`; answers whose key the node has, or how the handshake fails.
    pub(crate) fn secure(&mut self, identity: &Identity) -> Result<NodeId, String> {
        let mut session = identity.connect();
        loop {
            let step = session.handshake();
            self.socket.write_all(session.outgoing()).map_err(|why| why.to_string())?;
            session.sent(session.outgoing().len());
            if let Some(id) = step.map_err(|why| why.to_string())? {
                self.session = Some(session);
                return Ok(id);
            }
            match self.socket.read(session.space(1).expect("room")).map_err(|why| why.to_string())? {
                0 => return Err("closed".to_owned()),
                count => session.received(count),
            }
        }
    }

    /// Sends bytes as they are, or as records.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let Some(session) = &mut self.session else { return self.socket.write_all(bytes) };
        let mut slices = [IoSlice::new(bytes)];
        let mut slices = slices.as_mut_slice();
        loop {
            session.write(&mut slices)?;
            if session.outgoing().is_empty() {
                return Ok(());
            }
            self.socket.write_all(session.outgoing())?;
            session.sent(session.outgoing().len());
        }
    }

    /// Some bytes; 0 where no more come.
    fn read_some(&mut self, mut into: &mut [u8]) -> std::io::Result<usize> {
        let Some(session) = &mut self.session else { return self.socket.read(into) };
        loop {
            match session.read(&mut into)? {
                deadwax_dht_tls::Read::Bytes(count) => return Ok(count),
                deadwax_dht_tls::Read::Closed => return Ok(0),
                deadwax_dht_tls::Read::Wanting => match self.socket.read(session.space(1)?)? {
                    0 => return Ok(0),
                    count => session.received(count),
                },
            }
        }
    }

    fn read_exact(&mut self, mut into: &mut [u8]) {
        while !into.is_empty() {
            let count = match self.read_some(into) {
                // A signal that another test sent to its node, in this process.
                Err(why) if why.kind() == std::io::ErrorKind::Interrupted => continue,
                count => count.expect("bytes come"),
            };
            assert!(count > 0, "the node closed within a frame, or did not answer");
            into = &mut into[count..];
        }
    }

    pub(crate) fn hello(&self) -> Message {
        Message::Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_VERSION,
            cluster: self.cluster,
            node: Some(self.node),
        }
    }

    pub(crate) fn greet(&mut self) {
        let hello = self.hello();
        let reply = self.ask(&hello);
        match reply {
            // The map may have gone on, or not be there yet.
            Message::Welcome { protocol, node, epoch } => {
                assert_eq!(node, self.node);
                self.protocol = protocol;
                assert!(epoch == 0 || epoch >= self.epoch, "epoch {epoch}");
            }
            other => panic!("expected Welcome, got {other:?}"),
        }
    }

    pub(crate) fn stamp(&self) -> Stamp {
        Stamp::new(self.request, self.epoch, &self.cluster)
    }

    pub(crate) fn send(&mut self, message: &Message) {
        let frame = message.frame(self.stamp());
        self.write(&frame).expect("the node reads");
    }

    /// Sends, as the next request, and reads one reply.
    pub(crate) fn ask(&mut self, message: &Message) -> Message {
        self.request += 1;
        self.send(message);
        self.reply()
    }

    /// The next message, of this request.
    pub(crate) fn reply(&mut self) -> Message {
        let (header, message) = self.read();
        assert_eq!(header.stamp.request, self.request, "{message:?}");
        message
    }

    pub(crate) fn read(&mut self) -> (FrameHeader, Message) {
        let mut header = [0; HEADER_BYTES];
        self.read_exact(&mut header);
        let header = FrameHeader::decode(&header).expect("a good header");
        let mut payload = vec![0; header.payload_bytes()];
        self.read_exact(&mut payload);
        header.check_payload(&payload).expect("the payload is whole");
        (header, Message::decode(header.kind, payload.into()).expect("a good message"))
    }

    /// Reads the error that ends the connection, and that it does end.
    pub(crate) fn last_error(&mut self) -> (ErrorCode, String) {
        let (_, message) = self.read();
        let Message::Error { code, message } = message else { panic!("expected an error, got {message:?}") };
        assert_eq!(self.read_some(&mut [0; 1]).expect("closed in order"), 0, "the node closes");
        (code, message)
    }

    /// Asks and expects an error that leaves the connection usable.
    pub(crate) fn error(&mut self, message: &Message) -> (ErrorCode, String) {
        match self.ask(message) {
            Message::Error { code, message } => (code, message),
            other => panic!("expected an error, got {other:?}"),
        }
    }

    pub(crate) fn send_data(&mut self, bytes: &[u8], frame_bytes: usize) {
        for part in bytes.chunks(frame_bytes) {
            let header = FrameHeader::new(Kind::Data, self.stamp(), [part]).encode();
            self.write(&header).expect("the node reads");
            self.write(part).expect("the node reads");
        }
    }

    pub(crate) fn begin_put(&mut self, volume: VolumeId, id: TrackId, bytes: u64, tags: &Tags) -> Message {
        self.ask(&Message::Put { volume, id, bytes, tags: tags.clone() })
    }

    /// Stores a track and answers its id.
    pub(crate) fn put(&mut self, volume: VolumeId, bytes: &[u8], title: &str) -> TrackId {
        let id = TrackId::of(bytes);
        assert_eq!(self.begin_put(volume, id, bytes.len() as u64, &tags(title)), Message::Ready);
        self.send_data(bytes, DATA_BYTES_MAX);
        match self.reply() {
            Message::Stored { already: false, bytes: stored, .. } => assert_eq!(stored, bytes.len() as u64),
            other => panic!("expected Stored, got {other:?}"),
        }
        id
    }

    pub(crate) fn get(&mut self, volume: VolumeId, id: TrackId, start: u64, end: u64) -> Vec<u8> {
        let range = ByteRange::new(start, end).expect("a range");
        match self.ask(&Message::Get { volume, id, range }) {
            Message::Found { bytes } => assert!(bytes >= end),
            other => panic!("expected Found, got {other:?}"),
        }
        let mut got = Vec::new();
        loop {
            match self.reply() {
                Message::Data(bytes) => got.extend(Bytes::as_ref(&bytes)),
                Message::End => return got,
                other => panic!("expected Data or End, got {other:?}"),
            }
        }
    }

    pub(crate) fn has(&mut self, volume: VolumeId, id: TrackId) -> Message {
        self.ask(&Message::Has { volume, id })
    }

    pub(crate) fn status(&mut self) -> NodeStatus {
        match self.ask(&Message::Status) {
            Message::NodeStatus(status) => *status,
            other => panic!("expected NodeStatus, got {other:?}"),
        }
    }
}
