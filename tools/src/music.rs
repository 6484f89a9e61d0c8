//! Finds music in files and folders.

use std::path::{Path, PathBuf};

use walkdir::WalkDir;

/// Files with these endings are taken for music where a folder is walked.
const ENDINGS: [&str; 18] = [
    "aac", "aif", "aifc", "aiff", "ape", "flac", "m4a", "m4b", "mp2", "mp3", "mpc", "oga", "ogg", "opus", "spx", "wav",
    "wave", "wv",
];

/// A place that was looked at in vain.
#[derive(Debug)]
pub struct Lost {
    /// What was asked for, or what in it could not be read.
    pub path: PathBuf,
    /// Why.
    pub error: String,
}

/// The music under each of `paths` in turn, sorted by name within a folder.
///
/// A file that was named itself is taken whatever its ending; in folders, endings decide. Links are followed, loops are
/// reported. Touches the file system as it goes: not for an async thread.
pub fn find(paths: &[PathBuf]) -> impl Iterator<Item = Result<PathBuf, Lost>> {
    paths.iter().flat_map(|path| {
        WalkDir::new(path).follow_links(true).sort_by_file_name().into_iter().filter_map(move |entry| match entry {
            Ok(entry) if entry.file_type().is_dir() => None,
            Ok(entry) if entry.depth() == 0 || is_music(entry.path()) => Some(Ok(entry.into_path())),
            Ok(_) => None,
            Err(error) => {
                let at = error.path().unwrap_or(path).to_owned();
                Some(Err(Lost { path: at, error: reason(&error) }))
            }
        })
    })
}

fn reason(error: &walkdir::Error) -> String {
    match (error.io_error(), error.loop_ancestor()) {
        (Some(error), _) => format!("cannot read: {error}"),
        (None, Some(ancestor)) => format!("a link back to {}", ancestor.display()),
        (None, None) => error.to_string(),
    }
}

fn is_music(path: &Path) -> bool {
    path.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| {
        let ending = ending.to_ascii_lowercase();
        ENDINGS.contains(&ending.as_str())
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn folders_give_music_in_order_and_named_files_always_count() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("b/c")).expect("created");
        for name in ["b/2.FLAC", "b/1.ogg", "b/cover.jpg", "b/c/3.wav", "a.txt"] {
            fs::write(at(name), "x").expect("written");
        }
        let odd = dir.path().join("b").join(OsStr::from_bytes(b"\xff\xfe.mp3"));
        fs::write(&odd, "x").expect("written");
        let found: Vec<PathBuf> = find(&[at("a.txt"), at("b")]).map(|path| path.expect("readable")).collect();
        assert_eq!(found, [at("a.txt"), at("b/1.ogg"), at("b/2.FLAC"), at("b/c/3.wav"), odd]);
    }

    #[test]
    fn what_is_not_there_and_loops_are_reported() {
        let dir = tempfile::tempdir().expect("a folder");
        symlink(dir.path(), dir.path().join("again")).expect("linked");
        let missing = dir.path().join("missing");
        let found: Vec<_> = find(&[missing.clone(), dir.path().to_owned()]).collect();
        let [Err(gone), Err(circle)] = found.as_slice() else { panic!("expected two errors, got {found:?}") };
        assert_eq!(gone.path, missing);
        assert!(gone.error.contains("No such file"), "{}", gone.error);
        assert!(circle.error.contains("link back"), "{}", circle.error);
    }
}
