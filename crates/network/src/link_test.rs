use super::*;

#[test]
fn numbers_outside_the_frame_do_not_fit() {
    let checksum =
        |start, offset| Offload { checksum: Some(Partial { start, offset }), ..Offload::default() };
    assert!(checksum(34, 16).fits(52));
    assert!(!checksum(34, 16).fits(51));
    assert!(!checksum(u16::MAX, u16::MAX).fits(MAX_FRAME));
    let segments = |header_len, size| Offload {
        segments: Some(Segments { kind: SegmentKind::Tcp4, header_len, size, ecn: false }),
        ..Offload::default()
    };
    assert!(segments(54, 1).fits(54));
    assert!(!segments(55, 1).fits(54));
    assert!(!segments(54, 0).fits(54));
    assert!(Offload::default().fits(0));
}

#[test]
fn a_guest_is_given_only_what_it_agreed_to() {
    let large = |kind, ecn| Offload {
        checksum: Some(Partial { start: 34, offset: 16 }),
        segments: Some(Segments { kind, header_len: 54, size: 1460, ecn }),
        ..Offload::default()
    };
    let nothing = Accepts::default();
    assert!(nothing.allow(&Offload::default()));
    assert!(!nothing.allow(&large(SegmentKind::Tcp4, false)));
    let tcp4 = Accepts { checksum: true, tcp4: true, ..nothing };
    assert!(tcp4.allow(&large(SegmentKind::Tcp4, false)));
    assert!(!tcp4.allow(&large(SegmentKind::Tcp4, true)));
    assert!(!tcp4.allow(&large(SegmentKind::Tcp6, false)));
    assert!(!tcp4.allow(&large(SegmentKind::Udp, false)));
    assert!(!Accepts { checksum: false, ..tcp4 }.allow(&large(SegmentKind::Tcp4, false)));
}

#[test]
fn time_goes_on() {
    let before = now();
    assert!(now() >= before);
}
