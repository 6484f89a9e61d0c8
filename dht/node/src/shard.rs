//! What one core has: its handle of each volume, its buffers, and the way to the other cores.
//!
//! Volumes are single-threaded, so a request runs where the track's owner is. [`Shard::on`] runs a call there and
//! brings the answer back; everything that crosses is plain bytes and numbers. The queue of each shard is bounded: a
//! full one answers Busy.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use deadwax_dht::log::History;
use deadwax_dht::wire::{ErrorCode, Stamp, Unfit};
use deadwax_dht::{ClusterId, NodeId, VolumeId};
use deadwax_dht_tls::Identity;
use deadwax_engine::GlommioHost;
use deadwax_track::TrackId;

use crate::Config;
use crate::admission::{Admission, HANDSHAKES_MAX, JOINS_MAX, Places};
use crate::buffers::Buffers;
use crate::counters::Counters;
use crate::driver::{DriveLatency, Handle, Peers};
use crate::ending::Ending;
use crate::layout::Layout;
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
    /// What this node proves who it is with. None: connections are plain.
    pub(crate) identity: Option<Identity>,
    pub(crate) admission: Admission,
    /// Of the map, as it was last read.
    epoch: AtomicU64,
    /// Only grows: a volume keeps its number. One that is opened again gets a new entry in its place.
    volumes: RwLock<Vec<Arc<NodeVolume>>>,
    /// The queue of each shard, by index.
    pub(crate) calls: Vec<flume::Sender<Call>>,
    pub(crate) counters: Counters,
    /// The way to the core of the cluster's rules. None: the node goes by a map that does not change.
    pub(crate) core: Option<Handle>,
    pub(crate) drive_latency: DriveLatency,
    pub(crate) connections: AtomicUsize,
    /// Connections of which nobody knows yet who is there.
    pub(crate) handshakes: Places<HANDSHAKES_MAX>,
    pub(crate) joins: Places<JOINS_MAX>,
    /// Bytes of messages of other nodes that are not whole yet.
    pub(crate) unfinished_bytes: AtomicUsize,
    /// What the map's log says, where the node goes by one: of the newest epoch that it knows.
    history: RwLock<Option<History>>,
    /// The start of another process of this node's name, where there is a later one: this one ends.
    pub(crate) superseded: OnceLock<u64>,
    /// Why this node must not take part in its cluster any more, where it must not: it ends.
    pub(crate) outdated: OnceLock<Unfit>,
    /// What somebody waits for: connections that are in a request, pulls, volumes that are being opened.
    pub(crate) under_way: Arc<AtomicUsize>,
    pub(crate) ending: Arc<Ending>,
    pub(crate) started: Instant,
}

/// One volume of the node, from when it is opened on all shards to when it is closed on all.
pub(crate) struct NodeVolume {
    pub(crate) id: VolumeId,
    /// Empty where the map gives the node the volume, and no directory in the settings has it.
    pub(crate) dir: PathBuf,
    pub(crate) owner: Owner,
    /// What keeps it from serving. What one shard finds out, all act on.
    trouble: Mutex<Option<Trouble>>,
}

/// Why a volume does not serve.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    /// It takes no writes.
    ReadOnly(String),
    /// It takes no part, for its drive hangs or is too slow, or files were taken from it: it comes back by itself.
    Hung(String),
    /// It takes no part until an operator has mended it.
    Out(String),
    /// As before, on purpose: it is no longer in the settings.
    Retired,
}

impl Trouble {
    /// Whether the volume takes no part: one that takes no writes is read from.
    pub(crate) const fn is_out(&self) -> bool {
        !matches!(self, Self::ReadOnly(_))
    }

    /// Of a volume that takes no part.
    pub(crate) const fn fenced(why: String, hangs: bool) -> Self {
        if hangs { Self::Hung(why) } else { Self::Out(why) }
    }

    pub(crate) fn why(&self) -> &str {
        match self {
            Self::ReadOnly(why) | Self::Hung(why) | Self::Out(why) => why,
            Self::Retired => "retired: it is no longer in the settings",
        }
    }

    /// For an operator.
    pub(crate) fn said(&self) -> String {
        let hope =
            if matches!(self, Self::Hung(_)) { "; it is opened again by itself once its drive answers" } else { "" };
        format!("{}{hope}", self.why())
    }

    const fn is_worse_than(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Out(_) | Self::Hung(_), Self::ReadOnly(_)) | (Self::Out(_), Self::Hung(_)))
    }
}

