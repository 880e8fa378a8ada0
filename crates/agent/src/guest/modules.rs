//! Loading the kernel modules that the machine's devices need.

use std::ffi::CString;
use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::system::finit_module;

use super::journal::{Journal, Level};

/// The list in the initramfs: a path a line, in the order to load them, then parameters if any.
/// Empty lines and lines that begin with `#` are skipped.
pub(crate) const LIST: &str = "/etc/riad/modules";

/// `MODULE_INIT_COMPRESSED_FILE` of `finit_module(2)`: the kernel decompresses the file.
const COMPRESSED_FILE: i32 = 4;

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModuleLine {
    pub(crate) path: PathBuf,
    pub(crate) parameters: String,
}

/// Reads the list.
pub(crate) fn parse(list: &str) -> Vec<ModuleLine> {
    list.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (path, parameters) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let path = Path::new("/").join(path);
            ModuleLine { path, parameters: parameters.trim().to_owned() }
        })
        .collect()
}

/// Loads what is on the list, if there is one. A module that does not load is told and skipped: the
/// machine may do without it, and if not, what fails later names the device.
pub(crate) fn load_all(journal: &Journal) -> Vec<PathBuf> {
    let lines = parse(&std::fs::read_to_string(LIST).unwrap_or_default());
    for line in &lines {
        match load(line) {
            Ok(()) => {}
            Err(error) => {
                let path = line.path.display();
                journal.say(Level::Error, &format!("module {path} cannot be loaded: {error}"));
            }
        }
    }
    lines.into_iter().map(|line| line.path).collect()
}

fn load(line: &ModuleLine) -> Result<(), String> {
    let file = File::open(&line.path).map_err(|error| error.to_string())?;
    let parameters = CString::new(line.parameters.as_str()).map_err(|error| error.to_string())?;
    let compressed = line.path.extension().is_some_and(|extension| extension != "ko");
    match finit_module(&file, &parameters, if compressed { COMPRESSED_FILE } else { 0 }) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        // The kernel's log names the symbol.
        Err(Errno::NOENT) => Err("it needs a module that is not listed before it".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
#[path = "modules_test.rs"]
mod tests;
