//! Named networks: machines that reach each other by name, come and go while they run, and are cut apart,
//! as two real Debians.

use crate::harness::{end_to_end, text};
use crate::home::Home;

/// A server in a machine: to everybody it sends what the machine calls itself, and then as many bytes
/// as one asks for.
const SERVE: &str = r#"
use IO::Socket::INET;
my $listener = IO::Socket::INET->new(LocalPort => 8000, Listen => 64, ReuseAddr => 1) or die $!;
while (my $stream = $listener->accept) {
    my $bytes = <$stream>;
    print $stream `hostname`, "x" x $bytes;
    close $stream;
}
"#;

/// Asks a machine by its name, for so many bytes: what it calls itself, and how many came.
fn ask(home: &Home, from: &str, name: &str, bytes: u32) -> Option<String> {
    let script = format!(
        "exec 3<>/dev/tcp/{name}/8000 && echo {bytes} >&3 && read -r host <&3 && echo $host $(wc -c <&3)"
    );
    let output = home.run(&["exec", from, "--", "timeout", "5", "bash", "-c", &script]);
    output.status.success().then(|| text(&output.stdout).trim().to_owned())
}

/// Whether a switch runs for a network of this home.
fn has_switch(home: &Home, network: &str) -> bool {
    let directory = home.folder(".networks").join(network);
    let wanted = format!("switch\0{}\0", directory.display());
    let is_one = |process: std::fs::DirEntry| {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).ends_with(&wanted)
    };
    let found = std::fs::read_dir("/proc").unwrap().flatten().any(is_one);
    found || directory.join("switch.sock").exists()
}

