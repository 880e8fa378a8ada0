use std::io::Write;

use riad_disk::Disk;

use super::*;
use crate::machines::tests::{machines, make, name};

fn disk(text: &str) -> DiskName {
    text.parse().unwrap()
}

fn made(machines: &Machines, text: &str) -> DiskInfo {
    let new = NewDisk { size: Some(1 << 20), from: None };
    machines.create_disk(&disk(text), &new, &mut |_, _| {}).unwrap()
}

fn refused<T: fmt::Debug>(result: Result<T, MachineError>, words: &[&str]) {
    let error = result.unwrap_err().to_string();
    for word in words {
        assert!(error.contains(word), "no {word} in: {error}");
    }
}

#[test]
fn names_fit_into_a_serial_number() {
    for good in ["a", "data-1", &"a".repeat(20)] {
        assert_eq!(disk(good).as_str(), good);
    }
    for bad in ["", "-a", "A", "a_b", "../x", "riad-disk0", &"a".repeat(21)] {
        refused(bad.parse::<DiskName>(), &["lower-case", "at most 20"]);
    }
}

#[test]
fn a_disk_is_made_attached_to_one_machine_detached_and_removed() {
    let (_dir, machines) = machines();
    assert!(machines.disks().unwrap().is_empty());
    assert!(!machines.root().exists(), "looking makes nothing");
    make(&machines, "dev");
    make(&machines, "two");
    let data = made(&machines, "data");
    assert_eq!((data.size, data.machines.len()), (1 << 20, 0));
    assert!(data.allocated < 1 << 20, "a new disk takes no space");
    let mode = fs::metadata(&data.file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let new = NewDisk { size: Some(512), from: None };
    refused(
        machines.create_disk(&disk("data"), &new, &mut |_, _| {}),
        &["already", "disk rm data"],
    );

    machines.attach(&disk("data"), &name("dev"), false).unwrap();
    for to in ["dev", "two"] {
        for read_only in [false, true] {
            let result = machines.attach(&disk("data"), &name(to), read_only);
            refused(result, &["attached to dev", "disk detach data"]);
        }
    }
    refused(machines.remove_disk(&disk("data")), &["attached to dev"]);
    refused(machines.detach(&disk("data"), Some(&name("two"))), &["not attached to machine 'two'"]);
    // A copy has no part in it, and it outlives its machine.
    let copy = machines.clone_machine(&name("dev"), &name("copy")).unwrap();
    assert_eq!(copy.config().unwrap().disks, []);
    machines.rename(&name("dev"), &name("new")).unwrap();
    assert_eq!(machines.disk(&disk("data")).unwrap().machines, [(name("new"), false)]);
    machines.delete(&name("new")).unwrap();
    refused(machines.detach(&disk("data"), None), &["not attached to any machine"]);
    machines.remove_disk(&disk("data")).unwrap();
    refused(machines.disk(&disk("data")), &["no disk 'data'", "disk create data"]);
    refused(machines.detach(&disk("data"), None), &["no disk 'data'"]);
    let left = fs::read_dir(machines.disks_directory()).unwrap().count();
    assert_eq!(left, 0);
}

#[test]
fn several_machines_read_a_disk_that_none_writes() {
    let (_dir, machines) = machines();
    for machine in ["dev", "two"] {
        make(&machines, machine);
    }
    made(&machines, "data");
    machines.attach(&disk("data"), &name("dev"), true).unwrap();
    machines.attach(&disk("data"), &name("two"), true).unwrap();
    refused(machines.detach(&disk("data"), None), &["attached to dev, two", "say which"]);
    let open = |text: &str| {
        let folder = machines.get(&name(text)).unwrap();
        Machines::open_disks(&folder, &folder.config().unwrap())
    };
    let [dev, two] = ["dev", "two"].map(|text| open(text).unwrap());
    assert!(dev[0].read_only() && two[0].label() == Some("data"));
    machines.detach(&disk("data"), Some(&name("dev"))).unwrap();
    machines.detach(&disk("data"), None).unwrap();
    // Machines that run have it still.
    refused(machines.remove_disk(&disk("data")), &["in use"]);
    refused(machines.grow_disk(&disk("data"), 2 << 20), &["in use"]);
    drop((dev, two));
    machines.grow_disk(&disk("data"), 2 << 20).unwrap();
    assert_eq!(machines.disk(&disk("data")).unwrap().size, 2 << 20);
    machines.remove_disk(&disk("data")).unwrap();
}

#[test]
fn a_machine_whose_disk_cannot_be_used_is_told_how_to_start_without() {
    let (_dir, machines) = machines();
    let dev = make(&machines, "dev");
    make(&machines, "two");
    made(&machines, "data");
    machines.attach(&disk("data"), &name("dev"), false).unwrap();
    let open = || Machines::open_disks(&dev, &dev.config().unwrap());
    let held = open().unwrap();
    refused(open(), &["'data'", "in use", "riad disk detach data dev"]);
    drop(held);
    fs::remove_dir_all(machines.disk_folder(&disk("data"))).unwrap();
    refused(open(), &["no disk 'data'", "riad disk detach data dev"]);
    machines.detach(&disk("data"), None).unwrap();
    assert!(open().unwrap().is_empty());
    // More than there are places for.
    for number in 0..Machines::MOST_DISKS {
        made(&machines, &format!("d{number}"));
        machines.attach(&disk(&format!("d{number}")), &name("dev"), false).unwrap();
    }
    made(&machines, "more");
    let result = machines.attach(&disk("more"), &name("dev"), false);
    refused(result, &["16 disks attached", "detach"]);
}

#[test]
fn files_become_disks_and_sizes_are_checked() {
    let (dir, machines) = machines();
    let raw = dir.path().join("raw.img");
    File::create(&raw).unwrap().write_all(&[7; 1000]).unwrap();
    let create = |text: &str, size, from: &Path| {
        let new = NewDisk { size, from: Some(from.to_owned()) };
        machines.create_disk(&disk(text), &new, &mut |_, _| {})
    };
    let made = create("raw", None, &raw).unwrap();
    assert_eq!(made.size, 1024, "whole sectors");
    let bytes = fs::read(&made.file).unwrap();
    assert!(bytes[..1000] == [7; 1000] && bytes[1000..] == [0; 24]);
    assert_eq!(create("big", Some(1 << 30), &raw).unwrap().size, 1 << 30);
    refused(create("less", Some(512), &raw), &["'less'", "only grow"]);
    refused(create("none", None, Path::new("/nonexistent")), &["/nonexistent"]);
    refused(create("none", None, dir.path()), &["directory"]);
    for (size, words) in [(0, "at least"), (1000, "multiple of 512"), (9 << 40, "more than")] {
        let new = NewDisk { size: Some(size), from: None };
        refused(machines.create_disk(&disk("none"), &new, &mut |_, _| {}), &[words]);
    }
    let torn = dir.path().join("torn.qcow2");
    fs::write(&torn, b"QFI\xfb and no more").unwrap();
    refused(create("none", None, &torn), &["torn.qcow2"]);
    // What failed left nothing, and damage is told.
    fs::write(machines.disk_folder(&disk("big")).join(DISK), "{").unwrap();
    let all = machines.disks().unwrap();
    let all: Vec<_> = all.iter().map(|(name, info)| (name.as_str(), info.is_ok())).collect();
    assert_eq!(all, [("big", false), ("raw", true)]);
    machines.remove_disk(&disk("big")).unwrap();
    let left = fs::read_dir(machines.disks_directory()).unwrap().count();
    assert_eq!(left, 1);
}
