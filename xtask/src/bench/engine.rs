//! What runs the yardstick, and how one run of it is watched.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::guest::Guest;
use super::qemu::Qemu;
use super::report::{Load, Measured, Reader};
use crate::Error;

/// The command line of a run that is measured.
pub(super) const QUIET: &str = "console=ttyS0 panic=-1 quiet mitigations=off";
/// The command line of a kernel that nobody has tuned: it says all it has to say.
const UNTUNED: &str = "console=ttyS0 panic=-1";
/// How long a guest may take to reset once it has said its last line.
const GOODBYE: Duration = Duration::from_secs(10);

/// Something that runs the yardstick.
#[derive(Debug)]
pub(super) enum Engine {
    /// The host's processor, without a guest.
    Native,
    /// QEMU's TCG.
    Tcg(Qemu),
    /// Riad: the program, and what `--engine` it gets.
    Riad(PathBuf, String),
}

impl Engine {
    /// The column's head.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Tcg(_) => "tcg",
            Self::Riad(..) => "riad",
        }
    }

    /// Whether a load means anything to it: the host's own kernel has started long ago.
    pub(super) fn takes(&self, load: Load) -> bool {
        !matches!(
            (self, load),
            (Self::Native, Load::Start | Load::Login | Load::Disk | Load::Network)
        )
    }

    /// Runs a load once.
    pub(super) fn run(
        &self,
        load: Load,
        guest: &Guest,
        patience: Duration,
    ) -> Result<Measured, Error> {
        let disks = match (self, load) {
            (Self::Native, _) | (_, Load::Start | Load::Kernels) => Vec::new(),
            (_, Load::Programs | Load::Login) => vec![guest.disk()?],
            (_, Load::Disk) => vec![guest.disk()?, guest.data()?],
            (_, Load::Network) => return Err("networks are measured apart".into()),
        };
        let (initrd, append) = match load {
            Load::Start => (&guest.start, UNTUNED),
            Load::Kernels => (&guest.kernels, QUIET),
            Load::Programs => (&guest.programs, QUIET),
            Load::Login => (&guest.login, QUIET),
            Load::Disk => (&guest.disk, QUIET),
            Load::Network => (&guest.network, QUIET),
        };
        let command = match self {
            Self::Native => match load {
                Load::Start | Load::Login | Load::Disk | Load::Network => {
                    return Err("the host's own system is not measured".into());
                }
                Load::Kernels => Command::new(&guest.program),
                Load::Programs => in_tree(&guest.tree()?),
            },
            Self::Tcg(qemu) => tcg(qemu, &guest.kernel, initrd, append, &disks),
            Self::Riad(program, engine) => {
                let mut command = Command::new(program);
                command.args(["boot", "--cpus", "1", "--memory", "2G", "--engine", engine]);
                command.arg("--kernel").arg(&guest.kernel).arg("--initrd").arg(initrd);
                command.args(["--append", append]);
                for disk in &disks {
                    command.arg("--disk").arg(disk);
                }
                command
            }
        };
        watch(command, load, patience)
    }
}

fn tcg(qemu: &Qemu, kernel: &Path, initrd: &Path, append: &str, disks: &[PathBuf]) -> Command {
    let mut command = qemu.command();
    command.args("-M q35 -accel tcg,thread=multi -cpu max -m 2048 -smp 1 -nodefaults".split(' '));
    command.args("-serial stdio -display none -no-reboot".split(' '));
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd).args(["-append", append]);
    for (id, disk) in disks.iter().enumerate() {
        command.arg("-drive").arg(format!("file={},if=none,id=d{id},format=raw", disk.display()));
        command.arg("-device").arg(format!("virtio-blk-pci,drive=d{id}"));
    }
    command
}

/// The programs on the host, in namespaces of their own: what they mount and start is gone with
/// them. A user who is not root becomes it in there.
fn in_tree(tree: &Path) -> Command {
    let mut command = Command::new("unshare");
    // Not asked of the process but of what it may do: only root may write here.
    if !rooted() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c"]);
    command.arg(r#"mount --rbind /dev "$1/dev" && exec chroot "$1" /bin/sh /bench"#);
    command.arg("sh").arg(tree);
    command.env_clear().env("HOME", "/").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// Whether this user is root.
fn rooted() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Runs a command to the load's last line, reading what it says.
pub(super) fn watch(
    mut command: Command,
    load: Load,
    patience: Duration,
) -> Result<Measured, Error> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = Instant::now();
    let mut reader = Reader::new(load);
    let mut child = command
        .spawn()
        .map_err(|error| format!("{} cannot be run: {error}", command.get_program().display()))?;
    let (said, hears) = channel();
    let stdout = child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn std::io::Read + Send>);
    let stderr = child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn std::io::Read + Send>);
    let speakers: Vec<_> = [stdout, stderr]
        .into_iter()
        .flatten()
        .map(|pipe| {
            let said = said.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                    if said.send((line, Instant::now())).is_err() {
                        break;
                    }
                }
            })
        })
        .collect();
    drop(said);
    let mut until = start + patience;
    let mut late = false;
    loop {
        match hears.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok((line, at)) => {
                if reader.line(&line, at) {
                    until = until.min(at + GOODBYE);
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                late = !reader.is_over();
                break;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    // One that has ended already cannot be killed, which is fine.
    let _ = child.kill();
    let status = child.wait()?;
    drop(hears);
    for speaker in speakers {
        let _ = speaker.join();
    }
    let why = if late {
        format!("it was given {} s", patience.as_secs())
    } else {
        format!("it ended early ({status})")
    };
    Ok(reader.finish(&why))
}
