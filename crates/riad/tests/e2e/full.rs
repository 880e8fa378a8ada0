//! Machines in a folder on a file system that has no room, or is read-only. It takes the right to mount
//! one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::{end_to_end, text};
use crate::home::Home;

/// A file system of its own, in memory, which can be made smaller and larger.
struct Small(tempfile::TempDir);

impl Small {
    /// `None` where this user may not mount.
    fn new() -> Option<Self> {
        let small = Self(tempfile::tempdir().unwrap());
        small.mount(&["-t", "tmpfs", "-o", "size=4G", "riad-test"]).then_some(small)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn mount(&self, arguments: &[&str]) -> bool {
        let mut mount = Command::new("mount");
        mount.args(arguments).arg(self.path()).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success())
    }

    /// Leaves so many KiB free.
    fn leave(&self, free: u64) {
        let stat = rustix::fs::statvfs(self.path()).unwrap();
        let used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize / 1024;
        assert!(self.mount(&["-o", &format!("remount,size={}k", used + free)]));
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

macro_rules! small {
    () => {
        match Small::new() {
            Some(small) => small,
            None => {
                eprintln!("not run: this user may not mount a file system of its own");
                return;
            }
        }
    };
}

/// What the machine says it waits for.
fn waits(home: &Home) -> Option<String> {
    home.json(&["info", "dev"])["run"]["waits"].as_str().map(str::to_owned)
}

#[test]
fn a_guest_waits_for_room_on_the_host_and_loses_nothing() {
    end_to_end!();
    let small = small!();
    let home = Home::within(small.path());
    home.create("dev", &["--boot", "agent"]);
    home.ok(&["start", "dev"]);
    small.leave(16 << 10);
    let write = "head -c 64M /dev/urandom >/root/big; sha256sum </root/big; sync; echo written";
    let child = home.command(&["exec", "dev", "--", "sh", "-c", write]).spawn().unwrap();
    home.soon("word of the full disk", || waits(&home).is_some());
    let said = waits(&home).unwrap();
    assert!(said.contains("no room") && said.contains("disk.layer"), "{said}");
    // It is told to people, too; and only the disk stands still.
    assert!(home.ok(&["ls"]).contains("running, waits"));
    assert!(home.ok(&["why", "dev"]).contains("no room"));
    assert_eq!(home.shell("dev", "echo fine"), "fine\n");
    small.leave(1 << 20);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let written = text(&output.stdout);
    home.soon("word of room", || waits(&home).is_none());
    let again = "echo 3 >/proc/sys/vm/drop_caches; sha256sum </root/big; echo written";
    assert_eq!(home.shell("dev", again), written);
    assert_eq!(home.shell("dev", "dmesg | grep -c 'I/O error' || true"), "0\n");

    // The plug can be pulled while it waits; what was synced is there.
    small.leave(8 << 10);
    let write = "head -c 64M /dev/urandom >/root/more; sync";
    let child = home.command(&["exec", "dev", "--", "sh", "-c", write]).spawn().unwrap();
    home.soon("word of the full disk", || waits(&home).is_some());
    home.ok(&["stop", "--force", "dev"]);
    assert!(!child.wait_with_output().unwrap().status.success());
    // A start that finds no room says so, and leaves a machine that can be started. It may find as much
    // as it needs in what it replaces of the start before.
    small.leave(0);
    let start = home.run(&["start", "dev"]);
    if start.status.success() {
        home.ok(&["stop", "--force", "dev"]);
    } else {
        let said = text(&start.stderr);
        assert_eq!(start.status.code(), Some(125), "{said}");
        assert!(said.contains("make room"), "{said}");
    }
    small.leave(1 << 20);
    home.ok(&["start", "dev"]);
    assert_eq!(home.shell("dev", again), written);
    home.shell("dev", "sync; mount -o remount,ro / && e2fsck -fn /dev/vda");
}

#[test]
fn a_folder_that_cannot_be_written_is_read_and_told() {
    end_to_end!();
    let small = small!();
    let home = Home::within(small.path());
    home.create("dev", &["--boot", "agent"]);
    assert!(small.mount(&["-o", "remount,ro"]));
    assert_eq!(home.state("dev"), "stopped");
    assert!(home.ok(&["ls"]).contains("dev"));
    let changes: [&[&str]; 5] = [
        &["start", "dev"],
        &["set", "dev", "--cpus", "2"],
        &["rename", "dev", "other"],
        &["delete", "--yes", "dev"],
        &["create", "another", "--image", crate::harness::IMAGE],
    ];
    for words in changes {
        let said = home.fails(words);
        assert!(said.contains("ead-only") && said.contains("RIAD_MACHINES"), "{words:?}: {said}");
    }
    assert!(small.mount(&["-o", "remount,rw"]));
    home.ok(&["start", "dev"]);
    assert_eq!(home.shell("dev", "echo fine"), "fine\n");
}

#[test]
fn a_disk_that_somebody_else_writes_to_is_not_started_on() {
    end_to_end!();
    let home = Home::new();
    home.create("dev", &["--boot", "agent"]);
    let layer: PathBuf = home.folder("dev").join("disk.layer");
    let other = std::fs::File::options().read(true).write(true).open(layer).unwrap();
    other.try_lock().unwrap();
    let said = home.fails(&["start", "dev"]);
    assert!(said.contains("in use by another process"), "{said}");
    assert_eq!(home.run(&["info", "dev"]).status.code(), Some(0));
    drop(other);
    home.ok(&["start", "dev"]);
    assert_eq!(home.shell("dev", "echo fine"), "fine\n");
}
