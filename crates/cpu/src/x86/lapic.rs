//! The local APIC (Intel SDM 3A, chapter 11), in xAPIC and x2APIC mode, as a plain state machine.
//!
//! It knows nothing of threads, other processors or clocks: an engine holds one for each processor,
//! hands it messages ([`Lapic::accept`]) and register accesses, carries out the [`Effect`]s that
//! come back, and tells it the time ([`Lapic::expire_timer`]).

use serde::{Deserialize, Serialize};

use riad_clock::Nanos;

/// Frequency of the timer before its divider: one count a nanosecond of guest time.
pub const TIMER_HZ: u64 = 1_000_000_000;

/// IA32_APIC_BASE after reset, without the bootstrap bit: enabled, at its usual address.
pub const BASE_RESET: u64 = 0xfee0_0000 | BASE_ENABLE;
/// IA32_APIC_BASE: this is the bootstrap processor.
pub const BASE_BSP: u64 = 1 << 8;
/// IA32_APIC_BASE: x2APIC mode.
pub const BASE_X2APIC: u64 = 1 << 10;
/// IA32_APIC_BASE: enabled.
pub const BASE_ENABLE: u64 = 1 << 11;

/// Register numbers: the xAPIC offset divided by 16, which is also the x2APIC MSR less 0x800.
mod reg {
    pub(super) const ID: u32 = 0x02;
    pub(super) const VERSION: u32 = 0x03;
    pub(super) const TPR: u32 = 0x08;
    pub(super) const APR: u32 = 0x09;
    pub(super) const PPR: u32 = 0x0a;
    pub(super) const EOI: u32 = 0x0b;
    pub(super) const LDR: u32 = 0x0d;
    pub(super) const DFR: u32 = 0x0e;
    pub(super) const SVR: u32 = 0x0f;
    pub(super) const ISR: u32 = 0x10;
    pub(super) const TMR: u32 = 0x18;
    pub(super) const IRR: u32 = 0x20;
    pub(super) const ESR: u32 = 0x28;
    pub(super) const ICR: u32 = 0x30;
    pub(super) const ICR_HIGH: u32 = 0x31;
    pub(super) const LVT_TIMER: u32 = 0x32;
    pub(super) const LVT_ERROR: u32 = 0x37;
    pub(super) const TIMER_INITIAL: u32 = 0x38;
    pub(super) const TIMER_CURRENT: u32 = 0x39;
    pub(super) const TIMER_DIVIDE: u32 = 0x3e;
    pub(super) const SELF_IPI: u32 = 0x3f;
}

/// Indices into [`LapicState::lvt`].
const LVT_TIMER: usize = 0;
const LVT_LINT0: usize = 3;
const LVT_ERROR: usize = 5;
const LVT_MASKED: u32 = 1 << 16;

/// How a message wants to be delivered (SDM 3A, 11.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// To all destinations, with the vector.
    Fixed,
    /// To one of the destinations.
    LowestPriority,
    /// Non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// Start-up IPI; the vector is the page number to start at.
    StartUp,
    /// From an 8259: the vector comes from it.
    ExtInt,
    /// SMI and reserved modes: ignored.
    Ignored,
}

impl Delivery {
    fn from_bits(bits: u32) -> Self {
        match bits & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            7 => Self::ExtInt,
            _ => Self::Ignored,
        }
    }
}

/// Whom a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// The processor with this APIC id; all ones is everybody.
    Physical(u32),
    /// Processors by logical id; all ones is everybody.
    Logical(u32),
    /// The sender.
    Myself,
    /// Everybody.
    All,
    /// Everybody but the sender.
    Others,
}

/// An interrupt message on its way to local APICs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Whom it is for.
    pub to: Destination,
    /// How.
    pub delivery: Delivery,
    /// Vector.
    pub vector: u8,
    /// Level-triggered: the end of interrupt is announced to I/O APICs.
    pub level: bool,
    /// The destination field is 8 bits wide, as from an MSI or an xAPIC.
    pub narrow: bool,
}

