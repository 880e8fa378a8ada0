//! The interrupt fabric: each processor's local APIC and mailbox, and the messages between them.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use riad_cpu::VcpuHandle;
use riad_cpu::x86::Events;
use riad_cpu::x86::lapic::{Delivery, Effect, Lapic, LapicState, Message, Signal, Timer};
use riad_memory::Gpa;

use crate::cpu::Cpu;
use crate::fault::Done;
use crate::translate::sys::FrameMemory;

/// Bits of [`Mailbox::requests`].
pub mod request {
    /// The local APIC may have an interrupt to deliver.
    pub const INTERRUPT: u32 = 1;
    /// NMI.
    pub const NMI: u32 = 2;
    /// INIT.
    pub const INIT: u32 = 4;
    /// Start-up IPI; its vector is in the mailbox.
    pub const START_UP: u32 = 8;
    /// Someone wants the processor to stop.
    pub const STOP: u32 = 16;
}

/// What other threads see of a processor.
#[derive(Debug)]
pub struct Mailbox {
    id: u32,
    apic: Mutex<Lapic>,
    requests: AtomicU32,
    start_up_vector: AtomicU8,
    /// Whether the processor sleeps, and has to be woken.
    sleeping: Mutex<bool>,
    wake: Condvar,
    /// What calls the processor out of translated code.
    frame: OnceLock<Arc<FrameMemory>>,
}

impl Mailbox {
    fn apic(&self) -> MutexGuard<'_, Lapic> {
        self.apic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, bits: u32) {
        self.requests.fetch_or(bits, Ordering::SeqCst);
        if let Some(frame) = self.frame.get() {
            frame.attention().store(1, Ordering::SeqCst);
        }
        if *self.sleeping.lock().unwrap_or_else(PoisonError::into_inner) {
            self.wake.notify_all();
        }
    }
}

impl VcpuHandle for Mailbox {
    fn stop(&self) {
        self.post(request::STOP);
    }
}

/// All processors' mailboxes, and the 8259's wire.
#[derive(Debug, Default)]
pub struct Fabric {
    processors: RwLock<Vec<Arc<Mailbox>>>,
    extint: AtomicBool,
    /// Counts messages, to spread lowest-priority ones.
    turn: AtomicU64,
}

impl Fabric {
    /// Adds a processor's mailbox.
    pub fn add(&self, id: u32) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox {
            id,
            apic: Mutex::new(Lapic::restore(LapicState::reset(id))),
            requests: AtomicU32::new(0),
            start_up_vector: AtomicU8::new(0),
            sleeping: Mutex::new(false),
            wake: Condvar::new(),
            frame: OnceLock::new(),
        });
        self.processors.write().unwrap_or_else(PoisonError::into_inner).push(mailbox.clone());
        mailbox
    }

    /// Delivers a message to every processor it addresses.
    pub fn send(&self, message: &Message, sender: Option<u32>) {
        let processors = self.processors.read().unwrap_or_else(PoisonError::into_inner);
        let addressed = |p: &&Arc<Mailbox>| p.apic().is_addressed_by(message, sender);
        if message.delivery == Delivery::LowestPriority {
            let candidates: Vec<_> =
                processors.iter().filter(|p| addressed(p) && p.apic().software_enabled()).collect();
            if !candidates.is_empty() {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) as usize;
                Self::hand_over(candidates[turn % candidates.len()], message);
            }
            return;
        }
        for processor in processors.iter().filter(addressed) {
            Self::hand_over(processor, message);
        }
    }

    fn hand_over(to: &Mailbox, message: &Message) {
        let signal = to.apic().accept(message);
        match signal {
            Signal::None => {}
            Signal::Interrupt => to.post(request::INTERRUPT),
            Signal::Nmi => to.post(request::NMI),
            Signal::Init => to.post(request::INIT),
            Signal::StartUp(vector) => {
                to.start_up_vector.store(vector, Ordering::SeqCst);
                to.post(request::START_UP);
            }
        }
    }

    /// Calls a processor to look at its timer.
    pub(crate) fn call(&self, id: u32) {
        let processors = self.processors.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(processor) = processors.iter().find(|processor| processor.id == id) {
            processor.post(request::INTERRUPT);
        }
    }

    /// The level of the 8259 pair's output, wired to processor 0.
    pub fn set_extint(&self, level: bool) {
        self.extint.store(level, Ordering::SeqCst);
        if level {
            let processors = self.processors.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(first) = processors.first() {
                first.post(request::INTERRUPT);
            }
        }
    }
}

