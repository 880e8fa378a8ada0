//! The one table of x86-64 processor state (wall 2): described once, got and set whole by every
//! engine. Layouts follow the Intel SDM, volume 3A, chapters 2 to 4 and 24.4 (access rights).

use serde::{Deserialize, Serialize};

use super::lapic::LapicState;

/// Bits of RFLAGS (SDM 1, 3.4.3).
pub mod rflags {
    /// Carry.
    pub const CF: u64 = 1 << 0;
    /// Always one.
    pub const ONE: u64 = 1 << 1;
    /// Parity.
    pub const PF: u64 = 1 << 2;
    /// Auxiliary carry.
    pub const AF: u64 = 1 << 4;
    /// Zero.
    pub const ZF: u64 = 1 << 6;
    /// Sign.
    pub const SF: u64 = 1 << 7;
    /// Trap: single-step.
    pub const TF: u64 = 1 << 8;
    /// Interrupts enabled.
    pub const IF: u64 = 1 << 9;
    /// Direction of string instructions.
    pub const DF: u64 = 1 << 10;
    /// Overflow.
    pub const OF: u64 = 1 << 11;
    /// I/O privilege level, two bits.
    pub const IOPL: u64 = 3 << 12;
    /// Nested task.
    pub const NT: u64 = 1 << 14;
    /// Resume: no instruction breakpoint for one instruction.
    pub const RF: u64 = 1 << 16;
    /// Virtual-8086 mode.
    pub const VM: u64 = 1 << 17;
    /// Alignment check; with SMAP, access to user pages.
    pub const AC: u64 = 1 << 18;
    /// Virtual interrupt.
    pub const VIF: u64 = 1 << 19;
    /// Virtual interrupt pending.
    pub const VIP: u64 = 1 << 20;
    /// CPUID can be used.
    pub const ID: u64 = 1 << 21;
    /// The six status flags.
    pub const STATUS: u64 = CF | PF | AF | ZF | SF | OF;
}

/// Bits of CR0 (SDM 3A, 2.5).
pub mod cr0 {
    /// Protected mode.
    pub const PE: u64 = 1 << 0;
    /// Monitor coprocessor.
    pub const MP: u64 = 1 << 1;
    /// Emulate the FPU.
    pub const EM: u64 = 1 << 2;
    /// Task switched.
    pub const TS: u64 = 1 << 3;
    /// Extension type, always one.
    pub const ET: u64 = 1 << 4;
    /// Numeric error: #MF rather than IRQ 13.
    pub const NE: u64 = 1 << 5;
    /// Write protect in supervisor mode.
    pub const WP: u64 = 1 << 16;
    /// Alignment mask.
    pub const AM: u64 = 1 << 18;
    /// Not write-through.
    pub const NW: u64 = 1 << 29;
    /// Cache disable.
    pub const CD: u64 = 1 << 30;
    /// Paging.
    pub const PG: u64 = 1 << 31;
}

/// Bits of CR4 (SDM 3A, 2.5).
pub mod cr4 {
    /// Virtual-8086 extensions.
    pub const VME: u64 = 1 << 0;
    /// Protected-mode virtual interrupts.
    pub const PVI: u64 = 1 << 1;
    /// RDTSC only at CPL 0.
    pub const TSD: u64 = 1 << 2;
    /// Debugging extensions.
    pub const DE: u64 = 1 << 3;
    /// 4 MiB pages in 32-bit paging.
    pub const PSE: u64 = 1 << 4;
    /// Physical address extension.
    pub const PAE: u64 = 1 << 5;
    /// Machine check.
    pub const MCE: u64 = 1 << 6;
    /// Global pages.
    pub const PGE: u64 = 1 << 7;
    /// RDPMC at any CPL.
    pub const PCE: u64 = 1 << 8;
    /// FXSAVE, FXRSTOR and SSE.
    pub const OSFXSR: u64 = 1 << 9;
    /// Unmasked SSE exceptions raise #XM.
    pub const OSXMMEXCPT: u64 = 1 << 10;
    /// SGDT and the like only at CPL 0.
    pub const UMIP: u64 = 1 << 11;
    /// RDFSBASE and the like.
    pub const FSGSBASE: u64 = 1 << 16;
    /// Process-context identifiers.
    pub const PCIDE: u64 = 1 << 17;
    /// XSAVE and XCR0.
    pub const OSXSAVE: u64 = 1 << 18;
    /// Supervisor-mode execution prevention.
    pub const SMEP: u64 = 1 << 20;
    /// Supervisor-mode access prevention.
    pub const SMAP: u64 = 1 << 21;
}

