//! A stand-in for a process that a guest has got hold of: threads of each kind, confined as the
//! process's are, that try to get out.

use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process};

use super::*;

#[path = "try_out_test.rs"]
mod try_out;

struct Bench {
    _dir: tempfile::TempDir,
    own: PathBuf,
    image: PathBuf,
    other: PathBuf,
    tcp: std::net::SocketAddr,
    _tcp: TcpListener,
    /// In the directory `other`.
    socket: PathBuf,
    _unix: UnixListener,
    /// Not in any directory.
    hidden: SocketAddr,
    _hidden: UnixListener,
    victim: Child,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let [own, image, other] = ["own", "image", "other"].map(|name| dir.path().join(name));
    for path in [&own, &image, &other] {
        fs::create_dir(path).unwrap();
        fs::write(path.join("file"), "content").unwrap();
    }
    let socket = other.join("socket");
    let hidden = SocketAddr::from_abstract_name(dir.path().as_os_str().as_encoded_bytes()).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    Bench {
        _unix: UnixListener::bind(&socket).unwrap(),
        socket,
        _hidden: UnixListener::bind_addr(&hidden).unwrap(),
        hidden,
        tcp: tcp.local_addr().unwrap(),
        _tcp: tcp,
        victim: Command::new("sleep").arg("600").spawn().unwrap(),
        _dir: dir,
        own,
        image,
        other,
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        assert_eq!(self.victim.try_wait().unwrap(), None, "nobody ended it");
        self.victim.kill().unwrap();
        self.victim.wait().unwrap();
        assert_eq!(fs::read(self.other.join("file")).unwrap(), b"content");
    }
}

/// Runs something in a thread that is confined as one of that kind is, in a process that has its own
/// files and the image's. `None` where the kernel cannot do all of it.
fn confined<T: Send>(
    bench: &Bench,
    own: Kind,
    kind: Option<Kind>,
    body: impl FnOnce() -> T + Send,
) -> Option<T> {
    confined_as(process(bench, own), kind, body)
}

fn process(bench: &Bench, own: Kind) -> Process {
    let process = Process::new(own).reads(&bench.image);
    match own {
        Kind::Builder => process.keeps(&bench.own),
        _ => process.writes(&bench.own),
    }
}

/// As [`confined`], in such a process.
fn confined_as<T: Send>(
    process: Process,
    kind: Option<Kind>,
    body: impl FnOnce() -> T + Send,
) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (filters, taken) = process.confine_thread();
            if taken != ["no-new-privileges", "landlock", "seccomp"] {
                eprintln!("not tested: this kernel has no more than {taken:?}");
                return None;
            }
            if let Some(kind) = kind {
                filters.enter(kind).unwrap();
            }
            Some(body())
        });
        thread.join().unwrap()
    })
}

#[track_caller]
fn refused<T>(what: &str, result: Result<T, impl Into<io::Error>>) {
    match result.map_err(Into::into) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        Err(error) => panic!("{what}: it failed, but for another reason: {error}"),
        Ok(_) => panic!("{what}: it worked"),
    }
}

/// What no thread may do, be its kind what it will, on no network.
fn tries_to_get_out_alone(bench: &Bench) {
    tries_to_get_out(bench);
    refused("TCP", TcpStream::connect(bench.tcp));
    refused("UDP", std::net::UdpSocket::bind("127.0.0.1:0"));
}

