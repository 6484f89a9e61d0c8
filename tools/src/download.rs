//! Fetches one track: resumes where an earlier try stopped, and proves the whole before it gets its name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use deadwax_track::{TRACK_BYTES_MAX, TrackHasher, TrackId};
use hyper::header::{CONTENT_LENGTH, IF_RANGE, RANGE};
use hyper::{Method, StatusCode};

use crate::backoff::Backoff;
use crate::http::{Client, Lost, Reply};
use crate::progress::Progress;
use crate::unread;

const READ_BYTES: usize = 512 * 1024;

/// What came of a download.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Download {
    /// The track's length.
    pub bytes: u64,
    /// How many of them were there from an earlier try and were right.
    pub resumed: u64,
    /// How often the connection was lost on the way.
    pub interruptions: u32,
    /// Whether what an earlier try had left was wrong, and thrown away.
    pub discarded: bool,
}

/// Bytes of a track on their way, hashed as they pass.
struct Course<'a, S> {
    sink: S,
    hasher: TrackHasher,
    progress: &'a Progress,
}

impl<S: Write> Course<'_, S> {
    fn take(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        // The hasher takes no more than a track can have; a gateway may send anything.
        if self.hasher.bytes() + bytes.len() as u64 > TRACK_BYTES_MAX {
            bail!("the gateway sends more bytes than a track can have");
        }
        self.sink.write_all(bytes).map_err(unread::or)?;
        self.hasher.update(bytes);
        self.progress.advance(bytes.len() as u64);
        Ok(())
    }

    fn is(self, id: &TrackId) -> bool {
        self.hasher.finish().is_some_and(|(got, _)| got == *id)
    }
}

/// Writes the track to the standard output. Its bytes are proved when the last has gone: an error may come after all
/// of them.
pub async fn to_stdout(client: &Client, id: &TrackId, progress: &Progress) -> anyhow::Result<Download> {
    let bytes = length(client, id).await?;
    progress.expect(bytes);
    let mut course = Course { sink: io::stdout(), hasher: TrackHasher::new(), progress };
    let interruptions = fetch(client, id, bytes, &mut course).await?;
    io::stdout().flush().map_err(unread::or)?;
    if !course.is(id) {
        bail!("the bytes that came are not those of {id}");
    }
    Ok(Download { bytes, interruptions, ..Download::default() })
}

/// Writes the track to `path`, by way of `path.part`, which an interrupted run leaves for the next. On return the file
/// is whole, proved and durable.
pub async fn to_file(client: &Client, id: &TrackId, path: &Path, progress: &Progress) -> anyhow::Result<Download> {
    let bytes = length(client, id).await?;
    let partial = partial_path(path);
    let mut file = open_partial(&partial)?;
    progress.expect(bytes);
    let mut download = Download { bytes, ..Download::default() };
    loop {
        let hasher = seen(&mut file, bytes).with_context(|| format!("cannot read {}", partial.display()))?;
        let resumed = hasher.bytes();
        progress.resume(resumed);
        let mut course = Course { sink: file.try_clone()?, hasher, progress };
        download.interruptions += fetch(client, id, bytes, &mut course).await?;
        if course.is(id) {
            download.resumed = resumed;
            break;
        }
        file.set_len(0).and_then(|()| file.rewind()).context("cannot empty the partial file")?;
        if resumed == 0 {
            bail!("the bytes that came are not those of {id}");
        }
        // What lay there was another file's, or rotten.
        download.discarded = true;
    }
    file.sync_all().with_context(|| format!("cannot write {}", partial.display()))?;
    fs::rename(&partial, path).with_context(|| format!("cannot name {}", path.display()))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("cannot sync {}", folder.display()))?;
    Ok(download)
}

fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

