//! The routines that translated code shares: the way in and out, look-ups, calls to the interpreter.

use std::mem::offset_of;

use super::asm::host::{R12, R13, R14, R15, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP};
use super::asm::{Asm, Mem, alu, cc, frame};
use super::calls::{self, CallStubs, target};
use super::emit::Kind;
use super::frame::{
    BASE, CALL_SITE, CPU, CPU_MXCSR, CPU_XMM, FLAGS, HOME, HOST_MXCSR, HOST_STACK, IN_FRAME, KINDS,
    LARGE, LINK, MISSES, PAGE_MARK, PAGE_MARKS, RAM, REASON, SITE, SPARE, SPARE_TARGET, STATES,
    Site, Slot, SlotNumber, TABLE, Target, USED, USED_BITS, USED_SPREAD, Used, XMM_MISSING,
    cpu_register, generation, reason, register,
};
use crate::mem::{ENTRIES, Entry};

/// What an access wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    Read,
    Write,
}

impl Want {
    /// Offsets in a [`Slot`] of the tag and the addend for it.
    pub(crate) fn fields(self) -> (usize, usize) {
        match self {
            Self::Read => (offset_of!(Slot, read_tag), offset_of!(Slot, read_addend)),
            Self::Write => (offset_of!(Slot, write_tag), offset_of!(Slot, write_addend)),
        }
    }

    /// Offset in an [`Entry`] of the tag for it.
    pub(crate) fn tag(self) -> usize {
        match self {
            Self::Read => offset_of!(Entry, read),
            Self::Write => offset_of!(Entry, write),
        }
    }
}

/// Addresses of the functions that translated code calls. All take the processor and the frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Calls {
    /// Then an op and a site: runs one instruction. Returns 0 to go on, or a reason to leave, or
    /// [`reason::GO`].
    pub(crate) interpret: u64,
    /// Then a linear address, and the offset of a slot, with [`FILL_WRITE`] to write: fills that.
    /// Returns 0 when it could.
    pub(crate) fill: u64,
    /// Then the offset of a slot: memory behind it was written for the first time. Returns 0 to go on.
    pub(crate) wrote: u64,
}

/// Tells [`Calls::fill`] that the slot is to be written through.
pub(crate) const FILL_WRITE: u32 = 1 << 31;

/// Which shared routine finds an operand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) want: Want,
    /// Bytes: 1, 2, 4, 8 or 16.
    pub(crate) size: u32,
    /// It must lie at a multiple of its size.
    pub(crate) aligned: bool,
    /// RCX has the address, against the slot's tag; otherwise RAX has it.
    pub(crate) direct: bool,
}

impl Look {
    /// Kinds by size and alignment; only operands of 16 bytes are ever aligned.
    const SIZES: usize = 6;
    const KINDS: usize = 4 * Self::SIZES;

    fn number(self) -> usize {
        let size = if self.aligned { 5 } else { self.size.trailing_zeros() as usize };
        let kind = usize::from(self.want == Want::Write) * 2 + usize::from(self.direct);
        kind * Self::SIZES + size
    }

    fn with_number(number: usize) -> Self {
        let (kind, size) = (number / Self::SIZES, number % Self::SIZES);
        Self {
            want: if kind & 2 != 0 { Want::Write } else { Want::Read },
            size: if size == 5 { 16 } else { 1 << size },
            aligned: size == 5,
            direct: kind & 1 != 0,
        }
    }
}

