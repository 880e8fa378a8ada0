//! A machine's network, with real clients in a real Debian.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{end_to_end, run, shell, text};
use crate::home::Home;

/// Bytes that differ, so that none can be lost, doubled or moved unseen.
fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

/// A server on an address of this computer's: to everybody it sends `payload`, and then ends its side.
pub(crate) fn server(at: IpAddr, payload: Vec<u8>) -> u16 {
    let listener = TcpListener::bind((at, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, payload) = (stream.unwrap(), payload.clone());
            thread::spawn(move || {
                let _ = stream.write_all(&payload);
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read(&mut [0]);
            });
        }
    });
    port
}

/// Fetches from a TCP port to its end, and says the hash.
const FETCH: &str = "exec 3<>/dev/tcp/$0/$1 && sha256sum <&3";

/// A server in the machine, which says one line to everybody.
const SERVE: &str = r#"
use IO::Socket::INET;
my $listener = IO::Socket::INET->new(LocalPort => 8000, Listen => 64, ReuseAddr => 1) or die $!;
while (my $stream = $listener->accept) {
    sysread($stream, my $request, 4096);
    syswrite($stream, "HTTP/1.0 200 OK\r\n\r\nhello from web\n");
    close $stream;
}
"#;

#[test]
fn a_throw_away_machine_is_on_the_network_at_once() {
    end_to_end!();
    assert_eq!(shell(&[], "cat /sys/class/net/eth0/mtu"), "65520\n");
    // Debian's own archive, by name, with its signatures checked.
    let output = run(&[], &["apt-get", "update"]);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success() && said.contains("InRelease"), "{said}");
    assert_eq!(shell(&["--net", "none"], "ls /sys/class/net"), "lo\n");
}

#[test]
fn this_computers_services_are_reached_when_asked_for_and_not_otherwise() {
    use sha2::{Digest, Sha256};
    end_to_end!();
    let bytes = payload(32 << 20);
    let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let port = server(Ipv4Addr::LOCALHOST.into(), bytes).to_string();
    let fetch =
        |net: &str| run(&["--net", net], &["bash", "-c", FETCH, "host.riad.internal", &port]);
    let output = fetch(&format!("user,host={port}"));
    assert_eq!(text(&output.stdout), format!("{hash}  -\n"), "{}", text(&output.stderr));
    let output = fetch("user");
    assert!(!output.status.success() && output.stdout.is_empty());
}

#[test]
fn a_server_in_a_machine_is_reached_by_its_forwards() {
    end_to_end!();
    let home = Home::new();
    home.create("web", &["--publish", "0:8000"]);
    home.ok(&["start", "web"]);
    home.ok(&["exec", "-d", "web", "--", "perl", "-e", SERVE]);
    home.ok(&["wait", "web", "port:8000", "--timeout", "120"]);
    let addresses = home.ok(&["ip", "web"]);
    assert!(addresses.lines().all(|a| a.parse::<std::net::IpAddr>().is_ok()), "{addresses}");

    let get = |port: u16| {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
        stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    let ports = |home: &Home| -> Vec<u16> {
        let shown = home.json(&["forward", "ls", "web"]);
        let port = |forward: &serde_json::Value| {
            forward["listens"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap()
        };
        shown.as_array().unwrap().iter().map(port).collect()
    };
    let [published] = ports(&home)[..] else { panic!("one forward was asked for") };
    assert!(get(published).unwrap().ends_with("hello from web\n"));
    // Live, while the machine runs.
    home.ok(&["forward", "add", "web", "tcp:0:8000"]);
    let added = ports(&home)[1];
    assert!(get(added).unwrap().contains("200 OK"));
    let error = home.fails(&["forward", "add", "web", &format!("{added}:8000")]);
    assert!(error.contains("already"), "{error}");
    home.ok(&["forward", "rm", "web", &format!("tcp:{added}")]);
    assert_eq!(ports(&home), [published]);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, added)).is_err());
    // What was published is there at the next start, at a port that is free then.
    home.ok(&["restart", "web"]);
    let [published] = ports(&home)[..] else { panic!("one forward was published") };
    home.ok(&["exec", "-d", "web", "--", "perl", "-e", SERVE]);
    home.ok(&["wait", "web", "port:8000", "--timeout", "120"]);
    assert!(get(published).unwrap().contains("200 OK"));
    home.ok(&["stop", "web"]);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, published)).is_err());
}

