use std::io::Read;

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

#[test]
fn frames_are_written_as_they_would_be_on_a_wire() {
    let (mut link, capture) = Captured::new(Mirror::default());
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut frame = [0; 100];
    link.send(&Offload::default(), &[9; 60]);
    link.receive(&mut frame).unwrap();
    capture.start(file.reopen().unwrap(), 1 << 20).unwrap();
    // 18 bytes at the end are to be summed up, to bytes 20 and 21.
    let mut sent = [1; 38];
    sent[20..22].fill(0);
    let checksum = Some(Partial { start: 20, offset: 0 });
    link.send(&Offload { checksum, ..Offload::default() }, &sent);
    link.receive(&mut frame).unwrap();
    assert_eq!(capture.stop().unwrap(), Some(2));
    link.send(&Offload::default(), &[9; 60]);
    assert_eq!(capture.stop().unwrap(), None);

    let mut bytes = Vec::new();
    file.reopen().unwrap().read_to_end(&mut bytes).unwrap();
    let blocks = blocks(&bytes);
    assert_eq!(blocks.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [SECTION, 1, 6, 6]);
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
}

#[test]
fn a_capture_ends_when_its_file_is_full() {
    let (mut link, capture) = Captured::new(Mirror::default());
    let file = tempfile::NamedTempFile::new().unwrap();
    capture.start(file.reopen().unwrap(), 1000).unwrap();
    for _ in 0..100 {
        link.send(&Offload::default(), &[7; 60]);
    }
    assert!(!capture.is_on());
    let bytes = std::fs::read(file.path()).unwrap();
    assert!(bytes.len() < 1100);
    assert_eq!(blocks(&bytes).len(), 2 + 1000 / 108);
}
