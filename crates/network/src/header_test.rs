use super::*;

#[test]
fn what_is_written_is_read() {
    let segments = Segments { kind: SegmentKind::Tcp6, header_len: 74, size: 1440, ecn: true };
    let checksum = Partial { start: 54, offset: 16 };
    for offload in [
        Offload::default(),
        Offload { checksum_valid: true, ..Offload::default() },
        Offload { checksum: Some(checksum), ..Offload::default() },
        Offload { checksum: Some(checksum), segments: Some(segments), checksum_valid: false },
    ] {
        let header = encode(&offload, 3);
        assert_eq!(decode(&header, 9000), Some(offload));
        assert_eq!(header[10..], [3, 0]);
    }
}

/// The layout, byte by byte, as section 5.1.6 has it.
#[test]
fn the_layout_is_the_specifications() {
    let offload = Offload {
        checksum: Some(Partial { start: 0x0122, offset: 0x0310 }),
        checksum_valid: false,
        segments: Some(Segments {
            kind: SegmentKind::Tcp4,
            header_len: 0x0442,
            size: 0x05b4,
            ecn: false,
        }),
    };
    let bytes = [1, 1, 0x42, 4, 0xb4, 5, 0x22, 1, 0x10, 3, 2, 0];
    assert_eq!(encode(&offload, 2), bytes);
    assert_eq!(decode(&bytes, 0x5000), Some(offload));
}

#[test]
fn nonsense_is_refused() {
    let plain = [0; LEN];
    assert_eq!(decode(&plain, 0), Some(Offload::default()));
    let with = |at: usize, value: u8| {
        let mut header = plain;
        header[at] = value;
        header
    };
    // UDP fragmentation, and a way that nobody knows.
    assert_eq!(decode(&with(1, 3), 100), None);
    assert_eq!(decode(&with(1, 0x11), 100), None);
    // A checksum outside of the frame.
    assert_eq!(decode(&with(0, 1), 1), None);
    assert!(decode(&with(0, 1), 2).is_some());
    // Cut into pieces of nothing, or with no checksum for the pieces.
    assert_eq!(decode(&[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 100), None);
    assert_eq!(decode(&[0, 1, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0], 100), None);
}