/// What no thread may do, be its kind what it will.
fn tries_to_get_out(bench: &Bench) {
    for path in ["/etc/passwd", "/proc/self/maps", "/proc/self/mem", "/dev/null", "/root"] {
        refused(path, File::open(path));
    }
    refused("reading", fs::read(bench.other.join("file")));
    refused("writing", fs::write(bench.other.join("file"), "x"));
    refused("writing to the image", fs::write(bench.image.join("file"), "x"));
    refused("removing of the image", fs::remove_file(bench.image.join("file")));
    refused("a way around", fs::read(bench.own.join("../other/file")));
    refused("moving out", fs::rename(bench.own.join("file"), bench.other.join("moved")));
    refused("a link", std::os::unix::fs::symlink("/etc/passwd", bench.own.join("link")));
    refused("a hard link", fs::hard_link(&bench.socket, bench.own.join("hard")));
    refused("rights", fs::set_permissions(&bench.own, fs::Permissions::from_mode(0o777)));
    refused("listening", TcpListener::bind("127.0.0.1:0"));
    refused("a socket", UnixStream::connect(&bench.socket));
    refused("an abstract socket", UnixStream::connect_addr(&bench.hidden));
    refused("listening in a directory", UnixListener::bind(bench.own.join("socket")));
    refused("datagrams", std::os::unix::net::UnixDatagram::pair());
    refused("a program", Command::new("/bin/true").status());
    let pid = Pid::from_child(&bench.victim);
    refused("a signal", kill_process(pid, Signal::KILL));
    refused(
        "a signal to a thread",
        try_out::signal_thread(pid.as_raw_nonzero().get(), libc::SIGKILL),
    );
    refused("owning a descriptor", try_out::own_descriptor(0, pid.as_raw_nonzero().get()));
    refused("tracing", try_out::trace(pid.as_raw_nonzero().get()));
    refused("another's memory", File::open(format!("/proc/{}/mem", pid.as_raw_nonzero())));
    let none = rustix::process::PidfdFlags::empty();
    refused("a handle", rustix::process::pidfd_open(pid, none));
    refused("another process", try_out::fork());
    refused("a namespace", try_out::unshare());
    refused("typing on the terminal", try_out::type_on_terminal(0, b'x'));
    refused("the host's name", rustix::system::sethostname(b"escaped"));
    refused("another root", rustix::process::chroot("/"));
}

#[test]
fn no_thread_of_any_kind_gets_out() {
    let bench = bench();
    for own in [Kind::Control, Kind::Command, Kind::Builder, Kind::Switch] {
        confined(&bench, own, None, || {
            tries_to_get_out_alone(&bench);
            let made = fs::create_dir(bench.own.join("directory"));
            match own {
                Kind::Builder => {
                    made.and_then(|()| fs::remove_dir(bench.own.join("directory"))).unwrap()
                }
                _ => refused("a directory", made),
            }
            refused("a directory of another's", fs::create_dir(bench.other.join("directory")));
        });
        let kinds = Kind::ALL.into_iter().filter(|_| own.runs_a_guest());
        for kind in kinds.filter(|kind| *kind == own || is_of_machine(*kind)) {
            confined(&bench, own, Some(kind), || tries_to_get_out_alone(&bench));
        }
    }
}

fn is_of_machine(kind: Kind) -> bool {
    Kind::MACHINE.contains(&kind)
}

#[test]
fn with_a_network_one_kind_of_thread_connects_and_none_listens() {
    use rustix::net::{AddressFamily, SocketType, socket};
    let bench = bench();
    let of_network = || process(&bench, Kind::Control).network(true);
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Network) {
        confined_as(of_network(), Some(kind), || tries_to_get_out_alone(&bench));
    }
    confined_as(of_network(), Some(Kind::Network), || {
        TcpStream::connect(bench.tcp).unwrap();
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().connect(bench.tcp).unwrap();
        tries_to_get_out(&bench);
        for family in [AddressFamily::UNIX, AddressFamily::NETLINK, AddressFamily::PACKET] {
            for kind in [SocketType::STREAM, SocketType::DGRAM, SocketType::RAW] {
                refused(&format!("{family:?} {kind:?}"), socket(family, kind, None));
            }
        }
        refused("packets of its own", socket(AddressFamily::INET, SocketType::RAW, None));
        refused("a file", File::open(bench.own.join("file")).and(File::open("/etc/hosts")));
        refused("writing", File::options().append(true).open(bench.own.join("file")));
        if let Ok(text) = fs::read_to_string(RESOLVERS) {
            assert!(text.len() < 1 << 20);
        } else {
            assert!(resolvers(Path::new(RESOLVERS)).is_none());
        }
    });
}

