//! What happened to machines: a record that people can read, and programs can follow.
//!
//! Two kinds of files hold it, a line of JSON an entry ([`Entry`] is the schema, `docs/machines.md`
//! its reference):
//!
//! * `NAME/events.jsonl` in a machine's folder is written by the machine's process, which can write
//!   nowhere else: starts, stages, ends (`own.rs`);
//! * `.events.jsonl` beside the machines is written by commands: what was created, changed, renamed,
//!   deleted (`shared.rs`). What it says of a machine outlives the machine.
//!
//! Both are bounded: a file that has become long is put aside (`.1`), and the one before it is gone.
//! [`Reader`] puts all of them together again, in the order of time, and follows them.

mod entry;
mod own;
mod reader;
mod shared;
mod time;

pub use entry::{Entry, Event};
pub use reader::{Reader, Wanted};
pub use time::since;

pub(crate) use own::Own;
pub(crate) use shared::append;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A machine's own record, in its folder.
pub(crate) const OWN: &str = "events.jsonl";
/// The record of commands, beside the machines.
pub(crate) const SHARED: &str = ".events.jsonl";

/// Bytes of the longest entry.
const MOST_ENTRY: usize = 8 << 10;

/// This process, as the one who did something.
pub(crate) fn this_process() -> String {
    let user = rustix::process::getuid().as_raw();
    format!("user {user}, process {}", std::process::id())
}

/// Where a file goes that has become long.
fn aside(path: &Path) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(".1");
    name.into()
}

/// Opens a record to append to.
fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).append(true).create(true).mode(0o600).open(path)
}

/// Puts a record aside that has become longer than `most`. Returns whether it did.
fn put_aside(path: &Path, length: u64, most: u64) -> io::Result<bool> {
    if length < most {
        return Ok(false);
    }
    fs::rename(path, aside(path))?;
    Ok(true)
}

/// What is to be appended for an entry. What a power cut left of the one before ends first.
fn line(file: &File, entry: &Entry) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let mut line = Vec::new();
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    if last != [b'\n'] {
        line.push(b'\n');
    }
    serde_json::to_writer(&mut line, entry)?;
    if line.len() > MOST_ENTRY {
        return Err(io::Error::other("an entry is too long"));
    }
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
#[path = "journal_test.rs"]
mod tests;
