//! The engine `soft`: processors in software, behind the traits of the `cpu` floor.

use std::sync::Arc;
use std::sync::atomic::AtomicPtr;

use riad_clock::SharedClock;
use riad_cpu::x86::lapic::Message;
use riad_cpu::x86::{
    DebugRegisters, DescriptorTable, Events, Fpu, Msrs, Segment, Segments, VcpuState, rflags,
};
use riad_cpu::{Bus, Engine, Error, Exit, Exits, Limit, Vcpu, VcpuConfig, VcpuHandle};
use riad_memory::{CodeWatch, GuestMemory};

use crate::accesses::{self, CountedBus};
use crate::apic::{Fabric, Local};
use crate::block::BlockCache;
use crate::cpu::{Cpu, Mode};
use crate::flags::Flags;
use crate::lockstep::Lockstep;
use crate::mem::Tlb;
use crate::options::{Options, Tier};
use crate::run::{STRADDLERS, Tiers};
use crate::stand_in::Loan;
use crate::sys::barrier;
use crate::timekeeper::Timekeeper;
use crate::translate::cache::CodeCache;
use crate::translate::sys::FrameMemory;
use crate::translate::thread::{self, Thread};
use crate::translate::{CacheStats, translates_here};

/// A machine's software processors.
#[derive(Debug)]
pub struct SoftEngine {
    memory: GuestMemory,
    clock: SharedClock,
    config: VcpuConfig,
    options: Options,
    fabric: Arc<Fabric>,
    /// Translated code; `None` when all is interpreted.
    cache: Option<Arc<CodeCache>>,
    timekeeper: Arc<Timekeeper>,
    accesses: Arc<Exits>,
}

impl SoftEngine {
    /// An engine for this machine, with the ordinary [`Options`].
    #[must_use]
    pub fn new(memory: GuestMemory, clock: SharedClock, config: VcpuConfig) -> Self {
        Self::with_options(memory, clock, config, Options::default())
    }

    /// An engine for this machine.
    #[must_use]
    pub fn with_options(
        memory: GuestMemory,
        clock: SharedClock,
        config: VcpuConfig,
        options: Options,
    ) -> Self {
        barrier::prepare();
        let cache = match options.tier {
            Tier::Interpreter => None,
            Tier::Translator | Tier::Lockstep => code_cache(&memory, options.code_cache),
        };
        let fabric = Arc::new(Fabric::default());
        let called = Arc::downgrade(&fabric);
        let expired = Box::new(move |id| {
            if let Some(fabric) = called.upgrade() {
                fabric.call(id);
            }
        });
        let timekeeper = Arc::new(Timekeeper::new(clock.clone(), expired));
        let accesses = Arc::default();
        Self { memory, clock, config, options, fabric, cache, timekeeper, accesses }
    }

    /// What was chosen.
    #[must_use]
    pub fn options(&self) -> Options {
        self.options
    }

    /// As [`Engine::add_vcpu`], with the concrete type.
    #[must_use]
    pub fn vcpu(&self, id: u32, bus: Arc<dyn Bus>) -> SoftVcpu {
        let mailbox = self.fabric.add(id);
        let bus = Arc::new(CountedBus { bus, accesses: Arc::clone(&self.accesses) });
        let mut cpu = Cpu {
            regs: [0; 18],
            flags: Flags::from_rflags(rflags::ONE),
            left: 0,
            mode: Mode::Real,
            cpl: 0,
            flat: false,
            segs: [Segment::default(); 6],
            ldtr: Segment::default(),
            tr: Segment::default(),
            gdtr: DescriptorTable::default(),
            idtr: DescriptorTable::default(),
            control: Default::default(),
            debug: DebugRegisters::default(),
            fpu: Fpu::default(),
            msrs: Msrs::default(),
            events: Events::default(),
            fault_address: 0,
            this_rip: 0,
            loan: Loan::Own,
            step_trap: false,
            tsc_offset: 0,
            tsc_khz: self.config.tsc_khz,
            count: self.config.count,
            retired: 0,
            interrupts_held: false,
            timer_touched: true,
            counted: false,
            pure: false,
            held_fault: None,
            lent_thread: AtomicPtr::default(),
            straddlers: vec![None; STRADDLERS].into_boxed_slice(),
            tlb: Box::new(Tlb::new(&self.memory)),
            memory: self.memory.clone(),
            bus,
            clock: self.clock.clone(),
            local: Local::new(self.fabric.clone(), mailbox),
        };
        cpu.restore(&VcpuState::reset(id));
        let thread = self.cache.as_ref().and_then(|cache| thread(cache, &self.timekeeper, &cpu));
        let lockstep = match (self.options.tier, &thread) {
            // What other processors write in between would be taken for a difference.
            (Tier::Lockstep, Some(_)) if self.config.count == 1 => Some(Box::default()),
            (Tier::Lockstep, _) => {
                tracing::warn!("nothing is compared: that takes one processor, on an x86-64 host");
                None
            }
            _ => None,
        };
        SoftVcpu { cpu, blocks: BlockCache::default(), thread, lockstep }
    }

    /// Figures of translated code; `None` when all is interpreted.
    #[must_use]
    pub fn cache_stats(&self) -> Option<CacheStats> {
        self.cache.as_ref().map(|cache| cache.stats())
    }
}

