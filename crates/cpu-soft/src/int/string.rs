//! MOVS, CMPS, SCAS, LODS, STOS and their REP forms (SDM 1, 7.3.9; SDM 2).
//!
//! INS and OUTS are the system family's.
//!
//! A repeated instruction works page by page on host addresses where it can and element by element
//! where it cannot (downwards, at page and segment ends, outside of RAM). It does a bounded amount
//! of work and then runs again from the start, as on hardware an interrupt between two iterations
//! would make it: registers always say what is left to do.

use iced_x86::Instruction;
use riad_cpu::x86::rflags::TF;

use super::{Int, sized};
use crate::cpu::Cpu;
use crate::fault::Done;
use crate::op::{Exec, Op, gpr, seg};
use crate::raw;
use crate::word::Word;

/// Bytes that one execution of a repeated instruction may go through.
const BUDGET: u64 = 16 << 10;

const RAX: u8 = gpr::RAX as u8;
const RCX: u8 = gpr::RCX as u8;
const RSI: u8 = gpr::RSI as u8;
const RDI: u8 = gpr::RDI as u8;

/// All addresses of this width.
#[inline(always)]
fn address_mask(op: &Op) -> u64 {
    match op.address {
        8 => u64::MAX,
        4 => u32::MASK,
        _ => u16::MASK,
    }
}

/// An index or count register at the address width.
#[inline(always)]
fn index(cpu: &Cpu, op: &Op, reg: u8) -> u64 {
    cpu.regs[usize::from(reg & 15)] & address_mask(op)
}

#[inline(always)]
fn set_index(cpu: &mut Cpu, op: &Op, reg: u8, value: u64) {
    match op.address {
        8 => cpu.set(reg, value),
        4 => cpu.set(reg, value as u32),
        _ => cpu.set(reg, value as u16),
    }
}

/// Moves an index register on by some elements, in DF's direction.
#[inline(always)]
fn advance<T: Int>(cpu: &mut Cpu, op: &Op, reg: u8, elements: u64) {
    let bytes = elements.wrapping_mul(T::BYTES as u64);
    let bytes = if cpu.flags.df() { bytes.wrapping_neg() } else { bytes };
    let value = cpu.regs[usize::from(reg & 15)].wrapping_add(bytes);
    set_index(cpu, op, reg, value);
}

/// Reads the element that an index register points to.
#[inline(always)]
fn element<T: Int>(cpu: &mut Cpu, op: &Op, s: u8, reg: u8) -> Done<T> {
    let address = cpu.segmented(s, index(cpu, op, reg), T::BYTES as u32, false)?;
    cpu.read(s, address)
}

/// Writes the element at ES:(R)DI.
#[inline(always)]
fn put_element<T: Int>(cpu: &mut Cpu, op: &Op, value: T) -> Done {
    let address = cpu.segmented(seg::ES, index(cpu, op, RDI), T::BYTES as u32, true)?;
    cpu.write(seg::ES, address, value)
}

/// Elements of RAM that an index register points to, upwards, in one page: at most `most`.
/// `None` where only one element at a time will do.
fn run<T: Int>(
    cpu: &mut Cpu,
    op: &Op,
    (s, reg): (u8, u8),
    most: u64,
    write: bool,
) -> Done<Option<(*mut u8, u64)>> {
    let bytes = T::BYTES as u64;
    let offset = index(cpu, op, reg);
    let address = cpu.segmented(s, offset, T::BYTES as u32, write)?;
    let in_page = (4096 - (address & 4095)) / bytes;
    let before_wrap = (address_mask(op) - offset) / bytes;
    let count = most.min(in_page).min(before_wrap);
    let len = (count * bytes) as usize;
    if count == 0 || (!cpu.flat && cpu.segmented(s, offset, len as u32, write).is_err()) {
        return Ok(None);
    }
    Ok(cpu.bulk(s, address, len, write)?.map(|host| (host, count)))
}

/// What a string instruction does.
trait Action: 'static {
    /// Whether REPE and REPNE look at ZF.
    const COMPARES: bool;
    /// Registers whose upper halves a REP form with 32-bit addresses clears even when it does
    /// nothing, or faults at once.
    const CLEARS: &'static [u8];
    /// One element.
    fn one<T: Int>(cpu: &mut Cpu, op: &Op) -> Done;
    /// Up to `most` elements, upwards; the number done, 0 where only [`one`](Self::one) will do.
    /// A comparison ends after the first element whose equality is not `wanted`.
    fn many<T: Int>(cpu: &mut Cpu, op: &Op, most: u64, wanted: bool) -> Done<u64>;
}

