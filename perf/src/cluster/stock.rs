//! Tracks to put, each another one, that take no time to make; and the ways to choose among those that are there.

use bytes::Bytes;
use deadwax_track::TrackId;

use crate::tracks::{Random, generated};

const KIB: usize = 1024;
/// Sizes of tracks as a music service has them: two to eight minutes at 160 to 320 kbit/s, KiB.
const REAL_KIB: [usize; 9] = [2_350, 3_520, 4_100, 4_690, 5_860, 7_030, 8_200, 10_550, 18_750];

/// Tracks of some sizes, by turns.
#[derive(Clone)]
pub(super) struct Stock {
    bodies: Vec<Body>,
    /// Another for each round and figure.
    salt: u64,
}

/// All but the end of a track, and its hash so far.
#[derive(Clone)]
struct Body {
    bytes: Bytes,
    hashed: blake3::Hasher,
}

/// A track of the stock.
pub(super) struct Item {
    pub(super) id: TrackId,
    /// Its bytes, one after the other.
    pub(super) parts: [Bytes; 2],
}

impl Item {
    pub(super) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum()
    }

    /// Its bytes in one piece.
    pub(super) fn whole(&self) -> Bytes {
        self.parts.concat().into()
    }
}

impl Stock {
    /// Tracks of these sizes, in bytes, each of 8 or more.
    pub(super) fn new(sizes: &[usize], seed: u64) -> Self {
        let body = |size: &usize| {
            let bytes = Bytes::from(generated(1, size - 8, seed ^ *size as u64).remove(0));
            let mut hashed = blake3::Hasher::new();
            hashed.update(&bytes);
            Body { bytes, hashed }
        };
        Self { bodies: sizes.iter().map(body).collect(), salt: 0 }
    }

    /// Of the sizes of real tracks.
    pub(super) fn real(seed: u64) -> Self {
        Self::new(&REAL_KIB.map(|kib| kib * KIB), seed)
    }

    /// From here on its tracks are others than before.
    pub(super) fn renew(&mut self, salt: u64) {
        self.salt = salt;
    }

    /// Its track of this number.
    pub(super) fn item(&self, number: u64) -> Item {
        let body = &self.bodies[usize::try_from(number % self.bodies.len() as u64).expect("few bodies")];
        let mark = (self.salt << 32 | number).to_le_bytes();
        let mut hashed = body.hashed.clone();
        hashed.update(&mark);
        let id = TrackId::from_bytes(*hashed.finalize().as_bytes());
        Item { id, parts: [body.bytes.clone(), Bytes::copy_from_slice(&mark)] }
    }
}

/// Tracks that are there, with their lengths, and how often each is asked for.
pub(super) struct Shelf {
    tracks: Vec<(TrackId, u64)>,
    /// The share of the tracks up to each; the last is 1.
    shares: Vec<f64>,
}

impl Shelf {
    /// The track of rank `n` is asked for in proportion to `n` to the power of `-exponent`: at 0 all alike.
    pub(super) fn new(tracks: Vec<(TrackId, u64)>, exponent: f64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a rank")]
        let weights = (1..=tracks.len()).map(|rank| (rank as f64).powf(-exponent));
        let mut sum = 0.0;
        let sums: Vec<f64> = weights
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        Self { tracks, shares: sums.into_iter().map(|part| part / sum).collect() }
    }

    /// The choice that this number leads to; the shelf is not empty.
    pub(super) fn choose(&self, random: &mut Random) -> (TrackId, u64) {
        #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
        let at = (random.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let rank = self.shares.partition_point(|share| *share <= at);
        self.tracks[rank.min(self.tracks.len() - 1)]
    }
}
