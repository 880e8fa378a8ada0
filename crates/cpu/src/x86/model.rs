//! The CPU model `riad-v1`, as CPUID tells it (Intel SDM 2A, CPUID): x86-64-v2 with NX, PCID,
//! INVPCID, SMEP, SMAP, UMIP, FSGSBASE, RDTSCP, RDRAND, RDSEED, 1 GiB pages, x2APIC, TSC deadline
//! and XSAVE. Every engine shows guests this one, so that a snapshot moves between them.
//!
//! The vendor is Intel's because kernels take the time stamp counter's frequency from leaf 0x15 on
//! no other; family 6, model 44 has no erratum that kernels work around in ways that cost.

use super::{cr0, cr4, efer};

/// Family 6, model 44, stepping 2: what CPUID leaf 1 has in EAX and RESET leaves in EDX.
pub const SIGNATURE: u32 = 0x0002_06c2;

/// Width of physical addresses in bits.
pub const PHYSICAL_BITS: u32 = 40;

/// Bytes of the XSAVE area for x87 and SSE.
pub const XSAVE_SIZE: u32 = 576;

/// XCR0 bits a guest may set: x87 and SSE.
pub const XCR0_SUPPORTED: u64 = 3;

/// CR0 bits a guest may set.
pub const CR0_SUPPORTED: u64 = cr0::PE
    | cr0::MP
    | cr0::EM
    | cr0::TS
    | cr0::ET
    | cr0::NE
    | cr0::WP
    | cr0::AM
    | cr0::NW
    | cr0::CD
    | cr0::PG;

/// CR4 bits a guest may set.
pub const CR4_SUPPORTED: u64 = cr4::TSD
    | cr4::DE
    | cr4::PSE
    | cr4::PAE
    | cr4::MCE
    | cr4::PGE
    | cr4::PCE
    | cr4::OSFXSR
    | cr4::OSXMMEXCPT
    | cr4::UMIP
    | cr4::FSGSBASE
    | cr4::PCIDE
    | cr4::OSXSAVE
    | cr4::SMEP
    | cr4::SMAP;

/// IA32_EFER bits a guest may set.
pub const EFER_SUPPORTED: u64 = efer::SCE | efer::LME | efer::LMA | efer::NXE;

/// What CPUID's answer depends on besides the model.
#[derive(Debug, Clone, Copy)]
pub struct CpuidContext {
    /// Local APIC id of the asking processor.
    pub apic_id: u32,
    /// Number of processors.
    pub count: u32,
    /// Frequency of the time stamp counter in kHz.
    pub tsc_khz: u32,
    /// CR4.OSXSAVE of the asking processor.
    pub osxsave: bool,
    /// Whether the local APIC is enabled in IA32_APIC_BASE.
    pub apic_enabled: bool,
}

/// Bits of CPUID leaf 1, EDX.
const LEAF1_EDX: u32 = 1 << 0 // FPU
    | 1 << 2 // DE
    | 1 << 3 // PSE
    | 1 << 4 // TSC
    | 1 << 5 // MSR
    | 1 << 6 // PAE
    | 1 << 8 // CX8
    | 1 << 11 // SEP
    | 1 << 12 // MTRR
    | 1 << 13 // PGE
    | 1 << 15 // CMOV
    | 1 << 16 // PAT
    | 1 << 17 // PSE-36
    | 1 << 19 // CLFSH
    | 1 << 23 // MMX
    | 1 << 24 // FXSR
    | 1 << 25 // SSE
    | 1 << 26; // SSE2

/// Bits of CPUID leaf 1, ECX.
const LEAF1_ECX: u32 = 1 << 0 // SSE3
    | 1 << 9 // SSSE3
    | 1 << 13 // CX16
    | 1 << 17 // PCID
    | 1 << 19 // SSE4.1
    | 1 << 20 // SSE4.2
    | 1 << 21 // x2APIC
    | 1 << 23 // POPCNT
    | 1 << 24 // TSC deadline
    | 1 << 26 // XSAVE
    | 1 << 30 // RDRAND
    | 1 << 31; // a hypervisor is present

/// Bits of CPUID leaf 7, EBX.
const LEAF7_EBX: u32 = 1 << 0 // FSGSBASE
    | 1 << 1 // TSC_ADJUST
    | 1 << 7 // SMEP
    | 1 << 9 // ERMS
    | 1 << 10 // INVPCID
    | 1 << 13 // FPU CS and DS deprecated
    | 1 << 18 // RDSEED
    | 1 << 20; // SMAP

