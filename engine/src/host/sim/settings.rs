//! What a simulated machine is like, and what goes wrong with it.

use std::time::Duration;

use deadwax_track::MIB;

/// How a simulated machine behaves. All of it may change between two lives.
#[derive(Clone, Debug)]
pub struct SimSettings {
    /// All chance comes from it.
    pub seed: u64,
    /// The size of the file system. Default 1 GiB; only what is written takes memory.
    pub capacity_bytes: u64,
    /// Whether the file system can punch holes and tell where they are. Default yes.
    pub holes: bool,
    /// The order in which tasks run that could all run. Default random.
    pub order: Order,
    /// The shortest and the longest time of a device operation. Default 20 to 200 us.
    pub latency: (Duration, Duration),
    /// The device operation, counted from 1 in each life, at which the machine stops. Default none.
    pub cut_at: Option<u64>,
    /// What goes wrong. Default nothing.
    pub faults: SimFaults,
}

impl SimSettings {
    /// The default machine for the seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            capacity_bytes: 1024 * MIB,
            holes: true,
            order: Order::Random,
            latency: (Duration::from_micros(20), Duration::from_micros(200)),
            cut_at: None,
            faults: SimFaults::default(),
        }
    }
}

/// In which order do tasks run?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Any that could run is next.
    Random,
    /// The one that has waited longest is next.
    InTurn,
}

/// How often each fault happens, in a million operations of its kind, and faults at chosen operations.
#[derive(Clone, Debug, Default)]
pub struct SimFaults {
    /// Reads that fail with EIO.
    pub read_errors: u32,
    /// Writes that fail with EIO; some of their blocks may have been written.
    pub write_errors: u32,
    /// Flushes that fail with EIO: what they should have made durable stays uncertain, whatever later flushes say.
    pub flush_errors: u32,
    /// Punches that fail with EIO.
    pub punch_errors: u32,
    /// Files that cannot be opened or made: EIO.
    pub open_errors: u32,
    /// Renames, removes and flushes of directories that fail with EIO. What it should change is changed or not; what a flush
    /// should have made durable stays uncertain, whatever later flushes say.
    pub name_errors: u32,
    /// Looks for holes that fail with EIO.
    pub look_errors: u32,
    /// Preallocations that find no space.
    pub no_space: u32,
    /// Writes of which only the first blocks are written, which is an error.
    pub short_writes: u32,
    /// Writes that land at another place of the file, or in another file of the directory, and are acknowledged.
    pub misdirected_writes: u32,
    /// Writes that are acknowledged and do nothing.
    pub dropped_writes: u32,
    /// Reads that find a bit flipped, for good.
    pub bit_flips: u32,
    /// Operations that take [`SLOW`].
    pub slow: u32,
    /// Operations that never end.
    pub hangs: u32,
    /// What happens at an operation, counted from 1 in each life.
    pub planned: Vec<(u64, Fault)>,
}

/// How long does an operation take that a fault made slow?
pub const SLOW: Duration = Duration::from_secs(2);

/// Something that goes wrong with one operation. One that makes no sense for it does nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// EIO.
    Error,
    /// ENOSPC.
    NoSpace,
    /// Only the first blocks are written, and that is said.
    Short,
    /// The bytes are written elsewhere.
    Misdirected,
    /// The bytes are written nowhere.
    Dropped,
    /// A bit of what is read is flipped on the drive.
    BitFlip,
    /// It takes [`SLOW`].
    Slow,
    /// It never ends.
    Hang,
}

/// The device operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Open,
    Read,
    Write,
    Flush,
    Punch,
    Preallocate,
    /// Where in a file there is data.
    Look,
    /// Rename, remove, flush of a directory.
    Name,
}

impl SimFaults {
    /// What goes wrong with the operation.
    pub(super) fn draw(&self, kind: Kind, operation: u64, dice: &mut super::Dice) -> Option<Fault> {
        if let Some((_, fault)) = self.planned.iter().find(|(at, _)| *at == operation) {
            return Some(*fault);
        }
        let of_kind: &[(u32, Fault)] = match kind {
            Kind::Read => &[(self.read_errors, Fault::Error), (self.bit_flips, Fault::BitFlip)],
            Kind::Write => &[
                (self.write_errors, Fault::Error),
                (self.short_writes, Fault::Short),
                (self.misdirected_writes, Fault::Misdirected),
                (self.dropped_writes, Fault::Dropped),
            ],
            Kind::Flush => &[(self.flush_errors, Fault::Error)],
            Kind::Punch => &[(self.punch_errors, Fault::Error)],
            Kind::Preallocate => &[(self.no_space, Fault::NoSpace)],
            Kind::Look => &[(self.look_errors, Fault::Error)],
            Kind::Open => &[(self.open_errors, Fault::Error)],
            Kind::Name => &[(self.name_errors, Fault::Error)],
        };
        let of_all = [(self.slow, Fault::Slow), (self.hangs, Fault::Hang)];
        of_kind.iter().chain(&of_all).find(|(chance, _)| dice.happens(*chance)).map(|(_, fault)| *fault)
    }
}
