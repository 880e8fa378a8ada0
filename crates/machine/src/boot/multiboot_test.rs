use super::super::images::{TestMachine, elf32, elf64, multiboot_header};
use super::super::{KernelImage, Module, Protocol};
use super::*;

fn elf_kernel() -> Vec<u8> {
    elf32(0x10_0000, &multiboot_header(flag::ALIGN_MODULES | flag::MEMORY_INFO, &[0x90]), 0x1000)
}

#[test]
fn an_elf_kernel_is_told_of_memory_modules_and_command_line() {
    let machine = TestMachine::new(64);
    let modules =
        [Module { args: "one a=1", data: b"first" }, Module { args: "two", data: b"2nd" }];
    let params = BootParams { kernel_name: "kernel.elf", cmdline: "-v", modules: &modules };
    let entry = machine.load(&elf_kernel(), &params);
    assert_eq!((entry.eip, entry.eax, entry.esi), (0x10_0004, 0x2bad_b002, 0));
    let info = entry.ebx;
    assert_eq!(machine.u32(info), 0b10_0100_1101);
    assert_eq!((machine.u32(info + 4), machine.u32(info + 8)), (639, 63 * 1024));
    assert_eq!(machine.text(machine.u32(info + 16).into()), "kernel.elf -v");
    assert_eq!(machine.u32(info + 20), 2);
    let mods = machine.u32(info + 24);
    let (start, end) = (machine.u32(mods), machine.u32(mods + 4));
    assert_eq!((start, end), (0x10_1000, 0x10_1005));
    assert_eq!(machine.bytes(start.into(), 5), b"first");
    assert_eq!(machine.text(machine.u32(mods + 8).into()), "one a=1");
    assert_eq!(machine.u32(mods + 16), 0x10_2000);
    assert_eq!(machine.text(machine.u32(mods + 24).into()), "two");
    let (len, mmap) = (machine.u32(info + 44), machine.u32(info + 48));
    assert_eq!(len as usize, machine.e820.len() * 24);
    assert_eq!((machine.u32(mmap), machine.u64(mmap + 4)), (20, 0));
    assert_eq!((machine.u64(mmap + 12), machine.u32(mmap + 20)), (0x9_fc00, 1));
    assert_eq!(machine.text(machine.u32(info + 64).into()), "riad");
}

#[test]
fn a_flat_kernel_goes_where_its_header_says() {
    let machine = TestMachine::new(16);
    let mut file = vec![0xcc; 64];
    // The header is 64 bytes into the file, 32 bytes into what is loaded.
    file.extend(multiboot_header(
        flag::ADDRESSES,
        &[0x20_0020, 0x20_0000, 0, 0x20_1000, 0x20_0044],
    ));
    file.extend(b"rest");
    machine.memory.fill(riad_memory::Gpa(0x20_0000), 0x1001, 0xff).unwrap();
    let entry = machine.load(&file, &BootParams::default());
    assert_eq!(entry.eip, 0x20_0044);
    assert_eq!(machine.bytes(0x20_0000, 32), [0xcc; 32]);
    assert_eq!(machine.bytes(0x20_0040, 5), b"rest\0");
    assert_eq!(machine.bytes(0x20_0fff, 2), [0, 0xff], "zeros end with the bss");
}

#[test]
fn hostile_headers_are_refused() {
    let flat = |more: &[u32]| {
        let mut file = multiboot_header(flag::ADDRESSES, more);
        file.resize(64, 0);
        KernelImage::parse(&file).err().map(|e| e.to_string())
    };
    assert!(flat(&[0x1000, 0x2000, 0, 0, 0]).is_some(), "header below what is loaded");
    assert!(flat(&[0x2000, 0x1000, 0, 0, 0]).is_some(), "loads from before the file");
    assert!(flat(&[0x1000, 0x1000, 0xfff, 0, 0]).is_some(), "ends before it begins");
    assert!(flat(&[0x1000, 0x1000, 0x2000, 0, 0]).is_some(), "ends after the file");
    assert!(flat(&[u32::MAX, u32::MAX, 0, 0, 0]).is_some(), "wraps");
    assert!(flat(&[0x1000, 0x1000, 0, 0, 0]).is_none());
    let required = multiboot_header(1 << 5, &[]);
    assert!(matches!(KernelImage::parse(&required), Err(BootError::Unsupported(_))));
    let no_addresses = multiboot_header(0, &[]);
    assert!(matches!(KernelImage::parse(&no_addresses), Err(BootError::Damaged(_))));
}

#[test]
fn sixty_four_bit_elf_is_explained_unless_it_has_a_pvh_note() {
    let file = elf64(0x10_0000, &multiboot_header(0, &[]), 0x1000, None);
    let error = KernelImage::parse(&file).unwrap_err();
    assert!(error.to_string().contains("64-bit"), "{error}");
    let file = elf64(0x10_0000, &multiboot_header(0, &[]), 0x1000, Some(0x10_0000));
    assert_eq!(KernelImage::parse(&file).unwrap().protocol(), Protocol::Pvh);
}

#[test]
fn the_header_is_found_in_the_first_8_kib_only() {
    let at = |offset: usize| {
        let mut file = vec![0; offset];
        file.extend(multiboot_header(0, &[]));
        MultibootKernel::detect(&file)
    };
    assert_eq!(at(8180), Some(8180));
    assert_eq!(at(8192), None);
    assert_eq!(at(2), None, "not on a word boundary");
}

#[test]
fn module_lists_are_split_as_qemu_splits_them() {
    let list: Vec<_> = ModuleSpec::split("a.bin x=1, b.bin,,").collect();
    assert_eq!(
        list,
        [
            ModuleSpec { path: "a.bin", args: "a.bin x=1" },
            ModuleSpec { path: "b.bin", args: "b.bin" }
        ]
    );
}
