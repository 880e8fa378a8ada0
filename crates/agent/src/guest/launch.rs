//! Starting a command: from a request to a process of which only the exec is still unsure.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use riad_agent::protocol::{ExecRequest, Failure, FailureKind, TtyRequest};
use rustix::fs::{Gid, Uid, fchown};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::sys::{self, ChildFailure, ChildPlan, ChildStep, Identity};
use super::users::{self, Account};

/// Where commands are looked for if the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process that was forked.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) pid: i32,
    /// Ends without a byte if the exec succeeded, and holds a [`ChildFailure`] if not.
    pub(crate) status: OwnedFd,
    /// Our ends of its streams, all non-blocking. With a terminal, the first two are its master.
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: Option<OwnedFd>,
}

/// Forks a child for `request`.
///
/// # Errors
/// What the host is to be told.
pub(crate) fn launch(request: &ExecRequest) -> Result<Launched, Failure> {
    let Some(name) = request.argv.first().filter(|name| !name.is_empty()) else {
        return Err(failure(FailureKind::NotFound, 0, "the command is empty".into()));
    };
    let account = users::look_up(request.user.as_deref().unwrap_or("root"))
        .map_err(|error| failure(FailureKind::BadUser, 0, error.to_string()))?;
    let environment = environment(request, &account);
    let path = environment.get(OsStr::new("PATH"));
    let programs = candidates(name, path.map_or(OsStr::new(DEFAULT_PATH), OsString::as_os_str));
    let directories = match &request.cwd {
        Some(cwd) => vec![c_string(cwd)],
        None => vec![c_string(OsStr::new(&account.home)), c"/".to_owned()],
    };
    let arguments: Vec<CString> = request.argv.iter().map(|text| c_string(text)).collect();
    let environment: Vec<CString> = environment
        .iter()
        .map(|(name, value)| {
            let mut text = name.clone();
            text.push("=");
            text.push(value);
            c_string(&text)
        })
        .collect();
    fn borrow(strings: &[CString]) -> Vec<&CStr> {
        strings.iter().map(CString::as_c_str).collect()
    }

    let streams = match &request.tty {
        Some(tty) => Streams::terminal(tty, &account),
        None => Streams::pipes(request.stdin, &account),
    }
    .map_err(|error| other("the command's streams cannot be made", &error))?;
    let (status, child_status) = pipe_with(PipeFlags::CLOEXEC)
        .map_err(|error| other("the command's streams cannot be made", &error.into()))?;
    let plan = ChildPlan {
        stdio: streams.child_stdio(),
        terminal: request.tty.is_some(),
        identity: identity(&account),
        directories: &borrow(&directories),
        programs: &borrow(&programs),
        arguments: &borrow(&arguments),
        environment: &borrow(&environment),
        status: child_status.as_fd(),
    };
    let pid = sys::spawn(&plan).map_err(|error| other("the guest cannot fork", &error))?;
    let Ours { stdin, stdout, stderr } = streams.ours;
    Ok(Launched { pid, status, stdin, stdout, stderr })
}

/// Whom to become; nobody if the agent already is it and cannot become anyone else.
fn identity(account: &Account) -> Option<Identity<'_>> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let is_it = uid != 0 && (account.uid, account.gid) == (uid, gid);
    let &Account { uid, gid, ref groups, .. } = account;
    (!is_it).then_some(Identity { uid, gid, groups })
}

fn failure(kind: FailureKind, errno: i32, message: String) -> Failure {
    Failure { kind, errno, message }
}

fn other(what: &str, error: &io::Error) -> Failure {
    failure(FailureKind::Other, error.raw_os_error().unwrap_or(0), format!("{what}: {error}"))
}

/// `text` up to its first NUL. (The protocol lets none through.)
fn c_string(text: &OsStr) -> CString {
    let bytes = text.as_bytes().split(|byte| *byte == 0).next().unwrap_or_default();
    CString::new(bytes).unwrap_or_default()
}

/// What a login sets, then what the request sets.
fn environment(request: &ExecRequest, account: &Account) -> BTreeMap<OsString, OsString> {
    let mut variables = BTreeMap::new();
    let mut set = |name: &str, value: &str| variables.insert(name.into(), value.into());
    set("PATH", DEFAULT_PATH);
    set("HOME", &account.home);
    set("SHELL", &account.shell);
    if let Some(name) = &account.name {
        set("USER", name);
        set("LOGNAME", name);
    }
    if let Some(tty) = &request.tty {
        set("TERM", &tty.term);
    }
    if let Some(language) = language() {
        set("LANG", &language);
    }
    variables.extend(request.env.iter().cloned());
    variables
}

