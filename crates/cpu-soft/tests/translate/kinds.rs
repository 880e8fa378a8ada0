//! Which instructions programs are made of.

use std::sync::LazyLock;

use iced_x86::{Code, Mnemonic};

use crate::select;

/// Every instruction that is no branch.
pub(crate) static ALL: LazyLock<Vec<Code>> = LazyLock::new(|| {
    use Mnemonic as M;
    let branches = |code: Code| {
        code.is_jcc_short_or_near()
            || matches!(
                code.mnemonic(),
                M::Jmp
                    | M::Call
                    | M::Ret
                    | M::Loop
                    | M::Loope
                    | M::Loopne
                    | M::Jcxz
                    | M::Jecxz
                    | M::Jrcxz
                    | M::Ud0
                    | M::Ud1
                    | M::Ud2
            )
    };
    select::codes().filter(|&code| !branches(code)).collect()
});

/// What compilers make most of.
pub(crate) static COMMON: LazyLock<Vec<Code>> = LazyLock::new(|| {
    let common = |mnemonic: Mnemonic| {
        use Mnemonic as M;
        matches!(
            mnemonic,
            M::Mov
                | M::Movzx
                | M::Movsx
                | M::Movsxd
                | M::Lea
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
                | M::Shl
                | M::Shr
                | M::Sar
                | M::Rol
                | M::Ror
                | M::Rcl
                | M::Rcr
                | M::Shld
                | M::Shrd
                | M::Imul
                | M::Mul
                | M::Bt
                | M::Bts
                | M::Btr
                | M::Btc
                | M::Bsf
                | M::Bsr
                | M::Bswap
                | M::Popcnt
                | M::Xchg
                | M::Cmpxchg
                | M::Xadd
                | M::Push
                | M::Pop
                | M::Cbw
                | M::Cwde
                | M::Cdqe
                | M::Cwd
                | M::Cdq
                | M::Cqo
                | M::Lahf
                | M::Sahf
                | M::Cmc
                | M::Clc
                | M::Stc
                | M::Sete
                | M::Setne
                | M::Setb
                | M::Setae
                | M::Setl
                | M::Setp
                | M::Seto
                | M::Sets
                | M::Setbe
                | M::Setg
                | M::Cmove
                | M::Cmovne
                | M::Cmovb
                | M::Cmovl
                | M::Cmovp
                | M::Cmova
                | M::Cmovs
                | M::Cmovo
                | M::Movaps
                | M::Movups
                | M::Movdqa
                | M::Movdqu
                | M::Movq
                | M::Movd
                | M::Pxor
                | M::Movss
                | M::Movsd
                | M::Addsd
                | M::Mulsd
                | M::Cvtsi2sd
                | M::Cvttsd2si
                | M::Ucomisd
                | M::Pcmpeqb
                | M::Pmovmskb
                | M::Movntdq
                | M::Movnti
                | M::Cmpxchg16b
                | M::Cmpxchg8b
        )
    };
    ALL.iter().copied().filter(|code| common(code.mnemonic())).collect()
});