/// Bits of IA32_EFER (SDM 3A, 2.2.1).
pub mod efer {
    /// SYSCALL enabled.
    pub const SCE: u64 = 1 << 0;
    /// Long mode enabled.
    pub const LME: u64 = 1 << 8;
    /// Long mode active.
    pub const LMA: u64 = 1 << 10;
    /// No-execute enabled.
    pub const NXE: u64 = 1 << 11;
}

/// A segment register with its hidden part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Segment {
    /// The visible selector.
    pub selector: u16,
    /// Base linear address.
    pub base: u64,
    /// Limit in bytes, inclusive; granularity already applied.
    pub limit: u32,
    /// Access rights as in the SDM 3C, table 24-2: type in bits 0-3, S in 4, DPL in 5-6, P in 7,
    /// AVL in 12, L in 13, D/B in 14, G in 15, unusable in 16.
    pub rights: u32,
}

impl Segment {
    /// Rights bit: the segment register holds a null selector.
    pub const UNUSABLE: u32 = 1 << 16;
    /// Rights bit: code or data, not system.
    pub const S: u32 = 1 << 4;
    /// Rights bit: present.
    pub const P: u32 = 1 << 7;
    /// Rights bit: 64-bit code.
    pub const L: u32 = 1 << 13;
    /// Rights bit: 32-bit default size, or big stack.
    pub const DB: u32 = 1 << 14;
    /// Rights bit: granularity.
    pub const G: u32 = 1 << 15;

    /// A real-mode segment: base is 16 times the selector, 64 KiB, read-write.
    #[must_use]
    pub fn real(selector: u16) -> Self {
        Self { selector, base: u64::from(selector) << 4, limit: 0xffff, rights: 0x93 }
    }

    /// The segment's privilege level.
    #[must_use]
    pub fn dpl(&self) -> u8 {
        (self.rights >> 5 & 3) as u8
    }

    /// The four type bits.
    #[must_use]
    pub fn kind(&self) -> u8 {
        (self.rights & 15) as u8
    }

    /// Whether it is code or data rather than a system segment.
    #[must_use]
    pub fn is_code_or_data(&self) -> bool {
        self.rights & Self::S != 0
    }

    /// Whether it is code.
    #[must_use]
    pub fn is_code(&self) -> bool {
        self.rights & (Self::S | 8) == Self::S | 8
    }

    /// Whether it is present.
    #[must_use]
    pub fn present(&self) -> bool {
        self.rights & Self::P != 0
    }

    /// The L bit.
    #[must_use]
    pub fn long(&self) -> bool {
        self.rights & Self::L != 0
    }

    /// The D/B bit.
    #[must_use]
    pub fn big(&self) -> bool {
        self.rights & Self::DB != 0
    }

    /// Whether the register holds a null selector.
    #[must_use]
    pub fn unusable(&self) -> bool {
        self.rights & Self::UNUSABLE != 0
    }
}

/// The segment registers, in the order instructions encode them, and LDTR and TR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the registers' own names")]
pub struct Segments {
    pub es: Segment,
    pub cs: Segment,
    pub ss: Segment,
    pub ds: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub ldtr: Segment,
    pub tr: Segment,
}

/// GDTR or IDTR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DescriptorTable {
    /// Linear address of the first byte.
    pub base: u64,
    /// Offset of the last byte.
    pub limit: u16,
}

/// CR0 to CR4, EFER and XCR0. CR8 is the local APIC's task priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the registers' own names")]
pub struct ControlRegisters {
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub xcr0: u64,
}

