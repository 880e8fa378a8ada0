//! The network between a guest (`smoltcp`'s stack) and real sockets on the host's loopback.

mod addresses;
mod forwards;
mod guest;
mod names;
mod policy;
mod tcp;
mod udp;

use std::net::SocketAddr;

use guest::{Guest, MAC};

use super::policy::HostAccess;
use super::{Config, Policy};

/// A network whose guest may use the host's loopback.
fn open() -> Config {
    let policy = Policy { host: HostAccess::All, ..Policy::default() };
    Config { policy, hostname: Some("dev".to_owned()), ..Config::new(MAC) }
}

/// How the guest reaches a port of the host's loopback.
fn host(guest: &Guest, at: SocketAddr) -> SocketAddr {
    match at {
        SocketAddr::V4(_) => (guest.addresses.host, at.port()).into(),
        SocketAddr::V6(_) => (guest.addresses.v6.unwrap().host, at.port()).into(),
    }
}
