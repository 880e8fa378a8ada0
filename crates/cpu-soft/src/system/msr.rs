//! RDMSR and WRMSR (Intel SDM 4). A register that does not exist raises #GP and leaves a log line.

use riad_cpu::x86::lapic::Refused;
use riad_cpu::x86::{model, msr};

use crate::cpu::Cpu;
use crate::fault::{Done, Fault};
use crate::op::{Op, gpr};

/// RDMSR.
pub(super) fn rdmsr(cpu: &mut Cpu, _op: &Op) -> Done {
    if cpu.cpl != 0 {
        return Err(Fault::GP0);
    }
    let number = cpu.regs[gpr::RCX] as u32;
    let value = read(cpu, number).map_err(|fault| cpu.or_elsewhere(fault))?;
    cpu.set_edx_eax(value);
    Ok(())
}

/// WRMSR.
pub(super) fn wrmsr(cpu: &mut Cpu, _op: &Op) -> Done {
    if cpu.cpl != 0 {
        return Err(Fault::GP0);
    }
    let number = cpu.regs[gpr::RCX] as u32;
    let value = cpu.edx_eax();
    write(cpu, number, value).map_err(|fault| cpu.or_elsewhere(fault))
}

fn canonical(value: u64) -> Done<u64> {
    if Cpu::canonical(value) { Ok(value) } else { Err(Fault::GP0) }
}

/// Registers that tell of the processor itself.
fn is_of_the_model(number: u32) -> bool {
    matches!(
        number,
        msr::FEATURE_CONTROL
            | msr::PLATFORM_ID
            | msr::MCG_CAP
            | msr::MCG_STATUS
            | msr::SPEC_CTRL
            | msr::PLATFORM_INFO
            | msr::ARCH_CAPABILITIES
    )
}

fn read(cpu: &mut Cpu, number: u32) -> Done<u64> {
    if is_of_the_model(number) {
        cpu.own_apic()?;
    }
    let m = &cpu.msrs;
    Ok(match number {
        msr::TSC => cpu.tsc(),
        // Locked, with nothing enabled.
        msr::FEATURE_CONTROL => 1,
        msr::PLATFORM_ID | msr::MCG_CAP | msr::MCG_STATUS => 0,
        msr::APIC_BASE => cpu.local.apic().base(),
        msr::TSC_ADJUST => m.tsc_adjust,
        msr::SPEC_CTRL => 0,
        msr::MICROCODE_REVISION => m.microcode_revision,
        msr::PLATFORM_INFO => u64::from(cpu.tsc_khz / 100_000) << 8,
        msr::MTRRCAP => msr::MTRRCAP_VALUE,
        msr::ARCH_CAPABILITIES => msr::ARCH_CAPABILITIES_VALUE,
        msr::SYSENTER_CS => m.sysenter_cs,
        msr::SYSENTER_ESP => m.sysenter_esp,
        msr::SYSENTER_EIP => m.sysenter_eip,
        msr::MISC_ENABLE => m.misc_enable,
        msr::DEBUGCTL => m.debugctl,
        msr::MTRR_PHYSBASE0..=msr::MTRR_PHYSMASK7 => {
            m.mtrr_variable[(number - msr::MTRR_PHYSBASE0) as usize]
        }
        msr::PAT => m.pat,
        msr::MTRR_DEF_TYPE => m.mtrr_def_type,
        msr::TSC_DEADLINE => {
            cpu.own_apic()?;
            cpu.local.apic().tsc_deadline()
        }
        msr::X2APIC_FIRST..=msr::X2APIC_LAST => {
            cpu.own_apic()?;
            let now = cpu.clock.now();
            let apic = cpu.local.apic();
            if !apic.x2apic() {
                return Err(Fault::GP0);
            }
            apic.msr_read(number - msr::X2APIC_FIRST, now).map_err(|Refused| Fault::GP0)?
        }
        msr::EFER => cpu.control.efer,
        msr::STAR => m.star,
        msr::LSTAR => m.lstar,
        msr::CSTAR => m.cstar,
        msr::SFMASK => m.sfmask,
        msr::FS_BASE => cpu.segs[4].base,
        msr::GS_BASE => cpu.segs[5].base,
        msr::KERNEL_GS_BASE => m.kernel_gs_base,
        msr::TSC_AUX => m.tsc_aux,
        _ => match fixed_mtrr(number) {
            Some(index) => m.mtrr_fixed[index],
            None => {
                tracing::debug!(
                    msr = format_args!("{number:#x}"),
                    rip = format_args!("{:#x}", cpu.this_rip),
                    "read of an unknown MSR"
                );
                return Err(Fault::GP0);
            }
        },
    })
}

/// Index among the fixed-range MTRRs.
fn fixed_mtrr(number: u32) -> Option<usize> {
    match number {
        msr::MTRR_FIX64K_00000 => Some(0),
        msr::MTRR_FIX16K_80000 => Some(1),
        msr::MTRR_FIX16K_A0000 => Some(2),
        msr::MTRR_FIX4K_C0000..=msr::MTRR_FIX4K_F8000 => {
            Some(3 + (number - msr::MTRR_FIX4K_C0000) as usize)
        }
        _ => None,
    }
}

