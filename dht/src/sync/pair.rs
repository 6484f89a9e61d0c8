//! A volume of this node and one of another that shares partitions with it: what is known to be equal, and the
//! comparison.

use std::collections::BTreeMap;

use deadwax_track::Partition;

use super::branch::Branch;
use super::inventory::Contents;
use super::message::Entry;
use super::{ANSWER_MS, ENTRIES_MAX, HURRIES_MAX, HURRY_BYTES_PER_S, HURRY_MS};
use crate::partitions::Partitions;
use crate::random::{Random, mix};
use crate::{NodeId, VolumeId};

/// A branch with at most so many shared partitions is answered by these at once.
const LEAVES_AT_ONCE: usize = 16;

/// A comparison under way.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) number: u64,
    /// The peer's number; 0 until it is known.
    pub(super) peer: u64,
    pub(super) initiator: bool,
    /// The step of the last message, sent or received.
    pub(super) step: u8,
    /// What was sent last, and is to be answered; zero: what differs already. Where it said that the root is equal: the
    /// root.
    pub(super) sent: Vec<Entry>,
    pub(super) began: u64,
    pub(super) deadline: u64,
    /// What was sent of it.
    pub(super) bytes: u64,
    /// Something was found to differ.
    pub(super) differs: bool,
    /// A leaf was found that is worth an exchange.
    pub(super) news: bool,
    /// A message was not answered whole.
    pub(super) cut: bool,
    /// Something changed here since it began.
    pub(super) changed: bool,
}

impl Session {
    pub(super) const fn new(number: u64, peer: u64, initiator: bool, now: u64) -> Self {
        let (differs, news, cut, changed) = (false, false, false, false);
        let (began, deadline, bytes) = (now, now + ANSWER_MS, 0);
        Self { number, peer, initiator, step: 0, sent: Vec::new(), began, deadline, bytes, differs, news, cut, changed }
    }
}

/// A difference that was exchanged already.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Of both ends' cells.
    digest: u64,
    at: u64,
    times: u8,
}

/// How often one difference, unchanged, is exchanged in a row: answers may be lost.
const TIMES_MAX: u8 = 3;
/// How many differences a pair remembers. What is beyond is exchanged again at every comparison.
const KNOWN_MAX: usize = 4_096;

#[derive(Debug)]
pub(super) struct Pair {
    pub(super) own: VolumeId,
    pub(super) peer: VolumeId,
    pub(super) node: NodeId,
    /// Those that both hold, as this node sees it.
    pub(super) partitions: Partitions,
    /// XOR of their cells.
    pub(super) root: u64,
    /// Those not known to be equal. With `pending` a part of `partitions`; the two have none in common.
    pub(super) unequal: Partitions,
    /// Those that the comparison under way may prove equal: not changed here since it began.
    pub(super) pending: Partitions,
    /// Those of the two that were not equal since they came to the pair, a volume was opened, or the peer was away: what
    /// they lack was missed, not put just now, and somebody waits for it. They are in a hurry.
    pub(super) fresh: Partitions,
    /// Those found to differ whose lists are to be exchanged.
    pub(super) leaves: Partitions,
    pub(super) leaves_at: u64,
    known: BTreeMap<Partition, Known>,
    pub(super) session: Option<Session>,
    /// When the last comparison ended.
    pub(super) compared_at: u64,
    /// How many bytes it took here.
    pub(super) compared_bytes: u64,
    /// When the next begins, if anything is unequal.
    pub(super) compare_at: u64,
    /// Comparisons in a row that were not answered.
    pub(super) failures: u8,
    /// How many comparisons may go unanswered before that is a failure: see [`HURRIES_MAX`].
    pub(super) hurries: u8,
    pub(super) timer: Option<u64>,
}

/// What came of looking at a message's entries.
#[derive(Default)]
pub(super) struct Looked {
    pub(super) answer: Vec<Entry>,
    /// The answer, with zeros for what is known to differ: silence about it does not make it equal.
    pub(super) sent: Vec<Entry>,
    /// What of the entries was answered: the partitions from the first number to before the second.
    pub(super) range: (u32, u32),
    pub(super) equal: Vec<Partition>,
}

/// All partitions.
pub(super) const WHOLE: (u32, u32) = (0, 1 << 16);

type Inventory = BTreeMap<Partition, Contents>;

fn cell(inventory: &Inventory, partition: Partition) -> u64 {
    inventory.get(&partition).copied().unwrap_or_default().cell(partition)
}

impl Pair {
    pub(super) fn new(own: VolumeId, peer: VolumeId, node: NodeId) -> Self {
        Self {
            own,
            peer,
            node,
            partitions: Partitions::default(),
            root: 0,
            unequal: Partitions::default(),
            pending: Partitions::default(),
            fresh: Partitions::default(),
            leaves: Partitions::default(),
            leaves_at: 0,
            known: BTreeMap::new(),
            session: None,
            compared_at: 0,
            compared_bytes: 0,
            compare_at: 0,
            failures: 0,
            hurries: 0,
            timer: None,
        }
    }

