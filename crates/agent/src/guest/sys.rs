//! The system calls that `rustix` has no safe form for.
#![expect(
    unsafe_code,
    reason = "fork, signal masks and vsock addresses exist only as C interfaces"
)]

use std::ffi::{CStr, c_char, c_int};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// `result` as a result: -1 is the error in `errno`.
fn check(result: c_int) -> io::Result<c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Sends signal `signo` to process `pid`, or to the group `-pid`.
pub(crate) fn kill(pid: i32, signo: c_int) -> io::Result<()> {
    // SAFETY: kill takes plain numbers and touches no memory.
    check(unsafe { libc::kill(pid, signo) }).map(drop)
}

/// Gives every signal its default action, which children then inherit, and blocks SIGPIPE: writing
/// to a closed pipe is an error here, and a death in children (who start with nothing blocked).
pub(crate) fn default_signals() -> io::Result<()> {
    for signo in 1..=64 {
        // SIGKILL and SIGSTOP cannot be set, and 32 and 33 are libc's own. Rust's guard-page messages
        // hang on SIGSEGV and SIGBUS, and exec resets handlers anyway.
        let kept = [libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV, libc::SIGBUS, 32, 33];
        if kept.contains(&signo) {
            continue;
        }
        // SAFETY: SIG_DFL is a valid action of every signal in the range.
        if unsafe { libc::signal(signo, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    block(&[libc::SIGPIPE]).map(drop)
}

fn block(signals: &[c_int]) -> io::Result<libc::sigset_t> {
    // SAFETY: a sigset_t is plain memory; sigemptyset makes it a valid set before it is used, the
    // signals are valid numbers, and the pointers live across the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for &signo in signals {
            libc::sigaddset(&mut set, signo);
        }
        check(libc::sigprocmask(libc::SIG_BLOCK, &set, ptr::null_mut()))?;
        Ok(set)
    }
}

/// Blocks SIGCHLD and gives a non-blocking descriptor that is readable when one came.
pub(crate) fn child_signals() -> io::Result<OwnedFd> {
    let set = block(&[libc::SIGCHLD])?;
    // SAFETY: `set` is a valid set for the length of the call; the descriptor is new and ours.
    unsafe {
        let fd = check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// The process number of a child that ended and was not yet reaped; it stays unreaped.
pub(crate) fn ended_child() -> io::Result<Option<i32>> {
    // SAFETY: siginfo_t is plain memory that waitid fills; `si_pid` is the member that it sets, and
    // it stays zero if no child ended.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        check(libc::waitid(libc::P_ALL, 0, &mut info, options))?;
        Ok(Some(info.si_pid()).filter(|pid| *pid != 0))
    }
}

/// What a child does between fork and exec. All memory it needs is made before the fork.
#[derive(Debug)]
pub(crate) struct ChildPlan<'a> {
    /// Becomes standard input, output and error.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// Make standard input the controlling terminal.
    pub(crate) terminal: bool,
    /// Who it becomes; nobody else when `None`.
    pub(crate) identity: Option<Identity<'a>>,
    /// Directories to try to enter; the first that can be is where it runs.
    pub(crate) directories: &'a [&'a CStr],
    /// Paths to try to execute.
    pub(crate) programs: &'a [&'a CStr],
    /// The command's arguments, its name first.
    pub(crate) arguments: &'a [&'a CStr],
    /// `NAME=VALUE`.
    pub(crate) environment: &'a [&'a CStr],
    /// Where a failure is told; closed by a successful exec.
    pub(crate) status: BorrowedFd<'a>,
}

/// The user and groups of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity<'a> {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: &'a [u32],
}

/// What of a [`ChildPlan`] failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChildStep {
    Prepare,
    Identity,
    Directory,
    Execute,
}

/// What a child writes to its status pipe when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChildFailure {
    pub(crate) step: ChildStep,
    pub(crate) errno: i32,
}

impl ChildFailure {
    pub(crate) const LEN: usize = 5;

    fn to_bytes(self) -> [u8; Self::LEN] {
        let [a, b, c, d] = self.errno.to_le_bytes();
        [self.step as u8, a, b, c, d]
    }

    pub(crate) fn from_bytes([step, errno @ ..]: [u8; Self::LEN]) -> Self {
        let step = match step {
            1 => ChildStep::Identity,
            2 => ChildStep::Directory,
            3 => ChildStep::Execute,
            _ => ChildStep::Prepare,
        };
        Self { step, errno: i32::from_le_bytes(errno) }
    }
}

/// Forks a child that follows `plan`. Gives its process number.
pub(crate) fn spawn(plan: &ChildPlan<'_>) -> io::Result<i32> {
    let pointers = |strings: &[&CStr]| -> Vec<*const c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let arguments = pointers(plan.arguments);
    let environment = pointers(plan.environment);
    // A script without `#!` is the shell's to run: `/bin/sh PATH ARGUMENTS...`. The path is filled
    // in when it is known.
    let mut script = vec![c"/bin/sh".as_ptr(), ptr::null()];
    script.extend(arguments.iter().skip(1));
    if arguments.len() < 2 {
        script.push(ptr::null());
    }
    // SAFETY: this program has one thread, so that the child's copy of the heap and of libc's locks
    // is whole; the child only makes system calls, execs or exits.
    match check(unsafe { libc::fork() })? {
        0 => {
            // SAFETY: the three lists end in null and point to strings of `plan`, which lives.
            let failure = unsafe { become_child(plan, &arguments, &environment, &mut script) };
            let _ = rustix::io::write(plan.status, &failure.to_bytes());
            // SAFETY: _exit takes a number and does not return.
            unsafe { libc::_exit(127) }
        }
        pid => Ok(pid),
    }
}

