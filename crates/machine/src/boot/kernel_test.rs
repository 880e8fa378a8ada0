use std::io::Write;

use proptest::prelude::*;

use super::super::images::{TestMachine, bzimage, elf32, elf64, lz4_legacy, multiboot_header};
use super::*;

fn pvh_elf() -> Vec<u8> {
    elf64(0x100_0000, b"kernel", 0x1000, Some(0x100_0000))
}

/// A bzImage with `packed` inside, and after it what the Linux build appends.
fn with_payload(packed: &[u8], trailer: bool) -> Vec<u8> {
    let mut kernel = b"stub".to_vec();
    kernel.extend(packed);
    if trailer {
        kernel.extend(1234u32.to_le_bytes());
    }
    let len = kernel.len() as u32 - 4;
    bzimage(&kernel, (4, len))
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn protocol(file: &[u8]) -> Protocol {
    KernelImage::parse(file).unwrap().protocol()
}

#[test]
fn compressed_kernels_are_unpacked_on_the_host() {
    assert_eq!(protocol(&with_payload(&gzip(&pvh_elf()), false)), Protocol::Pvh);
    assert_eq!(protocol(&with_payload(&lz4_legacy(&pvh_elf()), true)), Protocol::Pvh);
    let zstd = zstd::encode_all(&pvh_elf()[..], 1).unwrap();
    assert_eq!(protocol(&with_payload(&zstd, true)), Protocol::Pvh);
    assert_eq!(protocol(&with_payload(b"unknown format", true)), Protocol::Linux);
    let no_note = elf64(0x100_0000, b"kernel", 0x1000, None);
    assert_eq!(protocol(&with_payload(&lz4_legacy(&no_note), true)), Protocol::Linux);
}

#[test]
fn whole_files_may_be_compressed() {
    let kernel = elf32(0x10_0000, &multiboot_header(0, &[]), 0x1000);
    assert_eq!(protocol(&gzip(&kernel)), Protocol::Multiboot);
    assert_eq!(protocol(&gzip(&with_payload(&gzip(&pvh_elf()), false))), Protocol::Pvh);
    let twice = gzip(&gzip(&kernel));
    assert!(matches!(KernelImage::parse(&twice), Err(BootError::Unknown)));
}

#[test]
fn what_is_no_kernel_is_called_so() {
    for file in [&b""[..], b"#!/bin/sh\n", &[0; 9000]] {
        assert!(matches!(KernelImage::parse(file), Err(BootError::Unknown)));
    }
    let plain = elf64(0x100_0000, b"kernel", 0x1000, None);
    let error = KernelImage::parse(&plain).unwrap_err();
    assert!(error.to_string().contains("CONFIG_PVH"), "{error}");
    let cut = with_payload(&gzip(&pvh_elf())[..40], false);
    let error = KernelImage::parse(&cut).unwrap_err();
    assert!(matches!(error, BootError::Unpack { what: Compression::Gzip, .. }), "{error}");
}

/// Real kernels: `RIAD_TEST_KERNELS` is a list of files, separated by colons.
#[test]
fn real_kernels_load() {
    let Ok(list) = std::env::var("RIAD_TEST_KERNELS") else {
        eprintln!("skipped: set RIAD_TEST_KERNELS to a colon-separated list of kernels");
        return;
    };
    for path in list.split(':') {
        let file = std::fs::read(path).unwrap();
        let start = std::time::Instant::now();
        let kernel = KernelImage::parse(&file).unwrap();
        let parsed = start.elapsed();
        let machine = TestMachine::new(512);
        let params = BootParams { cmdline: "console=ttyS0", ..BootParams::default() };
        let entry = kernel.load(&machine.boot(), &params).unwrap();
        eprintln!("{path}: {} at {:#x}, parsed in {parsed:?}", kernel.protocol(), entry.eip);
        assert_ne!(machine.u32(entry.eip), 0, "there is code at the entry point");
        let small = TestMachine::new(2);
        if let Err(error) = kernel.load(&small.boot(), &params) {
            eprintln!("in 2 MiB: {error}");
        }
    }
}

/// One kernel of each kind, as a base for mutations.
fn seeds() -> Vec<Vec<u8>> {
    vec![
        pvh_elf(),
        elf32(0x10_0000, &multiboot_header(3, &[]), 0x1000),
        multiboot_header(1 << 16, &[0x10_0000, 0x10_0000, 0, 0, 0x10_0020]),
        with_payload(&gzip(&pvh_elf()), false),
        with_payload(&lz4_legacy(&pvh_elf()), true),
        with_payload(&zstd::encode_all(&pvh_elf()[..], 1).unwrap(), true),
        bzimage(b"kernel", (0, 0)),
        gzip(&pvh_elf()),
    ]
}

fn try_all(file: &[u8], machine: &TestMachine) {
    if let Ok(kernel) = KernelImage::parse(file) {
        let modules = [super::super::Module { args: "m", data: &[1; 10] }];
        let params = BootParams { kernel_name: "k", cmdline: "c", modules: &modules };
        let _ = kernel.load(&machine.boot(), &params);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mutated_kernels_never_panic(
        seed in 0usize..8,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        words in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 0..3),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let mut file = seeds().swap_remove(seed);
        for (at, byte) in edits {
            let at = at.index(file.len());
            file[at] = byte;
        }
        for (at, word) in words {
            let at = at.index(file.len());
            for (slot, byte) in file[at..].iter_mut().zip(word.to_le_bytes()) {
                *slot = byte;
            }
        }
        if !whole {
            let len = cut.index(file.len());
            file.truncate(len);
        }
        try_all(&file, &TestMachine::new(32));
    }

    #[test]
    fn random_files_never_panic(file in prop::collection::vec(any::<u8>(), 0..2000)) {
        try_all(&file, &TestMachine::new(4));
    }
}
