//! One of the caller's output descriptors, written without ever waiting for it.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::FileType;
use rustix::io::Errno;

/// What `poll(2)` promises of a pipe that is ready: this many bytes do not block (`PIPE_BUF`).
const SURE_WRITE: usize = 4096;

/// One of the caller's output descriptors.
///
/// The descriptor is the caller's, maybe shared with its shell, so it is not made non-blocking:
/// it is polled, and given only what it then takes without blocking.
#[derive(Debug)]
pub(super) struct Output<'a> {
    fd: BorrowedFd<'a>,
    pending: Vec<u8>,
    written: usize,
    open: bool,
    most: usize,
}

impl<'a> Output<'a> {
    pub(super) fn new(fd: BorrowedFd<'a>) -> Self {
        let is_file = rustix::fs::fstat(fd)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        let most = if is_file { usize::MAX } else { SURE_WRITE };
        Self { fd, pending: Vec::new(), written: 0, open: true, most }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'a> {
        self.fd
    }

    /// Nothing waits to be written: the next data may be [`put`](Self::put).
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes `data` to write. Dropped if the reader is gone.
    pub(super) fn put(&mut self, data: &[u8]) {
        if self.open {
            self.pending.extend_from_slice(data);
        }
    }

    /// Writes some; to be called when the descriptor is ready. Gives whether its reader is still
    /// there; `false` is said once.
    pub(super) fn write(&mut self) -> io::Result<bool> {
        let rest = self.pending.get(self.written..).unwrap_or_default();
        let chunk = rest.get(..rest.len().min(self.most)).unwrap_or_default();
        match rustix::io::write(self.fd, chunk) {
            Ok(count) => {
                self.written += count;
                if self.written >= self.pending.len() {
                    self.clear();
                }
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(true),
            Err(Errno::PIPE | Errno::CONNRESET) => {
                self.open = false;
                self.clear();
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn clear(&mut self) {
        self.pending.clear();
        self.written = 0;
    }
}
