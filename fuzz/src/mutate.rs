//! Changes to valid input: most of its structure stays, so that a change gets deep.

use crate::random::Random;

/// The longest case, bytes.
pub const LONGEST: usize = 64 << 10;

/// Changes `bytes` in a few ways. `words` are pieces that mean something to the reader, and `others`
/// are whole inputs to take parts of.
pub fn mutate(bytes: &mut Vec<u8>, words: &[&[u8]], others: &[Vec<u8>], random: &mut Random) {
    // Most have few changes: each is a chance to be refused at the door.
    change(bytes, words, others, random);
    while random.one_in(2) {
        change(bytes, words, others, random);
    }
    bytes.truncate(LONGEST);
}

fn change(bytes: &mut Vec<u8>, words: &[&[u8]], others: &[Vec<u8>], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    match random.below(16) {
        0 if random.one_in(4) => bytes.truncate(at),
        0 => set(bytes, at, &[0; 8]),
        1 => flip(bytes, at, 1 << random.below(8)),
        2 => set(bytes, at, &[random.byte()]),
        3 => set(bytes, at, &(random.edge() as u16).to_le_bytes()),
        4 => set(bytes, at, &(random.edge() as u32).to_le_bytes()),
        5 => set(bytes, at, &random.edge().to_le_bytes()),
        6 => {
            let end = (at + random.below(16)).min(bytes.len());
            bytes.drain(at..end);
        }
        7 => {
            // A part once more, or many times.
            let end = (at + random.below(64)).min(bytes.len());
            let part = bytes[at..end].to_vec();
            let times = if random.one_in(8) { random.below(64) } else { 1 };
            insert(bytes, at, &part.repeat(times));
        }
        8 => {
            let some = random.below(8);
            let some = random.bytes(some);
            insert(bytes, at, &some);
        }
        9 => {
            let word = random.pick(words).copied().unwrap_or_default();
            if random.one_in(2) { set(bytes, at, word) } else { insert(bytes, at, word) }
        }
        10 => {
            let Some(other) = random.pick(others) else { return };
            let from = random.below(other.len());
            let end = (from + random.below(256)).min(other.len());
            insert(bytes, at, &other[from..end]);
        }
        // A number in words: sizes and versions of control files and archives.
        _ => {
            let number = random.edge().to_string();
            set(bytes, at, number.as_bytes());
        }
    }
}

fn flip(bytes: &mut [u8], at: usize, mask: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= mask;
    }
}

fn set(bytes: &mut [u8], at: usize, value: &[u8]) {
    for (slot, byte) in bytes.iter_mut().skip(at).zip(value) {
        *slot = *byte;
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    let part = &part[..part.len().min(LONGEST)];
    bytes.splice(at..at, part.iter().copied());
}
