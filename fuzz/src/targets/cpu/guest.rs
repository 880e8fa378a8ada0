//! A small machine with one processor: page tables, descriptors, an interrupt table, and code that
//! the case brings.

use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use riad_clock::ManualClock;
use riad_cpu::x86::{
    Activity, ControlRegisters, DescriptorTable, Segment, Segments, VcpuState, cr0, cr4, efer,
    rflags,
};
use riad_cpu::{Bus, Exit, Limit, Vcpu, VcpuConfig, VcpuHandle};
use riad_cpu_soft::SoftEngine;
use riad_memory::{Gpa, GuestMemory};

use crate::input::Input;

/// Bytes of a case before its changes to the state: mode, privilege, pace, seed of registers.
pub(super) const HEADER: usize = 4;

/// Instructions of a case.
const INSTRUCTIONS: u64 = 500;
/// How long a guest may stand still: one that halts with nobody to wake it up does so for ever.
const PATIENCE: Duration = Duration::from_millis(3);

/// Bytes of memory.
const MEMORY: u64 = 1 << 20;

/// Where things are.
mod at {
    pub(super) const IDT: u64 = 0x2000;
    pub(super) const GDT: u64 = 0x3000;
    pub(super) const TSS: u64 = 0x4000;
    /// Three or four levels of page tables, a page each.
    pub(super) const TABLES: u64 = 0x5000;
    pub(super) const HANDLERS: u64 = 0x9000;
    pub(super) const CODE: u64 = 0x1_0000;
    pub(super) const STACK: u64 = 0x2_8000;
}

/// Selectors of the descriptors that [`descriptors`] writes.
mod selector {
    pub(super) const CODE_64: u16 = 0x08;
    pub(super) const CODE_32: u16 = 0x10;
    pub(super) const DATA: u16 = 0x18;
    pub(super) const USER_CODE_32: u16 = 0x23;
    pub(super) const USER_DATA: u16 = 0x2b;
    pub(super) const USER_CODE_64: u16 = 0x33;
    pub(super) const TSS: u16 = 0x38;
    pub(super) const CODE_16: u16 = 0x60;
}

/// How the guest begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beginning {
    Real,
    Protected16,
    Protected32,
    Paging32,
    PagingPae,
    Long,
    Compatibility,
    Virtual8086,
}

const BEGINNINGS: [Beginning; 10] = [
    Beginning::Real,
    Beginning::Protected16,
    Beginning::Protected32,
    Beginning::Paging32,
    Beginning::PagingPae,
    Beginning::Long,
    Beginning::Long,
    Beginning::Long,
    Beginning::Compatibility,
    Beginning::Virtual8086,
];

/// Nobody answers, and nobody remembers.
struct Nowhere;

impl Bus for Nowhere {
    fn mmio_read(&self, at: Gpa, data: &mut [u8]) {
        assert!((1..=8).contains(&data.len()), "a read of {} bytes at {at}", data.len());
        data.fill(0xff);
    }

    fn mmio_write(&self, at: Gpa, data: &[u8]) {
        assert!((1..=8).contains(&data.len()), "a write of {} bytes at {at}", data.len());
    }

    fn port_read(&self, port: u16, data: &mut [u8]) {
        assert!(
            matches!(data.len(), 1 | 2 | 4),
            "a read of {} bytes at port {port:#x}",
            data.len()
        );
        data.fill(0xff);
    }

    fn port_write(&self, port: u16, data: &[u8]) {
        assert!(
            matches!(data.len(), 1 | 2 | 4),
            "a write of {} bytes at port {port:#x}",
            data.len()
        );
    }

    fn acknowledge_extint(&self) -> u8 {
        0x30
    }

    fn end_of_interrupt(&self, _vector: u8) {}
}

/// Runs a case. Tells how many instructions it retired.
pub(super) fn run(bytes: &[u8]) -> u64 {
    let mut input = Input::new(bytes);
    let beginning = input.pick(&BEGINNINGS);
    let user = input.u8() & 3 == 3;
    // One at a time, so that a guest that halts is seen to; or in blocks.
    let pace = if input.u8().is_multiple_of(4) { INSTRUCTIONS } else { 1 };
    let filling = input.u8();
    let Ok(memory) = GuestMemory::new(&[(Gpa(0), MEMORY)]) else { return 0 };
    let clock = Arc::new(ManualClock::new(0).driven(1));
    let config = VcpuConfig { count: 1, tsc_khz: 1_000_000 };
    let mut vcpu = SoftEngine::new(memory.clone(), clock, config).vcpu(0, Arc::new(Nowhere));
    let mut state = state(beginning, user, filling);
    for _ in 0..input.u8() % 8 {
        change(&mut state, input.u8(), input.u64());
    }
    fill(&memory, beginning, input.rest());
    if vcpu.set_state(&state).is_err() {
        return 0;
    }
    let guard = Alarm::get().set(vcpu.handle());
    for _ in 0..INSTRUCTIONS / pace {
        match vcpu.run(Limit::Instructions(pace)) {
            Ok(Exit::Limit) => {}
            Ok(Exit::Stopped | Exit::Shutdown) | Err(_) => break,
        }
        // Nobody would wake it.
        if vcpu.cpu.events.activity != Activity::Running {
            break;
        }
    }
    drop(guard);
    keep(&mut vcpu);
    vcpu.cpu.retired
}

