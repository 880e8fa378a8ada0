//! What becomes of each guest instruction.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use super::flags::counts_in_cl;
use crate::int::{is_cmovcc, is_setcc};

/// How an instruction is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Nothing to do.
    Nothing,
    /// The same instruction with the registers' homes, and the memory operand's host address.
    Same,
    /// The same for XMM registers, when the system lets them be used.
    Vector,
    /// LEA.
    Address,
    /// Sign extension of RAX, into itself or into RDX.
    SignExtend,
    /// MUL and IMUL with one operand.
    Multiply,
    /// DIV and IDIV.
    Divide,
    /// CMPXCHG.
    CompareExchange,
    /// MOVZX and MOVSX from AH, CH, DH or BH.
    HighByte,
    /// Other instructions with AH, CH, DH or BH.
    High,
    /// CLI, STI.
    Interrupts,
    /// CLD, STD.
    Direction,
    SwapGs,
    /// PUSHF.
    PushFlags,
    Push,
    Pop,
    Leave,
    /// Jcc.
    Branch,
    Jump,
    Call,
    JumpIndirect,
    CallIndirect,
    Return,
    /// One for the interpreter.
    Interpret,
    /// One that goes on in the next page: the interpreter's too.
    Across,
}

/// The class of an instruction in 64-bit mode. `vector` says whether XMM registers can be used,
/// `pure` that the block may only touch what instructions of users do.
pub(crate) fn class(i: &Instruction, vector: bool, pure: bool) -> Class {
    use Mnemonic as M;
    let class = match i.mnemonic() {
        M::Nop
        | M::Endbr64
        | M::Endbr32
        | M::Prefetchnta
        | M::Prefetcht0
        | M::Prefetcht1
        | M::Prefetcht2
        | M::Prefetchw
        | M::Prefetchwt1
        | M::Prefetch => Class::Nothing,
        M::Pause | M::Mfence | M::Lfence | M::Sfence => Class::Same,
        M::Lea => Class::Address,
        M::Cbw | M::Cwde | M::Cdqe | M::Cwd | M::Cdq | M::Cqo => Class::SignExtend,
        M::Mul | M::Div | M::Idiv if is_byte(i) => Class::Interpret,
        M::Mul => Class::Multiply,
        M::Imul if i.op_count() == 1 => {
            if is_byte(i) {
                Class::Interpret
            } else {
                Class::Multiply
            }
        }
        M::Div | M::Idiv => Class::Divide,
        M::Cmpxchg => Class::CompareExchange,
        M::Push => push_or_pop(i, Class::Push),
        M::Pop => push_or_pop(i, Class::Pop),
        M::Cli | M::Sti if !pure => Class::Interrupts,
        M::Cld | M::Std => Class::Direction,
        M::Swapgs if !pure => Class::SwapGs,
        M::Pushfq => Class::PushFlags,
        M::Leave => {
            if i.code() == Code::Leaveq {
                Class::Leave
            } else {
                Class::Interpret
            }
        }
        M::Jmp => match i.code() {
            Code::Jmp_rel8_64 | Code::Jmp_rel32_64 => Class::Jump,
            Code::Jmp_rm64 => Class::JumpIndirect,
            _ => Class::Interpret,
        },
        M::Call => match i.code() {
            Code::Call_rel32_64 => Class::Call,
            Code::Call_rm64 => Class::CallIndirect,
            _ => Class::Interpret,
        },
        M::Ret => match i.code() {
            Code::Retnq | Code::Retnq_imm16 => Class::Return,
            _ => Class::Interpret,
        },
        _ if i.is_jcc_short_or_near() && i.op0_kind() == OpKind::NearBranch64 => Class::Branch,
        _ if is_plain(i.mnemonic()) => plain(i),
        _ if is_vector(i.mnemonic()) && no_mmx(i) => {
            if vector {
                Class::Vector
            } else {
                Class::Interpret
            }
        }
        _ => Class::Interpret,
    };
    match class {
        // Offsets from the page's start are written down in 32 bits.
        Class::Branch | Class::Jump | Class::Call
            if i32::try_from(i.near_branch64() as i64).is_err() =>
        {
            Class::Interpret
        }
        Class::Nothing | Class::HighByte => class,
        Class::Same if has_high_byte(i) => Class::High,
        _ if has_high_byte(i) => Class::Interpret,
        _ => class,
    }
}

fn push_or_pop(i: &Instruction, class: Class) -> Class {
    use Code as C;
    match i.code() {
        C::Push_r64 | C::Push_rm64 | C::Pushq_imm32 | C::Pushq_imm8 | C::Pop_r64 => class,
        C::Pop_rm64 if i.op0_kind() == OpKind::Register => class,
        _ => Class::Interpret,
    }
}

