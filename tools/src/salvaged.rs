//! The folder that salvaged tracks go to: `ab/cd/ID.ogg`, or what the track is, and its tags in `ab/cd/ID.json`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use deadwax_engine::offline::{Kept, Sink};
use deadwax_track::{Tags, TrackId};

/// How much of a track tells what it is?
const SNIFF_BYTES: usize = 16;

/// A folder. A file in it has its name only once it is whole and durable; none is ever written over.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    now: Option<Incoming>,
}

/// The track that comes in.
#[derive(Debug)]
struct Incoming {
    id: TrackId,
    tags: BTreeMap<String, String>,
    file: File,
    new: PathBuf,
    head: Vec<u8>,
}

impl Folder {
    /// Salvaged tracks go to `root`, which is made if it is not there.
    pub fn new(root: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
        Ok(Self { root: root.to_owned(), now: None })
    }

    fn incoming(&mut self) -> io::Result<&mut Incoming> {
        self.now.as_mut().ok_or_else(|| io::Error::other("no track was begun"))
    }
}

impl Sink for Folder {
    fn begin(&mut self, id: &TrackId, _bytes: u64, tags: &Tags) -> io::Result<()> {
        let digits = id.to_string();
        let dir = self.root.join(&digits[..2]).join(&digits[2..4]);
        fs::create_dir_all(&dir)?;
        let new = dir.join(format!("{digits}.part"));
        let tags = tags.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.now = Some(Incoming { id: *id, tags, file: File::create(&new)?, new, head: Vec::new() });
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let incoming = self.incoming()?;
        let missing = SNIFF_BYTES.saturating_sub(incoming.head.len());
        incoming.head.extend_from_slice(&bytes[..missing.min(bytes.len())]);
        incoming.file.write_all(bytes)
    }

    fn keep(&mut self) -> io::Result<Kept> {
        let Some(incoming) = self.now.take() else { return Err(io::Error::other("no track was begun")) };
        let path = incoming.new.with_extension(ending(&incoming.head));
        let kept = if path.exists() {
            fs::remove_file(&incoming.new)?;
            if is_track(&path, &incoming.id)? { Kept::Present } else { Kept::Conflict }
        } else {
            incoming.file.sync_all()?;
            fs::rename(&incoming.new, &path)?;
            Kept::New
        };
        let beside = path.with_extension("json");
        if kept != Kept::Conflict && !incoming.tags.is_empty() && !beside.exists() {
            let new = path.with_extension("json.part");
            let mut file = File::create(&new)?;
            serde_json::to_writer_pretty(&mut file, &incoming.tags)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&new, &beside)?;
        }
        // The folders' own names too.
        for folder in path.ancestors().skip(1).take_while(|folder| folder.starts_with(&self.root)) {
            File::open(folder)?.sync_all()?;
        }
        Ok(kept)
    }

    fn discard(&mut self) -> io::Result<()> {
        let Some(incoming) = self.now.take() else { return Ok(()) };
        fs::remove_file(&incoming.new)
    }
}

fn is_track(path: &Path, id: &TrackId) -> io::Result<bool> {
    let mut file = BufReader::new(File::open(path)?);
    let mut hasher = deadwax_track::TrackHasher::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let bytes = file.read(&mut buffer)?;
        if bytes == 0 {
            break;
        }
        if hasher.bytes() + bytes as u64 > deadwax_track::TRACK_BYTES_MAX {
            return Ok(false);
        }
        hasher.update(&buffer[..bytes]);
    }
    Ok(hasher.finish().is_some_and(|(found, _)| found == *id))
}

/// A file name's ending for a track that starts with these bytes.
fn ending(head: &[u8]) -> &'static str {
    let at = |offset: usize, what: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(what));
    match head {
        _ if at(0, b"OggS") => "ogg",
        _ if at(0, b"fLaC") => "flac",
        _ if at(0, b"RIFF") && at(8, b"WAVE") => "wav",
        _ if at(0, b"FORM") && (at(8, b"AIFF") || at(8, b"AIFC")) => "aiff",
        _ if at(4, b"ftyp") => "m4a",
        _ if at(0, b"ID3") => "mp3",
        _ if at(0, b"wvpk") => "wv",
        _ if at(0, b"MAC ") => "ape",
        _ if at(0, b"MP+") || at(0, b"MPCK") => "mpc",
        // ADTS has no layer; MPEG audio has one (ISO 11172-3 and 13818-7: twelve ones, version, layer).
        [0xff, second, ..] if second & 0xf6 == 0xf0 => "aac",
        [0xff, second, ..] if second & 0xe0 == 0xe0 && second & 0x06 != 0 => "mp3",
        _ => "track",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(folder: &mut Folder, bytes: &[u8], tags: &Tags) -> Kept {
        folder.begin(&TrackId::of(bytes), bytes.len() as u64, tags).expect("begins");
        bytes.chunks(3).for_each(|chunk| folder.write(chunk).expect("writes"));
        folder.keep().expect("keeps")
    }

    #[test]
    fn a_track_gets_its_name_once_and_is_never_written_over() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut folder = Folder::new(&dir.path().join("out")).expect("made");
        let tags = Tags::new([("title".to_owned(), "Grüße".to_owned())]).expect("within limits");
        let bytes = b"OggS and so on";
        assert_eq!(keep(&mut folder, bytes, &tags), Kept::New);
        let digits = TrackId::of(bytes).to_string();
        let path = dir.path().join(format!("out/{}/{}/{digits}.ogg", &digits[..2], &digits[2..4]));
        assert_eq!(fs::read(&path).expect("there"), bytes);
        let beside = fs::read_to_string(path.with_extension("json")).expect("there");
        assert!(beside.contains("\"title\": \"Grüße\""), "{beside}");
        assert_eq!(keep(&mut folder, bytes, &tags), Kept::Present);
        fs::write(&path, "mine").expect("written");
        assert_eq!(keep(&mut folder, bytes, &tags), Kept::Conflict);
        assert_eq!(fs::read(&path).expect("there"), b"mine");
        folder.begin(&TrackId::of(b"x"), 1, &tags).expect("begins");
        folder.discard().expect("discards");
        let names: Vec<_> = walkdir::WalkDir::new(dir.path())
            .into_iter()
            .map(|entry| entry.expect("listed"))
            .filter(|entry| entry.file_type().is_file())
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn what_a_track_is_shows_at_its_start() {
        for (head, expected) in [
            (&b"fLaC\0"[..], "flac"),
            (b"RIFF....WAVEfmt ", "wav"),
            (b"RIFF....AVI ", "track"),
            (b"\0\0\0\x20ftypM4A ", "m4a"),
            (b"ID3\x04", "mp3"),
            (&[0xff, 0xfb, 0x90], "mp3"),
            (&[0xff, 0xf1, 0x50], "aac"),
            (b"", "track"),
            (&[0xff], "track"),
        ] {
            assert_eq!(ending(head), expected, "{head:?}");
        }
    }
}
