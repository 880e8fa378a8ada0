use super::*;

#[test]
fn small_memory_lies_below_the_pci_window() {
    let map = AddressMap::new(512 * MIB).unwrap();
    assert_eq!(map.runs(), [(Gpa(0), 512 * MIB)]);
    assert_eq!(map.pci_mmio64(), RAM_ABOVE_4G);
}

#[test]
fn large_memory_goes_on_above_4_gib() {
    let map = AddressMap::new(5 * GIB + PAGE_SIZE).unwrap();
    assert_eq!(map.runs(), [(Gpa(0), 3 * GIB), (RAM_ABOVE_4G, 2 * GIB + PAGE_SIZE)]);
    assert_eq!(map.pci_mmio64(), Gpa(7 * GIB));
}

#[test]
fn absurd_sizes_are_refused() {
    assert_eq!(AddressMap::new(0), Err(MapError::TooSmall { asked: 0 }));
    assert_eq!(AddressMap::new(u64::MAX), Err(MapError::TooLarge { asked: u64::MAX }));
    assert!(matches!(AddressMap::new(16 * MIB + 1), Err(MapError::Misaligned { .. })));
    assert!(AddressMap::new(MIN_MEMORY).is_ok());
    assert!(AddressMap::new(MAX_MEMORY).is_ok());
}

#[test]
fn e820_is_sorted_disjoint_and_its_ram_is_ram() {
    for memory in [MIN_MEMORY, 8 * MIB, 3 * GIB, 4 * GIB, MAX_MEMORY] {
        let map = AddressMap::new(memory).unwrap();
        let e820 = map.e820();
        assert!(e820.windows(2).all(|w| w[0].end() <= w[1].start), "{memory:#x}");
        assert!(e820.iter().all(|e| e.len > 0));
        let usable: u64 = e820.iter().filter(|e| e.kind == E820Kind::Ram).map(|e| e.len).sum();
        assert_eq!(usable, memory - (HIGH_MEMORY.0 - LOW_MEMORY_END));
        for entry in e820.iter().filter(|e| e.kind == E820Kind::Ram) {
            let held = map
                .runs()
                .iter()
                .any(|&(start, len)| start <= entry.start && entry.end().0 <= start.0 + len);
            assert!(held, "{entry:?}");
        }
    }
}

#[test]
fn windows_do_not_overlap() {
    let windows = [
        (PCI_MMIO32.0, PCI_MMIO32_SIZE),
        (ECAM.0, ECAM_SIZE),
        (IOAPIC.0, IOAPIC_SIZE),
        (LAPIC.0, LAPIC_SIZE),
        (RAM_ABOVE_4G.0, 1),
    ];
    assert!(windows.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0));
    let top = AddressMap::new(MAX_MEMORY).unwrap().pci_mmio64().0 + PCI_MMIO64_SIZE;
    assert!(top <= 1 << 39);
}