/// What a guest got itself into can be saved and restored (walls 2 and 4).
fn keep(vcpu: &mut impl Vcpu) {
    let Ok(state) = vcpu.state() else { return };
    if let Err(error) = vcpu.set_state(&state) {
        panic!("a processor does not take its own state: {error}\n{state:x?}");
    }
    assert_eq!(vcpu.state().ok(), Some(state), "a processor's state does not come back");
}

/// A plausible state.
fn state(beginning: Beginning, user: bool, filling: u8) -> VcpuState {
    use Beginning as B;
    let mut state = VcpuState::reset(0);
    let long = matches!(beginning, B::Long | B::Compatibility);
    let user = user && !matches!(beginning, B::Real | B::Protected16);
    for (n, register) in (0u64..).zip(&mut state.gpr) {
        // Addresses of data, of tables, small numbers.
        *register = match (n + u64::from(filling)) % 4 {
            0 => 0x3_0000 + 0x100 * n,
            1 => u64::from(filling) * n,
            2 => 0x9000 * n,
            _ => u64::from(filling) << (4 * n),
        };
    }
    state.gpr[4] = at::STACK;
    state.rip = at::CODE;
    state.rflags = rflags::ONE | if filling & 1 == 0 { rflags::IF } else { 0 };
    state.tsc = 1000;
    state.fpu.xmm = [u128::from(filling).wrapping_mul(0x3ff0_0000_0000_0001_0000_0001); 16];
    state.control.xcr0 = 3;
    if beginning == B::Real {
        state.segments.cs = Segment { rights: 0x9b, ..Segment::real(0x1000) };
        state.rip = 0;
        state.gpr[4] = 0x8000;
        state.idtr = DescriptorTable { base: at::IDT, limit: 0x3ff };
        return state;
    }
    let ControlRegisters { cr0, cr3, cr4, efer, .. } = &mut state.control;
    *cr0 = cr0::PE | cr0::ET | cr0::NE | cr0::MP | cr0::WP;
    *cr3 = at::TABLES;
    *cr4 = cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
    match beginning {
        B::Paging32 | B::Virtual8086 => {
            *cr0 |= cr0::PG;
            *cr4 |= cr4::PSE;
        }
        B::PagingPae => {
            *cr0 |= cr0::PG;
            *cr4 |= cr4::PAE;
        }
        B::Long | B::Compatibility => {
            *cr0 |= cr0::PG;
            *cr4 |= cr4::PAE | cr4::FSGSBASE;
            if filling & 2 != 0 {
                *cr4 |= cr4::PCIDE | cr4::SMEP | cr4::UMIP | cr4::PGE;
            }
            *efer = efer::LME | efer::LMA | efer::NXE | efer::SCE;
        }
        _ => {}
    }
    let dpl: u32 = if user { 0x60 } else { 0 };
    let flat = |selector, rights| Segment { selector, base: 0, limit: u32::MAX, rights };
    let (code, data) = match (beginning, user) {
        (B::Long, false) => (flat(selector::CODE_64, 0xa09b), selector::DATA),
        (B::Long, true) => (flat(selector::USER_CODE_64, 0xa09b), selector::USER_DATA),
        (B::Protected16, _) => (flat(selector::CODE_16, 0x809b), selector::DATA),
        (_, false) => (flat(selector::CODE_32, 0xc09b), selector::DATA),
        (_, true) => (flat(selector::USER_CODE_32, 0xc09b), selector::USER_DATA),
    };
    let data = flat(data, 0xc093 | dpl);
    let tr = Segment { selector: selector::TSS, base: at::TSS, limit: 0x2fff, rights: 0x8b };
    let ldtr = Segment { selector: 0, base: 0, limit: 0, rights: Segment::UNUSABLE };
    state.segments = Segments {
        es: data,
        cs: Segment { rights: code.rights | dpl, ..code },
        ss: data,
        ds: data,
        fs: Segment { base: 0x3_0000, ..data },
        gs: Segment { base: if long { 0x3_1000 } else { 0 }, ..data },
        ldtr,
        tr,
    };
    if beginning == B::Virtual8086 {
        let real = |selector| Segment { rights: 0xf3, ..Segment::real(selector) };
        let Segments { es, cs, ss, ds, fs, gs, .. } = &mut state.segments;
        (*es, *ss, *ds, *fs, *gs) =
            (real(0x3000), real(0x2000), real(0x3000), real(0), real(0x100));
        *cs = real(0x1000);
        state.rip = 0;
        state.gpr[4] = 0x8000;
        state.rflags |= rflags::VM | if filling & 4 != 0 { rflags::IOPL } else { 0 };
    }
    state.gdtr = DescriptorTable { base: at::GDT, limit: 0xff };
    state.idtr = DescriptorTable { base: at::IDT, limit: 0xfff };
    state.msrs.lstar = at::HANDLERS;
    state.msrs.star = 0x0018_0008 << 32;
    state.msrs.sysenter_cs = selector::CODE_64.into();
    state.msrs.sysenter_eip = at::HANDLERS;
    state.msrs.sysenter_esp = at::STACK;
    state
}

