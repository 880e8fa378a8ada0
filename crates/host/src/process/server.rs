//! The control socket of a machine's process. A thread for each connection, and not many of them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use riad_agent::protocol::PORT;
use riad_confine::Kind;
use rustix::fs::{Mode, OFlags};

use super::control::{Joining, MOST_REQUEST, Order, Reply};
use super::fds;
use super::grow;
use super::plug;
use super::provision;
use super::shared::Shared;
use crate::machines::{Phase, RunState, SOCKET};
use crate::network::{
    CableFaults, ForwardStatus, Network, NetworkError, NetworkStatus, Plug, Publish,
};

/// Connections at once; more are refused.
const MOST: usize = 256;
/// How long a request may take to arrive.
const REQUEST: Duration = Duration::from_secs(10);
/// How long a guest may take to read what is typed before it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// What is said of a machine that is only just starting.
const NO_NETWORK: &str = "the machine has no network yet; try again";
/// Lines of the console that a viewer sees first.
const SEEN_BEFORE: usize = 24;

/// Serves connections, by threads, until the process ends.
///
/// # Errors
/// The host refuses the thread.
pub(super) fn serve_all(listener: UnixListener, shared: &Shared) -> io::Result<()> {
    let shared = shared.clone();
    let count = Arc::new(AtomicUsize::new(0));
    riad_confine::spawn(Kind::Control, "control", move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                // Out of descriptors: they come back.
                thread::sleep(Duration::from_millis(100));
                continue;
            };
            if count.fetch_add(1, Ordering::Relaxed) >= MOST {
                count.fetch_sub(1, Ordering::Relaxed);
                let _ = say(&stream, &Reply::Error("too many connections; try again".to_owned()));
                continue;
            }
            let (shared, finished) = (shared.clone(), Arc::clone(&count));
            let body = move || {
                if let Err(error) = serve(&shared, &stream) {
                    tracing::debug!(%error, "a connection to the control socket ended");
                }
                finished.fetch_sub(1, Ordering::Relaxed);
            };
            if riad_confine::spawn(Kind::Control, "client", body).is_err() {
                count.fetch_sub(1, Ordering::Relaxed);
            }
        }
    })?;
    Ok(())
}

/// Listens in a machine's folder, however long its path is: the address of a socket has 108 bytes (unix(7)),
/// so the folder is named by a descriptor.
///
/// # Errors
/// The host refuses the socket.
pub(super) fn bind(folder: &Path) -> io::Result<UnixListener> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(folder, flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
    // The one of a process that is gone.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

fn serve(shared: &Shared, stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(REQUEST))?;
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    let most = MOST_REQUEST as u64 + 1;
    reader.by_ref().take(most).read_until(b'\n', &mut line)?;
    stream.set_read_timeout(None)?;
    let order = match Order::parse(&line) {
        Ok(order) => order,
        Err(sentence) => return say(stream, &Reply::Error(sentence)),
    };
    match order {
        Order::Status => say(stream, &ok(&shared.state())),
        Order::Session => session(shared, stream),
        Order::Stop { force, by } => {
            shared.stop(force, by);
            say(stream, &ok(&shared.state()))?;
            // Until the process ends, and the connection with it; or whoever waits is gone.
            let _ = reader.read(&mut [0]);
            Ok(())
        }
        Order::Console => console(shared, stream, reader),
        Order::Network => match network(shared) {
            Some(status) => say(stream, &Reply::Ok(serde_json::to_value(status)?)),
            None => say(stream, &Reply::Error(NO_NETWORK.to_owned())),
        },
        Order::Forward { forward } => add_forward(shared, stream, forward),
        Order::Unforward { id } => say(stream, &remove_forward(shared, id)),
        Order::Join { joining } => join(shared, stream, &joining),
        Order::Leave { network, reach } => say(stream, &done(plug::leave(shared, &network, reach))),
        Order::Attach { disk, read_only } => attach(shared, stream, &disk, read_only),
        Order::Detach { disk } => say(stream, &done(plug::detach(shared, &disk))),
        Order::Policy => say(stream, &policy(shared)),
        Order::Fault { set } => say(stream, &fault(shared, set)),
        Order::Capture => capture(shared, stream, reader),
        Order::Events => {
            say(stream, &ok(&shared.state()))?;
            follow(shared, stream, |_| false)
        }
        Order::Provision { scripts } => provision(shared, stream, &scripts),
        Order::Grow { size } => match grow::grow(shared, size) {
            Ok(note) => say(stream, &Reply::Ok(serde_json::Value::String(note))),
            Err(error) => say(stream, &Reply::Error(error.to_string())),
        },
        Order::GrowDisk { disk, size } => say(stream, &done(grow::attached(shared, &disk, size))),
        Order::Stats => {
            say(stream, &Reply::Ok(serde_json::to_value(shared.vitals()).unwrap_or_default()))
        }
    }
}

