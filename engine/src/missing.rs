//! Segment files that are taken away under an open volume: somebody removed or moved them, or put others in their place.
//!
//! The drive does all that it is asked, and reads and flushes go well; but what is in a file without a name is gone when the
//! volume is closed. So no put is acknowledged before its segment's file was seen to have a name, after the flush; and all files are
//! looked for at their paths, some each check period. Where one is not there the volume goes out as if its drive hung: it may be
//! opened again at once, and then counts what is left and no more, so that the rest comes from other copies. That asks nothing of
//! what is not there, and is the same that a start does.

use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::error::Error;
use crate::format::BLOCK;
use crate::guard::Out;
use crate::host::{Access, File as _, Host};
use crate::identity::{SUPERBLOCK_FILE, parse};
use crate::segment::Segment;
use crate::volume::Inner;

/// How many sealed segments are looked for at a time? Some milliseconds' worth of questions to a file system; more than a
/// terabyte of segments in a few turns. Open ones are looked for each time.
const SEALED_PER_LOOK: usize = 512;

/// Looks for the segments' files for as long as the volume serves.
pub(crate) async fn watch_files<H: Host>(volume: Weak<Inner<H>>, host: H, period: Duration) {
    let mut from = 0;
    loop {
        host.sleep(period).await;
        let Some(volume) = volume.upgrade() else { break };
        if volume.check_open().is_err() {
            break;
        }
        from = volume.look_for_files(from).await;
    }
}

impl<H: Host> Inner<H> {
    /// Fails, and takes the volume out, where the segment's file has no name: what was flushed there will not stay.
    pub(crate) fn check_name(&self, segment: &Segment<H::File>) -> Result<(), Error> {
        let gone = matches!(segment.file.key(), Ok(None));
        if gone && self.is_missed(segment) { Err(self.miss(segment, "was removed")) } else { Ok(()) }
    }

    /// Looks for the files of all open segments and of some that are sealed, from the number `from` on; answers where to
    /// go on.
    async fn look_for_files(&self, from: u64) -> u64 {
        let (sought, next) = self.sought(from);
        let paths = sought.iter().map(|segment| segment.path.clone()).collect();
        // Whatever is wrong with the directory, the guard finds out.
        let Ok(found) = self.host.find(paths).await else { return from };
        let is_other =
            |segment: &Segment<H::File>, found| segment.file.key().is_ok_and(|key| key.is_none() || key != found);
        let mut missed = sought.iter().zip(found).filter(|(segment, found)| is_other(segment, *found));
        if let Some((segment, found)) = missed.find(|(segment, _)| self.is_missed(segment))
            && self.is_the_volume().await
            && self.check_open().is_ok()
        {
            self.miss(segment, if found.is_some() { "was replaced" } else { "was removed or moved" });
        }
        next
    }

    /// Whether the directory is the volume's: where it is gone or another's it is not about a file, and the guard says so.
    async fn is_the_volume(&self) -> bool {
        let path = self.config.dir.join(SUPERBLOCK_FILE);
        let read = async { self.host.open(&path, Access::Read).await?.read_at(0, BLOCK).await };
        let read = read.await;
        read.is_ok_and(|block| parse(&path, &block).is_ok_and(|found| found == self.config.expected))
    }

    /// The segments to look for now, and from which number on sealed ones come next.
    fn sought(&self, from: u64) -> (Vec<Rc<Segment<H::File>>>, u64) {
        let segments = self.segments.borrow();
        let (mut sought, mut sealed, mut next) = (Vec::new(), 0, 0);
        for segment in segments.iter() {
            if !segment.sealed.get() {
                sought.push(segment.clone());
            } else if segment.number >= from && sealed < SEALED_PER_LOOK {
                sought.push(segment.clone());
                sealed += 1;
                next = segment.number + 1;
            }
        }
        // At the end it begins anew.
        (sought, if sealed < SEALED_PER_LOOK { 0 } else { next })
    }

    /// Whether the segment's file is to be there: nobody of us has removed it. One that was made for another number of shards goes
    /// when no handle has a record in it, whoever of them is the last.
    fn is_missed(&self, segment: &Segment<H::File>) -> bool {
        let is_ours = segment.own || segment.live_bytes() > 0;
        let is_known = self.segment(segment.number).is_some_and(|known| known.generation == segment.generation);
        is_ours && is_known && !segment.freed.get()
    }

    fn miss(&self, segment: &Segment<H::File>, how: &str) -> Error {
        let why = format!(
            "{} {how} while the volume was open: what was in it is lost here, and comes back from other copies",
            segment.path.display()
        );
        let out = Out::hung(why);
        self.guard.fence(out.clone());
        self.guard.out().unwrap_or(out).into()
    }
}
