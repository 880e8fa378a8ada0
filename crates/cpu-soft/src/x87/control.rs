//! Control instructions: the control and status words, the stack pointer, tags, waiting.
//!
//! Intel SDM volume 1, section 8.3.11. Those named FN... do not wait for pending exceptions.

use iced_x86::Code;
use riad_cpu::x86::cr0;

use super::stack::{BUSY, C1, STACK_FAULT, SUMMARY, Stack, initialize, set_control};
use super::{available, begin, note_pointers};
use crate::cpu::Cpu;
use crate::fault::{Done, Fault};
use crate::op::{Exec, Op, gpr};

pub(super) fn select(code: Code) -> Option<Exec> {
    use Code as C;
    Some(match code {
        C::Wait => wait,
        C::Fnop => nop,
        // What the 8087 and 287 needed is a no-operation since.
        C::Fneni | C::Feni | C::Fndisi | C::Fdisi | C::Fnsetpm | C::Fsetpm => quiet_nop,
        C::Fninit => init,
        C::Finit => |cpu, op| waiting(cpu, op, init),
        C::Fnclex => clear_exceptions,
        C::Fclex => |cpu, op| waiting(cpu, op, clear_exceptions),
        C::Fldcw_m2byte => load_control,
        C::Fnstcw_m2byte => store_control,
        C::Fstcw_m2byte => |cpu, op| waiting(cpu, op, store_control),
        C::Fnstsw_m2byte => store_status,
        C::Fstsw_m2byte => |cpu, op| waiting(cpu, op, store_status),
        C::Fnstsw_AX => status_to_ax,
        C::Fstsw_AX => |cpu, op| waiting(cpu, op, status_to_ax),
        C::Fincstp => |cpu, op| rotate(cpu, op, 1),
        C::Fdecstp => |cpu, op| rotate(cpu, op, -1),
        C::Ffree_sti => free::<false>,
        C::Ffreep_sti => free::<true>,
        _ => return None,
    })
}

/// The form of a control instruction that waits first.
pub(super) fn waiting(cpu: &mut Cpu, op: &Op, exec: Exec) -> Done {
    begin(cpu)?;
    exec(cpu, op)
}

/// WAIT: #NM needs both MP and TS here, and EM does not matter (SDM volume 3A, 2.5).
fn wait(cpu: &mut Cpu, _: &Op) -> Done {
    if cpu.control.cr0 & (cr0::MP | cr0::TS) == cr0::MP | cr0::TS {
        return Err(Fault::NM);
    }
    if cpu.fpu.fsw & SUMMARY != 0 {
        return Err(Fault::MF);
    }
    Ok(())
}

fn nop(cpu: &mut Cpu, op: &Op) -> Done {
    begin(cpu)?;
    note_pointers(cpu, op);
    Ok(())
}

fn quiet_nop(cpu: &mut Cpu, _: &Op) -> Done {
    available(cpu)
}

fn init(cpu: &mut Cpu, _: &Op) -> Done {
    available(cpu)?;
    initialize(&mut cpu.fpu);
    Ok(())
}

fn clear_exceptions(cpu: &mut Cpu, _: &Op) -> Done {
    available(cpu)?;
    cpu.fpu.fsw &= !(BUSY | SUMMARY | STACK_FAULT | 0x3f);
    Ok(())
}

fn load_control(cpu: &mut Cpu, op: &Op) -> Done {
    begin(cpu)?;
    let value = cpu.load(op)?;
    set_control(&mut cpu.fpu, value);
    Ok(())
}

fn store_control(cpu: &mut Cpu, op: &Op) -> Done {
    available(cpu)?;
    cpu.store(op, cpu.fpu.fcw)
}

fn store_status(cpu: &mut Cpu, op: &Op) -> Done {
    available(cpu)?;
    cpu.store(op, cpu.fpu.fsw)
}

fn status_to_ax(cpu: &mut Cpu, _: &Op) -> Done {
    available(cpu)?;
    cpu.set::<u16>(gpr::RAX as u8, cpu.fpu.fsw);
    Ok(())
}

fn rotate(cpu: &mut Cpu, op: &Op, by: i8) -> Done {
    begin(cpu)?;
    note_pointers(cpu, op);
    cpu.fpu.fsw &= !C1;
    cpu.fpu.rotate(by);
    Ok(())
}

fn free<const POP: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    begin(cpu)?;
    note_pointers(cpu, op);
    cpu.fpu.fsw &= !C1;
    cpu.fpu.free(op.reg[0]);
    if POP {
        cpu.fpu.pop();
    }
    Ok(())
}