/// Offsets in the code cache of the shared routines. Those that are called with data have that
/// behind the call.
#[derive(Debug, Default, Clone)]
pub(crate) struct Stubs {
    /// The way in: a function of the frame and the host address to go to, that returns the reason
    /// for coming out.
    pub(crate) enter: u32,
    /// The way out: ECX has the site, EAX the reason.
    pub(crate) exit: u32,
    /// By reason: the way out, called with the site as data.
    leave: [u32; reason::COUNT as usize],
    /// The way out of a block that is not good any more, or called out: keeps the host's flags.
    pub(crate) stale: u32,
    /// The way out for a link, called with a [`LinkData`](super::frame::LinkData); and the same,
    /// keeping the host's flags.
    pub(crate) link: u32,
    pub(crate) link_host: u32,
    /// Loads the XMM registers and MXCSR. Changes RAX.
    pub(crate) load_xmm: u32,
    /// Runs the op at RAX in the interpreter; ECX has the site. The flags are in the frame.
    pub(crate) interpret: u32,
    /// By half and by number of a [`Look`]: fills a slot. See [`call_look`].
    look: [Vec<u32>; 2],
    /// By half: goes to the block at RAX that the processor knows though it is not among the targets.
    /// Called with the site as data, and a word with by how much the stack pointer moves then, and
    /// above 24 bits the reason to leave for when it knows none. The flags are in the frame.
    resolve: [u32; 2],
    /// Calls and returns, by half and for supervisors and users.
    calls: [[CallStubs; 2]; 2],
    /// Memory behind the slot at offset EAX was written that someone must be told of; ECX has the
    /// site of the next instruction.
    pub(crate) wrote: u32,
}

/// Bytes of the jump between a call to a look-up and its site.
const JUMP: i32 = 5;

impl Stubs {
    pub(crate) fn leave(&self, reason: u32) -> u32 {
        self.leave[reason as usize]
    }

    pub(crate) fn resolve(&self, upper: bool) -> u32 {
        self.resolve[usize::from(upper)]
    }

    pub(super) fn calls(&self, kind: Kind) -> CallStubs {
        self.calls[usize::from(kind.upper)][usize::from(kind.user)]
    }

    /// Writes all of them.
    pub(crate) fn build(asm: &mut Asm, calls: Calls) -> Self {
        let mut stubs = Self { enter: enter(asm), ..Self::default() };
        stubs.exit = asm.here();
        asm.store32(frame(SITE), RCX);
        asm.store32(frame(REASON), RAX);
        save(asm, 0, true);
        let leave = asm.here();
        leave_code(asm);
        stubs.load_xmm = load_xmm(asm);
        stubs.interpret = interpret(asm, calls.interpret, leave);
        for (why, place) in (0u32..).zip(&mut stubs.leave) {
            *place = asm.here();
            asm.bytes(&[0x59]);
            asm.load32(RCX, Mem::at(RCX, 0));
            asm.mov_imm32(RAX, why);
            asm.jmp_to(stubs.exit);
        }
        stubs.stale = keep_flags(asm);
        asm.jmp_to(stubs.leave(reason::ATTENTION));
        stubs.link_host = keep_flags(asm);
        stubs.link = asm.here();
        asm.bytes(&[0x59]);
        asm.store(frame(LINK), RCX);
        asm.load32(RCX, Mem::at(RCX, 0));
        asm.mov_imm32(RAX, reason::LINK);
        asm.jmp_to(stubs.exit);
        stubs.resolve = [false, true].map(|upper| resolve(asm, upper, stubs.exit));
        let fill = fill(asm, calls.fill, stubs.exit);
        stubs.look = [false, true].map(|upper| {
            let kinds = (0..Look::KINDS).map(Look::with_number);
            kinds.map(|look| miss(asm, look, upper, fill)).collect()
        });
        stubs.wrote = wrote(asm, calls.wrote, leave);
        stubs.calls = [false, true]
            .map(|upper| [false, true].map(|user| CallStubs::build(asm, &stubs, upper, user)));
        stubs
    }
}

/// Host registers that belong to the host's caller.
const CALLEE_SAVED: [u8; 6] = [RBX, RBP, R12, R13, R14, R15];

fn push(asm: &mut Asm, register: u8, pop: bool) {
    if register >= 8 {
        asm.bytes(&[0x41]);
    }
    asm.bytes(&[if pop { 0x58 } else { 0x50 } | register & 7]);
}

