//! What others may pull from this node at a time.

use std::collections::BTreeMap;

use super::throttle::{Account, Fund, Throttle, bytes_signed};
use crate::NodeId;

/// When to come again where all places are taken: about how long a track of common size takes.
const PLACES_MS: u64 = 500;

/// This node serves enough pulls at present.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("serve enough pulls already, come again in {after_ms} ms")]
pub struct Busy {
    /// When to come again, for [`PullError::Busy`](super::PullError::Busy).
    pub after_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Served {
    to: NodeId,
    /// What was charged at its start.
    bytes: u64,
    fund: Fund,
}

/// The pulls that are being served.
#[derive(Debug)]
pub(super) struct Serving {
    places: usize,
    account: Account,
    number: u64,
    /// At most as many as places.
    served: BTreeMap<u64, Served>,
    /// How many of them are each puller's.
    pullers: BTreeMap<NodeId, usize>,
}

impl Serving {
    pub(super) fn new(places: usize, throttle: &Throttle, now: u64) -> Self {
        let (account, served, pullers) = (Account::new(throttle, now), BTreeMap::new(), BTreeMap::new());
        Self { places: places.max(1), account, number: 0, served, pullers }
    }

    /// The number of what may be served now, of about so many bytes.
    pub(super) fn begin(
        &mut self,
        now: u64,
        to: NodeId,
        bytes: u64,
        urgent: bool,
        throttle: &mut Throttle,
    ) -> Result<u64, Busy> {
        let own = self.pullers.get(&to).copied().unwrap_or(0);
        if self.served.len() >= self.places || own >= self.places.div_ceil(2) {
            return Err(Busy { after_ms: PLACES_MS });
        }
        self.account.fill(now, throttle);
        let Some(fund) = self.account.fund(urgent) else {
            return Err(Busy { after_ms: self.account.open_at(urgent, throttle).saturating_sub(now).max(1) });
        };
        self.account.charge(bytes_signed(bytes), fund);
        self.pullers.insert(to, own + 1);
        self.number += 1;
        self.served.insert(self.number, Served { to, bytes, fund });
        Ok(self.number)
    }

    pub(super) fn end(&mut self, now: u64, number: u64, bytes: u64, throttle: &mut Throttle) {
        let Some(served) = self.served.remove(&number) else { return };
        let own = self.pullers.get_mut(&served.to).expect("counted when it began");
        *own -= 1;
        if *own == 0 {
            self.pullers.remove(&served.to);
        }
        self.account.fill(now, throttle);
        self.account.charge(bytes_signed(bytes).saturating_sub(bytes_signed(served.bytes)), served.fund);
    }

    pub(super) fn len(&self) -> usize {
        self.served.len()
    }
}
