//! What masters take while nobody asks for anything.

use std::time::{Duration, Instant};

use super::masters::Masters;
use crate::report::Board;

/// How long they are left alone first: what follows a start has ended.
const SETTLE: Duration = Duration::from_secs(30);
/// How long they are watched.
const WATCHED: Duration = Duration::from_secs(60);

/// Figures a master: hundredths of a core, and MiB that are resident.
pub(super) async fn measure(masters: &Masters, (before, after): (&str, &str), board: &mut Board) -> anyhow::Result<()> {
    tokio::time::sleep(SETTLE).await;
    let (began, spent) = (Instant::now(), masters.each_spent()?);
    tokio::time::sleep(WATCHED).await;
    let seconds = began.elapsed().as_secs_f64();
    for (now, before_it) in masters.each_spent()?.into_iter().zip(spent) {
        board.add_plain(
            &format!("{before}idle_cpu{after}"),
            "% of a core",
            100.0 * now.since(before_it).cpu_s / seconds,
        );
    }
    for bytes in masters.each_resident()? {
        #[expect(clippy::cast_precision_loss, reason = "printed to three digits")]
        let mib = bytes as f64 / (1024.0 * 1024.0);
        board.add_plain(&format!("{before}idle_resident{after}"), "MiB", mib);
    }
    Ok(())
}
