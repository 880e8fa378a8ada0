use std::os::unix::fs::symlink;

use riad_vmm::{CpuModel, EngineKind};

use super::*;
use crate::journal::{Reader, Wanted};
use crate::machines::config::new_id;

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) fn machines() -> (tempfile::TempDir, Machines) {
    let dir = tempfile::tempdir().unwrap();
    let machines = Machines::in_directory(dir.path().join("machines"));
    (dir, machines)
}

/// A machine without an image: what there is to a folder.
pub(super) fn make(machines: &Machines, text: &str) -> Folder {
    let draft = machines.draft().unwrap();
    Layer::create(&draft.path.join(DISK), 0, 1 << 20).unwrap();
    let config = MachineConfig {
        schema: MachineConfig::SCHEMA,
        id: new_id(),
        created: now(),
        image: MachineImage { id: "none".to_owned(), name: "none".to_owned() },
        cpus: 1,
        memory: 1 << 30,
        disk: 1 << 20,
        engine: EngineKind::Auto,
        cpu: CpuModel::Riad,
        code_cache: 64 << 20,
        boot: Boot::Auto,
        network: Network::default(),
        publish: Vec::new(),
        protected: false,
        guest: GuestSetup::default(),
        disks: Vec::new(),
        networks: Vec::new(),
    };
    files::write_json(&draft.path.join(CONFIG), &config).unwrap();
    machines.publish(draft, &name(text)).unwrap()
}

fn names(machines: &Machines) -> Vec<String> {
    machines.names().unwrap().iter().map(Name::to_string).collect()
}

#[test]
fn names_are_host_names() {
    for good in ["a", "dev", "web-1", "0x", &"a".repeat(63)] {
        assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
    }
    let long = "a".repeat(64);
    for bad in ["", "-a", "a-", "A", "a.b", "a_b", "../x", "ä", "a b", "a\n", &long] {
        let error = bad.parse::<Name>().unwrap_err().to_string();
        assert!(error.contains("lower-case"), "{error}");
    }
}

#[test]
fn nothing_there_is_no_error_and_nothing_is_made() {
    let (dir, machines) = machines();
    assert_eq!(names(&machines), [""; 0]);
    let error = machines.get(&name("dev")).unwrap_err();
    assert!(error.to_string().contains("riad create dev"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_machine_is_made_renamed_cloned_and_deleted() {
    let (_dir, machines) = machines();
    let dev = make(&machines, "dev");
    assert_eq!(dev.state().unwrap(), State::Stopped);
    assert!(matches!(machines.check_free(&name("dev")), Err(MachineError::Exists(_))));
    machines.clone_machine(&name("dev"), &name("two")).unwrap();
    let (one, two) = (dev.config().unwrap(), machines.get(&name("two")).unwrap().config().unwrap());
    assert_ne!(one.id, two.id);
    let error = machines.rename(&name("dev"), &name("two")).unwrap_err();
    assert!(matches!(error, MachineError::Exists(_)), "{error}");
    machines.rename(&name("dev"), &name("old")).unwrap();
    assert_eq!(names(&machines), ["old", "two"]);
    assert!(matches!(dev.config(), Err(MachineError::NoSuchMachine(_))));
    assert!(matches!(dev.lock(), Err(MachineError::NoSuchMachine(_))));
    machines.delete(&name("old")).unwrap();
    machines.delete(&name("two")).unwrap();
    assert_eq!(names(&machines), [""; 0]);
    let mut left: Vec<_> =
        fs::read_dir(&machines.root).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".events.jsonl", ".lock"]);
    // What was done to them is known all the same.
    let wanted = Wanted { machine: Some(name("old")), since: 0 };
    let entries = Reader::new(machines, wanted).read().unwrap();
    let events: Vec<_> = entries.iter().map(|entry| entry.event.as_str()).collect();
    assert_eq!(events, ["renamed", "deleted"]);
}

#[test]
fn a_machine_that_lives_is_not_moved_deleted_or_cloned() {
    let (_dir, machines) = machines();
    let dev = make(&machines, "dev");
    let alive = dev.live().unwrap();
    assert_eq!(dev.state().unwrap(), State::Starting);
    for error in [
        machines.delete(&name("dev")).unwrap_err(),
        machines.rename(&name("dev"), &name("new")).unwrap_err(),
        machines.clone_machine(&name("dev"), &name("new")).unwrap_err(),
    ] {
        assert!(error.to_string().contains("riad stop dev"), "{error}");
    }
    let error = dev.live().unwrap_err();
    assert!(error.to_string().contains("has a process already"), "{error}");
    drop(alive);
    assert_eq!(dev.state().unwrap(), State::Stopped);
}

#[test]
fn a_killed_process_is_known_by_its_lock() {
    let (_dir, machines) = machines();
    let dev = make(&machines, "dev");
    let mut run = RunState {
        schema: RunState::SCHEMA,
        pid: 1,
        engine: "soft".to_owned(),
        cpus: 1,
        memory: 1 << 30,
        began: 0,
        reboots: 0,
        phase: Phase::Running,
        stage: "running".to_owned(),
        stages: Vec::new(),
        system: None,
        disks: Vec::new(),
        confined: Vec::new(),
        warnings: Vec::new(),
        waits: None,
        ended: None,
    };
    dev.write_run_state(&run).unwrap();
    // Process 1 is alive, and none of ours: only the lock counts.
    assert_eq!(dev.state().unwrap(), State::Killed);
    let alive = dev.live().unwrap();
    assert_eq!(dev.state().unwrap(), State::Running);
    drop(alive);
    run.phase = Phase::Ended;
    let ended = |how| Some(Ended { at: 0, how, message: String::new(), console: Vec::new() });
    for (how, state) in [
        (How::PoweredOff, State::Stopped),
        (How::Forced, State::Stopped),
        (How::Failed, State::Failed),
    ] {
        run.ended = ended(how);
        dev.write_run_state(&run).unwrap();
        assert_eq!(dev.state().unwrap(), state);
    }
}

#[test]
fn protection_holds() {
    let (_dir, machines) = machines();
    let dev = make(&machines, "dev");
    let config = dev.config().unwrap();
    dev.write_config(&MachineConfig { protected: true, ..config.clone() }).unwrap();
    let error = machines.delete(&name("dev")).unwrap_err();
    assert!(error.to_string().contains("riad unprotect dev"), "{error}");
    dev.write_config(&config).unwrap();
    machines.delete(&name("dev")).unwrap();
}

#[test]
fn a_newer_schema_says_what_to_do_and_an_unknown_field_does_no_harm() {
    let (_dir, machines) = machines();
    let dev = make(&machines, "dev");
    let path = dev.path().join(CONFIG);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"schema\": 1", "\"schema\": 1, \"more\": true")).unwrap();
    dev.config().unwrap();
    fs::write(&path, "{\"schema\": 2}").unwrap();
    let error = dev.config().unwrap_err().to_string();
    assert!(error.contains("newer Riad") && error.contains("machine.json"), "{error}");
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    let error = dev.config().unwrap_err().to_string();
    assert!(error.contains("damaged") && error.contains("machine.json"), "{error}");
    // What cannot be read can be deleted.
    machines.delete(&name("dev")).unwrap();
}