fn open_partial(partial: &Path) -> anyhow::Result<File> {
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(partial);
    let file = options.with_context(|| format!("cannot write {}", partial.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => bail!("{} is being fetched by another command", partial.display()),
        Err(fs::TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", partial.display())),
    }
}

/// Hashes what the partial file has, and leaves it at its end. One that is longer than the track is emptied.
fn seen(file: &mut File, bytes: u64) -> io::Result<TrackHasher> {
    if file.metadata()?.len() > bytes {
        file.set_len(0)?;
    }
    file.rewind()?;
    let mut hasher = TrackHasher::new();
    let mut buffer = vec![0; READ_BYTES];
    // Bounded by `bytes`: somebody may append meanwhile, and the hasher takes no more than a track.
    let mut rest = file.take(bytes);
    loop {
        match rest.read(&mut buffer)? {
            0 => return Ok(hasher),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// The track's length, asked by HEAD.
async fn length(client: &Client, id: &TrackId) -> anyhow::Result<u64> {
    let mut backoff = Backoff::request();
    loop {
        let trouble = match client.ask(Method::HEAD, &path_of(id)).await {
            Ok(reply) if reply.status == StatusCode::OK => {
                let bytes = reply.number(CONTENT_LENGTH).filter(|bytes| (1..=TRACK_BYTES_MAX).contains(bytes));
                reply.whole().await?;
                return bytes.with_context(|| format!("the gateway says no length for {id}"));
            }
            Ok(reply) => refusal(reply).await?,
            Err(lost) => lost.into(),
        };
        pause(&mut backoff, trouble).await?;
    }
}

/// Fetches the rest of the track, however often the connection ends, and answers how often it did.
async fn fetch<S: Write>(client: &Client, id: &TrackId, bytes: u64, course: &mut Course<'_, S>) -> anyhow::Result<u32> {
    let mut backoff = Backoff::request();
    let mut interruptions = 0;
    while course.hasher.bytes() < bytes {
        let start = course.hasher.bytes();
        let mut request = client.request(Method::GET, &path_of(id));
        if start > 0 {
            request = request.header(RANGE, format!("bytes={start}-")).header(IF_RANGE, format!("\"{id}\""));
        }
        let wanted = if start > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        let trouble = match client.send(request).await {
            Ok(reply) if reply.status == wanted => match pour(reply, bytes, course).await? {
                None => continue,
                Some(lost) => {
                    interruptions += 1;
                    lost.into()
                }
            },
            Ok(reply) if reply.status.is_success() => {
                bail!("the gateway does not resume: it answered {}", reply.status)
            }
            Ok(reply) => refusal(reply).await?,
            Err(lost) => lost.into(),
        };
        if course.hasher.bytes() > start {
            backoff.restart();
        }
        pause(&mut backoff, trouble).await?;
    }
    Ok(interruptions)
}

/// Takes the bytes of one reply. `Some` where the connection was lost on the way.
async fn pour<S: Write>(mut reply: Reply, bytes: u64, course: &mut Course<'_, S>) -> anyhow::Result<Option<Lost>> {
    loop {
        match reply.next().await {
            Ok(Some(some)) if course.hasher.bytes() + some.len() as u64 <= bytes => course.take(&some)?,
            Ok(Some(_)) => bail!("the gateway sends more than the {bytes} bytes it announced"),
            Ok(None) if course.hasher.bytes() < bytes => {
                return Ok(Some(Lost::Connection("the reply ended early".to_owned())));
            }
            Ok(None) => return Ok(None),
            Err(lost) => return Ok(Some(lost)),
        }
    }
}

fn path_of(id: &TrackId) -> String {
    format!("/v1/tracks/{id}")
}

/// What the gateway refused, as an error to try again after where that may help.
async fn refusal(reply: Reply) -> anyhow::Result<anyhow::Error> {
    let passing = matches!(reply.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
    let said = anyhow::Error::msg(reply.complaint().await);
    if passing { Ok(said) } else { Err(said) }
}

async fn pause(backoff: &mut Backoff, trouble: anyhow::Error) -> anyhow::Result<()> {
    let Some(delay) = backoff.delay() else { return Err(trouble) };
    tracing::debug!(why = %trouble, ?delay, "trying again");
    tokio::time::sleep(delay).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_file_is_hashed_and_continued() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = partial_path(&dir.path().join("a.wav"));
        assert!(path.ends_with("a.wav.part"));
        fs::write(&path, "some").expect("written");
        let mut file = open_partial(&path).expect("opened");
        assert!(open_partial(&path).is_err_and(|error| error.to_string().contains("another command")));
        let mut hasher = seen(&mut file, 9).expect("read");
        assert_eq!(hasher.bytes(), 4);
        file.write_all(b" more").expect("appended");
        hasher.update(b" more");
        assert_eq!(hasher.finish().map(|(id, _)| id), Some(TrackId::of(b"some more")));
        assert_eq!(fs::read(&path).expect("read"), b"some more");
        // Longer than the track: not its bytes.
        assert_eq!(seen(&mut file, 5).expect("read").bytes(), 0);
        assert_eq!(fs::read(&path).expect("read"), b"");
    }
}
