//! Whether this machine can run a node, asked before anything is started.
//!
//! Each probe really does the thing (sets up a ring, writes a block), and says what to do where it fails. `run` refuses
//! to start on the first [`Verdict::Unfit`]; `deadwax doctor` shows all.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use deadwax_track::{KIB, MIB};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The oldest kernel on which glommio's rings work at all.
const KERNEL_MIN: (u32, u32) = (5, 8);
/// The oldest on which they were run in earnest (hole punching and polls through the ring behave).
const KERNEL_GOOD: (u32, u32) = (5, 15);
/// Below this, rings cannot be made; glommio's own limit.
const MEMLOCK_BYTES_MIN: u64 = 512 * KIB;
const OPEN_FILES_MIN: u64 = 1024;
const FREE_BYTES_MIN: u64 = 2 * 1024 * MIB;
const BLOCK_BYTES: usize = 4096;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// As it should be.
    Fit,
    /// A node runs, but not well.
    Poor,
    /// A node does not run.
    Unfit,
}

/// What one probe found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// What was looked at, such as `io_uring`.
    pub name: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where nothing needs doing.
    pub advice: String,
}

impl Check {
    fn new(name: &'static str, verdict: Verdict, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, verdict, found: found.into(), advice: advice.into() }
    }

    fn fit(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Verdict::Fit, found, "")
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.found)?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, "; {}", self.advice) }
    }
}

/// All probes of the machine, then those of each data directory.
#[must_use]
pub fn all<'a>(dirs: impl IntoIterator<Item = &'a Path>) -> Vec<Check> {
    let mut checks = vec![kernel(), io_uring(), memlock(), open_files()];
    for dir in dirs {
        checks.push(direct_io(dir));
        checks.push(free_space(dir));
    }
    checks
}

/// The kernel's version.
#[must_use]
pub fn kernel() -> Check {
    let name = "kernel";
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        return Check::new(name, Verdict::Poor, format!("version {release:?} is not understood"), "check it by hand");
    };
    let advice = format!("use Linux {}.{} or newer", KERNEL_GOOD.0, KERNEL_GOOD.1);
    match (major, minor) {
        version if version < KERNEL_MIN => Check::new(name, Verdict::Unfit, format!("Linux {release}"), advice),
        version if version < KERNEL_GOOD => Check::new(name, Verdict::Poor, format!("Linux {release}"), advice),
        _ => Check::fit(name, format!("Linux {release}")),
    }
}

/// Whether the kernel, and whatever confines this process, permit io_uring. Makes a ring and runs an operation on it.
#[must_use]
pub fn io_uring() -> Check {
    let name = "io_uring";
    let ran = io_uring::IoUring::new(8).and_then(|mut ring| {
        let nop = io_uring::opcode::Nop::new().build();
        // SAFETY: a no-op refers to no memory.
        unsafe { ring.submission().push(&nop) }.map_err(|_| io::Error::other("a new ring is full"))?;
        ring.submit_and_wait(1)
    });
    let advice = match &ran {
        Ok(_) => return Check::fit(name, "permitted"),
        Err(why) => match why.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => {
                "it is blocked: in a container use a seccomp profile that allows io_uring_setup, io_uring_enter and \
                 io_uring_register (docker: --security-opt seccomp=unconfined); elsewhere set sysctl \
                 kernel.io_uring_disabled=0"
            }
            Some(rustix::io::Errno::NOSYS) => {
                "the kernel was built without io_uring, or a sandbox hides it: use another kernel or sandbox"
            }
            Some(rustix::io::Errno::NOMEM) => "raise the limit of locked memory: ulimit -l 65536",
            _ => "see the system's log",
        },
    };
    let why = ran.map_or_else(|why| why.to_string(), |_| String::new());
    Check::new(name, Verdict::Unfit, format!("cannot make a ring: {why}"), advice)
}

/// How much memory the process may lock: rings need a little.
#[must_use]
pub fn memlock() -> Check {
    memlock_of(getrlimit(Resource::Memlock).current)
}

fn memlock_of(limit: Option<u64>) -> Check {
    let name = "memlock";
    let advice = "raise it: ulimit -l 65536, LimitMEMLOCK=64M in the systemd unit, or /etc/security/limits.conf";
    match limit {
        None => Check::fit(name, "unlimited"),
        Some(bytes) if bytes < MEMLOCK_BYTES_MIN => {
            let found = format!("{} KiB may be locked, rings need {}", bytes / KIB, MEMLOCK_BYTES_MIN / KIB);
            Check::new(name, Verdict::Unfit, found, advice)
        }
        // The slabs are not registered on purpose (see slab.rs), so that more than the rings' own need gains nothing.
        Some(bytes) if bytes < 8 * MEMLOCK_BYTES_MIN => {
            Check::new(name, Verdict::Poor, format!("{} KiB: few rings fit", bytes / KIB), advice)
        }
        Some(bytes) => Check::fit(name, format!("{} KiB", bytes / KIB)),
    }
}

