//! Time as far as this node has lived through it.

/// By how much a poll may be late, in ms, and the time up to it still pass for SWIM.
const LATE_MS_MAX: u64 = 1_000;
/// The longest time without a word from anybody that counts as being in contact, in ms. Where at least one other node
/// is up, each probe's period brings a probe or an answer; of long periods there must be some within it.
const GAP_MS_MAX: u64 = 10_000;
const GAP_PERIODS: u64 = 4;

/// A clock that stands still while nobody polls, so that a process which was stopped blames nobody for it: what it
/// waited for is still on its way in. It never goes back, whatever the driver's clock does.
#[derive(Debug)]
pub(super) struct LivedClock {
    now: u64,
    lived_ms: u64,
    step_ms_max: u64,
}

impl LivedClock {
    /// A clock that is polled every `tick_ms` or sooner.
    pub(super) const fn new(now: u64, tick_ms: u64) -> Self {
        Self { now, lived_ms: 0, step_ms_max: tick_ms + LATE_MS_MAX }
    }

    /// Goes on to `now`, ms of the driver's clock. Returns ms of this one.
    pub(super) fn advance(&mut self, now: u64) -> u64 {
        self.lived_ms += now.saturating_sub(self.now).min(self.step_ms_max);
        self.now = now;
        self.lived_ms
    }

    /// When the driver's clock will show what this one calls `due`.
    pub(super) const fn when(&self, due: u64) -> u64 {
        self.now.saturating_add(due.saturating_sub(self.lived_ms))
    }

    pub(super) const fn lived_ms(&self) -> u64 {
        self.lived_ms
    }
}

/// How long this node has been in contact with others: the measure of their silence.
#[derive(Debug)]
pub(super) struct Contact {
    heard_at: u64,
    contact_ms: u64,
    gap_ms_max: u64,
}

impl Contact {
    /// Of a node that probes every `probe_ms`.
    pub(super) const fn new(now: u64, probe_ms: u64) -> Self {
        let periods_ms = GAP_PERIODS * probe_ms;
        let gap_ms_max = if periods_ms > GAP_MS_MAX { periods_ms } else { GAP_MS_MAX };
        Self { heard_at: now, contact_ms: 0, gap_ms_max }
    }

    /// Somebody was heard.
    pub(super) const fn heard(&mut self, now: u64) {
        let gap_ms = now.saturating_sub(self.heard_at);
        if gap_ms <= self.gap_ms_max {
            self.contact_ms += gap_ms;
        }
        self.heard_at = now;
    }

    /// Time in contact, in ms, since this process began.
    pub(super) const fn contact_ms(&self) -> u64 {
        self.contact_ms
    }

    /// When somebody was last heard, or this process began.
    pub(super) const fn heard_at(&self) -> u64 {
        self.heard_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_and_a_jump_back_do_not_pass() {
        let mut clock = LivedClock::new(1_000, 1_000);
        assert_eq!(clock.advance(1_500), 500);
        assert_eq!(clock.advance(1_500 + 2_400_000), 2_500);
        assert_eq!(clock.advance(10), 2_500);
        assert_eq!(clock.advance(20), 2_510);
        assert_eq!(clock.when(clock.lived_ms() + 7), 27);
        let mut contact = Contact::new(0, 1_000);
        for now in [4_000, 14_000, 24_001, 30_000] {
            contact.heard(now);
        }
        assert_eq!(contact.contact_ms(), 4_000 + 10_000 + 5_999);
        contact.heard(3);
        assert_eq!((contact.contact_ms(), contact.heard_at()), (19_999, 3));
    }
}
