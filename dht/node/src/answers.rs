//! Requests that one message answers.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use deadwax_dht::VolumeId;
use deadwax_dht::core::Done;
use deadwax_dht::wire::{ErrorCode, Message, NodeStatus, PartitionDigest, VolumeState, VolumeStatus};
use deadwax_track::{Partition, TrackId};

use crate::driver::{Turn, Wish};
use crate::refusal::Refusal;
use crate::shard::{Node, Shard};
use crate::volumes::{LocalVolume, Usage};

/// How often a shard that is busy is asked how it is, and between two times.
const USAGE_TRIES: u32 = 100;
const USAGE_RETRY: Duration = Duration::from_millis(20);

/// Tags and manifest of a track.
pub(crate) async fn info(shard: &Rc<Shard>, wish: Wish) -> Result<Message, Refusal> {
    let (volume, id) = (shard.node.volume(&wish.volume)?, wish.track);
    let turn = Turn::begin(shard, wish).await?;
    let owner = shard.node.owner(volume, &id);
    match shard.on(owner, move |shard| async move { shard.local(volume)?.info(id).await }).await {
        Ok(info) => {
            turn.end(Done::Sent, 0);
            Ok(info)
        }
        Err(why) if why.code == ErrorCode::NotFound => Err(turn.not_here(why).await),
        Err(why) => Err(why),
    }
}

/// Whether a track is there; where it is not, the epoch at which that means something.
pub(crate) async fn has(shard: &Rc<Shard>, wish: Wish) -> Result<(Message, Option<u64>), Refusal> {
    let (volume, id) = (shard.node.volume(&wish.volume)?, wish.track);
    let turn = Turn::begin(shard, wish).await?;
    let owner = shard.node.owner(volume, &id);
    let here = shard.on(owner, move |shard| async move { shard.local(volume)?.has(id).await }).await?;
    if here != Message::Absent {
        turn.end(Done::Sent, 0);
        return Ok((here, None));
    }
    let epoch = turn.finish(Done::NotHere, 0).await?;
    Ok((here, epoch))
}

/// Takes a track down on one volume. Refused where there is a log of takedowns: what went past it no other node would hear of.
pub(crate) async fn take_down(
    shard: &Rc<Shard>,
    volume: &VolumeId,
    id: TrackId,
    number: u64,
) -> Result<Message, Refusal> {
    if !shard.node.config.issuers.is_empty() {
        let why = "takedowns go by the cluster's log here, not by volumes: ask the node to issue one";
        return Err(Refusal::new(ErrorCode::WrongNode, why));
    }
    let volume = shard.node.volume(volume)?;
    let owner = shard.node.owner(volume, &id);
    let number = shard.on(owner, move |shard| async move { shard.local(volume)?.take_down(id, number).await }).await?;
    shard.node.counters.takedowns.add(1);
    Ok(Message::TakenDown { number })
}

/// What the volume holds, by partition.
pub(crate) async fn digests(
    shard: &Rc<Shard>,
    volume: &VolumeId,
    first: Partition,
    count: u32,
) -> Result<Message, Refusal> {
    let volume = shard.node.volume(volume)?;
    let parts = shard.gather(volume, move |volume| async move { volume.digests(first, count) }).await?;
    Ok(Message::DigestList(merged(parts)))
}

/// What a volume holds, from what its shards hold of it.
pub(crate) fn merged(parts: Vec<Vec<PartitionDigest>>) -> Vec<PartitionDigest> {
    let mut merged = BTreeMap::<Partition, PartitionDigest>::new();
    for part in parts.into_iter().flatten() {
        let whole = merged.entry(part.partition).or_insert(PartitionDigest { tracks: 0, digest: [0; 16], ..part });
        whole.tracks += part.tracks;
        whole.digest.iter_mut().zip(part.digest).for_each(|(whole, part)| *whole ^= part);
    }
    merged.into_values().collect()
}

/// The ids in a partition.
pub(crate) async fn list(
    shard: &Rc<Shard>,
    volume: &VolumeId,
    partition: Partition,
    after: Option<TrackId>,
    limit: u32,
) -> Result<Message, Refusal> {
    let volume = shard.node.volume(volume)?;
    let list = move |volume: Rc<LocalVolume>| async move { volume.list(partition, after, limit as usize).await };
    let mut ids = Vec::new();
    for part in shard.gather(volume, list).await? {
        ids.extend(part?);
    }
    ids.sort_unstable();
    ids.truncate(limit as usize);
    Ok(Message::Ids(ids))
}

/// What each shard has of a volume. One that has much to do is asked again: a node that is busy is not down.
async fn usage(shard: &Rc<Shard>, volume: usize) -> Result<Vec<Usage>, Refusal> {
    for _ in 0..USAGE_TRIES {
        match shard.gather(volume, |volume| async move { volume.usage() }).await {
            Err(Refusal { code: ErrorCode::Busy, .. }) => glommio::timer::sleep(USAGE_RETRY).await,
            other => return other,
        }
    }
    Err(Refusal::new(ErrorCode::Busy, "a shard has too much to do to say how it is"))
}

/// How the node is.
pub(crate) async fn status(shard: &Rc<Shard>) -> Result<Message, Refusal> {
    let node = Rc::clone(shard).node.clone();
    let all = node.volumes();
    let mut volumes = Vec::with_capacity(all.len());
    for (index, volume) in all.iter().enumerate() {
        let (parts, refused) = match usage(shard, index).await {
            Ok(parts) => (parts, None),
            Err(Refusal { code: ErrorCode::Fenced, message, .. }) => (vec![], Some(message)),
            Err(why) => return Err(why),
        };
        let trouble = volume.trouble().map(|trouble| trouble.said());
        let mut whole = VolumeStatus {
            id: volume.id,
            dir: volume.dir.display().to_string(),
            capacity_bytes: 0,
            free_bytes: 0,
            tracks: 0,
            track_bytes: 0,
            record_bytes: 0,
            takedowns: 0,
            state: if refused.is_some() { VolumeState::Fenced } else { VolumeState::Serving },
            reason: trouble.or(refused),
        };
        for part in parts {
            whole.capacity_bytes += part.capacity_bytes;
            whole.free_bytes += part.free_bytes;
            whole.tracks += part.tracks;
            whole.track_bytes += part.track_bytes;
            whole.record_bytes += part.record_bytes;
            whole.takedowns += part.takedowns;
            whole.state = worse(whole.state, part.state);
        }
        volumes.push(whole);
    }
    Ok(Message::NodeStatus(Box::new(NodeStatus {
        id: node.id,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: node.started.elapsed().as_secs(),
        epoch: node.epoch(),
        shards: u32::try_from(node.shards()).unwrap_or(u32::MAX),
        volumes,
        resident_bytes: resident_bytes(),
        counters: node.counters.snapshot(),
    })))
}

/// Which versions of the protocol the node speaks.
pub(crate) fn versions(node: &Node) -> Message {
    let finalised = node.history().map(|history| history.state().protocol());
    Message::NodeVersions(node.config.protocols(), finalised)
}

fn worse(a: VolumeState, b: VolumeState) -> VolumeState {
    let rank = |state| match state {
        VolumeState::Serving => 0,
        VolumeState::ReadOnly => 1,
        VolumeState::Fenced => 2,
    };
    if rank(a) >= rank(b) { a } else { b }
}

/// The process's resident memory; 0 where it cannot be told. procfs answers from memory: this blocks nobody.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok())
        .unwrap_or(0);
    pages * rustix::param::page_size() as u64
}
