//! Whether a drive is fit to serve, judged by how long its operations take and how they fail.
//!
//! Pure: time is an argument. Whoever drives it calls [`begin`](Health::begin) before an operation and
//! [`end`](Health::end) or [`forget`](Health::forget) after it, [`read_failed`](Health::read_failed) where a read failed,
//! and [`verdict`](Health::verdict) several times a second. Time in which nobody called is left out: a process that was
//! stopped, or starved of its core, cannot tell how long its drives took.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;

/// When a drive is given up. Of the drive's share of this handle alone; another handle of the volume judges for itself.
///
/// A healthy drive that is merely loaded stays within the defaults: an operation that finds others at the drive is
/// given [`queue_time`](Self::queue_time) more for each of them, which is longer than a rotating drive needs for a seek
/// and a read of 1 MiB. A drive that spins down when idle does not: turn that off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HealthLimits {
    /// How long may a drive with work to do end no operation at all, and how long may one operation take beside the
    /// time for its queue? Default 3 s. Beyond it the drive hangs. Longer ones let callers wait longer; shorter ones give up
    /// drives that retry a bad sector.
    pub operation_time_max: Duration,
    /// Above what time, beside that for its queue, is an operation slow? Default 1 s. Where more than half of those that
    /// ended in the last [`slow_window`](Self::slow_window) of use were slow, at least two, the drive is given up.
    pub slow_operation_time: Duration,
    /// Over how much time in use is slowness judged? Default 3 s. Time in which nothing was at the drive is not counted.
    pub slow_window: Duration,
    /// What each operation that is at the drive already may take before a new one's turn. Default 25 ms.
    pub queue_time: Duration,
    /// In how many different places may reads fail within ten seconds, while no more of them succeed than fail, before
    /// the drive is given up? Default 4. Fewer, or among many that succeed, are bad sectors: their tracks are damaged.
    pub failed_places_max: usize,
    /// How often is the superblock read again, to see that the drive is still there and still the same? Default 1 s.
    pub check_period: Duration,
}

impl Default for HealthLimits {
    fn default() -> Self {
        Self {
            operation_time_max: Duration::from_secs(3),
            slow_operation_time: Duration::from_secs(1),
            slow_window: Duration::from_secs(3),
            queue_time: Duration::from_millis(25),
            failed_places_max: 4,
            check_period: Duration::from_secs(1),
        }
    }
}

/// How often a verdict is asked for.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// A gap between two calls that is as long as this was not the drive's doing.
const ABSENCE_MIN: Duration = Duration::from_secs(1);
/// What the time for its queue may add to an operation's limit: with it a drive is still given up within 5 s.
const QUEUE_TIME_MAX: Duration = Duration::from_millis(1500);
/// The window of slowness, in parts.
const PARTS: usize = 12;
/// How long may a drive lie idle before what was slow then says nothing of now?
const IDLE_MAX: Duration = Duration::from_secs(60);
/// For how long is a failed read held against the drive?
const FAILURE_AGE_MAX: Duration = Duration::from_secs(10);
/// Reads that fail in the same stretch of a file fail in the same place.
const PLACE_BYTES: u64 = 1 << 20;
/// How many superblock reads may fail in a row?
const CHECKS_FAILED_MAX: u32 = 2;

/// The state of one handle's share of a drive.
pub(crate) struct Health {
    limits: HealthLimits,
    clock: Clock,
    /// The operations at the drive; free places between them.
    flights: Vec<Option<Flight>>,
    free: Vec<usize>,
    /// When an operation last ended, or the drive was last without any.
    progress: Duration,
    /// For how long the drive has had work, and up to when that was counted.
    in_use: Duration,
    counted: Duration,
    parts: [Part; PARTS],
    part: u64,
    failed_reads: VecDeque<(Duration, Place)>,
    good_reads: usize,
    checks_failed: u32,
}

/// An operation at the drive.
struct Flight {
    what: &'static str,
    began: Duration,
    /// For how many operations it may have to wait.
    ahead: u32,
}

/// What ended in one part of the window.
#[derive(Clone, Copy, Default)]
struct Part {
    ended: u32,
    slow: u32,
}

/// Where a read failed: a stretch of a file.
type Place = (PathBuf, u64);

/// Time without the stretches in which nobody called.
#[derive(Default)]
struct Clock {
    seen: Duration,
    absent: Duration,
}

impl Clock {
    fn now(&mut self, raw: Duration) -> Duration {
        let gap = raw.saturating_sub(self.seen);
        if gap >= ABSENCE_MIN {
            self.absent += gap - TICK;
        }
        self.seen = self.seen.max(raw);
        self.seen - self.absent
    }
}

