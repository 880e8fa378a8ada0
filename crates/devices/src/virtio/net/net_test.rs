use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use riad_network::header;
use riad_network::link::{MAX_FRAME, Partial, SegmentKind, Segments, now};
use riad_network::pair::Pair;
use riad_network::{Link, Offload};

use super::*;
use crate::pci::PciDevice as _;
use crate::virtio::driver_test::{Choices, Guest, until};

const CARD: Mac = [0x52, 0x54, 0, 1, 2, 3];
const PEER: Mac = [0x52, 0x54, 0, 9, 9, 9];
const EVERYBODY: Mac = [0xff; 6];
/// A buffer as Linux's driver gives it with mergeable buffers.
const SMALL: u32 = 1536;

fn card() -> (Net, NetHandle, Pair) {
    let [ours, theirs] = Pair::new([CARD, PEER], 9000).unwrap();
    let (device, handle) = Net::new(Cable::new(ours));
    (device, handle, theirs)
}

fn guest(choices: Choices) -> (Guest, NetHandle, Pair) {
    let (device, handle, peer) = card();
    (Guest::new(Box::new(device), choices), handle, peer)
}

/// A frame of `len` bytes: addresses, a type, and bytes that differ.
fn frame(to: Mac, from: Mac, len: usize) -> Vec<u8> {
    let mut frame = [&to[..], &from, &[0x08, 0x00]].concat();
    frame.extend((0..len - frame.len()).map(|at| (at % 251) as u8));
    frame
}

/// What comes out at the other end.
fn arrival(peer: &mut Pair) -> (Offload, Vec<u8>) {
    let mut room = vec![0; MAX_FRAME];
    let mut came = None;
    until(|| {
        came = peer.receive(&mut room);
        came.is_some()
    });
    let (offload, len) = came.unwrap();
    room.truncate(len);
    (offload, room)
}

fn plain() -> [u8; header::LEN] {
    header::encode(&Offload::default(), 0)
}

fn large() -> Offload {
    let segments = Segments { kind: SegmentKind::Tcp4, header_len: 54, size: 1460, ecn: false };
    let checksum = Partial { start: 34, offset: 16 };
    Offload { checksum: Some(checksum), checksum_valid: false, segments: Some(segments) }
}

/// Gives a command, and takes the answer.
fn command(guest: &mut Guest, command: &[u8]) -> u8 {
    guest.submit(CONTROL, &[command], &[1]);
    guest.wait(CONTROL).data[0]
}

fn config(guest: &Guest) -> [u8; CONFIG_LEN] {
    let mut config = [0; CONFIG_LEN];
    guest.pci.bar_read(0, 0x2000, &mut config);
    config
}

#[test]
fn frames_go_both_ways() {
    let (mut guest, handle, mut peer) = guest(Choices::default());
    assert_eq!(config(&guest), [0x52, 0x54, 0, 1, 2, 3, 1, 0, 1, 0, 0x28, 0x23]);
    let (there, back) = (frame(PEER, CARD, 60), frame(CARD, PEER, 1514));
    guest.submit(RECEIVE, &[], &[2048]);
    for round in 1..=3 {
        // The header on its own, or together with the frame: the driver's choice (section 2.7.4).
        guest.submit(TRANSMIT, &[&plain(), &there], &[]);
        assert_eq!(arrival(&mut peer), (Offload::default(), there.clone()));
        assert_eq!(guest.wait(TRANSMIT).len, 0);
        guest.submit(TRANSMIT, &[&[&plain()[..], &there].concat()], &[]);
        assert_eq!(arrival(&mut peer).1, there);
        guest.wait(TRANSMIT);

        let valid = Offload { checksum_valid: true, ..Offload::default() };
        peer.send(&valid, &back);
        let used = guest.wait(RECEIVE);
        assert_eq!(used.len as usize, header::LEN + back.len());
        assert_eq!(used.data[..header::LEN], header::encode(&valid, 1));
        assert_eq!(used.data[header::LEN..used.len as usize], back);
        guest.submit(RECEIVE, &[], &[2048]);
        let counters = handle.counters();
        assert_eq!((counters.sent_frames, counters.received_frames), (2 * round, round));
    }
    let counters = handle.counters();
    assert_eq!((counters.sent_bytes, counters.received_bytes), (360, 3 * 1514));
    assert_eq!((counters.sent_dropped, counters.received_dropped), (0, 0));
}

