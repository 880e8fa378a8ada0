//! Code that changes: by itself, through other addresses, by devices, by other processors (SDM 3A,
//! 9.1.3 and 12.6).

use iced_x86::code_asm::*;
use riad_memory::Gpa;

use super::interrupts::{run_both, second};
use super::machine::{CODE, DATA, Guest, assemble, stop};
use super::tables::{P, RW};

const FUNCTION: u64 = 0x1_8000;
const FAR: u64 = 0x12_3456_7000;

/// `mov eax, value; ret` at [`FUNCTION`]: its immediate is at [`FUNCTION`] + 1.
fn function(guest: &Guest, at: u64, value: u32) {
    guest.code(at, 64, |a| {
        a.mov(eax, value)?;
        a.ret()
    });
}

#[test]
fn a_store_to_the_next_instruction_of_the_same_block_is_seen_by_it() {
    let mut guest = Guest::long();
    guest.program_finishes(|a| {
        let mut next = a.create_label();
        a.lea(rbx, qword_ptr(next))?;
        a.mov(byte_ptr(rbx + 1), 7)?;
        a.set_label(&mut next)?;
        a.mov(ecx, 1)
    });
    assert_eq!(guest.rcx(), 7);
}

#[test]
fn every_way_to_store_is_seen() {
    type Body = fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>;
    let stores: [(&str, Body); 9] = [
        ("MOV", |a| a.mov(dword_ptr(rbx), 7)),
        ("ADD", |a| a.add(dword_ptr(rbx), 6)),
        ("LOCK XADD", |a| a.mov(edx, 6).and_then(|()| a.lock().xadd(dword_ptr(rbx), edx))),
        ("XCHG", |a| a.mov(edx, 7).and_then(|()| a.xchg(dword_ptr(rbx), edx))),
        ("REP STOSB", |a| {
            a.mov(rdi, rbx)?;
            a.mov(eax, 7)?;
            a.mov(ecx, 1)?;
            a.rep().stosb()
        }),
        ("MOVSD", |a| {
            a.mov(rdi, rbx)?;
            a.mov(esi, DATA as u32)?;
            a.movsd()
        }),
        ("POP", |a| a.push(7).and_then(|()| a.pop(qword_ptr(rbx)))),
        ("MOVD", |a| {
            a.mov(edx, 7)?;
            a.movd(xmm0, edx)?;
            a.movss(dword_ptr(rbx), xmm0)
        }),
        ("FISTP", |a| {
            a.fninit()?;
            a.fild(dword_ptr(DATA))?;
            a.fistp(dword_ptr(rbx))
        }),
    ];
    for (name, store) in stores {
        let mut guest = Guest::long();
        guest.poke(DATA, 7);
        guest.program_finishes(|a| {
            let mut next = a.create_label();
            a.lea(rbx, qword_ptr(next))?;
            a.add(rbx, 2)?;
            store(a)?;
            a.set_label(&mut next)?;
            // With a REX prefix and an immediate of eight bytes, all of which POP writes.
            a.mov(r8, 0x11_2233_4455_6601u64)
        });
        assert_eq!(guest.state.gpr[8] as u8, 7, "{name}");
    }
}

#[test]
fn a_store_to_another_block_is_seen_when_it_runs_again() {
    let mut guest = Guest::long();
    function(&guest, FUNCTION, 1);
    guest.program_finishes(|a| {
        a.mov(ebx, FUNCTION as u32)?;
        a.call(rbx)?;
        a.mov(r8d, eax)?;
        a.mov(byte_ptr(rbx + 1), 2)?;
        a.call(rbx)?;
        a.mov(r9d, eax)
    });
    assert_eq!(guest.state.gpr[8..10], [1, 2]);
}

#[test]
fn a_store_through_another_mapping_is_seen() {
    let mut guest = Guest::long();
    function(&guest, FUNCTION, 1);
    guest.tables.map(FAR, FUNCTION | P | RW);
    guest.state.gpr[6] = FAR;
    guest.program_finishes(|a| {
        a.mov(ebx, FUNCTION as u32)?;
        a.call(rbx)?;
        a.mov(byte_ptr(rsi + 1), 2)?;
        a.call(rbx)?;
        a.mov(r8d, eax)?;
        a.call(rsi)?;
        a.mov(byte_ptr(rbx + 1), 3)?;
        a.call(rsi)
    });
    assert_eq!((guest.state.gpr[8], guest.rax()), (2, 3));
}

#[test]
fn a_device_that_writes_code_is_seen() {
    let mut guest = Guest::long();
    for value in 1..20u64 {
        guest
            .memory
            .write(
                Gpa(CODE),
                &assemble(CODE, 64, |a| {
                    a.mov(eax, value as u32)?;
                    stop(a)
                }),
            )
            .expect("RAM");
        guest.state.rip = CODE;
        guest.finishes();
        assert_eq!(guest.rax(), value);
    }
}