/// Whether a memory type exists (SDM 3A, table 12-8).
fn memory_type(value: u8) -> bool {
    matches!(value, 0 | 1 | 4 | 5 | 6)
}

/// Whether each byte of a memory-type register is a type that exists.
fn memory_types(value: u64) -> bool {
    value.to_le_bytes().into_iter().all(memory_type)
}

fn write(cpu: &mut Cpu, number: u32, value: u64) -> Done {
    match number {
        msr::TSC => {
            cpu.own_apic()?;
            let before = cpu.tsc();
            cpu.set_tsc(value);
            cpu.msrs.tsc_adjust = cpu.msrs.tsc_adjust.wrapping_add(value.wrapping_sub(before));
        }
        msr::APIC_BASE => {
            cpu.own_apic()?;
            cpu.local.apic().set_base(value).map_err(|Refused| Fault::GP0)?;
            cpu.tlb.flush_all();
            cpu.left = 0;
        }
        msr::TSC_ADJUST => {
            cpu.own_apic()?;
            let by = value.wrapping_sub(cpu.msrs.tsc_adjust);
            cpu.tsc_offset = cpu.tsc_offset.wrapping_add(by);
            cpu.msrs.tsc_adjust = value;
        }
        // Not advertised, but harmless where a kernel writes them regardless.
        msr::MICROCODE_UPDATE | msr::MCG_STATUS => {}
        msr::MICROCODE_REVISION => {}
        msr::SYSENTER_CS => cpu.msrs.sysenter_cs = value & 0xffff,
        msr::SYSENTER_ESP => cpu.msrs.sysenter_esp = canonical(value)?,
        msr::SYSENTER_EIP => cpu.msrs.sysenter_eip = canonical(value)?,
        msr::MISC_ENABLE => cpu.msrs.misc_enable = value,
        msr::DEBUGCTL => {
            if value & !3 != 0 {
                return Err(Fault::GP0);
            }
            cpu.msrs.debugctl = value;
        }
        msr::MTRR_PHYSBASE0..=msr::MTRR_PHYSMASK7 => {
            const BEYOND: u64 = !((1 << model::PHYSICAL_BITS) - 1);
            let base = number & 1 == 0;
            let reserved = BEYOND | if base { 0xf00 } else { 0x7ff };
            if value & reserved != 0 || (base && !memory_type(value as u8)) {
                return Err(Fault::GP0);
            }
            cpu.msrs.mtrr_variable[(number - msr::MTRR_PHYSBASE0) as usize] = value;
        }
        msr::PAT => {
            if !value.to_le_bytes().iter().all(|t| matches!(t, 0 | 1 | 4 | 5 | 6 | 7)) {
                return Err(Fault::GP0);
            }
            cpu.msrs.pat = value;
        }
        msr::MTRR_DEF_TYPE => {
            if value & !0xcff != 0 || !memory_type(value as u8) {
                return Err(Fault::GP0);
            }
            cpu.msrs.mtrr_def_type = value;
        }
        msr::TSC_DEADLINE => {
            cpu.own_apic()?;
            cpu.local.apic().set_tsc_deadline(value);
            cpu.timer_touched = true;
            cpu.left = 0;
        }
        msr::X2APIC_FIRST..=msr::X2APIC_LAST => {
            cpu.own_apic()?;
            let now = cpu.clock.now();
            let effect = {
                let mut apic = cpu.local.apic();
                if !apic.x2apic() {
                    return Err(Fault::GP0);
                }
                apic.msr_write(number - msr::X2APIC_FIRST, value, now)
                    .map_err(|Refused| Fault::GP0)?
            };
            cpu.apic_effect(effect);
        }
        msr::EFER => cpu.write_efer(value)?,
        msr::STAR => cpu.msrs.star = value,
        msr::LSTAR => cpu.msrs.lstar = canonical(value)?,
        msr::CSTAR => cpu.msrs.cstar = canonical(value)?,
        msr::SFMASK => cpu.msrs.sfmask = value & 0xffff_ffff,
        msr::FS_BASE => cpu.segs[4].base = canonical(value)?,
        msr::GS_BASE => cpu.segs[5].base = canonical(value)?,
        msr::KERNEL_GS_BASE => cpu.msrs.kernel_gs_base = canonical(value)?,
        msr::TSC_AUX => {
            if value >> 32 != 0 {
                return Err(Fault::GP0);
            }
            cpu.msrs.tsc_aux = value;
        }
        _ => match fixed_mtrr(number) {
            Some(index) if memory_types(value) => cpu.msrs.mtrr_fixed[index] = value,
            _ => {
                tracing::debug!(
                    msr = format_args!("{number:#x}"),
                    value,
                    rip = format_args!("{:#x}", cpu.this_rip),
                    "refused write of an MSR"
                );
                return Err(Fault::GP0);
            }
        },
    }
    Ok(())
}