#[test]
fn what_interrupted_commands_left_is_swept_and_what_is_in_use_is_not() {
    let (_dir, machines) = machines();
    let dev = make(&machines, "dev");
    let root = machines.root.clone();
    for left in [".new-1", ".gone-1"] {
        fs::create_dir(root.join(left)).unwrap();
    }
    fs::create_dir_all(root.join(".images/none")).unwrap();
    fs::create_dir_all(root.join(".images/unused")).unwrap();
    // Somebody makes a machine right now; whose image is not known yet, so all are kept.
    let draft = machines.draft().unwrap();
    machines.sweep().unwrap();
    assert!(draft.path.exists() && root.join(".images/unused").exists());
    assert!(!root.join(".new-1").exists() && !root.join(".gone-1").exists());
    drop(draft);
    machines.sweep().unwrap();
    assert!(root.join(".images/none").exists() && !root.join(".images/unused").exists());
    drop(dev);
}

#[test]
fn what_is_no_folder_is_no_machine() {
    let (_dir, machines) = machines();
    make(&machines, "dev");
    fs::write(machines.root.join("file"), "").unwrap();
    symlink(machines.root.join("dev"), machines.root.join("link")).unwrap();
    for text in ["file", "link"] {
        assert!(matches!(machines.get(&name(text)), Err(MachineError::NoSuchMachine(_))));
    }
    assert_eq!(names(&machines), ["dev"]);
}

#[test]
fn two_commands_at_once_take_turns() {
    let (_dir, machines) = machines();
    make(&machines, "dev");
    // All of them want the one name; one gets it, and the others are told.
    let results: Vec<_> = std::thread::scope(|scope| {
        let rename = || scope.spawn(|| machines.rename(&name("dev"), &name("new")));
        let threads: Vec<_> = (0..8).map(|_| rename()).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    assert_eq!(names(&machines), ["new"]);
}

#[test]
fn a_read_only_folder_is_said_to_be() {
    let machines = Machines::in_directory(PathBuf::from("/proc/riad"));
    let error = machines.draft().unwrap_err().to_string();
    assert!(error.contains("/proc/riad"), "{error}");
}