/// A processor's own end of the fabric.
#[derive(Debug, Clone)]
pub struct Local {
    fabric: Arc<Fabric>,
    mailbox: Arc<Mailbox>,
}

impl Local {
    /// The end that belongs to `mailbox`.
    #[must_use]
    pub fn new(fabric: Arc<Fabric>, mailbox: Arc<Mailbox>) -> Self {
        Self { fabric, mailbox }
    }

    /// From now on requests call the processor out of translated code with this frame.
    pub(crate) fn call_by(&self, frame: Arc<FrameMemory>) {
        // Only ever set once, when the processor is made.
        let _ = self.mailbox.frame.set(frame);
    }

    /// Forgets that the processor was called out, before it looks at what was requested. Returns
    /// whether it was.
    pub(crate) fn heard(&self) -> bool {
        self.mailbox.frame.get().is_some_and(|frame| {
            frame.attention().load(Ordering::Relaxed) != 0
                && frame.attention().swap(0, Ordering::SeqCst) != 0
        })
    }

    /// Local APIC id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.mailbox.id
    }

    /// The local APIC. Do not send while holding it.
    pub fn apic(&self) -> MutexGuard<'_, Lapic> {
        self.mailbox.apic()
    }

    /// Adds what was posted and not yet taken to a processor's events, to be saved with them.
    pub fn save_requests(&self, events: &mut Events) {
        let posted = self.requests();
        events.nmi_pending |= posted & request::NMI != 0;
        events.init_pending = posted & request::INIT != 0;
        events.start_up_pending = (posted & request::START_UP != 0).then(|| self.start_up_vector());
    }

    /// Posts what was saved, in place of what is posted now.
    pub fn restore_requests(&self, events: &mut Events) {
        let _ = self.take(request::NMI | request::INIT | request::START_UP);
        if std::mem::take(&mut events.init_pending) {
            self.post(request::INIT);
        }
        if let Some(vector) = events.start_up_pending.take() {
            self.mailbox.start_up_vector.store(vector, Ordering::SeqCst);
            self.post(request::START_UP);
        }
        self.post(request::INTERRUPT);
    }

    /// Makes the local APIC's state this.
    pub fn set_apic(&self, state: LapicState) {
        *self.mailbox.apic() = Lapic::restore(state);
    }

    /// The handle for other threads.
    #[must_use]
    pub fn handle(&self) -> Arc<dyn VcpuHandle> {
        self.mailbox.clone()
    }

    /// Requests posted and not yet taken.
    #[inline(always)]
    #[must_use]
    pub fn requests(&self) -> u32 {
        self.mailbox.requests.load(Ordering::Acquire)
    }

    /// Takes some requests: returns those that were posted.
    #[must_use]
    pub fn take(&self, bits: u32) -> u32 {
        self.mailbox.requests.fetch_and(!bits, Ordering::SeqCst) & bits
    }

    /// Posts a request to oneself.
    pub fn post(&self, bits: u32) {
        self.mailbox.requests.fetch_or(bits, Ordering::SeqCst);
    }

    /// The vector of the last start-up IPI.
    #[must_use]
    pub fn start_up_vector(&self) -> u8 {
        self.mailbox.start_up_vector.load(Ordering::SeqCst)
    }

    /// Whether an 8259 wants an interrupt delivered here.
    #[must_use]
    pub fn extint(&self) -> bool {
        self.mailbox.id == 0
            && self.fabric.extint.load(Ordering::SeqCst)
            && self.apic().passes_extint()
    }

    /// Sends a message from this processor.
    pub fn send(&self, message: &Message) {
        self.fabric.send(message, Some(self.mailbox.id));
    }

    /// Sleeps until a request is posted, or the time is over (`None`: no limit).
    pub fn sleep(&self, limit: Option<Duration>) {
        let Mailbox { sleeping, wake, .. } = &*self.mailbox;
        let mut asleep = sleeping.lock().unwrap_or_else(PoisonError::into_inner);
        while self.requests() == 0 {
            *asleep = true;
            let Some(limit) = limit else {
                asleep = wake.wait(asleep).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            asleep = wake.wait_timeout(asleep, limit).unwrap_or_else(PoisonError::into_inner).0;
            break;
        }
        *asleep = false;
    }
}

