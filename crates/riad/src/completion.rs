//! `riad completion`: completions for shells.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::args::Cli;
use crate::report::Failure;

pub(crate) fn completion(shell: Shell) -> Result<ExitCode, Failure> {
    let mut text = Vec::new();
    generate(shell, &mut Cli::command(), "riad", &mut text);
    // A reader that has seen enough is no failure.
    let _ = io::stdout().write_all(&text);
    Ok(ExitCode::SUCCESS)
}
