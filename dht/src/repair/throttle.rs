//! How fast: a rate that foreground latency moves between a floor and a ceiling, and accounts of bytes that keep to it.

use deadwax_track::TRACK_BYTES_MAX;

use super::settings::RepairSettings;

/// The rate falls at most once in this time: an observation tells of operations that began before the last fall.
const CUT_MS: u64 = 1_000;
/// How long after the last high latency the rate rises again.
const CALM_MS: u64 = 2_000;
/// From the floor to the ceiling takes this long.
const RISE_MS: u64 = 32_000;
/// What an account gathers while nothing is moved, in ms of the rate: about a largest track at 60 MB/s. With less, the
/// rate would not be reached where large tracks begin now and then.
const BURST_MS: u64 = 8_000;
/// One part in so many of the floor goes to what is not urgent, even if urgent pulls take all that the floor gives.
const OTHERS_PART: i64 = 16;

/// The rate: additive increase, multiplicative decrease (Chiu and Jain, 1989). Where there is no foreground, and so
/// nobody observes it, the rate rises to the ceiling.
#[derive(Debug)]
pub(super) struct Throttle {
    floor: u64,
    ceiling: u64,
    latency_us_target: u64,
    rate: u64,
    /// Up to when the rate has risen; later than now after a high latency.
    risen_at: u64,
    /// When the rate may fall again.
    cut_from: u64,
}

impl Throttle {
    pub(super) fn new(settings: &RepairSettings, now: u64) -> Self {
        let floor = settings.floor_bytes_s.max(1);
        let ceiling = settings.ceiling_bytes_s.max(floor);
        let latency_us_target = settings.latency_us_target;
        Self { floor, ceiling, latency_us_target, rate: floor, risen_at: now, cut_from: now }
    }

    /// Bytes a second, now or at a later time.
    pub(super) fn rate_at(&self, now: u64) -> u64 {
        let elapsed = now.saturating_sub(self.risen_at);
        let whole = self.ceiling - self.floor;
        let rise = if elapsed >= RISE_MS { whole } else { whole.saturating_mul(elapsed) / RISE_MS };
        self.rate.saturating_add(rise).min(self.ceiling)
    }

    fn rise(&mut self, now: u64) {
        self.rate = self.rate_at(now);
        self.risen_at = self.risen_at.max(now);
    }

    /// The foreground's latency is this.
    pub(super) fn observe(&mut self, now: u64, latency_us: u64) {
        self.rise(now);
        if latency_us <= self.latency_us_target {
            return;
        }
        if now >= self.cut_from {
            self.rate = (self.rate - self.rate / 4).max(self.floor);
            self.cut_from = now + CUT_MS;
        }
        self.risen_at = now + CALM_MS;
    }
}

/// What may be moved, in thousandths of bytes: bytes a second times ms. Positive: the next may start, whatever its
/// size, and what it moves is taken off, so that a large track leaves a debt that time pays.
#[derive(Debug)]
pub(super) struct Account {
    filled_at: u64,
    /// Filled at the rate; all that is moved is taken off.
    shared: i64,
    /// Filled at the floor's rate; only urgent tracks are taken off. It lets them go while the others' debt is paid.
    reserved: i64,
}

/// By which way a pull came to start: how much it owes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fund {
    Shared,
    SharedUrgent,
    Reserved,
}

impl Account {
    pub(super) fn new(throttle: &Throttle, now: u64) -> Self {
        let full = millis(throttle.floor, BURST_MS);
        Self { filled_at: now, shared: full, reserved: full }
    }

    pub(super) fn fill(&mut self, now: u64, throttle: &mut Throttle) {
        // As it was: a rate that rises in the meantime is not paid for the past.
        let elapsed = now.saturating_sub(self.filled_at);
        let (rate, floor) = (throttle.rate, throttle.floor);
        throttle.rise(now);
        self.filled_at = self.filled_at.max(now);
        self.shared = self.shared.saturating_add(millis(rate, elapsed)).min(millis(throttle.rate, BURST_MS));
        self.reserved = self.reserved.saturating_add(millis(floor, elapsed)).min(millis(floor, BURST_MS));
    }

    /// What a track may be paid from now, if it may start. Call [`fill`](Self::fill) before.
    pub(super) const fn fund(&self, urgent: bool) -> Option<Fund> {
        match (urgent, self.shared > 0) {
            (false, true) => Some(Fund::Shared),
            (true, true) => Some(Fund::SharedUrgent),
            (true, false) if self.reserved > 0 => Some(Fund::Reserved),
            _ => None,
        }
    }

    /// When [`fund`](Self::fund) gives something: a rate that falls makes it later.
    pub(super) fn open_at(&self, urgent: bool, throttle: &Throttle) -> u64 {
        let wait = |owed: i64, rate: u64| u64::try_from(1 - owed).map_or(0, |owed| owed.div_ceil(rate));
        let shared = wait(self.shared, throttle.rate);
        let ms = if urgent { shared.min(wait(self.reserved, throttle.floor)) } else { shared };
        self.filled_at.saturating_add(ms)
    }

    /// `bytes` more moved (or fewer than was thought, if negative).
    pub(super) fn charge(&mut self, bytes: i64, fund: Fund) {
        let millis = bytes.saturating_mul(1_000);
        let shared = if fund == Fund::Reserved { millis - millis / OTHERS_PART } else { millis };
        self.shared = self.shared.saturating_sub(shared);
        if fund != Fund::Shared {
            // One largest track at most is owed here: much that was moved while the rate was high is no reason to wait.
            let least = -bytes_signed(TRACK_BYTES_MAX).saturating_mul(1_000);
            self.reserved = self.reserved.saturating_sub(millis).max(least);
        }
    }
}

fn millis(rate: u64, ms: u64) -> i64 {
    bytes_signed(rate.saturating_mul(ms))
}

/// Bytes as a number that may be subtracted from.
pub(super) fn bytes_signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
