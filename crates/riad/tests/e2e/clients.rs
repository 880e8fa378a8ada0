//! Real clients in a real Debian, both ways: out into a world of servers ([`World`]), and in from this
//! computer. What takes long takes its full length where `RIAD_NETWORK=full` says so, which
//! `cargo xtask network` does.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{end_to_end, text};
use crate::home::Home;
use crate::world::{self, World, checksum};

/// What is `full` at full length, and `short` otherwise.
fn turn<T>(full: T, short: T) -> T {
    if std::env::var_os("RIAD_NETWORK").is_some_and(|value| value == "full") { full } else { short }
}

/// A WebSocket's client: the handshake of RFC 6455, section 1.3, messages of all lengths of length
/// fields, and a close. It says how many bytes came back as they were sent.
const WEBSOCKET: &str = r#"
import os, socket, struct, sys
s = socket.create_connection((sys.argv[1], 80), 20)
s.sendall(b"GET /ws HTTP/1.1\r\nHost: w\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
          b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
f = s.makefile("rb")
head = b""
while not head.endswith(b"\r\n\r\n"):
    head += f.readline()
assert b" 101 " in head and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head, head
def send(kind, data):
    mask, n = os.urandom(4), len(data)
    size = bytes([128 | n]) if n < 126 else b"\xfe" + struct.pack(">H", n) if n < 65536 \
        else b"\xff" + struct.pack(">Q", n)
    masked = int.from_bytes(data, "big") ^ int.from_bytes((mask * (n // 4 + 1))[:n], "big")
    s.sendall(bytes([128 | kind]) + size + mask + masked.to_bytes(n, "big"))
def receive():
    kind, n = f.read(2)
    if n == 127:
        n, = struct.unpack(">Q", f.read(8))
    return kind & 15, f.read(n)
total = 0
for n in (0, 5, 125, 126, 4000, 65535, 65536, 300000):
    data = os.urandom(n)
    send(2, data)
    assert receive() == (2, data), n
    total += n
send(8, b"\x03\xe8")
assert receive() == (8, b"\x03\xe8") and f.read() == b""
print(total)
"#;

/// Holds so many connections to an echo at once, and then has each say its number and hear it.
const MANY: &str = r#"
import select, socket, sys
host, count = sys.argv[1], int(sys.argv[2])
streams = [socket.create_connection((host, 7), 60) for _ in range(count)]
for n, s in enumerate(streams):
    s.sendall(b"%d\n" % n)
heard = sum(s.makefile("rb").readline() == b"%d\n" % n for n, s in enumerate(streams))
print(heard, len({s.getsockname() for s in streams}))
"#;

/// A server for many at once: each line is sent back.
const ECHO: &str = r#"
import select, socket
listener = socket.create_server(("", 8000), backlog=4096)
listener.setblocking(False)
poll, streams = select.epoll(), {}
poll.register(listener, select.EPOLLIN)
while True:
    for number, _ in poll.poll():
        if number == listener.fileno():
            try:
                while True:
                    s, _ = listener.accept()
                    streams[s.fileno()] = s
                    poll.register(s, select.EPOLLIN)
            except BlockingIOError:
                continue
        s = streams[number]
        try:
            data = s.recv(4096)
        except OSError:
            data = b""
        if data:
            s.sendall(data)
        else:
            poll.unregister(number)
            streams.pop(number).close()
"#;

/// Bits a second of an iperf3 run, as it says them itself of what arrived.
fn iperf(home: &Home, arguments: &str) -> f64 {
    let script = format!("iperf3 --json --client {} {arguments}", world::NAME);
    let told: serde_json::Value = serde_json::from_str(&home.shell("dev", &script)).unwrap();
    let end = &told["end"];
    let sum = if end["sum_received"].is_null() { &end["sum"] } else { &end["sum_received"] };
    let rate = sum["bits_per_second"].as_f64().unwrap();
    eprintln!("iperf3 {arguments}: {:.0} Mbit/s", rate / 1e6);
    rate
}

#[test]
fn real_clients_reach_the_world() {
    end_to_end!();
    let Some(world) = World::make() else { return };
    let home = Home::new();
    home.create("dev", &["--boot", "agent"]);
    let output = world.here(&home.command(&["start", "dev"])).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let sh = |script: &str| home.shell("dev", &script.replace("WWW", world::NAME));
    let python = |program: &str, arguments: &[&str]| {
        // As many descriptors as there are connections.
        let script = "ulimit -n 8192; exec python3 -c \"$@\"";
        let fixed = ["exec", "dev", "--", "sh", "-c", script, "sh", program, world::NAME];
        home.ok(&fixed.iter().chain(arguments).copied().collect::<Vec<_>>())
    };

    // Names, over both of DNS' ways.
    let [v4, v6] = world::WWW;
    assert_eq!(sh("dig +short WWW A; dig +short WWW AAAA"), format!("{v4}\n{v6}\n"));
    assert_eq!(sh("dig +short +tcp WWW A"), format!("{v4}\n"));
    let long = sh("dig TXT long.world.test");
    assert!(long.contains("retrying in TCP") && long.matches("\taaaa").count() <= 1, "{long}");
    assert_eq!(sh("dig +short TXT long.world.test | wc -c"), format!("{}\n", 8 * 203));
    assert!(sh("dig no.world.test").contains("status: NXDOMAIN"));

    // Pings, and pages.
    for family in ["-4", "-6"] {
        let pinged = sh(&format!("ping {family} -c 3 -i 0.2 WWW"));
        assert!(pinged.contains(" 3 received") && pinged.contains(" 0% packet loss"), "{pinged}");
    }
    let show = "-sS -o /dev/null -w '%{http_code} %{remote_ip} %{size_download}' http://WWW/54321";
    for (family, address) in [("-4", v4), ("-6", v6)] {
        assert_eq!(sh(&format!("curl {family} {show}")), format!("200 {address} 54321"));
    }

    // Much, down, and down and up at once.
    let much = turn(1 << 30, 64 << 20);
    let sum = checksum(much);
    assert_eq!(sh(&format!("curl -sS http://WWW/{much} | sha256sum")), format!("{sum}  -\n"));
    let there = format!("curl -sS http://WWW/{much} | curl -sS -T - http://WWW/");
    assert_eq!(sh(&there), sum);

    // Streams that stay, and many of them.
    let bytes = 5 + 125 + 126 + 4000 + 65_535 + 65_536 + 300_000;
    assert_eq!(python(WEBSOCKET, &[]), format!("{bytes}\n"));
    let many = turn(2000, 500).to_string();
    assert_eq!(python(MANY, &[&many]), format!("{many} {many}\n"));

    if world::has(&["iperf3"]) {
        let mut server = Command::new("iperf3");
        server.arg("--server");
        let mut server = world.there(&server).stdout(Stdio::null()).spawn().unwrap();
        home.soon("iperf3's server", || {
            home.run(&["exec", "dev", "--", "bash", "-c", &format!("</dev/tcp/{v4}/5201")])
                .status
                .success()
        });
        let seconds = turn(10, 1);
        for how in ["", "--reverse", "--parallel 32", "--parallel 32 --reverse", "-6"] {
            let rate = iperf(&home, &format!("--time {seconds} {how}"));
            // Far less than it can be: enough that nothing waited for a timer.
            assert!(rate > 50e6, "{how}: {rate}");
        }
        server.kill().unwrap();
        server.wait().unwrap();
    }
}

/// Asks the server of [`ECHO`] something, and says whether that came back.
fn echoes(stream: &mut TcpStream, line: &str) -> std::io::Result<bool> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    writeln!(stream, "{line}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer.trim_end() == line)
}

#[test]
fn real_clients_reach_a_machine() {
    end_to_end!();
    let home = Home::new();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let has_ssh = world::has(&["ssh", "scp", "ssh-keygen"]);
    let mut options = vec!["--user", "tester", "--publish", "0:8000"];
    let (key, public) = (path("key"), path("key.pub"));
    if has_ssh {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", &key]);
        assert!(keygen.status().unwrap().success());
        options.extend(["--ssh-key", &public]);
    }
    home.create("dev", &options);
    home.ok(&["start", "dev"]);
    home.ok(&["wait", "dev", "system", "--timeout", "240"]);

    // A package from this computer's mirror, its signatures checked.
    let apt = "export DEBIAN_FRONTEND=noninteractive; apt-get -qq update && \
               apt-get -qq install --no-install-recommends netcat-openbsd >/dev/null && nc -h 2>&1";
    let said = home.ok(&["exec", "-u", "root", "dev", "--", "sh", "-c", apt]);
    assert!(said.contains("OpenBSD"), "{said}");

    if has_ssh {
        home.ok(&["wait", "dev", "ssh", "--timeout", "120"]);
        let config = path("config");
        std::fs::write(&config, home.ok(&["ssh-config", "dev"])).unwrap();
        let call = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::null());
            command.output().unwrap()
        };
        let ssh = ["-F", &config, "-i", &key];
        let output = call("ssh", &[&ssh[..], &["dev", "id -un; echo no >&2; exit 7"]].concat());
        assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("tester\n", Some(7)));
        assert_eq!(text(&output.stderr), "no\n");

        let many = 20 << 20;
        let (here, back) = (path("pattern"), path("back"));
        world::file(here.as_ref(), many);
        let copied = |output: std::process::Output| {
            assert!(output.status.success(), "{}", text(&output.stderr));
        };
        copied(call("scp", &[&ssh[..], &["-q", &here, "dev:there"]].concat()));
        assert_eq!(
            text(&call("ssh", &[&ssh[..], &["dev", "sha256sum <there"]].concat()).stdout),
            format!("{}  -\n", checksum(many))
        );
        copied(call("scp", &[&ssh[..], &["-q", "dev:there", &back]].concat()));
        assert_eq!(std::fs::read(&back).unwrap(), world::pattern(0, many as usize));

        if world::has(&["rsync"]) {
            // Only what differs goes over.
            let shell = format!("ssh {}", ssh.join(" "));
            let rsync = |from: &str, to: &str| {
                let output = call(
                    "rsync",
                    &["-e", &shell, "--checksum", "--no-whole-file", "--stats", from, to],
                );
                assert!(output.status.success(), "{}", text(&output.stderr));
                let stats = text(&output.stdout);
                let line = stats.lines().find(|line| line.starts_with("Literal data:")).unwrap();
                line.replace(|c: char| !c.is_ascii_digit(), "").parse::<u64>().unwrap()
            };
            home.ok(&["exec", "dev", "--", "sh", "-c", "cd; echo more >>there"]);
            assert!(rsync("dev:there", &back) < 100_000);
            assert!(std::fs::read(&back).unwrap().ends_with(b"more\n"));
            assert!(rsync(&here, "dev:there") < 100_000);
        }
    }

    // Many connections at once, each of them heard.
    let shown = home.json(&["forward", "ls", "dev"]);
    let port = shown[0]["listens"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    let at = (Ipv4Addr::LOCALHOST, port);
    let serve = |home: &Home| {
        let script = "ulimit -n 8192; exec python3 -c \"$0\"";
        home.ok(&["exec", "-u", "root", "-d", "dev", "--", "bash", "-c", script, ECHO]);
        home.ok(&["wait", "dev", "port:8000", "--timeout", "120"]);
    };
    serve(&home);
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
    let many = turn(2000, 500);
    let mut streams: Vec<_> = (0..many).map(|_| TcpStream::connect(at).unwrap()).collect();
    for (n, stream) in streams.iter_mut().enumerate().rev() {
        assert!(echoes(stream, &n.to_string()).unwrap(), "connection {n} of {many}");
    }
    drop(streams);

    // A server that is killed under load and started again: everybody is served, or told; nobody waits.
    let clients: Vec<_> = (0..8)
        .map(|client| {
            thread::spawn(move || {
                let (start, mut failed, mut last) = (Instant::now(), 0, true);
                while start.elapsed() < Duration::from_secs(8) {
                    let asked = Instant::now();
                    last = TcpStream::connect(at)
                        .and_then(|mut stream| echoes(&mut stream, &client.to_string()))
                        .unwrap_or(false);
                    assert!(asked.elapsed() < Duration::from_secs(5), "somebody had to wait");
                    failed += u32::from(!last);
                }
                (failed, last)
            })
        })
        .collect();
    thread::sleep(Duration::from_secs(1));
    home.ok(&["exec", "-u", "root", "dev", "--", "pkill", "-KILL", "python3"]);
    thread::sleep(Duration::from_secs(1));
    serve(&home);
    let told: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(told.iter().all(|(failed, last)| *failed > 0 && *last), "{told:?}");
}

#[test]
fn many_machines_on_one_network_talk_by_name_and_reach_only_this_computer() {
    end_to_end!();
    let home = Home::new();
    let service = crate::network::server(Ipv4Addr::LOCALHOST.into(), b"hello\n".to_vec());
    let net = format!("user,host={service}");
    home.ok(&["net", "create", "lab", "--mode", "host-only"]);
    let names: Vec<String> = (1..=turn(10, 3)).map(|n| format!("m{n}")).collect();
    for name in &names {
        let small = ["--memory", "128M", "--boot", "agent", "--network", "lab", "--net", &net];
        home.create(name, &small);
    }
    let words: Vec<&str> = names.iter().map(String::as_str).collect();
    home.ok(&[&["start"], &words[..]].concat());
    // Each hears each, by name, at the same time.
    let script = format!(
        "for name in {}; do ping -c 2 -i 0.2 -W 20 $name.lab >/dev/null && echo $name; done",
        names.join(" ")
    );
    let callers: Vec<_> = names
        .iter()
        .map(|name| home.command(&["exec", name, "--", "sh", "-c", &script]).spawn().unwrap())
        .collect();
    let all: String = names.iter().map(|name| format!("{name}\n")).collect();
    for caller in callers {
        assert_eq!(text(&caller.wait_with_output().unwrap().stdout), all);
    }
    // What was opened of this computer's is there, and nothing else is.
    let fetch = |at: &str, port: u16| {
        let script = format!("exec 3<>/dev/tcp/{at}/{port} && cat <&3");
        text(&home.run(&["exec", "m1", "--", "timeout", "5", "bash", "-c", &script]).stdout)
    };
    assert_eq!(fetch("host.riad.internal", service), "hello\n");
    let other = crate::network::server(Ipv4Addr::LOCALHOST.into(), b"secret\n".to_vec());
    assert_eq!(fetch("host.riad.internal", other), "");
    let own = crate::network::own_address();
    assert_eq!(fetch(&own.to_string(), crate::network::server(own, b"secret\n".to_vec())), "");
    // The host that its packages come from, which this computer knows.
    let sources = "/etc/apt/sources.list.d/debian.sources";
    let uris =
        home.ok(&["exec", "m1", "--", "sed", "-nE", r"s|^URIs: *\w+://([^/: ]+).*|\1|p", sources]);
    let mirror = uris.lines().next().expect("a mirror");
    let looked = home.run(&["exec", "m1", "--", "getent", "hosts", mirror]);
    assert!(!looked.status.success(), "{}", text(&looked.stdout));
}
