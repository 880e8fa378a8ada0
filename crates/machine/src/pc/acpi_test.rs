use super::*;
use crate::pc::map::{GIB, MIB};

fn tables(memory: u64, cpus: u32) -> Vec<u8> {
    AcpiTables::build(&AddressMap::new(memory).unwrap(), cpus).unwrap().as_bytes().to_vec()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The table at a guest address, its checksum verified.
fn table(bytes: &[u8], at: u64) -> &[u8] {
    let table = &bytes[(at - FIRMWARE_TABLES.0) as usize..];
    let table = &table[..u32_at(table, 4) as usize];
    let name = String::from_utf8_lossy(&table[..4]).into_owned();
    assert_eq!(table.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)), 0, "checksum of {name}");
    table
}

/// All tables that the root points to.
fn listed(bytes: &[u8]) -> Vec<&[u8]> {
    assert_eq!(&bytes[..8], b"RSD PTR ");
    for len in [20, 36] {
        assert_eq!(bytes[..len].iter().fold(0u8, |sum, b| sum.wrapping_add(*b)), 0);
    }
    let xsdt = table(bytes, u64_at(bytes, 24));
    assert_eq!(&xsdt[..4], b"XSDT");
    let mut all: Vec<&[u8]> = xsdt[36..].chunks(8).map(|e| table(bytes, u64_at(e, 0))).collect();
    let fadt = all.iter().find(|t| t.starts_with(b"FACP")).unwrap();
    assert_eq!(u64::from(u32_at(fadt, 40)), u64_at(fadt, 140), "DSDT and X_DSDT");
    all.push(table(bytes, u64_at(fadt, 140)));
    all
}

fn find<'a>(tables: &[&'a [u8]], name: &[u8]) -> &'a [u8] {
    tables.iter().find(|t| t.starts_with(name)).unwrap()
}

#[test]
fn the_root_leads_to_all_tables() {
    let bytes = tables(512 * MIB, 4);
    let listed = listed(&bytes);
    let names: Vec<&[u8]> = listed.iter().map(|t| &t[..4]).collect();
    assert_eq!(names, [&b"FACP"[..], b"APIC", b"MCFG", b"SPCR", b"WAET", b"DSDT"]);
    let facs = u32_at(find(&listed, b"FACP"), 36);
    assert_eq!(facs % 64, 0);
    let facs = (u64::from(facs) - FIRMWARE_TABLES.0) as usize;
    assert_eq!(&bytes[facs..facs + 4], b"FACS");
}

#[test]
fn the_fixed_hardware_is_where_the_map_says() {
    let bytes = tables(512 * MIB, 1);
    let listed = listed(&bytes);
    let fadt = find(&listed, b"FACP");
    assert_eq!(fadt.len(), 276);
    assert_eq!((fadt[46], fadt[47]), (IRQ_SCI, 0));
    assert_eq!(u32_at(fadt, 56), u32::from(port::PM1A_EVT));
    assert_eq!(u32_at(fadt, 64), u32::from(port::PM1A_CNT));
    assert_eq!(u32_at(fadt, 76), u32::from(port::PM_TMR));
    assert_eq!(fadt[88..92], [4, 2, 0, 4]);
    assert_eq!(fadt[108], Cmos::CENTURY);
    let flags = u32_at(fadt, 112);
    assert_ne!(flags & (1 << 10), 0, "reset register");
    assert_eq!(flags & ((1 << 20) | (1 << 4)), 0, "not hardware-reduced; a fixed power button");
    assert_eq!((fadt[116], u64_at(fadt, 120), fadt[128]), (1, 0xcf9, 6));
    assert_eq!((fadt[148], u64_at(fadt, 152)), (1, 0x600));
    assert_eq!((fadt[208], fadt[209], u64_at(fadt, 212)), (1, 32, 0x608));
    assert_eq!((u32_at(fadt, 80), fadt[92]), (u32::from(port::GPE0), 2));
    assert_eq!((fadt[220], fadt[221], u64_at(fadt, 224)), (1, 16, 0x60c));
}

