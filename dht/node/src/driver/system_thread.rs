//! The thread that keeps what the core wants kept.

use std::sync::Arc;
use std::thread;

use deadwax_dht::core::Input;

use crate::Error;
use crate::executor::AbortOnPanic;
use crate::shard::Node;
use crate::system::{System, SystemOp};

/// The most operations that share a flush.
const GROUP_MAX: usize = 256;

/// What the core gives it to do, in order. No more waits than the core makes before it hears that the first is done.
pub(super) enum Order {
    Keep(SystemOp),
    ReadTakedowns { number: u64, slots: Vec<u32> },
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
    while let Ok(first) = given.recv() {
        let (mut group, mut read) = (Vec::new(), None);
        let mut next = Some(first);
        while let Some(order) = next {
            match order {
                Order::Keep(op) => group.push(op),
                // What was to be kept before is.
                Order::ReadTakedowns { number, slots } => read = Some((number, slots)),
            }
            next = if read.is_some() || group.len() >= GROUP_MAX { None } else { given.try_recv().ok() };
        }
        system.apply(&group)?;
        for op in group {
            done(node, &system, op);
        }
        if let Some((number, slots)) = read {
            let records = system.read_takedowns(&slots);
            let records = records.inspect_err(|why| tracing::error!(%why, "takedowns cannot be read")).ok();
            node.tell(Input::TakedownsRead { number, records });
        }
    }
    Ok(())
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
