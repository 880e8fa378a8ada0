//! The initial RAM file system: the agent as `/init`, and the kernel modules it loads, as a cpio
//! archive in the "newc" format (kernel documentation, "initramfs buffer format").
//!
//! The archive is not compressed: the host writes it once, and a guest on a processor in software
//! would spend more time unpacking it than reading it.

use std::io::{self, Write};

/// The list of modules inside the archive: one path a line, in the order to load them.
pub const MODULE_LIST: &str = "etc/riad/modules";
/// Where the modules are inside the archive.
pub const MODULE_DIRECTORY: &str = "lib/modules/riad";

/// Directories that are there for the agent to mount things on.
const DIRECTORIES: [&str; 12] = [
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "newroot",
    "root",
    "etc",
    "etc/riad",
    "lib",
    "lib/modules",
    MODULE_DIRECTORY,
];

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// Writes the archive: `agent` is the program that becomes `/init`, `modules` are names and content
/// in the order to load them.
///
/// # Errors
///
/// Writing fails, or something is larger than the format can say (4 GiB).
pub fn write(mut out: impl Write, agent: &[u8], modules: &[(String, Vec<u8>)]) -> io::Result<()> {
    let mut cpio = Cpio { out: &mut out, inode: 0, at: 0 };
    for path in DIRECTORIES {
        cpio.entry(path, DIRECTORY | 0o755, (0, 0), &[])?;
    }
    // The kernel opens this for init before anything is mounted.
    cpio.entry("dev/console", CHARACTER_DEVICE | 0o600, (5, 1), &[])?;
    cpio.entry("init", REGULAR | 0o755, (0, 0), agent)?;
    let mut list = String::new();
    for (name, content) in modules {
        let path = format!("{MODULE_DIRECTORY}/{name}");
        cpio.entry(&path, REGULAR | 0o644, (0, 0), content)?;
        list.push('/');
        list.push_str(&path);
        list.push('\n');
    }
    cpio.entry(MODULE_LIST, REGULAR | 0o644, (0, 0), list.as_bytes())?;
    cpio.entry("TRAILER!!!", 0, (0, 0), &[])
}

struct Cpio<W> {
    out: W,
    inode: u32,
    /// Bytes written.
    at: usize,
}

impl<W: Write> Cpio<W> {
    fn entry(
        &mut self,
        path: &str,
        mode: u32,
        device: (u32, u32),
        content: &[u8],
    ) -> io::Result<()> {
        let size = u32::try_from(content.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.inode += 1;
        let links = if mode & DIRECTORY != 0 { 2 } else { 1 };
        let (major, minor) = device;
        let name_size = u32::try_from(path.len() + 1).map_err(|_| io::ErrorKind::InvalidInput)?;
        // Inode, mode, uid, gid, links, mtime, size, device of the file (2), device it is (2), size
        // of the name, checksum (none in this format).
        let fields = [self.inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.put(header.as_bytes())?;
        self.put(path.as_bytes())?;
        self.put(&[0])?;
        self.pad()?;
        self.put(content)?;
        self.pad()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len();
        self.out.write_all(bytes)
    }

    /// Names and contents end at multiples of four bytes.
    fn pad(&mut self) -> io::Result<()> {
        let pad = self.at.wrapping_neg() % 4;
        self.put(&[0; 3][..pad])
    }
}

#[cfg(test)]
#[path = "initramfs_test.rs"]
mod tests;