impl Message {
    /// Decodes a message-signalled interrupt (SDM 3A, 11.11).
    #[must_use]
    pub fn from_msi(address: u64, data: u32) -> Self {
        let id = (address >> 12 & 0xff) as u32;
        let logical = address & 1 << 2 != 0;
        Self {
            to: if logical { Destination::Logical(id) } else { Destination::Physical(id) },
            delivery: Delivery::from_bits(data >> 8),
            vector: data as u8,
            level: data & 1 << 15 != 0,
            narrow: true,
        }
    }
}

/// What a register write asks the engine to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Send this.
    Send(Message),
    /// Tell I/O APICs that this level-triggered vector is finished.
    EndOfInterrupt(u8),
    /// The timer was set: look at [`Lapic::timer`] again.
    TimerChanged,
}

/// What an accepted message means to the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Nothing.
    None,
    /// An interrupt may be pending now.
    Interrupt,
    /// NMI.
    Nmi,
    /// INIT.
    Init,
    /// Start-up at this page.
    StartUp(u8),
}

/// When the timer will fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// It is not armed.
    Off,
    /// At this guest time.
    At(Nanos),
    /// When the time stamp counter reaches this.
    AtTsc(u64),
}

/// A register that does not exist, or a value it does not take: #GP in x2APIC mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// All of a local APIC's state (wall 4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LapicState {
    /// IA32_APIC_BASE.
    pub base: u64,
    /// APIC id.
    pub id: u32,
    /// Task priority.
    pub tpr: u8,
    /// Logical destination (xAPIC layout).
    pub ldr: u32,
    /// Destination format.
    pub dfr: u32,
    /// Spurious-interrupt vector.
    pub svr: u32,
    /// In service, 256 bits.
    pub isr: [u32; 8],
    /// Trigger mode, 256 bits.
    pub tmr: [u32; 8],
    /// Requested, 256 bits.
    pub irr: [u32; 8],
    /// Error status as read.
    pub esr: u32,
    /// Errors gathered since ESR was last written.
    pub esr_pending: u32,
    /// Interrupt command.
    pub icr: u64,
    /// Local vector table: timer, thermal, performance, LINT0, LINT1, error.
    pub lvt: [u32; 6],
    /// Timer initial count.
    pub timer_initial: u32,
    /// Timer divide configuration.
    pub timer_divide: u32,
    /// Guest time at which the running count began; `None` when no count runs.
    pub timer_start: Option<Nanos>,
    /// IA32_TSC_DEADLINE; 0 when not armed.
    pub tsc_deadline: u64,
}

impl LapicState {
    /// The state after RESET for this APIC id; id 0 is the bootstrap processor.
    #[must_use]
    pub fn reset(id: u32) -> Self {
        let mut lvt = [LVT_MASKED; 6];
        if id == 0 {
            // Virtual wire mode, as firmware leaves it: the 8259's interrupts pass through LINT0
            // (MultiProcessor Specification 1.4, 3.6.2.2).
            lvt[LVT_LINT0] = 7 << 8;
        }
        Self {
            base: BASE_RESET | if id == 0 { BASE_BSP } else { 0 },
            id,
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: 0xff,
            isr: [0; 8],
            tmr: [0; 8],
            irr: [0; 8],
            esr: 0,
            esr_pending: 0,
            icr: 0,
            lvt,
            timer_initial: 0,
            timer_divide: 0,
            timer_start: None,
            tsc_deadline: 0,
        }
    }
}

/// A local APIC.
#[derive(Debug, Clone)]
pub struct Lapic {
    s: LapicState,
}

impl Lapic {
    /// Goes on from a state.
    #[must_use]
    pub fn restore(state: LapicState) -> Self {
        Self { s: state }
    }

    /// The state.
    #[must_use]
    pub fn save(&self) -> LapicState {
        self.s.clone()
    }

    /// Back to the state after INIT: as after RESET, but the id and IA32_APIC_BASE stay.
    pub fn init(&mut self) {
        let base = self.s.base;
        self.s = LapicState { base, ..LapicState::reset(self.s.id) };
        if self.x2apic() {
            self.s.ldr = self.x2apic_ldr();
        }
    }

    /// The logical id that x2APIC mode derives from the APIC id (SDM 3A, 11.12.10.2).
    fn x2apic_ldr(&self) -> u32 {
        (self.s.id >> 4) << 16 | 1 << (self.s.id & 15)
    }

