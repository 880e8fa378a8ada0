use super::{Measured, ROUNDS, memory, soft, state};
use crate::EngineKind;

#[test]
fn the_faster_engine_is_chosen_and_soft_when_there_is_no_other() {
    for (soft, kvm, choice) in [
        (100, Ok(3000), EngineKind::Kvm),
        (100, Ok(2), EngineKind::Soft),
        (100, Err("no device".to_owned()), EngineKind::Soft),
        (0, Err(String::new()), EngineKind::Soft),
    ] {
        assert_eq!(Measured { soft, kvm }.choice(), choice);
    }
}

#[test]
fn the_guest_ends_after_its_rounds_and_user_mode_ran() {
    use std::sync::Arc;

    use riad_clock::HostClock;
    use riad_cpu::{Engine, Exit, Limit, VcpuConfig};
    use riad_cpu_soft::{Options, SoftEngine, Tier};

    let memory = memory().unwrap();
    let config = VcpuConfig { count: 1, tsc_khz: 1_000_000 };
    let options = Options { tier: Tier::Interpreter, ..Options::default() };
    let clock = Arc::new(HostClock::new());
    let engine = SoftEngine::with_options(memory.clone(), clock, config, options);
    let bus = Arc::new(super::Stop::default());
    let mut vcpu = engine.add_vcpu(0, bus.clone()).unwrap();
    let _ = bus.0.set(vcpu.handle());
    let mut state = state();
    assert_eq!(state.gpr[15], u64::from(ROUNDS));
    state.gpr[15] = 3;
    vcpu.set_state(&state).unwrap();
    assert_eq!(vcpu.run(Limit::Instructions(1_000_000)).unwrap(), Exit::Stopped);
    assert_eq!(vcpu.state().unwrap().gpr[15], 0);
    assert_ne!(memory.read_u64(riad_memory::Gpa(super::DATA + 8)).unwrap(), 0);
    let counted = vcpu.instructions().unwrap();
    assert!(counted.abs_diff(3 * super::ROUND) < 50, "{counted}");
}

#[test]
fn the_software_engine_has_a_speed() {
    assert!(soft().unwrap() > 0);
}