#[test]
fn an_instruction_across_two_pages_changes_with_either() {
    let mut guest = Guest::long();
    let at = FUNCTION + 0xffd;
    function(&guest, at, 0x0101_0101);
    guest.state.gpr[3] = at;
    guest.program_finishes(|a| {
        a.call(rbx)?;
        a.mov(r8d, eax)?;
        a.mov(byte_ptr(rbx + 1), 2)?;
        a.call(rbx)?;
        a.mov(r9d, eax)?;
        a.mov(byte_ptr(rbx + 4), 3)?;
        a.call(rbx)
    });
    assert_eq!(guest.state.gpr[8..10], [0x0101_0101, 0x0101_0102]);
    assert_eq!(guest.rax(), 0x0301_0102);
}

#[test]
fn an_address_that_leads_to_another_page_runs_that_pages_code() {
    let mut guest = Guest::long();
    function(&guest, FUNCTION, 1);
    function(&guest, FUNCTION + 0x1000, 2);
    guest.tables.map(FAR, FUNCTION | P);
    guest.state.gpr[3] = FAR;
    guest.state.gpr[6] = guest.tables.entry(FAR, 1);
    guest.program_finishes(|a| {
        a.call(rbx)?;
        a.mov(r8d, eax)?;
        a.add(qword_ptr(rsi), 0x1000)?;
        a.invlpg(byte_ptr(rbx))?;
        a.call(rbx)?;
        a.mov(r9d, eax)?;
        // The first page is used for something else, then for code again.
        a.mov(byte_ptr(FUNCTION + 1), 3)?;
        a.sub(qword_ptr(rsi), 0x1000)?;
        a.invlpg(byte_ptr(rbx))?;
        a.call(rbx)
    });
    assert_eq!(guest.state.gpr[8..10], [1, 2]);
    assert_eq!(guest.rax(), 3);
}

#[test]
fn code_and_data_in_one_page_do_not_disturb_each_other() {
    let mut guest = Guest::long();
    guest.program_finishes(|a| {
        let mut again = a.create_label();
        a.mov(ecx, 1000)?;
        a.set_label(&mut again)?;
        a.add(qword_ptr(CODE + 0x800), rcx)?;
        a.dec(ecx)?;
        a.jne(again)
    });
    assert_eq!(guest.peek(CODE + 0x800), 500_500);
}

#[test]
fn code_that_runs_in_two_modes_is_decoded_for_each() {
    // 40 is INC EAX in 32-bit code and a prefix in 64-bit code.
    let mut guest = Guest::long();
    guest.memory.write(Gpa(FUNCTION), &[0x40, 0x90, 0xcb, 0x90]).expect("RAM");
    guest.state.gpr[3] = DATA;
    guest.poke(DATA, 0x08_0000_0000 | FUNCTION);
    guest.poke(DATA + 8, 0x18_0000_0000 | FUNCTION);
    guest.program_finishes(|a| {
        a.xor(eax, eax)?;
        for offset in [0, 8, 0, 8] {
            a.db(&[0xff, 0x5b, offset])?; // call far [rbx + offset]
            a.mov(r8d, eax)?;
        }
        Ok(())
    });
    assert_eq!(guest.rax(), 2);
}

#[test]
fn a_processor_that_was_told_so_runs_what_another_wrote() {
    // SDM 3A, 9.1.3, cross-modifying code: the writer changes the code and then a flag; the reader
    // sees the flag, serialises, and runs it.
    const ROUNDS: i32 = 300;
    let mut guest = Guest::long_with(2);
    function(&guest, FUNCTION, 0);
    let flag = DATA;
    let answer = DATA + 0x1000;
    // The reader.
    guest.program(|a| {
        let mut again = a.create_label();
        let mut good = a.create_label();
        a.mov(esi, 1)?;
        a.set_label(&mut again)?;
        a.pause()?;
        a.cmp(dword_ptr(flag), esi)?;
        a.jne(again)?;
        a.xor(eax, eax)?;
        a.cpuid()?;
        a.mov(edi, FUNCTION as u32)?;
        a.call(rdi)?;
        a.cmp(eax, esi)?;
        a.je(good)?;
        a.inc(r12d)?;
        a.set_label(&mut good)?;
        a.mov(dword_ptr(answer), esi)?;
        a.inc(esi)?;
        a.cmp(esi, ROUNDS)?;
        a.jbe(again)
    });
    // The writer.
    guest.code(CODE + 0x1000, 64, |a| {
        let mut again = a.create_label();
        let mut wait = a.create_label();
        a.mov(esi, 1)?;
        a.set_label(&mut again)?;
        a.mov(dword_ptr(FUNCTION + 1), esi)?;
        a.mov(dword_ptr(flag), esi)?;
        a.set_label(&mut wait)?;
        a.pause()?;
        a.cmp(dword_ptr(answer), esi)?;
        a.jne(wait)?;
        a.inc(esi)?;
        a.jmp(again)
    });
    let other = second(&guest, CODE + 0x1000);
    run_both(&mut guest, other);
    assert_eq!((guest.state.gpr[6], guest.state.gpr[12]), (ROUNDS as u64 + 1, 0));
}