fn is_byte(i: &Instruction) -> bool {
    match i.op0_kind() {
        OpKind::Memory => i.memory_size().size() < 4,
        _ => i.op0_register().size() < 4,
    }
}

fn has_high_byte(i: &Instruction) -> bool {
    (0..i.op_count()).any(|n| {
        i.op_kind(n) == OpKind::Register
            && matches!(i.op_register(n), Register::AH | Register::CH | Register::DH | Register::BH)
    })
}

/// Whether no operand is an MMX register or a string (two instructions are called MOVSD).
fn no_mmx(i: &Instruction) -> bool {
    (0..i.op_count()).all(|n| match i.op_kind(n) {
        OpKind::Register => !i.op_register(n).is_mm(),
        OpKind::Memory | OpKind::Immediate8 => true,
        _ => false,
    })
}

/// An instruction of [`is_plain`]'s: some forms are not for us.
fn plain(i: &Instruction) -> Class {
    use Mnemonic as M;
    if matches!(i.mnemonic(), M::Movzx | M::Movsx) && has_high_byte(i) {
        return Class::HighByte;
    }
    let odd = (0..i.op_count()).any(|n| match i.op_kind(n) {
        OpKind::Register => {
            let r = i.op_register(n);
            !(r.is_gpr() || r.is_xmm())
        }
        OpKind::Memory
        | OpKind::Immediate8
        | OpKind::Immediate16
        | OpKind::Immediate32
        | OpKind::Immediate64
        | OpKind::Immediate8to16
        | OpKind::Immediate8to32
        | OpKind::Immediate8to64
        | OpKind::Immediate32to64 => false,
        _ => true,
    });
    if odd {
        return Class::Interpret;
    }
    let memory = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory);
    // The bit's number moves the operand.
    if matches!(i.mnemonic(), M::Bt | M::Bts | M::Btr | M::Btc)
        && memory
        && i.op1_kind() == OpKind::Register
    {
        return Class::Interpret;
    }
    // An absolute address of 64 bits.
    if memory
        && i.memory_displ_size() == 8
        && i.memory_base() == Register::None
        && i.memory_index() == Register::None
        && i32::try_from(i.memory_displacement64() as i64).is_err()
    {
        return Class::Interpret;
    }
    // Count, address and two more registers do not fit.
    if counts_in_cl(i.code()) && matches!(i.mnemonic(), M::Shld | M::Shrd) && memory {
        return Class::Interpret;
    }
    Class::Same
}

fn is_plain(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Mov
            | M::Movzx
            | M::Movsx
            | M::Movsxd
            | M::Movnti
            | M::Add
            | M::Adc
            | M::Sub
            | M::Sbb
            | M::And
            | M::Or
            | M::Xor
            | M::Cmp
            | M::Test
            | M::Inc
            | M::Dec
            | M::Neg
            | M::Not
            | M::Imul
            | M::Bswap
            | M::Shl
            | M::Sal
            | M::Shr
            | M::Sar
            | M::Rol
            | M::Ror
            | M::Rcl
            | M::Rcr
            | M::Shld
            | M::Shrd
            | M::Bt
            | M::Bts
            | M::Btr
            | M::Btc
            | M::Bsf
            | M::Bsr
            | M::Tzcnt
            | M::Lzcnt
            | M::Popcnt
            | M::Crc32
            | M::Xchg
            | M::Xadd
            | M::Stc
            | M::Clc
            | M::Cmc
    ) || is_setcc(mnemonic)
        || is_cmovcc(mnemonic)
}