#[test]
fn a_large_frame_is_one_frame() {
    let (mut guest, _, mut peer) = guest(Choices::default());
    let bytes = frame(PEER, CARD, 65_000);
    let header = header::encode(&large(), 0);
    let mut parts = vec![&header[..]];
    parts.extend(bytes.chunks(4500));
    guest.submit(TRANSMIT, &parts, &[]);
    let (offload, came) = arrival(&mut peer);
    assert_eq!(offload, large());
    assert_eq!(came, bytes);
}

#[test]
fn a_large_frame_takes_as_many_buffers_as_it_needs() {
    let (mut guest, _, mut peer) = guest(Choices { size: 64, ..Choices::default() });
    for _ in 0..64 {
        guest.submit(RECEIVE, &[], &[SMALL]);
    }
    let bytes = frame(CARD, PEER, 40_000);
    peer.send(&large(), &bytes);
    let buffers = (header::LEN + bytes.len()).div_ceil(SMALL as usize);
    let mut came = Vec::new();
    for _ in 0..buffers {
        let used = guest.wait(RECEIVE);
        came.extend_from_slice(&used.data[..used.len as usize]);
    }
    assert_eq!(came[..header::LEN], header::encode(&large(), buffers as u16));
    assert_eq!(came[header::LEN..], bytes);
    assert_eq!(guest.poll(RECEIVE), None);
}

/// A link that counts its turns, and has one large frame for its guest.
struct Counting {
    turns: Arc<AtomicU64>,
    frame: Option<Vec<u8>>,
    deadline: Option<Duration>,
}

impl Link for Counting {
    fn send(&mut self, _offload: &Offload, _frame: &[u8]) {}
    fn receive(&mut self, room: &mut [u8]) -> Option<(Offload, usize)> {
        let frame = self.frame.take()?;
        room[..frame.len()].copy_from_slice(&frame);
        Some((Offload::default(), frame.len()))
    }
    fn deadline(&self) -> Option<Duration> {
        self.deadline
    }
    fn turn(&mut self, now: Duration) {
        self.turns.fetch_add(1, Ordering::Relaxed);
        self.deadline = self.deadline.filter(|deadline| *deadline > now);
    }
    fn mtu(&self) -> u16 {
        9000
    }
    fn mac(&self) -> Mac {
        CARD
    }
}

/// A link that writes down what time it knew when it got frames.
struct Dated {
    now: Duration,
    sent: Arc<std::sync::Mutex<Vec<Duration>>>,
}

impl Link for Dated {
    fn send(&mut self, _offload: &Offload, _frame: &[u8]) {
        self.sent.lock().unwrap().push(self.now);
    }
    fn receive(&mut self, _room: &mut [u8]) -> Option<(Offload, usize)> {
        None
    }
    fn turn(&mut self, now: Duration) {
        self.now = now;
    }
    fn mtu(&self) -> u16 {
        9000
    }
    fn mac(&self) -> Mac {
        CARD
    }
}

#[test]
fn a_link_knows_how_late_it_is_when_it_gets_a_frame_after_a_sleep() {
    let sent = Arc::default();
    let link = Dated { now: Duration::ZERO, sent: Arc::clone(&sent) };
    let (device, _) = Net::new(Cable::new(link));
    let mut guest = Guest::new(Box::new(device), Choices::default());
    for round in 0..3 {
        std::thread::sleep(Duration::from_millis(30));
        let before = now();
        guest.submit(TRANSMIT, &[&plain(), &frame(PEER, CARD, 60)], &[]);
        guest.wait(TRANSMIT);
        assert!(sent.lock().unwrap()[round] >= before);
    }
}

/// The device waits for more buffers, neither losing the frame nor spinning until they come; both
/// with notifications by index and with the flag.
#[test]
fn a_frame_waits_for_enough_buffers() {
    for features in [u64::MAX, !crate::virtio::feature::EVENT_IDX] {
        let turns = Arc::new(AtomicU64::new(0));
        let bytes = frame(CARD, PEER, 4 * SMALL as usize);
        let link = Counting { turns: turns.clone(), frame: Some(bytes.clone()), deadline: None };
        let (device, _) = Net::new(Cable::new(link));
        let mut guest = Guest::new(Box::new(device), Choices { features, ..Choices::default() });
        for _ in 0..3 {
            guest.submit(RECEIVE, &[], &[SMALL]);
        }
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(guest.poll(RECEIVE), None);
        let settled = turns.load(Ordering::Relaxed);
        assert!(settled < 50, "the card spins: {settled} turns");
        for _ in 0..2 {
            guest.submit(RECEIVE, &[], &[SMALL]);
        }
        let came: u32 = (0..5).map(|_| guest.wait(RECEIVE).len).sum();
        assert_eq!(came as usize, header::LEN + bytes.len());
    }
}

