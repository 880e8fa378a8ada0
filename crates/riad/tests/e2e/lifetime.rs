//! Beginnings and ends of machines: interruption, panic, and nothing that is left.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{end_to_end, run, run_command, shell, text};

/// Waits for the end of a process, which must come soon.
fn end_soon(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return status.code(),
            None if Instant::now() > deadline => {
                child.kill().unwrap();
                panic!("riad did not end");
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// A command that says when it has begun.
fn begun(mut command: Command) -> (Child, impl Read) {
    let mut child = command.spawn().expect("riad runs");
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "begun\n");
    (child, stdout)
}

#[test]
fn nothing_that_is_written_survives() {
    end_to_end!();
    shell(&[], "echo mine >/etc/motd; rm -rf /usr/share /bin/ls; touch /marker; sync");
    assert_eq!(
        shell(&[], "ls /usr/share >/dev/null; test ! -e /marker; echo as before"),
        "as before\n"
    );
}

#[test]
fn two_machines_run_at_once() {
    end_to_end!();
    let start = |name: &str| {
        let script = format!("echo {name} >/tmp/name; sleep 2; cat /tmp/name");
        run_command(&[], &["sh", "-c", &script]).spawn().expect("riad runs")
    };
    for (child, name) in [(start("one"), "one\n"), (start("two"), "two\n")] {
        let output = child.wait_with_output().unwrap();
        assert_eq!(text(&output.stdout), name, "{}", text(&output.stderr));
    }
}

#[test]
fn ctrl_c_interrupts_the_command() {
    end_to_end!();
    let script = "trap 'echo caught; exit 9' INT; echo begun; while :; do sleep 0.1; done";
    let (mut child, mut stdout) = begun(run_command(&[], &["sh", "-c", script]));
    signal(&child, Signal::INT);
    assert_eq!(end_soon(&mut child), Some(9));
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "caught\n");
}

#[test]
fn three_times_ctrl_c_ends_riad_whatever_the_command_thinks() {
    end_to_end!();
    let script = "trap '' INT; echo begun; while :; do sleep 1; done";
    let (mut child, _stdout) = begun(run_command(&[], &["sh", "-c", script]));
    for _ in 0..3 {
        signal(&child, Signal::INT);
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(end_soon(&mut child), Some(130));
}

#[test]
fn ctrl_c_while_the_kernel_boots_ends_at_once() {
    end_to_end!();
    for delay in [50, 400, 1500] {
        let mut child = run_command(&[], &["sleep", "1000"]).spawn().expect("riad runs");
        std::thread::sleep(Duration::from_millis(delay));
        let sent = Instant::now();
        signal(&child, Signal::INT);
        let status = end_soon(&mut child);
        // Before riad has started to listen, the signal itself ends it.
        assert!(matches!(status, Some(130) | None), "{status:?} after {delay} ms");
        assert!(sent.elapsed() < Duration::from_secs(5), "{:?}", sent.elapsed());
    }
}

#[test]
fn a_kernel_panic_is_told_at_once_with_the_consoles_last_lines() {
    end_to_end!();
    let append = "rdinit=/nonexistent init=/nonexistent";
    let output = run(&["--append", append], &["true"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    let first = stderr.lines().next().unwrap();
    assert!(first.starts_with("riad: ") && first.contains("panicked"), "{stderr}");
    assert!(stderr.contains("Kernel panic - not syncing"), "{stderr}");
}

#[test]
fn a_kernel_that_panics_under_the_command_is_told_too() {
    end_to_end!();
    let output = run(&[], &["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 100"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("stage 'command'") && stderr.contains("sysrq"), "{stderr}");
}

#[test]
fn an_agent_that_cannot_go_on_says_why() {
    end_to_end!();
    let output = run(&["--append", "riad.rootfstype=xfs"], &["true"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("/dev/vda") && stderr.contains("xfs"), "{stderr}");
}

#[test]
fn a_machine_with_too_little_memory_says_so() {
    end_to_end!();
    let output = run_with_memory("8M");
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("--memory"), "{stderr}");
}

fn run_with_memory(memory: &str) -> std::process::Output {
    let mut command = crate::harness::riad();
    command.args(["run", "--memory", memory, crate::harness::IMAGE, "--", "true"]);
    command.stdin(std::process::Stdio::null()).output().expect("riad runs")
}

#[test]
fn timings_name_every_stage() {
    end_to_end!();
    let output = run(&["--timings=json"], &["true"]);
    let timings: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    let stages = timings["stages"].as_array().unwrap();
    let names: Vec<_> = stages.iter().map(|stage| stage["stage"].as_str().unwrap()).collect();
    let expected =
        ["start", "image", "machine", "kernel", "userland", "agent", "command", "teardown"];
    assert_eq!(names, expected);
    let sum: f64 = stages.iter().map(|stage| stage["ms"].as_f64().unwrap()).sum();
    let total = timings["total_ms"].as_f64().unwrap();
    assert!(sum <= total + 1.0 && sum > total * 0.9, "{timings}");
    // Null where translated code runs, which is not counted.
    let counted = timings["instructions"].as_u64();
    assert!(counted.is_none_or(|count| count > 100_000_000), "{timings}");
    assert_eq!(counted.is_some(), timings["mips"].is_number(), "{timings}");
    // From the kernel's first instruction to the agent's: the bound is 30 s.
    let kernel = stages[3]["ms"].as_f64().unwrap();
    assert!(kernel < 30_000.0, "{timings}");
}

#[test]
fn the_interpreter_runs_the_same_machine_and_counts() {
    end_to_end!();
    let output = run(&["--timings=json", "--engine", "soft:interp"], &["uname", "-m"]);
    assert_eq!(text(&output.stdout), "x86_64\n");
    let timings: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert!(timings["instructions"].as_u64().unwrap() > 100_000_000, "{timings}");
    assert!(timings["mips"].as_f64().unwrap() > 0.0, "{timings}");
    let kernel = timings["stages"][3]["ms"].as_f64().unwrap();
    assert!(kernel < 30_000.0, "{timings}");
}

#[test]
fn the_console_is_shown_when_asked_for() {
    end_to_end!();
    let output = run(&["--console"], &["echo", "words"]);
    assert_eq!(text(&output.stdout), "words\n");
    let console = text(&output.stderr);
    assert!(
        console.contains("Linux version 6.") && console.contains("riad-agent: ready"),
        "{console}"
    );
}
