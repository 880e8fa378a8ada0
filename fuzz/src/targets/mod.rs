//! The targets: a file for each floor that reads hostile bytes.

mod agent;
mod board;
mod control;
mod cpu;
mod deb;
mod disk;
mod index;
mod kernel;
mod network;
mod qcow2;
mod switch;
mod translate;
mod virtio;

use crate::random::Random;

/// Something that reads hostile bytes.
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it reads, for people.
    pub what: &'static str,
    /// What [`run`](Self::run) counts.
    pub unit: &'static str,
    /// Reads one case. Must return, whatever it is given; a panic is a finding. Tells how far the
    /// case got, in a unit of the target's own: what the generators and seeds are judged by. 0 is
    /// a case refused at the door.
    pub run: fn(&[u8]) -> u64,
    /// Cases that mean something.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Makes a case that mostly means something.
    pub generate: Option<fn(&mut Random) -> Vec<u8>>,
    /// Pieces that mean something.
    pub words: &'static [&'static [u8]],
}

/// All targets.
pub static TARGETS: &[Target] = &[
    kernel::KERNEL,
    kernel::MODULE,
    index::PACKAGES,
    index::RELEASE,
    index::VERSIONS,
    index::SOURCES,
    deb::DEB,
    disk::DISK,
    qcow2::QCOW2,
    agent::GUEST_SAYS,
    agent::HOST_SAYS,
    agent::SESSION,
    control::CONTROL,
    virtio::BLK,
    virtio::RNG,
    virtio::CONSOLE,
    virtio::NET,
    virtio::VSOCK,
    network::NETWORK,
    switch::SWITCH,
    board::BOARD,
    board::PCI,
    board::LAPIC,
    cpu::DECODE,
    cpu::RUN,
    translate::TRANSLATE,
];

/// The target of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// For targets without a seed of their own.
fn no_seeds() -> Vec<Vec<u8>> {
    Vec::new()
}
