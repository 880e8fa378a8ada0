//! What the processor says it is, and that it is that: CPUID, features, model-specific registers,
//! the time stamp counter (SDM 2A, CPUID; SDM 4).

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use riad_cpu::x86::{cr4, model, msr};

use super::Lender;
use super::machine::{DATA, Guest};

/// CPUID as the guest sees it: EAX, EBX, ECX, EDX.
fn cpuid(guest: &mut Guest, leaf: u32, subleaf: u32) -> [u32; 4] {
    guest.state.rip = super::machine::CODE;
    guest.program_finishes(|a| {
        a.mov(eax, leaf)?;
        a.mov(ecx, subleaf)?;
        a.cpuid()
    });
    [guest.rax(), guest.rbx(), guest.rcx(), guest.rdx()].map(|value| value as u32)
}

#[test]
fn cpuid_tells_the_vendor_and_its_last_leaves() {
    let mut guest = Guest::long();
    let [last, b, c, d] = cpuid(&mut guest, 0, 0);
    let vendor: Vec<u8> = [b, d, c].iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(vendor, b"GenuineIntel");
    assert_eq!(cpuid(&mut guest, last + 1, 0), cpuid(&mut guest, last, 0), "beyond the last");
    assert!(cpuid(&mut guest, 0x8000_0000, 0)[0] >= 0x8000_0008);
    assert_eq!(cpuid(&mut guest, 0x8000_0008, 0)[0], 48 << 8 | model::PHYSICAL_BITS);
}

#[test]
fn cpuid_clears_the_upper_halves() {
    let mut guest = Guest::long();
    guest.program_finishes(|a| {
        for register in [rax, rbx, rcx, rdx] {
            a.mov(register, -1i64 as u64)?;
        }
        a.mov(eax, 0)?;
        a.cpuid()
    });
    assert!([guest.rax(), guest.rbx(), guest.rcx(), guest.rdx()].iter().all(|v| v >> 32 == 0));
}

#[test]
fn cpuid_shows_osxsave_and_the_apic_as_they_are() {
    let mut guest = Guest::long();
    assert_eq!(cpuid(&mut guest, 1, 0)[2] >> 27 & 1, 0);
    guest.state.control.cr4 |= cr4::OSXSAVE;
    let [_, b, c, d] = cpuid(&mut guest, 1, 0);
    assert_eq!((c >> 27 & 1, d >> 9 & 1, b >> 24), (1, 1, 0));
    guest.state.apic.base &= !(1 << 11);
    assert_eq!(cpuid(&mut guest, 1, 0)[3] >> 9 & 1, 0);
}

#[test]
fn cpuid_tells_the_frequency_of_the_time_stamp_counter() {
    let mut guest = Guest::long();
    let [denominator, numerator, crystal, _] = cpuid(&mut guest, 0x15, 0);
    let frequency = u64::from(crystal) * u64::from(numerator) / u64::from(denominator);
    let wanted = 1000 * u64::from(Lender::tsc_khz());
    // A fraction of small numbers: within two millionths.
    assert!(frequency.abs_diff(wanted) <= wanted / 500_000, "{frequency} Hz, and not {wanted}");
}

