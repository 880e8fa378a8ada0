//! x87, SSE and AVX state in the area that KVM_GET_XSAVE gives (SDM 1, 13.4: the standard form).

use riad_cpu::x86::{F80, Fpu};

/// Byte offsets in the legacy region (SDM 1, table 10-2, the 64-bit form).
const FCW: usize = 0;
const FSW: usize = 2;
const FTW: usize = 4;
const FOP: usize = 6;
const FIP: usize = 8;
const FDP: usize = 16;
const MXCSR: usize = 24;
const ST: usize = 32;
const XMM: usize = 160;
/// Which components the area holds.
const XSTATE_BV: usize = 512;
/// Upper halves of YMM0 to YMM15, on every processor that has them (CPUID 0xd.2).
const YMM: usize = 576;

const X87: u64 = 1;
const SSE: u64 = 2;
const AVX: u64 = 4;

/// The area's size in bytes.
pub(super) const SIZE: usize = 4096;

/// The area, as bytes.
pub(super) type Area = [u8; SIZE];

fn word<const N: usize>(area: &Area, at: usize) -> [u8; N] {
    std::array::from_fn(|i| area[at + i])
}

/// What the area holds. Components that are in their initial state read as such.
pub(super) fn read(area: &Area) -> Fpu {
    let holds = u64::from_le_bytes(word(area, XSTATE_BV));
    let mut fpu = Fpu { mxcsr: u32::from_le_bytes(word(area, MXCSR)), ..Fpu::default() };
    if holds & X87 != 0 {
        fpu.fcw = u16::from_le_bytes(word(area, FCW));
        fpu.fsw = u16::from_le_bytes(word(area, FSW));
        fpu.ftw = area[FTW];
        fpu.fop = u16::from_le_bytes(word(area, FOP));
        fpu.fip = u64::from_le_bytes(word(area, FIP));
        fpu.fdp = u64::from_le_bytes(word(area, FDP));
        let top = usize::from(fpu.fsw >> 11 & 7);
        for i in 0..8 {
            // The area has ST(i), the table physical registers.
            fpu.registers[(top + i) & 7] = F80 {
                significand: u64::from_le_bytes(word(area, ST + i * 16)),
                sign_exponent: u16::from_le_bytes(word(area, ST + i * 16 + 8)),
            };
        }
    }
    for i in 0..16 {
        if holds & SSE != 0 {
            fpu.xmm[i] = u128::from_le_bytes(word(area, XMM + i * 16));
        }
        if holds & AVX != 0 {
            fpu.ymm_high[i] = u128::from_le_bytes(word(area, YMM + i * 16));
        }
    }
    fpu
}

/// Puts the state into an area that the kernel gave; what the table does not know stays.
/// `avx`: whether the processor has the upper halves.
pub(super) fn write(area: &mut Area, fpu: &Fpu, avx: bool) {
    let Fpu { fcw, fsw, ftw, fop, fip, fcs: _, fdp, fds: _, registers, mxcsr, xmm, ymm_high } = fpu;
    let mut put = |at: usize, bytes: &[u8]| area[at..at + bytes.len()].copy_from_slice(bytes);
    put(FCW, &fcw.to_le_bytes());
    put(FSW, &fsw.to_le_bytes());
    put(FTW, &[*ftw, 0]);
    put(FOP, &fop.to_le_bytes());
    put(FIP, &fip.to_le_bytes());
    put(FDP, &fdp.to_le_bytes());
    put(MXCSR, &mxcsr.to_le_bytes());
    let top = usize::from(fsw >> 11 & 7);
    for i in 0..8 {
        let register = registers[(top + i) & 7];
        put(ST + i * 16, &register.significand.to_le_bytes());
        put(ST + i * 16 + 8, &register.sign_exponent.to_le_bytes());
        put(XMM + i * 16, &xmm[i].to_le_bytes());
        put(XMM + (i + 8) * 16, &xmm[i + 8].to_le_bytes());
    }
    let mut holds = u64::from_le_bytes(word(area, XSTATE_BV)) | X87 | SSE;
    if avx && ymm_high.iter().any(|half| *half != 0) {
        for (i, half) in ymm_high.iter().enumerate() {
            area[YMM + i * 16..YMM + i * 16 + 16].copy_from_slice(&half.to_le_bytes());
        }
        holds |= AVX;
    } else {
        holds &= !AVX;
    }
    area[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&holds.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use riad_cpu::x86::{F80, Fpu};

    use super::{SIZE, read, write};

    fn busy() -> Fpu {
        Fpu {
            fcw: 0x27f,
            fsw: 5 << 11 | 0x41,
            ftw: 0b1010_0101,
            fop: 0x123,
            fip: 0x1234_5678_9abc,
            fdp: 0xfedc_ba98,
            registers: std::array::from_fn(|i| F80 {
                significand: 0x8000_0000_0000_0000 | i as u64,
                sign_exponent: 0x4000 + i as u16,
            }),
            mxcsr: 0x1fa0,
            xmm: std::array::from_fn(|i| (i as u128) << 100 | 7),
            ymm_high: std::array::from_fn(|i| (i as u128) << 64 | 9),
            ..Fpu::default()
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let mut area = [0; SIZE];
        write(&mut area, &busy(), true);
        assert_eq!(read(&area), busy());
        write(&mut area, &busy(), false);
        assert_eq!(read(&area), Fpu { ymm_high: [0; 16], ..busy() });
    }

    #[test]
    fn registers_are_stored_from_the_top_of_the_stack() {
        let mut area = [0; SIZE];
        write(&mut area, &busy(), false);
        // TOP is 5: ST(0) is R5.
        assert_eq!(area[32], 5);
        assert_eq!(area[32 + 16 * 3], 0);
    }

    #[test]
    fn components_in_their_initial_state_read_as_such() {
        let area = [0x55; SIZE];
        let mut empty = area;
        empty[512..520].fill(0);
        let fpu = read(&empty);
        assert_eq!((fpu.fcw, fpu.xmm[3], fpu.ftw), (0x37f, 0, 0));
    }
}
