//! Taking a track down, everywhere.

use deadwax_dht::Failure;
use deadwax_dht::wire::Message;
use deadwax_track::TrackId;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::error::Holders;
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
    /// and serves the track no more. There is no log yet that would tell a holder later, so one that does not confirm
    /// makes it `Unavailable`, with what was done left done: ask again, the same number comes back.
    pub async fn take_down(&self, id: TrackId, number: u64) -> Result<TakeDown, Error> {
        let map = &self.inner.map;
        let holders = map.holders(id.partition()).to_vec();
        let mut asking = JoinSet::new();
        for (index, holder) in holders.iter().copied().enumerate() {
            let pool = self.inner.pool.clone();
            asking.spawn(async move {
                let request = Message::TakeDown { volume: holder.volume, id, number };
                (index, pool.ask(holder.node, &request).await)
            });
        }
        let (mut numbers, mut failures) = (Vec::new(), Vec::<(usize, Failure)>::new());
        while let Some(answer) = asking.join_next().await {
            match answer.expect("asking does not panic and is not aborted") {
                (_, Ok((lease, Message::TakenDown { number }))) => {
                    lease.give_back();
                    numbers.push(number);
                }
                (index, Ok((_, other))) => failures.push((index, failure(other))),
                (index, Err(failure)) => failures.push((index, failure)),
            }
        }
        match numbers.iter().min() {
            Some(number) if failures.is_empty() => Ok(TakeDown { number: *number, copies: numbers.len() }),
            _ => {
                failures.sort_by_key(|(index, _)| *index);
                let what = format!("take down {id}: {} of {} holders confirmed", numbers.len(), holders.len());
                let failures = failures.iter().map(|(index, failure)| (*index, failure));
                Err(Error::Unavailable { what, holders: Holders::of(map, &holders, failures) })
            }
        }
    }
}
