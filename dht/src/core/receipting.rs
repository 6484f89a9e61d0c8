//! Proof that what was taken down is gone: voters ask every holder, holders sign.
//!
//! **Whose.** Each voter follows each takedown until all who hold its partition by the newest map, and all who held it
//! since the voter began to follow it, have signed, are dead, or are not in the map any more. What was receipted before
//! is not kept: a voter that starts, or takes a seat, goes through the whole log once more. Whoever has erased a track
//! erases it again, finds nothing, and signs.
//!
//! **What that costs.** [`OPEN_ASKED`] tracks each [`AGAIN_MS`], some 200 a second: a million takedowns take a voter 85
//! minutes, its holders one look at the index and one signature a copy, and the voter some 300 bytes for each that is
//! open.
//!
//! **Who is not asked.** Volumes that are no holders: stand-ins, and old holders of before. They erase all the same, and
//! serve nothing meanwhile: a node that knows a takedown bars it at its gate, erases it on all of its volumes, and goes
//! through what each volume has when it comes up; one that may lack takedowns does not serve.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use deadwax_track::TrackId;

use super::message::{Message, RECEIPTS_MAX};
use super::planted::Bug;
use super::{Core, Effect, Part, ReceiptReport};
use crate::takedown::{OPEN_MAX, Progress, Receipt, Receipts, Verdict};
use crate::{Layout, NodeId, VolumeId};

/// How often what is not answered is asked again, in ms.
const AGAIN_MS: u64 = 5_000;
/// The most tracks that are asked about at a time: the next ones have their turn when these are done.
const OPEN_ASKED: usize = 1_024;
/// The most erasures that somebody waits for.
const ERASING_MAX: usize = 16_384;
/// Beyond so many open tracks a voter does not go on through the log: there is room for what is taken down meanwhile.
const OPEN_LOGGED_MAX: usize = OPEN_MAX / 2;

/// The most tracks whose receipts are remembered after the last one came: whoever asks for one before is shown a copy's
/// time; for those of others all are asked for anew.
const CLOSED_MAX: usize = 1_024;

/// Whose receipts are awaited, and who awaits ours.
#[derive(Default)]
pub(super) struct Receipting {
    receipts: Receipts,
    /// Whether this node votes.
    votes: bool,
    /// How far it has gone through the log. None: to the end.
    logged: Option<Logged>,
    due: Option<u64>,
    /// Where the next questions begin.
    after: Option<TrackId>,
    /// Erasures under way, and the voters that are to hear of them.
    erasing: BTreeMap<(VolumeId, TrackId), BTreeSet<NodeId>>,
    /// Tracks of which every copy is receipted, since the process started.
    complete: u64,
    /// The last of them.
    closed: VecDeque<(TrackId, ReceiptReport)>,
}

/// The last barred track that is followed; none: the first one is next.
#[derive(Clone, Copy)]
struct Logged(Option<TrackId>);

impl Receipting {
    pub(super) fn set_reachable(&mut self, node: &NodeId, reachable: bool) {
        self.receipts.set_reachable(node, reachable);
    }
}

impl Core {
    /// How far a takedown is, where this node follows it: a voter does until it is complete.
    #[must_use]
    pub fn takedown_progress(&self, track: &TrackId) -> Option<Progress> {
        self.receipts.receipts.progress(track)
    }

    /// How many takedowns were found to be receipted by every holder since the process started. One that comes while a voter
    /// goes through the log may count twice.
    #[must_use]
    pub const fn takedowns_complete(&self) -> u64 {
        self.receipts.complete
    }

    /// A track is barred: where this node votes, it asks all holders for their receipts.
    pub(super) fn expect_receipts(&mut self, track: TrackId) {
        if !self.receipts.votes {
            return;
        }
        if !self.expect_of_holders(&track) {
            // Beyond the bound: the log is gone through once more when there is room.
            self.receipts.logged = Some(Logged(None));
        }
        self.receipts.due.get_or_insert(self.now + 1);
        self.touch(Part::Receipts);
    }

    /// Awaits the receipts of those who hold the track now, beside those that are awaited. Whether it is followed.
    fn expect_of_holders(&mut self, track: &TrackId) -> bool {
        let Some(layout) = self.layout().cloned() else { return false };
        let holders = layout.sets(track.partition()).union();
        let node = |holder: &crate::Holder| (holder.volume, layout.map().nodes()[holder.node].id);
        let copies: Vec<(VolumeId, NodeId)> = holders.iter().map(node).collect();
        let followed = self.receipts.receipts.expect(*track, &copies).is_ok();
        // Nobody signs for a volume that the map has no more, and nobody asks it.
        let dead = layout.state().dead();
        let is_dead = |volume: &VolumeId| layout.node_of(volume).is_none_or(|node| dead.contains(&node));
        self.receipts.receipts.judge(track, is_dead);
        followed
    }

    /// Whether all have signed who hold the track by the newest map, or did: then it is followed no more.
    fn close_receipts(&mut self, track: &TrackId) -> bool {
        let is_complete = |core: &Self| core.takedown_progress(track).is_some_and(|progress| progress.is_complete());
        if is_complete(self) {
            self.expect_of_holders(track);
        }
        let copies: Vec<_> = self.receipts.receipts.copies(track).collect();
        let closed = self.receipts.receipts.close(track);
        if closed {
            self.receipts.complete += 1;
            self.receipts.closed.retain(|(other, _)| other != track);
            self.receipts.closed.truncate(CLOSED_MAX - 1);
            self.receipts.closed.push_front((*track, ReceiptReport { complete: true, copies }));
        }
        closed
    }

