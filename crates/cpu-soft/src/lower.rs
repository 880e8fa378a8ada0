//! From `iced-x86`'s instruction to an [`Op`]: operands first, then the family's handler.

use iced_x86::{Code, CodeSize, CpuidFeature, Instruction, OpKind, Register};

use crate::cpu::{Cpu, Mode};
use crate::fault::{Done, Fault};
use crate::op::{Exec, HIGH, Op, RIP, ZERO, seg};
use crate::{int, mmx, sse, system, x87, xstate};

/// Makes an op of a decoded instruction. Instructions that do not exist here raise #UD.
#[must_use]
pub fn lower(instruction: &Instruction, mode: Mode) -> Op {
    let mut op = operands(instruction);
    op.exec = select(instruction, &mut op, mode).unwrap_or(undefined);
    op
}

/// Every family is asked in turn. A family returns `None` for what is not its own.
fn select(i: &Instruction, op: &mut Op, mode: Mode) -> Option<Exec> {
    if i.is_invalid() || !supported(i) {
        return Some(undefined);
    }
    int::select(i, op, mode)
        .or_else(|| sse::select(i, op))
        .or_else(|| x87::select(i, op, mode))
        .or_else(|| mmx::select(i, op))
        .or_else(|| xstate::select(i, op, mode))
        .or_else(|| system::select(i, op, mode))
}

/// Whether `riad-v1` has the instruction (CPUID tells guests the same).
fn supported(i: &Instruction) -> bool {
    use CpuidFeature as F;
    // Encodings that processors without the feature run as something else.
    if matches!(
        i.code(),
        Code::Tzcnt_r16_rm16
            | Code::Tzcnt_r32_rm32
            | Code::Tzcnt_r64_rm64
            | Code::Lzcnt_r16_rm16
            | Code::Lzcnt_r32_rm32
            | Code::Lzcnt_r64_rm64
            | Code::Endbr32
            | Code::Endbr64
            | Code::Rdsspd_r32
            | Code::Rdsspq_r64
    ) {
        return true;
    }
    i.cpuid_features().iter().all(|feature| {
        matches!(
            feature,
            F::INTEL8086
                | F::INTEL8086_ONLY
                | F::INTEL186
                | F::INTEL286
                | F::INTEL286_ONLY
                | F::INTEL386
                | F::INTEL386_ONLY
                | F::INTEL386_A0_ONLY
                | F::INTEL486
                | F::INTEL486_A_ONLY
                | F::X64
                | F::CLFSH
                | F::CMOV
                | F::CMPXCHG16B
                | F::CPUID
                | F::CX8
                | F::FPU
                | F::FPU287
                | F::FPU287XL_ONLY
                | F::FPU387
                | F::FPU387SL_ONLY
                | F::FSGSBASE
                | F::FXSR
                | F::INVPCID
                | F::MMX
                | F::MSR
                | F::MULTIBYTENOP
                | F::PAUSE
                | F::POPCNT
                | F::PREFETCHW
                | F::PREFETCHWT1
                | F::RDPMC
                | F::RDRAND
                | F::RDSEED
                | F::RDTSCP
                | F::SEP
                | F::SMAP
                | F::SSE
                | F::SSE2
                | F::SSE3
                | F::SSSE3
                | F::SSE4_1
                | F::SSE4_2
                | F::SYSCALL
                | F::TSC
                | F::WBNOINVD
                | F::CLDEMOTE
                | F::XSAVE
                | F::XSAVEOPT
        )
    })
}

/// #UD, with one log line the first times.
pub fn undefined(cpu: &mut Cpu, op: &Op) -> Done {
    system::report_undefined(cpu, op);
    Err(Fault::UD)
}

