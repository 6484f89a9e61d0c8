//! What the core wants done, done.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use deadwax_dht::core::{Destination, Done, Effect, Envelope, Input};
use deadwax_dht::wire::{CommandAnswer, ErrorCode, PartitionDigest};
use deadwax_dht::{NodeId, VolumeId};
use deadwax_engine::Priority;
use deadwax_track::{Partition, TrackId};
use glommio::timer::sleep;

use super::live::Driver;
use super::pull;
use super::system_thread::Order;
use super::turn::Word;
use crate::events::Event;
use crate::refusal::Refusal;
use crate::shard::{Node, Shard};
use crate::system::SystemOp;
use crate::volumes::LocalVolume;

/// Between tries to erase a track: the drive does it, or is fenced within some seconds.
const ERASE_RETRY: Duration = Duration::from_secs(1);
/// Between tries to reach a shard whose queue is full.
const SHARD_RETRY: Duration = Duration::from_millis(20);

impl Driver {
    pub(super) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to, envelope } => self.send(to, envelope),
            Effect::Go(request) => self.say(request.number, Word::Go, false),
            Effect::Refuse { number, why } => self.say(number, Word::Refused(why), true),
            Effect::Finish { number, answer } => self.say(number, Word::Finished(answer), true),
            Effect::List { number, volume, partition } => {
                let node = Arc::clone(&self.node);
                glommio::spawn_local(async move {
                    let tracks = list(&node, &volume, partition).await.ok();
                    node.tell(Input::Listed { number, tracks });
                })
                .detach();
            }
            Effect::Pull(pull) => {
                let Some(address) = self.address(&pull.node) else { return pull::failed(&self.node, &pull) };
                let node = Arc::clone(&self.node);
                glommio::spawn_local(async move { pull::begin(&node, pull, address).await }).detach();
            }
            Effect::Erase { volume, track, barred } => {
                let node = Arc::clone(&self.node);
                let name = self.core.takedown_log().number_of(&track).filter(|_| barred);
                let takedown = name.map(|name| name.in_cluster());
                glommio::spawn_local(async move { erase(&node, volume, track, takedown).await }).detach();
            }
            Effect::TakeSeat(seat) => self.keep(SystemOp::TakeSeat(seat)),
            Effect::Persist { seat, step } => self.keep(SystemOp::Persist(seat, step)),
            Effect::Stand(standing) => self.keep(SystemOp::Stand(standing)),
            Effect::Save(batch) => self.keep(SystemOp::Save(batch)),
            Effect::DropSeat(seat) => self.keep(SystemOp::DropSeat(seat)),
            Effect::Append { number, records } => self.keep(SystemOp::Append(number, records)),
            Effect::ReadTakedowns { number, slots } => self.order(Order::ReadTakedowns { number, slots }),
            Effect::Halt { life } => {
                // Said once is enough.
                self.node.superseded.get_or_init(|| life);
                self.keep(SystemOp::Life(life));
                drop(self.events.try_send(Event::Stop));
            }
            Effect::Epochs { number, batch } => {
                if let Some(answer) = self.epochs.remove(&number) {
                    drop(answer.try_send(batch));
                }
            }
            Effect::Outdated(unfit) => {
                tracing::error!(%unfit, "the node stops");
                self.node.outdated.get_or_init(|| unfit);
                drop(self.events.try_send(Event::Stop));
            }
            Effect::Answer { number, result } => {
                if let Some(answer) = self.commands.remove(&number) {
                    // Whoever asked may have given up.
                    drop(answer.try_send(CommandAnswer::of(&result)));
                }
            }
            Effect::TakenDown { number, result } => self.issued(number, result),
            Effect::Spread { number, spread } => self.spread(number, spread),
            Effect::Receipts { number, report } => self.receipts_told(number, report),
            Effect::Alarm(alarm) => self.alarm(alarm),
            // Nobody asks for these yet.
            Effect::Told { .. } => {}
        }
    }

    fn send(&mut self, to: Destination, envelope: Box<Envelope>) {
        match to {
            Destination::Node(node) => match self.address(&node) {
                Some(address) => self.links.send(Some(node), &address, envelope),
                None => tracing::debug!(node = node.short(), "a message goes to a node that the map does not have"),
            },
            Destination::At(node, address) => self.links.send(node, &address, envelope),
        }
    }

    /// Says a request what it waits for; nobody listens any more where its connection broke.
    fn say(&mut self, number: u64, word: Word, last: bool) {
        let told = if last { self.requests.remove(&number) } else { self.requests.get(&number).cloned() };
        let heard = told.is_some_and(|told| told.try_send(word).is_ok());
        if !heard && !last {
            // It went away before it had its turn, and said so before the core knew of it.
            self.requests.remove(&number);
            self.node.tell(Input::Done { number, outcome: Done::Failed, bytes: 0 });
        }
    }

    fn keep(&self, op: SystemOp) {
        self.order(Order::Keep(op));
    }

    pub(super) fn order(&self, order: Order) {
        // The thread ends after this one, or has ended the process.
        drop(self.orders.send(order));
    }

    /// Tells the core of a volume that all shards have opened, or of its end.
    pub(super) fn volume_opened(&self, number: usize, done: Option<flume::Sender<()>>) {
        let node = Arc::clone(&self.node);
        glommio::spawn_local(async move {
            let opened = node.at(number);
            let volume = opened.id;
            match begin_telling(&node, number).await {
                Ok((digests, track_bytes)) => {
                    node.tell(Input::VolumeUp { volume, digests, track_bytes });
                    drop(node.gather(number, |local| async move { local.release() }).await);
                    // What befell it meanwhile was told before, when the core did not have it.
                    let again = !Arc::ptr_eq(&opened, &node.at(number));
                    if again || opened.trouble().is_some_and(|trouble| trouble.is_out()) {
                        node.tell(Input::VolumeDown(volume));
                    }
                }
                Err(why) => {
                    tracing::warn!(%volume, why = why.message, "the volume takes no part");
                    node.tell(Input::VolumeDown(volume));
                }
            }
            drop(done);
        })
        .detach();
    }
}