impl NodeVolume {
    pub(crate) fn new(id: VolumeId, dir: PathBuf, owner: Owner, trouble: Option<Trouble>) -> Self {
        Self { id, dir, owner, trouble: Mutex::new(trouble) }
    }

    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds what was found out: the worst is kept, of equals the first.
    pub(crate) fn set_trouble(&self, trouble: Trouble) {
        let mut known = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_none_or(|known| trouble.is_worse_than(known)) {
            *known = Some(trouble);
        }
    }
}

/// A shard's place for one of the node's volumes.
pub(crate) enum Place {
    /// Another shard serves it.
    Elsewhere,
    /// This shard's part of it.
    Open(Arc<NodeVolume>, Rc<LocalVolume>),
    /// It could not be opened, or was closed, and why.
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
    pub(crate) fn new(
        config: Config,
        identity: Option<Identity>,
        layout: Layout,
        calls: Vec<flume::Sender<Call>>,
        core: Option<Handle>,
        ending: Arc<Ending>,
    ) -> Self {
        let Layout { id, cluster, epoch, members, volumes, unsettled: _ } = layout;
        Self {
            admission: Admission::new(members, &config),
            config,
            id,
            cluster,
            identity,
            epoch: AtomicU64::new(epoch),
            volumes: RwLock::new(volumes.into_iter().map(Arc::new).collect()),
            calls,
            counters: Counters::default(),
            core,
            drive_latency: DriveLatency::default(),
            connections: AtomicUsize::new(0),
            handshakes: Places::default(),
            joins: Places::default(),
            unfinished_bytes: AtomicUsize::new(0),
            history: RwLock::default(),
            superseded: OnceLock::new(),
            outdated: OnceLock::new(),
            under_way: Arc::default(),
            ending,
            started: Instant::now(),
        }
    }

    pub(crate) fn shards(&self) -> usize {
        self.calls.len()
    }

    pub(crate) fn stamp(&self, request: u32) -> Stamp {
        Stamp::new(request, self.epoch(), &self.cluster)
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// What the map's log says, if the node goes by one and has heard of it.
    pub(crate) fn history(&self) -> Option<History> {
        self.history.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The log has come to another epoch.
    pub(crate) fn set_history(&self, history: History) {
        self.admission.set_nodes(history.state().spec().nodes.iter().map(|node| node.id).collect());
        self.set_epoch(history.epoch());
        *self.history.write().unwrap_or_else(PoisonError::into_inner) = Some(history);
    }

    pub(crate) fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Relaxed);
    }

    /// Somebody waits for what this process does, until it is dropped.
    pub(crate) fn working(&self) -> Working {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Working(Arc::clone(&self.under_way))
    }

    /// All volumes, by number, as they are now.
    pub(crate) fn volumes(&self) -> Vec<Arc<NodeVolume>> {
        self.volumes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The volume with this number.
    pub(crate) fn at(&self, volume: usize) -> Arc<NodeVolume> {
        Arc::clone(&self.volumes.read().unwrap_or_else(PoisonError::into_inner)[volume])
    }

    /// Puts a volume in place of the one with this number, or after the last.
    pub(crate) fn set_volume(&self, number: usize, volume: Arc<NodeVolume>) {
        let mut volumes = self.volumes.write().unwrap_or_else(PoisonError::into_inner);
        match volumes.get_mut(number) {
            Some(place) => *place = volume,
            None => volumes.push(volume),
        }
    }

    /// Which of the node's volumes has this name.
    pub(crate) fn volume(&self, id: &VolumeId) -> Result<usize, Refusal> {
        self.volumes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .position(|volume| volume.id == *id)
            .ok_or_else(|| Refusal::new(ErrorCode::WrongNode, format!("node {} has no volume {id}", self.id.short())))
    }

    /// The shards that serve a volume.
    pub(crate) fn owners(&self, volume: usize) -> std::ops::Range<usize> {
        match self.at(volume).owner {
            Owner::All => 0..self.shards(),
            Owner::One(shard) => shard..shard + 1,
        }
    }

    /// Queues `call` on a shard; the answer comes by the receiver.
    pub(crate) fn ask<T, F, C>(&self, owner: usize, call: C) -> Result<flume::Receiver<Result<T, Refusal>>, Refusal>
    where
        T: Send + 'static,
        C: FnOnce(Rc<Shard>) -> F + Send + 'static,
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

    /// Queues `call` on a shard.
    pub(crate) fn send<F, C>(&self, owner: usize, call: C) -> Result<(), Refusal>
    where
        C: FnOnce(Rc<Shard>) -> F + Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        self.counters.crossings.add(1);
        let call: Call = Box::new(move |shard| Box::pin(call(shard)));
        self.calls[owner].try_send(call).map_err(|why| match why {
            flume::TrySendError::Full(_) => {
                Refusal::new(ErrorCode::Busy, format!("{CALLS_MAX} calls wait for shard {owner}"))
            }
            flume::TrySendError::Disconnected(_) => Refusal::shard_ended(),
        })
    }

