//! One tier's machine, used for case after case, and what is seen of a run.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use riad_clock::{HostClock, ManualClock, SharedClock};
use riad_cpu::x86::{Activity, VcpuState, rflags};
use riad_cpu::{Bus, Exit, Limit, Vcpu, VcpuConfig, VcpuHandle};
use riad_cpu_soft::{Options, SoftEngine, SoftVcpu, Tier};
use riad_memory::{Gpa, GuestMemory};

use super::layout::{BASE, SLOT, SLOTS, SLOTS_AT, STOP, Start, at};

/// An access to what is not RAM: address, length, and what was written.
type Access = (u64, usize, Option<u64>);

/// Remembers accesses, and stops the processor that asks for it.
#[derive(Default)]
struct World {
    accesses: Mutex<Vec<Access>>,
    handle: OnceLock<Arc<dyn VcpuHandle>>,
}

impl World {
    fn accesses(&self) -> std::sync::MutexGuard<'_, Vec<Access>> {
        self.accesses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bus for World {
    fn mmio_read(&self, at: Gpa, data: &mut [u8]) {
        let mut accesses = self.accesses();
        accesses.push((at.0, data.len(), None));
        data.fill(accesses.len() as u8);
    }
    fn mmio_write(&self, at: Gpa, data: &[u8]) {
        let value = data.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        self.accesses().push((at.0, data.len(), Some(value)));
    }
    fn port_read(&self, _: u16, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn port_write(&self, port: u16, _: &[u8]) {
        if let Some(handle) = self.handle.get().filter(|_| port == u16::from(STOP)) {
            handle.stop();
        }
    }
    fn acknowledge_extint(&self) -> u8 {
        0x30
    }
    fn end_of_interrupt(&self, _: u8) {}
}

/// One tier's machine.
pub(super) struct Side {
    pub(super) memory: GuestMemory,
    engine: SoftEngine,
    pub(super) vcpu: SoftVcpu,
    world: Arc<World>,
    /// Instructions retired, and blocks translated, before the case.
    begun: u64,
    blocks: u64,
    /// How it ended.
    ended: Option<Exit>,
}

/// What the guest can see, but for status flags that nobody reads any more.
#[derive(Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) exit: Exit,
    pub(super) retired: u64,
    pub(super) state: VcpuState,
    pub(super) accesses: Vec<Access>,
}

impl Side {
    /// A machine whose clock is driven by instructions, so that both tiers tell the same time.
    pub(super) fn new(tier: Tier) -> Option<Self> {
        Self::with_clock(tier, Arc::new(ManualClock::new(0).driven(1)))
    }

    /// A translator that counts no instructions.
    pub(super) fn free() -> Option<Self> {
        Self::with_clock(Tier::Translator, Arc::new(HostClock::new()))
    }

    fn with_clock(tier: Tier, clock: SharedClock) -> Option<Self> {
        let runs = [(Gpa(0), BASE), (Gpa(SLOTS_AT), SLOTS * SLOT)];
        let memory = GuestMemory::new(&runs).ok()?;
        let config = VcpuConfig { count: 1, tsc_khz: 1_000_000 };
        let options = Options { tier, code_cache: 1 << 20 };
        let world = Arc::new(World::default());
        let engine = SoftEngine::with_options(memory.clone(), clock, config, options);
        let vcpu = engine.vcpu(0, world.clone());
        world.handle.set(vcpu.handle()).ok()?;
        Some(Self { memory, engine, vcpu, world, begun: 0, blocks: 0, ended: None })
    }

    /// Begins a case.
    pub(super) fn load(&mut self, start: &Start) -> Option<()> {
        self.settle();
        start.load(&self.memory)?;
        self.vcpu.set_state(&start.state).ok()?;
        self.world.accesses().clear();
        self.begun = self.vcpu.cpu.retired;
        self.blocks = self.translated();
        self.ended = None;
        Some(())
    }

    /// A handler that was cut may have asked to stop, or be about to: lets it.
    fn settle(&mut self) {
        while self.ended.is_none()
            && self.begun != self.vcpu.cpu.retired
            && (at::HANDLERS..at::CODE).contains(&self.vcpu.cpu.rip())
        {
            if self.go(Limit::Instructions(1)).is_none() {
                return;
            }
        }
    }

