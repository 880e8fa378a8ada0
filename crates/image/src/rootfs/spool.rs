//! A temporary file that holds the content of a tree's files one after the other.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Content;

/// The content of files.
#[derive(Debug)]
pub struct Spool {
    file: File,
    len: u64,
}

impl Spool {
    /// An empty spool in a nameless file of `directory`'s file system.
    ///
    /// # Errors
    ///
    /// The file cannot be made.
    pub fn new(directory: &Path) -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile_in(directory)?, len: 0 })
    }

    /// Keeps what a reader gives, handing each piece to `each`.
    ///
    /// # Errors
    ///
    /// Reading or writing fails.
    pub fn add(
        &mut self,
        mut reader: impl Read,
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<Content> {
        let offset = self.len;
        self.file.seek(SeekFrom::Start(offset))?;
        let mut buffer = [0; 64 << 10];
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.file.write_all(&buffer[..n])?;
            each(&buffer[..n]);
            self.len += n as u64;
        }
        Ok(Content::Spooled { offset, len: self.len - offset })
    }

    /// A reader of some content of this spool's.
    #[must_use]
    pub fn reader<'a>(&'a self, content: &'a Content) -> Box<dyn Read + 'a> {
        match content {
            Content::Bytes(bytes) => Box::new(bytes.as_slice()),
            Content::Spooled { offset, len } => {
                Box::new(Slice { file: &self.file, at: *offset, left: *len })
            }
        }
    }

    /// Some content of this spool's.
    ///
    /// # Errors
    ///
    /// Reading fails.
    pub fn read(&self, content: &Content) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader(content).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// A part of the spool's file.
struct Slice<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Slice<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.file.read_at(&mut buffer[..wanted], self.at)?;
        if n == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}