/// Fills in everything but the handler.
pub(crate) fn operands(i: &Instruction) -> Op {
    let mut op = Op { len: i.len() as u8, code: i.code(), ..Op::NONE };
    if i.has_lock_prefix() {
        op.prefix |= Op::LOCK;
    }
    if i.has_rep_prefix() {
        op.prefix |= Op::REP;
    }
    if i.has_repne_prefix() {
        op.prefix |= Op::REPNE;
    }
    for n in 0..i.op_count() {
        match i.op_kind(n) {
            OpKind::Register => {
                let register = i.op_register(n);
                if n < 3 {
                    op.reg[n as usize] = number(register);
                }
                if n == 0 {
                    op.size = register.size() as u8;
                }
            }
            OpKind::Memory => {
                memory_operand(i, &mut op);
                op.size = i.memory_size().size().min(255) as u8;
            }
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                op.imm = i.near_branch_target().wrapping_sub(i.next_ip());
            }
            OpKind::FarBranch16 => {
                op.imm = u64::from(i.far_branch16()) | u64::from(i.far_branch_selector()) << 32;
                op.size = 2;
            }
            OpKind::FarBranch32 => {
                op.imm = u64::from(i.far_branch32()) | u64::from(i.far_branch_selector()) << 32;
                op.size = 4;
            }
            OpKind::Immediate8_2nd => op.imm |= u64::from(i.immediate8_2nd()) << 32,
            OpKind::MemorySegSI
            | OpKind::MemorySegESI
            | OpKind::MemorySegRSI
            | OpKind::MemorySegDI
            | OpKind::MemorySegEDI
            | OpKind::MemorySegRDI
            | OpKind::MemoryESDI
            | OpKind::MemoryESEDI
            | OpKind::MemoryESRDI => {
                op.prefix |= Op::MEM;
                op.address = match i.op_kind(n) {
                    OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => 2,
                    OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => 4,
                    _ => 8,
                };
                op.seg = memory_segment(i);
                op.size = i.memory_size().size().min(255) as u8;
            }
            _ => op.imm = i.immediate(n),
        }
    }
    op
}

fn memory_operand(i: &Instruction, op: &mut Op) {
    op.prefix |= Op::MEM;
    op.seg = memory_segment(i);
    op.disp = i.memory_displacement64();
    op.address = match (i.memory_base(), i.memory_index()) {
        (Register::RIP, _) => 8,
        (Register::EIP, _) => 4,
        (Register::None, Register::None) => match i.memory_displ_size() {
            2 => 2,
            4 => 4,
            _ => 8,
        },
        (Register::None, index) => index.size() as u8,
        (base, _) => base.size() as u8,
    };
    op.base = match i.memory_base() {
        Register::None => ZERO,
        Register::RIP | Register::EIP => {
            // iced gives the target; keep the distance, which does not depend on where we are.
            op.disp = op.disp.wrapping_sub(i.next_ip());
            RIP
        }
        base => number(base),
    };
    op.index = if i.memory_index() == Register::None { ZERO } else { number(i.memory_index()) };
    op.scale = i.memory_index_scale().trailing_zeros() as u8;
}

/// The segment of a memory operand. 64-bit mode ignores prefixes other than FS and GS, also when it
/// decides between #GP and #SS (SDM 2A, 2.1.1).
fn memory_segment(i: &Instruction) -> u8 {
    if i.code_size() != CodeSize::Code64 {
        return segment(i.memory_segment());
    }
    match (i.segment_prefix(), i.memory_base()) {
        (Register::FS, _) => seg::FS,
        (Register::GS, _) => seg::GS,
        (_, Register::RSP | Register::RBP | Register::ESP | Register::EBP) => seg::SS,
        _ => seg::DS,
    }
}

/// The number of a register within its kind, as encoded; AH, CH, DH and BH carry [`HIGH`].
fn number(register: Register) -> u8 {
    match register {
        Register::AH => HIGH,
        Register::CH => HIGH | 1,
        Register::DH => HIGH | 2,
        Register::BH => HIGH | 3,
        _ if register.is_segment_register() => segment(register),
        // iced numbers SPL and what follows after the four high bytes.
        _ if register.is_gpr8() => register.full_register().number() as u8,
        _ => register.number() as u8,
    }
}

fn segment(register: Register) -> u8 {
    match register {
        Register::ES => seg::ES,
        Register::CS => seg::CS,
        Register::SS => seg::SS,
        Register::FS => seg::FS,
        Register::GS => seg::GS,
        _ => seg::DS,
    }
}
