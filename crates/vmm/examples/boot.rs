//! Boots a kernel with the serial console on standard output: the monitor with nothing around it.
//!
//! `boot KERNEL [INITRD [CMDLINE [CPUS [MIB]]]]`; `ENGINE` and `LIMIT` (seconds) in the environment.

use std::time::Instant;

use riad_vmm::{Console, EngineKind, Guest, Vm, VmConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("RIAD_LOG"))
        .init();
    let mut args = std::env::args().skip(1);
    let kernel_name = args.next().ok_or("a kernel is wanted")?;
    let mut guest = Guest {
        kernel: std::fs::read(&kernel_name)?,
        kernel_name,
        cmdline: "console=ttyS0 panic=-1".to_owned(),
        modules: Vec::new(),
    };
    if let Some(initrd) = args.next().filter(|i| !i.is_empty()) {
        guest.modules.push((initrd.clone(), std::fs::read(&initrd)?));
    }
    if let Some(cmdline) = args.next() {
        guest.cmdline = cmdline;
    }
    let cpus = args.next().map_or(Ok(1), |n| n.parse())?;
    let memory = args.next().map_or(Ok(512), |n| n.parse::<u64>())? << 20;
    let engine = std::env::var("ENGINE").map_or(Ok(EngineKind::Auto), |name| name.parse())?;
    let config = VmConfig { cpus, memory, engine, debug_exit: true, ..VmConfig::default() };
    let console = Console::new(Some(Box::new(std::io::stdout())), None);
    let began = Instant::now();
    let vm = Vm::start(&config, &guest, &console)?;
    let limit = std::env::var("LIMIT").ok().and_then(|s| s.parse().ok()).unwrap_or(60);
    let ending = vm.wait(Some(std::time::Duration::from_secs(limit)));
    vm.pause();
    let seconds = began.elapsed().as_secs_f64();
    eprintln!("ended: {ending:?} after {seconds:.2} s");
    for (kind, count) in vm.exits() {
        eprintln!("{count:>12} {kind}");
    }
    // Translated code is not counted.
    if let Some(instructions) = vm.instructions() {
        let millions = instructions as f64 / 1e6;
        eprintln!("{millions:.1} M instructions, {:.1} MIPS", millions / seconds);
    }
    if ending.is_none() {
        let snapshot = vm.save()?;
        for (n, vcpu) in snapshot.vcpus.iter().enumerate() {
            eprintln!(
                "cpu{n}: rip {:#x} rflags {:#x} cr2 {:#x} cr3 {:#x} gpr {:x?} {:?}",
                vcpu.rip, vcpu.rflags, vcpu.control.cr2, vcpu.control.cr3, vcpu.gpr, vcpu.events
            );
        }
    }
    Ok(())
}
