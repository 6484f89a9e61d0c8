//! Taking a track down at each of its holders, in a cluster that has no log of takedowns.

use std::sync::Arc;

use deadwax_dht::Failure;
use deadwax_dht::wire::Message;
use deadwax_track::TrackId;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::error::Holders;
use crate::known::Known;
use crate::read::failure;
use crate::{Client, Error};

/// A takedown that every holder confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TakeDown {
    /// Its number: the first that any holder recorded for the track.
    pub number: u64,
    /// How many holders confirmed it.
    pub copies: usize,
}

impl Client {
    /// Takes a track down on all of its holders, whether or not they have it. On return each has recorded it durably
    /// and serves the track no more. Without a [log](Self::issue) nobody tells a holder later, so one that does not confirm
    /// makes it `Unavailable`, with what was done left done: ask again, the same number comes back.
    pub async fn take_down(&self, id: TrackId, number: u64) -> Result<TakeDown, Error> {
        let mut course = self.course();
        loop {
            let (newest, result) = Self::take_down_by(&course.known, id, number).await;
            if newest <= course.known.epoch() {
                return result;
            }
            // By the newer map there may be other holders. Those that confirmed do so again.
            if !course.follow(self, newest, None).await {
                return result.and_then(|_| {
                    let what =
                        format!("take down {id}: the map changed to epoch {newest}, which could not be followed");
                    Err(Error::Unavailable { what, holders: Holders::default() })
                });
            }
        }
    }

    /// Asks the holders of one map. Also, the newest epoch that one of them told of.
    async fn take_down_by(known: &Arc<Known>, id: TrackId, number: u64) -> (u64, Result<TakeDown, Error>) {
        let holders = known.sets(id.partition()).union();
        let mut asking = JoinSet::new();
        for (index, holder) in holders.iter().copied().enumerate() {
            let known = Arc::clone(known);
            asking.spawn(async move {
                let request = Message::TakeDown { volume: holder.volume, id, number };
                (index, known.ask(holder.node, &request).await)
            });
        }
        let (mut newest, mut numbers, mut failures) = (0, Vec::new(), Vec::<(usize, Failure)>::new());
        while let Some(answer) = asking.join_next().await {
            let (index, answer) = answer.expect("asking does not panic and is not aborted");
            match answer {
                Ok((lease, reply)) => {
                    newest = newest.max(lease.connection.receiver.epoch);
                    match reply {
                        Message::TakenDown { number } => {
                            lease.give_back();
                            numbers.push(number);
                        }
                        other => failures.push((index, failure(other))),
                    }
                }
                Err(failure) => failures.push((index, failure)),
            }
        }
        let result = match numbers.iter().min() {
            Some(number) if failures.is_empty() => Ok(TakeDown { number: *number, copies: numbers.len() }),
            _ => {
                failures.sort_by_key(|(index, _)| *index);
                let what = format!("take down {id}: {} of {} holders confirmed", numbers.len(), holders.len());
                let failures = failures.iter().map(|(index, failure)| (*index, failure));
                Err(Error::Unavailable { what, holders: Holders::of(known.map(), &holders, failures) })
            }
        };
        (newest, result)
    }
}
