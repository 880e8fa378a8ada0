//! `cargo xtask bench network`: what goes through a guest's network that needs no rights, beside QEMU's
//! own (slirp) and QEMU with passt.
//!
//! Each guest is the same kernel and root with one processor, and runs the same client
//! (`yardstick/network.sh`) against a server in this process, on the host's loopback. `--engine kvm` has
//! all of them on KVM; otherwise Riad's processor in software stands against QEMU's TCG, and the
//! figures are of processor and network together: the table says which.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::engine::{QUIET, watch};
use super::guest::Guest;
use super::qemu::{Qemu, unpack};
use super::report::{Load, median};
use crate::Error;
use crate::cargo::{cargo, run};

/// The longest that a guest may take.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long passt may take to listen.
const LISTENS: Duration = Duration::from_secs(5);
/// What the client does (`yardstick/network.sh`): a line's name, how much of it, and of what a second.
const LINES: [(&str, f64, &str); 5] = [
    ("send", 256.0 * 8.0 * 1.048_576 / 1e3, "Gbit/s"),
    ("receive", 256.0 * 8.0 * 1.048_576 / 1e3, "Gbit/s"),
    ("receive8", 256.0 * 8.0 * 1.048_576 / 1e3, "Gbit/s"),
    ("roundtrips", 5000.0, "/s"),
    ("connections", 1000.0, "/s"),
];

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    rounds: u32,
    riad: Option<PathBuf>,
    qemu: Option<String>,
    passt: Option<PathBuf>,
    engine: String,
    skip_qemu: bool,
    skip_passt: bool,
}

impl Options {
    fn parse(words: &[&str]) -> Result<Self, Error> {
        let mut options = Self {
            rounds: 3,
            riad: None,
            qemu: None,
            passt: None,
            engine: "soft".to_owned(),
            skip_qemu: false,
            skip_passt: false,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match *word {
                "--rounds" => options.rounds = value()?.parse()?,
                "--riad" => options.riad = Some(value()?.into()),
                "--qemu" => options.qemu = Some((*value()?).to_owned()),
                "--passt" => options.passt = Some(value()?.into()),
                "--engine" => options.engine = (*value()?).to_owned(),
                "--skip-qemu" => options.skip_qemu = true,
                "--skip-passt" => options.skip_passt = true,
                _ => {
                    let text =
                        format!("bench network has no option {word}: see `cargo xtask help`");
                    return Err(text.into());
                }
            }
        }
        Ok(options)
    }
}

/// A network that is measured.
#[derive(Debug)]
enum Network {
    /// Riad's own.
    Riad(PathBuf),
    /// QEMU's own.
    Slirp(Qemu),
    /// passt, behind QEMU.
    Passt(Qemu, PathBuf),
}

impl Network {
    fn name(&self) -> &'static str {
        match self {
            Self::Riad(_) => "riad",
            Self::Slirp(_) => "slirp",
            Self::Passt(..) => "passt",
        }
    }

    /// The guest's address, the host's loopback as it sees it, and the largest packet that the network
    /// takes.
    fn addresses(&self) -> (&'static str, &'static str, u16) {
        match self {
            Self::Riad(_) => ("10.213.47.2", "10.213.47.254", 65_520),
            Self::Slirp(_) => ("10.0.2.15", "10.0.2.2", 1500),
            Self::Passt(..) => ("10.0.2.15", "10.0.2.2", 65_520),
        }
    }

    /// Measures once: seconds by line.
    fn measure(
        &self,
        guest: &Guest,
        port: u16,
        engine: &str,
    ) -> Result<BTreeMap<&'static str, f64>, Error> {
        let (address, server, mtu) = self.addresses();
        let append =
            format!("{QUIET} yard.address={address} yard.server={server}:{port} yard.mtu={mtu}");
        let disk = guest.disk()?;
        let mut _passt = None;
        let command = match self {
            Self::Riad(program) => {
                let mut command = Command::new(program);
                command.args(["boot", "--cpus", "1", "--memory", "2G", "--engine", engine]);
                command.args(["--net", &format!("user,host={port}")]);
                command.arg("--kernel").arg(&guest.kernel).arg("--initrd").arg(&guest.network);
                command.args(["--append", &append]).arg("--disk").arg(&disk);
                command
            }
            Self::Slirp(qemu) => {
                let mut command = qemu_guest(qemu, engine, guest, &append, &disk);
                command.args(["-netdev", "user,id=n"]);
                command
            }
            Self::Passt(qemu, program) => {
                let passt = Passt::start(program, &guest.directory)?;
                let mut command = qemu_guest(qemu, engine, guest, &append, &disk);
                let socket = passt.socket.display();
                let netdev = format!("stream,id=n,server=off,addr.type=unix,addr.path={socket}");
                command.args(["-netdev", &netdev]);
                _passt = Some(passt);
                command
            }
        };
        let measured = watch(command, Load::Network, PATIENCE)?;
        for remark in &measured.remarks {
            println!("{}: {remark}", self.name());
        }
        Ok(measured.seconds)
    }
}

fn qemu_guest(qemu: &Qemu, engine: &str, guest: &Guest, append: &str, disk: &Path) -> Command {
    let mut command = qemu.command();
    let (accelerator, cpu) = match engine {
        "kvm" => ("kvm", "host"),
        _ => ("tcg,thread=multi", "max"),
    };
    command.args(["-M", "q35", "-accel", accelerator, "-cpu", cpu]);
    command.args("-m 2048 -smp 1 -nodefaults -serial stdio -display none -no-reboot".split(' '));
    command.arg("-kernel").arg(&guest.kernel).arg("-initrd").arg(&guest.network);
    command.args(["-append", append]);
    command.arg("-drive").arg(format!("file={},if=none,id=d,format=raw", disk.display()));
    command.args(["-device", "virtio-blk-pci,drive=d", "-device", "virtio-net-pci,netdev=n"]);
    command
}

