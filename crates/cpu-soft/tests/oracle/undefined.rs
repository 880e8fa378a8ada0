//! What the manuals leave open, by name, and what of it is compared nevertheless.
//!
//! Undefined flags: the interpreter gives them the values that Intel's processors were measured to
//! give. Processors differ, so they are masked here unless `RIAD_ORACLE_UNDEFINED=1`.

use std::sync::LazyLock;

use iced_x86::{Mnemonic, OpKind};

use crate::generate::Case;
use crate::state::Trap;

static STRICT: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("RIAD_ORACLE_UNDEFINED").is_some());

const CF: u64 = 1 << 0;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;

/// Flags that are undefined after this instruction (SDM 1, appendix A; SDM 2).
pub(crate) fn flags(case: &Case) -> u64 {
    use Mnemonic as M;
    if *STRICT {
        return 0;
    }
    match case.instruction.mnemonic() {
        M::And | M::Or | M::Xor | M::Test => AF,
        M::Mul | M::Imul => SF | ZF | AF | PF,
        M::Div | M::Idiv => CF | OF | SF | ZF | AF | PF,
        M::Bsf | M::Bsr => CF | OF | SF | AF | PF,
        M::Bt | M::Bts | M::Btr | M::Btc => OF | SF | AF | PF,
        M::Shl | M::Sal | M::Shr | M::Sar | M::Shld | M::Shrd => match count(case) {
            0 => 0,
            1 => AF,
            _ if matches!(case.instruction.mnemonic(), M::Sar) => OF | AF,
            // CF too when the count exceeds the operand's width.
            _ => OF | AF | CF,
        },
        M::Rol | M::Ror | M::Rcl | M::Rcr if count(case) > 1 => OF,
        _ => 0,
    }
}

/// Whether the destination itself is undefined.
pub(crate) fn destination(case: &Case) -> bool {
    use Mnemonic as M;
    let i = &case.instruction;
    let size = if i.op0_kind() == OpKind::Memory {
        i.memory_size().size()
    } else {
        i.op0_register().size()
    };
    match i.mnemonic() {
        M::Shld | M::Shrd => !*STRICT && size == 2 && count(case) > 16,
        M::Bswap => !*STRICT && size == 2,
        _ => false,
    }
}

/// The masked count of a shift.
fn count(case: &Case) -> u64 {
    let i = &case.instruction;
    let size = if i.op0_kind() == OpKind::Memory {
        i.memory_size().size()
    } else {
        i.op0_register().size()
    };
    let last = i.op_count() - 1;
    let count = match i.op_kind(last) {
        OpKind::Register => case.registers.gpr[1],
        _ => i.immediate(last),
    };
    count & if size == 8 { 63 } else { 31 }
}

/// Bits of the x87 status word that are undefined: condition codes, mostly (SDM 1, 8.1.3).
pub(crate) fn x87_status(case: &Case) -> u16 {
    use Mnemonic as M;
    const C0: u16 = 1 << 8;
    const C1: u16 = 1 << 9;
    const C2: u16 = 1 << 10;
    const C3: u16 = 1 << 14;
    const PE: u16 = 1 << 5;
    // As exact as the function is.
    let rounding = match case.instruction.mnemonic() {
        M::Fsin | M::Fcos | M::Fsincos | M::Fptan => C1,
        M::F2xm1 | M::Fyl2x | M::Fyl2xp1 | M::Fpatan => C1 | PE,
        _ => 0,
    };
    if *STRICT {
        return rounding;
    }
    rounding
        | match case.instruction.mnemonic() {
            M::Fsin | M::Fcos | M::Fsincos | M::Fptan => C0 | C3,
            M::Fcomi
            | M::Fcomip
            | M::Fucomi
            | M::Fucomip
            | M::Fcmovb
            | M::Fcmovbe
            | M::Fcmove
            | M::Fcmovnb
            | M::Fcmovnbe
            | M::Fcmovne
            | M::Fcmovnu
            | M::Fcmovu
            | M::Ffree
            | M::Ffreep => C0 | C1 | C2 | C3,
            M::F2xm1 | M::Fyl2x | M::Fyl2xp1 | M::Fpatan => C0 | C2 | C3,
            _ => 0,
        }
}

/// Whether two x87 registers are the same as far as is promised: transcendental functions may
/// differ in the last places (SDM 1, 8.3.10), everything else may not.
pub(crate) fn same_x87(case: &Case, theirs: (u16, u64), ours: (u16, u64)) -> bool {
    use Mnemonic as M;
    if theirs == ours {
        return true;
    }
    let close = matches!(
        case.instruction.mnemonic(),
        M::Fsin | M::Fcos | M::Fsincos | M::Fptan | M::Fpatan | M::F2xm1 | M::Fyl2x | M::Fyl2xp1
    );
    let place = |(se, m): (u16, u64)| (i128::from(se & 0x7fff) << 63) + i128::from(m & !(1 << 63));
    close && (theirs.0 ^ ours.0) >> 15 == 0 && (place(theirs) - place(ours)).abs() <= 2
}

/// Whether a byte of the window is not to be compared: the pointers in an x87 environment, which
/// depend on the processor's generation (SDM 1, 8.1.8).
pub(crate) fn byte(case: &Case, at: usize) -> bool {
    let Some(at) = at.checked_sub(case.target.wrapping_sub(crate::state::WINDOW) as usize) else {
        return false;
    };
    if !matches!(case.instruction.mnemonic(), Mnemonic::Fnstenv | Mnemonic::Fnsave) {
        return false;
    }
    match case.instruction.memory_size().size() {
        14 | 94 => (6..14).contains(&at),
        _ => (12..28).contains(&at),
    }
}

/// Instructions that transfer more than 8 bytes, in an order of their own.
fn transfers_many(case: &Case) -> bool {
    use Mnemonic as M;
    matches!(
        case.instruction.mnemonic(),
        M::Fnstenv | M::Fldenv | M::Fnsave | M::Frstor | M::Fbstp | M::Fstp | M::Fbld | M::Fld
    )
}

/// Whether both faulted in the same way. Which byte of a long transfer faults first is not promised.
pub(crate) fn same_fault(case: &Case, theirs: Option<Trap>, ours: Option<Trap>) -> bool {
    let page = |trap: Trap| trap.page.map(|(code, address)| (code, address >> 12));
    match (theirs, ours) {
        (Some(a), Some(b)) if transfers_many(case) => a.vector == b.vector && page(a) == page(b),
        _ => theirs == ours,
    }
}

/// Whether memory says nothing after this fault: a processor may have stored the first part of a
/// long operand, or the return address of a call to nowhere; we do not.
pub(crate) fn memory_after_fault(case: &Case, fault: Option<Trap>) -> bool {
    let call = case.instruction.mnemonic() == Mnemonic::Call;
    fault.is_some() && (call || transfers_many(case))
}

/// Whether x87 registers say nothing after this fault: MMX instructions that fault may already have
/// switched from x87 to MMX (SDM 1, 9.5.1); we have not.
pub(crate) fn x87_after_fault(case: &Case, fault: Option<Trap>) -> bool {
    let i = &case.instruction;
    fault.is_some()
        && (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_mm())
}
