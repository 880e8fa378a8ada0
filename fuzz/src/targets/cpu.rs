//! The processor in software: its decoder, and guests of random code in every mode.

mod guest;

use riad_cpu_soft::cpu::Mode;
use riad_cpu_soft::decode;

use super::{Target, no_seeds};
use crate::input::Input;
use crate::random::Random;
use crate::seeds::code;

/// The decoder.
pub(super) const DECODE: Target = Target {
    name: "decode",
    what: "instruction bytes, in every mode",
    unit: "instructions",
    run: decode_bytes,
    seeds: no_seeds,
    generate: Some(|random| {
        let count = 1 + random.below(16);
        let mut bytes = random.bytes(9);
        bytes.extend(code::instructions(random, count));
        bytes
    }),
    words: &[&[0x66, 0x67], &[0xf2], &[0xf3], &[0xf0], &[0x48], &[0xc4], &[0xc5], &[0x62], &[0x0f]],
};

/// The processor.
pub(super) const RUN: Target = Target {
    name: "cpu",
    what: "guests of random code in every mode, and the processor's saved state",
    unit: "instructions",
    run: guest::run,
    seeds: no_seeds,
    generate: Some(make_guest),
    words: &[&[0x0f, 0x01], &[0xcf], &[0x48, 0xcf], &[0x0f, 0x05], &[0xf4], &[0xcc], &[0xea]],
};

const MODES: [Mode; 5] = [Mode::Real, Mode::V86, Mode::Protected16, Mode::Protected32, Mode::Long];

fn decode_bytes(bytes: &[u8]) -> u64 {
    let mut input = Input::new(bytes);
    let (mode, rip) = (input.pick(&MODES), input.u64());
    let bytes = input.rest();
    let ops = decode::block(bytes, rip, mode);
    assert!(ops.len() <= decode::MAX_OPS);
    let lengths: usize = ops.iter().map(|op| usize::from(op.len)).sum();
    assert!(lengths <= bytes.len(), "instructions are longer than their bytes");
    assert!(ops.iter().all(|op| (1..=15).contains(&op.len)), "an instruction has 1 to 15 bytes");
    let _ = decode::single(&bytes[..bytes.len().min(15)], rip, mode);
    ops.len() as u64
}

fn make_guest(random: &mut Random) -> Vec<u8> {
    let mut bytes = random.bytes(guest::HEADER);
    // Most begin as a kernel would.
    let changes = if random.one_in(3) { random.below(6) } else { 0 };
    bytes.push(changes as u8);
    for _ in 0..changes {
        bytes.push(random.byte());
        bytes.extend(random.edge().to_le_bytes());
    }
    let count = 4 + random.below(60);
    bytes.extend(code::instructions(random, count));
    bytes
}
