//! Chance from a seed.

/// SplitMix64: one seed replays all. Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators".
#[derive(Clone, Debug)]
pub struct Dice(u64);

/// Chances are given in parts of this.
const MILLION: u64 = 1_000_000;

impl Dice {
    /// The sequence of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// A number below `below`, which must not be zero.
    pub fn roll(&mut self, below: u64) -> u64 {
        self.number() % below
    }

    /// An index below `length`, which must not be zero.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.roll(length as u64)).expect("below a length")
    }

    /// Whether something happens whose chance is `per_million` in a million. Draws nothing where the chance is zero.
    pub fn happens(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.roll(MILLION) < u64::from(per_million)
    }
}
