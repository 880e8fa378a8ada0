//! QEMU's disk images, to be read: what people have who come from elsewhere.
//!
//! The format is that of QEMU's `docs/interop/qcow2.txt`, versions 2 and 3: a header, a table (L1) of
//! tables (L2) of clusters, which are at some offset of the file, compressed, zeros, or nowhere. What
//! this reader does not know, it refuses by name: encryption, a backing file, data in another file,
//! and any incompatible feature that it has not heard of. Snapshots inside are passed over.
//!
//! Images come from anywhere, so each offset and length is checked before it is used. What is held of
//! one is bounded: the table of tables, [`TABLES`] of the others, and a cluster that was compressed.
//! Nothing is written: [`Qcow2::copy_to`] makes a file of ours, which can be.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Disk, Error, check_range, length};

mod header;
use header::{Compression, Header};

/// Tables that are remembered, each as long as a cluster (2 MiB at most).
const TABLES: usize = 8;
/// Bits of a table's entry that are an offset in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// The bit of a cluster that is compressed.
const COMPRESSED: u64 = 1 << 62;
/// The bit of a cluster that reads as zeros, whatever its offset.
const ZERO: u64 = 1;
/// Compressed data is counted in sectors of so many bytes.
const SECTOR: u64 = 512;
/// Bytes that are copied at a time, at least.
const PIECE: u64 = 1 << 20;

/// A disk in QEMU's format.
#[derive(Debug)]
pub struct Qcow2 {
    file: File,
    name: String,
    header: Header,
    /// Where the tables are, as the file has it.
    l1: Vec<u64>,
    recent: Mutex<Recent>,
}

/// What was read last, as the next read is likely to need it.
#[derive(Debug, Default)]
struct Recent {
    /// Tables by their offset in the file, the last one used at the end.
    tables: Vec<(u64, Vec<u64>)>,
    /// A cluster that was compressed, by its entry.
    cluster: Option<(u64, Vec<u8>)>,
}

/// Where a cluster's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nowhere: it reads as zeros.
    Zeros,
    /// At an offset of the file.
    At(u64),
    /// Compressed; the table's entry says where.
    Compressed(u64),
}

impl Qcow2 {
    /// The bytes that such a file begins with.
    pub const MAGIC: [u8; 4] = *b"QFI\xfb";

    /// Whether an open file begins as one. A file that cannot be read does not.
    #[must_use]
    pub fn is_one(file: &File) -> bool {
        let mut magic = [0; 4];
        file.read_exact_at(&mut magic, 0).is_ok() && magic == Self::MAGIC
    }

