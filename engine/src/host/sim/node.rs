//! One simulated file: what it reads as now, and what of that a power loss may take back.

use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use super::loss::Loss;

/// Files are made of these.
pub(super) const BLOCK: usize = 4096;
/// What a drive writes whole or not at all.
const SECTOR: usize = 512;

pub(super) type Block = Rc<[u8; BLOCK]>;

/// The place of a block in a file.
#[derive(Clone, Default)]
struct Slot {
    /// Nothing in a hole, and where space was taken and never written: both read as zero.
    data: Option<Block>,
    /// Whether it takes space.
    taken: bool,
}

/// What changed and is not known durable: enough to take it back.
#[derive(Clone)]
struct Change {
    what: What,
    blocks: Range<usize>,
    /// What the blocks that existed were, or (while a power loss is worked out) what they became.
    slots: Vec<Slot>,
    /// The file's length before, or (while a power loss is worked out) after.
    bytes: u64,
    /// A flush covers it from this time on.
    done_at: Duration,
    /// A flush covered it.
    durable: bool,
    /// The flush that should have covered it failed: no other one of the same process does. What the next process reads back
    /// without a cache and then flushes is durable.
    doomed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Write,
    Punch,
    Preallocate,
}

/// A file. Lengths and offsets are whole blocks.
#[derive(Clone, Default)]
pub(super) struct Node {
    slots: Vec<Slot>,
    /// In the order in which they were begun.
    changes: Vec<Change>,
    /// How many have it open.
    pub(super) handles: usize,
    /// Whether a directory names it now.
    pub(super) named: bool,
    pub(super) blocks_taken: u64,
    /// How many flushes failed.
    pub(super) flush_errors: u64,
}

pub(super) fn block_of(offset: u64) -> usize {
    assert!(offset.is_multiple_of(BLOCK as u64), "offset or length {offset} is not whole blocks");
    usize::try_from(offset / BLOCK as u64).expect("fits")
}

impl Node {
    pub(super) fn bytes(&self) -> u64 {
        self.slots.len() as u64 * BLOCK as u64
    }

    /// A file that is durable with these bytes.
    pub(super) fn durable(bytes: &[u8]) -> Self {
        let mut node = Self { named: true, ..Self::default() };
        node.write(0, bytes, Duration::ZERO);
        node.changes.clear();
        node
    }

    /// Appends what the stretch reads as; answers whether it lies within the file.
    pub(super) fn read(&self, offset: u64, bytes: usize, out: &mut Vec<u8>) -> bool {
        let first = block_of(offset);
        let Some(slots) = self.slots.get(first..first + block_of(bytes as u64)) else { return false };
        for slot in slots {
            match &slot.data {
                Some(data) => out.extend_from_slice(&data[..]),
                None => out.resize(out.len() + BLOCK, 0),
            }
        }
        true
    }

