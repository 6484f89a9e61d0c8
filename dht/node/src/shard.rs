//! What one core has: its handle of each volume, its buffers, and the way to the other cores.
//!
//! Volumes are single-threaded, so a request runs where the track's owner is. [`Shard::on`] runs a call there and
//! brings the answer back; everything that crosses is plain bytes and numbers. The queue of each shard is bounded: a
//! full one answers Busy.

use std::cell::Cell;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use deadwax_dht::wire::{ErrorCode, Stamp};
use deadwax_dht::{ClusterId, NodeId, VolumeId};
use deadwax_track::TrackId;

use crate::Config;
use crate::buffers::Buffers;
use crate::counters::Counters;
use crate::refusal::Refusal;
use crate::volumes::LocalVolume;

/// The most calls that wait for one shard.
pub(crate) const CALLS_MAX: usize = 1024;

/// A call on its way to another shard.
pub(crate) type Call = Box<dyn FnOnce(Rc<Shard>) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// What all shards of a node share. Plain values, and counters.
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) id: NodeId,
    pub(crate) cluster: ClusterId,
    /// Of the map that the node started with.
    pub(crate) epoch: u64,
    pub(crate) volumes: Vec<NodeVolume>,
    /// The queue of each shard, by index.
    pub(crate) calls: Vec<flume::Sender<Call>>,
    pub(crate) counters: Counters,
    pub(crate) connections: AtomicUsize,
    pub(crate) started: Instant,
}

/// One volume of the node.
pub(crate) struct NodeVolume {
    pub(crate) id: VolumeId,
    pub(crate) dir: PathBuf,
    pub(crate) owner: Owner,
    /// Why it takes no part, where that is known before any shard opens it.
    pub(crate) fenced: Option<String>,
}

/// A shard's place for one of the node's volumes.
pub(crate) enum Place {
    /// Another shard serves it.
    Elsewhere,
    /// This shard's part of it.
    Open(LocalVolume),
    /// It could not be opened, and why.
    Fenced(String),
}

/// Which shards serve a volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    /// Each serves its part of the ids: the drive takes many requests at once.
    All,
    /// This one serves all: the drive rotates.
    One(usize),
}

impl Node {
    pub(crate) fn shards(&self) -> usize {
        self.calls.len()
    }

    pub(crate) fn stamp(&self, request: u32) -> Stamp {
        Stamp::new(request, self.epoch, &self.cluster)
    }

    /// Which of the node's volumes has this name.
    pub(crate) fn volume(&self, id: &VolumeId) -> Result<usize, Refusal> {
        self.volumes
            .iter()
            .position(|volume| volume.id == *id)
            .ok_or_else(|| Refusal::new(ErrorCode::WrongNode, format!("node {} has no volume {id}", self.id.short())))
    }

    /// Which shard serves `id` on a volume.
    pub(crate) fn owner(&self, volume: usize, id: &TrackId) -> usize {
        match self.volumes[volume].owner {
            Owner::All => id.shard(self.shards()),
            Owner::One(shard) => shard,
        }
    }
}

/// One core's share of the node.
pub(crate) struct Shard {
    pub(crate) node: Arc<Node>,
    pub(crate) index: usize,
    /// In the node's order.
    pub(crate) volumes: Vec<Place>,
    pub(crate) buffers: Rc<Buffers>,
    transfers: Rc<Cell<usize>>,
}

