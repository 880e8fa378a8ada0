//! `riad logs`: what a machine wrote to its console.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use riad_host::machines::{Folder, Machines};
use riad_host::printable;

use crate::args::LogsArgs;
use crate::report::Failure;

/// How often a file that may have become longer is looked at.
const AGAIN: Duration = Duration::from_millis(100);

pub(crate) fn logs(args: LogsArgs) -> Result<ExitCode, Failure> {
    let LogsArgs { name, follow, process, provision } = args;
    let folder = Machines::open()?.get(&name)?;
    let [console, _] = folder.console_logs();
    let (path, nothing) = match (process, provision) {
        (true, _) => (folder.process_log(), "has not said anything yet: `riad start"),
        (_, true) => (folder.provision_log(), "has run no scripts yet: `riad provision"),
        _ => (console, "has not said anything yet: `riad start"),
    };
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::Own(format!("machine '{name}' {nothing} {name}` starts it")));
        }
        Err(error) => return Err(Failure::own("cannot read the log")(error)),
    };
    let mut shown = Shown::new();
    loop {
        let is_alive = follow && folder.is_alive()?;
        let failed = || Failure::own("cannot read the log");
        let mut is_open = pass_on(&mut file, &mut shown).map_err(failed())?;
        // The file is begun anew when it has become long.
        if is_open && follow && is_another(&folder, &file).map_err(failed())? {
            is_open = pass_on(&mut file, &mut shown).map_err(failed())?;
            file = File::open(&path).map_err(failed())?;
            if is_open {
                continue;
            }
        }
        if !is_alive || !is_open {
            return Ok(ExitCode::SUCCESS);
        }
        thread::sleep(AGAIN);
    }
}

fn is_another(folder: &Folder, file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let [console, _] = folder.console_logs();
    Ok(std::fs::metadata(console)?.ino() != file.metadata()?.ino())
}

/// Shows what is left of the file. Returns whether anybody still looks.
pub(crate) fn pass_on(file: &mut File, shown: &mut Shown) -> io::Result<bool> {
    let mut buffer = [0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(true),
            count if !shown.write(buffer.get(..count).unwrap_or_default()) => return Ok(false),
            _ => {}
        }
    }
}

/// Standard output; on a terminal, without what it would obey.
pub(crate) struct Shown {
    is_terminal: bool,
    line: Vec<u8>,
}

impl Shown {
    pub(crate) fn new() -> Self {
        Self { is_terminal: io::stdout().is_terminal(), line: Vec::new() }
    }

    fn write(&mut self, bytes: &[u8]) -> bool {
        let mut stdout = io::stdout();
        if !self.is_terminal {
            return stdout.write_all(bytes).and_then(|()| stdout.flush()).is_ok();
        }
        self.line.extend_from_slice(bytes);
        let Some(end) = self.line.iter().rposition(|byte| *byte == b'\n') else { return true };
        let rest = self.line.split_off(end + 1);
        let whole = std::mem::replace(&mut self.line, rest);
        let text = String::from_utf8_lossy(&whole);
        text.lines().all(|line| writeln!(stdout, "{}", printable(line)).is_ok())
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            let line = printable(&String::from_utf8_lossy(&self.line));
            let _ = writeln!(io::stdout(), "{line}");
        }
    }
}
