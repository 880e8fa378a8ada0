//! The agent's program against the host's client, on this host: the agent listens on Unix sockets.

mod harness;
mod lifetime;
mod streams;
mod terminal;
mod users;

use std::time::Duration;

use harness::{Agent, run, sh};
use riad_agent::client::{ClientError, ExitStatus, set_up_card};
use riad_agent::protocol::{CardRequest, ExecRequest, FailureKind, VERSION};

#[test]
fn the_agent_introduces_itself() {
    let agent = Agent::start();
    let hello = agent.events().hello();
    assert_eq!(hello.version, VERSION);
    assert_eq!(hello.agent, env!("CARGO_PKG_VERSION"));
    assert!(hello.times.started > 0 && hello.times.ready >= hello.times.started);
    assert_eq!(hello.times.root_mounted, 0);
}

#[test]
fn output_and_status_come_back_separately() {
    let agent = Agent::start();
    let done = run(&agent, &sh("echo out; echo err >&2; exit 7")).unwrap();
    assert_eq!((done.stdout.as_slice(), done.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(done.end.status, ExitStatus::Exited(7));
    assert!(done.end.started_after <= done.end.ended_after);
    assert_eq!(run(&agent, &sh("exit 255")).unwrap().end.status.shell_code(), 255);
}

#[test]
fn death_by_signal_is_told() {
    let agent = Agent::start();
    let status = run(&agent, &sh("kill -9 $$")).unwrap().end.status;
    assert_eq!((status, status.shell_code()), (ExitStatus::Signaled(9), 137));
}

#[test]
fn signals_and_pipes_are_as_at_a_login() {
    let agent = Agent::start();
    let script = "grep -E 'Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd";
    let text = String::from_utf8(run(&agent, &sh(script)).unwrap().stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[..2] {
        let mask = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
        // 32 and 33 are libc's own; what they are here is the test runner's doing.
        assert_eq!(mask & !(0b11 << 31), 0, "nothing is blocked or ignored: {line}");
    }
    // The last is ls's own, of the directory.
    assert_eq!(lines[2..], ["0", "1", "2", "3"], "nothing is left open");
}

fn refusal(agent: &Agent, request: &ExecRequest) -> (FailureKind, u8, String) {
    match run(agent, request) {
        Err(error @ ClientError::NotStarted(_)) => {
            let code = error.exit_code();
            let ClientError::NotStarted(failure) = error else { unreachable!() };
            (failure.kind, code, failure.message)
        }
        other => panic!("it was not refused: {other:?}"),
    }
}

#[test]
fn what_cannot_be_started_is_told_apart() {
    let agent = Agent::start();
    let (kind, code, message) = refusal(&agent, &ExecRequest::new(["no-such-command"]));
    assert_eq!((kind, code), (FailureKind::NotFound, 127));
    assert!(message.contains("\"no-such-command\"") && message.contains("PATH"), "{message}");
    let (kind, code, _) = refusal(&agent, &ExecRequest::new(["/no/such/file"]));
    assert_eq!((kind, code), (FailureKind::NotFound, 127));
    let (kind, code, message) = refusal(&agent, &ExecRequest::new(["/etc/passwd"]));
    assert_eq!((kind, code), (FailureKind::NotExecutable, 126), "{message}");
    let (kind, code, _) = refusal(&agent, &ExecRequest::new(["/tmp"]));
    assert_eq!((kind, code), (FailureKind::NotExecutable, 126));
    let (kind, ..) = refusal(&agent, &ExecRequest::new([""]));
    assert_eq!(kind, FailureKind::NotFound);
    let (kind, ..) = refusal(&agent, &ExecRequest::default());
    assert_eq!(kind, FailureKind::NotFound);

    let mut request = sh("true");
    request.cwd = Some("/no/such/dir".into());
    let (kind, code, message) = refusal(&agent, &request);
    assert_eq!((kind, code), (FailureKind::BadCwd, 125));
    assert!(message.contains("/no/such/dir"), "{message}");
}

#[test]
fn a_script_runs_and_a_missing_interpreter_is_named() {
    let agent = Agent::start();
    let script = |name: &str, text: &str| agent.script(name, text);
    let bare = script("bare", "echo bare $0 $1\n");
    let done = run(&agent, &ExecRequest::new([bare.as_os_str(), "x".as_ref()])).unwrap();
    assert_eq!(String::from_utf8(done.stdout).unwrap(), format!("bare {} x\n", bare.display()));
    let broken = script("broken", "#!/no/such/interpreter\n");
    let (kind, code, message) = refusal(&agent, &ExecRequest::new([&broken]));
    assert_eq!((kind, code), (FailureKind::NotFound, 127));
    assert!(message.contains("interpreter"), "{message}");
}

#[test]
fn environment_and_directory_are_given() {
    let agent = Agent::start();
    let mut request = sh("pwd; env | sort").with_env("A", "b=c d").with_env("HOME", "/tmp");
    request.cwd = Some("/usr".into());
    let text = String::from_utf8(run(&agent, &request).unwrap().stdout).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("_=")).collect();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(lines[..3], ["/usr", "A=b=c d", "HOME=/tmp"]);
    assert!(lines.contains(&path) && lines.contains(&"USER=root") && lines.contains(&"PWD=/usr"));
    assert!(!text.contains("CARGO"), "the agent's own environment leaks");

    // The command is looked up in the PATH that it is given.
    let request = ExecRequest::new(["sh"]).with_env("PATH", "/nowhere");
    assert_eq!(refusal(&agent, &request).0, FailureKind::NotFound);
}

#[test]
fn a_card_that_has_not_come_is_told_and_an_address_that_is_none_is_refused() {
    let agent = Agent::start();
    let ask = |address: &str| {
        // No card has that one: it is a group's.
        let mac = "ff:ff:ff:ff:ff:fe".to_owned();
        let card = CardRequest { mac, addresses: vec![address.to_owned()] };
        set_up_card(agent.connect(), &card, Duration::from_secs(10))
    };
    assert!(matches!(ask("192.0.2.5/24"), Ok(None)));
    let error = ask("192.0.2.5").unwrap_err();
    assert!(matches!(&error, ClientError::Refused { message } if message.contains("192.0.2.5")));
}

#[test]
fn many_sessions_run_at_once() {
    let agent = Agent::start();
    std::thread::scope(|scope| {
        for number in 0..40 {
            let agent = &agent;
            scope.spawn(move || {
                let done = run(agent, &sh(&format!("sleep 0.1; echo {number}"))).unwrap();
                assert_eq!(String::from_utf8(done.stdout).unwrap(), format!("{number}\n"));
            });
        }
    });
}