#[test]
fn machines_on_a_network_reach_each_other_by_name_and_can_be_cut_apart() {
    end_to_end!();
    let home = Home::new();
    home.ok(&["net", "create", "lab", "--subnet", "10.88.0.0/24"]);
    home.ok(&["net", "create", "quiet", "--mode", "isolated"]);
    let error = home.fails(&["net", "create", "other", "--subnet", "10.88.0.0/16"]);
    assert!(error.contains("network lab"), "{error}");
    home.create("web", &["--network", "lab", "--boot", "agent"]);
    home.create("db", &["--boot", "agent"]);
    home.ok(&["net", "attach", "lab", "db", "--ip", "10.88.0.53"]);
    assert!(!has_switch(&home, "lab"));
    home.ok(&["start", "web", "db"]);
    assert!(has_switch(&home, "lab"));
    assert!(home.ok(&["ip", "db"]).lines().any(|line| line == "10.88.0.53"));
    for name in ["web", "db"] {
        home.ok(&["exec", "-d", name, "--", "perl", "-e", SERVE]);
        home.ok(&["wait", name, "port:8000", "--timeout", "120"]);
    }

    // By name, both ways, also much at a time; the world is there besides.
    assert_eq!(ask(&home, "web", "db", 20_000_000).as_deref(), Some("db 20000000"));
    assert_eq!(ask(&home, "db", "web.lab.riad.internal", 1).as_deref(), Some("web 1"));
    let mtu = home.shell("web", "cat /sys/class/net/eth1/mtu && getent ahostsv4 db | head -n1");
    assert!(mtu.starts_with("65520\n10.88.0.53"), "{mtu}");
    let info = home.json(&["net", "info", "lab"]);
    let sent = |at: usize| info["members"][at]["sent"].as_u64().unwrap();
    assert!(sent(0) > 0 && sent(1) > 0 && info["members"][1]["refused"] == 0, "{info}");

    // A guest that takes another's address is not heard with it.
    home.ok(&[
        "exec",
        "-u",
        "root",
        "web",
        "--",
        "ip",
        "addr",
        "add",
        "10.88.0.99/24",
        "dev",
        "eth1",
    ]);
    let script = "use IO::Socket::INET; IO::Socket::INET->new(LocalAddr => '10.88.0.99', \
                  PeerAddr => '10.88.0.53:8000', Timeout => 2) and exit 3; exit 0";
    home.ok(&["exec", "web", "--", "perl", "-e", script]);
    let info = home.json(&["net", "info", "lab"]);
    let refused = |member: &serde_json::Value| member["refused"].as_u64().unwrap();
    let members = info["members"].as_array().unwrap();
    assert!(members.iter().map(refused).sum::<u64>() > 0, "{info}");

    // Cut apart, and joined again.
    home.ok(&["net", "fault", "lab", "--partition", "web,db"]);
    assert_eq!(ask(&home, "web", "db", 1), None);
    home.ok(&["net", "fault", "lab", "--heal"]);
    assert_eq!(ask(&home, "web", "db", 1).as_deref(), Some("db 1"));

    // One that comes to an isolated network too, while it runs, reaches its neighbours, and nobody else.
    home.ok(&["exec", "-u", "root", "web", "--", "apt-get", "update"]);
    let said = text(&home.run(&["net", "attach", "quiet", "web"]).stderr);
    assert!(said.contains(" now, and at its later starts"), "{said}");
    assert!(has_switch(&home, "quiet"));
    home.shell("web", "ip -brief addr show dev eth2 | grep -q 10.77.0.2/24");
    assert_eq!(ask(&home, "web", "db", 1).as_deref(), Some("db 1"));
    let output =
        home.run(&["exec", "-u", "root", "web", "--", "apt-get", "update", "--error-on=any"]);
    assert!(!output.status.success(), "{}", text(&output.stdout));
    // Nor when a rule would open the world to it: the network's word counts.
    home.ok(&["net", "policy", "web", "allow", "any"]);
    let output =
        home.run(&["exec", "-u", "root", "web", "--", "apt-get", "update", "--error-on=any"]);
    assert!(!output.status.success(), "{}", text(&output.stdout));

    // It leaves it while it runs, and the world is there again; the card and the switch are gone.
    home.ok(&["net", "detach", "quiet", "web"]);
    home.shell("web", "! test -e /sys/class/net/eth2");
    home.ok(&["exec", "-u", "root", "web", "--", "apt-get", "update", "--error-on=any"]);
    home.soon("the end of the switch", || !has_switch(&home, "quiet"));

    // Its neighbour leaves, is no name any more, and comes again, with another address.
    home.ok(&["net", "detach", "lab", "db"]);
    home.soon("the end of the name", || {
        !home.run(&["exec", "web", "--", "getent", "hosts", "db"]).status.success()
    });
    let error = home.fails(&["net", "detach", "lab", "db"]);
    assert!(error.contains("is not on network 'lab'"), "{error}");
    home.ok(&["net", "attach", "lab", "db", "--ip", "10.88.0.54"]);
    home.soon("the name", || ask(&home, "web", "db", 1).as_deref() == Some("db 1"));
    assert!(home.ok(&["ip", "db"]).lines().any(|line| line == "10.88.0.54"));
    // A guest that restarts has its card still.
    home.ok(&["exec", "-d", "-u", "root", "db", "--", "sh", "-c", "echo b >/proc/sysrq-trigger"]);
    home.soon("the restart", || home.json(&["info", "db"])["run"]["reboots"] == 1);
    home.ok(&["wait", "db", "agent", "--timeout", "120"]);
    home.shell("db", "ip -brief addr show dev eth1 | grep -q 10.88.0.54/24");

    // A member that stops is no name any more; the last takes the switch along.
    let error = home.fails(&["net", "rm", "lab"]);
    assert!(error.contains("db, web"), "{error}");
    home.ok(&["stop", "db"]);
    home.soon("the end of the name", || {
        !home.run(&["exec", "web", "--", "getent", "hosts", "db"]).status.success()
    });
    home.ok(&["stop", "web"]);
    home.soon("the end of the switch", || !has_switch(&home, "lab"));
    home.ok(&["net", "detach", "lab", "web"]);
    home.ok(&["net", "detach", "lab", "db"]);
    home.ok(&["net", "rm", "lab"]);
}
