//! Debian's kernel on the engine `kvm`, from its first instruction to `/init`.
//!
//! `RIAD_E2E_KVM=1` asks for it, besides `RIAD_E2E=1`: where KVM emulates kernel code it takes long, and
//! where it virtualises it shows little that the small guests do not.

use std::time::{Duration, Instant};

use riad_vmm::{EngineKind, Guest, Vm, VmConfig};

use crate::state::{Output, files, guest};

/// How long it may take where KVM emulates, and where it does not.
const LIMITS: [Duration; 2] = [Duration::from_secs(2 * 3600), Duration::from_secs(60)];
/// A KVM that emulates may show features of the host's which no software processor of ours has, and its
/// timer interrupts come late.
const CMDLINE: [&str; 2] =
    ["console=ttyS0 panic=-1 mitigations=off noxsave no_timer_check", "console=ttyS0 panic=-1"];

#[test]
fn a_stock_kernel_reaches_init_on_kvm() {
    if std::env::var_os("RIAD_E2E_KVM").is_none_or(|value| value != "1") {
        eprintln!("not run: where KVM emulates it takes long; RIAD_E2E_KVM=1 runs it");
        return;
    }
    crate::harness::end_to_end!();
    if let Err(error) = riad_vmm::choose_engine(EngineKind::Kvm) {
        eprintln!("not run: {error}");
        return;
    }
    let kind = usize::from(EngineKind::virtualises_here());
    let config = VmConfig { memory: 96 << 20, engine: EngineKind::Kvm, ..VmConfig::default() };
    let guest = Guest { cmdline: CMDLINE[kind].into(), ..guest(&files()) };
    let output = Output::default();
    let began = Instant::now();
    let vm = Vm::start(&config, &guest, &output.console()).expect("a machine");
    loop {
        // Where SYSCALL does not take programs to their kernel, the machine ends soon after.
        let ending = vm.wait(Some(Duration::from_secs(1)));
        if output.text().contains("Run /init as init process") {
            break;
        }
        assert_eq!(ending, None, "{}", output.text());
        assert!(began.elapsed() < LIMITS[kind], "{}", output.text());
    }
    eprintln!("to /init in {:.1} s; exits: {:?}", began.elapsed().as_secs_f64(), vm.exits());
}
