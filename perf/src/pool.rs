//! Tracks of one length in one stretch of memory: made before the clock starts, and made new for each round.

use deadwax_track::TrackId;

use crate::tracks::Random;

/// The tracks, in order.
pub(crate) struct Pool {
    bytes: Vec<u8>,
    track_bytes: usize,
    ids: Vec<TrackId>,
}

/// A track's last bytes, which tell it from those of other rounds.
const MARK_BYTES: usize = 8;

impl Pool {
    /// Room for `bytes` of tracks, filled with what no compressor can shrink. Call [`renew`](Self::renew) next.
    pub(crate) fn new(bytes: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut all = Vec::with_capacity(bytes + 8);
        while all.len() < bytes {
            all.extend(random.next().to_le_bytes());
        }
        all.truncate(bytes);
        Self { bytes: all, track_bytes: 0, ids: vec![] }
    }

    /// Divides the memory into up to `count` tracks of `track_bytes` that no volume has seen, where `salt` is new.
    pub(crate) fn renew(&mut self, track_bytes: usize, count: usize, salt: u64) {
        self.renew_where(track_bytes, count, salt, |_| true);
    }

    /// The same, with ids that are `wanted`.
    pub(crate) fn renew_where(
        &mut self,
        track_bytes: usize,
        count: usize,
        salt: u64,
        wanted: impl Fn(&TrackId) -> bool,
    ) {
        assert!(track_bytes >= MARK_BYTES, "a track of {track_bytes} bytes has no room for its mark");
        self.track_bytes = track_bytes;
        self.ids.clear();
        let mut number = salt << 24;
        for track in self.bytes.chunks_exact_mut(track_bytes).take(count) {
            loop {
                track[track_bytes - MARK_BYTES..].copy_from_slice(&number.to_le_bytes());
                number += 1;
                let id = TrackId::of(track);
                if wanted(&id) {
                    self.ids.push(id);
                    break;
                }
            }
        }
    }

    pub(crate) fn ids(&self) -> &[TrackId] {
        &self.ids
    }

    pub(crate) fn track(&self, number: usize) -> (TrackId, &[u8]) {
        let start = number * self.track_bytes;
        (self.ids[number], &self.bytes[start..start + self.track_bytes])
    }
}
