//! What lends a machine its processors.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use riad_clock::SharedClock;
use riad_memory::{Gpa, GuestMemory};

use crate::Bus;
use crate::x86::VcpuState;

/// What can go wrong with an engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine cannot run on this host.
    #[error("engine {engine} is not available: {reason}")]
    Unavailable {
        /// `kvm` or `soft`.
        engine: &'static str,
        /// Why, and what to do.
        reason: String,
    },
    /// A state that no processor can be in.
    #[error("processor state is not valid: {0}")]
    BadState(String),
    /// The engine gave up on the guest.
    #[error("engine {engine} failed on processor {vcpu}: {reason}")]
    Failed {
        /// `kvm` or `soft`.
        engine: &'static str,
        /// Number of the processor.
        vcpu: u32,
        /// What happened.
        reason: String,
    },
}

/// What every processor of a machine has in common.
#[derive(Debug, Clone)]
pub struct VcpuConfig {
    /// Number of processors, 1 to 255.
    pub count: u32,
    /// Frequency of the time stamp counter in kHz.
    pub tsc_khz: u32,
}

/// How long a processor may run before it must come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Until something ends it.
    None,
    /// This many instructions; engines that cannot count refuse it.
    Instructions(u64),
}

/// Why a processor came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It was asked to stop.
    Stopped,
    /// The limit was reached.
    Limit,
    /// Triple fault: the processor shut down. A PC resets then.
    Shutdown,
}

/// A machine's processors and the interrupt fabric between them.
pub trait Engine: Send + Sync {
    /// `soft` or `kvm`.
    fn name(&self) -> &'static str;

    /// Makes processor `id` (its local APIC id), in its power-on state: processor 0 at the reset
    /// vector, the others waiting for a start-up IPI. Called once for each id.
    ///
    /// # Errors
    /// When the engine cannot.
    fn add_vcpu(&self, id: u32, bus: Arc<dyn Bus>) -> Result<Box<dyn Vcpu>, Error>;

    /// Delivers a message-signalled interrupt (Intel SDM 3A, 12.11): `data` written to `address`.
    fn send_msi(&self, address: u64, data: u32);

    /// From now on a write to guest-physical `at`, of any length, rings `bell`, an eventfd, and nobody
    /// else hears of it. Returns whether the engine does that without leaving the guest; if not, the
    /// write comes to the [`Bus`], as ever.
    fn hang_bell(&self, at: Gpa, bell: BorrowedFd<'_>) -> bool {
        let _ = (at, bell);
        false
    }

    /// Ends what [`hang_bell`](Self::hang_bell) began, with the same arguments.
    fn take_bell_down(&self, at: Gpa, bell: BorrowedFd<'_>) {
        let _ = (at, bell);
    }

    /// The level of the 8259 pair's INTR output, wired to LINT0 of processor 0.
    fn set_extint(&self, level: bool);

    /// Guest time stands still from now on: the clock is paused, and no processor runs. What of the
    /// processors goes by a clock of its own stops as well.
    fn pause(&self) {}

    /// Guest time goes on; the clock runs already, and no processor runs yet.
    fn resume(&self) {}

    /// Puts what processors wrote into the page table's dirty map, where that did not happen as they
    /// wrote. The first call may report pages that nobody wrote. Processors must not run.
    ///
    /// # Errors
    /// When the engine cannot tell.
    fn collect_dirty(&self) -> Result<(), Error> {
        Ok(())
    }

    /// How often processors left the guest, by kind: how often they came to a device, for those in
    /// software.
    fn exits(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// The machine's memory.
    fn memory(&self) -> &GuestMemory;

    /// The machine's clock.
    fn clock(&self) -> &SharedClock;
}

/// One processor. Owned by the thread that runs it.
pub trait Vcpu: Send {
    /// Runs guest code until the limit, a request to stop, or shutdown. A halted processor waits
    /// inside.
    ///
    /// # Errors
    /// When the engine gives up: the message says at which instruction.
    fn run(&mut self, limit: Limit) -> Result<Exit, Error>;

    /// All of the processor's state.
    ///
    /// # Errors
    /// When the engine cannot read it.
    fn state(&self) -> Result<VcpuState, Error>;

    /// Makes the processor's state this.
    ///
    /// # Errors
    /// [`Error::BadState`]; then the old state stays.
    fn set_state(&mut self, state: &VcpuState) -> Result<(), Error>;

    /// A handle other threads stop this processor with.
    fn handle(&self) -> Arc<dyn VcpuHandle>;

    /// Instructions retired since the processor was made, where the engine can count.
    fn instructions(&self) -> Option<u64>;
}

/// What other threads may do to a processor.
pub trait VcpuHandle: Send + Sync {
    /// Makes [`Vcpu::run`] return [`Exit::Stopped`] soon; if it is not running, its next call
    /// returns at once.
    fn stop(&self);
}
