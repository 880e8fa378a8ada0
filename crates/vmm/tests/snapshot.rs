//! State is data (wall 4): a machine stopped anywhere goes on in another process, and the guest
//! cannot tell.

mod guest;
mod output;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use output::Output;
use riad_network::Cable;
use riad_network::pair::Pair;
use riad_vmm::{CpuModel, Ending, EngineKind, Guest, Snapshot, Vm, VmConfig};

/// Names the folder of the snapshot that the child process is to go on from.
const RESTORE: &str = "RIAD_TEST_RESTORE";
const STEPS: u32 = 12;
const LIMIT: Duration = Duration::from_secs(120);

fn text(output: &Output) -> String {
    String::from_utf8(output.bytes().clone()).unwrap()
}

fn config() -> VmConfig {
    let [link, _] = Pair::new([[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]], 1500).unwrap();
    let cables = vec![Cable::new(link)];
    VmConfig { memory: 16 << 20, cables, vsock: true, debug_exit: true, ..VmConfig::default() }
}

fn our_guest() -> Guest {
    Guest { kernel_name: "snapshot-test".into(), kernel: guest::kernel(STEPS), ..Guest::default() }
}

fn expected_ending() -> Ending {
    Ending::DebugExit(guest::EXIT << 1 | 1)
}

/// A run without interruption: what was printed, and how many instructions it took.
fn reference() -> (String, u64) {
    let output = Output::default();
    // The interpreter always counts.
    let config = VmConfig { engine: EngineKind::SoftInterpreter, ..config() };
    let vm = Vm::start(&config, &our_guest(), &output.console()).unwrap();
    assert_eq!(vm.wait(Some(LIMIT)), Some(expected_ending()), "{}", text(&output));
    vm.pause();
    (text(&output), vm.instructions().unwrap())
}

/// Goes on from a snapshot until the end; returns what was printed from there on.
fn go_on(folder: &Path) -> String {
    let (snapshot, memory) = Snapshot::read(folder).unwrap();
    let output = Output::default();
    let vm = Vm::restore(&config(), snapshot, memory, &output.console()).unwrap();
    vm.resume();
    assert_eq!(vm.wait(Some(LIMIT)), Some(expected_ending()), "{}", text(&output));
    text(&output)
}

/// The child's part; in the parent it is a test that does nothing.
#[test]
fn child_goes_on_from_a_snapshot() {
    let Some(folder) = std::env::var_os(RESTORE).map(PathBuf::from) else { return };
    let printed = go_on(&folder);
    std::fs::write(folder.join("printed"), printed).unwrap();
}

fn go_on_in_a_new_process(folder: &Path) -> String {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_goes_on_from_a_snapshot"])
        .env(RESTORE, folder)
        .status()
        .unwrap();
    assert!(status.success());
    std::fs::read_to_string(folder.join("printed")).unwrap()
}

#[test]
fn a_machine_stopped_at_any_instruction_goes_on_in_a_new_process() {
    let (whole, length) = reference();
    assert_eq!(whole.lines().count(), STEPS as usize);
    // Arbitrary but repeatable places, from the first instructions to the last.
    let places = [1, 7, length / 97, length / 13, length / 5, length / 2, length - length / 11];
    for place in places {
        let output = Output::default();
        let vm = Vm::start_paused(&config(), &our_guest(), &output.console()).unwrap();
        assert!(vm.advance(place).unwrap(), "the guest ended before instruction {place}");
        let folder = tempfile::tempdir().unwrap();
        vm.save().unwrap().write(vm.memory(), folder.path()).unwrap();
        drop(vm);
        let rest = go_on_in_a_new_process(folder.path());
        assert_eq!(text(&output) + &rest, whole, "stopped at instruction {place}");
    }
}

