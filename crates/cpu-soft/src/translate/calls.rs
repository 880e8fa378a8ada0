//! Calls, returns and indirect jumps: finding the block at an address, and the shared routines of
//! calls to another page and of returns. Programs are full of them, so what stands at each is short.

use std::mem::offset_of;

use super::asm::host::{R15, RAX, RCX, RSP};
use super::asm::{Asm, Hole, Mem, alu, cc, frame};
use super::frame::{
    BASE, CALL_SITE, FLAGS, KEPT, SPARE_CALL, Site, Slot, SlotNumber, TARGET_BITS, TARGET_SCALE,
    TARGET_TABLE, Target, reason, salt,
};
use super::stubs::{self, Look, Stubs, Want};

/// Looks RAX up among the targets of indirect jumps. The hole is for when it is not there; otherwise
/// RCX tells its place. RAX is salted then, and must be when it is jumped to.
pub(super) fn find_target(asm: &mut Asm, upper: bool) -> Hole {
    salted_place(asm, upper, 0);
    asm.alu_mem(alu::CMP, RAX, target(0, offset_of!(Target, key)));
    asm.jcc(cc::NE)
}

/// Salts the linear address in RAX, and brings its place among the targets to RCX; `bias` bytes are
/// on the host's stack.
pub(super) fn salted_place(asm: &mut Asm, upper: bool, bias: usize) {
    asm.alu_mem(alu::XOR, RAX, frame(bias + salt(upper)));
    asm.mov32(RCX, RAX);
    asm.alu_imm(false, alu::AND, RCX, TARGET_BITS as i32);
}

/// After [`find_target`] has not found it: goes to the salted address in RAX by what else is known, or
/// leaves with it for a reason. `pop` is by how much a return moves the stack pointer.
pub(super) fn resolve(
    asm: &mut Asm,
    stubs: &Stubs,
    upper: bool,
    site: Site,
    reason: u32,
    pop: u32,
) {
    asm.alu_mem(alu::XOR, RAX, frame(salt(upper)));
    asm.call_to(stubs.resolve(upper));
    for word in [site.0, reason << 24 | pop] {
        asm.bytes(&word.to_le_bytes());
    }
}

/// Jumps to what [`find_target`] found.
pub(super) fn jump_to_found(asm: &mut Asm, upper: bool) {
    asm.alu_imm(true, alu::AND, RAX, -4096);
    asm.alu_mem(alu::XOR, RAX, frame(salt(upper)));
    asm.store(frame(BASE), RAX);
    // jmp [host]
    asm.rm(false, &[0xff], 4, target(0, offset_of!(Target, host)));
}

/// A field of the target whose place is in RCX, with `bias` bytes on the host's stack.
pub(super) fn target(bias: usize, field: usize) -> Mem {
    Mem { base: RSP, index: Some((RCX, TARGET_SCALE)), disp: (bias + TARGET_TABLE + field) as i32 }
}

/// The routines of one half of the address space, for users or for supervisors.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct CallStubs {
    /// The way of a call to another page. RCX has the site, and above 32 bits the offset of the next
    /// instruction from the start of the page; EAX has the target's. The flags are in the frame, here
    /// and below.
    pub(super) call: u32,
    /// Returns when the return address was pushed; RCX is as above.
    pub(super) push_return: u32,
    /// A near return; ECX has the site.
    pub(super) ret: u32,
    /// The same, and the flags are the host's.
    pub(super) ret_host: u32,
}

impl CallStubs {
    pub(super) fn build(asm: &mut Asm, stubs: &Stubs, upper: bool, user: bool) -> Self {
        let stack = SlotNumber::of_stack(user);
        let push_return = push(asm, stubs, stack, upper, 8);
        asm.bytes(&[0xc3]);
        let call = call(asm, stubs, stack, upper);
        let (ret_host, ret) = ret(asm, stubs, stack, upper);
        Self { call, push_return, ret, ret_host }
    }
}

