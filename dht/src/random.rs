//! Randomness from a seed, and the mixing of bits that it is made of: the one place for both.

use std::convert::Infallible;

/// SplitMix64 (Steele, Lea and Flood, 2014): whom to probe and when to call an election need no secrecy, and equal
/// seeds must replay equal runs on every machine and with every version of the crates.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A bijection in which each bit of the result depends on every bit of `x` (the step and the finaliser of SplitMix64,
/// with Stafford's constants).
pub(crate) const fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(STEP);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// All of a name, mixed: where nodes are drawn by it, equal on every machine.
pub(crate) fn mix_all(name: &[u8; 32]) -> u64 {
    let (words, _) = name.as_chunks::<8>();
    words.iter().fold(0, |hash, word| mix(hash ^ u64::from_le_bytes(*word)))
}

impl Random {
    pub(crate) const fn draw(&mut self) -> u64 {
        let drawn = mix(self.0);
        self.0 = self.0.wrapping_add(STEP);
        drawn
    }

    /// An index below `count`, which is not zero. Its bias is below 2^-40 for counts of nodes.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        let drawn = self.draw() % u64::try_from(count).expect("a usize has at most 64 bits");
        usize::try_from(drawn).expect("below a usize")
    }
}

/// A hasher for names that are hashes themselves: their first bytes. The same in every run.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct IdHasher(u64);

impl std::hash::Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        let mut first = [0; 8];
        let length = bytes.len().min(8);
        first[..length].copy_from_slice(&bytes[..length]);
        self.0 = self.0.rotate_left(7) ^ u64::from_le_bytes(first);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl rand_core::TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::try_from(self.draw() >> 32).expect("32 bits"))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.draw())
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), Infallible> {
        for chunk in into.chunks_mut(8) {
            chunk.copy_from_slice(&self.draw().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}
