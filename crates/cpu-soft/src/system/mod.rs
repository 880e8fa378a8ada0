//! System instructions: everything about modes, privilege, tables, interrupts and identity.

mod calls;
mod control;
mod exception;
mod far;
mod identity;
mod io;
mod msr;
mod segments;

use std::sync::atomic::{AtomicU32, Ordering};

use iced_x86::{Code, Instruction, Mnemonic};

use crate::cpu::{Cpu, Mode};
use crate::fault::{Done, Fault};
use crate::op::{Exec, Op, seg};

/// Undefined instructions that get a log line before the log falls silent.
const REPORTS: u32 = 20;

/// One log line for an instruction this processor does not have.
#[cold]
pub(crate) fn report_undefined(cpu: &Cpu, op: &Op) {
    static REPORTED: AtomicU32 = AtomicU32::new(0);
    if REPORTED.fetch_add(1, Ordering::Relaxed) < REPORTS {
        tracing::warn!(
            code = ?op.code,
            rip = format_args!("{:#x}", cpu.this_rip),
            cpl = cpu.cpl,
            "the guest ran an instruction riad-v1 does not have; it gets #UD"
        );
    }
}

/// UMIP: SGDT, SIDT, SLDT, STR and SMSW only at CPL 0 (SDM 3A, 2.5).
fn user_mode_prevention(cpu: &Cpu) -> Done {
    let on = cpu.control.cr4 & riad_cpu::x86::cr4::UMIP != 0;
    if on && cpu.cpl > 0 && cpu.protected() { Err(Fault::GP0) } else { Ok(()) }
}

/// Picks the handler of a system instruction.
pub fn select(i: &Instruction, op: &mut Op, mode: Mode) -> Option<Exec> {
    use Mnemonic as M;
    let mut with = |imm: u64, exec: Exec| -> Exec {
        op.imm = imm;
        exec
    };
    let exec: Exec = match i.mnemonic() {
        M::Mov => return select_mov(i, op),
        M::Push | M::Pop => return select_stack(i, op, mode),
        M::Lds => return far_pointer(op, seg::DS),
        M::Les => return far_pointer(op, seg::ES),
        M::Lfs => return far_pointer(op, seg::FS),
        M::Lgs => return far_pointer(op, seg::GS),
        M::Lss => return far_pointer(op, seg::SS),
        M::Lgdt | M::Lidt => {
            op.reg[2] = match i.code() {
                Code::Lgdt_m1632_16 | Code::Lidt_m1632_16 => 2,
                _ => 4,
            };
            op.imm = u64::from(i.mnemonic() == M::Lidt);
            segments::load_table
        }
        M::Sgdt => with(0, segments::store_table),
        M::Sidt => with(1, segments::store_table),
        M::Lldt => with(0, segments::load_system_segment),
        M::Ltr => with(1, segments::load_system_segment),
        M::Sldt => with(0, segments::store_system_segment),
        M::Str => with(1, segments::store_system_segment),
        M::Lar | M::Lsl => {
            op.reg[2] = i.op_register(0).size() as u8;
            op.imm = u64::from(i.mnemonic() == M::Lsl);
            segments::load_rights_or_limit
        }
        M::Verr => with(0, segments::verify),
        M::Verw => with(1, segments::verify),
        M::Arpl => segments::adjust_rpl,
        M::Int => exception::int_n,
        M::Int3 => exception::int3,
        M::Int1 => exception::int1,
        M::Into => exception::into,
        M::Iret | M::Iretd | M::Iretq => {
            op.size = match i.mnemonic() {
                M::Iret => 2,
                M::Iretd => 4,
                _ => 8,
            };
            exception::iret
        }
        M::Pushf | M::Pushfd | M::Pushfq => {
            op.size = match i.mnemonic() {
                M::Pushf => 2,
                M::Pushfd => 4,
                _ => 8,
            };
            exception::pushf
        }
        M::Popf | M::Popfd | M::Popfq => {
            op.size = match i.mnemonic() {
                M::Popf => 2,
                M::Popfd => 4,
                _ => 8,
            };
            exception::popf
        }
        M::Cli => exception::cli,
        M::Sti => exception::sti,
        M::Jmp if i.is_jmp_far() || i.is_jmp_far_indirect() => far::jump,
        M::Call if i.is_call_far() || i.is_call_far_indirect() => far::call,
        M::Retf => {
            op.size = match i.code() {
                Code::Retfw | Code::Retfw_imm16 => 2,
                Code::Retfd | Code::Retfd_imm16 => 4,
                _ => 8,
            };
            far::ret
        }
        M::Clts => control::clts,
        M::Lmsw => control::lmsw,
        M::Smsw => control::smsw,
        M::Invlpg => control::invlpg,
        M::Invpcid => control::invpcid,
        M::Invd | M::Wbinvd | M::Wbnoinvd => control::supervisor_nop,
        M::Hlt => control::hlt,
        M::Clac => with(0, control::access_override),
        M::Stac => with(1, control::access_override),
        M::Rdmsr => msr::rdmsr,
        M::Wrmsr => msr::wrmsr,
        M::In | M::Out => {
            let (register, immediate) = if i.mnemonic() == M::In { (0, 1) } else { (1, 0) };
            op.size = i.op_register(register).size() as u8;
            op.reg[2] = u8::from(i.op_kind(immediate) == iced_x86::OpKind::Immediate8);
            if i.mnemonic() == M::In { io::port_in } else { io::port_out }
        }
        M::Insb | M::Insw | M::Insd if !is_sse(i) => with(0, io::string),
        M::Outsb | M::Outsw | M::Outsd => with(1, io::string),
        M::Syscall => calls::syscall,
        M::Sysret | M::Sysretq => {
            op.size = if i.code() == Code::Sysretq { 8 } else { 4 };
            calls::sysret
        }
        M::Sysenter => calls::sysenter,
        M::Sysexit | M::Sysexitq => {
            op.size = if i.code() == Code::Sysexitq { 8 } else { 4 };
            calls::sysexit
        }
        M::Swapgs => calls::swapgs,
        M::Rdfsbase => with(u64::from(seg::FS), calls::read_base),
        M::Rdgsbase => with(u64::from(seg::GS), calls::read_base),
        M::Wrfsbase => with(u64::from(seg::FS), calls::write_base),
        M::Wrgsbase => with(u64::from(seg::GS), calls::write_base),
        M::Cpuid => identity::cpuid,
        M::Rdtsc => identity::rdtsc,
        M::Rdtscp => identity::rdtscp,
        M::Rdpmc => identity::rdpmc,
        M::Rdrand | M::Rdseed => identity::random,
        _ => return None,
    };
    Some(exec)
}