#[test]
fn name_servers_are_read_where_the_file_is_or_in_the_directory_it_leads_to() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let [etc, run] = ["etc", "run"].map(|name| dir.join(name));
    for path in [&etc, &run] {
        fs::create_dir(path).unwrap();
        fs::write(path.join("real.conf"), "nameserver 192.0.2.1").unwrap();
    }
    assert_eq!(resolvers(&etc.join("none.conf")), None);
    assert_eq!(resolvers(&etc.join("real.conf")), Some(etc.join("real.conf")));
    let link = |name: &str, to: &Path| {
        std::os::unix::fs::symlink(to, etc.join(name)).unwrap();
        resolvers(&etc.join(name))
    };
    assert_eq!(link("far.conf", &run.join("real.conf")), Some(run));
    assert_eq!(link("near.conf", &etc.join("real.conf")), Some(etc.join("real.conf")));
}

#[test]
fn threads_of_a_machine_open_nothing_start_nothing_and_hand_over_nothing() {
    let bench = bench();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    for kind in Kind::MACHINE {
        confined(&bench, Kind::Control, Some(kind), || {
            let name = format!("{kind:?}");
            refused(&name, File::open(bench.own.join("file")));
            refused(&name, File::open(bench.image.join("file")));
            refused(&name, fs::remove_file(bench.own.join("file")));
            refused(&name, std::thread::Builder::new().spawn(|| ()));
            refused(&name, io::pipe());
            refused(&name, try_out::map_to_run());
            let nothing = &mut rustix::net::SendAncillaryBuffer::default();
            let flags = rustix::net::SendFlags::empty();
            let data = [io::IoSlice::new(b"x")];
            refused(&name, rustix::net::sendmsg(ours.as_fd(), &data, nothing, flags));
        });
    }
}

#[test]
fn a_processor_knows_no_streams_and_of_files_that_are_open_only_short_requests() {
    let bench = bench();
    let file = File::open(bench.own.join("file")).unwrap();
    for kind in [Kind::Vcpu, Kind::Timer] {
        confined(&bench, Kind::Control, Some(kind), || {
            refused("reading", rustix::io::read(&file, &mut [0; 1]));
            refused("syncing", rustix::fs::fdatasync(&file));
            refused("cutting", rustix::fs::ftruncate(&file, 0));
            refused("a stream", UnixStream::pair());
            match kind {
                Kind::Vcpu => drop(rustix::io::pread(&file, &mut [0; 1], 0).unwrap()),
                _ => refused("reading somewhere", rustix::io::pread(&file, &mut [0; 1], 0)),
            }
        });
    }
}

#[test]
fn what_each_kind_needs_works() {
    let bench = bench();
    let file = File::options().read(true).write(true).open(bench.own.join("file")).unwrap();
    let (mut reader, mut writer) = io::pipe().unwrap();
    for kind in Kind::MACHINE {
        confined(&bench, Kind::Control, Some(kind), || {
            use io::Write;
            // The heap, tables with random seeds, waiting, the clock, and saying something.
            let table: std::collections::HashMap<_, _> =
                (0..10_000).map(|n| (n, vec![0u8; 100])).collect();
            assert_eq!(table.len(), 10_000);
            drop(vec![1u8; 64 << 20]);
            std::thread::sleep(Duration::from_millis(1));
            writer.write_all(b"x").unwrap();
        });
    }
    let many = Kind::MACHINE.len();
    let mut said = vec![0; many];
    io::Read::read_exact(&mut reader, &mut said).unwrap();
    confined(&bench, Kind::Control, Some(Kind::Disk), || {
        use std::os::unix::fs::FileExt;
        file.write_all_at(b"disk", 4096).unwrap();
        file.sync_data().unwrap();
        file.read_exact_at(&mut [0; 4], 4096).unwrap();
        let punch = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&file, punch, 4096, 4) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => panic!("{error}"),
        }
    });
    confined(&bench, Kind::Control, Some(Kind::Device), || {
        use io::{Read, Write};
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.write_all(b"x").unwrap();
        ours.read_exact(&mut [0]).unwrap();
    });
    confined(&bench, Kind::Control, Some(Kind::Control), || {
        let own = |name: &str| bench.own.join(name);
        fs::write(own("new"), "more").unwrap();
        File::options().append(true).open(own("new")).unwrap().set_len(1).unwrap();
        fs::rename(own("new"), own("file")).unwrap();
        fs::remove_file(own("file")).unwrap();
        fs::read_dir(&bench.own).unwrap().count();
        assert_eq!(fs::read_to_string(bench.image.join("file")).unwrap(), "content");
        std::thread::spawn(|| ()).join().unwrap();
        try_out::map_to_run().unwrap();
    });
    confined(&bench, Kind::Builder, Some(Kind::Builder), || {
        let own = |name: &str| bench.own.join(name);
        fs::create_dir_all(own("work/modules")).unwrap();
        fs::write(own("work/modules/a"), "more").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o444);
        File::open(own("work/modules/a")).unwrap().set_permissions(mode).unwrap();
        fs::rename(own("work"), own("image")).unwrap();
        fs::remove_dir_all(own("image")).unwrap();
        std::thread::spawn(|| ()).join().unwrap();
    });
    confined(&bench, Kind::Command, Some(Kind::Command), || {
        refused("a file", File::open(bench.own.join("file")));
        std::thread::spawn(|| ()).join().unwrap();
        std::thread::scope(|scope| drop(scope.spawn(|| ())));
        // There may be no terminal; then that is what is wrong.
        let asked = rustix::termios::tcgetattr(io::stdin()).map(drop);
        assert_ne!(asked, Err(rustix::io::Errno::PERM));
    });
}