#[test]
fn a_link_gets_its_turn_when_it_is_due() {
    let turns = Arc::new(AtomicU64::new(0));
    let due = now() + Duration::from_millis(100);
    let link = Counting { turns: turns.clone(), frame: None, deadline: Some(due) };
    let (device, _) = Net::new(Cable::new(link));
    let guest = Guest::new(Box::new(device), Choices::default());
    until(|| turns.load(Ordering::Relaxed) >= 1);
    let before = turns.load(Ordering::Relaxed);
    until(|| now() > due && turns.load(Ordering::Relaxed) > before);
    drop(guest);
}

#[test]
fn without_mergeable_buffers_a_frame_fits_or_is_lost() {
    let features = !feature::MRG_RXBUF;
    let (mut guest, handle, mut peer) = guest(Choices { features, ..Choices::default() });
    guest.submit(RECEIVE, &[], &[SMALL]);
    guest.submit(RECEIVE, &[], &[SMALL]);
    peer.send(&Offload::default(), &frame(CARD, PEER, SMALL as usize));
    assert_eq!(guest.wait(RECEIVE).len, 0);
    let fits = frame(CARD, PEER, SMALL as usize - header::LEN);
    peer.send(&Offload::default(), &fits);
    let used = guest.wait(RECEIVE);
    assert_eq!(used.len, SMALL);
    // The number of buffers is one here too (section 5.1.6.4.1).
    assert_eq!(used.data[10..12], [1, 0]);
    until(|| handle.counters().received_dropped == 1);
}

