//! `riad net capture`: what goes over a machine's cable, in a file.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use riad_host::Size;
use riad_host::machines::{Machines, Name};
use riad_host::process::{Block, BlockKind, Capturing, Connection};

use crate::boot::spawn;
use crate::report::Failure;
use crate::signals::{Doing, Signals};

/// Bytes that end a file.
const END: u64 = 64;

/// Write down what goes over a machine's network card, for wireshark and tcpdump, until Ctrl-C
///
/// The file is pcapng. What comes faster than it can be written is left out, so that the machine does
/// not have to wait; it is said at the end how much that was, and the file says so too.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  riad net capture dev -w dev.pcapng\n  riad net capture dev -w dev.pcapng --duration 60 --size 100M\n  riad net capture dev -w - | tcpdump -nr -"
)]
pub(crate) struct CaptureArgs {
    /// The machine's name
    name: Name,

    /// The file, which is written anew if it is there; `-` is standard output
    #[arg(short, long = "write", value_name = "FILE")]
    write: PathBuf,

    /// End after so many seconds, such as 0.5
    #[arg(long, value_name = "SECONDS", value_parser = duration)]
    duration: Option<Duration>,

    /// End after so many frames
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    packets: Option<u64>,

    /// End before the file is larger than this, such as 100M
    #[arg(long)]
    size: Option<Size>,
}

fn duration(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 1e6 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("write a number of seconds, up to 1000000".to_owned()),
    }
}

pub(crate) fn capture(args: CaptureArgs) -> Result<ExitCode, Failure> {
    let CaptureArgs { name, write, duration, packets, size } = args;
    let is_stdout = write.as_os_str() == "-";
    if is_stdout && io::stdout().is_terminal() {
        let advice = "a capture is nothing for a terminal: write it to a file (-w FILE), or pipe it to \
                      a program, as in `riad net capture NAME -w - | tcpdump -nr -`";
        return Err(Failure::Own(advice.to_owned()));
    }
    let folder = Machines::open()?.get(&name)?;
    let signals = Signals::watch()?;
    let mut capturing = Connection::open(&folder)?.capture()?;
    // The machine runs: only now is what was in the file gone.
    let where_to = write.display().to_string();
    let out = match is_stdout {
        true => io::stdout().as_fd().try_clone_to_owned().map(File::from),
        false => File::create(&write),
    };
    let out = out.map_err(Failure::own(&format!("cannot write {where_to}")))?;
    let stream = Arc::new(capturing.stream().map_err(Failure::own("cannot capture"))?);
    signals.now(Doing::Capturing(Arc::clone(&stream)));
    if let Some(duration) = duration {
        let stream = Arc::clone(&stream);
        spawn("duration", move || {
            std::thread::sleep(duration);
            Capturing::stop(&stream);
        })?;
    }
    if !is_stdout {
        eprintln!("riad: capturing what goes over the network card of {name}; Ctrl-C ends it");
    }
    let mut writing = Writing {
        out: BufWriter::new(out),
        frames: 0,
        bytes: 0,
        most_frames: packets.unwrap_or(u64::MAX),
        most_bytes: size.map_or(u64::MAX, |size| size.0),
        is_full: false,
    };
    let (mut memory, mut left_out) = (Vec::new(), None);
    while let Some(block) = capturing.next(&mut memory)? {
        if let BlockKind::End { dropped } = block.kind {
            left_out = Some(dropped);
        }
        let written = writing.put(&block).and_then(|()| match capturing.has_more() {
            true => Ok(()),
            // Whoever reads along is to see it now.
            false => writing.out.flush(),
        });
        match written {
            // A reader that has seen enough is no failure.
            Err(error) if is_stdout && error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(ExitCode::SUCCESS);
            }
            written => written.map_err(Failure::own(&format!("cannot write {where_to}")))?,
        }
        if writing.is_full {
            Capturing::stop(&stream);
        }
    }
    writing.out.flush().map_err(Failure::own(&format!("cannot write {where_to}")))?;
    eprintln!("riad: {}", told(writing.frames, left_out));
    Ok(ExitCode::SUCCESS)
}

/// What became of a capture, as a sentence.
fn told(frames: u64, left_out: Option<u64>) -> String {
    let frames = match frames {
        1 => "1 frame captured".to_owned(),
        frames => format!("{frames} frames captured"),
    };
    match left_out {
        Some(0) => frames,
        Some(dropped) => {
            format!(
                "{frames}; {dropped} were left out: they came faster than they could be written"
            )
        }
        None => format!("{frames}; the machine's process ended"),
    }
}

/// A file that is being written, and how far it may grow.
struct Writing<W: Write> {
    out: BufWriter<W>,
    frames: u64,
    bytes: u64,
    most_frames: u64,
    most_bytes: u64,
    /// No more frames are wanted. What ends the file still is.
    is_full: bool,
}

impl<W: Write> Writing<W> {
    fn put(&mut self, block: &Block<'_>) -> io::Result<()> {
        let bytes = block.bytes.len() as u64;
        if block.kind == BlockKind::Frame {
            self.is_full |= self.bytes + bytes + END > self.most_bytes;
            if self.is_full {
                return Ok(());
            }
            self.frames += 1;
            self.is_full = self.frames >= self.most_frames;
        }
        self.bytes += bytes;
        self.out.write_all(block.bytes)
    }
}

#[cfg(test)]
#[path = "capture_test.rs"]
mod tests;
