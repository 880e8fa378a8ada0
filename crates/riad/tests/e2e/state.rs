//! A running boot of Debian's kernel, stopped anywhere, goes on in a new process (wall 4).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use riad_disk::RawDisk;
use riad_vmm::{Console, Ending, EngineKind, Guest, Snapshot, Vm, VmConfig};

use crate::harness;

/// Names the folder of the snapshot that the child process is to go on from.
const RESTORE: &str = "RIAD_E2E_RESTORE";
const LIMIT: Duration = Duration::from_secs(300);
/// The root file system is mounted, and its `uname` is the first and last process: when it exits the
/// kernel panics, and the machine resets.
const CMDLINE: &str = "console=ttyS0 quiet printk.time=0 panic=-1 mitigations=off nokaslr \
    init_on_alloc=0 cryptomgr.notests audit=0 random.trust_cpu=on riad.root=/dev/vda ro riad.ro \
    riad.timescale=10 riad.init=/usr/bin/uname";

#[derive(Clone, Default)]
pub(crate) struct Output(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Output {
    pub(crate) fn console(&self) -> Console {
        Console::new(Some(Box::new(self.clone())), None)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// The image's directory: kernel, initramfs, root file system.
pub(crate) fn files() -> PathBuf {
    harness::run(&[], &["true"]);
    let images = std::fs::read_dir(harness::cache().join("images")).unwrap();
    let mut found: Vec<_> = images.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.join("rootfs.ext4").exists());
    found.sort();
    found.remove(0)
}

fn config(files: &Path) -> VmConfig {
    let disk = RawDisk::open(&files.join("rootfs.ext4"), true).unwrap();
    VmConfig { memory: 256 << 20, vsock: true, disks: vec![Arc::new(disk)], ..VmConfig::default() }
}

pub(crate) fn guest(files: &Path) -> Guest {
    let entries = std::fs::read_dir(files).unwrap().map(|entry| entry.unwrap().path());
    let is_initramfs =
        |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("initramfs"));
    let initramfs = entries.into_iter().find(is_initramfs).unwrap();
    Guest {
        kernel_name: "vmlinuz".into(),
        kernel: std::fs::read(files.join("vmlinuz")).unwrap(),
        cmdline: CMDLINE.into(),
        modules: vec![("initramfs".into(), std::fs::read(initramfs).unwrap())],
    }
}

/// What the guest printed before it panicked, without what depends on timing alone.
fn words(printed: &str) -> Vec<String> {
    let lines = printed.lines().map(|line| line.trim().to_owned());
    lines.take_while(|line| !line.contains("Kernel panic")).collect()
}

/// The child's part; in the parent it is a test that does nothing.
#[test]
fn child_goes_on_with_a_boot() {
    let Some(folder) = std::env::var_os(RESTORE).map(PathBuf::from) else { return };
    let files = files();
    let (snapshot, memory) = Snapshot::read(&folder).unwrap();
    let output = Output::default();
    let vm = Vm::restore(&config(&files), snapshot, memory, &output.console()).unwrap();
    vm.resume();
    let ending = vm.wait(Some(LIMIT));
    std::fs::write(folder.join("printed"), output.text()).unwrap();
    assert_eq!(ending, Some(Ending::Reset), "{}", output.text());
}

#[test]
fn a_boot_stopped_anywhere_goes_on_in_a_new_process() {
    if !harness::is_wanted() {
        return;
    }
    let files = files();
    let whole = Output::default();
    // Which counts; the others take as many instructions.
    let interpreted = VmConfig { engine: EngineKind::SoftInterpreter, ..config(&files) };
    let vm = Vm::start(&interpreted, &guest(&files), &whole.console()).unwrap();
    assert_eq!(vm.wait(Some(LIMIT)), Some(Ending::Reset), "{}", whole.text());
    vm.pause();
    let length = vm.instructions().unwrap();
    drop(vm);
    let expected = words(&whole.text());
    assert!(expected.iter().any(|line| line == "Linux"), "{expected:?}");
    for place in [length / 37, length / 4, length / 2, length - length / 5] {
        let output = Output::default();
        let vm = Vm::start_paused(&config(&files), &guest(&files), &output.console()).unwrap();
        assert!(vm.advance(place).unwrap(), "the boot ended before instruction {place}");
        let folder = tempfile::tempdir().unwrap();
        vm.save().unwrap().write(vm.memory(), folder.path()).unwrap();
        drop(vm);
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "state::child_goes_on_with_a_boot"])
            .env(RESTORE, folder.path())
            .status()
            .unwrap();
        assert!(status.success(), "the boot stopped at instruction {place} does not go on");
        let rest = std::fs::read_to_string(folder.path().join("printed")).unwrap();
        assert_eq!(words(&(output.text() + &rest)), expected, "stopped at instruction {place}");
    }
}