struct Movs;

impl Action for Movs {
    const COMPARES: bool = false;
    const CLEARS: &'static [u8] = &[RCX, RSI, RDI];

    #[inline(always)]
    fn one<T: Int>(cpu: &mut Cpu, op: &Op) -> Done {
        let value: T = element(cpu, op, op.seg, RSI)?;
        put_element(cpu, op, value)?;
        advance::<T>(cpu, op, RSI, 1);
        advance::<T>(cpu, op, RDI, 1);
        Ok(())
    }

    fn many<T: Int>(cpu: &mut Cpu, op: &Op, most: u64, _: bool) -> Done<u64> {
        let Some((from, count)) = run::<T>(cpu, op, (op.seg, RSI), most, false)? else {
            return Ok(0);
        };
        let Some((to, count)) = run::<T>(cpu, op, (seg::ES, RDI), count, true)? else {
            return Ok(0);
        };
        let len = count as usize * T::BYTES;
        let ahead = to.addr().wrapping_sub(from.addr());
        if ahead != 0 && ahead < len {
            // The copy reads what it wrote: a pattern that repeats.
            for n in 0..count as usize {
                let value: T = raw::load(raw::offset(from, n * T::BYTES));
                raw::store(raw::offset(to, n * T::BYTES), value);
            }
        } else {
            raw::copy(from, to, len);
        }
        cpu.wrote(to);
        advance::<T>(cpu, op, RSI, count);
        advance::<T>(cpu, op, RDI, count);
        Ok(count)
    }
}

struct Stos;

impl Action for Stos {
    const COMPARES: bool = false;
    const CLEARS: &'static [u8] = &[RCX, RDI];

    #[inline(always)]
    fn one<T: Int>(cpu: &mut Cpu, op: &Op) -> Done {
        put_element(cpu, op, cpu.get::<T>(RAX))?;
        advance::<T>(cpu, op, RDI, 1);
        Ok(())
    }

    fn many<T: Int>(cpu: &mut Cpu, op: &Op, most: u64, _: bool) -> Done<u64> {
        let Some((to, count)) = run::<T>(cpu, op, (seg::ES, RDI), most, true)? else {
            return Ok(0);
        };
        let bytes = cpu.get::<T>(RAX).zx().to_le_bytes();
        let pattern = &bytes[..T::BYTES];
        if pattern.iter().all(|byte| *byte == bytes[0]) {
            raw::fill(to, &bytes[..1], count as usize * T::BYTES);
        } else {
            raw::fill(to, pattern, count as usize);
        }
        cpu.wrote(to);
        advance::<T>(cpu, op, RDI, count);
        Ok(count)
    }
}

struct Lods;

impl Action for Lods {
    const COMPARES: bool = false;
    const CLEARS: &'static [u8] = &[RCX];

    #[inline(always)]
    fn one<T: Int>(cpu: &mut Cpu, op: &Op) -> Done {
        let value: T = element(cpu, op, op.seg, RSI)?;
        cpu.set(RAX, value);
        advance::<T>(cpu, op, RSI, 1);
        Ok(())
    }

    fn many<T: Int>(_: &mut Cpu, _: &Op, _: u64, _: bool) -> Done<u64> {
        Ok(0)
    }
}

/// Flags of `a - b`.
#[inline(always)]
fn compare<T: Int>(cpu: &mut Cpu, a: T, b: T) {
    cpu.flags.sub(a, b, T::low(a.zx().wrapping_sub(b.zx())));
}

struct Cmps;

impl Action for Cmps {
    const COMPARES: bool = true;
    const CLEARS: &'static [u8] = &[RCX];

    #[inline(always)]
    fn one<T: Int>(cpu: &mut Cpu, op: &Op) -> Done {
        // Which operand faults first is not documented; Intel's processors begin with the second.
        let b: T = element(cpu, op, seg::ES, RDI)?;
        let a: T = element(cpu, op, op.seg, RSI)?;
        advance::<T>(cpu, op, RSI, 1);
        advance::<T>(cpu, op, RDI, 1);
        compare(cpu, a, b);
        Ok(())
    }

    fn many<T: Int>(cpu: &mut Cpu, op: &Op, most: u64, wanted: bool) -> Done<u64> {
        let Some((right, count)) = run::<T>(cpu, op, (seg::ES, RDI), most, false)? else {
            return Ok(0);
        };
        let Some((left, count)) = run::<T>(cpu, op, (op.seg, RSI), count, false)? else {
            return Ok(0);
        };
        let mut done = 0;
        while done < count {
            let at = done as usize * T::BYTES;
            let (a, b): (T, T) =
                (raw::load(raw::offset(left, at)), raw::load(raw::offset(right, at)));
            done += 1;
            if done == count || (a == b) != wanted {
                compare(cpu, a, b);
                break;
            }
        }
        advance::<T>(cpu, op, RSI, done);
        advance::<T>(cpu, op, RDI, done);
        Ok(done)
    }
}