/// CPUID's answer: EAX, EBX, ECX, EDX.
#[must_use]
pub fn cpuid(leaf: u32, subleaf: u32, context: &CpuidContext) -> [u32; 4] {
    const LAST_BASIC: u32 = 0x16;
    const LAST_EXTENDED: u32 = 0x8000_0008;
    let id = context.apic_id;
    let apic = if context.apic_enabled { 1 << 9 } else { 0 };
    let osxsave = if context.osxsave { 1 << 27 } else { 0 };
    let many = if context.count > 1 { 1 << 28 } else { 0 };
    let mhz = context.tsc_khz / 1000;
    match leaf {
        0 => [LAST_BASIC, text(b"Genu"), text(b"ntel"), text(b"ineI")],
        1 => [
            SIGNATURE,
            id << 24 | context.count.min(255) << 16 | 8 << 8,
            LEAF1_ECX | osxsave,
            LEAF1_EDX | apic | many,
        ],
        // Descriptor 0xff: the caches are described by leaf 4.
        2 => [0x00ff_ff01, 0, 0, 0],
        4 => cache(subleaf, context.count),
        // No MONITOR.
        5 | 6 => [0; 4],
        7 if subleaf == 0 => [0, LEAF7_EBX, 1 << 2, 1 << 4 | 1 << 29],
        0xb => topology(subleaf, context),
        0xd => match subleaf {
            0 => [XCR0_SUPPORTED as u32, XSAVE_SIZE, XSAVE_SIZE, 0],
            1 => [1, 0, 0, 0], // XSAVEOPT
            _ => [0; 4],
        },
        // TSC = crystal * EBX / EAX; the crystal's frequency in Hz in ECX.
        // The crystal is also what the local APIC's timer counts: 1 GHz (`lapic::TIMER_HZ`).
        0x15 => {
            let (numerator, denominator) = crystal_ratio(context.tsc_khz);
            [denominator, numerator, 1_000_000_000, 0]
        }
        0x16 => [mhz, mhz, 100, 0],
        0x4000_0000 => [0x4000_0010, text(b"Riad"), text(b"Riad"), text(b"Riad")],
        0x4000_0010 => [context.tsc_khz, 1_000_000, 0, 0],
        0x8000_0000 => [LAST_EXTENDED, 0, 0, 0],
        0x8000_0001 => [
            0,
            0,
            1,                                               // LAHF in 64-bit mode
            1 << 11 | 1 << 20 | 1 << 26 | 1 << 27 | 1 << 29, // SYSCALL NX 1GB RDTSCP LM
        ],
        0x8000_0002..=0x8000_0004 => {
            let name: &[u8; 48] =
                b"Riad virtual processor (riad-v1)\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
            let at = (leaf - 0x8000_0002) as usize * 16;
            std::array::from_fn(|i| {
                let at = at + i * 4;
                u32::from_le_bytes([name[at], name[at + 1], name[at + 2], name[at + 3]])
            })
        }
        0x8000_0006 => [0, 0, 512 << 16 | 6 << 12 | 64, 0],
        0x8000_0007 => [0, 0, 0, 1 << 8], // invariant TSC
        0x8000_0008 => [48 << 8 | PHYSICAL_BITS, 0, 0, 0],
        // SDM: a basic leaf above the last answers as the last one does.
        _ if leaf > LAST_EXTENDED || (leaf > LAST_BASIC && leaf < 0x4000_0000) => {
            cpuid(LAST_BASIC, subleaf, context)
        }
        _ => [0; 4],
    }
}

/// Deterministic cache parameters (leaf 4): 32 KiB L1, 512 KiB L2 a core; 16 MiB L3 for all.
fn cache(subleaf: u32, count: u32) -> [u32; 4] {
    let cores = (count.next_power_of_two() - 1).min(63) << 26;
    let entry = |kind: u32, level: u32, sharing: u32, ways: u32, sets: u32| {
        [
            kind | level << 5 | 1 << 8 | (sharing - 1) << 14 | cores,
            (ways - 1) << 22 | 63,
            sets - 1,
            0,
        ]
    };
    match subleaf {
        0 => entry(1, 1, 1, 8, 64),
        1 => entry(2, 1, 1, 8, 64),
        2 => entry(3, 2, 1, 8, 1024),
        3 => entry(3, 3, count.next_power_of_two(), 16, 16384),
        _ => [0; 4],
    }
}

/// Extended topology (leaf 0xb): one thread a core, all cores in one package.
fn topology(subleaf: u32, context: &CpuidContext) -> [u32; 4] {
    let core_bits = context.count.next_power_of_two().trailing_zeros();
    match subleaf {
        0 => [0, 1, 1 << 8, context.apic_id],
        1 => [core_bits, context.count, 2 << 8 | 1, context.apic_id],
        _ => [0, 0, subleaf & 0xff, context.apic_id],
    }
}

/// The time stamp counter's frequency as a fraction of the crystal's 1 GHz. Kernels multiply the
/// crystal's kHz by the numerator in 32 bits, so it is kept under 4096: the closest such fraction, by
/// its continued fraction. That is exact for the frequencies we choose; close to a fraction of small
/// numbers, where others are far, it may be some ten millionths off, which timekeeping slews away.
fn crystal_ratio(tsc_khz: u32) -> (u32, u32) {
    const MOST: u64 = 4095;
    const CRYSTAL_KHZ: u64 = 1_000_000;
    let wanted = u64::from(tsc_khz.max(1));
    let (mut n, mut d) = (wanted, CRYSTAL_KHZ);
    let (mut last, mut ratio) = ((0, 1), (1, 0));
    while d != 0 {
        let whole = n / d;
        let most = (MOST - last.0) / ratio.0;
        let next = |times: u64| (times * ratio.0 + last.0, times * ratio.1 + last.1);
        if whole > most {
            // The last step as far as it goes may be closer than the one before it.
            let part = next(most);
            if distance(part, wanted) < distance(ratio, wanted) {
                ratio = part;
            }
            break;
        }
        (last, ratio) = (ratio, next(whole));
        (n, d) = (d, n % d);
    }
    return (ratio.0 as u32, ratio.1 as u32);

    /// How far a fraction is from the counter's, times 10^12.
    fn distance((n, d): (u64, u64), khz: u64) -> u128 {
        if d == 0 {
            return u128::MAX;
        }
        let scaled = |n: u64, d: u64| u128::from(n) * 1_000_000_000_000 / u128::from(d);
        scaled(n, d).abs_diff(scaled(khz, CRYSTAL_KHZ))
    }
}

const fn text(four: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*four)
}

#[cfg(test)]
#[path = "model_test.rs"]
mod tests;