#[test]
fn saving_again_and_again_changes_nothing() {
    let (whole, length) = reference();
    let output = Output::default();
    let mut vm = Vm::start_paused(&config(), &our_guest(), &output.console()).unwrap();
    let mut stops = 0;
    while vm.advance(length / 23).unwrap() {
        let snapshot = vm.save().unwrap();
        let folder = tempfile::tempdir().unwrap();
        snapshot.write(vm.memory(), folder.path()).unwrap();
        let (read, memory) = Snapshot::read(folder.path()).unwrap();
        assert_eq!(read, snapshot, "what is read is what was written");
        vm = Vm::restore(&config(), read, memory, &output.console()).unwrap();
        assert_eq!(vm.save().unwrap().vcpus[0].gpr, snapshot.vcpus[0].gpr);
        stops += 1;
        if text(&output) == whole {
            break;
        }
    }
    assert!(stops > 10);
    assert_eq!(text(&output), whole);
}

#[test]
fn a_running_machine_is_paused_saved_and_goes_on() {
    let (whole, _) = reference();
    let output = Output::default();
    let vm = Vm::start(&config(), &our_guest(), &output.console()).unwrap();
    std::thread::sleep(Duration::from_millis(3));
    vm.pause();
    let folder = tempfile::tempdir().unwrap();
    vm.save().unwrap().write(vm.memory(), folder.path()).unwrap();
    let so_far = text(&output);
    // Both go on: the original, and its copy.
    let copy = go_on_in_a_new_process(folder.path());
    assert_eq!(so_far + &copy, whole);
    if text(&output) != whole {
        vm.resume();
        assert_eq!(vm.wait(Some(LIMIT)), Some(expected_ending()));
    }
    assert_eq!(text(&output), whole);
}

#[test]
fn a_machine_hops_between_engines() {
    if let Err(error) = riad_vmm::choose_engine(EngineKind::Kvm) {
        eprintln!("nothing hops here: {error}");
        return;
    }
    let (whole, _) = reference();
    let output = Output::default();
    let on = |engine| VmConfig { engine, ..config() };
    // On KVM first: software has counters of any frequency, and not every processor has.
    let mut vm = Vm::start(&on(EngineKind::Kvm), &our_guest(), &output.console()).unwrap();
    let mut ending = None;
    for engine in [EngineKind::Soft, EngineKind::Kvm].into_iter().cycle().take(40) {
        ending = vm.wait(Some(Duration::from_millis(2)));
        vm.pause();
        ending = ending.or_else(|| vm.wait(Some(Duration::ZERO)));
        if ending.is_some() {
            break;
        }
        let folder = tempfile::tempdir().unwrap();
        vm.save().unwrap().write(vm.memory(), folder.path()).unwrap();
        drop(vm);
        let (snapshot, memory) = Snapshot::read(folder.path()).unwrap();
        vm = Vm::restore(&on(engine), snapshot, memory, &output.console()).unwrap();
        vm.resume();
    }
    let ending = ending.or_else(|| vm.wait(Some(LIMIT)));
    assert_eq!(ending, Some(expected_ending()), "{}", text(&output));
    assert_eq!(text(&output), whole);
}

#[test]
fn snapshots_of_the_hosts_own_processor_are_tied_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let vm = Vm::start_paused(&config(), &our_guest(), &Output::default().console()).unwrap();
    let mut snapshot = vm.save().unwrap();
    assert_eq!((snapshot.cpu, &snapshot.host_cpu), (CpuModel::Riad, &None), "not unless asked for");
    snapshot.cpu = CpuModel::Host;
    snapshot.host_cpu = Some(vec![[0, 0, 0xffff, 1, 2, 3]]);
    snapshot.write(vm.memory(), folder.path()).unwrap();
    for engine in [EngineKind::Soft, EngineKind::Kvm] {
        let (snapshot, memory) = Snapshot::read(folder.path()).unwrap();
        let config = VmConfig { engine, ..config() };
        let refused = Vm::restore(&config, snapshot, memory, &Output::default().console());
        let error = refused.err().expect("another processor").to_string();
        let words = if engine == EngineKind::Soft { "--engine kvm" } else { "" };
        assert!(error.contains(words), "{error}");
        let has_kvm = riad_vmm::choose_engine(EngineKind::Kvm).is_ok();
        assert!(engine == EngineKind::Soft || !has_kvm || error.contains("--cpu host"), "{error}");
    }
}

