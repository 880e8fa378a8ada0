//! Machine code of users: instructions that mostly run, with operands of every form, short branches
//! between them, and stores into themselves (Intel SDM 2A, chapter 2; opcodes: 2D, appendix A).

use super::code;
use crate::random::Random;

/// What follows an opcode and its operand.
#[derive(Debug, Clone, Copy)]
enum Immediate {
    None,
    Byte,
    /// 2 bytes with the prefix 66, 4 without.
    Full,
}

use Immediate::{Byte, Full, None as No};

/// Opcodes with a ModRM byte: escape bytes and opcode, and what comes last.
const WITH_MODRM: &[(&[u8], Immediate)] = &[
    // MOV, LEA, XCHG, MOVZX, MOVSX, MOVSXD.
    (&[0x88], No),
    (&[0x89], No),
    (&[0x89], No),
    (&[0x8a], No),
    (&[0x8b], No),
    (&[0x8b], No),
    (&[0xc6], Byte),
    (&[0xc7], Full),
    (&[0x8d], No),
    (&[0x86], No),
    (&[0x87], No),
    (&[0x0f, 0xb6], No),
    (&[0x0f, 0xb7], No),
    (&[0x0f, 0xbe], No),
    (&[0x0f, 0xbf], No),
    (&[0x63], No),
    // ADD to CMP.
    (&[0x80], Byte),
    (&[0x81], Full),
    (&[0x83], Byte),
    (&[0x83], Byte),
    (&[0x84], No),
    (&[0x85], No),
    // TEST to IDIV, INC to PUSH.
    (&[0xf6], Byte),
    (&[0xf7], Full),
    (&[0xfe], No),
    (&[0xff], No),
    (&[0x69], Full),
    (&[0x6b], Byte),
    (&[0x0f, 0xaf], No),
    // Shifts and bits.
    (&[0xc0], Byte),
    (&[0xc1], Byte),
    (&[0xd0], No),
    (&[0xd1], No),
    (&[0xd2], No),
    (&[0xd3], No),
    (&[0x0f, 0xa4], Byte),
    (&[0x0f, 0xa5], No),
    (&[0x0f, 0xac], Byte),
    (&[0x0f, 0xad], No),
    (&[0x0f, 0xa3], No),
    (&[0x0f, 0xab], No),
    (&[0x0f, 0xb3], No),
    (&[0x0f, 0xbb], No),
    (&[0x0f, 0xba], Byte),
    (&[0x0f, 0xbc], No),
    (&[0x0f, 0xbd], No),
    // CMPXCHG, XADD, CMPXCHG8B, MOVNTI, POP, CRC32, MOVBE.
    (&[0x0f, 0xb0], No),
    (&[0x0f, 0xb1], No),
    (&[0x0f, 0xc0], No),
    (&[0x0f, 0xc1], No),
    (&[0x0f, 0xc7], No),
    (&[0x0f, 0xc3], No),
    (&[0x8f], No),
    (&[0x0f, 0x38, 0xf0], No),
    (&[0x0f, 0x38, 0xf1], No),
    // XMM registers: moves.
    (&[0x0f, 0x10], No),
    (&[0x0f, 0x11], No),
    (&[0x0f, 0x28], No),
    (&[0x0f, 0x29], No),
    (&[0x0f, 0x6e], No),
    (&[0x0f, 0x6f], No),
    (&[0x0f, 0x7e], No),
    (&[0x0f, 0x7f], No),
    (&[0x0f, 0xd6], No),
    (&[0x0f, 0xe7], No),
    (&[0x0f, 0x2a], No),
    (&[0x0f, 0x2c], No),
    (&[0x0f, 0x2e], No),
    (&[0x0f, 0x70], Byte),
    (&[0x0f, 0xc6], Byte),
    (&[0x0f, 0x38, 0x17], No),
    (&[0x0f, 0x3a, 0x0f], Byte),
    (&[0x0f, 0x3a, 0x22], Byte),
];