/// Finds eight bytes of the stack at a distance from the stack pointer: their addend is in RAX then.
fn find(
    asm: &mut Asm,
    stubs: &Stubs,
    stack: SlotNumber,
    upper: bool,
    want: Want,
    distance: i32,
    bias: usize,
) {
    let (tag, addend) = want.fields();
    asm.lea(RCX, Mem::at(R15, distance));
    asm.alu_mem(alu::XOR, RCX, frame(bias + stack.field(tag)));
    asm.alu_imm(true, alu::CMP, RCX, 4096 - 8);
    let elsewhere = asm.jcc(cc::A);
    asm.load(RAX, frame(bias + stack.field(addend)));
    let found = asm.jmp();
    asm.land(elsewhere);
    // A look-up expects the frame at the stack pointer.
    if bias != 0 {
        pop(asm, SPARE_CALL);
    }
    let look = Look { want, size: 8, aligned: false, direct: true };
    stubs::look(asm, stubs, look, upper, stack, Site::OF_CALL);
    if bias != 0 {
        push_back(asm, SPARE_CALL);
    }
    asm.land(found);
}

/// Moves a return address from the host's stack to a field of the frame.
fn pop(asm: &mut Asm, field: usize) {
    // pop [rsp + field]: the address is worked out after RSP has moved.
    asm.rm(false, &[0x8f], 0, frame(field));
}

/// The other way.
fn push_back(asm: &mut Asm, field: usize) {
    // push [rsp + field]
    asm.rm(false, &[0xff], 6, frame(field));
}

/// Pushes a return address; `bias` bytes are on the host's stack.
fn push(asm: &mut Asm, stubs: &Stubs, stack: SlotNumber, upper: bool, bias: usize) -> u32 {
    asm.align(16, 0);
    let here = asm.here();
    asm.store32(frame(bias + CALL_SITE), RCX);
    asm.shift(true, 5, RCX, 32);
    asm.alu_mem(alu::ADD, RCX, frame(bias + BASE));
    asm.store(frame(bias + KEPT), RCX);
    find(asm, stubs, stack, upper, Want::Write, -8, bias);
    asm.load(RCX, frame(bias + KEPT));
    asm.store(Mem { base: RAX, index: Some((R15, 0)), disp: -8 }, RCX);
    asm.lea(R15, Mem::at(R15, -8));
    asm.load(RCX, frame(bias + stack.field(offset_of!(Slot, state))));
    asm.cmp_byte(RCX, riad_memory::PageState::DIRTY);
    let plain = asm.jcc(cc::E);
    if bias != 0 {
        pop(asm, SPARE_CALL);
    }
    // The callee is looked up, or its entry has been patched: no need to leave from here.
    asm.mov_imm32(RCX, Site::STAY.0);
    asm.mov_imm32(RAX, stack.field(0) as u32);
    asm.call_to(stubs.wrote);
    if bias != 0 {
        push_back(asm, SPARE_CALL);
    }
    asm.land(plain);
    here
}

fn call(asm: &mut Asm, stubs: &Stubs, stack: SlotNumber, upper: bool) -> u32 {
    asm.align(16, 0);
    let here = asm.here();
    // movsxd rax, eax
    asm.bytes(&[0x48, 0x63, 0xc0]);
    asm.alu_mem(alu::ADD, RAX, frame(BASE));
    asm.store(frame(KEPT + 8), RAX);
    push(asm, stubs, stack, upper, 0);
    asm.load(RAX, frame(KEPT + 8));
    let unknown = find_target(asm, upper);
    jump_to_found(asm, upper);
    asm.land(unknown);
    resolve(asm, stubs, upper, Site::OF_CALL, reason::CALL, 0);
    here
}

/// With the flags in the host's, and with the flags in the frame.
fn ret(asm: &mut Asm, stubs: &Stubs, stack: SlotNumber, upper: bool) -> (u32, u32) {
    // The second begins a line of 16 bytes.
    asm.align(16, 8);
    let with_flags = asm.here();
    asm.flags_to_ax();
    asm.store32(frame(FLAGS), RAX);
    let here = asm.here();
    asm.store32(frame(CALL_SITE), RCX);
    find(asm, stubs, stack, upper, Want::Read, 0, 0);
    asm.load(RAX, Mem { base: RAX, index: Some((R15, 0)), disp: 0 });
    let unknown = find_target(asm, upper);
    asm.lea(R15, Mem::at(R15, 8));
    jump_to_found(asm, upper);
    asm.land(unknown);
    resolve(asm, stubs, upper, Site::OF_CALL, reason::RETURN, 8);
    (with_flags, here)
}