/// A passt that listens for QEMU.
struct Passt {
    child: Child,
    socket: PathBuf,
}

impl Passt {
    fn start(program: &Path, directory: &Path) -> Result<Self, Error> {
        let socket = std::path::absolute(directory.join("passt.sock"))?;
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new(program);
        command.args("--foreground --quiet -a 10.0.2.15 -n 24 -g 10.0.2.2".split(' '));
        command.arg("--socket").arg(&socket).stdin(Stdio::null());
        let child = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
        let mut passt = Self { child, socket };
        let end = Instant::now() + LISTENS;
        while !passt.socket.exists() {
            if let Some(status) = passt.child.try_wait()? {
                return Err(format!("passt ended early ({status})").into());
            }
            if Instant::now() > end {
                return Err("passt does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(passt)
    }
}

impl Drop for Passt {
    fn drop(&mut self) {
        // It ends with its one guest; one that has cannot be killed, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Serves the client; gives the port.
fn serve() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // A client that goes away is told of by the client.
            std::thread::spawn(move || drop(answer(stream)));
        }
    });
    Ok(port)
}

/// Does what the first byte says: takes bytes, gives bytes (as many as the next eight say), or sends
/// back what comes.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; 9];
    stream.read_exact(&mut request)?;
    let [what, len @ ..] = request;
    let mut left = u64::from_le_bytes(len);
    let mut piece = vec![0; 1 << 18];
    let some = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(1 << 18);
    match what {
        b't' => {
            while left > 0 {
                match stream.read(&mut piece)? {
                    0 => return Ok(()),
                    n => left = left.saturating_sub(n as u64),
                }
            }
            stream.write_all(&[1])
        }
        b'g' => {
            while left > 0 {
                stream.write_all(&piece[..some(left)])?;
                left -= some(left) as u64;
            }
            Ok(())
        }
        _ => loop {
            match stream.read(&mut piece)? {
                0 => return Ok(()),
                n => stream.write_all(&piece[..n])?,
            }
        },
    }
}

/// Measures, and prints a table with the bars.
pub(crate) fn network(words: &[&str]) -> Result<(), Error> {
    let options = Options::parse(words)?;
    let target = super::target_directory()?;
    let program = match &options.riad {
        Some(path) => path.clone(),
        None => {
            run(cargo(&["build", "--release", "--package", "riad"]))?;
            target.join("release/riad")
        }
    };
    let guest = Guest::prepare(&program, &target.join("yardstick"))?;
    let port = serve()?;
    let mut networks = vec![Network::Riad(program)];
    if !options.skip_qemu {
        let qemu = match &options.qemu {
            Some(path) => Qemu::at(path),
            None => Qemu::from_backports(&guest.directory.join("qemu"))?,
        };
        println!("QEMU is {}", qemu.version()?);
        networks.push(Network::Slirp(qemu.clone()));
        if !options.skip_passt {
            let passt = match &options.passt {
                Some(path) => path.clone(),
                None => passt(&guest.directory.join("passt"))?,
            };
            networks.push(Network::Passt(qemu, passt));
        }
    }
    let mut seconds: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for round in 1..=options.rounds {
        for network in &networks {
            match network.measure(&guest, port, &options.engine) {
                Ok(measured) => {
                    for (line, taken) in measured {
                        seconds.entry((line, network.name())).or_default().push(taken);
                    }
                }
                Err(error) => println!("round {round}, {}: {error}", network.name()),
            }
        }
    }
    let engines = match options.engine.as_str() {
        "kvm" => "all on KVM".to_owned(),
        other => format!("riad on its engine '{other}', the others on QEMU's TCG"),
    };
    println!("\nmedians of {} rounds, {engines}", options.rounds);
    println!(
        "{:14}{:>16}{:>16}{:>16}{:>12}{:>12}",
        "", "riad", "slirp", "passt", "x slirp", "x passt"
    );
    let of = |line, network| seconds.get(&(line, network)).and_then(|all| median(all));
    for (line, amount, unit) in LINES {
        println!("{}", row(line, amount, unit, ["riad", "slirp", "passt"].map(|n| of(line, n))));
    }
    println!("bars: send, receive and connections 2 times slirp's; all of them ahead of passt");
    Ok(())
}

/// A line of the table, from the seconds that each network took.
fn row(line: &str, amount: f64, unit: &str, seconds: [Option<f64>; 3]) -> String {
    let rate = |seconds: Option<f64>| match seconds {
        Some(seconds) => format!("{:.2} {unit}", amount / seconds),
        None => "-".to_owned(),
    };
    let [riad, slirp, passt] = seconds;
    let times = |other: Option<f64>| match (riad, other) {
        (Some(riad), Some(other)) => format!("{:.2}", other / riad),
        _ => "-".to_owned(),
    };
    let [a, b, c] = seconds.map(rate);
    format!("{line:14}{a:>16}{b:>16}{c:>16}{:>12}{:>12}", times(slirp), times(passt))
}

/// passt as the host's Debian ships it, unpacked beside the build.
fn passt(directory: &Path) -> Result<PathBuf, Error> {
    let program = directory.join("root/usr/bin/passt");
    if !program.exists() {
        println!("fetching passt from this host's Debian");
        unpack(directory, &["passt"])?;
    }
    Ok(program)
}

#[cfg(test)]
#[path = "network_test.rs"]
mod tests;
