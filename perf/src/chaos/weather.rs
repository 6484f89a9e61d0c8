//! Whether the machine itself stands still: a block is written and flushed again and again on the drive on which those of all
//! masters are. Where that takes seconds, or this process is not run for as long, no master can answer in time.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use super::journal::Journal;

const BLOCK_BYTES: usize = 4096;
const PAUSE: Duration = Duration::from_millis(200);
/// A holder has 2 s for its first answer, and its drive 3 until it is given up: so much is left for the rest.
const STILL_MS: u64 = 1_000;

/// Looks until `ended`, and tells the journal.
pub(crate) fn watch(folder: &Path, journal: &Journal, ended: impl Fn() -> bool) -> anyhow::Result<()> {
    let file = File::create(folder.join("weather"))?;
    while !ended() {
        let from = journal.now();
        file.write_all_at(&[0; BLOCK_BYTES], 0).and_then(|()| file.sync_data())?;
        std::thread::sleep(PAUSE);
        let until = journal.now();
        if until - from > STILL_MS {
            journal.say(format_args!("the machine stood still for {} ms", until - from));
            journal.availability().stood_still(from, until);
        }
    }
    Ok(())
}
