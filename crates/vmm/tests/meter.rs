//! What a machine uses is known from outside, while it runs and after.

mod guest;

use std::sync::Arc;
use std::time::Duration;

use riad_disk::MemDisk;
use riad_vmm::{BlkCounts, Console, Guest, Vm, VmConfig};

#[test]
fn a_machine_that_computes_uses_a_processor_and_no_disk() {
    let config = VmConfig {
        memory: 16 << 20,
        debug_exit: true,
        disks: vec![Arc::new(MemDisk::new(1 << 20).unwrap())],
        ..VmConfig::default()
    };
    let kernel =
        Guest { kernel_name: "meter".into(), kernel: guest::kernel(12), ..Guest::default() };
    let vm = Vm::start_paused(&config, &kernel, &Console::new(None, None)).unwrap();
    let meter = vm.meter();
    let before = meter.read();
    assert_eq!((before.vcpus.len(), &before.disks[..]), (1, &[BlkCounts::default()][..]));
    vm.resume();
    assert!(vm.wait(Some(Duration::from_secs(120))).is_some());
    vm.pause();
    let after = meter.read();
    assert!(after.uptime > before.uptime, "{after:?}");
    // Nobody promises that the thread is still there to be asked, but it was while it ran.
    assert!(after.vcpus[0] >= before.vcpus[0] || after.vcpus[0] == Duration::ZERO, "{after:?}");
    assert_eq!(after.disks, before.disks);
    drop(vm);
    assert_eq!(meter.read().vcpus, [Duration::ZERO], "a thread that has ended is not asked");
}
