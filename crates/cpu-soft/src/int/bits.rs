//! BT, BTS, BTR, BTC, BSF, BSR, POPCNT, CRC32 (SDM 2).

use iced_x86::{Instruction, OpKind};
use riad_cpu::x86::rflags::{AF, CF, OF};

use super::operand::{Memory, Reg, Source, is_memory};
use super::{Int, sized};
use crate::cpu::Cpu;
use crate::fault::Done;
use crate::op::{Exec, Op};
use crate::word::Word;

/// What happens to the tested bit.
pub(super) trait BitChange: 'static {
    /// Whether the destination is written.
    const WRITES: bool;
    /// The value with `bit` changed.
    fn change(value: u64, bit: u64) -> u64;
}

macro_rules! changes {
    ($($(#[$doc:meta])* $name:ident, $writes:literal, |$v:ident, $b:ident| $result:expr;)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl BitChange for $name {
            const WRITES: bool = $writes;
            #[inline(always)]
            fn change($v: u64, $b: u64) -> u64 {
                $result
            }
        }
    )*};
}

changes! {
    /// BT.
    Keep, false, |v, b| { let _ = b; v };
    /// BTS.
    Set, true, |v, b| v | b;
    /// BTR.
    Reset, true, |v, b| v & !b;
    /// BTC.
    Complement, true, |v, b| v ^ b;
}

/// The number of the bit: register 1 or the immediate.
#[inline(always)]
fn offset<T: Int, const IMM: bool>(cpu: &Cpu, op: &Op) -> u64 {
    if IMM { op.imm } else { cpu.get::<T>(op.reg[1]).sx() }
}

#[inline(always)]
fn mask<T: Int>(offset: u64) -> u64 {
    1 << (offset & u64::from(T::BITS - 1))
}

fn in_register<T: Int, O: BitChange, const IMM: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    let bit = mask::<T>(offset::<T, IMM>(cpu, op));
    let old = cpu.get::<T>(op.reg[0]).zx();
    if O::WRITES {
        cpu.set(op.reg[0], T::low(O::change(old, bit)));
    }
    cpu.flags.put(CF, old & bit != 0);
    Ok(())
}

/// A register's bit number is signed and reaches beyond the operand; an immediate's does not.
fn in_memory<T: Int, O: BitChange, const IMM: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    let offset = offset::<T, IMM>(cpu, op);
    let bit = mask::<T>(offset);
    let mut address = cpu.effective(op);
    if !IMM {
        let words = (offset as i64) >> T::BITS.trailing_zeros();
        address = address.wrapping_add((words as u64).wrapping_mul(T::BYTES as u64));
        address = match op.address {
            8 => address,
            4 => address & u32::MASK,
            _ => address & u16::MASK,
        };
    }
    let linear = cpu.segmented(op.seg, address, T::BYTES as u32, O::WRITES)?;
    let old: T = if O::WRITES {
        let change = |old: T| T::low(O::change(old.zx(), bit));
        cpu.modify(op.seg, linear, op.locked(), change)?
    } else {
        cpu.read(op.seg, linear)?
    };
    cpu.flags.put(CF, old.zx() & bit != 0);
    Ok(())
}

/// BT, BTS, BTR, BTC. Only CF changes (OF, SF, AF and PF are undefined).
pub(super) fn test<O: BitChange>(i: &Instruction, op: &Op) -> Option<Exec> {
    sized!(op.size, T => Some(match (is_memory(i, 0), i.op_kind(1) == OpKind::Register) {
        (false, true) => in_register::<T, O, false>,
        (false, false) => in_register::<T, O, true>,
        (true, true) => in_memory::<T, O, false>,
        (true, false) => in_memory::<T, O, true>,
    }))
}

/// Which end a scan starts from.
pub(super) trait Direction: 'static {
    /// Number of the first set bit of a value that is not zero.
    fn first(value: u64) -> u32;
}

/// BSF.
pub(super) struct Forward;

impl Direction for Forward {
    #[inline(always)]
    fn first(value: u64) -> u32 {
        value.trailing_zeros()
    }
}

/// BSR.
pub(super) struct Reverse;

impl Direction for Reverse {
    #[inline(always)]
    fn first(value: u64) -> u32 {
        63 - value.leading_zeros().min(63)
    }
}

/// A source of zero leaves the destination alone, all 64 bits of it. Of the undefined flags PF is
/// the parity of the number found (set when there is none), the others are cleared.
fn scan_bits<T: Int, O: Direction, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let value: T = S::read(cpu, op)?;
    let number = if value.zx() != 0 { O::first(value.zx()) } else { 0 };
    if value.zx() != 0 {
        cpu.set(op.reg[0], T::low(u64::from(number)));
    }
    cpu.flags.bits &= !(CF | AF | OF);
    cpu.flags.set_zsp(value.zx() == 0, false, number.count_ones() & 1 == 0);
    Ok(())
}

/// BSF and BSR.
pub(super) fn scan<O: Direction>(i: &Instruction, op: &Op) -> Option<Exec> {
    sized!(op.size, T => Some(if is_memory(i, 1) {
        scan_bits::<T, O, Memory>
    } else {
        scan_bits::<T, O, Reg<1>>
    }))
}

fn count<T: Int, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let value: T = S::read(cpu, op)?;
    cpu.set(op.reg[0], T::low(u64::from(value.zx().count_ones())));
    cpu.flags.bits &= !(CF | AF | OF);
    cpu.flags.set_zsp(value.zx() == 0, false, false);
    Ok(())
}

/// POPCNT.
pub(super) fn popcnt(i: &Instruction, op: &Op) -> Option<Exec> {
    sized!(op.size, T => Some(if is_memory(i, 1) {
        count::<T, Memory>
    } else {
        count::<T, Reg<1>>
    }))
}

/// CRC-32C (RFC 3720, B.4) of each byte value, reflected.
static CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 != 0 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

fn checksum<T: Int, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let data: T = S::read(cpu, op)?;
    let mut data = data.zx();
    let mut crc = cpu.get::<u32>(op.reg[0]);
    for _ in 0..T::BYTES {
        crc = crc >> 8 ^ CRC32C[usize::from(crc as u8 ^ data as u8)];
        data >>= 8;
    }
    cpu.set(op.reg[0], crc);
    Ok(())
}

/// CRC32 (SSE4.2).
pub(super) fn crc32(i: &Instruction, op: &Op) -> Option<Exec> {
    let memory = is_memory(i, 1);
    let size = if memory { usize::from(op.size) } else { i.op1_register().size() };
    sized!(size, T => Some(if memory { checksum::<T, Memory> } else { checksum::<T, Reg<1>> }))
}
