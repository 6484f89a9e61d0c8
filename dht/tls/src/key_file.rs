//! Files of keys: 64 hexadecimal digits, readable by their owner only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use deadwax_dht::{NodeId, NodeKey};

use crate::KeyError;

/// Group and others may not even read the key.
const KEY_MODE: u32 = 0o600;
/// A file that is longer is no key: so much of it is never read.
const KEY_FILE_BYTES_MAX: u64 = 1_024;

/// The key in the file at `path`.
///
/// # Errors
/// There is none, others may read it, or it is damaged.
pub fn load_key(path: &Path) -> Result<NodeKey, KeyError> {
    let bad = |why: String| KeyError::Bad { path: path.to_owned(), why };
    let fail = |why: io::Error| match why.kind() {
        io::ErrorKind::NotFound => KeyError::Missing(path.to_owned()),
        _ => KeyError::Io { path: path.to_owned(), why },
    };
    let file = fs::metadata(path).map_err(fail)?;
    if file.len() > KEY_FILE_BYTES_MAX {
        return Err(bad(format!("it has {} bytes, a key has 64 digits", file.len())));
    }
    let mode = file.mode() & 0o777;
    if mode & !KEY_MODE != 0 {
        return Err(bad(format!("its mode is {mode:o}, others could read it: chmod 600 it")));
    }
    let text = fs::read_to_string(path).map_err(fail)?;
    // 32 bytes as hexadecimal digits are what a node's name is, too; only the parser is shared.
    let secret: NodeId = text.trim_end().parse().map_err(|why| bad(format!("it is damaged: {why}")))?;
    Ok(NodeKey::from_bytes(secret.as_bytes()))
}

/// The key in the file at `path`; where there is none it is made, durable on return, and never seen half written: a key
/// that was used once must not be lost.
///
/// # Errors
/// As [`load_key`], or the directory cannot be written.
pub fn load_or_make_key(path: &Path) -> Result<NodeKey, KeyError> {
    match load_key(path) {
        Err(KeyError::Missing(_)) => make_key(path),
        other => other,
    }
}

fn make_key(path: &Path) -> Result<NodeKey, KeyError> {
    let fail = |why: io::Error| KeyError::Io { path: path.to_owned(), why };
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)
        .map_err(|why| fail(io::Error::other(format!("no randomness from the system: {why}"))))?;
    let beside = path.with_added_extension("new");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(KEY_MODE).open(&beside)?;
        // A file that a crash left behind keeps its mode.
        file.set_permissions(fs::Permissions::from_mode(KEY_MODE))?;
        writeln!(file, "{}", NodeId::from_bytes(secret))?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    write().map_err(fail)?;
    Ok(NodeKey::from_bytes(&secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_from_others() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("some.key");
        assert!(matches!(load_key(&path), Err(KeyError::Missing(_))));
        let id = load_or_make_key(&path).expect("made").node_id();
        assert_eq!(load_or_make_key(&path).expect("there").node_id(), id);
        assert_eq!(load_key(&path).expect("there").node_id(), id);
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "nothing is left beside it");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
        let why = load_key(&path).expect_err("others may read it").to_string();
        assert!(why.contains("chmod 600"), "{why}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        for text in ["", "abcd", &"ab".repeat(1_000)] {
            fs::write(&path, text).expect("written");
            assert!(matches!(load_or_make_key(&path), Err(KeyError::Bad { .. })), "{text:?} is a key");
        }
    }
}
