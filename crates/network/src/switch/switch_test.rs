use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::link::{Accepts, Link, MAX_FRAME, Offload, Partial, SegmentKind, Segments, now};

const ALL: Mac = [0xff; 6];

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

/// An IPv4 packet from one member to another, or to all.
fn frame(from: u8, to: Mac, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 20];
    packet[0] = 0x45;
    packet[12..16].copy_from_slice(&address(from).octets());
    [&to[..], &mac_of(address(from)), &[8, 0], &packet, payload].concat()
}

/// A switch in a thread, and the directory that it is in.
struct Bench {
    directory: tempfile::TempDir,
    /// Keeps the switch going.
    holder: Client,
    switch: Option<std::thread::JoinHandle<()>>,
}

type Roster = Arc<Mutex<Vec<Vec<(String, Ipv4Addr)>>>>;

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut switch = Switch::new(listen(directory.path()).unwrap()).unwrap();
        let holder = Client::connect(directory.path()).unwrap();
        holder.hold().unwrap();
        let switch = Some(std::thread::spawn(move || switch.serve().unwrap()));
        Self { directory, holder, switch }
    }

    fn join(&self, name: &str, number: u8) -> (Member, Roster) {
        let heard = Roster::default();
        let rosters = Arc::clone(&heard);
        let told = Box::new(move |roster| rosters.lock().unwrap().push(roster));
        let path = self.directory.path();
        let mut member = Member::join(path, name, address(number), told).unwrap();
        let checksum = true;
        member.accepts(Accepts { checksum, tcp4: true, tcp6: true, ecn: true, udp: true });
        (member, heard)
    }

    fn ask(&self) -> Client {
        Client::connect(self.directory.path()).unwrap()
    }

    fn counts(&self, name: &str) -> Counts {
        let listed = self.ask().list().unwrap();
        listed.members.into_iter().find(|member| member.name == name).unwrap().counts
    }

    /// Ends it: the switch goes with whoever was connected.
    fn end(mut self) {
        let switch = self.switch.take();
        drop(self.holder);
        switch.unwrap().join().unwrap();
    }
}