impl Health {
    pub(crate) fn new(limits: HealthLimits, now: Duration) -> Self {
        Self {
            limits,
            clock: Clock { seen: now, absent: Duration::ZERO },
            flights: Vec::new(),
            free: Vec::new(),
            progress: now,
            in_use: Duration::ZERO,
            counted: now,
            parts: [Part::default(); PARTS],
            part: 0,
            failed_reads: VecDeque::new(),
            good_reads: 0,
            checks_failed: 0,
        }
    }

    /// An operation goes to the drive. Answers its place, for [`end`](Self::end).
    pub(crate) fn begin(&mut self, what: &'static str, now: Duration) -> usize {
        let now = self.advance(now);
        let ahead = u32::try_from(self.flights.len() - self.free.len()).unwrap_or(u32::MAX);
        if ahead == 0 {
            self.progress = now;
        }
        let flight = Some(Flight { what, began: now, ahead });
        match self.free.pop() {
            Some(place) => {
                self.flights[place] = flight;
                place
            }
            None => {
                self.flights.push(flight);
                self.flights.len() - 1
            }
        }
    }

    /// The operation came back, whether well or not.
    pub(crate) fn end(&mut self, place: usize, now: Duration) {
        let now = self.advance(now);
        let Some(flight) = self.take(place) else { return };
        self.progress = now;
        let allowed = self.limits.slow_operation_time + self.queue_time(flight.ahead);
        let part = self.current_part();
        part.ended += 1;
        part.slow += u32::from(now.saturating_sub(flight.began) > allowed);
    }

    /// Nobody waits for the operation any more: nothing is learnt from it.
    pub(crate) fn forget(&mut self, place: usize, now: Duration) {
        self.advance(now);
        self.take(place);
    }

    /// A read came back with what was asked for.
    pub(crate) fn read_succeeded(&mut self) {
        if !self.failed_reads.is_empty() {
            self.good_reads += 1;
        }
    }

    /// A read of the file failed at the drive. A verdict where there have been too many.
    pub(crate) fn read_failed(&mut self, file: PathBuf, offset: u64, now: Duration) -> Option<String> {
        let now = self.advance(now);
        while self.failed_reads.front().is_some_and(|(at, _)| now.saturating_sub(*at) > FAILURE_AGE_MAX) {
            self.failed_reads.pop_front();
        }
        if self.failed_reads.is_empty() {
            self.good_reads = 0;
        }
        let place = (file, offset / PLACE_BYTES);
        if !self.failed_reads.iter().any(|(_, known)| *known == place) {
            self.failed_reads.push_back((now, place));
        }
        let places = self.failed_reads.len();
        (places >= self.limits.failed_places_max && self.good_reads <= places)
            .then(|| format!("reads fail in {places} places"))
    }

    /// The superblock was read and is as it should be.
    pub(crate) fn check_succeeded(&mut self) {
        self.checks_failed = 0;
    }

    /// The superblock could not be read, or not understood. A verdict where that was so before.
    pub(crate) fn check_failed(&mut self, why: &str) -> Option<String> {
        self.checks_failed += 1;
        (self.checks_failed >= CHECKS_FAILED_MAX).then(|| format!("its superblock cannot be read any more: {why}"))
    }

    /// What is wrong with the drive, if it hangs or is too slow.
    pub(crate) fn verdict(&mut self, now: Duration) -> Option<String> {
        let now = self.advance(now);
        self.hung(now).or_else(|| self.slow())
    }

    fn hung(&self, now: Duration) -> Option<String> {
        let limit = self.limits.operation_time_max;
        let flights = || self.flights.iter().flatten();
        let oldest = flights().min_by_key(|flight| flight.began)?;
        let says = |flight: &Flight| {
            let seconds = now.saturating_sub(flight.began).as_secs_f64();
            let others = flights().count() - 1;
            format!("it hangs: a {} has been at the drive for {seconds:.1} s, with {others} others", flight.what)
        };
        if now.saturating_sub(self.progress) > limit {
            return Some(says(oldest));
        }
        let overdue = |flight: &&Flight| {
            now.saturating_sub(flight.began) > limit + self.queue_time(flight.ahead).min(QUEUE_TIME_MAX)
        };
        flights().find(overdue).map(says)
    }

