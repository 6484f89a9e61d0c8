//! A budget of bytes a second.

/// A token bucket that may go into debt: whoever begins something asks [`is_open`](Self::is_open); what was begun is
/// paid as it comes.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    bytes_per_s: u64,
    /// In thousandths of a byte.
    level: i64,
    at: u64,
}

/// A budget that was not used for this long is full, in ms.
const FULL_MS: u64 = 2_000;

impl Budget {
    pub(super) fn new(bytes_per_s: u64, now: u64) -> Self {
        let bytes_per_s = bytes_per_s.clamp(1, 1 << 40);
        Self { bytes_per_s, level: Self::level(bytes_per_s, FULL_MS), at: now }
    }

    fn level(bytes_per_s: u64, ms: u64) -> i64 {
        i64::try_from(bytes_per_s * ms).expect("below 2^40 times a few seconds")
    }

    fn fill(&mut self, now: u64) {
        let full = Self::level(self.bytes_per_s, FULL_MS);
        // Debt is bounded by what one poll sends, which an hour pays at any rate worth setting.
        let ms = now.saturating_sub(self.at).min(3_600_000);
        self.level = (self.level + Self::level(self.bytes_per_s, ms)).min(full);
        self.at = self.at.max(now);
    }

    pub(super) fn is_open(&mut self, now: u64) -> bool {
        self.fill(now);
        self.level > 0
    }

    /// Whether it is so deep in debt that peers' wishes are dropped, too.
    pub(super) fn is_ruined(&mut self, now: u64) -> bool {
        self.fill(now);
        self.level < -Self::level(self.bytes_per_s, FULL_MS)
    }

    pub(super) fn pay(&mut self, now: u64, bytes: usize) {
        self.fill(now);
        self.level = self.level.saturating_sub(i64::try_from(bytes).expect("a message is short").saturating_mul(1_000));
    }

    /// When it will be open: `now` where it is.
    pub(super) fn opens(&mut self, now: u64) -> u64 {
        self.fill(now);
        if self.level > 0 { now } else { now + self.level.unsigned_abs() / self.bytes_per_s + 1 }
    }
}
