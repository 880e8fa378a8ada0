use super::*;
use crate::link::Partial;

/// A link that gives back what it is sent.
#[derive(Default)]
struct Mirror(Vec<Vec<u8>>);

impl Link for Mirror {
    fn send(&mut self, _: &Offload, frame: &[u8]) {
        self.0.push(frame.to_vec());
    }

    fn receive(&mut self, frame: &mut [u8]) -> Option<(Offload, usize)> {
        let next = self.0.pop()?;
        frame[..next.len()].copy_from_slice(&next);
        Some((Offload::default(), next.len()))
    }

    fn mtu(&self) -> u16 {
        1500
    }

    fn mac(&self) -> Mac {
        [2, 0, 0, 0, 0, 1]
    }
}

/// The blocks of a file: kind and body.
fn blocks(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
    let mut blocks = Vec::new();
    while !bytes.is_empty() {
        let len = word(&bytes[4..]) as usize;
        assert!(len.is_multiple_of(4) && word(&bytes[len - 4..]) as usize == len);
        blocks.push((word(bytes), bytes[8..len - 4].to_vec()));
        bytes = &bytes[len..];
    }
    blocks
}

/// All that a recording has, until it waits for more or is over.
fn all(recording: &Recording) -> Vec<u8> {
    let (mut all, mut next) = (Vec::new(), Vec::new());
    while recording.next(&mut next) {
        all.extend(&next);
    }
    all
}

#[test]
fn frames_are_written_as_they_would_be_on_a_wire() {
    let (mut link, capture) = Captured::new(Mirror::default());
    let mut frame = [0; 100];
    link.send(&Offload::default(), &[9; 60]);
    link.receive(&mut frame).unwrap();
    let recording = capture.start().unwrap();
    // 18 bytes at the end are to be summed up, to bytes 20 and 21.
    let mut sent = [1; 38];
    sent[20..22].fill(0);
    let checksum = Some(Partial { start: 20, offset: 0 });
    link.send(&Offload { checksum, ..Offload::default() }, &sent);
    link.receive(&mut frame).unwrap();
    recording.stop();
    assert!(!capture.is_on());
    link.send(&Offload::default(), &[9; 60]);

    let blocks = blocks(&all(&recording));
    assert_eq!(blocks.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [SECTION, 1, 6, 6, 5]);
    assert_eq!(blocks[0].1[..4], [0x4d, 0x3c, 0x2b, 0x1a]);
    assert_eq!(blocks[1].1[..2], [1, 0]);
    for (index, direction) in [(2, OUTBOUND), (3, INBOUND)] {
        let body = &blocks[index].1;
        assert_eq!(body[12..20], [38, 0, 0, 0, 38, 0, 0, 0]);
        assert_eq!(body[60..68], [2, 0, 4, 0, direction as u8, 0, 0, 0]);
        let time = u64::from(u32::from_le_bytes(body[4..8].try_into().unwrap())) << 32;
        let time = Duration::from_nanos(time);
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(clock.abs_diff(time) < Duration::from_secs(60));
    }
    // 8 words of 0x0101: their sum is 0x0808.
    assert_eq!(blocks[2].1[40..42], (!0x0808u16).to_be_bytes());
    assert_eq!(blocks[3].1[40..42], [0, 0], "as it was");
    // Two frames, and none was left out.
    let numbers = &blocks[4].1[12..36];
    assert_eq!(numbers[..12], [4, 0, 8, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(numbers[12..], [5, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn who_does_not_read_costs_neither_time_nor_memory() {
    let (mut link, capture) = Captured::new(Mirror::default());
    let (slow, other) = (capture.start().unwrap(), capture.start().unwrap());
    let mut taken = Vec::new();
    for _ in 0..1000 {
        link.send(&Offload::default(), &[7; 60_000]);
        link.link.0.clear();
        assert!(other.next(&mut taken));
    }
    assert!(slow.queue.waiting().blocks.len() <= MOST_WAITING);
    slow.stop();
    let blocks = blocks(&all(&slow));
    let there = blocks.iter().filter(|(kind, _)| *kind == PACKET).count();
    assert!(there > 100);
    let dropped = &blocks.last().unwrap().1[28..36];
    assert_eq!(u64::from_le_bytes(dropped.try_into().unwrap()), 1000 - there as u64);
    assert_eq!(other.queue.waiting().dropped, 0, "each for itself");
}

#[test]
fn captures_are_few_and_end_when_nobody_has_them() {
    let (_, capture) = Captured::new(Mirror::default());
    let recordings: Vec<_> = std::iter::from_fn(|| capture.start().ok()).collect();
    assert_eq!(recordings.len(), MOST_CAPTURES);
    assert!(capture.start().unwrap_err().to_string().contains("end one first"));
    drop(recordings);
    assert!(!capture.is_on() && capture.start().is_ok());
}