    pub(super) fn add(&mut self, partition: Partition, cell: u64) {
        if self.partitions.insert(partition) {
            self.root ^= cell;
            self.unequal.insert(partition);
            self.fresh.insert(partition);
            self.hurries = HURRIES_MAX;
        }
    }

    /// What [`add`](Self::add) does, for a pair that has nothing yet: all of it, and then [`seal`](Self::seal).
    pub(super) fn fill(&mut self, partition: Partition, cell: u64) {
        if self.partitions.insert(partition) {
            self.root ^= cell;
        }
    }

    /// What [`fill`](Self::fill) brought is to be proved equal.
    pub(super) fn seal(&mut self) {
        self.unequal.clone_from(&self.partitions);
        self.hurry();
    }

    /// All that is not known to be equal is in a hurry from now on.
    pub(super) fn hurry(&mut self) {
        self.fresh.clone_from(&self.unequal);
        self.pending.iter().for_each(|partition| _ = self.fresh.insert(partition));
        (self.failures, self.hurries) = (0, HURRIES_MAX);
    }

    pub(super) fn remove(&mut self, partition: Partition, cell: u64) {
        if self.partitions.remove(partition) {
            self.root ^= cell;
            self.unequal.remove(partition);
            self.pending.remove(partition);
            self.fresh.remove(partition);
            self.leaves.remove(partition);
            self.known.remove(&partition);
        }
    }

    /// The XOR of the shared partitions' cells.
    fn shared_root(&self, inventory: &Inventory) -> u64 {
        let mut cell = self.cells(inventory, Partition(0));
        self.partitions.iter().fold(0, |root, partition| root ^ cell(partition))
    }

