//! x87 operations: the 80-bit result and the status word, under random control words, masked and
//! unmasked.

#![expect(unsafe_code, reason = "runs the instruction under test on the host's processor")]

use super::super::{
    Constant, Env, F32, F64, F80, Flags, Format, Relation, Remainder, Rounding, add, compare, div,
    fprem, fprem1, from_bcd, from_int, fscale, fxtract, load, mul, round_to_integral, sqrt, store,
    sub, to_bcd, to_int,
};
use super::{Random, cases};

/// What an x87 instruction reads and writes.
#[repr(C, align(16))]
pub(super) struct Machine {
    control: u16,
    status: u16,
    _pad: [u16; 6],
    /// Goes to ST0.
    pub(super) a: u128,
    /// Goes to ST1.
    b: u128,
    /// The memory operand.
    memory: u128,
    /// What FNSAVE wrote.
    saved: [u8; 112],
}

/// What an x87 instruction left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The status word.
    pub(super) status: u16,
    /// ST0.
    pub(super) top: F80,
    /// ST1.
    pub(super) next: F80,
    /// The memory operand.
    pub(super) memory: u128,
}

impl Machine {
    pub(super) fn new(control: u16, a: F80, b: F80, memory: u128) -> Machine {
        Machine {
            control,
            status: 0,
            _pad: [0; 6],
            a: a.to_bits(),
            b: b.to_bits(),
            memory,
            saved: [0; 112],
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        let register = |i: usize| {
            let bytes: Vec<u8> = self.saved[28 + 10 * i..][..10].to_vec();
            F80::from_bits(bytes.iter().rev().fold(0, |bits, &byte| bits << 8 | u128::from(byte)))
        };
        Outcome { status: self.status, top: register(0), next: register(1), memory: self.memory }
    }
}

/// A host instruction: control word, ST0, ST1 and memory operand in.
pub(super) type Host = fn(u16, F80, F80, u128) -> Outcome;

/// Runs an instruction on ST0, ST1 and the memory at `[{m} + 48]`. FNSAVE reads the registers, as it
/// does not wait: a pending unmasked exception must not be delivered to this process.
macro_rules! on_x87 {
    ($instruction:literal) => {
        |control: u16,
         a: $crate::softfloat::F80,
         b: $crate::softfloat::F80,
         memory: u128| {
            let mut machine =
                $crate::softfloat::oracle_test::x87::Machine::new(control, a, b, memory);
            // SAFETY: FNSAVE leaves the x87 as FNINIT does, empty, as the calling convention has it.
            unsafe {
                std::arch::asm!(
                    "fninit",
                    "fld tbyte ptr [{m} + 32]",
                    "fld tbyte ptr [{m} + 16]",
                    "fldcw word ptr [{m}]",
                    concat!($instruction),
                    "fnstsw word ptr [{m} + 2]",
                    "fnsave [{m} + 64]",
                    m = in(reg) &raw mut machine,
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                );
            }
            machine.outcome()
        }
    };
}
pub(super) use on_x87;

const C0: u16 = 0x0100;
pub(super) const C1: u16 = 0x0200;
pub(super) const C2: u16 = 0x0400;
const C3: u16 = 0x4000;
const TOP: u16 = 0x3800;

/// The status word's exception flags and C1 after an operation. ES is not compared.
pub(super) fn status(env: &Env) -> u16 {
    let settled = env.settle();
    let c1 = if env.rounded_up && !settled.fault_before { C1 } else { 0 };
    u16::from(settled.flags.bits()) | c1
}

/// A control word: mostly all masked, else some exceptions unmasked.
pub(super) fn control(random: &mut Random) -> u16 {
    let bits = random.bits() as u16;
    let rounding = bits & 0x0c00;
    let precision = [0x0000, 0x0200, 0x0300, 0x0300][random.below(4) as usize];
    let masks = if random.below(4) == 0 { bits & 0x3f } else { 0x3f };
    rounding | precision | masks | 0x40
}

/// An operation of the soft core: ST0, ST1 and the memory operand in; ST0, condition codes and the
/// memory operand out.
trait Soft: Fn(F80, F80, u128, &mut Env) -> (F80, u16, u128) {}

impl<T: Fn(F80, F80, u128, &mut Env) -> (F80, u16, u128)> Soft for T {}

/// Compares an operation with the host's. What an unmasked exception found before computing leaves
/// unwritten is the operation's affair.
fn check_all(
    name: &str,
    host: Host,
    compare_status: u16,
    operands: impl Fn(&mut Random) -> (F80, F80, u128),
    soft: impl Soft,
) {
    let mut random = Random(0x5eed);
    for _ in 0..cases(1_000_000) {
        let (a, b, memory) = operands(&mut random);
        let control = control(&mut random);
        let expected = host(control, a, b, memory);
        let mut env = Env::x87(control);
        let (top, conditions, stored) = soft(a, b, memory, &mut env);
        let status = (status(&env) | conditions) & compare_status;
        assert!(
            status == expected.status & compare_status
                && top == expected.top
                && stored == expected.memory,
            "{name} {a:x?}, {b:x?}, memory {memory:#x}, control {control:#x}: got {:x?} memory \
             {:#x} status {status:#x}, the processor gives {:x?} memory {:#x} status {:#x}",
            top,
            stored,
            expected.top,
            expected.memory,
            expected.status & compare_status,
        );
    }
}

/// The same for an operation that writes nothing after an unmasked exception found before computing.
fn check(
    name: &str,
    host: Host,
    compare_status: u16,
    operands: impl Fn(&mut Random) -> (F80, F80, u128),
    soft: impl Soft,
) {
    check_all(name, host, compare_status, operands, |a, b, memory, env| {
        let outcome = soft(a, b, memory, env);
        if env.settle().fault_before { (a, 0, memory) } else { outcome }
    });
}

/// Exception flags and C1.
const FLAGS: u16 = 0x003f | C1;

fn registers(random: &mut Random) -> (F80, F80, u128) {
    let a = random.f80();
    (a, random.f80_after(a), 0)
}

fn with_single(random: &mut Random) -> (F80, F80, u128) {
    (random.f80(), F80::ONE, u128::from(random.f32().0))
}

fn with_double(random: &mut Random) -> (F80, F80, u128) {
    (random.f80(), F80::ONE, u128::from(random.f64().0))
}

fn with_integer(random: &mut Random) -> (F80, F80, u128) {
    let integer = random.significand() as i64 >> random.below(64);
    (random.f80(), F80::ONE, u128::from(integer as u64))
}

type Operation = fn(super::super::Unpacked, super::super::Unpacked, &mut Env) -> F80;

fn binary(name: &str, host: Host, operation: Operation) {
    check(name, host, FLAGS, registers, |a, b, memory, env| {
        (operation(a.unpack(), b.unpack(), env), 0, memory)
    });
}

#[test]
fn add_and_subtract() {
    binary("fadd", on_x87!("fadd st(0), st(1)"), add);
    binary("fsub", on_x87!("fsub st(0), st(1)"), sub);
    binary("fsubr", on_x87!("fsubr st(0), st(1)"), |a, b, env| sub(b, a, env));
}

#[test]
fn multiply_and_divide() {
    binary("fmul", on_x87!("fmul st(0), st(1)"), mul);
    binary("fdiv", on_x87!("fdiv st(0), st(1)"), div);
    binary("fdivr", on_x87!("fdivr st(0), st(1)"), |a, b, env| div(b, a, env));
}

#[test]
fn square_root() {
    check("fsqrt", on_x87!("fsqrt"), FLAGS, registers, |a, _, memory, env| {
        (sqrt(a.unpack(), env), 0, memory)
    });
}

#[test]
fn memory_operands() {
    let host = on_x87!("fadd dword ptr [{m} + 48]");
    check("fadd m32", host, FLAGS, with_single, |a, _, memory, env| {
        (add(a.unpack(), F32(memory as u32).unpack(), env), 0, memory)
    });
    let host = on_x87!("fmul qword ptr [{m} + 48]");
    check("fmul m64", host, FLAGS, with_double, |a, _, memory, env| {
        (mul(a.unpack(), F64(memory as u64).unpack(), env), 0, memory)
    });
    let host = on_x87!("fdivr qword ptr [{m} + 48]");
    check("fdivr m64", host, FLAGS, with_double, |a, _, memory, env| {
        (div(F64(memory as u64).unpack(), a.unpack(), env), 0, memory)
    });
    let host = on_x87!("fisub dword ptr [{m} + 48]");
    check("fisub m32", host, FLAGS, with_integer, |a, _, memory, env| {
        let integer: F80 = from_int(i64::from(memory as i32), env);
        (sub(a.unpack(), integer.unpack(), env), 0, memory)
    });
}

#[test]
fn partial_remainders() {
    let outcome = |step| match step {
        Remainder::Nan(value) => (value, 0),
        Remainder::Partial(value) => (value, C2),
        Remainder::Complete(value, q) => {
            let bit = |mask, condition| if q & mask != 0 { condition } else { 0 };
            (value, bit(4, C0) | bit(2, C3) | bit(1, C1))
        }
    };
    let all = 0x3f | C0 | C1 | C2 | C3;
    check("fprem", on_x87!("fprem"), all, registers, |a, b, memory, env| {
        let (value, conditions) = outcome(fprem(a, b, env));
        env.rounded_up = false;
        (value, conditions, memory)
    });
    check("fprem1", on_x87!("fprem1"), all, registers, |a, b, memory, env| {
        let (value, conditions) = outcome(fprem1(a, b, env));
        env.rounded_up = false;
        (value, conditions, memory)
    });
}

#[test]
fn scale_and_extract() {
    let scales = |random: &mut Random| {
        let a = random.f80();
        let near = random.below(0x1_8000) as i64 - 0xc000;
        let mut env = Env::x87(0x37f);
        let b = match random.below(4) {
            0 => random.f80_after(a),
            1 => from_int(near, &mut env),
            2 => F80::zero(near < 0),
            _ => {
                div(from_int::<F80>(near, &mut env).unpack(), F64(0x4008 << 48).unpack(), &mut env)
            }
        };
        (a, b, 0)
    };
    check("fscale", on_x87!("fscale"), FLAGS, scales, |a, b, memory, env| {
        (fscale(a, b, env), 0, memory)
    });
    check("fxtract", on_x87!("fxtract"), FLAGS, registers, |a, _, memory, env| {
        (fxtract(a, env).1, 0, memory)
    });
    let host: Host = |control, a, b, memory| {
        let outcome = on_x87!("fxtract")(control, a, b, memory);
        let exponent = if outcome.status & TOP == 6 << 11 { outcome.top } else { outcome.next };
        Outcome { top: exponent, ..outcome }
    };
    check("fxtract's exponent", host, FLAGS, registers, |a, _, memory, env| {
        (fxtract(a, env).0, 0, memory)
    });
}

#[test]
fn comparisons() {
    let conditions = |relation| match relation {
        Relation::Greater => 0,
        Relation::Less => C0,
        Relation::Equal => C3,
        Relation::Unordered => C0 | C2 | C3,
    };
    let all = 0x3f | C0 | C1 | C2 | C3;
    check_all("fcom", on_x87!("fcom st(1)"), all, registers, |a, b, memory, env| {
        (a, conditions(compare(a.unpack(), b.unpack(), true, env)), memory)
    });
    check_all("fucom", on_x87!("fucom st(1)"), all, registers, |a, b, memory, env| {
        (a, conditions(compare(a.unpack(), b.unpack(), false, env)), memory)
    });
    let host = on_x87!("fcom dword ptr [{m} + 48]");
    check_all("fcom m32", host, all, with_single, |a, _, memory, env| {
        let b = F32(memory as u32).unpack();
        (a, conditions(compare(a.unpack(), b, true, env)), memory)
    });
    check_all("ftst", on_x87!("ftst"), all, registers, |a, _, memory, env| {
        let zero = F80::zero(false).unpack();
        (a, conditions(compare(a.unpack(), zero, true, env)), memory)
    });
}

/// An unmasked invalid operand is not loaded; an unmasked denormal is.
fn loaded(env: &Env) -> bool {
    env.flags.and(Flags::INVALID).without(env.masks).is_empty()
}

#[test]
fn loads() {
    check_all(
        "fld m32",
        on_x87!("fld dword ptr [{m} + 48]"),
        FLAGS,
        with_single,
        |a, _, memory, env| {
            let value = load(F32(memory as u32).unpack(), env);
            (if loaded(env) { value } else { a }, 0, memory)
        },
    );
    check_all(
        "fld m64",
        on_x87!("fld qword ptr [{m} + 48]"),
        FLAGS,
        with_double,
        |a, _, memory, env| {
            let value = load(F64(memory as u64).unpack(), env);
            (if loaded(env) { value } else { a }, 0, memory)
        },
    );
    let host = on_x87!("fild qword ptr [{m} + 48]");
    check("fild m64", host, FLAGS, with_integer, |_, _, memory, env| {
        (from_int(memory as i64, env), 0, memory)
    });
}

/// A register whose exponent is often that of a double or single.
fn narrow_registers(random: &mut Random) -> (F80, F80, u128) {
    let mut a = random.f80();
    let field = match random.below(3) {
        0 => 0x3fff - 160 + random.below(320),
        1 => 0x3fff - 1090 + random.below(2200),
        _ => u64::from(a.sign_exponent & 0x7fff),
    } as u16;
    a.sign_exponent = a.sign_exponent & 0x8000 | field;
    (a, F80::ONE, random.bits().into())
}

#[test]
fn stores_to_memory() {
    let host = on_x87!("fst dword ptr [{m} + 48]");
    check("fst m32", host, FLAGS, narrow_registers, |a, _, memory, env| {
        let kept = memory & !u128::from(u32::MAX);
        (a, 0, store::<F32>(a, env).map_or(memory, |value| kept | u128::from(value.0)))
    });
    let host = on_x87!("fst qword ptr [{m} + 48]");
    check("fst m64", host, FLAGS, narrow_registers, |a, _, memory, env| {
        (a, 0, store::<F64>(a, env).map_or(memory, |value| value.0.into()))
    });
}

/// A register around the ends of the integer types, often halfway between two integers.
fn integral_registers(random: &mut Random) -> (F80, F80, u128) {
    let (mut a, b, memory) = narrow_registers(random);
    let mut env = Env::x87(0x37f);
    match random.below(3) {
        0 => {
            let field = 0x3ffd + random.below(70) as u16;
            a.sign_exponent = a.sign_exponent & 0x8000 | field;
        }
        1 => {
            let integer = random.bits() as i64 >> random.below(64);
            let integer: F80 = from_int(integer, &mut env);
            let half = F80 { sign_exponent: 0x3ffe, ..F80::ONE };
            a = mul(integer.unpack(), half.unpack(), &mut env);
        }
        _ => {}
    }
    (a, b, memory)
}

#[test]
fn integer_stores() {
    fn keep(memory: u128, value: i64, bits: u32) -> u128 {
        let mask = (1u128 << bits) - 1;
        memory & !mask | value as u128 & mask
    }
    let near = |bits: u32, truncate: bool| {
        move |a: F80, _: F80, memory: u128, env: &mut Env| {
            let rounding = if truncate { Rounding::Zero } else { env.rounding };
            let value = to_int(a.unpack(), bits, rounding, env);
            (a, 0, keep(memory, value, bits))
        }
    };
    let operands = integral_registers;
    check("fist m16", on_x87!("fist word ptr [{m} + 48]"), FLAGS, operands, near(16, false));
    check("fist m32", on_x87!("fist dword ptr [{m} + 48]"), FLAGS, operands, near(32, false));
    let pop = |bits, truncate| {
        move |a: F80, b: F80, memory, env: &mut Env| {
            let (_, conditions, stored) = near(bits, truncate)(a, b, memory, env);
            (b, conditions, stored)
        }
    };
    let host = on_x87!("fistp qword ptr [{m} + 48]");
    check("fistp m64", host, FLAGS, operands, pop(64, false));
    let host = on_x87!("fisttp qword ptr [{m} + 48]");
    check("fisttp m64", host, FLAGS, operands, pop(64, true));
    let host = on_x87!("fisttp word ptr [{m} + 48]");
    check("fisttp m16", host, FLAGS, operands, pop(16, true));
}

#[test]
fn round_to_integer() {
    check("frndint", on_x87!("frndint"), FLAGS, integral_registers, |a, _, memory, env| {
        let value = round_to_integral(a, env.rounding, true, env);
        if a.unpack().denormal {
            env.raise(Flags::DENORMAL);
        }
        (value, 0, memory)
    });
}

#[test]
fn packed_decimal() {
    let decimals = |random: &mut Random| {
        let mut bits = u128::from(random.bits()) << 32 ^ u128::from(random.bits());
        if random.below(2) == 0 {
            for digit in 0..18 {
                if bits >> (4 * digit) & 0xf > 9 {
                    bits &= !(0x8 << (4 * digit));
                }
            }
        }
        (F80::ONE, F80::ONE, bits & ((1 << 80) - 1))
    };
    let host = on_x87!("fbld tbyte ptr [{m} + 48]");
    check("fbld", host, FLAGS, decimals, |_, _, memory, env| (from_bcd(memory, env), 0, memory));
    let host = on_x87!("fbstp tbyte ptr [{m} + 48]");
    check("fbstp", host, FLAGS, integral_registers, |a, b, memory, env| {
        let value = to_bcd(a, env);
        (b, 0, memory & !((1 << 80) - 1) | value)
    });
}

#[test]
fn constants() {
    let constants: [(Host, Constant); 7] = [
        (on_x87!("fld1"), Constant::One),
        (on_x87!("fldl2t"), Constant::Log2Of10),
        (on_x87!("fldl2e"), Constant::Log2OfE),
        (on_x87!("fldpi"), Constant::Pi),
        (on_x87!("fldlg2"), Constant::Log10Of2),
        (on_x87!("fldln2"), Constant::LnOf2),
        (on_x87!("fldz"), Constant::Zero),
    ];
    for (host, constant) in constants {
        for mode in 0..4 {
            let outcome = host(0x37f | mode << 10, F80::ONE, F80::ONE, 0);
            let rounding = Rounding::from_bits(mode.into());
            assert_eq!((outcome.top, outcome.status & FLAGS), (constant.load(rounding), 0));
        }
    }
}
