//! Groups of system calls, each with the reason that somebody needs them.

use libc::c_long;

use crate::sys::{self, nr};

/// When a call is allowed. What is compared are the low 32 bits of an argument, but for
/// [`Null`](Self::Null).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// With any arguments.
    Always,
    /// When argument `arg`, less the bits that are not in `mask`, is `is`.
    Masked {
        /// The argument, from 0.
        arg: u8,
        /// Bits that are looked at.
        mask: u32,
        /// What they must be.
        is: u32,
    },
    /// When argument `arg` is this process's own number.
    Own {
        /// The argument, from 0.
        arg: u8,
    },
    /// When the pointer that is argument `arg` is null.
    Null {
        /// The argument, from 0.
        arg: u8,
    },
    /// When all of these are so. Not nested.
    All(&'static [When]),
}

/// A system call by its number, and when it is allowed.
pub(crate) type Call = (c_long, When);

use When::{All, Always, Masked, Null, Own};

const fn equals(arg: u8, is: u32) -> When {
    Masked { arg, mask: u32::MAX, is }
}

/// `PROT_EXEC` is not among what argument 2 asks of a mapping.
const NOT_TO_RUN: When = Masked { arg: 2, mask: libc::PROT_EXEC as u32, is: 0 };

/// Running at all: waiting for other threads, knowing the time, drawing random seeds for tables,
/// returning from signal handlers, and ending.
pub(crate) const LIFE: &[Call] = &[
    (nr::futex, Always),
    (nr::sched_yield, Always),
    (nr::restart_syscall, Always),
    // The clock, where the kernel does not lend it without a call.
    (nr::clock_gettime, Always),
    (nr::clock_getres, Always),
    (nr::gettimeofday, Always),
    (nr::clock_nanosleep, Always),
    (nr::nanosleep, Always),
    (nr::getrandom, Always),
    (nr::getpid, Always),
    (nr::gettid, Always),
    (nr::getuid, Always),
    // How much memory the host has.
    (nr::sysinfo, Always),
    // Signal handlers: the C library's and the runtime's own, which a thread's end takes down.
    (nr::rt_sigreturn, Always),
    (nr::rt_sigaction, Always),
    (nr::rt_sigprocmask, Always),
    (nr::sigaltstack, Always),
    (nr::exit, Always),
    (nr::exit_group, Always),
];

/// The heap. No memory to run code in: an engine has that from whoever made it.
pub(crate) const MEMORY: &[Call] = &[
    (nr::brk, Always),
    (nr::mmap, NOT_TO_RUN),
    (nr::mprotect, NOT_TO_RUN),
    (nr::munmap, Always),
    (nr::mremap, Always),
    (nr::madvise, Always),
    // Translated code that changes: every processor of this process is to see it.
    (nr::membarrier, Always),
];

/// Writing to what is open: logs and panics, the console, eventfds that wake other threads.
pub(crate) const WRITE: &[Call] = &[(nr::write, Always), (nr::writev, Always)];

/// Reading from what is open, waiting for it, and closing it.
pub(crate) const READ: &[Call] = &[
    (nr::read, Always),
    (nr::readv, Always),
    (nr::poll, Always),
    (nr::ppoll, Always),
    (nr::close, Always),
];

/// Descriptors that lead nowhere but to other threads, for whoever starts and stops devices: a
/// processor does, on its guest's behalf.
pub(crate) const EVENTS: &[Call] = &[
    (nr::eventfd2, Always),
    (nr::epoll_create1, Always),
    (nr::epoll_ctl, Always),
    (nr::epoll_wait, Always),
    (nr::epoll_pwait, Always),
    (nr::close, Always),
];

/// Signals between threads of this process: a thread that is wanted back from KVM, or that aborts.
pub(crate) const SIGNAL_OWN: &[Call] = &[(nr::tgkill, Own { arg: 0 })];

/// What a processor does to disks that are open: requests that take no time it serves itself.
pub(crate) const SHORT_DISK: &[Call] =
    &[(nr::pread64, Always), (nr::preadv2, Always), (nr::pwrite64, Always), (nr::pwritev, Always)];

/// Disks that are open.
pub(crate) const DISK: &[Call] = &[
    (nr::pread64, Always),
    (nr::pwrite64, Always),
    (nr::preadv, Always),
    (nr::preadv2, Always),
    (nr::pwritev, Always),
    (nr::lseek, Always),
    (nr::fallocate, Always),
    (nr::fdatasync, Always),
    (nr::fsync, Always),
    (nr::ftruncate, Always),
    (nr::fstat, Always),
];

