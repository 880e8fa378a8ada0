//! `struct virtio_net_hdr` (virtio 1.3, section 5.1.6): what goes before each frame in a network
//! card's queues, and in Linux's tap devices.

use crate::link::{Offload, Partial, SegmentKind, Segments};

/// Bytes of a header.
pub const LEN: usize = 12;

/// Values of `flags`.
mod flags {
    pub(super) const NEEDS_CSUM: u8 = 1;
    pub(super) const DATA_VALID: u8 = 2;
}

/// Values of `gso_type`.
mod gso {
    pub(super) const NONE: u8 = 0;
    pub(super) const TCPV4: u8 = 1;
    pub(super) const TCPV6: u8 = 4;
    pub(super) const UDP_L4: u8 = 5;
    pub(super) const ECN: u8 = 0x80;
}

/// What a header says of a frame of `len` bytes; `None` when it makes no sense: fields outside of
/// the frame, or a way of cutting that does not exist.
#[must_use]
pub fn decode(header: &[u8; LEN], len: usize) -> Option<Offload> {
    let [flags, gso_type, h0, h1, s0, s1, c0, c1, o0, o1, _, _] = *header;
    let (header_len, size) = (u16::from_le_bytes([h0, h1]), u16::from_le_bytes([s0, s1]));
    let checksum = (flags & flags::NEEDS_CSUM != 0).then_some(Partial {
        start: u16::from_le_bytes([c0, c1]),
        offset: u16::from_le_bytes([o0, o1]),
    });
    let ecn = gso_type & gso::ECN != 0;
    let kind = match gso_type & !gso::ECN {
        gso::NONE => None,
        gso::TCPV4 => Some(SegmentKind::Tcp4),
        gso::TCPV6 => Some(SegmentKind::Tcp6),
        gso::UDP_L4 => Some(SegmentKind::Udp),
        _ => return None,
    };
    let segments = kind.map(|kind| Segments { kind, header_len, size, ecn });
    let checksum_valid = flags & flags::DATA_VALID != 0;
    let offload = Offload { checksum, checksum_valid, segments };
    // What is cut needs a checksum for each piece (section 5.1.6.2).
    let whole = segments.is_none() || checksum.is_some();
    (whole && offload.fits(len)).then_some(offload)
}

/// The header of a frame that lies in `buffers` buffers (section 5.1.6.4).
#[must_use]
pub fn encode(offload: &Offload, buffers: u16) -> [u8; LEN] {
    let Offload { checksum, checksum_valid, segments } = *offload;
    let mut header = [0; LEN];
    if let Some(Partial { start, offset }) = checksum {
        header[0] = flags::NEEDS_CSUM;
        header[6..8].copy_from_slice(&start.to_le_bytes());
        header[8..10].copy_from_slice(&offset.to_le_bytes());
    } else if checksum_valid {
        header[0] = flags::DATA_VALID;
    }
    if let Some(Segments { kind, header_len, size, ecn }) = segments {
        let kind = match kind {
            SegmentKind::Tcp4 => gso::TCPV4,
            SegmentKind::Tcp6 => gso::TCPV6,
            SegmentKind::Udp => gso::UDP_L4,
        };
        header[1] = kind | if ecn { gso::ECN } else { gso::NONE };
        header[2..4].copy_from_slice(&header_len.to_le_bytes());
        header[4..6].copy_from_slice(&size.to_le_bytes());
    }
    header[10..].copy_from_slice(&buffers.to_le_bytes());
    header
}

#[cfg(test)]
#[path = "header_test.rs"]
mod tests;
