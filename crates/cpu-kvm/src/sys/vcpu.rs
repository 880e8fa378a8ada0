//! A processor: the loop around `KVM_RUN`, and its state.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kvm_ioctls::VcpuFd;
use riad_cpu::x86::{Activity, Events, Msrs, VcpuState};
use riad_cpu::{Bus, Error, Exit, ExitKind, Limit, Vcpu, VcpuHandle};

use super::engine::{Cell, Shared};
use super::inject;
use super::kick::Runner;
use super::rescue::{Rescue, Rescued};
use super::run_area::{Came, serve};
use super::state::{is_between, undelivered};

/// A processor lent by the host's kernel.
pub struct KvmVcpu {
    shared: Arc<Shared>,
    cell: Arc<Cell>,
    bus: Arc<dyn Bus>,
    rescue: Rescue,
    /// It shut down by a triple fault.
    shut_down: bool,
    /// Events that it has and KVM has no place for; they are dealt with before it runs.
    apart: Apart,
    /// Model-specific registers as they were last set.
    known: Msrs,
    /// What the kernel says of interrupts in the shared memory is of the present state.
    is_fresh: bool,
}

/// What came of going into the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entered {
    /// There is an exit to serve.
    Exit,
    /// There is nothing to do but look at requests.
    Nothing,
    /// KVM's turn is over.
    TurnOver,
}

/// Events of the table that KVM cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Apart {
    pending_debug: u64,
    init_pending: bool,
    start_up_pending: Option<u8>,
}

impl Apart {
    fn of(events: &Events) -> Self {
        Self {
            pending_debug: events.pending_debug,
            init_pending: events.init_pending,
            start_up_pending: events.start_up_pending,
        }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn add_to(self, events: &mut Events) {
        let Self { pending_debug, init_pending, start_up_pending } = self;
        events.pending_debug |= pending_debug;
        events.init_pending |= init_pending;
        events.start_up_pending = events.start_up_pending.or(start_up_pending);
    }
}

impl KvmVcpu {
    pub(super) fn new(shared: Arc<Shared>, cell: Arc<Cell>, bus: Arc<dyn Bus>) -> Self {
        let known = shared.reset_msrs(cell.id);
        Self {
            shared,
            cell,
            bus,
            rescue: Rescue::new(),
            shut_down: false,
            apart: Apart::default(),
            known,
            is_fresh: false,
        }
    }

    fn failed(&self, reason: String) -> Error {
        self.shared.failed(self.cell.id, reason)
    }

    fn run_loop(&mut self, fd: &mut VcpuFd, runner: &Runner<'_>) -> Result<Exit, Error> {
        self.settle_apart(fd)?;
        loop {
            if self.cell.mailbox.take_stop() {
                self.finish(fd, runner)?;
                return Ok(Exit::Stopped);
            }
            if self.shut_down {
                return Ok(Exit::Shutdown);
            }
            self.offer_interrupt(fd, runner)?;
            match self.enter(fd, runner)? {
                Entered::Exit => {
                    let came = serve(fd, self.bus.as_ref());
                    self.after(fd, came)?;
                }
                Entered::Nothing => {}
                Entered::TurnOver => self.take_turn(fd, runner)?,
            }
        }
    }

    /// Goes into the guest once.
    fn enter(&mut self, fd: &mut VcpuFd, runner: &Runner<'_>) -> Result<Entered, Error> {
        self.is_fresh = true;
        match fd.run().map(drop) {
            Ok(()) => Ok(Entered::Exit),
            Err(error) if error.errno() == libc::EINTR => {
                let is_over = runner.take_signals();
                self.shared.exits.count(if is_over { ExitKind::Turn } else { ExitKind::Kick });
                Ok(if is_over { Entered::TurnOver } else { Entered::Nothing })
            }
            // A processor that waited for a start-up message has it.
            Err(error) if error.errno() == libc::EAGAIN => Ok(Entered::Nothing),
            Err(error) => Err(self.failed(format!("KVM_RUN: {error}"))),
        }
    }

