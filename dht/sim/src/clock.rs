//! A machine's clocks, as far from true time as faults put them.

/// The world's time, in microseconds since its beginning.
pub(crate) type Micros = u64;

pub(crate) const MILLI: Micros = 1_000;
pub(crate) const SECOND: Micros = 1_000_000;
pub(crate) const MINUTE: Micros = 60 * SECOND;

/// When the world began, in ms since 1970.
const BEGAN_MS: u64 = 1_800_000_000_000;
const MILLION: u64 = 1_000_000;

/// A clock that never goes back and counts the time asleep (`CLOCK_BOOTTIME`), and a wall clock that anybody may set.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    since: Micros,
    local_us: u64,
    /// How fast it runs, in millionths: a million is right.
    rate: u64,
    /// How far the wall clock is from the truth, in ms; half of it is 0.
    wall_ms: u64,
}

const WALL_ZERO: u64 = 1 << 40;

impl Clock {
    /// A clock that shows `local_ms` at `now`, and runs right.
    pub(crate) const fn new(now: Micros, local_ms: u64) -> Self {
        Self { since: now, local_us: local_ms * MILLI, rate: MILLION, wall_ms: WALL_ZERO }
    }

    /// What it shows, in ms.
    pub(crate) const fn now_ms(&self, now: Micros) -> u64 {
        self.now_us(now) / MILLI
    }

    const fn now_us(&self, now: Micros) -> u64 {
        let gone = now - self.since;
        if self.rate == MILLION { self.local_us + gone } else { self.local_us + gone / 1_000 * self.rate / 1_000 }
    }

    /// When it will show `local_ms`: not before `now`.
    pub(crate) const fn when(&self, local_ms: u64, now: Micros) -> Micros {
        let Some(local_us) = local_ms.checked_mul(MILLI) else { return Micros::MAX };
        let ahead = local_us.saturating_sub(self.now_us(now));
        if self.rate == MILLION || ahead == 0 {
            return now.saturating_add(ahead);
        }
        now.saturating_add(ahead / self.rate * MILLION + ahead % self.rate * MILLION / self.rate + 2 * MILLI)
    }

    /// Runs at another rate from here on, in millionths.
    pub(crate) const fn run(&mut self, now: Micros, rate: u64) {
        self.local_us = self.now_us(now);
        self.since = now;
        self.rate = rate;
    }

    /// The wall clock, in ms since 1970.
    pub(crate) const fn wall_ms(&self, now: Micros) -> u64 {
        (BEGAN_MS + now / MILLI + self.wall_ms).saturating_sub(WALL_ZERO)
    }

    /// The machine starts anew: its wall clock goes on as that of `before`.
    pub(crate) const fn keep_wall(&mut self, before: &Self) {
        self.wall_ms = before.wall_ms;
    }

    /// Somebody sets the wall clock this far from the truth.
    pub(crate) const fn set_wall(&mut self, ahead_ms: u64, behind_ms: u64) {
        self.wall_ms = WALL_ZERO + ahead_ms - behind_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_its_time_when_it_says_it_will() {
        let mut clock = Clock::new(5 * SECOND, 77);
        assert_eq!(clock.now_ms(6 * SECOND), 1_077);
        assert_eq!(clock.when(1_077, 5 * SECOND), 6 * SECOND);
        for rate in [999_000, 1_000_500] {
            clock.run(8 * SECOND, rate);
            for ahead in [1, 1_000, 3_600_000] {
                let due = clock.now_ms(9 * SECOND) + ahead;
                let when = clock.when(due, 9 * SECOND);
                assert!(clock.now_ms(when) >= due && clock.now_ms(when) <= due + 4, "{rate} {ahead}");
            }
        }
        clock.set_wall(0, 60_000);
        assert_eq!(clock.wall_ms(10 * SECOND), BEGAN_MS + 10_000 - 60_000);
    }
}