/// Opcodes without an operand in memory: sign extensions, flags, strings, LEAVE, fences and others.
const ALONE: &[&[u8]] = &[
    &[0x98],
    &[0x99],
    &[0x9c],
    &[0x9d],
    &[0x9e],
    &[0x9f],
    &[0xf5],
    &[0xf8],
    &[0xf9],
    &[0xfc],
    &[0xfd],
    &[0x90],
    &[0xc9],
    &[0xa4],
    &[0xa5],
    &[0xa6],
    &[0xaa],
    &[0xab],
    &[0xac],
    &[0xae],
    &[0x0f, 0x05],
    &[0x0f, 0x0b],
    &[0xcc],
    &[0x0f, 0xae, 0xf0],
    &[0x0f, 0xa2],
    &[0xd7],
];

/// A program: a jump back behind it, sometimes.
pub fn program(random: &mut Random) -> Vec<u8> {
    let mut code = Vec::new();
    let most = [8, 24, 70][random.below(3)];
    let count = 3 + random.below(most);
    let tame = !random.one_in(6);
    for _ in 0..count {
        instruction(&mut code, random, tame);
    }
    if random.one_in(2) {
        // DEC R15B; JNZ back.
        let back = (code.len() + 5).min(120) as u8;
        code.extend([0x41, 0xfe, 0xcf, 0x75, back.wrapping_neg()]);
    }
    code
}

fn instruction(code: &mut Vec<u8>, random: &mut Random, tame: bool) {
    match random.below(64) {
        0..28 => with_modrm(code, random),
        28..36 => arithmetic(code, random),
        36..48 => branch(code, random),
        48..52 => conditional(code, random),
        52 => code.extend([[0x50, 0x58][random.below(2)] | random.byte() & 7]),
        53 => {
            rex(code, random);
            code.extend([0xb8 | random.byte() & 7]);
            code.extend((random.edge() as u32).to_le_bytes());
        }
        54 | 55 => {
            if random.one_in(3) {
                code.push([0xf2, 0xf3, 0x66][random.below(3)]);
            }
            rex(code, random);
            code.extend(random.pick(ALONE).copied().unwrap_or_default());
        }
        56 | 57 => store_into_code(code, random),
        58 => vector(code, random),
        // CMP R8, R9: every flag is defined again.
        59..62 => code.extend([0x4d, 0x39, 0xc8]),
        62 if !tame => code.extend(code::instructions(random, 1)),
        63 if !tame => {
            let count = 1 + random.below(4);
            code.extend(random.bytes(count));
        }
        _ => with_modrm(code, random),
    }
}

fn prefixes(code: &mut Vec<u8>, random: &mut Random) {
    match random.below(16) {
        0 => code.push(0x66),
        1 => code.push(0x67),
        2 => code.push(0x64),
        3 => code.push(0x65),
        4 => code.push(0xf0),
        5 => code.push([0xf2, 0xf3, 0x2e, 0x3e][random.below(4)]),
        6 => code.extend([0x65, 0x66]),
        _ => {}
    }
}

fn rex(code: &mut Vec<u8>, random: &mut Random) {
    match random.below(4) {
        0 => {}
        1 => code.push(0x48),
        _ => code.push(0x40 | random.byte() & 15),
    }
}

/// A ModRM byte and what follows it: registers, and addresses of every form.
fn operand(code: &mut Vec<u8>, random: &mut Random) {
    let modrm = random.byte();
    let mut sib = 0;
    let near = |random: &mut Random| (random.below(256) as u32).wrapping_sub(128);
    code.push(modrm);
    if modrm >> 6 != 3 && modrm & 7 == 4 {
        sib = random.byte();
        code.push(sib);
    }
    match (modrm >> 6, modrm & 7) {
        (0, 5) => code.extend(near(random).to_le_bytes()),
        // No base: any 32 bits.
        (0, 4) if sib & 7 == 5 => code.extend(displacement(random).to_le_bytes()),
        (1, _) => code.push(random.byte()),
        (2, _) => code.extend(displacement(random).to_le_bytes()),
        _ => {}
    }
}

