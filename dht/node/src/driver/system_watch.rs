//! Whether the system drive answers.
//!
//! A flush that hangs cannot be given up, and what the core wants kept waits behind it: the node would go on as if alive,
//! and take no part in anything that it must remember. Who asks for such a thing is told so after some seconds. Where it
//! lasts the node goes down, as databases do: another node leads then, and whoever starts it again finds out whether the
//! drive is there. (What the drive has is not known, so there is nothing to come back to without a new start.)

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use deadwax_dht::wire::ErrorCode;

use crate::Error;
use crate::refusal::Refusal;

/// After how many seconds it is said.
pub(super) const SILENT_S: u32 = 5;
/// After how many seconds the node goes down: a drive that is merely overloaded has flushed by then.
pub(super) const DOWN_S: u32 = 20;

/// What the system drive's thread does, as others see it.
#[derive(Default)]
pub(crate) struct SystemWatch {
    /// One more whenever it begins something at the drive, and when that has ended: odd while it is there.
    turns: AtomicU64,
    /// For how many seconds it has been at one thing, at least.
    silent_s: AtomicU32,
    given_up: AtomicBool,
}

/// It is at the drive, until this is dropped.
pub(super) struct AtDrive<'a>(&'a AtomicU64);

impl Drop for AtDrive<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl SystemWatch {
    pub(super) fn at_drive(&self) -> AtDrive<'_> {
        self.turns.fetch_add(1, Ordering::Relaxed);
        AtDrive(&self.turns)
    }

    /// Fails while the drive does not answer.
    pub(super) fn answers(&self) -> Result<(), Refusal> {
        match self.silent_s.load(Ordering::Relaxed) {
            0..SILENT_S => Ok(()),
            seconds => {
                let why =
                    format!("the node's system drive has not answered for {seconds} s: the node ends at {DOWN_S}");
                Err(Refusal::new(ErrorCode::Busy, why))
            }
        }
    }

    /// Fails where the node goes down because of it.
    pub(crate) fn is_not_given_up(&self) -> Result<(), Error> {
        if self.given_up.load(Ordering::Relaxed) { Err(Error::SystemSilent(DOWN_S)) } else { Ok(()) }
    }
}

/// Counts for how long it has been at one thing: looks, not time, which goes on while the process itself is stopped.
#[derive(Default)]
pub(super) struct Looks {
    turns: u64,
    same: u32,
}

impl Looks {
    /// Call it each second. For how many seconds the drive has not answered, at least.
    pub(super) fn look(&mut self, watch: &SystemWatch) -> u32 {
        let turns = watch.turns.load(Ordering::Relaxed);
        let is_at_drive = turns % 2 == 1;
        self.same = if is_at_drive && turns == self.turns { self.same + 1 } else { 0 };
        self.turns = turns;
        watch.silent_s.store(self.same, Ordering::Relaxed);
        if self.same >= DOWN_S {
            watch.given_up.store(true, Ordering::Relaxed);
        }
        self.same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_thing_that_lasts_is_a_drive_that_does_not_answer() {
        let (watch, mut looks) = (SystemWatch::default(), Looks::default());
        for _ in 0..100 {
            assert_eq!(looks.look(&watch), 0, "nothing is asked of it");
        }
        for _ in 0..100 {
            let _there = watch.at_drive();
            assert_eq!(looks.look(&watch), 0, "it is always at another thing");
        }
        let there = watch.at_drive();
        for seconds in 0..=DOWN_S {
            assert!(watch.is_not_given_up().is_ok());
            assert_eq!(looks.look(&watch), seconds);
            assert_eq!(watch.answers().is_err(), seconds >= SILENT_S);
        }
        assert!(watch.is_not_given_up().is_err());
        drop(there);
        assert_eq!(looks.look(&watch), 0);
        assert!(watch.answers().is_ok() && watch.is_not_given_up().is_err(), "it goes down all the same");
    }
}
