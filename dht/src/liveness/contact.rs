//! Time as far as this node has lived through it.

/// The longest time between two polls that passes for SWIM, in ms: polls are asked for every second.
const STEP_MS_MAX: u64 = 2_000;
/// The longest time without a word from anybody that counts as being in contact, in ms. Where at least one other node is
/// up, each second brings a probe or an answer.
const GAP_MS_MAX: u64 = 10_000;

/// A clock that stands still while nobody polls, so that a process which was stopped blames nobody for it: what it waited
/// for is still on its way in. It never goes back, whatever the driver's clock does.
#[derive(Debug)]
pub(super) struct LivedClock {
    now: u64,
    lived_ms: u64,
}

impl LivedClock {
    pub(super) const fn new(now: u64) -> Self {
        Self { now, lived_ms: 0 }
    }

    /// Goes on to `now`, ms of the driver's clock. Returns ms of this one.
    pub(super) fn advance(&mut self, now: u64) -> u64 {
        self.lived_ms += now.saturating_sub(self.now).min(STEP_MS_MAX);
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
}

impl Contact {
    pub(super) const fn new(now: u64) -> Self {
        Self { heard_at: now, contact_ms: 0 }
    }

    /// Somebody was heard.
    pub(super) const fn heard(&mut self, now: u64) {
        let gap_ms = now.saturating_sub(self.heard_at);
        if gap_ms <= GAP_MS_MAX {
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
        let mut clock = LivedClock::new(1_000);
        assert_eq!(clock.advance(1_500), 500);
        assert_eq!(clock.advance(1_500 + 2_400_000), 500 + STEP_MS_MAX);
        assert_eq!(clock.advance(10), 500 + STEP_MS_MAX);
        assert_eq!(clock.advance(20), 510 + STEP_MS_MAX);
        assert_eq!(clock.when(clock.lived_ms() + 7), 27);
        let mut contact = Contact::new(0);
        for now in [4_000, 14_000, 24_001, 30_000] {
            contact.heard(now);
        }
        assert_eq!(contact.contact_ms(), 4_000 + 10_000 + 5_999);
        contact.heard(3);
        assert_eq!((contact.contact_ms(), contact.heard_at()), (19_999, 3));
    }
}
