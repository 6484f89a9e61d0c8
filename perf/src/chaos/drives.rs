//! Drives of our own: a file system in a file for each master, that can be filled, taken away, and made to rot.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::process::Signal;

use super::corpus::Sample;
use super::fault::{Claim, PLACES, name};
use super::site::{Files, Site};
use super::stage::run;
use crate::tracks::Random;

/// What a record begins at a multiple of, and so each of its frames.
const BLOCK_BYTES: usize = 4096;
/// Tracks that one rotting spoils.
const ROT_TRACKS: usize = 3;
/// Bytes of a track by which its frame is found.
const NEEDLE_BYTES: usize = 64;

/// A drive fails, or what is on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DriveFault {
    /// All room is taken by something else.
    Fill { node: usize },
    /// Whatever would change the file system waits until it is lifted.
    Hang { node: usize },
    /// The file system is gone; it is mounted again, and the node told, when lifted.
    Unmount { node: usize },
    /// A bit flips in some tracks.
    Rot { node: usize, salt: u64 },
    /// A segment's file is removed while the node runs; it is killed and started anew when lifted.
    LoseSegment { node: usize, salt: u64 },
}

impl DriveFault {
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Fill { .. } => "full_drive",
            Self::Hang { .. } => "hung_drive",
            Self::Unmount { .. } => "unmount",
            Self::Rot { .. } => "rot",
            Self::LoseSegment { .. } => "lost_segment",
        }
    }

    pub(crate) fn claims(&self) -> Vec<Claim> {
        match *self {
            Self::Fill { node } | Self::Rot { node, .. } => vec![Claim::Drive(node)],
            // Who waits for a file system that hangs cannot be killed either.
            Self::Hang { node } | Self::Unmount { node } | Self::LoseSegment { node, .. } => {
                vec![Claim::Drive(node), Claim::Master(node)]
            }
        }
    }

    /// `samples` are of tracks that the cluster has acknowledged.
    pub(crate) fn begin(&self, site: &mut Site, samples: &[Sample]) -> anyhow::Result<()> {
        match *self {
            Self::Fill { node } => fill(&site.files, node),
            Self::Hang { node } => run("fsfreeze", &["--freeze", path(&site.files.drive(node))?]),
            Self::Unmount { node } => run("umount", &["--lazy", path(&site.files.drive(node))?]),
            Self::Rot { node, salt } => {
                let rotten = rot(&site.files.segments(node), samples, salt)?;
                site.journal.say(format_args!("{} tracks rot on {}", rotten.len(), name(node)));
                site.rotten.extend(rotten);
                Ok(())
            }
            Self::LoseSegment { node, salt } => {
                let segments = files_of(&site.files.segments(node))?;
                if segments.is_empty() {
                    // It was drained, and is only started anew.
                    site.journal.say(format_args!("{} has no segment to lose", name(node)));
                    return Ok(());
                }
                let lost = &segments[index(&mut Random::new(salt), segments.len())];
                site.journal.say(format_args!("{} is removed", lost.display()));
                fs::remove_file(lost).with_context(|| format!("remove {}", lost.display()))
            }
        }
    }

    pub(crate) fn lift(&self, site: &mut Site) -> anyhow::Result<()> {
        match *self {
            Self::Fill { node } => Ok(fs::remove_file(filler(&site.files, node))?),
            Self::Hang { node } => run("fsfreeze", &["--unfreeze", path(&site.files.drive(node))?]),
            Self::Unmount { node } => {
                mount(&site.files.drive(node))?;
                site.fleet.signal_master(node, Signal::HUP)
            }
            Self::Rot { .. } => Ok(()),
            Self::LoseSegment { node, .. } => {
                site.fleet.kill_master(node)?;
                site.fleet.start_master(node, None)
            }
        }
    }
}

impl fmt::Display for DriveFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Fill { node } => write!(f, "the drive of {} is full", name(node)),
            Self::Hang { node } => write!(f, "the drive of {} hangs", name(node)),
            Self::Unmount { node } => write!(f, "the drive of {} is unmounted", name(node)),
            Self::Rot { node, .. } => write!(f, "bits flip on the drive of {}", name(node)),
            Self::LoseSegment { node, .. } => write!(f, "a segment of {} is removed, and it starts anew", name(node)),
        }
    }
}

/// Makes and mounts a drive of `bytes`.
pub(crate) fn build(drive: &Path, bytes: u64) -> anyhow::Result<()> {
    let image = image(drive);
    fs::create_dir_all(drive)?;
    File::create(&image)?.set_len(bytes)?;
    // Few inodes: their tables are written out in the background, and the image is to stay a sparse file.
    run("mkfs.ext4", &["-q", "-F", "-m", "0", "-i", "1048576", "-E", "nodiscard", path(&image)?])?;
    mount(drive)
}

