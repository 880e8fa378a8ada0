//! What must not harm a machine: processes killed at any moment, commands at the same time, folders
//! that are damaged.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{end_to_end, text};
use crate::home::Home;

/// Rounds of the test that kills: `RIAD_FAULT_ROUNDS` in the environment, or few.
fn rounds() -> u64 {
    std::env::var("RIAD_FAULT_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

fn kill_machine(home: &Home, name: &str) {
    let pid = home.json(&["info", name])["pid"].as_i64().unwrap();
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

#[test]
fn kill_minus_nine_loses_nothing_that_was_synced() {
    end_to_end!();
    let home = Home::new();
    home.create("dev", &["--boot", "agent"]);
    // Writes that take new blocks and old ones, and after each sync the number that is there.
    let load = "cd /root; touch count; n=$(cat count); while :; do n=$((n+1)); \
                head -c $((n % 7 * 100000)) /dev/urandom >f$((n % 5)); cp f$((n % 5)) g$((n % 3)); \
                sha256sum f$((n % 5)) >sum.new; echo $n >count.new; mv sum.new sum; mv count.new count; \
                sync; echo $n; done";
    // As fsck(8) sees it, once the journal was replayed and nothing is written.
    let check = "sync; mount -o remount,ro / && e2fsck -fn /dev/vda && mount -o remount,rw /";
    let mut before = 0;
    for round in 0..rounds() {
        home.ok(&["start", "dev"]);
        let count = home.shell("dev", "cat /root/count 2>/dev/null || echo 0");
        let count: u64 = count.trim().parse().unwrap_or_default();
        assert!(count >= before, "round {round}: {count} is there, and {before} was synced");
        // The journal was replayed, and the kernel found nothing wrong.
        let errors = home.shell("dev", "dmesg | grep -c 'EXT4-fs error' || true");
        assert_eq!(errors, "0\n", "round {round}");
        home.shell("dev", check);
        if count > 0 {
            home.shell(
                "dev",
                "cd /root; sha256sum --quiet -c sum || test $(cat count) != $(cat count)",
            );
        }
        let child = home.command(&["exec", "dev", "--", "sh", "-c", load]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(700 + round * 379 % 1500));
        kill_machine(&home, "dev");
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{}", text(&output.stderr));
        let said = text(&output.stderr);
        assert!(said.contains("killed") && said.contains("riad why dev"), "{said}");
        before = text(&output.stdout)
            .lines()
            .filter_map(|line| line.parse().ok())
            .max()
            .unwrap_or(before);
        assert_eq!(home.state("dev"), "killed");
        let why = home.ok(&["why", "dev"]);
        assert!(why.contains("was killed") && why.contains("riad start dev"), "{why}");
    }
    assert!(before > 0, "nothing was ever written");
}

#[test]
fn a_process_killed_while_it_starts_leaves_the_truth() {
    end_to_end!();
    let home = Home::new();
    home.create("dev", &["--boot", "agent"]);
    for wait in [0, 60, 300] {
        let child = home.command(&["start", "dev"]).spawn().unwrap();
        home.soon("its process", || home.json(&["info", "dev"])["pid"].is_i64());
        std::thread::sleep(Duration::from_millis(wait));
        kill_machine(&home, "dev");
        let output = child.wait_with_output().unwrap();
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(0) || said.contains("its process ended"), "{said}");
        assert_eq!(home.state("dev"), "killed");
    }
    home.ok(&["start", "dev"]);
    assert_eq!(home.shell("dev", "echo fine"), "fine\n");
}

#[test]
fn two_starts_at_once_make_one_process() {
    end_to_end!();
    let home = Home::new();
    home.create("dev", &["--boot", "agent"]);
    let start = || home.command(&["start", "dev"]).spawn().unwrap();
    let said: Vec<_> = [start(), start(), start()]
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", text(&output.stderr));
            text(&output.stderr)
        })
        .into();
    let already = said.iter().filter(|said| said.contains("runs already")).count();
    assert_eq!(already, 2, "{said:?}");
    assert_eq!(home.shell("dev", "echo fine"), "fine\n");
}

#[test]
fn a_machine_outlives_who_started_it_and_a_forced_stop_works_at_any_time() {
    end_to_end!();
    let home = Home::new();
    home.create("dev", &["--boot", "agent"]);
    // It keeps nothing that whoever called had open, such as a script's lock.
    let start = home.command(&["start", "dev"]);
    let mut script = std::process::Command::new("sh");
    script.args(["-c", "exec 9</etc/hostname; exec \"$0\" start dev"]).arg(start.get_program());
    script.envs(start.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = script.spawn().unwrap();
    home.soon("its process", || home.json(&["info", "dev"])["pid"].is_i64());
    child.kill().unwrap();
    child.wait().unwrap();
    home.ok(&["wait", "dev", "agent", "--timeout", "120"]);
    let pid = &home.json(&["info", "dev"])["pid"];
    let open: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .collect();
    assert!(!open.iter().any(|path| path.ends_with("hostname")), "{open:?}");
    assert_eq!(home.shell("dev", "echo fine"), "fine\n");
    home.ok(&["stop", "--force", "dev"]);
    let mut child = home.command(&["start", "dev"]).spawn().unwrap();
    home.ok(&["wait", "dev", "running", "--timeout", "60"]);
    home.soon("a way to stop it", || home.run(&["stop", "--force", "dev"]).status.success());
    assert!(!child.wait().unwrap().success());
    assert_eq!(home.state("dev"), "stopped");
}

#[test]
fn a_kernel_that_panics_is_a_machine_that_failed_and_says_why() {
    end_to_end!();
    let home = Home::new();
    home.create("dev", &["--boot", "agent"]);
    home.ok(&["start", "dev"]);
    home.run(&["exec", "dev", "--", "sh", "-c", "echo c >/proc/sysrq-trigger"]);
    home.ok(&["wait", "dev", "stopped", "--timeout", "60"]);
    assert_eq!(home.state("dev"), "failed");
    let why = home.ok(&["why", "dev"]);
    assert!(why.contains("sysrq") && why.contains("panic"), "{why}");
}
