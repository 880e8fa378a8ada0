//! The files that a machine starts with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use riad_disk::{Disk, RawDisk};
use riad_vmm::Guest;

use crate::room::{self, Room};
use crate::{Error, Notice};

/// A kernel, what it is started with, and nothing else: what `riad boot` boots.
#[derive(Debug, Clone, Default)]
pub struct Kernel {
    /// The kernel's file.
    pub kernel: PathBuf,
    /// Initial RAM disks, or Multiboot modules, in order.
    pub initrd: Vec<PathBuf>,
    /// Its command line.
    pub append: String,
}

impl Kernel {
    /// Reads the files.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn load(&self) -> Result<Guest, Error> {
        let mut modules = Vec::new();
        for path in &self.initrd {
            modules.push((path.display().to_string(), read("initial RAM disk", path)?));
        }
        Ok(Guest {
            kernel_name: self.kernel.display().to_string(),
            kernel: read("kernel", &self.kernel)?,
            cmdline: self.append.clone(),
            modules,
        })
    }
}

/// A disk in a file or block device of the host. `notice` hears when there is no room there for what
/// the guest writes, and when there is again.
///
/// # Errors
/// [`Error::Disk`].
pub fn open_disk(path: &Path, read_only: bool, notice: Notice) -> Result<Arc<dyn Disk>, Error> {
    let disk = Arc::new(RawDisk::open(path, read_only)?);
    Ok(Arc::new(Room::new(disk, Box::new(move |why| notice(&room::sentence(why))))))
}

/// What the monitor refused, with the kernel named where it is the kernel's fault.
pub fn start_error(kernel: &str) -> impl FnOnce(riad_vmm::Error) -> Error {
    Error::vm(kernel)
}

/// Reads a file that is called `what` in front of the user.
pub(crate) fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::File { what, path: path.to_owned(), source })
}
