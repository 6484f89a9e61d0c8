//! What keeps a mass failure from moving data.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::NodeId;

/// Nodes that vanish within this time vanish at once, in ms of contact.
pub const MASS_WINDOW_MS: u64 = 10 * 60 * 1_000;

/// How many names the text of a brake shows.
const NAMES_SHOWN: usize = 5;

/// How many of a zone's `nodes` are a mass: more than a fifth, and at least two, as one node is what repair is for; of
/// a zone with one node that one, as it is the whole zone.
///
/// So 1 of 1, 2 of 2 to 9, 3 of 10 to 14, 21 of 100.
#[must_use]
pub const fn mass(nodes: usize) -> usize {
    let over_a_fifth = nodes / 5 + 1;
    let mass = if over_a_fifth < 2 { 2 } else { over_a_fifth };
    if mass > nodes { nodes } else { mass }
}

/// A zone where a mass vanished at once: a switch, a power feed, a cable. While it holds, silence makes nobody there
/// dead.
///
/// Whoever goes down while it holds comes under it too. It ends when no more are down than half of the [`mass`] that it
/// took (their 30 minutes then begin anew), or by an operator's word.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Brake {
    /// Which zone.
    pub zone: String,
    /// Since when, in ms of the driver's clock.
    pub since_ms: u64,
    /// Who vanished, and is not back.
    pub nodes: BTreeSet<NodeId>,
    /// How many vanished nodes it took.
    pub mass: usize,
    /// How many nodes the zone had then, without those that were dead.
    pub of: usize,
}

impl Brake {
    /// Whether so few are still down that it ends.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.nodes.len() <= self.mass / 2
    }

    /// A sentence for people, at `now` in ms of the driver's clock.
    #[must_use]
    pub fn sentence(&self, now: u64) -> String {
        let Self { zone, since_ms, nodes, mass, of } = self;
        let mut named: Vec<String> = nodes.iter().take(NAMES_SHOWN).map(|node| node.short()).collect();
        if nodes.len() > NAMES_SHOWN {
            named.push(format!("and {} more", nodes.len() - NAMES_SHOWN));
        }
        format!(
            "zone {zone}: {} of {of} nodes are down, {mass} or more vanished within {} minutes, {} s ago ({}); nothing is \
             moved on their account until most are back or an operator releases the brake",
            nodes.len(),
            MASS_WINDOW_MS / 60_000,
            now.saturating_sub(*since_ms) / 1_000,
            named.join(", "),
        )
    }
}