/// How many files and connections the process may have open.
#[must_use]
pub fn open_files() -> Check {
    let name = "open files";
    match getrlimit(Resource::Nofile).maximum {
        Some(most) if most < OPEN_FILES_MIN => Check::new(
            name,
            Verdict::Poor,
            format!("at most {most}"),
            "raise it: ulimit -n 65536, or LimitNOFILE=65536",
        ),
        Some(most) => Check::fit(name, format!("up to {most}")),
        None => Check::fit(name, "unlimited"),
    }
}

/// Raises the soft limit of open files to the hard one. Failing is no error: the limit then shows when it is reached.
pub(crate) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(why) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%why, "cannot raise the limit of open files");
        }
    }
}

/// A block as O_DIRECT wants it in memory.
#[repr(C, align(4096))]
struct Block([u8; BLOCK_BYTES]);

/// Whether `dir`'s file system takes O_DIRECT: writes a block, flushes it, reads it back, and removes it. One that is
/// full is `Poor`.
#[must_use]
pub fn direct_io(dir: &Path) -> Check {
    let name = "direct I/O";
    match write_and_read_a_block(dir) {
        Ok(()) => {
            Check::fit(name, format!("{}: a block was written with O_DIRECT, flushed and read back", dir.display()))
        }
        // What is stored there is read and taken down as ever.
        Err(why) if matches!(why.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            let found = format!("{}: {why}: it takes no more tracks", dir.display());
            Check::new(name, Verdict::Poor, found, "free some space, or add a drive")
        }
        Err(why) => {
            let advice = match why.kind() {
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => {
                    "its file system has no O_DIRECT: use ext4 or xfs on a drive"
                }
                io::ErrorKind::PermissionDenied => "make it writable by the user that runs the node",
                io::ErrorKind::NotFound => "make the directory, or mount its drive",
                io::ErrorKind::ReadOnlyFilesystem => "remount it read-write; a drive that failed is often remounted so",
                _ => "see the system's log",
            };
            Check::new(name, Verdict::Unfit, format!("{}: {why}", dir.display()), advice)
        }
    }
}

fn write_and_read_a_block(dir: &Path) -> io::Result<()> {
    let path = dir.join(format!(".deadwax-fitness-{}-{:?}", std::process::id(), std::thread::current().id()));
    let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).expect("an open flag fits");
    let file = OpenOptions::new().read(true).write(true).create_new(true).custom_flags(direct).open(&path)?;
    let result = exercise(&file);
    fs::remove_file(&path)?;
    result
}

fn exercise(mut file: &File) -> io::Result<()> {
    let written = Block([0xd7; BLOCK_BYTES]);
    let mut read = Block([0; BLOCK_BYTES]);
    file.write_all(&written.0)?;
    file.sync_data()?;
    file.read_exact_at(&mut read.0, 0)?;
    if read.0 == written.0 { Ok(()) } else { Err(io::Error::other("the block came back different")) }
}

/// How much space `dir`'s file system has left.
#[must_use]
pub fn free_space(dir: &Path) -> Check {
    let name = "free space";
    match rustix::fs::statvfs(dir) {
        Err(why) => Check::new(
            name,
            Verdict::Unfit,
            format!("{}: {why}", dir.display()),
            "make the directory, or mount its drive",
        ),
        Ok(stat) => {
            let free = stat.f_bavail * stat.f_frsize;
            let found = format!("{}: {} MiB of {}", dir.display(), free / MIB, stat.f_blocks * stat.f_frsize / MIB);
            if free < FREE_BYTES_MIN {
                Check::new(name, Verdict::Poor, found, "few tracks fit: free some space or use a larger drive")
            } else {
                Check::fit(name, found)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_is_probed_and_left_as_it_was() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let checks = all([dir.path()]);
        assert_eq!(checks.len(), 6);
        assert!(checks.iter().all(|check| check.verdict != Verdict::Unfit), "{checks:?}");
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
    }

    #[test]
    fn what_is_unfit_says_what_to_do() {
        let check = direct_io(Path::new("/nowhere/at/all"));
        assert_eq!(check.verdict, Verdict::Unfit);
        assert!(check.to_string().contains("make the directory"), "{check}");
        let check = memlock_of(Some(64 * KIB));
        assert_eq!(check.verdict, Verdict::Unfit);
        assert!(check.to_string().contains("ulimit -l"), "{check}");
        assert_eq!(memlock_of(None).verdict, Verdict::Fit);
        let check = direct_io(Path::new("/proc"));
        assert_eq!(check.verdict, Verdict::Unfit, "{check}");
    }
}
