//! Where the host asks for names: `/etc/resolv.conf` (resolv.conf(5)).

use std::fs::Metadata;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Resolvers that are looked at: the C library's own limit.
const MOST: usize = 3;
/// Bytes of the file that are looked at.
const MOST_BYTES: usize = 64 << 10;

/// The file, read again whenever it is another one.
#[derive(Debug)]
pub(super) struct Resolv {
    path: PathBuf,
    seen: Option<(u64, u64, i64, i64, u64)>,
    resolvers: Vec<SocketAddr>,
}

impl Resolv {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, seen: None, resolvers: Vec::new() }
    }

    /// The resolvers that the file names now.
    pub(super) fn resolvers(&mut self) -> Vec<SocketAddr> {
        let now = std::fs::metadata(&self.path).ok().map(|file| stamp(&file));
        if now != self.seen || now.is_none() {
            match std::fs::read(&self.path) {
                Ok(text) => {
                    let text = text.get(..MOST_BYTES).unwrap_or(&text);
                    self.resolvers = parse(&String::from_utf8_lossy(text));
                }
                // A confined process may not read a file that has taken the first one's place.
                Err(error)
                    if error.kind() == io::ErrorKind::PermissionDenied && self.seen.is_some() =>
                {
                    tracing::debug!(%error, "the host's name servers are taken to be the old ones");
                }
                Err(_) => self.resolvers = parse(""),
            }
            self.seen = now;
        }
        self.resolvers.clone()
    }
}

/// A file that is replaced has another inode; one that is written to, another time.
fn stamp(file: &Metadata) -> (u64, u64, i64, i64, u64) {
    (file.dev(), file.ino(), file.mtime(), file.mtime_nsec(), file.size())
}

/// A host that names none asks itself.
fn parse(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        // An address with a zone (`fe80::1%eth0`) is of one link only, and left out.
        words.next()?.parse::<IpAddr>().ok()
    });
    let mut resolvers: Vec<_> = named.take(MOST).map(|ip| SocketAddr::new(ip, 53)).collect();
    if resolvers.is_empty() {
        resolvers.push(SocketAddr::from(([127, 0, 0, 1], 53)));
    }
    resolvers
}

#[cfg(test)]
#[path = "resolv_test.rs"]
mod tests;
