//! Integer instructions: everything of `riad-v1` that is neither vector, x87 nor system (SDM 2).
//!
//! One file a family. Handlers are generic over the operand width ([`Int`]), the kind of each
//! operand ([`operand`]) and the operation, so that what runs for one guest instruction has nothing
//! left to decide. [`select`] picks the instance once, when a block is decoded.
//!
//! Where the SDM leaves flags undefined we do what the measured Intel processors do (the handlers
//! say what that is): guests have come to depend on it, and the oracle in `tests/` then has little
//! to mask.
//!
//! Begin with `operand.rs`, then `alu.rs`.

mod alu;
mod atomic;
mod bcd;
mod bits;
mod branch;
mod convert;
mod hint;
mod mov;
mod muldiv;
mod operand;
mod shift;
mod stack;
mod string;

use iced_x86::{Instruction, Mnemonic};

pub(crate) use mov::{is_cmovcc, is_setcc};

use crate::cpu::Mode;
use crate::mem::Mem;
use crate::op::{Exec, Op};
use crate::word::Word;

/// What an integer handler's operand can be.
trait Int: Word + Mem {}

impl<T: Word + Mem> Int for T {}

/// Binds `$T` to the unsigned integer of `$size` bytes in `$body`, an `Option`.
macro_rules! sized {
    ($size:expr, $T:ident => $body:expr) => {
        match $size {
            1 => {
                type $T = u8;
                $body
            }
            2 => {
                type $T = u16;
                $body
            }
            4 => {
                type $T = u32;
                $body
            }
            8 => {
                type $T = u64;
                $body
            }
            _ => None,
        }
    };
}
use sized;

/// The handler of an integer instruction, or `None` when it is another family's.
#[must_use]
pub fn select(i: &Instruction, op: &mut Op, mode: Mode) -> Option<Exec> {
    use Mnemonic as M;
    match i.mnemonic() {
        M::Add => alu::binary::<alu::Add>(i, op, mode),
        M::Adc => alu::binary::<alu::Adc>(i, op, mode),
        M::Sub => alu::binary::<alu::Sub>(i, op, mode),
        M::Sbb => alu::binary::<alu::Sbb>(i, op, mode),
        M::And => alu::binary::<alu::And>(i, op, mode),
        M::Or => alu::binary::<alu::Or>(i, op, mode),
        M::Xor => alu::binary::<alu::Xor>(i, op, mode),
        M::Cmp => alu::compare::<alu::Sub>(i, op, mode),
        M::Test => alu::compare::<alu::And>(i, op, mode),
        M::Inc => alu::unary::<alu::Inc>(i, op),
        M::Dec => alu::unary::<alu::Dec>(i, op),
        M::Neg => alu::unary::<alu::Neg>(i, op),
        M::Not => alu::unary::<alu::Not>(i, op),

        M::Mov => mov::mov(i, op, mode),
        M::Movnti => mov::store(op),
        M::Movzx => mov::movzx(i, op, mode),
        M::Movsx | M::Movsxd => mov::movsx(i, op, mode),
        M::Lea => mov::lea(i, op, mode),
        M::Bswap => mov::bswap(op),
        M::Xlatb => mov::xlat(op),

        M::Cbw | M::Cwde | M::Cdqe | M::Cwd | M::Cdq | M::Cqo => convert::sign(i),
        M::Lahf | M::Sahf | M::Clc | M::Stc | M::Cmc | M::Cld | M::Std | M::Salc => {
            convert::flags(i)
        }

        M::Xchg => atomic::xchg(i, op),
        M::Xadd => atomic::xadd(i, op),
        M::Cmpxchg => atomic::cmpxchg(i, op),
        M::Cmpxchg8b => Some(atomic::cmpxchg8b),
        M::Cmpxchg16b => Some(atomic::cmpxchg16b),

        M::Mul => muldiv::widening::<muldiv::Mul>(i, op),
        M::Imul => muldiv::imul(i, op),
        M::Div => muldiv::division::<muldiv::Div>(i, op),
        M::Idiv => muldiv::division::<muldiv::Idiv>(i, op),

        M::Rol => shift::single::<shift::Rol>(i, op),
        M::Ror => shift::single::<shift::Ror>(i, op),
        M::Rcl => shift::single::<shift::Rcl>(i, op),
        M::Rcr => shift::single::<shift::Rcr>(i, op),
        M::Shl | M::Sal => shift::single::<shift::Shl>(i, op),
        M::Shr => shift::single::<shift::Shr>(i, op),
        M::Sar => shift::single::<shift::Sar>(i, op),
        M::Shld => shift::double::<shift::Shld>(i, op),
        M::Shrd => shift::double::<shift::Shrd>(i, op),

        M::Bt => bits::test::<bits::Keep>(i, op),
        M::Bts => bits::test::<bits::Set>(i, op),
        M::Btr => bits::test::<bits::Reset>(i, op),
        M::Btc => bits::test::<bits::Complement>(i, op),
        // Without BMI the prefix that makes TZCNT and LZCNT is ignored.
        M::Bsf | M::Tzcnt => bits::scan::<bits::Forward>(i, op),
        M::Bsr | M::Lzcnt => bits::scan::<bits::Reverse>(i, op),
        M::Popcnt => bits::popcnt(i, op),
        M::Crc32 => bits::crc32(i, op),

        M::Push => stack::push(i, op, mode),
        M::Pop => stack::pop(i, op, mode),
        M::Pusha | M::Pushad | M::Popa | M::Popad => stack::all(i),
        M::Enter => stack::enter(i),
        M::Leave => stack::leave(i),

        M::Jmp => branch::jmp(i, op),
        M::Call => branch::call(i, op),
        M::Ret => branch::ret(i),
        M::Loop | M::Loope | M::Loopne | M::Jcxz | M::Jecxz | M::Jrcxz => branch::counted(i, op),

        M::Movsb | M::Movsw | M::Movsd | M::Movsq => string::movs(i, op),
        M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq => string::cmps(i, op),
        M::Scasb | M::Scasw | M::Scasd | M::Scasq => string::scas(i, op),
        M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => string::lods(i, op),
        M::Stosb | M::Stosw | M::Stosd | M::Stosq => string::stos(i, op),

        M::Daa | M::Das | M::Aaa | M::Aas | M::Aam | M::Aad => bcd::select(i),
        M::Bound => convert::bound(op),

        _ => branch::jcc(i)
            .or_else(|| mov::setcc(i, op))
            .or_else(|| mov::cmovcc(i, op, mode))
            .or_else(|| hint::select(i)),
    }
}

#[cfg(test)]
#[path = "int_test.rs"]
mod tests;
