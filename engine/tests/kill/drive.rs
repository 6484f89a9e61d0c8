//! A small drive of its own: a file system in a file, mounted for as long as a test needs it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use deadwax_track::MIB;
use tempfile::TempDir;

/// What the drive is formatted with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FileSystem {
    /// 64 MiB, of which its journal takes some.
    Ext4,
    /// 300 MiB: mkfs.xfs makes none that are smaller.
    #[allow(dead_code, reason = "one of the two tests that share this file takes ext4 alone")]
    Xfs,
}

impl FileSystem {
    fn bytes(self) -> u64 {
        match self {
            Self::Ext4 => 64 * MIB,
            Self::Xfs => 300 * MIB,
        }
    }

    /// The command that formats an image. Nothing is kept back for root, who may run the test.
    fn format(self) -> Vec<&'static str> {
        match self {
            Self::Ext4 => vec!["mkfs.ext4", "-q", "-F", "-m", "0"],
            Self::Xfs => vec!["mkfs.xfs", "-q", "-f"],
        }
    }
}

/// A mounted drive. Unmounted when dropped, also by a test that fails; what a killed test leaves, the next one takes away.
pub(crate) struct LoopDrive {
    mount: PathBuf,
    /// Holds the image; removed after the mount is gone.
    _dir: TempDir,
}

impl LoopDrive {
    /// Makes and mounts a drive, or says why that is not possible here.
    pub(crate) fn mount(file_system: FileSystem) -> Result<Self, String> {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        sweep(parent);
        let dir = TempDir::with_prefix_in(prefix(std::process::id()), parent).expect("a directory");
        let image = dir.path().join("image");
        let sized = File::create(&image).and_then(|file| file.set_len(file_system.bytes()));
        sized.expect("an image");
        let command = file_system.format();
        run(Command::new(command[0]).args(&command[1..]).arg(&image))?;
        let mount = dir.path().join("mount");
        fs::create_dir(&mount).expect("a directory");
        run(Command::new("mount").args(["-o", "loop"]).args([&image, &mount]))?;
        Ok(Self { mount, _dir: dir })
    }

    /// The same; where it is not possible, says so past the test harness, which keeps what tests print.
    #[allow(dead_code, reason = "one of the two tests that share this file has stand-ins")]
    pub(crate) fn mount_or_skip(file_system: FileSystem, what: &str) -> Option<Self> {
        match Self::mount(file_system) {
            Ok(drive) => Some(drive),
            Err(why) => {
                let line = format!("\nSKIPPED, NOT TESTED: {what} on a small {file_system:?} drive: {why}\n");
                std::io::stderr().write_all(line.as_bytes()).expect("stderr takes it");
                None
            }
        }
    }

    /// Its root directory.
    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }
}

impl Drop for LoopDrive {
    fn drop(&mut self) {
        unmount(&self.mount);
    }
}

/// At once if it can be, else when the last file on it closes.
fn unmount(mount: &Path) {
    if run(Command::new("umount").arg(mount)).is_err()
        && let Err(why) = run(Command::new("umount").arg("--lazy").arg(mount))
    {
        eprintln!("a loop mount stays: {why}");
    }
}

fn prefix(process: u32) -> String {
    format!("loop-{process}-")
}

/// Unmounts and removes what tests left that were killed: their directories name the process.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).expect("lists").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix("loop-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            unmount(&entry.path().join("mount"));
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", command.get_program().display(), String::from_utf8_lossy(&output.stderr).trim()))
}
