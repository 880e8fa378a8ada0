//! What a machine's process gives up before its guest runs: a guest that got hold of the process would
//! find nothing to open but the machine's own files, nobody to connect to, and nothing to execute or
//! trace.
//!
//! * **Landlock** (landlock(7)): files below the machine's folder can be read and written, those of
//!   its image and `/dev/kvm` used, and nothing else opened; no TCP, no abstract sockets and no
//!   signals to others, where the kernel is new enough. A machine on the network `user` may connect
//!   by TCP, and read which name servers the host asks.
//! * **seccomp** (seccomp(2)): the system calls of `sys.rs` fail. They are those that nothing in the
//!   process needs and that lead out of it. A machine on the network `user` may make sockets of the
//!   internet, and no others; where they lead is for the network's policy to say.
//! * **no new privileges** (prctl(2)): set-user-ID programs mean nothing, even if one could be run.
//!
//! Threads inherit all of it, so it is given up while there is one thread. Each is done as far as the
//! kernel knows it; `run.json` says which were.

mod sys;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// The newest rules that are asked for; an older kernel takes those that it knows.
const NEWEST: ABI = ABI::V6;

/// Linux's `EPERM`.
const EPERM: u32 = 1;

/// Whom a machine's process may reach by sockets of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Nobody: what it was given before is all that it has.
    Nobody,
    /// Other computers, for its guest. It listens nowhere.
    Network,
}

/// Where the host's name servers are told.
const RESOLVERS: &str = "/etc/resolv.conf";

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Gives up everything but the two directories, for this thread and those that it starts. Gives the
/// names of what the kernel took.
pub(super) fn confine(writable: &Path, readable: &Path, reach: Reach) -> Vec<String> {
    let steps: [(&str, Result<bool, Failed>); 3] = [
        ("no-new-privileges", privileges()),
        ("landlock", files(writable, readable, reach)),
        ("seccomp", calls(reach)),
    ];
    let mut taken = Vec::new();
    for (name, done) in steps {
        match done {
            Ok(true) => taken.push(name.to_owned()),
            Ok(false) => tracing::warn!(name, "the kernel does not confine the process so"),
            Err(error) => tracing::warn!(name, %error, "the process cannot be confined so"),
        }
    }
    taken
}

fn privileges() -> Result<bool, Failed> {
    rustix::thread::set_no_new_privs(true)?;
    Ok(true)
}

fn files(writable: &Path, readable: &Path, reach: Reach) -> Result<bool, Failed> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write =
        read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile;
    let kvm = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(match reach {
            Reach::Nobody => AccessNet::from_all(NEWEST),
            Reach::Network => AccessNet::BindTcp.into(),
        })?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let resolvers = match reach {
        Reach::Nobody => None,
        Reach::Network => resolvers(),
    };
    let resolvers = resolvers.as_deref().map(|path| (path, AccessFs::ReadFile.into()));
    let below = [(writable, write), (readable, read), (Path::new("/dev/kvm"), kvm)];
    for (path, access) in below.into_iter().chain(resolvers) {
        // A host without KVM has no such file.
        if let Ok(fd) = PathFd::new(path) {
            rules = rules.add_rule(PathBeneath::new(fd, access))?;
        }
    }
    let status = rules.restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// What has to be read to know the host's name servers: the file, or where it is a link, the directory
/// that it leads to, in which somebody replaces it.
fn resolvers() -> Option<PathBuf> {
    let is_link = Path::new(RESOLVERS).is_symlink();
    let path = std::fs::canonicalize(RESOLVERS).ok()?;
    let directory = path.parent().filter(|parent| is_link && *parent != Path::new("/etc"));
    Some(directory.unwrap_or(&path).to_owned())
}

fn calls(reach: Reach) -> Result<bool, Failed> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in sys::REFUSED {
        rules.insert(*call, Vec::new());
    }
    // Threads of this process may wake each other, and nobody else.
    let own = u64::from(std::process::id());
    let another = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, own)?;
    rules.insert(sys::WAKE, vec![SeccompRule::new(vec![another])?]);
    if reach == Reach::Network {
        let other_than = |family| {
            let family = u64::from(family);
            SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)
        };
        let family = vec![other_than(sys::INTERNET)?, other_than(sys::INTERNET6)?];
        rules.insert(sys::SOCKET, vec![SeccompRule::new(family)?]);
        // A pair of datagram sockets could be connected to somebody else's.
        let kind = SeccompCmpOp::MaskedEq(0xf);
        let kind = SeccompCondition::new(1, SeccompCmpArgLen::Dword, kind, sys::DATAGRAM)?;
        rules.insert(sys::PAIR, vec![SeccompRule::new(vec![kind])?]);
        for call in sys::OF_NETWORKS {
            rules.remove(&call);
        }
    }
    // The same calls by their other numbers, where a kernel has those.
    for (call, conditions) in rules.clone() {
        rules.insert(call | sys::OTHER_NUMBERS, conditions);
    }
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(EPERM),
        std::env::consts::ARCH.try_into()?,
    )?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)?;
    Ok(true)
}

#[cfg(test)]
#[path = "confine_test.rs"]
mod tests;
