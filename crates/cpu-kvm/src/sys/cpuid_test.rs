use kvm_bindings::CpuId;
use riad_cpu::x86::model::{self, CpuidContext};

use super::{FEATURES, INDISPENSABLE, Register, entry, host, leaves};

fn context() -> CpuidContext {
    CpuidContext { apic_id: 0, count: 2, tsc_khz: 2_500_000, osxsave: false, apic_enabled: true }
}

#[test]
fn each_feature_that_is_masked_is_one_of_the_models() {
    for (leaf, subleaf, register, bit, name) in FEATURES {
        let answer = model::cpuid(leaf, subleaf, &context())[register as usize];
        assert!(answer & 1 << bit != 0, "{name}");
    }
    for name in INDISPENSABLE {
        assert!(FEATURES.iter().any(|feature| feature.4 == name), "{name}");
    }
}

#[test]
fn no_feature_of_the_model_goes_unmasked() {
    // Fixed by KVM or by us whatever the host: FPU, TSC, MSR, PAE, APIC, PSE-36, CLFLUSH, HTT; the
    // hypervisor's bit.
    let free_edx = 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 9 | 1 << 17 | 1 << 19 | 1 << 28;
    let [_, _, ecx, edx] = model::cpuid(1, 0, &context());
    let listed = |leaf: u32, wanted: u8| {
        FEATURES
            .iter()
            .filter(|(at, _, register, ..)| *at == leaf && *register as u8 == wanted)
            .fold(0u32, |all, feature| all | 1 << feature.3)
    };
    assert_eq!(ecx & !(1 << 31), listed(1, Register::Ecx as u8));
    assert_eq!(edx & !free_edx, listed(1, Register::Edx as u8));
    // FPU CS and DS deprecated says what is not there.
    assert_eq!(model::cpuid(7, 0, &context())[1] & !(1 << 13), listed(7, Register::Ebx as u8));
}

#[test]
fn every_leaf_of_the_model_is_told() {
    let told: Vec<_> = leaves().into_iter().map(|(leaf, subleaf, _)| (leaf, subleaf)).collect();
    let empty = [0; 4];
    for leaf in (0..0x17).chain(0x4000_0000..0x4000_0011).chain(0x8000_0000..0x8000_0009) {
        for subleaf in 0..5 {
            let answer = model::cpuid(leaf, subleaf, &context());
            let indexed = told.iter().filter(|(at, _)| *at == leaf).count() > 1;
            if answer != empty && (subleaf == 0 || indexed) && leaf != 0xb {
                assert!(told.contains(&(leaf, subleaf)), "{leaf:#x}.{subleaf}");
            }
        }
    }
}

/// What a host's KVM might support: everything, of this maker.
fn everything(maker: &[u8; 12]) -> CpuId {
    let word =
        |at: usize| u32::from_le_bytes([maker[at], maker[at + 1], maker[at + 2], maker[at + 3]]);
    let mut entries = vec![entry(0, 0, false, [0x20, word(0), word(8), word(4)])];
    let all = [u32::MAX; 4];
    for leaf in (1..=0x20).chain(0x4000_0000..=0x4000_0001).chain(0x8000_0001..=0x8000_0026) {
        let subleaves = if matches!(leaf, 4 | 7 | 0xb | 0xd | 0x1f) { 0..4 } else { 0..1 };
        entries.extend(subleaves.map(|subleaf| entry(leaf, subleaf, false, all)));
    }
    CpuId::from_entries(&entries).expect("fewer than KVM gives")
}

#[test]
fn the_hosts_own_model_shows_nothing_that_the_table_of_state_has_no_room_for() {
    for (maker, cores) in [(b"AuthenticAMD", 1), (b"HygonGenuine", 1), (b"GenuineIntel", 0)] {
        let answers = host(&everything(maker), &context());
        let of = |leaf: u32, subleaf: u32| {
            let found = answers.iter().find(|e| (e.function, e.index) == (leaf, subleaf));
            found.map_or([0; 4], |e| [e.eax, e.ebx, e.ecx, e.edx])
        };
        let [_, _, ecx, edx] = of(1, 0);
        assert_eq!(ecx & (1 << 3 | 1 << 5 | 1 << 15), 0, "MONITOR, VMX, PDCM");
        assert_eq!((ecx >> 31, edx & 1 << 21), (1, 0), "a hypervisor, DS");
        let [_, ebx, ecx, edx] = of(7, 0);
        assert_eq!(ebx & (1 << 2 | 1 << 14 | 1 << 16 | 1 << 25), 0, "SGX, MPX, AVX-512, traces");
        assert_eq!(ecx & (1 << 3 | 1 << 7 | 1 << 16), 0, "keys, shadow stacks, five levels");
        assert_eq!(edx & (1 << 20 | 1 << 22 | 1 << 24), 0, "branch tracking, AMX");
        assert_eq!((of(0xd, 0)[0], of(0xd, 0)[3], of(0xd, 1)[0] & !5), (7, 0, 0), "XCR0, XSAVES");
        let ecx = of(0x8000_0001, 0)[2];
        assert_eq!(ecx & (1 << 2 | 1 << 22 | 1 << 23), 0, "SVM, TOPOEXT, counters");
        assert_eq!(of(0x8000_0008, 0)[2], cores, "one other processor, as AMD's guests count");
        for leaf in [0xa, 0x14, 0x4000_0001, 0x8000_000a, 0x8000_001e, 0x8000_001f, 0x8000_0022] {
            assert_eq!(of(leaf, 0), [0; 4], "{leaf:#x}");
        }
        let topology = |leaf| [0, 1].map(|subleaf| of(leaf, subleaf));
        assert_eq!(topology(0xb), [0, 1].map(|sub| model::cpuid(0xb, sub, &context())));
    }
}
