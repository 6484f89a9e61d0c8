//! Requests about takedowns by the cluster's log, and what gateways follow.

use std::rc::Rc;
use std::time::{Duration, Instant};

use deadwax_dht::VolumeId;
use deadwax_dht::core::{Done, ReceiptReport};
use deadwax_dht::takedown::Heads;
use deadwax_dht::wire::{ErrorCode, Feed, HolderReceipt, HolderReceipts, ListedTrack, Message, TRACK_LIST_TAGS_BYTES};
use deadwax_track::{Partition, TrackId};
use glommio::timer::sleep;

use crate::answers;
use crate::drain::Guest;
use crate::driver::{Taken, Turn, Wish, news};
use crate::refusal::Refusal;
use crate::shard::Shard;

/// A page of tracks ends after this time: on a slow drive the tags of each may take some ms to read.
const PAGE_TIME: Duration = Duration::from_millis(500);

/// Takes a track down.
pub(crate) async fn issue(shard: &Rc<Shard>, id: TrackId, reason: String) -> Result<Message, Refusal> {
    let node = &shard.node;
    let issuers = u32::try_from(node.config.issuers.len()).expect("at most ISSUERS_MAX");
    let Some(core) = &node.core else { return Ok(Message::Feed(Feed::NotIssuer { issuers: 0 })) };
    match core.take_down(id, reason).await? {
        Taken::NotIssuer => Ok(Message::Feed(Feed::NotIssuer { issuers })),
        Taken::Named(name, spread) if spread.is_safe() => {
            node.counters.takedowns.add(1);
            let count = |count: usize| u32::try_from(count).expect("at most MEMBERS_MAX");
            let (have, members) = (count(spread.have), count(spread.members));
            Ok(Message::Feed(Feed::Issued { number: name.in_cluster(), have, members }))
        }
        Taken::Named(name, spread) => {
            let (number, have, members) = (name.in_cluster(), spread.have, spread.members);
            let why = format!(
                "takedown {number} is signed, but {have} of {members} nodes have it: others may serve the track until \
                 they hear of it; ask again"
            );
            Err(Refusal::new(ErrorCode::Busy, why))
        }
    }
}

/// A takedown and its receipts.
pub(crate) async fn receipts(shard: &Rc<Shard>, number: u64) -> Result<Message, Refusal> {
    let unknown = || Refusal::new(ErrorCode::NotFound, format!("no takedown {number} is known here"));
    let core = shard.node.core.as_ref().ok_or_else(unknown)?;
    let takedown = core.takedown(number).await?.ok_or_else(unknown)?;
    let report = core.receipts(takedown.track).await?;
    let holders = report.map(|ReceiptReport { complete, copies }| {
        let copies = copies.into_iter().map(|(volume, node, state)| HolderReceipt { volume, node, state }).collect();
        HolderReceipts { complete, copies }
    });
    Ok(Message::Feed(Feed::ReceiptList { takedown: Box::new(takedown), holders }))
}

/// Takedowns that the asker has not heard of, once there are any. Meanwhile the connection may be ended at any time.
pub(crate) async fn after(
    shard: &Rc<Shard>,
    guest: &Guest,
    known: Heads,
    wait_ms: u32,
    limit: u32,
) -> Result<Message, Refusal> {
    let core = shard.node.core.as_ref().ok_or_else(no_log)?;
    let there = core.takedowns_after(known.clone(), limit as usize, false)?;
    let there = news(there.recv_async().await)?;
    if !there.is_empty() || wait_ms == 0 {
        return Ok(Message::Feed(Feed::Takedowns(there)));
    }
    let answered = core.takedowns_after(known, limit as usize, true)?;
    let came = async { Some(answered.recv_async().await) };
    let ends = async {
        let late = sleep(Duration::from_millis(u64::from(wait_ms)));
        futures_lite::future::or(late, guest.asked_to_leave()).await;
        None
    };
    guest.begin_idle();
    let came = futures_lite::future::or(came, ends).await;
    guest.end_idle();
    Ok(Message::Feed(Feed::Takedowns(came.map_or(Ok(Vec::new()), news)?)))
}

/// How far this node's takedowns go.
pub(crate) async fn heads(shard: &Rc<Shard>) -> Result<Message, Refusal> {
    let core = shard.node.core.as_ref().ok_or_else(no_log)?;
    Ok(Message::Feed(Feed::Heads(core.takedown_heads().await?)))
}

fn no_log() -> Refusal {
    Refusal::invalid("the node has no log of takedowns")
}

/// Tracks of a partition, with their tags. An error where the volume may not answer for it, or the first of them cannot be
/// read; where a later one cannot, the page ends before it.
pub(crate) async fn tracks(
    shard: &Rc<Shard>,
    wish: impl Fn(VolumeId, TrackId) -> Wish,
    volume: VolumeId,
    partition: Partition,
    after: Option<TrackId>,
    limit: u32,
) -> Result<Message, Refusal> {
    may_answer_for(shard, wish(volume, first_of(partition))).await?;
    let Message::Ids(ids) = answers::list(shard, &volume, partition, after, limit).await? else {
        unreachable!("a list is answered by ids")
    };
    let (mut tracks, mut tags_bytes, mut seen, began) = (Vec::with_capacity(ids.len()), 0, None, Instant::now());
    let mut next = ids.last().copied().filter(|_| ids.len() == limit as usize);
    for id in ids {
        if seen.is_some() && (tags_bytes > TRACK_LIST_TAGS_BYTES || began.elapsed() > PAGE_TIME) {
            next = seen;
            break;
        }
        match answers::info(shard, wish(volume, id)).await {
            Ok(Message::TrackInfo { bytes, tags, .. }) => {
                tags_bytes += tags.encode().len();
                tracks.push(ListedTrack { id, bytes, tags });
            }
            // It went meanwhile, or is about to. Another copy may be sound.
            Err(Refusal { code: ErrorCode::TakenDown { .. } | ErrorCode::NotFound, .. }) => {}
            Ok(other) => unreachable!("{:?} answers no question for a track's tags", other.kind()),
            Err(why) if seen.is_none() => return Err(why),
            Err(_) => {
                next = seen;
                break;
            }
        }
        seen = Some(id);
    }
    Ok(Message::Feed(Feed::TrackList { tracks, next }))
}

/// Whether the volume may say of a track in the partition that there is none: then what it lists is all there is.
async fn may_answer_for(shard: &Rc<Shard>, wish: Wish) -> Result<(), Refusal> {
    shard.node.volume(&wish.volume)?;
    let turn = Turn::begin(shard, wish).await?;
    turn.finish(Done::NotHere, 0).await.map(drop)
}

/// The lowest id of a partition: no track has it but one of 2^240.
fn first_of(partition: Partition) -> TrackId {
    let mut id = [0; 32];
    id[..2].copy_from_slice(&partition.0.to_be_bytes());
    TrackId::from_bytes(id)
}
