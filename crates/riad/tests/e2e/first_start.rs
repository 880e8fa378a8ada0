//! The first start of a machine: whose it is, what runs in it, and what is known of it afterwards.

use std::fs;

use crate::harness::{end_to_end, text};
use crate::home::Home;

const GOOD: &str = "#!/bin/sh\nset -e\necho \"said by $(id -un)\"\necho once >>/root/once\n";
const BAD: &str = "#!/bin/bash\nset -e\necho before\n\nmkdir /nosuch/dir\necho never\n";

#[test]
fn a_machine_is_its_users_and_is_provisioned() {
    end_to_end!();
    let home = Home::new();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    for (name, content) in
        [("good.sh", GOOD), ("bad.sh", BAD), ("key.pub", "ssh-ed25519 AAAA ann@here\n")]
    {
        fs::write(at(name), content).unwrap();
    }
    let options = ["--boot", "agent", "--user", "ann", "--ssh-key", &at("key.pub")];
    let scripts = ["--provision", &at("good.sh"), "--provision", &at("bad.sh")];
    let zone = ["--time-zone", "Europe/Berlin", "--locale", "C.UTF-8"];
    home.create("dev", &[&options[..], &scripts[..], &zone[..]].concat());

    // The machine runs, and what went wrong is said with its place.
    let output = home.run(&["start", "dev"]);
    let (said, why) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(125), "{why}");
    assert!(said.contains("said by root\n") && said.contains("before\n"), "{said}");
    for word in ["bad.sh failed at line 5", "mkdir /nosuch/dir", "status 1", "riad provision dev"] {
        assert!(why.contains(word), "no {word} in {why}");
    }
    assert_eq!(home.state("dev"), "running");

    // Commands are the user's, and root is there too.
    assert_eq!(home.shell("dev", "id -un; pwd; hostname"), "ann\n/home/ann\ndev\n");
    assert_eq!(home.ok(&["exec", "-u", "root", "dev", "--", "id", "-un"]), "root\n");
    assert_eq!(
        home.shell("dev", "cat .ssh/authorized_keys; echo $LANG"),
        "ssh-ed25519 AAAA ann@here\nC.UTF-8\n"
    );
    assert!(home.shell("dev", "readlink -f /etc/localtime").contains("Berlin"));
    home.ok(&["cp", &at("good.sh"), "dev:"]);
    assert_eq!(home.shell("dev", "stat -c %U good.sh"), "ann\n");
    let info = home.json(&["info", "dev"]);
    assert_eq!((&info["user"], &info["provision"][1]["state"]), (&"ann".into(), &"failed".into()));

    // A script runs once, and again when asked to.
    let once = ["exec", "-u", "root", "dev", "--", "wc", "-l", "/root/once"];
    assert!(home.ok(&once).starts_with("1 "));
    assert!(home.fails(&["provision", "dev"]).contains("bad.sh failed at line 5"));
    assert!(home.ok(&once).starts_with("2 "));
    fs::write(at("more.sh"), "echo more\n").unwrap();
    // One that is asked for is run, whatever became of others.
    assert!(home.ok(&["provision", "dev", &at("more.sh")]).contains("more\n"));
    fs::write(at("bad.sh"), "").unwrap();
    assert!(home.fails(&["provision", "dev", &at("bad.sh")]).contains("is empty"));
    // One that was mended takes its place.
    fs::write(at("bad.sh"), "echo mended\n").unwrap();
    assert!(home.ok(&["provision", "dev", &at("bad.sh")]).contains("mended\n"));
    let info = home.json(&["info", "dev"]);
    let states: Vec<_> =
        info["provision"].as_array().unwrap().iter().map(|script| &script["state"]).collect();
    assert_eq!(states, ["done", "done", "done"], "{info}");

    // What it uses is known here and there.
    let stats = home.json(&["stats", "dev", "--interval", "0.2"]);
    let machine = &stats[0];
    assert!(machine["cpu"]["vcpus"][0]["seconds"].as_f64().unwrap() > 0.0, "{stats}");
    assert!(machine["disks"][0]["read_bytes"].as_u64().unwrap() > 0, "{stats}");
    assert!(machine["memory"]["resident_bytes"].as_u64().unwrap() > 1 << 20, "{stats}");
    let guest = &machine["guest"];
    assert!(guest["memory_total_bytes"].as_u64().unwrap() > 100 << 20, "{stats}");
    assert_eq!(guest["file_systems"][0]["mounted_on"], "/", "{stats}");
    let top = home.ok(&["top", "--once"]);
    assert!(top.contains("1 of 1 machines run") && top.contains("dev"), "{top}");

    // Its disk grows while it runs.
    let kib =
        || -> u64 { home.shell("dev", "df -k --output=size / | tail -1").trim().parse().unwrap() };
    let before = kib();
    let changes = home.ok(&["set", "dev", "--disk", "9G"]);
    assert!(changes.contains("counts now"), "{changes}");
    assert!(kib() > before + (512 << 10), "{before} KiB before, {} KiB after", kib());

    // Later starts are quick about it: nothing is to be set up, nothing to be run.
    home.ok(&["restart", "dev"]);
    assert!(home.ok(&once).starts_with("2 "));
    home.ok(&["stop", "dev"]);
    let events: Vec<serde_json::Value> = home
        .ok(&["events", "dev", "--format", "json"])
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kinds: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    for kind in [
        "created",
        "starting",
        "stage",
        "set-up",
        "agent-ready",
        "system-ready",
        "provision-done",
        "provision-failed",
        "set",
        "stopping",
        "stopped",
    ] {
        assert!(kinds.contains(&kind), "no {kind} in {kinds:?}");
    }
    assert_eq!(kinds.iter().filter(|kind| **kind == "set-up").count(), 1, "{kinds:?}");
    let stopping = events.iter().rfind(|event| event["event"] == "stopping").unwrap();
    assert!(stopping["by"].as_str().unwrap().starts_with("riad stop, user "), "{stopping}");
}
