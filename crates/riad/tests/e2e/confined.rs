//! What processes that run guests have given up by the time that the guest runs.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{cache, end_to_end, riad, run, run_command, text};
use crate::home::Home;

/// Threads by name, with the number of lists of system calls that each is kept to.
fn threads(pid: u32) -> Vec<(String, u64)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut threads = Vec::new();
    for task in tasks {
        // Gone meanwhile.
        let Ok(status) = fs::read_to_string(task.unwrap().path().join("status")) else { continue };
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_default().trim().to_owned()
        };
        let name = value("Name:");
        assert_eq!((value("NoNewPrivs:"), value("Seccomp:")), ("1".into(), "2".into()), "{name}");
        threads.push((name, value("Seccomp_filters:").parse().unwrap_or(u64::MAX)));
    }
    threads
}

/// Checks threads of a process whose guest runs.
fn check(pid: u32, wanted: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let there = threads_if_confined(pid);
        let is_there = |name: &&str| there.iter().any(|(thread, _)| thread == name);
        // The process's two, and its kind's, which a thread takes on as its first act; the thread that
        // starts others has the first.
        let is_kept =
            |(name, lists): &(String, u64)| *lists >= if name == "launcher" { 2 } else { 3 };
        if wanted.iter().all(is_there) && there.iter().all(is_kept) {
            return;
        }
        assert!(Instant::now() < deadline, "{wanted:?} are not all there and confined: {there:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Nothing before its guest runs.
fn threads_if_confined(pid: u32) -> Vec<(String, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    if status.contains("Seccomp:\t2") { threads(pid) } else { Vec::new() }
}

/// Starts a program with a file open that it knows nothing of, and a secret in its environment.
fn with_more_than_it_needs(command: &Command) -> Child {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec 7</etc/hostname; exec \"$0\" \"$@\""]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.env("SECRET", "open sesame");
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn has_nothing_of_its_callers(pid: u32) {
    let open: Vec<PathBuf> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .collect();
    assert!(!open.iter().any(|path| path.ends_with("hostname")), "{open:?}");
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(!text(&environment).contains("open sesame"));
}

const MACHINE: [&str; 4] = ["vcpu0", "timers", "virtio-blk", "virtio-vsock"];

#[test]
fn every_thread_is_confined_and_no_inherited_descriptor_is_left() {
    end_to_end!();
    let mut child = with_more_than_it_needs(&run_command(&[], &["sleep", "600"]));
    check(child.id(), &MACHINE);
    has_nothing_of_its_callers(child.id());
    child.kill().unwrap();
    child.wait().unwrap();

    let image = fs::read_dir(cache().join("images")).unwrap().next().unwrap().unwrap().path();
    let mut boot = riad();
    // It finds no root file system, panics, and stands still.
    boot.args(["boot", "--memory", "256M", "--append", "console=ttyS0", "--kernel"]);
    let mut child = with_more_than_it_needs(boot.arg(image.join("vmlinuz")));
    check(child.id(), &["vcpu0", "timers"]);
    has_nothing_of_its_callers(child.id());
    child.kill().unwrap();
    child.wait().unwrap();

    let home = Home::new();
    home.create("dev", &["--boot", "agent"]);
    home.ok(&["start", "dev"]);
    let info = home.json(&["info", "dev"]);
    let all = ["no-new-privileges", "landlock", "seccomp"];
    assert_eq!(info["run"]["confined"], serde_json::json!(all));
    let pid = u32::try_from(info["pid"].as_u64().unwrap()).unwrap();
    check(pid, &MACHINE);
    has_nothing_of_its_callers(pid);
    // A guest that restarts has its machine built anew, by a process that is confined.
    home.run(&["exec", "dev", "--", "sh", "-c", "reboot -f"]);
    home.soon("its restart", || home.json(&["info", "dev"])["run"]["reboots"] == 1);
    home.ok(&["wait", "dev", "agent", "--timeout", "120"]);
    assert_eq!(home.shell("dev", "echo fine"), "fine\n");
    check(pid, &MACHINE);
}

#[test]
fn confined_machines_work_on_every_engine_of_software() {
    end_to_end!();
    for engine in ["soft", "soft:interp"] {
        let said =
            run(&["--engine", engine], &["sh", "-c", "cat /etc/hostname >/x; sync; echo ok"]);
        assert_eq!((text(&said.stdout), said.status.code()), ("ok\n".into(), Some(0)), "{engine}");
    }
}
