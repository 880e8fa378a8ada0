//! Which engine is faster here, measured: `--engine auto` is an answer of a stopwatch, not of a device
//! node, because there are KVMs that emulate.
//!
//! A small guest computes in kernel mode, enters user mode, computes there, and comes back by a system
//! call. How many rounds of it an engine manages in a moment is its speed. That is measured once since
//! the host booted, and kept in the user's cache.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use riad_clock::HostClock;
use riad_cpu::x86::{DescriptorTable, Segment, VcpuState, cr0, cr4, efer};
use riad_cpu::{Bus, Engine, Limit, VcpuConfig, VcpuHandle};
use riad_cpu_kvm::{KvmEngine, Model};
use riad_cpu_soft::SoftEngine;
use riad_memory::{Gpa, GuestMemory};
use serde::{Deserialize, Serialize};

use crate::EngineKind;
use crate::engine::SOFT_TSC_KHZ;

/// The longest that an engine is measured.
const MOMENT: Duration = Duration::from_millis(250);
/// An engine that managed so many rounds is fast enough to stop early.
const ROUNDS: u32 = 20_000;

/// Guest instructions of a round, in kernel and user mode.
const ROUND: u64 = 1000 * 8 + 6 + 1400 * 6 + 4;

/// Instructions a second of the measuring guest, millions.
pub type Speed = u64;

/// What was measured on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// Of the software engine.
    pub soft: Speed,
    /// Of KVM, or why there is none.
    pub kvm: Result<Speed, String>,
}

impl Measured {
    /// What `auto` leads to.
    #[must_use]
    pub fn choice(&self) -> EngineKind {
        match self.kvm {
            Ok(kvm) if kvm > self.soft => EngineKind::Kvm,
            _ => EngineKind::Soft,
        }
    }
}

/// What is kept in the cache.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// The host's boot, and the version of what was measured.
    when: String,
    measured: Measured,
}

/// How fast the engines are here; measured when nobody did since the host booted.
#[must_use]
pub fn measured() -> Measured {
    static ONCE: OnceLock<Measured> = OnceLock::new();
    ONCE.get_or_init(|| {
        let when = now();
        // Whoever starts a machine asks: what is known is told without opening the device.
        if riad_cpu_kvm::is_there()
            && let Some(measured) = when.as_deref().and_then(read)
        {
            return measured;
        }
        // No device, nothing to measure.
        let kvm = match riad_cpu_kvm::capabilities() {
            Ok(kvm) => kvm,
            Err(error) => return Measured { soft: 0, kvm: Err(error.to_string()) },
        };
        let measured = Measured { soft: soft().unwrap_or(0), kvm: self::kvm(kvm.tsc_khz) };
        if let Some(when) = when {
            write(&Kept { when, measured: measured.clone() });
        }
        measured
    })
    .clone()
}

/// What a measurement is good for: this boot of the host, and this Riad.
fn now() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(format!("{} {}", boot.trim(), env!("CARGO_PKG_VERSION")))
}

/// The file, in the user's cache.
fn file() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let directory = match set("RIAD_CACHE") {
        Some(directory) => PathBuf::from(directory),
        None => match set("XDG_CACHE_HOME") {
            Some(cache) => PathBuf::from(cache).join("riad"),
            None => PathBuf::from(set("HOME")?).join(".cache/riad"),
        },
    };
    Some(directory.join("engines.json"))
}

fn read(when: &str) -> Option<Measured> {
    let kept: Kept = serde_json::from_str(&fs::read_to_string(file()?).ok()?).ok()?;
    (kept.when == when).then_some(kept.measured)
}

/// Keeps what was measured. Nothing is lost when that fails but the time to measure again.
fn write(kept: &Kept) {
    let written = file().and_then(|file| {
        fs::create_dir_all(file.parent()?).ok()?;
        let new = file.with_extension(format!("new-{}", std::process::id()));
        fs::write(&new, serde_json::to_vec(kept).ok()?).ok()?;
        fs::rename(&new, &file).ok()
    });
    if written.is_none() {
        tracing::debug!("the engines' speeds could not be kept: they are measured again next time");
    }
}

fn soft() -> Result<Speed, String> {
    let memory = memory()?;
    let config = VcpuConfig { count: 1, tsc_khz: SOFT_TSC_KHZ };
    speed(&SoftEngine::new(memory, Arc::new(HostClock::new()), config))
}

fn kvm(tsc_khz: u32) -> Result<Speed, String> {
    let config = VcpuConfig { count: 1, tsc_khz };
    let engine = KvmEngine::new(memory()?, Arc::new(HostClock::new()), config, Model::Riad);
    speed(&engine.map_err(|error| error.to_string())?)
}

/// Where the guest's things lie.
const TABLES: u64 = 0x1000;
const GDT: u64 = 0x4000;
const KERNEL: u64 = 0x1_0000;
const SYSTEM_CALL: u64 = 0x1_1000;
const USER: u64 = 0x2_0000;
const DATA: u64 = 0x3_0000;
const STACK: u64 = 0x4_0000;

/// Kernel mode: 1000 times a push, memory, flags and a pop; the page tables anew; SYSRET.
const KERNEL_CODE: [u8; 36] = [
    0xb9, 0xe8, 0x03, 0x00, 0x00, // mov ecx, 1000
    0x50, 0x48, 0x89, 0x03, 0x48, 0x03, 0x03, 0x9c, 0x9d, 0x5a, // push..pop
    0xff, 0xc9, 0x75, 0xf2, // dec ecx; jnz
    0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, // mov rax, cr3; mov cr3, rax
    0xb9, 0x00, 0x00, 0x02, 0x00, // mov ecx, USER
    0x45, 0x31, 0xdb, // xor r11d, r11d
    0x48, 0x0f, 0x07, // sysretq
];

