//! A machine's end of a named network: a [`Link`] whose other end is the switch.
//!
//! The connection is made before the machine's process gives up making any, or by somebody else, who hands
//! it over. When the switch is gone, the cable is down for good: the machine's next start has another.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::client::{Client, SwitchError};
use super::mac_of;
use super::message::{HEAD, kind, read_roster};
use crate::header;
use crate::link::{Accepts, Link, MAX_MTU, Mac, Offload};

/// Hears who is on the network, whenever that changes: names of machines and their addresses, one's
/// own included. Called by the card's thread.
pub type Told = Box<dyn FnMut(Vec<(String, Ipv4Addr)>) + Send>;

/// A machine on a named network.
pub struct Member {
    socket: OwnedFd,
    /// Watches `socket` by its edges, so that frames which the guest has no room for wake nobody.
    epoll: OwnedFd,
    address: Ipv4Addr,
    accepts: Accepts,
    told: Told,
    gone: bool,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Member {
    /// Joins the network in `directory`, whose switch runs, as the machine `name` with `address`.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub fn join(
        directory: &Path,
        name: &str,
        address: Ipv4Addr,
        told: Told,
    ) -> Result<Self, SwitchError> {
        let socket = Client::connect(directory)?.join(name, address)?;
        Self::over(socket, address, told).map_err(SwitchError::Host)
    }

    /// Its end of the connection.
    #[cfg(test)]
    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// The machine's end of a connection by which the switch knows the machine with `address` already
    /// ([`Client::join`]).
    ///
    /// # Errors
    /// When the host refuses descriptors.
    pub fn over(socket: OwnedFd, address: Ipv4Addr, told: Told) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let watched = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &socket, epoll::EventData::new_u64(0), watched)?;
        let accepts = Accepts::default();
        Ok(Self { socket, epoll, address, accepts, told, gone: false })
    }
}

impl Link for Member {
    fn send(&mut self, offload: &Offload, frame: &[u8]) {
        let head = [kind::FRAME];
        let header = header::encode(offload, 0);
        let parts = [IoSlice::new(&head), IoSlice::new(&header), IoSlice::new(frame)];
        // A switch that is behind: the frame is lost, as on any wire.
        let _ = rustix::io::writev(&self.socket, &parts);
    }

    fn receive(&mut self, frame: &mut [u8]) -> Option<(Offload, usize)> {
        while !self.gone {
            let mut head = [0; HEAD];
            let mut parts = [IoSliceMut::new(&mut head), IoSliceMut::new(frame)];
            let len = match rustix::io::readv(&self.socket, &mut parts) {
                Ok(0) => {
                    self.gone = true;
                    break;
                }
                Ok(len) => len,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return None,
                Err(error) => {
                    tracing::warn!(%error, "the network's switch is gone");
                    self.gone = true;
                    break;
                }
            };
            if head[0] == kind::ROSTER {
                let rest = frame.get(..len.saturating_sub(HEAD)).unwrap_or_default();
                let text = [head.get(1..len.min(HEAD)).unwrap_or_default(), rest].concat();
                (self.told)(read_roster(&text));
                continue;
            }
            let Some(len) = len.checked_sub(HEAD).filter(|_| head[0] == kind::FRAME) else {
                continue;
            };
            let Some(offload) = head[1..].try_into().ok().and_then(|h| header::decode(h, len))
            else {
                continue;
            };
            if let Some(offload) = fit(&self.accepts, offload, frame.get_mut(..len)?) {
                return Some((offload, len));
            }
        }
        None
    }

    fn accepts(&mut self, accepts: Accepts) {
        self.accepts = accepts;
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        (!self.gone).then_some(self.epoll.as_fd())
    }

    fn turn(&mut self, _now: Duration) {
        let mut events = Vec::<epoll::Event>::with_capacity(1);
        let spare = rustix::buffer::spare_capacity(&mut events);
        // What made it readable is read by `receive`.
        let _ = epoll::wait(&self.epoll, spare, Some(&Timespec::default()));
        let ends = epoll::EventFlags::HUP | epoll::EventFlags::RDHUP;
        self.gone |= events.iter().any(|event| { event.flags }.intersects(ends));
    }

    fn mtu(&self) -> u16 {
        MAX_MTU
    }

    fn mac(&self) -> Mac {
        mac_of(self.address)
    }

    fn up(&self) -> bool {
        !self.gone
    }
}

/// Makes a frame one that the guest takes. Its checksum is filled in where the guest wants it so; a
/// frame that is many in one, which it does not take, is lost.
fn fit(accepts: &Accepts, offload: Offload, frame: &mut [u8]) -> Option<Offload> {
    if accepts.allow(&offload) {
        return Some(offload);
    }
    let partial = offload.checksum.filter(|_| offload.segments.is_none())?;
    let start = usize::from(partial.start);
    let at = start + usize::from(partial.offset);
    let sum = !smoltcp::wire::checksum::data(frame.get(start..)?);
    frame.get_mut(at..at + 2)?.copy_from_slice(&sum.to_be_bytes());
    Some(Offload::default())
}