    /// KVM, which emulates kernel code, has been at it for a while: the software processor goes on.
    fn take_turn(&mut self, fd: &mut VcpuFd, runner: &Runner<'_>) -> Result<(), Error> {
        self.finish(fd, runner)?;
        if !self.shut_down {
            let rescued = self.rescue.turn(&self.shared, &self.cell, fd, &self.bus)?;
            self.shut_down |= rescued == Rescued::Shutdown;
            self.is_fresh = false;
        }
        Ok(())
    }

    /// What an exit leads to, once the bus has done its part.
    fn after(&mut self, fd: &mut VcpuFd, came: Came) -> Result<(), Error> {
        let count = |kind| self.shared.exits.count(kind);
        match came {
            Came::PortIn => count(ExitKind::PortIn),
            Came::PortOut => count(ExitKind::PortOut),
            Came::MmioRead => count(ExitKind::MmioRead),
            Came::MmioWrite => count(ExitKind::MmioWrite),
            Came::EndOfInterrupt(vector) => {
                count(ExitKind::EndOfInterrupt);
                self.bus.end_of_interrupt(vector);
            }
            Came::InterruptWindow => count(ExitKind::InterruptWindow),
            Came::Halt => count(ExitKind::Other),
            Came::Shutdown => self.shut_down = true,
            Came::Internal(_) | Came::FailEntry(_) => {
                count(ExitKind::Rescue);
                let rescued = self.rescue.instructions(&self.shared, &self.cell, fd, &self.bus)?;
                self.shut_down |= rescued == Rescued::Shutdown;
                self.is_fresh = false;
            }
            Came::Unknown(reason) => {
                let rip = fd.get_regs().map_or(0, |regs| regs.rip);
                return Err(self.failed(format!(
                    "KVM left the guest at {rip:#x} for a reason that Riad does not know ({reason})"
                )));
            }
        }
        Ok(())
    }

    /// Completes the instruction whose exit was served last, without running another (KVM API 5,
    /// `immediate_exit`), and delivers what is half way: then the state is the table's.
    fn finish(&mut self, fd: &mut VcpuFd, runner: &Runner<'_>) -> Result<(), Error> {
        fd.set_kvm_immediate_exit(1);
        let done = self.complete(fd, runner);
        fd.set_kvm_immediate_exit(0);
        done?;
        if !self.shared.kind.emulates && !self.shut_down {
            // A timer that ran out is noted apart, and becomes a request in the local APIC on the next
            // way in. With a signal waiting that way ends before the guest's next instruction.
            self.cell.mailbox.kick();
            self.complete(fd, runner)?;
        }
        self.is_fresh = true;
        let events = fd.get_vcpu_events().map_err(|e| self.failed(format!("events: {e}")))?;
        if is_between(&events) && !self.shut_down {
            let event = undelivered(&events);
            let rescued = self.rescue.deliver(&self.shared, &self.cell, fd, &self.bus, event)?;
            self.shut_down |= rescued == Rescued::Shutdown;
        }
        Ok(())
    }

    fn complete(&mut self, fd: &mut VcpuFd, runner: &Runner<'_>) -> Result<(), Error> {
        loop {
            match fd.run().map(drop) {
                // An access wider than 8 bytes comes in pieces.
                Ok(()) => {
                    let came = serve(fd, self.bus.as_ref());
                    self.after(fd, came)?;
                    if self.shut_down {
                        return Ok(());
                    }
                }
                Err(error) if error.errno() == libc::EINTR => {
                    runner.take_signals();
                    return Ok(());
                }
                Err(error) if error.errno() == libc::EAGAIN => return Ok(()),
                Err(error) => return Err(self.failed(format!("KVM_RUN: {error}"))),
            }
        }
    }

