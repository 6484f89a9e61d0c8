//! How a node and a voter of another cell deal with each other.

use super::cells::Place;
use super::machine::Liveness;
use super::summary::{Summary, What};
use super::watch::places;
use crate::NodeId;

impl Liveness {
    /// Who of the own cell is not there, bit by bit.
    pub(super) fn absent_here(&self) -> u64 {
        let Some(own) = self.own.filter(|_| self.cells.count() > 1) else { return 0 };
        let here = self.absent.iter().filter_map(|node| self.cells.place(node)).filter(|place| place.cell == own.cell);
        here.fold(0, |bits, place| bits | 1 << place.at)
    }

    /// Tells the herald who is not there.
    pub(super) fn tell(&mut self) {
        if let Some(own) = self.own.filter(|_| self.cells.count() > 1) {
            let absent = self.absent_here();
            self.herald.set_absent(self.now, own.at, absent);
        }
    }

    /// Sends `voters` that these of the cell are not there.
    pub(super) fn summarize<'a>(&mut self, voters: impl Iterator<Item = &'a NodeId>, absent: u64) {
        let Some(own) = self.own.filter(|_| self.cells.count() > 1) else { return };
        let what = What::Absent { cell: self.cells.name(own.cell), absent };
        let bytes = Summary { cluster: self.cluster, sender: self.node, what }.encode();
        voters.for_each(|voter| self.send(*voter, bytes.clone()));
    }

    /// A voter's work: finds cells of which nothing new is heard, and asks them.
    pub(super) fn look(&mut self) {
        let contact_ms = self.contact.contact_ms();
        if !self.watches() || !self.watch.is_due(contact_ms) {
            return;
        }
        let own = self.own.map(|place| place.cell);
        let (lapsed, asked) = self.watch.look(contact_ms);
        let question = Summary { cluster: self.cluster, sender: self.node, what: What::Question }.encode();
        let cells = self.cells.clone();
        for cell in (0..u32::try_from(cells.count()).expect("fewer than nodes")).filter(|cell| own != Some(*cell)) {
            let name = cells.name(cell);
            if lapsed.contains(&name) {
                self.judge(cell);
            }
            let Some((_, range)) = asked.iter().find(|(asked, _)| *asked == name) else { continue };
            let members = cells.members(cell as usize).len();
            for at in range.clone().take(members) {
                let at = at % u32::try_from(members).expect("a cell is small");
                self.send(cells.node(Place { cell, at }), question.clone());
            }
        }
    }

    /// A voter's work: follows what the members of `cell` say.
    pub(super) fn judge(&mut self, cell: u32) {
        let cells = self.cells.clone();
        let count = cells.members(cell as usize).len();
        let is_absent = |place: &Place| self.absent.contains(&cells.node(*place));
        let absent = places(cell, u64::MAX, count).filter(is_absent).fold(0, |bits, place| bits | 1 << place.at);
        let is_mute = |place: &Place| {
            let fell_at =
                self.peers.get(&cells.node(*place)).and_then(|peer| peer.absence).map(|absence| absence.fell_at);
            fell_at
                .is_some_and(|fell_at| self.watch.heard_at(cells.name(cell), place.at).is_none_or(|at| at <= fell_at))
        };
        let mute = places(cell, absent, count).filter(is_mute).fold(0, |bits, place| bits | 1 << place.at);
        let verdict = self.watch.judge(cells.name(cell), count, mute, self.contact.contact_ms());
        for place in places(cell, verdict.absent & !absent, count) {
            self.fell(cells.node(place));
        }
        for place in places(cell, verdict.present & absent, count) {
            self.rose(cells.node(place));
        }
    }

    /// Whether what is known of the absence of `node` is no older than it may be.
    pub(super) fn is_sure(&self, node: &NodeId) -> bool {
        let place = self.cells.place(node).expect("a node of the map");
        self.own.is_some_and(|own| own.cell == place.cell)
            || self.watch.is_sure(self.cells.name(place.cell), self.contact.contact_ms())
    }

    /// How many nodes of `zone` this one judges, without those declared dead.
    pub(super) fn zone_nodes(&self, zone: &str) -> usize {
        if self.cells.count() == 1 || self.watches() {
            let declared = self.declared.get(zone).copied().unwrap_or(0);
            return self.cells.zone_nodes(zone).saturating_sub(declared);
        }
        let members = self.own.into_iter().flat_map(|own| self.cells.members(own.cell as usize));
        let counts = |node: &&NodeId| {
            **self.cells.zone(node) == *zone && self.peers.get(node).is_none_or(|peer| peer.declared.is_none())
        };
        members.filter(counts).count()
    }
}