#[test]
fn every_processor_has_an_apic() {
    for cpus in [1, 8, MAX_CPUS] {
        let bytes = tables(512 * MIB, cpus);
        let madt = find(&listed(&bytes), b"APIC").to_vec();
        let mut rest = &madt[44..];
        let mut kinds = [0u32; 16];
        while let [kind, len, ..] = *rest {
            kinds[usize::from(kind)] += 1;
            rest = &rest[len.into()..];
        }
        assert_eq!((kinds[0], kinds[1], kinds[2], kinds[4]), (cpus, 1, 2, 1));
    }
    let map = AddressMap::new(512 * MIB).unwrap();
    assert_eq!(AcpiTables::build(&map, 0), Err(AcpiError::Cpus(0)));
    assert_eq!(AcpiTables::build(&map, MAX_CPUS + 1), Err(AcpiError::Cpus(MAX_CPUS + 1)));
}

#[test]
fn serial_console_table_has_its_size() {
    let bytes = tables(512 * MIB, 1);
    let listed = listed(&bytes);
    let spcr = find(&listed, b"SPCR");
    assert_eq!((spcr.len(), u64_at(spcr, 44)), (80, 0x3f8));
    assert_eq!(find(&listed, b"MCFG").len(), 60);
}

#[test]
fn tables_fit_their_place_and_are_written_there() {
    let map = AddressMap::new(MIB * 16).unwrap();
    let memory = GuestMemory::new(&map.runs()).unwrap();
    let tables = AcpiTables::build(&map, MAX_CPUS).unwrap();
    tables.write(&memory).unwrap();
    assert_eq!(memory.read_vec(tables.rsdp(), 8).unwrap(), b"RSD PTR ");
}

/// What a slot's device is in AML: its package's length, its name, and `_ADR`, in bytes.
#[test]
fn every_slot_that_functions_come_to_is_named_with_its_address() {
    let bytes = tables(512 * MIB, 1);
    let listed = listed(&bytes);
    let dsdt = find(&listed, b"DSDT");
    let has = |text: &[u8]| dsdt.windows(text.len()).any(|bytes| bytes == text);
    for slot in 0..32u8 {
        let name = format!("S{slot:02}_");
        let mut device = [name.as_bytes(), b"\x08_ADR\x0c"].concat();
        device.extend((u32::from(slot) << 16).to_le_bytes());
        let comes_and_goes = matches!(slot, 1 | 9..=24 | 28..=31);
        assert_eq!(has(&device), comes_and_goes, "{name}");
        // Notified of both kinds of events.
        for value in [1u8, 3] {
            let code: &[u8] = if value == 1 { &[0x01] } else { &[0x0a, 3] };
            let notify = [b"\x86", name.as_bytes(), code].concat();
            assert_eq!(has(&notify), comes_and_goes, "{name}, {value}");
        }
    }
    assert!(has(b"_E01") && has(b"_EJ0"));
}

/// ACPICA's own disassembler and compiler accept every table.
#[test]
fn iasl_understands_the_tables() {
    let dir = tempfile::tempdir().unwrap();
    for memory in [16 * MIB, 8 * GIB] {
        let bytes = tables(memory, 4);
        for table in listed(&bytes) {
            let name = String::from_utf8_lossy(&table[..4]).to_lowercase();
            let file = dir.path().join(format!("{name}.aml"));
            std::fs::write(&file, table).unwrap();
            let Ok(out) = std::process::Command::new("iasl").arg("-d").arg(&file).output() else {
                eprintln!("skipped: iasl is not installed (package acpica-tools)");
                return;
            };
            let said = String::from_utf8_lossy(&out.stderr).into_owned()
                + &String::from_utf8_lossy(&out.stdout);
            assert!(out.status.success(), "{name}: {said}");
            let text = std::fs::read_to_string(file.with_extension("dsl")).unwrap();
            assert!(!text.contains("Unknown") && !text.contains("Invalid"), "{name}: {text}");
            if name != "dsdt" {
                continue;
            }
            for word in [
                "_E01",
                "_EJ0",
                "S09",
                "S24",
                "S28",
                "S31",
                "PNP0A08",
                "PNP0501",
                "_S5",
                "PNP0C02",
                "QWordMemory",
                "PNP0B00",
            ] {
                assert!(text.contains(word), "{word} in {text}");
            }
            let out = std::process::Command::new("iasl")
                .arg(file.with_extension("dsl"))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&out.stdout).into_owned();
            assert!(said.contains("0 Errors, 0 Warnings"), "{said}\n{text}");
        }
    }
}
