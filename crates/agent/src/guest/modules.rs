//! Loading the kernel modules that the machine's devices need.

use std::ffi::CString;
use std::fs::File;
use std::io;
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

/// The last of those that a machine cannot do without, if its kernel has it as a module: behind it are
/// drivers for what can come a moment later. (`riad-image` has the order.)
const LAST_NEEDED: &str = "vmw_vsock_virtio_transport";

/// A module that can be loaded, whatever becomes of the root that its file is on.
#[derive(Debug)]
pub(crate) struct Module {
    line: ModuleLine,
    file: io::Result<File>,
}

/// Opens what is on the list, if there is one: what is needed first, and what can come later.
pub(crate) fn open_all() -> (Vec<Module>, Vec<Module>) {
    let mut needed = parse(&std::fs::read_to_string(LIST).unwrap_or_default());
    let later = needed.split_off(needed_first(&needed));
    let open = |line: ModuleLine| Module { file: File::open(&line.path), line };
    (needed.into_iter().map(open).collect(), later.into_iter().map(open).collect())
}

/// How many of them come first.
fn needed_first(lines: &[ModuleLine]) -> usize {
    let is_last = |line: &ModuleLine| {
        let name = line.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = name.split('.').next().unwrap_or_default().replace('-', "_");
        name.ends_with(LAST_NEEDED)
    };
    lines.iter().position(is_last).map_or(lines.len(), |at| at + 1)
}

/// Loads modules. One that does not load is told and skipped: the machine may do without it, and if
/// not, what fails later names the device.
pub(crate) fn load_all(modules: &[Module], journal: &Journal) {
    for module in modules {
        if let Err(error) = load(module) {
            let path = module.line.path.display();
            journal.say(Level::Error, &format!("module {path} cannot be loaded: {error}"));
        }
    }
}

/// Removes the modules' files: where the root is in memory, that is memory won.
pub(crate) fn remove_files(modules: &[Module]) {
    for module in modules {
        let _ = std::fs::remove_file(&module.line.path);
    }
}

fn load(module: &Module) -> Result<(), String> {
    let Module { line, file } = module;
    let file = file.as_ref().map_err(|error| error.to_string())?;
    let parameters = CString::new(line.parameters.as_str()).map_err(|error| error.to_string())?;
    let compressed = line.path.extension().is_some_and(|extension| extension != "ko");
    match finit_module(file, &parameters, if compressed { COMPRESSED_FILE } else { 0 }) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        // The kernel's log names the symbol.
        Err(Errno::NOENT) => Err("it needs a module that is not listed before it".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
#[path = "modules_test.rs"]
mod tests;
