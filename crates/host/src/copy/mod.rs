//! Files on their way into a machine and out of it, as tar archives over a session with the guest's
//! own `tar`. `pack.rs` reads this computer's files, `unpack.rs` writes them.
//!
//! What comes out of a guest is a hostile archive: no name in it leads anywhere but below the
//! directory that it is unpacked to, and no link is followed on the way.

mod pack;
mod unpack;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write, pipe};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;

use riad_agent::client::{ExitStatus, SessionIo};

use crate::machines::Folder;
use crate::{Command, Error, printable};

/// Bytes of a guest's complaint that are told.
const COMPLAINT: u64 = 2000;

/// What can go wrong with a copy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// A file of this computer's.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The guest's side of it failed.
    #[error("the machine could not copy {path}: {complaint}")]
    Guest {
        /// The path in the machine.
        path: String,
        /// What it said.
        complaint: String,
    },
    /// The guest sent what is no archive, or not one that may be unpacked.
    #[error("the machine sent an archive that cannot be unpacked: {0}")]
    Archive(String),
    /// There is no such place to copy to.
    #[error("{0} is no directory: to copy several things, name a directory that is there")]
    NoDirectory(String),
    /// A path without a name, such as `/`.
    #[error("'{0}' has no name that it could have elsewhere: name a file or directory in it")]
    NoName(String),
}

impl CopyError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// What was not copied, in a sentence each; and how much was.
#[derive(Debug, Default)]
pub struct Copied {
    /// Bytes in files.
    pub bytes: u64,
    /// Things that are no files, directories or links.
    pub left_out: Vec<String>,
}

/// A machine, and who copies in it.
#[derive(Debug, Clone)]
pub struct Guest {
    /// The machine, which must run.
    pub folder: Folder,
    /// Whose files they are; root's when `None`.
    pub user: Option<String>,
}

/// Hears how many bytes have been copied.
pub type Heard<'a> = &'a mut (dyn FnMut(u64) + Send);

/// Copies files and directories of this computer into a machine.
///
/// # Errors
/// [`CopyError`], and whatever happens to sessions.
pub fn copy_in(
    guest: &Guest,
    sources: &[PathBuf],
    target: &OsStr,
    heard: Heard<'_>,
) -> Result<Copied, Error> {
    let (directory, name) = if is_directory(guest, target)? {
        (target.to_owned(), None)
    } else if sources.len() == 1 && !ends_with_slash(target) {
        let (directory, name) = split(target)?;
        (directory, Some(name))
    } else {
        return Err(CopyError::NoDirectory(target.to_string_lossy().into_owned()).into());
    };
    // What is not there is said before anything is begun.
    for source in sources {
        std::fs::symlink_metadata(source).map_err(CopyError::io("read", source))?;
    }
    let command = tar(&[OsStr::new("-xpf"), OsStr::new("-"), OsStr::new("-C"), &directory]);
    let (reader, writer) = pipe().map_err(pipe_error)?;
    let mut names = Vec::new();
    for source in sources {
        let own = || named(source);
        names.push((source.clone(), name.clone().map_or_else(own, Ok)?));
    }
    thread::scope(|scope| {
        let packing = scope.spawn(move || pack::pack(&names, writer, heard));
        let (status, complaint) = session(guest, &command, Some(reader.as_fd()), None)?;
        // A guest that reads no more must not keep the packing waiting.
        drop(reader);
        let packed = packing.join().unwrap_or_else(|_| Ok(Copied::default()));
        if status == ExitStatus::Exited(0) {
            return Ok(packed?);
        }
        match packed {
            // A file of ours that cannot be read is what broke it.
            Err(error @ CopyError::Io { action: "read", .. }) => Err(error.into()),
            _ => Err(guest_failed(target, &complaint).into()),
        }
    })
}

/// Copies a file or directory out of a machine.
///
/// # Errors
/// [`CopyError`], and whatever happens to sessions.
pub fn copy_out(
    guest: &Guest,
    source: &OsStr,
    target: &Path,
    heard: Heard<'_>,
) -> Result<Copied, Error> {
    let (directory, name) = split(source)?;
    let (place, new_name) = match std::fs::metadata(target) {
        Ok(metadata) if metadata.is_dir() => (target.to_owned(), name.clone()),
        _ if ends_with_slash(target.as_os_str()) => {
            return Err(CopyError::NoDirectory(target.display().to_string()).into());
        }
        _ => {
            let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
            (parent.unwrap_or(Path::new(".")).to_owned(), named(target)?)
        }
    };
    let place_fd = File::open(&place).map_err(CopyError::io("write to", &place))?;
    let command = tar(&[
        OsStr::new("-cf"),
        OsStr::new("-"),
        OsStr::new("-C"),
        &directory,
        OsStr::new("--"),
        &name,
    ]);
    let (reader, writer) = pipe().map_err(pipe_error)?;
    thread::scope(|scope| {
        let unpacking =
            scope.spawn(move || unpack::unpack(reader, &place_fd, &place, &name, &new_name, heard));
        let ended = session(guest, &command, None, Some(writer.as_fd()));
        drop(writer);
        let unpacked = unpacking.join();
        let unpacked =
            unpacked.unwrap_or_else(|_| Err(CopyError::Archive("nobody read it".to_owned())));
        let (status, complaint) = ended?;
        match (status, unpacked) {
            (ExitStatus::Exited(0), unpacked) => Ok(unpacked?),
            (_, Err(error @ CopyError::Io { .. })) => Err(error.into()),
            _ => Err(guest_failed(source, &complaint).into()),
        }
    })
}

