//! Where in a disk's bytes its root file system is: the whole disk, or a partition of it.
//!
//! The bytes are hostile: offsets and lengths are checked against the disk, and few things are read.

use std::cmp::Reverse;
use std::io;

/// Bytes of a sector, as partition tables count.
const SECTOR: u64 = 512;
/// Where the superblock of an ext4 file system is, and how much of it is read (Linux,
/// `Documentation/filesystems/ext4/super.rst`).
const SUPERBLOCK: u64 = 1024;
const SUPERBLOCK_LEN: usize = 0x158;
/// Entries of a partition table that are looked at.
const MOST_ENTRIES: u32 = 128;

/// What a place is read with: fills a buffer from an offset.
pub(super) type ReadAt<'a> = &'a mut dyn FnMut(u64, &mut [u8]) -> io::Result<()>;

/// Where a file system is in a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its first byte.
    pub offset: u64,
    /// Its length in bytes, as its superblock says.
    pub length: u64,
    /// The number of its partition, as Linux counts them; 0 when it fills the disk.
    pub partition: u32,
}

/// Finds the ext4 file systems of a disk of `size` bytes, the root's first: that which fills the disk, or
/// the largest of those in its partitions.
///
/// # Errors
/// A sentence for people: there is none, or it is cut short.
pub fn find(size: u64, read: ReadAt<'_>) -> Result<Vec<Place>, String> {
    if let Some(place) = file_system(0, size, 0, read)? {
        return Ok(vec![place]);
    }
    let mut found = Vec::new();
    for Partition { number, offset, length } in partitions(size, read)? {
        found.extend(file_system(offset, length, number, read).ok().flatten());
    }
    // Of several of one length, the first.
    found.sort_by_key(|place| Reverse(place.length));
    match found.is_empty() {
        false => Ok(found),
        true => {
            Err("there is no ext4 file system in it, neither on the whole disk nor in a partition"
                .to_owned())
        }
    }
}

/// A partition, all within its disk.
#[derive(Debug, Clone, Copy)]
struct Partition {
    number: u32,
    offset: u64,
    length: u64,
}

/// The ext4 file system at an offset, if there is one.
fn file_system(
    offset: u64,
    room: u64,
    partition: u32,
    read: ReadAt<'_>,
) -> Result<Option<Place>, String> {
    if room < SUPERBLOCK + SUPERBLOCK_LEN as u64 {
        return Ok(None);
    }
    let mut block = [0; SUPERBLOCK_LEN];
    read(offset + SUPERBLOCK, &mut block).map_err(|error| error.to_string())?;
    if block.get(0x38..0x3a) != Some(&[0x53, 0xef]) {
        return Ok(None);
    }
    let at = |at: usize| block.get(at..at + 4).map_or(0, word);
    // 64-bit counts where the feature says so (incompat 0x80).
    let high = if at(0x60) & 0x80 != 0 { at(0x150) } else { 0 };
    let (blocks, log) = (at(0x04) | high << 32, at(0x18));
    if log > 6 || blocks == 0 {
        return Err("it has a damaged ext4 superblock".to_owned());
    }
    let length = blocks.checked_mul(1024 << log).filter(|length| *length <= room);
    match length {
        Some(length) => Ok(Some(Place { offset, length, partition })),
        None => Err("it is cut short: its ext4 file system is larger than it".to_owned()),
    }
}

/// A little-endian number of up to eight bytes.
fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The partitions of a disk. GPT (UEFI 2.10, section 5.3) goes
/// before MBR.
fn partitions(size: u64, read: ReadAt<'_>) -> Result<Vec<Partition>, String> {
    if size < 2 * SECTOR {
        return Ok(Vec::new());
    }
    let mut sectors = [0; 2 * SECTOR as usize];
    read(0, &mut sectors).map_err(|error| error.to_string())?;
    let (mbr, gpt) = sectors.split_at(SECTOR as usize);
    if gpt.starts_with(b"EFI PART") {
        return gpt_partitions(size, gpt, read);
    }
    if mbr.get(510..) != Some(&[0x55, 0xaa]) {
        return Ok(Vec::new());
    }
    let entries = mbr.get(446..510).unwrap_or_default().chunks(16);
    let place = |(number, entry): (u32, &[u8])| {
        let field = |at: usize| entry.get(at..at + 4).map_or(0, word);
        within(size, number, field(8), field(12))
    };
    Ok((1..).zip(entries).filter_map(place).collect())
}

fn gpt_partitions(size: u64, head: &[u8], read: ReadAt<'_>) -> Result<Vec<Partition>, String> {
    let field = |at: usize, len: usize| head.get(at..at + len).map_or(0, word);
    let (table, count, length) = (field(72, 8), field(80, 4), field(84, 4));
    if !(128..=4096).contains(&length) {
        return Err("its partition table is damaged".to_owned());
    }
    let mut found = Vec::new();
    for number in 0..MOST_ENTRIES.min(u32::try_from(count).unwrap_or(MOST_ENTRIES)) {
        let within_table = u64::from(number) * length;
        let at = table.checked_mul(SECTOR).and_then(|at| at.checked_add(within_table));
        let Some(at) = at.filter(|at| at.checked_add(48).is_some_and(|end| end <= size)) else {
            break;
        };
        let mut entry = [0; 48];
        read(at, &mut entry).map_err(|error| error.to_string())?;
        let [first, last] = [32, 40].map(|at| entry.get(at..at + 8).map_or(0, word));
        // The last sector belongs to it.
        let sectors = last.checked_sub(first).and_then(|sectors| sectors.checked_add(1));
        found.extend(sectors.and_then(|sectors| within(size, number + 1, first, sectors)));
    }
    Ok(found)
}

/// Sectors as bytes, if they are some and all in the disk.
fn within(size: u64, number: u32, first: u64, sectors: u64) -> Option<Partition> {
    let (offset, length) = (first.checked_mul(SECTOR)?, sectors.checked_mul(SECTOR)?);
    let is_within = first > 0 && sectors > 0 && offset.checked_add(length)? <= size;
    is_within.then_some(Partition { number, offset, length })
}

#[cfg(test)]
#[path = "place_test.rs"]
mod tests;
