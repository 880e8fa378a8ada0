//! What KVM gives up on (`KVM_EXIT_INTERNAL_ERROR`, KVM API 5), a software processor does: the state
//! goes there, some instructions are run on the same memory and bus, and the state comes back.
//!
//! On a host whose processor virtualises, this is for the odd instruction: device memory reached in a
//! way that the kernel's emulator does not know, an interrupt whose stack is such memory. Some KVMs
//! emulate far more than that; where one gives up again and again after a short while, the stretches
//! grow, as changing hands costs more than the instructions do.

use std::sync::Arc;

use kvm_ioctls::VcpuFd;
use riad_cpu::x86::{Activity, VcpuState};
use riad_cpu::{Bus, Error, Vcpu, VcpuConfig};
use riad_cpu_soft::stand_in::{Stretch, Undelivered};
use riad_cpu_soft::{Options, SoftEngine, SoftVcpu, Tier};

use super::engine::Shared;
use super::state::undelivered;
use super::time::host_tsc;

/// Instructions of a stretch after a while without one.
const SHORT: u64 = 16;
/// Instructions of the longest stretch: about a millisecond, in which interrupts wait.
const LONG: u64 = 1 << 16;
/// Milliseconds in KVM after which a stretch counts as the first again.
const WHILE: u64 = 10;

/// A processor's stand-in.
pub(super) struct Rescue {
    soft: Option<Box<SoftVcpu>>,
    /// Instructions of the next stretch.
    most: u64,
    /// The host's counter when the last stretch ended.
    last: u64,
}

/// What became of a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rescued {
    /// It goes on in KVM.
    Goes,
    /// It shut down.
    Shutdown,
}

impl Rescue {
    pub(super) fn new() -> Self {
        Self { soft: None, most: SHORT, last: 0 }
    }

    fn soft(&mut self, shared: &Shared, id: u32, bus: &Arc<dyn Bus>) -> &mut SoftVcpu {
        self.soft.get_or_insert_with(|| {
            let VcpuConfig { count, tsc_khz } = shared.config;
            // Interpreted: stretches are short, and KVM tells nobody of the code that it overwrites.
            let options = Options { tier: Tier::Interpreter, ..Options::default() };
            let (memory, clock) = (shared.memory.clone(), shared.clock.clone());
            let config = VcpuConfig { count, tsc_khz };
            let engine = SoftEngine::with_options(memory, clock, config, options);
            Box::new(engine.vcpu(id, Arc::clone(bus)))
        })
    }

    /// How long the next stretch is.
    fn next(&mut self, shared: &Shared) -> u64 {
        let since = host_tsc().wrapping_sub(self.last);
        let again = since < WHILE * u64::from(shared.time.host_khz());
        self.most = if again { (self.most * 2).min(LONG) } else { SHORT };
        self.most
    }

    /// Does for KVM what it gave up on at the present instruction.
    ///
    /// # Errors
    /// When the software processor cannot either.
    pub(super) fn instructions(
        &mut self,
        shared: &Shared,
        id: u32,
        fd: &VcpuFd,
        bus: &Arc<dyn Bus>,
    ) -> Result<Rescued, Error> {
        let events = fd.get_vcpu_events().map_err(|error| {
            shared.failed(id, format!("KVM does not tell a processor's events: {error}"))
        })?;
        let event = undelivered(&events);
        let most = self.next(shared);
        let before = shared.read(fd, id, &shared.reset_msrs(id))?;
        let (stretch, after, ran) = self.stretch(shared, id, bus, &before, event, most)?;
        if stretch == Stretch::Elsewhere && ran == 0 && event.is_none() {
            return Err(shared.failed(
                id,
                format!(
                    "neither KVM nor the software processor can run the instruction at {:#x}, which \
                     reaches for the local APIC in an unusual way; use --engine soft",
                    before.rip
                ),
            ));
        }
        shared.write_changed(fd, &before, &after)?;
        self.last = host_tsc();
        Ok(if stretch == Stretch::Shutdown { Rescued::Shutdown } else { Rescued::Goes })
    }

    /// Delivers what KVM accepted and did not deliver, so that the processor is between instructions.
    pub(super) fn deliver(
        &mut self,
        shared: &Shared,
        id: u32,
        fd: &VcpuFd,
        bus: &Arc<dyn Bus>,
        event: Option<Undelivered>,
    ) -> Result<Rescued, Error> {
        let before = shared.read(fd, id, &shared.reset_msrs(id))?;
        let (stretch, after, _) = match event {
            Some(_) => self.stretch(shared, id, bus, &before, event, 0)?,
            // An instruction that is run again: the state is as it was before it.
            None => (Stretch::Done, before.clone(), 0),
        };
        shared.write_changed(fd, &before, &after)?;
        Ok(if stretch == Stretch::Shutdown { Rescued::Shutdown } else { Rescued::Goes })
    }

    /// Runs a stretch; gives how it ended, the state, and how many instructions it had.
    pub(super) fn stretch(
        &mut self,
        shared: &Shared,
        id: u32,
        bus: &Arc<dyn Bus>,
        before: &VcpuState,
        event: Option<Undelivered>,
        most: u64,
    ) -> Result<(Stretch, VcpuState, u64), Error> {
        let soft = self.soft(shared, id, bus);
        let mut state = before.clone();
        // An NMI that waits is KVM's to deliver.
        state.events.nmi_pending = false;
        state.events.activity = match before.events.activity {
            Activity::Halted if event.is_none() => Activity::Running,
            activity => activity,
        };
        let ran = soft.cpu.retired;
        let stretch = soft.stand_in(&state, event, most)?;
        let ran = soft.cpu.retired - ran;
        shared.exits.count_rescued(ran);
        let mut after = soft.state()?;
        after.events.nmi_pending = before.events.nmi_pending;
        Ok((stretch, after, ran))
    }
}
