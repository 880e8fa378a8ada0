//! Mistakes, tried: each ends with status 125 and one line that says what to do. No machine is
//! started here.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn riad(cache: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_riad"))
        .args(arguments)
        .env("RIAD_CACHE", cache)
        .env_remove("RIAD_DEBIAN_MIRROR")
        .env_remove("RIAD_LOG")
        .stdin(Stdio::null())
        .output()
        .expect("riad runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn mistakes_are_named_with_what_to_do() {
    let cache = tempfile::tempdir().unwrap();
    let not_a_kernel = cache.path().join("not-a-kernel");
    std::fs::write(&not_a_kernel, "no kernel at all").unwrap();
    let odd_disk = cache.path().join("odd.img");
    std::fs::write(&odd_disk, [0; 1000]).unwrap();
    let (not_a_kernel, odd_disk) = (not_a_kernel.to_str().unwrap(), odd_disk.to_str().unwrap());
    #[rustfmt::skip]
    let cases: &[(&[&str], &[&str])] = &[
        // What was typed, and what the message has in it.
        (&["run", "nosuch"], &["'nosuch'", "riad image ls", "'debian'"]),
        (&["run", "fedora:40"], &["'fedora:40'", "'debian:RELEASE'"]),
        (&["run", "debian:potato"], &["'potato'", "bookworm"]),
        (&["run", "Debian"], &["'Debian'", "lower-case"]),
        (&["run", "debian", "ls"], &["'ls'", "`--`", "riad run debian -- ls"]),
        (&["run", "--cpus", "9", "debian"], &["'9'", "--cpus", "1 to 8"]),
        (&["run", "--cpus", "0", "debian"], &["'0'", "--cpus", "1 to 8"]),
        (&["run", "--memory", "12X", "debian"], &["'12X'", "512M"]),
        (&["run", "--memory", "1M", "debian"], &["at least", "--memory"]),
        (&["run", "--memory", "999999T", "debian"], &["at most", "--memory"]),
        (&["run", "--engine", "kvm", "debian"], &["kvm", "--engine soft"]),
        (&["run", "--engine", "qemu", "debian"], &["'qemu'", "auto, soft, soft:interp or kvm"]),
        (&["run", "--memory", "200G", "debian"], &["this computer has", "--memory"]),
        (&["run", "--cpu", "qemu64", "debian"], &["'qemu64'", "riad-v1 or host"]),
        (&["run", "--engine", "soft", "--cpu", "host", "debian"], &["soft", "add --engine kvm"]),
        (&["boot", "--kernel", not_a_kernel, "--engine", "soft:fast"],
            &["'soft:fast'", "auto, soft, soft:interp or kvm"]),
        (&["image", "build", "debian", "--engine", "qemu"],
            &["'qemu'", "auto, soft, soft:interp or kvm"]),
        (&["run", "--code-cache", "64K", "debian"], &["'64K'", "--code-cache", "1 MiB to 1 GiB"]),
        (&["boot", "--kernel", not_a_kernel, "--code-cache", "2G"],
            &["'2G'", "--code-cache", "1 MiB to 1 GiB"]),
        (&["run", "--code-cache", "12X", "debian"], &["'12X'", "--code-cache", "512M"]),
        (&["run", "--net", "wifi", "debian"], &["'wifi'", "user, none, tap=NAME"]),
        (&["run", "--net", "tap=a b", "debian"], &["'a b'", "1 to 15 characters"]),
        (&["run", "--net", "user,host=web", "debian"], &["'web'", "host=8080"]),
        (&["run", "--net", "user,deny=example.", "debian", "-p", "80"], &["'80'", "tcp:8080:80"]),
        (&["run", "--net", "none", "-p", "0:80", "debian"], &["'none'", "network 'user'"]),
        (&["run", "--env", "=x", "debian"], &["'=x'", "NAME=VALUE"]),
        (&["run", "--mirror", "ftp://mirror", "debian"], &["'ftp://mirror'", "http://"]),
        (&["run", "--mirror", "http://127.0.0.1:1/debian", "--keyring", "/nonexistent", "debian"],
            &["/nonexistent", "--keyring"]),
        (&["run", "--mirror", "http://127.0.0.1:1/debian", "--insecure-no-verify", "debian"],
            &["http://127.0.0.1:1/debian", "--mirror"]),
        (&["image", "build", "debian", "--name", "debian-mine"], &["'debian-mine'"]),
        (&["image", "build", "nosuch"], &["'nosuch'"]),
        (&["image", "rm", "nosuch"], &["'nosuch'", "riad image ls"]),
        (&["image", "info", "nosuch"], &["'nosuch'", "riad image ls"]),
        (&["image", "export", "nosuch", "/tmp/x"], &["'nosuch'", "riad image ls"]),
        (&["image", "import", "/nonexistent"], &["--name"]),
        (&["image", "import", "/nonexistent", "--name", "mine"], &["disk /nonexistent"]),
        (&["image", "import", not_a_kernel, "--name", "mine"], &["not-a-kernel", "qcow2", "tar archive"]),
        (&["image", "import", not_a_kernel, "--name", "mine", "--kernel-of", "nosuch"],
            &["'nosuch'", "riad image ls"]),
        (&["image", "import", not_a_kernel, "--name", "m", "--kernel-of", "x", "--kernel", "y"],
            &["--kernel"]),
        (&["boot", "--kernel", "/nonexistent"], &["kernel /nonexistent"]),
        (&["boot", "--kernel", not_a_kernel], &[not_a_kernel, "bzImage", "Multiboot"]),
        (&["boot", "--kernel", not_a_kernel, "--disk", odd_disk], &[odd_disk, "multiple of 512"]),
        (&["boot", "--kernel", not_a_kernel, "--disk", "/nonexistent,ro"], &["/nonexistent"]),
        (&["boot"], &["--kernel"]),
        (&["frob"], &["'frob'"]),
    ];
    // Where there is KVM, asking for it is no mistake.
    let has_kvm = riad_vmm::choose_engine(riad_vmm::EngineKind::Kvm).is_ok();
    for (arguments, words) in cases.iter().filter(|case| !has_kvm || !case.0.contains(&"kvm")) {
        let output = riad(cache.path(), arguments);
        let (shown, stderr) = (arguments.join(" "), text(&output.stderr));
        assert_eq!(output.status.code(), Some(125), "riad {shown}: {stderr}");
        // A warning or a stage may come before it.
        let failure = stderr.lines().position(|line| {
            line.starts_with("riad: ")
                && !line.starts_with("riad: image")
                && !line.starts_with("riad: warning")
        });
        assert!(failure.is_some(), "riad {shown}: {stderr}");
        for word in *words {
            assert!(stderr.contains(word), "riad {shown}: no {word} in: {stderr}");
        }
        assert!(output.stdout.is_empty(), "riad {shown}");
    }
    let leftovers = std::fs::read_dir(cache.path().join("tmp")).unwrap().count();
    assert_eq!(leftovers, 0, "work in progress was left behind");
}

