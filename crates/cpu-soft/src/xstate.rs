//! The state of x87 and SSE as a whole: FXSAVE, XSAVE and their kind, MXCSR and XCR0.
//!
//! Intel SDM volume 1, sections 10.5 (FXSAVE area), 13.4 (XSAVE area) and 13.6 to 13.9 (what XSAVE
//! and XRSTOR do). Components are x87 and SSE; another one, AVX's, would be a line in [`Component`]
//! and a place in the area.

use iced_x86::{Code, Instruction};
use riad_cpu::x86::model::XCR0_SUPPORTED;
use riad_cpu::x86::{F80, Fpu, cr0, cr4};

use crate::cpu::{Cpu, Mode};
use crate::fault::{Done, Fault};
use crate::op::{Exec, Op, gpr};
use crate::{sse, x87};

/// Bytes of the legacy area that XSAVE and FXSAVE share.
const LEGACY: usize = 512;
/// Bytes of the legacy area that FXSAVE may write.
const FXSAVE_WRITTEN: usize = 416;
/// Bytes of the XSAVE header after it.
const HEADER: usize = 64;
/// Where MXCSR and the mask of its bits lie.
const MXCSR: usize = 24;
/// Where ST0 to ST7 lie, 16 bytes each.
const REGISTERS: usize = 32;
/// Where the XMM registers lie.
const XMM: usize = 160;
/// The bits that MXCSR has.
const MXCSR_MASK: u32 = 0xffff;

/// State components: bits of XCR0 and of XSAVE's mask.
struct Component;

impl Component {
    const X87: u64 = 1;
    const SSE: u64 = 2;
}

/// The handler of an instruction of this family, or `None` when it is another's.
#[must_use]
pub fn select(i: &Instruction, _op: &mut Op, _mode: Mode) -> Option<Exec> {
    use Code as C;
    Some(match i.code() {
        C::Fxsave_m512byte => fxsave::<false>,
        C::Fxsave64_m512byte => fxsave::<true>,
        C::Fxrstor_m512byte => fxrstor::<false>,
        C::Fxrstor64_m512byte => fxrstor::<true>,
        C::Xsave_mem => xsave::<false, false>,
        C::Xsave64_mem => xsave::<true, false>,
        C::Xsaveopt_mem => xsave::<false, true>,
        C::Xsaveopt64_mem => xsave::<true, true>,
        C::Xrstor_mem => xrstor::<false>,
        C::Xrstor64_mem => xrstor::<true>,
        C::Xgetbv => xgetbv,
        C::Xsetbv => xsetbv,
        C::Ldmxcsr_m32 => ldmxcsr,
        C::Stmxcsr_m32 => stmxcsr,
        _ => return None,
    })
}

/// A part of the image, by its place.
fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = image.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// `N` bytes of the image as a number's.
fn bytes<const N: usize>(image: &[u8], at: usize) -> [u8; N] {
    image.get(at..at + N).and_then(|part| part.try_into().ok()).unwrap_or([0; N])
}

fn word(image: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes(image, at))
}

fn doubleword(image: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(image, at))
}

fn quadword(image: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(image, at))
}

/// Physical number of ST(`i`).
fn physical(fpu: &Fpu, i: usize) -> usize {
    (usize::from(fpu.fsw >> 11) + i) & 7
}

/// Writes the x87's part of the legacy area. `WIDE` is the form with 64-bit pointers.
fn put_x87<const WIDE: bool>(fpu: &Fpu, image: &mut [u8]) {
    put(image, 0, &fpu.fcw.to_le_bytes());
    put(image, 2, &fpu.fsw.to_le_bytes());
    put(image, 4, &u16::from(fpu.ftw).to_le_bytes());
    put(image, 6, &fpu.fop.to_le_bytes());
    if WIDE {
        put(image, 8, &fpu.fip.to_le_bytes());
        put(image, 16, &fpu.fdp.to_le_bytes());
    } else {
        put(image, 8, &(fpu.fip as u32).to_le_bytes());
        put(image, 12, &u32::from(fpu.fcs).to_le_bytes());
        put(image, 16, &(fpu.fdp as u32).to_le_bytes());
        put(image, 20, &u32::from(fpu.fds).to_le_bytes());
    }
    for i in 0..8 {
        let register = fpu.registers[physical(fpu, i)];
        let bits = u128::from(register.significand) | u128::from(register.sign_exponent) << 64;
        put(image, REGISTERS + 16 * i, &bits.to_le_bytes());
    }
}