/// The language that the system has set for logins: Debian's file, or systemd's (locale.conf(5)).
fn language() -> Option<String> {
    ["/etc/default/locale", "/etc/locale.conf"].into_iter().find_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        let value = text.lines().rev().find_map(|line| line.trim().strip_prefix("LANG="))?;
        let value = value.trim_matches(['"', '\'']);
        (!value.is_empty()).then(|| value.to_owned())
    })
}

/// The paths that may be the command, in order: as execvp(3) looks.
fn candidates(name: &OsStr, path: &OsStr) -> Vec<CString> {
    if name.as_bytes().contains(&b'/') {
        return vec![c_string(name)];
    }
    path.as_bytes()
        .split(|byte| *byte == b':')
        .map(|directory| {
            let mut path = directory.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            c_string(&OsString::from_vec(path))
        })
        .collect()
}

/// What the host is told of a child that failed before or in its exec.
pub(crate) fn explain(failed: ChildFailure, request: &ExecRequest) -> Failure {
    let ChildFailure { step, errno } = failed;
    let name = request.name();
    let cwd = request.cwd.as_deref().unwrap_or(OsStr::new("/"));
    let error = io::Error::from_raw_os_error(errno);
    match step {
        ChildStep::Prepare => other("the command's session cannot be made", &error),
        ChildStep::Identity => {
            let user = request.user.as_deref().unwrap_or("root");
            let message = format!("the agent cannot become user {user:?}: {error}");
            failure(FailureKind::BadUser, errno, message)
        }
        ChildStep::Directory => {
            let cwd = cwd.to_string_lossy();
            let message = format!("the working directory {cwd:?} cannot be entered: {error}");
            failure(FailureKind::BadCwd, errno, message)
        }
        ChildStep::Execute if [libc::ENOENT, libc::ENOTDIR].contains(&errno) => {
            let message = if !name.contains('/') {
                format!("there is no command {name:?} in the guest's PATH")
            } else if Path::new(cwd).join(&name).exists() {
                format!("{name} is there, but the interpreter or loader that it asks for is not")
            } else {
                format!("there is no file {name} in the guest")
            };
            failure(FailureKind::NotFound, errno, message)
        }
        ChildStep::Execute => {
            let message = format!("{name} cannot be executed in the guest: {error}");
            failure(FailureKind::NotExecutable, errno, message)
        }
    }
}

/// Both ends of the streams of a child to be.
struct Streams {
    child_stdin: OwnedFd,
    /// Standard output and error; a terminal is all three.
    child_outputs: Option<(OwnedFd, OwnedFd)>,
    ours: Ours,
}

/// Our ends.
struct Ours {
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: Option<OwnedFd>,
}

impl Streams {
    /// Three pipes, owned by the user, who may then open `/dev/stdout` too.
    fn pipes(with_stdin: bool, account: &Account) -> io::Result<Self> {
        let own = |fd: &OwnedFd| {
            let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
            match fchown(fd, Some(uid), Some(gid)) {
                Ok(()) | Err(Errno::PERM) => Ok(()),
                Err(error) => Err(error),
            }
        };
        let pipe = || -> io::Result<(OwnedFd, OwnedFd)> {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            own(&reader)?;
            Ok((reader, writer))
        };
        let (child_stdin, stdin) = if with_stdin {
            let (reader, writer) = pipe()?;
            set_nonblocking(&writer)?;
            (reader, Some(writer))
        } else {
            (OpenOptions::new().read(true).open("/dev/null")?.into(), None)
        };
        let (stdout, child_stdout) = pipe()?;
        let (stderr, child_stderr) = pipe()?;
        set_nonblocking(&stdout)?;
        set_nonblocking(&stderr)?;
        Ok(Self {
            child_stdin,
            child_outputs: Some((child_stdout, child_stderr)),
            ours: Ours { stdin, stdout, stderr: Some(stderr) },
        })
    }

    /// A pseudo-terminal, owned by the user.
    fn terminal(tty: &TtyRequest, account: &Account) -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags)?;
        rustix::pty::unlockpt(&master)?;
        resize(master.as_fd(), tty.rows, tty.cols)?;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        match fchown(&slave, Some(Uid::from_raw(account.uid)), None) {
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        set_nonblocking(&master)?;
        let stdin = Some(master.try_clone()?);
        let ours = Ours { stdin, stdout: master, stderr: None };
        Ok(Self { child_stdin: slave, child_outputs: None, ours })
    }

    fn child_stdio(&self) -> [BorrowedFd<'_>; 3] {
        let stdin = self.child_stdin.as_fd();
        match &self.child_outputs {
            Some((stdout, stderr)) => [stdin, stdout.as_fd(), stderr.as_fd()],
            None => [stdin; 3],
        }
    }
}

/// Tells a terminal its size; the kernel tells its foreground processes.
pub(crate) fn resize(master: BorrowedFd<'_>, rows: u16, cols: u16) -> io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(master, size)?)
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(fd, true)?)
}