    /// How much more space a write there would take, in blocks.
    pub(super) fn lacks(&self, offset: u64, bytes: u64) -> u64 {
        let first = block_of(offset);
        let after = first + block_of(bytes);
        let within = self.slots.get(first..after.min(self.slots.len()).max(first)).unwrap_or_default();
        let taken = within.iter().filter(|slot| slot.taken).count();
        (after - first - taken) as u64
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8], done_at: Duration) {
        let first = block_of(offset);
        let count = block_of(bytes.len() as u64);
        self.begin(What::Write, first..first + count, done_at);
        for (slot, block) in self.slots[first..].iter_mut().zip(bytes.chunks_exact(BLOCK)) {
            self.blocks_taken += u64::from(!slot.taken);
            let block: Rc<[u8]> = Rc::from(block);
            *slot = Slot { data: Some(block.try_into().expect("a block")), taken: true };
        }
    }

    pub(super) fn preallocate(&mut self, bytes: u64, done_at: Duration) {
        let blocks = 0..block_of(bytes);
        self.begin(What::Preallocate, blocks.clone(), done_at);
        for slot in &mut self.slots[blocks] {
            self.blocks_taken += u64::from(!slot.taken);
            slot.taken = true;
        }
    }

    /// Punches what lies within the file.
    pub(super) fn punch(&mut self, offset: u64, bytes: u64, done_at: Duration) {
        let first = block_of(offset).min(self.slots.len());
        let after = (first + block_of(bytes)).min(self.slots.len());
        self.begin(What::Punch, first..after, done_at);
        for slot in &mut self.slots[first..after] {
            self.blocks_taken -= u64::from(slot.taken);
            *slot = Slot::default();
        }
    }

    /// Keeps what the blocks are, and makes the file long enough.
    fn begin(&mut self, what: What, blocks: Range<usize>, done_at: Duration) {
        let existing = self.slots.len();
        let slots = self.slots[blocks.start.min(existing)..blocks.end.min(existing)].to_vec();
        let bytes = self.bytes();
        self.changes.push(Change {
            what,
            blocks: blocks.clone(),
            slots,
            bytes,
            done_at,
            durable: false,
            doomed: false,
        });
        if blocks.end > existing {
            self.slots.resize(blocks.end, Slot::default());
        }
    }

    /// A flush that began at `began` is done.
    pub(super) fn flushed(&mut self, began: Duration) {
        for change in &mut self.changes {
            change.durable |= change.done_at <= began && !change.doomed;
        }
        // One that came earlier and is not durable may still have to be taken back beneath one that is.
        let durable = self.changes.iter().take_while(|change| change.durable).count();
        self.changes.drain(..durable);
    }

    /// Nobody has it open any more. The next process's clock starts anew.
    pub(super) fn process_ended(&mut self) {
        self.handles = 0;
        for change in &mut self.changes {
            (change.done_at, change.doomed) = (Duration::ZERO, false);
        }
    }

    /// A flush that began at `began` failed.
    pub(super) fn flush_failed(&mut self, began: Duration) {
        let covered = self.changes.iter_mut().filter(|change| change.done_at <= began);
        covered.for_each(|change| change.doomed = true);
        self.flush_errors += 1;
    }

    pub(super) fn data(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut stretches: Vec<Range<u64>> = Vec::new();
        let first = usize::try_from(range.start / BLOCK as u64).expect("fits");
        for block in first..self.slots.len() {
            let start = (block as u64 * BLOCK as u64).max(range.start);
            let end = ((block as u64 + 1) * BLOCK as u64).min(range.end);
            if start >= end {
                break;
            }
            match stretches.last_mut() {
                _ if self.slots[block].data.is_none() => {}
                Some(last) if last.end == start => last.end = end,
                _ => stretches.push(start..end),
            }
        }
        stretches
    }

    /// Flips a bit where there is data. Durable.
    pub(super) fn flip(&mut self, offset: u64, bit: u8) {
        let block = usize::try_from(offset / BLOCK as u64).expect("fits");
        let within = usize::try_from(offset % BLOCK as u64).expect("within a block");
        if let Some(Some(data)) = self.slots.get_mut(block).map(|slot| &mut slot.data) {
            Rc::make_mut(data)[within] ^= 1 << (bit % 8);
        }
    }

    /// The power goes: what is not durable stays or goes, each as `loss` says.
    pub(super) fn lose_power(&mut self, loss: &mut Loss<'_>) {
        if self.changes.is_empty() {
            return;
        }
        let mut changes = std::mem::take(&mut self.changes);
        // Back to what is durable for certain, keeping what each change made of it.
        for change in changes.iter_mut().rev() {
            let existed = change.blocks.start.min(self.slots.len())..change.blocks.end;
            let made = self.slots[existed.clone()].to_vec();
            let before = std::mem::replace(&mut change.slots, made);
            for (slot, was) in self.slots[existed].iter_mut().zip(before) {
                *slot = was;
            }
            let after = self.bytes();
            self.slots.truncate(block_of(change.bytes));
            change.bytes = after;
        }
        // And on again with what survives. Until the end the file is as long as any of them made it.
        let mut length = self.slots.len();
        for change in changes {
            let (before, after) = (self.slots.len(), block_of(change.bytes));
            if after > self.slots.len() {
                self.slots.resize(after, Slot::default());
            }
            loss.begin_change();
            // One decision for all that a preallocation does, and one for a write's length.
            let extends = after > before;
            let whole = change.durable || ((extends || change.what == What::Preallocate) && loss.keeps());
            if whole && extends {
                length = after;
            }
            survive(&mut self.slots[change.blocks.clone()], &change, whole, loss);
        }
        self.slots.truncate(length);
        self.blocks_taken = self.slots.iter().filter(|slot| slot.taken).count() as u64;
    }
}

/// Makes what survives of a change. `whole`: of a preallocation, all or nothing does.
fn survive(slots: &mut [Slot], change: &Change, whole: bool, loss: &mut Loss<'_>) {
    match change.what {
        What::Write => {
            for (slot, new) in slots.iter_mut().zip(&change.slots) {
                if change.durable {
                    *slot = new.clone();
                } else {
                    survive_block(slot, new.data.as_ref().expect("a write leaves data"), loss);
                }
            }
        }
        What::Punch => {
            // Block by block, from its end backwards. Where nothing lies, nothing happens.
            let lying: Vec<usize> = (0..slots.len()).filter(|block| slots[*block].taken).collect();
            let most = lying.len() as u64;
            let punched = if change.durable { most } else { loss.of(most) };
            let kept = lying.len() - usize::try_from(punched).expect("at most all");
            lying[kept..].iter().for_each(|block| slots[*block] = Slot::default());
        }
        What::Preallocate => {
            if whole {
                slots.iter_mut().for_each(|slot| slot.taken = true);
            }
        }
    }
}

fn survive_block(slot: &mut Slot, new: &Block, loss: &mut Loss<'_>) {
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    let old = slot.data.as_deref().unwrap_or(&ZEROS);
    let mut mixed: Option<Box<[u8; BLOCK]>> = None;
    let (mut kept, mut lost) = (0, 0);
    for sector in 0..BLOCK / SECTOR {
        let range = sector * SECTOR..(sector + 1) * SECTOR;
        if old[range.clone()] == new[range.clone()] {
            continue;
        }
        if loss.keeps() {
            kept += 1;
            mixed.get_or_insert_with(|| Box::new(*old))[range.clone()].copy_from_slice(&new[range]);
        } else {
            lost += 1;
        }
    }
    if lost == 0 && kept > 0 {
        *slot = Slot { data: Some(new.clone()), taken: true };
    } else if let Some(mixed) = mixed {
        *slot = Slot { data: Some(Rc::new(*mixed)), taken: true };
    } else if slot.data.is_none() && loss.keeps() {
        // Nothing of the bytes came to the drive, but the place counts as written.
        *slot = Slot { data: Some(Rc::new(ZEROS)), taken: true };
    }
}
