//! How long to wait before trying again.

use std::time::Duration;

/// Delays that double from the first to the longest, and end.
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
    left: u32,
    settings: (Duration, u32),
}

impl Backoff {
    /// `tries_max` delays: `first`, twice that, and so on up to `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration, tries_max: u32) -> Self {
        Self { next: first, longest, left: tries_max, settings: (first, tries_max) }
    }

    /// For requests to a gateway: six more tries within about ten seconds, which a restart takes.
    #[must_use]
    pub const fn request() -> Self {
        Self::new(Duration::from_millis(200), Duration::from_secs(4), 6)
    }

    /// The next delay, or nothing where it is time to give up.
    pub fn delay(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let delay = self.next;
        self.next = (delay * 2).min(self.longest);
        Some(delay)
    }

    /// Begins anew, after something went well.
    pub fn restart(&mut self) {
        (self.next, self.left) = self.settings;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_end() {
        let mut backoff = Backoff::new(Duration::from_millis(300), Duration::from_secs(1), 4);
        let delays = |backoff: &mut Backoff| -> Vec<u128> {
            std::iter::from_fn(|| backoff.delay()).map(|delay| delay.as_millis()).collect()
        };
        assert_eq!(delays(&mut backoff), [300, 600, 1000, 1000]);
        assert_eq!(backoff.delay(), None);
        backoff.restart();
        assert_eq!(delays(&mut backoff), [300, 600, 1000, 1000]);
    }
}