    /// The disk in an open file, called `name` in messages.
    ///
    /// # Errors
    /// [`Error::BadImage`] when it is none, is damaged, or has what cannot be read here;
    /// [`Error::Io`].
    pub fn open(file: File, name: String) -> Result<Self, Error> {
        let bad = |reason| Error::BadImage { name: name.clone(), reason };
        let failed = |source| Error::io("read", &name, source);
        let mut bytes = [0; header::MOST];
        let there = read_what_is_there(&file, &mut bytes, 0).map_err(failed)?;
        let header = Header::parse(bytes.get(..there).unwrap_or_default()).map_err(bad)?;
        let mut table = vec![0; header.l1_bytes()];
        file.read_exact_at(&mut table, header.l1_offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => bad("its table is not all there".to_owned()),
            _ => failed(error),
        })?;
        let l1 = numbers(&table);
        Ok(Self { file, name, header, l1, recent: Mutex::default() })
    }

    /// Copies the disk into an empty file, durably: byte for byte, with holes for what is zeros.
    /// `progress` is called with the bytes that are done, of how many.
    ///
    /// # Errors
    /// [`Error::BadImage`], [`Error::Io`], [`Error::Full`].
    pub fn copy_to(&self, to: &File, progress: &mut dyn FnMut(u64, u64)) -> Result<(), Error> {
        let size = self.size();
        let written = |source| Error::change("copy", &self.name, source);
        to.set_len(size).map_err(written)?;
        let mut buffer = Vec::new();
        let mut at = 0;
        while at < size {
            // Tables that are not there span a lot of nothing.
            let (end, is_there) = match self.table_at(at)? {
                None => (at.saturating_add(self.header.table_span()).min(size), false),
                Some(_) => ((at + PIECE.max(self.header.cluster())).min(size), true),
            };
            // At a table's first byte in any case: pieces and clusters divide what it spans.
            let end = end.min(self.header.next_table(at));
            if is_there {
                buffer.resize(usize::try_from(end - at).unwrap_or(0), 0);
                self.read(at, &mut buffer)?;
                for (number, block) in (0u64..).zip(buffer.chunks(crate::CLUSTER_SIZE as usize)) {
                    if block.iter().any(|byte| *byte != 0) {
                        let to_offset = at + number * crate::CLUSTER_SIZE;
                        to.write_all_at(block, to_offset).map_err(written)?;
                    }
                }
            }
            at = end;
            progress(at, size);
        }
        to.sync_all().map_err(written)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bad(&self, reason: impl Into<String>) -> Error {
        Error::BadImage { name: self.name.clone(), reason: reason.into() }
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::io("read", &self.name, source)
    }

    /// The offset of the table for a byte of the disk, if there is one.
    fn table_at(&self, at: u64) -> Result<Option<u64>, Error> {
        let number = usize::try_from(at / self.header.table_span()).unwrap_or(usize::MAX);
        let entry = self.l1.get(number).ok_or_else(|| self.bad("its table is too short"))?;
        match entry & OFFSET {
            0 => Ok(None),
            offset if offset.is_multiple_of(self.header.cluster()) => Ok(Some(offset)),
            _ => Err(self.bad("a table is not at the beginning of a cluster")),
        }
    }

    /// Where the cluster with a byte of the disk is.
    fn place(&self, recent: &mut Recent, at: u64) -> Result<Place, Error> {
        let Some(offset) = self.table_at(at)? else { return Ok(Place::Zeros) };
        let table = self.table(recent, offset)?;
        let number = at / self.header.cluster() % self.header.table_entries();
        let entry = usize::try_from(number).ok().and_then(|number| table.get(number).copied());
        let entry = entry.unwrap_or_default();
        if entry & COMPRESSED != 0 {
            return Ok(Place::Compressed(entry));
        }
        let is_zeros = self.header.has_zeros && entry & ZERO != 0;
        match entry & OFFSET {
            _ if is_zeros => Ok(Place::Zeros),
            0 => Ok(Place::Zeros),
            offset if offset.is_multiple_of(self.header.cluster()) => Ok(Place::At(offset)),
            _ => Err(self.bad("data is not at the beginning of a cluster")),
        }
    }

    /// A table, read if it is none of those that were used last.
    fn table<'a>(&self, recent: &'a mut Recent, offset: u64) -> Result<&'a [u64], Error> {
        let tables = &mut recent.tables;
        let known = tables.iter().position(|(known, _)| *known == offset);
        let table = match known {
            Some(number) => tables.remove(number),
            None => {
                let mut bytes = vec![0; self.header.cluster_len()];
                self.file.read_exact_at(&mut bytes, offset).map_err(|error| {
                    match error.kind() {
                        io::ErrorKind::UnexpectedEof => self.bad("a table is not all there"),
                        _ => self.failed(error),
                    }
                })?;
                if tables.len() == TABLES {
                    tables.remove(0);
                }
                (offset, numbers(&bytes))
            }
        };
        tables.push(table);
        Ok(tables.last().map_or(&[], |(_, table)| table))
    }

    /// A cluster that is compressed.
    fn decompressed<'a>(&self, recent: &'a mut Recent, entry: u64) -> Result<&'a [u8], Error> {
        if recent.cluster.as_ref().is_none_or(|(known, _)| *known != entry) {
            recent.cluster = None;
            // Bits of the offset; what is above it counts sectors after the first.
            let bits = 62 - (self.header.cluster_bits - 8);
            let offset = entry & ((1 << bits) - 1);
            let sectors = (entry & !COMPRESSED & !(1 << 63)) >> bits;
            let most = (sectors + 1) * SECTOR - offset % SECTOR;
            // No more than a cluster that did not become smaller, with what compressors add.
            let most = most.min(2 * self.header.cluster());
            let mut compressed = vec![0; usize::try_from(most).unwrap_or(0)];
            // The last one may end before its last sector does.
            let there = read_what_is_there(&self.file, &mut compressed, offset)
                .map_err(|error| self.failed(error))?;
            compressed.truncate(there);
            let cluster =
                decompress(self.header.compression, &compressed, self.header.cluster_len())
                    .map_err(|error| {
                        self.bad(format!("a compressed cluster is damaged: {error}"))
                    })?;
            recent.cluster = Some((entry, cluster));
        }
        Ok(recent.cluster.as_ref().map_or(&[], |(_, cluster)| cluster))
    }
}

