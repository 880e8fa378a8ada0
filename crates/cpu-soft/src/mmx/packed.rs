//! Packed arithmetic, comparison, logic, shifts and shuffles: two vectors in, one out.
//!
//! Intel SDM volume 1, sections 9.4 (MMX), 10.4.6 (SSE) and 12.6 (SSSE3).

use iced_x86::Code;

use super::lanes::{Lanes, each, map};
use super::{ready, set, source};
use crate::cpu::Cpu;
use crate::fault::Done;
use crate::op::{Exec, Op};

type U8 = [u8; 8];
type I8 = [i8; 8];
type U16 = [u16; 4];
type I16 = [i16; 4];
type U32 = [u32; 2];
type I32 = [i32; 2];
type U64 = [u64; 1];

/// What becomes of the destination, the second operand and the immediate.
trait Operation {
    fn apply(a: u64, b: u64, immediate: u8) -> u64;
}

/// Writes the result of an operation to operand 0.
fn packed<O: Operation, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    ready(cpu)?;
    let b = source::<MEMORY>(cpu, op)?;
    let result = O::apply(super::get(cpu, op.reg[0]), b, op.imm as u8);
    set(cpu, op.reg[0], result);
    Ok(())
}

/// The same for the unpacking instructions, whose memory operand is 4 bytes.
fn packed_low<O: Operation, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    ready(cpu)?;
    let b = if MEMORY { cpu.load::<u32>(op)?.into() } else { source::<false>(cpu, op)? };
    let result = O::apply(super::get(cpu, op.reg[0]), b, 0);
    set(cpu, op.reg[0], result);
    Ok(())
}

/// The same for shifts by an immediate, which takes the place of the second operand.
fn packed_by<O: Operation, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    ready(cpu)?;
    let result = O::apply(super::get(cpu, op.reg[0]), op.imm & 0xff, 0);
    set(cpu, op.reg[0], result);
    Ok(())
}

macro_rules! table {
    ($($($code:ident)|+: $handler:ident |$a:pat_param, $b:pat_param $(, $immediate:pat_param)?| $value:expr;)*) => {
        /// The handler of a packed instruction, or `None`.
        pub(super) fn select(code: Code, op: &Op) -> Option<Exec> {
            Some(match code {
                $($(Code::$code)|+ => {
                    struct It;
                    impl Operation for It {
                        #[inline]
                        fn apply($a: u64, $b: u64, immediate: u8) -> u64 {
                            $(let $immediate = immediate;)?
                            let _ = immediate;
                            $value
                        }
                    }
                    if op.has_memory() { $handler::<It, true> } else { $handler::<It, false> }
                })*
                _ => return None,
            })
        }
    };
}

