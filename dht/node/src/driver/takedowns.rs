//! Takedowns by the cluster's log: clients' questions to the core, and those who wait for news.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use deadwax_dht::core::{Alarm, Input, ReceiptReport};
use deadwax_dht::takedown::{Heads, ISSUERS_MAX, IssueError, Name, Spread, Takedown};
use deadwax_dht::wire::ErrorCode;
use deadwax_track::TrackId;

use super::clock::{now_ms, wall_ms};
use super::live::Driver;
use super::system_thread::{Order, Read};
use super::{Asked, Handle};
use crate::refusal::Refusal;

/// The most questions for news that wait; one more is Busy. A gateway asks one.
const WAITING_MAX: usize = 1_024;
/// The most takedowns that wait to be acknowledged, and the most questions for receipts: the core answers at once, or in
/// 20 s.
const OPEN_MAX: usize = 1_024;
/// The most reads of takedowns for clients that are under way; one more is Busy. The thread that reads them keeps the map's
/// log, too, and a read is of a thousand records at most.
pub(super) const READS_MAX: usize = 16;
/// An alarm is logged once in so many ms.
const ALARM_MS: u64 = 60_000;
/// The most alarms that are told apart: as many issuers as there may be, and as many strangers.
const ALARMS_MAX: usize = 2 * ISSUERS_MAX;

/// What a client wants of the log.
pub(crate) enum TakedownAsked {
    TakeDown {
        track: TrackId,
        reason: String,
        answer: flume::Sender<Result<Taken, Refusal>>,
    },
    Receipts {
        track: TrackId,
        answer: flume::Sender<Option<ReceiptReport>>,
    },
    /// The records of a number in the cluster.
    Record {
        number: u64,
        answer: flume::Sender<Option<Vec<Takedown>>>,
    },
    /// At most `limit` records that whoever has what `known` says lacks: what there is, or with `wait` once there is one.
    After {
        known: Heads,
        limit: usize,
        wait: bool,
        answer: flume::Sender<Option<Vec<Takedown>>>,
    },
    /// How far what is flushed goes.
    Heads {
        answer: flume::Sender<Heads>,
    },
}

/// What came of a wish to take a track down.
pub(crate) enum Taken {
    /// It has this name, and has come so far.
    Named(Name, Spread),
    /// This node signs none.
    NotIssuer,
}

/// Those who wait for the core.
#[derive(Default)]
pub(super) struct Desk {
    /// By the driver's numbers: who waits for a takedown to be acknowledged, and its name once it has one.
    issuing: HashMap<u64, Issuing>,
    receipts: HashMap<u64, flume::Sender<Option<ReceiptReport>>>,
    /// Who waits for news.
    waiting: Vec<Waiting>,
    /// Each read that is under way has another one of it.
    reads: Arc<()>,
    /// When each alarm was logged last.
    alarms: BTreeMap<Alarm, u64>,
}

struct Issuing {
    name: Option<Name>,
    answer: flume::Sender<Result<Taken, Refusal>>,
}

struct Waiting {
    known: Heads,
    limit: usize,
    answer: flume::Sender<Option<Vec<Takedown>>>,
}

impl Handle {
    /// Takes a track down; answered when a majority of the takedowns' members has it, or when it is clear that it will not
    /// soon.
    pub(crate) async fn take_down(&self, track: TrackId, reason: String) -> Result<Taken, Refusal> {
        self.system.answers()?;
        let (answer, answered) = flume::bounded(1);
        self.ask(Asked::OfTakedowns(TakedownAsked::TakeDown { track, reason, answer }))?;
        answered.recv_async().await.unwrap_or_else(|_| Err(Refusal::shard_ended()))
    }

    /// Which holders have erased a track. None: this node cannot tell.
    pub(crate) async fn receipts(&self, track: TrackId) -> Result<Option<ReceiptReport>, Refusal> {
        let (answer, answered) = flume::bounded(1);
        self.ask(Asked::OfTakedowns(TakedownAsked::Receipts { track, answer }))?;
        answered.recv_async().await.map_err(|_| Refusal::shard_ended())
    }

    /// The takedown of a number in the cluster. Where its issuer forked, the first of several.
    pub(crate) async fn takedown(&self, number: u64) -> Result<Option<Takedown>, Refusal> {
        let (answer, answered) = flume::bounded(1);
        self.ask(Asked::OfTakedowns(TakedownAsked::Record { number, answer }))?;
        let records = news(answered.recv_async().await)?;
        Ok(records.into_iter().next())
    }

    /// How far the takedowns go that are on this node's drive.
    pub(crate) async fn takedown_heads(&self) -> Result<Heads, Refusal> {
        let (answer, answered) = flume::bounded(1);
        self.ask(Asked::OfTakedowns(TakedownAsked::Heads { answer }))?;
        answered.recv_async().await.map_err(|_| behind())
    }

    /// Asks for takedowns: what there is comes by the receiver at once, or with `wait` once there is one. To be read by
    /// [`news`].
    pub(crate) fn takedowns_after(
        &self,
        known: Heads,
        limit: usize,
        wait: bool,
    ) -> Result<flume::Receiver<Option<Vec<Takedown>>>, Refusal> {
        let (answer, answered) = flume::bounded(1);
        self.ask(Asked::OfTakedowns(TakedownAsked::After { known, limit, wait, answer }))?;
        Ok(answered)
    }
}

/// What came by a receiver of [`Handle::takedowns_after`].
pub(crate) fn news(came: Result<Option<Vec<Takedown>>, flume::RecvError>) -> Result<Vec<Takedown>, Refusal> {
    match came {
        Ok(records) => records.ok_or_else(unread),
        Err(_) => Err(behind()),
    }
}