/// This computer's own address, by which it would go to others.
pub(crate) fn own_address() -> IpAddr {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    // Nothing is sent.
    socket.connect(("192.0.2.1", 9)).expect("this computer has a network");
    socket.local_addr().unwrap().ip()
}

#[test]
fn rules_captures_and_faults_come_and_go_while_a_machine_runs() {
    end_to_end!();
    let home = Home::new();
    let address = own_address();
    let port = server(address, b"hello from here\n".to_vec()).to_string();
    let (rule, to) = (format!("{address}:{port}"), address.to_string());
    home.create("web", &["--boot", "agent", "--deny", "tcp any:25", "--allow", "any:53"]);
    home.ok(&["start", "web"]);
    let fetch = || {
        let script = "exec 3<>/dev/tcp/$0/$1 && cat <&3";
        let command = ["exec", "web", "--", "timeout", "5", "bash", "-c", script, &to, &port];
        text(&home.run(&command).stdout)
    };

    // Who is this computer itself is not reached, until a rule names it; and then not again.
    let policy = || home.json(&["net", "policy", "web"]);
    let rules = ["deny tcp any:25", "allow any:53"];
    assert_eq!(policy()["rules"], serde_json::json!(rules));
    assert_eq!(fetch(), "");
    home.ok(&["net", "policy", "web", "allow", "--at", "1", "tcp", &rule]);
    assert_eq!(policy()["counts"], "now");
    assert_eq!(fetch(), "hello from here\n");
    home.ok(&["net", "policy", "web", "deny", "--at", "1", &to]);
    assert_eq!(fetch(), "");
    home.ok(&["net", "policy", "web", "rm", "1"]);
    home.ok(&["net", "policy", "web", "default", "deny"]);
    assert_eq!(fetch(), "hello from here\n");

    // Who captures sees it.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("web.pcapng");
    let arguments = ["net", "capture", "web", "--packets", "8", "-w", file.to_str().unwrap()];
    let mut capture = home.command(&arguments).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while capture.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "nothing was captured");
        fetch();
    }
    let said = text(&capture.wait_with_output().unwrap().stderr);
    assert!(said.contains("8 frames captured"), "{said}");
    let captured = std::fs::read(&file).unwrap();
    assert!(captured.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]));
    let hello = b"hello from here\n";
    assert!(captured.windows(hello.len()).any(|bytes| bytes == hello));

    // A cable that is slow, one that is cut, and one that is as it was.
    home.ok(&["net", "fault", "web", "--delay", "400ms"]);
    let pinged = home.ok(&["exec", "web", "--", "ping", "-c", "1", "10.213.47.1"]);
    let time = pinged.split("time=").nth(1).and_then(|rest| rest.split(' ').next());
    // There and back.
    assert!(time.unwrap().parse::<f64>().unwrap() >= 800.0, "{pinged}");
    assert_eq!(fetch(), "hello from here\n");
    home.ok(&["net", "fault", "web", "--cut"]);
    assert_eq!(home.json(&["net", "fault", "web"])["cut"], true);
    assert_eq!(fetch(), "");
    home.ok(&["net", "fault", "web", "--clear"]);
    assert_eq!(fetch(), "hello from here\n");
    let events = home.ok(&["events", "web"]);
    for event in ["faults set from none to delay 400ms", "net set from", "from cut to none"] {
        assert!(events.contains(event), "{events}");
    }

    // Rules are kept; faults are not.
    home.ok(&["restart", "web"]);
    assert_eq!(policy()["default"], "deny");
    assert_eq!(home.ok(&["net", "fault", "web"]), "none\n");
    assert_eq!(fetch(), "hello from here\n");
}
