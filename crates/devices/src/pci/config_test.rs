use super::*;

const WHO: Identity = Identity {
    vendor: 0x1af4,
    device: 0x1042,
    revision: 1,
    class: 0x01_00_00,
    subsystem_vendor: 0x1af4,
    subsystem: 0x42,
};

fn read_u32(config: &ConfigSpace, at: u16) -> u32 {
    let mut data = [0; 4];
    config.read(at, &mut data);
    u32::from_le_bytes(data)
}

#[test]
fn identity_is_read_only() {
    let mut config = ConfigSpace::new(WHO);
    config.write(0, &[0; 64]);
    assert_eq!(read_u32(&config, 0), 0x1042_1af4);
    assert_eq!(read_u32(&config, 8), 0x0100_0001);
    assert_eq!(read_u32(&config, 0x2c), 0x0042_1af4);
}

#[test]
fn bars_are_sized_by_writing_ones() {
    let mut config = ConfigSpace::new(WHO);
    config.add_bar(0, BarKind::Memory32, 0x4000).unwrap();
    config.add_bar(1, BarKind::Io, 0x20).unwrap();
    config.add_bar(2, BarKind::Memory64, 1 << 33).unwrap();
    for bar in 0..6u16 {
        config.write(0x10 + 4 * bar, &[0xff; 4]);
    }
    let sizes: Vec<u32> = (0..6).map(|bar| read_u32(&config, 0x10 + 4 * bar)).collect();
    assert_eq!(sizes, [0xffff_c000, 0xffff_ffe1, 0x0000_0004, 0xffff_fffe, 0, 0]);
}

#[test]
fn windows_follow_registers_and_command() {
    let mut config = ConfigSpace::new(WHO);
    config.add_bar(0, BarKind::Memory32, 0x1000).unwrap();
    config.add_bar(1, BarKind::Memory64, 0x1000).unwrap();
    config.add_bar(3, BarKind::Io, 0x10).unwrap();
    config.write(0x10, &0xc000_0123u32.to_le_bytes());
    config.write(0x14, &0x12_3456_7000u64.to_le_bytes());
    config.write(0x1c, &0xc000u32.to_le_bytes());
    config.write(4, &command::MEMORY.to_le_bytes());
    let windows = config.bars();
    assert_eq!(
        windows.iter().map(|w| (w.bar, w.base, w.enabled)).collect::<Vec<_>>(),
        [(0, 0xc000_0000, true), (1, 0x12_3456_7000, true), (3, 0xc000, false)]
    );
}

#[test]
fn impossible_bars_are_refused() {
    let mut config = ConfigSpace::new(WHO);
    config.add_bar(4, BarKind::Memory64, 0x1000).unwrap();
    for (bar, kind, size) in [
        (0, BarKind::Memory32, 0x3000),
        (0, BarKind::Memory32, 8),
        (0, BarKind::Io, 512),
        (4, BarKind::Memory32, 0x1000),
        (5, BarKind::Memory32, 0x1000),
        (3, BarKind::Memory64, 0x1000),
        (6, BarKind::Memory32, 0x1000),
        (255, BarKind::Memory32, 0x1000),
    ] {
        assert!(config.add_bar(bar, kind, size).is_err(), "{bar} {kind:?} {size:#x}");
    }
}

#[test]
fn capabilities_are_linked_and_masked() {
    let mut config = ConfigSpace::new(WHO);
    assert_eq!(config.capabilities(), []);
    let first = config.add_capability(0x09, &[1, 2, 3], &[]).unwrap();
    let second = config.add_capability(0x11, &[0, 0], &[0, 0xc0]).unwrap();
    assert_eq!(config.capabilities(), [(0x09, first), (0x11, second)]);
    assert_eq!((first, second), (0x40, 0x48));
    config.write(0x48, &[0xff; 4]);
    assert_eq!(read_u32(&config, 0x48), 0xc000_0011);
    assert!(config.add_capability(0x09, &[0; 200], &[]).is_err());
}

#[test]
fn restore_keeps_what_the_guest_wrote_and_refuses_other_hardware() {
    let mut config = ConfigSpace::new(WHO);
    let blank = config.clone();
    config.write(4, &command::BUS_MASTER.to_le_bytes());
    let state = config.save();
    assert_eq!(blank.clone().restore(&state).unwrap().save(), state);
    let other = ConfigSpace::new(Identity { device: 0x1041, ..WHO });
    assert!(other.restore(&state).is_err());
    assert!(blank.restore(&ConfigState { bytes: vec![0; 3] }).is_err());
}

#[test]
fn accesses_beyond_the_space_are_harmless() {
    let mut config = ConfigSpace::new(WHO);
    config.write(0xfff, &[0xff; 8]);
    config.write(0xfe, &[0xff; 8]);
    let mut data = [0xaa; 8];
    config.read(0xfe, &mut data);
    assert_eq!(data, [0; 8]);
}
