//! Whether a directory's drive rotates, as sysfs tells.

use std::path::{Path, PathBuf};

use crate::config::Rotating;

/// Whether the drive under `dir` rotates. What cannot be told counts as no.
pub(crate) fn rotates(dir: &Path, setting: Rotating) -> bool {
    match setting {
        Rotating::Yes => true,
        Rotating::No => false,
        Rotating::Detect => detect(dir).unwrap_or(false),
    }
}

fn detect(dir: &Path) -> Option<bool> {
    let device = rustix::fs::stat(dir).ok()?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let entry = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    told(&entry)
}

/// `entry` is a drive's directory in sysfs, or a partition's, which lies inside it.
fn told(entry: &Path) -> Option<bool> {
    let drive: PathBuf = [Some(entry), entry.parent()].into_iter().flatten().find(|d| d.join("queue").is_dir())?.into();
    // virtio has no word for it: the kernel's default stands there, which says that it rotates.
    let driver = std::fs::read_link(drive.join("device/driver")).ok();
    if driver.as_deref().and_then(Path::file_name).is_some_and(|name| name == "virtio_blk") {
        return None;
    }
    Some(std::fs::read_to_string(drive.join("queue/rotational")).ok()?.trim() == "1")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_partition_is_as_its_drive_and_virtio_is_not_believed() {
        let sys = tempfile::tempdir().expect("temporary directory");
        let drive = sys.path().join("sda");
        let partition = drive.join("sda1");
        fs::create_dir_all(drive.join("queue")).expect("made");
        fs::create_dir_all(drive.join("device")).expect("made");
        fs::create_dir_all(&partition).expect("made");
        fs::write(drive.join("queue/rotational"), "1\n").expect("written");
        assert_eq!(told(&drive), Some(true));
        assert_eq!(told(&partition), Some(true));
        symlink("/sys/bus/virtio/drivers/virtio_blk", drive.join("device/driver")).expect("linked");
        assert_eq!(told(&partition), None);
        fs::remove_file(drive.join("device/driver")).expect("removed");
        fs::write(drive.join("queue/rotational"), "0\n").expect("written");
        assert_eq!(told(&partition), Some(false));
        assert_eq!(told(sys.path()), None);
    }

    #[test]
    fn the_setting_overrides() {
        let dir = Path::new("/");
        assert!(rotates(dir, Rotating::Yes));
        assert!(!rotates(dir, Rotating::No));
    }
}
