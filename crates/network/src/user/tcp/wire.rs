//! One packet each way: the device that a connection's end of TCP works on.

use smoltcp::phy::{
    Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken,
};
use smoltcp::time::Instant;

/// A packet that comes in, and room for one that goes out.
pub(super) struct Wire<'a> {
    pub(super) incoming: Option<&'a [u8]>,
    /// Where a packet is written; empty when none is wanted.
    pub(super) room: &'a mut [u8],
    /// Bytes of it.
    pub(super) written: usize,
    pub(super) mtu: usize,
}

impl Wire<'_> {
    /// What TCP is to expect of a wire.
    fn describe(mtu: usize) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = mtu;
        // Looked at where the frame comes in, and filled in where it goes out.
        capabilities.checksum = ChecksumCapabilities::ignored();
        // The segment's is left to the guest's card or filled in later; the header's is not.
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities
    }
}

pub(super) struct Incoming<'a>(&'a [u8]);

pub(super) struct Outgoing<'a> {
    room: &'a mut [u8],
    written: &'a mut usize,
}

impl Device for Wire<'_> {
    type RxToken<'a>
        = Incoming<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Outgoing<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let incoming = self.incoming.take()?;
        let outgoing = Outgoing { room: &mut *self.room, written: &mut self.written };
        Some((Incoming(incoming), outgoing))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        let free = self.written == 0 && !self.room.is_empty();
        free.then_some(Outgoing { room: &mut *self.room, written: &mut self.written })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        Self::describe(self.mtu)
    }
}

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        match self.room.get_mut(..len) {
            Some(room) => {
                *self.written = len;
                write(room)
            }
            // Cannot be: packets are no larger than the MTU, and there is room for the largest.
            None => write(&mut vec![0; len]),
        }
    }
}
