//! The second stage of an image: its packages' own scripts, run in a machine of ours.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use riad_agent::client::{ControlEvent, ExitStatus, SessionIo, control};
use riad_agent::protocol::ExecRequest;
use riad_disk::RawDisk;
use riad_image::rootfs::parse_progress_line;
use riad_image::{Configure, Progress, Stage as BuildStage};
use riad_vmm::{EngineKind, Guest, VmConfig};

use crate::boot::Booted;
use crate::images::confine;
use crate::kernel::read;
use crate::limits::Limits;
use crate::observed::Unflushed;
use crate::{Error, cmdline, engine, host_cpus, printable};

/// Processors for it. Scripts run one after another, and the second processor takes what runs
/// beside them.
const CPUS: u32 = 2;
/// Memory for it, bytes: enough that the file system's cache holds all of the packages.
const MEMORY: u64 = 1 << 30;
/// Lines that an error carries.
const LINES: usize = 30;
/// Bytes of a line that are read.
const LINE: u64 = 4096;

/// Boots machines for images that are being built.
#[derive(Debug)]
pub(crate) struct Configurer {
    engine: EngineKind,
    /// Whether this process makes the image and does nothing else.
    apart: bool,
}

impl Configurer {
    pub(crate) fn new(engine: EngineKind, apart: bool) -> Self {
        Self { engine, apart }
    }
}

impl Configure for Configurer {
    fn fetched(&mut self, store: &Path, packages: &Path) {
        if !self.apart {
            return;
        }
        // What measures and looks around does so while it can.
        self.engine = engine::choose(self.engine).unwrap_or(self.engine);
        confine(store, &[packages], self.engine == EngineKind::Kvm);
    }

    fn configure(
        &mut self,
        rootfs_image: &Path,
        kernel: &Path,
        initramfs: &Path,
        script: &str,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let engine = engine::choose(self.engine)?;
        let limits = Limits::new(engine);
        let guest = Guest {
            kernel_name: kernel.display().to_string(),
            kernel: read("kernel", kernel)?,
            cmdline: cmdline::agent_machine(limits.scale(), true, "/dev/vda", None),
            modules: vec![(String::new(), read("initial RAM disk", initramfs)?)],
        };
        let disk = RawDisk::open(rootfs_image, false).map_err(Error::Disk)?;
        let config = VmConfig {
            cpus: host_cpus().min(CPUS).min(engine.most_cpus()),
            memory: MEMORY,
            engine,
            disks: vec![Arc::new(Unflushed(disk))],
            ..VmConfig::default()
        };
        let mut booted = Booted::boot(config, &guest, None, limits, &mut |stage| {
            let text = format!("starting a virtual machine ({stage})");
            progress(Progress::step(BuildStage::Configure, 0, 0, text));
        })?;
        run_script(&mut booted, script, progress)?;
        progress(Progress::step(BuildStage::Configure, 0, 0, "writing the file system"));
        booted.power_off()?;
        Ok(())
    }
}

/// Runs the script in the guest and tells its progress.
fn run_script(
    booted: &mut Booted,
    script: &str,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), Error> {
    let host = |source| Error::Host { what: "a pipe", source };
    let (reader, writer) = std::io::pipe().map_err(host)?;
    let (sender, receiver) = control().map_err(host)?;
    let request = ExecRequest::new(["/bin/sh", script]);
    let silence = booted.limits().silence();
    // Room for a few lines: whoever prints waits for whoever shows.
    let (line_sender, lines) = sync_channel(64);
    let (result, heard) = std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut reader = BufReader::new(reader);
            while let Some(line) = read_line(&mut reader) {
                if line_sender.send(line).is_err() {
                    break;
                }
            }
        });
        let abort = sender.clone();
        let session = scope.spawn(move || {
            // Both streams into one pipe: the order of the lines tells more than the stream.
            let io = SessionIo { stdin: None, stdout: writer.as_fd(), stderr: writer.as_fd() };
            let result = booted.session(&request, io, (&sender, &receiver));
            drop(writer);
            result
        });
        let heard = hear(&lines, silence, progress);
        if heard.is_silent {
            let _ = abort.send(ControlEvent::Abort);
            // What the pipe still holds must not keep the session from ending.
            while lines.recv().is_ok() {}
        }
        (session.join(), heard)
    });
    let Heard { last, is_silent } = heard;
    let lines: Vec<String> = last.into();
    if is_silent {
        let reason = format!("the packages' scripts were silent for {} seconds", silence.as_secs());
        return Err(Error::SecondStage { reason, lines });
    }
    match result {
        Ok(Ok(end)) if end.status == ExitStatus::Exited(0) => Ok(()),
        Ok(Ok(end)) => {
            let reason = match end.status {
                ExitStatus::Exited(code) => {
                    format!("the packages' scripts ended with status {code}")
                }
                ExitStatus::Signaled(signo) => {
                    format!("signal {signo} ended the packages' scripts")
                }
            };
            Err(Error::SecondStage { reason, lines })
        }
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let reason = "the thread that talks to the guest failed".to_owned();
            Err(Error::SecondStage { reason, lines })
        }
    }
}

/// What was heard of the script.
struct Heard {
    /// Its last lines, but those that tell progress.
    last: VecDeque<String>,
    /// It stopped talking, and has not ended.
    is_silent: bool,
}

/// Hands progress lines on, and keeps the last of the others.
fn hear(lines: &Receiver<String>, silence: Duration, progress: &mut dyn FnMut(Progress)) -> Heard {
    let mut last = VecDeque::with_capacity(LINES);
    loop {
        match lines.recv_timeout(silence) {
            Ok(line) => match parse_progress_line(&line) {
                Some((done, total, text)) => {
                    let text = printable(text);
                    progress(Progress::step(BuildStage::Configure, done, total, text));
                }
                None => {
                    if last.len() == LINES {
                        last.pop_front();
                    }
                    last.push_back(printable(&line));
                }
            },
            Err(RecvTimeoutError::Disconnected) => return Heard { last, is_silent: false },
            Err(RecvTimeoutError::Timeout) => return Heard { last, is_silent: true },
        }
    }
}

/// The next line; a long one is cut into several. `None` at the end.
fn read_line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    match reader.by_ref().take(LINE).read_until(b'\n', &mut line) {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned()),
    }
}

#[cfg(test)]
#[path = "configure_test.rs"]
mod tests;
