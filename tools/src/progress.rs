//! How far long work has come: a bar on a terminal, a plain line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::unread::tell;

/// How often a plain line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Counts bytes against a total and shows it on the standard error. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct Progress {
    bar: ProgressBar,
    doing: &'static str,
    /// When the last plain line was printed; nothing on a terminal, where the bar is.
    line: Option<Arc<Mutex<Instant>>>,
}

/// One file's share of a [`Progress`]: what a failed try counted is taken back.
#[derive(Debug)]
pub struct Share {
    progress: Progress,
    bytes: u64,
    counted: u64,
}

impl Progress {
    /// Progress of `doing` ("importing"), shown where `shown`.
    #[must_use]
    pub fn new(doing: &'static str, shown: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if shown && terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(0), target).with_style(style());
        bar.set_prefix(doing);
        if shown && terminal {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        let line = (shown && !terminal).then(|| Arc::new(Mutex::new(Instant::now())));
        Self { bar, doing, line }
    }

    /// Adds to the bytes that are to be done.
    pub fn expect(&self, bytes: u64) {
        self.bar.inc_length(bytes);
    }

    /// Counts bytes that were done before this run, so that they do not pass for speed.
    pub fn resume(&self, bytes: u64) {
        self.bar.set_position(bytes);
        self.bar.reset_eta();
    }

    /// Says what was done last, beside the bar.
    pub fn say(&self, message: String) {
        self.bar.set_message(message);
    }

    /// Prints a line above the bar.
    pub fn line(&self, text: &str) {
        self.bar.suspend(|| tell(text));
    }

    /// Runs something that prints while the bar is out of the way.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    /// Says how many bytes are done in all, and how many there are.
    pub fn reach(&self, bytes: u64, of: u64) {
        self.bar.set_length(of);
        self.advance(bytes.saturating_sub(self.bar.position()));
    }

    /// Counts bytes that were done.
    pub fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
        let Some(last) = &self.line else { return };
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= LINE_EVERY {
            *last = Instant::now();
            let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
            let speed = self.bar.per_sec();
            let left = self.bar.eta().as_secs();
            tell(format_args!(
                "{}: {} of {}, {} MB/s, {left} s left",
                self.doing,
                size(done),
                size(total),
                megabytes(speed)
            ));
        }
    }

    /// A share for a file of `bytes`, which [`expect`](Self::expect) has counted.
    #[must_use]
    pub fn share(&self, bytes: u64) -> Share {
        Share { progress: self.clone(), bytes, counted: 0 }
    }

    /// Takes the bar off the screen.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Share {
    /// Says how many bytes of the file are done in all.
    pub fn reach(&mut self, bytes: u64) {
        let reached = bytes.min(self.bytes);
        if let Some(more) = reached.checked_sub(self.counted) {
            self.progress.advance(more);
        } else {
            self.progress.bar.dec(self.counted - reached);
        }
        self.counted = reached;
    }
}

impl Drop for Share {
    /// However the file ended, nothing of it is left to do.
    fn drop(&mut self) {
        self.reach(self.bytes);
    }
}

fn style() -> ProgressStyle {
    let template =
        "{prefix} [{bar:28}] {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left  {wide_msg}";
    ProgressStyle::with_template(template).expect("the template is right").progress_chars("=> ")
}

/// `bytes` for people, in the unit that leaves few digits; powers of a thousand.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [(f64, &str); 3] = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB")];
    let all = bytes as f64;
    match UNITS.iter().find(|(unit, _)| all >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", all / unit),
        None => format!("{} kB", bytes.div_ceil(1000)),
    }
}

/// Seconds for people, in its two largest units.
#[must_use]
pub fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Bytes as megabytes, with one digit behind the point.
#[must_use]
pub fn megabytes(bytes: f64) -> String {
    format!("{:.1}", bytes / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_counted_once_however_often_it_was_tried() {
        let progress = Progress::new("testing", false);
        progress.expect(100);
        let mut share = progress.share(100);
        share.reach(60);
        share.reach(0);
        share.reach(70);
        assert_eq!(progress.bar.position(), 70);
        drop(share);
        assert_eq!(progress.bar.position(), 100);
    }

    #[test]
    fn times_are_readable() {
        let all = [(59, "59 s"), (61, "1 min 1 s"), (7_260, "2 h 1 min"), (90_000, "1 d 1 h")];
        all.into_iter().for_each(|(seconds, text)| assert_eq!(duration(seconds), text));
    }

    #[test]
    fn bytes_are_readable() {
        assert_eq!(size(1), "1 kB");
        assert_eq!(size(2_550_000), "2.5 MB");
        assert_eq!(size(270_553_200_000), "270.6 GB");
        assert_eq!(size(4_000_000_000_000), "4.0 TB");
    }
}