/// The debug registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DebugRegisters {
    /// DR0 to DR3: breakpoint addresses.
    pub address: [u64; 4],
    /// DR6: status.
    pub dr6: u64,
    /// DR7: control.
    pub dr7: u64,
}

/// An 80-bit extended-precision number as it lies in a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct F80 {
    /// Significand with its explicit integer bit; also the MMX register.
    pub significand: u64,
    /// Sign in bit 15, biased exponent below.
    pub sign_exponent: u16,
}

/// x87, MMX and SSE state, as XSAVE's legacy area has it (SDM 1, 10.5.1 and 13.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fpu {
    /// Control word.
    pub fcw: u16,
    /// Status word, with TOP in bits 11-13.
    pub fsw: u16,
    /// Abridged tag word: bit i set when physical register Ri is not empty.
    pub ftw: u8,
    /// Last opcode, 11 bits.
    pub fop: u16,
    /// Last instruction pointer.
    pub fip: u64,
    /// Its code segment.
    pub fcs: u16,
    /// Last data pointer.
    pub fdp: u64,
    /// Its segment.
    pub fds: u16,
    /// Physical registers R0 to R7 (not relative to TOP).
    pub registers: [F80; 8],
    /// SSE control and status.
    pub mxcsr: u32,
    /// XMM0 to XMM15.
    pub xmm: [u128; 16],
    /// Upper halves of YMM0 to YMM15: room for `riad-v2`.
    pub ymm_high: [u128; 16],
}

impl Default for Fpu {
    fn default() -> Self {
        Self {
            fcw: 0x37f,
            fsw: 0,
            ftw: 0,
            fop: 0,
            fip: 0,
            fcs: 0,
            fdp: 0,
            fds: 0,
            registers: [F80::default(); 8],
            mxcsr: 0x1f80,
            xmm: [0; 16],
            ymm_high: [0; 16],
        }
    }
}

/// Model-specific registers that hold state of their own (SDM 4). Those that only name other state
/// (EFER, the APIC's, the time stamp counter) are elsewhere in [`VcpuState`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the registers' own names")]
pub struct Msrs {
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub tsc_aux: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub pat: u64,
    pub misc_enable: u64,
    pub mtrr_def_type: u64,
    /// IA32_MTRR_PHYSBASEn and IA32_MTRR_PHYSMASKn, alternating.
    pub mtrr_variable: [u64; 16],
    /// The eleven fixed-range MTRRs in address order.
    pub mtrr_fixed: [u64; 11],
    pub tsc_adjust: u64,
    pub microcode_revision: u64,
    pub debugctl: u64,
    /// Which speculation is held back (SDM 4, IA32_SPEC_CTRL): the host's own processor model has it,
    /// `riad-v1` has not.
    #[serde(default)]
    pub spec_ctrl: u64,
}

/// An exception or interrupt that was accepted but not yet delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// Vector, 0 to 31.
    pub vector: u8,
    /// Error code, for those that have one.
    pub code: Option<u32>,
}

/// What a processor is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Activity {
    /// Executing instructions.
    #[default]
    Running,
    /// In HLT, until an interrupt.
    Halted,
    /// After INIT, until a start-up IPI.
    WaitForSipi,
    /// Shut down by a triple fault.
    Shutdown,
}

/// Events between instructions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Events {
    /// What the processor is doing.
    pub activity: Activity,
    /// Interrupts are held back for one instruction (after STI, MOV SS, POP SS).
    pub interrupt_shadow: bool,
    /// The shadow also holds back NMIs and debug traps (after MOV SS, POP SS).
    pub mov_ss_shadow: bool,
    /// An NMI waits.
    pub nmi_pending: bool,
    /// NMIs are blocked until IRET.
    pub nmi_blocked: bool,
    /// Debug-trap causes (DR6 bits) to be delivered before the next instruction.
    pub pending_debug: u64,
    /// An INIT arrived and was not taken yet.
    pub init_pending: bool,
    /// A start-up IPI with this vector arrived and was not taken yet.
    pub start_up_pending: Option<u8>,
}

