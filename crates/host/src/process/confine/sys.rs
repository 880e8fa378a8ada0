//! The system calls that lead out of a process, by number.

use libc::c_long;

/// Calls that fail: a machine's process has no use for them.
pub(super) const REFUSED: &[c_long] = &[
    // Other programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes, their memory and their descriptors.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    // Whoever listens anywhere. What listens already goes on.
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    // Other views of the file system, and ways around paths.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_mknodat,
    libc::SYS_unshare,
    libc::SYS_setns,
    // Large and seldom used parts of the kernel.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fanotify_init,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_personality,
    // The computer.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
];

/// Of these, the calls that a machine on a network needs: to have sockets, and to say to whom.
pub(super) const OF_NETWORKS: [c_long; 2] = [libc::SYS_connect, libc::SYS_bind];
/// `socket(family, ...)`.
pub(super) const SOCKET: c_long = libc::SYS_socket;
/// `socketpair(family, type, ...)`.
pub(super) const PAIR: c_long = libc::SYS_socketpair;
/// Families of the internet's sockets.
pub(super) const INTERNET: u32 = libc::AF_INET as u32;
pub(super) const INTERNET6: u32 = libc::AF_INET6 as u32;
/// The type of datagram sockets.
pub(super) const DATAGRAM: u64 = libc::SOCK_DGRAM as u64;

/// Signals to a thread: `tgkill(process, thread, signal)`.
pub(super) const WAKE: c_long = libc::SYS_tgkill;

/// The bit that x86-64 kernels which know the x32 ABI set in its system calls' numbers; numbers that
/// other kernels do not have.
pub(super) const OTHER_NUMBERS: c_long = 0x4000_0000;