fn enter(asm: &mut Asm) -> u32 {
    asm.align(16, 0);
    let here = asm.here();
    for register in CALLEE_SAVED {
        push(asm, register, false);
    }
    asm.store(Mem::at(RDI, HOST_STACK as i32), RSP);
    asm.rm(false, &[0x0f, 0xae], 3, Mem::at(RDI, HOST_MXCSR as i32));
    asm.mov(RSP, RDI);
    asm.store(frame(SPARE), RSI);
    restore(asm, 0, false);
    // jmp [rsp + SPARE]
    asm.rm(false, &[0xff], 4, frame(SPARE));
    here
}

/// Keeps the host's flags in the frame; a return address is on the stack.
fn keep_flags(asm: &mut Asm) -> u32 {
    let here = asm.here();
    asm.flags_to_ax();
    asm.store32(frame(8 + FLAGS), RAX);
    here
}

/// Back to the caller of [`enter`]; the registers are saved.
fn leave_code(asm: &mut Asm) {
    asm.load32(RAX, frame(REASON));
    asm.load(RSP, frame(HOST_STACK));
    for register in CALLEE_SAVED.into_iter().rev() {
        push(asm, register, true);
    }
    asm.bytes(&[0xc3]);
}

fn xmm(asm: &mut Asm, store: bool) {
    for n in 0..16u8 {
        let place = Mem::at(RAX, (CPU_XMM + 16 * usize::from(n)) as i32);
        asm.rm(false, &[0x0f, if store { 0x29 } else { 0x28 }], n, place);
    }
}

/// Puts the guest's registers back into the processor; `bias` bytes are on the stack. `give_up`
/// says that the XMM registers will not be in the host's any more.
fn save(asm: &mut Asm, bias: usize, give_up: bool) {
    asm.load(RAX, frame(bias + CPU));
    for (guest, &home) in (0u8..).zip(&HOME) {
        let place = Mem::at(RAX, cpu_register(guest) as i32);
        if home == IN_FRAME {
            asm.load(RCX, frame(bias + register(guest)));
            asm.store(place, RCX);
        } else {
            asm.store(place, home);
        }
    }
    asm.poll(bias + XMM_MISSING);
    let skip = asm.jcc(cc::NE);
    xmm(asm, true);
    asm.rm(false, &[0x0f, 0xae], 3, Mem::at(RAX, CPU_MXCSR as i32));
    asm.rm(false, &[0x0f, 0xae], 2, frame(bias + HOST_MXCSR));
    if give_up {
        asm.store32_imm(frame(bias + XMM_MISSING), 1);
    }
    asm.land(skip);
}

/// Takes the guest's registers from the processor, the XMM registers too if they were loaded.
fn restore(asm: &mut Asm, bias: usize, with_xmm: bool) {
    asm.load(RAX, frame(bias + CPU));
    for (guest, &home) in (0u8..).zip(&HOME) {
        let place = Mem::at(RAX, cpu_register(guest) as i32);
        if home == IN_FRAME {
            asm.load(RCX, place);
            asm.store(frame(bias + register(guest)), RCX);
        } else {
            asm.load(home, place);
        }
    }
    if with_xmm {
        asm.poll(bias + XMM_MISSING);
        let skip = asm.jcc(cc::NE);
        xmm(asm, false);
        asm.rm(false, &[0x0f, 0xae], 2, Mem::at(RAX, CPU_MXCSR as i32));
        asm.land(skip);
    }
}

fn load_xmm(asm: &mut Asm) -> u32 {
    asm.align(16, 0);
    let here = asm.here();
    asm.load(RAX, frame(8 + CPU));
    xmm(asm, false);
    asm.rm(false, &[0x0f, 0xae], 2, Mem::at(RAX, CPU_MXCSR as i32));
    asm.store32_imm(frame(8 + XMM_MISSING), 0);
    asm.bytes(&[0xc3]);
    here
}