/// Instructions on XMM registers of `riad-v1` that name all their operands.
fn is_vector(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Movaps
            | M::Movapd
            | M::Movups
            | M::Movupd
            | M::Movdqa
            | M::Movdqu
            | M::Movss
            | M::Movsd
            | M::Movd
            | M::Movq
            | M::Movlps
            | M::Movlpd
            | M::Movhps
            | M::Movhpd
            | M::Movhlps
            | M::Movlhps
            | M::Movmskps
            | M::Movmskpd
            | M::Movntps
            | M::Movntpd
            | M::Movntdq
            | M::Movntdqa
            | M::Lddqu
            | M::Movddup
            | M::Movsldup
            | M::Movshdup
            | M::Addps
            | M::Addpd
            | M::Addss
            | M::Addsd
            | M::Subps
            | M::Subpd
            | M::Subss
            | M::Subsd
            | M::Mulps
            | M::Mulpd
            | M::Mulss
            | M::Mulsd
            | M::Divps
            | M::Divpd
            | M::Divss
            | M::Divsd
            | M::Minps
            | M::Minpd
            | M::Minss
            | M::Minsd
            | M::Maxps
            | M::Maxpd
            | M::Maxss
            | M::Maxsd
            | M::Sqrtps
            | M::Sqrtpd
            | M::Sqrtss
            | M::Sqrtsd
            | M::Andps
            | M::Andpd
            | M::Andnps
            | M::Andnpd
            | M::Orps
            | M::Orpd
            | M::Xorps
            | M::Xorpd
            | M::Cmpps
            | M::Cmppd
            | M::Cmpss
            | M::Cmpsd
            | M::Comiss
            | M::Comisd
            | M::Ucomiss
            | M::Ucomisd
            | M::Haddps
            | M::Haddpd
            | M::Hsubps
            | M::Hsubpd
            | M::Addsubps
            | M::Addsubpd
            | M::Shufps
            | M::Shufpd
            | M::Unpcklps
            | M::Unpcklpd
            | M::Unpckhps
            | M::Unpckhpd
            | M::Cvtsi2ss
            | M::Cvtsi2sd
            | M::Cvtss2si
            | M::Cvtsd2si
            | M::Cvttss2si
            | M::Cvttsd2si
            | M::Cvtss2sd
            | M::Cvtsd2ss
            | M::Cvtps2pd
            | M::Cvtpd2ps
            | M::Cvtdq2ps
            | M::Cvtdq2pd
            | M::Cvtps2dq
            | M::Cvtpd2dq
            | M::Cvttps2dq
            | M::Cvttpd2dq
            | M::Paddb
            | M::Paddw
            | M::Paddd
            | M::Paddq
            | M::Psubb
            | M::Psubw
            | M::Psubd
            | M::Psubq
            | M::Paddsb
            | M::Paddsw
            | M::Paddusb
            | M::Paddusw
            | M::Psubsb
            | M::Psubsw
            | M::Psubusb
            | M::Psubusw
            | M::Pmullw
            | M::Pmulhw
            | M::Pmulhuw
            | M::Pmuludq
            | M::Pmaddwd
            | M::Pavgb
            | M::Pavgw
            | M::Pminub
            | M::Pminsw
            | M::Pmaxub
            | M::Pmaxsw
            | M::Psadbw
            | M::Pand
            | M::Pandn
            | M::Por
            | M::Pxor
            | M::Pcmpeqb
            | M::Pcmpeqw
            | M::Pcmpeqd
            | M::Pcmpgtb
            | M::Pcmpgtw
            | M::Pcmpgtd
            | M::Psllw
            | M::Pslld
            | M::Psllq
            | M::Pslldq
            | M::Psrlw
            | M::Psrld
            | M::Psrlq
            | M::Psrldq
            | M::Psraw
            | M::Psrad
            | M::Punpcklbw
            | M::Punpcklwd
            | M::Punpckldq
            | M::Punpcklqdq
            | M::Punpckhbw
            | M::Punpckhwd
            | M::Punpckhdq
            | M::Punpckhqdq
            | M::Packsswb
            | M::Packssdw
            | M::Packuswb
            | M::Pshufd
            | M::Pshufhw
            | M::Pshuflw
            | M::Pmovmskb
            | M::Pinsrw
            | M::Pextrw
            | M::Pshufb
            | M::Phaddw
            | M::Phaddd
            | M::Phaddsw
            | M::Phsubw
            | M::Phsubd
            | M::Phsubsw
            | M::Pmaddubsw
            | M::Pmulhrsw
            | M::Psignb
            | M::Psignw
            | M::Psignd
            | M::Palignr
            | M::Pabsb
            | M::Pabsw
            | M::Pabsd
            | M::Pmulld
            | M::Pmuldq
            | M::Dpps
            | M::Dppd
            | M::Blendps
            | M::Blendpd
            | M::Pblendw
            | M::Blendvps
            | M::Blendvpd
            | M::Pblendvb
            | M::Pminsb
            | M::Pminuw
            | M::Pminud
            | M::Pminsd
            | M::Pmaxsb
            | M::Pmaxuw
            | M::Pmaxud
            | M::Pmaxsd
            | M::Roundps
            | M::Roundpd
            | M::Roundss
            | M::Roundsd
            | M::Insertps
            | M::Pinsrb
            | M::Pinsrd
            | M::Pinsrq
            | M::Extractps
            | M::Pextrb
            | M::Pextrd
            | M::Pextrq
            | M::Pmovsxbw
            | M::Pmovsxbd
            | M::Pmovsxbq
            | M::Pmovsxwd
            | M::Pmovsxwq
            | M::Pmovsxdq
            | M::Pmovzxbw
            | M::Pmovzxbd
            | M::Pmovzxbq
            | M::Pmovzxwd
            | M::Pmovzxwq
            | M::Pmovzxdq
            | M::Mpsadbw
            | M::Phminposuw
            | M::Ptest
            | M::Pcmpeqq
            | M::Packusdw
            | M::Pcmpgtq
    )
}

