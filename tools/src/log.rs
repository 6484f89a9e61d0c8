//! Where log lines go: to the standard error, for people or as JSON.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::unread::tell;

/// What the environment may say about what is logged, for example `debug` or `deadwax_engine=trace`.
const VARIABLE: &str = "DEADWAX_LOG";

/// What is logged unless it says otherwise.
const DEFAULT: &str = "info";

/// Starts logging. Lines of the `log` crate are taken too: glommio's warnings would vanish otherwise.
pub fn start(json: bool) {
    let text = std::env::var(VARIABLE).unwrap_or_default();
    let (filter, wrong) = match EnvFilter::try_new(if text.is_empty() { DEFAULT } else { &text }) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(DEFAULT), Some(error)),
    };
    let logger = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = if json { logger.json().try_init() } else { logger.with_ansi(io::stderr().is_terminal()).try_init() };
    if let Err(error) = started {
        tell(format_args!("cannot start logging: {error}"));
    }
    if let Some(error) = wrong {
        tracing::warn!(%error, "{VARIABLE} is not understood, logging at info");
    }
}
