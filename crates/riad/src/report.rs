//! Words for failures and for timings.

use std::error::Error as _;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use riad_host::machines::{Folder, MachineError};
use riad_host::network::Counts;
use riad_host::{Error, Timings};
use serde::Serialize;

use crate::args::Format;
use crate::yaml;

/// The exit status of riad's own failures.
pub(crate) const OWN_FAILURE: u8 = 125;

/// Why a verb failed, and the status to exit with.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something in the house.
    Host(Box<Error>),
    /// Something here.
    Own(String),
    /// A signal ended it; nothing is left to be said.
    Signal(u8),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Host(Box::new(error))
    }
}

impl From<MachineError> for Failure {
    fn from(error: MachineError) -> Self {
        Error::from(error).into()
    }
}

impl Failure {
    /// A failure of something that was being done here.
    pub(crate) fn own(what: &str) -> impl FnOnce(io::Error) -> Self + use<'_> {
        move |error| Self::Own(format!("{what}: {error}"))
    }

    /// The status to exit with.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Host(error) => error.exit_code(),
            Self::Own(_) => OWN_FAILURE,
            Self::Signal(status) => *status,
        }
    }

    /// Says why, and shows the console's last lines where there are any.
    pub(crate) fn print(&self) {
        let mut text = match self {
            Self::Host(error) => format!("riad: {}\n", sentence(error)),
            Self::Own(sentence) => format!("riad: {sentence}\n"),
            Self::Signal(_) => return,
        };
        if let Self::Host(error) = self
            && let Some(console) = error.console()
        {
            match console.0.as_slice() {
                [] => text.push_str("The machine's console is empty.\n"),
                lines => {
                    text.push_str("The last lines of the machine's console:\n");
                    for line in lines {
                        let _ = writeln!(text, "  {line}");
                    }
                }
            }
        }
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// An error and its causes in one sentence. A cause that the error has told already is not said
/// again.
fn sentence(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            let _ = write!(text, ": {words}");
        }
        cause = error.source();
    }
    text
}

/// A value for programs.
pub(crate) fn json(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value);
    Ok(text.map_err(|error| Failure::Own(error.to_string()))? + "\n")
}

/// Shows a value in the format that was asked for; `table` is for people, and the default.
pub(crate) fn show_as(
    value: &impl Serialize,
    format: Option<Format>,
    table: impl FnOnce() -> String,
) -> Result<(), Failure> {
    show(&match format {
        Some(Format::Json) => json(value)?,
        Some(Format::Yaml) => yaml::text(value),
        Some(Format::Table) | None => table(),
    });
    Ok(())
}

/// One of several values that follow each other, in the format that was asked for: a line of JSON, a
/// YAML document, or what people read.
pub(crate) fn one_of_many(
    value: &impl Serialize,
    format: Option<Format>,
    table: impl FnOnce() -> String,
) -> Result<String, Failure> {
    Ok(match format {
        Some(Format::Json) => {
            serde_json::to_string(value).map_err(|error| Failure::Own(error.to_string()))? + "\n"
        }
        Some(Format::Yaml) => format!("---\n{}", yaml::text(value)),
        Some(Format::Table) | None => table(),
    })
}

/// When a change of a machine counts.
pub(crate) fn when(folder: &Folder, counts: Counts) -> Result<String, Failure> {
    Ok(match (counts, folder.is_alive()?) {
        (Counts::Now, _) => "now, and at its later starts".to_owned(),
        (_, true) => format!("from its next start on (`riad restart {}`)", folder.name()),
        (_, false) => "when it starts".to_owned(),
    })
}

/// Lines with their cells below each other.
pub(crate) fn columns<const N: usize>(lines: &[[String; N]]) -> String {
    let width =
        |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Writes to standard output; a reader that has seen enough is no failure.
pub(crate) fn show(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Timings for people.
pub(crate) fn table(timings: &Timings) -> String {
    let mut text = String::from("stage       seconds\n");
    for stage in &timings.stages {
        let _ = writeln!(text, "{:10} {:8.3}", stage.stage, stage.time.as_secs_f64());
    }
    let _ = writeln!(text, "{:10} {:8.3}", "total", timings.total.as_secs_f64());
    if let Some(instructions) = timings.instructions {
        let millions = instructions as f64 / 1e6;
        let _ = write!(text, "{millions:.1} million instructions");
        if let Some(mips) = timings.mips() {
            let _ = write!(text, ", {mips:.1} million a second");
        }
        text.push('\n');
    }
    if !timings.exits.is_empty() {
        let kinds = timings.exits.iter().filter(|(_, count)| *count != 0);
        let kinds: Vec<_> = kinds.map(|(kind, count)| format!("{kind} {count}")).collect();
        let _ = writeln!(text, "exits: {}", kinds.join(", "));
    }
    text
}

#[cfg(test)]
#[path = "report_test.rs"]
mod tests;
