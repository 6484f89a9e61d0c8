//! The records of an open segment that no listing on the drive has yet.
//!
//! Spaces are handed out in groups. When a group is full, room for its listing is taken from the segment's tail; when all
//! spaces of the group have ended, its listing is due. The last group goes into the footer, where it fits.

use std::collections::VecDeque;

use crate::format::{Listed, Part, listing_bytes_max};

/// What a record and a part take in a footer, so rounded that all fit.
const RECORD_BYTES: usize = 52;

pub(crate) struct Unlisted {
    /// How many spaces a group has.
    group_max: usize,
    /// How many parts the footer has room for.
    parts_max: usize,
    parts: Vec<Part>,
    groups: VecDeque<Group>,
    /// The number of the first of `groups`.
    first: u64,
}

#[derive(Default)]
struct Group {
    handed_out: usize,
    ended: usize,
    records: Vec<Listed>,
    /// Where its listing goes, once the group is full.
    listing_at: Option<u64>,
}

/// A group whose spaces have all ended, and where its listing goes.
pub(crate) struct Due {
    pub(crate) offset: u64,
    pub(crate) records: Vec<Listed>,
}

impl Unlisted {
    /// For a segment with so much room for its footer.
    pub(crate) fn new(footer_bytes: usize) -> Self {
        let group_max = (footer_bytes / 2 / RECORD_BYTES).max(1);
        // Half of the footer is for the parts' places, of 16 bytes each; the fixed parts come off it.
        let parts_max = (footer_bytes / 2).saturating_sub(512) / 16;
        Self { group_max, parts_max, parts: Vec::new(), groups: VecDeque::from([Group::default()]), first: 0 }
    }

    /// What must be taken from the tail before the next space.
    pub(crate) fn due_listing_bytes(&self) -> u64 {
        let full = self.groups.back().is_some_and(|group| group.handed_out >= self.group_max);
        if full { listing_bytes_max(0, self.group_max) as u64 } else { 0 }
    }

    /// Counts a space; room for a listing, if one was due, is at `listing_at`. Gives the space's group.
    pub(crate) fn hand_out(&mut self, listing_at: u64) -> u64 {
        let last = self.groups.back_mut().expect("there is always a group");
        if last.handed_out >= self.group_max {
            last.listing_at = Some(listing_at);
            self.groups.push_back(Group::default());
        }
        self.groups.back_mut().expect("there is always a group").handed_out += 1;
        self.first + self.groups.len() as u64 - 1
    }

    fn group(&mut self, number: u64) -> &mut Group {
        let index = usize::try_from(number - self.first).expect("few groups");
        &mut self.groups[index]
    }

    pub(crate) fn add(&mut self, group: u64, record: Listed) {
        self.group(group).records.push(record);
    }

    pub(crate) fn end(&mut self, group: u64) {
        self.group(group).ended += 1;
    }

    /// Whether [`due`](Self::due) gives something.
    pub(crate) fn is_due(&self) -> bool {
        let is_due = |oldest: &Group| oldest.listing_at.is_some() && oldest.ended == oldest.handed_out;
        self.groups.front().is_some_and(is_due)
    }

    /// The oldest group's listing, if its time has come. It stays until [`listed`](Self::listed).
    pub(crate) fn due(&self) -> Option<Due> {
        let oldest = self.groups.front()?;
        let offset = oldest.listing_at.filter(|_| oldest.ended == oldest.handed_out)?;
        Some(Due { offset, records: oldest.records.clone() })
    }

    /// The oldest group's listing is written.
    pub(crate) fn listed(&mut self, part: Part) {
        self.groups.pop_front();
        self.first += 1;
        self.parts.push(part);
    }

    /// Takes in what a start found. Gives what is too much for the footer, by groups: each needs a listing of its own.
    pub(crate) fn found(&mut self, parts: Vec<Part>, mut records: Vec<Listed>) -> Vec<Vec<Listed>> {
        self.parts = parts;
        let mut groups = Vec::new();
        while records.len() > self.group_max {
            groups.push(records.split_off(records.len() - self.group_max));
        }
        let last = self.groups.back_mut().expect("there is always a group");
        (last.handed_out, last.ended) = (records.len(), records.len());
        last.records = records;
        groups
    }

    /// A listing of records that a start found is written.
    pub(crate) fn add_part(&mut self, part: Part) {
        self.parts.push(part);
    }

    /// Gives records back for which there was no room for a listing: the segment cannot be sealed.
    pub(crate) fn keep(&mut self, records: Vec<Listed>) {
        self.groups.front_mut().expect("there is always a group").records.extend(records);
    }

    /// Whether all but what fits the footer is listed, and no space is outstanding.
    pub(crate) fn can_be_sealed(&self) -> bool {
        let Some(only) = self.groups.front().filter(|_| self.groups.len() == 1) else { return false };
        only.listing_at.is_none()
            && only.ended == only.handed_out
            && only.records.len() <= self.group_max
            && self.parts.len() <= self.parts_max
    }

    /// The places of the listings on the drive, and the records that are in none.
    pub(crate) fn contents(&self) -> (Vec<Part>, Vec<Listed>) {
        let records = self.groups.iter().flat_map(|group| &group.records).copied().collect();
        (self.parts.clone(), records)
    }

    pub(crate) fn forget(&mut self) {
        *self = Self { parts: Vec::new(), groups: VecDeque::from([Group::default()]), first: 0, ..*self };
    }
}
