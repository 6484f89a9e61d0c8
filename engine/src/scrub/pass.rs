//! One pass of scrub after another, or one at a time, at a rate.

use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::error::Error;
use crate::format::ScrubPlace;
use crate::host::{Host, Priority};
use crate::signal::Slot as Answer;
use crate::volume::{Inner, Volume};

use super::{Scrub, ScrubReport, ScrubStatus, Work};

/// How long does a volume that scrubs by itself rest after a pass, or after one that failed?
const REST: Duration = Duration::from_secs(60);
/// The longest sleep: close, drop, and a pass that is to begin anew are noticed after it.
const NAP_MAX: Duration = Duration::from_secs(1);

impl<H: Host> Volume<H> {
    /// Checks all records from where the last pass was left to the end, at most so many bytes a second (each up to 1 MiB, or one
    /// listing, at a time). Damaged records come from [`next_damage`](Self::next_damage). Once called it goes on though the
    /// future is dropped, until the volume is closed; where it was is kept across restarts.
    ///
    /// Errors: Invalid (the rate is zero, or a pass is under way), Fenced (closed), Io (the drive gives nothing at all).
    pub async fn scrub_pass(&self, bytes_per_second: u64) -> Result<ScrubReport, Error> {
        if bytes_per_second == 0 {
            return Err(Error::Invalid("scrub needs a rate above zero".to_owned()));
        }
        self.inner.check_open()?;
        let answer = Answer::new();
        let (volume, host, done) = (Rc::downgrade(&self.inner), self.inner.host.clone(), answer.clone());
        self.inner.host.spawn(Priority::Scrub, async move { done.fill(pass(&volume, &host, bytes_per_second).await) });
        answer.take().await
    }

    /// Begins a pass at the first record, at most so many bytes a second; one that is under way begins anew, at this rate until
    /// it ends. Once it has ended, all that was there now has been read. Returns at once: see
    /// [`scrub_status`](Self::scrub_status).
    ///
    /// Errors: Invalid (the rate is zero), Fenced.
    pub fn start_scrub(&self, bytes_per_second: u64) -> Result<(), Error> {
        if bytes_per_second == 0 {
            return Err(Error::Invalid("scrub needs a rate above zero".to_owned()));
        }
        self.inner.check_open()?;
        let scrub = &self.inner.scrub;
        scrub.asked_rate.set(Some(bytes_per_second));
        scrub.anew.set(true);
        if !scrub.status.get().running {
            // Now, not when the task has its turn: who asks next sees it.
            scrub.begin();
            let (volume, host) = (Rc::downgrade(&self.inner), self.inner.host.clone());
            self.inner.host.spawn(Priority::Scrub, async move {
                match run(&volume, &host, bytes_per_second).await {
                    Ok(report) => tracing::info!(?report, "scrub that was asked for went through all segments"),
                    Err(Error::Fenced(_) | Error::Hung(_)) => {}
                    Err(error) => tracing::warn!(%error, "scrub that was asked for stopped: ask again"),
                }
            });
        }
        Ok(())
    }

    /// How far scrub is, and what it found since the volume was opened. From memory.
    #[must_use]
    pub fn scrub_status(&self) -> ScrubStatus {
        self.inner.settle_doubt();
        let ScrubPlace { segment, offset, passes, verified_at, .. } = self.inner.scrub_place.get();
        let (pass_bytes, all_bytes) = self.inner.passed_bytes();
        ScrubStatus { segment, offset, passes, verified_at, pass_bytes, all_bytes, ..self.inner.scrub.status.get() }
    }
}

/// Scrubs for as long as the volume is open.
pub(crate) async fn scrub_for_ever<H: Host>(volume: Weak<Inner<H>>, host: H, bytes_per_second: u64) {
    loop {
        match pass(&volume, &host, bytes_per_second).await {
            Ok(report) => tracing::info!(?report, "scrub went through all segments"),
            Err(Error::Fenced(_) | Error::Hung(_)) => break,
            // Somebody asked for the one that is under way.
            Err(Error::Invalid(_)) => {}
            Err(error) => tracing::warn!(%error, "scrub stopped, it goes on after a rest"),
        }
        let rested = host.now() + REST;
        while host.now() < rested && is_open(&volume) {
            host.sleep(NAP_MAX).await;
        }
    }
}

