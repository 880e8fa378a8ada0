//! The cable between a guest's network card and what stands behind it: the border of this crate.
//!
//! A card has one thread. It calls [`Link::turn`]; it takes frames from the guest and gives each to
//! [`Link::send`]; it asks [`Link::receive`] for frames as long as the guest has room for them; and so
//! again, until neither has anything. Then it sleeps until its guest wants something,
//! [`Link::descriptor`] is readable or [`Link::deadline`] has come. So a network works in its card's thread: a frame goes from the
//! guest to the host's socket in one go, and no thread is woken on the way.
//!
//! Frames begin with the Ethernet header and have no trailer. They are copies: what is behind
//! `frame` does not change while it is looked at, whatever the guest does.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The most bytes of a frame: an IP packet of 65,535 bytes, Ethernet's header, and a VLAN tag.
pub const MAX_FRAME: usize = 65_535 + 14 + 4;

/// The largest MTU a link may have, bytes of an IP packet: what fits into an IPv4 packet, in whole
/// blocks of 16, as Linux has it for its virtual Ethernet devices.
pub const MAX_MTU: u16 = 65_520;

/// A card's address.
pub type Mac = [u8; 6];

/// What is still to be done to a frame, or was done: the meaning of `virtio_net_hdr` (virtio 1.3,
/// section 5.1.6), free of its layout. The numbers come from a guest, or from a network that is no
/// better: [`Offload::fits`] before they are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload {
    /// A checksum that is to be filled in by whoever puts the frame on a real wire.
    pub checksum: Option<Partial>,
    /// Checksums were verified, or come from a place that does not get them wrong: nobody need look.
    pub checksum_valid: bool,
    /// The frame is many in one.
    pub segments: Option<Segments>,
}

/// A checksum in the making: the field holds the sum of the pseudo header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partial {
    /// First byte that is summed up, from the frame's start; the sum goes to the frame's end.
    pub start: u16,
    /// Where the checksum's two bytes lie, from `start`.
    pub offset: u16,
}

/// How a frame that is too large for the wire is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    /// What is cut.
    pub kind: SegmentKind,
    /// Bytes of all headers together: a hint, and zero when unknown. Hostile like the rest.
    pub header_len: u16,
    /// Bytes of payload in each piece; not zero.
    pub size: u16,
    /// The TCP header has CWR set: it belongs to the first piece alone.
    pub ecn: bool,
}

/// Protocols whose packets can be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over either: each piece is a datagram of its own.
    Udp,
}

impl Offload {
    /// Whether the numbers lie within a frame of `len` bytes.
    #[must_use]
    pub fn fits(&self, len: usize) -> bool {
        let checksum = self.checksum.is_none_or(|Partial { start, offset }| {
            usize::from(start) + usize::from(offset) + 2 <= len
        });
        let segments = self.segments.is_none_or(|Segments { size, header_len, .. }| {
            size > 0 && usize::from(header_len) <= len
        });
        checksum && segments
    }
}

/// What a card's guest has agreed to take, beyond frames that are whole and no larger than the MTU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accepts {
    /// Checksums that are not filled in.
    pub checksum: bool,
    /// Large frames of TCP over IPv4.
    pub tcp4: bool,
    /// Large frames of TCP over IPv6.
    pub tcp6: bool,
    /// Large frames of TCP with CWR set.
    pub ecn: bool,
    /// Large frames of UDP.
    pub udp: bool,
}

impl Accepts {
    /// Whether a frame as `offload` says may be given to the guest.
    #[must_use]
    pub fn allow(&self, offload: &Offload) -> bool {
        let segments = offload.segments.is_none_or(|Segments { kind, ecn, .. }| {
            let kind = match kind {
                SegmentKind::Tcp4 => self.tcp4,
                SegmentKind::Tcp6 => self.tcp6,
                SegmentKind::Udp => self.udp,
            };
            kind && (self.ecn || !ecn)
        });
        segments && (self.checksum || offload.checksum.is_none())
    }
}

/// A network's end of a network card's cable. One thread calls it: the card's.
pub trait Link: Send {
    /// Takes a frame from the guest: at most [`MAX_FRAME`] bytes, and fewer than an Ethernet header
    /// has if the guest wants it so. `offload` [fits](Offload::fits) the frame. A frame there is no
    /// room for is lost, as on any network.
    fn send(&mut self, offload: &Offload, frame: &[u8]);

    /// Writes the next frame for the guest to `frame`, which has room for [`MAX_FRAME`] bytes, and
    /// says what it asks for and how long it is. `None` when there is nothing now.
    fn receive(&mut self, frame: &mut [u8]) -> Option<(Offload, usize)>;

    /// The guest's driver agreed to this; until it did, to nothing. Called again when it changes.
    fn accepts(&mut self, accepts: Accepts) {
        let _ = accepts;
    }

    /// Readable when the host's side has something, until [`turn`](Self::turn) has seen to it. A
    /// link that waits for many things has an epoll instance. It is the same one for ever.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// When [`turn`](Self::turn) is due in any case, by the clock it is given.
    fn deadline(&self) -> Option<Duration> {
        None
    }

    /// Does what is due on the host's side. Called between frames, and after each sleep before anything
    /// else is, so also when nothing is due. `now` is [`now`]'s, and is what time it is until the next
    /// turn.
    fn turn(&mut self, now: Duration) {
        let _ = now;
    }

    /// The largest IP packet that goes through, bytes: 1,280 to [`MAX_MTU`].
    fn mtu(&self) -> u16;

    /// The guest's card's address.
    fn mac(&self) -> Mac;

    /// Whether the cable is plugged in, at both ends.
    fn up(&self) -> bool {
        true
    }
}

/// A link as a machine holds it: its card may be built anew, after a reset or from a saved state,
/// while what is behind the link stays. One card uses it at a time, and holds it while it works and
/// while it sleeps. Cloning shares it.
#[derive(Clone)]
pub struct Cable {
    link: Arc<Mutex<dyn Link>>,
    mac: Mac,
    mtu: u16,
}

impl std::fmt::Debug for Cable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cable")
            .field("mac", &self.mac)
            .field("mtu", &self.mtu)
            .finish_non_exhaustive()
    }
}

impl Cable {
    /// A cable to this link.
    #[must_use]
    pub fn new(link: impl Link + 'static) -> Self {
        let (mac, mtu) = (link.mac(), link.mtu());
        Self { link: Arc::new(Mutex::new(link)), mac, mtu }
    }

    /// [`Link::mac`].
    #[must_use]
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// [`Link::mtu`].
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The link, for the card. Waits for a card that has it still.
    pub fn link(&self) -> MutexGuard<'_, dyn Link + 'static> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The host's monotonic time, which networks count in: their peers' clocks go on while a guest's
/// stands still.
#[must_use]
pub fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // Monotonic time is not negative.
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
#[path = "link_test.rs"]
mod tests;