#[test]
fn a_guest_is_given_nothing_that_it_did_not_accept() {
    let features = !(feature::GUEST_TSO4 | feature::GUEST_TSO6);
    let (mut guest, handle, mut peer) = guest(Choices { features, ..Choices::default() });
    guest.submit(RECEIVE, &[], &[SMALL]);
    let bytes = frame(CARD, PEER, 1000);
    peer.send(&large(), &bytes);
    until(|| handle.counters().received_dropped == 1);
    // A sum outside of the frame, and a frame that has no address.
    let outside = Partial { start: 999, offset: 0 };
    peer.send(&Offload { checksum: Some(outside), ..Offload::default() }, &bytes);
    peer.send(&Offload::default(), &bytes[..5]);
    until(|| handle.counters().received_dropped == 3);
    let inside =
        Offload { checksum: Some(Partial { start: 34, offset: 16 }), ..Offload::default() };
    peer.send(&inside, &bytes);
    assert_eq!(guest.wait(RECEIVE).data[..header::LEN], header::encode(&inside, 1));
    // Offloads that the driver turns off while it runs (section 5.1.6.5.6).
    assert_eq!(command(&mut guest, &[5, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 0);
    peer.send(&inside, &bytes);
    until(|| handle.counters().received_dropped == 4);
    // One that it did not accept cannot be turned on.
    let tso4 = feature::GUEST_TSO4.to_le_bytes();
    assert_eq!(command(&mut guest, &[&[5, 0], &tso4[..]].concat()), 1);
}

#[test]
fn malformed_frames_are_lost_and_counted() {
    let (mut guest, handle, mut peer) = guest(Choices { size: 64, ..Choices::default() });
    let whole = frame(PEER, CARD, 60);
    let mut outside = plain();
    (outside[0], outside[6]) = (1, 59);
    let too_much = vec![0; MAX_FRAME + 1];
    guest.submit(TRANSMIT, &[&plain()[..5]], &[]);
    guest.submit(TRANSMIT, &[&plain()], &[]);
    guest.submit(TRANSMIT, &[&plain(), &whole[..13]], &[]);
    guest.submit(TRANSMIT, &[&outside, &whole], &[]);
    guest.submit(TRANSMIT, &[&plain(), &too_much], &[]);
    // A buffer to write to is none to read from.
    guest.submit(TRANSMIT, &[], &[100]);
    guest.submit(TRANSMIT, &[&plain(), &whole], &[]);
    for _ in 0..7 {
        assert_eq!(guest.wait(TRANSMIT).len, 0);
    }
    assert_eq!(arrival(&mut peer).1, whole);
    let counters = handle.counters();
    assert_eq!((counters.sent_frames, counters.sent_dropped), (1, 6));
}

#[test]
fn a_filter_lets_through_what_it_says() {
    let group = [1, 0, 0x5e, 0, 0, 1];
    let strange = [2, 2, 2, 2, 2, 2];
    let mut filter = Filter::default();
    assert!(filter.wants(CARD, strange));
    filter.promiscuous = false;
    assert!(filter.wants(CARD, CARD) && filter.wants(CARD, EVERYBODY));
    assert!(!filter.wants(CARD, strange) && !filter.wants(CARD, group));
    filter.unicast = vec![strange];
    filter.multicast = vec![group];
    assert!(filter.wants(CARD, strange) && filter.wants(CARD, group));
    filter = Filter { no_unicast: true, no_multicast: true, no_broadcast: true, ..filter };
    for to in [CARD, strange, group, EVERYBODY] {
        assert!(!filter.wants(CARD, to));
    }
    let filter = Filter { promiscuous: false, all_multicast: true, ..Filter::default() };
    assert!(filter.wants(CARD, group) && !filter.wants(CARD, strange));
    let filter = Filter { promiscuous: false, all_unicast: true, ..Filter::default() };
    assert!(!filter.wants(CARD, group) && filter.wants(CARD, strange));
}

#[test]
fn the_driver_chooses_what_it_receives() {
    let (mut guest, handle, mut peer) = guest(Choices::default());
    let [first, second] = [[3, 3, 3, 3, 3, 2], [2, 4, 4, 4, 4, 4]];
    assert_eq!(command(&mut guest, &[0, 0, 0]), 0, "no longer promiscuous");
    // A unicast table of one and a multicast table of one.
    let table = [&[1, 0, 1, 0, 0, 0][..], &second, &[1, 0, 0, 0], &first].concat();
    assert_eq!(command(&mut guest, &table), 0);
    for to in [first, second, CARD, EVERYBODY] {
        guest.submit(RECEIVE, &[], &[SMALL]);
        peer.send(&Offload::default(), &frame(PEER, PEER, 60));
        peer.send(&Offload::default(), &frame(to, PEER, 60));
        assert_eq!(guest.wait(RECEIVE).data[header::LEN..][..6], to);
    }
    assert_eq!(handle.counters().received_dropped, 4);
    // Another address for the card.
    assert_eq!(command(&mut guest, &[&[1, 1][..], &PEER].concat()), 0);
    assert_eq!(config(&guest)[..6], PEER);
    guest.submit(RECEIVE, &[], &[SMALL]);
    peer.send(&Offload::default(), &frame(PEER, PEER, 60));
    guest.wait(RECEIVE);
    guest.start(Choices::default());
    assert_eq!(config(&guest)[..6], CARD, "a reset brings the card's own back");
}

#[test]
fn commands_that_make_no_sense_are_refused() {
    let (mut guest, _, _peer) = guest(Choices::default());
    let too_long = vec![0; control::MOST_BYTES + 1];
    let bad: [&[u8]; 12] = [
        &[],
        &[0],
        // Neither on nor off; nothing at all; a command, and a class, that do not exist.
        &[0, 0, 2],
        &[0, 0],
        &[0, 6, 1],
        &[9, 0, 1],
        // Addresses too short; tables that are cut, or go on, or claim to be enormous.
        &[1, 1, 1, 2, 3, 4, 5],
        &[1, 0, 1, 0, 0, 0, 1, 2, 3, 4, 5],
        &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        &[5, 0, 1],
        &too_long,
    ];
    for bad in bad {
        let parts: &[&[u8]] = if bad.is_empty() { &[] } else { &[bad] };
        guest.submit(CONTROL, parts, &[1]);
        assert_eq!(guest.wait(CONTROL).data, [1], "{bad:?}");
    }
    // No room for the answer: nobody is told.
    guest.submit(CONTROL, &[&[0, 0, 0]], &[]);
    assert_eq!(guest.wait(CONTROL).len, 0);
    assert_eq!(guest.status(), 15);
}

/// A driver gets no more than it negotiated.
#[test]
fn commands_of_features_that_were_not_accepted_are_refused() {
    let features = feature::CTRL_VQ | feature::MAC;
    let (mut guest, _, _peer) = guest(Choices { features, ..Choices::default() });
    assert_eq!(command(&mut guest, &[0, 0, 0]), 1);
    assert_eq!(command(&mut guest, &[&[1, 1][..], &PEER].concat()), 1);
    assert_eq!(command(&mut guest, &[3, 0]), 1);
    assert_eq!(command(&mut guest, &[5, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 1);
}

#[test]
fn a_pulled_cable_is_seen_and_loses_frames() {
    let (mut guest, handle, mut peer) = guest(Choices::default());
    let link = |guest: &Guest| config(guest)[6] & 1;
    assert_eq!(link(&guest), 1);
    let changes = guest.messages.count(3);
    handle.plug(false);
    until(|| guest.messages.count(3) > changes);
    assert_eq!((link(&guest), handle.up()), (0, false));
    guest.submit(RECEIVE, &[], &[SMALL]);
    guest.submit(TRANSMIT, &[&plain(), &frame(PEER, CARD, 60)], &[]);
    guest.wait(TRANSMIT);
    peer.send(&Offload::default(), &frame(CARD, PEER, 60));
    until(|| handle.counters().received_dropped == 1);
    assert_eq!(peer.receive(&mut vec![0; MAX_FRAME]), None);
    handle.plug(true);
    assert_eq!(link(&guest), 1);
    guest.submit(TRANSMIT, &[&plain(), &frame(PEER, CARD, 60)], &[]);
    arrival(&mut peer);
    // The other end goes: so does the carrier, as soon as the card looks.
    drop(peer);
    guest.notify(TRANSMIT);
    until(|| link(&guest) == 0);
}

#[test]
fn a_restored_guest_keeps_its_set_up_and_announces_itself() {
    let (mut guest, _, mut peer) = guest(Choices::default());
    assert_eq!(command(&mut guest, &[0, 0, 0]), 0);
    assert_eq!(command(&mut guest, &[&[1, 1][..], &[2, 7, 7, 7, 7, 7]].concat()), 0);
    // A frame that is in flight in neither machine: what the link holds is lost.
    guest.submit(RECEIVE, &[], &[SMALL]);
    peer.send(&Offload::default(), &frame(EVERYBODY, PEER, 60));
    guest.wait(RECEIVE);
    guest.submit(RECEIVE, &[], &[SMALL]);
    guest.pci.pause();
    let state = guest.pci.save();
    let json = serde_json::to_string(&state).unwrap();
    let state: crate::virtio::VirtioPciState = serde_json::from_str(&json).unwrap();
    let DeviceState::Net(saved) = &state.device else { panic!("another device") };
    assert_eq!(saved.driven.mac, [2, 7, 7, 7, 7, 7]);
    assert!(!saved.driven.filter.promiscuous);

    let [ours, mut peer] = Pair::new([PEER, PEER], 1500).unwrap();
    let (device, handle) = Net::restore(Cable::new(ours), saved);
    let mut restored = guest.restored(Box::new(device), &state);
    restored.pci.resume();
    until(|| config(&restored)[6] & 2 != 0);
    until(|| restored.messages.count(3) == 1);
    assert_eq!(config(&restored)[..6], [2, 7, 7, 7, 7, 7]);
    assert_eq!(config(&restored)[10..], [0x28, 0x23], "the MTU is the one that the guest knows");
    assert_eq!(command(&mut restored, &[3, 0]), 0);
    assert_eq!(config(&restored)[6] & 2, 0);
    peer.send(&Offload::default(), &frame(PEER, PEER, 60));
    peer.send(&Offload::default(), &frame([2, 7, 7, 7, 7, 7], PEER, 60));
    assert_eq!(restored.wait(RECEIVE).data[header::LEN + 5], 7);
    assert_eq!(handle.counters().received_dropped, 1);
}

#[test]
fn a_broken_ring_ends_in_a_reset() {
    let (mut guest, _, _peer) = guest(Choices::default());
    let ring = &guest.rings[usize::from(TRANSMIT)];
    let index = riad_memory::Gpa(ring.available_ring().0 + 2);
    guest.memory.write_u16(index, 1000).unwrap();
    guest.notify(TRANSMIT);
    guest.wait_for_status(64);
    guest.memory.write_u16(index, 0).unwrap();
    guest.start(Choices::default());
    let there = frame(PEER, CARD, 60);
    guest.submit(TRANSMIT, &[&plain(), &there], &[]);
    guest.wait(TRANSMIT);
}