/// Calls a function of the processor and the frame; a return address is on the stack. The other
/// arguments are in place.
fn call(asm: &mut Asm, function: u64) {
    asm.load(RDI, frame(8 + CPU));
    asm.lea(RSI, frame(8));
    asm.mov_imm64(RAX, function);
    asm.alu_imm(true, alu::SUB, RSP, 8);
    // call rax
    asm.bytes(&[0xff, 0xd0]);
    asm.alu_imm(true, alu::ADD, RSP, 8);
    // test eax, eax
    asm.rr(false, &[0x85], RAX, RAX);
}

/// Calls as [`call`] does, with the registers in the processor, and goes back to the block, or on at
/// another one, or leaves for the reason that the function returned.
fn call_and_return(asm: &mut Asm, function: u64, leave: u32) {
    call(asm, function);
    let out = asm.jcc(cc::NE);
    restore(asm, 8, true);
    asm.bytes(&[0xc3]);
    asm.land(out);
    asm.alu_imm(true, alu::ADD, RSP, 8);
    asm.store32_imm(frame(XMM_MISSING), 1);
    // test eax, eax: only GO has the sign.
    asm.rr(false, &[0x85], RAX, RAX);
    let go = asm.jcc(cc::S);
    asm.store32(frame(REASON), RAX);
    asm.jmp_to(leave);
    asm.land(go);
    restore(asm, 0, false);
    // jmp [rsp + SPARE]
    asm.rm(false, &[0xff], 4, frame(SPARE));
}

fn interpret(asm: &mut Asm, function: u64, leave: u32) -> u32 {
    asm.align(16, 0);
    let here = asm.here();
    asm.store32(frame(8 + SITE), RCX);
    asm.store(frame(8 + SPARE), RAX);
    save(asm, 8, false);
    asm.load(RDX, frame(8 + SPARE));
    asm.load32(RCX, frame(8 + SITE));
    call_and_return(asm, function, leave);
    here
}

