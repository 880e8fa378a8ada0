use super::*;

const MACS: [Mac; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

#[test]
fn what_goes_in_at_one_end_comes_out_at_the_other() {
    let [mut one, mut other] = Pair::new(MACS, 1500).unwrap();
    let mut room = vec![0; MAX_FRAME];
    assert_eq!(other.receive(&mut room), None);
    let offload = Offload { checksum_valid: true, ..Offload::default() };
    one.send(&offload, b"first");
    one.send(&Offload::default(), &[7; MAX_FRAME]);
    assert_eq!(other.receive(&mut room), Some((offload, 5)));
    assert_eq!(&room[..5], b"first");
    assert_eq!(other.receive(&mut room), Some((Offload::default(), MAX_FRAME)));
    assert_eq!(other.receive(&mut room), None);
    assert_eq!(one.receive(&mut room), None);
    assert_eq!((one.mac(), other.mac()), (MACS[0], MACS[1]));
}

#[test]
fn nothing_is_kept_beyond_the_bound() {
    let [mut one, mut other] = Pair::new(MACS, 1500).unwrap();
    for n in 0..=MOST_FRAMES {
        one.send(&Offload::default(), &n.to_le_bytes());
    }
    let mut room = vec![0; MAX_FRAME];
    let came = std::iter::from_fn(|| other.receive(&mut room)).count();
    assert_eq!(came, MOST_FRAMES);
}

#[test]
fn the_bell_rings_until_it_is_heard() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let [mut one, mut other] = Pair::new(MACS, 1500).unwrap();
    let rings = |link: &Pair| {
        let bell = link.descriptor().unwrap();
        poll(&mut [PollFd::new(&bell, PollFlags::IN)], Some(&Timespec::default())).unwrap() == 1
    };
    assert!(!rings(&other));
    one.send(&Offload::default(), b"frame");
    assert!(rings(&other));
    other.turn(Duration::ZERO);
    assert!(!rings(&other));
}

#[test]
fn an_end_alone_is_down() {
    let [one, other] = Pair::new(MACS, 1500).unwrap();
    assert!(one.up());
    drop(other);
    assert!(!one.up());
}
