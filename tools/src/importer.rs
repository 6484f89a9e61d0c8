//! Brings folders of music into the store, several files at a time.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use deadwax_track::TrackId;
use serde::Serialize;
use tokio::sync::{Mutex as AsyncMutex, Notify, mpsc};
use tokio::task::{JoinSet, spawn_blocking};

use crate::http::Client;
use crate::music::{self, Lost};
use crate::progress::{Progress, megabytes};
use crate::upload::{self, Candidate, Outcome};

/// How many files may be found ahead of those that are being sent.
const FOUND_MAX: usize = 1024;
/// How many files may be in flight at once.
pub const JOBS_MAX: usize = 256;

/// What became of one file. As JSON, what `import --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The file; characters that are no UTF-8 are replaced.
    pub path: String,
    /// The track's id, where the file could be read.
    pub id: Option<TrackId>,
    /// The file's length, or 0 where it could not be read.
    pub bytes: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What became of all files.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Files that were sent and are durable.
    pub stored: u64,
    /// Files that were there already.
    pub present: u64,
    /// Files that are not in the store.
    pub failed: u64,
    /// Bytes of the stored files.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { stored, present, failed, bytes, seconds } = self;
        let rate = megabytes(*bytes as f64 / seconds.max(1e-3));
        write!(
            f,
            "{stored} stored, {present} present, {failed} failed; {} MB in {seconds:.1} s ({rate} MB/s)",
            megabytes(*bytes as f64)
        )
    }
}

/// Imports the music under `paths`, `jobs` files at a time, and tells `on_line` of each as it ends.
///
/// A file that cannot be imported is a line like any other; the rest goes on.
pub async fn import(
    client: &Client,
    paths: Vec<PathBuf>,
    jobs: usize,
    progress: &Progress,
    mut on_line: impl FnMut(&Line),
) -> Summary {
    let started = Instant::now();
    let (found, finds) = mpsc::channel(FOUND_MAX);
    let (ended, mut lines) = mpsc::channel(JOBS_MAX);
    let mut tasks = JoinSet::new();
    let total = progress.clone();
    let roots = paths.clone();
    // Runs ahead of the one below, which waits for its reader: so the total is soon known, and no list is kept.
    tasks.spawn_blocking(move || {
        music::find(&roots)
            .flatten()
            .filter_map(|path| upload::measure(&path).ok())
            .for_each(|bytes| total.expect(bytes));
    });
    tasks.spawn_blocking(move || {
        for find in music::find(&paths) {
            if found.blocking_send(find).is_err() {
                return;
            }
        }
    });
    let desk = Arc::new(Desk { finds: AsyncMutex::new(finds), in_flight: InFlight::default(), done: Mutex::default() });
    for _ in 0..jobs.clamp(1, JOBS_MAX) {
        let (desk, client, ended, progress) = (desk.clone(), client.clone(), ended.clone(), progress.clone());
        tasks.spawn(async move {
            while let Some(find) = desk.next().await {
                let line = desk.bring(find, &client, &progress).await;
                if ended.send(line).await.is_err() {
                    return;
                }
            }
        });
    }
    drop(ended);
    let mut summary = Summary::default();
    while let Some(line) = lines.recv().await {
        match line.outcome {
            Outcome::Stored => (summary.stored, summary.bytes) = (summary.stored + 1, summary.bytes + line.bytes),
            Outcome::Present => summary.present += 1,
            Outcome::Failed => summary.failed += 1,
        }
        progress.say(format!("{} files", summary.stored + summary.present + summary.failed));
        on_line(&line);
    }
    summary.seconds = started.elapsed().as_secs_f64();
    summary
}

/// Where workers take the next file from.
struct Desk {
    finds: AsyncMutex<mpsc::Receiver<Result<PathBuf, Lost>>>,
    in_flight: InFlight,
    /// Tracks that this import found or made durable: an equal file need not be offered, not even while the last of a
    /// track's copies is still being made. At most [`DONE_MAX`].
    done: Mutex<HashSet<TrackId>>,
}