    fn slow(&self) -> Option<String> {
        let ended: u32 = self.parts.iter().map(|part| part.ended).sum();
        let slow: u32 = self.parts.iter().map(|part| part.slow).sum();
        let seconds = self.limits.slow_operation_time.as_secs_f64();
        (self.in_use >= self.limits.slow_window && ended >= 2 && slow * 2 > ended)
            .then(|| format!("it is too slow: {slow} of the last {ended} operations took over {seconds:.1} s"))
    }

    fn queue_time(&self, ahead: u32) -> Duration {
        self.limits.queue_time.saturating_mul(ahead)
    }

    fn take(&mut self, place: usize) -> Option<Flight> {
        let flight = self.flights[place].take();
        if flight.is_some() {
            self.free.push(place);
        }
        flight
    }

    /// Counts the time since the last call, where the drive had work; answers the time that is to be believed.
    fn advance(&mut self, raw: Duration) -> Duration {
        let now = self.clock.now(raw);
        let passed = now.saturating_sub(self.counted);
        self.counted = self.counted.max(now);
        if self.flights.len() > self.free.len() {
            self.in_use += passed;
            self.move_window();
        } else if passed > IDLE_MAX {
            self.in_use = Duration::ZERO;
            self.part = 0;
            self.parts = [Part::default(); PARTS];
        }
        now
    }

    /// Empties the parts of the window that the time in use has reached again.
    fn move_window(&mut self) {
        let part_ns = (self.limits.slow_window.as_nanos() / PARTS as u128).max(1);
        let part = u64::try_from(self.in_use.as_nanos() / part_ns).unwrap_or(u64::MAX);
        for passed in self.part + 1..=part.min(self.part + PARTS as u64) {
            self.parts[index(passed)] = Part::default();
        }
        self.part = part;
    }

    fn current_part(&mut self) -> &mut Part {
        &mut self.parts[index(self.part)]
    }
}

fn index(part: u64) -> usize {
    usize::try_from(part % PARTS as u64).expect("below the parts")
}

/// Whether the error says that there is no drive any more.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::NODEV, Errno::NXIO, Errno::SHUTDOWN, Errno::NOMEDIUM, Errno::STALE];
    gone.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Whether a read that fails so failed at the drive, and not for want of something else.