    /// Injects the 8259 pair's interrupt when processor 0 takes it, and asks to be told when it
    /// will (KVM API 5, `request_interrupt_window`).
    fn offer_interrupt(&mut self, fd: &mut VcpuFd, runner: &Runner<'_>) -> Result<(), Error> {
        if self.cell.id != 0 {
            return Ok(());
        }
        if !self.shared.extint.load(Ordering::SeqCst) {
            fd.get_kvm_run().request_interrupt_window = 0;
            return Ok(());
        }
        if !self.is_fresh {
            // A processor that halts would sleep before it could tell.
            self.finish(fd, runner)?;
        }
        let run = fd.get_kvm_run();
        run.request_interrupt_window = u8::from(run.ready_for_interrupt_injection == 0);
        if run.ready_for_interrupt_injection == 0 {
            return Ok(());
        }
        run.ready_for_interrupt_injection = 0;
        let vector = self.bus.acknowledge_extint();
        inject::interrupt(fd, vector)
            .map_err(|error| self.failed(format!("KVM refused interrupt {vector:#x}: {error}")))
    }

    /// Deals with events that KVM cannot hold: a software processor takes them.
    fn settle_apart(&mut self, fd: &VcpuFd) -> Result<(), Error> {
        if self.apart.is_empty() {
            return Ok(());
        }
        let apart = std::mem::take(&mut self.apart);
        let cell = Arc::clone(&self.cell);
        let mut before = self.shared.read(&cell, fd, &self.known)?;
        apart.add_to(&mut before.events);
        let (stretch, after, _) =
            self.rescue.stretch(&self.shared, &cell, &self.bus, &before, None, 1, None)?;
        self.shut_down = stretch == riad_cpu_soft::stand_in::Stretch::Shutdown;
        self.apart = Apart::of(&after.events);
        if apart.init_pending {
            // INIT changed the local APIC as well.
            return self.shared.write(&cell, fd, &after);
        }
        self.shared.write_changed(fd, &before, &after)
    }
}

impl Vcpu for KvmVcpu {
    fn run(&mut self, limit: Limit) -> Result<Exit, Error> {
        if limit != Limit::None {
            let reason = "it does not count instructions; use --engine soft:interp for that";
            return Err(self.failed(reason.to_owned()));
        }
        let cell = Arc::clone(&self.cell);
        let mut fd = cell.fd();
        let runner = Runner::new(&cell.mailbox, &fd, self.shared.kind.emulates)
            .map_err(|refusal| self.failed(refusal))?;
        self.run_loop(&mut fd, &runner)
    }

    fn state(&self) -> Result<VcpuState, Error> {
        let mut state = self.shared.read(&self.cell, &self.cell.fd(), &self.known)?;
        self.apart.add_to(&mut state.events);
        if self.shut_down {
            state.events.activity = Activity::Shutdown;
        }
        Ok(state)
    }

    fn set_state(&mut self, state: &VcpuState) -> Result<(), Error> {
        state.check()?;
        if state.apic.id != self.cell.id {
            return Err(Error::BadState("it is another processor's".to_owned()));
        }
        let cell = Arc::clone(&self.cell);
        let fd = cell.fd();
        let old = self.shared.read(&cell, &fd, &self.known)?;
        if let Err(error) = self.shared.write(&cell, &fd, state) {
            // KVM took a part of it: put back what was there.
            let _ = self.shared.write(&cell, &fd, &old);
            return Err(error);
        }
        self.is_fresh = false;
        self.known = state.msrs.clone();
        self.apart = Apart::of(&state.events);
        self.shut_down = state.events.activity == Activity::Shutdown;
        Ok(())
    }

    fn handle(&self) -> Arc<dyn VcpuHandle> {
        self.cell.clone()
    }

    fn instructions(&self) -> Option<u64> {
        None
    }
}

impl VcpuHandle for Cell {
    fn stop(&self) {
        self.mailbox.stop();
    }
}

impl Shared {
    /// Model-specific registers after RESET.
    pub(super) fn reset_msrs(&self, id: u32) -> Msrs {
        VcpuState::reset(id).msrs
    }
}
