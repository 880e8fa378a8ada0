//! Kernel files, and kernel modules.

use riad_image::kernel::{elf_section, module_info};
use riad_machine::boot::{BootMachine, BootParams, KernelImage, Module};
use riad_machine::pc::map::{AddressMap, FIRMWARE_TABLES, MIB};
use riad_memory::GuestMemory;

use super::Target;
use crate::seeds::kernels;

/// Kernel images.
pub(super) const KERNEL: Target = Target {
    name: "kernel",
    what: "kernel images: bzImage, ELF with a PVH note, Multiboot, and their compressions",
    unit: "steps",
    run: load,
    seeds: kernels::all,
    generate: None,
    words: &[
        b"HdrS",
        b"\x7fELF\x02\x01\x01",
        b"\x7fELF\x01\x01\x01",
        b"Xen\0",
        b"\x02\xb0\xad\x1b",
        b"\x1f\x8b\x08",
        b"\x28\xb5\x2f\xfd",
        b"\x02\x21\x4c\x18",
        b"\xfd7zXZ\0",
        b"BZh9",
        b"\x5d\0\0",
        &[0xff; 8],
        &[0; 8],
    ],
};

/// Kernel modules.
pub(super) const MODULE: Target = Target {
    name: "module",
    what: "kernel modules, as far as the image builder reads them",
    unit: "steps",
    run: |bytes| {
        let _ = elf_section(bytes, ".modinfo");
        module_info(bytes, "depends").is_some().into()
    },
    seeds: || vec![kernels::module()],
    generate: None,
    words: &[b"\x7fELF\x02\x01", b".modinfo\0", b"depends=", &[0xff; 8], &[0; 8]],
};

fn load(bytes: &[u8]) -> u64 {
    let Ok(kernel) = KernelImage::parse(bytes) else { return 0 };
    // Only what is a kernel needs a machine.
    let mib = 64;
    let Ok(map) = AddressMap::new(mib * MIB) else { return 0 };
    let Ok(memory) = GuestMemory::new(&map.runs()) else { return 0 };
    let e820 = map.e820();
    let machine = BootMachine { memory: &memory, e820: &e820, rsdp: Some(FIRMWARE_TABLES) };
    let modules = [Module { args: "m", data: &[1; 10] }, Module { args: "", data: bytes }];
    let params = BootParams { kernel_name: "k", cmdline: "console=ttyS0", modules: &modules };
    match kernel.load(&machine, &params) {
        Ok(entry) => {
            let _ = riad_machine::pc::bootstrap_state(&entry);
            2
        }
        Err(_) => 1,
    }
}
