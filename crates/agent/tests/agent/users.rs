//! Commands of other users. These tests need root and say so when they are skipped.

use riad_agent::client::ClientError;
use riad_agent::protocol::{FailureKind, TtyRequest};

use crate::harness::{Agent, run, sh};

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root can become another user");
    }
    root
}

fn output_as(agent: &Agent, user: &str, script: &str) -> String {
    let mut request = sh(script);
    request.user = Some(user.into());
    String::from_utf8(run(agent, &request).unwrap().stdout).unwrap()
}

#[test]
fn a_name_a_number_and_a_group() {
    if !is_root() {
        return;
    }
    let agent = Agent::start();
    let script = "id -u; id -g; id -G; echo $USER $HOME; pwd";
    // Its home does not exist, so it starts in the root.
    assert_eq!(
        output_as(&agent, "nobody", script),
        "65534\n65534\n65534\nnobody /nonexistent\n/\n"
    );
    assert_eq!(output_as(&agent, "65534:7", "id -u; id -G"), "65534\n7\n");
    assert_eq!(output_as(&agent, "nobody:daemon", "id -gn"), "daemon\n");
    assert_eq!(output_as(&agent, "4242", "id -u; echo $HOME-$USER"), "4242\n/-\n");
    assert_eq!(output_as(&agent, "root", "id -u; pwd"), "0\n/root\n");
}

#[test]
fn a_user_has_its_terminal() {
    if !is_root() {
        return;
    }
    let agent = Agent::start();
    let mut request = sh("echo spoken > /dev/tty; id -u");
    request.user = Some("nobody".into());
    request.tty = Some(TtyRequest { rows: 24, cols: 80, term: "vt100".into() });
    let done = run(&agent, &request).unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout), "spoken\r\n65534\r\n");
}

#[test]
fn who_is_not_there_is_named() {
    let agent = Agent::start();
    let mut request = sh("true");
    for (user, named) in [("eve", "eve"), ("root:evil", "evil")] {
        request.user = Some(user.into());
        match run(&agent, &request) {
            Err(ClientError::NotStarted(failure)) => {
                assert_eq!(failure.kind, FailureKind::BadUser);
                assert!(failure.message.contains(&format!("{named:?}")), "{}", failure.message);
            }
            other => panic!("{other:?}"),
        }
    }
}
