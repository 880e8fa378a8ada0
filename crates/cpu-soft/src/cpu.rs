//! The processor's registers and what it is wired to.

use std::sync::Arc;
use std::sync::atomic::AtomicPtr;

use riad_clock::SharedClock;
use riad_cpu::Bus;
use riad_cpu::x86::model::CpuidContext;
use riad_cpu::x86::{
    ControlRegisters, DebugRegisters, DescriptorTable, Events, Fpu, Msrs, Segment, cr0, cr4, efer,
    rflags,
};
use riad_memory::GuestMemory;

use crate::apic::Local;
use crate::fault::Fault;
use crate::flags::Flags;
use crate::mem::Tlb;
use crate::op::{HIGH, gpr};
use crate::run::Straddler;
use crate::stand_in::Loan;
use crate::translate::thread::Thread;
use crate::word::Word;

/// How instructions are decoded and addresses are formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Real-address mode, 16-bit code.
    Real,
    /// Virtual-8086 mode.
    V86,
    /// Protected or compatibility mode, 16-bit code segment.
    Protected16,
    /// Protected or compatibility mode, 32-bit code segment.
    Protected32,
    /// 64-bit mode.
    Long,
}

impl Mode {
    /// Bits that the decoder wants: 16, 32 or 64.
    #[must_use]
    pub fn bitness(self) -> u32 {
        match self {
            Self::Real | Self::V86 | Self::Protected16 => 16,
            Self::Protected32 => 32,
            Self::Long => 64,
        }
    }
}

/// One processor's registers, its soft TLB, and what it is wired to.
pub struct Cpu {
    /// RAX to R15 as encoded in instructions; [`ZERO`](crate::op::ZERO); [`RIP`](crate::op::RIP).
    /// While a handler runs, RIP is the address of the next instruction.
    pub regs: [u64; 18],
    /// RFLAGS.
    pub flags: Flags,
    /// How many ops of the current block may still run; a handler sets it to 0 to make the
    /// processor look at mode, interrupts and code anew after its instruction.
    pub left: u32,
    /// Decoding mode; see [`update_mode`](Self::update_mode).
    pub mode: Mode,
    /// Current privilege level.
    pub cpl: u8,
    /// Segments are flat: linear addresses are effective addresses plus, for FS and GS, a base.
    pub flat: bool,
    /// ES, CS, SS, DS, FS, GS.
    pub segs: [Segment; 6],
    /// LDTR.
    pub ldtr: Segment,
    /// TR.
    pub tr: Segment,
    /// GDTR.
    pub gdtr: DescriptorTable,
    /// IDTR.
    pub idtr: DescriptorTable,
    /// Control registers. Write them through `system::control`, which keeps what derives from them.
    pub control: ControlRegisters,
    /// Debug registers.
    pub debug: DebugRegisters,
    /// x87, MMX and SSE.
    pub fpu: Fpu,
    /// Model-specific registers.
    pub msrs: Msrs,
    /// Shadows and pending events.
    pub events: Events,
    /// Linear address of the last page fault, until it is delivered into CR2.
    pub fault_address: u64,
    /// Address of the instruction being executed.
    pub this_rip: u64,
    /// Whose processor this one stands in for, if it does.
    pub(crate) loan: Loan,
    /// A single-step trap is due after the instruction being executed. Set from TF before it; the
    /// few instructions that look at TF otherwise change it.
    pub step_trap: bool,
    /// The time stamp counter is guest time scaled, plus this.
    pub tsc_offset: u64,
    /// Frequency of the time stamp counter, kHz.
    pub tsc_khz: u32,
    /// Number of processors in the machine.
    pub count: u32,
    /// Instructions retired.
    pub retired: u64,
    /// An interrupt was held back because interrupts are off.
    pub(crate) interrupts_held: bool,
    /// The timer's register may have been written since it was last looked at.
    pub(crate) timer_touched: bool,
    /// Translated code counts instructions.
    pub(crate) counted: bool,
    /// Translated blocks must do the same when they run again.
    pub(crate) pure: bool,
    /// What an instruction raised that translated code had interpreted.
    pub(crate) held_fault: Option<Fault>,
    /// Who runs translated code, while it runs.
    pub(crate) lent_thread: AtomicPtr<Thread>,
    /// Instructions across two pages, as they were decoded last.
    pub(crate) straddlers: Box<[Option<Straddler>]>,
    /// The soft TLB.
    pub tlb: Box<Tlb>,
    /// RAM.
    pub memory: GuestMemory,
    /// Everything else.
    pub bus: Arc<dyn Bus>,
    /// Guest time.
    pub clock: SharedClock,
    /// This processor's place in the interrupt fabric.
    pub local: Local,
}

impl Cpu {
    /// RIP: the next instruction while a handler runs.
    #[inline(always)]
    #[must_use]
    pub fn rip(&self) -> u64 {
        self.regs[17]
    }

    /// Sets RIP.
    #[inline(always)]
    pub fn set_rip(&mut self, rip: u64) {
        self.regs[17] = rip;
    }

    /// Reads a general-purpose register at an operand width; 8-bit numbers may carry [`HIGH`].
    #[inline(always)]
    #[must_use]
    pub fn get<T: Word>(&self, reg: u8) -> T {
        if T::BYTES == 1 && reg & HIGH != 0 {
            return T::low(self.regs[usize::from(reg & 3)] >> 8);
        }
        T::low(self.regs[usize::from(reg & 15)])
    }

