//! A machine of 8 MiB and one or two processors, with descriptor tables, page tables and handlers
//! ready, and a bus that remembers.
//!
//! A guest says that it is done by writing to port [`STOP`]. Every vector leads to a stub that does
//! the same, so that an exception nobody asked for ends the run and can be looked at as a [`Trap`].

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use iced_x86::IcedError;
use iced_x86::code_asm::{CodeAssembler, al};
use riad_clock::{HostClock, ManualClock, SharedClock};
use riad_cpu::x86::{DescriptorTable, Segment, VcpuState, cr0, cr4, efer, rflags};
use riad_cpu::{Bus, Engine, Exit, Limit, Vcpu, VcpuConfig, VcpuHandle};
use riad_memory::{Gpa, GuestMemory};

use super::Lender;
use super::tables::{self, Tables};

/// The port that ends a run.
pub(crate) const STOP: u8 = 0xf4;

/// Where things lie in guest-physical memory.
pub(crate) const GDT: u64 = 0x1000;
pub(crate) const IDT: u64 = 0x2000;
pub(crate) const TSS: u64 = 0x3000;
pub(crate) const STUBS: u64 = 0x4000;
/// Tops of stacks: of the code under test, of level 0 by the TSS, and of IST 1.
pub(crate) const STACK: u64 = 0x8000;
pub(crate) const STACK0: u64 = 0x9000;
pub(crate) const IST1: u64 = 0xa000;
/// Code and data of level 0.
pub(crate) const CODE: u64 = 0x1_0000;
pub(crate) const DATA: u64 = 0x8_0000;
/// Code, data and stack that level 3 may use too.
pub(crate) const USER_CODE: u64 = 0x40_0000;
pub(crate) const USER_DATA: u64 = 0x42_0000;
pub(crate) const USER_STACK: u64 = 0x44_0000;
pub(crate) const RAM: u64 = 8 << 20;

/// Selectors of the machine's descriptor table.
pub(crate) mod sel {
    pub(crate) const CODE64: u16 = 0x08;
    pub(crate) const DATA0: u16 = 0x10;
    pub(crate) const CODE32: u16 = 0x18;
    pub(crate) const USER_CODE32: u16 = 0x23;
    pub(crate) const USER_DATA: u16 = 0x2b;
    pub(crate) const USER_CODE64: u16 = 0x33;
    pub(crate) const CODE16: u16 = 0x38;
    pub(crate) const DATA16: u16 = 0x40;
    pub(crate) const CONFORMING32: u16 = 0x48;
    pub(crate) const ABSENT_DATA: u16 = 0x50;
    pub(crate) const ABSENT_CODE: u16 = 0x58;
    pub(crate) const READ_ONLY: u16 = 0x60;
    pub(crate) const TSS: u16 = 0x70;
    /// Two slots for a test's own descriptors.
    pub(crate) const FREE: u16 = 0x80;
}

/// A descriptor with this access byte and upper nibble of flags (SDM 3A, 3.4.5).
pub(crate) fn descriptor(base: u32, limit: u32, access: u8, flags: u8) -> u64 {
    let (base, limit) = (u64::from(base), u64::from(limit));
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | u64::from(access) << 40
        | (limit >> 16 & 0xf) << 48
        | u64::from(flags) << 52
        | base >> 24 << 56
}

/// What the machine's world remembers.
#[derive(Default)]
pub(crate) struct World {
    /// Values written to ports other than [`STOP`], in order.
    pub(crate) ports: Mutex<Vec<(u16, u32)>>,
    /// Reads and writes outside of RAM: address, length, value written.
    pub(crate) mmio: Mutex<Vec<(u64, usize, Option<u64>)>>,
    /// Vectors whose end was announced.
    pub(crate) ended: Mutex<Vec<u8>>,
    /// Vectors the 8259 will give.
    pub(crate) extint: Mutex<VecDeque<u8>>,
    handles: Mutex<Vec<Arc<dyn VcpuHandle>>>,
}

