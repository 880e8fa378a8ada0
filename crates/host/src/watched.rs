//! A disk that somebody watches: all is passed on to the disk behind it, and told.

use std::sync::Arc;

use riad_disk::{Disk, Error, Sink, Source};

/// What is told of a disk.
pub(crate) trait Watch: Send + Sync {
    /// It is about to be read.
    fn reads(&self) {}

    /// It was written to, flushed, or had a range discarded or zeroed, and this came of it.
    fn changed(&self, _result: &Result<(), Error>) {}
}

/// A disk that is watched.
pub(crate) struct Watched<W> {
    disk: Arc<dyn Disk>,
    watch: W,
}

impl<W: Watch> Watched<W> {
    pub(crate) fn by(watch: W, disk: Arc<dyn Disk>) -> Self {
        Self { disk, watch }
    }

    fn told(&self, result: Result<(), Error>) -> Result<(), Error> {
        self.watch.changed(&result);
        result
    }
}

impl<W> std::fmt::Debug for Watched<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.disk.fmt(f)
    }
}

impl<W: Watch> Disk for Watched<W> {
    fn name(&self) -> &str {
        self.disk.name()
    }

    fn label(&self) -> Option<&str> {
        self.disk.label()
    }

    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read_only(&self) -> bool {
        self.disk.read_only()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        self.watch.reads();
        self.disk.read(offset, buf)
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), Error> {
        self.told(self.disk.write(offset, buf))
    }

    fn read_to(&self, offset: u64, len: u64, to: &mut dyn Sink) -> Result<(), Error> {
        self.watch.reads();
        self.disk.read_to(offset, len, to)
    }

    fn write_from(&self, offset: u64, len: u64, from: &mut dyn Source) -> Result<(), Error> {
        self.told(self.disk.write_from(offset, len, from))
    }

    fn flush(&self) -> Result<(), Error> {
        self.told(self.disk.flush())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.told(self.disk.discard(offset, len))
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.told(self.disk.write_zeroes(offset, len))
    }

    fn waits_for_room(&self) -> bool {
        self.disk.waits_for_room()
    }
}
