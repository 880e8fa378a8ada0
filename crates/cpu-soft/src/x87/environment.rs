//! FNSTENV, FLDENV, FNSAVE and FRSTOR: the environment and the whole state in memory.
//!
//! Intel SDM volume 1, figures 8-9 to 8-12: four layouts, by operand size and by whether the
//! processor is in protected or in real (or virtual-8086) mode.

use iced_x86::Code;
use riad_cpu::x86::Fpu;

use super::control::waiting;
use super::stack::{Stack, initialize, set_control};
use super::{available, begin};
use crate::cpu::{Cpu, Mode};
use crate::fault::Done;
use crate::op::{Exec, Op};
use crate::softfloat::{F80, Format, Kind};

pub(super) fn select(code: Code, mode: Mode) -> Option<Exec> {
    use Code as C;
    let real = matches!(mode, Mode::Real | Mode::V86);
    Some(match (code, real) {
        (C::Fnstenv_m14byte, false) => store::<Narrow, false>,
        (C::Fnstenv_m14byte, true) => store::<NarrowReal, false>,
        (C::Fnstenv_m28byte, false) => store::<Wide, false>,
        (C::Fnstenv_m28byte, true) => store::<WideReal, false>,
        (C::Fstenv_m14byte, false) => |cpu, op| waiting(cpu, op, store::<Narrow, false>),
        (C::Fstenv_m14byte, true) => |cpu, op| waiting(cpu, op, store::<NarrowReal, false>),
        (C::Fstenv_m28byte, false) => |cpu, op| waiting(cpu, op, store::<Wide, false>),
        (C::Fstenv_m28byte, true) => |cpu, op| waiting(cpu, op, store::<WideReal, false>),
        (C::Fldenv_m14byte, false) => load::<Narrow, false>,
        (C::Fldenv_m14byte, true) => load::<NarrowReal, false>,
        (C::Fldenv_m28byte, false) => load::<Wide, false>,
        (C::Fldenv_m28byte, true) => load::<WideReal, false>,
        (C::Fnsave_m94byte, false) => store::<Narrow, true>,
        (C::Fnsave_m94byte, true) => store::<NarrowReal, true>,
        (C::Fnsave_m108byte, false) => store::<Wide, true>,
        (C::Fnsave_m108byte, true) => store::<WideReal, true>,
        (C::Fsave_m94byte, false) => |cpu, op| waiting(cpu, op, store::<Narrow, true>),
        (C::Fsave_m94byte, true) => |cpu, op| waiting(cpu, op, store::<NarrowReal, true>),
        (C::Fsave_m108byte, false) => |cpu, op| waiting(cpu, op, store::<Wide, true>),
        (C::Fsave_m108byte, true) => |cpu, op| waiting(cpu, op, store::<WideReal, true>),
        (C::Frstor_m94byte, false) => load::<Narrow, true>,
        (C::Frstor_m94byte, true) => load::<NarrowReal, true>,
        (C::Frstor_m108byte, false) => load::<Wide, true>,
        (C::Frstor_m108byte, true) => load::<WideReal, true>,
        _ => return None,
    })
}

/// The largest image: a 28-byte environment and eight registers of ten bytes.
const LARGEST: usize = 108;

/// One of the four layouts.
trait Layout {
    /// Bytes of a word.
    const WORD: usize;
    /// Packs the instruction pointer, opcode and data pointer.
    fn pack(fpu: &Fpu) -> [u32; 4];
    /// Takes them apart: FIP, FOP, FDP. The selectors are not kept: CPUID tells so.
    fn unpack(words: [u32; 4]) -> (u32, u16, u32);
}

/// Protected mode, 32-bit operand size.
struct Wide;
/// Protected mode, 16-bit operand size.
struct Narrow;
/// Real mode, 32-bit operand size.
struct WideReal;
/// Real mode, 16-bit operand size.
struct NarrowReal;

impl Layout for Wide {
    const WORD: usize = 4;

    fn pack(fpu: &Fpu) -> [u32; 4] {
        let opcode = u32::from(fpu.fop) << 16 | u32::from(fpu.fcs);
        // Only the selector's own half of the last word is written with it.
        [fpu.fip as u32, opcode, fpu.fdp as u32, 0xffff_0000 | u32::from(fpu.fds)]
    }

    fn unpack([ip, opcode, data, _]: [u32; 4]) -> (u32, u16, u32) {
        (ip, (opcode >> 16) as u16 & 0x7ff, data)
    }
}

impl Layout for Narrow {
    const WORD: usize = 2;

    fn pack(fpu: &Fpu) -> [u32; 4] {
        [fpu.fip as u32, fpu.fcs.into(), fpu.fdp as u32, fpu.fds.into()]
    }

    fn unpack([ip, _, data, _]: [u32; 4]) -> (u32, u16, u32) {
        (ip, 0, data)
    }
}

/// A real mode pointer as a linear address.
fn linear(offset: u64, selector: u16) -> u32 {
    (offset as u32).wrapping_add(u32::from(selector) << 4)
}

