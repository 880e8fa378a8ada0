//! Machines that live on: a whole life in one story, and what people do with them.

use std::io::{Read, Write};
use std::process::Stdio;

use crate::harness::{end_to_end, text};
use crate::home::Home;

#[test]
fn the_whole_life_of_a_machine() {
    end_to_end!();
    let home = Home::new();
    home.create("dev", &["--boot", "agent"]);
    assert_eq!(home.ok(&["ls", "-q"]), "dev\n");
    assert_eq!(home.state("dev"), "stopped");
    let error = home.fails(&["exec", "dev", "--", "true"]);
    assert!(error.contains("riad start dev"), "{error}");
    assert!(home.ok(&["why", "dev"]).contains("riad start dev"));

    home.ok(&["start", "dev"]);
    assert_eq!(home.state("dev"), "running");
    assert!(text(&home.run(&["start", "dev"]).stderr).contains("runs already"));
    assert_eq!(home.shell("dev", "hostname"), "dev\n");
    home.shell("dev", "echo kept >/root/note; sync");
    for error in [
        home.fails(&["rename", "dev", "new"]),
        home.fails(&["clone", "dev", "new"]),
        home.fails(&["delete", "dev", "--yes"]),
    ] {
        assert!(error.contains("riad stop dev"), "{error}");
    }
    let changes = home.ok(&["set", "dev", "--memory", "640M", "--protect", "on"]);
    assert!(changes.contains("512 MiB -> 640 MiB") && changes.contains("next start"), "{changes}");

    home.ok(&["restart", "dev"]);
    assert_eq!(home.shell("dev", "cat /root/note"), "kept\n");
    let run = &home.json(&["info", "dev"])["run"];
    assert_eq!(run["memory"], 640 << 20, "{run}");
    let why = home.ok(&["why", "dev"]);
    for word in ["dev is running", "kernel", "userland", "agent", "riad-agent: ready"] {
        assert!(why.contains(word), "{word} in {why}");
    }
    assert!(home.ok(&["logs", "dev"]).contains("Linux version"));

    home.ok(&["stop", "dev"]);
    assert_eq!(home.state("dev"), "stopped");
    assert!(text(&home.run(&["stop", "dev"]).stderr).contains("off already"));
    home.ok(&["clone", "dev", "two"]);
    home.ok(&["rename", "dev", "one"]);
    assert_eq!(home.ok(&["ls", "--quiet"]), "one\ntwo\n");
    home.ok(&["start", "two"]);
    assert_eq!(home.shell("two", "cat /root/note; hostname"), "kept\ntwo\n");
    assert_eq!(home.ok(&["ls", "-q", "--filter", "state=running"]), "two\n");

    assert!(home.fails(&["delete", "one", "--yes"]).contains("riad unprotect one"));
    assert!(home.fails(&["delete", "one"]).contains("--yes"));
    home.ok(&["unprotect", "one"]);
    home.ok(&["delete", "one", "--yes"]);
    home.ok(&["delete", "two", "--yes", "--force"]);
    assert!(home.ok(&["ls"]).contains("riad shell"));
}