    /// Writes a general-purpose register at an operand width: 32-bit writes clear the upper half,
    /// narrower ones leave the rest (SDM 1, 3.4.1.1).
    #[inline(always)]
    pub fn set<T: Word>(&mut self, reg: u8, value: T) {
        if T::BYTES == 1 && reg & HIGH != 0 {
            let register = &mut self.regs[usize::from(reg & 3)];
            *register = *register & !0xff00 | value.zx() << 8;
            return;
        }
        let register = &mut self.regs[usize::from(reg & 15)];
        *register = match T::BYTES {
            1 | 2 => *register & !T::MASK | value.zx(),
            _ => value.zx(),
        };
    }

    /// Whether the processor is in 64-bit mode.
    #[inline(always)]
    #[must_use]
    pub fn long(&self) -> bool {
        self.mode == Mode::Long
    }

    /// Whether IA-32e mode is active (64-bit or compatibility mode).
    #[inline]
    #[must_use]
    pub fn long_active(&self) -> bool {
        self.control.efer & efer::LMA != 0
    }

    /// Whether CR0.PE is set.
    #[inline]
    #[must_use]
    pub fn protected(&self) -> bool {
        self.control.cr0 & cr0::PE != 0
    }

    /// Whether EFLAGS.VM is set (only meaningful in protected mode).
    #[inline]
    #[must_use]
    pub fn v86(&self) -> bool {
        self.flags.bits & rflags::VM != 0
    }

    /// I/O privilege level.
    #[inline]
    #[must_use]
    pub fn iopl(&self) -> u8 {
        (self.flags.bits >> 12 & 3) as u8
    }

    /// Width in bytes of stack pushes' addresses: 8, 4 or 2.
    #[inline(always)]
    #[must_use]
    pub fn stack_width(&self) -> u8 {
        match self.mode {
            Mode::Long => 8,
            _ if self.segs[2].big() => 4,
            _ => 2,
        }
    }

    /// Recomputes everything that derives from CR0, CR4, EFER, CS, SS, EFLAGS.VM, EFLAGS.AC and
    /// CPL: call it after changing any of them. Ends the current block.
    pub fn update_mode(&mut self) {
        let cs = &self.segs[1];
        self.mode = if !self.protected() {
            Mode::Real
        } else if self.v86() {
            Mode::V86
        } else if self.long_active() && cs.long() {
            Mode::Long
        } else if cs.big() {
            Mode::Protected32
        } else {
            Mode::Protected16
        };
        self.flat = match self.mode {
            Mode::Long => true,
            Mode::Protected32 => {
                self.segs.iter().all(|s| {
                    s.unusable()
                        || (s.base == 0
                            && s.limit == u32::MAX
                            && s.kind() & 4 == 0
                            && s.kind() & 2 != 0)
                }) && !self.segs.iter().any(Segment::unusable)
            }
            _ => false,
        };
        self.update_tlb_view();
        self.left = 0;
    }

    /// Chooses the TLB's view: what the current privilege may touch.
    pub fn update_tlb_view(&mut self) {
        let user = self.cpl == 3;
        let ac = self.flags.bits & rflags::AC != 0;
        let smap = self.control.cr4 & cr4::SMAP != 0;
        self.tlb.view = match (user, ac) {
            (true, true) if self.control.cr0 & cr0::AM != 0 => Tlb::CHECKED,
            (true, _) => Tlb::USER,
            (false, false) if smap => Tlb::GUARDED,
            (false, _) => Tlb::SUPERVISOR,
        };
    }

    /// Sets the privilege level.
    pub fn set_cpl(&mut self, cpl: u8) {
        self.cpl = cpl;
        self.update_tlb_view();
    }

    /// The time stamp counter.
    #[must_use]
    pub fn tsc(&self) -> u64 {
        self.tsc_at(self.clock.now()).wrapping_add(self.tsc_offset)
    }

    /// Counts of the time stamp counter in this much guest time.
    fn tsc_at(&self, now: u64) -> u64 {
        if self.tsc_khz == 1_000_000 {
            return now;
        }
        (u128::from(now) * u128::from(self.tsc_khz) / 1_000_000) as u64
    }

    /// Makes the time stamp counter read `value` now.
    pub fn set_tsc(&mut self, value: u64) {
        self.tsc_offset = value.wrapping_sub(self.tsc_at(self.clock.now()));
        self.timer_touched = true;
    }

    /// The guest time at which the time stamp counter will read `tsc`.
    #[must_use]
    pub fn time_of_tsc(&self, tsc: u64) -> u64 {
        let counts = tsc.wrapping_sub(self.tsc_offset);
        if counts >> 63 != 0 {
            return 0;
        }
        if self.tsc_khz == 1_000_000 {
            return counts;
        }
        u64::try_from(u128::from(counts) * 1_000_000 / u128::from(self.tsc_khz.max(1)) + 1)
            .unwrap_or(u64::MAX)
    }

    /// What CPUID's answer depends on.
    #[must_use]
    pub fn cpuid_context(&self) -> CpuidContext {
        CpuidContext {
            apic_id: self.local.id(),
            count: self.count,
            tsc_khz: self.tsc_khz,
            osxsave: self.control.cr4 & cr4::OSXSAVE != 0,
            apic_enabled: self.local.apic().enabled(),
        }
    }

    /// EDX:EAX.
    #[must_use]
    pub fn edx_eax(&self) -> u64 {
        self.regs[gpr::RAX] & 0xffff_ffff | self.regs[gpr::RDX] << 32
    }

    /// Sets EDX:EAX, clearing the upper halves.
    pub fn set_edx_eax(&mut self, value: u64) {
        self.regs[gpr::RAX] = value & 0xffff_ffff;
        self.regs[gpr::RDX] = value >> 32;
    }
}
