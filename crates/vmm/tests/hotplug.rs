//! Network cards and disks come and go while a machine runs, if its guest does its part; also from a
//! snapshot, and on every engine.

mod guest;
mod output;

use std::sync::Arc;
use std::time::{Duration, Instant};

use output::Output;
use riad_disk::{Disk, MemDisk};
use riad_network::Cable;
use riad_network::pair::Pair;
use riad_vmm::{EngineKind, Error, Guest, Snapshot, Vm, VmConfig};

const LIMIT: Duration = Duration::from_secs(60);

/// Waits until the guest has written this, and forgets it.
fn expect(output: &Output, what: &str) {
    let deadline = Instant::now() + LIMIT;
    while *output.bytes() != what.as_bytes() {
        let said = String::from_utf8_lossy(&output.bytes()).into_owned();
        assert!(Instant::now() < deadline, "the guest wrote {said:?} and not {what:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    output.bytes().clear();
}

fn cable(last: u8) -> Cable {
    let [link, _] = Pair::new([[2, 0, 0, 0, 0, last], [2, 0, 0, 0, 1, last]], 1500).unwrap();
    Cable::new(link)
}

fn config(engine: EngineKind) -> VmConfig {
    VmConfig { memory: 16 << 20, engine, cables: vec![cable(1)], ..VmConfig::default() }
}

fn guest_that_listens() -> Guest {
    let kernel = guest::plugging_kernel();
    Guest { kernel_name: "hotplug-test".into(), kernel, ..Guest::default() }
}

fn come_and_go(engine: EngineKind) {
    let output = Output::default();
    let vm = Vm::start(&config(engine), &guest_that_listens(), &output.console()).unwrap();
    let devices = vm.devices();
    expect(&output, "r");
    let macs = || devices.cards().iter().map(|card| card.mac()[5]).collect::<Vec<_>>();
    for last in 2..=5 {
        devices.plug_card(cable(last)).unwrap();
        expect(&output, "+");
    }
    assert_eq!(macs(), [1, 2, 3, 4, 5]);
    let error = devices.plug_card(cable(6)).unwrap_err();
    assert!(matches!(error, Error::NoSlot("network card")), "{error}");
    devices.unplug_card(cable(3).mac(), LIMIT).unwrap();
    expect(&output, "-");
    assert_eq!(macs(), [1, 2, 4, 5]);
    let error = devices.unplug_card(cable(3).mac(), LIMIT).unwrap_err();
    assert!(matches!(error, Error::NoDevice("network card")), "{error}");
    // Its place is free again, as often as one likes.
    for _ in 0..3 {
        devices.plug_card(cable(6)).unwrap();
        expect(&output, "+");
        devices.unplug_card(cable(6).mac(), LIMIT).unwrap();
        expect(&output, "-");
    }
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(1 << 20).unwrap());
    devices.plug_disk(&disk).unwrap();
    expect(&output, "+");
    assert_eq!((devices.disks().len(), vm.meter().read().disks.len()), (1, 1));

    // A snapshot has what was plugged in, and wants as much to be restored with.
    vm.pause();
    let folder = tempfile::tempdir().unwrap();
    vm.save().unwrap().write(vm.memory(), folder.path()).unwrap();
    drop(vm);
    assert!(matches!(devices.plug_card(cable(7)), Err(Error::Ended)));
    let restore = |config: &VmConfig| {
        let (snapshot, memory) = Snapshot::read(folder.path()).unwrap();
        Vm::restore(config, snapshot, memory, &output.console())
    };
    let error = restore(&config(engine)).err().unwrap();
    assert!(matches!(error, Error::Disks(0, 1)), "{error}");
    let cables = [1, 2, 4, 5].map(cable).into();
    let vm = restore(&VmConfig { cables, disks: vec![disk], ..config(engine) }).unwrap();
    vm.resume();
    let devices = vm.devices();
    assert_eq!((devices.cards().len(), devices.disks().len()), (4, 1));
    devices.unplug_card(cable(5).mac(), LIMIT).unwrap();
    expect(&output, "-");
    devices.plug_card(cable(8)).unwrap();
    expect(&output, "+");
}

#[test]
fn cards_and_disks_come_and_go_while_a_machine_runs() {
    come_and_go(EngineKind::Soft);
}

#[test]
fn cards_and_disks_come_and_go_on_kvm() {
    match riad_vmm::choose_engine(EngineKind::Kvm) {
        Ok(_) => come_and_go(EngineKind::Kvm),
        Err(error) => eprintln!("no KVM here: {error}"),
    }
}

#[test]
fn a_guest_that_does_nothing_keeps_what_it_has_and_is_told_of_nothing() {
    let output = Output::default();
    let vm = Vm::start_paused(&config(EngineKind::Soft), &guest_that_listens(), &output.console());
    let vm = vm.unwrap();
    let devices = vm.devices();
    // It has not run yet, and listens to nothing.
    let error = devices.plug_card(cable(2)).unwrap_err();
    assert!(error.to_string().contains("does not listen"), "{error}");
    vm.resume();
    expect(&output, "r");
    vm.pause();
    // A paused machine lets nothing go, and has what is plugged in once it runs.
    let error = devices.unplug_card(cable(1).mac(), Duration::from_millis(300)).unwrap_err();
    assert!(matches!(error, Error::Held { .. }), "{error}");
    devices.plug_card(cable(2)).unwrap();
    assert_eq!(devices.cards().len(), 2);
    vm.resume();
    expect(&output, "+");
}
