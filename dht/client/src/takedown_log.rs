//! Takedowns by the cluster's log: a node that may sign them does, the nodes follow, and so does whoever has a cache.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use deadwax_dht::takedown::{Heads, Takedown, witnesses};
use deadwax_dht::wire::{Feed, HolderReceipts, Message, TAKEDOWNS_MAX, TAKEDOWNS_WAIT_MS_MAX};
use deadwax_dht::{Failure, FailureKind, NodeId};
use deadwax_track::TrackId;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::connection::unexpected;
use crate::error::{HolderFailure, Holders};
use crate::known::Known;
use crate::read::failure;
use crate::{Client, Error};

/// How long a node may take to have a takedown flushed by enough others: it gives up itself before.
const ISSUE_MS: u64 = 25_000;
/// When no further node is asked to take a track down.
const ISSUE_TIME_MAX: Duration = Duration::from_secs(30);
const NO_ISSUER: &str = "no issuer is set, so nobody may sign it: see `deadwax cluster issuer`";

/// A takedown that the cluster's log has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Issued {
    /// Its number in the cluster. Asked again, the same comes back; but where two issuers took the track down at the same
    /// time, the lower one once both are known.
    pub number: u64,
    /// How many members of the takedown log have it on their drives: a majority.
    pub have: u32,
    /// How many members there are.
    pub members: u32,
}

/// A takedown, and who has erased the track.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// As it was signed.
    pub takedown: Takedown,
    /// None: no voter could be asked.
    pub holders: Option<HolderReceipts>,
}

/// How far somebody has heard of takedowns. As text it is hexadecimal digits, and good for ever: whichever node is asked.
/// The default is the beginning.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Cursor(Heads);

/// The text is no cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a cursor of takedowns")]
pub struct BadCursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.encode().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        if !text.len().is_multiple_of(2) || text.len() > 2 * Heads::BYTES_MAX {
            return Err(BadCursor);
        }
        let byte = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        Heads::decode(&bytes.ok_or(BadCursor)?).map(Self).map_err(|_| BadCursor)
    }
}

impl Client {
    /// Takes a track down by the cluster's log, whether or not it is stored, and whoever of its holders is down. On return
    /// the takedown is on the drives of a majority of the log's members: no node serves the track later than 60 s after,
    /// whatever is cut off or lost then, and those holders that answer refuse it already, to putters as well. The others
    /// hear of it before they serve anything. None: the map never changes, and every node says that it has no such log, see
    /// [`take_down`](Self::take_down).
    /// `reason`: for people; at most [`REASON_BYTES_MAX`](deadwax_dht::takedown::REASON_BYTES_MAX) bytes.
    ///
    /// # Errors
    /// `Invalid`: the reason is too long. `Unavailable`: no node that may sign could be reached, or too few nodes have it:
    /// it may be signed, and spreads; ask again. Or no node's settings name an issuer.
    pub async fn issue(&self, id: TrackId, reason: &str) -> Result<Option<Issued>, Error> {
        let (known, began) = (self.known(), Instant::now());
        let request = Message::Feed(Feed::Issue { id, reason: reason.to_owned() });
        let (mut failures, mut no_log) = (Holders::default(), 0);
        for node in self.issuers_first(&known) {
            if began.elapsed() > ISSUE_TIME_MAX {
                break;
            }
            let failure = match known.ask_patiently(node, &request, ISSUE_MS).await {
                Ok((lease, reply)) => {
                    self.follow_behind(lease.connection.receiver.epoch);
                    lease.give_back();
                    match reply {
                        Message::Feed(Feed::Issued { number, have, members }) => {
                            self.inner.issuer.store(node, Ordering::Relaxed);
                            return Ok(Some(Issued { number, have, members }));
                        }
                        Message::Feed(Feed::NotIssuer { issuers: 0 }) => {
                            Failure::new(FailureKind::Version, "its settings name no issuer")
                        }
                        Message::Feed(Feed::NotIssuer { .. }) => {
                            Failure::new(FailureKind::Internal, "signs no takedowns, others do")
                        }
                        other => failure(other),
                    }
                }
                Err(failure) => failure,
            };
            match failure.kind {
                FailureKind::Invalid => return Err(Error::Invalid(failure.why)),
                // It names no issuer, or speaks the protocol as it was before there were such logs.
                FailureKind::Version => no_log += 1,
                _ => {}
            }
            failures.0.push(named(&known, node, &failure));
        }
        let none_has = no_log == known.map().nodes().len();
        // A map that changes comes with a log of takedowns: what goes past it a node that was away would not hear of.
        if none_has && self.newest().await.is_none() {
            return Ok(None);
        }
        let why = if none_has { NO_ISSUER } else { "no node that signs takedowns has done it, ask again" };
        Err(Error::Unavailable { what: format!("take down {id}: {why}"), holders: failures })
    }

    /// Every node, that which signed last first, then voters, as they mostly may; those out of reach a moment ago last.
    fn issuers_first(&self, known: &Known) -> Vec<usize> {
        let last = self.inner.issuer.load(Ordering::Relaxed);
        let votes =
            |node: usize| known.layout().is_some_and(|layout| layout.state().seat_of(&known.node_id(node)).is_some());
        let mut order: Vec<usize> = (0..known.map().nodes().len()).collect();
        order.sort_by_key(|node| (known.pool(*node).is_suspect(), *node != last, !votes(*node)));
        order
    }

