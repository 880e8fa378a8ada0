//! `riad boot`: a kernel, with its serial console on the terminal.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use riad_confine::{Inherited, Kind, Process};
use riad_host::{Error, Kernel, Network, open_disk, start_error};
use riad_vmm::{Console, Disks, Ending, EngineKind, Keyboard, Vm, VmConfig, choose_engine};

use crate::args::{BootArgs, Hardware};
use crate::report::Failure;
use crate::signals::Signals;
use crate::terminal;

/// The key that begins a command to riad (Ctrl-A).
const ESCAPE: u8 = 1;

/// How often a guest that does not read is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Why the wait is over.
enum Over {
    Ended(Ending),
    Quit,
}

pub(crate) fn boot(args: BootArgs) -> Result<ExitCode, Failure> {
    let inherited = Inherited::now();
    let BootArgs { kernel, initrd, append, disk, hardware, net, no_debug_exit } = args;
    let Hardware { cpus, memory, engine, cpu, code_cache } = hardware;
    let config = VmConfig {
        cpus: cpus.unwrap_or(1),
        memory: memory.0,
        engine,
        cpu,
        code_cache: code_cache.0,
        disks: disks(&disk)?,
        cables: net.cable()?.into_iter().collect(),
        vsock: false,
        debug_exit: !no_debug_exit,
    };
    // What was typed wrong is said before files are read.
    config.check().map_err(Error::Vm)?;
    let guest = Kernel { kernel, initrd, append }.load()?;
    // For Ctrl-C where there is no raw mode, and for a raw terminal's sake.
    let signals = Signals::watch()?;
    let on_user = matches!(net, Network::User(_));
    let kvm = choose_engine(engine).is_ok_and(|engine| engine == EngineKind::Kvm);
    let mut process = Some((inherited, Process::new(Kind::Command).kvm(kvm).network(on_user)));
    // From here on nothing can be opened; what is needed is.
    signals.alone(&mut || {
        if let Some((inherited, process)) = process.take() {
            inherited.close();
            let confined = process.confine();
            tracing::info!(?confined, "what of its rights the process gave up");
        }
    });
    let console = Console::new(Some(Box::new(io::stdout())), None);
    let mut vm = Vm::start(&config, &guest, &console).map_err(start_error(&guest.kernel_name))?;

    let interactive = terminal::is_interactive();
    let raw = terminal::raw_if(interactive)?;
    let (over, wait) = sync_channel(2);
    let typist = Typist {
        keyboard: vm.keyboard(),
        console,
        escapes: interactive.then(|| (Escapes::default(), over.clone())),
    };
    spawn("keyboard", move || typist.run())?;
    if let Some(endings) = vm.take_endings() {
        spawn("endings", move || {
            if let Ok(ending) = endings.recv() {
                let _ = over.send(Over::Ended(ending));
            }
        })?;
    }
    let over = wait.recv().unwrap_or(Over::Quit);
    drop(vm);
    let _ = io::stdout().flush();
    drop(raw);
    match over {
        Over::Quit => Ok(ExitCode::SUCCESS),
        Over::Ended(ending) => status(ending),
    }
}

/// The status that riad exits with for a machine's end.
fn status(ending: Ending) -> Result<ExitCode, Failure> {
    match ending {
        Ending::PowerOff | Ending::Reset => Ok(ExitCode::SUCCESS),
        Ending::DebugExit(code) => Ok(ExitCode::from(code)),
        Ending::TripleFault { cpu } => Err(Failure::Own(format!(
            "processor {cpu} shut down: a triple fault, that is a fault while the guest handled a \
             fault while it handled a fault"
        ))),
        Ending::Failed(reason) => Err(Failure::Own(format!("the machine failed: {reason}"))),
    }
}

/// Has something done beside, in a thread of its own.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let thread = riad_confine::spawn(Kind::Command, name, body);
    thread.map(drop).map_err(Failure::own("the host refused a thread"))
}

/// `FILE` or `FILE,ro`.
fn disks(words: &[OsString]) -> Result<Disks, Error> {
    words
        .iter()
        .map(|word| {
            let (file, read_only) = match word.as_bytes().strip_suffix(b",ro") {
                Some(file) => (OsStr::from_bytes(file), true),
                None => (word.as_os_str(), false),
            };
            open_disk(Path::new(file), read_only, Box::new(terminal::notice))
        })
        .collect()
}

/// Types what comes in on standard input, as fast as the guest reads.
struct Typist {
    keyboard: Keyboard,
    console: Console,
    /// On a terminal: what is meant for riad, and whom to tell.
    escapes: Option<(Escapes, SyncSender<Over>)>,
}

impl Typist {
    fn run(mut self) {
        let mut buffer = [0; 1024];
        // The end of a pipe is not the end of the machine.
        while let Some(typed) = terminal::typed(&mut buffer) {
            let keys = match &mut self.escapes {
                None => typed.to_vec(),
                Some((escapes, over)) => match escapes.filter(typed) {
                    Some(keys) => keys,
                    None => {
                        let _ = over.send(Over::Quit);
                        return;
                    }
                },
            };
            if self.type_all(&keys).is_none() {
                return;
            }
        }
    }

    /// Types all of it; `None` when the machine is gone.
    fn type_all(&self, mut keys: &[u8]) -> Option<()> {
        while !keys.is_empty() {
            let taken = self.keyboard.type_on_console(keys)?;
            keys = keys.get(taken..).unwrap_or_default();
            if !keys.is_empty() {
                self.console.wait_for_room(ASK_AGAIN);
            }
        }
        Some(())
    }
}

/// Tells keys for riad from keys for the guest.
#[derive(Debug)]
pub(crate) struct Escapes {
    pressed: bool,
    /// The keys that end it, after Ctrl-A.
    ends: [u8; 2],
}

impl Default for Escapes {
    fn default() -> Self {
        Self::ended_by(*b"xX")
    }
}

impl Escapes {
    /// Escapes that end with one of these keys, after Ctrl-A.
    pub(crate) fn ended_by(ends: [u8; 2]) -> Self {
        Self { pressed: false, ends }
    }

    /// What of it is for the guest; `None` when that is enough.
    pub(crate) fn filter(&mut self, typed: &[u8]) -> Option<Vec<u8>> {
        let mut keys = Vec::with_capacity(typed.len());
        for &key in typed {
            match (std::mem::take(&mut self.pressed), key) {
                (false, ESCAPE) => self.pressed = true,
                (true, key) if self.ends.contains(&key) => return None,
                (true, ESCAPE) => keys.push(ESCAPE),
                (true, other) => keys.extend([ESCAPE, other]),
                (false, other) => keys.push(other),
            }
        }
        Some(keys)
    }
}

#[cfg(test)]
#[path = "boot_test.rs"]
mod tests;
