//! What a voter makes of the summaries of the cells that it is not in.
//!
//! A node is absent, or there again, when most members of its cell that were heard lately say so; where they are of two
//! minds it stays what it was. One member alone is believed when the others had time to speak and did not. A cell from
//! which nothing comes is asked, each member; where none answers three times, all are absent.
//!
//! Times are ms of contact: what a voter missed does not count.

use std::collections::BTreeMap;

use super::cells::{Cells, Place};

/// How long a summary counts. Three members send one every half a minute, so that several must be lost for one to
/// lapse.
pub(super) const LAPSE_MS: u64 = 150 * 1_000;
/// How old a summary may be to count beside newer ones: two rounds. Members that were called down, or are no longer
/// among the first, thus do not hold up the others for long.
const RECENT_MS: u64 = 70 * 1_000;
/// How old the last word of a cell may be for one of it to be called dead: two rounds.
const SURE_MS: u64 = 60 * 1_000;
/// How often cells are looked at, and how often one from which nothing comes is asked.
const LOOK_MS: u64 = 10 * 1_000;
const ASK_MS: u64 = 30 * 1_000;
/// How many questions must stay unanswered, at least, for a whole cell to count as absent.
const UNANSWERED: u32 = 3;
/// How many members are asked at once when it does.
const ASKED: u32 = 4;

/// The last summary of one member.
#[derive(Clone, Copy, Debug)]
struct Word {
    heard_at: u64,
    /// Since when it speaks without a lapse.
    since: u64,
    absent: u64,
}

#[derive(Clone, Debug)]
struct Watched {
    /// By the member's number. At most one for each member.
    words: BTreeMap<u32, Word>,
    heard_at: u64,
    asked_at: u64,
    /// Questions since a word came.
    asked: u32,
}

/// What is to be done for a cell.
#[derive(Default, Debug)]
pub(super) struct Verdict {
    /// Those found to be absent, or there: bit i is the i-th member. Whoever is neither stays what it was.
    pub(super) absent: u64,
    pub(super) present: u64,
}

#[derive(Debug, Default)]
pub(super) struct Watch {
    /// By the cells' names.
    cells: BTreeMap<u64, Watched>,
    looked_at: u64,
}

