//! What was done and seen, when: one line each, in a file that is kept where a rule was broken.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::availability::Availability;

/// Written by all threads.
pub(crate) struct Journal {
    file: Mutex<File>,
    began: Instant,
    /// The faults that are under way.
    faults: Mutex<Vec<String>>,
    /// Whether what was asked had to be answered, by the times of this journal.
    availability: Mutex<Availability>,
}

impl Journal {
    pub(crate) fn new(path: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            file: Mutex::new(File::create(path)?),
            began: Instant::now(),
            faults: Mutex::default(),
            availability: Mutex::default(),
        })
    }

    /// Milliseconds since the run began.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).expect("a run is shorter than 500 million years")
    }

    pub(crate) fn say(&self, what: fmt::Arguments<'_>) {
        let now = self.now();
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // Where the drive of the journal is full, the run goes on.
        drop(writeln!(file, "{:>6}.{:03} {what}", now / 1000, now % 1000));
    }

    /// The same, and to who watches.
    pub(crate) fn tell(&self, what: fmt::Arguments<'_>) {
        self.say(what);
        eprintln!("{:>6.1} s  {what}", self.began.elapsed().as_secs_f64());
    }

    pub(crate) fn fault_begins(&self, fault: String) {
        self.say(format_args!("begins: {fault}"));
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    pub(crate) fn fault_is_lifted(&self, fault: &str) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| other != fault);
        self.say(format_args!("lifted: {fault}"));
    }

    /// What becomes of requests, and what keeps masters from answering them.
    pub(crate) fn availability(&self) -> MutexGuard<'_, Availability> {
        self.availability.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is under way, in words.
    pub(crate) fn under_way(&self) -> String {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.is_empty() { "no fault".to_owned() } else { faults.join("; ") }
    }
}