/// A change of the state. Only to what a guest could have written there.
fn change(state: &mut VcpuState, what: u8, value: u64) {
    let low = value as u32;
    match what % 32 {
        n @ 0..=15 => state.gpr[usize::from(n)] = value,
        16 => {
            let free =
                rflags::STATUS | rflags::TF | rflags::IF | rflags::DF | rflags::IOPL | rflags::AC;
            state.rflags ^= value & (free | rflags::NT | rflags::RF | rflags::ID);
        }
        17 => state.debug.dr7 = value & 0xffff_23ff | 0x400,
        18 => state.debug.address[usize::from(low as u8 & 3)] = value & 0x7fff_ffff,
        19 => state.fpu.fcw = value as u16 & 0x1f3f | 0x40,
        20 => state.fpu.fsw = value as u16,
        21 => state.fpu.mxcsr = low & 0xffff,
        22 => state.fpu.ftw = value as u8,
        23 => {
            let register = &mut state.fpu.registers[usize::from(low as u8 & 7)];
            register.significand = value;
            register.sign_exponent = (value >> 13) as u16;
        }
        24 => state.fpu.xmm[usize::from(low as u8 & 15)] = u128::from(value) << (low & 63),
        25 => state.rip = value & 0xf_ffff,
        26 => state.gdtr.limit = value as u16,
        27 => state.idtr.limit = value as u16,
        28 => state.segments.fs.base = value & 0x7fff_ffff_ffff,
        29 => state.control.cr0 ^= value & (cr0::TS | cr0::EM | cr0::AM | cr0::NE | cr0::WP),
        30 => {
            state.control.cr4 ^=
                value & (cr4::TSD | cr4::DE | cr4::SMAP | cr4::OSFXSR | cr4::OSXMMEXCPT)
        }
        _ => state.events.nmi_pending = value & 1 != 0,
    }
}

