use super::*;
use crate::pci::Apertures;

fn bus() -> Arc<PciBus> {
    let bus =
        PciBus::new(Apertures { memory: 0xc000_0000..0xd000_0000, memory64: 0..0, ports: 0..0 });
    bus.add_device(0, Arc::new(HostBridge::new())).unwrap();
    Arc::new(bus)
}

fn read(ports: &mut ConfigPorts, offset: u16, len: usize) -> u32 {
    let mut data = [0; 4];
    ports.port_read(offset, &mut data[..len]);
    u32::from_le_bytes(data)
}

#[test]
fn mechanism_one_is_found_as_linux_looks_for_it() {
    let mut ports = ConfigPorts::new(bus());
    ports.port_write(0xcfb, &[1]);
    ports.port_write(0xcf8, &0x8000_0000u32.to_le_bytes());
    assert_eq!(read(&mut ports, 0xcf8, 4), 0x8000_0000);
    assert_eq!(read(&mut ports, 0xcfc, 4), 0x0008_1b36);
    ports.port_write(0xcf8, &0x8000_0008u32.to_le_bytes());
    assert_eq!(read(&mut ports, 0xcfe, 2), 0x0600);
    assert_eq!(read(&mut ports, 0xcff, 1), 0x06);
}

#[test]
fn absent_functions_read_as_ones() {
    let mut ports = ConfigPorts::new(bus());
    for address in [0x8000_0800u32, 0x8000_0100, 0x8001_0000, 0] {
        ports.port_write(0xcf8, &address.to_le_bytes());
        ports.port_write(0xcfc, &[0; 4]);
        assert_eq!(read(&mut ports, 0xcfc, 4), u32::MAX, "{address:#x}");
    }
    assert_eq!(read(&mut ports, 0xcf9, 1), 0xff);
}

#[test]
fn ecam_sees_the_same_registers() {
    let mut ecam = Ecam::new(bus());
    let mut data = [0; 4];
    ecam.mmio_read(0, &mut data);
    assert_eq!(data, [0x36, 0x1b, 0x08, 0x00]);
    ecam.mmio_write(0x3c, &[5]);
    ecam.mmio_read(0x3c, &mut data);
    assert_eq!(data, [5, 0, 0, 0]);
    ecam.mmio_read(0x100, &mut data);
    assert_eq!(data, [0; 4], "no extended capabilities");
    for absent in [0x1000, 0x8000, ECAM_SIZE, u64::MAX] {
        ecam.mmio_read(absent, &mut data);
        assert_eq!(data, [0xff; 4], "{absent:#x}");
        ecam.mmio_write(absent, &data);
    }
}

#[test]
fn state_comes_back() {
    let bus = bus();
    let mut ports = ConfigPorts::new(bus.clone());
    ports.port_write(0xcf8, &u32::MAX.to_le_bytes());
    let state = ports.save();
    assert_eq!(state.address, 0x80ff_fffc);
    assert_eq!(ConfigPorts::restore(bus, &state).save(), state);
    let bridge = HostBridge::new();
    bridge.config_write(0x3c, &[9]);
    assert_eq!(HostBridge::restore(&bridge.save()).unwrap().save(), bridge.save());
}
