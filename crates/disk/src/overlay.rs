//! A disk whose writes are kept apart: the base stays as it is, however long the machine runs.
//!
//! What is written goes to a sparse file, the delta, at the offset it has on the disk. A bitmap
//! says which clusters are there; all others are the base's. The delta has no name, so that nothing
//! is left behind when the process ends in whatever way.
//!
//! A cluster's bit is set after its content is in the delta, and never cleared: an access that
//! fails, for want of space say, leaves the disk as it was or partly written, never with lost
//! content.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use serde::{Deserialize, Serialize};

use crate::{Disk, Error, Sink, Source, check_range, check_write, host_length, length, raw, sys};

mod bitmap;
pub(crate) use bitmap::{Bitmap, PAGE_BITS, PAGE_BYTES};

/// Bytes in a cluster, the unit in which the overlay remembers. The bitmap of a disk of 1 TiB takes
/// 32 MiB of memory.
pub const CLUSTER_SIZE: u64 = 4096;
const CLUSTER: usize = CLUSTER_SIZE as usize;

/// The saved state of [`Overlay`], which belongs to the file with its delta.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayState {
    /// Size of the disk in bytes.
    pub size: u64,
    /// Bytes in a cluster.
    pub cluster_size: u64,
    /// The clusters that are in the delta, in ascending order.
    pub written: Vec<Range<u64>>,
}

/// A base, and what was written since.
pub struct Overlay {
    base: Arc<dyn Disk>,
    name: String,
    delta: File,
    /// Where the disk begins in the delta, in bytes.
    origin: u64,
    /// Size of the disk in bytes, which only grows. What is past the base's end reads as zeros until
    /// it is written.
    size: AtomicU64,
    /// Held for reading by accesses that leave it as it is, and for writing by those that bring
    /// clusters into the delta, over their whole length: what they copy must not change meanwhile.
    map: RwLock<Bitmap>,
}

