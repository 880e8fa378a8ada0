//! An agent of its own for each test, and a way to run a command in it.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use riad_agent::client::{
    ClientError, ControlReceiver, Events, SessionEnd, SessionIo, run_session,
};
use riad_agent::protocol::{ExecRequest, ShutdownMode};
use rustix::pipe::{PipeFlags, pipe_with};

pub(crate) struct Agent {
    child: Child,
    listener: UnixListener,
    events: Option<Events>,
    directory: tempfile::TempDir,
}

/// A session that ended, and what it wrote.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) end: SessionEnd,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Agent {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Users other than root reach the test's files.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let events = directory.path().join("events");
        let listener = UnixListener::bind(&events).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_riad-agent"))
            .args(["serve", "--unix"])
            .args([directory.path().join("sessions"), events])
            .spawn()
            .unwrap();
        let events = Some(accept(&listener));
        Self { child, listener, events, directory }
    }

    pub(crate) fn events(&self) -> &Events {
        self.events.as_ref().unwrap()
    }

    /// Drops the event channel and waits for the agent to make a new one.
    pub(crate) fn reconnect(&mut self) {
        self.events = None;
        self.events = Some(accept(&self.listener));
    }

    pub(crate) fn connect(&self) -> UnixStream {
        UnixStream::connect(self.directory.path().join("sessions")).unwrap()
    }

    pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time that the agent used so far, in clock ticks.
    pub(crate) fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// The agent's resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

fn accept(listener: &UnixListener) -> Events {
    let (stream, _) = listener.accept().unwrap();
    Events::accept(stream, Some(Duration::from_secs(10))).unwrap()
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.events().shutdown(ShutdownMode::PowerOff);
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn sh(script: &str) -> ExecRequest {
    ExecRequest::new(["sh", "-c", script])
}

pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC).unwrap()
}

fn read_all(fd: OwnedFd) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        File::from(fd).read_to_end(&mut bytes).unwrap();
        bytes
    })
}

pub(crate) fn run(agent: &Agent, request: &ExecRequest) -> Result<Done, ClientError> {
    run_with(agent, request, None, None)
}

pub(crate) fn run_with(
    agent: &Agent,
    request: &ExecRequest,
    stdin: Option<OwnedFd>,
    control: Option<&ControlReceiver>,
) -> Result<Done, ClientError> {
    let (out_reader, out) = pipe();
    let (err_reader, err) = pipe();
    let (stdout, stderr) = (read_all(out_reader), read_all(err_reader));
    let io = SessionIo {
        stdin: stdin.as_ref().map(AsFd::as_fd),
        stdout: out.as_fd(),
        stderr: err.as_fd(),
    };
    let end = run_session(agent.connect(), request, io, control);
    drop((out, err));
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    Ok(Done { end: end?, stdout, stderr })
}
