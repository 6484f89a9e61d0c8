//! The clocks that a core goes by.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// How far the wall clock and the other may part before the core is told, in ms.
const JUMP_MS: u64 = 1_000;

/// Milliseconds of a clock that counts the time asleep and that nobody sets: since the machine started.
pub(crate) fn now_ms() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    seconds * 1_000 + nanos / 1_000_000
}

/// Milliseconds since 1970, as this machine believes; 0 before.
pub(super) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Watches the two clocks part: somebody set one of them.
pub(super) struct Jumps {
    apart: u64,
}

impl Jumps {
    pub(super) fn new() -> Self {
        Self { apart: wall_ms().wrapping_sub(now_ms()) }
    }

    /// Whether they parted since the last question.
    pub(super) fn jumped(&mut self) -> bool {
        let apart = wall_ms().wrapping_sub(now_ms());
        let moved = apart.wrapping_sub(std::mem::replace(&mut self.apart, apart));
        moved.min(moved.wrapping_neg()) > JUMP_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_go_on_together_did_not_jump() {
        let mut jumps = Jumps::new();
        assert!(!jumps.jumped());
        for by in [JUMP_MS + 100, 0_u64.wrapping_sub(JUMP_MS + 100)] {
            jumps.apart = jumps.apart.wrapping_add(by);
            assert!(jumps.jumped() && !jumps.jumped());
        }
    }
}