/// Finds the block at the linear address in RAX by way of the TLB and the [`Used`] blocks, notes it
/// among the targets, and goes there. See `Stubs::resolve`.
fn resolve(asm: &mut Asm, upper: bool, exit: u32) -> u32 {
    asm.align(16, 0);
    let here = asm.here();
    asm.store(frame(8 + SPARE), RAX);
    asm.store(frame(8 + SPARE_TARGET), RDX);
    // Does the TLB know the page? An address of the other half has another generation.
    asm.mov(RCX, RAX);
    tlb_entry(asm, RCX, 8);
    tlb_tag(asm, RAX, upper, 8);
    asm.alu_mem(alu::CMP, RAX, Mem::at(RCX, offset_of!(Entry, exec) as i32));
    let no_page = asm.jcc(cc::NE);
    // The key: place in RAM, and what kind of code.
    asm.load(RDX, frame(8 + SPARE));
    asm.alu_mem(alu::ADD, RDX, Mem::at(RCX, offset_of!(Entry, addend) as i32));
    asm.alu_mem(alu::SUB, RDX, frame(8 + RAM));
    asm.load(RCX, frame(8 + SPARE));
    asm.shift(true, 5, RCX, 12 - 3);
    asm.alu_imm(false, alu::AND, RCX, ((ENTRIES - 1) << 3) as i32);
    asm.alu_mem(alu::ADD, RCX, frame(8 + LARGE));
    asm.alu_mem(alu::CMP, RAX, Mem::at(RCX, 0));
    // sete al; movzx ecx, al; mov eax, edx
    asm.bytes(&[0x0f, 0x94, 0xc0, 0x0f, 0xb6, 0xc8]);
    asm.mov32(RAX, RDX);
    asm.shift(false, 4, RCX, Kind::LARGE);
    asm.shift(true, 4, RDX, 8);
    asm.alu(alu::OR, RDX, RCX);
    asm.alu_mem(alu::OR, RDX, frame(8 + KINDS + 8 * usize::from(upper)));
    // imul eax, eax, USED_SPREAD
    asm.rr(false, &[0x69], RAX, RAX);
    asm.bytes(&USED_SPREAD.to_le_bytes());
    asm.shift(false, 5, RAX, 32 - USED_BITS as u8);
    asm.shift(false, 4, RAX, size_of::<Used>().trailing_zeros() as u8);
    let used = |field| Mem { base: RSP, index: Some((RAX, 0)), disp: (8 + USED + field) as i32 };
    asm.alu_mem(alu::CMP, RDX, used(offset_of!(Used, key)));
    let not_used = asm.jcc(cc::NE);
    // From now on it is a target.
    asm.load(RDX, used(offset_of!(Used, host)));
    asm.load(RAX, frame(8 + SPARE));
    calls::salted_place(asm, upper, 8);
    asm.store(target(8, offset_of!(Target, key)), RAX);
    asm.store(target(8, offset_of!(Target, host)), RDX);
    asm.load(RAX, frame(8 + SPARE));
    asm.alu_imm(true, alu::AND, RAX, -4096);
    asm.store(frame(8 + BASE), RAX);
    asm.shift(true, 5, RAX, 12);
    asm.alu_imm(false, alu::AND, RAX, PAGE_MARKS as i32 - 1);
    let mark = Mem { base: RSP, index: Some((RAX, 0)), disp: (8 + PAGE_MARK) as i32 };
    asm.store8_imm(mark, 1);
    asm.store(frame(8 + SPARE), RDX);
    asm.load(RDX, frame(8 + SPARE_TARGET));
    // pop rcx; then by how much the stack pointer moves
    asm.bytes(&[0x59]);
    asm.load32(RCX, Mem::at(RCX, 4));
    asm.alu_imm(false, alu::AND, RCX, 0xff_ffff);
    asm.alu(alu::ADD, R15, RCX);
    // jmp [rsp + SPARE]
    asm.rm(false, &[0xff], 4, frame(SPARE));
    asm.land(no_page);
    asm.land(not_used);
    asm.load(RDX, frame(8 + SPARE_TARGET));
    asm.bytes(&[0x59]);
    asm.load32(RAX, Mem::at(RCX, 4));
    asm.load32(RCX, Mem::at(RCX, 0));
    site_or_call(asm);
    asm.store32(frame(SITE), RCX);
    asm.mov32(RCX, RAX);
    asm.alu_imm(false, alu::AND, RCX, 0xff_ffff);
    asm.store(frame(SPARE_TARGET), RCX);
    asm.load32(RCX, frame(SITE));
    asm.shift(false, 5, RAX, 24);
    asm.jmp_to(exit);
    here
}

/// Takes the site from the frame when ECX is [`Site::OF_CALL`].
fn site_or_call(asm: &mut Asm) {
    asm.alu_imm(false, alu::CMP, RCX, Site::OF_CALL.0 as i32);
    let given = asm.jcc(cc::NE);
    asm.load32(RCX, frame(CALL_SITE));
    asm.land(given);
}

/// The places to go to when a look-up needs the page walk, by whether it is direct, when it cannot
/// succeed, and when it is time for a sample.
#[derive(Debug, Clone, Copy)]
struct Fill {
    walk: [u32; 2],
    refuse: u32,
    sample: u32,
}

