//! Requests, so many under way at a time: as fast as they are answered, or each when it is its time.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;

use crate::ring::{latencies, micros};

/// Arrivals that wait for a lane: as many as there are, so that the clock never waits for them.
const ARRIVALS_MAX: u64 = 10_000_000;

/// When requests begin.
#[derive(Clone, Copy)]
pub(super) enum Pace {
    /// When one before has ended.
    Closed,
    /// So many a second, whatever became of those before.
    Open(f64),
}

/// How long a load lasts: whichever comes first.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) in_flight: usize,
    pub(super) time: Duration,
    pub(super) count: u64,
}

/// What a load took.
pub(super) struct Took {
    pub(super) count: u64,
    pub(super) bytes: u64,
    pub(super) time: Duration,
    /// Of one request, from when it was to begin, microseconds.
    pub(super) latency: Histogram<u64>,
    /// To its first byte.
    pub(super) first: Histogram<u64>,
}

impl Took {
    #[expect(clippy::cast_precision_loss, reason = "a rate, printed to three digits")]
    pub(super) fn per_second(&self) -> f64 {
        self.count as f64 / self.time.as_secs_f64()
    }

    /// 10^6 bytes a second.
    #[expect(clippy::cast_precision_loss, reason = "a rate, printed to three digits")]
    pub(super) fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.time.as_secs_f64()
    }
}

/// What one request was.
pub(super) struct Answered {
    pub(super) bytes: u64,
    /// When its first byte came.
    pub(super) first_at: Option<Instant>,
}

struct Shared<J> {
    job: J,
    next: Cell<u64>,
    bytes: Cell<u64>,
    done: Cell<u64>,
    latency: RefCell<Histogram<u64>>,
    first: RefCell<Histogram<u64>>,
}

/// Does `job` for 0, 1, 2 and so on, `in_flight` at a time. In a `LocalSet`.
pub(super) async fn load<J, F>(pace: Pace, limits: Limits, job: J) -> anyhow::Result<Took>
where
    J: Fn(u64) -> F + 'static,
    F: Future<Output = anyhow::Result<Answered>> + 'static,
{
    let shared = Rc::new(Shared {
        job,
        next: Cell::new(0),
        bytes: Cell::new(0),
        done: Cell::new(0),
        latency: RefCell::new(latencies()),
        first: RefCell::new(latencies()),
    });
    let started = Instant::now();
    let arrivals = match pace {
        Pace::Closed => None,
        Pace::Open(per_second) => Some(arrivals(started, per_second, limits)?),
    };
    let lanes: Vec<_> = (0..limits.in_flight)
        .map(|_| {
            let (shared, arrivals) = (Rc::clone(&shared), arrivals.clone());
            tokio::task::spawn_local(async move {
                loop {
                    let due = match &arrivals {
                        Some(arrivals) => arrivals.recv_async().await.ok(),
                        None => (started.elapsed() < limits.time).then(Instant::now),
                    };
                    let number = shared.next.get();
                    let Some(due) = due.filter(|_| number < limits.count) else { return anyhow::Ok(()) };
                    shared.next.set(number + 1);
                    let answered = (shared.job)(number).await?;
                    shared.latency.borrow_mut().saturating_record(micros(due.elapsed()));
                    if let Some(at) = answered.first_at {
                        shared.first.borrow_mut().saturating_record(micros(at - due));
                    }
                    shared.bytes.set(shared.bytes.get() + answered.bytes);
                    shared.done.set(shared.done.get() + 1);
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.await.context("a lane ended")??;
    }
    Ok(Took {
        count: shared.done.get(),
        bytes: shared.bytes.get(),
        time: started.elapsed(),
        latency: shared.latency.replace(latencies()),
        first: shared.first.replace(latencies()),
    })
}

/// Gives the time of each request when it has come. From a thread of its own: the runtime's timer counts milliseconds.
fn arrivals(started: Instant, per_second: f64, limits: Limits) -> anyhow::Result<flume::Receiver<Instant>> {
    let (sender, receiver) = flume::unbounded();
    let clock = move || {
        for number in 0..limits.count.min(ARRIVALS_MAX) {
            #[expect(clippy::cast_precision_loss, reason = "a count below ten million")]
            let after = Duration::from_secs_f64(number as f64 / per_second);
            if after >= limits.time {
                return;
            }
            std::thread::sleep(after.saturating_sub(started.elapsed()));
            if sender.send(started + after).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("arrivals".to_owned()).spawn(clock).context("start the clock's thread")?;
    Ok(receiver)
}