/// Of an instruction that means RAX or a part of it, the form that names its registers; of one that
/// only processors with BMI have, what the others run.
pub(crate) fn general_form(code: Code) -> Code {
    use Code as C;
    match code {
        C::Add_AL_imm8 => C::Add_rm8_imm8,
        C::Add_AX_imm16 => C::Add_rm16_imm16,
        C::Add_EAX_imm32 => C::Add_rm32_imm32,
        C::Add_RAX_imm32 => C::Add_rm64_imm32,
        C::Or_AL_imm8 => C::Or_rm8_imm8,
        C::Or_AX_imm16 => C::Or_rm16_imm16,
        C::Or_EAX_imm32 => C::Or_rm32_imm32,
        C::Or_RAX_imm32 => C::Or_rm64_imm32,
        C::Adc_AL_imm8 => C::Adc_rm8_imm8,
        C::Adc_AX_imm16 => C::Adc_rm16_imm16,
        C::Adc_EAX_imm32 => C::Adc_rm32_imm32,
        C::Adc_RAX_imm32 => C::Adc_rm64_imm32,
        C::Sbb_AL_imm8 => C::Sbb_rm8_imm8,
        C::Sbb_AX_imm16 => C::Sbb_rm16_imm16,
        C::Sbb_EAX_imm32 => C::Sbb_rm32_imm32,
        C::Sbb_RAX_imm32 => C::Sbb_rm64_imm32,
        C::And_AL_imm8 => C::And_rm8_imm8,
        C::And_AX_imm16 => C::And_rm16_imm16,
        C::And_EAX_imm32 => C::And_rm32_imm32,
        C::And_RAX_imm32 => C::And_rm64_imm32,
        C::Sub_AL_imm8 => C::Sub_rm8_imm8,
        C::Sub_AX_imm16 => C::Sub_rm16_imm16,
        C::Sub_EAX_imm32 => C::Sub_rm32_imm32,
        C::Sub_RAX_imm32 => C::Sub_rm64_imm32,
        C::Xor_AL_imm8 => C::Xor_rm8_imm8,
        C::Xor_AX_imm16 => C::Xor_rm16_imm16,
        C::Xor_EAX_imm32 => C::Xor_rm32_imm32,
        C::Xor_RAX_imm32 => C::Xor_rm64_imm32,
        C::Cmp_AL_imm8 => C::Cmp_rm8_imm8,
        C::Cmp_AX_imm16 => C::Cmp_rm16_imm16,
        C::Cmp_EAX_imm32 => C::Cmp_rm32_imm32,
        C::Cmp_RAX_imm32 => C::Cmp_rm64_imm32,
        C::Test_AL_imm8 => C::Test_rm8_imm8,
        C::Test_AX_imm16 => C::Test_rm16_imm16,
        C::Test_EAX_imm32 => C::Test_rm32_imm32,
        C::Test_RAX_imm32 => C::Test_rm64_imm32,
        C::Xchg_r16_AX => C::Xchg_rm16_r16,
        C::Xchg_r32_EAX => C::Xchg_rm32_r32,
        C::Xchg_r64_RAX => C::Xchg_rm64_r64,
        C::Mov_AL_moffs8 => C::Mov_r8_rm8,
        C::Mov_AX_moffs16 => C::Mov_r16_rm16,
        C::Mov_EAX_moffs32 => C::Mov_r32_rm32,
        C::Mov_RAX_moffs64 => C::Mov_r64_rm64,
        C::Mov_moffs8_AL => C::Mov_rm8_r8,
        C::Mov_moffs16_AX => C::Mov_rm16_r16,
        C::Mov_moffs32_EAX => C::Mov_rm32_r32,
        C::Mov_moffs64_RAX => C::Mov_rm64_r64,
        C::Tzcnt_r16_rm16 => C::Bsf_r16_rm16,
        C::Tzcnt_r32_rm32 => C::Bsf_r32_rm32,
        C::Tzcnt_r64_rm64 => C::Bsf_r64_rm64,
        C::Lzcnt_r16_rm16 => C::Bsr_r16_rm16,
        C::Lzcnt_r32_rm32 => C::Bsr_r32_rm32,
        C::Lzcnt_r64_rm64 => C::Bsr_r64_rm64,
        _ => code,
    }
}
