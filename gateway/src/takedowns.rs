//! Takedowns: taking tracks down, showing how far that is, and hearing of those that others took down.
//!
//! One thread follows the log of takedowns, by questions that a master holds for a second until there is one, each put to
//! another master: what was taken down through another gateway leaves this one's memory within a second, or 5 s where a
//! master hangs, or is cut off and hears of nothing. Where the cluster has no log, or no master answers,
//! [`Worker::keep_fresh`] finds it, a second after it is asked for.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use deadwax_dht::takedown::{CopyState, REASON_BYTES_MAX};
use deadwax_dht_client::{Cursor, Error, Report};
use deadwax_track::TrackId;
use hyper::header::HeaderMap;

use crate::failure::Failure;
use crate::masters;
use crate::worker::Worker;

/// How many tracks that were taken down lately are remembered. Masters refuse them too, within their lease, a minute: this
/// is more than are taken down in one.
const BARRED_MAX: usize = 16_384;
/// How long a master holds the question for takedowns that are not there yet: then the next one is asked, as this one may
/// be cut off.
const WAIT: Duration = Duration::from_secs(1);
/// How soon the question is asked again where no master answered it; and where the cluster has no log.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_NO_LOG: Duration = Duration::from_secs(30);
/// Why a track is taken down: of a DELETE, for people.
const REASON: &str = "deadwax-reason";

/// The tracks that were taken down lately, with their takedowns' numbers.
#[derive(Default)]
pub(crate) struct Barred(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    numbers: HashMap<TrackId, u64>,
    /// Each of them, once, the oldest first.
    order: VecDeque<TrackId>,
}

impl Barred {
    /// Whether the track was taken down lately: the answer then.
    pub(crate) fn check(&self, id: &TrackId) -> Result<(), Failure> {
        match self.lock().numbers.get(id) {
            Some(&number) => Err(masters::failure(&Error::TakenDown { number })),
            None => Ok(()),
        }
    }

    /// From now on the track is refused. Whether that is news.
    pub(crate) fn add(&self, id: TrackId, number: u64) -> bool {
        let mut inner = self.lock();
        if inner.numbers.insert(id, number).is_some() {
            return false;
        }
        inner.order.push_back(id);
        if inner.order.len() > BARRED_MAX
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.numbers.remove(&oldest);
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("a panic under this lock broke the list of what was taken down")
    }
}

/// `DELETE /v1/tracks/{id}`: nothing here serves the track once it is answered. A track that was never stored is taken down
/// too: it will not be taken in.
pub(crate) async fn take_down(worker: &Arc<Worker>, id: &TrackId, headers: &HeaderMap) -> Result<Bytes, Failure> {
    let reason = reason(headers)?;
    let issued = worker.client.issue(*id, reason).await;
    // Also where too few nodes have it: what those that do refuse, memory must not serve.
    worker.forget(id);
    let json = match issued.map_err(|error| masters::failure(&error))? {
        Some(issued) => {
            worker.shared.barred.add(*id, issued.number);
            worker.forget(id);
            tracing::info!(track = %id, number = issued.number, nodes = issued.have, "track taken down");
            serde_json::json!({ "takedown": issued.number, "nodes": issued.have, "nodes_of": issued.members })
        }
        None => {
            // Without a log nobody hands numbers out: the time in microseconds is one. Holders keep the first they heard.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let number = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
            let taken = worker.client.take_down(*id, number).await;
            worker.forget(id);
            let taken = taken.map_err(|error| masters::failure(&error))?;
            tracing::info!(track = %id, number = taken.number, copies = taken.copies, "track taken down");
            serde_json::json!({ "takedown": taken.number, "copies": taken.copies })
        }
    };
    Ok(Bytes::from(json.to_string()))
}

fn reason(headers: &HeaderMap) -> Result<&str, Failure> {
    let Some(value) = headers.get(REASON) else { return Ok("") };
    let bad = || Failure::bad("bad_reason", format!("a reason is text of at most {REASON_BYTES_MAX} bytes"));
    std::str::from_utf8(value.as_bytes()).ok().filter(|text| text.len() <= REASON_BYTES_MAX).ok_or_else(bad)
}

/// `GET /v1/takedowns/{n}`: the record, and which volumes have erased the track.
pub(crate) async fn show(worker: &Arc<Worker>, number: u64) -> Result<Bytes, Failure> {
    let Report { takedown, holders } = worker.client.takedown(number).await.map_err(|error| match error {
        Error::NotFound => {
            Failure::new(hyper::StatusCode::NOT_FOUND, "not_found", format!("no takedown has number {number}"))
        }
        other => masters::failure(&other),
    })?;
    let state = |state: CopyState| match state {
        CopyState::Pending => "pending",
        CopyState::Unreachable => "unreachable",
        CopyState::Dead => "dead",
        CopyState::Erased(_) => "erased",
    };
    let copies: Option<Vec<_>> = holders.as_ref().map(|holders| {
        let copy = |copy: &deadwax_dht::wire::HolderReceipt| {
            let erased_ms = if let CopyState::Erased(at) = copy.state { Some(at) } else { None };
            serde_json::json!({
                "volume": copy.volume, "node": copy.node, "state": state(copy.state), "erased_ms": erased_ms,
            })
        };
        holders.copies.iter().map(copy).collect()
    });
    let json = serde_json::json!({
        "takedown": number,
        "track": takedown.track,
        "issued_ms": takedown.time,
        "reason": takedown.reason,
        "complete": holders.map(|holders| holders.complete),
        "copies": copies,
    });
    Ok(Bytes::from(json.to_string()))
}

/// Follows the takedowns for as long as the process lives: what others take down is forgotten here. Run by one thread.
pub(crate) async fn follow(worker: Arc<Worker>) {
    let mut cursor: Option<Cursor> = None;
    loop {
        let pause = match follow_once(&worker, &mut cursor).await {
            Ok(()) => continue,
            Err(Error::Invalid(_)) => RETRY_NO_LOG,
            Err(error) => {
                tracing::debug!(%error, "takedowns are not heard of");
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn follow_once(worker: &Worker, cursor: &mut Option<Cursor>) -> Result<(), Error> {
    let at = match cursor {
        Some(at) => at,
        None => {
            let now = worker.client.takedowns_now().await?;
            // What is in memory by now may have been taken down before that cursor.
            worker.forget_all();
            cursor.insert(now)
        }
    };
    let (records, next) = worker.client.takedowns(at, WAIT).await?;
    *at = next;
    for record in records {
        if worker.shared.barred.add(record.track, record.name().in_cluster()) {
            worker.shared.metrics.takedowns_heard.inc();
        }
        worker.forget(&record.track);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_may_be_are_remembered_and_the_last_of_them() {
        let barred = Barred::default();
        let track = |number: usize| TrackId::of(&number.to_le_bytes());
        assert!(barred.add(track(0), 7) && !barred.add(track(0), 7), "news once");
        assert_eq!(barred.check(&track(0)).expect_err("taken down").status, 410);
        (1..=BARRED_MAX).for_each(|number| _ = barred.add(track(number), 8));
        assert!(barred.check(&track(0)).is_ok() && barred.check(&track(1)).is_err());
        let inner = barred.lock();
        assert_eq!((inner.numbers.len(), inner.order.len()), (BARRED_MAX, BARRED_MAX));
    }
}
