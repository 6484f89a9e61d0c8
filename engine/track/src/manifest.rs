//! The hashes of a track's pieces, and the hasher that makes them while the bytes stream by.

use blake3::Hasher;
use blake3::hazmat::{HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};

use crate::{PIECE_BYTES, PIECES_MAX, TRACK_BYTES_MAX, TrackId};

/// The hash of each 256 KiB piece of a track, in order.
///
/// A hash is the BLAKE3 chaining value of that piece's subtree, so the hashes merge to the [`TrackId`]: whoever has
/// the id needs to trust nobody for the manifest, and whoever has the manifest can prove any piece alone. A track of
/// one piece is its own subtree and root: its manifest holds the id itself.
///
/// Source: the BLAKE3 paper, section 2.1 (the tree) and 6.4 (verified streaming).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    track_bytes: u64,
    pieces: Vec<[u8; 32]>,
}

/// The manifest does not belong to the track.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadManifest {
    /// No track has this length.
    #[error("a track has 1 to {TRACK_BYTES_MAX} bytes, the manifest says {0}")]
    TrackBytes(u64),
    /// The number of hashes does not fit the track's length.
    #[error("a track of {track_bytes} bytes has {expected} pieces, the manifest holds {got}")]
    Pieces {
        /// The track's length.
        track_bytes: u64,
        /// The pieces that such a track has.
        expected: u64,
        /// The hashes that were given.
        got: usize,
    },
    /// The hashes do not merge to the id.
    #[error("the piece hashes give {got}, not {expected}")]
    Id {
        /// The id asked for.
        expected: TrackId,
        /// What the hashes merge to.
        got: TrackId,
    },
}

/// How many pieces a track of `track_bytes` has.
#[must_use]
pub const fn piece_count(track_bytes: u64) -> u64 {
    track_bytes.div_ceil(PIECE_BYTES)
}

impl Manifest {
    /// The manifest of the track `id`, from hashes that came from anywhere. Proved before it is returned.
    pub fn proved(id: &TrackId, track_bytes: u64, pieces: Vec<[u8; 32]>) -> Result<Self, BadManifest> {
        let manifest = Self::unproved(track_bytes, pieces)?;
        let got = manifest.id();
        if got == *id { Ok(manifest) } else { Err(BadManifest::Id { expected: *id, got }) }
    }

    fn unproved(track_bytes: u64, pieces: Vec<[u8; 32]>) -> Result<Self, BadManifest> {
        // Bounds the piece arithmetic below and the recursion in `subtree`.
        if track_bytes == 0 || track_bytes > TRACK_BYTES_MAX {
            return Err(BadManifest::TrackBytes(track_bytes));
        }
        let expected = piece_count(track_bytes);
        if pieces.len() as u64 != expected {
            return Err(BadManifest::Pieces { track_bytes, expected, got: pieces.len() });
        }
        Ok(Self { track_bytes, pieces })
    }

    /// The id that the hashes merge to.
    #[must_use]
    pub fn id(&self) -> TrackId {
        if let [only] = self.pieces.as_slice() {
            return TrackId::from_bytes(*only);
        }
        let (left, right) = self.halves(0, self.track_bytes);
        TrackId::from_bytes(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
    }

    /// The two chaining values under the subtree that starts at byte `start` and covers `bytes`, more than a piece.
    fn halves(&self, start: u64, bytes: u64) -> ([u8; 32], [u8; 32]) {
        let left_bytes = left_subtree_len(bytes);
        (self.subtree(start, left_bytes), self.subtree(start + left_bytes, bytes - left_bytes))
    }

    fn subtree(&self, start: u64, bytes: u64) -> [u8; 32] {
        if bytes <= PIECE_BYTES {
            let index = usize::try_from(start / PIECE_BYTES).expect("a track has at most 2,048 pieces");
            return self.pieces[index];
        }
        let (left, right) = self.halves(start, bytes);
        merge_subtrees_non_root(&left, &right, Mode::Hash)
    }

    /// The track's length in bytes.
    #[must_use]
    pub const fn track_bytes(&self) -> u64 {
        self.track_bytes
    }

    /// The hash of each piece.
    #[must_use]
    pub fn pieces(&self) -> &[[u8; 32]] {
        &self.pieces
    }

    /// Whether `bytes` are the whole piece `index` of the track.
    #[must_use]
    pub fn proves(&self, index: usize, bytes: &[u8]) -> bool {
        let Some(expected) = self.pieces.get(index) else { return false };
        let start = index as u64 * PIECE_BYTES;
        if bytes.len() as u64 != (self.track_bytes - start).min(PIECE_BYTES) {
            return false;
        }
        let mut piece = piece_hasher(start);
        piece.update(bytes);
        let got = if self.pieces.len() == 1 { *piece.finalize().as_bytes() } else { piece.finalize_non_root() };
        got == *expected
    }
}

fn piece_hasher(start: u64) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(start);
    hasher
}

