//! Linux's numbers, and the little that only Linux does.
#![expect(unsafe_code, reason = "descriptors and variables that no value of this process owns")]

use std::ffi::{CStr, c_char};

use libc::c_long;

/// System calls by their numbers.
#[allow(non_upper_case_globals, reason = "the kernel's names")]
pub(crate) mod nr {
    use libc::c_long;

    macro_rules! numbers {
        ($($name:ident = $number:ident;)*) => {
            $(pub(crate) const $name: c_long = libc::$number;)*
        };
    }

    numbers! {
        accept4 = SYS_accept4;
        bind = SYS_bind;
        brk = SYS_brk;
        clock_getres = SYS_clock_getres;
        clock_gettime = SYS_clock_gettime;
        clock_nanosleep = SYS_clock_nanosleep;
        clone = SYS_clone;
        clone3 = SYS_clone3;
        close = SYS_close;
        connect = SYS_connect;
        epoll_create1 = SYS_epoll_create1;
        epoll_ctl = SYS_epoll_ctl;
        epoll_pwait = SYS_epoll_pwait;
        eventfd2 = SYS_eventfd2;
        exit = SYS_exit;
        exit_group = SYS_exit_group;
        fallocate = SYS_fallocate;
        fcntl = SYS_fcntl;
        fdatasync = SYS_fdatasync;
        flock = SYS_flock;
        fstat = SYS_fstat;
        fsync = SYS_fsync;
        ftruncate = SYS_ftruncate;
        fchmod = SYS_fchmod;
        futex = SYS_futex;
        getdents64 = SYS_getdents64;
        getpid = SYS_getpid;
        getrandom = SYS_getrandom;
        getsockopt = SYS_getsockopt;
        gettid = SYS_gettid;
        gettimeofday = SYS_gettimeofday;
        getuid = SYS_getuid;
        ioctl = SYS_ioctl;
        lseek = SYS_lseek;
        madvise = SYS_madvise;
        membarrier = SYS_membarrier;
        memfd_create = SYS_memfd_create;
        mkdirat = SYS_mkdirat;
        mmap = SYS_mmap;
        mprotect = SYS_mprotect;
        mremap = SYS_mremap;
        munmap = SYS_munmap;
        nanosleep = SYS_nanosleep;
        newfstatat = SYS_newfstatat;
        openat = SYS_openat;
        pipe2 = SYS_pipe2;
        ppoll = SYS_ppoll;
        prctl = SYS_prctl;
        pread64 = SYS_pread64;
        preadv = SYS_preadv;
        preadv2 = SYS_preadv2;
        pwrite64 = SYS_pwrite64;
        pwritev = SYS_pwritev;
        read = SYS_read;
        readlinkat = SYS_readlinkat;
        readv = SYS_readv;
        recvfrom = SYS_recvfrom;
        recvmsg = SYS_recvmsg;
        renameat = SYS_renameat;
        renameat2 = SYS_renameat2;
        restart_syscall = SYS_restart_syscall;
        rseq = SYS_rseq;
        rt_sigaction = SYS_rt_sigaction;
        rt_sigprocmask = SYS_rt_sigprocmask;
        rt_sigreturn = SYS_rt_sigreturn;
        rt_sigtimedwait = SYS_rt_sigtimedwait;
        sched_getaffinity = SYS_sched_getaffinity;
        sched_yield = SYS_sched_yield;
        seccomp = SYS_seccomp;
        sendmsg = SYS_sendmsg;
        sendto = SYS_sendto;
        set_robust_list = SYS_set_robust_list;
        set_tid_address = SYS_set_tid_address;
        setsockopt = SYS_setsockopt;
        shutdown = SYS_shutdown;
        sigaltstack = SYS_sigaltstack;
        socket = SYS_socket;
        socketpair = SYS_socketpair;
        statx = SYS_statx;
        sysinfo = SYS_sysinfo;
        tgkill = SYS_tgkill;
        timer_create = SYS_timer_create;
        timer_delete = SYS_timer_delete;
        timer_settime = SYS_timer_settime;
        unlinkat = SYS_unlinkat;
        write = SYS_write;
        writev = SYS_writev;
    }