/// Copies standard input, or what stands for it, into a file in a machine.
///
/// # Errors
/// [`CopyError`], and whatever happens to sessions.
pub fn copy_stream_in(guest: &Guest, from: &impl AsFd, target: &OsStr) -> Result<(), Error> {
    let script = ["/bin/sh", "-c", "exec cat >\"$1\"", "riad"].map(OsString::from);
    let command = Command::new(script.into_iter().chain([target.to_owned()]));
    let (status, complaint) = session(guest, &command, Some(from.as_fd()), None)?;
    succeeded(status, target, &complaint)
}

/// Copies a file in a machine to standard output, or what stands for it.
///
/// # Errors
/// [`CopyError`], and whatever happens to sessions.
pub fn copy_stream_out(guest: &Guest, source: &OsStr, to: &impl AsFd) -> Result<(), Error> {
    let words = ["cat", "--"].map(OsString::from);
    let command = Command::new(words.into_iter().chain([source.to_owned()]));
    let (status, complaint) = session(guest, &command, None, Some(to.as_fd()))?;
    succeeded(status, source, &complaint)
}

fn succeeded(status: ExitStatus, path: &OsStr, complaint: &str) -> Result<(), Error> {
    if status == ExitStatus::Exited(0) { Ok(()) } else { Err(guest_failed(path, complaint).into()) }
}

fn guest_failed(path: &OsStr, complaint: &str) -> CopyError {
    let path = path.to_string_lossy().into_owned();
    let complaint = match complaint {
        "" => "it did not say why; is there a `tar` in it?".to_owned(),
        words => words.to_owned(),
    };
    CopyError::Guest { path, complaint }
}

fn pipe_error(source: io::Error) -> Error {
    Error::Host { what: "a pipe", source }
}

fn tar(arguments: &[&OsStr]) -> Command {
    Command::new([OsStr::new("tar")].iter().chain(arguments).map(OsString::from))
}

/// Whether a path in a machine is a directory.
fn is_directory(guest: &Guest, path: &OsStr) -> Result<bool, Error> {
    let words = ["test", "-d"].map(OsString::from);
    let command = Command::new(words.into_iter().chain([path.to_owned()]));
    Ok(session(guest, &command, None, None)?.0 == ExitStatus::Exited(0))
}

/// Runs a command. Gives what it complained of, safe to show.
fn session(
    guest: &Guest,
    command: &Command,
    stdin: Option<std::os::fd::BorrowedFd<'_>>,
    stdout: Option<std::os::fd::BorrowedFd<'_>>,
) -> Result<(ExitStatus, String), Error> {
    let command = Command { user: guest.user.clone(), ..command.clone() };
    let (complaints, writer) = pipe().map_err(pipe_error)?;
    let nowhere = File::options().write(true).open("/dev/null");
    let nowhere = nowhere.map_err(|source| Error::Host { what: "/dev/null", source })?;
    let listening = thread::spawn(move || {
        let mut text = Vec::new();
        let mut complaints = complaints.take(COMPLAINT);
        let _ = complaints.read_to_end(&mut text);
        // The rest is heard and forgotten, or the guest would be told that nobody listens.
        let _ = io::copy(&mut complaints.into_inner(), &mut io::sink());
        text
    });
    let io = SessionIo { stdin, stdout: stdout.unwrap_or(nowhere.as_fd()), stderr: writer.as_fd() };
    let ended = guest.folder.run(&command, io, None);
    drop(writer);
    let text = listening.join().unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().map(printable).filter(|line| !line.is_empty());
    Ok((ended?, lines.collect::<Vec<_>>().join("; ")))
}

/// The directory and the name of a path in a machine.
fn split(path: &OsStr) -> Result<(OsString, OsString), CopyError> {
    let path = Path::new(path);
    let name = named(path)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((parent.unwrap_or(Path::new(".")).into(), name))
}

/// The last part of a path.
fn named(path: &Path) -> Result<OsString, CopyError> {
    let name = path.file_name().map(OsStr::to_owned);
    // `.` and what ends with `..` have the name of what they stand for.
    let name = name.or_else(|| std::fs::canonicalize(path).ok()?.file_name().map(OsStr::to_owned));
    name.ok_or_else(|| CopyError::NoName(path.display().to_string()))
}

fn ends_with_slash(path: &OsStr) -> bool {
    path.as_encoded_bytes().ends_with(b"/")
}

/// A writer that tells how much went through it.
struct Counted<'a, W> {
    inner: W,
    heard: Heard<'a>,
    count: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.count += count as u64;
        (self.heard)(self.count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
#[path = "copy_test.rs"]
mod tests;
