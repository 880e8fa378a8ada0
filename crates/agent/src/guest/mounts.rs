//! The mounts that a Linux userland expects.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{FsWord, statfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, unmount};

use super::journal::{Journal, Level};

/// Where the root file system is mounted before it becomes the root.
pub(crate) const NEW_ROOT: &str = "/newroot";

/// A mount of a file system that has no device.
struct VirtualMount {
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    data: &'static str,
}

const SAFE: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC).union(MountFlags::NODEV);

/// What a bare kernel needs before anything else can be seen.
const EARLY: [VirtualMount; 3] = [
    VirtualMount { kind: "devtmpfs", target: "/dev", flags: MountFlags::NOSUID, data: "mode=0755" },
    VirtualMount { kind: "proc", target: "/proc", flags: SAFE, data: "" },
    VirtualMount { kind: "sysfs", target: "/sys", flags: SAFE, data: "" },
];

/// What a userland expects beside that.
const LATE: [VirtualMount; 4] = [
    VirtualMount {
        kind: "tmpfs",
        target: "/run",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        data: "mode=0755",
    },
    VirtualMount {
        kind: "devpts",
        target: "/dev/pts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        data: "newinstance,ptmxmode=666,mode=620,gid=5",
    },
    VirtualMount {
        kind: "tmpfs",
        target: "/dev/shm",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        data: "mode=1777",
    },
    VirtualMount { kind: "cgroup2", target: "/sys/fs/cgroup", flags: SAFE, data: "nsdelegate" },
];

/// What devtmpfs lacks and programs expect (`/dev/stdout` in a shell script, say).
const DEVICE_LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

fn mount_virtual(what: &VirtualMount) -> io::Result<()> {
    let _ = fs::create_dir(what.target);
    let data = CString::new(what.data).unwrap_or_default();
    match mount(what.kind, what.target, what.kind, what.flags, data.as_c_str()) {
        // Busy: the kernel, or an earlier init, has mounted it.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Mounts `/dev`, `/proc` and `/sys`. Gives the first that failed.
pub(crate) fn mount_early() -> Result<(), (&'static str, io::Error)> {
    EARLY.iter().try_for_each(|what| mount_virtual(what).map_err(|error| (what.target, error)))
}

/// Mounts what a userland expects. What fails is told and left out: most programs do without.
pub(crate) fn mount_late(journal: &Journal) {
    for what in &LATE {
        if let Err(error) = mount_virtual(what) {
            journal.say(Level::Error, &format!("{} cannot be mounted: {error}", what.target));
        }
    }
    for (target, link) in DEVICE_LINKS {
        // It may be there already.
        let _ = symlink(target, link);
    }
    if fs::create_dir("/run/lock").is_ok() {
        let _ = fs::set_permissions("/run/lock", fs::Permissions::from_mode(0o1777));
    }
}

/// Mounts the root file system at [`NEW_ROOT`].
pub(crate) fn mount_root(
    device: &str,
    kind: &str,
    options: &str,
    read_only: bool,
) -> io::Result<()> {
    fs::create_dir_all(NEW_ROOT)?;
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, read_only);
    let options = CString::new(options)?;
    Ok(mount(device, NEW_ROOT, kind, flags, options.as_c_str())?)
}

/// Whether the root is the kernel's initial one, in memory: what is deleted there is memory won.
pub(crate) fn root_is_in_memory() -> bool {
    const RAMFS: FsWord = 0x8584_58f6_u32 as FsWord;
    const TMPFS: FsWord = 0x0102_1994;
    statfs("/").is_ok_and(|stat| [RAMFS, TMPFS].contains(&stat.f_type))
}

/// Takes `/dev`, `/proc` and `/sys` along, and makes [`NEW_ROOT`] the root: for process 1, and for
/// all that it will start. (pivot_root(2) cannot leave the kernel's initial root.)
pub(crate) fn switch_root() -> io::Result<()> {
    for VirtualMount { target, .. } in &EARLY {
        let new = format!("{NEW_ROOT}{target}");
        // A read-only root that lacks the directory is told by the move.
        let _ = fs::create_dir(&new);
        mount_move(*target, new.as_str())?;
    }
    std::env::set_current_dir(NEW_ROOT)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    std::env::set_current_dir("/")
}

/// Unmounts what can be, last mounted first, and makes the root read-only.
pub(crate) fn unmount_all() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let targets: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    for target in targets.iter().rev() {
        // `/proc/self/mounts` writes space, tab, newline and backslash in octal; a path with those
        // is left to the kernel's own sync. What is needed until the end stays.
        let kept = ["/", "/dev", "/proc", "/sys"].contains(target) || target.contains('\\');
        if !kept && Path::new(target).is_absolute() {
            let _ = unmount(*target, UnmountFlags::DETACH);
        }
    }
    let flags = MountFlags::RDONLY;
    let _ = rustix::mount::mount_remount("/", flags, c"");
}
