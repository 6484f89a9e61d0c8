//! Proof that what was taken down is gone: voters ask every holder, holders sign.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_track::TrackId;

use super::message::{Message, RECEIPTS_MAX};
use super::planted::Bug;
use super::{Core, Effect, Part};
use crate::takedown::{Progress, Receipt, Receipts, Verdict};
use crate::{Layout, NodeId, VolumeId};

/// How often what is not answered is asked again, in ms.
const AGAIN_MS: u64 = 5_000;
/// The most tracks that are asked about at a time: the next ones have their turn when these are done.
const OPEN_ASKED: usize = 1_024;
/// The most erasures that somebody waits for.
const ERASING_MAX: usize = 16_384;

/// Whose receipts are awaited, and who awaits ours.
#[derive(Default)]
pub(super) struct Receipting {
    receipts: Receipts,
    due: Option<u64>,
    /// Where the next questions begin.
    after: Option<TrackId>,
    /// Erasures under way, and the voters that are to hear of them.
    erasing: BTreeMap<(VolumeId, TrackId), BTreeSet<NodeId>>,
    /// Tracks of which every copy is receipted, since the process started.
    complete: u64,
}

impl Receipting {
    pub(super) fn set_reachable(&mut self, node: &NodeId, reachable: bool) {
        self.receipts.set_reachable(node, reachable);
    }
}

impl Core {
    /// How far a takedown is, as far as this node follows it: voters do, for what was taken down while they lived.
    #[must_use]
    pub fn takedown_progress(&self, track: &TrackId) -> Option<Progress> {
        self.receipts.receipts.progress(track)
    }

    /// How many takedowns are receipted by every holder, of those that this node followed.
    #[must_use]
    pub const fn takedowns_complete(&self) -> u64 {
        self.receipts.complete
    }

    /// A track is barred from now on: where this node votes, it asks all holders for their receipts.
    pub(super) fn expect_receipts(&mut self, track: TrackId) {
        let Some(layout) = self.layout().cloned() else { return };
        if layout.state().seat_of(&self.config.node).is_none() {
            return;
        }
        let holders = layout.sets(track.partition()).union();
        let node = |holder: &crate::Holder| (holder.volume, layout.map().nodes()[holder.node].id);
        let copies: Vec<(VolumeId, NodeId)> = holders.iter().map(node).collect();
        // What is beyond the bound is not followed; it is erased all the same.
        if self.receipts.receipts.expect(track, &copies).is_ok() {
            let dead = layout.state().dead();
            for (volume, _) in copies.iter().filter(|(_, node)| dead.contains(node)) {
                self.receipts.receipts.set_dead(volume, true);
            }
            self.receipts.due.get_or_insert(self.now + 1);
            self.touch(Part::Receipts);
        }
    }

    /// Volumes of nodes that were declared dead give no receipts.
    pub(super) fn renew_receipts(&mut self, layout: &Layout) {
        for node in layout.state().dead().iter().filter_map(|dead| layout.map().node(dead)) {
            node.volumes.iter().for_each(|volume| self.receipts.receipts.set_dead(&volume.id, true));
        }
    }

    pub(super) fn poll_receipts(&mut self) -> u64 {
        let Some(due) = self.receipts.due else { return u64::MAX };
        if self.now < due {
            return due;
        }
        // So many at a time, in turn: those of a node that cannot be reached do not hold up the others.
        let mut open = self.receipts.receipts.page(self.receipts.after.as_ref(), OPEN_ASKED);
        if open.is_empty() {
            open = self.receipts.receipts.page(None, OPEN_ASKED);
        }
        self.receipts.after = open.last().filter(|_| open.len() == OPEN_ASKED).map(|(track, _)| *track);
        let mut asks: BTreeMap<(NodeId, VolumeId), Vec<TrackId>> = BTreeMap::new();
        for (track, progress) in &open {
            if progress.is_complete() {
                self.receipts.receipts.close(track);
                self.receipts.complete += 1;
                continue;
            }
            for (volume, node, state) in self.receipts.receipts.copies(track) {
                if !state.is_settled() {
                    asks.entry((node, volume)).or_default().push(*track);
                }
            }
        }
        self.receipts.due = (!open.is_empty()).then_some(self.now + AGAIN_MS);
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
            let complete =
                self.receipts.receipts.progress(&receipt.track).is_some_and(|progress| progress.is_complete());
            if complete && self.receipts.receipts.close(&receipt.track) {
                self.receipts.complete += 1;
            }
        }
    }
}
