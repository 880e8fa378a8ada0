//! `PROTOCOL:ADDRESS:PORT:PORT`: what comes in here goes to the guest there.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use riad_network::user::{Forward, Listen};
use serde::{Deserialize, Serialize};

/// A forward as users write it: `tcp:8080:80`, `udp:0.0.0.0:5353:53`, `unix:/run/web.sock:80`. Without
/// a protocol it is TCP, and without an address it is this computer alone that gets in. The host's port
/// 0 takes one that is free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Publish(Forward);

impl Publish {
    /// From a TCP port of this computer's loopback to one of the guest's.
    #[must_use]
    pub fn tcp(port: u16, guest_port: u16) -> Self {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self(Forward { listen: Listen::Tcp(at), address: None, port: guest_port })
    }

    /// The forward.
    #[must_use]
    pub fn forward(&self) -> &Forward {
        &self.0
    }

    /// Where it listens, as users write it.
    #[must_use]
    pub fn listens(&self) -> String {
        match &self.0.listen {
            Listen::Tcp(at) => format!("tcp:{at}"),
            Listen::Udp(at) => format!("udp:{at}"),
            Listen::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// Whether it takes a port that is free.
    #[must_use]
    pub fn picks_a_port(&self) -> bool {
        matches!(&self.0.listen, Listen::Tcp(at) | Listen::Udp(at) if at.port() == 0)
    }

    /// Whether it is what `other` was before a free port was found for it.
    #[must_use]
    pub fn becomes(&self, other: &Self) -> bool {
        let mut unknown = other.clone();
        if let Listen::Tcp(at) | Listen::Udp(at) = &mut unknown.0.listen {
            at.set_port(0);
        }
        self.picks_a_port() && *self == unknown
    }

    /// Whether `word` names this forward: all of it, or where it listens, with or without what can be
    /// left out.
    #[must_use]
    pub fn is_called(&self, word: &str) -> bool {
        let whole = word.parse().is_ok_and(|other: Self| other == *self);
        whole || format!("{word}:{}", self.0.port).parse().is_ok_and(|other: Self| other == *self)
    }
}

impl From<Forward> for Publish {
    fn from(forward: Forward) -> Self {
        Self(forward)
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}:{}", self.listens(), self.0.port))
    }
}

impl FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is no forward: write [tcp:|udp:][ADDRESS:]PORT:GUEST-PORT, as in tcp:8080:80, or unix:/PATH:GUEST-PORT"
            )
        };
        let (rest, guest) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = guest.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let listen = match rest.split_once(':') {
            Some(("unix", path)) if path.starts_with('/') => Listen::Unix(PathBuf::from(path)),
            Some(("tcp", at)) => Listen::Tcp(socket(at).ok_or_else(wrong)?),
            Some(("udp", at)) => Listen::Udp(socket(at).ok_or_else(wrong)?),
            _ => Listen::Tcp(socket(rest).ok_or_else(wrong)?),
        };
        Ok(Self(Forward { listen, address: None, port }))
    }
}

/// `PORT`, `ADDRESS:PORT` or `[ADDRESS]:PORT`.
fn socket(text: &str) -> Option<SocketAddr> {
    let (address, port) = match text.rsplit_once(':') {
        None => (IpAddr::V4(Ipv4Addr::LOCALHOST), text),
        Some((address, port)) => {
            let address =
                address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
            (address.parse().ok()?, port)
        }
    };
    Some(SocketAddr::new(address, port.parse().ok()?))
}

impl TryFrom<String> for Publish {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Publish> for String {
    fn from(publish: Publish) -> Self {
        publish.to_string()
    }
}

#[cfg(test)]
#[path = "publish_test.rs"]
mod tests;
