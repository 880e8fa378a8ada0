//! The chores that are one command each.

use std::process::{Command, Stdio};

use crate::Error;
use crate::cargo::{cargo, run};

/// rustfmt.
pub(crate) fn format(check: bool) -> Result<(), Error> {
    let check: &[&str] = if check { &["--check"] } else { &[] };
    run(cargo(&[&["fmt", "--all"], check].concat()))
}

/// clippy on everything there is, tests and examples too.
pub(crate) fn lint() -> Result<(), Error> {
    run(cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// The documentation. A link that leads nowhere is an error.
pub(crate) fn doc() -> Result<(), Error> {
    let mut command = cargo(&["doc", "--workspace", "--no-deps"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    run(command)
}

/// The differential tests of the interpreter, `cases` times as long as in an ordinary run.
pub(crate) fn oracle(cases: u64) -> Result<(), Error> {
    // Of the library: arithmetic and vectors. Of `tests/oracle.rs`: every instruction.
    for which in [&["--lib", "oracle"][..], &["--test", "oracle"]] {
        let mut command = cargo(&["test", "--release", "--package", "riad-cpu-soft"]);
        command.args(which).args(["--", "--nocapture"]);
        command.env("RIAD_ORACLE_CASES", cases.to_string());
        run(command)?;
    }
    Ok(())
}

/// Hostile input, in a build that is fast and strict: the profile `fuzz` of `.cargo/config.toml`.
pub(crate) fn fuzz(arguments: &[&str]) -> Result<(), Error> {
    run(cargo(&[&["run", "--profile", "fuzz", "--package", "riad-fuzz", "--"], arguments].concat()))
}

/// The interpreter's speed on small synthetic guests.
pub(crate) fn bench_interpreter() -> Result<(), Error> {
    run(cargo(&["run", "--release", "--package", "riad-cpu-soft", "--example", "mips"]))
}

/// cargo-deny, where there is one.
pub(crate) fn deny() -> Result<(), Error> {
    if !has_deny() {
        return Err("cargo-deny is not installed: cargo install --locked cargo-deny".into());
    }
    run(cargo(&["deny", "check"]))
}

/// Whether cargo-deny is installed.
pub(crate) fn has_deny() -> bool {
    let mut command: Command = cargo(&["deny", "--version"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
