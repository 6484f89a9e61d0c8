//! The simulated file system: names, space, and what of both is durable.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use super::loss::Loss;
use super::node::{BLOCK, Node};
use super::trace::Trace;
use super::{Dice, Fault, SimSettings};

/// Never given twice.
pub(super) type NodeNumber = u64;

#[derive(Clone)]
pub(super) struct Disk {
    pub(super) settings: SimSettings,
    pub(super) dice: Dice,
    names: BTreeMap<PathBuf, NodeNumber>,
    nodes: HashMap<NodeNumber, Node>,
    nodes_made: u64,
    /// Not yet durable, in the order in which they were done.
    name_changes: Vec<NameChange>,
    pub(super) trace: RefCell<Trace>,
}

/// A change of one directory.
#[derive(Clone)]
struct NameChange {
    directory: PathBuf,
    /// What the names were before.
    before: Vec<(PathBuf, Option<NodeNumber>)>,
    done_at: Duration,
    /// The flush that should have covered it failed: no other one of the same process does.
    doomed: bool,
}

impl Disk {
    pub(super) fn new(settings: SimSettings) -> Self {
        Self {
            dice: Dice::new(settings.seed),
            settings,
            names: BTreeMap::new(),
            nodes: HashMap::new(),
            nodes_made: 0,
            name_changes: Vec::new(),
            trace: RefCell::default(),
        }
    }

