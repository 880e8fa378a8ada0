use riad_network::capture::Captured;
use riad_network::link::{Link, Mac, Offload};

use super::*;

struct Nowhere;

impl Link for Nowhere {
    fn send(&mut self, _: &Offload, _: &[u8]) {}

    fn receive(&mut self, _: &mut [u8]) -> Option<(Offload, usize)> {
        None
    }

    fn mtu(&self) -> u16 {
        1500
    }

    fn mac(&self) -> Mac {
        [2, 0, 0, 0, 0, 1]
    }
}

#[test]
fn a_capture_is_read_block_by_block() {
    let (mut link, capture) = Captured::new(Nowhere);
    let recording = capture.start().unwrap();
    // More than waits for whoever does not read.
    for _ in 0..200 {
        link.send(&Offload::default(), &[1; 65_001]);
    }
    recording.stop();
    let (mut file, mut next) = (Vec::new(), Vec::new());
    while recording.next(&mut next) {
        file.extend(&next);
    }
    let (mut rest, mut memory, mut kinds) = (&file[..], Vec::new(), Vec::new());
    let mut length = 0;
    while let Some(kind) = block(&mut rest, &mut memory).unwrap() {
        kinds.push(kind);
        length += memory.len();
    }
    assert_eq!(length, file.len(), "nothing is left out");
    assert_eq!(kinds[..2], [BlockKind::Other; 2]);
    let frames = kinds.iter().filter(|kind| **kind == BlockKind::Frame).count() as u64;
    assert!(frames > 100);
    assert_eq!(kinds.last(), Some(&BlockKind::End { dropped: 200 - frames }));
    // A process that ends in the middle of a block.
    assert_eq!(block(&mut &file[..20], &mut memory).unwrap(), None);
}

#[test]
fn what_is_no_block_is_refused() {
    let mut memory = Vec::new();
    for wrong in [0u32, 8, 13, 1 << 20, u32::MAX] {
        let bytes = [&6u32.to_le_bytes()[..], &wrong.to_le_bytes(), &[0; 100]].concat();
        assert!(block(&mut &bytes[..], &mut memory).is_err(), "{wrong}");
    }
    // Options that lie about their length.
    assert_eq!(dropped(&[0xff; 40]), 0);
    assert_eq!(dropped(&[0; 3]), 0);
}