/// Mostly a small one, or an address near the end of a page that exists.
fn displacement(random: &mut Random) -> u32 {
    match random.below(8) {
        0 => random.edge() as u32,
        1 | 2 => 0xe000 - random.below(32) as u32,
        3 => 0x1_5000 - random.below(32) as u32,
        _ => (random.below(256) as u32).wrapping_sub(128),
    }
}

fn immediate(code: &mut Vec<u8>, random: &mut Random, kind: Immediate) {
    match kind {
        No => {}
        Byte => code.push(random.byte()),
        Full => code.extend((random.edge() as u32).to_le_bytes()),
    }
}

fn with_modrm(code: &mut Vec<u8>, random: &mut Random) {
    let Some(&(opcode, kind)) = random.pick(WITH_MODRM) else { return };
    prefixes(code, random);
    rex(code, random);
    code.extend(opcode);
    operand(code, random);
    immediate(code, random, kind);
}

/// ADD to CMP, in all their forms with a register.
fn arithmetic(code: &mut Vec<u8>, random: &mut Random) {
    prefixes(code, random);
    rex(code, random);
    code.push((random.byte() & 7) << 3 | random.byte() & 3);
    operand(code, random);
}

/// Any vector instruction of two or three escape bytes.
fn vector(code: &mut Vec<u8>, random: &mut Random) {
    if random.one_in(2) {
        code.push([0x66, 0xf2, 0xf3][random.below(3)]);
    }
    rex(code, random);
    match random.below(4) {
        0 => code.extend([0x0f, 0x38, random.byte() & 0x3f]),
        1 => {
            code.extend([0x0f, 0x3a, random.byte() & 0x1f]);
            operand(code, random);
            code.push(random.byte());
            return;
        }
        2 => code.extend([0x0f, 0x50 | random.byte() & 15]),
        _ => code.extend([0x0f, 0xd0 | random.byte() & 0x2f]),
    }
    operand(code, random);
}

/// SETcc and CMOVcc.
fn conditional(code: &mut Vec<u8>, random: &mut Random) {
    rex(code, random);
    code.extend([0x0f, [0x40, 0x90][random.below(2)] | random.byte() & 15]);
    operand(code, random);
}

/// To somewhere near: mostly on.
fn branch(code: &mut Vec<u8>, random: &mut Random) {
    let on = random.below(24) as u8;
    let distance = if random.one_in(5) { (on + 2).wrapping_neg() } else { on };
    let far = i32::from(distance as i8).to_le_bytes();
    match random.below(16) {
        0..8 => code.extend([0x70 | random.byte() & 15, distance]),
        8 | 9 => {
            code.extend([0x0f, 0x80 | random.byte() & 15]);
            code.extend(far);
        }
        10 => code.extend([0xeb, distance]),
        11 => code.extend([0xe0 | random.byte() & 3, distance]),
        12 => {
            code.push(0xe8);
            code.extend(far);
        }
        13 => code.push(0xc3),
        14 => {
            // LEA RAX, [RIP+distance]; CALL or JMP RAX.
            code.extend([0x48, 0x8d, 0x05]);
            code.extend(far);
            code.extend([0xff, [0xd0, 0xe0][random.below(2)]]);
        }
        _ => {
            // LEA, PUSH, RET.
            code.extend([0x48, 0x8d, 0x05]);
            code.extend(far);
            code.extend([0x50, 0xc3]);
        }
    }
}

/// A store to somewhere near RIP.
fn store_into_code(code: &mut Vec<u8>, random: &mut Random) {
    let distance = (random.below(96) as u32).wrapping_sub(48);
    match random.below(3) {
        0 => {
            code.extend([0xc6, 0x05]);
            code.extend(distance.to_le_bytes());
            code.push(random.byte());
        }
        1 => {
            code.extend([0x48, 0x89, 0x05 | (random.byte() & 7) << 3]);
            code.extend(distance.to_le_bytes());
        }
        _ => {
            // The instruction behind becomes another one: INC [RIP].
            code.extend([0xfe, 0x05]);
            code.extend((distance & 7).to_le_bytes());
        }
    }
}
