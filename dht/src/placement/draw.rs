//! What a volume draws for a partition.
//!
//! A draw is `-log2(u) / weight`, where `u` is a hash of the volume's id and the partition as a fraction. It depends on
//! nothing but the volume: when another comes, it only takes what it wins; when one goes, only what it held finds new
//! holders. A volume of twice the weight wins twice as often (order statistics of exponentials: Efraimidis and
//! Spirakis, "Weighted random sampling with a reservoir", 2006).

use deadwax_track::Partition;

use super::log2::{minus_log2, minus_log2_least};
use crate::VolumeId;
use crate::random::mix;

/// A volume as it draws.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drawer {
    weight: u32,
    key: [u64; 2],
}

impl Drawer {
    /// `weight` is not zero.
    pub(super) fn new(volume: &VolumeId, weight: u32) -> Self {
        assert!(weight > 0, "a volume's weight is at least 1");
        let derived = blake3::derive_key("deadwax 2026 placement of partitions, version 1", volume.as_bytes());
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&derived[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        Self { weight, key: [word(0), word(8)] }
    }

    pub(super) const fn weight(&self) -> u32 {
        self.weight
    }

    /// The volume's draw for `partition`; the lowest win. Below 2^127.
    pub(super) fn draw(&self, partition: Partition) -> u128 {
        self.divided(self.hash(partition))
    }

    /// The draw, or nothing where it is certain to be above `bound`: most draws of a large cluster are, and are told
    /// from the hash without the logarithm.
    pub(super) fn draw_up_to(&self, partition: Partition, bound: u128) -> Option<u128> {
        let hash = self.hash(partition);
        // Both sides divided by 2^48, the right one rounded up: 80 and 32 bits, whose product fits.
        let above = u128::from(minus_log2_least(hash)) << 32 >= ((bound >> 48) + 1) * u128::from(self.weight);
        (!above).then(|| self.divided(hash))
    }

    fn hash(&self, partition: Partition) -> u64 {
        mix(mix(self.key[0] ^ u64::from(partition.0)) ^ self.key[1])
    }

    fn divided(&self, hash: u64) -> u128 {
        // Below 2^47, so it fits after the shift; the division keeps over 64 bits even at the greatest weight.
        (u128::from(minus_log2(hash)) << 80) / u128::from(self.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_is_left_out_only_above_the_bound() {
        let mut left_out = 0;
        for weight in [1, 7, 1000, u32::MAX] {
            let drawer = Drawer::new(&VolumeId::from_bytes([3; 16]), weight);
            for partition in (0..=u16::MAX).map(Partition) {
                let draw = drawer.draw(partition);
                for bound in [0, draw / 2, draw - 1, draw, draw + 1, draw * 2, u128::MAX >> 1] {
                    match drawer.draw_up_to(partition, bound) {
                        Some(same) => assert_eq!(same, draw),
                        None => assert!(draw > bound, "{draw} was left out at {bound}"),
                    }
                }
                left_out += u32::from(drawer.draw_up_to(partition, draw / 4).is_none());
            }
        }
        assert!(left_out > 65_536, "of 262,144 draws four times the bound, {left_out} were told without a logarithm");
    }
}