/// How many tracks an import remembers. Beyond, an equal file is offered like any other.
const DONE_MAX: usize = 1 << 20;

impl Desk {
    async fn next(&self) -> Option<Result<PathBuf, Lost>> {
        self.finds.lock().await.recv().await
    }

    async fn bring(&self, find: Result<PathBuf, Lost>, client: &Client, progress: &Progress) -> Line {
        let path = match find {
            Ok(path) => path,
            Err(lost) => return failed(&lost.path, None, 0, lost.error),
        };
        let measured = {
            let path = path.clone();
            spawn_blocking(move || upload::measure(&path)).await
        };
        let bytes = match measured {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => return failed(&path, None, 0, error),
            Err(error) => return failed(&path, None, 0, error.to_string()),
        };
        let mut share = progress.share(bytes);
        let candidate = match Candidate::read(path.clone()).await {
            Ok(candidate) => candidate,
            Err(error) => return failed(&path, None, bytes, error),
        };
        let _alone = self.in_flight.enter(candidate.id).await;
        let done = self.done.lock().expect("nothing panics under the lock").contains(&candidate.id);
        let outcome = if done { Ok(Outcome::Present) } else { candidate.put(client, &mut share).await };
        match outcome {
            Ok(outcome) => {
                let mut done = self.done.lock().expect("nothing panics under the lock");
                if done.len() < DONE_MAX {
                    done.insert(candidate.id);
                }
                Line {
                    path: path.to_string_lossy().into_owned(),
                    id: Some(candidate.id),
                    bytes: candidate.bytes,
                    outcome,
                    error: None,
                }
            }
            Err(error) => failed(&path, Some(candidate.id), candidate.bytes, error),
        }
    }
}

fn failed(path: &std::path::Path, id: Option<TrackId>, bytes: u64, error: String) -> Line {
    let path = path.to_string_lossy().into_owned();
    Line { path, id, bytes, outcome: Outcome::Failed, error: Some(error) }
}

/// The tracks that are being sent, so that of two equal files the second waits and then finds itself present.
#[derive(Default)]
struct InFlight {
    ids: Mutex<HashSet<TrackId>>,
    left: Notify,
}

struct Alone<'a> {
    all: &'a InFlight,
    id: TrackId,
}

impl InFlight {
    async fn enter(&self, id: TrackId) -> Alone<'_> {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            // Listens before it looks, so that no leaving in between is missed.
            left.as_mut().enable();
            if self.ids.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
                return Alone { all: self, id };
            }
            left.await;
        }
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.all.ids.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        self.all.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_gateway_every_file_fails_and_none_stops_the_rest() {
        let dir = tempfile::tempdir().expect("a folder");
        let empty = dir.path().join("empty.wav");
        std::fs::write(&empty, "").expect("written");
        let client = Client::new("http://127.0.0.1:9".parse().expect("a URL"));
        let progress = Progress::new("importing", false);
        let mut lines = Vec::new();
        let missing = dir.path().join("missing");
        let paths = vec![missing.clone(), dir.path().to_owned()];
        let summary = import(&client, paths, 2, &progress, |line| lines.push(line.clone())).await;
        assert_eq!((summary.stored, summary.present, summary.failed), (0, 0, 2));
        lines.sort_by(|a, b| a.path.cmp(&b.path));
        assert_eq!(lines[0].path, empty.to_string_lossy());
        let json = serde_json::to_value(&lines[1]).expect("JSON");
        assert_eq!(json["path"], missing.to_str().expect("UTF-8"));
        assert_eq!(json["outcome"], "failed");
        assert!(json["error"].as_str().is_some_and(|error| error.contains("No such file")), "{json}");
    }

    #[tokio::test]
    async fn a_track_is_sent_by_one_at_a_time() {
        let all = InFlight::default();
        let (id, other) = (TrackId::of(b"a"), TrackId::of(b"b"));
        let first = all.enter(id).await;
        let _other = all.enter(other).await;
        let mut second = Box::pin(all.enter(id));
        assert!(tokio::time::timeout(std::time::Duration::ZERO, &mut second).await.is_err());
        drop(first);
        second.await;
    }
}