/// Streams that are open, and new ones that have both ends in this process. A stream's end goes where
/// it was made to go: no address is taken (a socket for datagrams would take one, and find whoever
/// listens on this computer), so none of these leads to anybody new.
pub(crate) const STREAMS: &[Call] = &[
    (nr::socketpair, Masked { arg: 1, mask: sys::SOCKET_TYPE, is: libc::SOCK_STREAM as u32 }),
    (nr::sendto, Null { arg: 4 }),
    (nr::recvfrom, Always),
    (nr::shutdown, Always),
    (nr::ioctl, equals(1, sys::FIONBIO)),
    // Of fcntl(2) what asks for or sets flags of descriptors, and copies them. Not F_SETOWN and its
    // like, with which the kernel sends signals.
    (nr::fcntl, equals(1, libc::F_GETFL as u32)),
    (nr::fcntl, equals(1, libc::F_SETFL as u32)),
    (nr::fcntl, equals(1, libc::F_GETFD as u32)),
    (nr::fcntl, equals(1, libc::F_SETFD as u32)),
    (nr::fcntl, equals(1, libc::F_DUPFD_CLOEXEC as u32)),
];

/// A socket that listens already: its callers, and descriptors that are handed to them.
pub(crate) const SERVE: &[Call] = &[
    (nr::accept4, Always),
    (nr::sendmsg, Always),
    (nr::recvmsg, Always),
    (nr::setsockopt, equals(2, libc::SO_RCVTIMEO as u32)),
    (nr::setsockopt, equals(2, libc::SO_SNDTIMEO as u32)),
];

/// The switch of a named network: who comes to its socket, and how the last that goes takes that socket
/// along, while nobody else looks for it.
pub(crate) const SWITCH: &[Call] =
    &[(nr::accept4, Always), (nr::flock, Always), (nr::unlink, Always), (nr::unlinkat, Always)];

/// A card whose other end is a tap device: what the guest takes of it.
pub(crate) const TAP: &[Call] = &[(nr::ioctl, equals(1, sys::TUNSETOFFLOAD))];

/// A socket of the internet's, for streams or datagrams: not for packets, which would come under any
/// address, nor of another family.
const fn internet(family: i32, kind: i32) -> [When; 2] {
    [
        equals(0, family.unsigned_abs()),
        Masked { arg: 1, mask: sys::SOCKET_TYPE, is: kind.unsigned_abs() },
    ]
}

const fn option(level: i32, name: i32) -> [When; 2] {
    [equals(1, level.unsigned_abs()), equals(2, name.unsigned_abs())]
}

/// The internet, for a guest's network: sockets that are connected to others, or have been given to
/// listen. None is made to listen for streams here (no listen(2)). Where they lead is for the network's
/// policy to say, and that is the only thing that says so.
pub(crate) const INTERNET: &[Call] = &[
    (nr::socket, All(&internet(libc::AF_INET, libc::SOCK_STREAM))),
    (nr::socket, All(&internet(libc::AF_INET, libc::SOCK_DGRAM))),
    (nr::socket, All(&internet(libc::AF_INET6, libc::SOCK_STREAM))),
    (nr::socket, All(&internet(libc::AF_INET6, libc::SOCK_DGRAM))),
    (nr::connect, Always),
    // Whether an address is this computer's own is what bind(2) knows. Landlock refuses TCP's.
    (nr::bind, Always),
    (nr::accept4, Always),
    // Datagrams that are answered to whoever sent some.
    (nr::sendto, Always),
    (nr::getsockopt, All(&option(libc::SOL_SOCKET, libc::SO_ERROR))),
    (nr::setsockopt, All(&option(libc::SOL_SOCKET, libc::SO_KEEPALIVE))),
    (nr::setsockopt, All(&option(libc::SOL_SOCKET, libc::SO_LINGER))),
    (nr::setsockopt, All(&option(libc::IPPROTO_TCP, libc::TCP_NODELAY))),
    (nr::setsockopt, All(&option(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE))),
];

/// Which name servers the host asks, again and again, as that changes. Landlock lets this file be
/// opened, and what else the process has files for.
pub(crate) const RESOLVERS: &[Call] = &[
    (nr::openat, equals(2, sys::READ_ONLY)),
    (nr::open, equals(1, sys::READ_ONLY)),
    (nr::statx, Always),
    (nr::newfstatat, Always),
    (nr::stat, Always),
    (nr::fstat, Always),
];