    /// The cells of shared partitions from `first` on, which are asked for in rising order.
    fn cells<'a>(&self, inventory: &'a Inventory, first: Partition) -> impl FnMut(Partition) -> u64 + use<'a> {
        let mut filled = inventory.range(first..).peekable();
        // Where few of a volume's partitions are shared, each is looked up.
        let all = inventory.len() <= 4 * self.partitions.len();
        move |partition| {
            if !all {
                return cell(inventory, partition);
            }
            while filled.next_if(|(other, _)| **other < partition).is_some() {}
            let contents = filled.next_if(|(other, _)| **other == partition).map(|(_, contents)| *contents);
            contents.unwrap_or_default().cell(partition)
        }
    }

    /// Nothing is known any more: the volume was opened or closed.
    pub(super) fn forget(&mut self, inventory: &Inventory) {
        self.root = self.shared_root(inventory);
        self.unequal.clone_from(&self.partitions);
        self.pending = Partitions::default();
        self.leaves = Partitions::default();
        self.known.clear();
        self.session = None;
        self.hurry();
    }

    /// The partition changed here.
    pub(super) fn change(&mut self, partition: Partition, difference: u64) {
        self.root ^= difference;
        self.pending.remove(partition);
        self.unequal.insert(partition);
    }

    pub(super) fn is_equal(&self, partition: Partition) -> bool {
        let unknown = self.unequal.contains(partition) || self.pending.contains(partition);
        self.partitions.contains(partition) && !unknown
    }

    /// Ends the comparison: what it did not prove stays to be proved.
    pub(super) fn end(&mut self) -> Option<Session> {
        let pending = std::mem::take(&mut self.pending);
        self.unequal.extend_from(pending);
        self.session.take()
    }

    /// How long it rests after a comparison while something is in a hurry, in ms.
    pub(super) fn rest_ms(&self, gap_ms: u64) -> u64 {
        (self.compared_bytes * 1_000 / HURRY_BYTES_PER_S).max(HURRY_MS).min(gap_ms)
    }

    fn digest(&self, inventory: &Inventory, branch: Branch) -> u64 {
        if branch == Branch::ROOT {
            return if self.partitions.is_empty() { 0 } else { self.root.max(1) };
        }
        let mut shared = self.partitions.range(branch.first(), branch.last()).peekable();
        match shared.peek() {
            None => 0,
            Some(_) => {
                let mut cell = self.cells(inventory, branch.first());
                shared.fold(0, |digest, partition| digest ^ cell(partition)).max(1)
            }
        }
    }

    pub(super) fn entry(&self, inventory: &Inventory, branch: Branch) -> Entry {
        Entry { branch, digest: self.digest(inventory, branch) }
    }

    /// The children of `branch` that are shared, or its partitions where they are few.
    fn children(&self, inventory: &Inventory, branch: Branch) -> Vec<Entry> {
        let shared = || self.partitions.range(branch.first(), branch.last());
        if shared().take(LEAVES_AT_ONCE + 1).count() <= LEAVES_AT_ONCE {
            return shared().map(|partition| self.entry(inventory, Branch::leaf(partition))).collect();
        }
        let mut children: Vec<Entry> = Vec::new();
        let mut cell = self.cells(inventory, branch.first());
        for partition in shared() {
            let (child, cell) = (branch.child(partition), cell(partition));
            match children.last_mut().filter(|last| last.branch == child) {
                Some(last) => last.digest ^= cell,
                None => children.push(Entry { branch: child, digest: cell }),
            }
        }
        children.iter_mut().for_each(|child| child.digest = child.digest.max(1));
        children
    }

    /// Takes the partitions of the branch out of those to be proved; `now_equal`: also of those changed since the
    /// comparison began.
    fn prove(&mut self, branch: Branch, now_equal: bool, equal: &mut Vec<Partition>) {
        let (first, last) = (branch.first(), branch.last());
        let mut proved = self.pending.take_range(first, last);
        if now_equal {
            proved.extend(self.unequal.take_range(first, last));
        }
        if !self.known.is_empty() {
            proved.iter().for_each(|partition| _ = self.known.remove(partition));
        }
        if !self.fresh.is_empty() {
            proved.iter().for_each(|partition| _ = self.fresh.remove(*partition));
        }
        equal.append(&mut proved);
    }

    /// Looks at what the peer says of its branches; `fresh`: it says so of a time since the comparison began here.
    pub(super) fn look(
        &mut self,
        now: u64,
        inventory: &Inventory,
        entries: &[Entry],
        range: (u32, u32),
        fresh: bool,
    ) -> Looked {
        let sent = self.session.as_ref().map(|session| session.sent.clone()).unwrap_or_default();
        let mut looked = Looked { range: WHOLE, ..Looked::default() };
        let mut start = 0;
        let own: Vec<Entry> = entries.iter().map(|entry| self.entry(inventory, entry.branch)).collect();
        let differing = own.iter().zip(entries).filter(|(own, entry)| own.digest != entry.digest).count();
        if differing * LEAVES_AT_ONCE > ENTRIES_MAX {
            // Not all may fit: another part each time, or differences that nobody can mend would hide the others.
            let number = self.session.as_ref().map_or(0, |session| session.number ^ u64::from(session.step));
            start = Random(number).below(entries.len());
            looked.range.0 = u32::from(entries[start].branch.first);
        }
        if fresh {
            let quiet = |sent: &&Entry| {
                let at = entries.partition_point(|entry| entry.branch.end() <= u32::from(sent.branch.first));
                !entries.get(at).is_some_and(|entry| entry.branch.overlaps(sent.branch))
            };
            let covered = |sent: &&Entry| range.0 <= u32::from(sent.branch.first) && sent.branch.end() <= range.1;
            for entry in sent.iter().filter(|sent| sent.digest != 0).filter(covered).filter(quiet) {
                self.prove(entry.branch, false, &mut looked.equal);
            }
        }
        for (entry, own) in entries.iter().zip(own).skip(start) {
            let at = sent.binary_search_by_key(&entry.branch.first, |sent| sent.branch.first);
            let was_sent = at.is_ok_and(|at| sent[at].branch == entry.branch);
            if entry.digest != 0 && own.digest == entry.digest {
                if fresh {
                    self.prove(entry.branch, true, &mut looked.equal);
                }
                continue;
            }
            let mut answer = Vec::new();
            if entry.digest == 0 || own.digest == 0 {
                // The views differ. Said once, so that the peer does not take silence for equality.
                if entry.digest != 0 && !was_sent {
                    answer.push(Entry { digest: 0, ..own });
                }
            } else if entry.branch.is_leaf() {
                self.differ(now, entry, own.digest, was_sent);
                if !was_sent {
                    answer.push(own);
                }
            } else {
                answer = self.children(inventory, entry.branch);
            }
            if looked.answer.len() + answer.len() > ENTRIES_MAX {
                looked.range.1 = u32::from(entry.branch.first);
                break;
            }
            let settled = entry.branch.is_leaf();
            let sent = answer.iter().map(|own| if settled { Entry { digest: 0, ..*own } } else { *own });
            looked.sent.extend(sent);
            looked.answer.append(&mut answer);
        }
        looked
    }

    /// A partition differs. Who hears of it first sees to the exchange: the other gets its own entry back.
    fn differ(&mut self, now: u64, entry: &Entry, own: u64, was_sent: bool) {
        let partition = entry.branch.first();
        if self.partitions.contains(partition) && !self.pending.contains(partition) {
            self.unequal.insert(partition);
        }
        let digest = mix(own) ^ entry.digest;
        let known = self.known.get(&partition).filter(|known| known.digest == digest);
        let times = known.map_or(0, |known| known.times);
        if times >= TIMES_MAX && known.is_some_and(|known| now < known.at + super::AGAIN_MS) {
            // Nobody can mend it, or not soon.
            self.fresh.remove(partition);
            return;
        }
        if self.known.len() < KNOWN_MAX || self.known.contains_key(&partition) {
            self.known.insert(partition, Known { digest, at: now, times: times.saturating_add(1).min(TIMES_MAX) });
        }
        if was_sent {
            return;
        }
        self.leaves.insert(partition);
        if let Some(session) = &mut self.session {
            session.news = true;
        }
    }
}