struct Scas;

impl Action for Scas {
    const COMPARES: bool = true;
    const CLEARS: &'static [u8] = &[RCX];

    #[inline(always)]
    fn one<T: Int>(cpu: &mut Cpu, op: &Op) -> Done {
        let b: T = element(cpu, op, seg::ES, RDI)?;
        advance::<T>(cpu, op, RDI, 1);
        compare(cpu, cpu.get::<T>(RAX), b);
        Ok(())
    }

    fn many<T: Int>(cpu: &mut Cpu, op: &Op, most: u64, wanted: bool) -> Done<u64> {
        let Some((right, count)) = run::<T>(cpu, op, (seg::ES, RDI), most, false)? else {
            return Ok(0);
        };
        let a: T = cpu.get(RAX);
        let mut done = 0;
        while done < count {
            let b: T = raw::load(raw::offset(right, done as usize * T::BYTES));
            done += 1;
            if done == count || (a == b) != wanted {
                compare(cpu, a, b);
                break;
            }
        }
        advance::<T>(cpu, op, RDI, done);
        Ok(done)
    }
}

fn once<T: Int, A: Action>(cpu: &mut Cpu, op: &Op) -> Done {
    A::one::<T>(cpu, op)
}

fn repeat<T: Int, A: Action>(cpu: &mut Cpu, op: &Op) -> Done {
    if op.address == 4 {
        for &reg in A::CLEARS {
            set_index(cpu, op, reg, index(cpu, op, reg));
        }
    }
    let before = cpu.flags;
    let wanted = op.prefix & Op::REPNE == 0;
    // Single-stepping traps after every iteration.
    let stepping = before.bits & TF != 0;
    let mut budget = if stepping { 1 } else { BUDGET / T::BYTES as u64 };
    loop {
        let count = index(cpu, op, RCX);
        if count == 0 {
            return Ok(());
        }
        if budget == 0 {
            // Let interrupts in, then go on where we are.
            cpu.set_rip(cpu.this_rip);
            cpu.left = 0;
            return Ok(());
        }
        let most = count.min(budget);
        let many =
            if before.df() || most == 1 { Ok(0) } else { A::many::<T>(cpu, op, most, wanted) };
        let done = match many {
            Ok(0) => A::one::<T>(cpu, op).map(|()| 1),
            done => done,
        };
        match done {
            Ok(done) => {
                set_index(cpu, op, RCX, count.wrapping_sub(done));
                budget = budget.saturating_sub(done);
            }
            Err(fault) => {
                // Earlier iterations stand, but for their flags (SDM 2, REP).
                cpu.flags = before;
                return Err(fault);
            }
        }
        if A::COMPARES && cpu.flags.zf() != wanted {
            return Ok(());
        }
    }
}

fn choose<A: Action>(i: &Instruction, op: &Op) -> Option<Exec> {
    if !i.is_string_instruction() {
        // SSE has a MOVSD and a CMPSD too.
        return None;
    }
    if op.prefix & (Op::REP | Op::REPNE) != 0 {
        sized!(op.size, T => Some(repeat::<T, A>))
    } else {
        sized!(op.size, T => Some(once::<T, A>))
    }
}

/// MOVSB, MOVSW, MOVSD, MOVSQ.
pub(super) fn movs(i: &Instruction, op: &Op) -> Option<Exec> {
    choose::<Movs>(i, op)
}

/// STOSB, STOSW, STOSD, STOSQ.
pub(super) fn stos(i: &Instruction, op: &Op) -> Option<Exec> {
    choose::<Stos>(i, op)
}

/// LODSB, LODSW, LODSD, LODSQ.
pub(super) fn lods(i: &Instruction, op: &Op) -> Option<Exec> {
    choose::<Lods>(i, op)
}

/// CMPSB, CMPSW, CMPSD, CMPSQ.
pub(super) fn cmps(i: &Instruction, op: &Op) -> Option<Exec> {
    choose::<Cmps>(i, op)
}

/// SCASB, SCASW, SCASD, SCASQ.
pub(super) fn scas(i: &Instruction, op: &Op) -> Option<Exec> {
    choose::<Scas>(i, op)
}
