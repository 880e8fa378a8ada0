//! What stands for the world in tests of the network: two network namespaces, as root makes them or
//! anybody in a user namespace of theirs. In one ([`World::here`]) Riad runs, as on a computer that is
//! on the net; in the other, a cable away, are servers with addresses of documentation's (RFC 5737,
//! RFC 3849), and a name server that knows them. So no test needs the net, and none disturbs it.

mod dns;
mod server;
mod websocket;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub(crate) use server::{checksum, pattern};

/// Addresses of the servers; `www.world.test` is the name of both.
pub(crate) const WWW: [&str; 2] = ["198.51.100.10", "2001:db8:2::10"];
/// Their name.
pub(crate) const NAME: &str = "www.world.test";

/// Makes both namespaces: this one, and another at the other end of a cable. `$1` becomes
/// `/etc/resolv.conf`; `$2` and `$3` are the servers' addresses. All ends with standard input.
const SCRIPT: &str = r#"
set -e
ip link set lo up
unshare --net sleep infinity & there=$!
trap 'kill $there' EXIT
own=$(readlink /proc/$$/ns/net)
until [ "$(readlink /proc/$there/ns/net)" != "$own" ]; do sleep 0.05; done
ip link add riad0 type veth peer name world0 netns $there
ip addr add 192.0.2.1/24 dev riad0
ip -6 addr add 2001:db8:1::1/64 dev riad0 nodad
ip link set riad0 up
nsenter --target $there --net -- sh -ec '
  ip link set lo up
  ip addr add 192.0.2.2/24 dev world0
  ip -6 addr add 2001:db8:1::2/64 dev world0 nodad
  ip link set world0 up
  ip addr add "$1"/32 dev lo
  ip -6 addr add "$2"/128 dev lo nodad' sh "$2" "$3"
ip route add default via 192.0.2.2
ip -6 route add default via 2001:db8:1::2
# Whoever has the group that Riad has here may ping.
echo 0 0 >/proc/sys/net/ipv4/ping_group_range
mount --bind "$1" /etc/resolv.conf
echo "there $there"
cat >/dev/null
"#;

/// The world. It ends with this, and so do its servers.
pub(crate) struct World {
    here: Child,
    there: String,
    /// Namespaces of an ordinary user's are in a user namespace.
    is_root: bool,
    server: Option<Child>,
    _resolv: tempfile::NamedTempFile,
}

/// Whether a program is installed; if it is not, that is said.
pub(crate) fn has(programs: &[&str]) -> bool {
    let found = |program: &str| {
        let script = format!("command -v {program}");
        let mut sh = Command::new("sh");
        sh.args(["-c", &script]).stdout(Stdio::null());
        sh.status().is_ok_and(|status| status.success())
    };
    let missing: Vec<_> = programs.iter().filter(|program| !found(program)).collect();
    if !missing.is_empty() {
        eprintln!("NOT RUN in part: this computer lacks {missing:?}");
    }
    missing.is_empty()
}

impl World {
    /// Makes it, and starts its servers. `None`, and a word, where this computer does not let it be.
    pub(crate) fn make() -> Option<Self> {
        if !has(&["ip", "unshare", "nsenter"]) {
            return None;
        }
        let resolv = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(resolv.path(), format!("nameserver {}\n", WWW[0])).unwrap();
        let is_root = rustix::process::getuid().is_root();
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--mount"]);
        if !is_root {
            unshare.args(["--user", "--map-root-user"]);
        }
        unshare.args(["sh", "-c", SCRIPT, "sh"]).arg(resolv.path()).args(WWW);
        unshare.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut here = unshare.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(here.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(there) = line.trim().strip_prefix("there ").map(str::to_owned) else {
            let _ = here.kill();
            let _ = here.wait();
            eprintln!("NOT RUN in part: this computer lets nobody make network namespaces");
            return None;
        };
        let mut world = Self { here, there, is_root, server: None, _resolv: resolv };
        world.serve();
        Some(world)
    }

    fn entering(&self, namespaces: &[&str], process: &str, command: &Command) -> Command {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", process]).args(namespaces);
        if !self.is_root {
            nsenter.args(["--user", "--preserve-credentials"]);
        }
        nsenter.arg("--").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => nsenter.env(name, value),
                None => nsenter.env_remove(name),
            };
        }
        nsenter.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        nsenter
    }

    /// The same command, on the computer that is on the world's net.
    pub(crate) fn here(&self, command: &Command) -> Command {
        self.entering(&["--net", "--mount"], &self.here.id().to_string(), command)
    }

    /// The same command, where the servers are.
    pub(crate) fn there(&self, command: &Command) -> Command {
        self.entering(&["--net"], &self.there, command)
    }

    /// Starts the servers: this same program, as a test that serves until its input ends.
    pub(crate) fn serve(&mut self) {
        let mut server = Command::new(std::env::current_exe().unwrap());
        server.args(["--exact", "world::server::serves_the_world", "--nocapture"]);
        server.env(server::ASKED, "1");
        let mut server = self.there(&server);
        server.stdin(Stdio::piped()).stderr(Stdio::inherit());
        let mut server = server.spawn().unwrap();
        let lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let serves = lines.map_while(Result::ok).any(|line| line.contains(server::SERVES));
        assert!(serves, "the servers did not come up");
        self.server = Some(server);
    }

    /// Kills the servers, with all their connections.
    pub(crate) fn kill_servers(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill_servers();
        drop(self.here.stdin.take());
        let _ = self.here.wait();
    }
}

/// A file of `pattern`'s bytes.
pub(crate) fn file(at: &Path, len: u64) {
    let mut file = std::fs::File::create(at).unwrap();
    server::write_pattern(&mut file, len).unwrap();
}