/// Runs a test again in a process of its own, with one thread and this environment. Gives what it said.
fn again(name: &str, environment: &[(&str, &str)]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("process::tests::{name}"), "--test-threads=1", "--nocapture"])
        .env_clear()
        .env(CHILD, "1")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// Says that it is that process.
const CHILD: &str = "RIAD_TEST_CHILD";

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

#[test]
fn a_panic_in_a_confined_thread_tells_where_it_was() {
    if !is_child() {
        for wanted in ["0", "1"] {
            let name = "a_panic_in_a_confined_thread_tells_where_it_was";
            let said = again(name, &[("RUST_BACKTRACE", wanted)]);
            assert!(said.contains("as a test"), "{said}");
            let tells = said.contains("deep_within_a_processor");
            assert!(tells == (wanted == "1") || said.contains("not tested"), "{said}");
        }
        return;
    }
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}\n{}", crate::backtrace().unwrap_or_default());
    }));
    let taken = Process::new(Kind::Command).confine();
    if taken.len() < 3 {
        eprintln!("as a test; not tested: this kernel has no more than {taken:?}");
        return;
    }
    for kind in Kind::MACHINE {
        let thread = crate::spawn(kind, "victim", deep_within_a_processor).unwrap();
        thread.join().unwrap_err();
    }
}

#[inline(never)]
fn deep_within_a_processor() {
    panic!("as a test");
}

#[test]
fn what_the_process_began_with_is_closed() {
    // A stand-in: a descriptor of ours whose number nobody owns.
    let number = std::os::fd::IntoRawFd::into_raw_fd(File::open("/").unwrap());
    let inherited = Inherited::now();
    assert!(inherited.0.contains(&number) && inherited.0.iter().all(|number| *number > 2));
    // Not all of those: other tests have theirs.
    Inherited(vec![number]).close();
    assert!(!Inherited::now().0.contains(&number));
}

#[test]
fn the_environment_is_forgotten_but_for_what_is_read_later() {
    // In a process of its own: other tests read theirs.
    if !is_child() {
        let name = "the_environment_is_forgotten_but_for_what_is_read_later";
        again(name, &[("RIAD_TEST_SECRET", "open sesame"), ("RIAD_PATIENCE", "2")]);
        return;
    }
    // Where the kernel put it when the process began.
    let secret = std::env::var("RIAD_TEST_SECRET").unwrap();
    assert!(in_environment(secret.as_bytes()));
    sys::forget_environment(&KEPT);
    assert_eq!(std::env::var_os("RIAD_TEST_SECRET"), None);
    assert_eq!(std::env::var("RIAD_PATIENCE").as_deref(), Ok("2"));
    assert_eq!(std::env::vars_os().count(), 1);
    assert!(!in_environment(secret.as_bytes()));
}

fn in_environment(secret: &[u8]) -> bool {
    let text = fs::read("/proc/self/environ").unwrap();
    text.windows(secret.len()).any(|window| window == secret)
}