    /// A client asks. What is not followed any more is followed anew.
    pub(super) fn take_want_receipts(&mut self, number: u64, track: TrackId) {
        let report = self.receipt_report(&track);
        self.effects.push(Effect::Receipts { number, report });
    }

    fn receipt_report(&mut self, track: &TrackId) -> Option<ReceiptReport> {
        if !self.receipts.votes || !matches!(self.gate(track), Verdict::Barred(_)) {
            return None;
        }
        if self.takedown_progress(track).is_none() {
            if let Some((_, report)) = self.receipts.closed.iter().find(|(other, _)| other == track) {
                return Some(report.clone());
            }
            if !self.expect_of_holders(track) {
                return None;
            }
            self.receipts.due.get_or_insert(self.now + 1);
            self.touch(Part::Receipts);
        }
        let complete = self.takedown_progress(track)?.is_complete();
        Some(ReceiptReport { complete, copies: self.receipts.receipts.copies(track).collect() })
    }

    /// A node that begins to vote goes through the log; one that votes no more follows nothing.
    pub(super) fn renew_receipts(&mut self, layout: &Layout) {
        self.receipts.receipts.keep_nodes(layout.map().nodes().iter().map(|node| &node.id));
        let votes = layout.state().seat_of(&self.config.node).is_some();
        if votes == std::mem::replace(&mut self.receipts.votes, votes) {
            return;
        }
        self.receipts.receipts.clear();
        (self.receipts.logged, self.receipts.after) = (votes.then_some(Logged(None)), None);
        self.receipts.due = votes.then_some(self.now);
        self.touch(Part::Receipts);
    }

    /// Follows the next takedowns of the log.
    fn follow_log(&mut self) {
        let Some(Logged(after)) = self.receipts.logged.filter(|_| self.receipts.receipts.open() < OPEN_LOGGED_MAX)
        else {
            return;
        };
        let page = self.takedown_log().barred_after(after.as_ref(), OPEN_ASKED);
        self.receipts.logged = page.last().filter(|_| page.len() == OPEN_ASKED).map(|last| Logged(Some(*last)));
        for track in page {
            self.expect_of_holders(&track);
        }
    }

    pub(super) fn poll_receipts(&mut self) -> u64 {
        let Some(due) = self.receipts.due else { return u64::MAX };
        if self.now < due {
            return due;
        }
        self.follow_log();
        // So many at a time, in turn: those of a node that cannot be reached do not hold up the others.
        let mut open = self.receipts.receipts.page(self.receipts.after.as_ref(), OPEN_ASKED);
        if open.is_empty() {
            open = self.receipts.receipts.page(None, OPEN_ASKED);
        }
        self.receipts.after = open.last().filter(|_| open.len() == OPEN_ASKED).map(|(track, _)| *track);
        let mut asks: BTreeMap<(NodeId, VolumeId), Vec<TrackId>> = BTreeMap::new();
        for (track, _) in &open {
            self.expect_of_holders(track);
            if self.close_receipts(track) {
                continue;
            }
            for (volume, node, state) in self.receipts.receipts.copies(track) {
                if !state.is_settled() {
                    asks.entry((node, volume)).or_default().push(*track);
                }
            }
        }
        let goes_on = !open.is_empty() || self.receipts.logged.is_some();
        self.receipts.due = goes_on.then_some(self.now + AGAIN_MS);
        for ((node, volume), tracks) in asks {
            for tracks in tracks.chunks(RECEIPTS_MAX) {
                if node == self.config.node {
                    self.take_receipts_ask(node, volume, tracks);
                } else {
                    self.send(node, Message::ReceiptsAsk(volume, tracks.to_vec()));
                }
            }
        }
        self.receipts.due.unwrap_or(u64::MAX)
    }

    /// A voter asks whether tracks are gone: they are erased once more, and then they are.
    pub(super) fn take_receipts_ask(&mut self, from: NodeId, volume: VolumeId, tracks: &[TrackId]) {
        if !self.copies.has_volume(&volume) {
            return;
        }
        for track in tracks {
            // One that this node does not know yet it will be asked for again.
            let known = matches!(self.gate(track), Verdict::Barred(_));
            let room = self.receipts.erasing.len() < ERASING_MAX;
            if !known || !(room || self.receipts.erasing.contains_key(&(volume, *track))) {
                continue;
            }
            self.receipts.erasing.entry((volume, *track)).or_default().insert(from);
            if self.planted(Bug::ReceiptEarly) {
                self.sign_receipt(volume, *track);
                continue;
            }
            self.effects.push(Effect::Erase { volume, track: *track, barred: true });
        }
    }

    /// A volume is gone: nothing of it is being erased.
    pub(super) fn forget_erasing(&mut self, volume: VolumeId) {
        self.receipts.erasing.retain(|(other, _), _| *other != volume);
    }

    /// A track is gone from a volume: whoever waits for that is told.
    pub(super) fn sign_receipt(&mut self, volume: VolumeId, track: TrackId) {
        let Some(voters) = self.receipts.erasing.remove(&(volume, track)) else { return };
        let time = self.config.life + (self.now - self.began);
        let receipt = Receipt::sign(&self.config.key, track, volume, time);
        for voter in voters {
            if voter == self.config.node {
                self.take_receipts(&[receipt]);
            } else {
                self.send(voter, Message::Receipts(vec![receipt]));
            }
        }
    }

    pub(super) fn take_receipts(&mut self, receipts: &[Receipt]) {
        for receipt in receipts {
            // A bad one changes nothing, and its copy stays pending.
            let _ = self.receipts.receipts.take(receipt);
            self.close_receipts(&receipt.track);
        }
    }
}
