//! A file that takes another's place, whole or not at all.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Whose mode bits are kept: all but the file's kind.
const MODE: u32 = 0o7777;

/// An empty file beside the one that it is to replace, with its mode, owner and group. Dropped before it is
/// [put](Self::put), it is removed; left behind by a process that was killed, it is in nobody's way.
pub struct Replacement {
    /// What is replaced: where it was named by a symbolic link, that which the link leads to.
    path: PathBuf,
    beside: PathBuf,
    file: File,
    is_put: bool,
}

impl Replacement {
    /// Makes the file, so that what keeps anybody from replacing `path` is known before anything else is done. What is
    /// in `path` stays until [`put`](Self::put).
    ///
    /// # Errors
    /// `path` is not there, its folder cannot be written, or its owner cannot be kept: only root can give files away.
    pub fn begin(path: &Path) -> anyhow::Result<Self> {
        Self::make(path).with_context(|| {
            format!(
                "cannot replace {}: run this as root, or as its owner where its folder may be written",
                path.display()
            )
        })
    }

    fn make(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let now = fs::metadata(&path)?;
        let mut name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
        name.push(".new");
        let beside = path.with_file_name(name);
        match fs::remove_file(&beside) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
            _ => {}
        }
        // Nobody else may read it before it has its owner.
        let file = File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
        let replacement = Self { path, beside, file, is_put: false };
        let made = replacement.file.metadata()?;
        if (made.uid(), made.gid()) != (now.uid(), now.gid()) {
            fchown(&replacement.file, Some(now.uid()), Some(now.gid()))?;
        }
        // After the owner: a change of owner takes mode bits away.
        replacement.file.set_permissions(Permissions::from_mode(now.mode() & MODE))?;
        Ok(replacement)
    }

    /// Puts it in place with this text. On return it is there for good; where it fails, or power is lost before, the file
    /// is as it was or as it is to be.
    pub fn put(mut self, text: &str) -> anyhow::Result<()> {
        self.write(text).with_context(|| format!("cannot write {}", self.path.display()))
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.file.write_all(text.as_bytes())?;
        self.file.sync_all()?;
        fs::rename(&self.beside, &self.path)?;
        self.is_put = true;
        let folder = self.path.parent().ok_or(io::ErrorKind::IsADirectory)?;
        File::open(folder)?.sync_all()
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.is_put {
            // Left behind, the next one removes it.
            drop(fs::remove_file(&self.beside));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder with a file of mode 0640 in it.
    fn folder() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("master.toml");
        fs::write(&path, "old").expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("its own");
        (dir, path)
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("readable");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8")).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn mode_and_owner_are_kept_and_a_link_leads_where_it_led() {
        let (dir, path) = folder();
        // Where this is root, another's file stays another's.
        let is_root = fchown(File::open(&path).expect("there"), Some(12_345), Some(54_321)).is_ok();
        let before = fs::metadata(&path).expect("there");
        let link = dir.path().join("link.toml");
        symlink("master.toml", &link).expect("linked");
        Replacement::begin(&link).expect("begun").put("new").expect("put");
        let after = fs::metadata(&path).expect("there");
        assert_eq!(fs::read_to_string(&path).expect("there"), "new");
        assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
        assert!(!is_root || after.uid() == 12_345);
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(names(dir.path()), ["link.toml", "master.toml"]);
    }

    #[test]
    fn what_is_begun_and_not_put_changes_nothing() {
        let (dir, path) = folder();
        let begun = Replacement::begin(&path).expect("begun");
        assert_eq!(fs::read_to_string(&path).expect("there"), "old");
        drop(begun);
        assert_eq!(names(dir.path()), ["master.toml"]);
        // As a process leaves it that was killed; or somebody who would have another file overwritten.
        let other = dir.path().join("other");
        fs::write(&other, "others'").expect("written");
        symlink(&other, dir.path().join("master.toml.new")).expect("linked");
        Replacement::begin(&path).expect("begun").put("new").expect("put");
        assert_eq!(fs::read_to_string(&path).expect("there"), "new");
        assert_eq!(fs::read_to_string(&other).expect("there"), "others'");
    }

    #[test]
    fn what_cannot_be_replaced_is_known_at_the_beginning() {
        let (dir, path) = folder();
        fs::create_dir(dir.path().join("master.toml.new")).expect("in the way");
        let why = Replacement::begin(&path).err().expect("refused");
        assert!(format!("{why:#}").contains("cannot replace"), "{why:#}");
        assert!(Replacement::begin(&dir.path().join("missing")).is_err());
        assert_eq!(fs::read_to_string(&path).expect("there"), "old");
    }
}