    /// IA32_APIC_BASE.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.s.base
    }

    /// Whether the APIC is in x2APIC mode.
    #[must_use]
    pub fn x2apic(&self) -> bool {
        self.s.base & BASE_X2APIC != 0
    }

    /// Whether the APIC is globally enabled.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.s.base & BASE_ENABLE != 0
    }

    /// Writes IA32_APIC_BASE (SDM 3A, 11.12.1).
    ///
    /// # Errors
    /// For a transition that hardware answers with #GP.
    pub fn set_base(&mut self, value: u64) -> Result<(), Refused> {
        let reserved =
            !(BASE_BSP | BASE_X2APIC | BASE_ENABLE | ((1 << super::model::PHYSICAL_BITS) - 0x1000));
        let mode = |base: u64| (base & BASE_ENABLE != 0, base & BASE_X2APIC != 0);
        let allowed = match (mode(self.s.base), mode(value)) {
            (_, (false, true)) => false,
            ((true, true), (true, false)) | ((false, false), (true, true)) => false,
            _ => value & reserved == 0,
        };
        if !allowed {
            return Err(Refused);
        }
        let was_x2 = self.x2apic();
        if value & BASE_ENABLE == 0 && self.enabled() {
            self.init();
        }
        self.s.base = value & !BASE_BSP | self.s.base & BASE_BSP;
        if self.x2apic() && !was_x2 {
            self.s.ldr = self.x2apic_ldr();
        }
        Ok(())
    }

    /// Whether it takes interrupts: enabled in IA32_APIC_BASE and in the spurious-vector register.
    #[must_use]
    pub fn software_enabled(&self) -> bool {
        self.enabled() && self.s.svr & 1 << 8 != 0
    }

    /// The task priority register; CR8 is its upper four bits.
    #[must_use]
    pub fn tpr(&self) -> u8 {
        self.s.tpr
    }

    /// Sets the task priority register.
    pub fn set_tpr(&mut self, tpr: u8) {
        self.s.tpr = tpr;
    }

    fn ppr(&self) -> u8 {
        let in_service = highest(&self.s.isr).unwrap_or(0);
        if self.s.tpr >> 4 >= in_service >> 4 { self.s.tpr } else { in_service & 0xf0 }
    }

    /// The vector that would be delivered now, if any.
    #[must_use]
    pub fn pending(&self) -> Option<u8> {
        let vector = highest(&self.s.irr)?;
        (self.software_enabled() && vector >> 4 > self.ppr() >> 4).then_some(vector)
    }

    /// Takes the pending vector into service, or `None` when none is pending.
    pub fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.pending()?;
        clear(&mut self.s.irr, vector);
        set(&mut self.s.isr, vector);
        Some(vector)
    }

    /// Whether an 8259's request on LINT0 is let through: LINT0 in ExtINT mode, or the APIC off.
    #[must_use]
    pub fn passes_extint(&self) -> bool {
        if !self.enabled() {
            return true;
        }
        let lint0 = self.s.lvt[LVT_LINT0];
        lint0 & LVT_MASKED == 0 && Delivery::from_bits(lint0 >> 8) == Delivery::ExtInt
    }

    /// Whether a message from elsewhere is for this processor.
    #[must_use]
    pub fn is_addressed_by(&self, message: &Message, sender: Option<u32>) -> bool {
        match message.to {
            Destination::All => true,
            Destination::Myself => sender == Some(self.s.id),
            Destination::Others => sender != Some(self.s.id),
            Destination::Physical(id) => {
                let everybody = if message.narrow { 0xff } else { u32::MAX };
                id == everybody || id == self.s.id
            }
            Destination::Logical(mask) => self.matches_logical(mask, message.narrow),
        }
    }

    /// SDM 3A, 11.6.2.2 and 11.12.10.2.
    fn matches_logical(&self, mask: u32, narrow: bool) -> bool {
        if self.x2apic() {
            if (narrow && mask == 0xff) || mask == u32::MAX {
                return true;
            }
            return mask >> 16 == self.s.ldr >> 16 && mask & self.s.ldr & 0xffff != 0;
        }
        let mine = self.s.ldr >> 24;
        if mask & 0xff == 0xff {
            return true;
        }
        if self.s.dfr >> 28 == 0xf {
            mask & mine != 0
        } else {
            mask >> 4 & 0xf == mine >> 4 && mask & mine & 0xf != 0
        }
    }

    /// Takes a message that is addressed to this processor.
    pub fn accept(&mut self, message: &Message) -> Signal {
        match message.delivery {
            Delivery::Fixed | Delivery::LowestPriority => {
                self.request(message.vector, message.level);
                Signal::Interrupt
            }
            Delivery::Nmi => Signal::Nmi,
            Delivery::Init => Signal::Init,
            Delivery::StartUp => Signal::StartUp(message.vector),
            Delivery::ExtInt | Delivery::Ignored => Signal::None,
        }
    }

    /// Requests a vector, as if it had arrived on the bus.
    fn request(&mut self, vector: u8, level: bool) {
        if !self.software_enabled() {
            return;
        }
        if vector < 16 {
            self.error(1 << 6);
            return;
        }
        set(&mut self.s.irr, vector);
        if level {
            set(&mut self.s.tmr, vector);
        } else {
            clear(&mut self.s.tmr, vector);
        }
    }

    fn error(&mut self, bit: u32) {
        let fresh = self.s.esr_pending & bit == 0;
        self.s.esr_pending |= bit;
        let lvt = self.s.lvt[LVT_ERROR];
        if fresh && lvt & LVT_MASKED == 0 && lvt as u8 >= 16 {
            self.request(lvt as u8, false);
        }
    }

    fn end_of_interrupt(&mut self) -> Effect {
        let Some(vector) = highest(&self.s.isr) else { return Effect::None };
        clear(&mut self.s.isr, vector);
        let level = self.s.tmr[usize::from(vector >> 5)] & 1 << (vector & 31) != 0;
        if level && self.s.svr & 1 << 12 == 0 {
            Effect::EndOfInterrupt(vector)
        } else {
            Effect::None
        }
    }

    // --- the timer (SDM 3A, 11.5.4) ---

    fn timer_mode(&self) -> u32 {
        self.s.lvt[LVT_TIMER] >> 17 & 3
    }

    fn divider(&self) -> u64 {
        let bits = self.s.timer_divide & 3 | self.s.timer_divide >> 1 & 4;
        if bits == 7 { 1 } else { 2 << bits }
    }

    /// When the timer will fire next.
    #[must_use]
    pub fn timer(&self) -> Timer {
        match (self.timer_mode(), self.s.timer_start) {
            (2, _) if self.s.tsc_deadline != 0 => Timer::AtTsc(self.s.tsc_deadline),
            (0 | 1, Some(start)) => {
                Timer::At(start.saturating_add(u64::from(self.s.timer_initial) * self.divider()))
            }
            _ => Timer::Off,
        }
    }

    /// Fires the timer, which the engine found due. Returns whether an interrupt was requested.
    pub fn expire_timer(&mut self, now: Nanos) -> bool {
        match self.timer() {
            Timer::Off => return false,
            Timer::AtTsc(_) => self.s.tsc_deadline = 0,
            Timer::At(due) => {
                if now < due {
                    return false;
                }
                self.s.timer_start = if self.timer_mode() == 1 {
                    let period = (u64::from(self.s.timer_initial) * self.divider()).max(1);
                    Some(due + (now - due) / period * period)
                } else {
                    None
                };
            }
        }
        let lvt = self.s.lvt[LVT_TIMER];
        if lvt & LVT_MASKED != 0 {
            return false;
        }
        self.request(lvt as u8, false);
        true
    }

    fn current_count(&self, now: Nanos) -> u32 {
        let Some(start) = self.s.timer_start else { return 0 };
        let counted = now.saturating_sub(start) / self.divider();
        let initial = u64::from(self.s.timer_initial);
        if initial == 0 {
            return 0;
        }
        let left = if self.timer_mode() == 1 {
            initial - counted % initial
        } else {
            initial.saturating_sub(counted)
        };
        left as u32
    }

    /// IA32_TSC_DEADLINE as read.
    #[must_use]
    pub fn tsc_deadline(&self) -> u64 {
        if self.timer_mode() == 2 { self.s.tsc_deadline } else { 0 }
    }

    /// Writes IA32_TSC_DEADLINE; ignored unless the timer is in that mode.
    pub fn set_tsc_deadline(&mut self, value: u64) {
        if self.timer_mode() == 2 {
            self.s.tsc_deadline = value;
        }
    }

    // --- registers ---

    /// Reads 32 bits at an xAPIC page offset.
    #[must_use]
    pub fn mmio_read(&self, offset: u64, now: Nanos) -> u32 {
        let register = (offset >> 4 & 0xff) as u32;
        match register {
            reg::ID => self.s.id << 24,
            reg::ICR_HIGH => (self.s.icr >> 32) as u32,
            _ => self.read(register, now).map_or(0, |value| value as u32),
        }
    }

    /// Writes 32 bits at an xAPIC page offset.
    pub fn mmio_write(&mut self, offset: u64, value: u32, now: Nanos) -> Effect {
        let register = (offset >> 4 & 0xff) as u32;
        match register {
            reg::ICR_HIGH => {
                self.s.icr = self.s.icr & 0xffff_ffff | u64::from(value) << 32;
                Effect::None
            }
            reg::ICR => {
                let high = self.s.icr >> 32 << 32;
                self.command(high | u64::from(value), true)
            }
            reg::LDR => {
                self.s.ldr = value & 0xff00_0000;
                Effect::None
            }
            reg::DFR => {
                self.s.dfr = value | 0x0fff_ffff;
                Effect::None
            }
            reg::EOI => self.end_of_interrupt(),
            reg::ESR => {
                self.s.esr = std::mem::take(&mut self.s.esr_pending);
                Effect::None
            }
            reg::SELF_IPI => Effect::None,
            _ => self.write(register, u64::from(value), now).unwrap_or(Effect::None),
        }
    }

    /// Reads an x2APIC MSR, given as its number less 0x800.
    ///
    /// # Errors
    /// When hardware would raise #GP.
    pub fn msr_read(&self, register: u32, now: Nanos) -> Result<u64, Refused> {
        match register {
            reg::DFR | reg::ICR_HIGH | reg::EOI | reg::SELF_IPI | reg::APR => Err(Refused),
            _ => self.read(register, now),
        }
    }

    /// Writes an x2APIC MSR, given as its number less 0x800.
    ///
    /// # Errors
    /// When hardware would raise #GP.
    pub fn msr_write(&mut self, register: u32, value: u64, now: Nanos) -> Result<Effect, Refused> {
        if register != reg::ICR && value >> 32 != 0 {
            return Err(Refused);
        }
        match register {
            reg::ID | reg::VERSION | reg::PPR | reg::LDR | reg::DFR | reg::ICR_HIGH | reg::APR => {
                Err(Refused)
            }
            reg::ICR => Ok(self.command(value, false)),
            reg::EOI if value == 0 => Ok(self.end_of_interrupt()),
            reg::ESR if value == 0 => {
                self.s.esr = std::mem::take(&mut self.s.esr_pending);
                Ok(Effect::None)
            }
            reg::EOI | reg::ESR => Err(Refused),
            reg::SELF_IPI => Ok(Effect::Send(Message {
                to: Destination::Myself,
                delivery: Delivery::Fixed,
                vector: value as u8,
                level: false,
                narrow: false,
            })),
            _ => self.write(register, value, now),
        }
    }

    fn read(&self, register: u32, now: Nanos) -> Result<u64, Refused> {
        let value = match register {
            reg::ID => self.s.id,
            reg::VERSION => 0x14 | 5 << 16 | 1 << 24,
            reg::TPR => u32::from(self.s.tpr),
            reg::PPR => u32::from(self.ppr()),
            reg::APR | reg::EOI => 0,
            reg::LDR => self.s.ldr,
            reg::DFR => self.s.dfr,
            reg::SVR => self.s.svr,
            reg::ISR..0x18 => self.s.isr[(register - reg::ISR) as usize],
            reg::TMR..0x20 => self.s.tmr[(register - reg::TMR) as usize],
            reg::IRR..0x28 => self.s.irr[(register - reg::IRR) as usize],
            reg::ESR => self.s.esr,
            reg::ICR => {
                return Ok(if self.x2apic() { self.s.icr } else { self.s.icr & 0xffff_ffff });
            }
            reg::LVT_TIMER..=reg::LVT_ERROR => self.s.lvt[(register - reg::LVT_TIMER) as usize],
            reg::TIMER_INITIAL => self.s.timer_initial,
            reg::TIMER_CURRENT => self.current_count(now),
            reg::TIMER_DIVIDE => self.s.timer_divide,
            _ => return Err(Refused),
        };
        Ok(u64::from(value))
    }

    fn write(&mut self, register: u32, value: u64, now: Nanos) -> Result<Effect, Refused> {
        let value = value as u32;
        match register {
            reg::TPR => self.s.tpr = value as u8,
            reg::SVR => {
                self.s.svr = value & 0x13ff;
                if self.s.svr & 1 << 8 == 0 {
                    for lvt in &mut self.s.lvt {
                        *lvt |= LVT_MASKED;
                    }
                }
            }
            reg::LVT_TIMER..=reg::LVT_ERROR => {
                let which = (register - reg::LVT_TIMER) as usize;
                let was_mode = self.timer_mode();
                let mask = match which {
                    LVT_TIMER => 0x7_10ff,
                    LVT_LINT0 | 4 => 0x1_f7ff,
                    LVT_ERROR => 0x1_10ff,
                    _ => 0x1_17ff,
                };
                let off = if self.s.svr & 1 << 8 == 0 { LVT_MASKED } else { 0 };
                self.s.lvt[which] = value & mask | off;
                if which == LVT_TIMER {
                    if self.timer_mode() != was_mode {
                        self.s.tsc_deadline = 0;
                        if self.timer_mode() >= 2 || was_mode >= 2 {
                            self.s.timer_start = None;
                            self.s.timer_initial = 0;
                        }
                    }
                    return Ok(Effect::TimerChanged);
                }
            }
            reg::TIMER_INITIAL => {
                if self.timer_mode() < 2 {
                    self.s.timer_initial = value;
                    self.s.timer_start = (value != 0).then_some(now);
                }
                return Ok(Effect::TimerChanged);
            }
            reg::TIMER_DIVIDE => {
                // Keep what was counted: restart with the remaining count under the new divider.
                let left = u64::from(self.current_count(now));
                self.s.timer_divide = value & 0xb;
                if self.s.timer_start.is_some() {
                    let counted =
                        u64::from(self.s.timer_initial) - left.min(u64::from(self.s.timer_initial));
                    self.s.timer_start = Some(now.saturating_sub(counted * self.divider()));
                }
                return Ok(Effect::TimerChanged);
            }
            reg::TIMER_CURRENT | reg::ISR..0x28 | reg::ID | reg::VERSION => {
                if self.x2apic() {
                    return Err(Refused);
                }
            }
            _ => return Err(Refused),
        }
        Ok(Effect::None)
    }

    /// The interrupt command register (SDM 3A, 11.6.1 and 11.12.9).
    fn command(&mut self, value: u64, xapic: bool) -> Effect {
        self.s.icr = value & !(1 << 12);
        let low = value as u32;
        let delivery = Delivery::from_bits(low >> 8);
        let id = if xapic { (value >> 56) as u32 } else { (value >> 32) as u32 };
        let to = match low >> 18 & 3 {
            0 if low & 1 << 11 != 0 => Destination::Logical(id),
            0 => Destination::Physical(id),
            1 => Destination::Myself,
            2 => Destination::All,
            _ => Destination::Others,
        };
        // INIT level de-assert does nothing on processors since the Pentium 4.
        if delivery == Delivery::Init && low & 1 << 14 == 0 && low & 1 << 15 != 0 {
            return Effect::None;
        }
        if matches!(delivery, Delivery::Fixed | Delivery::LowestPriority) && (low as u8) < 16 {
            self.error(1 << 5);
            return Effect::None;
        }
        Effect::Send(Message { to, delivery, vector: low as u8, level: false, narrow: xapic })
    }
}

fn highest(bits: &[u32; 8]) -> Option<u8> {
    bits.iter()
        .enumerate()
        .rev()
        .find(|(_, word)| **word != 0)
        .map(|(i, word)| (i as u32 * 32 + 31 - word.leading_zeros()) as u8)
}

fn set(bits: &mut [u32; 8], vector: u8) {
    bits[usize::from(vector >> 5)] |= 1 << (vector & 31);
}

fn clear(bits: &mut [u32; 8], vector: u8) {
    bits[usize::from(vector >> 5)] &= !(1 << (vector & 31));
}

#[cfg(test)]
#[path = "lapic_test.rs"]
mod tests;
