//! The thread that keeps what the core wants kept, and reads takedowns from the system drive.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;

use deadwax_dht::core::Input;
use deadwax_dht::takedown::Takedown;

use crate::Error;
use crate::executor::AbortOnPanic;
use crate::shard::Node;
use crate::system::{System, SystemOp};

/// The most operations that share a flush.
const GROUP_MAX: usize = 256;

/// What the thread is given to do. What the core wants is done in order, and no more of it waits than the core makes before
/// it hears that the first is done. What clients want is done after that, and the driver gives at most
/// [`READS_MAX`](super::takedowns::READS_MAX) of it at a time.
pub(super) enum Order {
    Keep(SystemOp),
    ReadTakedowns { number: u64, slots: Vec<u32> },
    Read(Read),
}

/// Takedowns for somebody else than the core; none where they cannot be read.
pub(super) struct Read {
    pub(super) slots: Vec<u32>,
    /// All who asked for just these.
    pub(super) answers: Vec<flume::Sender<Option<Vec<Takedown>>>>,
    /// Dropped when they are read, or nobody waits any more: so the driver counts them.
    pub(super) under_way: Arc<()>,
}

/// Starts the thread; it ends when all senders are gone, with all done.
pub(super) fn spawn(node: Arc<Node>, system: System) -> Result<(flume::Sender<Order>, thread::JoinHandle<()>), Error> {
    let (orders, given) = flume::unbounded();
    let thread = thread::Builder::new()
        .name("system".into())
        .spawn(move || {
            let _guard = AbortOnPanic("the system drive's thread".into());
            if let Err(why) = work(&node, system, &given) {
                tracing::error!(%why, "the system drive fails: nobody knows what it kept, the node goes down");
                eprintln!("deadwax: {why}: the node goes down");
                std::process::abort();
            }
        })
        .map_err(|why| Error::Start { what: "the thread system".into(), why: why.to_string() })?;
    Ok((orders, thread))
}

fn work(node: &Node, mut system: System, given: &flume::Receiver<Order>) -> Result<(), Error> {
    let watch = &node.core.as_ref().expect("it keeps what a core wants kept").system;
    let mut reads = VecDeque::new();
    loop {
        let mut next = if reads.is_empty() { given.recv().ok() } else { given.try_recv().ok() };
        if next.is_none() && reads.is_empty() {
            return Ok(());
        }
        let _there = watch.at_drive();
        let (mut group, mut for_core) = (Vec::new(), None);
        while let Some(order) = next {
            match order {
                Order::Keep(op) => group.push(op),
                // What was to be kept before is.
                Order::ReadTakedowns { number, slots } => for_core = Some((number, slots)),
                Order::Read(read) => reads.push_back(read),
            }
            next = if for_core.is_some() || group.len() >= GROUP_MAX { None } else { given.try_recv().ok() };
        }
        system.apply(&group)?;
        for op in group {
            done(node, &system, op);
        }
        if let Some((number, slots)) = for_core {
            node.tell(Input::TakedownsRead { number, records: read_slots(&system, &slots) });
        }
        // One at a time: what is to be kept meanwhile has its turn before the next.
        if let Some(read) = reads.pop_front() {
            answer(&system, read);
        }
    }
}

fn read_slots(system: &System, slots: &[u32]) -> Option<Vec<Takedown>> {
    system.read_takedowns(slots).inspect_err(|why| tracing::error!(%why, "takedowns cannot be read")).ok()
}

/// Reads for those who still wait.
fn answer(system: &System, read: Read) {
    let Read { slots, mut answers, under_way } = read;
    answers.retain(|answer| !answer.is_disconnected());
    let Some(last) = answers.pop() else { return };
    let records = read_slots(system, &slots);
    drop(under_way);
    for answer in answers {
        drop(answer.try_send(records.clone()));
    }
    drop(last.try_send(records));
}

/// Tells the core that it is kept.
fn done(node: &Node, system: &System, op: SystemOp) {
    match op {
        SystemOp::Save(_) => node.tell(Input::Saved { epoch: system.epoch() }),
        SystemOp::Persist(seat, step) => node.tell(Input::Persisted { seat, number: step.number }),
        SystemOp::Append(number, _) => node.tell(Input::Appended { number }),
        SystemOp::TakeSeat(_) | SystemOp::DropSeat(_) | SystemOp::Stand(_) | SystemOp::Life(_) => {}
    }
}
