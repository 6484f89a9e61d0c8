//! A node for tests: it speaks the real protocol over real sockets, holds its tracks in memory, and fails when told to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use deadwax_dht::log::History;
use deadwax_dht::rebalance::Command;
use deadwax_dht::wire::{
    CommandAnswer, CoreStatus, Decoder, ErrorCode, Feed, FrameHeader, Kind, ListedTrack, Message, NodeStatus,
    PROTOCOL_MIN, PROTOCOL_VERSION, PartitionDigest, Scrubbing, Stamp, VolumeScrub, VolumeState, VolumeStatus,
};
use deadwax_dht::{ClusterId, NodeId, VolumeId};
use deadwax_track::{Partition, Tags, TrackHasher, TrackId, piece_count};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

/// What goes wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Closes the connection after so many bytes of a get.
    DieInGet(usize),
    /// Sends nothing more after so many bytes of a get.
    StallInGet(usize),
    /// Flips a bit of the frame after so many bytes of a get.
    FlipInGet(usize),
    /// Ends a get with an error after so many bytes.
    ErrorInGet(usize),
    /// Answers this to any request about a track.
    Answer(ErrorCode),
    /// Sends no frames at all.
    Garbage,
    /// Whatever came, says in a frame that it is nothing.
    PlainError,
    /// Accepts, and never says a word.
    Mute,
    /// Closes the connection after so many bytes of a put.
    DieInPut(usize),
    /// Takes nothing more after so many bytes of a put.
    StallInPut(usize),
    /// Is ready for a put only when it is told to go on.
    LateInPut,
    /// Is busy when offered a track, so many times.
    BusyInPut(usize),
    /// Holds another track's manifest.
    WrongManifest,
    /// Is another node.
    OtherNode,
    /// Speaks the protocol as it was before there were records of the map.
    OldProtocol,
    /// Gives these bytes for the map's records.
    Epochs(Bytes),
}

/// What the peer holds, and how it behaves.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) tracks: BTreeMap<TrackId, (Bytes, Tags)>,
    pub(crate) takedowns: BTreeMap<TrackId, u64>,
    pub(crate) fault: Fault,
    pub(crate) requests: Vec<Kind>,
    pub(crate) connections: u32,
    /// The map's records. Without them the map never changes.
    pub(crate) history: Option<History>,
    /// The epoch of a map that never changes, if it is not 1.
    pub(crate) fixed_at: Option<u64>,
    /// How its core stands, or why that is not said. Without it the node has none.
    pub(crate) core: Option<Result<CoreStatus, ErrorCode>>,
    /// How long ago its volume was verified, in seconds.
    pub(crate) verified_s: u64,
    /// The answer to a command; none: the connection breaks.
    pub(crate) says: Option<CommandAnswer>,
    /// The command that came last, and whether only its forecast was wanted.
    pub(crate) command: Option<(Command, bool)>,
    /// What it says of takedowns and of tracks; none: the tracks that it has, by pages of five.
    pub(crate) says_of_feeds: Option<fn(&Feed) -> Message>,
    /// Records are given only when there is a permit.
    pub(crate) gate: Option<Arc<Semaphore>>,
}

impl State {
    fn epoch(&self) -> u64 {
        self.history.as_ref().map_or(self.fixed_at.unwrap_or(1), History::epoch)
    }

    /// Why a node refuses that goes by a map which changes, as its core decides: a put, or to call a track absent.
    fn refusal(&self, id: &TrackId, volume: &VolumeId, asked: u64, is_put: bool) -> Option<ErrorCode> {
        let history = self.history.as_ref()?;
        let epoch = history.epoch();
        if asked > epoch {
            return Some(ErrorCode::Busy);
        }
        let holders = history.state().holders(id.partition());
        let counts = holders.sets().take(if is_put { 2 } else { 1 }).flatten().any(|holder| holder == volume);
        let moved = history.moved_since(id.partition(), asked) || !counts;
        moved.then_some(ErrorCode::Moved { epoch })
    }
}

