//! A boot archive in the "newc" format of cpio (kernel documentation, "initramfs buffer format").

/// What becomes the guest's first root.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

impl Archive {
    /// An archive with what the kernel wants before `/init` runs, and `init` as that.
    pub(super) fn new(init: &[u8]) -> Self {
        let mut archive = Self::default();
        archive.directory("dev");
        archive.directory("proc");
        archive.entry("dev/console", CHARACTER_DEVICE, (5, 1), &[]);
        archive.file("init", init);
        archive
    }

    /// Adds a directory; its parent comes first.
    pub(super) fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY, (0, 0), &[]);
    }

    /// Adds a file that anybody may execute.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, PROGRAM, (0, 0), content);
    }

    /// The archive's bytes.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        self.entries += 1;
        let size = content.len() as u32;
        let name_size = path.len() as u32 + 1;
        // Inode, mode, uid, gid, links, mtime, size, device of the file (2), device it is (2), size
        // of the name, checksum (none in this format).
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    /// Names and contents end at multiples of four bytes.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
