//! A stand-in for a machine's process that a guest has got hold of: a thread, confined as the process
//! is, that tries to get out.

use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use super::*;

struct Bench {
    _dir: tempfile::TempDir,
    own: PathBuf,
    image: PathBuf,
    other: PathBuf,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let [own, image, other] = ["own", "image", "other"].map(|name| dir.path().join(name));
    for path in [&own, &image, &other] {
        fs::create_dir(path).unwrap();
        fs::write(path.join("file"), "content").unwrap();
    }
    Bench { _dir: dir, own, image, other }
}

/// Runs something in a confined thread; `None` where the kernel cannot confine.
fn confined<T: Send>(bench: &Bench, reach: Reach, body: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let taken = confine(&bench.own, &bench.image, reach);
            let all = ["no-new-privileges", "landlock", "seccomp"];
            if taken != all {
                eprintln!("not tested: this kernel has no more than {taken:?}");
                return None;
            }
            Some(body())
        });
        thread.join().unwrap()
    })
}

fn is_refused<T>(result: io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::PermissionDenied)
}

#[test]
fn its_own_files_can_be_used() {
    let bench = bench();
    confined(&bench, Reach::Nobody, || {
        let own = |name: &str| bench.own.join(name);
        assert_eq!(fs::read_to_string(own("file")).unwrap(), "content");
        fs::write(own("new"), "more").unwrap();
        File::options().append(true).open(own("new")).unwrap().set_len(1).unwrap();
        fs::rename(own("new"), own("file")).unwrap();
        fs::remove_file(own("file")).unwrap();
        fs::read_dir(&bench.own).unwrap();
        assert_eq!(fs::read_to_string(bench.image.join("file")).unwrap(), "content");
        UnixStream::pair().unwrap();
        // Threads of its own are made and woken.
        std::thread::spawn(|| ()).join().unwrap();
    });
}

#[test]
fn nothing_else_can_be_opened_connected_to_executed_or_traced() {
    let bench = bench();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let socket = bench.other.join("socket");
    let _unix = UnixListener::bind(&socket).unwrap();
    let mut victim = Command::new("sleep").arg("60").spawn().unwrap();
    let pid = Pid::from_child(&victim);
    confined(&bench, Reach::Nobody, || {
        for path in ["/etc/passwd", "/proc/self/maps", "/dev/null", "/root"] {
            assert!(is_refused(File::open(path)), "{path}");
        }
        assert!(is_refused(fs::read(bench.other.join("file"))));
        assert!(is_refused(fs::write(bench.other.join("file"), "x")));
        assert!(is_refused(fs::write(bench.image.join("file"), "x")));
        assert!(is_refused(fs::remove_file(bench.image.join("file"))));
        assert!(is_refused(fs::read(bench.own.join("../other/file"))));
        assert!(is_refused(fs::rename(bench.own.join("file"), bench.other.join("moved"))));
        let link = std::os::unix::fs::symlink("/etc/passwd", bench.own.join("link"));
        assert!(is_refused(link) && is_refused(fs::hard_link(&socket, bench.own.join("s"))));
        assert!(is_refused(TcpStream::connect(address)));
        assert!(is_refused(TcpListener::bind("127.0.0.1:0")));
        assert!(is_refused(UnixStream::connect(&socket)));
        assert!(is_refused(UnixListener::bind(bench.own.join("socket"))));
        assert!(is_refused(Command::new("/bin/true").status()));
        assert!(is_refused(kill_process(pid, Signal::KILL).map_err(io::Error::from)));
        assert!(is_refused(File::open(format!("/proc/{}/mem", pid.as_raw_nonzero()))));
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
        assert!(is_refused(pidfd.map_err(io::Error::from)));
        let name = rustix::system::sethostname(b"escaped");
        assert!(is_refused(name.map_err(io::Error::from)));
        let root = rustix::process::chroot("/");
        assert!(is_refused(root.map_err(io::Error::from)));
    });
    assert_eq!(victim.try_wait().unwrap(), None, "nobody ended it");
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert_eq!(fs::read(bench.other.join("file")).unwrap(), b"content");
}

#[test]
fn a_machine_on_a_network_connects_and_listens_nowhere() {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket, socketpair};
    let bench = bench();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let path = bench.other.join("socket");
    let _unix = UnixListener::bind(&path).unwrap();
    confined(&bench, Reach::Network, || {
        TcpStream::connect(address).unwrap();
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().connect(address).unwrap();
        UnixStream::pair().unwrap();
        assert!(is_refused(TcpListener::bind("127.0.0.1:0")));
        assert!(is_refused(UnixStream::connect(&path)));
        assert!(is_refused(UnixListener::bind(bench.own.join("socket"))));
        for family in [AddressFamily::UNIX, AddressFamily::NETLINK, AddressFamily::PACKET] {
            let made = socket(family, SocketType::DGRAM, None);
            assert!(is_refused(made.map_err(io::Error::from)), "{family:?}");
        }
        // It could be connected to a socket that somebody else has.
        let flags = SocketFlags::CLOEXEC;
        let pair = socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None);
        assert!(is_refused(pair.map_err(io::Error::from)));
        for path in ["/etc/passwd", "/etc/hosts", "/dev/null"] {
            assert!(is_refused(File::open(path)), "{path}");
        }
        if resolvers().is_some() {
            fs::read(RESOLVERS).unwrap();
        }
    });
}
