//! What a file says of its music, as the tags that travel with a track.

use std::path::Path;

use deadwax_track::Tags;
use lofty::config::{ParseOptions, ParsingMode};
use lofty::file::{AudioFile, FileType, TaggedFile, TaggedFileExt};
use lofty::probe::Probe;
use lofty::tag::ItemKey;

/// The most bytes of one tag that are kept: nine of these stay below [`Tags::BYTES_MAX`] together. A title never is
/// that long; a whole booklet put in its place must not keep the track out.
const VALUE_BYTES_MAX: usize = 1024;

const _: () = assert!(9 * (VALUE_BYTES_MAX + 32) < Tags::BYTES_MAX);

/// Reads the tags of the file at `path`: `title`, `artist`, `album`, `album_artist`, `genre`, `year`, `track`, `disc`,
/// `duration_ms` and `content_type`, each where it is known. A file without a title has its name for one.
///
/// Never fails: a file whose tags cannot be read is music all the same. Reads the file and takes a while: not for an
/// async thread.
#[must_use]
pub fn read(path: &Path) -> Tags {
    let file = parse(path);
    let mut pairs = Vec::new();
    let mut set = |name: &str, value: Option<String>| {
        let value = value.map(|value| shortened(value.trim())).unwrap_or_default();
        if !value.is_empty() {
            pairs.push((name.to_owned(), value));
        }
    };
    let text = |key| file.as_ref().and_then(|file| first(file, key));
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    set("title", text(ItemKey::TrackTitle).or(stem));
    set("artist", text(ItemKey::TrackArtist));
    set("album", text(ItemKey::AlbumTitle));
    set("album_artist", text(ItemKey::AlbumArtist));
    set("genre", text(ItemKey::Genre));
    set("year", text(ItemKey::RecordingDate).or_else(|| text(ItemKey::Year)).and_then(|date| year(&date)));
    set("track", text(ItemKey::TrackNumber));
    set("disc", text(ItemKey::DiscNumber));
    let duration_ms = file.as_ref().map(|file| file.properties().duration().as_millis()).filter(|ms| *ms > 0);
    set("duration_ms", duration_ms.map(|ms| ms.to_string()));
    let kind = file.as_ref().map(TaggedFileExt::file_type).or_else(|| FileType::from_path(path));
    set("content_type", kind.and_then(content_type).map(str::to_owned));
    Tags::new(pairs).expect("ten short names with values of bounded length")
}

fn parse(path: &Path) -> Option<TaggedFile> {
    // Pictures are not kept, so they are not read: they can be most of a file.
    let options = ParseOptions::new().parsing_mode(ParsingMode::Relaxed).read_cover_art(false);
    let probe = Probe::open(path).ok()?.options(options).guess_file_type().ok()?;
    match probe.read() {
        Ok(file) => Some(file),
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "tags do not parse");
            None
        }
    }
}

/// The first text for `key` in any of the file's tags, the format's own first.
fn first(file: &TaggedFile, key: ItemKey) -> Option<String> {
    let tags = file.primary_tag().into_iter().chain(file.tags());
    tags.filter_map(|tag| tag.get_string(key)).map(str::to_owned).find(|text| !text.trim().is_empty())
}

/// The four digits that a date such as `2026-11-22` starts with.
fn year(date: &str) -> Option<String> {
    let digits: String = date.trim().chars().take_while(char::is_ascii_digit).take(4).collect();
    (digits.len() == 4).then_some(digits)
}

fn shortened(value: &str) -> String {
    let end = (0..=value.len().min(VALUE_BYTES_MAX)).rev().find(|end| value.is_char_boundary(*end)).unwrap_or(0);
    value[..end].to_owned()
}

/// The media type that a player expects of such a file.
fn content_type(kind: FileType) -> Option<&'static str> {
    Some(match kind {
        FileType::Aac => "audio/aac",
        FileType::Aiff => "audio/aiff",
        FileType::Ape => "audio/x-ape",
        FileType::Flac => "audio/flac",
        FileType::Mpeg => "audio/mpeg",
        FileType::Mp4 => "audio/mp4",
        FileType::Mpc => "audio/x-musepack",
        FileType::Opus | FileType::Vorbis | FileType::Speex => "audio/ogg",
        FileType::Wav => "audio/wav",
        FileType::WavPack => "audio/x-wavpack",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::album::SONGS;

    #[test]
    fn the_demos_tags_are_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("1.wav");
        fs::write(&path, SONGS[0].wav(7)).expect("written");
        let tags = read(&path);
        assert_eq!(tags.get("title"), Some("Lead-in"));
        assert_eq!(tags.get("artist"), Some("The Pressing Plant"));
        assert_eq!(tags.get("album"), Some("First Light"));
        assert_eq!(tags.get("track"), Some("7"));
        assert_eq!(tags.get("year"), Some("2026"));
        assert_eq!(tags.get("genre"), Some("Ambient"));
        assert_eq!(tags.get("content_type"), Some("audio/wav"));
        assert_eq!(tags.get("duration_ms"), Some(SONGS[0].length_ms().to_string().as_str()));
    }

    #[test]
    fn a_file_without_tags_has_its_name_and_kind() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("01 Grüße.mp3");
        fs::write(&path, "no music at all").expect("written");
        let tags = read(&path);
        assert_eq!(tags.get("title"), Some("01 Grüße"));
        assert_eq!(tags.get("content_type"), Some("audio/mpeg"));
        assert_eq!(tags.iter().count(), 2);
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        assert_eq!(shortened(&"é".repeat(1000)).len(), 1024);
        assert_eq!(shortened(&format!("x{}", "é".repeat(1000))).len(), 1023);
        assert_eq!(year("1996"), Some("1996".to_owned()));
        assert_eq!(year("1996-05"), Some("1996".to_owned()));
        assert_eq!(year("May"), None);
    }
}