/// What a volume holds, and how many bytes its tracks have. What happens to it from here on is held back, shard by shard.
async fn begin_telling(node: &Arc<Node>, volume: usize) -> Result<(Vec<PartitionDigest>, u64), Refusal> {
    let told = |local: Rc<LocalVolume>| async move {
        let digests = local.begin_telling();
        (digests, local.usage().track_bytes)
    };
    let (parts, track_bytes): (_, Vec<u64>) = node.gather(volume, told).await?.into_iter().unzip();
    Ok((crate::answers::merged(parts), track_bytes.into_iter().sum()))
}

/// The ids that a volume has in a partition, rising.
async fn list(node: &Arc<Node>, volume: &VolumeId, partition: Partition) -> Result<Vec<TrackId>, Refusal> {
    let volume = node.volume(volume)?;
    let parts = node.gather(volume, move |local| async move { local.list(partition, None, usize::MAX).await }).await?;
    let mut ids = parts.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
    ids.sort_unstable();
    Ok(ids)
}

/// Erases until the drive has done it, or takes no part any more. What it tells the core is told where it happens.
/// `takedown`: the number of the takedown that bars the track.
async fn erase(node: &Arc<Node>, volume: VolumeId, track: TrackId, takedown: Option<u64>) {
    let Ok(number) = node.volume(&volume) else { return };
    let (owner, begun) = (node.owner(number, &track), node.at(number));
    // Once it is out, or was opened anew, the core asks again when it knows what is there.
    while Arc::ptr_eq(&begun, &node.at(number)) && !begun.trouble().is_some_and(|trouble| trouble.is_out()) {
        let there = move |shard: std::rc::Rc<Shard>| async move {
            let local = shard.local(number)?;
            shard.host.clone().run(Priority::Write, async move { local.erase(track, takedown).await }).await
        };
        match node.on(owner, there).await {
            Ok(()) => return,
            Err(why) => tracing::warn!(%volume, %track, why = why.message, "a track is not erased yet"),
        }
        sleep(ERASE_RETRY).await;
    }
}

impl Node {
    /// Runs `call` on a shard, from the core's executor; waits where the shard's queue is full.
    pub(super) async fn on<T, F, C>(&self, owner: usize, call: C) -> Result<T, Refusal>
    where
        T: Send + 'static,
        C: FnOnce(std::rc::Rc<Shard>) -> F + Clone + Send + 'static,
        F: Future<Output = Result<T, Refusal>> + 'static,
    {
        loop {
            match self.ask(owner, call.clone()) {
                Ok(answer) => return answer.recv_async().await.unwrap_or_else(|_| Err(Refusal::shard_ended())),
                Err(Refusal { code: ErrorCode::Busy, .. }) => sleep(SHARD_RETRY).await,
                Err(why) => return Err(why),
            }
        }
    }

    /// What every shard that serves `volume` answers, from the core's executor.
    async fn gather<T, F, C>(&self, volume: usize, call: C) -> Result<Vec<T>, Refusal>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
        C: Fn(std::rc::Rc<crate::volumes::LocalVolume>) -> F + Clone + Send + 'static,
    {
        let mut gathered = Vec::new();
        for owner in self.owners(volume) {
            let call = call.clone();
            let there = move |shard: std::rc::Rc<Shard>| async move { Ok(call(shard.local(volume)?).await) };
            gathered.push(self.on(owner, there).await?);
        }
        Ok(gathered)
    }

    /// Tells the core of each volume that can serve, and waits until it knows: who connects then is not refused for want
    /// of them.
    pub(crate) fn tell_opened(&self) {
        let Some(core) = &self.core else { return };
        let (done, all_done) = flume::bounded::<()>(1);
        for (number, volume) in self.volumes().iter().enumerate() {
            if !volume.trouble().is_some_and(|trouble| trouble.is_out()) {
                core.tell_opened(number, Some(done.clone()));
            }
        }
        drop(done);
        // Nothing is sent: it ends when the last one is dropped.
        let _ = all_done.recv();
    }

    /// Tells the core, where there is one.
    pub(crate) fn tell(&self, input: Input) {
        if let Some(core) = &self.core {
            core.tell(input);
        }
    }

    /// The node has lost a message to another one, or had no answer.
    pub(super) fn unreachable(&self, node: NodeId) {
        self.tell(Input::Unreachable(node));
    }
}
