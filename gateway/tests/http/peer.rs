//! A node whose drive is a map in memory. It speaks the real wire protocol, checks what is put, and can misbehave.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread;

use bytes::Bytes;
use deadwax_dht::wire::{DATA_BYTES_MAX, Decoder, ErrorCode, Feed, FrameHeader, Message, NodeStatus, Scrubbing, Stamp};
use deadwax_dht::{ClusterId, NodeId};
use deadwax_track::{Tags, TrackHasher, TrackId};

pub(crate) struct Peer {
    pub(crate) id: NodeId,
    pub(crate) address: SocketAddr,
    cluster: ClusterId,
    tracks: Mutex<HashMap<TrackId, (Bytes, Tags)>>,
    takedowns: Mutex<HashMap<TrackId, u64>>,
    /// Bytes of tracks sent.
    pub(crate) sent_bytes: AtomicU64,
    /// Sends wrong bytes.
    pub(crate) lies: AtomicBool,
    /// Breaks every connection.
    pub(crate) dead: AtomicBool,
    /// Held for writing: bytes of tracks wait.
    pub(crate) gate: RwLock<()>,
}

/// The connection is over.
struct Over;

impl Peer {
    pub(crate) fn start(id: NodeId, cluster: ClusterId) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let peer = Arc::new(Self {
            id,
            address: listener.local_addr().expect("bound"),
            cluster,
            tracks: Mutex::default(),
            takedowns: Mutex::default(),
            sent_bytes: AtomicU64::new(0),
            lies: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            gate: RwLock::new(()),
        });
        let accepting = Arc::clone(&peer);
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let peer = Arc::clone(&accepting);
                thread::spawn(move || Talk { peer, stream, decoder: Decoder::new() }.run());
            }
        });
        peer
    }

    pub(crate) fn has(&self, id: &TrackId) -> bool {
        self.tracks.lock().expect("no panic").contains_key(id)
    }

    pub(crate) fn take_down(&self, id: TrackId, number: u64) -> u64 {
        self.tracks.lock().expect("no panic").remove(&id);
        *self.takedowns.lock().expect("no panic").entry(id).or_insert(number)
    }

    fn track(&self, id: &TrackId) -> Result<(Bytes, Tags), Message> {
        if let Some(&number) = self.takedowns.lock().expect("no panic").get(id) {
            return Err(Message::error(ErrorCode::TakenDown { number }, "taken down"));
        }
        let tracks = self.tracks.lock().expect("no panic");
        tracks.get(id).cloned().ok_or_else(|| Message::error(ErrorCode::NotFound, "no such track"))
    }
}

struct Talk {
    peer: Arc<Peer>,
    stream: TcpStream,
    decoder: Decoder,
}

impl Talk {
    fn run(mut self) {
        self.stream.set_nodelay(true).expect("a socket");
        while self.answer().is_ok() {}
    }

    fn answer(&mut self) -> Result<(), Over> {
        let (stamp, message) = self.receive()?;
        match message {
            Message::Hello { protocol_max, .. } => {
                self.send(stamp, &Message::Welcome { protocol: protocol_max, node: self.peer.id, epoch: 1 })
            }
            Message::Put { id, bytes, tags, .. } => self.put(stamp, id, bytes, tags),
            Message::Get { id, range, .. } => {
                let reply = match self.peer.track(&id) {
                    Ok((bytes, _)) => return self.get(stamp, &bytes, range.start(), range.end()),
                    Err(reply) => reply,
                };
                self.send(stamp, &reply)
            }
            Message::Info { id, .. } => {
                let reply = self.peer.track(&id).map_or_else(|reply| reply, |(bytes, tags)| info(&bytes, tags));
                self.send(stamp, &reply)
            }
            Message::Has { id, .. } => {
                let reply = match self.peer.track(&id) {
                    Ok((bytes, _)) => Message::Present { bytes: bytes.len() as u64 },
                    Err(Message::Error { code: ErrorCode::TakenDown { number }, .. }) => Message::TakenDown { number },
                    Err(_) => Message::Absent,
                };
                self.send(stamp, &reply)
            }
            Message::TakeDown { id, number, .. } => {
                let number = self.peer.take_down(id, number);
                self.send(stamp, &Message::TakenDown { number })
            }
            Message::Status => self.send(stamp, &Message::NodeStatus(Box::new(self.status()))),
            Message::Scrubbing(_) => self.send(stamp, &Message::Scrubbing(Scrubbing::Scrubs(Vec::new()))),
            Message::AskCore => self.send(stamp, &Message::CoreStatus(None)),
            Message::Feed(Feed::Issue { .. }) => self.send(stamp, &Message::Feed(Feed::NotIssuer { issuers: 0 })),
            Message::Feed(_) => self.send(stamp, &Message::error(ErrorCode::Invalid, "there is no log of takedowns")),
            // They came with a put that was refused, or stored already.
            Message::Data(_) => Ok(()),
            other => panic!("a gateway does not send {other:?}"),
        }
    }