/// INSD and its SSE namesakes share no mnemonic, but be sure.
fn is_sse(i: &Instruction) -> bool {
    i.op_count() > 0 && i.op_kind(0) == iced_x86::OpKind::Register && i.op_register(0).is_xmm()
}

fn far_pointer(op: &mut Op, s: u8) -> Option<Exec> {
    op.reg[2] = s;
    Some(segments::load_far_pointer)
}

fn select_mov(i: &Instruction, op: &mut Op) -> Option<Exec> {
    Some(match i.code() {
        Code::Mov_Sreg_rm16 | Code::Mov_Sreg_r32m16 | Code::Mov_Sreg_r64m16 => {
            segments::mov_to_segment
        }
        Code::Mov_rm16_Sreg | Code::Mov_r32m16_Sreg | Code::Mov_r64m16_Sreg => {
            segments::mov_from_segment
        }
        Code::Mov_cr_r32 | Code::Mov_cr_r64 => control::mov_to_control,
        Code::Mov_r32_cr | Code::Mov_r64_cr => control::mov_from_control,
        Code::Mov_dr_r32 | Code::Mov_dr_r64 => control::mov_to_debug,
        Code::Mov_r32_dr | Code::Mov_r64_dr => control::mov_from_debug,
        _ => {
            let _ = op;
            return None;
        }
    })
}

fn select_stack(i: &Instruction, op: &mut Op, mode: Mode) -> Option<Exec> {
    if i.op_kind(0) != iced_x86::OpKind::Register || !i.op_register(0).is_segment_register() {
        return None;
    }
    let name = format!("{:?}", i.code());
    op.imm = match (mode, name.starts_with("Pushw") || name.starts_with("Popw")) {
        (_, true) => 2,
        (Mode::Long, _) => 8,
        _ => 4,
    };
    Some(if i.mnemonic() == Mnemonic::Push {
        segments::push_segment
    } else {
        segments::pop_segment
    })
}