/// The next frame, which comes soon.
fn next(member: &mut Member) -> (Offload, Vec<u8>) {
    let mut room = vec![0; MAX_FRAME];
    let until = now() + Duration::from_secs(10);
    while now() < until {
        member.turn(now());
        if let Some((offload, len)) = member.receive(&mut room) {
            room.truncate(len);
            return (offload, room);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("no frame came");
}

/// That nothing comes, once everything that was sent before has been seen to.
fn nothing(bench: &Bench, member: &mut Member) {
    bench.ask().list().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(member.receive(&mut vec![0; MAX_FRAME]), None);
}

#[test]
fn frames_go_to_whom_they_are_for() {
    let bench = Bench::new();
    let [mut a, mut b, mut c] = [("a", 2), ("b", 3), ("c", 4)].map(|(n, i)| bench.join(n, i).0);
    let to_b = frame(2, b.mac(), b"hello");
    a.send(&Offload::default(), &to_b);
    assert_eq!(next(&mut b).1, to_b);
    nothing(&bench, &mut c);
    let to_all = frame(3, ALL, b"all");
    b.send(&Offload::default(), &to_all);
    assert_eq!((next(&mut a).1, next(&mut c).1), (to_all.clone(), to_all));
    nothing(&bench, &mut b);
    // Nobody has that address: it goes nowhere, and not to everybody.
    a.send(&Offload::default(), &frame(2, mac_of(address(9)), b"nobody"));
    nothing(&bench, &mut b);
    nothing(&bench, &mut c);
    drop((a, b, c));
    bench.end();
}

#[test]
fn a_large_frame_crosses_whole_with_what_is_to_be_done_to_it() {
    let bench = Bench::new();
    let (mut a, _) = bench.join("a", 2);
    let (mut b, _) = bench.join("b", 3);
    let large = frame(2, b.mac(), &vec![7; 65_000]);
    let offload = Offload {
        checksum: Some(Partial { start: 34, offset: 16 }),
        checksum_valid: false,
        segments: Some(Segments {
            kind: SegmentKind::Tcp4,
            header_len: 54,
            size: 1448,
            ecn: false,
        }),
    };
    a.send(&offload, &large);
    assert_eq!(next(&mut b), (offload, large.clone()));
    // A guest that takes neither gets checksums filled in, and no large frames.
    b.accepts(Accepts::default());
    a.send(&offload, &large);
    let small = frame(2, b.mac(), &[0; 40]);
    a.send(&Offload { segments: None, ..offload }, &small);
    let (came, bytes) = next(&mut b);
    assert_eq!((came, bytes[..50] == small[..50]), (Offload::default(), true));
    assert_eq!(bytes[50..52], [0xff, 0xff]);
}

#[test]
fn a_member_that_speaks_for_another_is_not_heard() {
    let bench = Bench::new();
    let (mut a, _) = bench.join("a", 2);
    let (mut b, _) = bench.join("b", 3);
    let (mut hostile, _) = bench.join("hostile", 4);
    hostile.send(&Offload::default(), &frame(2, b.mac(), b"as a"));
    // No frame at all, and one too short; a header that makes no sense; one that lies outside.
    hostile.send(&Offload::default(), &[]);
    hostile.send(&Offload::default(), &[0; 13]);
    for message in [&[1u8, b'x'][..], &[9; 40], &[0; 5], &vec![0; MOST + 10]] {
        rustix::net::send(hostile.socket(), message, SendFlags::NOSIGNAL).unwrap();
    }
    let outside =
        Offload { checksum: Some(Partial { start: 60_000, offset: 16 }), ..Offload::default() };
    hostile.send(&outside, &frame(4, b.mac(), b"outside"));
    // IPv6 goes nowhere either, and is not held against it.
    let six = [&b.mac()[..], &hostile.mac(), &[0x86, 0xdd], &[0x60; 40]].concat();
    hostile.send(&Offload::default(), &six);
    nothing(&bench, &mut a);
    nothing(&bench, &mut b);
    let counts = bench.counts("hostile");
    assert_eq!((counts.sent, counts.refused), (0, 8));
    // It is a member still, and heard when it speaks for itself.
    hostile.send(&Offload::default(), &frame(4, b.mac(), b"as itself"));
    next(&mut b);
}

#[test]
fn a_member_that_does_not_read_loses_frames_and_nobody_else_does() {
    let bench = Bench::new();
    let (mut a, _) = bench.join("a", 2);
    let (mut b, _) = bench.join("b", 3);
    let (slow, _) = bench.join("slow", 4);
    let payload = vec![1; 8000];
    for _ in 0..400 {
        a.send(&Offload::default(), &frame(2, ALL, &payload));
        next(&mut b);
    }
    let (slow_one, good) = (bench.counts("slow"), bench.counts("b"));
    assert_eq!((good.received, good.lost), (400, 0));
    assert!(slow_one.lost > 300 && slow_one.received < 100, "{slow_one:?}");
    // It hears who is there all the same, once it reads.
    let (_late, _) = bench.join("late", 5);
    drop(slow);
}

#[test]
fn members_hear_who_is_there() {
    let bench = Bench::new();
    let (mut a, heard) = bench.join("a", 2);
    let wait = |member: &mut Member, count: usize| {
        let until = now() + Duration::from_secs(10);
        loop {
            member.turn(now());
            let _ = member.receive(&mut vec![0; MAX_FRAME]);
            let last = heard.lock().unwrap().last().cloned().unwrap_or_default();
            if last.len() == count {
                return last;
            }
            assert!(now() < until, "{last:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    assert_eq!(wait(&mut a, 1), [("a".to_owned(), address(2))]);
    let (b, _) = bench.join("b", 3);
    assert_eq!(wait(&mut a, 2)[1], ("b".to_owned(), address(3)));
    // Its next process, before the end of the last one was heard of.
    let (again, _) = bench.join("b", 3);
    wait(&mut a, 2);
    drop((b, again));
    wait(&mut a, 1);
}

#[test]
fn a_member_that_does_not_read_is_told_who_is_there_once_it_does() {
    let bench = Bench::new();
    let (mut a, _) = bench.join("a", 2);
    let (mut slow, heard) = bench.join("slow", 3);
    for _ in 0..200 {
        a.send(&Offload::default(), &frame(2, slow.mac(), &[1; 30_000]));
        bench.ask().list().unwrap();
    }
    assert!(bench.counts("slow").lost > 0);
    let (_b, _) = bench.join("b", 4);
    let until = now() + Duration::from_secs(10);
    while heard.lock().unwrap().last().is_none_or(|roster| roster.len() < 3) {
        assert!(now() < until);
        slow.turn(now());
        let _ = slow.receive(&mut vec![0; MAX_FRAME]);
    }
}

#[test]
fn members_are_cut_apart_and_joined_again() {
    let bench = Bench::new();
    let [mut a, mut b, mut c] = [("a", 2), ("b", 3), ("c", 4)].map(|(n, i)| bench.join(n, i).0);
    bench.ask().cut("b", "a").unwrap();
    assert_eq!(bench.ask().list().unwrap().cuts, [Cut("a".to_owned(), "b".to_owned())]);
    a.send(&Offload::default(), &frame(2, b.mac(), b"lost"));
    a.send(&Offload::default(), &frame(2, ALL, b"all"));
    assert_eq!(next(&mut c).1, frame(2, ALL, b"all"));
    nothing(&bench, &mut b);
    b.send(&Offload::default(), &frame(3, a.mac(), b"lost too"));
    nothing(&bench, &mut a);
    bench.ask().heal().unwrap();
    a.send(&Offload::default(), &frame(2, b.mac(), b"again"));
    assert_eq!(next(&mut b).1, frame(2, b.mac(), b"again"));
}

#[test]
fn the_table_is_bounded_and_an_address_is_one_members() {
    let bench = Bench::new();
    let (_a, _) = bench.join("a", 2);
    let join = |name: &str, number| {
        Member::join(bench.directory.path(), name, address(number), Box::new(|_| {}))
    };
    let error = join("b", 2).unwrap_err().to_string();
    assert!(error.contains("10.77.0.2 is a's"), "{error}");
    let members: Vec<_> =
        (3..=129).map(|number| join(&format!("m{number}"), number).unwrap()).collect();
    assert_eq!(members.len() + 1, MOST_MEMBERS);
    let error = join("more", 200).unwrap_err().to_string();
    assert!(error.contains("takes no more"), "{error}");
    // Callers beyond the bound are sent away; members are there still.
    let callers: Vec<_> = (0..MOST_PORTS).map(|_| bench.ask()).collect();
    let last = callers.last().unwrap().list();
    assert!(matches!(last, Err(SwitchError::Gone)), "{last:?}");
    drop(callers);
    let until = now() + Duration::from_secs(10);
    while bench.ask().list().is_err() {
        assert!(now() < until);
    }
}

#[test]
fn the_switch_ends_with_its_last_member_and_is_found_gone() {
    let bench = Bench::new();
    let (mut member, _) = bench.join("a", 2);
    let Bench { directory, holder, switch } = bench;
    drop(holder);
    std::thread::sleep(Duration::from_millis(20));
    assert!(member.up() && !switch.as_ref().unwrap().is_finished());
    let idle = Client::connect(directory.path()).unwrap();
    drop((member, idle));
    switch.unwrap().join().unwrap();
    assert!(matches!(Client::connect(directory.path()), Err(SwitchError::Gone)));
    // A member whose switch is gone sees its cable go down.
    let listener = listen(directory.path()).unwrap();
    let thread = std::thread::spawn(move || {
        let mut switch = Switch::new(listener).unwrap();
        let soon = Some(rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 });
        while switch.stations.is_empty() {
            switch.turn(soon).unwrap();
        }
    });
    member = Member::join(directory.path(), "a", address(2), Box::new(|_| {})).unwrap();
    thread.join().unwrap();
    member.turn(now());
    assert!(!member.up() && member.descriptor().is_none());
}

#[test]
fn what_makes_no_sense_is_sent_away() {
    let bench = Bench::new();
    for text in ["", "join", "join A 10.77.0.2", "join a 10.77", "cut a a", "cut a", "stop"] {
        assert_eq!(Hello::parse(text.as_bytes()), None, "{text}");
    }
    for hello in [
        Hello::Hold,
        Hello::List,
        Hello::Heal,
        Hello::Cut("a".to_owned(), "b".to_owned()),
        Hello::Join { name: "web-1".to_owned(), address: address(2) },
    ] {
        assert_eq!(Hello::parse(hello.text().as_bytes()), Some(hello));
    }
    let client = bench.ask();
    rustix::net::send(client.as_fd(), b"nonsense", SendFlags::NOSIGNAL).unwrap();
    assert!(client.list().is_err());
    assert!(bench.ask().list().is_ok());
}
