use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::packages::parse_packages;
use crate::rootfs::RootFs;

/// A minimal module: an ELF file with a `.modinfo` section.
fn module(info: &[&str]) -> Vec<u8> {
    let names = b"\0.shstrtab\0.modinfo\0";
    let info: Vec<u8> = info.iter().flat_map(|i| i.bytes().chain([0])).collect();
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(64, 0);
    let names_at = file.len() as u64;
    file.extend(names);
    let info_at = file.len() as u64;
    file.extend(&info);
    let table = file.len() as u64;
    file[0x28..0x30].copy_from_slice(&table.to_le_bytes());
    file[0x3a..0x3c].copy_from_slice(&64u16.to_le_bytes());
    file[0x3c..0x3e].copy_from_slice(&3u16.to_le_bytes());
    file[0x3e..0x40].copy_from_slice(&1u16.to_le_bytes());
    let sections =
        [(0u32, 0, 0), (1, names_at, names.len() as u64), (11, info_at, info.len() as u64)];
    for (name, at, len) in sections {
        let mut header = [0u8; 64];
        header[0..4].copy_from_slice(&name.to_le_bytes());
        header[0x18..0x20].copy_from_slice(&at.to_le_bytes());
        header[0x20..0x28].copy_from_slice(&len.to_le_bytes());
        file.extend(header);
    }
    file
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut out = liblzma::write::XzEncoder::new(Vec::new(), 1);
    out.write_all(bytes).expect("written");
    out.finish().expect("finished")
}

fn tree() -> RootFs {
    // The spool is a nameless file: it outlives the directory it was made in.
    let directory = tempfile::tempdir().expect("a directory");
    let mut rootfs = RootFs::new(directory.path(), 0).expect("a spool");
    let files: [(&str, Vec<u8>); 6] = [
        ("kernel/a-b.ko", module(&["license=GPL", "depends=c,d-e,in-built"])),
        ("kernel/c.ko.xz", xz(&module(&["depends=d_e", "softdep=pre: soft absent post: late"]))),
        ("kernel/d_e.ko", module(&["depends="])),
        ("kernel/soft.ko", module(&["depends="])),
        ("kernel/broken.ko", b"nonsense".to_vec()),
        ("modules.builtin", b"kernel/in_built.ko\nkernel/ext4.ko\n".to_vec()),
    ];
    for (path, content) in files {
        rootfs.write(&format!("lib/modules/6.1/{path}"), 0o644, content).expect("put");
    }
    rootfs
}

fn names(list: &[Module]) -> Vec<&str> {
    list.iter().map(|m| m.name.as_str()).collect()
}

#[test]
fn modules_come_after_what_they_depend_on() {
    let rootfs = tree();
    let modules = Modules::find(&rootfs, "6.1");
    assert_eq!(modules.len(), 5);
    let wanted = [
        Wanted { name: "ext4", required: true },
        Wanted { name: "a_b", required: true },
        Wanted { name: "c", required: true },
        Wanted { name: "absent", required: false },
    ];
    let list = modules.closure(&wanted).expect("found");
    assert_eq!(names(&list), ["soft", "d_e", "c", "a_b"]);
    assert!(list.iter().all(|m| m.content.starts_with(b"\x7fELF")), "not compressed");
}

#[test]
fn missing_and_damaged_modules_are_named() {
    let rootfs = tree();
    let modules = Modules::find(&rootfs, "6.1");
    let error = modules.closure(&[Wanted { name: "nvme", required: true }]).expect_err("missing");
    assert!(error.to_string().contains("'nvme'"), "{error}");
    let error = modules.closure(&[Wanted { name: "broken", required: true }]).expect_err("damaged");
    assert!(error.to_string().contains("broken.ko"), "{error}");
    assert!(Modules::find(&rootfs, "9.9").is_empty());
}

#[test]
fn the_metapackage_leads_to_the_kernel() {
    let stanza = |name: &str, depends: &str| {
        format!(
            "Package: {name}\nVersion: 1\nArchitecture: amd64\nFilename: x\nSize: 1\n\
             SHA256: {}\nDepends: {depends}\n\n",
            "0".repeat(64)
        )
    };
    let text = stanza("linux-image-cloud-amd64", "linux-image-6.1-cloud-amd64 (= 1)")
        + &stanza("linux-image-6.1-cloud-amd64", "kmod, initramfs-tools | linux-initramfs-tool")
        + &stanza("linux-image-amd64", "linux-image-6.1-amd64")
        + &stanza("linux-image-6.1-amd64", "kmod");
    let set = |text: &str| {
        PackageSet::new("amd64", parse_packages(text.as_bytes(), 0, "amd64").expect("read"))
            .expect("read")
    };
    let set_all = set(&text);
    let found = kernel_packages(&set_all).expect("found");
    assert_eq!(found[0].name, "linux-image-6.1-cloud-amd64");
    assert_eq!(found.len(), 1);
    assert!(kernel_packages(&set(&stanza("linux-image-cloud-amd64", "gone"))).is_err());
    assert!(kernel_packages(&set("")).is_err());
}

proptest! {
    #[test]
    fn damaged_modules_are_refused(at in 0usize..400, byte in any::<u8>(), cut in 0usize..400) {
        let mut file = module(&["depends=a,b", "softdep=pre: c"]);
        if let Some(b) = file.get_mut(at) {
            *b = byte;
        }
        file.truncate(file.len().saturating_sub(cut % 3 * cut));
        let _ = module_info(&file, "depends");
    }
}