/// Writes tables and code.
fn fill(memory: &GuestMemory, beginning: Beginning, code: &[u8]) {
    let write = |at: u64, bytes: &[u8]| {
        let room = usize::try_from(MEMORY.saturating_sub(at)).unwrap_or(0).min(bytes.len());
        // All of it is inside.
        let _ = memory.write(Gpa(at), &bytes[..room]);
    };
    let code = &code[..code.len().min(0x8000)];
    write(at::CODE, code);
    // Handlers run the end of the code, so that they differ from where they come from.
    write(at::HANDLERS, &code[code.len() / 2..][..(code.len() / 2).min(0x1000)]);
    write(at::STACK - 0x100, &[0x10; 0x200]);
    write(0x3_0000, &code[..code.len().min(512)]);
    let words =
        |values: &[u64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    write(at::GDT, &words(&descriptors(beginning)));
    let gates: Vec<u8> = (0..256u64)
        .flat_map(|vector| match beginning {
            Beginning::Real => (0x900u32 << 16 | vector as u32).to_le_bytes().to_vec(),
            Beginning::Long | Beginning::Compatibility => {
                // Interrupt and trap gates, one in 16 of another privilege or kind.
                let rights = [0x8e, 0x8f, 0xee, 0x8e][vector as usize % 4];
                let target = at::HANDLERS + vector;
                words(&[target & 0xffff | 0x8 << 16 | rights << 40 | (vector % 3) << 32, 0])
            }
            _ => {
                let rights = [0x8e, 0x8f, 0xee, 0x86][vector as usize % 4];
                // One is a task gate.
                let rights = if vector == 13 { 0x85 } else { rights };
                let selector =
                    u64::from(if vector == 13 { selector::TSS } else { selector::CODE_32 });
                words(&[(at::HANDLERS + vector) & 0xffff | selector << 16 | rights << 40])
            }
        })
        .collect();
    write(at::IDT, &gates);
    // Stacks for every privilege level, in both forms of the TSS, and an I/O permission map.
    write(at::TSS, &words(&[at::STACK << 32, 0x18 | (at::STACK - 0x1000) << 32, 0x18]));
    write(at::TSS + 4, &words(&[at::STACK; 3]));
    write(at::TSS + 36, &words(&[at::STACK - 0x2000; 7]));
    write(at::TSS + 102, &[0x68, 0]);
    tables(&write, beginning);
}

/// Page tables that map memory one to one, with some pages that forbid something.
fn tables(write: &impl Fn(u64, &[u8]), beginning: Beginning) {
    use Beginning as B;
    let entry = |level: u64, index: u64, value: u64| write(level + 8 * index, &value.to_le_bytes());
    match beginning {
        B::Paging32 | B::Virtual8086 => {
            // A 4 MiB page, the same by pages, and the APIC's.
            let small =
                |index: u64, value: u32| write(at::TABLES + 4 * index, &value.to_le_bytes());
            small(0, 0x87);
            small(1, 0x6007);
            small(0x3fb, 0xfec0_0083);
            for page in 0..256u32 {
                write(0x6000 + 4 * u64::from(page), &((page << 12) | (page % 8)).to_le_bytes());
            }
        }
        B::PagingPae => {
            entry(at::TABLES, 0, 0x7001);
            entry(at::TABLES, 3, 0x8001);
            entry(0x7000, 0, 0x87);
            entry(0x8000, 0x1f7, 0xfee0_0083);
        }
        _ => {
            entry(at::TABLES, 0, 0x6007);
            entry(at::TABLES, 0x1ff, 0x6007);
            entry(0x6000, 0, 0x7007);
            entry(0x6000, 1, 0x8000_0000_0000_0087);
            entry(0x6000, 3, 0xc000_0083);
            entry(0x7000, 0, 0x87);
            // The same memory by pages, with every combination of rights.
            entry(0x7000, 1, 0x8007);
            for page in 0..256u64 {
                entry(0x8000, page, (page << 12) | (page % 8) | (page & 8) << 60);
            }
        }
    }
}

/// Descriptors of every kind.
fn descriptors(beginning: Beginning) -> [u64; 32] {
    let long = matches!(beginning, Beginning::Long | Beginning::Compatibility);
    let tss = |kind: u64| 0x2fff | at::TSS << 16 | kind << 40;
    let gate = |selector: u16, kind: u64| at::HANDLERS | u64::from(selector) << 16 | kind << 40;
    let mut table = [0; 32];
    let known = [
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        tss(0x89),
        0,
        gate(if long { selector::CODE_64 } else { selector::CODE_32 }, 0xec),
        0,
        // A local descriptor table: these descriptors once more.
        0xff | at::GDT << 16 | 0x82 << 40,
        0x008f_9b00_0000_ffff,
        0x0000_9300_0000_ffff,
        // Conforming code, data that grows down, code that cannot be read, data that is not there.
        0x00cf_9f00_0000_ffff,
        0x00cf_9700_0000_0fff,
        0x00cf_9900_0000_ffff,
        0x00cf_1300_0000_ffff,
        tss(0x83),
        gate(selector::TSS, 0x85),
        gate(selector::CODE_32, 0x84),
    ];
    table.iter_mut().zip(known).for_each(|(slot, descriptor)| *slot = descriptor);
    table
}

/// Stops a guest that stands still.
struct Alarm {
    set: Mutex<(u64, Option<Arc<dyn VcpuHandle>>)>,
    changed: Condvar,
}

/// While it lives, the alarm is set.
struct Guard(&'static Alarm);

impl Alarm {
    fn get() -> &'static Self {
        static ALARM: OnceLock<Alarm> = OnceLock::new();
        static THREAD: OnceLock<()> = OnceLock::new();
        let alarm =
            ALARM.get_or_init(|| Self { set: Mutex::new((0, None)), changed: Condvar::new() });
        THREAD.get_or_init(|| drop(std::thread::spawn(|| alarm.watch())));
        alarm
    }

    fn set(&'static self, handle: Arc<dyn VcpuHandle>) -> Guard {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        *set = (set.0.wrapping_add(1), Some(handle));
        drop(set);
        self.changed.notify_one();
        Guard(self)
    }

    fn watch(&self) {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            set = self
                .changed
                .wait_while(set, |set| set.1.is_none())
                .unwrap_or_else(PoisonError::into_inner);
            let seen = set.0;
            drop(set);
            std::thread::sleep(PATIENCE);
            set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
            if set.0 == seen
                && let Some(handle) = set.1.take()
            {
                handle.stop();
            }
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.set.lock().unwrap_or_else(PoisonError::into_inner).1 = None;
    }
}
