//! What the gateway knows of tracks: length, tags, manifest, and the headers made of them. Bounded by bytes.
//!
//! One lookup a track, however many ask at once. A track that is served is asked about again once a second, behind
//! the answer's back, until the masters' takedown log is followed here: see [`Track::check_is_due`].

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use deadwax_cache::{CHUNK_BYTES, ChunkKey};
use deadwax_track::{ByteRange, Manifest, Tags, TrackId};
use hyper::StatusCode;
use hyper::header::HeaderValue;
use tokio::sync::watch;

use crate::failure::Failure;

/// How long a track may be served before its holders are asked again whether it was taken down.
const CHECK_MILLIS: u64 = 1000;

/// A track that can be served.
pub(crate) struct Track {
    pub(crate) id: TrackId,
    pub(crate) tags: Tags,
    pub(crate) manifest: Manifest,
    /// The id in quotes.
    pub(crate) etag: HeaderValue,
    pub(crate) content_type: HeaderValue,
    met: Instant,
    /// When its presence was last asked about, in milliseconds since `met`.
    checked_millis: AtomicU64,
    /// Asked for since it was last passed over for eviction.
    wanted: AtomicBool,
}

impl Track {
    pub(crate) fn new(id: TrackId, tags: Tags, manifest: Manifest) -> Self {
        let etag = HeaderValue::try_from(format!("\"{id}\"")).expect("hexadecimal digits in quotes");
        let octets = HeaderValue::from_static("application/octet-stream");
        // A tag may be text that no header can carry.
        let content_type = tags.get("content_type").and_then(|text| HeaderValue::from_str(text).ok());
        let content_type = content_type.filter(|value| !value.is_empty() && value.to_str().is_ok()).unwrap_or(octets);
        let (checked_millis, wanted) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { id, tags, manifest, etag, content_type, met: Instant::now(), checked_millis, wanted }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.manifest.track_bytes()
    }

    /// The whole track as a range.
    pub(crate) fn whole(&self) -> ByteRange {
        ByteRange::whole(self.bytes()).expect("a manifest is of at least one byte")
    }

    /// The chunk that byte `at` of the track is in: its key and length.
    pub(crate) fn chunk(&self, at: u64) -> (ChunkKey, usize) {
        let index = at / CHUNK_BYTES as u64;
        let bytes = (self.bytes() - index * CHUNK_BYTES as u64).min(CHUNK_BYTES as u64);
        let index = u32::try_from(index).expect("a track has at most 1,024 chunks");
        (ChunkKey { id: self.id, index }, usize::try_from(bytes).expect("at most a chunk"))
    }

    /// Whether it is time to ask again if the track is still there. True for one caller a second.
    pub(crate) fn check_is_due(&self) -> bool {
        let now = u64::try_from(self.met.elapsed().as_millis()).unwrap_or(u64::MAX);
        let last = self.checked_millis.load(Ordering::Relaxed);
        now.saturating_sub(last) >= CHECK_MILLIS
            && self.checked_millis.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// About what it takes in memory.
    fn weight(&self) -> usize {
        let tags: usize = self.tags.iter().map(|(name, value)| name.len() + value.len() + 96).sum();
        512 + self.manifest.pieces().len() * 32 + tags
    }
}

/// What a lookup comes to.
pub(crate) type Found = Result<Arc<Track>, Failure>;

/// The tracks that are known, and the lookups under way.
pub(crate) struct Known {
    inner: Mutex<Inner>,
    bytes_max: usize,
}

struct Inner {
    tracks: HashMap<TrackId, Arc<Track>>,
    /// Order of entry: each id in `tracks`, once.
    order: VecDeque<TrackId>,
    bytes: usize,
    pending: HashMap<TrackId, (u64, watch::Receiver<Option<Found>>)>,
    ticket_next: u64,
}

/// How a caller learns of a track.
enum Lookup {
    /// It is known.
    Known(Arc<Track>),
    /// Someone asks already.
    Join(watch::Receiver<Option<Found>>),
    /// This caller is to ask, and to [`settle`](Known::settle) it.
    Begin(Ticket, watch::Receiver<Option<Found>>),
}

/// The duty to settle a lookup. Where it is dropped instead, those who joined see their channel closed.
pub(crate) struct Ticket {
    id: TrackId,
    number: u64,
    sender: watch::Sender<Option<Found>>,
}

impl Known {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let (tracks, order, pending) = (HashMap::new(), VecDeque::new(), HashMap::new());
        Self { inner: Mutex::new(Inner { tracks, order, bytes: 0, pending, ticket_next: 0 }), bytes_max }
    }

