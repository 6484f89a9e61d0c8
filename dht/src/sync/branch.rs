//! Branches of the tree over the partitions: 16 children each, the partitions are the leaves.

use deadwax_track::Partition;

/// The depth of the leaves: 16^4 partitions.
pub(super) const DEPTH_MAX: u8 = 4;
const _: () = assert!(1_usize << (4 * DEPTH_MAX) == 65_536);

/// The partitions whose numbers begin with `depth` hexadecimal digits of `first`; its other digits are zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Branch {
    /// 0: all partitions. 4: one partition.
    pub depth: u8,
    /// The first partition of the branch.
    pub first: u16,
}

impl Branch {
    /// All partitions.
    pub const ROOT: Self = Self { depth: 0, first: 0 };

    pub(super) const fn leaf(partition: Partition) -> Self {
        Self { depth: DEPTH_MAX, first: partition.0 }
    }

    /// How many partitions it has.
    pub(super) const fn width(self) -> u32 {
        1 << (4 * (DEPTH_MAX - self.depth))
    }

    /// The number after its last partition's: up to 65,536.
    pub(super) const fn end(self) -> u32 {
        self.first as u32 + self.width()
    }

    pub(super) fn last(self) -> Partition {
        Partition(u16::try_from(self.end() - 1).expect("a branch ends with a partition"))
    }

    pub(super) const fn first(self) -> Partition {
        Partition(self.first)
    }

    pub(super) fn overlaps(self, other: Self) -> bool {
        u32::from(self.first) < other.end() && u32::from(other.first) < self.end()
    }

    pub(super) const fn is_leaf(self) -> bool {
        self.depth == DEPTH_MAX
    }

    /// Of a branch that is no leaf, the child that `partition` is in.
    pub(super) fn child(self, partition: Partition) -> Self {
        let depth = self.depth + 1;
        let width = Self { depth, first: 0 }.width();
        let first = u32::from(partition.0) / width * width;
        Self { depth, first: u16::try_from(first).expect("below a partition's number") }
    }

    /// Whether depth and digits make a branch.
    pub(super) fn is_sound(self) -> bool {
        self.depth <= DEPTH_MAX && u32::from(self.first) % self.width() == 0
    }
}