/// Follows the plan; returns only if it failed.
///
/// # Safety
/// To be called in a forked child. The lists end in null and their strings are alive.
unsafe fn become_child(
    plan: &ChildPlan<'_>,
    arguments: &[*const c_char],
    environment: &[*const c_char],
    script: &mut [*const c_char],
) -> ChildFailure {
    let failed = |step| {
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
        ChildFailure { step, errno }
    };
    // SAFETY: plain system calls on numbers, on descriptors of `plan`, and on its strings.
    unsafe {
        if libc::setsid() == -1 {
            return failed(ChildStep::Prepare);
        }
        let [input, ..] = plan.stdio;
        if plan.terminal && libc::ioctl(input.as_raw_fd(), libc::TIOCSCTTY, 0) == -1 {
            return failed(ChildStep::Prepare);
        }
        for (fd, number) in plan.stdio.iter().zip(0 as RawFd..) {
            if libc::dup2(fd.as_raw_fd(), number) == -1 {
                return failed(ChildStep::Prepare);
            }
        }
        if let Some(Identity { uid, gid, groups }) = plan.identity
            && (libc::setgroups(groups.len(), groups.as_ptr()) == -1
                || libc::setgid(gid) == -1
                || libc::setuid(uid) == -1)
        {
            return failed(ChildStep::Identity);
        }
        if !plan.directories.iter().any(|path| libc::chdir(path.as_ptr()) == 0) {
            return failed(ChildStep::Directory);
        }
        libc::umask(0o022);
        // What the agent's own parent may have left open is none of the command's business.
        let flags = libc::CLOSE_RANGE_CLOEXEC as libc::c_long;
        libc::syscall(
            libc::SYS_close_range,
            3 as libc::c_long,
            libc::c_long::from(u32::MAX),
            flags,
        );
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());

        // As execvp(3) does it: go on where a path is not there, remember where one was forbidden.
        let mut errno = libc::ENOENT;
        for program in plan.programs {
            // An exec that fails makes an address space first, which a look does not.
            if plan.programs.len() > 1 && libc::access(program.as_ptr(), libc::F_OK) == -1 {
                if io::Error::last_os_error().raw_os_error() == Some(libc::EACCES) {
                    errno = libc::EACCES;
                }
                continue;
            }
            libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr());
            let mut error = io::Error::last_os_error().raw_os_error().unwrap_or(0);
            if error == libc::ENOEXEC {
                script[1] = program.as_ptr();
                libc::execve(script[0], script.as_ptr(), environment.as_ptr());
                error = libc::ENOEXEC;
            }
            match error {
                libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {}
                libc::EACCES => errno = error,
                _ => {
                    errno = error;
                    break;
                }
            }
        }
        ChildFailure { step: ChildStep::Execute, errno }
    }
}

/// Forks; gives whether this is the child.
pub(crate) fn fork() -> io::Result<bool> {
    // SAFETY: this program has one thread, so that the child's copy is whole and may go on.
    check(unsafe { libc::fork() }).map(|pid| pid == 0)
}

/// A vsock address in the form that all socket calls share, and its length.
fn vsock_address(cid: u32, port: u32) -> (libc::sockaddr_vm, libc::socklen_t) {
    // SAFETY: sockaddr_vm is plain memory, and zero is a valid value of each of its fields.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    (address, size_of::<libc::sockaddr_vm>() as libc::socklen_t)
}

fn vsock_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket takes plain numbers; the descriptor is new and ours.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::socket(libc::AF_VSOCK, kind, 0))?)) }
}

/// A non-blocking socket that listens on a vsock port.
pub(crate) fn vsock_listen(port: u32) -> io::Result<OwnedFd> {
    let socket = vsock_socket()?;
    let (address, length) = vsock_address(libc::VMADDR_CID_ANY, port);
    // SAFETY: the address is valid for `length` bytes across both calls.
    unsafe {
        check(libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length))?;
        check(libc::listen(socket.as_raw_fd(), 128))?;
    }
    Ok(socket)
}

/// A non-blocking socket that connects to the host's vsock port: writable once it did or failed.
pub(crate) fn vsock_connect(port: u32) -> io::Result<OwnedFd> {
    let socket = vsock_socket()?;
    let (address, length) = vsock_address(libc::VMADDR_CID_HOST, port);
    // SAFETY: the address is valid for `length` bytes across the call.
    match check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) }) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// Whether the host is at the other end of a vsock connection. Other ends there can be: this
/// machine itself, if it has the loopback transport, and machines that run inside it.
pub(crate) fn vsock_peer_is_host(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let (mut address, mut length) = vsock_address(0, 0);
    // SAFETY: the address has room for `length` bytes and both live across the call.
    check(unsafe {
        libc::getpeername(socket.as_raw_fd(), (&raw mut address).cast(), &mut length)
    })?;
    Ok(address.svm_cid == libc::VMADDR_CID_HOST)
}

/// Brings a network interface up.
pub(crate) fn interface_up(name: &CStr) -> io::Result<()> {
    // SAFETY: ifreq is plain memory and zero is valid; the name is cut to leave its NUL; both calls
    // read and write that one ifreq, whose flags the first call sets.
    unsafe {
        let socket = OwnedFd::from_raw_fd(check(libc::socket(
            libc::AF_INET,
            libc::SOCK_DGRAM | libc::SOCK_CLOEXEC,
            0,
        ))?);
        let mut request: libc::ifreq = std::mem::zeroed();
        let room = request.ifr_name.len() - 1;
        for (to, from) in request.ifr_name.iter_mut().zip(name.to_bytes().iter().take(room)) {
            *to = *from as c_char;
        }
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &mut request))?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &mut request)).map(drop)
    }
}