/// Reads the x87's part of the legacy area.
fn take_x87<const WIDE: bool>(fpu: &mut Fpu, image: &[u8]) {
    fpu.fcw = word(image, 0) & x87::CONTROL_MASK | 0x40;
    fpu.fsw = word(image, 2);
    fpu.ftw = word(image, 4) as u8;
    fpu.fop = word(image, 6) & 0x7ff;
    if WIDE {
        fpu.fip = quadword(image, 8);
        fpu.fdp = quadword(image, 16);
    } else {
        fpu.fip = doubleword(image, 8).into();
        fpu.fdp = doubleword(image, 16).into();
    }
    // The selectors are not kept: CPUID tells so.
    fpu.fcs = 0;
    fpu.fds = 0;
    for i in 0..8 {
        let at = REGISTERS + 16 * i;
        let number = physical(fpu, i);
        fpu.registers[number] =
            F80 { significand: quadword(image, at), sign_exponent: word(image, at + 8) };
    }
    x87::refresh_summary(fpu);
}

/// Puts the x87 into its initial state (SDM volume 1, 13.6): as FNINIT, and registers zero.
fn initialize_x87(fpu: &mut Fpu) {
    let Fpu { mxcsr, xmm, ymm_high, .. } = *fpu;
    *fpu = Fpu { mxcsr, xmm, ymm_high, ..Fpu::default() };
}

fn x87_in_use(fpu: &Fpu) -> bool {
    let initial = Fpu { mxcsr: fpu.mxcsr, xmm: fpu.xmm, ymm_high: fpu.ymm_high, ..Fpu::default() };
    *fpu != initial
}

/// XMM registers that can be reached: 16 in 64-bit mode, else 8.
fn xmm_count(cpu: &Cpu) -> usize {
    if cpu.long() { 16 } else { 8 }
}

/// The linear address of an area that must be aligned to `alignment`.
///
/// # Errors
/// #GP(0), also for alignment.
fn area(cpu: &Cpu, op: &Op, len: usize, alignment: u64, write: bool) -> Done<u64> {
    let address = cpu.linear(op, len as u32, write)?;
    if address & (alignment - 1) != 0 {
        return Err(Fault::GP0);
    }
    Ok(address)
}

/// FXSAVE and FXRSTOR: #NM when the x87 is emulated or switched away.
fn fx_available(cpu: &Cpu) -> Done {
    if cpu.control.cr0 & (cr0::EM | cr0::TS) != 0 {
        return Err(Fault::NM);
    }
    Ok(())
}

fn fxsave<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    fx_available(cpu)?;
    let address = area(cpu, op, LEGACY, 16, true)?;
    let mut image = [0u8; FXSAVE_WRITTEN];
    put_x87::<WIDE>(&cpu.fpu, &mut image);
    if cpu.control.cr4 & cr4::OSFXSR == 0 {
        // Without it the area has no SSE part, MXCSR included.
        cpu.check_write(op.seg, address, XMM)?;
        cpu.write_bytes(op.seg, address, &image[..MXCSR])?;
        let registers = address.wrapping_add(REGISTERS as u64);
        return cpu.write_bytes(op.seg, registers, &image[REGISTERS..XMM]);
    }
    put(&mut image, MXCSR, &cpu.fpu.mxcsr.to_le_bytes());
    put(&mut image, MXCSR + 4, &MXCSR_MASK.to_le_bytes());
    let count = xmm_count(cpu);
    for (i, xmm) in cpu.fpu.xmm.iter().take(count).enumerate() {
        put(&mut image, XMM + 16 * i, &xmm.to_le_bytes());
    }
    cpu.write_bytes(op.seg, address, &image[..XMM + 16 * count])
}

fn fxrstor<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    fx_available(cpu)?;
    let address = area(cpu, op, LEGACY, 16, false)?;
    let mut image = [0u8; LEGACY];
    cpu.read_bytes(op.seg, address, &mut image)?;
    if cpu.control.cr4 & cr4::OSFXSR != 0 {
        let mxcsr = doubleword(&image, MXCSR);
        if mxcsr & !MXCSR_MASK != 0 {
            return Err(Fault::GP0);
        }
        cpu.fpu.mxcsr = mxcsr;
        take_xmm(cpu, &image);
    }
    take_x87::<WIDE>(&mut cpu.fpu, &image);
    Ok(())
}

fn take_xmm(cpu: &mut Cpu, image: &[u8]) {
    let count = xmm_count(cpu);
    for (i, xmm) in cpu.fpu.xmm.iter_mut().take(count).enumerate() {
        *xmm = u128::from_le_bytes(bytes(image, XMM + 16 * i));
    }
}

/// What the XSAVE family checks before its operand: #UD when the system has not enabled it.
fn xsave_available(cpu: &Cpu) -> Done {
    if cpu.control.cr4 & cr4::OSXSAVE == 0 {
        return Err(Fault::UD);
    }
    if cpu.control.cr0 & cr0::TS != 0 {
        return Err(Fault::NM);
    }
    Ok(())
}

/// The components asked for that are enabled.
fn requested(cpu: &Cpu) -> u64 {
    cpu.edx_eax() & cpu.control.xcr0
}

