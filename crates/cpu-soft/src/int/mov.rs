//! MOV, MOVZX, MOVSX, MOVSXD, MOVNTI, LEA, BSWAP, XLAT, SETcc, CMOVcc (SDM 2).
//!
//! MOV from and to segment, control and debug registers is the system family's.

use iced_x86::{ConditionCode, Instruction, Mnemonic, OpKind, Register};

use super::operand::{
    Flat, Imm, Memory, Reg, Shape, Source, Target, is_flat, is_memory, is_register, shape,
};
use super::{Int, sized};
use crate::cpu::{Cpu, Mode};
use crate::fault::Done;
use crate::op::{Exec, Op, ZERO, gpr};
use crate::word::Word;

fn move_to<T: Int, D: Target, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let value: T = S::read(cpu, op)?;
    D::write(cpu, op, value)
}

/// MOV.
pub(super) fn mov(i: &Instruction, op: &Op, mode: Mode) -> Option<Exec> {
    let general = |n| i.op_kind(n) != OpKind::Register || i.op_register(n).is_gpr();
    if !general(0) || !general(1) {
        return None;
    }
    sized!(op.size, T => Some(match shape(i, op, mode) {
        Shape::RegReg => move_to::<T, Reg<0>, Reg<1>>,
        Shape::RegImm => move_to::<T, Reg<0>, Imm>,
        Shape::RegMemory => move_to::<T, Reg<0>, Memory>,
        Shape::RegFlat => move_to::<T, Reg<0>, Flat>,
        Shape::MemoryReg => move_to::<T, Memory, Reg<1>>,
        Shape::MemoryImm => move_to::<T, Memory, Imm>,
        Shape::FlatReg => move_to::<T, Flat, Reg<1>>,
        Shape::FlatImm => move_to::<T, Flat, Imm>,
    }))
}

/// MOVNTI: a store; that it goes past the caches cannot be seen.
pub(super) fn store(op: &Op) -> Option<Exec> {
    sized!(op.size, T => Some(move_to::<T, Memory, Reg<1>>))
}

fn zero_extend<F: Int, T: Int, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let value: F = S::read(cpu, op)?;
    cpu.set(op.reg[0], T::low(value.zx()));
    Ok(())
}

fn sign_extend<F: Int, T: Int, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let value: F = S::read(cpu, op)?;
    cpu.set(op.reg[0], T::low(value.sx()));
    Ok(())
}

/// Bytes of the source operand of an extending move.
fn source_size(i: &Instruction, op: &Op) -> usize {
    if is_register(i, 1) { i.op1_register().size() } else { usize::from(op.size) }
}

macro_rules! extend {
    ($name:ident, $i:ident, $op:ident, $mode:ident) => {{
        let from = source_size($i, $op);
        sized!($i.op0_register().size(), T => sized!(from, F => Some(match shape($i, $op, $mode) {
            Shape::RegReg => $name::<F, T, Reg<1>>,
            Shape::RegFlat => $name::<F, T, Flat>,
            _ => $name::<F, T, Memory>,
        })))
    }};
}

/// MOVZX.
pub(super) fn movzx(i: &Instruction, op: &Op, mode: Mode) -> Option<Exec> {
    extend!(zero_extend, i, op, mode)
}

/// MOVSX and MOVSXD.
pub(super) fn movsx(i: &Instruction, op: &Op, mode: Mode) -> Option<Exec> {
    extend!(sign_extend, i, op, mode)
}

fn lea_any<T: Int>(cpu: &mut Cpu, op: &Op) -> Done {
    let address = cpu.effective(op);
    cpu.set(op.reg[0], T::low(address));
    Ok(())
}

fn lea_flat<T: Int>(cpu: &mut Cpu, op: &Op) -> Done {
    let address = Flat::address(cpu, op);
    cpu.set(op.reg[0], T::low(address));
    Ok(())
}

/// `LEA r, [base + disp]`.
fn lea_near<T: Int>(cpu: &mut Cpu, op: &Op) -> Done {
    let address = cpu.regs[usize::from(op.base)].wrapping_add(op.disp);
    cpu.set(op.reg[0], T::low(address));
    Ok(())
}

/// LEA.
pub(super) fn lea(i: &Instruction, op: &mut Op, mode: Mode) -> Option<Exec> {
    op.size = i.op0_register().size() as u8;
    let wide = mode == Mode::Long && op.address == 8;
    sized!(op.size, T => Some(match (wide, op.index) {
        (true, ZERO) => lea_near::<T>,
        (true, _) => lea_flat::<T>,
        (false, _) => lea_any::<T>,
    }))
}