    /// What is known of a track, or what `ask` settles the ticket with, which it is given where nobody else asks.
    ///
    /// A lookup that others began may have asked its holders before a put was acknowledged of which this caller knows: where
    /// they had nothing then, they are asked again, by one that begins after the caller.
    pub(crate) async fn find(&self, id: &TrackId, ask: impl Fn(Ticket)) -> Found {
        let mut is_old = false;
        loop {
            let mut receiver = match self.lookup(id) {
                Lookup::Known(track) => return Ok(track),
                Lookup::Join(receiver) => {
                    is_old = !is_old;
                    receiver
                }
                Lookup::Begin(ticket, receiver) => {
                    is_old = false;
                    ask(ticket);
                    receiver
                }
            };
            let Ok(found) = receiver.wait_for(Option::is_some).await.map(|found| found.clone().expect("waited for"))
            else {
                return Err(Failure::unavailable("stopping", "the lookup was given up, ask again"));
            };
            if !is_old || !matches!(&found, Err(failure) if failure.status == StatusCode::NOT_FOUND) {
                return found;
            }
        }
    }

    fn lookup(&self, id: &TrackId) -> Lookup {
        let mut inner = self.lock();
        if let Some(track) = inner.tracks.get(id) {
            track.wanted.store(true, Ordering::Relaxed);
            return Lookup::Known(Arc::clone(track));
        }
        if let Some((_, receiver)) = inner.pending.get(id)
            && receiver.has_changed().is_ok()
        {
            return Lookup::Join(receiver.clone());
        }
        let (sender, receiver) = watch::channel(None);
        let number = inner.ticket_next;
        inner.ticket_next += 1;
        inner.pending.insert(*id, (number, receiver.clone()));
        Lookup::Begin(Ticket { id: *id, number, sender }, receiver)
    }

    /// Ends a lookup. What it found is remembered unless the track was forgotten while it ran.
    pub(crate) fn settle(&self, ticket: Ticket, found: Found) {
        let mut inner = self.lock();
        let current = inner.pending.get(&ticket.id).is_some_and(|(number, _)| *number == ticket.number);
        if current {
            inner.pending.remove(&ticket.id);
            if let Ok(track) = &found {
                inner.insert(Arc::clone(track), self.bytes_max);
            }
        }
        drop(inner);
        ticket.sender.send_replace(Some(found));
    }

    /// Forgets a track; a lookup that is under way tells those who asked, but is not remembered.
    pub(crate) fn forget(&self, id: &TrackId) {
        let mut inner = self.lock();
        inner.pending.remove(id);
        inner.remove(id);
    }

    /// Forgets all tracks, as [`forget`](Self::forget) does one.
    pub(crate) fn clear(&self) {
        let mut inner = self.lock();
        inner.pending.clear();
        inner.tracks.clear();
        inner.order.clear();
        inner.bytes = 0;
    }

    /// How many tracks are known, and about how many bytes that takes.
    pub(crate) fn usage(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.tracks.len(), inner.bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("a panic under this lock broke the list of known tracks")
    }
}

impl Inner {
    fn insert(&mut self, track: Arc<Track>, bytes_max: usize) {
        self.remove(&track.id);
        self.bytes += track.weight();
        self.order.push_back(track.id);
        self.tracks.insert(track.id, track);
        // Second chance: what was wanted since it was last looked at goes round once more.
        while self.bytes > bytes_max && self.tracks.len() > 1 {
            let Some(id) = self.order.pop_front() else { break };
            let Some(track) = self.tracks.get(&id) else { continue };
            if track.wanted.swap(false, Ordering::Relaxed) {
                self.order.push_back(id);
            } else {
                self.bytes -= track.weight();
                self.tracks.remove(&id);
            }
        }
    }

    fn remove(&mut self, id: &TrackId) {
        if let Some(track) = self.tracks.remove(id) {
            self.bytes -= track.weight();
            // Takedowns are rare, so a walk is cheaper than a structure that spares it.
            self.order.retain(|known| known != id);
        }
    }
}

/// The tags as a JSON object.
pub(crate) fn tags_json(tags: &Tags) -> Bytes {
    let map: serde_json::Map<_, _> = tags.iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    Bytes::from(serde_json::Value::Object(map).to_string())
}

