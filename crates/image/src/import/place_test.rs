use super::{Place, find};

const MIB: u64 = 1 << 20;

/// A disk in memory.
fn found(disk: &[u8]) -> Result<Vec<Place>, String> {
    find(disk.len() as u64, &mut |at, buffer| {
        let at = usize::try_from(at).unwrap();
        buffer.copy_from_slice(disk.get(at..at + buffer.len()).expect("within the disk"));
        Ok(())
    })
}

fn put(disk: &mut [u8], at: u64, bytes: &[u8]) {
    disk[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
}

/// Puts a superblock of a file system of that many KiB at an offset.
fn superblock(disk: &mut [u8], offset: u64, kib: u32) {
    put(disk, offset + 1024 + 0x04, &kib.to_le_bytes());
    put(disk, offset + 1024 + 0x38, &[0x53, 0xef]);
}

#[test]
fn a_file_system_is_found_on_the_whole_disk_and_in_partitions() {
    let mut whole = vec![0; 4 << 20];
    superblock(&mut whole, 0, 4096);
    assert_eq!(found(&whole), Ok(vec![Place { offset: 0, length: 4 * MIB, partition: 0 }]));

    // The second of two partitions of an MBR is the larger.
    let mut mbr = vec![0; 8 << 20];
    put(&mut mbr, 510, &[0x55, 0xaa]);
    for (number, (first, sectors)) in [(2048u32, 2048u32), (4096, 8192)].into_iter().enumerate() {
        put(&mut mbr, 446 + 16 * number as u64 + 8, &first.to_le_bytes());
        put(&mut mbr, 446 + 16 * number as u64 + 12, &sectors.to_le_bytes());
        superblock(&mut mbr, u64::from(first) * 512, sectors / 2);
    }
    let [first, second] = [(1, 1), (2, 4)].map(|(at, mib)| (at * MIB, mib * MIB));
    assert_eq!(
        found(&mbr),
        Ok(vec![
            Place { offset: second.0, length: second.1, partition: 2 },
            Place { offset: first.0, length: first.1, partition: 1 },
        ])
    );

    let mut gpt = vec![0; 8 << 20];
    put(&mut gpt, 512, b"EFI PART");
    for (at, value) in [(72, 2u32), (80, 128), (84, 128)] {
        put(&mut gpt, 512 + at, &value.to_le_bytes());
    }
    put(&mut gpt, 1024 + 128 + 32, &2048u64.to_le_bytes());
    put(&mut gpt, 1024 + 128 + 40, &6143u64.to_le_bytes());
    superblock(&mut gpt, MIB, 2048);
    assert_eq!(found(&gpt), Ok(vec![Place { offset: MIB, length: 2 * MIB, partition: 2 }]));
}

#[test]
fn what_is_none_says_why() {
    assert!(found(&[0; 100]).unwrap_err().contains("no ext4"));
    assert!(found(&[0xff; 1 << 16]).unwrap_err().contains("no ext4"));
    let mut short = vec![0; 1 << 20];
    superblock(&mut short, 0, 2048);
    assert!(found(&short).unwrap_err().contains("cut short"));
    put(&mut short, 1024 + 0x18, &[99]);
    assert!(found(&short).unwrap_err().contains("damaged"));
}
