//! Which status flags an instruction needs and which it sets, and what somebody still needs.
//!
//! The host's flags are the guest's. Looking up memory clobbers them: they are kept first when
//! somebody may still read them.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, RflagsBits};

/// All six status flags.
pub(crate) const ALL: u32 = RflagsBits::OF
    | RflagsBits::SF
    | RflagsBits::ZF
    | RflagsBits::AF
    | RflagsBits::CF
    | RflagsBits::PF;

/// The status flags that an instruction reads, and those that it always sets.
pub(crate) fn effect(i: &Instruction) -> (u32, u32) {
    let (read, mut set) = (i.rflags_read() & ALL, i.rflags_modified() & ALL);
    if is_shift(i.mnemonic()) {
        // A count of 0 leaves the flags alone.
        let nonzero = match i.op_kind(i.op_count() - 1) {
            OpKind::Immediate8 => {
                let mask = if i.op0_is_wide() { 63 } else { 31 };
                i.immediate8() & mask != 0
            }
            _ => false,
        };
        if !nonzero {
            set = 0;
        }
    }
    (read, set)
}

trait Width {
    fn op0_is_wide(&self) -> bool;
}

impl Width for Instruction {
    /// Whether operand 0 has 64 bits.
    fn op0_is_wide(&self) -> bool {
        match self.op0_kind() {
            OpKind::Memory => self.memory_size().size() == 8,
            _ => self.op0_register().size() == 8,
        }
    }
}

/// Whether it shifts or rotates.
pub(crate) fn is_shift(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shld | M::Shrd
    )
}

/// Whether the instruction's count is CL.
pub(crate) fn counts_in_cl(code: Code) -> bool {
    use Code as C;
    matches!(
        code,
        C::Rol_rm8_CL
            | C::Rol_rm16_CL
            | C::Rol_rm32_CL
            | C::Rol_rm64_CL
            | C::Ror_rm8_CL
            | C::Ror_rm16_CL
            | C::Ror_rm32_CL
            | C::Ror_rm64_CL
            | C::Rcl_rm8_CL
            | C::Rcl_rm16_CL
            | C::Rcl_rm32_CL
            | C::Rcl_rm64_CL
            | C::Rcr_rm8_CL
            | C::Rcr_rm16_CL
            | C::Rcr_rm32_CL
            | C::Rcr_rm64_CL
            | C::Shl_rm8_CL
            | C::Shl_rm16_CL
            | C::Shl_rm32_CL
            | C::Shl_rm64_CL
            | C::Shr_rm8_CL
            | C::Shr_rm16_CL
            | C::Shr_rm32_CL
            | C::Shr_rm64_CL
            | C::Sar_rm8_CL
            | C::Sar_rm16_CL
            | C::Sar_rm32_CL
            | C::Sar_rm64_CL
            | C::Sal_rm8_CL
            | C::Sal_rm16_CL
            | C::Sal_rm32_CL
            | C::Sal_rm64_CL
            | C::Shld_rm16_r16_CL
            | C::Shld_rm32_r32_CL
            | C::Shld_rm64_r64_CL
            | C::Shrd_rm16_r16_CL
            | C::Shrd_rm32_r32_CL
            | C::Shrd_rm64_r64_CL
    )
}
