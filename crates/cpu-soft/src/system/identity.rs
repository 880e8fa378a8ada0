//! CPUID, time stamps and random numbers (Intel SDM 2A and 2B).

use riad_cpu::x86::{cr4, model, rflags};

use crate::cpu::Cpu;
use crate::fault::{Done, Fault};
use crate::op::{Op, gpr};

/// CPUID.
pub(super) fn cpuid(cpu: &mut Cpu, _op: &Op) -> Done {
    cpu.own_apic()?;
    let (leaf, subleaf) = (cpu.regs[gpr::RAX] as u32, cpu.regs[gpr::RCX] as u32);
    let [a, b, c, d] = model::cpuid(leaf, subleaf, &cpu.cpuid_context());
    cpu.regs[gpr::RAX] = u64::from(a);
    cpu.regs[gpr::RBX] = u64::from(b);
    cpu.regs[gpr::RCX] = u64::from(c);
    cpu.regs[gpr::RDX] = u64::from(d);
    Ok(())
}

fn time_stamp_allowed(cpu: &Cpu) -> Done {
    if cpu.cpl > 0 && cpu.control.cr4 & cr4::TSD != 0 { Err(Fault::GP0) } else { Ok(()) }
}

/// RDTSC.
pub(super) fn rdtsc(cpu: &mut Cpu, _op: &Op) -> Done {
    time_stamp_allowed(cpu)?;
    let tsc = cpu.tsc();
    cpu.set_edx_eax(tsc);
    Ok(())
}

/// RDTSCP.
pub(super) fn rdtscp(cpu: &mut Cpu, _op: &Op) -> Done {
    time_stamp_allowed(cpu)?;
    let tsc = cpu.tsc();
    cpu.set_edx_eax(tsc);
    cpu.regs[gpr::RCX] = cpu.msrs.tsc_aux & 0xffff_ffff;
    Ok(())
}

/// RDPMC: there are no performance counters.
pub(super) fn rdpmc(_cpu: &mut Cpu, _op: &Op) -> Done {
    Err(Fault::GP0)
}

/// RDRAND and RDSEED: from the host's generator.
pub(super) fn random(cpu: &mut Cpu, op: &Op) -> Done {
    let mut bytes = [0; 8];
    let given = crate::sys::entropy::fill(&mut bytes);
    let value = if given { u64::from_le_bytes(bytes) } else { 0 };
    match op.size {
        2 => cpu.set::<u16>(op.reg[0], value as u16),
        4 => cpu.set::<u32>(op.reg[0], value as u32),
        _ => cpu.set::<u64>(op.reg[0], value),
    }
    cpu.flags.set_status(if given { rflags::CF } else { 0 });
    Ok(())
}
