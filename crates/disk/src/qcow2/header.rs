//! The header of a QEMU image (`docs/interop/qcow2.txt`, "Header"). All numbers have their highest
//! byte first.

use crate::{Layer, SECTOR_SIZE};

/// Bytes that are read of a header: all of version 3's that have a meaning.
pub(super) const MOST: usize = 112;
/// Bytes of a header of version 2.
const VERSION_2: usize = 72;
/// The largest table of tables, bytes, as QEMU has it.
const MOST_L1: u64 = 32 << 20;
/// Bits of a cluster's size, as QEMU has it: 512 bytes to 2 MiB.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;

/// Incompatible features (bits).
mod feature {
    /// It was not closed; the counts of references may be wrong, which readers do not look at.
    pub(super) const DIRTY: u64 = 1;
    pub(super) const CORRUPT: u64 = 1 << 1;
    pub(super) const DATA_FILE: u64 = 1 << 2;
    pub(super) const COMPRESSION: u64 = 1 << 3;
    pub(super) const SUBCLUSTERS: u64 = 1 << 4;
}

/// How clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    /// RFC 1951, without a header.
    Deflate,
    /// RFC 8878, a frame.
    Zstd,
}

/// What a header says that readers need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// Bits of a cluster's size, 9 to 21.
    pub(super) cluster_bits: u32,
    /// Bytes of the disk, a multiple of a sector.
    pub(super) size: u64,
    /// Where the table of tables is.
    pub(super) l1_offset: u64,
    /// Entries in it, enough for the disk.
    l1_entries: u64,
    /// Whether clusters can be zeros without being nowhere (version 3).
    pub(super) has_zeros: bool,
    pub(super) compression: Compression,
}

impl Header {
    /// Reads the first bytes of a file.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        if !bytes.starts_with(&super::Qcow2::MAGIC) {
            return Err("it is no qcow2 image".to_owned());
        }
        let short = || "its header is not all there".to_owned();
        let word = |at: usize| -> Result<u32, String> {
            let bytes = bytes.get(at..).and_then(|bytes| bytes.first_chunk()).ok_or_else(short)?;
            Ok(u32::from_be_bytes(*bytes))
        };
        let long = |at: usize| -> Result<u64, String> {
            let bytes = bytes.get(at..).and_then(|bytes| bytes.first_chunk()).ok_or_else(short)?;
            Ok(u64::from_be_bytes(*bytes))
        };
        let version = word(4)?;
        if !(2..=3).contains(&version) {
            return Err(format!("it has version {version} of the format; 2 and 3 can be read"));
        }
        let (features, header_len) = match version {
            2 => (0, VERSION_2),
            _ => (long(72)?, usize::try_from(word(100)?).unwrap_or(usize::MAX)),
        };
        // An offset that says that there is a name of a file.
        if long(8)? != 0 {
            return Err("it stands on a backing file: `qemu-img convert` makes it whole".to_owned());
        }
        if word(32)? != 0 {
            return Err("it is encrypted: `qemu-img convert` can decrypt it".to_owned());
        }
        check_features(features)?;
        let compression = match (features & feature::COMPRESSION != 0, header_len) {
            (true, 105..) => match bytes.get(104).ok_or_else(short)? {
                0 => Compression::Deflate,
                1 => Compression::Zstd,
                other => {
                    return Err(format!("it is compressed in a way ({other}) that is not known"));
                }
            },
            (true, _) => return Err("it does not say how it is compressed".to_owned()),
            (false, _) => Compression::Deflate,
        };
        let cluster_bits = word(20)?;
        if !CLUSTER_BITS.contains(&cluster_bits) {
            return Err(format!(
                "its clusters have 2^{cluster_bits} bytes; 2^9 to 2^21 are possible"
            ));
        }
        let size = long(24)?;
        if !size.is_multiple_of(SECTOR_SIZE) || size > Layer::MOST {
            return Err(format!("a disk cannot have {size} bytes"));
        }
        let header = Self {
            cluster_bits,
            size,
            l1_offset: long(40)?,
            l1_entries: u64::from(word(36)?),
            has_zeros: version >= 3,
            compression,
        };
        header.check_table()?;
        Ok(header)
    }

    fn check_table(&self) -> Result<(), String> {
        if self.l1_entries * 8 > MOST_L1 {
            return Err(format!("its table of {} entries is too long", self.l1_entries));
        }
        if self.l1_entries < self.size.div_ceil(self.table_span()) {
            return Err("its table is too short for its size".to_owned());
        }
        if !self.l1_offset.is_multiple_of(self.cluster()) || self.l1_offset > i64::MAX as u64 {
            return Err("its table is not at the beginning of a cluster".to_owned());
        }
        Ok(())
    }

    /// Bytes of the table of tables.
    pub(super) fn l1_bytes(&self) -> usize {
        // Bounded above.
        usize::try_from(self.l1_entries * 8).unwrap_or(0)
    }

    /// Bytes of a cluster.
    pub(super) fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// The same, as the length of a buffer.
    pub(super) fn cluster_len(&self) -> usize {
        1 << self.cluster_bits
    }

    /// Entries of a table, each for a cluster.
    pub(super) fn table_entries(&self) -> u64 {
        self.cluster() / 8
    }

    /// Bytes of the disk that a table is for: at most 2^39.
    pub(super) fn table_span(&self) -> u64 {
        self.cluster() * self.table_entries()
    }

    /// The first byte of the disk after `at` that the next table is for.
    pub(super) fn next_table(&self, at: u64) -> u64 {
        (at / self.table_span() + 1).saturating_mul(self.table_span())
    }
}

fn check_features(features: u64) -> Result<(), String> {
    let convert = "`qemu-img convert` makes one that has not";
    if features & feature::CORRUPT != 0 {
        return Err("it says that it is corrupt: `qemu-img check -r all` repairs it".to_owned());
    }
    if features & feature::DATA_FILE != 0 {
        return Err(format!("it has its data in another file; {convert}"));
    }
    if features & feature::SUBCLUSTERS != 0 {
        return Err(format!("it has extended tables, which are not known here; {convert}"));
    }
    match features & !(feature::DIRTY | feature::COMPRESSION) {
        0 => Ok(()),
        unknown => Err(format!("it has features ({unknown:#x}) that are not known; {convert}")),
    }
}