table! {
    Paddb_mm_mmm64: packed |a, b| each::<U8>(a, b, u8::wrapping_add);
    Paddw_mm_mmm64: packed |a, b| each::<U16>(a, b, u16::wrapping_add);
    Paddd_mm_mmm64: packed |a, b| each::<U32>(a, b, u32::wrapping_add);
    Paddq_mm_mmm64: packed |a, b| a.wrapping_add(b);
    Paddsb_mm_mmm64: packed |a, b| each::<I8>(a, b, i8::saturating_add);
    Paddsw_mm_mmm64: packed |a, b| each::<I16>(a, b, i16::saturating_add);
    Paddusb_mm_mmm64: packed |a, b| each::<U8>(a, b, u8::saturating_add);
    Paddusw_mm_mmm64: packed |a, b| each::<U16>(a, b, u16::saturating_add);
    Psubb_mm_mmm64: packed |a, b| each::<U8>(a, b, u8::wrapping_sub);
    Psubw_mm_mmm64: packed |a, b| each::<U16>(a, b, u16::wrapping_sub);
    Psubd_mm_mmm64: packed |a, b| each::<U32>(a, b, u32::wrapping_sub);
    Psubq_mm_mmm64: packed |a, b| a.wrapping_sub(b);
    Psubsb_mm_mmm64: packed |a, b| each::<I8>(a, b, i8::saturating_sub);
    Psubsw_mm_mmm64: packed |a, b| each::<I16>(a, b, i16::saturating_sub);
    Psubusb_mm_mmm64: packed |a, b| each::<U8>(a, b, u8::saturating_sub);
    Psubusw_mm_mmm64: packed |a, b| each::<U16>(a, b, u16::saturating_sub);
    Pminub_mm_mmm64: packed |a, b| each::<U8>(a, b, Ord::min);
    Pmaxub_mm_mmm64: packed |a, b| each::<U8>(a, b, Ord::max);
    Pminsw_mm_mmm64: packed |a, b| each::<I16>(a, b, Ord::min);
    Pmaxsw_mm_mmm64: packed |a, b| each::<I16>(a, b, Ord::max);
    Pavgb_mm_mmm64: packed |a, b| {
        each::<U8>(a, b, |x, y| ((u16::from(x) + u16::from(y) + 1) >> 1) as u8)
    };
    Pavgw_mm_mmm64: packed |a, b| {
        each::<U16>(a, b, |x, y| ((u32::from(x) + u32::from(y) + 1) >> 1) as u16)
    };
    Psadbw_mm_mmm64: packed |a, b| {
        let (a, b) = (U8::split(a), U8::split(b));
        (0..8).map(|i| u64::from(a[i].abs_diff(b[i]))).sum()
    };
    Pabsb_mm_mmm64: packed |_, b| map::<I8>(b, i8::wrapping_abs);
    Pabsw_mm_mmm64: packed |_, b| map::<I16>(b, i16::wrapping_abs);
    Pabsd_mm_mmm64: packed |_, b| map::<I32>(b, i32::wrapping_abs);
    Psignb_mm_mmm64: packed |a, b| each::<I8>(a, b, |x, y| x.wrapping_mul(y.signum()));
    Psignw_mm_mmm64: packed |a, b| each::<I16>(a, b, |x, y| x.wrapping_mul(y.signum()));
    Psignd_mm_mmm64: packed |a, b| each::<I32>(a, b, |x, y| x.wrapping_mul(y.signum()));

    Pmullw_mm_mmm64: packed |a, b| each::<I16>(a, b, i16::wrapping_mul);
    Pmulhw_mm_mmm64: packed |a, b| {
        each::<I16>(a, b, |x, y| ((i32::from(x) * i32::from(y)) >> 16) as i16)
    };
    Pmulhuw_mm_mmm64: packed |a, b| {
        each::<U16>(a, b, |x, y| ((u32::from(x) * u32::from(y)) >> 16) as u16)
    };
    Pmulhrsw_mm_mmm64: packed |a, b| {
        each::<I16>(a, b, |x, y| ((((i32::from(x) * i32::from(y)) >> 14) + 1) >> 1) as i16)
    };
    Pmuludq_mm_mmm64: packed |a, b| (a & 0xffff_ffff) * (b & 0xffff_ffff);
    Pmaddwd_mm_mmm64: packed |a, b| {
        let (a, b) = (I16::split(a), I16::split(b));
        let product = |i: usize| i32::from(a[i]) * i32::from(b[i]);
        I32::join([0, 2].map(|i| product(i).wrapping_add(product(i + 1))))
    };
    Pmaddubsw_mm_mmm64: packed |a, b| {
        let (a, b) = (U8::split(a), I8::split(b));
        let product = |i: usize| i16::from(a[i]) * i16::from(b[i]);
        I16::join([0, 2, 4, 6].map(|i| product(i).saturating_add(product(i + 1))))
    };

    Phaddw_mm_mmm64: packed |a, b| horizontal_words(a, b, i16::wrapping_add);
    Phaddsw_mm_mmm64: packed |a, b| horizontal_words(a, b, i16::saturating_add);
    Phsubw_mm_mmm64: packed |a, b| horizontal_words(a, b, i16::wrapping_sub);
    Phsubsw_mm_mmm64: packed |a, b| horizontal_words(a, b, i16::saturating_sub);
    Phaddd_mm_mmm64: packed |a, b| horizontal_doublewords(a, b, i32::wrapping_add);
    Phsubd_mm_mmm64: packed |a, b| horizontal_doublewords(a, b, i32::wrapping_sub);

    Pcmpeqb_mm_mmm64: packed |a, b| each::<U8>(a, b, |x, y| if x == y { !0 } else { 0 });
    Pcmpeqw_mm_mmm64: packed |a, b| each::<U16>(a, b, |x, y| if x == y { !0 } else { 0 });
    Pcmpeqd_mm_mmm64: packed |a, b| each::<U32>(a, b, |x, y| if x == y { !0 } else { 0 });
    Pcmpgtb_mm_mmm64: packed |a, b| each::<I8>(a, b, |x, y| if x > y { !0 } else { 0 });
    Pcmpgtw_mm_mmm64: packed |a, b| each::<I16>(a, b, |x, y| if x > y { !0 } else { 0 });
    Pcmpgtd_mm_mmm64: packed |a, b| each::<I32>(a, b, |x, y| if x > y { !0 } else { 0 });

    Pand_mm_mmm64: packed |a, b| a & b;
    Pandn_mm_mmm64: packed |a, b| !a & b;
    Por_mm_mmm64: packed |a, b| a | b;
    Pxor_mm_mmm64: packed |a, b| a ^ b;

    Psllw_mm_mmm64: packed |a, count| left::<U16>(a, count);
    Pslld_mm_mmm64: packed |a, count| left::<U32>(a, count);
    Psllq_mm_mmm64: packed |a, count| left::<U64>(a, count);
    Psrlw_mm_mmm64: packed |a, count| right::<U16>(a, count);
    Psrld_mm_mmm64: packed |a, count| right::<U32>(a, count);
    Psrlq_mm_mmm64: packed |a, count| right::<U64>(a, count);
    Psraw_mm_mmm64: packed |a, count| map::<I16>(a, |x| x >> count.min(15));
    Psrad_mm_mmm64: packed |a, count| map::<I32>(a, |x| x >> count.min(31));
    Psllw_mm_imm8: packed_by |a, count| left::<U16>(a, count);
    Pslld_mm_imm8: packed_by |a, count| left::<U32>(a, count);
    Psllq_mm_imm8: packed_by |a, count| left::<U64>(a, count);
    Psrlw_mm_imm8: packed_by |a, count| right::<U16>(a, count);
    Psrld_mm_imm8: packed_by |a, count| right::<U32>(a, count);
    Psrlq_mm_imm8: packed_by |a, count| right::<U64>(a, count);
    Psraw_mm_imm8: packed_by |a, count| map::<I16>(a, |x| x >> count.min(15));
    Psrad_mm_imm8: packed_by |a, count| map::<I32>(a, |x| x >> count.min(31));

    Packsswb_mm_mmm64: packed |a, b| {
        let narrow = |x: i16| x.clamp(i8::MIN.into(), i8::MAX.into()) as i8;
        I8::join(concat(I16::split(a).map(narrow), I16::split(b).map(narrow)))
    };
    Packuswb_mm_mmm64: packed |a, b| {
        let narrow = |x: i16| x.clamp(0, u8::MAX.into()) as u8;
        U8::join(concat(I16::split(a).map(narrow), I16::split(b).map(narrow)))
    };
    Packssdw_mm_mmm64: packed |a, b| {
        let narrow = |x: i32| x.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
        I16::join(concat(I32::split(a).map(narrow), I32::split(b).map(narrow)))
    };
    Punpcklbw_mm_mmm32: packed_low |a, b| interleave_bytes(a, b);
    Punpcklwd_mm_mmm32: packed_low |a, b| interleave_words(a, b);
    Punpckldq_mm_mmm32: packed_low |a, b| a & 0xffff_ffff | b << 32;
    Punpckhbw_mm_mmm64: packed |a, b| interleave_bytes(a >> 32, b >> 32);
    Punpckhwd_mm_mmm64: packed |a, b| interleave_words(a >> 32, b >> 32);
    Punpckhdq_mm_mmm64: packed |a, b| a >> 32 | b >> 32 << 32;

    Pshufb_mm_mmm64: packed |a, b| {
        let bytes = U8::split(a);
        map::<U8>(b, |index| if index & 0x80 != 0 { 0 } else { bytes[usize::from(index & 7)] })
    };
    Pshufw_mm_mmm64_imm8: packed |_, b, order| {
        let words = U16::split(b);
        U16::join([0, 2, 4, 6].map(|shift| words[usize::from(order >> shift & 3)]))
    };
    Palignr_mm_mmm64_imm8: packed |a, b, count| {
        let both = u128::from(a) << 64 | u128::from(b);
        both.checked_shr(u32::from(count) * 8).unwrap_or(0) as u64
    };
}

