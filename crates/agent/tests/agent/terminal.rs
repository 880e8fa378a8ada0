//! Commands on a terminal.

use std::fs::File;
use std::io::Write;
use std::thread;
use std::time::Duration;

use riad_agent::client::{ControlEvent, ExitStatus, control};
use riad_agent::protocol::{ExecRequest, TtyRequest};

use crate::harness::{Agent, Done, pipe, run, run_with, sh};

fn on_terminal(mut request: ExecRequest) -> ExecRequest {
    request.tty = Some(TtyRequest { rows: 33, cols: 111, term: "xterm-256color".into() });
    request.stdin = true;
    request
}

/// Types `lines`, one after the other, with a pause before each.
fn typed(agent: &Agent, request: &ExecRequest, lines: &'static [&'static str]) -> Done {
    let (keyboard, typist) = pipe();
    thread::spawn(move || {
        let mut typist = File::from(typist);
        for line in lines {
            thread::sleep(Duration::from_millis(300));
            if typist.write_all(line.as_bytes()).is_err() {
                return;
            }
        }
        thread::sleep(Duration::from_secs(5));
    });
    run_with(agent, request, Some(keyboard), None).unwrap()
}

fn text(done: &Done) -> String {
    String::from_utf8_lossy(&done.stdout).replace('\r', "")
}

#[test]
fn it_is_a_terminal_with_a_size_and_a_type() {
    let agent = Agent::start();
    let request =
        on_terminal(sh("test -t 0 && test -t 1 && test -t 2 && stty size && echo $TERM; \
         tty < /dev/tty; stat -c %U:%a $(tty)"));
    let done = run(&agent, &request).unwrap();
    let text = text(&done);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["33 111", "xterm-256color"], "{text}");
    // Inside a container /dev/pts may be another instance than the agent's.
    assert!(text.contains("/dev/") || text.contains("not a tty"), "{text}");
    assert!(done.stderr.is_empty());
}

#[test]
fn a_new_size_reaches_the_command() {
    let agent = Agent::start();
    let (sender, receiver) = control().unwrap();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(400));
        sender.send(ControlEvent::Resize { rows: 50, cols: 132 }).unwrap();
        thread::sleep(Duration::from_secs(5));
    });
    let request =
        on_terminal(sh("stty size; trap 'stty size; exit 0' WINCH; while :; do sleep 0.05; done"));
    let (keyboard, _typist) = pipe();
    let done = run_with(&agent, &request, Some(keyboard), Some(&receiver)).unwrap();
    assert_eq!(text(&done), "33 111\n50 132\n");
}

#[test]
fn ctrl_c_ends_what_runs_and_not_the_shell() {
    let agent = Agent::start();
    let mut request = on_terminal(ExecRequest::new(["bash", "--norc", "-i"]));
    request.env.push(("PS1".into(), "> ".into()));
    let lines =
        &["sleep 100\n", "\x03", "echo status $?\n", "sleep 50 & jobs\n", "kill %1; exit 9\n"];
    let done = typed(&agent, &request, lines);
    let text = text(&done);
    assert!(text.contains("status 130"), "{text}");
    assert!(text.contains("[1]+  Running"), "job control: {text}");
    assert!(!text.contains("no job control"), "{text}");
    assert_eq!(done.end.status, ExitStatus::Exited(9));
}

#[test]
fn the_end_of_input_is_ctrl_d() {
    let agent = Agent::start();
    let request = on_terminal(ExecRequest::new(["cat"]));
    let (keyboard, typist) = pipe();
    File::from(typist).write_all(b"hello\n").unwrap();
    let done = run_with(&agent, &request, Some(keyboard), None).unwrap();
    assert_eq!(text(&done), "hello\nhello\n");
    assert_eq!(done.end.status, ExitStatus::Exited(0));
}

#[test]
fn the_last_words_are_never_lost() {
    let agent = Agent::start();
    for round in 0..150 {
        let request = on_terminal(ExecRequest::new(["echo".to_owned(), format!("round {round}")]));
        assert_eq!(text(&run(&agent, &request).unwrap()), format!("round {round}\n"));
    }
}

#[test]
fn closing_the_session_hangs_up() {
    let agent = Agent::start();
    let (sender, receiver) = control().unwrap();
    let marker = agent.path("hup");
    let script =
        format!("trap 'touch {}; exit' HUP; while :; do sleep 0.05; done", marker.display());
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(400));
        sender.send(ControlEvent::Abort).unwrap();
    });
    let (keyboard, _typist) = pipe();
    let _ = run_with(&agent, &on_terminal(sh(&script)), Some(keyboard), Some(&receiver));
    for _ in 0..300 {
        if marker.exists() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("no hang-up");
}