impl Layout for WideReal {
    const WORD: usize = 4;

    fn pack(fpu: &Fpu) -> [u32; 4] {
        let (ip, data) = (linear(fpu.fip, fpu.fcs), linear(fpu.fdp, fpu.fds));
        let high = |pointer: u32| pointer >> 16 << 12;
        [ip | 0xffff_0000, high(ip) | u32::from(fpu.fop), data | 0xffff_0000, high(data)]
    }

    fn unpack([ip, opcode, data, high]: [u32; 4]) -> (u32, u16, u32) {
        let join = |low: u32, high: u32| low & 0xffff | (high >> 12 & 0xffff) << 16;
        (join(ip, opcode), opcode as u16 & 0x7ff, join(data, high))
    }
}

impl Layout for NarrowReal {
    const WORD: usize = 2;

    fn pack(fpu: &Fpu) -> [u32; 4] {
        let (ip, data) = (linear(fpu.fip, fpu.fcs), linear(fpu.fdp, fpu.fds));
        let high = |pointer: u32| (pointer >> 16 & 0xf) << 12;
        [ip, high(ip) | u32::from(fpu.fop), data, high(data)]
    }

    fn unpack([ip, opcode, data, high]: [u32; 4]) -> (u32, u16, u32) {
        let join = |low: u32, high: u32| low & 0xffff | (high >> 12 & 0xf) << 16;
        (join(ip, opcode), opcode as u16 & 0x7ff, join(data, high))
    }
}

/// The tag word with two bits a register: valid, zero, special or empty (SDM volume 1, 8.1.7).
fn full_tags(fpu: &Fpu) -> u16 {
    let tag = |number: usize| -> u16 {
        if fpu.ftw >> number & 1 == 0 {
            return 3;
        }
        let register = fpu.registers[number];
        let value =
            F80 { significand: register.significand, sign_exponent: register.sign_exponent };
        let unpacked = value.unpack();
        match unpacked.kind {
            Kind::Zero => 1,
            Kind::Finite if !unpacked.denormal => 0,
            _ => 2,
        }
    };
    (0..8).fold(0, |word, number| word | tag(number) << (2 * number))
}

/// The tag word with one bit a register, set when it is not empty.
fn abridged_tags(full: u16) -> u8 {
    (0..8).fold(0, |tags, i| tags | ((full >> (2 * i) & 3 != 3) as u8) << i)
}

/// FNSTENV masks all exceptions afterwards; FNSAVE (`WHOLE`) initializes.
fn store<L: Layout, const WHOLE: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    available(cpu)?;
    let mut image = [0u8; LARGEST];
    let mut len = 0;
    let mut put = |bytes: &[u8]| {
        if let Some(place) = image.get_mut(len..len + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        len += bytes.len();
    };
    for word in [cpu.fpu.fcw, cpu.fpu.fsw, full_tags(&cpu.fpu)] {
        // The unused halves are all ones.
        put(&(0xffff_0000 | u32::from(word)).to_le_bytes()[..L::WORD]);
    }
    for word in L::pack(&cpu.fpu) {
        put(&word.to_le_bytes()[..L::WORD]);
    }
    if WHOLE {
        for i in 0..8 {
            put(&cpu.fpu.raw(i).to_bits().to_le_bytes()[..10]);
        }
    }
    let address = cpu.linear(op, len as u32, true)?;
    cpu.write_bytes(op.seg, address, &image[..len.min(LARGEST)])?;
    if WHOLE {
        initialize(&mut cpu.fpu);
    } else {
        let masked = cpu.fpu.fcw | 0x3f;
        set_control(&mut cpu.fpu, masked);
    }
    Ok(())
}

fn load<L: Layout, const WHOLE: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    begin(cpu)?;
    let len = 7 * L::WORD + if WHOLE { 80 } else { 0 };
    let mut image = [0u8; LARGEST];
    let address = cpu.linear(op, len as u32, false)?;
    cpu.read_bytes(op.seg, address, &mut image[..len.min(LARGEST)])?;

    let word = |n: usize| {
        let bytes = &image[n * L::WORD..(n + 1) * L::WORD];
        bytes.iter().rev().fold(0u32, |value, &byte| value << 8 | u32::from(byte))
    };
    let (ip, opcode, data) = L::unpack([word(3), word(4), word(5), word(6)]);
    let fpu = &mut cpu.fpu;
    fpu.fsw = word(1) as u16;
    set_control(fpu, word(0) as u16);
    fpu.fip = ip.into();
    fpu.fop = opcode;
    fpu.fdp = data.into();
    fpu.fcs = 0;
    fpu.fds = 0;
    if WHOLE {
        for i in 0..8u8 {
            let start = 7 * L::WORD + 10 * usize::from(i);
            let bytes = &image[start..start + 10];
            let bits = bytes.iter().rev().fold(0u128, |value, &byte| value << 8 | u128::from(byte));
            fpu.put(i, F80::from_bits(bits));
        }
    }
    fpu.ftw = abridged_tags(word(2) as u16);
    Ok(())
}