/// Whether this instruction raises #UD.
fn undefined(body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> bool {
    let mut guest = Guest::long();
    guest.state.control.cr4 |= cr4::OSXSAVE | cr4::FSGSBASE;
    guest.state.gpr[3] = DATA;
    guest.program(body);
    match guest.go() {
        None => false,
        Some(trap) => {
            assert_eq!(trap.what(), (6, None), "{trap:?}");
            true
        }
    }
}

/// A feature's bit: leaf, register (0 is EAX), bit.
type Bit = (u32, usize, u32);

fn has(bit: Bit) -> bool {
    cpuid(&mut Guest::long(), bit.0, 0)[bit.1] >> bit.2 & 1 != 0
}

#[test]
fn features_that_cpuid_shows_work() {
    type Body = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let features: &[(&str, Bit, Body)] = &[
        ("CMOV", (1, 3, 15), |a| a.cmove(eax, ebx)),
        ("CMPXCHG8B", (1, 3, 8), |a| a.cmpxchg8b(qword_ptr(rbx))),
        ("CLFLUSH", (1, 3, 19), |a| a.clflush(byte_ptr(rbx))),
        ("MMX", (1, 3, 23), |a| a.paddb(mm0, mm1).and_then(|()| a.emms())),
        ("FXSAVE", (1, 3, 24), |a| a.fxsave(ptr(rbx))),
        ("SSE", (1, 3, 25), |a| a.addps(xmm0, xmm1)),
        ("SSE2", (1, 3, 26), |a| a.addpd(xmm0, xmm1)),
        ("SSE3", (1, 2, 0), |a| a.haddps(xmm0, xmm1)),
        ("SSSE3", (1, 2, 9), |a| a.pshufb(xmm0, xmm1)),
        ("CMPXCHG16B", (1, 2, 13), |a| a.cmpxchg16b(xmmword_ptr(rbx))),
        ("SSE4.1", (1, 2, 19), |a| a.pmuldq(xmm0, xmm1)),
        ("SSE4.2", (1, 2, 20), |a| a.crc32(eax, bl)),
        ("POPCNT", (1, 2, 23), |a| a.popcnt(eax, ebx)),
        ("XSAVE", (1, 2, 26), |a| a.xor(ecx, ecx).and_then(|()| a.xgetbv())),
        ("RDRAND", (1, 2, 30), |a| a.rdrand(eax)),
        ("RDSEED", (7, 1, 18), |a| a.rdseed(eax)),
        ("FSGSBASE", (7, 1, 0), |a| a.rdfsbase(rax)),
        ("INVPCID", (7, 1, 10), |a| {
            a.mov(eax, 2)?;
            a.invpcid(rax, xmmword_ptr(rbx))
        }),
        ("SMAP", (7, 1, 20), |a| a.stac().and_then(|()| a.clac())),
        ("RDTSCP", (0x8000_0001, 3, 27), |a| a.rdtscp()),
        ("LAHF", (0x8000_0001, 2, 0), |a| a.lahf()),
    ];
    for (name, bit, body) in features {
        // An engine may lack what its host does.
        assert!(has(*bit) || Lender::NATIVE, "{name} is part of riad-v1");
        assert!(!has(*bit) || !undefined(body), "{name}");
    }
}

#[test]
fn features_that_cpuid_hides_do_not_exist() {
    let features: &[(&str, Option<Bit>, &[u8])] = &[
        ("PCLMULQDQ", Some((1, 2, 1)), &[0x66, 0x0f, 0x3a, 0x44, 0xc1, 0]),
        ("MONITOR", Some((1, 2, 3)), &[0x0f, 0x01, 0xc8]),
        ("VMCALL", Some((1, 2, 5)), &[0x0f, 0x01, 0xc1]),
        ("FMA", Some((1, 2, 12)), &[0xc4, 0xe2, 0x71, 0x98, 0xc2]),
        ("MOVBE", Some((1, 2, 22)), &[0x0f, 0x38, 0xf0, 0x03]),
        ("AESENC", Some((1, 2, 25)), &[0x66, 0x0f, 0x38, 0xdc, 0xc1]),
        ("VADDPS", Some((1, 2, 28)), &[0xc5, 0xf0, 0x58, 0xc2]),
        ("F16C", Some((1, 2, 29)), &[0xc4, 0xe2, 0x79, 0x13, 0xc1]),
        ("ANDN", Some((7, 1, 3)), &[0xc4, 0xe2, 0x70, 0xf2, 0xc1]),
        ("AVX2", Some((7, 1, 5)), &[0xc5, 0xf5, 0xfc, 0xc2]),
        ("BZHI", Some((7, 1, 8)), &[0xc4, 0xe2, 0x70, 0xf5, 0xc1]),
        ("XBEGIN", Some((7, 1, 11)), &[0xc7, 0xf8, 0, 0, 0, 0]),
        ("ADCX", Some((7, 1, 19)), &[0x66, 0x0f, 0x38, 0xf6, 0xc1]),
        ("CLFLUSHOPT", Some((7, 1, 23)), &[0x66, 0x0f, 0xae, 0x3b]),
        ("CLWB", Some((7, 1, 24)), &[0x66, 0x0f, 0xae, 0x33]),
        ("SHA256RNDS2", Some((7, 1, 29)), &[0x0f, 0x38, 0xcb, 0xc1]),
        ("RDPID", Some((7, 2, 22)), &[0xf3, 0x0f, 0xc7, 0xf8]),
        ("EXTRQ (SSE4a)", Some((0x8000_0001, 2, 6)), &[0x66, 0x0f, 0x79, 0xc1]),
        ("VMRUN", Some((0x8000_0001, 2, 2)), &[0x0f, 0x01, 0xd8]),
        ("3DNow!", Some((0x8000_0001, 3, 31)), &[0x0f, 0x0f, 0xc1, 0x9e]),
        ("RSM", None, &[0x0f, 0xaa]),
        ("UD0", None, &[0x0f, 0xff, 0xc0]),
        ("LOCK where it may not be", None, &[0xf0, 0x01, 0xd8]),
        ("opcodes of 32-bit code", None, &[0x37]),
    ];
    for (name, bit, bytes) in features {
        assert!(bit.is_none_or(|bit| !has(bit)), "{name}");
        // A processor that has an instruction runs it, whatever CPUID is made to say.
        assert!(Lender::NATIVE || undefined(|a| a.db(bytes)), "{name}");
    }
}

#[test]
fn lzcnt_and_tzcnt_are_bsr_and_bsf_where_they_do_not_exist() {
    assert!(!has((7, 1, 3)) && !has((0x8000_0001, 2, 5)));
    if Lender::NATIVE {
        return;
    }
    let mut guest = Guest::long();
    guest.state.gpr[3] = 0x80;
    guest.program_finishes(|a| {
        a.lzcnt(eax, ebx)?;
        a.tzcnt(ecx, ebx)
    });
    assert_eq!((guest.rax(), guest.rcx()), (7, 7));
}

// --- model-specific registers ---

fn rdmsr(number: u32) -> Option<u64> {
    let mut guest = Guest::long();
    guest.state.gpr[1] = u64::from(number);
    guest.program(|a| a.rdmsr());
    match guest.go() {
        None => Some(guest.rdx() << 32 | guest.rax()),
        Some(trap) => {
            assert_eq!(trap.what(), (13, Some(0)));
            None
        }
    }
}

fn wrmsr(number: u32, value: u64) -> bool {
    let mut guest = Guest::long();
    guest.state.gpr[1] = u64::from(number);
    guest.state.gpr[0] = value & 0xffff_ffff;
    guest.state.gpr[2] = value >> 32;
    guest.program(|a| a.wrmsr());
    match guest.go() {
        None => true,
        Some(trap) => {
            assert_eq!(trap.what(), (13, Some(0)));
            false
        }
    }
}

#[test]
fn unknown_registers_are_general_protection_faults() {
    for number in [0x1234, 0xc000_0105, 0xc001_0fff, 0xffff_ffff, 0x801] {
        assert_eq!(rdmsr(number), None, "{number:#x}");
        assert!(!wrmsr(number, 0), "{number:#x}");
    }
    assert!(!wrmsr(msr::MTRRCAP, 0), "read-only");
}

#[test]
fn registers_of_hypervisors_that_cpuid_does_not_name_do_not_exist() {
    // KVM's clocks, stolen time and later faults; Hyper-V's identity.
    for number in [0x11, 0x12, 0x4b56_4d00, 0x4b56_4d01, 0x4b56_4d02, 0x4b56_4d03, 0x4000_0000] {
        assert_eq!(rdmsr(number), None, "{number:#x}");
        assert!(!wrmsr(number, 0), "{number:#x}");
    }
}

#[test]
fn registers_refuse_values_they_cannot_hold() {
    let cases = [
        (msr::LSTAR, 1 << 63),
        (msr::CSTAR, 1 << 50),
        (msr::FS_BASE, 0x8000_0000_0000),
        (msr::GS_BASE, 1 << 60),
        (msr::KERNEL_GS_BASE, 1 << 60),
        (msr::SYSENTER_EIP, 1 << 60),
        (msr::SYSENTER_ESP, 1 << 60),
        (msr::TSC_AUX, 1 << 32),
        (msr::PAT, 2),
        (msr::PAT, 0xff << 56),
        (msr::MTRR_DEF_TYPE, 2),
        (msr::MTRR_DEF_TYPE, 1 << 12),
        (msr::MTRR_PHYSBASE0, 0x102),
        (msr::MTRR_PHYSBASE0 + 1, 1 << 40),
        (msr::MTRR_PHYSBASE0 + 1, 1 << 8),
        (msr::MTRR_FIX64K_00000, 3),
        (msr::APIC_BASE, 0xfee0_0400),
        (msr::APIC_BASE, 1 << 50),
        (msr::EFER, 1 << 1),
        (msr::X2APIC_FIRST + 8, 0),
    ];
    for (number, value) in cases {
        assert!(!wrmsr(number, value), "{number:#x} = {value:#x}");
    }
    for (number, value) in [
        (msr::LSTAR, 0xffff_ffff_8000_0000),
        (msr::PAT, 0x0007_0406_0007_0406),
        (msr::MTRR_DEF_TYPE, 0xc06),
        (msr::MTRR_PHYSBASE0 + 1, 0xff_c000_0800),
    ] {
        assert!(wrmsr(number, value), "{number:#x} = {value:#x}");
    }
}

// --- the time stamp counter (SDM 3B, 18.17) ---

#[test]
fn the_time_stamp_counter_moves_with_guest_time_and_can_be_set() {
    let mut guest = Guest::long();
    guest.state.tsc = 1000;
    guest.program_finishes(|a| {
        a.rdtsc()?;
        a.mov(r8d, eax)?;
        a.mov(ecx, 0x10)?;
        a.mov(eax, 0x1000_0000)?;
        a.mov(edx, 2)?;
        a.wrmsr()?;
        a.mov(ecx, 0x3b)?;
        a.rdmsr()?;
        a.mov(r9d, eax)?;
        a.rdtsc()
    });
    let (first, last) = (guest.state.gpr[8], guest.rdx() << 32 | guest.rax());
    let adjusted = guest.state.gpr[9] as u32;
    if Lender::COUNTS {
        assert_eq!((first, last), (1000, 0x2_1000_0000));
        assert_eq!(adjusted, 0x1000_0000 - 1000, "TSC_ADJUST has the difference");
    } else {
        // It moves meanwhile, for no more than a second.
        let second = 1000 * u64::from(Lender::tsc_khz());
        assert!((1000..second).contains(&first), "{first}");
        assert!((0x2_1000_0000..0x2_1000_0000 + second).contains(&last), "{last:#x}");
        assert!(adjusted <= 0x1000_0000 - 1000, "{adjusted:#x}");
    }
}

#[test]
fn rdtscp_tells_tsc_aux_and_tsd_keeps_level_3_out() {
    let mut guest = Guest::user();
    guest.state.msrs.tsc_aux = 0x77;
    guest.program_traps(|a| a.rdtscp().and_then(|()| a.ud2()));
    assert_eq!(guest.rcx(), 0x77);
    for level in [0, 3] {
        let mut guest = if level == 0 { Guest::long() } else { Guest::user() };
        guest.state.control.cr4 |= cr4::TSD;
        let trap = guest.program_traps(|a| a.rdtsc().and_then(|()| a.ud2()));
        assert_eq!(trap.vector, if level == 0 { 6 } else { 13 });
    }
}
