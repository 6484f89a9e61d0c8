//! What a command does when whoever read its standard output has gone (`deadwax status --watch | head -1`): it ends, and
//! says nothing of it.

use std::io::{self, Write};

/// The exit code then: what a shell says of a program that SIGPIPE ended. It is none that says healthy or not.
pub const EXIT_CODE: u8 = 128 + 13;

/// Nobody reads the standard output any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("nobody reads the standard output any more")]
pub struct Unread;

/// Why the standard output, or a file that is there in its place, was not written.
#[must_use]
pub fn or(error: io::Error) -> anyhow::Error {
    // A file never is a broken pipe.
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Unread.into();
    }
    anyhow::Error::new(error).context("cannot write")
}

/// Prints a line on the standard error, for people. Where nobody reads that, nothing is to be said of it.
pub fn tell(line: impl std::fmt::Display) {
    drop(writeln!(io::stderr(), "{line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_went_is_told_from_a_full_drive() {
        assert!(or(io::ErrorKind::BrokenPipe.into()).context("get").is::<Unread>());
        let full = or(io::ErrorKind::StorageFull.into());
        assert!(!full.is::<Unread>() && full.to_string() == "cannot write", "{full:#}");
    }
}
