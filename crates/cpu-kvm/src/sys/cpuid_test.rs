use riad_cpu::x86::model::{self, CpuidContext};

use super::{FEATURES, INDISPENSABLE, Register, leaves};

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