fn little(data: &[u8]) -> u64 {
    data.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

impl Bus for World {
    fn mmio_read(&self, at: Gpa, data: &mut [u8]) {
        self.mmio.lock().expect("mmio").push((at.0, data.len(), None));
        data.fill(0xa5);
    }
    fn mmio_write(&self, at: Gpa, data: &[u8]) {
        self.mmio.lock().expect("mmio").push((at.0, data.len(), Some(little(data))));
    }
    fn port_read(&self, _: u16, data: &mut [u8]) {
        data.fill(0x5a);
    }
    fn port_write(&self, port: u16, data: &[u8]) {
        if port == u16::from(STOP) {
            for handle in self.handles.lock().expect("handles").iter() {
                handle.stop();
            }
        } else {
            self.ports.lock().expect("ports").push((port, little(data) as u32));
        }
    }
    fn acknowledge_extint(&self) -> u8 {
        self.extint.lock().expect("extint").pop_front().unwrap_or(0xff)
    }
    fn end_of_interrupt(&self, vector: u8) {
        self.ended.lock().expect("ended").push(vector);
    }
}

/// An exception or interrupt that arrived at a stub, as its handler finds it on the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trap {
    pub(crate) vector: u8,
    pub(crate) code: Option<u32>,
    pub(crate) ip: u64,
    pub(crate) cs: u16,
    pub(crate) flags: u64,
    /// SP and SS of the interrupted code, where they were pushed.
    pub(crate) stack: Option<(u64, u16)>,
}

impl Trap {
    /// Vector and error code.
    pub(crate) fn what(&self) -> (u8, Option<u32>) {
        (self.vector, self.code)
    }
}

/// One processor's machine.
pub(crate) struct Guest {
    pub(crate) memory: GuestMemory,
    /// The clock of guests whose instructions are counted; otherwise it stands still.
    pub(crate) clock: Arc<ManualClock>,
    /// The clock that the engine goes by.
    time: SharedClock,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) world: Arc<World>,
    pub(crate) vcpu: Box<dyn Vcpu>,
    /// The state the next run starts in, and after it the state it ended in.
    pub(crate) state: VcpuState,
    pub(crate) tables: Tables,
}

/// The machine's clock: 10 ns an instruction.
pub(crate) fn clock() -> ManualClock {
    ManualClock::new(0).driven(10)
}

fn flat(selector: u16, access: u32) -> Segment {
    Segment { selector, base: 0, limit: u32::MAX, rights: access }
}

impl Guest {
    fn new(count: u32) -> Self {
        let clock = Arc::new(clock());
        if !Lender::COUNTS {
            return Self::with(count, clock, Arc::new(HostClock::new()), None);
        }
        Self::with(count, clock.clone(), clock, None)
    }

    fn with(
        count: u32,
        clock: Arc<ManualClock>,
        engine_clock: SharedClock,
        code_cache: Option<usize>,
    ) -> Self {
        let memory = GuestMemory::new(&[(Gpa(0), RAM)]).expect("memory");
        let config = VcpuConfig { count, tsc_khz: Lender::tsc_khz() };
        let time = engine_clock.clone();
        let engine = Lender::engine(memory.clone(), engine_clock, config, code_cache);
        let world = Arc::new(World::default());
        let vcpu = Lender::add_vcpu(&engine, 0, world.clone());
        world.handles.lock().expect("handles").push(vcpu.handle());
        let tables = Tables::new(memory.clone());
        let state = VcpuState::flat_protected(0, CODE as u32);
        let mut guest = Self { memory, clock, time, engine, world, vcpu, state, tables };
        guest.lay_out();
        guest
    }

    /// The same machine on an engine of its own, stopped: memory and time are shared, and the processor
    /// is in the state that it would be read from a file.
    #[allow(dead_code, reason = "for tests that have more than one engine")]
    pub(crate) fn moved(self, count: u32) -> Self {
        let Self { memory, clock, time, engine: _, world: _, vcpu: old, state: _, tables } = self;
        let state = old.state().expect("the state");
        let config = VcpuConfig { count, tsc_khz: Lender::tsc_khz() };
        let engine = Lender::engine(memory.clone(), time.clone(), config, None);
        let world = Arc::new(World::default());
        let vcpu = Lender::add_vcpu(&engine, 0, world.clone());
        world.handles.lock().expect("handles").push(vcpu.handle());
        Self { memory, clock, time, engine, world, vcpu, state, tables }
    }

