//! A request's part with the core: whether it may go on, and what may be said at its end.

use std::rc::Rc;
use std::sync::Arc;

use deadwax_dht::VolumeId;
use deadwax_dht::core::{Done, Finished, Input, Refused, Request, Verb};
use deadwax_dht::wire::{ErrorCode, Message};
use deadwax_track::TrackId;

use super::{Asked, Handle, LATE_MAX, now_ms};
use crate::admission::Place;
use crate::refusal::Refusal;
use crate::shard::{Node, Shard};

/// What the core says to a request.
pub(crate) enum Word {
    Go,
    Refused(Refused),
    Finished(Finished),
}

/// What somebody wants.
#[derive(Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) verb: Verb,
    pub(crate) volume: VolumeId,
    pub(crate) track: TrackId,
    /// The epoch by which the asker chose the volume.
    pub(crate) epoch: u64,
    /// How long it is of use, in ms.
    pub(crate) within_ms: u64,
}

impl Wish {
    fn request(&self, number: u64) -> Request {
        let Self { verb, volume, track, epoch, within_ms } = *self;
        Request { number, verb, volume, track, epoch, deadline: now_ms().saturating_add(within_ms) }
    }
}

/// A request that may go on. Dropped, it has failed. Where the node's map is fixed there is no core: all may go on, and
/// the last word is what was done.
pub(crate) struct Turn(Option<Open>);

struct Open {
    node: Arc<Node>,
    number: u64,
    words: flume::Receiver<Word>,
}

impl Turn {
    /// Waits for its turn, or says why there is none.
    pub(crate) async fn begin(shard: &Rc<Shard>, wish: Wish) -> Result<Self, Refusal> {
        let node = &shard.node;
        let Some(core) = &node.core else { return Ok(Self(None)) };
        let (number, (word, words)) = (core.number(), flume::bounded(2));
        core.ask(Asked::Request(wish.request(number), word))?;
        // From here on the core is told when this is dropped; of a request that it refused that means nothing.
        let turn = Self(Some(Open { node: Arc::clone(node), number, words: words.clone() }));
        match words.recv_async().await {
            Ok(Word::Go) => Ok(turn),
            Ok(Word::Refused(why)) => Err(refused(shard, &wish, why).await),
            Ok(Word::Finished(_)) | Err(_) => Err(Refusal::shard_ended()),
        }
    }

    /// It is over; what came of it is said already, and nothing depends on the core.
    pub(crate) fn end(mut self, outcome: Done, bytes: u64) {
        if let Some(open) = self.0.take() {
            open.tell(outcome, bytes);
        }
    }

    /// It is over. What the asker may be told: the epoch for which it is true (none where the map does not change), or
    /// something else than was done.
    pub(crate) async fn finish(mut self, outcome: Done, bytes: u64) -> Result<Option<u64>, Refusal> {
        let Some(open) = self.0.take() else { return Ok(None) };
        open.tell(outcome, bytes);
        match open.words.recv_async().await {
            Ok(Word::Finished(finished)) => last_word(finished),
            Ok(Word::Refused(why)) => Err(refusal(why)),
            Ok(Word::Go) | Err(_) => Err(Refusal::shard_ended()),
        }
    }

    /// Asked for what the volume does not have: `absent`, at the epoch for which that means something, or that it cannot
    /// be told.
    pub(crate) async fn not_here(self, absent: Refusal) -> Refusal {
        match self.finish(Done::NotHere, 0).await {
            Ok(epoch) => Refusal { epoch, ..absent },
            Err(why) => why,
        }
    }
}

impl Open {
    fn tell(&self, outcome: Done, bytes: u64) {
        if let Some(core) = &self.node.core {
            core.tell(Input::Done { number: self.number, outcome, bytes });
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            open.tell(Done::Failed, 0);
        }
    }
}

/// A put whose bytes came with it: the core hears of it when it is stored, and must hear of it then. So it takes its place
/// among them before it begins, and has it until the core has said its word.
pub(crate) struct Late<'a> {
    wish: Wish,
    _place: Option<Place<'a>>,
}

impl<'a> Late<'a> {
    /// It may begin, unless too many are under way. Without a core all may.
    pub(crate) fn begin(core: Option<&'a Handle>, wish: Wish) -> Result<Self, Refusal> {
        let place = match core {
            Some(core) => Some(core.late.enter().ok_or_else(|| {
                Refusal::new(ErrorCode::Busy, format!("{LATE_MAX} small puts are under way, or wait for the core"))
            })?),
            None => None,
        };
        Ok(Self { wish, _place: place })
    }

