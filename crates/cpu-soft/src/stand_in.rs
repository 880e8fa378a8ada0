//! Standing in: a software processor runs a stretch of a guest that another engine's processor could
//! not, on the same memory and bus, and hands the state back.
//!
//! What belongs to the other engine stays there: interrupts, which that one delivers later, the local
//! APIC with its timer, and what the processor says that it is, which may be more or less than
//! `riad-v1`. An instruction that reaches for the local APIC, moves the time stamp counter, asks what
//! the processor is, or is not one of ours, ends the stretch before it has done anything
//! ([`Fault::ELSEWHERE`]).

use riad_cpu::Error;
use riad_cpu::x86::{Activity, VcpuState};
use riad_cpu::{Exit, Limit, Vcpu};

use crate::SoftVcpu;
use crate::cpu::Cpu;
use crate::fault::{Done, Fault};
use crate::run::Shutdown;

/// Whose a processor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loan {
    /// It is a processor of its own.
    Own,
    /// It stands in for another, for this purpose if it has one.
    Lent(Option<Purpose>),
    /// It came to an instruction that the other has to run.
    Over,
}

impl Loan {
    /// Whether the stretch ends here, at this privilege level.
    pub(crate) fn is_over(self, cpl: u8) -> bool {
        self == Self::Over || self == Self::Lent(Some(Purpose::Kernel)) && cpl == 3
    }
}

/// What a stretch is for, where it is not simply some instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Kernel code, which the other processor is slow at: it ends, as done, when level 3 is entered.
    Kernel,
    /// An instruction that the other processor does not know: if this one neither does, it does not
    /// exist.
    LastResort,
}

/// How a stretch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stretch {
    /// After as many instructions as asked for, or because the processor halts or waits.
    Done,
    /// Before an instruction that is for the other processor.
    Elsewhere,
    /// By a triple fault.
    Shutdown,
}

/// What the other processor had accepted and not yet delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undelivered {
    /// An interrupt from outside, or an NMI (vector 2).
    Interrupt(u8),
    /// An exception; that of a page fault finds its address in CR2.
    Exception {
        /// The vector.
        vector: u8,
        /// The error code, of those that have one.
        code: Option<u16>,
    },
}

impl SoftVcpu {
    /// Runs `most` instructions from `state`; `undelivered` comes first, and `purpose` may end it
    /// earlier. Interrupts that the state holds are neither delivered nor lost, and its timer stands
    /// still. Gives how it ended; the new state is [`Vcpu::state`]'s, in which only what the local
    /// APIC's task priority is may differ of the APIC.
    ///
    /// # Errors
    /// [`Error::BadState`].
    pub fn stand_in(
        &mut self,
        state: &VcpuState,
        undelivered: Option<Undelivered>,
        most: u64,
        purpose: Option<Purpose>,
    ) -> Result<Stretch, Error> {
        let mut lent = state.clone();
        lent.apic.irr = [0; 8];
        lent.apic.timer_start = None;
        lent.apic.tsc_deadline = 0;
        self.set_state(&lent)?;
        // The other engine's processors tell nobody of the code that they overwrite.
        self.forget_code();
        self.cpu.loan = Loan::Lent(purpose);
        let delivered = match undelivered {
            None => Ok(()),
            Some(event) => self.cpu.take_over(event),
        };
        let exit = match delivered {
            Ok(()) => self.run(Limit::Instructions(most)),
            Err(Shutdown) => Ok(Exit::Shutdown),
        };
        let loan = std::mem::replace(&mut self.cpu.loan, Loan::Own);
        Ok(match exit? {
            Exit::Shutdown => Stretch::Shutdown,
            _ if loan == Loan::Over => Stretch::Elsewhere,
            _ => Stretch::Done,
        })
    }

    /// Forgets what was decoded.
    fn forget_code(&mut self) {
        self.blocks.forget();
        self.cpu.straddlers.fill(None);
    }
}

impl Cpu {
    /// Whether the local APIC, the time stamp counter and the model are this processor's own.
    ///
    /// # Errors
    /// [`Fault::ELSEWHERE`] when they are not.
    pub(crate) fn own_apic(&self) -> Done {
        if self.loan == Loan::Own { Ok(()) } else { Err(Fault::ELSEWHERE) }
    }

    /// A fault of an instruction or a register that the other processor may know.
    pub(crate) fn or_elsewhere(&self, fault: Fault) -> Fault {
        match self.loan {
            Loan::Own | Loan::Lent(Some(Purpose::LastResort)) => fault,
            Loan::Lent(None | Some(Purpose::Kernel)) | Loan::Over => Fault::ELSEWHERE,
        }
    }

    /// Ends a stretch before the instruction at `this_rip`: shadows, RF and traps are what they were.
    #[cold]
    pub(crate) fn give_back(&mut self, before: (bool, bool, u64), held_back: u64) {
        self.set_rip(self.this_rip);
        (self.events.interrupt_shadow, self.events.mov_ss_shadow) = (before.0, before.1);
        self.flags.bits |= before.2;
        self.events.pending_debug = held_back;
        self.step_trap = false;
        self.loan = Loan::Over;
    }

    /// Delivers what another processor had accepted.
    fn take_over(&mut self, event: Undelivered) -> Result<(), Shutdown> {
        self.events.activity = Activity::Running;
        match event {
            Undelivered::Interrupt(vector) => self.interrupt(vector),
            Undelivered::Exception { vector, code } => {
                self.fault_address = self.control.cr2;
                let fault = match code {
                    Some(code) => Fault::with_code(vector, code),
                    None => Fault::plain(vector),
                };
                // Debug exceptions may be traps; RF is the other engine's matter then.
                self.deliver(fault, vector != 1)
            }
        }
    }
}

#[cfg(test)]
#[path = "stand_in_test.rs"]
mod tests;
