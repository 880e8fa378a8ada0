//! A tap device of the host's as a network: frames go to the host's kernel as they are.
//!
//! This takes rights that a user does not have: `CAP_NET_ADMIN`, or a device that somebody who has it
//! made for the user beforehand. With a bridge, the device is made here, joined to it, and gone with
//! the machine. Checksums and large frames are left to the kernel (`IFF_VNET_HDR`, Linux's
//! `Documentation/networking/tuntap.rst`), which does what the wire at the far end needs.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll;
use rustix::io::Errno;

use crate::header;
use crate::link::{Accepts, Link, MAX_MTU, Mac, Offload};
use crate::sys::tap as sys;

/// What can go wrong with a tap device.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// A name that no interface can have.
    #[error(
        "'{0}' cannot be the name of a network interface: expected 1 to 15 characters, without spaces and slashes"
    )]
    Name(String),
    /// The host has no tap devices.
    #[error(
        "this host has no tap devices (/dev/net/tun: {0}): load the kernel's module 'tun', give the container the device, or use --net user, which needs none"
    )]
    NoTun(#[source] io::Error),
    /// The caller may not.
    #[error(
        "{what} takes the right CAP_NET_ADMIN, which this process does not have: have root run 'ip tuntap add dev NAME mode tap user USER' and name that device with --net tap=NAME, or use --net user, which needs no rights"
    )]
    Right {
        /// What was to be done.
        what: String,
    },
    /// Somebody has it.
    #[error("the tap device '{0}' is in use by another machine or program: name another one")]
    Busy(String),
    /// No such bridge.
    #[error(
        "'{0}' is not a bridge of this host's: 'ip link show type bridge' lists them, and 'ip link add {0} type bridge' makes one"
    )]
    NoBridge(String),
    /// The host's kernel refused.
    #[error("{what}: {source}")]
    Host {
        /// What was to be done.
        what: String,
        /// The host's reason.
        source: io::Error,
    },
}

/// A tap device.
#[derive(Debug)]
pub struct Tap {
    device: OwnedFd,
    /// Watches `device` by its edges, so that frames which the guest has no room for wake nobody.
    epoll: OwnedFd,
    name: String,
    mac: Mac,
    mtu: u16,
    accepts: Accepts,
    gone: bool,
}

impl Tap {
    /// Opens the tap device `name`, or makes it if there is none, for a card with address `mac`.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn open(name: &str, mac: Mac) -> Result<Self, TapError> {
        let name = check(name)?;
        let what = format!("opening the tap device '{name}'");
        Self::attach(name, mac, &what)
    }

    /// Makes a tap device and joins it to the bridge of that name. It is gone when this is dropped.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn on_bridge(bridge: &str, mac: Mac) -> Result<Self, TapError> {
        let bridge = check(bridge)?;
        let what = format!("making a tap device for the bridge '{bridge}'");
        // The kernel replaces %d by the first number that is free.
        let mut tap = Self::attach("riad%d", mac, &what)?;
        let what = format!("joining '{}' to the bridge '{bridge}'", tap.name);
        match sys::join_bridge(&tap.name, bridge) {
            Ok(()) => {}
            Err(Errno::NODEV | Errno::OPNOTSUPP) => {
                return Err(TapError::NoBridge(bridge.to_owned()));
            }
            Err(errno) => return Err(refused(what, errno)),
        }
        let mtu = sys::mtu(bridge).map_err(|errno| refused(what.clone(), errno))?;
        sys::set_mtu(&tap.name, mtu).map_err(|errno| refused(what.clone(), errno))?;
        sys::set_up(&tap.name).map_err(|errno| refused(what, errno))?;
        tap.mtu = within(mtu);
        Ok(tap)
    }

    fn attach(name: &str, mac: Mac, what: &str) -> Result<Self, TapError> {
        let host = |errno| refused(what.to_owned(), errno);
        let device = sys::open_tun().map_err(|errno| TapError::NoTun(errno.into()))?;
        let name = match sys::attach(&device, name, header::LEN) {
            Ok(name) => name,
            Err(Errno::BUSY) => return Err(TapError::Busy(name.to_owned())),
            Err(errno) => return Err(host(errno)),
        };
        sys::set_offloads(&device, Accepts::default()).map_err(host)?;
        // A device that somebody else set up may be up already, and then takes no right to leave so.
        match sys::set_up(&name) {
            Ok(()) | Err(Errno::PERM) => {}
            Err(errno) => return Err(host(errno)),
        }
        let mtu = within(sys::mtu(&name).map_err(host)?);
        let watched = epoll::EventFlags::IN | epoll::EventFlags::ET;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .and_then(|epoll| {
                epoll::add(&epoll, &device, epoll::EventData::new_u64(0), watched)?;
                Ok(epoll)
            })
            .map_err(host)?;
        let accepts = Accepts::default();
        Ok(Self { device, epoll, name, mac, mtu, accepts, gone: false })
    }

    /// The interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// An interface's name: `IFNAMSIZ` is 16, with a zero at its end.
fn check(name: &str) -> Result<&str, TapError> {
    let bad = |c: char| c == '/' || c == '%' || c.is_whitespace() || c.is_control();
    let fits = (1..=15).contains(&name.len()) && !name.contains(bad) && name != "." && name != "..";
    fits.then_some(name).ok_or_else(|| TapError::Name(name.to_owned()))
}

fn within(mtu: u32) -> u16 {
    // Below this there is no IPv6.
    u16::try_from(mtu).unwrap_or(MAX_MTU).clamp(1280, MAX_MTU)
}

fn refused(what: String, errno: Errno) -> TapError {
    match errno {
        Errno::PERM | Errno::ACCESS => TapError::Right { what },
        errno => TapError::Host { what, source: errno.into() },
    }
}

impl Link for Tap {
    fn send(&mut self, offload: &Offload, frame: &[u8]) {
        let header = header::encode(offload, 0);
        // A full queue, or an interface that is down: the frame is lost, as on any wire.
        let _ = rustix::io::writev(&self.device, &[IoSlice::new(&header), IoSlice::new(frame)]);
    }

    fn receive(&mut self, frame: &mut [u8]) -> Option<(Offload, usize)> {
        while !self.gone {
            let mut header = [0; header::LEN];
            let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(frame)];
            match rustix::io::readv(&self.device, &mut parts) {
                Ok(len) => {
                    let Some(len) = len.checked_sub(header::LEN) else { continue };
                    if let Some(offload) = header::decode(&header, len) {
                        return Some((offload, len));
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                Err(error) => {
                    // Somebody deleted the interface.
                    tracing::warn!(tap = self.name, %error, "the tap device is gone");
                    self.gone = true;
                }
            }
        }
        None
    }

    fn accepts(&mut self, accepts: Accepts) {
        if self.accepts == accepts {
            return;
        }
        match sys::set_offloads(&self.device, accepts) {
            Ok(()) => self.accepts = accepts,
            Err(error) => {
                tracing::warn!(tap = self.name, %error, "the tap device takes no offloads")
            }
        }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        (!self.gone).then_some(self.epoll.as_fd())
    }

    fn turn(&mut self, _now: Duration) {
        let mut events = Vec::<epoll::Event>::with_capacity(1);
        let spare = rustix::buffer::spare_capacity(&mut events);
        // What made it readable is read by `receive`.
        let _ = epoll::wait(&self.epoll, spare, Some(&rustix::event::Timespec::default()));
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn mac(&self) -> Mac {
        self.mac
    }

    fn up(&self) -> bool {
        !self.gone
    }
}

#[cfg(test)]
#[path = "tap_test.rs"]
mod tests;
