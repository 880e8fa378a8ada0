//! Calls that no library offers.
#![expect(unsafe_code, reason = "plain system calls, to see them refused")]

use std::io;

fn done(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

pub(super) fn signal_thread(process: i32, signal: i32) -> io::Result<()> {
    // SAFETY: plain numbers.
    done(unsafe { libc::syscall(libc::SYS_tgkill, process, process, signal) })
}

/// Has the kernel send signals about a descriptor to another process.
pub(super) fn own_descriptor(descriptor: i32, process: i32) -> io::Result<()> {
    // SAFETY: plain numbers.
    done(unsafe { libc::fcntl(descriptor, libc::F_SETOWN, process) }.into())
}

pub(super) fn trace(process: i32) -> io::Result<()> {
    let none = std::ptr::null_mut::<u8>();
    // SAFETY: it reads and writes none of this process's memory.
    done(unsafe { libc::ptrace(libc::PTRACE_ATTACH, process, none, none) })
}

pub(super) fn fork() -> io::Result<()> {
    // SAFETY: a child, should there be one, ends at once.
    let result = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if result == 0 {
        // SAFETY: it is the child.
        unsafe { libc::_exit(0) };
    }
    done(result)
}

pub(super) fn unshare() -> io::Result<()> {
    // SAFETY: plain numbers.
    done(unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into())
}

pub(super) fn type_on_terminal(descriptor: i32, key: u8) -> io::Result<()> {
    // SAFETY: it reads the one byte.
    done(unsafe { libc::ioctl(descriptor, libc::TIOCSTI, &raw const key) }.into())
}

/// Asks for memory to run code in.
pub(super) fn map_to_run() -> io::Result<()> {
    let protection = libc::PROT_READ | libc::PROT_EXEC;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, wherever the host likes, that nobody uses.
    let map = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
    if map == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}