fn network(shared: &Shared) -> Option<NetworkStatus> {
    let cards = shared.get_ways().map(|ways| ways.devices.cards()).unwrap_or_default();
    Some(NetworkStatus::new(shared.plug()?, &cards))
}

/// Says that it may come, and receives what whoever asks has opened.
fn descriptor(stream: &UnixStream) -> io::Result<Option<OwnedFd>> {
    say(stream, &Reply::Ok(serde_json::Value::Null))?;
    stream.set_read_timeout(Some(REQUEST))?;
    Ok(fds::receive(stream)?.1)
}

/// The process may not listen anywhere: whoever asks brings the socket.
fn add_forward(shared: &Shared, stream: &UnixStream, forward: Publish) -> io::Result<()> {
    let control = match shared.plug().map(Plug::control) {
        Some(Ok(control)) => control,
        Some(Err(error)) => return say(stream, &Reply::Error(error.to_string())),
        None => return say(stream, &Reply::Error(NO_NETWORK.to_owned())),
    };
    let socket = descriptor(stream)?;
    let reply = match socket.map(|socket| control.add_open(forward.forward().clone(), socket)) {
        Some(Ok(added)) => {
            let added = ForwardStatus { id: added.id, forward: added.forward.into() };
            Reply::Ok(serde_json::to_value(added)?)
        }
        Some(Err(error)) => Reply::Error(error.to_string()),
        None => Reply::Error("the socket that is to listen did not come along".to_owned()),
    };
    say(stream, &reply)
}

/// The process may not connect to anybody: whoever asks brings the connection to the network's switch.
fn join(shared: &Shared, stream: &UnixStream, joining: &Joining) -> io::Result<()> {
    let reply = match descriptor(stream)? {
        Some(socket) => done(plug::join(shared, joining, socket)),
        None => Reply::Error("the connection to the switch did not come along".to_owned()),
    };
    say(stream, &reply)
}

/// The process may open nothing but its machine's folder: whoever asks brings the disk's file.
fn attach(shared: &Shared, stream: &UnixStream, disk: &str, read_only: bool) -> io::Result<()> {
    let reply = match descriptor(stream)? {
        Some(file) => done(plug::attach(shared, disk, read_only, file.into())),
        None => Reply::Error("the disk's file did not come along".to_owned()),
    };
    say(stream, &reply)
}

/// What is said of something that has no answer but that it is done.
fn done(result: Result<(), Box<dyn std::error::Error>>) -> Reply {
    match result {
        Ok(()) => Reply::Ok(serde_json::Value::Null),
        Err(error) => Reply::Error(error.to_string()),
    }
}

fn remove_forward(shared: &Shared, id: u32) -> Reply {
    let Some(plug) = shared.plug() else { return Reply::Error(NO_NETWORK.to_owned()) };
    let removed = plug.control().and_then(|control| {
        let known = control.forwards().into_iter().find(|listening| listening.id == id);
        control.remove(id)?;
        Ok(known.map(|listening| ForwardStatus { id, forward: listening.forward.into() }))
    });
    match removed {
        Ok(forward) => Reply::Ok(serde_json::to_value(forward).unwrap_or_default()),
        Err(error) => Reply::Error(error.to_string()),
    }
}

/// What is kept for the machine's starts is what holds: so the two cannot differ, however long it is.
fn policy(shared: &Shared) -> Reply {
    let Some(plug) = shared.plug() else { return Reply::Error(NO_NETWORK.to_owned()) };
    let network = match shared.folder().config() {
        Ok(config) => config.network,
        Err(error) => return Reply::Error(error.to_string()),
    };
    let ruled = match &network {
        Network::User(rules) => plug.rule(rules),
        other => Err(NetworkError::NoRules(other.to_string())),
    };
    match ruled {
        Ok(()) => Reply::Ok(serde_json::Value::Null),
        Err(error) => Reply::Error(error.to_string()),
    }
}

fn fault(shared: &Shared, set: Option<CableFaults>) -> Reply {
    let Some(plug) = shared.plug() else { return Reply::Error(NO_NETWORK.to_owned()) };
    let on = match plug.instruments() {
        Ok(instruments) => instruments.fault(set),
        Err(error) => return Reply::Error(error.to_string()),
    };
    Reply::Ok(serde_json::to_value(on).unwrap_or_default())
}

