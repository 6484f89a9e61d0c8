//! Brings one file into the store.
//!
//! The file is read twice: once for its id, and once to send it, which is when the gateway has said that it wants it:
//! what is stored already is not sent. A file that changes in between is refused by the gateway, which proves the bytes against the id.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use deadwax_track::{TRACK_BYTES_MAX, Tags, TrackHasher, TrackId};
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::{Method, StatusCode};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use crate::backoff::Backoff;
use crate::http::{Client, Lost, Reply};
use crate::labels;
use crate::payload::Payload;
use crate::progress::Share;

/// How much is read at a time, and waits to be sent: two of these a file.
const READ_BYTES: usize = 512 * 1024;
const READ_AHEAD_MAX: usize = 2;

/// The header that carries a track's tags: a JSON object of strings, all ASCII.
pub const TAGS_HEADER: &str = "deadwax-tags";

/// What became of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was sent, and is durable.
    Stored,
    /// It was there already.
    Present,
    /// It is not stored; another file may be.
    Failed,
}

/// A file that can be a track, with its name.
#[derive(Debug)]
pub struct Candidate {
    path: PathBuf,
    /// The track's id.
    pub id: TrackId,
    /// Its length.
    pub bytes: u64,
    metadata: Metadata,
}

/// The length of the file at `path`, where it may become a track.
pub fn measure(path: &Path) -> Result<u64, String> {
    let metadata = path.metadata().map_err(|error| format!("cannot read: {error}"))?;
    fit(&metadata)
}

fn fit(metadata: &Metadata) -> Result<u64, String> {
    match metadata.len() {
        _ if !metadata.is_file() => Err("not a file".to_owned()),
        0 => Err("empty: a track has at least one byte".to_owned()),
        bytes if bytes > TRACK_BYTES_MAX => {
            Err(format!("too large: {bytes} bytes, and a track has at most {TRACK_BYTES_MAX}"))
        }
        bytes => Ok(bytes),
    }
}

impl Candidate {
    /// Reads the file and names it.
    pub async fn read(path: PathBuf) -> Result<Self, String> {
        let reading = spawn_blocking(move || Self::read_now(path));
        reading.await.map_err(|error| format!("cannot read: {error}"))?
    }

    fn read_now(path: PathBuf) -> Result<Self, String> {
        let cannot = |error: io::Error| format!("cannot read: {error}");
        // Asked before it is opened: opening a named pipe would wait for a writer.
        measure(&path)?;
        let mut file = File::open(&path).map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        let bytes = fit(&metadata)?;
        let mut hasher = TrackHasher::new();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let count = file.read(&mut buffer).map_err(cannot)?;
            // Checked before it is hashed: a file that grows without end would run past a track's limit.
            if hasher.bytes() + count as u64 > bytes {
                return Err(CHANGED.to_owned());
            }
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
        }
        match hasher.finish() {
            Some((id, manifest)) if manifest.track_bytes() == bytes => Ok(Self { path, id, bytes, metadata }),
            _ => Err(CHANGED.to_owned()),
        }
    }

    /// Puts the file into the store, unless it is there. Tries again where the connection is lost or the gateway is
    /// busy. On return with anything but an error the track is durable.
    pub async fn put(&self, client: &Client, share: &mut Share) -> Result<Outcome, String> {
        let mut backoff = Backoff::request();
        let mut tags = None;
        loop {
            let trouble = match self.try_put(client, &mut tags, share).await {
                Ok(outcome) => return Ok(outcome),
                Err(Trouble::Lasting(why)) => return Err(why),
                Err(passing) => passing,
            };
            share.reach(0);
            let Some(delay) = backoff.delay() else { return Err(trouble.into_text()) };
            let delay = trouble.asked_delay().unwrap_or(delay).max(delay);
            tracing::debug!(path = %self.path.display(), why = trouble.into_text(), ?delay, "trying again");
            tokio::time::sleep(delay).await;
        }
    }

    async fn try_put(&self, client: &Client, tags: &mut Option<Tags>, share: &mut Share) -> Result<Outcome, Trouble> {
        let path = format!("/v1/tracks/{}", self.id);
        if tags.is_none() {
            let file = self.path.clone();
            // A parser that panics on a strange file costs its tags, not the track.
            *tags = Some(spawn_blocking(move || labels::read(&file)).await.unwrap_or_default());
        }
        let tags = tags.get_or_insert_default();
        let mut request = client.request(Method::PUT, &path).header(TAGS_HEADER, header_text(tags));
        if let Some(kind) = tags.get("content_type") {
            request = request.header(CONTENT_TYPE, kind);
        }
        let (payload, wanted) = self.payload();
        let meter = payload.meter();
        // Never HEAD first: one holder is enough for that to say yes, and durable is what a quorum has. A PUT asks the
        // quorum before it asks for the body.
        let sending = client.offer(request, payload, wanted);
        tokio::pin!(sending);
        let reply = loop {
            match tokio::time::timeout(Duration::from_millis(200), &mut sending).await {
                Ok(reply) => break reply,
                Err(_) => share.reach(meter.bytes()),
            }
        };
        match reply {
            Ok(reply) if reply.status == StatusCode::CREATED => self.settle(reply, Outcome::Stored).await,
            Ok(reply) if reply.status == StatusCode::OK => self.settle(reply, Outcome::Present).await,
            Ok(reply) => Err(refusal(reply).await),
            Err(_) if self.has_changed() => Err(Trouble::Lasting(CHANGED.to_owned())),
            Err(lost) => Err(lost.into()),
        }
        .map_err(|trouble| if self.has_changed() { Trouble::Lasting(CHANGED.to_owned()) } else { trouble })
    }

    /// Reads the receipt.
    async fn settle(&self, reply: Reply, outcome: Outcome) -> Result<Outcome, Trouble> {
        let receipt = reply.json().await?;
        match receipt["id"].as_str() {
            Some(id) if id == self.id.to_string() => Ok(outcome),
            _ => Err(Trouble::Lasting(format!("the gateway's receipt is for another track: {receipt}"))),
        }
    }

    fn has_changed(&self) -> bool {
        let Ok(now) = self.path.metadata() else { return true };
        now.len() != self.bytes || now.modified().ok() != self.metadata.modified().ok()
    }

    /// The file's bytes, and what to tell once they are wanted: until then the file is not opened.
    fn payload(&self) -> (Payload, oneshot::Sender<()>) {
        let (feed, source) = mpsc::channel(READ_AHEAD_MAX);
        let (wanted, told) = oneshot::channel();
        let path = self.path.clone();
        tokio::spawn(async move {
            // Where they are not wanted the feed ends here, and the payload short, which ends its connection.
            if told.await.is_err() {
                return;
            }
            spawn_blocking(move || {
                let done = feed_file(&path, &feed);
                if let Err(error) = done {
                    // Whoever reads has gone where this fails.
                    let _ = feed.blocking_send(Err(error));
                }
            });
        });
        (Payload::stream(source, self.bytes), wanted)
    }
}