    fn go(&mut self, limit: Limit) -> Option<Exit> {
        if let Some(exit) = self.ended {
            return Some(exit);
        }
        let exit = self.vcpu.run(limit).ok()?;
        if exit != Exit::Limit {
            self.ended = Some(exit);
            if self.vcpu.cpu.events.activity == Activity::Running {
                // Whether the request is seen before or after the HLT behind it is not promised.
                self.vcpu.run(Limit::Instructions(1)).ok()?;
            }
        }
        Some(exit)
    }

    /// Runs for so many instructions, or until a handler ends it.
    pub(super) fn run(&mut self, most: u64) -> Option<Seen> {
        let exit = self.go(Limit::Instructions(most))?;
        self.seen(exit)
    }

    /// Runs until a handler ends it, or somebody calls its handle.
    pub(super) fn run_to_the_end(&mut self) -> Option<Seen> {
        let exit = self.go(Limit::None)?;
        self.seen(exit)
    }

    /// Runs one instruction without looking closer. Tells whether there was one.
    pub(super) fn step(&mut self) -> bool {
        self.go(Limit::Instructions(1)) == Some(Exit::Limit)
    }

    fn seen(&self, exit: Exit) -> Option<Seen> {
        let mut state = self.vcpu.state().ok()?;
        state.rflags &= !rflags::STATUS;
        if state.rip == at::SYSCALL {
            // It has the flags of whoever made the call, and nobody has looked yet.
            state.gpr[11] &= !rflags::STATUS;
        }
        let accesses = self.world.accesses().clone();
        Some(Seen { exit, retired: self.retired(), state, accesses })
    }

    /// Whether a handler ended it.
    pub(super) fn has_ended(&self) -> bool {
        self.ended == Some(Exit::Stopped)
    }

    /// Instructions of this case.
    pub(super) fn retired(&self) -> u64 {
        self.vcpu.cpu.retired - self.begun
    }

    fn translated(&self) -> u64 {
        self.engine.cache_stats().map_or(0, |stats| stats.blocks)
    }

    /// Blocks that were translated for this case.
    pub(super) fn new_blocks(&self) -> u64 {
        self.translated() - self.blocks
    }
}

/// Where the memory of two sides differs.
pub(super) fn memory_differences(one: &Side, other: &Side) -> Vec<String> {
    let mut found = Vec::new();
    let mut pages = [[0u8; 0x1000]; 2];
    let pages_of = |from: u64, len: u64| (from..from + len).step_by(0x1000);
    for at in pages_of(0, BASE).chain(pages_of(SLOTS_AT, SLOTS * SLOT)) {
        for (page, side) in pages.iter_mut().zip([one, other]) {
            if side.memory.read(Gpa(at), page).is_err() {
                found.push(format!("{at:#x} cannot be read"));
            }
            if at == at::FRAME - 0x1000 {
                // Flags of whoever was interrupted, until the handler clears them.
                for (byte, mask) in page[0x1000 - 24..].iter_mut().zip(rflags::STATUS.to_le_bytes())
                {
                    *byte &= !mask;
                }
            }
        }
        let [one, other] = &mut pages;
        if (at::TABLES..at::IDT).contains(&at) {
            forgive_marks(one, other);
        }
        if one != other {
            let bytes = one.iter().zip(other).enumerate().filter(|(_, (one, other))| one != other);
            found.extend(
                bytes.map(|(n, (one, other))| {
                    format!("{:#x}: {one:02x} {other:02x}", at + n as u64)
                }),
            );
        }
    }
    found.truncate(32);
    found
}

/// A translator may look up pages for several instructions at once, of which the first then faults:
/// entries may be marked as accessed and dirty (bits 5 and 6 of their first bytes) that the
/// interpreter leaves alone, and not the other way round.
fn forgive_marks(interpreter: &[u8; 0x1000], translator: &mut [u8; 0x1000]) {
    for (one, other) in interpreter.iter().zip(translator).step_by(8) {
        if *one & !0x60 == *other & !0x60 && *one & 0x60 & !*other == 0 {
            *other = *one;
        }
    }
}
