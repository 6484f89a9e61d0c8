//! The process's CPU time: all threads, the kernel's workers for our rings included.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Since the process began.
pub(crate) fn spent() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("below a second"))
}
