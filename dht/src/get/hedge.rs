//! How many requests may be asked twice.

/// One hedge for so many requests: 5 %.
pub const REQUESTS_PER_HEDGE: u32 = 20;
/// How many hedges may be saved up for a bad moment.
pub const HEDGES_SAVED_MAX: u32 = 50;

/// What hedges may cost: one for [`REQUESTS_PER_HEDGE`] requests, over any time since the start. All gets of a client
/// share one, so that when every node is slow, hedges do not make it worse (Dean and Barroso, "The tail at scale",
/// 2013). It starts empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HedgeBudget {
    /// A request is worth one; a hedge costs [`REQUESTS_PER_HEDGE`].
    saved: u32,
}

impl HedgeBudget {
    /// A request is sent that is no hedge.
    pub fn note_request(&mut self) {
        self.saved = (self.saved + 1).min(REQUESTS_PER_HEDGE * HEDGES_SAVED_MAX);
    }

    /// Whether a hedge may be sent; it is paid for then.
    pub fn take(&mut self) -> bool {
        let left = self.saved.checked_sub(REQUESTS_PER_HEDGE);
        self.saved = left.unwrap_or(self.saved);
        left.is_some()
    }
}
