//! How much of a machine is in use, as its guest sees it.

use super::ProtocolError;
use super::wire::{Fields, put_text};

/// File systems that are told of at most.
pub const MOST_FILE_SYSTEMS: usize = 32;
/// Bytes of a mount point that are told.
const MOST_PATH: usize = 1024;

/// How much of a machine is in use, as its guest sees it. All sizes are bytes, and a guest may say
/// what it likes: nothing is to be reckoned with them that could overflow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Measures {
    /// Nanoseconds since its kernel started (`CLOCK_BOOTTIME`).
    pub uptime: u64,
    /// Memory that its kernel has (proc(5), `MemTotal` of meminfo).
    pub memory_total: u64,
    /// Of it, what a new program could have without swapping (`MemAvailable`).
    pub memory_available: u64,
    /// Swap space.
    pub swap_total: u64,
    /// Swap space that is free.
    pub swap_free: u64,
    /// Hundredths of the load averages over 1, 5 and 15 minutes (proc(5), loadavg).
    pub load: [u32; 3],
    /// Tasks that there are: processes and threads.
    pub tasks: u32,
    /// The file systems on its block devices, the root first; at most [`MOST_FILE_SYSTEMS`].
    pub file_systems: Vec<FileSystem>,
}

/// A file system in a guest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileSystem {
    /// Where it is mounted.
    pub mounted_on: String,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes in use.
    pub used: u64,
    /// Bytes that users may still take, which is less than the rest where some is kept for root.
    pub available: u64,
}

impl Measures {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let Self {
            uptime,
            memory_total,
            memory_available,
            swap_total,
            swap_free,
            load,
            tasks,
            file_systems,
        } = self;
        for number in [uptime, memory_total, memory_available, swap_total, swap_free] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in load.iter().chain([tasks]) {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let told = file_systems.iter().take(MOST_FILE_SYSTEMS);
        out.extend_from_slice(&u32::try_from(told.len()).unwrap_or(0).to_le_bytes());
        for FileSystem { mounted_on, size, used, available } in told {
            // A mount point is as long as its directory's path may be; 32 of them fit a frame.
            let shown = mounted_on.get(..mounted_on.floor_char_boundary(MOST_PATH));
            put_text(out, shown.unwrap_or_default());
            for number in [size, used, available] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
    }

    pub(super) fn parse(fields: &mut Fields<'_>) -> Result<Self, ProtocolError> {
        let mut measures = Self {
            uptime: fields.u64()?,
            memory_total: fields.u64()?,
            memory_available: fields.u64()?,
            swap_total: fields.u64()?,
            swap_free: fields.u64()?,
            load: [fields.u32()?, fields.u32()?, fields.u32()?],
            tasks: fields.u32()?,
            file_systems: Vec::new(),
        };
        // A text's length, and three numbers.
        let count = fields.count(28)?;
        if count > MOST_FILE_SYSTEMS {
            return Err(fields.malformed("it tells of too many file systems"));
        }
        for _ in 0..count {
            let mut mounted_on = fields.text()?;
            mounted_on.truncate(mounted_on.floor_char_boundary(MOST_PATH));
            measures.file_systems.push(FileSystem {
                mounted_on,
                size: fields.u64()?,
                used: fields.u64()?,
                available: fields.u64()?,
            });
        }
        Ok(measures)
    }
}