    // Calls that only the oldest architectures have, which C libraries still make there.
    #[cfg(target_arch = "x86_64")]
    numbers! {
        epoll_wait = SYS_epoll_wait;
        lstat = SYS_lstat;
        mkdir = SYS_mkdir;
        open = SYS_open;
        poll = SYS_poll;
        readlink = SYS_readlink;
        rename = SYS_rename;
        rmdir = SYS_rmdir;
        stat = SYS_stat;
        unlink = SYS_unlink;
    }

    // Elsewhere they are the calls that took their place.
    #[cfg(not(target_arch = "x86_64"))]
    numbers! {
        epoll_wait = SYS_epoll_pwait;
        lstat = SYS_newfstatat;
        mkdir = SYS_mkdirat;
        open = SYS_openat;
        poll = SYS_ppoll;
        readlink = SYS_readlinkat;
        rename = SYS_renameat2;
        rmdir = SYS_unlinkat;
        stat = SYS_newfstatat;
        unlink = SYS_unlinkat;
    }
}

/// Calls that fail as if the kernel did not know them, so that the C library makes another.
pub(crate) const UNKNOWN: [c_long; 1] = [nr::clone3];

/// `ENOSYS`: there is no such call.
pub(crate) const ENOSYS: u32 = libc::ENOSYS as u32;
/// `EPERM`: you may not.
pub(crate) const EPERM: u32 = libc::EPERM as u32;

/// The bits of socket(2)'s type that are the type.
pub(crate) const SOCKET_TYPE: u32 = 0xf;
pub(crate) const CLONE_THREAD: u32 = libc::CLONE_THREAD as u32;
pub(crate) const FIONBIO: u32 = libc::FIONBIO as u32;
pub(crate) const TCGETS: u32 = libc::TCGETS as u32;
pub(crate) const TCSETS: u32 = libc::TCSETS as u32;
pub(crate) const TCSETSW: u32 = libc::TCSETSW as u32;
pub(crate) const TCSETSF: u32 = libc::TCSETSF as u32;
pub(crate) const TCGETS2: u32 = libc::TCGETS2 as u32;
pub(crate) const TCSETS2: u32 = libc::TCSETS2 as u32;
pub(crate) const TCSETSW2: u32 = libc::TCSETSW2 as u32;
pub(crate) const TCSETSF2: u32 = libc::TCSETSF2 as u32;
pub(crate) const TIOCGWINSZ: u32 = libc::TIOCGWINSZ as u32;
/// `_IOW('T', 208, unsigned int)` (`linux/if_tun.h`).
pub(crate) const TUNSETOFFLOAD: u32 = 0x4004_54d0;
/// How the standard library opens a file to read it.
pub(crate) const READ_ONLY: u32 = (libc::O_RDONLY | libc::O_CLOEXEC).cast_unsigned();
/// The letter of KVM's requests (`KVMIO` in `linux/kvm.h`).
pub(crate) const KVMIO: u32 = 0xae;

/// Closes descriptors that this process began with.
pub(crate) fn close(descriptors: &[i32]) {
    for descriptor in descriptors {
        // SAFETY: it was open before the process's first value was made, so that none owns it, and
        // it has been open since, so that its number is no other's.
        unsafe { libc::close(*descriptor) };
    }
}

/// Overwrites the variables of the environment but for those named, where they lie and in the table
/// of them. For a process with one thread.
pub(crate) fn forget_environment(but: &[&str]) {
    unsafe extern "C" {
        static mut environ: *mut *mut c_char;
    }
    // SAFETY: the table is the C library's, ends with a null pointer, and has strings that lie in
    // memory that can be written: the process's first stack, or the heap. Nobody reads or changes it
    // meanwhile, as there is one thread.
    unsafe {
        let mut from = environ;
        let mut to = environ;
        while !from.is_null() && !(*from).is_null() {
            let variable = *from;
            let text = CStr::from_ptr(variable).to_bytes();
            let is_kept = but.iter().any(|name| {
                text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
            });
            if is_kept {
                *to = variable;
                to = to.add(1);
            } else {
                let len = text.len();
                variable.write_bytes(0, len);
            }
            from = from.add(1);
        }
        if !to.is_null() {
            *to = std::ptr::null_mut();
        }
    }
}
