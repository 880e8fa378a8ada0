//! Which instructions are compared.

use iced_x86::{Code, CpuidFeature, MemorySize, Mnemonic};

/// Every instruction of 64-bit mode that the generator can make and the host can run as we do.
pub(crate) fn codes() -> impl Iterator<Item = Code> {
    Code::values().filter(|&code| eligible(code))
}

fn eligible(code: Code) -> bool {
    let info = code.op_code();
    info.mode64()
        && info.is_instruction()
        && !excluded(code)
        && code.cpuid_features().iter().all(|feature| level(*feature))
        && code != Code::INVALID
}

/// Features of x86-64-v2, as far as user mode sees them.
fn level(feature: CpuidFeature) -> bool {
    use CpuidFeature as F;
    matches!(
        feature,
        F::INTEL8086
            | F::INTEL186
            | F::INTEL286
            | F::INTEL386
            | F::INTEL486
            | F::X64
            | F::CLFSH
            | F::CMOV
            | F::CMPXCHG16B
            | F::CX8
            | F::FPU
            | F::FPU287
            | F::FPU387
            | F::MMX
            | F::MULTIBYTENOP
            | F::PAUSE
            | F::POPCNT
            | F::PREFETCHW
            | F::SSE
            | F::SSE2
            | F::SSE3
            | F::SSSE3
            | F::SSE4_1
            | F::SSE4_2
    )
}

/// Instructions whose effect is not a function of the state we set up, or that the kernel takes.
fn excluded(code: Code) -> bool {
    use Mnemonic as M;
    let info = code.op_code();
    if info.is_privileged() || is_far(info.memory_size()) {
        return true;
    }
    matches!(
        code.mnemonic(),
        // Interrupts, system calls and I/O go to the kernel.
        M::Int | M::Int1 | M::Int3 | M::Into | M::Syscall | M::Sysenter | M::Sysexit | M::Sysret
            | M::In | M::Out | M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd
            | M::Iret | M::Iretd | M::Iretq | M::Retf | M::Cli | M::Sti | M::Hlt
            // They show the host's own system state.
            | M::Sgdt | M::Sidt | M::Sldt | M::Smsw | M::Str | M::Lar | M::Lsl | M::Verr | M::Verw
            | M::Lds | M::Les | M::Lfs | M::Lgs | M::Lss | M::Pushf | M::Pushfq | M::Popf
            | M::Popfq | M::Cpuid | M::Rdtsc | M::Rdpmc | M::Xgetbv | M::Getsec
            // The test process lives on these.
            | M::Fxsave | M::Fxsave64 | M::Fxrstor | M::Fxrstor64
            | M::Monitor | M::Mwait
            // Undocumented aliases that encode as something else.
            | M::Fstdw | M::Fstsg | M::Rdsspd | M::Rdsspq
    ) || (0..info.op_count()).any(|n| is_special(code, n))
}

/// Whether the memory operand is a far pointer.
fn is_far(size: MemorySize) -> bool {
    matches!(size, MemorySize::SegPtr16 | MemorySize::SegPtr32 | MemorySize::SegPtr64)
}

/// Whether an operand is a segment, control or debug register.
fn is_special(code: Code, operand: u32) -> bool {
    use iced_x86::OpCodeOperandKind as K;
    matches!(
        code.op_code().op_kind(operand),
        K::seg_reg
            | K::cr_reg
            | K::dr_reg
            | K::tr_reg
            | K::es
            | K::cs
            | K::ss
            | K::ds
            | K::fs
            | K::gs
    )
}