#[test]
fn damaged_snapshots_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Snapshot::read(folder.path()).is_err(), "nothing there");
    let vm = Vm::start_paused(&config(), &our_guest(), &Output::default().console()).unwrap();
    vm.save().unwrap().write(vm.memory(), folder.path()).unwrap();
    let state = folder.path().join(Snapshot::STATE);
    let good = std::fs::read_to_string(&state).unwrap();
    std::fs::write(&state, &good[..good.len() / 2]).unwrap();
    assert!(Snapshot::read(folder.path()).unwrap_err().to_string().contains("damaged"));
    std::fs::write(&state, good.replacen("\"version\":1", "\"version\":99", 1)).unwrap();
    assert!(Snapshot::read(folder.path()).unwrap_err().to_string().contains("newer"));
    std::fs::write(&state, good).unwrap();
    std::fs::File::options()
        .write(true)
        .open(folder.path().join(Snapshot::MEMORY))
        .unwrap()
        .set_len(4096)
        .unwrap();
    assert!(Snapshot::read(folder.path()).is_err(), "memory cut short");
}

#[test]
fn a_saved_network_card_needs_a_network() {
    let output = Output::default();
    let vm = Vm::start_paused(&config(), &our_guest(), &output.console()).unwrap();
    let snapshot = vm.save().unwrap();
    let folder = tempfile::tempdir().unwrap();
    snapshot.write(vm.memory(), folder.path()).unwrap();
    let without = VmConfig { cables: Vec::new(), ..config() };
    let (snapshot, memory) = Snapshot::read(folder.path()).unwrap();
    let error = Vm::restore(&without, snapshot, memory, &output.console()).err().unwrap();
    assert!(matches!(error, riad_vmm::Error::NoCable(1)), "{error}");
    // One that was saved without a card has none, whatever there is to plug it into.
    let vm = Vm::start_paused(&without, &our_guest(), &output.console()).unwrap();
    assert!(vm.devices().cards().is_empty());
    vm.save().unwrap().write(vm.memory(), folder.path()).unwrap();
    let (snapshot, memory) = Snapshot::read(folder.path()).unwrap();
    let vm = Vm::restore(&config(), snapshot, memory, &output.console()).unwrap();
    assert!(vm.devices().cards().is_empty());
}

#[test]
fn a_machine_has_several_network_cards_and_takes_each_along() {
    let output = Output::default();
    let cards = |count: usize| VmConfig {
        cables: (0..count).flat_map(|_| config().cables).collect(),
        ..config()
    };
    let vm = Vm::start_paused(&cards(3), &our_guest(), &output.console()).unwrap();
    assert_eq!(vm.devices().cards().len(), 3);
    vm.devices().cards()[1].plug(false);
    let folder = tempfile::tempdir().unwrap();
    vm.save().unwrap().write(vm.memory(), folder.path()).unwrap();
    drop(vm);
    let (snapshot, memory) = Snapshot::read(folder.path()).unwrap();
    let error = Vm::restore(&cards(2), snapshot, memory, &output.console()).err().unwrap();
    assert!(matches!(error, riad_vmm::Error::NoCable(3)), "{error}");
    let (snapshot, memory) = Snapshot::read(folder.path()).unwrap();
    let vm = Vm::restore(&cards(3), snapshot, memory, &output.console()).unwrap();
    assert_eq!(
        vm.devices().cards().iter().map(|card| card.up()).collect::<Vec<_>>(),
        [true, false, true]
    );
    let error = Vm::start_paused(&cards(9), &our_guest(), &output.console()).err().unwrap();
    assert!(matches!(error, riad_vmm::Error::Cables(9, 5)), "{error}");
}
