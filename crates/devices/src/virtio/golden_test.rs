//! Guest-visible hardware must not drift: the whole bus, as a guest finds it.

use std::sync::Arc;

use riad_network::Cable;
use riad_network::pair::Pair;

use super::*;
use crate::pci::{Apertures, HostBridge, PciBus, slot};

#[derive(Debug)]
struct EmptyDisk;

impl riad_disk::Disk for EmptyDisk {
    fn size(&self) -> u64 {
        1 << 20
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read(&self, _offset: u64, _buf: &mut [u8]) -> Result<(), riad_disk::Error> {
        Ok(())
    }
    fn write(&self, _offset: u64, _buf: &[u8]) -> Result<(), riad_disk::Error> {
        Ok(())
    }
    fn flush(&self) -> Result<(), riad_disk::Error> {
        Ok(())
    }
    fn discard(&self, _offset: u64, _len: u64) -> Result<(), riad_disk::Error> {
        Ok(())
    }
    fn write_zeroes(&self, _offset: u64, _len: u64) -> Result<(), riad_disk::Error> {
        Ok(())
    }
}

/// A change here is a change of the guest's hardware: old snapshots no longer restore, and guests
/// may look for their devices elsewhere. Make it on purpose or not at all.
const GOLDEN: &str = "\
00:00.0 class 060000 rev 00 id 1b36:0008 subsystem 1af4:1100
00:01.0 class 020000 rev 01 id 1af4:1041 subsystem 1af4:0041 bar0 Memory32 0xc0000000+0x8000 cap 11@40 cap 09@4c cap 09@5c cap 09@6c cap 09@7c cap 09@90
00:02.0 class 078000 rev 01 id 1af4:1053 subsystem 1af4:0053 bar0 Memory32 0xc0008000+0x8000 cap 11@40 cap 09@4c cap 09@5c cap 09@6c cap 09@7c cap 09@90
00:03.0 class 078000 rev 01 id 1af4:1043 subsystem 1af4:0043 bar0 Memory32 0xc0010000+0x8000 cap 11@40 cap 09@4c cap 09@5c cap 09@6c cap 09@7c cap 09@90
00:04.0 class ff0000 rev 01 id 1af4:1044 subsystem 1af4:0044 bar0 Memory32 0xc0018000+0x8000 cap 11@40 cap 09@4c cap 09@5c cap 09@6c cap 09@7c cap 09@90
00:08.0 class 018000 rev 01 id 1af4:1042 subsystem 1af4:0042 bar0 Memory32 0xc0020000+0x8000 cap 11@40 cap 09@4c cap 09@5c cap 09@6c cap 09@7c cap 09@90
";

const FEATURES: [(&str, u64, &[u16], u32); 5] = [
    ("virtio-blk", 0x6246, &[256], 60),
    ("virtio-console", 0x1, &[64, 64], 12),
    ("virtio-rng", 0, &[64], 0),
    ("virtio-net", 0x00b7_bbaf, &[256, 256, 64], 12),
    ("virtio-vsock", 0x1, &[256, 256, 16], 8),
];

fn devices() -> [(u8, Box<dyn VirtioDevice>); 5] {
    let [link, _] = Pair::new([[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]], 1500).unwrap();
    [
        (slot::DISK_FIRST, Box::new(Blk::new(Arc::new(EmptyDisk), ""))),
        (slot::CONSOLE, Box::new(Console::new(Box::new(std::io::sink())).0)),
        (slot::RNG, Box::new(Rng::new(Box::new(HostEntropy)))),
        (slot::NET, Box::new(Net::new(Cable::new(link)).0)),
        (slot::VSOCK, Box::new(Vsock::new(vsock::GUEST_CID).0)),
    ]
}

#[test]
fn the_bus_looks_as_it_always_did() {
    let bus = PciBus::new(Apertures {
        memory: 0xc000_0000..0xd000_0000,
        memory64: 0..0,
        ports: 0xc000..0xd000,
    });
    bus.add_device(slot::HOST_BRIDGE, Arc::new(HostBridge::new())).unwrap();
    let mut devices = devices();
    devices.sort_by_key(|(slot, _)| *slot);
    for (slot, device) in devices {
        let messages = Arc::new(driver_test::Messages::default());
        let function = VirtioPci::new(device, driver_test::ram(), messages).unwrap();
        bus.add_device(slot, Arc::new(function)).unwrap();
    }
    assert_eq!(bus.describe(), GOLDEN);
    bus.reset();
    assert_eq!(bus.describe(), GOLDEN);
    let mut queues = [0; 2];
    assert!(bus.mmio_read(0xc000_8012, &mut queues));
    assert_eq!(u16::from_le_bytes(queues), 3, "vsock has three queues");
}

#[test]
fn devices_offer_what_they_always_did() {
    let found = devices().map(|(_, device)| {
        let name = device.device_type().name();
        (name, device.features(), device.queue_sizes().to_vec(), device.config_len())
    });
    let golden = FEATURES.map(|(name, features, sizes, len)| (name, features, sizes.to_vec(), len));
    assert_eq!(found, golden);
}
