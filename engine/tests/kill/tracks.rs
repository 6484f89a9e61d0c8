//! Chance from a seed, and tracks whose bytes follow from a seed and a number.

use deadwax_track::{KIB, MIB, Tags, TrackId};

/// SplitMix64. The moment at which a process dies is not the seed's to choose; all that led there is.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.next() % below
    }

    /// 1 byte to 3 MiB, many at the edges of blocks, frames and writes.
    fn size(&mut self) -> u64 {
        match self.roll(8) {
            0..2 => 1 + self.roll(5000),
            2..4 => 65_500 * (1 + self.roll(3)) + self.roll(9) - 1,
            4..6 => 1 + self.roll(300 * KIB),
            6 => MIB - 100 * KIB + self.roll(200 * KIB),
            _ => 1 + self.roll(3 * MIB),
        }
    }
}

/// A track of a test's volume.
pub(crate) struct Track {
    pub(crate) id: TrackId,
    pub(crate) bytes: Vec<u8>,
    pub(crate) tags: Tags,
}

impl Track {
    /// The same for the same volume and number, in any process.
    pub(crate) fn of(volume_seed: u64, number: u64) -> Self {
        let mut dice = Dice(volume_seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
        dice.next();
        let mut bytes = vec![0; usize::try_from(dice.size()).expect("addresses are 64 bits")];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&dice.next().to_le_bytes()[..chunk.len()]);
        }
        let tags = Tags::new([("title".to_owned(), format!("track {number}"))]).expect("within limits");
        Self { id: TrackId::of(&bytes), bytes, tags }
    }
}

/// The number under which a track is always taken down.
pub(crate) fn takedown_of(number: u64) -> u64 {
    1_000_000 + number
}