/// User mode: 1400 times arithmetic and memory; SYSCALL.
const USER_CODE: [u8; 25] = [
    0xb9, 0x78, 0x05, 0x00, 0x00, // mov ecx, 1400
    0x48, 0x01, 0xc8, // add rax, rcx
    0x48, 0x6b, 0xd0, 0x03, // imul rdx, rax, 3
    0x48, 0x89, 0x53, 0x08, // mov [rbx+8], rdx
    0x48, 0x33, 0x13, // xor rdx, [rbx]
    0xff, 0xc9, 0x75, 0xee, // dec ecx; jnz
    0x0f, 0x05, // syscall
];

/// The next round, or the end.
const SYSTEM_CALL_CODE: [u8; 14] = [
    0x41, 0xff, 0xcf, // dec r15d
    0x0f, 0x85, 0xf7, 0xef, 0xff, 0xff, // jnz KERNEL
    0xe6, 0xf4, // out 0xf4, al
    0xf4, 0xeb, 0xfd, // hlt; jmp
];

fn memory() -> Result<GuestMemory, String> {
    let lay_out = || {
        let memory = GuestMemory::new(&[(Gpa(0), 2 << 20)])?;
        // The first 2 MiB, for user mode as well (SDM 3A, 4.5).
        memory.write_u64(Gpa(TABLES), (TABLES + 0x1000) | 7)?;
        memory.write_u64(Gpa(TABLES + 0x1000), (TABLES + 0x2000) | 7)?;
        memory.write_u64(Gpa(TABLES + 0x2000), 0x87)?;
        let gdt = [
            0u64,
            0x00af_9b00_0000_ffff,
            0x00cf_9300_0000_ffff,
            0x00cf_fb00_0000_ffff,
            0x00cf_f300_0000_ffff,
            0x00af_fb00_0000_ffff,
        ];
        for (at, entry) in (GDT..).step_by(8).zip(gdt) {
            memory.write_u64(Gpa(at), entry)?;
        }
        memory.write(Gpa(KERNEL), &KERNEL_CODE)?;
        memory.write(Gpa(USER), &USER_CODE)?;
        memory.write(Gpa(SYSTEM_CALL), &SYSTEM_CALL_CODE)?;
        Ok::<_, riad_memory::Error>(memory)
    };
    lay_out().map_err(|error| error.to_string())
}

/// The processor as the guest begins.
fn state() -> VcpuState {
    let mut state = VcpuState::flat_protected(0, KERNEL as u32);
    let data = Segment { selector: 0x10, base: 0, limit: u32::MAX, rights: 0xc093 };
    let s = &mut state.segments;
    s.cs = Segment { selector: 8, base: 0, limit: u32::MAX, rights: 0xa09b };
    (s.ds, s.es, s.ss) = (data, data, data);
    state.gdtr = DescriptorTable { base: GDT, limit: 6 * 8 - 1 };
    state.control.cr0 |= cr0::PG | cr0::NE | cr0::MP | cr0::WP;
    state.control.cr3 = TABLES;
    state.control.cr4 = cr4::PAE | cr4::OSFXSR;
    state.control.efer = efer::SCE | efer::LME | efer::LMA;
    state.msrs.star = 0x18 << 48 | 0x08 << 32;
    state.msrs.lstar = SYSTEM_CALL;
    (state.gpr[3], state.gpr[4], state.gpr[15]) = (DATA, STACK, u64::from(ROUNDS));
    state
}

/// Stops the guest when it says that it is done.
#[derive(Default)]
struct Stop(OnceLock<Arc<dyn VcpuHandle>>);

impl Bus for Stop {
    fn mmio_read(&self, _: Gpa, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn mmio_write(&self, _: Gpa, _: &[u8]) {}
    fn port_read(&self, _: u16, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn port_write(&self, _: u16, _: &[u8]) {
        if let Some(handle) = self.0.get() {
            handle.stop();
        }
    }
    fn acknowledge_extint(&self) -> u8 {
        0xff
    }
    fn end_of_interrupt(&self, _: u8) {}
}

/// Runs the guest for a moment.
fn speed(engine: &dyn Engine) -> Result<Speed, String> {
    let told = |error: riad_cpu::Error| error.to_string();
    let bus = Arc::new(Stop::default());
    let mut vcpu = engine.add_vcpu(0, bus.clone()).map_err(told)?;
    let handle = vcpu.handle();
    let _ = bus.0.set(handle.clone());
    vcpu.set_state(&state()).map_err(told)?;
    let (done, over) = std::sync::mpsc::channel::<()>();
    let (exit, took) = std::thread::scope(|scope| {
        scope.spawn(move || {
            // The sender is dropped when the guest is done.
            let _ = over.recv_timeout(MOMENT);
            handle.stop();
        });
        let began = Instant::now();
        let exit = vcpu.run(Limit::None);
        let took = began.elapsed();
        drop(done);
        (exit, took)
    });
    exit.map_err(told)?;
    let after = vcpu.state().map_err(told)?;
    let left = after.gpr[15] as u32;
    let rounds = u64::from(ROUNDS - left.min(ROUNDS));
    let instructions = rounds * ROUND;
    Ok(instructions / (took.as_micros().max(1) as u64))
}

#[cfg(test)]
#[path = "measure_test.rs"]
mod tests;
