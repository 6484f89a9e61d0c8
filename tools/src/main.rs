//! The `deadwax` command: everything an operator or a listener types. What it does is in the library beside it.

use std::process::ExitCode;

use deadwax::cli::Cli;
use deadwax::{command, log};

fn main() -> ExitCode {
    let cli = Cli::read();
    log::start(cli.log_json);
    command::run(cli)
}