    /// Descriptor table, task state and stubs, and registers that point to them.
    fn lay_out(&mut self) {
        let gdt = [
            0,
            descriptor(0, 0xf_ffff, 0x9b, 0xa),
            descriptor(0, 0xf_ffff, 0x93, 0xc),
            descriptor(0, 0xf_ffff, 0x9b, 0xc),
            descriptor(0, 0xf_ffff, 0xfb, 0xc),
            descriptor(0, 0xf_ffff, 0xf3, 0xc),
            descriptor(0, 0xf_ffff, 0xfb, 0xa),
            descriptor(0, 0xffff, 0x9b, 0),
            descriptor(0, 0xffff, 0x93, 0),
            descriptor(0, 0xf_ffff, 0x9f, 0xc),
            descriptor(0, 0xf_ffff, 0x13, 0xc),
            descriptor(0, 0xf_ffff, 0x1b, 0xc),
            descriptor(0, 0xf_ffff, 0x91, 0xc),
            0,
            descriptor(TSS as u32, 0x1fff, 0x8b, 0),
        ];
        for (n, entry) in gdt.into_iter().enumerate() {
            self.poke(GDT + n as u64 * 8, entry);
        }
        for vector in 0..256 {
            self.memory
                .write(Gpa(STUBS + vector * 16), &[0xe6, STOP, 0xf4, 0xeb, 0xfd])
                .expect("RAM");
        }
        self.state.gdtr = DescriptorTable { base: GDT, limit: 0xff };
        self.state.segments.tr =
            Segment { selector: sel::TSS, base: TSS, limit: 0x1fff, rights: 0x8b };
        self.state.segments.ldtr = Segment { rights: Segment::UNUSABLE, ..Segment::default() };
        self.state.control.cr0 |= cr0::NE | cr0::MP | cr0::WP;
        self.state.control.cr4 = cr4::OSFXSR | cr4::OSXMMEXCPT;
        self.state.gpr[4] = STACK;
        self.memory.write_u16(Gpa(TSS + 0x66), 0xffff).expect("RAM");
    }

    /// 32-bit protected mode at level 0, flat, without paging.
    pub(crate) fn protected() -> Self {
        Self::protected_with(1)
    }

    fn protected_with(count: u32) -> Self {
        let mut guest = Self::new(count);
        guest.state.segments.cs = flat(sel::CODE32, 0xc09b);
        let data = flat(sel::DATA0, 0xc093);
        let s = &mut guest.state.segments;
        (s.ds, s.es, s.ss, s.fs, s.gs) = (data, data, data, data, data);
        guest.state.idtr = DescriptorTable { base: IDT, limit: 256 * 8 - 1 };
        for vector in 0..=255 {
            guest.gate32(vector, STUBS + u64::from(vector) * 16, 0x8e);
        }
        guest.memory.write_u32(Gpa(TSS + 4), STACK0 as u32).expect("RAM");
        guest.memory.write_u16(Gpa(TSS + 8), sel::DATA0).expect("RAM");
        guest
    }

    /// 64-bit mode at level 0. All of RAM is mapped to itself, with pages of 4 KiB; level 3 may use
    /// what lies at [`USER_CODE`] and above.
    pub(crate) fn long() -> Self {
        Self::long_with(1)
    }

    /// As [`long`](Self::long), as processor 0 of several.
    pub(crate) fn long_with(count: u32) -> Self {
        Self::new(count).into_long()
    }

    /// As [`long_with`](Self::long_with), by the host's clock, so that nobody counts instructions,
    /// and with so many bytes for translated code. The guest's own clock stands still.
    pub(crate) fn uncounted(count: u32, code_cache: usize) -> Self {
        let engine_clock = Arc::new(HostClock::new());
        Self::with(count, Arc::new(clock()), engine_clock, Some(code_cache)).into_long()
    }

    /// As [`long`](Self::long), with so many bytes for translated code.
    pub(crate) fn long_with_cache(code_cache: usize) -> Self {
        let clock = Arc::new(clock());
        Self::with(1, clock.clone(), clock, Some(code_cache)).into_long()
    }

    fn into_long(self) -> Self {
        let mut guest = self;
        for page in (0..RAM).step_by(4096) {
            let user = if page >= USER_CODE { tables::US } else { 0 };
            guest.tables.map(page, page | tables::P | tables::RW | user);
        }
        let s = &mut guest.state;
        s.control.cr3 = guest.tables.root;
        s.control.cr0 |= cr0::PG;
        s.control.cr4 |= cr4::PAE;
        s.control.efer = efer::LME | efer::LMA | efer::NXE | efer::SCE;
        s.segments.cs = flat(sel::CODE64, 0xa09b);
        let data = flat(sel::DATA0, 0xc093);
        (s.segments.ds, s.segments.es, s.segments.ss) = (data, data, data);
        s.idtr = DescriptorTable { base: IDT, limit: 256 * 16 - 1 };
        for vector in 0..=255 {
            guest.gate64(vector, STUBS + u64::from(vector) * 16, 0x8e, 0);
        }
        guest.poke(TSS + 4, STACK0);
        guest.poke(TSS + 36, IST1);
        guest
    }