/// The way to the page walk: `SPARE_TARGET` has the address, ECX the slot's offset and [`Want`].
fn fill(asm: &mut Asm, function: u64, exit: u32) -> Fill {
    asm.align(16, 0);
    let [refuse, sample] = [reason::INTERPRET, reason::SAMPLE].map(|why| {
        let here = asm.here();
        asm.bytes(&[0x59]);
        asm.load32(RCX, Mem::at(RCX, JUMP));
        site_or_call(asm);
        asm.mov_imm32(RAX, why);
        asm.jmp_to(exit);
        here
    });
    let walk = [false, true].map(|direct| {
        asm.align(16, 0);
        let here = asm.here();
        asm.store32(frame(8 + REASON), RCX);
        save(asm, 8, false);
        asm.load(RDX, frame(8 + SPARE_TARGET));
        asm.load32(RCX, frame(8 + REASON));
        call(asm, function);
        let out = asm.jcc(cc::NE);
        restore(asm, 8, true);
        asm.load(RAX, frame(8 + SPARE));
        if !direct {
            asm.alu_mem(alu::ADD, RAX, frame(8 + SPARE_TARGET));
        }
        asm.bytes(&[0xc3]);
        asm.land(out);
        restore(asm, 8, true);
        asm.jmp_to(refuse);
        here
    });
    Fill { walk, refuse, sample }
}

/// From a linear address in a register to where the TLB has its entry; `bias` bytes are on the stack.
pub(super) fn tlb_entry(asm: &mut Asm, register: u8, bias: usize) {
    let entry = size_of::<Entry>().trailing_zeros() as u8;
    asm.shift(true, 5, register, 12 - entry);
    asm.alu_imm(false, alu::AND, register, ((ENTRIES - 1) << entry) as i32);
    asm.alu_mem(alu::ADD, register, frame(bias + TABLE));
}

/// From a linear address of a half, in a register, to its page's tag; `bias` bytes are on the stack.
pub(super) fn tlb_tag(asm: &mut Asm, register: u8, upper: bool, bias: usize) {
    asm.alu_imm(true, alu::AND, register, -4096);
    asm.alu_mem(alu::OR, register, frame(bias + generation(upper)));
}

/// From a host address of RAM to that of its page's state; `bias` bytes are on the stack.
pub(super) fn page_state(asm: &mut Asm, register: u8, bias: usize) {
    asm.alu_mem(alu::SUB, register, frame(bias + RAM));
    asm.shift(true, 5, register, 12);
    asm.alu_mem(alu::ADD, register, frame(bias + STATES));
}

/// Calls the routine that fills a slot, in code that runs in a half of the address space: after it
/// come a jump, and then [`look_data`]. Changes RAX and RCX. RCX has the address, against the slot's
/// tag, for a direct one, and RAX is the slot's addend then; otherwise RAX has the address, and is the
/// host address then. Does not return when it cannot.
pub(super) fn call_look(asm: &mut Asm, stubs: &Stubs, look: Look, upper: bool, slot: SlotNumber) {
    let register = if look.direct { RAX } else { RCX };
    asm.mov_imm32(register, slot.field(0) as u32);
    asm.call_to(stubs.look[usize::from(upper)][look.number()]);
}

/// As [`call_look`], with what comes after it: goes on here.
pub(super) fn look(
    asm: &mut Asm,
    stubs: &Stubs,
    look: Look,
    upper: bool,
    slot: SlotNumber,
    site: Site,
) {
    call_look(asm, stubs, look, upper, slot);
    let after = asm.jmp();
    look_data(asm, site);
    asm.land(after);
}

/// What stands behind a call to a look-up and the jump after it.
pub(super) fn look_data(asm: &mut Asm, site: Site) {
    asm.bytes(&site.0.to_le_bytes());
}

