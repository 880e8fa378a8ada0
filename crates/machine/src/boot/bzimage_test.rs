use super::super::images::{TestMachine, bzimage};
use super::super::{KernelImage, Module, Protocol};
use super::*;

#[test]
fn without_a_payload_the_32_bit_protocol_is_used() {
    let machine = TestMachine::new(64);
    let file = bzimage(b"protected mode", (0, 0));
    assert_eq!(KernelImage::parse(&file).unwrap().protocol(), Protocol::Linux);
    let modules = [Module { args: "", data: b"initrd" }];
    let params = BootParams { kernel_name: "k", cmdline: "quiet", modules: &modules };
    let entry = machine.load(&file, &params);
    assert_eq!((entry.eip, entry.eax, entry.ebx), (0x100_0000, 0, 0));
    assert_eq!(machine.bytes(0x100_0000, 14), b"protected mode");
    let page = entry.esi;
    assert_eq!(machine.bytes(u64::from(page) + 0x202, 4), b"HdrS");
    assert_eq!(machine.bytes(u64::from(page) + 0x210, 2), [0xff, 1]);
    assert_eq!(machine.u32(page + 0x214), 0x100_0000);
    assert_eq!(machine.text(machine.u32(page + 0x228).into()), "quiet");
    let (start, len) = (machine.u32(page + 0x218), machine.u32(page + 0x21c));
    assert_eq!(machine.bytes(start.into(), len as usize), b"initrd");
    assert_eq!(machine.u64(page + 0x70), 0xe_0000);
    assert_eq!(machine.bytes(u64::from(page) + 0x1e8, 1), [machine.e820.len() as u8]);
    assert_eq!((machine.u64(page + 0x2d0), machine.u64(page + 0x2d8)), (0, 0x9_fc00));
    assert_eq!(machine.u64(page + 0x2d0 + 3 * 20), 0x10_0000);
    assert_eq!(machine.u32(page + 0x2d0 + 3 * 20 + 16), 1);
}

#[test]
fn a_relocatable_kernel_goes_lower_in_a_small_machine() {
    let machine = TestMachine::new(8);
    let entry = machine.load(&bzimage(b"kernel", (0, 0)), &BootParams::default());
    assert_eq!(entry.eip, 0x20_0000);
    let machine = TestMachine::new(4);
    let file = bzimage(b"kernel", (0, 0));
    let kernel = KernelImage::parse(&file).unwrap();
    let error = kernel.load(&machine.boot(), &BootParams::default()).unwrap_err();
    assert!(matches!(error, BootError::NoRoom { need: 5, have: 4, .. }), "{error}");
}

#[test]
fn payloads_outside_the_file_and_old_kernels_are_refused() {
    for payload in [(1, 100), (u32::MAX, 1), (1, u32::MAX), (u32::MAX, u32::MAX)] {
        assert!(BzImage::parse(&bzimage(b"kernel", payload)).is_err(), "{payload:x?}");
    }
    let mut old = bzimage(b"kernel", (0, 0));
    old[0x206..0x208].copy_from_slice(&0x0201u16.to_le_bytes());
    assert!(matches!(BzImage::parse(&old), Err(BootError::Unsupported(_))));
    let mut low = bzimage(b"kernel", (0, 0));
    low[0x211] = 0;
    assert!(matches!(BzImage::parse(&low), Err(BootError::Unsupported(_))));
    let whole = bzimage(b"kernel", (0, 0));
    assert!(BzImage::parse(&whole[..3 * 512]).is_err());
    assert!(BzImage::parse(&whole[..0x230]).is_err());
}