    /// The takedown of a number in the cluster, and who has erased the track: of a node that follows receipts, if one
    /// answers.
    ///
    /// # Errors
    /// `NotFound`: all nodes that answered, more than half, know of no such takedown. `Unavailable`: too few answered.
    pub async fn takedown(&self, number: u64) -> Result<Report, Error> {
        let (known, request) = (self.known(), Message::Feed(Feed::Receipts { number }));
        let (mut failures, mut absent, mut best) = (Holders::default(), 0, None);
        for node in self.issuers_first(&known) {
            let failure = match known.ask(node, &request).await {
                Ok((lease, reply)) => {
                    lease.give_back();
                    match reply {
                        Message::Feed(Feed::ReceiptList { takedown, holders }) => {
                            let report = Report { takedown: *takedown, holders };
                            if report.holders.is_some() {
                                return Ok(report);
                            }
                            best = Some(report);
                            continue;
                        }
                        Message::Error { code: deadwax_dht::wire::ErrorCode::NotFound, .. } => {
                            absent += 1;
                            continue;
                        }
                        other => failure(other),
                    }
                }
                Err(failure) => failure,
            };
            failures.0.push(named(&known, node, &failure));
        }
        match best {
            Some(report) => Ok(report),
            None if absent > known.map().nodes().len() / 2 => Err(Error::NotFound),
            None => {
                let what = format!("takedown {number}: {absent} nodes do not know it");
                Err(Error::Unavailable { what, holders: failures })
            }
        }
    }

    /// Takedowns after a cursor, each after those that its issuer signed before, and the cursor behind them. Waits for one
    /// up to `wait`, at most 25 s; none: there was none. Each call asks another node, so that one which is cut off holds
    /// nobody up for longer than a call; a cursor is good with all of them, and where one is behind another, takedowns may
    /// come twice. They are not checked: whoever is asked is believed, as when it says that a track was taken down.
    ///
    /// # Errors
    /// `Unavailable`: no node answered. `Invalid`: the cluster has no such log.
    pub async fn takedowns(&self, cursor: &Cursor, wait: Duration) -> Result<(Vec<Takedown>, Cursor), Error> {
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).min(TAKEDOWNS_WAIT_MS_MAX);
        let known = cursor.0.clone();
        let request = Message::Feed(Feed::TakedownsAfter { known, wait_ms, limit: TAKEDOWNS_MAX });
        let records = self.ask_feed(&request, u64::from(wait_ms), |feed| match feed {
            Feed::Takedowns(records) => Ok(records),
            other => Err(Message::Feed(other)),
        });
        let records = records.await?;
        let cursor = Cursor(cursor.0.clone().advanced(&records));
        Ok((records, cursor))
    }

    /// Where the takedowns end now: for whoever is only interested in those to come.
    ///
    /// # Errors
    /// As of [`takedowns`](Self::takedowns).
    pub async fn takedowns_now(&self) -> Result<Cursor, Error> {
        self.ask_feed(&Message::Feed(Feed::TakedownHeads), 0, |feed| match feed {
            Feed::Heads(heads) => Ok(Cursor(heads)),
            other => Err(Message::Feed(other)),
        })
        .await
    }

    /// Asks those nodes that hear of each takedown at once, beginning behind the one that answered last; the others after
    /// them.
    async fn ask_feed<T>(
        &self,
        request: &Message,
        longer_ms: u64,
        take: impl Fn(Feed) -> Result<T, Message>,
    ) -> Result<T, Error> {
        let (known, mut failures) = (self.known(), Holders::default());
        let (witnesses, all) = (witnesses_of(&known), known.map().nodes().len());
        let next = self.inner.told_by.load(Ordering::Relaxed).wrapping_add(1) % all.max(1);
        let mut order: Vec<usize> = (next..all).chain(0..next).collect();
        order.sort_by_key(|node| (known.pool(*node).is_suspect(), !witnesses.contains(&known.node_id(*node))));
        let mut no_log = 0;
        for node in order {
            let failure = match known.ask_patiently(node, request, longer_ms).await {
                Ok((lease, reply)) => {
                    self.follow_behind(lease.connection.receiver.epoch);
                    lease.give_back();
                    let taken = match reply {
                        Message::Feed(feed) => take(feed).map_err(|other| unexpected(&other)),
                        other => Err(failure(other)),
                    };
                    match taken {
                        Ok(taken) => {
                            self.inner.told_by.store(node, Ordering::Relaxed);
                            return Ok(taken);
                        }
                        Err(failure) => failure,
                    }
                }
                Err(failure) => failure,
            };
            no_log += usize::from(matches!(failure.kind, FailureKind::Invalid | FailureKind::Version));
            failures.0.push(named(&known, node, &failure));
        }
        if no_log == all {
            return Err(Error::Invalid("the cluster has no log of takedowns".to_owned()));
        }
        Err(Error::Unavailable { what: "follow the takedowns".to_owned(), holders: failures })
    }
}

/// Whom an issuer tells at once: see [`witnesses`].
fn witnesses_of(known: &Known) -> BTreeSet<NodeId> {
    match known.layout() {
        Some(layout) => layout.witnesses().iter().copied().collect(),
        None => {
            let nodes = known.map().nodes().iter().map(|node| (node.id, node.zone.as_str()));
            witnesses(nodes, &BTreeSet::new()).into_iter().collect()
        }
    }
}

fn named(known: &Known, node: usize, failure: &Failure) -> HolderFailure {
    let address = known.map().nodes()[node].address.clone();
    HolderFailure { node: known.node_id(node), address, why: failure.why.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_text_and_comes_back() {
        let text = Cursor::default().to_string();
        assert_eq!(text.parse(), Ok(Cursor::default()));
        assert_eq!(text.to_uppercase().parse(), Ok(Cursor::default()));
        for bad in ["", "0", "é0", "zz", &text[2..], &format!("{text}00")] {
            assert_eq!(bad.parse::<Cursor>(), Err(BadCursor), "{bad}");
        }
    }
}
