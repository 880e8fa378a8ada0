//! What KVM gives up on (`KVM_EXIT_INTERNAL_ERROR`, KVM API 5), a software processor does: the state
//! goes there, some instructions are run on the same memory and bus, and the state comes back.
//!
//! On a host whose processor virtualises, this is for the odd instruction: device memory reached in a
//! way that the kernel's emulator does not know, an interrupt whose stack is such memory. Where one
//! comes soon after the other the stretches grow, as changing hands costs more than the instructions
//! do.
//!
//! A KVM that emulates kernel code is slower at that than the software processor by far, so slow that
//! interrupts of a timer can take all there is. There the two take turns (`turns.rs`): after a
//! millisecond in KVM kernel code goes on in software, until it enters level 3, which KVM runs well,
//! halts, reaches for what is KVM's, or has had [`LONG_EMULATED`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kvm_ioctls::VcpuFd;
use riad_cpu::x86::{Activity, VcpuState};
use riad_cpu::{Bus, Error, Vcpu, VcpuConfig};
use riad_cpu_soft::stand_in::{Purpose, Stretch, Undelivered};
use riad_cpu_soft::{Options, SoftEngine, SoftVcpu, Tier};

use super::engine::{Cell, Shared};
use super::state::undelivered;
use super::time::host_tsc;

/// Instructions of a stretch after a while without one.
const SHORT: u64 = 16;
/// Instructions of the longest stretch: about a millisecond, in which interrupts wait.
const LONG: u64 = 1 << 16;
/// The same, where KVM emulates: a few milliseconds, or timers would seem not to work.
const LONG_EMULATED: u64 = 1 << 17;
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

/// Whether a processor is at level 3: its stack segment's level is its own (SDM 3A, 5.5).
fn is_user(state: &VcpuState) -> bool {
    state.segments.ss.dpl() == 3
}

impl Rescue {
    pub(super) fn new() -> Self {
        Self { soft: None, most: SHORT, last: 0 }
    }

    fn soft(&mut self, shared: &Shared, cell: &Cell, bus: &Arc<dyn Bus>) -> &mut SoftVcpu {
        self.soft.get_or_insert_with(|| {
            let VcpuConfig { count, tsc_khz } = shared.config;
            // Interpreted: stretches are short, and KVM tells nobody of the code that it overwrites.
            let options = Options { tier: Tier::Interpreter, ..Options::default() };
            let (memory, clock) = (shared.memory.clone(), shared.clock.clone());
            let config = VcpuConfig { count, tsc_khz };
            let engine = SoftEngine::with_options(memory, clock, config, options);
            let soft = engine.vcpu(cell.id, Arc::clone(bus));
            cell.mailbox.set_stand_in(soft.handle());
            Box::new(soft)
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
        cell: &Cell,
        fd: &VcpuFd,
        bus: &Arc<dyn Bus>,
    ) -> Result<Rescued, Error> {
        let id = cell.id;
        let before = shared.read(cell, fd, &shared.reset_msrs(id))?;
        let events = fd.get_vcpu_events().map_err(|error| {
            shared.failed(id, format!("KVM does not tell a processor's events: {error}"))
        })?;
        let event = undelivered(&events);
        let most = self.next(shared);
        let (mut stretch, mut after, mut ran) =
            self.stretch(shared, cell, bus, &before, event, most, None)?;
        let is_stuck = |stretch, ran| stretch == Stretch::Elsewhere && ran == 0 && event.is_none();
        if is_stuck(stretch, ran) {
            let last = Some(Purpose::LastResort);
            (stretch, after, ran) = self.stretch(shared, cell, bus, &before, event, 1, last)?;
        }
        if is_stuck(stretch, ran) {
            return Err(shared.failed(
                id,
                format!(
                    "neither KVM nor the software processor can run the instruction at {:#x}: it reaches \
                     for the local APIC in an unusual way, or is of a newer processor; use --engine \
                     soft",
                    before.rip
                ),
            ));
        }
        shared.write_changed(fd, &before, &after)?;
        self.last = host_tsc();
        Ok(if stretch == Stretch::Shutdown { Rescued::Shutdown } else { Rescued::Goes })
    }

    /// Goes on with kernel code, where KVM emulates that.
    ///
    /// # Errors
    /// When a state cannot be read or set.
    pub(super) fn turn(
        &mut self,
        shared: &Shared,
        cell: &Cell,
        fd: &VcpuFd,
        bus: &Arc<dyn Bus>,
    ) -> Result<Rescued, Error> {
        let before = shared.read(cell, fd, &shared.reset_msrs(cell.id))?;
        if before.events.activity != Activity::Running || is_user(&before) {
            return Ok(Rescued::Goes);
        }
        let kernel = Some(Purpose::Kernel);
        let (stretch, after, _) =
            self.stretch(shared, cell, bus, &before, None, LONG_EMULATED, kernel)?;
        shared.write_changed(fd, &before, &after)?;
        Ok(if stretch == Stretch::Shutdown { Rescued::Shutdown } else { Rescued::Goes })
    }

    /// Delivers what KVM accepted and did not deliver, so that the processor is between instructions.
    pub(super) fn deliver(
        &mut self,
        shared: &Shared,
        cell: &Cell,
        fd: &VcpuFd,
        bus: &Arc<dyn Bus>,
        event: Option<Undelivered>,
    ) -> Result<Rescued, Error> {
        let before = shared.read(cell, fd, &shared.reset_msrs(cell.id))?;
        let (stretch, after, _) = match event {
            Some(_) => self.stretch(shared, cell, bus, &before, event, 0, None)?,
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
        cell: &Cell,
        bus: &Arc<dyn Bus>,
        before: &VcpuState,
        event: Option<Undelivered>,
        most: u64,
        purpose: Option<Purpose>,
    ) -> Result<(Stretch, VcpuState, u64), Error> {
        let soft = self.soft(shared, cell, bus);
        let mut state = before.clone();
        // An NMI that waits is KVM's to deliver.
        state.events.nmi_pending = false;
        state.events.activity = match before.events.activity {
            Activity::Halted if event.is_none() => Activity::Running,
            activity => activity,
        };
        let ran = soft.cpu.retired;
        let stretch = soft.stand_in(&state, event, most, purpose)?;
        let ran = soft.cpu.retired - ran;
        shared.rescued.fetch_add(ran, Ordering::Relaxed);
        let mut after = soft.state()?;
        after.events.nmi_pending = before.events.nmi_pending;
        Ok((stretch, after, ran))
    }
}