    /// 64-bit mode at level 3, at [`USER_CODE`].
    pub(crate) fn user() -> Self {
        let mut guest = Self::long();
        guest.enter_user();
        guest
    }

    /// Makes the next run start at level 3.
    pub(crate) fn enter_user(&mut self) {
        let s = &mut self.state;
        let long = s.control.efer & efer::LMA != 0;
        s.segments.cs =
            if long { flat(sel::USER_CODE64, 0xa0fb) } else { flat(sel::USER_CODE32, 0xc0fb) };
        let data = flat(sel::USER_DATA, 0xc0f3);
        (s.segments.ds, s.segments.es, s.segments.ss) = (data, data, data);
        (s.segments.fs, s.segments.gs) = (data, data);
        s.gpr[4] = USER_STACK;
        s.rip = USER_CODE;
    }

    /// Real mode, with all segments at 0.
    pub(crate) fn real() -> Self {
        let mut guest = Self::new(1);
        let mut state = VcpuState::reset(0);
        state.segments.cs = Segment { rights: 0x9b, ..Segment::real(0) };
        state.gpr[4] = 0x8000;
        state.gdtr = guest.state.gdtr;
        state.idtr = DescriptorTable { base: 0, limit: 0x3ff };
        state.rip = CODE - 0x8000;
        guest.state = state;
        for vector in 0..256u64 {
            guest.memory.write_u32(Gpa(vector * 4), (STUBS + vector * 16) as u32).expect("RAM");
        }
        guest
    }

    // --- memory ---

    pub(crate) fn poke(&self, at: u64, value: u64) {
        self.memory.write_u64(Gpa(at), value).expect("RAM");
    }

    pub(crate) fn peek(&self, at: u64) -> u64 {
        self.memory.read_u64(Gpa(at)).expect("RAM")
    }

    pub(crate) fn peek32(&self, at: u64) -> u32 {
        self.memory.read_u32(Gpa(at)).expect("RAM")
    }

    pub(crate) fn peek16(&self, at: u64) -> u16 {
        self.memory.read_u16(Gpa(at)).expect("RAM")
    }

    /// An IDT entry of protected mode; `access` is its sixth byte.
    pub(crate) fn gate32(&self, vector: u8, to: u64, access: u8) {
        self.gate32_to(vector, sel::CODE32, to, access);
    }

    pub(crate) fn gate32_to(&self, vector: u8, selector: u16, to: u64, access: u8) {
        let gate = to & 0xffff
            | u64::from(selector) << 16
            | u64::from(access) << 40
            | (to >> 16 & 0xffff) << 48;
        self.poke(IDT + u64::from(vector) * 8, gate);
    }

    /// An IDT entry of long mode.
    pub(crate) fn gate64(&self, vector: u8, to: u64, access: u8, ist: u8) {
        self.gate64_to(vector, sel::CODE64, to, access, ist);
    }

    pub(crate) fn gate64_to(&self, vector: u8, selector: u16, to: u64, access: u8, ist: u8) {
        let gate = to & 0xffff
            | u64::from(selector) << 16
            | u64::from(ist) << 32
            | u64::from(access) << 40
            | (to >> 16 & 0xffff) << 48;
        self.poke(IDT + u64::from(vector) * 16, gate);
        self.poke(IDT + u64::from(vector) * 16 + 8, to >> 32);
    }

    /// Writes a descriptor.
    pub(crate) fn set_descriptor(&self, selector: u16, value: u64) {
        self.poke(GDT + u64::from(selector & !7), value);
    }

    /// Assembles code at a physical address that it also runs at.
    pub(crate) fn code(
        &self,
        at: u64,
        bits: u32,
        body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) {
        self.memory.write(Gpa(at), &assemble(at, bits, body)).expect("RAM");
    }

    /// As [`code`](Self::code), where the next run begins, with a stop at its end.
    pub(crate) fn program(&self, body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) {
        let s = &self.state;
        let cs = &s.segments.cs;
        let bits = if s.control.efer & efer::LMA != 0 && cs.long() {
            64
        } else if s.control.cr0 & cr0::PE != 0 && s.rflags & rflags::VM == 0 && cs.big() {
            32
        } else {
            16
        };
        let bytes = assemble(s.rip, bits, |a| {
            body(a)?;
            a.out(u32::from(STOP), al)
        });
        self.memory.write(Gpa(cs.base + s.rip), &bytes).expect("RAM");
    }