    pub(super) fn node(&mut self, number: NodeNumber) -> &mut Node {
        self.nodes.get_mut(&number).expect("an open or named file exists")
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<NodeNumber> {
        self.names.get(path).copied().ok_or_else(|| Errno::NOENT.into())
    }

    /// The name that leads to the file now.
    pub(super) fn name_of(&self, number: NodeNumber) -> Option<PathBuf> {
        self.names.iter().find(|(_, named)| **named == number).map(|(path, _)| path.clone())
    }

    /// The file that has the name now.
    pub(super) fn named(&mut self, path: &Path) -> Option<&mut Node> {
        let number = *self.names.get(path)?;
        self.nodes.get_mut(&number)
    }

    /// A file that is durable, with its name.
    pub(super) fn install(&mut self, path: &Path, bytes: &[u8]) {
        self.nodes_made += 1;
        self.nodes.insert(self.nodes_made, Node::durable(bytes));
        let replaced = self.names.insert(path.to_owned(), self.nodes_made);
        if let Some(replaced) = replaced {
            self.nodes.remove(&replaced);
        }
    }

    pub(super) fn open(&mut self, number: NodeNumber) {
        self.node(number).handles += 1;
    }

    /// A handle is gone.
    pub(super) fn close(&mut self, number: NodeNumber) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.handles = node.handles.saturating_sub(1);
        }
    }

    /// The process ended: nothing is open any more, and what was at the drive is over before another process starts.
    pub(super) fn close_all(&mut self) {
        self.nodes.values_mut().for_each(Node::process_ended);
        for change in &mut self.name_changes {
            (change.done_at, change.doomed) = (Duration::ZERO, false);
        }
        self.collect();
    }

    pub(super) fn create(&mut self, path: &Path, done_at: Duration) -> NodeNumber {
        self.nodes_made += 1;
        let number = self.nodes_made;
        self.nodes.insert(number, Node::durable(&[]));
        self.change(path, &[(path, Some(number))], done_at);
        number
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path, done_at: Duration) -> io::Result<()> {
        let number = self.find(from)?;
        self.change(to, &[(from, None), (to, Some(number))], done_at);
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path, done_at: Duration) -> io::Result<()> {
        self.find(path)?;
        self.change(path, &[(path, None)], done_at);
        Ok(())
    }

    /// Gives names new meanings, in the directory of `path`.
    fn change(&mut self, path: &Path, changes: &[(&Path, Option<NodeNumber>)], done_at: Duration) {
        let mut before = Vec::new();
        for (path, number) in changes {
            before.push(((*path).to_owned(), self.name(path, *number)));
        }
        self.name_changes.push(NameChange { directory: directory_of(path), before, done_at, doomed: false });
    }

    /// Gives a name a meaning; answers its old one.
    fn name(&mut self, path: &Path, number: Option<NodeNumber>) -> Option<NodeNumber> {
        let old = match number {
            Some(number) => self.names.insert(path.to_owned(), number),
            None => self.names.remove(path),
        };
        if let Some(old) = old {
            self.node(old).named = self.names.values().any(|number| *number == old);
        }
        if let Some(number) = number {
            self.node(number).named = true;
        }
        old
    }

    /// A flush of the directory that began at `began` is done.
    pub(super) fn directory_flushed(&mut self, directory: &Path, began: Duration) -> io::Result<()> {
        let covered = |change: &NameChange| change.directory == directory && change.done_at <= began;
        // Changes of a directory survive in their order: none does for certain that comes after a doomed one.
        let doomed = self.name_changes.iter().position(|change| change.directory == directory && change.doomed);
        let certain = &self.name_changes[..doomed.unwrap_or(self.name_changes.len())];
        if let Some(last) = certain.iter().rposition(covered) {
            let mut index = 0;
            self.name_changes.retain(|change| {
                index += 1;
                index - 1 > last || change.directory != directory
            });
            self.collect();
        }
        if doomed.is_some() { Err(Errno::IO.into()) } else { Ok(()) }
    }

    /// A flush of the directory that began at `began` failed.
    pub(super) fn directory_flush_failed(&mut self, directory: &Path, began: Duration) {
        let covered = |change: &&mut NameChange| change.directory == directory && change.done_at <= began;
        self.name_changes.iter_mut().filter(covered).for_each(|change| change.doomed = true);
    }

    /// Forgets files that nothing can lead to any more.
    fn collect(&mut self) {
        let mut kept: BTreeSet<NodeNumber> = self.names.values().copied().collect();
        kept.extend(self.name_changes.iter().flat_map(|change| &change.before).filter_map(|(_, number)| *number));
        self.nodes.retain(|number, node| node.handles > 0 || kept.contains(number));
    }

    pub(super) fn list(&self, directory: &Path) -> Vec<String> {
        let names = self.names.keys().filter(|path| path.parent() == Some(directory));
        names.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect()
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.names.keys().cloned().collect()
    }

    /// How many blocks are free. What was removed takes space for as long as it is open.
    pub(super) fn blocks_free(&self) -> u64 {
        let lives = self.nodes.values().filter(|node| node.named || node.handles > 0);
        let taken: u64 = lives.map(|node| node.blocks_taken).sum();
        (self.settings.capacity_bytes / BLOCK as u64).saturating_sub(taken)
    }

    /// Writes, unless the drive is full or a fault will have it otherwise.
    pub(super) fn write(
        &mut self,
        number: NodeNumber,
        offset: u64,
        bytes: &[u8],
        fault: Option<Fault>,
        done_at: Duration,
    ) -> io::Result<()> {
        let lacks = self.node(number).lacks(offset, bytes.len() as u64);
        if lacks > 0 && lacks > self.blocks_free() || fault == Some(Fault::NoSpace) {
            return Err(Errno::NOSPC.into());
        }
        let mut some = || self.dice.index(bytes.len() / BLOCK + 1) * BLOCK;
        match fault {
            Some(Fault::Error) => {
                let written = some();
                self.node(number).write(offset, &bytes[..written], done_at);
                Err(Errno::IO.into())
            }
            Some(Fault::Short) => {
                let written = some().min(bytes.len() - BLOCK);
                self.node(number).write(offset, &bytes[..written], done_at);
                Err(io::ErrorKind::WriteZero.into())
            }
            Some(Fault::Dropped) => Ok(()),
            Some(Fault::Misdirected) => {
                let (other, elsewhere, fits) = self.elsewhere(number, bytes.len());
                self.node(other).write(elsewhere, &bytes[..fits], done_at);
                Ok(())
            }
            _ => {
                self.node(number).write(offset, bytes, done_at);
                Ok(())
            }
        }
    }

    /// Any place of the file or of another one in its directory, and how much fits there.
    fn elsewhere(&mut self, number: NodeNumber, bytes: usize) -> (NodeNumber, u64, usize) {
        let directory = self.name_of(number).map(|path| directory_of(&path));
        let siblings: Vec<NodeNumber> = match directory {
            Some(directory) if self.dice.roll(2) == 0 => {
                let siblings = self.names.iter().filter(|(path, _)| path.parent() == Some(&directory));
                siblings.map(|(_, number)| *number).collect()
            }
            _ => vec![number],
        };
        let other = siblings[self.dice.index(siblings.len())];
        let blocks = usize::try_from(self.node(other).bytes()).expect("fits") / BLOCK;
        let at = self.dice.index(blocks.max(1));
        (other, (at * BLOCK) as u64, bytes.min((blocks - at.min(blocks)) * BLOCK))
    }

    /// Flips a bit of what the stretch holds, for good.
    pub(super) fn rot(&mut self, number: NodeNumber, offset: u64, bytes: usize) {
        let at = offset + self.dice.roll(bytes as u64);
        let bit = u8::try_from(self.dice.roll(8)).expect("below eight");
        self.node(number).flip(at, bit);
    }

    /// The power goes.
    pub(super) fn lose_power(&mut self, loss: &mut Loss<'_>) {
        let changes = std::mem::take(&mut self.name_changes);
        let mut directories: BTreeMap<&Path, (u64, u64)> = BTreeMap::new();
        for change in &changes {
            directories.entry(&change.directory).or_default().0 += 1;
        }
        for (most, kept) in directories.values_mut() {
            loss.begin_change();
            *kept = loss.of(*most);
        }
        for change in changes.iter().rev() {
            let (left, kept) = directories.get_mut(change.directory.as_path()).expect("counted");
            *left -= 1;
            if *left >= *kept {
                for (path, number) in change.before.iter().rev() {
                    self.name(path, *number);
                }
            }
        }
        self.close_all();
        let mut numbers: Vec<_> = self.nodes.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            self.node(number).lose_power(loss);
        }
    }
}

fn directory_of(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}
