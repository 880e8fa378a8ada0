//! QEMU's disk images.

use std::io::Write;

use riad_disk::{Disk, Qcow2};

use super::Target;
use crate::mutate::mutate;
use crate::random::Random;

/// Disk images.
pub(super) const QCOW2: Target = Target {
    name: "qcow2",
    what: "QEMU's disk images: headers, tables, compressed clusters",
    unit: "clusters",
    run: read,
    seeds: || vec![image(12, 3, 40), image(9, 2, 100), image(16, 3, 6)],
    generate: Some(make),
    words: &[
        b"QFI\xfb",
        &[0x80, 0, 0, 0, 0, 0, 0x10, 0],
        &[0x40, 0, 0, 0, 0, 0, 0, 0],
        &[0xff; 8],
        &[0, 0, 0, 9],
    ],
};

/// Tells how many clusters could be read.
fn read(bytes: &[u8]) -> u64 {
    let Ok(mut file) = tempfile::tempfile() else { return 0 };
    if file.write_all(bytes).is_err() {
        return 0;
    }
    let Ok(disk) = Qcow2::open(file, "case".to_owned()) else { return 0 };
    let mut buffer = vec![0; 70_000];
    let mut good = 0;
    // A disk may be larger than anybody reads: its beginning, and its end.
    let ends = [0, disk.size().saturating_sub(1 << 20)];
    for at in ends.iter().flat_map(|end| (0..16).map(move |n| end + n * 65_536)) {
        let len = disk.size().saturating_sub(at).min(70_000) as usize;
        good += u64::from(disk.read(at, &mut buffer[..len]).is_ok());
    }
    if disk.size() <= 16 << 20
        && let Ok(copy) = tempfile::tempfile()
    {
        let _ = disk.copy_to(&copy, &mut |_, _| {});
    }
    good
}

fn make(random: &mut Random) -> Vec<u8> {
    let bits = 9 + random.below(8) as u32;
    let mut bytes = image(bits, 2 + random.below(2) as u32, 1 + random.below(80));
    for _ in 0..random.below(4) {
        mutate(&mut bytes, QCOW2.words, &[], random);
    }
    bytes
}

/// An image with clusters of every kind.
fn image(bits: u32, version: u32, clusters: usize) -> Vec<u8> {
    let cluster = 1usize << bits;
    let entries = cluster / 8;
    let tables = clusters.div_ceil(entries).min(entries);
    let clusters = clusters.min(tables * entries);
    let mut image = vec![0; cluster * (2 + tables)];
    let put = |image: &mut Vec<u8>, at: usize, bytes: &[u8]| {
        if let Some(place) = image.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(&mut image, 0, b"QFI\xfb");
    put(&mut image, 4, &version.to_be_bytes());
    put(&mut image, 20, &bits.to_be_bytes());
    put(&mut image, 24, &((clusters * cluster) as u64).to_be_bytes());
    put(&mut image, 36, &(tables as u32).to_be_bytes());
    put(&mut image, 40, &(cluster as u64).to_be_bytes());
    if version == 3 {
        put(&mut image, 100, &112u32.to_be_bytes());
    }
    for table in 0..tables {
        put(&mut image, cluster + 8 * table, &(((2 + table) * cluster) as u64).to_be_bytes());
    }
    // A block that is stored as it is (RFC 1951, 3.2.4): of no more than a small cluster.
    let stored = [&[1, 0, 2, 0xff, 0xfd][..], &[0xa5; 512]].concat();
    for number in 0..clusters {
        let at = image.len() as u64;
        let entry = match number % 4 {
            0 => 0,
            1 => {
                image.resize(image.len().next_multiple_of(cluster), 0);
                let at = image.len() as u64;
                image.resize(image.len() + cluster, number as u8);
                at
            }
            2 => {
                image.extend(&stored);
                at | 1 << (62 - (bits - 8)) | 1 << 62
            }
            _ => 1,
        };
        let place = (2 + number / entries) * cluster + 8 * (number % entries);
        put(&mut image, place, &entry.to_be_bytes());
    }
    image
}
