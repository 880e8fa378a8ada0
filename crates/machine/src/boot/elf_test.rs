use super::super::images::{TestMachine, elf32, elf64};
use super::super::loader::Loader;
use super::*;

#[test]
fn segments_go_to_physical_addresses_and_are_zero_filled() {
    let machine = TestMachine::new(16);
    machine.memory.fill(riad_memory::Gpa(0x20_0000), 32, 0xff).unwrap();
    let file = elf64(0x20_0000, b"code", 16, None);
    let elf = ElfImage::parse(&file).unwrap();
    let boot = machine.boot();
    elf.load(&file, &mut Loader::new(&boot)).unwrap();
    assert_eq!(machine.bytes(0x20_0000, 17), b"code\0\0\0\0\0\0\0\0\0\0\0\0\xff");
    assert_eq!((elf.is_64(), elf.end(), elf.pvh_entry()), (true, 0x20_0010, None));
    assert_eq!(elf.physical_entry(), Some(0x20_0000));
}

#[test]
fn the_pvh_note_is_found() {
    let elf = ElfImage::parse(&elf64(0x20_0000, b"code", 16, Some(0x20_0002))).unwrap();
    assert_eq!(elf.pvh_entry(), Some(0x20_0002));
    let high = ElfImage::parse(&elf64(0x20_0000, b"code", 16, Some(1 << 32))).unwrap();
    assert_eq!(high.pvh_entry(), None, "an entry point above 4 GiB is none");
}

#[test]
fn virtual_entry_points_become_physical() {
    let elf = ElfImage::parse(&elf32(0x10_0000, b"kernel..", 64)).unwrap();
    assert_eq!((elf.is_64(), elf.physical_entry()), (false, Some(0x10_0004)));
}

#[test]
fn nonsense_is_refused() {
    let good = elf64(0x20_0000, b"code", 16, None);
    let with = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        ElfImage::parse(&file)
    };
    assert!(matches!(with(18, &183u16.to_le_bytes()), Err(BootError::WrongMachine(183))));
    let all = u64::MAX.to_le_bytes();
    assert!(with(64 + 8, &all).is_err(), "offset");
    assert!(with(64 + 32, &all).is_err(), "size in the file");
    assert!(with(64 + 40, &all).is_err(), "size in memory");
    assert!(with(64 + 40, &1u64.to_le_bytes()).is_err(), "smaller in memory than in the file");
    assert!(with(56, &0u16.to_le_bytes()).is_err(), "no program headers");
    for len in 0..good.len() {
        assert!(ElfImage::parse(&good[..len]).is_err(), "cut to {len}");
    }
}