/// Nothing was answered.
fn behind() -> Refusal {
    let why = format!(
        "the node may lack takedowns itself, or {WAITING_MAX} wait for them already, or {READS_MAX} are being read: ask \
         another node, or again"
    );
    Refusal::new(ErrorCode::Busy, why)
}

fn unread() -> Refusal {
    Refusal::new(ErrorCode::Internal, "the node cannot read its takedowns")
}

impl Driver {
    pub(super) fn take_takedown_asked(&mut self, asked: TakedownAsked) {
        match asked {
            TakedownAsked::TakeDown { answer, .. } if self.desk.issuing.len() >= OPEN_MAX => {
                let why = format!("{OPEN_MAX} takedowns wait to be acknowledged");
                drop(answer.try_send(Err(Refusal::new(ErrorCode::Busy, why))));
            }
            TakedownAsked::TakeDown { track, reason, answer } => {
                let number = self.number();
                self.desk.issuing.insert(number, Issuing { name: None, answer });
                self.step(Input::TakeDown { number, track, time: wall_ms(), reason });
            }
            TakedownAsked::Receipts { track, answer } => {
                // Answered within the step: no more than one waits at a time.
                let number = self.number();
                self.desk.receipts.insert(number, answer);
                self.step(Input::WantReceipts { number, track });
            }
            TakedownAsked::Record { number, answer } => {
                let log = self.core.takedown_log();
                let slots = log.names(number).flat_map(|name| log.slots_of(&name)).collect();
                self.read(slots, vec![answer]);
            }
            // From one that may lack some nobody should think that there are none.
            TakedownAsked::After { .. } | TakedownAsked::Heads { .. } if self.core.may_serve().is_err() => {}
            TakedownAsked::Heads { answer } => drop(answer.try_send(self.core.takedown_heads().clone())),
            TakedownAsked::After { known, limit, wait: false, answer } => {
                let slots = self.core.takedowns_since(&known, limit);
                self.read(slots, vec![answer]);
            }
            TakedownAsked::After { known, limit, wait: true, answer } => {
                self.desk.waiting.retain(|waiting| !waiting.answer.is_disconnected());
                if self.desk.waiting.len() < WAITING_MAX {
                    self.desk.waiting.push(Waiting { known, limit, answer });
                    self.tell_news();
                }
            }
        }
    }

    /// Answers those for whom there are takedowns now: one read for all who lack the same. Whoever asked in vain has gone, or
    /// waits on.
    pub(super) fn tell_news(&mut self) {
        let mut lacking = BTreeMap::<Vec<u32>, Vec<_>>::new();
        for waiting in std::mem::take(&mut self.desk.waiting) {
            let slots = self.core.takedowns_since(&waiting.known, waiting.limit);
            if slots.is_empty() {
                self.desk.waiting.push(waiting);
            } else {
                lacking.entry(slots).or_default().push(waiting.answer);
            }
        }
        for (slots, answers) in lacking {
            self.read(slots, answers);
        }
    }

    /// Has takedowns read for clients. Beyond the bound nothing is: dropped, the answers say that the node is busy.
    fn read(&self, slots: Vec<u32>, answers: Vec<flume::Sender<Option<Vec<Takedown>>>>) {
        if slots.is_empty() {
            answers.iter().for_each(|answer| drop(answer.try_send(Some(Vec::new()))));
            return;
        }
        // The desk has the first itself.
        if Arc::strong_count(&self.desk.reads) <= READS_MAX {
            self.order(Order::Read(Read { slots, answers, under_way: Arc::clone(&self.desk.reads) }));
        }
    }

    /// Logs what an operator must look at.
    pub(super) fn alarm(&mut self, alarm: Alarm) {
        let (now, alarms) = (now_ms(), &mut self.desk.alarms);
        alarms.retain(|_, logged| now < *logged + ALARM_MS);
        if alarms.len() < ALARMS_MAX && !alarms.contains_key(&alarm) {
            alarms.insert(alarm, now);
            tracing::error!("{alarm}");
        }
    }

    /// A takedown is on this node's drive, or there is none.
    pub(super) fn issued(&mut self, number: u64, result: Result<Name, IssueError>) {
        let refusal = match result {
            Ok(name) | Err(IssueError::Already(name)) => {
                if let Some(issuing) = self.desk.issuing.get_mut(&number) {
                    issuing.name = Some(name);
                }
                return;
            }
            Err(IssueError::Stranger) => None,
            Err(why @ (IssueError::Behind | IssueError::Busy)) => {
                Some(Refusal::new(ErrorCode::Busy, format!("take down: {why}")))
            }
            Err(why @ IssueError::Reason(_)) => Some(Refusal::invalid(why.to_string())),
            Err(why @ IssueError::Full) => Some(Refusal::new(ErrorCode::Internal, format!("take down: {why}"))),
        };
        if let Some(Issuing { answer, .. }) = self.desk.issuing.remove(&number) {
            drop(answer.try_send(refusal.map_or(Ok(Taken::NotIssuer), Err)));
        }
    }

    /// A takedown has come so far.
    pub(super) fn spread(&mut self, number: u64, spread: Spread) {
        if let Some(Issuing { name: Some(name), answer }) = self.desk.issuing.remove(&number) {
            drop(answer.try_send(Ok(Taken::Named(name, spread))));
        }
    }

    pub(super) fn receipts_told(&mut self, number: u64, report: Option<ReceiptReport>) {
        if let Some(answer) = self.desk.receipts.remove(&number) {
            drop(answer.try_send(report));
        }
    }
}