/// BSWAP. Of a 16-bit register it is undefined; Intel's processors clear that register.
pub(super) fn bswap(op: &Op) -> Option<Exec> {
    Some(match op.size {
        2 => |cpu, op| {
            cpu.set(op.reg[0], 0u16);
            Ok(())
        },
        4 => |cpu, op| {
            cpu.set(op.reg[0], cpu.get::<u32>(op.reg[0]).swap_bytes());
            Ok(())
        },
        _ => |cpu, op| {
            cpu.set(op.reg[0], cpu.get::<u64>(op.reg[0]).swap_bytes());
            Ok(())
        },
    })
}

/// XLAT: AL becomes the byte at (E)BX + AL, which is why the index is not an ordinary one.
pub(super) fn xlat(op: &mut Op) -> Option<Exec> {
    op.index = ZERO;
    Some(|cpu, op| {
        let offset = cpu.effective(op).wrapping_add(cpu.regs[gpr::RAX] & 0xff);
        let offset = match op.address {
            8 => offset,
            4 => offset & u32::MASK,
            _ => offset & u16::MASK,
        };
        let address = cpu.segmented(op.seg, offset, 1, false)?;
        let byte: u8 = cpu.read(op.seg, address)?;
        cpu.set(0, byte);
        Ok(())
    })
}

/// The condition code of a Jcc, SETcc or CMOVcc, as encoded.
pub(super) fn condition(i: &Instruction) -> Option<u8> {
    use ConditionCode as C;
    Some(match i.condition_code() {
        C::None => return None,
        C::o => 0,
        C::no => 1,
        C::b => 2,
        C::ae => 3,
        C::e => 4,
        C::ne => 5,
        C::be => 6,
        C::a => 7,
        C::s => 8,
        C::ns => 9,
        C::p => 10,
        C::np => 11,
        C::l => 12,
        C::ge => 13,
        C::le => 14,
        C::g => 15,
    })
}

/// One of sixteen instances of a handler that takes its condition as the const parameter `C`.
macro_rules! by_condition {
    ($condition:expr, $C:ident => $handler:expr) => {
        by_condition!(@ $condition, $C => $handler; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $condition:expr, $C:ident => $handler:expr; $($n:literal)*) => {
        match $condition {
            $($n => {
                const $C: u8 = $n;
                Some($handler as Exec)
            })*
            _ => None,
        }
    };
}
pub(super) use by_condition;

fn set_byte<const C: u8, D: Target>(cpu: &mut Cpu, op: &Op) -> Done {
    let met = cpu.flags.condition(C);
    D::write(cpu, op, u8::from(met))
}

/// Whether it is SETcc.
pub(crate) fn is_setcc(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Seto
            | M::Setno
            | M::Setb
            | M::Setae
            | M::Sete
            | M::Setne
            | M::Setbe
            | M::Seta
            | M::Sets
            | M::Setns
            | M::Setp
            | M::Setnp
            | M::Setl
            | M::Setge
            | M::Setle
            | M::Setg
    )
}

/// SETcc.
pub(super) fn setcc(i: &Instruction, _: &Op) -> Option<Exec> {
    if !is_setcc(i.mnemonic()) {
        return None;
    }
    let condition = condition(i)?;
    if is_memory(i, 0) {
        by_condition!(condition, C => set_byte::<C, Memory>)
    } else {
        by_condition!(condition, C => set_byte::<C, Reg<0>>)
    }
}

/// The source is read, and a 32-bit destination's upper half cleared, whether or not it moves.
fn move_if<T: Int, const C: u8, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let value: T = S::read(cpu, op)?;
    let old: T = cpu.get(op.reg[0]);
    let value = if cpu.flags.condition(C) { value } else { old };
    cpu.set(op.reg[0], value);
    Ok(())
}

/// Whether it is CMOVcc.
pub(crate) fn is_cmovcc(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Cmovo
            | M::Cmovno
            | M::Cmovb
            | M::Cmovae
            | M::Cmove
            | M::Cmovne
            | M::Cmovbe
            | M::Cmova
            | M::Cmovs
            | M::Cmovns
            | M::Cmovp
            | M::Cmovnp
            | M::Cmovl
            | M::Cmovge
            | M::Cmovle
            | M::Cmovg
    )
}

/// CMOVcc.
pub(super) fn cmovcc(i: &Instruction, op: &Op, mode: Mode) -> Option<Exec> {
    if !is_cmovcc(i.mnemonic()) || i.op0_register() == Register::None {
        return None;
    }
    let condition = condition(i)?;
    if op.size == 1 {
        return None;
    }
    if !is_memory(i, 1) {
        sized!(op.size, T => by_condition!(condition, C => move_if::<T, C, Reg<1>>))
    } else if is_flat(op, mode) {
        sized!(op.size, T => by_condition!(condition, C => move_if::<T, C, Flat>))
    } else {
        sized!(op.size, T => by_condition!(condition, C => move_if::<T, C, Memory>))
    }
}