pub(crate) fn is_bad_read(error: &io::Error) -> bool {
    // EIO, and what the block layer and file systems say for bad media, links and checksums.
    let bad = [Errno::IO, Errno::TIMEDOUT, Errno::REMOTEIO, Errno::NODATA, Errno::ILSEQ, Errno::UCLEAN, Errno::BADMSG];
    bad.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        Health::new(HealthLimits::default(), Duration::ZERO)
    }

    const fn ms(time: u64) -> Duration {
        Duration::from_millis(time)
    }

    /// Asks for a verdict every tick from `from` to `to`, in milliseconds; the first one, and when it came.
    fn watched(health: &mut Health, from: u64, to: u64) -> Option<(u64, String)> {
        (from..=to).step_by(250).find_map(|now| Some((now, health.verdict(ms(now))?)))
    }

    /// Runs operations of `time_ms` each, `depth` at a time, for `total_ms`, with a tick every 250 ms.
    fn load(health: &mut Health, depth: u64, time_ms: u64, total_ms: u64) -> Option<(u64, String)> {
        let mut flights: VecDeque<(u64, usize)> = VecDeque::new();
        // Staggered, as on a drive that ends one after the other.
        let gap = (time_ms / depth).max(1);
        for now in 0..total_ms {
            if flights.front().is_some_and(|(ends, _)| *ends <= now) {
                let (_, place) = flights.pop_front().expect("there is one");
                health.end(place, ms(now));
            }
            if now % gap == 0 && (flights.len() as u64) < depth {
                flights.push_back((now + time_ms, health.begin("read", ms(now))));
            }
            if now % 250 == 0
                && let Some(why) = health.verdict(ms(now))
            {
                return Some((now, why));
            }
        }
        None
    }

    #[test]
    fn an_operation_that_does_not_come_back_is_a_hang_within_5_s() {
        for others in [0, 1, 31, 255] {
            let mut health = health();
            for _ in 0..others {
                health.begin("write", ms(0));
            }
            health.begin("flush", ms(0));
            let (when, why) = watched(&mut health, 0, 10_000).expect("hangs");
            assert!((3_000..=3_500).contains(&when) && why.contains("it hangs"), "{when} ms: {why}");
        }
    }

    #[test]
    fn one_lost_operation_among_many_that_end_is_a_hang() {
        for depth in [1, 8, 64] {
            let mut health = health();
            let others: Vec<_> = (0..depth).map(|_| health.begin("read", ms(0))).collect();
            health.begin("write", ms(0));
            others.into_iter().for_each(|place| health.end(place, ms(1)));
            let mut verdict = None;
            for now in (0..10_000).step_by(250) {
                let place = health.begin("read", ms(now));
                health.end(place, ms(now + 2));
                verdict = verdict.or_else(|| Some((now, health.verdict(ms(now + 2))?)));
            }
            let (when, why) = verdict.expect("hangs");
            assert!(when <= 4_750 && why.contains("a write has been at the drive"), "{when} ms: {why}");
        }
    }

    #[test]
    fn a_loaded_rotating_drive_is_neither_hung_nor_slow() {
        // 15 ms a random read of 1 MiB, one after the other, with as many waiting as a node lets in.
        for depth in [1, 4, 32, 256] {
            let mut health = health();
            let mut waiting: VecDeque<_> = (0..depth).map(|_| health.begin("read", ms(0))).collect();
            for now in (15..60_000).step_by(15) {
                health.end(waiting.pop_front().expect("as many as ever"), ms(now));
                waiting.push_back(health.begin("read", ms(now)));
                assert_eq!(health.verdict(ms(now)), None, "{depth} at a time, after {now} ms");
            }
        }
    }

    #[test]
    fn a_drive_whose_operations_all_take_too_long_is_slow_within_5_s() {
        for (depth, time_ms) in [(1, 1_200), (1, 2_000), (4, 1_500), (16, 2_000), (32, 2_900)] {
            let (when, why) = load(&mut health(), depth, time_ms, 20_000).expect("slow");
            assert!(when < 5_000 && why.contains("too slow"), "{depth} at a time, {time_ms} ms each: {when} ms: {why}");
        }
    }

    #[test]
    fn a_hiccup_is_forgiven() {
        let mut health = health();
        let place = health.begin("flush", ms(0));
        assert_eq!(watched(&mut health, 0, 2_750), None);
        health.end(place, ms(2_800));
        for now in (2_800..20_000).step_by(50) {
            let place = health.begin("read", ms(now));
            health.end(place, ms(now + 10));
            assert_eq!(health.verdict(ms(now + 10)), None, "at {now}");
        }
    }

    #[test]
    fn time_in_which_nobody_watched_is_not_the_drives() {
        let mut health = health();
        let place = health.begin("read", ms(0));
        assert_eq!(health.verdict(ms(60_000)), None, "the process was stopped for a minute");
        assert_eq!(health.verdict(ms(61_500)), None, "and again");
        health.end(place, ms(61_600));
        let place = health.begin("read", ms(100_000));
        health.end(place, ms(160_000));
        assert_eq!(health.verdict(ms(160_000)), None);
        health.begin("read", ms(160_000));
        assert!(watched(&mut health, 160_000, 170_000).expect("hangs").0 <= 163_500);
    }

    #[test]
    fn reads_that_fail_all_over_a_drive_are_not_bad_sectors() {
        let fail = |health: &mut Health, mib: u64, now| health.read_failed("7.segment".into(), mib << 20, ms(now));
        let mut dead = health();
        assert_eq!((0..3).find_map(|mib| fail(&mut dead, mib, mib)), None);
        assert_eq!((0..3).find_map(|mib| fail(&mut dead, mib, 10 + mib)), None, "the same places again");
        assert!(fail(&mut dead, 3, 20).expect("dead").contains("in 4 places"));
        let mut scratched = health();
        for mib in 0..100 {
            assert_eq!(fail(&mut scratched, mib, mib * 10), None);
            (0..5).for_each(|_| scratched.read_succeeded());
        }
        let mut seldom = health();
        for mib in 0..100 {
            assert_eq!(fail(&mut seldom, mib, mib * 4_000), None);
            assert_eq!(watched(&mut seldom, mib * 4_000, mib * 4_000 + 3_750), None);
        }
    }

    #[test]
    fn one_failed_check_is_not_enough() {
        let mut health = health();
        assert_eq!(health.check_failed("EIO"), None);
        health.check_succeeded();
        assert_eq!(health.check_failed("EIO"), None);
        assert!(health.check_failed("EIO").expect("gone").contains("superblock"));
    }

    #[test]
    fn places_of_operations_are_used_again() {
        let mut health = health();
        for now in 0..1_000 {
            let (a, b) = (health.begin("read", ms(now)), health.begin("write", ms(now)));
            health.end(a, ms(now));
            health.forget(b, ms(now));
        }
        assert_eq!(health.flights.len(), 2);
        assert_eq!(health.verdict(ms(10_000)), None);
    }
}
