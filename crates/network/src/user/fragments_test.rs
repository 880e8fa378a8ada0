use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::super::packet::Fragment;
use super::*;

/// A piece of a packet.
fn piece(payload: &[u8], id: u32, offset: usize, more: bool) -> Ip<'_> {
    Ip {
        from: Ipv4Addr::new(10, 0, 0, 2).into(),
        to: Ipv4Addr::new(10, 0, 0, 1).into(),
        protocol: IpProtocol::Udp,
        hop_limit: 64,
        fragment: Some(Fragment { id, offset, more }),
        whole: payload,
        payload,
    }
}

const NOW: Duration = Duration::from_secs(1);

#[test]
fn pieces_that_contradict_each_other_count_for_nothing() {
    let mut fragments = Fragments::default();
    assert_eq!(fragments.put(&piece(&[1; 16], 7, 0, true), NOW), None);
    // It lies over the first.
    assert_eq!(fragments.put(&piece(&[2; 16], 7, 8, true), NOW), None);
    assert_eq!(fragments.put(&piece(&[3; 8], 7, 16, false), NOW), None);
    assert_eq!(fragments.partial.len(), 1, "only what came after");
    // A packet that would be longer than any.
    assert_eq!(fragments.put(&piece(&[3; 800], 8, 65_000, false), NOW), None);
    assert_eq!(fragments.partial.len(), 1);
}

#[test]
fn what_never_comes_is_forgotten() {
    let mut fragments = Fragments::default();
    for id in 0..1000 {
        assert_eq!(fragments.put(&piece(&[1; 8], id, 0, true), NOW), None);
    }
    assert_eq!(fragments.partial.len(), MOST);
    let later = NOW + PATIENCE;
    assert_eq!(fragments.put(&piece(&[1; 8], 999, 8, false), later), None);
    assert_eq!(fragments.partial.len(), 1);
}

proptest! {
    /// Whatever the order of the pieces, the packet is what it was.
    #[test]
    fn pieces_are_put_together(
        len in 9usize..4000,
        unit in 5usize..60,
        order in any::<prop::sample::Index>(),
        twice: bool,
    ) {
        let payload: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
        let size = unit * 8;
        prop_assume!(size < len);
        let mut pieces: Vec<_> = payload.chunks(size).enumerate().collect();
        let last = pieces.len() - 1;
        let turn = order.index(pieces.len());
        pieces.rotate_left(turn);
        let mut fragments = Fragments::default();
        let mut whole = None;
        for (number, (index, bytes)) in pieces.iter().enumerate() {
            let piece = piece(bytes, 7, index * size, *index < last);
            if twice && number + 1 < pieces.len() {
                prop_assert_eq!(fragments.put(&piece, NOW), None);
            }
            let put = fragments.put(&piece, NOW);
            prop_assert_eq!(put.is_some(), number == last);
            whole = put;
        }
        let whole = whole.unwrap();
        let ip = Ip::parse_v4(&whole).unwrap();
        prop_assert!(ip.payload == payload && ip.fragment.is_none());
    }
}