impl Overlay {
    /// An overlay with nothing written. The delta is an unnamed file in `dir`, which needs room for
    /// what the guest writes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn new(base: Arc<dyn Disk>, dir: &Path) -> Result<Self, Error> {
        let name = format!("{} (overlay in {})", base.name(), dir.display());
        let delta =
            tempfile::tempfile_in(dir).map_err(|source| Error::io("create", &name, source))?;
        let map = Bitmap::new(base.size().div_ceil(CLUSTER_SIZE))
            .map_err(|source| Error::io("map", &name, source))?;
        let size = base.size();
        Self::build(base, name, delta, map, 0, size)
    }

    /// The overlay of a saved state. `delta` is the file that [`save`](Self::save) filled, or a
    /// copy of it, and is written to from now on.
    ///
    /// # Errors
    /// [`Error::BadState`] when the state is not of this base; [`Error::Io`].
    pub fn restore(base: Arc<dyn Disk>, delta: File, state: &OverlayState) -> Result<Self, Error> {
        let OverlayState { size, cluster_size, written } = state;
        let bad = |reason| Error::BadState { name: base.name().to_owned(), reason };
        if *size != base.size() {
            return Err(bad(format!("it is {size} bytes long and the disk {}", base.size())));
        }
        if *cluster_size != CLUSTER_SIZE {
            return Err(bad(format!("its clusters have {cluster_size} bytes, not {CLUSTER_SIZE}")));
        }
        let name = format!("{} (restored overlay)", base.name());
        let mut map = Bitmap::new(size.div_ceil(CLUSTER_SIZE))
            .map_err(|source| Error::io("map", &name, source))?;
        for range in written {
            if range.start > range.end || range.end > map.len() {
                return Err(bad(format!("it has no clusters {} to {}", range.start, range.end)));
            }
            map.set(range.clone());
        }
        Self::build(base, name, delta, map, 0, *size)
    }

    /// An overlay of `size` bytes, which begins at `origin` of the delta. What `map` has is there.
    pub(crate) fn build(
        base: Arc<dyn Disk>,
        name: String,
        delta: File,
        map: Bitmap,
        origin: u64,
        size: u64,
    ) -> Result<Self, Error> {
        delta.set_len(origin + size).map_err(|source| Error::io("resize", &name, source))?;
        let size = AtomicU64::new(size);
        Ok(Self { base, name, delta, origin, size, map: RwLock::new(map) })
    }

    /// Makes the disk larger, while it is in use. What is new reads as zeros.
    pub(crate) fn grow(&self, size: u64) -> Result<(), Error> {
        let mut map = self.map();
        if size <= self.size() {
            return Ok(());
        }
        self.delta.set_len(self.origin + size).map_err(self.error("grow"))?;
        map.extend(size.div_ceil(CLUSTER_SIZE)).map_err(self.error("grow"))?;
        // Nobody reaches what the map does not have yet.
        self.size.store(size, Ordering::Release);
        Ok(())
    }

    /// Which clusters are in the delta, for whoever makes that durable. Nothing is written
    /// meanwhile.
    pub(crate) fn map(&self) -> RwLockWriteGuard<'_, Bitmap> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies what was written into `delta`, an empty file, and returns the state that goes with
    /// it. Long runs of zeros become holes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, delta: &File) -> Result<OverlayState, Error> {
        let Self { base: _, name: _, delta: from, origin, size, map } = self;
        let map = map.read().unwrap_or_else(PoisonError::into_inner);
        let size = size.load(Ordering::Acquire);
        delta.set_len(size).map_err(self.error("save"))?;
        let written: Vec<Range<u64>> = map.runs(0..map.len()).filter_map(|run| run.set()).collect();
        let mut buf = vec![0; 64 * CLUSTER];
        for run in &written {
            let (mut at, end) = (run.start * CLUSTER_SIZE, (run.end * CLUSTER_SIZE).min(size));
            while at < end {
                let chunk = usize::try_from(end - at).map_or(buf.len(), |len| len.min(buf.len()));
                let chunk = &mut buf[..chunk];
                from.read_exact_at(chunk, origin + at).map_err(self.error("save"))?;
                if chunk.iter().any(|&byte| byte != 0) {
                    delta.write_all_at(chunk, at).map_err(self.error("save"))?;
                }
                at += length(chunk);
            }
        }
        Ok(OverlayState { size, cluster_size: CLUSTER_SIZE, written })
    }

    /// Bytes of the disk that are in the delta rather than in the base.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        map.count() * CLUSTER_SIZE
    }

    fn error(&self, what: &'static str) -> impl Fn(io::Error) -> Error {
        move |source| Error::io(what, &self.name, source)
    }

    fn changing(&self, what: &'static str) -> impl Fn(io::Error) -> Error {
        move |source| Error::change(what, &self.name, source)
    }

    /// Reads from the base, and zeros past its end.
    fn read_base(&self, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        let left = self.base.size().saturating_sub(offset);
        let there = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let (there, past) = buf.split_at_mut(there);
        past.fill(0);
        if there.is_empty() { Ok(()) } else { self.base.read(offset, there) }
    }

    /// As [`read_base`](Self::read_base), to where it is wanted.
    fn read_base_to(&self, offset: u64, len: u64, to: &mut dyn Sink) -> Result<(), Error> {
        let there = self.base.size().saturating_sub(offset).min(len);
        if there > 0 {
            self.base.read_to(offset, there, to)?;
        }
        let mut past = len - there;
        while past > 0 {
            let zeros = [0; CLUSTER];
            let zeros = zeros.get(..host_length(past).min(CLUSTER)).unwrap_or_default();
            to.take(zeros).map_err(self.error("read"))?;
            past -= length(zeros);
        }
        Ok(())
    }

    /// Brings the part of a cluster outside `keep` from the base into the delta. `keep` is in bytes
    /// of the disk and inside the cluster.
    fn copy_around(&self, cluster: u64, keep: Range<u64>) -> Result<(), Error> {
        let start = cluster * CLUSTER_SIZE;
        let end = (start + CLUSTER_SIZE).min(self.size());
        let mut buf = [0; CLUSTER];
        for part in [start..keep.start, keep.end..end] {
            let len = usize::try_from(part.end.saturating_sub(part.start)).unwrap_or(0);
            if let Some(buf) = buf.get_mut(..len).filter(|buf| !buf.is_empty()) {
                self.read_base(part.start, buf)?;
                let at = self.origin + part.start;
                self.delta.write_all_at(buf, at).map_err(self.changing("write"))?;
            }
        }
        Ok(())
    }

    /// Changes a checked range of the delta, after which all its clusters are there.
    fn change(
        &self,
        offset: u64,
        len: u64,
        change: impl FnOnce(&File) -> io::Result<()>,
        what: &'static str,
    ) -> Result<(), Error> {
        if len == 0 {
            return Ok(());
        }
        let end = offset + len;
        let clusters = offset / CLUSTER_SIZE..end.div_ceil(CLUSTER_SIZE);
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        if map.all(clusters.clone()) {
            return change(&self.delta).map_err(self.changing(what));
        }
        drop(map);

        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        // Only the first and the last cluster can be covered in part; they may be the same.
        let (first, last) = (clusters.start, clusters.end - 1);
        for cluster in [Some(first), (last != first).then_some(last)].into_iter().flatten() {
            let start = cluster * CLUSTER_SIZE;
            let stop = (start + CLUSTER_SIZE).min(self.size());
            let keep = offset.max(start)..end.min(stop);
            if keep != (start..stop) && !map.all(cluster..cluster + 1) {
                self.copy_around(cluster, keep)?;
            }
        }
        change(&self.delta).map_err(self.changing(what))?;
        map.set(clusters);
        Ok(())
    }

    fn zero(&self, what: &'static str, offset: u64, len: u64) -> Result<(), Error> {
        let at = self.origin + offset;
        let zero = |delta: &File| {
            if sys::punch_hole(delta, at, len)? { Ok(()) } else { raw::write_zeros(delta, at, len) }
        };
        self.change(offset, len, zero, what)
    }
}

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { base, name: _, delta: _, origin: _, size: _, map: _ } = self;
        f.debug_struct("Overlay").field("base", base).finish_non_exhaustive()
    }
}

