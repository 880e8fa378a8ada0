use std::time::Duration;

use riad_vmm::EngineKind;

use super::Limits;
use crate::Stage;

const GUEST_STAGES: [Stage; 5] =
    [Stage::Kernel, Stage::Userland, Stage::Agent, Stage::Command, Stage::Teardown];

#[test]
fn software_gets_ten_times_the_time() {
    let (kvm, soft) = (Limits::on(EngineKind::Kvm, true, 1), Limits::on(EngineKind::Soft, true, 1));
    for stage in GUEST_STAGES {
        assert_eq!(soft.of(stage), kvm.of(stage).map(|limit| limit * 10), "{stage}");
    }
    assert_eq!(soft.of(Stage::Kernel), Some(Duration::from_secs(120)));
    assert_eq!((kvm.scale(), soft.scale()), (1, 10));
}

#[test]
fn slower_tiers_get_more_time() {
    let scale = |engine| Limits::on(engine, true, 1).scale();
    assert_eq!(scale(EngineKind::Auto), scale(EngineKind::Soft));
    let slower =
        [EngineKind::Kvm, EngineKind::Soft, EngineKind::SoftInterpreter, EngineKind::SoftLockstep];
    assert!(slower.is_sorted_by(|quick, slow| scale(*quick) < scale(*slow)));
}

#[test]
fn what_the_guest_does_not_do_has_no_limit() {
    let limits = Limits::on(EngineKind::Soft, true, 1);
    for stage in [Stage::Start, Stage::Image, Stage::Machine] {
        assert_eq!(limits.of(stage), None, "{stage}");
    }
}

#[test]
fn patience_stretches_every_limit_within_bounds() {
    let limits = Limits::on(EngineKind::Kvm, true, 3);
    assert_eq!(limits.of(Stage::Kernel), Some(Duration::from_secs(36)));
    assert_eq!(Limits::on(EngineKind::Kvm, true, 0).scale(), 1);
    let most = Limits::on(EngineKind::Soft, true, u32::MAX);
    assert_eq!(most.scale(), 10_000);
}
