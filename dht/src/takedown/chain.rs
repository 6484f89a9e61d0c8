//! One issuer's records: a chain, or a tree where the issuer has forked.

use super::heads::Mark;
use super::{BRANCHES_MAX, MARKS_MAX};

/// A record of a branch: 20 bytes.
#[derive(Clone, Copy, Debug)]
struct Link {
    hash: [u8; 16],
    slot: u32,
}

const _: () = assert!(size_of::<Link>() == 20);

/// Consecutive records. Its last is a leaf of the tree: a successor of it is appended, any other begins a branch.
#[derive(Clone, Debug)]
struct Branch {
    /// Which branch it parted from, after which number; none where it begins at the root. Parents come before children.
    parent: Option<(usize, u64)>,
    /// The number of the first link.
    first: u64,
    links: Vec<Link>,
    /// The whole hash of the last link.
    tip: [u8; 32],
}

impl Branch {
    fn last(&self) -> u64 {
        self.first + self.links.len() as u64 - 1
    }

    fn link(&self, number: u64) -> Option<&Link> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.links.get(index)
    }

    fn mark(&self, number: u64) -> Mark {
        Mark { number, hash: self.link(number).expect("the caller stays in the branch").hash }
    }
}

#[derive(Clone, Default, Debug)]
pub(super) struct Chain(Vec<Branch>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// It is there already.
    Known,
    /// It follows one that is there: [`Chain::attach`] takes it. `forks` where another follows the same one.
    Next { forks: bool },
    /// Its predecessor is missing.
    Gap,
    /// It would begin one branch too many.
    Full,
    /// It is the first and does not begin at the root.
    Stray,
}

pub(super) fn half(hash: &[u8; 32]) -> [u8; 16] {
    *hash.first_chunk().expect("16 of 32 bytes")
}

impl Chain {
    pub(super) fn knows(&self, mark: &Mark) -> bool {
        self.find(mark).is_some()
    }

    fn find(&self, mark: &Mark) -> Option<usize> {
        self.0.iter().position(|branch| branch.link(mark.number).is_some_and(|link| link.hash == mark.hash))
    }

    /// The branch that a record after `number` and `previous` would follow.
    fn parent(&self, number: u64, previous: &[u8; 32]) -> Option<usize> {
        self.find(&Mark { number: number.checked_sub(1)?, hash: half(previous) })
    }

    /// Where the record of `number` and `hash` after `previous` belongs.
    pub(super) fn place(&self, number: u64, previous: &[u8; 32], hash: &[u8; 32], root: &[u8; 32]) -> Place {
        if self.knows(&Mark { number, hash: half(hash) }) {
            return Place::Known;
        }
        let forks = if number == 1 {
            if previous != root {
                return Place::Stray;
            }
            !self.0.is_empty()
        } else {
            let Some(parent) = self.parent(number, previous) else { return Place::Gap };
            let branch = &self.0[parent];
            let at_tip = branch.last() == number - 1;
            if at_tip && branch.tip != *previous {
                return Place::Stray;
            }
            !at_tip
        };
        if forks && self.0.len() >= BRANCHES_MAX { Place::Full } else { Place::Next { forks } }
    }

    /// Takes a record whose place is [`Place::Next`].
    pub(super) fn attach(&mut self, number: u64, previous: &[u8; 32], hash: &[u8; 32], slot: u32) {
        let link = Link { hash: half(hash), slot };
        let parent = self.parent(number, previous);
        if let Some(branch) = parent.map(|parent| &mut self.0[parent]).filter(|branch| branch.last() == number - 1) {
            branch.links.push(link);
            branch.tip = *hash;
            return;
        }
        let parent = parent.map(|parent| (parent, number - 1));
        self.0.push(Branch { parent, first: number, links: vec![link], tip: *hash });
    }

    pub(super) const fn is_forked(&self) -> bool {
        self.0.len() > 1
    }

    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|branch| branch.links.len()).sum()
    }

    /// The last record of the longest branch, its number and hash: what the issuer goes on from.
    pub(super) fn tip(&self) -> Option<(u64, [u8; 32])> {
        self.0.iter().map(|branch| (branch.last(), branch.tip)).max()
    }

    /// The last record of every branch, in rising order.
    pub(super) fn tips(&self) -> Vec<Mark> {
        let mut marks: Vec<Mark> = self.0.iter().map(|branch| branch.mark(branch.last())).collect();
        marks.sort_unstable();
        marks
    }

    /// The tips, and records 1, 3, 7, 15... before each.
    pub(super) fn locator(&self) -> Vec<Mark> {
        let mut marks = Vec::new();
        for branch in &self.0 {
            let (mut number, mut step) = (branch.last(), 1);
            marks.push(branch.mark(number));
            while number > branch.first {
                number = number.saturating_sub(step).max(branch.first);
                step *= 2;
                marks.push(branch.mark(number));
            }
        }
        marks.sort_unstable();
        assert!(marks.len() <= MARKS_MAX, "{} marks, the most is {MARKS_MAX}", marks.len());
        marks
    }

    /// The slots of the records of this number, one a branch that has one.
    pub(super) fn slots_of(&self, number: u64) -> Vec<u32> {
        self.0.iter().filter_map(|branch| branch.link(number)).map(|link| link.slot).collect()
    }

    /// Appends to `slots` the slots of at most `limit` records that whoever has `marks` lacks, predecessors first.
    pub(super) fn since(&self, marks: &[Mark], limit: usize, slots: &mut Vec<u32>) {
        let mut covered = vec![0; self.0.len()];
        for mark in marks {
            let mut at = self.find(mark).map(|branch| (branch, mark.number));
            while let Some((branch, number)) = at {
                covered[branch] = number.max(covered[branch]);
                at = self.0[branch].parent;
            }
        }
        let mut left = limit;
        for (branch, covered) in self.0.iter().zip(covered) {
            let known = usize::try_from((covered + 1).saturating_sub(branch.first)).expect("at most its length");
            let missing = &branch.links[known..];
            let taken = missing.len().min(left);
            slots.extend(missing[..taken].iter().map(|link| link.slot));
            left -= taken;
        }
    }
}