/// Makes a [`TrackId`] and a [`Manifest`] from a track's bytes as they stream by.
///
/// Call [`update`](Self::update) with the bytes in order, then [`finish`](Self::finish) once.
#[derive(Clone, Debug)]
pub struct TrackHasher {
    piece: Hasher,
    piece_bytes: u64,
    pieces: Vec<[u8; 32]>,
}

impl Default for TrackHasher {
    fn default() -> Self {
        Self { piece: Hasher::new(), piece_bytes: 0, pieces: Vec::new() }
    }
}

impl TrackHasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes it has seen.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pieces.len() as u64 * PIECE_BYTES + self.piece_bytes
    }

    /// Takes in the next bytes. About 7 GiB/s on a core: on a shard, hand it at most a piece between yields.
    ///
    /// # Panics
    /// After [`TRACK_BYTES_MAX`]: the caller bounds a track's length before it reads one.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // A piece is closed only when more follows: the last one may turn out to be the root.
            if self.piece_bytes == PIECE_BYTES {
                assert!((self.pieces.len() as u64) < PIECES_MAX - 1, "a track exceeds {TRACK_BYTES_MAX} bytes");
                self.pieces.push(self.piece.finalize_non_root());
                self.piece = piece_hasher(self.pieces.len() as u64 * PIECE_BYTES);
                self.piece_bytes = 0;
            }
            let room = usize::try_from(PIECE_BYTES - self.piece_bytes).expect("a piece fits in memory");
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.piece.update(now);
            self.piece_bytes += now.len() as u64;
            bytes = later;
        }
    }

    /// The id and manifest of the bytes seen, or nothing where there were none.
    #[must_use]
    pub fn finish(mut self) -> Option<(TrackId, Manifest)> {
        let track_bytes = self.bytes();
        if track_bytes == 0 {
            return None;
        }
        let last =
            if self.pieces.is_empty() { *self.piece.finalize().as_bytes() } else { self.piece.finalize_non_root() };
        self.pieces.push(last);
        let manifest = Manifest { track_bytes, pieces: self.pieces };
        Some((manifest.id(), manifest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audio(bytes: u64) -> Vec<u8> {
        (0..bytes).map(|n| u8::try_from(n * 7 % 251).expect("below 251")).collect()
    }

    /// Each size sits on a boundary: byte, BLAKE3 block and chunk, piece, two pieces, an unbalanced tree.
    const SIZES: [u64; 12] = [
        1,
        64,
        1024,
        1025,
        PIECE_BYTES - 1,
        PIECE_BYTES,
        PIECE_BYTES + 1,
        2 * PIECE_BYTES,
        2 * PIECE_BYTES + 1,
        3 * PIECE_BYTES,
        5 * PIECE_BYTES + 77,
        7 * PIECE_BYTES,
    ];

    #[test]
    fn pieces_merge_to_the_hash_of_the_whole() {
        for size in SIZES {
            let bytes = audio(size);
            for step in [1021, 65_504, 1 << 20] {
                let mut hasher = TrackHasher::new();
                bytes.chunks(step).for_each(|chunk| hasher.update(chunk));
                let (id, manifest) = hasher.finish().expect("not empty");
                assert_eq!(id, TrackId::of(&bytes), "{size} bytes in steps of {step}");
                assert_eq!(manifest.pieces().len() as u64, piece_count(size));
                assert_eq!(Manifest::proved(&id, size, manifest.pieces().to_vec()), Ok(manifest));
            }
        }
        assert!(TrackHasher::new().finish().is_none());
    }

    #[test]
    fn a_piece_is_proved_alone_and_no_other_bytes_are() {
        for size in SIZES {
            let bytes = audio(size);
            let mut hasher = TrackHasher::new();
            hasher.update(&bytes);
            let (_, manifest) = hasher.finish().expect("not empty");
            for (index, piece) in bytes.chunks(usize::try_from(PIECE_BYTES).expect("fits")).enumerate() {
                assert!(manifest.proves(index, piece));
                assert!(!manifest.proves(index + 1, piece));
                assert!(!manifest.proves(index, &piece[1..]));
                let mut flipped = piece.to_vec();
                flipped[piece.len() / 2] ^= 4;
                assert!(!manifest.proves(index, &flipped));
            }
        }
    }

    #[test]
    fn a_manifest_of_another_track_is_refused() {
        let bytes = audio(3 * PIECE_BYTES);
        let mut hasher = TrackHasher::new();
        hasher.update(&bytes);
        let (id, manifest) = hasher.finish().expect("not empty");
        let mut pieces = manifest.pieces().to_vec();
        pieces.swap(0, 1);
        assert!(matches!(Manifest::proved(&id, manifest.track_bytes(), pieces.clone()), Err(BadManifest::Id { .. })));
        assert_eq!(Manifest::proved(&id, 0, vec![]), Err(BadManifest::TrackBytes(0)));
        assert_eq!(Manifest::proved(&id, u64::MAX, vec![]), Err(BadManifest::TrackBytes(u64::MAX)));
        pieces.pop();
        assert!(matches!(
            Manifest::proved(&id, manifest.track_bytes(), pieces),
            Err(BadManifest::Pieces { got: 2, .. })
        ));
    }
}
