//! Archives and compressed streams.

use std::io::Write;

/// A gzip stream.
#[must_use]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Writing to memory does not fail; a seed that is cut short would still be a seed.
    let _ = out.write_all(bytes);
    out.finish().unwrap_or_default()
}

/// An ar archive of members (name, content).
#[must_use]
pub fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, content) in members {
        let size = content.len();
        bytes.extend(
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 100_644).bytes(),
        );
        bytes.extend(*content);
        if size % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    bytes
}

/// An entry of a tar archive.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Path.
    pub name: &'a str,
    /// Type flag: `0` a file, `1` another name, `2` a symbolic link, `5` a directory, and more.
    pub kind: u8,
    /// What follows the header.
    pub content: &'a [u8],
    /// Where a link leads.
    pub target: &'a str,
}

impl<'a> Entry<'a> {
    /// A file.
    #[must_use]
    pub fn file(name: &'a str, content: &'a [u8]) -> Self {
        Self { name, kind: b'0', content, target: "" }
    }

    /// A directory.
    #[must_use]
    pub fn directory(name: &'a str) -> Self {
        Self { name, kind: b'5', content: b"", target: "" }
    }

    /// A symbolic link.
    #[must_use]
    pub fn link(name: &'a str, target: &'a str) -> Self {
        Self { name, kind: b'2', content: b"", target }
    }

    /// Another name of a file.
    #[must_use]
    pub fn hard_link(name: &'a str, target: &'a str) -> Self {
        Self { name, kind: b'1', content: b"", target }
    }
}

/// A tar archive (POSIX.1-2017, pax, "ustar interchange format").
#[must_use]
pub fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for Entry { name, kind, content, target } in entries {
        let mut header = [0u8; 512];
        let mut put = |at: usize, text: &[u8]| {
            header[at..].iter_mut().zip(text).for_each(|(slot, byte)| *slot = *byte);
        };
        put(0, name.as_bytes());
        put(100, b"0000755\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{:011o}\0", content.len()).as_bytes());
        put(136, b"00000000000\0");
        put(148, b"        ");
        put(156, &[*kind]);
        put(157, target.as_bytes());
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend(header);
        out.extend(*content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.extend([0; 1024]);
    out
}
