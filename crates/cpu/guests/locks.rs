//! Several processors and one memory: locked instructions are atomic, and the order of plain ones
//! is x86's (SDM 3A, 9.1 and 9.2).

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::interrupts::{run_both, second};
use super::machine::{CODE, DATA, Guest};

const ROUNDS: u32 = 20_000;
/// How many processors are done.
const DONE: u64 = DATA + 0x3000;

/// Runs the same body [`ROUNDS`] times on both processors. Registers but RCX and RSP are the body's.
fn race(
    prepare: impl FnOnce(&mut Guest),
    body: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Guest {
    let mut guest = Guest::long_with(2);
    prepare(&mut guest);
    let program = |a: &mut CodeAssembler| {
        let mut again = a.create_label();
        let mut wait = a.create_label();
        a.mov(r15d, ROUNDS)?;
        a.set_label(&mut again)?;
        a.nop()?;
        body(a)?;
        a.dec(r15d)?;
        a.jne(again)?;
        a.lock().inc(dword_ptr(DONE))?;
        a.set_label(&mut wait)?;
        a.pause()?;
        a.cmp(dword_ptr(DONE), 2)?;
        a.jne(wait)?;
        super::machine::stop(a)
    };
    guest.code(CODE, 64, program);
    guest.code(CODE + 0x1000, 64, program);
    let other = second(&guest, CODE + 0x1000);
    run_both(&mut guest, other);
    guest
}

#[test]
fn locked_read_modify_writes_lose_nothing() {
    let guest = race(
        |_| {},
        |a| {
            a.mov(eax, 1)?;
            a.lock().xadd(qword_ptr(DATA), rax)?;
            a.lock().inc(dword_ptr(DATA + 8))?;
            a.lock().add(word_ptr(DATA + 16), 1)?;
            a.lock().sub(byte_ptr(DATA + 24), 1)
        },
    );
    let total = u64::from(ROUNDS) * 2;
    assert_eq!(guest.peek(DATA), total);
    assert_eq!(guest.peek(DATA + 8), total);
    assert_eq!(guest.peek16(DATA + 16), total as u16);
    assert_eq!(guest.peek(DATA + 24) as u8, (total as u8).wrapping_neg());
}

#[test]
fn locks_hold_wherever_the_operand_lies() {
    // Within eight bytes, across them, across a cache line, across a page.
    let guest = race(
        |_| {},
        |a| {
            a.lock().inc(dword_ptr(DATA + 1))?;
            a.lock().inc(dword_ptr(DATA + 0x46))?;
            a.lock().inc(dword_ptr(DATA + 0xbe))?;
            a.lock().inc(dword_ptr(DATA + 0xffe))
        },
    );
    for at in [1, 0x46, 0xbe, 0xffe] {
        assert_eq!(guest.peek32(DATA + at), ROUNDS * 2, "{at:#x}");
    }
}

#[test]
fn cmpxchg16b_adds_to_sixteen_bytes_at_once() {
    let guest = race(
        |_| {},
        |a| {
            let mut again = a.create_label();
            a.mov(rax, qword_ptr(DATA))?;
            a.mov(rdx, qword_ptr(DATA + 8))?;
            a.set_label(&mut again)?;
            a.mov(rbx, rax)?;
            a.mov(rcx, rdx)?;
            a.inc(rbx)?;
            a.dec(rcx)?;
            a.lock().cmpxchg16b(xmmword_ptr(DATA))?;
            a.jne(again)
        },
    );
    let total = u64::from(ROUNDS) * 2;
    assert_eq!((guest.peek(DATA), guest.peek(DATA + 8)), (total, total.wrapping_neg()));
}

#[test]
fn xchg_and_bts_make_locks_that_protect_plain_memory() {
    let guest = race(
        |_| {},
        |a| {
            let (mut first, mut second) = (a.create_label(), a.create_label());
            let (mut held, mut held2) = (a.create_label(), a.create_label());
            a.set_label(&mut first)?;
            a.mov(eax, 1)?;
            a.xchg(dword_ptr(DATA), eax)?;
            a.test(eax, eax)?;
            a.je(held)?;
            a.pause()?;
            a.jmp(first)?;
            a.set_label(&mut held)?;
            a.inc(qword_ptr(DATA + 64))?;
            a.mov(dword_ptr(DATA), 0)?;
            a.set_label(&mut second)?;
            a.lock().bts(dword_ptr(DATA + 128), 5)?;
            a.jae(held2)?;
            a.pause()?;
            a.jmp(second)?;
            a.set_label(&mut held2)?;
            a.inc(qword_ptr(DATA + 192))?;
            a.lock().btr(dword_ptr(DATA + 128), 5)
        },
    );
    let total = u64::from(ROUNDS) * 2;
    assert_eq!((guest.peek(DATA + 64), guest.peek(DATA + 192)), (total, total));
}

#[test]
fn stores_are_seen_in_their_order_and_loads_happen_in_theirs() {
    // SDM 3A, 9.2.3.2: who sees the second store sees the first.
    let guest = race(
        |guest| guest.poke(DATA + 0x2000, 0),
        |a| {
            // Even apart by processor: its own pair is written, the other's is read.
            a.mov(ebx, esp)?;
            a.and(ebx, 0x800)?;
            a.mov(ecx, ebx)?;
            a.xor(ecx, 0x800)?;
            a.mov(dword_ptr(rbx + DATA as i32), r15d)?;
            a.mov(dword_ptr(rbx + DATA as i32 + 64), r15d)?;
            // Counting down: the second value read must not be older, that is, larger.
            a.mov(eax, dword_ptr(rcx + DATA as i32 + 64))?;
            a.mov(edx, dword_ptr(rcx + DATA as i32))?;
            let mut good = a.create_label();
            a.test(eax, eax)?;
            a.je(good)?;
            a.cmp(edx, eax)?;
            a.jbe(good)?;
            a.lock().inc(dword_ptr(DATA + 0x2000))?;
            a.set_label(&mut good)?;
            a.nop()
        },
    );
    assert_eq!(guest.peek(DATA + 0x2000), 0);
}

#[test]
fn mfence_keeps_a_load_behind_an_earlier_store() {
    // SDM 3A, 9.2.3.4 and 9.2.5: Peterson's lock, which needs just that, around a plain counter.
    let guest = race(
        |_| {},
        |a| {
            let (mut wait, mut enter) = (a.create_label(), a.create_label());
            // Which processor: 0 or 64.
            a.mov(ebx, esp)?;
            a.and(ebx, 0x800)?;
            a.shr(ebx, 5)?;
            a.mov(edx, ebx)?;
            a.xor(edx, 64)?;
            a.mov(dword_ptr(rbx + DATA as i32), 1)?;
            a.mov(dword_ptr(DATA + 0x100), edx)?;
            a.mfence()?;
            a.set_label(&mut wait)?;
            a.cmp(dword_ptr(rdx + DATA as i32), 0)?;
            a.je(enter)?;
            a.cmp(dword_ptr(DATA + 0x100), edx)?;
            a.jne(enter)?;
            a.pause()?;
            a.jmp(wait)?;
            a.set_label(&mut enter)?;
            a.inc(qword_ptr(DATA + 0x200))?;
            a.mov(dword_ptr(rbx + DATA as i32), 0)
        },
    );
    assert_eq!(guest.peek(DATA + 0x200), u64::from(ROUNDS) * 2);
}