impl Watch {
    /// Watches all cells but `own`. What was heard of cells that are as they were stays.
    pub(super) fn set_cells(&mut self, cells: &Cells, own: Option<u32>, contact_ms: u64) {
        let mut before = std::mem::take(&mut self.cells);
        let fresh = Watched { words: BTreeMap::new(), heard_at: contact_ms, asked_at: 0, asked: 0 };
        for cell in 0..u32::try_from(cells.count()).expect("fewer than nodes") {
            if own != Some(cell) {
                let name = cells.name(cell);
                self.cells.insert(name, before.remove(&name).unwrap_or_else(|| fresh.clone()));
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.cells.clear();
    }

    /// Hears a summary of the member numbered `from`. Returns whether it says anything new.
    pub(super) fn hear(&mut self, cell: u64, from: u32, absent: u64, contact_ms: u64) -> bool {
        let Some(watched) = self.cells.get_mut(&cell) else { return false };
        (watched.heard_at, watched.asked) = (contact_ms, 0);
        let word = Word { heard_at: contact_ms, since: contact_ms, absent };
        let Some(old) = watched.words.get_mut(&from) else {
            watched.words.insert(from, word);
            return true;
        };
        let is_news = old.absent != absent;
        *old = Word { since: old.since, ..word };
        // A lone member counts only after a while: something may be new without a new word.
        is_news || watched.words.len() == 1
    }

    /// Whether it is time for [`look`](Self::look).
    pub(super) const fn is_due(&self, contact_ms: u64) -> bool {
        contact_ms >= self.looked_at + LOOK_MS
    }

    /// Finds cells where words lapsed, and those to be asked: their members' numbers.
    pub(super) fn look(&mut self, contact_ms: u64) -> (Vec<u64>, Vec<(u64, std::ops::Range<u32>)>) {
        let looked_at = std::mem::replace(&mut self.looked_at, contact_ms);
        let (mut lapsed, mut asked) = (Vec::new(), Vec::new());
        for (&name, watched) in &mut self.cells {
            let before = watched.words.len();
            watched.words.retain(|_, word| contact_ms - word.heard_at <= LAPSE_MS);
            let is_older =
                |word: &Word| contact_ms - word.heard_at > RECENT_MS && looked_at <= word.heard_at + RECENT_MS;
            if watched.words.len() != before || watched.words.values().any(is_older) {
                lapsed.push(name);
            }
            let is_silent = watched.words.is_empty() && contact_ms - watched.heard_at > LAPSE_MS;
            if is_silent && (watched.asked == 0 || contact_ms - watched.asked_at >= ASK_MS) {
                if watched.asked == UNANSWERED {
                    lapsed.push(name);
                }
                let from = if watched.asked < UNANSWERED { 0 } else { ASKED * (watched.asked - UNANSWERED) };
                let count = if watched.asked < UNANSWERED { u32::MAX } else { ASKED };
                watched.asked_at = contact_ms;
                watched.asked = watched.asked.saturating_add(1);
                asked.push((name, from..from.saturating_add(count)));
            }
        }
        (lapsed, asked)
    }

    /// Whether what is known of a cell is no older than it may be, for one of it to be called dead.
    pub(super) fn is_sure(&self, cell: u64, contact_ms: u64) -> bool {
        let is_recent = |watched: &Watched| !watched.words.is_empty() && contact_ms - watched.heard_at <= SURE_MS;
        self.cells.get(&cell).is_some_and(|watched| is_recent(watched) || watched.asked > UNANSWERED)
    }

    /// When the member numbered `at` of a cell was last heard, if its word counts.
    pub(super) fn heard_at(&self, cell: u64, at: u32) -> Option<u64> {
        self.cells.get(&cell).and_then(|watched| watched.words.get(&at)).map(|word| word.heard_at)
    }

    /// What the words about a cell of `count` members amount to; `mute` are those that are absent and were not heard
    /// since.
    pub(super) fn judge(&self, cell: u64, count: usize, mute: u64, contact_ms: u64) -> Verdict {
        let Some(watched) = self.cells.get(&cell) else { return Verdict::default() };
        let mut words: Vec<(u32, Word)> = watched.words.iter().map(|(&at, &word)| (at, word)).collect();
        // Whoever speaks no more is out of date, unless nobody else was heard.
        let is_recent = |word: &Word| contact_ms - word.heard_at <= RECENT_MS;
        if words.iter().any(|(_, word)| is_recent(word)) {
            words.retain(|(_, word)| is_recent(word));
        }
        // Whoever is absent says nothing any more, unless nothing else is known.
        if words.iter().any(|(at, _)| mute >> at & 1 == 0) {
            words.retain(|(at, _)| mute >> at & 1 == 0);
        }
        let mut verdict = Verdict::default();
        match words.first() {
            None => {
                if watched.asked > UNANSWERED {
                    verdict.absent = u64::MAX;
                }
                return verdict;
            }
            Some((at, word)) if words.len() == 1 && contact_ms - word.since < LAPSE_MS => {
                // It is there itself, at any rate.
                verdict.present = 1 << at;
                return verdict;
            }
            Some(_) => {}
        }
        for at in 0..u32::try_from(count).expect("a cell is small") {
            let others = words.iter().filter(|(by, _)| *by != at);
            let (all, against) = others
                .fold((0, 0), |(all, against), (_, word)| (all + 1, against + u32::from(word.absent >> at & 1 == 1)));
            verdict.absent |= u64::from(2 * against > all) << at;
            verdict.present |= u64::from(2 * (all - against) > all || all == 0) << at;
        }
        verdict
    }
}

/// The members of `cell` whose bits are set.
pub(super) fn places(cell: u32, bits: u64, count: usize) -> impl Iterator<Item = Place> {
    let count = u32::try_from(count).expect("a cell is small");
    (0..count.min(64)).filter(move |at| bits >> at & 1 == 1).map(move |at| Place { cell, at })
}