#[test]
fn commands_have_their_status_streams_and_conditions() {
    end_to_end!();
    let home = Home::new();
    home.create("dev", &["--boot", "agent"]);
    home.ok(&["start", "dev"]);
    for (script, status) in [("exit 7", 7), ("kill -9 $$", 137)] {
        let output = home.run(&["exec", "dev", "--", "sh", "-c", script]);
        assert_eq!(output.status.code(), Some(status), "{script}");
    }
    assert_eq!(home.run(&["exec", "dev", "--", "nosuch"]).status.code(), Some(127));
    let script = "echo $A $PWD $(id -un); echo oops >&2";
    let output = home
        .run(&["exec", "-e", "A=1", "-w", "/tmp", "-u", "nobody", "dev", "--", "sh", "-c", script]);
    assert_eq!(text(&output.stdout), "1 /tmp nobody\n");
    assert_eq!(text(&output.stderr), "oops\n");
    let mut child =
        home.command(&["exec", "dev", "--", "wc", "-c"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&[7; 1 << 20]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "1048576\n");
    home.ok(&["exec", "-d", "dev", "--", "sh", "-c", "sleep 1; touch /tmp/late"]);
    home.ok(&["wait", "dev", "file:/tmp/late", "--timeout", "60"]);
    assert_eq!(home.run(&["exec", "-d", "dev", "--", "nosuch"]).status.code(), Some(127));
    let output = home.run(&["wait", "dev", "stopped", "--timeout", "0"]);
    assert_eq!(output.status.code(), Some(124));
    assert!(text(&output.stderr).contains("riad why dev"));
    // A shell starts what is off.
    home.ok(&["stop", "dev"]);
    assert_eq!(home.ok(&["shell", "dev", "--", "echo", "here"]), "here\n");
}

#[test]
fn files_are_copied_both_ways() {
    end_to_end!();
    let home = Home::new();
    home.create("dev", &["--boot", "agent"]);
    home.ok(&["start", "dev"]);
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir_all(at("project/src")).unwrap();
    std::fs::write(at("project/src/main.c"), "int main(void) { return 42; }\n").unwrap();
    std::fs::write(at("project/big"), vec![3; 4 << 20]).unwrap();
    home.ok(&["cp", &at("project"), "dev:/root"]);
    home.shell(
        "dev",
        "cd /root/project && cc src/main.c -o run && ln -s run link && chmod 700 run",
    );
    assert_eq!(home.run(&["exec", "dev", "--", "/root/project/run"]).status.code(), Some(42));
    home.ok(&["cp", "dev:/root/project", &at("back")]);
    assert_eq!(std::fs::read(at("back/big")).unwrap(), vec![3; 4 << 20]);
    assert_eq!(std::fs::read_link(at("back/link")).unwrap().to_str(), Some("run"));
    let modified = |name: &str| std::fs::metadata(at(name)).unwrap().modified().unwrap();
    let difference = modified("project/big").duration_since(modified("back/big")).unwrap();
    assert!(difference.as_secs() < 1, "times are kept, to the second");
    home.ok(&["cp", "dev:/etc/hostname", "dev:project/src/main.c", &at("back")]);
    assert!(std::fs::exists(at("back/hostname")).unwrap());
    assert!(std::fs::exists(at("back/main.c")).unwrap());

    let mut child =
        home.command(&["cp", "-", "dev:/tmp/in"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"from a pipe").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(home.ok(&["cp", "dev:/tmp/in", "-"]), "from a pipe");

    for (arguments, words) in [
        (["cp", "dev:/nosuch", "."], "/nosuch"),
        (["cp", "/nosuch", "dev:/tmp"], "/nosuch"),
        (["cp", "/etc/passwd", "dev:/nosuch/dir/"], "/nosuch/dir/"),
        (["cp", "dev:/etc/passwd", "/nosuch/dir"], "/nosuch"),
    ] {
        let error = home.fails(&arguments);
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn the_images_own_init_runs_with_the_machines_name_and_identity() {
    end_to_end!();
    let home = Home::new();
    home.create("web-1", &["--disk", "12G"]);
    home.ok(&["start", "web-1"]);
    home.ok(&["wait", "web-1", "system", "--timeout", "240"]);
    assert_eq!(home.shell("web-1", "cat /proc/1/comm; hostname"), "systemd\nweb-1\n");
    let info = home.json(&["info", "web-1"]);
    let id = home.shell("web-1", "cat /etc/machine-id");
    assert_eq!(info["id"], id.trim(), "{info}");
    assert!(home.ok(&["why", "web-1"]).contains("system"), "{info}");
    // The file system has grown to its disk.
    let kib: u64 = home.shell("web-1", "df -k --output=size / | tail -1").trim().parse().unwrap();
    assert!(kib > 11 << 20, "{kib} KiB");
    // A restart by the guest is one in the same process.
    home.shell("web-1", "echo kept >/root/note");
    home.run(&["exec", "web-1", "--", "systemctl", "reboot"]);
    home.soon("the guest's restart", || {
        let info = home.json(&["info", "web-1"]);
        info["run"]["reboots"] == 1 && info["state"] == "running"
    });
    assert_eq!(home.shell("web-1", "cat /root/note"), "kept\n");
    assert_eq!(home.json(&["info", "web-1"])["pid"], info["pid"]);
    home.ok(&["stop", "web-1"]);
    // A guest that powers off is a machine that is off.
    home.ok(&["start", "web-1"]);
    home.ok(&["wait", "web-1", "system", "--timeout", "240"]);
    home.run(&["exec", "web-1", "--", "systemctl", "poweroff"]);
    home.ok(&["wait", "web-1", "stopped", "--timeout", "120"]);
    assert_eq!(home.state("web-1"), "stopped");
}

#[test]
fn the_console_is_shown_and_typed_on() {
    end_to_end!();
    let home = Home::new();
    home.create("dev", &["--boot", "agent"]);
    home.ok(&["start", "dev"]);
    home.ok(&["exec", "-d", "dev", "--", "sh", "-c", "cat </dev/ttyS0 >/tmp/typed"]);
    let mut child =
        home.command(&["console", "dev"]).stdin(Stdio::piped()).spawn().expect("riad runs");
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    home.shell("dev", "sleep 1; echo spoken >/dev/ttyS0");
    stdin.write_all(b"typed\n").unwrap();
    home.ok(&["wait", "dev", "file:/tmp/typed", "--timeout", "60"]);
    home.soon("what was typed", || home.shell("dev", "cat /tmp/typed") == "typed\n");
    // It ends with the machine.
    home.ok(&["stop", "--force", "dev"]);
    let mut shown = String::new();
    stdout.read_to_string(&mut shown).unwrap();
    assert!(shown.contains("riad-agent: ready") && shown.contains("spoken"), "{shown}");
    assert!(child.wait().unwrap().success());
}
