//! NOP and everything that runs as one; prefetches; fences; CLFLUSH; UD0, UD1, UD2 (SDM 2).

use std::sync::atomic::{Ordering, compiler_fence, fence};

use iced_x86::{Instruction, Mnemonic};

use crate::cpu::Cpu;
use crate::fault::{Done, Fault};
use crate::op::{Exec, Op};

fn nop(_: &mut Cpu, _: &Op) -> Done {
    Ok(())
}

fn pause(_: &mut Cpu, _: &Op) -> Done {
    std::hint::spin_loop();
    Ok(())
}

/// Loads and stores already keep x86's order but for a store and a later load.
fn full_fence(_: &mut Cpu, _: &Op) -> Done {
    fence(Ordering::SeqCst);
    Ok(())
}

fn half_fence(_: &mut Cpu, _: &Op) -> Done {
    compiler_fence(Ordering::SeqCst);
    Ok(())
}

/// Faults as a load of the byte would; caches are coherent, so there is nothing to flush.
fn flush_line(cpu: &mut Cpu, op: &Op) -> Done {
    let address = cpu.linear(op, 1, false)?;
    cpu.bulk(op.seg, address, 1, false).map(drop)
}

/// The handler.
pub(super) fn select(i: &Instruction) -> Option<Exec> {
    use Mnemonic as M;
    Some(match i.mnemonic() {
        M::Nop
        | M::Reservednop
        | M::Endbr32
        | M::Endbr64
        | M::Rdsspd
        | M::Rdsspq
        | M::Cldemote
        | M::Prefetch
        | M::Prefetchw
        | M::Prefetchwt1
        | M::Prefetchnta
        | M::Prefetcht0
        | M::Prefetcht1
        | M::Prefetcht2 => nop,
        M::Pause => pause,
        M::Mfence => full_fence,
        M::Lfence | M::Sfence => half_fence,
        M::Clflush => flush_line,
        M::Ud0 | M::Ud1 | M::Ud2 => |_, _| Err(Fault::UD),
        _ => return None,
    })
}
