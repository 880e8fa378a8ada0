//! Bytes between files and RAM, without a stop in between: what a disk reads lands where the guest wants
//! it, and what it writes leaves from where the guest has it.

use std::io;
use std::os::fd::BorrowedFd;

use crate::{Error, Gpa, GuestMemory, sys};

/// Runs in one call: what Linux takes (`IOV_MAX`, readv(2)).
const MOST_RUNS: usize = 1024;

/// How long a transfer may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until the bytes are there.
    AsLongAsItTakes,
    /// Not for the host's disk: what is not in the host's memory fails with
    /// [`WouldBlock`](io::ErrorKind::WouldBlock).
    NotAtAll,
}

impl GuestMemory {
    /// Fills runs of RAM (addresses and lengths), in their order, with what is in a file from an offset.
    /// With [`Wait::NotAtAll`], a host whose file system cannot tell counts as one that would wait; some
    /// of the runs may be filled when it fails.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] when a run is not RAM, [`io::ErrorKind::UnexpectedEof`] when the
    /// file is too short, the host's reason otherwise.
    pub fn read_from_file(
        &self,
        runs: &[(Gpa, usize)],
        file: BorrowedFd<'_>,
        at: u64,
        wait: Wait,
    ) -> io::Result<()> {
        let read = self.whole(runs, at, |parts, at| {
            match sys::read_file(file, parts, at, wait == Wait::NotAtAll)? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                count => Ok(count),
            }
        });
        // Also when not all was read: nobody knows which.
        for (at, len) in runs {
            if let Ok((_, offset)) = self.host(*at, *len) {
                self.note_range(offset, *len);
            }
        }
        read
    }

    /// Writes runs of RAM, in their order, to a file from an offset on.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] when a run is not RAM, the host's reason otherwise.
    pub fn write_to_file(
        &self,
        runs: &[(Gpa, usize)],
        file: BorrowedFd<'_>,
        at: u64,
    ) -> io::Result<()> {
        self.whole(runs, at, |parts, at| match sys::write_file(file, parts, at)? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            count => Ok(count),
        })
    }

    /// Does all of a transfer, however little the host does at a time.
    fn whole(
        &self,
        runs: &[(Gpa, usize)],
        mut at: u64,
        mut some: impl FnMut(&[sys::Part], u64) -> io::Result<usize>,
    ) -> io::Result<()> {
        let part = |(at, len): &(Gpa, usize)| {
            self.host(*at, *len).map(|(host, _)| sys::Part::new(host, *len))
        };
        let parts: Result<Vec<_>, _> = runs.iter().filter(|(_, len)| *len > 0).map(part).collect();
        let mut parts = parts.map_err(bad)?;
        // How many of them are done.
        let mut done = 0;
        while done < parts.len() {
            let next = parts.get(done..parts.len().min(done + MOST_RUNS)).unwrap_or_default();
            let mut count = match some(next, at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                count => count?,
            };
            at += count as u64;
            while let Some(part) = parts.get_mut(done) {
                if count < part.len() {
                    part.skip(count);
                    break;
                }
                count -= part.len();
                done += 1;
            }
        }
        Ok(())
    }
}

fn bad(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

#[cfg(test)]
#[path = "transfer_test.rs"]
mod tests;
