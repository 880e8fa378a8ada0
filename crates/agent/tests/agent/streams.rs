//! Standard streams: whole, in order, bounded, and closed when they should be.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use riad_agent::client::{ControlEvent, ExitStatus, SessionIo, control, run_session};
use riad_agent::protocol::ExecRequest;

use crate::harness::{Agent, pipe, run, run_with, sh};

fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..length / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect()
}

fn with_stdin(mut request: ExecRequest) -> ExecRequest {
    request.stdin = true;
    request
}

fn source(bytes: Vec<u8>) -> OwnedFd {
    let (reader, writer) = pipe();
    thread::spawn(move || {
        // The reader may go away first.
        let _ = File::from(writer).write_all(&bytes);
    });
    reader
}

#[test]
fn sixty_four_mib_go_through_and_back() {
    let agent = Agent::start();
    let bytes = pattern(64 << 20);
    let began = Instant::now();
    let request = with_stdin(ExecRequest::new(["cat"]));
    let done = run_with(&agent, &request, Some(source(bytes.clone())), None).unwrap();
    println!("64 MiB through cat: {:?}", began.elapsed());
    assert_eq!(done.end.status, ExitStatus::Exited(0));
    assert!(done.stdout == bytes, "{} bytes came back, not the same", done.stdout.len());
}

#[test]
fn an_input_that_ends_ends() {
    let agent = Agent::start();
    let request = with_stdin(sh("cat; echo end"));
    let done = run_with(&agent, &request, Some(source(b"x\n".to_vec())), None).unwrap();
    assert_eq!(done.stdout, b"x\nend\n");
    // The request asks for an input, and the caller has none.
    assert_eq!(run(&agent, &request).unwrap().stdout, b"end\n");
    // The request asks for none: /dev/null.
    assert_eq!(run(&agent, &sh("cat; readlink /proc/self/fd/0")).unwrap().stdout, b"/dev/null\n");
}

#[test]
fn an_input_that_nobody_reads_keeps_nobody_waiting() {
    let agent = Agent::start();
    let request = with_stdin(sh("echo done"));
    let done = run_with(&agent, &request, Some(source(vec![0; 32 << 20])), None).unwrap();
    assert_eq!(done.stdout, b"done\n");
    // Closed while the command goes on: the rest is refused, and the host's input is left alone.
    let request = with_stdin(sh("head -c 5; exec <&-; sleep 0.3; echo; echo done"));
    let done = run_with(&agent, &request, Some(source(vec![b'a'; 32 << 20])), None).unwrap();
    assert_eq!(done.stdout, b"aaaaa\ndone\n");
}

#[test]
fn signals_overtake_input_that_is_stuck() {
    let agent = Agent::start();
    let (sender, receiver) = control().unwrap();
    // Reads nothing, so that the input stands still everywhere on the way.
    let request = with_stdin(sh("trap 'echo caught; exit 3' TERM; while :; do sleep 0.05; done"));
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(400));
        sender.send(ControlEvent::Signal(15)).unwrap();
    });
    let stdin = source(vec![0; 16 << 20]);
    let done = run_with(&agent, &request, Some(stdin), Some(&receiver)).unwrap();
    assert_eq!((done.stdout.as_slice(), done.end.status.shell_code()), (&b"caught\n"[..], 3));
}

#[test]
fn a_slow_reader_slows_the_writer_and_nothing_grows() {
    let agent = Agent::start();
    let (reader, out) = pipe();
    let connection = agent.connect();
    let session = thread::spawn(move || {
        let request = sh("head -c 100000000 /dev/zero; echo end >&2");
        let (_unread, err) = pipe();
        let io = SessionIo { stdin: None, stdout: out.as_fd(), stderr: err.as_fd() };
        run_session(connection, &request, io, None)
    });
    thread::sleep(Duration::from_millis(500));
    let resident = agent.resident_kib();
    assert!(resident < 16 << 10, "the agent holds {resident} KiB");
    let ticks = agent.ticks();
    thread::sleep(Duration::from_millis(500));
    assert!(agent.ticks() - ticks <= 1, "the agent is busy while nothing moves");
    let mut total = 0;
    let mut file = File::from(reader);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => break,
            count => total += count,
        }
    }
    assert_eq!(session.join().unwrap().unwrap().status, ExitStatus::Exited(0));
    assert_eq!(total, 100_000_000);
}

#[test]
fn a_reader_that_leaves_ends_the_writer() {
    let agent = Agent::start();
    let (reader, out) = pipe();
    let (_unread, err) = pipe();
    let connection = agent.connect();
    thread::spawn(move || {
        let mut first = [0; 10];
        File::from(reader).read_exact(&mut first).unwrap();
    });
    let io = SessionIo { stdin: None, stdout: out.as_fd(), stderr: err.as_fd() };
    let end = run_session(connection, &ExecRequest::new(["yes"]), io, None).unwrap();
    assert_eq!(end.status, ExitStatus::Signaled(13));
}

#[test]
fn the_streams_can_be_opened_by_name() {
    let agent = Agent::start();
    let mut request = sh("echo out > /proc/self/fd/1; echo err > /proc/self/fd/2");
    for user in ["root", "nobody"] {
        request.user = Some(user.into());
        let done = run(&agent, &request).unwrap();
        assert_eq!(
            (done.stdout.as_slice(), done.stderr.as_slice()),
            (&b"out\n"[..], &b"err\n"[..])
        );
    }
}
