//! Work that goes on after its request was answered.

use tokio::sync::watch;

/// Counts such work, so that a shutdown can wait for it.
#[derive(Debug)]
pub(crate) struct Background(watch::Sender<usize>);

/// One piece of work; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Working(watch::Sender<usize>);

impl Default for Background {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Background {
    pub(crate) fn begin(&self) -> Working {
        self.0.send_modify(|count| *count += 1);
        Working(self.0.clone())
    }

    /// Waits until nothing is at work.
    pub(crate) async fn drained(&self) {
        // The sender is here, so the channel cannot close.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