/// See [`call_look`]. Its way from the address to the addend is short: code that follows pointers
/// waits for it.
fn miss(asm: &mut Asm, look: Look, upper: bool, fill: Fill) -> u32 {
    let (slot, address) = if look.direct { (RAX, RCX) } else { (RCX, RAX) };
    let tag = Mem::at(address, look.want.tag() as i32);
    let last = look.size as i32 - 1;
    asm.align(16, 0);
    let here = asm.here();
    if look.direct {
        if look.aligned {
            // rol rcx, 4: it was turned for the comparison.
            asm.bytes(&[0x48, 0xc1, 0xc1, 4]);
        }
        asm.alu_mem(alu::XOR, RCX, in_slot(slot, look.want.fields().0));
    }
    asm.store(frame(8 + SPARE), RDX);
    asm.store(frame(8 + SPARE_TARGET), address);
    let unaligned = look.aligned.then(|| {
        // test dl, 15
        asm.mov32(RDX, address);
        asm.bytes(&[0xf6, 0xc2, 15]);
        asm.jcc(cc::NE)
    });
    // The tag of the last byte's page: an operand across two pages is not found.
    asm.lea(RDX, Mem::at(address, last));
    tlb_tag(asm, RDX, upper, 8);
    tlb_entry(asm, address, 8);
    asm.alu_mem(alu::CMP, RDX, tag);
    let unknown = asm.jcc(cc::NE);
    known(asm, look, upper, fill);
    asm.land(unknown);
    asm.load32(RDX, frame(8 + SPARE_TARGET));
    asm.alu_imm(false, alu::AND, RDX, 0xfff);
    asm.alu_imm(false, alu::CMP, RDX, 4096 - look.size as i32);
    let crossing = asm.jcc(cc::A);
    // Perhaps it lies in the other half.
    asm.load(RDX, frame(8 + SPARE_TARGET));
    tlb_tag(asm, RDX, !upper, 8);
    asm.alu_mem(alu::CMP, RDX, tag);
    let unknown = asm.jcc(cc::NE);
    known(asm, look, !upper, fill);
    asm.land(unknown);
    asm.mov32(RCX, slot);
    asm.load(RDX, frame(8 + SPARE));
    if look.want == Want::Write {
        asm.alu_imm(false, alu::OR, RCX, FILL_WRITE as i32);
    }
    asm.jmp_to(fill.walk[usize::from(look.direct)]);
    for at in unaligned.into_iter().chain([crossing]) {
        asm.land(at);
    }
    asm.load(RDX, frame(8 + SPARE));
    asm.jmp_to(fill.refuse);
    here
}

/// A field of the slot whose offset is in a register; a return address is on the stack.
fn in_slot(slot: u8, field: usize) -> Mem {
    Mem { base: RSP, index: Some((slot, 0)), disp: 8 + field as i32 }
}

/// The rest of [`miss`] once the TLB's entry is found, in the half of the address: RDX has its tag.
fn known(asm: &mut Asm, look: Look, upper: bool, fill: Fill) {
    let (slot, entry) = if look.direct { (RAX, RCX) } else { (RCX, RAX) };
    let (tag_at, addend_at) = look.want.fields();
    // dec dword [rsp + MISSES]
    asm.rm(false, &[0xff], 1, frame(8 + MISSES));
    let sample = asm.jcc(cc::E);
    asm.load(entry, Mem::at(entry, offset_of!(Entry, addend) as i32));
    asm.alu_mem(alu::XOR, RDX, frame(8 + generation(upper)));
    asm.store(in_slot(slot, tag_at), RDX);
    asm.store(in_slot(slot, addend_at), entry);
    if look.want == Want::Write {
        asm.alu(alu::ADD, RDX, entry);
        page_state(asm, RDX, 8);
        asm.store(in_slot(slot, offset_of!(Slot, state)), RDX);
    }
    asm.load(RDX, frame(8 + SPARE));
    if look.direct {
        asm.mov(RAX, RCX);
    } else {
        asm.alu_mem(alu::ADD, RAX, frame(8 + SPARE_TARGET));
    }
    asm.bytes(&[0xc3]);
    asm.land(sample);
    asm.load(RDX, frame(8 + SPARE));
    asm.jmp_to(fill.sample);
}

fn wrote(asm: &mut Asm, function: u64, leave: u32) -> u32 {
    asm.align(16, 0);
    let here = asm.here();
    asm.store32(frame(8 + SITE), RCX);
    asm.store32(frame(8 + REASON), RAX);
    save(asm, 8, false);
    asm.load32(RDX, frame(8 + REASON));
    call_and_return(asm, function, leave);
    here
}
