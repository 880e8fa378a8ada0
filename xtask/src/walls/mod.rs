//! The walls of `docs/architecture.md` that a program can check.
//!
//! * [`floors`]: each crate uses only the crates below it;
//! * [`dependencies`]: each dependency is explained;
//! * [`promises`]: the tests that hold each promise are there;
//! * [`source`]: what may not be written where: the guest's architecture, the host's clock, words on
//!   the terminal; and the length of files;
//! * [`hosts`]: names of computers.
//!
//! What clippy or the compiler can check is checked there: `[workspace.lints]` in `Cargo.toml`, and
//! `clippy.toml`.

mod dependencies;
mod floors;
mod hosts;
mod promises;
mod source;

#[cfg(test)]
#[path = "walls_test.rs"]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

/// A place where something is wrong.
#[derive(Debug, PartialEq, Eq)]
struct Breach {
    /// File and line, or crate.
    place: String,
    /// What is wrong, and what to do.
    what: String,
}

/// Checks the workspace at `root` and lists every breach.
pub(crate) fn check(root: &Path) -> Result<(), Error> {
    let mut breaches = floors::check(&floors::read()?);
    breaches.extend(dependencies::check_page(root)?);
    breaches.extend(promises::check_page(root)?);
    let files = text_files(root)?;
    let mut lines = 0;
    for file in &files {
        let Ok(text) = fs::read_to_string(root.join(file)) else { continue };
        let name = file.to_string_lossy();
        breaches.extend(hosts::check(&name, &text));
        if file.extension().is_some_and(|extension| extension == "rs") {
            lines += text.lines().count();
            breaches.extend(source::check(&name, &text));
        }
    }
    println!("{} files, {lines} lines of Rust", files.len());
    if breaches.is_empty() {
        return Ok(());
    }
    for Breach { place, what } in &breaches {
        println!("{place}: {what}");
    }
    Err(format!("{} breaches of the walls", breaches.len()).into())
}

/// The repository's text files, below `root`, in order. Build products and hidden directories other
/// than `.ci` and `.cargo` are passed over.
fn text_files(root: &Path) -> Result<Vec<PathBuf>, Error> {
    const KINDS: [&str; 6] = ["rs", "md", "toml", "lock", "sh", "txt"];
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(root.join(&directory))? {
            let entry = entry?;
            let name = entry.file_name();
            let path = directory.join(&name);
            let name = name.to_string_lossy();
            let kind = entry.file_type()?;
            if kind.is_dir() {
                let hidden = name.starts_with('.') && name != ".ci" && name != ".cargo";
                if !hidden && name != "target" && name != "failures" {
                    directories.push(path);
                }
            } else if kind.is_file() {
                let known = path.extension().is_some_and(|e| KINDS.iter().any(|kind| e == *kind));
                if known || directory.starts_with(".ci") {
                    found.push(path);
                }
            }
        }
    }
    found.sort();
    Ok(found)
}
