//! Who holds a partition: weighted rendezvous over volumes, in integers only.
//!
//! Each volume draws a number for each partition: `-log2(u) / weight`, where `u` is a hash of the volume's id and the
//! partition as a fraction. The lowest draws hold the partition, as far as zones, racks and nodes allow. A volume's
//! draw depends on nothing but itself: when another comes, it only takes what it wins; when one goes, only what it
//! held finds new holders. A volume of twice the weight wins twice as often (order statistics of exponentials:
//! Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006).
//!
//! Copies are spread over zones as evenly as possible: with `copies` over `zones`, each zone gets
//! `copies / zones`, and the remaining copies go one each to the zones whose volumes drew lowest. So three copies in
//! two zones lie 2 + 1, and which zone gets two is drawn for each partition, by the zones' weights. These rules (at
//! most one a node, one a rack, so many a zone) are nested, so that taking draws in order is the best choice, and
//! one more volume changes at most one holder of a partition.

mod log2;

use deadwax_track::Partition;

use self::log2::minus_log2;
use crate::VolumeId;

/// A volume that holds a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Its node: an index into [`Map::nodes`](crate::Map::nodes).
    pub node: usize,
    /// The volume.
    pub volume: VolumeId,
    /// Its zone: an index into [`Map::zones`](crate::Map::zones).
    pub zone: usize,
}

/// A volume that could hold a partition.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    holder: Holder,
    rack: usize,
    weight: u32,
    key: [u64; 2],
}

impl Candidate {
    /// `weight` is not zero.
    pub(crate) fn new(holder: Holder, rack: usize, weight: u32) -> Self {
        assert!(weight > 0, "a volume's weight is at least 1");
        let derived = blake3::derive_key("deadwax 2026 placement of partitions, version 1", holder.volume.as_bytes());
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&derived[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        Self { holder, rack, weight, key: [word(0), word(8)] }
    }

    pub(crate) const fn holder(&self) -> Holder {
        self.holder
    }

    /// The volume's draw for `partition`; the lowest win.
    fn draw(&self, partition: Partition) -> u128 {
        let hash = mix(mix(self.key[0] ^ u64::from(partition.0)) ^ self.key[1]);
        // Below 2^47, so it fits after the shift; the division keeps over 64 bits even at the greatest weight.
        (u128::from(minus_log2(hash)) << 80) / u128::from(self.weight)
    }
}

/// A bijection in which each bit of the result depends on every bit of `x` (the finaliser of SplitMix64, Steele et
/// al. 2014, with Stafford's constants).
const fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The holders of `partition`, lowest draw first: `copies` of them, or one a node where there are fewer nodes.
pub(crate) fn place(candidates: &[Candidate], zones: usize, copies: usize, partition: Partition) -> Vec<Holder> {
    let mut draws: Vec<(u128, &Candidate)> = candidates.iter().map(|each| (each.draw(partition), each)).collect();
    // Equal draws are as good as impossible; the id makes even those the same everywhere.
    draws.sort_unstable_by_key(|(draw, candidate)| (*draw, candidate.holder.volume));
    let mut choice = Choice { taken: Vec::with_capacity(copies), in_zone: vec![0; zones], copies };
    for rules in [Rules::ZonesAndRacks, Rules::Zones, Rules::Nodes] {
        for (index, (_, candidate)) in draws.iter().enumerate() {
            choice.offer(index, candidate, rules);
        }
    }
    choice.taken.sort_unstable_by_key(|(index, _)| *index);
    choice.taken.iter().map(|(_, candidate)| candidate.holder).collect()
}

/// Which rules hold in a round. A later round only fills what an earlier, stricter one left open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    ZonesAndRacks,
    Zones,
    Nodes,
}

struct Choice<'a> {
    taken: Vec<(usize, &'a Candidate)>,
    in_zone: Vec<usize>,
    copies: usize,
}

impl<'a> Choice<'a> {
    fn offer(&mut self, index: usize, candidate: &'a Candidate, rules: Rules) {
        let clash = self.taken.iter().any(|(_, taken)| {
            taken.holder.node == candidate.holder.node
                || (rules == Rules::ZonesAndRacks && taken.rack == candidate.rack)
        });
        let full = self.taken.len() == self.copies;
        if full || clash || (rules != Rules::Nodes && !self.zone_has_room(candidate.holder.zone)) {
            return;
        }
        self.in_zone[candidate.holder.zone] += 1;
        self.taken.push((index, candidate));
    }

    /// Every zone may have `copies / zones`; `copies % zones` of them may have one more.
    fn zone_has_room(&self, zone: usize) -> bool {
        let (base, extra) = (self.copies / self.in_zone.len(), self.copies % self.in_zone.len());
        let extra_taken = self.in_zone.iter().filter(|count| **count > base).count();
        self.in_zone[zone] < base || (self.in_zone[zone] == base && extra_taken < extra)
    }
}
