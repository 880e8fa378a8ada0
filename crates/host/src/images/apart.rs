//! Images are made in a process apart, which gives up what it does not need before it looks into anything
//! that was downloaded, or is to be imported: packages, archives, disks, and the guest that configures.
//!
//! The process is the same program again ([`Observer::builder`]). What is wanted goes to its standard
//! input, as JSON; what happens comes out of its standard output, a line of JSON each. It ends with the
//! process that started it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use riad_confine::{Kind, Process};
use riad_image::{Image, Progress, Store};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use super::{ImageOptions, ImportKernel, build_here, by_id, import_here};
use crate::{ConsoleTail, Error, Observer, printable};

/// Bytes of the longest line that is read.
const MOST_LINE: u64 = 1 << 20;

/// What is wanted.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Wish {
    /// An image built from packages.
    Build(ImageOptions),
    /// An image made of a file.
    Import { file: PathBuf, name: String, kernel: ImportKernel, size: Option<u64> },
}

/// What comes back.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    Progress(Progress),
    /// The image is there, and has this id.
    Made {
        id: String,
    },
    Failed {
        sentence: String,
        console: Option<Vec<String>>,
    },
}

/// Has an image made by `program`, and waits until it is.
pub(super) fn make(
    mut program: Command,
    wish: &Wish,
    store: &Store,
    observer: &mut dyn Observer,
) -> Result<Image, Error> {
    let host = |source| Error::Host { what: "a process to make the image in", source };
    // Signals of the terminal are this process's, which ends the other.
    program.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = program.spawn().map_err(host)?;
    observer.builds(Some(child.id()));
    if let Some(stdin) = child.stdin.take() {
        // One that is gone already says why, or its status does.
        let _ = serde_json::to_writer(stdin, wish);
    }
    let mut result = None;
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while let Ok(1..) = reader.by_ref().take(MOST_LINE).read_until(b'\n', &mut line) {
            match serde_json::from_slice(&line) {
                Ok(Said::Progress(progress)) => observer.image(&progress),
                Ok(Said::Made { id }) => result = Some(Ok(id)),
                Ok(Said::Failed { sentence, console }) => result = Some(Err((sentence, console))),
                Err(error) => {
                    let sentence =
                        format!("the process that makes the image said what is none: {error}");
                    result = Some(Err((sentence, None)));
                    break;
                }
            }
            line.clear();
        }
    }
    // Whoever ended it, for a signal say, is about to end this one: it is told first that there is nobody
    // to be ended any more, and does not come back from that.
    observer.builds(None);
    let status = child.wait().map_err(host)?;
    match result {
        Some(Ok(id)) => by_id(store, &id),
        Some(Err((sentence, console))) => Err(Error::Apart {
            sentence: printable(&sentence),
            console: console
                .map(|lines| ConsoleTail(lines.iter().map(|line| printable(line)).collect())),
        }),
        None => {
            let sentence = format!("the process that made the image ended ({status})");
            Err(Error::Apart { sentence, console: None })
        }
    }
}

/// Is the process that makes an image: what is wanted comes from `input`, and what happens goes to
/// `output`. `parent` is the number of the process that started this one, with which it ends.
///
/// # Errors
/// Whoever started it is not there, or is none that knows how.
pub fn serve(parent: u32, input: impl Read, mut output: impl Write) -> Result<(), Error> {
    let host = |what| move |source| Error::Host { what, source };
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| host("to end with another process")(error.into()))?;
    // Gone before it could be tied to.
    if getppid().map(|pid| pid.as_raw_nonzero().get()) != i32::try_from(parent).ok() {
        return Err(host("the process that wanted an image")(io::ErrorKind::NotFound.into()));
    }
    let wish = serde_json::from_reader(input)
        .map_err(|error| host("a wish for an image")(io::Error::other(error)))?;
    let mut teller = Teller(&mut output);
    let said = match grant(wish, &mut teller) {
        Ok(image) => {
            let id = image.directory().file_name().unwrap_or_default();
            Said::Made { id: id.to_string_lossy().into_owned() }
        }
        Err(error) => {
            let console = error.console().map(|ConsoleTail(lines)| lines.clone());
            Said::Failed { sentence: crate::process::sentence(&error), console }
        }
    };
    teller.say(&said);
    Ok(())
}

fn grant(wish: Wish, teller: &mut Teller<'_>) -> Result<Image, Error> {
    match wish {
        Wish::Build(options) => build_here(&super::open()?, &options, true, teller),
        Wish::Import { file, name, kernel, size } => {
            import_here(&file, &name, &kernel, size, true, teller)
        }
    }
}

/// Gives up everything but the store's files, and those that are read.
pub(crate) fn confine(store: &Path, reads: &[&Path], kvm: bool) {
    let process = Process::new(Kind::Builder).kvm(kvm).keeps(store);
    let process = reads.iter().fold(process, |process, path| process.reads(path));
    let confined = process.confine();
    tracing::info!(?confined, "what of its rights the process gave up");
}

/// Tells what happens, a line each.
struct Teller<'a>(&'a mut dyn Write);

impl Teller<'_> {
    fn say(&mut self, said: &Said) {
        // Nobody who hears it: this process is about to end.
        let _ = serde_json::to_writer(&mut self.0, said);
        let _ = self.0.write_all(b"\n").and_then(|()| self.0.flush());
    }
}

impl Observer for Teller<'_> {
    fn stage(&mut self, _stage: crate::Stage) {}

    fn image(&mut self, progress: &Progress) {
        self.say(&Said::Progress(progress.clone()));
    }
}
