//! Which volumes hold one partition.

use deadwax_track::Partition;

use super::roster::{Roster, ZoneRule};
use crate::VolumeId;

/// A volume that was picked. The order is that of picking: volumes that are to be kept, then the lowest draws. Equal
/// draws are as good as impossible; the id makes even those the same everywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Pick {
    stranger: bool,
    pub(super) draw: u128,
    id: VolumeId,
    /// An index into [`Roster::volumes`].
    pub(crate) volume: u32,
}

impl Roster {
    /// The holders of `partition`, lowest draw first.
    pub(crate) fn place(&self, partition: Partition) -> Vec<Pick> {
        self.place_keeping(partition, &[])
    }

    /// The holders of `partition`, lowest draw first, of which as many as the rules allow are of `kept`, whatever those
    /// draw.
    pub(super) fn place_keeping(&self, partition: Partition, kept: &[u32]) -> Vec<Pick> {
        let mut chosen = Vec::with_capacity(self.copies());
        let mut spare = Vec::new();
        for rule in self.zones().iter().filter(|rule| rule.most > 0) {
            let ranked = self.rank(partition, rule, kept);
            chosen.extend_from_slice(&ranked[..rule.least]);
            if rule.most > rule.least {
                spare.push(ranked[rule.least]);
            }
        }
        spare.sort_unstable();
        chosen.extend_from_slice(&spare[..self.extras()]);
        chosen.sort_unstable_by_key(|pick| (pick.draw, pick.id));
        chosen
    }

    /// A zone's volumes in the order in which it would give them to the partition: at least its `most`.
    fn rank(&self, partition: Partition, rule: &ZoneRule, kept: &[u32]) -> Vec<Pick> {
        let mut list = Shortlist { roster: self, rule, picks: Vec::with_capacity(rule.shortlist + 1) };
        for &volume in kept.iter().filter(|volume| rule.volumes.contains(&(**volume as usize))) {
            let seat = self.seat(volume);
            list.offer(Pick { stranger: false, draw: seat.drawer.draw(partition), id: seat.holder.volume, volume });
        }
        let mut bound = list.bound();
        let first = u32::try_from(rule.volumes.start).expect("checked: a map has fewer than 2^32 volumes");
        for (volume, seat) in (first..).zip(&self.volumes()[rule.volumes.clone()]) {
            if let Some(draw) = seat.drawer.draw_up_to(partition, bound)
                && !kept.contains(&volume)
            {
                list.offer(Pick { stranger: true, draw, id: seat.holder.volume, volume });
                bound = list.bound();
            }
        }
        list.ranked()
    }
}

/// The best volumes of a zone so far, best first: no two on a node, no more a rack than it may have.
struct Shortlist<'a> {
    roster: &'a Roster,
    rule: &'a ZoneRule,
    picks: Vec<Pick>,
}

impl Shortlist<'_> {
    /// Draws above this need not be offered.
    fn bound(&self) -> u128 {
        match self.picks.last() {
            Some(last) if self.picks.len() == self.rule.shortlist => {
                if last.stranger {
                    last.draw
                } else {
                    0
                }
            }
            _ => u128::MAX >> 1,
        }
    }

    fn offer(&mut self, pick: Pick) {
        let seat = self.roster.seat(pick.volume);
        let same_node = |other: &Pick| self.roster.seat(other.volume).holder.node == seat.holder.node;
        let same_rack = |other: &&Pick| self.roster.seat(other.volume).rack == seat.rack;
        // Which one would have to go for it: its node's, or the worst of a full rack.
        let rival = match self.picks.iter().position(same_node) {
            Some(own) => Some(own),
            None if self.picks.iter().filter(same_rack).count() < self.rule.per_rack => None,
            None => self.picks.iter().rposition(|other| same_rack(&other)),
        };
        if let Some(rival) = rival {
            if pick > self.picks[rival] {
                return;
            }
            self.picks.remove(rival);
        }
        let at = self.picks.partition_point(|other| *other < pick);
        self.picks.insert(at, pick);
        self.picks.truncate(self.rule.shortlist);
    }

    /// The best of each rack, then the others.
    fn ranked(self) -> Vec<Pick> {
        if self.rule.per_rack == 1 {
            return self.picks;
        }
        let rack = |pick: &Pick| self.roster.seat(pick.volume).rack;
        let is_first = |at: usize| !self.picks[..at].iter().any(|other| rack(other) == rack(&self.picks[at]));
        let (first, rest): (Vec<usize>, Vec<usize>) = (0..self.picks.len()).partition(|at| is_first(*at));
        first.into_iter().chain(rest).map(|at| self.picks[at]).collect()
    }
}