    /// It is durable, or was before. What may be told of it.
    pub(crate) async fn stored(self, shard: &Rc<Shard>) -> Result<Option<u64>, Refusal> {
        let Some(core) = &shard.node.core else { return Ok(None) };
        match self.tell(core).recv_async().await {
            Ok(Word::Finished(finished)) => last_word(finished),
            Ok(Word::Refused(why)) => Err(refused(shard, &self.wish, why).await),
            Ok(Word::Go) | Err(_) => Err(Refusal::shard_ended()),
        }
    }

    fn tell(&self, core: &Handle) -> flume::Receiver<Word> {
        let (word, words) = flume::bounded(1);
        core.tell_stored_at_once(self.wish.request(core.number()), word);
        words
    }
}

/// Why a request may not go on. A volume's own word of a takedown is true whatever the core has not heard yet.
async fn refused(shard: &Rc<Shard>, wish: &Wish, why: Refused) -> Refusal {
    match why {
        Refused::Stale => barred(shard, wish).await.unwrap_or_else(|| refusal(Refused::Stale)),
        why => refusal(why),
    }
}

/// That the volume itself knows of a takedown.
async fn barred(shard: &Rc<Shard>, wish: &Wish) -> Option<Refusal> {
    let (volume, track) = (shard.node.volume(&wish.volume).ok()?, wish.track);
    let owner = shard.node.owner(volume, &track);
    match shard.on(owner, move |shard| async move { shard.local(volume)?.has(track).await }).await {
        Ok(Message::TakenDown { number }) => Some(taken_down(number)),
        _ => None,
    }
}

/// What the wire says where a request may not go on.
fn refusal(why: Refused) -> Refusal {
    match why {
        Refused::Busy => Refusal::new(ErrorCode::Busy, "the node has enough to do"),
        Refused::Later { after_ms } => {
            Refusal::new(ErrorCode::Later { after_ms }, "the node serves enough other nodes")
        }
        Refused::Expired => Refusal::new(ErrorCode::Busy, "the request waited beyond its deadline"),
        Refused::TakenDown(name) => taken_down(name.in_cluster()),
        Refused::Stale => {
            Refusal::new(ErrorCode::Busy, "the node has not heard of takedowns lately, from enough other nodes")
        }
        Refused::Moved { epoch } => moved(epoch),
        Refused::Behind { epoch } => {
            Refusal::new(ErrorCode::Busy, format!("the node's map is older than yours yet, of epoch {epoch}"))
        }
        Refused::NoVolume => Refusal::new(ErrorCode::Fenced, "the volume takes no part"),
        Refused::Halted => Refusal::shard_ended(),
    }
}

fn last_word(finished: Finished) -> Result<Option<u64>, Refusal> {
    match finished {
        Finished::Stored { epoch } | Finished::Absent { epoch } => Ok(Some(epoch)),
        Finished::Sent => Ok(None),
        Finished::Unsettled => Err(Refusal::new(
            ErrorCode::Busy,
            "the volume does not have it, and has not yet compared itself with the other holders",
        )),
        Finished::TakenDown(name) => Err(taken_down(name.in_cluster())),
        Finished::Moved { epoch } => Err(moved(epoch)),
        Finished::Failed => Err(Refusal::new(ErrorCode::Internal, "the request failed")),
    }
}

fn taken_down(number: u64) -> Refusal {
    Refusal::new(ErrorCode::TakenDown { number }, "the track was taken down")
}

fn moved(epoch: u64) -> Refusal {
    Refusal::new(ErrorCode::Moved { epoch }, format!("the track is held elsewhere by the map of epoch {epoch}"))
}

#[cfg(test)]
mod tests {
    use super::super::Told;
    use super::*;

    #[test]
    fn small_puts_beyond_what_may_wait_for_the_core_are_busy_and_it_hears_of_each_that_is_stored() {
        let (core, inbox) = Handle::new();
        let track = TrackId::of(b"a small one");
        let wish = Wish { verb: Verb::Put, volume: VolumeId::from_bytes([1; 16]), track, epoch: 1, within_ms: 1_000 };
        let mut begun: Vec<Late<'_>> = (0..LATE_MAX)
            .map(|_| Late::begin(Some(&core), wish).unwrap_or_else(|why| panic!("{}", why.message)))
            .collect();
        let is_busy = || Late::begin(Some(&core), wish).is_err_and(|why| why.code == ErrorCode::Busy);
        assert!(is_busy());
        // Stored, each waits for the core, which is slow.
        let words: Vec<_> = begun.iter().map(|late| late.tell(&core)).collect();
        assert!(is_busy() && inbox.told.len() == LATE_MAX);
        for word in &words {
            let Ok(Told::StoredAtOnce(_, told)) = inbox.told.try_recv() else { panic!("each is told") };
            told.send(Word::Finished(Finished::Stored { epoch: 1 })).expect("it waits");
            assert!(matches!(word.try_recv(), Ok(Word::Finished(_))));
        }
        begun.pop();
        assert!(Late::begin(Some(&core), wish).is_ok(), "one has gone");
    }
}