/// Files by name. Landlock says which; nothing of it says that something has no name, so whether a
/// file exists, and how long it is, can be asked of any.
pub(crate) const FILES: &[Call] = &[
    (nr::openat, Always),
    (nr::open, Always),
    (nr::statx, Always),
    (nr::newfstatat, Always),
    (nr::stat, Always),
    (nr::lstat, Always),
    (nr::getdents64, Always),
    (nr::renameat, Always),
    (nr::renameat2, Always),
    (nr::rename, Always),
    (nr::unlinkat, Always),
    (nr::unlink, Always),
    (nr::flock, Always),
];

/// Directories, and the modes of files, below what Landlock leaves.
pub(crate) const TREES: &[Call] =
    &[(nr::mkdirat, Always), (nr::mkdir, Always), (nr::rmdir, Always), (nr::fchmod, Always)];

/// Guest memory and code memory: files that have no name.
pub(crate) const NEW_MACHINE: &[Call] = &[
    (nr::memfd_create, Always),
    (nr::ftruncate, Always),
    (nr::pipe2, Always),
    (nr::statx, equals(2, libc::AT_EMPTY_PATH as u32)),
    (nr::newfstatat, equals(3, libc::AT_EMPTY_PATH as u32)),
];

/// Memory to run code in, for an engine that translates.
pub(crate) const NEW_CODE: &[Call] = &[(nr::mmap, Always), (nr::mprotect, Always)];

/// Threads of this process, and no other processes: what a new thread calls before it knows what it
/// is for, too.
pub(crate) const NEW_THREADS: &[Call] = &[
    (nr::clone, Masked { arg: 0, mask: sys::CLONE_THREAD, is: sys::CLONE_THREAD }),
    // Its flags lie in memory, where no filter can read them: `sys::UNKNOWN` has it fail in the way
    // that has the C library take the call above.
    (nr::clone3, Always),
    (nr::set_robust_list, Always),
    (nr::rseq, Always),
    (nr::set_tid_address, Always),
    (nr::sched_getaffinity, Always),
    (nr::prctl, equals(0, libc::PR_SET_NAME as u32)),
    // Giving up more.
    (nr::prctl, equals(0, libc::PR_SET_NO_NEW_PRIVS as u32)),
    (nr::seccomp, equals(0, libc::SECCOMP_SET_MODE_FILTER)),
];

/// The program's own file, which has the names that backtraces are told with: for the thread that tells
/// them, where they are wanted.
pub(crate) const TRACE: &[Call] = &[
    (nr::openat, Always),
    (nr::open, Always),
    (nr::readlink, Always),
    (nr::readlinkat, Always),
    (nr::statx, Always),
    (nr::fstat, Always),
];

/// The terminal's modes and its size. Not TIOCSTI and TIOCLINUX, which type into it, so that whoever
/// started this process would execute it.
pub(crate) const TERMINAL: &[Call] = &[
    (nr::ioctl, equals(1, sys::TCGETS)),
    (nr::ioctl, equals(1, sys::TCSETS)),
    (nr::ioctl, equals(1, sys::TCSETSW)),
    (nr::ioctl, equals(1, sys::TCSETSF)),
    (nr::ioctl, equals(1, sys::TCGETS2)),
    (nr::ioctl, equals(1, sys::TCSETS2)),
    (nr::ioctl, equals(1, sys::TCSETSW2)),
    (nr::ioctl, equals(1, sys::TCSETSF2)),
    (nr::ioctl, equals(1, sys::TIOCGWINSZ)),
];

/// What KVM is asked (all of its requests have one letter), forgetting the signal that called a
/// processor back from it, and the timers that end a processor's turn where KVM emulates.
pub(crate) const KVM: &[Call] = &[
    (nr::ioctl, Masked { arg: 1, mask: 0xff00, is: sys::KVMIO << 8 }),
    (nr::rt_sigtimedwait, Always),
    (nr::timer_create, Always),
    (nr::timer_settime, Always),
    (nr::timer_delete, Always),
];

/// `/dev/kvm`, and the list of the kernel's modules, which tells the kinds of KVM apart; Landlock names
/// both.
pub(crate) const OPEN_KVM: &[Call] =
    &[(nr::openat, Always), (nr::open, Always), (nr::getdents64, Always)];