fn is_asked_anew<H: Host>(volume: &Weak<Inner<H>>) -> bool {
    volume.upgrade().is_some_and(|volume| volume.scrub.anew.get())
}

fn is_open<H: Host>(volume: &Weak<Inner<H>>) -> bool {
    volume.upgrade().is_some_and(|volume| volume.check_open().is_ok())
}

fn closed() -> Error {
    Error::Fenced("closed".to_owned())
}

/// One pass, unless there is one.
async fn pass<H: Host>(volume: &Weak<Inner<H>>, host: &H, bytes_per_second: u64) -> Result<ScrubReport, Error> {
    let held = volume.upgrade().ok_or_else(closed)?;
    if held.scrub.status.get().running {
        return Err(Error::Invalid("a scrub pass is under way".to_owned()));
    }
    held.scrub.begin();
    drop(held);
    run(volume, host, bytes_per_second).await
}

impl Scrub {
    /// A pass is under way from here on.
    fn begin(&self) {
        self.count(|status| (status.running, status.pass_damaged) = (true, 0));
        self.unreadable_in_a_row.set(0);
    }
}

impl<H: Host> Inner<H> {
    /// How much of the records the pass has behind it, and what all take, in bytes.
    fn passed_bytes(&self) -> (u64, u64) {
        let place = self.scrub_place.get();
        let (mut passed, mut all) = (0, 0);
        for segment in self.segments.borrow().iter() {
            let live = segment.live_bytes();
            all += live;
            if segment.number < place.segment {
                passed += live;
            } else if segment.number == place.segment {
                passed += live.min(place.offset);
            }
        }
        (passed, all)
    }

    /// Where the pass is to begin anew, it goes to the start.
    fn goes_anew(&self) -> bool {
        let anew = self.scrub.anew.replace(false);
        if anew {
            self.set_scrub_place(ScrubPlace { segment: 0, offset: 0, ..self.scrub_place.get() });
            self.scrub.begin();
        }
        anew
    }
}

/// The pass that has begun. Holds the volume only while it reads.
async fn run<H: Host>(volume: &Weak<Inner<H>>, host: &H, bytes_per_second: u64) -> Result<ScrubReport, Error> {
    let before = volume.upgrade().ok_or_else(closed)?.scrub.status.get();
    let started = host.now();
    let mut ready_at = started;
    let mut work = Work::Files;
    let outcome = loop {
        let Some(held) = volume.upgrade() else { break Err(closed()) };
        if let Err(error) = held.check_open() {
            break Err(error);
        }
        if held.goes_anew() {
            work = Work::Files;
        }
        held.scrub.stepping.set(true);
        let bytes_before = held.scrub.status.get().bytes_read;
        let stepped = held.step(work).await;
        held.scrub.stepping.set(false);
        held.scrub.stepped.notify();
        let bytes = held.scrub.status.get().bytes_read - bytes_before;
        let rate = held.scrub.asked_rate.get().unwrap_or(bytes_per_second);
        let anew = held.scrub.anew.get();
        drop(held);
        work = match stepped {
            Ok(Some(work)) => work,
            Ok(None) if anew => Work::Files,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        // What was read is paid for before the next read: never more than the rate allows, and one read.
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
        ready_at = ready_at.max(host.now()) + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX / 2));
        while host.now() < ready_at && is_open(volume) && !is_asked_anew(volume) {
            host.sleep(ready_at.saturating_sub(host.now()).min(NAP_MAX)).await;
        }
        if is_asked_anew(volume) {
            // What the old rate was to be paid for is not the new one's.
            ready_at = host.now();
        }
        host.yield_if_needed().await;
    };
    let held = volume.upgrade().ok_or_else(closed)?;
    held.scrub.count(|status| status.running = false);
    held.scrub.asked_rate.set(None);
    held.scrub.anew.set(false);
    outcome?;
    let after = held.scrub.status.get();
    Ok(ScrubReport {
        bytes_read: after.bytes_read - before.bytes_read,
        records_checked: after.records_checked - before.records_checked,
        damaged: after.damaged - before.damaged,
        files_damaged: after.files_damaged - before.files_damaged,
        seconds: host.now().saturating_sub(started).as_secs_f64(),
    })
}