/// A running peer. Dropped, it is dead: connections break, new ones are refused.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: String,
    pub(crate) node: NodeId,
    pub(crate) volume: VolumeId,
    pub(crate) state: Arc<Mutex<State>>,
    serving: JoinHandle<()>,
}

pub(crate) const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);

impl Peer {
    pub(crate) async fn start(number: u8) -> Self {
        Self::start_at(number, "127.0.0.1:0", Arc::default()).await
    }

    /// The node of this name, with the volume of this number.
    pub(crate) async fn start_as(number: u8, node: NodeId) -> Self {
        Self::listen(number, node, "127.0.0.1:0", Arc::default()).await
    }

    pub(crate) async fn start_at(number: u8, address: &str, state: Arc<Mutex<State>>) -> Self {
        Self::listen(number, NodeId::from_bytes([number; 32]), address, state).await
    }

    async fn listen(number: u8, node: NodeId, address: &str, state: Arc<Mutex<State>>) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let volume = VolumeId::from_bytes([number; 16]);
        let (shared, mut connections) = (Arc::clone(&state), JoinSet::new());
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).expect("a socket");
                shared.lock().expect("no panic").connections += 1;
                let stamp = Stamp::new(0, 1, &CLUSTER);
                let state = Arc::clone(&shared);
                let connection = Served { socket, decoder: Decoder::new(), stamp, asked: 1, state, node, volume };
                // The aborted set closes every connection with the peer.
                connections.spawn(connection.serve());
            }
        });
        Self { address, node, volume, state, serving }
    }

    pub(crate) fn fault(&self, fault: Fault) {
        self.state.lock().expect("no panic").fault = fault;
    }

    pub(crate) fn holds(&self, id: &TrackId) -> bool {
        self.state.lock().expect("no panic").tracks.contains_key(id)
    }

    pub(crate) fn add(&self, id: TrackId, bytes: &Bytes) {
        self.state.lock().expect("no panic").tracks.insert(id, (bytes.clone(), Tags::default()));
    }

    pub(crate) fn knows(&self, history: &History) {
        self.state.lock().expect("no panic").history = Some(history.clone());
    }

    pub(crate) fn connections(&self) -> u32 {
        self.state.lock().expect("no panic").connections
    }

    pub(crate) fn asked(&self, kind: Kind) -> usize {
        self.state.lock().expect("no panic").requests.iter().filter(|asked| **asked == kind).count()
    }

    /// Stops it, and waits until its port is free.
    pub(crate) async fn kill(mut self) -> (String, Arc<Mutex<State>>) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
        (self.address.clone(), Arc::clone(&self.state))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Served {
    socket: TcpStream,
    decoder: Decoder,
    stamp: Stamp,
    /// By the map of which epoch it was asked.
    asked: u64,
    state: Arc<Mutex<State>>,
    node: NodeId,
    volume: VolumeId,
}

impl Served {
    async fn serve(mut self) {
        let fault = self.state.lock().expect("no panic").fault.clone();
        match fault {
            Fault::Garbage => {
                let _ = self.socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
                return;
            }
            Fault::PlainError => {
                let error = Message::error(ErrorCode::Version, "not a frame").frame(self.stamp);
                let _ = self.socket.write_all(&error).await;
                // Until the other end has read it: unread bytes would reset the connection.
                while self.socket.read(&mut [0; 4_096]).await.is_ok_and(|count| count > 0) {}
                return;
            }
            Fault::Mute => return std::future::pending().await,
            _ => {}
        }
        while let Some(request) = self.receive().await {
            if self.answer(request).await.is_none() {
                return;
            }
        }
    }