    fn status(&self) -> NodeStatus {
        NodeStatus {
            id: self.peer.id,
            version: "test".to_owned(),
            uptime_s: 1,
            epoch: 1,
            shards: 1,
            volumes: Vec::new(),
            resident_bytes: 0,
            counters: BTreeMap::new(),
        }
    }

    fn get(&mut self, stamp: Stamp, bytes: &Bytes, start: u64, end: u64) -> Result<(), Over> {
        self.send(stamp, &Message::Found { bytes: bytes.len() as u64 })?;
        let (start, end) = (usize::try_from(start).expect("small"), usize::try_from(end).expect("small"));
        // Frames that fit no piece, so that their edges fall anywhere.
        for part in bytes[start..end].chunks(100_003.min(DATA_BYTES_MAX)) {
            let peer = Arc::clone(&self.peer);
            let open = peer.gate.read().expect("no panic");
            let mut part = part.to_vec();
            if self.peer.lies.load(Ordering::SeqCst) {
                part[0] ^= 1;
            }
            self.peer.sent_bytes.fetch_add(part.len() as u64, Ordering::SeqCst);
            self.send(stamp, &Message::Data(part.into()))?;
            drop(open);
        }
        self.send(stamp, &Message::End)
    }

    fn put(&mut self, stamp: Stamp, id: TrackId, bytes: u64, tags: Tags) -> Result<(), Over> {
        match self.peer.track(&id) {
            Ok((known, _)) => {
                let bytes = known.len() as u64;
                let pieces = u32::try_from(deadwax_track::piece_count(bytes)).expect("small");
                return self.send(stamp, &Message::Stored { already: true, bytes, pieces });
            }
            Err(taken @ Message::Error { code: ErrorCode::TakenDown { .. }, .. }) => return self.send(stamp, &taken),
            Err(_) => {}
        }
        self.send(stamp, &Message::Ready)?;
        let mut came = Vec::new();
        while (came.len() as u64) < bytes {
            let (_, Message::Data(part)) = self.receive()? else { return Err(Over) };
            came.extend_from_slice(&part);
        }
        if TrackId::of(&came) != id || came.len() as u64 != bytes {
            self.send(stamp, &Message::error(ErrorCode::Invalid, "the bytes are not the id's"))?;
            return Err(Over);
        }
        let pieces = u32::try_from(deadwax_track::piece_count(bytes)).expect("small");
        self.peer.tracks.lock().expect("no panic").insert(id, (came.into(), tags));
        self.send(stamp, &Message::Stored { already: false, bytes, pieces })
    }

    fn send(&mut self, stamp: Stamp, message: &Message) -> Result<(), Over> {
        let stamp = Stamp::new(stamp.request, 1, &self.peer.cluster);
        let payload = message.payload();
        let header = FrameHeader::new(message.kind(), stamp, [payload.as_ref()]);
        self.stream.write_all(&header.encode()).map_err(|_| Over)?;
        self.stream.write_all(&payload).map_err(|_| Over)
    }

    fn receive(&mut self) -> Result<(Stamp, Message), Over> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if let Some(frame) = self.decoder.next_frame().expect("the client sends frames") {
                let message = Message::decode(frame.header.kind, frame.payload).expect("the client sends messages");
                return if self.peer.dead.load(Ordering::SeqCst) {
                    Err(Over)
                } else {
                    Ok((frame.header.stamp, message))
                };
            }
            let count = self.stream.read(&mut buffer).map_err(|_| Over)?;
            if count == 0 {
                return Err(Over);
            }
            self.decoder.space().extend_from_slice(&buffer[..count]);
        }
    }
}

fn info(bytes: &Bytes, tags: Tags) -> Message {
    let mut hasher = TrackHasher::new();
    hasher.update(bytes);
    let (_, manifest) = hasher.finish().expect("not empty");
    Message::TrackInfo { bytes: bytes.len() as u64, tags, pieces: manifest.pieces().to_vec() }
}