/// A cache for translated code, where the host can run it.
fn code_cache(memory: &GuestMemory, size: usize) -> Option<Arc<CodeCache>> {
    if !translates_here() {
        return None;
    }
    match thread::cache(size) {
        Ok(cache) => {
            let watch: Arc<dyn CodeWatch> = cache.clone();
            memory.pages().add_watch(Arc::downgrade(&watch));
            Some(cache)
        }
        Err(error) => {
            tracing::warn!(%error, "no memory for translated code: the guest is interpreted");
            None
        }
    }
}

/// A processor's side of translated code.
fn thread(cache: &Arc<CodeCache>, timekeeper: &Arc<Timekeeper>, cpu: &Cpu) -> Option<Box<Thread>> {
    match FrameMemory::new() {
        Ok(memory) => {
            let memory = Arc::new(memory);
            cpu.local.call_by(memory.clone());
            let timekeeper = timekeeper.clone();
            Some(Box::new(Thread::new(cache.clone(), memory, timekeeper, &cpu.tlb)))
        }
        Err(error) => {
            tracing::warn!(%error, "no stack for translated code: a processor interprets");
            None
        }
    }
}

impl Engine for SoftEngine {
    fn name(&self) -> &'static str {
        "soft"
    }

    fn add_vcpu(&self, id: u32, bus: Arc<dyn Bus>) -> Result<Box<dyn Vcpu>, Error> {
        Ok(Box::new(self.vcpu(id, bus)))
    }

    fn send_msi(&self, address: u64, data: u32) {
        self.fabric.send(&Message::from_msi(address, data), None);
    }

    fn set_extint(&self, level: bool) {
        self.fabric.set_extint(level);
    }

    fn exits(&self) -> Vec<(&'static str, u64)> {
        self.accesses.list(&accesses::KINDS)
    }

    fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    fn clock(&self) -> &SharedClock {
        &self.clock
    }
}

/// A software processor.
pub struct SoftVcpu {
    /// Its registers and wiring.
    pub cpu: Cpu,
    pub(crate) blocks: BlockCache,
    thread: Option<Box<Thread>>,
    pub(crate) lockstep: Option<Box<Lockstep>>,
}

impl Vcpu for SoftVcpu {
    fn run(&mut self, limit: Limit) -> Result<Exit, Error> {
        let mut tiers = Tiers {
            blocks: &mut self.blocks,
            thread: self.thread.as_deref_mut(),
            lockstep: self.lockstep.as_deref_mut(),
        };
        let exit = self.cpu.run(&mut tiers, limit);
        match self.lockstep.as_mut().and_then(|lockstep| lockstep.difference.take()) {
            None => Ok(exit),
            Some(difference) => Err(Error::Failed {
                engine: "soft",
                vcpu: self.cpu.local.id(),
                reason: difference.to_string(),
            }),
        }
    }

    fn state(&self) -> Result<VcpuState, Error> {
        Ok(self.cpu.save())
    }

    fn set_state(&mut self, state: &VcpuState) -> Result<(), Error> {
        state.check()?;
        if state.apic.id != self.cpu.local.id() {
            return Err(Error::BadState("it is another processor's".to_owned()));
        }
        self.cpu.restore(state);
        Ok(())
    }

    fn handle(&self) -> Arc<dyn VcpuHandle> {
        self.cpu.local.handle()
    }

    fn instructions(&self) -> Option<u64> {
        // Translated code counts only when somebody wants to know.
        (self.thread.is_none() || self.cpu.counted).then_some(self.cpu.retired)
    }
}

impl Cpu {
    /// All state, between two instructions.
    #[must_use]
    pub fn save(&self) -> VcpuState {
        let [es, cs, ss, ds, fs, gs] = self.segs;
        let mut gpr = [0; 16];
        gpr.copy_from_slice(&self.regs[..16]);
        let mut events = self.events.clone();
        self.local.save_requests(&mut events);
        let ss = Segment { rights: ss.rights & !0x60 | u32::from(self.cpl) << 5, ..ss };
        VcpuState {
            gpr,
            rip: self.rip(),
            rflags: self.flags.rflags(),
            segments: Segments { es, cs, ss, ds, fs, gs, ldtr: self.ldtr, tr: self.tr },
            gdtr: self.gdtr,
            idtr: self.idtr,
            control: self.control,
            debug: self.debug,
            fpu: self.fpu.clone(),
            msrs: self.msrs.clone(),
            apic: self.local.apic().save(),
            events,
            tsc: self.tsc(),
        }
    }

    /// Makes all state this.
    pub fn restore(&mut self, state: &VcpuState) {
        let VcpuState {
            gpr,
            rip,
            rflags,
            segments,
            gdtr,
            idtr,
            control,
            debug,
            fpu,
            msrs,
            apic,
            events,
            tsc,
        } = state.clone();
        self.regs[..16].copy_from_slice(&gpr);
        self.set_rip(rip);
        self.flags = Flags::from_rflags(rflags | riad_cpu::x86::rflags::ONE);
        let Segments { es, cs, ss, ds, fs, gs, ldtr, tr } = segments;
        self.segs = [es, cs, ss, ds, fs, gs];
        (self.ldtr, self.tr, self.gdtr, self.idtr) = (ldtr, tr, gdtr, idtr);
        (self.control, self.debug, self.fpu, self.msrs, self.events) =
            (control, debug, fpu, msrs, events);
        // CPL is SS's privilege level (SDM 3C, 24.4.1), as in every engine.
        self.cpl = if !self.protected() { 0 } else { ss.dpl() };
        self.local.set_apic(apic);
        self.set_tsc(tsc);
        self.local.restore_requests(&mut self.events);
        self.tlb.flush_all();
        self.update_mode();
    }
}