    // --- running ---

    /// Runs until something ends it, a million instructions at most.
    pub(crate) fn run(&mut self) -> Exit {
        self.run_for(Limit::Instructions(1_000_000))
    }

    pub(crate) fn run_for(&mut self, limit: Limit) -> Exit {
        self.vcpu.set_state(&self.state).expect("a state a processor can be in");
        let exit = self.vcpu.run(limit).expect("an exit");
        self.state = self.vcpu.state().expect("the state");
        exit
    }

    /// Runs until the guest stops. `None`: by itself; otherwise, because of this.
    pub(crate) fn go(&mut self) -> Option<Trap> {
        assert_eq!(self.run(), Exit::Stopped, "at {:#x}", self.state.rip);
        self.trap()
    }

    /// Runs; the guest must end by itself.
    pub(crate) fn finishes(&mut self) {
        let trap = self.go();
        assert_eq!(trap, None, "cr2 {:#x}", self.state.control.cr2);
    }

    /// Runs; the guest must end by an exception.
    pub(crate) fn traps(&mut self) -> Trap {
        self.go().expect("an exception")
    }

    /// Assembles and runs; the guest must end by an exception.
    pub(crate) fn program_traps(
        &mut self,
        body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) -> Trap {
        self.program(body);
        self.traps()
    }

    /// Assembles and runs; the guest must end by itself.
    pub(crate) fn program_finishes(
        &mut self,
        body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) {
        self.program(body);
        self.finishes();
    }

    /// The stub at which it ended, if at one, and the frame it found.
    pub(crate) fn trap(&self) -> Option<Trap> {
        let s = &self.state;
        let at = s.segments.cs.base + s.rip;
        if !(STUBS..STUBS + 0x1000).contains(&at) {
            return None;
        }
        let vector = ((at - STUBS) / 16) as u8;
        let protected = s.control.cr0 & cr0::PE != 0;
        let has_code = protected && matches!(vector, 8 | 10..=14 | 17);
        let width = match (protected, s.control.efer & efer::LMA != 0) {
            (_, true) => 8,
            (true, _) => 4,
            _ => 2,
        };
        let sp = s.segments.ss.base + if width == 2 { s.gpr[4] & 0xffff } else { s.gpr[4] };
        let word = |n: u64| match width {
            8 => self.peek(sp + n * 8),
            4 => u64::from(self.peek32(sp + n * 4)),
            _ => u64::from(self.peek16(sp + n * 2)),
        };
        let code = has_code.then(|| word(0) as u32);
        let first = u64::from(has_code);
        let (cs, flags) = (word(first + 1) as u16, word(first + 2));
        let switched = width == 8
            || (width == 4
                && (u32::from(cs & 3) > u32::from(s.segments.cs.dpl()) || flags & rflags::VM != 0));
        let stack = switched.then(|| (word(first + 3), word(first + 4) as u16));
        Some(Trap { vector, code, ip: word(first), cs, flags, stack })
    }

    /// Guest time is in this range of nanoseconds; where nobody counts instructions, it may be later.
    pub(crate) fn is_at(&self, range: Range<u64>) {
        let now = self.now();
        assert!(now >= range.start && (now < range.end || !Lender::COUNTS), "{now}");
    }

    /// Guest time, nanoseconds.
    pub(crate) fn now(&self) -> u64 {
        self.time.now()
    }

    // --- registers ---

    pub(crate) fn rax(&self) -> u64 {
        self.state.gpr[0]
    }

    pub(crate) fn rbx(&self) -> u64 {
        self.state.gpr[3]
    }

    pub(crate) fn rcx(&self) -> u64 {
        self.state.gpr[1]
    }

    pub(crate) fn rdx(&self) -> u64 {
        self.state.gpr[2]
    }

    /// Another processor of the same machine, waiting for a start-up IPI.
    pub(crate) fn another(&self, id: u32) -> Box<dyn Vcpu> {
        let vcpu = Lender::add_vcpu(&self.engine, id, self.world.clone());
        self.world.handles.lock().expect("handles").push(vcpu.handle());
        vcpu
    }
}

/// Machine code of a small program.
pub(crate) fn assemble(
    at: u64,
    bits: u32,
    body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Vec<u8> {
    let mut a = CodeAssembler::new(bits).expect("16, 32 or 64");
    body(&mut a).expect("instructions that exist");
    a.assemble(at).expect("code that can be encoded")
}

/// Ends the run.
pub(crate) fn stop(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.out(u32::from(STOP), al)
}
