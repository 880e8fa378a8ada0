//! Running cargo and other programs, and saying what is run.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use crate::{Error, root};

/// Cargo, to be run at the workspace's root.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    command
}

/// Says what is run, runs it, and makes a failure an error.
pub(crate) fn run(mut command: Command) -> Result<(), Error> {
    let words: Vec<_> = std::iter::once(OsStr::new("cargo"))
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let line = words.join(" ");
    let environment: String = command
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)))
        .map(|(name, value)| format!("{}={:?} ", name.to_string_lossy(), value))
        .collect();
    println!("$ {environment}{line}");
    let status = command.status().map_err(|error| format!("`{line}` cannot be run: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{line}` failed ({status})").into()) }
}

/// What a program prints, for programs that answer questions.
pub(crate) fn output(mut command: Command) -> Result<String, Error> {
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(
            format!("{} failed ({})", command.get_program().display(), output.status).into()
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}
