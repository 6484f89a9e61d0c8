//! What readers feel of it while a master that lost its drive's contents gets them back from the others.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use deadwax_dht_client::Client;

use super::load::Pace;
use super::measure::{Bench, LARGE_BYTES, RANGE_BYTES, at};
use super::stock::Shelf;
use crate::report::Board;
use crate::ring::latencies;

/// Which master loses what it had.
const VICTIM: usize = 2;
/// Of what masters give at most, what is asked of them before and meanwhile: as a service that has room to grow.
const SHARE: f64 = 0.3;
const IN_FLIGHT: usize = 32;
const REBUILT_MAX: Duration = Duration::from_secs(600);
const ASK_AGAIN: Duration = Duration::from_millis(500);

impl Bench {
    /// Empties a master, and reads ranges at a steady pace until it has all copies again.
    pub(super) async fn rebuild(&mut self, board: &mut Board) -> anyhow::Result<()> {
        let salt = self.seed << 16 | 0xffff;
        self.large.renew(salt);
        self.put(&self.large, LARGE_BYTES, 8).await.context("put what is to be rebuilt")?;
        let shelf = Rc::new(Shelf::new(self.there(&self.large).await?, 0.0));
        let bytes = until_whole(&self.masters.client).await?;
        let range = Some(RANGE_BYTES as u64);
        let most = self.get_paced(&shelf, range, IN_FLIGHT, salt, Pace::Closed).await?.0.per_second();
        let pace = Pace::Open(most * SHARE);
        let before = self.get_paced(&shelf, range, IN_FLIGHT, !salt, pace).await?.0;

        self.masters.empty(VICTIM).await?;
        let (started, client) = (Instant::now(), self.masters.client.clone());
        let whole = tokio::task::spawn_local(async move {
            until_whole(&client).await?;
            anyhow::Ok(started.elapsed())
        });
        let mut latency = latencies();
        for turn in 1.. {
            let turn = self.get_paced(&shelf, range, IN_FLIGHT, salt ^ turn << 8, pace).await?.0;
            latency.add(&turn.latency)?;
            if whole.is_finished() {
                break;
            }
        }
        let took = whole.await.context("the watch ended")??;
        let (base, p99) = (at(&before.latency, 0.99), at(&latency, 0.99));
        board.add(&self.name("range_64k_while_rebuilt"), "1/s", most * SHARE, &latency, None, "");
        board.add_beside(&self.name("range_64k_p99_while_rebuilt"), "us", p99, base, "before");
        #[expect(clippy::cast_precision_loss, reason = "a rate, printed to three digits")]
        let rate = bytes as f64 / 1e6 / took.as_secs_f64();
        board.add_plain(&self.name("rebuild"), "MB/s", rate);
        Ok(())
    }
}

/// Waits until every copy is where it should be. The tracks' bytes.
async fn until_whole(client: &Client) -> anyhow::Result<u64> {
    let started = Instant::now();
    loop {
        let status = client.status().await;
        if status.copies.missing == 0 && status.nodes.iter().all(|node| node.up) {
            return Ok(status.bytes);
        }
        ensure!(started.elapsed() < REBUILT_MAX, "not whole after {REBUILT_MAX:?}: {:?}", status.warnings);
        tokio::time::sleep(ASK_AGAIN).await;
    }
}
