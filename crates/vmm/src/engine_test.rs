use riad_cpu_soft::Tier;

use super::{auto, check_model, choose, options};
use crate::{CpuModel, EngineKind};

#[test]
fn each_name_leads_to_its_tier() {
    for (engine, tier) in [
        (EngineKind::Soft, Tier::Translator),
        (EngineKind::SoftInterpreter, Tier::Interpreter),
        (EngineKind::SoftLockstep, Tier::Lockstep),
    ] {
        let chosen = choose(engine).unwrap();
        assert_eq!(options(chosen, 8 << 20).map(|options| options.tier), Some(tier), "{engine}");
    }
    assert_eq!(options(EngineKind::Kvm, 8 << 20), None);
}

#[test]
fn nobody_who_left_the_choice_to_riad_gets_a_kvm_that_programs_cannot_run_on() {
    assert_eq!(auto(EngineKind::Kvm, || true), EngineKind::Kvm);
    assert_eq!(auto(EngineKind::Kvm, || false), EngineKind::Soft);
    assert_eq!(auto(EngineKind::Soft, || panic!("the device is not asked")), EngineKind::Soft);
}

#[test]
fn the_code_cache_is_moved_into_its_range() {
    for (asked, given) in [(0, 1 << 20), (8 << 20, 8 << 20), (u64::MAX, 1 << 30)] {
        let options = options(EngineKind::Soft, asked).unwrap();
        assert_eq!(options.code_cache, given, "{asked}");
    }
}

#[test]
fn the_hosts_own_processor_comes_from_kvm_alone() {
    for engine in EngineKind::ALL {
        assert!(check_model(engine, CpuModel::Riad).is_ok());
        let error = check_model(engine, CpuModel::Host).err().map(|error| error.to_string());
        assert_eq!(error.is_none(), engine == EngineKind::Kvm);
        assert!(error.is_none_or(|error| error.contains("add --engine kvm")));
    }
}
