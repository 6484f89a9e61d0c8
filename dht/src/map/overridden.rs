//! Where the overrides put partitions, as placement numbers volumes.

use deadwax_track::{PARTITIONS, Partition};

/// Volumes by partition, in flat tables: at most 1.5 MiB for all partitions with three copies. Every epoch has them.
#[derive(Default, Debug)]
pub(super) struct Overridden {
    /// A bit for each partition: whether it is here. Most are not, and this is asked for all of them.
    bits: Box<[u64]>,
    /// Rising.
    partitions: Box<[Partition]>,
    /// Where in `volumes` each one's end.
    ends: Box<[u32]>,
    /// Indexes into the roster's volumes.
    volumes: Box<[u32]>,
}

impl Overridden {
    /// Of partitions in any order, each once.
    pub(super) fn new(overrides: impl Iterator<Item = (Partition, Vec<u32>)>) -> Self {
        let mut all: Vec<(Partition, Vec<u32>)> = overrides.collect();
        all.sort_by_key(|(partition, _)| *partition);
        let mut bits = vec![0; PARTITIONS as usize / 64];
        let (mut ends, mut volumes) = (Vec::with_capacity(all.len()), Vec::new());
        for (partition, each) in &all {
            bits[usize::from(partition.0) / 64] |= 1 << (partition.0 % 64);
            volumes.extend_from_slice(each);
            ends.push(u32::try_from(volumes.len()).expect("16 volumes of each partition at most"));
        }
        let partitions = all.into_iter().map(|(partition, _)| partition).collect();
        Self { bits: bits.into(), partitions, ends: ends.into(), volumes: volumes.into() }
    }

    /// The volumes of a partition that is here.
    pub(super) fn get(&self, partition: Partition) -> Option<&[u32]> {
        if self.bits[usize::from(partition.0) / 64] & 1 << (partition.0 % 64) == 0 {
            return None;
        }
        let at = self.partitions.binary_search(&partition).ok()?;
        let begin = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.volumes[begin as usize..self.ends[at] as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_has_its_own_volumes_in_whatever_order_they_came() {
        let all = [(7, vec![3, 1]), (0, vec![2]), (u16::MAX, vec![4, 5, 6])];
        let table = Overridden::new(all.iter().map(|(partition, volumes)| (Partition(*partition), volumes.clone())));
        for partition in 0..=u16::MAX {
            let expected = all.iter().find(|(named, _)| *named == partition).map(|(_, volumes)| volumes.as_slice());
            assert_eq!(table.get(Partition(partition)), expected, "{partition}");
        }
    }
}
