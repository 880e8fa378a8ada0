//! The first bytes of a layer's file.

use super::Layer;
use crate::overlay::CLUSTER_SIZE;

/// Bytes of the header. They are in one sector of the host's disk, which is written whole or not.
pub(super) const HEADER: usize = 64;
/// Where the map begins.
pub(super) const MAP: u64 = 4096;
/// Where the disk's bytes begin: behind the map of the largest disk.
pub(super) const DATA: u64 = 512 << 20;

const MAGIC: [u8; 16] = *b"riad disk layer\n";
/// The version that is written, and the newest that is read.
const VERSION: u32 = 1;

/// What the header says: magic (16 bytes), version and cluster size (4 each), size of the disk, size
/// of the base, offset of the map, offset of the data (8 each).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Size of the disk in bytes.
    pub(super) size: u64,
    /// Size of the base in bytes.
    pub(super) base_size: u64,
}

impl Header {
    /// Whether there can be such a disk; if not, why.
    pub(super) fn check(&self) -> Result<(), String> {
        let Self { size, base_size } = *self;
        if !size.is_multiple_of(CLUSTER_SIZE) || size == 0 {
            return Err(format!(
                "a size of {size} bytes is no multiple of {CLUSTER_SIZE}: choose one that is"
            ));
        }
        if size < base_size {
            return Err(format!(
                "{size} bytes are less than its image has: give it at least {base_size}"
            ));
        }
        if size > Layer::MOST {
            return Err(format!("{size} bytes are more than a disk can have: {}", Layer::MOST));
        }
        Ok(())
    }

    pub(super) fn to_bytes(self) -> [u8; HEADER] {
        let Self { size, base_size } = self;
        let mut bytes = [0; HEADER];
        let fields = MAGIC
            .into_iter()
            .chain(VERSION.to_le_bytes())
            .chain((CLUSTER_SIZE as u32).to_le_bytes())
            .chain([size, base_size, MAP, DATA].into_iter().flat_map(u64::to_le_bytes));
        for (byte, field) in bytes.iter_mut().zip(fields) {
            *byte = field;
        }
        bytes
    }

    /// Reads a header; if it cannot be used, says why and what to do.
    pub(super) fn parse(bytes: &[u8; HEADER]) -> Result<Self, String> {
        let word = |at: usize| {
            let field = bytes.get(at..at + 8).and_then(|field| field.try_into().ok());
            u64::from_le_bytes(field.unwrap_or_default())
        };
        if !bytes.starts_with(&MAGIC) {
            return Err("it is no disk layer of Riad's".to_owned());
        }
        let version = word(16) & 0xffff_ffff;
        if version > u64::from(VERSION) {
            return Err(format!(
                "it was made by a newer Riad (format {version}; this one reads up to {VERSION}): \
                 use that Riad, or a newer one"
            ));
        }
        let (cluster, map, data) = (word(16) >> 32, word(40), word(48));
        if version == 0 || (cluster, map, data) != (CLUSTER_SIZE, MAP, DATA) {
            return Err("its header is damaged: restore it from a copy".to_owned());
        }
        let header = Self { size: word(24), base_size: word(32) };
        header.check().map_err(|reason| format!("its header is damaged ({reason})"))?;
        Ok(header)
    }
}
