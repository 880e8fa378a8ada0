//! Memory operands, as types: handlers are generic over them.

use crate::cpu::Cpu;
use crate::fault::Done;
use crate::op::Op;
use crate::softfloat::{Env, F32, F64, F80, Format, Unpacked, from_int};

/// A memory operand of x87 arithmetic.
pub(super) trait Source {
    /// Reads and widens it.
    fn read(cpu: &mut Cpu, op: &Op) -> Done<Unpacked>;
}

/// m32fp
pub(super) struct Single;
/// m64fp
pub(super) struct Double;
/// m16int
pub(super) struct Int16;
/// m32int
pub(super) struct Int32;
/// m64int
pub(super) struct Int64;

impl Source for Single {
    fn read(cpu: &mut Cpu, op: &Op) -> Done<Unpacked> {
        Ok(F32(cpu.load(op)?).unpack())
    }
}

impl Source for Double {
    fn read(cpu: &mut Cpu, op: &Op) -> Done<Unpacked> {
        Ok(F64(cpu.load(op)?).unpack())
    }
}

/// An integer, which always fits a register exactly.
fn integer(value: i64) -> Unpacked {
    from_int::<F80>(value, &mut Env::x87(0x37f)).unpack()
}

impl Source for Int16 {
    fn read(cpu: &mut Cpu, op: &Op) -> Done<Unpacked> {
        Ok(integer(i64::from(cpu.load::<u16>(op)? as i16)))
    }
}

impl Source for Int32 {
    fn read(cpu: &mut Cpu, op: &Op) -> Done<Unpacked> {
        Ok(integer(i64::from(cpu.load::<u32>(op)? as i32)))
    }
}

impl Source for Int64 {
    fn read(cpu: &mut Cpu, op: &Op) -> Done<Unpacked> {
        Ok(integer(cpu.load::<u64>(op)? as i64))
    }
}

/// Reads a ten-byte operand. All ten are read even where they lie on two pages.
pub(super) fn read_ten(cpu: &mut Cpu, op: &Op) -> Done<u128> {
    let address = cpu.linear(op, 10, false)?;
    let mut bytes = [0; 16];
    cpu.read_bytes(op.seg, address, &mut bytes[..10])?;
    Ok(u128::from_le_bytes(bytes))
}

/// Writes a ten-byte operand.
pub(super) fn write_ten(cpu: &mut Cpu, op: &Op, value: u128) -> Done {
    let address = cpu.linear(op, 10, true)?;
    cpu.write_bytes(op.seg, address, &value.to_le_bytes()[..10])
}