impl Cpu {
    /// Carries out what a local APIC register write asked for.
    pub fn apic_effect(&mut self, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Send(message) => self.local.send(&message),
            Effect::EndOfInterrupt(vector) => self.bus.end_of_interrupt(vector),
            Effect::TimerChanged => {}
        }
        self.timer_touched = true;
        // Priority, service and the timer may have changed: look again.
        self.local.post(request::INTERRUPT);
        self.left = 0;
    }

    /// The guest time at which the local APIC's timer fires.
    #[must_use]
    pub fn timer_deadline(&self) -> Option<u64> {
        let timer = self.local.apic().timer();
        match timer {
            Timer::Off => None,
            Timer::At(at) => Some(at),
            Timer::AtTsc(tsc) => Some(self.time_of_tsc(tsc)),
        }
    }

    fn apic_page(&self, gpa: Gpa) -> bool {
        if gpa.0 >> 12 != 0xfee00 && gpa.0 >> 20 != 0xfee {
            return false;
        }
        let apic = self.local.apic();
        apic.enabled() && !apic.x2apic() && gpa.0 & !0xfff == apic.base() & !0xfff
    }

    /// Reads what is not RAM: the local APIC's page, or the bus.
    ///
    /// # Errors
    /// [`Fault::ELSEWHERE`](crate::fault::Fault::ELSEWHERE) when the local APIC is not here.
    pub fn io_read(&mut self, gpa: Gpa, data: &mut [u8]) -> Done {
        if self.apic_page(gpa) {
            self.own_apic()?;
            let value = self.local.apic().mmio_read(gpa.0 & 0xff0, self.clock.now()).to_le_bytes();
            let from = (gpa.0 & 15) as usize;
            for (i, byte) in data.iter_mut().enumerate() {
                *byte = value.get(from + i).copied().unwrap_or(0);
            }
            return Ok(());
        }
        for (n, part) in data.chunks_mut(8).enumerate() {
            self.bus.mmio_read(Gpa(gpa.0 + n as u64 * 8), part);
        }
        self.left = 0;
        Ok(())
    }

    /// Writes what is not RAM.
    ///
    /// # Errors
    /// As for [`io_read`](Self::io_read).
    pub fn io_write(&mut self, gpa: Gpa, data: &[u8]) -> Done {
        if self.apic_page(gpa) {
            self.own_apic()?;
            if gpa.0 & 15 == 0 && data.len() >= 4 {
                let value = u32::from_le_bytes([data[0], data[1], data[2], data[3]]);
                let now = self.clock.now();
                let effect = self.local.apic().mmio_write(gpa.0 & 0xff0, value, now);
                self.apic_effect(effect);
            }
            return Ok(());
        }
        for (n, part) in data.chunks(8).enumerate() {
            self.bus.mmio_write(Gpa(gpa.0 + n as u64 * 8), part);
        }
        self.left = 0;
        Ok(())
    }
}