/// Exactly `len` bytes of what was compressed.
fn decompress(compression: Compression, bytes: &[u8], len: usize) -> io::Result<Vec<u8>> {
    let mut cluster = vec![0; len];
    match compression {
        // What stands behind the stream is the rest of its sector.
        Compression::Deflate => {
            flate2::read::DeflateDecoder::new(bytes).read_exact(&mut cluster)?;
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes)?;
            // 8 MiB: a window beyond a few clusters is a bomb.
            decoder.window_log_max(23)?;
            decoder.single_frame().read_exact(&mut cluster)?;
        }
    }
    Ok(cluster)
}

/// Reads as much as there is. Gives how much that was.
fn read_what_is_there(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let Some(from) = at.checked_add(done as u64) else { break };
        match file.read_at(rest, from) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Numbers as the file has them: eight bytes each, the highest first.
fn numbers(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|bytes| u64::from_be_bytes(*bytes)).collect()
}

impl Disk for Qcow2 {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> u64 {
        self.header.size
    }

    fn read_only(&self) -> bool {
        true
    }

    fn read(&self, offset: u64, mut buf: &mut [u8]) -> Result<(), Error> {
        check_range(self, offset, length(buf))?;
        let mut at = offset;
        let mut recent = self.recent();
        while !buf.is_empty() {
            let within = at % self.header.cluster();
            let left = usize::try_from(self.header.cluster() - within).unwrap_or(usize::MAX);
            let (part, rest) = buf.split_at_mut(left.min(buf.len()));
            match self.place(&mut recent, at)? {
                Place::Zeros => part.fill(0),
                Place::At(cluster) => {
                    // An image may end within its last cluster.
                    let there = read_what_is_there(&self.file, part, cluster + within)
                        .map_err(|error| self.failed(error))?;
                    part.get_mut(there..).unwrap_or_default().fill(0);
                }
                Place::Compressed(entry) => {
                    let cluster = self.decompressed(&mut recent, entry)?;
                    let from = usize::try_from(within).unwrap_or(usize::MAX);
                    let bytes = cluster.get(from..).and_then(|bytes| bytes.get(..part.len()));
                    part.copy_from_slice(bytes.ok_or_else(|| self.bad("a cluster is short"))?);
                }
            }
            at += length(part);
            buf = rest;
        }
        Ok(())
    }

    fn write(&self, _offset: u64, _buf: &[u8]) -> Result<(), Error> {
        Err(Error::ReadOnly(self.name.clone()))
    }

    fn flush(&self) -> Result<(), Error> {
        Ok(())
    }

    fn discard(&self, _offset: u64, _len: u64) -> Result<(), Error> {
        Err(Error::ReadOnly(self.name.clone()))
    }

    fn write_zeroes(&self, _offset: u64, _len: u64) -> Result<(), Error> {
        Err(Error::ReadOnly(self.name.clone()))
    }
}

#[cfg(test)]
#[path = "qcow2_test.rs"]
mod tests;
