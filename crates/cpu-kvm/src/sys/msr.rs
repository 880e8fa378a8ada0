//! Model-specific registers, in the order in which they are set (KVM API 4.18, 4.19).

use kvm_bindings::{Msrs as List, kvm_msr_entry};
use kvm_ioctls::VcpuFd;
use riad_cpu::Error;
use riad_cpu::x86::{Msrs, msr};

/// The fixed-range MTRRs, in address order.
const FIXED: [u32; 11] = [
    msr::MTRR_FIX64K_00000,
    msr::MTRR_FIX16K_80000,
    msr::MTRR_FIX16K_A0000,
    msr::MTRR_FIX4K_C0000,
    0x269,
    0x26a,
    0x26b,
    0x26c,
    0x26d,
    0x26e,
    msr::MTRR_FIX4K_F8000,
];

/// The table's registers, and their values.
fn list(msrs: &Msrs) -> Vec<(u32, u64)> {
    let Msrs {
        star,
        lstar,
        cstar,
        sfmask,
        kernel_gs_base,
        tsc_aux,
        sysenter_cs,
        sysenter_esp,
        sysenter_eip,
        pat,
        misc_enable,
        mtrr_def_type,
        mtrr_variable,
        mtrr_fixed,
        tsc_adjust,
        microcode_revision,
        debugctl,
        spec_ctrl,
    } = msrs;
    let mut all = vec![
        (msr::STAR, *star),
        (msr::LSTAR, *lstar),
        (msr::CSTAR, *cstar),
        (msr::SFMASK, *sfmask),
        (msr::KERNEL_GS_BASE, *kernel_gs_base),
        (msr::TSC_AUX, *tsc_aux),
        (msr::SYSENTER_CS, *sysenter_cs),
        (msr::SYSENTER_ESP, *sysenter_esp),
        (msr::SYSENTER_EIP, *sysenter_eip),
        (msr::PAT, *pat),
        (msr::MISC_ENABLE, *misc_enable),
        (msr::TSC_ADJUST, *tsc_adjust),
        (msr::MICROCODE_REVISION, *microcode_revision),
        (msr::DEBUGCTL, *debugctl),
        (msr::SPEC_CTRL, *spec_ctrl),
        (msr::MTRR_DEF_TYPE, *mtrr_def_type),
    ];
    all.extend((msr::MTRR_PHYSBASE0..).zip(mtrr_variable.iter().copied()));
    all.extend(FIXED.into_iter().zip(mtrr_fixed.iter().copied()));
    all
}

/// Reads registers, one after the other; `None` for those that the kernel does not know.
pub(super) fn get(fd: &VcpuFd, numbers: &[u32]) -> Result<Vec<Option<u64>>, Error> {
    let entries = |numbers: &[u32]| {
        let entries: Vec<_> =
            numbers.iter().map(|&index| kvm_msr_entry { index, ..Default::default() }).collect();
        List::from_entries(&entries).map_err(|_| Error::BadState("too many registers".to_owned()))
    };
    let mut values = Vec::with_capacity(numbers.len());
    while values.len() < numbers.len() {
        let mut list = entries(&numbers[values.len()..])?;
        // It stops at the first that it does not know.
        let known = fd.get_msrs(&mut list).unwrap_or(0);
        values.extend(list.as_slice()[..known].iter().map(|entry| Some(entry.data)));
        if values.len() < numbers.len() {
            values.push(None);
        }
    }
    Ok(values)
}

/// Writes registers. Gives the first that the kernel refused.
pub(super) fn set(fd: &VcpuFd, values: &[(u32, u64)]) -> Result<(), u32> {
    let entries: Vec<_> = values
        .iter()
        .map(|&(index, data)| kvm_msr_entry { index, data, ..Default::default() })
        .collect();
    let Ok(list) = List::from_entries(&entries) else { return Err(0) };
    let taken = fd.set_msrs(&list).unwrap_or(0);
    match values.get(taken) {
        None => Ok(()),
        Some((refused, _)) => Err(*refused),
    }
}

/// All of the table's registers. What the kernel does not know reads as `known`, which is what was
/// last set.
pub(super) fn read(fd: &VcpuFd, known: &Msrs) -> Result<Msrs, Error> {
    let numbers: Vec<u32> = list(known).into_iter().map(|(number, _)| number).collect();
    let values = get(fd, &numbers)?;
    let value = |number: u32| numbers.iter().position(|n| *n == number).and_then(|at| values[at]);
    let or = |number: u32, known: u64| value(number).unwrap_or(known);
    Ok(Msrs {
        star: or(msr::STAR, known.star),
        lstar: or(msr::LSTAR, known.lstar),
        cstar: or(msr::CSTAR, known.cstar),
        sfmask: or(msr::SFMASK, known.sfmask),
        kernel_gs_base: or(msr::KERNEL_GS_BASE, known.kernel_gs_base),
        tsc_aux: or(msr::TSC_AUX, known.tsc_aux),
        sysenter_cs: or(msr::SYSENTER_CS, known.sysenter_cs),
        sysenter_esp: or(msr::SYSENTER_ESP, known.sysenter_esp),
        sysenter_eip: or(msr::SYSENTER_EIP, known.sysenter_eip),
        pat: or(msr::PAT, known.pat),
        misc_enable: or(msr::MISC_ENABLE, known.misc_enable),
        mtrr_def_type: or(msr::MTRR_DEF_TYPE, known.mtrr_def_type),
        mtrr_variable: std::array::from_fn(|i| {
            or(msr::MTRR_PHYSBASE0 + i as u32, known.mtrr_variable[i])
        }),
        mtrr_fixed: std::array::from_fn(|i| or(FIXED[i], known.mtrr_fixed[i])),
        tsc_adjust: or(msr::TSC_ADJUST, known.tsc_adjust),
        microcode_revision: or(msr::MICROCODE_REVISION, known.microcode_revision),
        debugctl: or(msr::DEBUGCTL, known.debugctl),
        spec_ctrl: or(msr::SPEC_CTRL, known.spec_ctrl),
    })
}

/// Sets all of the table's registers that differ from `known`, or all of them. A register that the
/// kernel refuses is passed over when it holds what it has after RESET anyway.
pub(super) fn write(fd: &VcpuFd, msrs: &Msrs, known: Option<&Msrs>) -> Result<(), Error> {
    let mut values = list(msrs);
    if let Some(known) = known {
        let known = list(known);
        values.retain(|value| !known.contains(value));
    }
    let reset = list(&riad_cpu::x86::VcpuState::reset(0).msrs);
    let mut left = values.as_slice();
    while !left.is_empty() {
        let Err(refused) = set(fd, left) else { return Ok(()) };
        let at = left.iter().position(|(number, _)| *number == refused).unwrap_or(0);
        if !reset.contains(&left[at]) {
            let (number, value) = left[at];
            return Err(Error::BadState(format!(
                "this host's KVM does not take {value:#x} in model-specific register {number:#x}"
            )));
        }
        left = &left[at + 1..];
    }
    Ok(())
}
