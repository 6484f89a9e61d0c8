//! `deadwax completions`.

use std::io::Write;

use clap::CommandFactory;

use crate::cli::{Cli, Completions};
use crate::unread;

pub(super) fn run(completions: &Completions) -> anyhow::Result<bool> {
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut Cli::command(), "deadwax", &mut script);
    std::io::stdout().write_all(&script).map_err(unread::or)?;
    Ok(true)
}