/// A machine's folder that was never started, made by hand.
fn machine(machines: &Path, name: &str, config: &str) {
    let folder = machines.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("machine.json"), config).unwrap();
    riad_disk::Layer::create(&folder.join("disk.layer"), 0, 8 << 20).unwrap();
}

#[test]
fn mistakes_with_machines_are_named_with_what_to_do() {
    let cache = tempfile::tempdir().unwrap();
    let machines = cache.path().join("machines");
    let config = r#"{"schema": 1, "id": "0", "created": 0, "image": {"id": "gone", "name": "debian"},
        "cpus": 1, "memory": 536870912, "disk": 8388608, "engine": "auto", "code_cache": 67108864}"#;
    machine(&machines, "dev", config);
    machine(&machines, "kept", &config.replacen('{', r#"{"protected": true, "#, 1));
    machine(&machines, "newer", r#"{"schema": 9}"#);
    machine(&machines, "broken", "{");
    let [private, empty] = ["private", "empty"].map(|name| cache.path().join(name));
    std::fs::write(&private, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
    std::fs::write(&empty, "\n").unwrap();
    let (private, empty) = (private.to_str().unwrap(), empty.to_str().unwrap());
    #[rustfmt::skip]
    let cases: &[(&[&str], &[&str])] = &[
        (&["create"], &["<NAME>"]),
        (&["create", "Dev"], &["'Dev'", "lower-case"]),
        (&["create", "a.b"], &["'a.b'", "lower-case"]),
        (&["create", "dev"], &["'dev'", "already", "riad delete dev"]),
        (&["create", "new", "--image", "nosuch"], &["'nosuch'", "riad image ls"]),
        (&["create", "new", "--cpus", "9"], &["'9'", "1 to 8"]),
        (&["create", "new", "--memory", "1M"], &["at least", "--memory"]),
        (&["create", "new", "--disk", "huge"], &["'huge'", "512M"]),
        (&["create", "new", "--boot", "bios"], &["'bios'", "auto", "agent"]),
        (&["create", "new", "--engine", "qemu"], &["'qemu'", "auto, soft, soft:interp or kvm"]),
        (&["create", "new", "--net", "tap"], &["'tap'", "tap=NAME"]),
        (&["create", "new", "--publish", "8080:0"], &["'8080:0'", "tcp:8080:80"]),
        (&["start"], &["<NAME>"]),
        (&["start", "nosuch"], &["'nosuch'", "riad ls", "riad create nosuch"]),
        (&["start", "newer"], &["machine.json", "newer Riad"]),
        (&["start", "broken"], &["machine.json", "damaged"]),
        (&["start", "dev"], &["did not start", "image"]),
        (&["stop", "nosuch"], &["'nosuch'"]),
        (&["stop", "dev", "--timeout", "soon"], &["'soon'", "--timeout"]),
        (&["restart", "nosuch"], &["'nosuch'"]),
        (&["delete", "nosuch", "--yes"], &["'nosuch'"]),
        (&["delete", "dev"], &["'dev'", "--yes"]),
        (&["delete", "kept", "--yes"], &["'kept'", "riad unprotect kept"]),
        (&["ls", "--filter", "colour=red"], &["KEY=VALUE", "state"]),
        (&["ls", "--format", "xml"], &["'xml'", "yaml"]),
        (&["info", "nosuch"], &["'nosuch'"]),
        (&["exec", "dev"], &["<CMD>"]),
        (&["exec", "dev", "ls"], &["'ls'", "riad exec NAME -- ls"]),
        (&["exec", "dev", "--", "true"], &["'dev'", "riad start dev"]),
        (&["exec", "dev", "--env", "=x", "--", "true"], &["'=x'", "NAME=VALUE"]),
        (&["exec", "nosuch", "--", "true"], &["'nosuch'"]),
        (&["shell", "nosuch"], &["'nosuch'"]),
        (&["cp", "a"], &["<PATH>"]),
        (&["cp", "a", "b"], &["NAME:PATH"]),
        (&["cp", "dev:/a", "kept:/b"], &["between machines"]),
        (&["cp", "-", "a", "dev:/b"], &["alone"]),
        (&["cp", "nosuch:/a", "."], &["'nosuch'"]),
        (&["cp", "dev:/a", "."], &["riad start dev"]),
        (&["console", "dev"], &["riad start dev"]),
        (&["logs", "kept"], &["riad start kept"]),
        (&["logs", "nosuch"], &["'nosuch'"]),
        (&["wait", "dev", "happy"], &["'happy'", "file:PATH"]),
        (&["wait", "dev", "file:x"], &["begins with /"]),
        (&["wait", "nosuch", "agent"], &["'nosuch'"]),
        (&["wait", "dev", "port:web"], &["port:", "65535"]),
        (&["ip", "dev"], &["riad start dev"]),
        (&["ip", "nosuch"], &["'nosuch'"]),
        (&["ssh-config", "dev"], &["riad start dev"]),
        (&["forward", "add", "dev"], &["<FORWARD>"]),
        (&["forward", "add", "dev", "80"], &["'80'", "tcp:8080:80"]),
        (&["forward", "rm", "dev", "tcp:8080"], &["no forward 'tcp:8080'", "riad forward ls dev"]),
        (&["forward", "ls", "nosuch"], &["'nosuch'"]),
        (&["create", "new", "--allow", "tcp"  , "--deny", "10.0.0.0/99"], &["'10.0.0.0/99'", "prefix"]),
        (&["create", "new", "--net", "none", "--deny", "any"], &["'none'", "network 'user'"]),
        (&["create", "new", "--net-default", "perhaps"], &["'perhaps'", "allow nor deny"]),
        (&["net", "policy", "dev", "allow"], &["allow whom?", "allow tcp example.com:443"]),
        (&["net", "policy", "dev", "allow", "tcp", "a..b"], &["a..b", "*.example.com"]),
        (&["net", "policy", "dev", "default", "no"], &["'no'", "allow nor deny"]),
        (&["net", "policy", "dev", "rm", "1"], &["no rule 1", "riad net policy dev"]),
        (&["net", "policy", "nosuch"], &["'nosuch'"]),
        (&["net", "capture", "dev"], &["--write <FILE>"]),
        (&["net", "capture", "dev", "-w", "f"], &["riad start dev"]),
        (&["net", "capture", "dev", "-w", "f", "--packets", "0"], &["'0'", "--packets"]),
        (&["net", "capture", "dev", "-w", "f", "--duration", "1m"], &["'1m'", "seconds"]),
        (&["net", "fault", "dev"], &["riad start dev"]),
        (&["net", "fault", "dev", "--delay", "50"], &["'50'", "50ms"]),
        (&["net", "fault", "dev", "--loss", "2"], &["'2'", "2%"]),
        (&["net", "fault", "dev", "--rate", "10mb"], &["'10mb'", "10mbit"]),
        (&["net", "fault", "dev", "--cut", "--clear"], &["--cut", "--clear"]),
        (&["set", "dev", "--net", "tap=", ], &["tap=NAME"]),
        (&["why", "nosuch"], &["'nosuch'"]),
        (&["set", "dev", "--cpus", "0"], &["'0'", "1 to 8"]),
        (&["set", "dev", "--memory", "1M"], &["at least", "--memory"]),
        (&["set", "dev", "--disk", "4M"], &["disks only grow"]),
        (&["set", "dev", "--disk", "9T"], &["more than a disk can have"]),
        (&["set", "dev", "--protect", "maybe"], &["'maybe'", "on or off"]),
        (&["set", "nosuch"], &["'nosuch'"]),
        (&["create", "new", "--user", "Ann Lee"], &["'Ann Lee'", "lower-case"]),
        (&["create", "new", "--user", "root"], &["'root'", "not root"]),
        (&["create", "new", "--user", "ann", "--no-user"], &["--no-user"]),
        (&["create", "new", "--ssh-key", "/nonexistent"], &["public key /nonexistent"]),
        (&["create", "new", "--ssh-key", private], &["private key", "private.pub"]),
        (&["create", "new", "--ssh-key", empty], &["no public key", "ssh-ed25519"]),
        (&["create", "new", "--locale", "a b"], &["'a b'", "C.UTF-8"]),
        (&["create", "new", "--time-zone", "../x"], &["'../x'", "Europe/Berlin"]),
        (&["create", "new", "--provision", "/nonexistent"], &["script /nonexistent"]),
        (&["create", "new", "--provision", empty], &["is empty"]),
        (&["create", "new", "--provision", "-", "--provision", "-"], &["one script only"]),
        (&["provision", "nosuch"], &["'nosuch'"]),
        (&["provision", "dev"], &["riad start dev"]),
        (&["provision", "dev", "/nonexistent"], &["script /nonexistent"]),
        (&["protect"], &["<NAME>"]),
        (&["protect", "nosuch"], &["'nosuch'"]),
        (&["unprotect", "kept", "nosuch"], &["'nosuch'"]),
        (&["stats", "nosuch"], &["'nosuch'"]),
        (&["stats", "dev"], &["riad start dev"]),
        (&["stats", "--interval", "0"], &["'0'", "0.1 to 3600"]),
        (&["stats", "--interval", "nan"], &["'nan'", "0.1 to 3600"]),
        (&["top", "--sort", "colour"], &["'colour'", "cpu"]),
        (&["top", "--interval", "often"], &["'often'", "0.1 to 3600"]),
        (&["events", "nosuch"], &["'nosuch'", "riad ls"]),
        (&["events", "--since", "yesterday"], &["'yesterday'", "10m"]),
        (&["logs", "kept", "--provision"], &["riad provision kept"]),
        (&["rename", "dev"], &["<NEW>"]),
        (&["rename", "dev", "kept"], &["'kept'", "already"]),
        (&["rename", "nosuch", "new"], &["'nosuch'"]),
        (&["rename", "dev", "New"], &["'New'", "lower-case"]),
        (&["clone", "dev", "kept"], &["'kept'", "already"]),
        (&["clone", "nosuch", "new"], &["'nosuch'"]),
        (&["disk", "create", "Data"], &["'Data'", "at most 20"]),
        (&["disk", "create", "data"], &["--size"]),
        (&["disk", "create", "data", "--size", "0"], &["'data'", "at least a sector"]),
        (&["disk", "create", "data", "--size", "1000"], &["'data'", "multiple of 512"]),
        (&["disk", "create", "data", "--size", "9T"], &["'data'", "more than a disk can have"]),
        (&["disk", "create", "data", "--from", "/nonexistent"], &["/nonexistent"]),
        (&["disk", "info", "nosuch"], &["'nosuch'", "riad disk ls"]),
        (&["disk", "resize", "nosuch", "1G"], &["'nosuch'", "riad disk ls"]),
        (&["disk", "resize", "nosuch", "more"], &["'more'", "512M"]),
        (&["disk", "attach", "nosuch", "dev"], &["'nosuch'", "riad disk create nosuch"]),
        (&["disk", "attach", "nosuch", "nobody"], &["'nobody'", "riad ls"]),
        (&["disk", "attach", "nosuch"], &["<NAME>"]),
        (&["disk", "detach", "nosuch"], &["'nosuch'", "riad disk ls"]),
        (&["disk", "detach", "nosuch", "dev"], &["'nosuch'", "not attached to machine 'dev'"]),
        (&["disk", "rm", "nosuch", "--yes"], &["'nosuch'", "riad disk ls"]),
        (&["disk", "rm"], &["<DISK>"]),
        (&["vm", "/nonexistent"], &["riad start"]),
    ];
    for (arguments, words) in cases {
        let output = on_machines(&machines, cache.path(), arguments);
        let (shown, stderr) = (arguments.join(" "), text(&output.stderr));
        assert_eq!(output.status.code(), Some(125), "riad {shown}: {stderr}");
        assert!(stderr.starts_with("riad: "), "riad {shown}: {stderr}");
        for word in *words {
            assert!(stderr.contains(word), "riad {shown}: no {word} in: {stderr}");
        }
        assert!(output.stdout.is_empty(), "riad {shown}");
    }
    // What is damaged is listed, and can be deleted.
    let listed = on_machines(&machines, cache.path(), &["ls"]);
    let shown = text(&listed.stdout);
    assert_eq!(shown.lines().filter(|line| line.contains("damaged")).count(), 2, "{shown}");
    for name in ["newer", "broken"] {
        let output = on_machines(&machines, cache.path(), &["delete", "--yes", name]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
}

fn on_machines(machines: &Path, cache: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_riad"))
        .args(arguments)
        .env("RIAD_MACHINES", machines)
        .env("RIAD_CACHE", cache)
        .env_remove("RIAD_LOG")
        .stdin(Stdio::null())
        .output()
        .expect("riad runs")
}

#[test]
fn machines_are_shown_to_people_and_programs() {
    let cache = tempfile::tempdir().unwrap();
    let machines = cache.path().join("machines");
    let said = |arguments: &[&str]| {
        let output = on_machines(&machines, cache.path(), arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    assert!(said(&["ls"]).contains("riad shell"));
    assert_eq!(said(&["ls", "-q"]), "");
    assert_eq!(said(&["ls", "--format", "json"]), "[]\n");
    assert!(!machines.exists(), "looking makes nothing");
    let config = r#"{"schema": 1, "id": "0", "created": 0, "image": {"id": "gone", "name": "debian"},
        "cpus": 1, "memory": 536870912, "disk": 8388608, "engine": "auto", "code_cache": 67108864}"#;
    machine(&machines, "dev", config);
    let row: serde_json::Value =
        serde_json::from_str(&said(&["info", "dev", "--format", "json"])).unwrap();
    assert_eq!(
        (&row["state"], &row["cpus"], &row["run"]),
        (&"stopped".into(), &1.into(), &serde_json::Value::Null)
    );
    assert!(said(&["info", "dev", "--format", "yaml"]).contains("memory_bytes: 536870912\n"));
    assert!(said(&["ls", "--format", "yaml"]).starts_with("- "));
    let table = said(&["ls"]);
    for word in ["NAME", "dev", "stopped", "512 MiB", "8 MiB", "debian"] {
        assert!(table.contains(word), "{table}");
    }
    assert_eq!(said(&["ls", "-q", "--filter", "state=running"]), "");
    let changes = said(&["set", "dev", "--cpus", "2", "--disk", "16M", "--dry-run"]);
    assert!(changes.contains("1 -> 2") && changes.contains("would count now"), "{changes}");
    assert!(said(&["info", "dev"]).contains("8 MiB"));
    said(&["set", "dev", "--cpus", "2", "--disk", "16M"]);
    assert!(said(&["info", "dev"]).contains("16 MiB"));
    assert!(said(&["set", "dev"]).contains("--help"));
    assert!(said(&["disk", "ls"]).contains("riad disk create"));
    said(&["disk", "create", "data", "--size", "1G"]);
    said(&["disk", "attach", "data", "dev", "--read-only"]);
    assert!(said(&["disk", "ls"]).contains("dev (read-only)"));
    assert!(said(&["disk", "info", "data"]).contains("/dev/disk/by-id/virtio-data"));
    assert!(said(&["info", "dev"]).contains("data, read-only"));
    let row: serde_json::Value =
        serde_json::from_str(&said(&["info", "dev", "--format", "json"])).unwrap();
    assert_eq!(row["disks"][0]["name"], "data", "{row}");
    said(&["disk", "resize", "data", "2G"]);
    said(&["disk", "detach", "data"]);
    let output = on_machines(&machines, cache.path(), &["disk", "rm", "data"]);
    assert!(text(&output.stderr).contains("--yes"), "{}", text(&output.stderr));
    said(&["disk", "rm", "data", "--yes"]);
    assert!(said(&["events", "dev"]).contains("disk data detached"));
    said(&["protect", "dev"]);
    assert!(said(&["info", "dev"]).contains("protected"));
    said(&["unprotect", "dev"]);
    // What was done to it is written down, and by whom.
    let events = said(&["events", "dev"]);
    assert!(events.contains("cpus set from 1 to 2 (user "), "{events}");
    assert!(events.contains("protect set from on to off"), "{events}");
    assert_eq!(said(&["events", "dev", "--format", "json"]).lines().count(), 7, "{events}");
    assert_eq!(said(&["events", "--since", "2999-01-01"]), "");
    assert_eq!(
        said(&["stats", "--interval", "0.1"]),
        "No machine runs; `riad start NAME` starts one.\n"
    );
    assert_eq!(said(&["stats", "--interval", "0.1", "--format", "json"]), "[]\n");
    assert!(said(&["top"]).contains("0 of 1 machines run"));
    assert_eq!(said(&["complete", "--line", "riad start "]), "dev\n");
    assert_eq!(said(&["image", "prune"]), "0 B given back.\n");
    assert_eq!(said(&["wait", "dev", "stopped"]), "");
}

#[test]
fn what_is_asked_for_is_on_standard_output() {
    let cache = tempfile::tempdir().unwrap();
    for (arguments, word) in [
        (&["--version"][..], "riad 0."),
        (&["--help"], "completion"),
        (&["run", "--help"], "128 + n"),
        (&["boot", "--help"], "Ctrl-A x"),
        (&["run", "--help"], "soft:interp"),
        (&["boot", "--help"], "--code-cache <SIZE>"),
        (&["image", "build", "--help"], "soft:interp"),
        (&["image", "ls"], "riad run debian"),
        (&["image", "ls", "--format", "json"], "[]"),
        (&["completion", "bash"], "complete -F _riad riad"),
        (&["completion", "zsh"], "#compdef riad"),
        (&["completion", "fish"], "complete -c riad"),
        (&["complete", "--line", "riad run --engine soft:"], "soft:interp"),
        (&["complete", "--line", "riad cre"], "create"),
        (&["complete", "--line", "riad create dev --image "], "debian"),
    ] {
        let output = riad(cache.path(), arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains(word), "{arguments:?}: {}", text(&output.stdout));
        assert!(output.stderr.is_empty(), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn the_doctor_looks_at_everything() {
    let cache = tempfile::tempdir().unwrap();
    let output = riad(cache.path(), &["doctor", "--format", "json"]);
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = findings.as_array().unwrap();
    let of = |subject: &str| {
        let finding = findings.iter().find(|finding| finding["subject"] == subject);
        finding.unwrap_or_else(|| panic!("no {subject} in {findings:?}"))
    };
    for subject in ["engine soft", "engine kvm", "agent", "memory", "cache", "images", "mirror"] {
        let finding = of(subject);
        assert_eq!(finding["verdict"] == "ok", finding["advice"].is_null(), "{finding}");
    }
    // Hosts that cannot run translated code are told that machines are slow.
    let (soft, translates) = (of("engine soft"), riad_vmm::EngineKind::translates_here());
    assert_eq!(soft["verdict"], if translates { "ok" } else { "note" });
    assert_eq!(soft["found"].as_str().unwrap().contains("only interprets"), !translates);
    let has_problem = findings.iter().any(|finding| finding["verdict"] == "problem");
    assert_eq!(output.status.code(), Some(i32::from(has_problem)));
}

#[test]
fn a_cache_that_cannot_be_written_is_said_to_be() {
    let output = riad(Path::new("/proc/nowhere"), &["run", "debian"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("/proc/nowhere"), "{}", text(&output.stderr));
}