    async fn receive(&mut self) -> Option<Message> {
        loop {
            if let Some(frame) = self.decoder.next_frame().expect("clients send good frames") {
                self.stamp.request = frame.header.stamp.request;
                self.asked = frame.header.stamp.epoch;
                return Some(Message::decode(frame.header.kind, frame.payload).expect("clients send good messages"));
            }
            if self.socket.read_buf(self.decoder.space()).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn send(&mut self, message: Message) -> Option<()> {
        self.socket.write_all(&message.frame(self.stamp)).await.ok()
    }

    async fn answer(&mut self, request: Message) -> Option<()> {
        let (fault, fixed) = {
            let mut state = self.state.lock().expect("no panic");
            state.requests.push(request.kind());
            self.stamp.epoch = state.epoch();
            (state.fault.clone(), state.history.is_none())
        };
        if let Message::Data(_) = request {
            // They came with a put that was refused, or stored already.
            return Some(());
        }
        if let Message::Hello { cluster, node, .. } = request {
            assert_eq!((cluster, node), (CLUSTER, Some(self.node)));
            let node = if fault == Fault::OtherNode { NodeId::from_bytes([99; 32]) } else { self.node };
            let protocol = if fault == Fault::OldProtocol { PROTOCOL_MIN } else { PROTOCOL_VERSION };
            return self.send(Message::Welcome { protocol, node, epoch: self.stamp.epoch }).await;
        }
        if let Fault::Answer(code) = fault {
            return self.send(Message::error(code, "told to")).await;
        }
        let epoch = self.stamp.epoch;
        if fixed && self.asked != epoch && request != Message::Status {
            return self.send(Message::error(ErrorCode::Moved { epoch }, "another map")).await;
        }
        match request {
            Message::EpochsAfter { .. } if fixed => {
                self.send(Message::error(ErrorCode::Invalid, "no request")).await?;
                None
            }
            Message::EpochsAfter { epoch } => self.epochs_after(epoch, fault).await,
            Message::Put { id, bytes, tags, .. } => self.put(id, bytes, tags, fault, true).await,
            Message::StandIn { id, bytes, tags, .. } => self.put(id, bytes, tags, fault, false).await,
            Message::Get { id, range, .. } => {
                let Some((bytes, _)) = self.track(&id).await? else { return Some(()) };
                self.send(Message::Found { bytes: bytes.len() as u64 }).await?;
                let at = |index: u64| usize::try_from(index).expect("small");
                self.get(bytes.slice(at(range.start())..at(range.end())), fault).await
            }
            Message::Info { id, .. } => {
                let Some((bytes, tags)) = self.track(&id).await? else { return Some(()) };
                let mut hasher = TrackHasher::new();
                hasher.update(if fault == Fault::WrongManifest { b"another" } else { &bytes });
                let pieces = hasher.finish().expect("not empty").1.pieces().to_vec();
                self.send(Message::TrackInfo { bytes: bytes.len() as u64, tags, pieces }).await
            }
            Message::Command { command, forecast, .. } => {
                let says = {
                    let mut state = self.state.lock().expect("no panic");
                    state.command = Some((*command, forecast));
                    state.says.clone()
                };
                self.send(Message::CommandAnswer(Box::new(says?))).await
            }
            other => {
                let reply = self.reply(&other);
                self.send(reply).await
            }
        }
    }

    /// Requests that need no stream.
    fn reply(&self, request: &Message) -> Message {
        let mut state = self.state.lock().expect("no panic");
        match request {
            Message::Has { id, .. } => match (state.takedowns.get(id), state.tracks.get(id)) {
                (Some(number), _) => Message::TakenDown { number: *number },
                (None, Some((bytes, _))) => Message::Present { bytes: bytes.len() as u64 },
                (None, None) => match state.refusal(id, &self.volume, self.asked, false) {
                    Some(code) => Message::error(code, "cannot tell"),
                    None => Message::Absent,
                },
            },
            Message::TakeDown { id, number, .. } => {
                state.tracks.remove(id);
                Message::TakenDown { number: *state.takedowns.entry(*id).or_insert(*number) }
            }
            Message::Status => Message::NodeStatus(Box::new(self.status(&state))),
            Message::Scrubbing(Scrubbing::AskScrubs) => Message::Scrubbing(Scrubbing::Scrubs(vec![VolumeScrub {
                id: self.volume,
                running: false,
                passes: 1,
                verified_s: Some(state.verified_s),
                pass_bytes: 0,
                all_bytes: 0,
                pass_damaged: 0,
                damaged: 0,
            }])),
            Message::AskCore => match &state.core {
                Some(Err(code)) => Message::error(*code, "told to"),
                Some(Ok(core)) => Message::CoreStatus(Some(Box::new(core.clone()))),
                None => Message::CoreStatus(None),
            },
            Message::Digests { first, count, .. } => {
                let mut digests = BTreeMap::<Partition, PartitionDigest>::new();
                for id in state
                    .tracks
                    .keys()
                    .filter(|id| u32::from(id.partition().0 - first.0.min(id.partition().0)) < *count)
                {
                    if id.partition() >= *first {
                        let empty = PartitionDigest { partition: id.partition(), tracks: 0, digest: [0; 16] };
                        let digest = digests.entry(id.partition()).or_insert(empty);
                        digest.tracks += 1;
                        digest.digest.iter_mut().zip(id.as_bytes()).for_each(|(sum, byte)| *sum ^= byte);
                    }
                }
                Message::DigestList(digests.into_values().collect())
            }
            Message::Feed(feed) if state.says_of_feeds.is_some() => state.says_of_feeds.expect("it is some")(feed),
            Message::Feed(Feed::Tracks { partition, after, limit, .. }) => {
                let mut lowest = [0; 32];
                lowest[..2].copy_from_slice(&partition.0.to_be_bytes());
                let there = state.tracks.range(TrackId::from_bytes(lowest)..);
                let there = there.take_while(|(id, _)| id.partition() == *partition);
                let tracks =
                    there.filter(|(id, _)| after.is_none_or(|after| **id > after)).take((*limit).min(5) as usize);
                let tracks: Vec<_> = tracks
                    .map(|(id, (bytes, tags))| ListedTrack { id: *id, bytes: bytes.len() as u64, tags: tags.clone() })
                    .collect();
                let next = tracks.last().map(|last| last.id).filter(|_| tracks.len() == 5);
                Message::Feed(Feed::TrackList { tracks, next })
            }
            Message::List { partition, after, limit, .. } => {
                let wanted = |id: &&TrackId| id.partition() == *partition && after.is_none_or(|after| **id > after);
                Message::Ids(state.tracks.keys().filter(wanted).take(*limit as usize).copied().collect())
            }
            other => panic!("clients do not send {other:?}"),
        }
    }

    /// The records, in parts.
    async fn epochs_after(&mut self, epoch: u64, fault: Fault) -> Option<()> {
        let (batch, gate) = {
            let state = self.state.lock().expect("no panic");
            (Bytes::from(state.history.as_ref().expect("not fixed").since(epoch).encode()), state.gate.clone())
        };
        if let Some(gate) = gate {
            gate.acquire().await.expect("never closed").forget();
        }
        let batch = if let Fault::Epochs(bytes) = fault { bytes } else { batch };
        let count = batch.len().div_ceil(500);
        for part in 0..count {
            let bytes = batch.slice(part * 500..batch.len().min((part + 1) * 500));
            self.send(Message::Epochs { more: part + 1 < count, bytes }).await?;
        }
        Some(())
    }

    fn status(&self, state: &State) -> NodeStatus {
        NodeStatus {
            id: self.node,
            version: "test".to_owned(),
            uptime_s: 1,
            epoch: state.epoch(),
            shards: 1,
            volumes: vec![VolumeStatus {
                id: self.volume,
                dir: "/test".to_owned(),
                capacity_bytes: 1 << 30,
                free_bytes: 1 << 29,
                tracks: state.tracks.len() as u64,
                track_bytes: state.tracks.values().map(|(bytes, _)| bytes.len() as u64).sum(),
                record_bytes: 0,
                takedowns: state.takedowns.len() as u64,
                state: VolumeState::Serving,
                reason: None,
            }],
            resident_bytes: 1,
            counters: BTreeMap::new(),
        }
    }

    /// The track; where there is none, that was answered.
    async fn track(&mut self, id: &TrackId) -> Option<Option<(Bytes, Tags)>> {
        let (track, takedown, refusal) = {
            let state = self.state.lock().expect("no panic");
            let refusal = state.refusal(id, &self.volume, self.asked, false);
            (state.tracks.get(id).cloned(), state.takedowns.get(id).copied(), refusal)
        };
        match (track, takedown) {
            (_, Some(number)) => self.send(Message::error(ErrorCode::TakenDown { number }, "taken down")).await?,
            (None, None) => {
                // Who says that it is absent says so of the epoch that it was asked by.
                self.stamp.epoch = if refusal.is_some() { self.stamp.epoch } else { self.asked };
                self.send(Message::error(refusal.unwrap_or(ErrorCode::NotFound), "no such track")).await?;
            }
            (Some(track), None) => return Some(Some(track)),
        }
        Some(None)
    }

    async fn get(&mut self, mut bytes: Bytes, fault: Fault) -> Option<()> {
        let mut sent = 0;
        while !bytes.is_empty() {
            match fault {
                Fault::DieInGet(after) if sent >= after => return None,
                Fault::StallInGet(after) if sent >= after => return std::future::pending().await,
                Fault::ErrorInGet(after) if sent >= after => {
                    return self.send(Message::error(ErrorCode::Corrupt, "bit rot")).await;
                }
                _ => {}
            }
            let part = bytes.split_to(bytes.len().min(10_000));
            let header = FrameHeader::new(Kind::Data, self.stamp, [part.as_ref()]);
            let mut frame = [&header.encode(), part.as_ref()].concat();
            if matches!(fault, Fault::FlipInGet(after) if sent >= after) {
                *frame.last_mut().expect("not empty") ^= 1;
            }
            self.socket.write_all(&frame).await.ok()?;
            sent += part.len();
        }
        self.send(Message::End).await
    }

    fn refused_put(&self, id: &TrackId, as_holder: bool) -> Option<ErrorCode> {
        let state = self.state.lock().expect("no panic");
        as_holder.then(|| state.refusal(id, &self.volume, self.asked, true)).flatten()
    }

    async fn put(&mut self, id: TrackId, bytes: u64, tags: Tags, fault: Fault, as_holder: bool) -> Option<()> {
        if let Some(code) = self.refused_put(&id, as_holder) {
            return self.send(Message::error(code, "held elsewhere")).await;
        }
        let held = self.state.lock().expect("no panic").tracks.get(&id).map(|(held, _)| held.len() as u64);
        if let Some(bytes) = held {
            let pieces = u32::try_from(piece_count(bytes)).expect("few");
            return self.send(Message::Stored { already: true, bytes, pieces }).await;
        }
        if fault == Fault::LateInPut {
            return std::future::pending().await;
        }
        if let Fault::BusyInPut(times) = fault
            && times > 0
        {
            self.state.lock().expect("no panic").fault = Fault::BusyInPut(times - 1);
            return self.send(Message::error(ErrorCode::Busy, "told to")).await;
        }
        self.send(Message::Ready).await?;
        let mut got = Vec::new();
        while (got.len() as u64) < bytes {
            match fault {
                Fault::DieInPut(after) if got.len() >= after => return None,
                Fault::StallInPut(after) if got.len() >= after => return std::future::pending().await,
                _ => {}
            }
            let Message::Data(data) = self.receive().await? else { panic!("clients send data") };
            got.extend(&data);
        }
        if TrackId::of(&got) != id {
            self.send(Message::error(ErrorCode::Invalid, "the bytes are not the id's")).await?;
            return None;
        }
        let pieces = u32::try_from(piece_count(bytes)).expect("few");
        self.state.lock().expect("no panic").tracks.insert(id, (got.into(), tags));
        if let Some(code) = self.refused_put(&id, as_holder) {
            return self.send(Message::error(code, "held elsewhere by now")).await;
        }
        self.send(Message::Stored { already: false, bytes, pieces }).await
    }
}