    /// Which shard serves `id` on a volume.
    pub(crate) fn owner(&self, volume: usize, id: &TrackId) -> usize {
        match self.at(volume).owner {
            Owner::All => id.shard(self.shards()),
            Owner::One(shard) => shard,
        }
    }
}

/// See [`Node::working`].
pub(crate) struct Working(Arc<AtomicUsize>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One core's share of the node.
pub(crate) struct Shard {
    pub(crate) node: Arc<Node>,
    pub(crate) index: usize,
    /// What this shard's parts of volumes run on, with a queue for each urgency.
    pub(crate) host: GlommioHost,
    /// By the node's numbers.
    places: RefCell<Vec<Place>>,
    pub(crate) buffers: Rc<Buffers>,
    pub(crate) peers: Peers,
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
    /// Called on the shard's executor.
    pub(crate) fn new(node: Arc<Node>, index: usize) -> Self {
        Self {
            node,
            index,
            host: GlommioHost::with_queues(),
            places: RefCell::default(),
            buffers: Rc::default(),
            peers: Peers::default(),
            transfers: Rc::default(),
        }
    }

    /// Says what this shard has of a volume from now on; answers its part of it until now, if it was open.
    pub(crate) fn set_place(&self, volume: usize, place: Place) -> Option<Rc<LocalVolume>> {
        let mut places = self.places.borrow_mut();
        while places.len() <= volume {
            places.push(Place::Elsewhere);
        }
        match std::mem::replace(&mut places[volume], place) {
            Place::Open(_, local) => Some(local),
            Place::Elsewhere | Place::Fenced(_) => None,
        }
    }

    /// This shard's parts of volumes, by number.
    pub(crate) fn open_parts(&self) -> Vec<(usize, Arc<NodeVolume>, Rc<LocalVolume>)> {
        let places = self.places.borrow();
        let open = places.iter().enumerate().filter_map(|(number, place)| match place {
            Place::Open(volume, local) => Some((number, Arc::clone(volume), Rc::clone(local))),
            Place::Elsewhere | Place::Fenced(_) => None,
        });
        open.collect()
    }

    /// Does to this shard's part of a volume what befell another's; nothing where it was opened anew meanwhile.
    pub(crate) fn share_trouble(&self, number: usize, volume: &Arc<NodeVolume>, trouble: &Trouble) {
        if let Some(Place::Open(known, local)) = self.places.borrow().get(number)
            && Arc::ptr_eq(known, volume)
        {
            local.share_trouble(trouble);
        }
    }

    /// This shard's handle of a volume that it serves.
    pub(crate) fn local(&self, volume: usize) -> Result<Rc<LocalVolume>, Refusal> {
        let fenced = |why: &str| Err(Refusal::new(ErrorCode::Fenced, format!("the volume is not open: {why}")));
        match self.places.borrow().get(volume) {
            Some(Place::Open(_, local)) => match local.out() {
                Some(why) => fenced(&why),
                None => Ok(Rc::clone(local)),
            },
            Some(Place::Fenced(why)) => fenced(why),
            // Of one that is being opened the node knows before each shard does.
            Some(Place::Elsewhere) | None => fenced("it is being opened"),
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
        let answer = self.node.ask(owner, call)?;
        answer.recv_async().await.unwrap_or_else(|_| Err(Refusal::shard_ended()))
    }

    /// What every shard that serves `volume` answers, in order of shards.
    pub(crate) async fn gather<T, F, C>(self: &Rc<Self>, volume: usize, call: C) -> Result<Vec<T>, Refusal>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
        C: Fn(Rc<LocalVolume>) -> F + Clone + Send + 'static,
    {
        let owners = self.node.owners(volume);
        let mut answers = Vec::with_capacity(owners.len());
        for owner in owners {
            let call = call.clone();
            let there = move |shard: Rc<Self>| async move { Ok(call(shard.local(volume)?).await) };
            if owner == self.index {
                let (answer, answered) = flume::bounded(1);
                drop(answer.try_send(there(Rc::clone(self)).await));
                answers.push(answered);
            } else {
                answers.push(self.node.ask(owner, there)?);
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
