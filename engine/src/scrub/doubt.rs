//! While a record that scrub found damaged is still there, nobody may believe that the volume was verified: after a restart
//! the record counts like any other until a pass comes by it again, which may take weeks.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use deadwax_track::TrackId;

use crate::format::ScrubPlace;
use crate::host::Host;
use crate::volume::Inner;

/// The most records that are remembered. Of a drive with more it may be said too early that they are gone.
const DAMAGED_MAX: usize = 65_536;

/// What was found damaged and is there still.
#[derive(Default)]
pub(super) struct Doubt {
    /// By id and address.
    damaged: RefCell<HashSet<(TrackId, u64)>>,
    /// When the volume was verified, once they are gone.
    verified_at: Cell<u64>,
}

impl<H: Host> Inner<H> {
    /// The record of `id` at `address` is damaged.
    pub(super) fn doubt(&self, id: TrackId, address: u64) {
        let (place, doubt) = (self.scrub_place.get(), &self.scrub.doubt);
        let mut damaged = doubt.damaged.borrow_mut();
        if damaged.is_empty() {
            doubt.verified_at.set(place.verified_at);
        }
        if damaged.len() < DAMAGED_MAX {
            damaged.insert((id, address));
        }
        drop(damaged);
        self.set_scrub_place(ScrubPlace { verified_at: 0, ..place });
        self.ask_for_snapshot();
    }

    /// A pass has ended: what is in no doubt was verified at `at`.
    pub(super) fn pass_verified(&self, at: u64) -> u64 {
        self.settle_doubt();
        let doubt = &self.scrub.doubt;
        if doubt.damaged.borrow().is_empty() {
            return at;
        }
        doubt.verified_at.set(at);
        0
    }

    /// Forgets the records that are gone, be it that others came in their place; with the last of them the doubt ends.
    pub(super) fn settle_doubt(&self) {
        let doubt = &self.scrub.doubt;
        let mut damaged = doubt.damaged.borrow_mut();
        if damaged.is_empty() {
            return;
        }
        let index = self.index.borrow();
        damaged.retain(|(id, address)| index.candidates(id).iter().any(|slot| slot.address == *address));
        if damaged.is_empty() {
            self.set_scrub_place(ScrubPlace { verified_at: doubt.verified_at.get(), ..self.scrub_place.get() });
        }
    }
}
