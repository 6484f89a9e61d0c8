//! What was asked of the simulated drive, as text for people and for tests that compare it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::Fault;

/// A line when an operation is begun, and one when it is done.
#[derive(Clone, Default)]
pub(super) struct Trace {
    /// Nothing is written down where there is none.
    base: Option<PathBuf>,
    text: String,
}

impl Trace {
    /// Writes down all that follows, with paths as seen from `base`.
    pub(super) fn begin(&mut self, base: &Path) {
        self.base = Some(base.to_owned());
        self.text.clear();
    }

    pub(super) fn is_on(&self) -> bool {
        self.base.is_some()
    }

    pub(super) fn take(&mut self) -> String {
        self.base = None;
        std::mem::take(&mut self.text)
    }

    /// Operation `number` is begun: what, on which file, and what more there is to say.
    pub(super) fn begun(&mut self, number: u64, what: &str, path: &Path, more: std::fmt::Arguments<'_>) {
        if let Some(base) = &self.base {
            let path = path.strip_prefix(base).unwrap_or(path).display();
            let line = format!("{number:>4} {what:<11} {path} {more}");
            writeln!(self.text, "{}", line.trim_end()).expect("writes to memory");
        }
    }

    /// What somebody else has to say.
    pub(super) fn note(&mut self, line: std::fmt::Arguments<'_>) {
        if self.is_on() {
            writeln!(self.text, "     {line}").expect("writes to memory");
        }
    }

    /// Operation `number` is over, and what went wrong with it.
    pub(super) fn done(&mut self, number: u64, fault: Option<Fault>) {
        if self.is_on() {
            let fault = fault.map_or(String::new(), |fault| format!(": {fault:?}"));
            writeln!(self.text, "{number:>4} done{fault}").expect("writes to memory");
        }
    }
}