const CHANGED: &str = "changed while it was read";

fn feed_file(path: &Path, feed: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let mut file = File::open(path)?;
    loop {
        let mut buffer = vec![0; READ_BYTES];
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        buffer.truncate(count);
        if feed.blocking_send(Ok(buffer.into())).is_err() {
            return Ok(());
        }
    }
}

/// Tags as the header carries them: JSON in ASCII, because a header's other characters have no agreed meaning.
fn header_text(tags: &Tags) -> String {
    let object: serde_json::Map<_, _> = tags.iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let mut ascii = String::new();
    for unit in serde_json::Value::from(object).to_string().encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii() && !byte.is_ascii_control() => ascii.push(char::from(byte)),
            _ => ascii.push_str(&format!("\\u{unit:04x}")),
        }
    }
    ascii
}

/// Why a try failed.
enum Trouble {
    /// It may go better next time; after so long, where the gateway said so.
    Passing(String, Option<Duration>),
    /// It will not.
    Lasting(String),
}

impl Trouble {
    fn into_text(self) -> String {
        match self {
            Self::Passing(text, _) | Self::Lasting(text) => text,
        }
    }

    fn asked_delay(&self) -> Option<Duration> {
        match self {
            Self::Passing(_, delay) => delay.map(|delay| delay.min(Duration::from_secs(10))),
            Self::Lasting(_) => None,
        }
    }
}

impl From<Lost> for Trouble {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Reply(_) => Self::Lasting(lost.to_string()),
            _ => Self::Passing(lost.to_string(), None),
        }
    }
}

async fn refusal(reply: Reply) -> Trouble {
    let status = reply.status;
    let after = reply.number(RETRY_AFTER).map(Duration::from_secs);
    let said = reply.complaint().await;
    match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Trouble::Passing(said, after),
        _ => Trouble::Lasting(said),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn tags_travel_as_ascii_json() {
        let pairs = [("title", "Grüße \u{1f3b5}\n\"x\""), ("artist", "a")];
        let tags = Tags::new(pairs.map(|(name, value)| (name.to_owned(), value.to_owned()))).expect("within limits");
        let text = header_text(&tags);
        assert!(text.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{text}");
        let back: std::collections::BTreeMap<String, String> = serde_json::from_str(&text).expect("JSON");
        assert_eq!(back, pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn files_that_are_no_tracks_say_why() {
        let dir = tempfile::tempdir().expect("a folder");
        let empty = dir.path().join("empty");
        fs::write(&empty, "").expect("written");
        let large = dir.path().join("large");
        File::create(&large).and_then(|file| file.set_len(TRACK_BYTES_MAX + 1)).expect("a sparse file");
        for (path, why) in [
            (empty, "empty"),
            (large, "too large"),
            (dir.path().to_owned(), "not a file"),
            (dir.path().join("missing"), "No such file"),
            ("/dev/zero".into(), "not a file"),
        ] {
            let error = Candidate::read_now(path).expect_err("no track");
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_file_has_the_id_of_its_bytes() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a");
        let bytes = vec![7; 3 * READ_BYTES + 11];
        fs::write(&path, &bytes).expect("written");
        let candidate = Candidate::read_now(path.clone()).expect("a track");
        assert_eq!((candidate.id, candidate.bytes), (TrackId::of(&bytes), bytes.len() as u64));
        assert!(!candidate.has_changed());
        fs::write(&path, "shorter").expect("written");
        assert!(candidate.has_changed());
    }
}