/// The manifest as JSON: length, length of a piece, and each piece's hash.
pub(crate) fn manifest_json(track: &Track) -> Bytes {
    let pieces: Vec<_> = track.manifest.pieces().iter().map(|hash| TrackId::from_bytes(*hash).to_string()).collect();
    let json = serde_json::json!({
        "id": track.id,
        "bytes": track.bytes(),
        "piece_bytes": deadwax_track::PIECE_BYTES,
        "pieces": pieces,
    });
    Bytes::from(json.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(number: u32) -> Arc<Track> {
        let bytes = number.to_le_bytes();
        let mut hasher = deadwax_track::TrackHasher::new();
        hasher.update(&bytes);
        let (id, manifest) = hasher.finish().expect("not empty");
        Arc::new(Track::new(id, Tags::default(), manifest))
    }

    fn begin(known: &Known, id: &TrackId) -> Ticket {
        match known.lookup(id) {
            Lookup::Begin(ticket, _) => ticket,
            _ => panic!("known or asked for"),
        }
    }

    fn is_known(known: &Known, id: &TrackId) -> bool {
        matches!(known.lookup(id), Lookup::Known(_))
    }

    #[test]
    fn one_asks_and_the_others_join() {
        let known = Known::new(1 << 20);
        let wanted = track(1);
        let ticket = begin(&known, &wanted.id);
        let Lookup::Join(receiver) = known.lookup(&wanted.id) else { panic!("someone asks already") };
        known.settle(ticket, Ok(Arc::clone(&wanted)));
        assert!(receiver.borrow().as_ref().is_some_and(Result::is_ok));
        assert!(is_known(&known, &wanted.id));
    }

    #[tokio::test]
    async fn who_asks_after_a_put_is_not_told_what_a_lookup_found_that_began_before_it() {
        let known = Known::new(1 << 20);
        let wanted = track(1);
        let absent = || Err(Failure::new(StatusCode::NOT_FOUND, "not_found", "no holder has it"));
        let early = begin(&known, &wanted.id);
        // Here the track is put, and that is acknowledged.
        let asked = Mutex::new(Vec::new());
        let mut late = std::pin::pin!(known.find(&wanted.id, |ticket| asked.lock().expect("whole").push(ticket)));
        let waits = |poll: std::task::Poll<Found>| poll.is_pending();
        assert!(waits(polled_once(late.as_mut()).await), "it joins");
        known.settle(early, absent());
        assert!(waits(polled_once(late.as_mut()).await), "it asks for itself");
        let ticket = asked.lock().expect("whole").pop().expect("it has asked");
        known.settle(ticket, Ok(Arc::clone(&wanted)));
        assert!(late.await.is_ok_and(|found| found.id == wanted.id));
        let stranger = track(2);
        let found = known.find(&stranger.id, |ticket| known.settle(ticket, absent())).await;
        assert!(found.is_err_and(|failure| failure.status == StatusCode::NOT_FOUND), "who asked himself believes it");
    }

    /// What polling a future once comes to.
    async fn polled_once<T>(mut future: std::pin::Pin<&mut impl Future<Output = T>>) -> std::task::Poll<T> {
        std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context))).await
    }

    #[test]
    fn a_lookup_that_a_takedown_overtook_is_not_remembered() {
        let known = Known::new(1 << 20);
        let wanted = track(1);
        let ticket = begin(&known, &wanted.id);
        known.forget(&wanted.id);
        known.settle(ticket, Ok(Arc::clone(&wanted)));
        assert!(!is_known(&known, &wanted.id));
    }

    #[test]
    fn what_is_cleared_is_asked_for_anew_lookups_under_way_too() {
        let known = Known::new(1 << 20);
        let (here, coming) = (track(1), track(2));
        known.settle(begin(&known, &here.id), Ok(Arc::clone(&here)));
        let ticket = begin(&known, &coming.id);
        known.clear();
        known.settle(ticket, Ok(Arc::clone(&coming)));
        assert!(!is_known(&known, &here.id) && !is_known(&known, &coming.id));
        assert_eq!(known.usage(), (0, 0));
    }

    #[test]
    fn a_lookup_that_was_given_up_can_be_begun_again() {
        let known = Known::new(1 << 20);
        let wanted = track(1);
        drop(begin(&known, &wanted.id));
        known.settle(begin(&known, &wanted.id), Ok(Arc::clone(&wanted)));
        assert!(is_known(&known, &wanted.id));
    }

    #[test]
    fn memory_is_bounded_and_what_is_wanted_stays() {
        let known = Known::new(20 * 600);
        let popular = track(0);
        known.settle(begin(&known, &popular.id), Ok(Arc::clone(&popular)));
        for number in 1..1000 {
            let other = track(number);
            known.settle(begin(&known, &other.id), Ok(other));
            assert!(is_known(&known, &popular.id), "after {number}");
        }
        let (tracks, bytes) = known.usage();
        assert!(tracks <= 22 && bytes <= 20 * 600, "{tracks} tracks, {bytes} bytes");
        assert!(known.lock().order.len() <= 22);
    }

    #[test]
    fn a_tag_that_no_header_can_carry_is_not_served_as_one() {
        let bytes = [7];
        let mut hasher = deadwax_track::TrackHasher::new();
        hasher.update(&bytes);
        let (id, manifest) = hasher.finish().expect("not empty");
        for (tag, expected) in
            [("audio/ogg", "audio/ogg"), ("a\r\nX: y", "application/octet-stream"), ("", "application/octet-stream")]
        {
            let tags = Tags::new([("content_type".to_owned(), tag.to_owned())]).expect("within limits");
            assert_eq!(Track::new(id, tags, manifest.clone()).content_type, expected);
        }
    }
}
