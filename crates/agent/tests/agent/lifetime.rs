//! Ends: of commands, of sessions, of what they leave behind, of the event channel.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use riad_agent::client::{ClientError, ControlEvent, ExitStatus, SessionIo, control, run_session};
use riad_agent::protocol::{Decoder, ExecRequest, ToGuest, ToHost};

use crate::harness::{Agent, pipe, run, run_with, sh};

fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        thread::sleep(Duration::from_millis(10));
    }
}

fn is_running(pid: &str) -> bool {
    // A zombie is no running process.
    fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim().starts_with('Z'))
}

#[test]
fn a_background_process_does_not_hold_the_session() {
    let agent = Agent::start();
    let began = Instant::now();
    let done = run(&agent, &sh("sleep 30 & echo $!")).unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    let sleeper = String::from_utf8(done.stdout).unwrap();
    assert!(is_running(&sleeper), "and it lives on");
    let _ = run(&agent, &sh(&format!("kill {sleeper}")));
}

#[test]
fn output_that_follows_soon_is_waited_for_and_a_flood_is_not() {
    let agent = Agent::start();
    let done = run(&agent, &sh("(sleep 0.03; echo late) & echo early")).unwrap();
    assert_eq!(done.stdout, b"early\nlate\n");
    let began = Instant::now();
    let done = run(&agent, &sh("yes & exit 4")).unwrap();
    assert_eq!(done.end.status, ExitStatus::Exited(4));
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[test]
fn all_that_the_command_wrote_is_delivered_to_a_reader_that_dawdles() {
    let agent = Agent::start();
    let (reader, out) = pipe();
    let connection = agent.connect();
    let slow = thread::spawn(move || {
        // Long after the command is gone and its grace is over.
        thread::sleep(Duration::from_millis(1500));
        let mut bytes = Vec::new();
        fs::File::from(reader).read_to_end(&mut bytes).unwrap();
        bytes.len()
    });
    let (_unread, err) = pipe();
    let request = sh("sleep 20 & head -c 300000 /dev/zero");
    let io = SessionIo { stdin: None, stdout: out.as_fd(), stderr: err.as_fd() };
    run_session(connection, &request, io, None).unwrap();
    drop(out);
    assert_eq!(slow.join().unwrap(), 300_000);
}

#[test]
fn a_session_that_is_given_up_ends_its_command() {
    let agent = Agent::start();
    let pids = agent.path("pids");
    // One that would go on SIGHUP, and one that would not.
    let script = format!("trap '' HUP; sleep 100 & echo $$ $! > {}; wait", pids.display());
    let (sender, receiver) = control().unwrap();
    let watched = pids.clone();
    thread::spawn(move || {
        wait_for("the start", Duration::from_secs(10), || {
            fs::read_to_string(&watched).is_ok_and(|text| text.ends_with('\n'))
        });
        sender.send(ControlEvent::Abort).unwrap();
    });
    let error = run_with(&agent, &sh(&script), None, Some(&receiver)).unwrap_err();
    assert!(matches!(error, ClientError::Aborted));
    let text = fs::read_to_string(&pids).unwrap();
    for pid in text.split_whitespace() {
        wait_for("the end", Duration::from_secs(10), || !is_running(pid));
    }
}

#[test]
fn signals_reach_the_command() {
    let agent = Agent::start();
    let (sender, receiver) = control().unwrap();
    let marker = agent.path("ready");
    let watched = marker.clone();
    thread::spawn(move || {
        wait_for("the start", Duration::from_secs(10), || watched.exists());
        sender.send(ControlEvent::Signal(2)).unwrap();
    });
    let script = format!("touch {}; exec sleep 100", marker.display());
    let done = run_with(&agent, &sh(&script), None, Some(&receiver)).unwrap();
    assert_eq!(done.end.status.shell_code(), 130);
}

#[test]
fn an_agent_that_dies_is_told() {
    let agent = Agent::start();
    let pid = agent.pid();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    });
    assert!(matches!(run(&agent, &sh("sleep 2")), Err(ClientError::Gone)));
    assert!(agent.events().wait_closed(Some(Duration::from_secs(5))).unwrap());
}

#[test]
fn the_event_channel_is_made_again() {
    let mut agent = Agent::start();
    for _ in 0..3 {
        agent.reconnect();
        assert_eq!(run(&agent, &sh("echo x")).unwrap().stdout, b"x\n");
    }
}

#[test]
fn nothing_to_do_is_nothing_done() {
    let agent = Agent::start();
    let mut idle = agent.connect();
    let mut bytes = Vec::new();
    let mut request = ExecRequest::new(["sleep", "100"]);
    request.stdin = true;
    ToGuest::Exec(request).encode(&mut bytes).unwrap();
    idle.write_all(&bytes).unwrap();
    thread::sleep(Duration::from_millis(200));
    let switches = || {
        let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("voluntary")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = switches();
    thread::sleep(Duration::from_millis(700));
    assert_eq!(switches(), before, "the agent woke while nothing happened");
}

#[test]
fn what_the_agent_does_not_understand_it_says() {
    let agent = Agent::start();
    let mut exec = Vec::new();
    ToGuest::Exec(sh("sleep 100")).encode(&mut exec).unwrap();
    let twice = exec.repeat(2);
    let mut beyond = exec;
    let mut request = sh("sleep 100");
    request.stdin = true;
    beyond.clear();
    ToGuest::Exec(request).encode(&mut beyond).unwrap();
    ToGuest::Stdin(&[0; 400_000]).encode(&mut beyond).unwrap();
    let cases: [(&[u8], &str); 5] = [
        (&[0, 0, 0, 0, 0x7f], "unknown kind"),
        (&[0, 0, 0, 0, 0x03], "begins with a request"),
        (&[0xff, 0xff, 0xff, 0xff, 0x01], "limit"),
        (&twice, "no place"),
        (&beyond, "credit"),
    ];
    for (bytes, expected) in cases {
        let mut connection = agent.connect();
        let _ = connection.write_all(bytes);
        let mut decoder = Decoder::of_guest();
        let message = loop {
            if let Some(frame) = decoder.next_frame().unwrap() {
                match ToHost::parse(frame).unwrap() {
                    ToHost::Error { message } => break message,
                    ToHost::Started { .. } | ToHost::StdinCredit { .. } => continue,
                    other => panic!("{other:?}"),
                }
            }
            let count = connection.read(decoder.space()).unwrap();
            assert!(count > 0, "{expected}: closed without a word");
            decoder.filled(count);
        };
        assert!(message.contains(expected), "{message}");
        let mut rest = Vec::new();
        let _ = connection.read_to_end(&mut rest);
    }
    assert!(Path::new(&format!("/proc/{}", agent.pid())).exists());
    assert_eq!(run(&agent, &sh("echo x")).unwrap().stdout, b"x\n");
}