/// Hands on what goes over the cable, until the other side of the connection is at its end: then what
/// was taken so far, and how much was left out.
fn capture(shared: &Shared, stream: &UnixStream, mut asked: impl Read) -> io::Result<()> {
    let Some(plug) = shared.plug() else {
        return say(stream, &Reply::Error(NO_NETWORK.to_owned()));
    };
    let started = plug.instruments().and_then(|on| Ok(on.capture.start()?));
    let recording = match started {
        Ok(recording) => Arc::new(recording),
        Err(error) => return say(stream, &Reply::Error(error.to_string())),
    };
    say(stream, &Reply::Ok(serde_json::Value::Null))?;
    let (writer, taken) = (stream.try_clone()?, Arc::clone(&recording));
    let writing = riad_confine::spawn(Kind::Control, "capture", move || {
        let mut blocks = Vec::new();
        while taken.next(&mut blocks) {
            if (&writer).write_all(&blocks).is_err() {
                break;
            }
        }
        let _ = writer.shutdown(std::net::Shutdown::Both);
    })?;
    // What is said is nothing; that it ends counts.
    while let Ok(1..) = asked.read(&mut [0; 64]) {}
    recording.stop();
    let _ = writing.join();
    Ok(())
}

fn ok(state: &RunState) -> Reply {
    Reply::Ok(serde_json::to_value(state).unwrap_or_default())
}

fn say(mut stream: &UnixStream, reply: &Reply) -> io::Result<()> {
    stream.write_all(reply.to_line().as_bytes())
}

/// Writes what is true, now and whenever it changes, until `enough`.
pub(super) fn follow(
    shared: &Shared,
    mut stream: &UnixStream,
    enough: impl Fn(&RunState) -> bool,
) -> io::Result<()> {
    let mut seen = 0;
    loop {
        let (state, version) = shared.next(seen);
        seen = version;
        let line = serde_json::to_string(&state)? + "\n";
        stream.write_all(line.as_bytes())?;
        if enough(&state) || state.phase == Phase::Ended {
            return Ok(());
        }
    }
}

/// Has provisioning scripts run; whoever asked reads in the folder how they go.
fn provision(shared: &Shared, stream: &UnixStream, scripts: &[String]) -> io::Result<()> {
    let state = shared.state();
    let begun = match state.phase {
        Phase::Running => provision::again(shared, scripts),
        _ => Err(format!("the machine is not ready: stage '{}'", state.stage)),
    };
    match begun {
        Ok(()) => say(stream, &ok(&state)),
        Err(sentence) => say(stream, &Reply::Error(sentence)),
    }
}

/// Hands a connection to the agent over.
fn session(shared: &Shared, stream: &UnixStream) -> io::Result<()> {
    let refused = |sentence: String| say(stream, &Reply::Error(sentence));
    let state = shared.state();
    let Some(ways) = shared.get_ways().filter(|_| state.phase != Phase::Starting) else {
        return refused(format!("the machine is not ready: stage '{}'", state.stage));
    };
    match ways.vsock.connect(PORT, ways.patience) {
        Ok(agent) => {
            let reply = Reply::Ok(serde_json::Value::Null);
            fds::send(stream, reply.to_line().as_bytes(), agent.as_fd())
        }
        Err(error) => refused(format!("the agent in the guest cannot be reached: {error}")),
    }
}

/// Shows the console, and types on it.
fn console(shared: &Shared, mut stream: &UnixStream, mut typed: impl Read) -> io::Result<()> {
    let Some(first) = shared.get_ways() else {
        return say(stream, &Reply::Error("the machine has no console yet; try again".to_owned()));
    };
    say(stream, &ok(&shared.state()))?;
    let shown = shared.tap().view();
    for line in first.console.tail(SEEN_BEFORE) {
        stream.write_all(line.as_bytes())?;
        stream.write_all(b"\r\n")?;
    }
    let writer = stream.try_clone()?;
    let showing = riad_confine::spawn(Kind::Control, "viewer", move || {
        let mut writer = &writer;
        for bytes in shown {
            if writer.write_all(&bytes).is_err() {
                break;
            }
        }
        // Too slow, or gone: no more keys either.
        let _ = writer.shutdown(std::net::Shutdown::Both);
    })?;
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = typed.read(&mut buffer) {
        // The machine may have restarted since.
        let Some(ways) = shared.get_ways() else { continue };
        let mut keys = buffer.get(..count).unwrap_or_default();
        while let Some(taken) = ways.keyboard.type_on_console(keys) {
            keys = keys.get(taken..).unwrap_or_default();
            if keys.is_empty() {
                break;
            }
            ways.console.wait_for_room(ASK_AGAIN);
        }
    }
    let _ = stream.shutdown(std::net::Shutdown::Both);
    drop(showing);
    Ok(())
}
