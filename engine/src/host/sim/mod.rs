//! A simulated machine: disk, executor, clock and chance in memory, all from one seed.
//!
//! A [`SimDisk`] outlives the machine that uses it. [`SimDisk::run`] is one life of the machine: it runs a main task and all
//! that it spawns on a [`SimHost`] until the main task ends, or until the device operation at which the life is to be cut. What was
//! not flushed is still readable then, as after the end of a process; [`SimDisk::lose_power`] takes it away in parts.
//!
//! ```text
//! what is not durable    until                                 and a power loss keeps
//! sectors of a write     a flush that began after its end      each sector or not
//! a preallocation        a flush of the file                   all or nothing, with the length
//! a punch                a flush of the file                   any number of its blocks, the last ones
//! names                  a flush of their directory            any number of a directory's changes, the first ones
//! ```
//!
//! A write to a hole may also leave zeros there. Space that was never written is a hole. Directories exist by being named.
//! A file that is made over another one is a new file: whoever has the old one open keeps it.
//!
//! The same seed and the same tasks give the same life, as long as nothing else that the tasks do depends on chance.
//! [`lives`] are random ones of a volume, compared with a map.

mod dice;
mod disk;
mod executor;
mod host;
pub mod lives;
mod loss;
mod machine;
mod node;
mod settings;
mod trace;

use std::cell::{RefCell, RefMut};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use self::disk::Disk;
use self::loss::Loss;
use self::machine::Machine;
use super::{Access, DirectorySpace, File, FileKey, Host, LockError, Priority};
use crate::format::Superblock;
use crate::identity::{SEGMENTS_DIR, SUPERBLOCK_FILE, VolumeIdentity};

pub use self::dice::Dice;
pub use self::executor::{Life, STUCK_AFTER};
pub use self::host::{SimFile, SimHost, SimTask};
pub use self::machine::{SimBuffer, SimLock};
pub use self::settings::{Fault, Order, SLOW, SimFaults, SimSettings};

/// A simulated drive with its file system. It lives from one life of the machine to the next.
pub struct SimDisk {
    disk: Rc<RefCell<Disk>>,
    operations: u64,
}

/// A copy, which goes its own way. Blocks are shared until one of the two writes them.
impl Clone for SimDisk {
    fn clone(&self) -> Self {
        Self { disk: Rc::new(RefCell::new(self.disk.borrow().clone())), operations: self.operations }
    }
}

impl SimDisk {
    /// An empty drive.
    #[must_use]
    pub fn new(settings: SimSettings) -> Self {
        Self { disk: Rc::new(RefCell::new(Disk::new(settings))), operations: 0 }
    }

    /// The settings, to be changed for the next life.
    pub fn settings(&mut self) -> RefMut<'_, SimSettings> {
        RefMut::map(self.disk.borrow_mut(), |disk| &mut disk.settings)
    }

    /// Puts a file there, durable with its name. `bytes` are whole 4 KiB blocks.
    pub fn install(&mut self, path: &Path, bytes: &[u8]) {
        self.disk.borrow_mut().install(path, bytes);
    }

    /// Makes `directory` a volume, as [`format_volume`](crate::format_volume) does on a real drive.
    pub fn format_volume(&mut self, directory: &Path, identity: &VolumeIdentity) {
        self.install(&directory.join(SUPERBLOCK_FILE), &Superblock(*identity).encode());
    }

    /// Runs one life of the machine. All its tasks, files and locks are gone on return.
    pub fn run<F: Future>(&mut self, main: impl FnOnce(SimHost) -> F) -> Life<F::Output> {
        let machine = Rc::new(Machine::new(self.disk.clone()));
        let life = machine.executor.run(main(SimHost { machine: machine.clone() }));
        self.operations = machine.operations();
        self.disk.borrow_mut().close_all();
        life
    }

    /// How many device operations the last life asked for.
    #[must_use]
    pub const fn operations(&self) -> u64 {
        self.operations
    }

    /// The power goes: of what is not durable, the seed says what survives.
    pub fn lose_power(&mut self) {
        let mut disk = self.disk.borrow_mut();
        let mut dice = Dice::new(disk.dice.number());
        disk.lose_power(&mut Loss::seeded(&mut dice));
    }

    /// The power goes: `choose` says what survives. It is asked again and again for a number below the one that it is given; the same
    /// answers from the same state give the same outcome, so all outcomes can be enumerated.
    pub fn lose_power_as(&mut self, choose: &mut dyn FnMut(u64) -> u64) {
        self.disk.borrow_mut().lose_power(&mut Loss::Chosen(choose));
    }

    /// The paths of all files.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.disk.borrow().paths()
    }

    /// What a file reads as; nothing where there is none.
    #[must_use]
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let mut disk = self.disk.borrow_mut();
        let node = disk.named(path)?;
        let mut bytes = Vec::new();
        let whole = node.read(0, usize::try_from(node.bytes()).expect("fits in memory"), &mut bytes);
        assert!(whole, "a file reads to its end");
        Some(bytes)
    }

    /// Flips a bit at rest: `bit` (0 to 7) of the byte at `offset`. Holes have no bits.
    pub fn flip(&mut self, path: &Path, offset: u64, bit: u8) {
        if let Some(node) = self.disk.borrow_mut().named(path) {
            node.flip(offset, bit);
        }
    }

    /// Writes down all that is asked of the drive from now on, with paths as seen from `base`.
    pub fn record(&mut self, base: &Path) {
        self.disk.borrow().trace.borrow_mut().begin(base);
    }

    /// What was written down since [`record`](Self::record): a line when an operation is begun, and one when it is done.
    pub fn recorded(&mut self) -> String {
        self.disk.borrow().trace.borrow_mut().take()
    }
}

/// Where a volume's segments are, in its directory.
#[must_use]
pub fn segments_of(directory: &Path) -> PathBuf {
    directory.join(SEGMENTS_DIR)
}