impl Disk for Overlay {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, mut buf: &mut [u8]) -> Result<(), Error> {
        check_range(self, offset, length(buf))?;
        let end = offset + length(buf);
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let mut at = offset;
        for run in map.runs(offset / CLUSTER_SIZE..end.div_ceil(CLUSTER_SIZE)) {
            let stop = (run.clusters.end * CLUSTER_SIZE).min(end);
            let len = usize::try_from(stop - at).unwrap_or(buf.len()).min(buf.len());
            let (part, rest) = buf.split_at_mut(len);
            if run.is_set {
                let at = self.origin + at;
                self.delta.read_exact_at(part, at).map_err(self.error("read"))?;
            } else {
                self.read_base(at, part)?;
            }
            (at, buf) = (stop, rest);
        }
        Ok(())
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), Error> {
        check_write(self, offset, length(buf))?;
        let at = self.origin + offset;
        self.change(offset, length(buf), |delta| delta.write_all_at(buf, at), "write")
    }

    fn read_to(&self, offset: u64, len: u64, to: &mut dyn Sink) -> Result<(), Error> {
        check_range(self, offset, len)?;
        let end = offset + len;
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let mut at = offset;
        for run in map.runs(offset / CLUSTER_SIZE..end.div_ceil(CLUSTER_SIZE)) {
            let stop = (run.clusters.end * CLUSTER_SIZE).min(end);
            let len = stop - at;
            if run.is_set {
                let at = self.origin + at;
                to.take_file(&self.delta, at, host_length(len)).map_err(self.error("read"))?;
            } else {
                self.read_base_to(at, len, to)?;
            }
            at = stop;
        }
        Ok(())
    }

    fn write_from(&self, offset: u64, len: u64, from: &mut dyn Source) -> Result<(), Error> {
        check_write(self, offset, len)?;
        let at = self.origin + offset;
        let give = |delta: &File| from.give_file(delta, at, host_length(len));
        self.change(offset, len, give, "write")
    }

    /// Does nothing to the host's disk: an overlay does not outlive its process, and a snapshot
    /// that does is written by [`Overlay::save`]. What has to last is a [`Layer`](crate::Layer).
    fn flush(&self) -> Result<(), Error> {
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        check_write(self, offset, len)?;
        self.zero("discard", offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), Error> {
        check_write(self, offset, len)?;
        self.zero("write of zeros", offset, len)
    }
}

#[cfg(test)]
#[path = "overlay_test.rs"]
mod tests;