/// Joins two halves of a vector.
fn concat<T: Copy, const HALF: usize, const WHOLE: usize>(
    low: [T; HALF],
    high: [T; HALF],
) -> [T; WHOLE] {
    std::array::from_fn(|i| if i < HALF { low[i] } else { high[i - HALF] })
}

/// The neighbours of `a`, then those of `b`, combined.
fn horizontal_words(a: u64, b: u64, f: impl Fn(i16, i16) -> i16) -> u64 {
    let (a, b) = (I16::split(a), I16::split(b));
    I16::join([f(a[0], a[1]), f(a[2], a[3]), f(b[0], b[1]), f(b[2], b[3])])
}

fn horizontal_doublewords(a: u64, b: u64, f: impl Fn(i32, i32) -> i32) -> u64 {
    let (a, b) = (I32::split(a), I32::split(b));
    I32::join([f(a[0], a[1]), f(b[0], b[1])])
}

/// The low four bytes of both, alternating.
fn interleave_bytes(a: u64, b: u64) -> u64 {
    let (a, b) = (U8::split(a), U8::split(b));
    U8::join(std::array::from_fn(|i| if i % 2 == 0 { a[i / 2] } else { b[i / 2] }))
}

/// The low two words of both, alternating.
fn interleave_words(a: u64, b: u64) -> u64 {
    let (a, b) = (U16::split(a), U16::split(b));
    U16::join(std::array::from_fn(|i| if i % 2 == 0 { a[i / 2] } else { b[i / 2] }))
}

/// A lane that can be shifted by any count, all bits out when it is too large.
trait Shift: Copy {
    fn left(self, count: u64) -> Self;
    fn right(self, count: u64) -> Self;
}

macro_rules! shift {
    ($($lane:ty),*) => {$(
        impl Shift for $lane {
            #[inline]
            fn left(self, count: u64) -> Self {
                u32::try_from(count).ok().and_then(|count| self.checked_shl(count)).unwrap_or(0)
            }

            #[inline]
            fn right(self, count: u64) -> Self {
                u32::try_from(count).ok().and_then(|count| self.checked_shr(count)).unwrap_or(0)
            }
        }
    )*};
}

shift!(u16, u32, u64);

fn left<L: Lanes<Lane: Shift>>(a: u64, count: u64) -> u64 {
    map::<L>(a, |lane| lane.left(count))
}

fn right<L: Lanes<Lane: Shift>>(a: u64, count: u64) -> u64 {
    map::<L>(a, |lane| lane.right(count))
}