/// The right to one transfer, until it is dropped.
pub(crate) struct Slot(Rc<Cell<usize>>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Shard {
    pub(crate) fn new(node: Arc<Node>, index: usize, volumes: Vec<Place>) -> Self {
        assert_eq!(node.volumes.len(), volumes.len(), "one place a volume");
        Self { node, index, volumes, buffers: Rc::default(), transfers: Rc::default() }
    }

    /// This shard's handle of a volume that it serves.
    pub(crate) fn local(&self, volume: usize) -> Result<&LocalVolume, Refusal> {
        match &self.volumes[volume] {
            Place::Open(volume) => Ok(volume),
            Place::Fenced(why) => Err(Refusal::new(ErrorCode::Fenced, format!("the volume is not open: {why}"))),
            Place::Elsewhere => {
                let why = format!("shard {} does not serve volume {volume}", self.index);
                Err(Refusal::new(ErrorCode::Internal, why))
            }
        }
    }

    /// A place among the transfers, or Busy.
    pub(crate) fn slot(&self) -> Result<Slot, Refusal> {
        let (now, most) = (self.transfers.get(), self.node.config.transfers_max);
        if now >= most {
            return Err(Refusal::new(ErrorCode::Busy, format!("{now} transfers are under way, the most is {most}")));
        }
        self.transfers.set(now + 1);
        Ok(Slot(Rc::clone(&self.transfers)))
    }

    /// Runs `call` on shard `owner` and answers what it answered. What it makes there that cannot cross stays there.
    pub(crate) async fn on<T, F, C>(self: &Rc<Self>, owner: usize, call: C) -> Result<T, Refusal>
    where
        T: Send + 'static,
        C: FnOnce(Rc<Self>) -> F + Send + 'static,
        F: Future<Output = Result<T, Refusal>> + 'static,
    {
        if owner == self.index {
            return call(Rc::clone(self)).await;
        }
        let answer = self.ask(owner, call)?;
        answer.recv_async().await.unwrap_or_else(|_| Err(Refusal::shard_ended()))
    }

    /// Queues `call` on another shard; the answer comes by the receiver.
    pub(crate) fn ask<T, F, C>(&self, owner: usize, call: C) -> Result<flume::Receiver<Result<T, Refusal>>, Refusal>
    where
        T: Send + 'static,
        C: FnOnce(Rc<Self>) -> F + Send + 'static,
        F: Future<Output = Result<T, Refusal>> + 'static,
    {
        let (answer, answered) = flume::bounded(1);
        self.send(owner, move |shard| async move {
            let result = call(shard).await;
            // Nobody waits any more where the connection broke: the answer is then of no use.
            drop(answer.try_send(result));
        })?;
        Ok(answered)
    }

    /// Queues `call` on another shard.
    pub(crate) fn send<F, C>(&self, owner: usize, call: C) -> Result<(), Refusal>
    where
        C: FnOnce(Rc<Self>) -> F + Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        self.node.counters.crossings.add(1);
        let call: Call = Box::new(move |shard| Box::pin(call(shard)));
        self.node.calls[owner].try_send(call).map_err(|why| match why {
            flume::TrySendError::Full(_) => {
                Refusal::new(ErrorCode::Busy, format!("{CALLS_MAX} calls wait for shard {owner}"))
            }
            flume::TrySendError::Disconnected(_) => Refusal::shard_ended(),
        })
    }

    /// What every shard that serves `volume` answers, in order of shards.
    pub(crate) async fn gather<T, C>(self: &Rc<Self>, volume: usize, call: C) -> Result<Vec<T>, Refusal>
    where
        T: Send + 'static,
        C: Fn(&LocalVolume) -> T + Clone + Send + 'static,
    {
        let owners = match self.node.volumes[volume].owner {
            Owner::All => 0..self.node.shards(),
            Owner::One(shard) => shard..shard + 1,
        };
        let mut answers = Vec::with_capacity(owners.len());
        for owner in owners {
            let call = call.clone();
            let there = move |shard: Rc<Self>| async move { Ok(call(shard.local(volume)?)) };
            if owner == self.index {
                let (answer, answered) = flume::bounded(1);
                drop(answer.try_send(there(Rc::clone(self)).await));
                answers.push(answered);
            } else {
                answers.push(self.ask(owner, there)?);
            }
        }
        let mut gathered = Vec::with_capacity(answers.len());
        for answer in answers {
            gathered.push(answer.recv_async().await.unwrap_or_else(|_| Err(Refusal::shard_ended()))?);
        }
        Ok(gathered)
    }

    /// Serves the calls that other shards make, each as a task of its own, until all senders are gone.
    pub(crate) async fn serve_calls(self: Rc<Self>, calls: flume::Receiver<Call>) {
        while let Ok(call) = calls.recv_async().await {
            glommio::spawn_local(call(Rc::clone(&self))).detach();
        }
    }
}