/// Takes a drive away, where there is one, with all that is on it.
pub(crate) fn destroy(drive: &Path, staged: bool) -> anyhow::Result<()> {
    if staged && drive.exists() {
        run("umount", &["--lazy", path(drive)?])?;
        fs::remove_file(image(drive))?;
    }
    remove(drive)
}

/// What is on a drive.
fn image(drive: &Path) -> PathBuf {
    drive.with_extension("image")
}

/// Removes a folder, where there is one.
pub(crate) fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => {
            Err(why).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Takes all drives away, for their files to be removed.
pub(crate) fn unmount_all(files: &Files) {
    for drive in (0..PLACES).flat_map(|node| [files.drive(node), files.second(node)]) {
        if let Ok(drive) = path(&drive) {
            // One that does not hang, or is not mounted, does not, and is not.
            drop(run("fsfreeze", &["--unfreeze", drive]));
            drop(run("umount", &["--lazy", drive]));
        }
    }
}

fn mount(drive: &Path) -> anyhow::Result<()> {
    run("mount", &["-o", "loop", path(&image(drive))?, path(drive)?])
}

fn fill(files: &Files, node: usize) -> anyhow::Result<()> {
    let file = File::create(filler(files, node))?;
    // The node takes room meanwhile: what is left then is taken bit by bit.
    for _ in 0..8 {
        let stat = statvfs(files.drive(node))?;
        let (free, held) = (stat.f_bavail * stat.f_frsize, file.metadata()?.len());
        match fallocate(&file, FallocateFlags::empty(), held, free.max(1)) {
            Ok(()) | Err(rustix::io::Errno::NOSPC) => {}
            Err(why) => return Err(why).context("fill a drive"),
        }
    }
    Ok(())
}

fn filler(files: &Files, node: usize) -> PathBuf {
    files.drive(node).join("filler")
}

/// A block that was made to rot.
#[derive(Clone, Debug)]
pub(crate) struct Rotten {
    path: PathBuf,
    at: u64,
    block: Vec<u8>,
}

impl Rotten {
    /// Whether the block is not there as it was spoilt: it was written anew elsewhere, and this one is a hole.
    pub(crate) fn is_mended(&self) -> bool {
        let mut block = vec![0; BLOCK_BYTES];
        match File::open(&self.path).and_then(|file| file.read_exact_at(&mut block, self.at)) {
            Ok(()) => block != self.block,
            Err(why) => matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof),
        }
    }
}

impl fmt::Display for Rotten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.path.display(), self.at)
    }
}

/// Flips a bit in some of these tracks, as far as they are in these segments.
fn rot(segments: &Path, samples: &[Sample], salt: u64) -> anyhow::Result<Vec<Rotten>> {
    let mut random = Random::new(salt);
    let mut rotten: Vec<Rotten> = Vec::new();
    let segments = files_of(segments)?;
    let held = segments.iter().map(fs::read).collect::<Result<Vec<_>, _>>().context("read segments")?;
    let first = index(&mut random, samples.len().max(1));
    for sample in samples.iter().cycle().skip(first).take(samples.len()) {
        if rotten.len() == ROT_TRACKS {
            break;
        }
        let Some((segment, at)) = held.iter().enumerate().find_map(|(at, held)| Some((at, find(held, sample)?))) else {
            continue;
        };
        let mut block = held[segment][at..at + BLOCK_BYTES].to_vec();
        let byte = index(&mut random, NEEDLE_BYTES);
        block[byte] ^= 1 << random.below(8);
        let (path, at) = (segments[segment].clone(), at as u64);
        let file = OpenOptions::new().write(true).open(&path)?;
        file.write_all_at(&block[byte..=byte], at + byte as u64).and_then(|()| file.sync_data())?;
        rotten.push(Rotten { path, at, block });
    }
    Ok(rotten)
}

/// Where a frame begins that has these bytes.
fn find(held: &[u8], sample: &Sample) -> Option<usize> {
    let needle = &sample.frame[..NEEDLE_BYTES];
    (0..held.len().checked_sub(BLOCK_BYTES)?).step_by(BLOCK_BYTES).find(|at| held[*at..].starts_with(needle))
}

fn files_of(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let list = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    let mut files = list().with_context(|| format!("list {}", folder.display()))?;
    files.sort();
    Ok(files)
}

fn index(random: &mut Random, bound: usize) -> usize {
    usize::try_from(random.below(bound as u64)).expect("below a usize")
}

pub(crate) fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
