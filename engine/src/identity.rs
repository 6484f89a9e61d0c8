//! Whose volume a directory is, and the making of one.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;
use crate::format::{Damage, Superblock};

/// The file that makes a directory a volume.
pub(crate) const SUPERBLOCK_FILE: &str = "volume.deadwax";
const SUPERBLOCK_FILE_NEW: &str = "volume.deadwax.new";
/// Where its segments are.
pub(crate) const SEGMENTS_DIR: &str = "segments";
/// Where the snapshots of its handles are.
pub(crate) const SNAPSHOTS_DIR: &str = "snapshots";

/// The name of a volume: 16 random bytes, drawn once. Written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(pub [u8; 16]);

/// The text is not a volume id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected 32 hexadecimal digits")]
pub struct BadVolumeId;

/// Which volume it is, and of which node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VolumeIdentity {
    /// The volume.
    pub volume: VolumeId,
    /// The node that it belongs to.
    pub node: [u8; 32],
}

/// Makes `dir` a volume; creates the directory where there is none. Durable on return.
///
/// Refuses a directory that is a volume already, that holds anything, or that cannot be written. Blocks: call it before
/// executors run.
pub fn format_volume(dir: &Path, identity: &VolumeIdentity) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(|source| Error::io("create directory", dir, source))?;
    if read_identity(dir)?.is_some() {
        return Err(Error::Invalid(format!("{} is a volume already: nothing was changed", dir.display())));
    }
    let entries = fs::read_dir(dir).map_err(|source| Error::io("list", dir, source))?;
    for entry in entries {
        let name = entry.map_err(|source| Error::io("list", dir, source))?.file_name();
        // A format that was cut off left these; a drive's own file system has the last.
        if ![SUPERBLOCK_FILE_NEW, SEGMENTS_DIR, SNAPSHOTS_DIR, "lost+found"].iter().any(|known| name == *known) {
            let name = name.to_string_lossy();
            return Err(Error::Invalid(format!("{} is not empty (it holds {name}): name another", dir.display())));
        }
    }
    for folder in [SEGMENTS_DIR, SNAPSHOTS_DIR].map(|name| dir.join(name)) {
        fs::create_dir_all(&folder).map_err(|source| Error::io("create directory", &folder, source))?;
    }
    let new = dir.join(SUPERBLOCK_FILE_NEW);
    let write = || {
        let mut file = fs::File::create(&new)?;
        file.write_all(&Superblock(*identity).encode())?;
        file.sync_all()?;
        fs::rename(&new, dir.join(SUPERBLOCK_FILE))?;
        fs::File::open(dir)?.sync_all()
    };
    write().map_err(|source| Error::io("write", &new, source))
}

/// Whose volume `dir` is; nothing where it is none yet. Blocks.
///
/// Errors: Unsupported for a newer version's, Corrupt for bytes that are no superblock, Io.
pub fn read_identity(dir: &Path) -> Result<Option<VolumeIdentity>, Error> {
    let path = dir.join(SUPERBLOCK_FILE);
    match fs::read(&path) {
        Ok(bytes) => parse(&path, &bytes).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::io("read", &path, source)),
    }
}

/// The identity in the superblock's bytes.
pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<VolumeIdentity, Error> {
    match Superblock::decode(bytes) {
        Ok(superblock) => Ok(superblock.0),
        Err(damage @ (Damage::Version(_) | Damage::Feature(_))) => {
            Err(Error::Unsupported { path: path.to_owned(), what: damage.to_string() })
        }
        Err(damage) => {
            let what = format!("{damage}: it is not a deadwax volume, or the drive lost it");
            Err(Error::CorruptFile { path: path.to_owned(), what })
        }
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VolumeId({self})")
    }
}

impl FromStr for VolumeId {
    type Err = BadVolumeId;

    fn from_str(text: &str) -> Result<Self, BadVolumeId> {
        if text.len() != 32 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(BadVolumeId);
        }
        u128::from_str_radix(text, 16).map(|value| Self(value.to_be_bytes())).map_err(|_| BadVolumeId)
    }
}

/// Text for people's formats (JSON, TOML), 16 bytes for programs' (bincode).
impl Serialize for VolumeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for VolumeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            <[u8; 16]>::deserialize(deserializer).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_id_is_32_digits() {
        let id = VolumeId([0xab; 16]);
        assert_eq!(id.to_string(), "ab".repeat(16));
        assert_eq!("AB".repeat(16).parse(), Ok(id));
        assert_eq!("+b".repeat(16).parse::<VolumeId>(), Err(BadVolumeId));
        assert_eq!("ab".parse::<VolumeId>(), Err(BadVolumeId));
    }
}