/// XSAVE and XSAVEOPT (`OPTIMIZE`), which leaves out components that are in their initial state.
///
/// Nothing but the requested components' places and the header's bits is written, and all of it, or
/// none when a page is missing.
fn xsave<const WIDE: bool, const OPTIMIZE: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    xsave_available(cpu)?;
    let address = area(cpu, op, LEGACY + HEADER, 64, true)?;
    let requested = requested(cpu);
    let mut in_use = 0;
    if x87_in_use(&cpu.fpu) {
        in_use |= Component::X87;
    }
    let count = xmm_count(cpu);
    if cpu.fpu.xmm.iter().take(count).any(|&xmm| xmm != 0) {
        in_use |= Component::SSE;
    }
    let written = if OPTIMIZE { requested & in_use } else { requested };

    cpu.check_write(op.seg, address, LEGACY + HEADER)?;
    let header_at = address.wrapping_add(LEGACY as u64);
    let header: u64 = cpu.read(op.seg, header_at)?;
    let mut image = [0u8; LEGACY];
    put_x87::<WIDE>(&cpu.fpu, &mut image);
    if written & Component::X87 != 0 {
        cpu.write_bytes(op.seg, address, &image[..MXCSR])?;
        let registers = address.wrapping_add(REGISTERS as u64);
        cpu.write_bytes(op.seg, registers, &image[REGISTERS..XMM])?;
    }
    if requested & Component::SSE != 0 {
        let mxcsr = address.wrapping_add(MXCSR as u64);
        let both = u64::from(cpu.fpu.mxcsr) | u64::from(MXCSR_MASK) << 32;
        cpu.write::<u64>(op.seg, mxcsr, both)?;
    }
    if written & Component::SSE != 0 {
        for i in 0..count {
            let at = address.wrapping_add((XMM + 16 * i) as u64);
            cpu.write::<u128>(op.seg, at, cpu.fpu.xmm[i])?;
        }
    }
    cpu.write::<u64>(op.seg, header_at, header & !requested | in_use & requested)
}

fn xrstor<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    xsave_available(cpu)?;
    let address = area(cpu, op, LEGACY + HEADER, 64, false)?;
    let mut image = [0u8; LEGACY + HEADER];
    cpu.read_bytes(op.seg, address, &mut image)?;

    // The standard form is the only one there is: the header's second and third quadwords are zero.
    let present = quadword(&image, LEGACY);
    let compaction = quadword(&image, LEGACY + 8) | quadword(&image, LEGACY + 16);
    if present & !cpu.control.xcr0 != 0 || compaction != 0 {
        return Err(Fault::GP0);
    }
    let requested = requested(cpu);
    let mxcsr = doubleword(&image, MXCSR);
    if requested & Component::SSE != 0 && mxcsr & !MXCSR_MASK != 0 {
        return Err(Fault::GP0);
    }

    if requested & Component::X87 != 0 {
        if present & Component::X87 != 0 {
            take_x87::<WIDE>(&mut cpu.fpu, &image);
        } else {
            initialize_x87(&mut cpu.fpu);
        }
    }
    if requested & Component::SSE != 0 {
        // MXCSR is taken from memory whether or not the registers are there.
        cpu.fpu.mxcsr = mxcsr;
        if present & Component::SSE != 0 {
            take_xmm(cpu, &image);
        } else {
            let count = xmm_count(cpu);
            cpu.fpu.xmm[..count].fill(0);
        }
    }
    Ok(())
}

fn xgetbv(cpu: &mut Cpu, _: &Op) -> Done {
    if cpu.control.cr4 & cr4::OSXSAVE == 0 {
        return Err(Fault::UD);
    }
    if cpu.get::<u32>(gpr::RCX as u8) != 0 {
        return Err(Fault::GP0);
    }
    cpu.set_edx_eax(cpu.control.xcr0);
    Ok(())
}

fn xsetbv(cpu: &mut Cpu, _: &Op) -> Done {
    if cpu.control.cr4 & cr4::OSXSAVE == 0 {
        return Err(Fault::UD);
    }
    let value = cpu.edx_eax();
    let allowed = value & Component::X87 != 0 && value & !XCR0_SUPPORTED == 0;
    if cpu.cpl != 0 || cpu.get::<u32>(gpr::RCX as u8) != 0 || !allowed {
        return Err(Fault::GP0);
    }
    cpu.control.xcr0 = value;
    Ok(())
}

fn ldmxcsr(cpu: &mut Cpu, op: &Op) -> Done {
    sse::ready(cpu)?;
    let value: u32 = cpu.load(op)?;
    if value & !MXCSR_MASK != 0 {
        return Err(Fault::GP0);
    }
    cpu.fpu.mxcsr = value;
    Ok(())
}

fn stmxcsr(cpu: &mut Cpu, op: &Op) -> Done {
    sse::ready(cpu)?;
    cpu.store(op, cpu.fpu.mxcsr)
}

#[cfg(test)]
#[path = "xstate_test.rs"]
mod tests;
