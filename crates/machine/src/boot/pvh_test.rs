use super::super::images::{TestMachine, elf64};
use super::super::{KernelImage, Module};
use super::*;

#[test]
fn start_info_points_to_everything() {
    let machine = TestMachine::new(64);
    let file = elf64(0x100_0000, b"kernel", 0x1000, Some(0x100_0003));
    let modules = [Module { args: "", data: b"first" }, Module { args: "", data: b"second" }];
    let params = BootParams { kernel_name: "k", cmdline: "console=ttyS0", modules: &modules };
    let entry = machine.load(&file, &params);
    assert_eq!((entry.eip, entry.eax, entry.esi), (0x100_0003, 0, 0));
    assert_eq!(machine.bytes(0x100_0000, 6), b"kernel");

    let info = entry.ebx;
    assert_eq!(machine.u32(info), 0x336e_c578);
    assert_eq!((machine.u32(info + 4), machine.u32(info + 12)), (1, 1));
    assert_eq!(machine.text(machine.u64(info + 24)), "console=ttyS0");
    assert_eq!(machine.u64(info + 32), 0xe_0000, "rsdp");
    let modlist = machine.u64(info + 16) as u32;
    let (start, len) = (machine.u64(modlist), machine.u64(modlist + 8));
    assert_eq!(machine.bytes(start, len as usize), b"first\0\0\0second");
    assert_eq!((start % 4096, start >= 63 << 20), (0, true));
    let memmap = machine.u64(info + 40) as u32;
    assert_eq!(machine.u32(info + 48) as usize, machine.e820.len());
    assert_eq!((machine.u64(memmap), machine.u64(memmap + 8)), (0, 0x9_fc00));
    assert_eq!((machine.u32(memmap + 16), machine.u32(memmap + 24 + 16)), (1, 2));
    let gdt: Vec<u64> = (0..4).map(|i| machine.u64(entry.gdt.0 as u32 + i * 8)).collect();
    assert_eq!(gdt, Entry::GDT);
}

#[test]
fn no_initrd_means_no_module() {
    let machine = TestMachine::new(64);
    let file = elf64(0x100_0000, b"kernel", 0x1000, Some(0x100_0000));
    let entry = machine.load(&file, &BootParams::default());
    assert_eq!((machine.u32(entry.ebx + 12), machine.u64(entry.ebx + 16)), (0, 0));
}

#[test]
fn what_does_not_fit_is_told() {
    let machine = TestMachine::new(8);
    let file = elf64(0x100_0000, b"kernel", 0x1000, Some(0x100_0000));
    let kernel = KernelImage::parse(&file).unwrap();
    let error = kernel.load(&machine.boot(), &BootParams::default()).unwrap_err();
    assert!(error.to_string().contains("--memory"), "{error}");
    let machine = TestMachine::new(18);
    let data = vec![1; 16 << 20];
    let modules = [Module { args: "", data: &data }];
    let params = BootParams { modules: &modules, ..BootParams::default() };
    let error = kernel.load(&machine.boot(), &params).unwrap_err();
    assert!(matches!(error, BootError::NoRoom { need: 33, have: 18, .. }), "{error}");
    let params = BootParams { cmdline: &"x".repeat(4096), ..BootParams::default() };
    let error = kernel.load(&machine.boot(), &params).unwrap_err();
    assert!(matches!(error, BootError::CommandLineTooLong { len: 4096, max: 4095 }), "{error}");
    let params = BootParams { cmdline: "a\0b", ..BootParams::default() };
    let error = kernel.load(&machine.boot(), &params).unwrap_err();
    assert!(matches!(error, BootError::CommandLineNul), "{error}");
}