/// Everything there is to know about one processor between two instructions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuState {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub gpr: [u64; 16],
    /// Address of the next instruction.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Segment registers.
    pub segments: Segments,
    /// Global descriptor table.
    pub gdtr: DescriptorTable,
    /// Interrupt descriptor table.
    pub idtr: DescriptorTable,
    /// Control registers.
    pub control: ControlRegisters,
    /// Debug registers.
    pub debug: DebugRegisters,
    /// x87, MMX, SSE.
    pub fpu: Fpu,
    /// Model-specific registers.
    pub msrs: Msrs,
    /// Local APIC and its timer.
    pub apic: LapicState,
    /// Events between instructions.
    pub events: Events,
    /// Time stamp counter at the moment of saving.
    pub tsc: u64,
}

impl VcpuState {
    /// The state after RESET (SDM 3A, table 10-1), for the processor with this local APIC id;
    /// id 0 is the bootstrap processor, the others wait for a start-up IPI.
    #[must_use]
    pub fn reset(apic_id: u32) -> Self {
        let data = Segment::real(0);
        let mut gpr = [0; 16];
        gpr[2] = u64::from(super::model::SIGNATURE);
        Self {
            gpr,
            rip: 0xfff0,
            rflags: rflags::ONE,
            segments: Segments {
                es: data,
                cs: Segment { selector: 0xf000, base: 0xffff_0000, limit: 0xffff, rights: 0x9b },
                ss: data,
                ds: data,
                fs: data,
                gs: data,
                ldtr: Segment { selector: 0, base: 0, limit: 0xffff, rights: 0x82 },
                tr: Segment { selector: 0, base: 0, limit: 0xffff, rights: 0x8b },
            },
            gdtr: DescriptorTable { base: 0, limit: 0xffff },
            idtr: DescriptorTable { base: 0, limit: 0xffff },
            control: ControlRegisters {
                cr0: cr0::CD | cr0::NW | cr0::ET,
                xcr0: 1,
                ..ControlRegisters::default()
            },
            debug: DebugRegisters { address: [0; 4], dr6: 0xffff_0ff0, dr7: 0x400 },
            fpu: Fpu { fcw: 0x40, ftw: 0xff, ..Fpu::default() },
            msrs: Msrs {
                pat: 0x0007_0406_0007_0406,
                misc_enable: super::msr::MISC_ENABLE_RESET,
                microcode_revision: 1 << 32,
                ..Msrs::default()
            },
            apic: LapicState::reset(apic_id),
            events: Events {
                activity: if apic_id == 0 { Activity::Running } else { Activity::WaitForSipi },
                ..Events::default()
            },
            tsc: 0,
        }
    }

    /// The state in which 32-bit kernels are entered: flat protected mode, paging off, interrupts
    /// off (Linux x86 boot protocol, "32-bit boot protocol"; PVH; Multiboot 3.2).
    #[must_use]
    pub fn flat_protected(apic_id: u32, eip: u32) -> Self {
        let mut state = Self::reset(apic_id);
        let data = Segment { selector: 0x18, base: 0, limit: u32::MAX, rights: 0xc093 };
        state.rip = u64::from(eip);
        state.gpr[2] = 0;
        let Segments { es, cs, ss, ds, fs, gs, ldtr: _, tr } = &mut state.segments;
        (*es, *ss, *ds, *fs, *gs) = (data, data, data, data, data);
        *cs = Segment { selector: 0x10, base: 0, limit: u32::MAX, rights: 0xc09b };
        tr.limit = 0x67;
        state.control.cr0 = cr0::PE | cr0::ET;
        state.gdtr = DescriptorTable::default();
        state.idtr = DescriptorTable::default();
        // Firmware leaves memory write-back (SDM 3A, 12.11.2.1); devices' windows are uncached by
        // their page attributes.
        state.msrs.mtrr_def_type = 0xc06;
        state
    }
}
