//! Disks that are imported: partition tables, and where a root file system is.

use riad_image::find_root;

use super::Target;

/// Disks.
pub(super) const DISK: Target = Target {
    name: "disk",
    what: "raw disks to import: partition tables and superblocks",
    unit: "steps",
    run: find,
    seeds: || vec![whole(), mbr(), gpt()],
    generate: None,
    words: &[
        b"EFI PART",
        b"\x55\xaa",
        b"\x53\xef",
        b"\x80\0\0\0",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x01\0\0\0\0\0\0\0",
    ],
};

/// What is found lies within the disk, and so does all that is read on the way.
fn find(bytes: &[u8]) -> u64 {
    let size = bytes.len() as u64;
    let mut reads = 0;
    let found = find_root(size, &mut |at, buffer| {
        reads += 1;
        let at = usize::try_from(at).expect("within the disk");
        let end = at.checked_add(buffer.len()).expect("within the disk");
        buffer.copy_from_slice(bytes.get(at..end).expect("within the disk"));
        Ok(())
    });
    match found {
        Ok(places) => {
            assert!(!places.is_empty());
            for place in places {
                let end = place.offset.checked_add(place.length).expect("within the disk");
                assert!(place.length > 0 && end <= size, "{place:?} of {size}");
            }
            reads + 1
        }
        Err(reason) => {
            assert!(!reason.is_empty());
            u64::from(reads > 1)
        }
    }
}

fn put(disk: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = disk.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// A superblock of a file system of so many KiB.
fn superblock(disk: &mut [u8], offset: usize, kib: u32) {
    put(disk, offset + 1024 + 4, &kib.to_le_bytes());
    put(disk, offset + 1024 + 0x38, b"\x53\xef");
}

fn whole() -> Vec<u8> {
    let mut disk = vec![0; 8 << 10];
    superblock(&mut disk, 0, 8);
    disk
}

fn mbr() -> Vec<u8> {
    let mut disk = vec![0; 16 << 10];
    put(&mut disk, 510, b"\x55\xaa");
    put(&mut disk, 454, &[8, 0, 0, 0, 16, 0, 0, 0]);
    superblock(&mut disk, 4096, 8);
    disk
}

fn gpt() -> Vec<u8> {
    let mut disk = vec![0; 16 << 10];
    put(&mut disk, 512, b"EFI PART");
    put(&mut disk, 512 + 72, &[2, 0, 0, 0]);
    put(&mut disk, 512 + 80, &[4, 0, 0, 0, 128, 0, 0, 0]);
    put(&mut disk, 1024 + 32, &[8, 0, 0, 0, 0, 0, 0, 0, 23]);
    superblock(&mut disk, 4096, 8);
    disk
}
