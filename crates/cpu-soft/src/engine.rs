//! The engine `soft`: processors in software, behind the traits of the `cpu` floor.

use std::sync::Arc;

use riad_clock::SharedClock;
use riad_cpu::x86::lapic::Message;
use riad_cpu::x86::{
    DebugRegisters, DescriptorTable, Events, Fpu, Msrs, Segment, Segments, VcpuState, rflags,
};
use riad_cpu::{Bus, Engine, Error, Exit, Limit, Vcpu, VcpuConfig, VcpuHandle};
use riad_memory::GuestMemory;

use crate::apic::{Fabric, Local};
use crate::block::BlockCache;
use crate::cpu::{Cpu, Mode};
use crate::flags::Flags;
use crate::mem::Tlb;
use crate::options::Options;
use crate::sys::barrier;

/// A machine's software processors.
#[derive(Debug)]
pub struct SoftEngine {
    memory: GuestMemory,
    clock: SharedClock,
    config: VcpuConfig,
    options: Options,
    fabric: Arc<Fabric>,
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
        Self { memory, clock, config, options, fabric: Arc::new(Fabric::default()) }
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
            step_trap: false,
            tsc_offset: 0,
            tsc_khz: self.config.tsc_khz,
            count: self.config.count,
            retired: 0,
            tlb: Box::new(Tlb::new(&self.memory)),
            memory: self.memory.clone(),
            bus,
            clock: self.clock.clone(),
            local: Local::new(self.fabric.clone(), mailbox),
        };
        cpu.restore(&VcpuState::reset(id));
        SoftVcpu { cpu, blocks: BlockCache::default() }
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
    blocks: BlockCache,
}

impl Vcpu for SoftVcpu {
    fn run(&mut self, limit: Limit) -> Result<Exit, Error> {
        Ok(self.cpu.run(&mut self.blocks, limit))
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
        Some(self.cpu.retired)
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
