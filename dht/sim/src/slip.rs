//! The mistakes on purpose that drivers and clients make, not cores.

use crate::world::World;

/// A mistake on purpose of the same name as the core's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Slip {
    ReadUnproved,
    ResumeAnywhere,
    StoreUnproved,
}

impl World {
    #[cfg(feature = "planted")]
    pub(crate) fn slips(&self, slip: Slip) -> bool {
        use deadwax_dht::core::Bug;
        let bug = match slip {
            Slip::ReadUnproved => Bug::ReadUnproved,
            Slip::ResumeAnywhere => Bug::ResumeAnywhere,
            Slip::StoreUnproved => Bug::StoreUnproved,
        };
        self.bug == Some(bug)
    }

    #[cfg(not(feature = "planted"))]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    pub(crate) const fn slips(&self, _: Slip) -> bool {
        false
    }
}
