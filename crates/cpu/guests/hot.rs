//! Code that has run often, and then something happens: a fault, an interrupt, a request to stop, a
//! change of the code or of where it is mapped. Each guest runs as instructions are counted and as
//! they are not.

use std::time::Duration;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use riad_cpu::x86::rflags;
use riad_cpu::{Exit, Limit};
use riad_memory::Gpa;

use super::Lender;
use super::interrupts::{run_both, second};
use super::machine::{CODE, DATA, Guest, Trap, stop};
use super::tables::{P, RW};

const FUNCTION: u64 = 0x1_8000;
const FAR: u64 = 0x12_3456_7000;
const ROUNDS: u32 = 2_000;

type Code<'a> = &'a dyn Fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// A guest whose instructions are counted, where the engine can, and one whose are not.
fn both(count: u32) -> impl Iterator<Item = Guest> {
    let counted = Lender::COUNTS.then(|| Guest::long_with(count));
    counted.into_iter().chain([Guest::uncounted(count, 64 << 20)])
}

/// Runs without a limit, until the guest stops.
fn go(guest: &mut Guest) -> Option<Trap> {
    assert_eq!(guest.run_for(Limit::None), Exit::Stopped);
    guest.trap()
}

/// Runs while something else happens on another thread, after a while.
fn go_while(guest: &mut Guest, happens: impl FnOnce(&Guest) + Send) {
    guest.vcpu.set_state(&guest.state).expect("state");
    // The processor is lent to its thread; the rest of the guest stays.
    let spare = guest.another(7);
    let mut vcpu = std::mem::replace(&mut guest.vcpu, spare);
    let exit = std::thread::scope(|scope| {
        let run = scope.spawn(|| (vcpu.run(Limit::None).expect("an exit"), vcpu));
        std::thread::sleep(Duration::from_millis(30));
        happens(guest);
        run.join().expect("the processor's thread")
    });
    assert_eq!(exit.0, Exit::Stopped);
    guest.vcpu = exit.1;
    guest.state = guest.vcpu.state().expect("state");
}

/// `mov eax, value; ret`; its immediate is a byte behind its address.
fn function(guest: &Guest, at: u64, value: u32) {
    guest.code(at, 64, |a| {
        a.mov(eax, value)?;
        a.ret()
    });
}

/// `body`, [`ROUNDS`] times; R15 counts down.
fn rounds(a: &mut CodeAssembler, body: Code<'_>) -> Result<(), IcedError> {
    let mut again = a.create_label();
    a.mov(r15d, ROUNDS)?;
    a.set_label(&mut again)?;
    body(a)?;
    a.dec(r15d)?;
    a.jne(again)
}

#[test]
fn a_page_fault_in_the_middle_is_precise() {
    for mut guest in both(1) {
        // RSI walks to the end of the mapped pages.
        guest.tables.map(DATA + 0x2000, 0);
        guest.program(|a| {
            let mut again = a.create_label();
            a.mov(esi, DATA as u32)?;
            a.set_label(&mut again)?;
            a.inc(r8d)?;
            a.add(r9d, 3)?;
            a.stc()?;
            a.adc(r10, qword_ptr(rsi))?;
            a.inc(r11d)?;
            a.add(rsi, 8)?;
            a.jmp(again)
        });
        let trap = go(&mut guest).expect("a page fault");
        let n = 0x2000 / 8;
        assert_eq!(trap.what(), (14, Some(0)));
        assert_eq!(guest.state.control.cr2, DATA + 0x2000);
        assert_eq!(guest.state.gpr[8..12], [n + 1, 3 * (n + 1), n, n]);
        assert_eq!(guest.state.gpr[6], DATA + 0x2000);
        assert_eq!(trap.flags & rflags::CF, rflags::CF, "of the STC before it");
        // MOV ESI (5), INC (3), ADD (4), STC (1).
        assert_eq!(trap.ip, CODE + 13);
    }
}

#[test]
fn hot_code_is_stepped_through_instruction_by_instruction() {
    for mut guest in both(1) {
        let handler = FUNCTION + 0x1000;
        guest.gate64(1, handler, 0x8e, 0);
        guest.code(handler, 64, |a| {
            a.inc(qword_ptr(DATA))?;
            a.iretq()
        });
        guest.code(FUNCTION, 64, |a| {
            a.inc(ebx)?;
            a.add(rbx, 1)?;
            a.lea(rcx, qword_ptr(rbx + rbx))?;
            a.ret()
        });
        guest.program(|a| {
            a.mov(edi, FUNCTION as u32)?;
            rounds(a, &|a| a.call(rdi))?;
            a.pushfq()?;
            a.or(dword_ptr(rsp), 0x100)?;
            a.popfq()?;
            // Steps: CALL, four of the function, PUSHFQ, AND, POPFQ.
            a.call(rdi)?;
            a.pushfq()?;
            a.and(dword_ptr(rsp), !0x100)?;
            a.popfq()
        });
        assert_eq!(go(&mut guest), None);
        assert_eq!(guest.peek(DATA), 8);
        assert_eq!(guest.rbx(), 2 * (u64::from(ROUNDS) + 1));
    }
}

#[test]
fn an_interrupt_ends_a_loop_that_never_ends() {
    for mut guest in both(1) {
        guest.state.rflags |= rflags::IF;
        guest.state.apic.svr = 0x1ff;
        guest.program(|a| {
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.inc(rbx)?;
            a.jmp(again)
        });
        go_while(&mut guest, |guest| guest.engine.send_msi(0xfee0_0000, 0x45));
        let trap = guest.trap().expect("an interrupt");
        assert_eq!(trap.vector, 0x45);
        assert!((CODE..CODE + 16).contains(&trap.ip));
    }
}

#[test]
fn loops_of_every_kind_stop_when_asked_to_with_interrupts_off() {
    let loops: [Code<'_>; 5] = [
        &|a| {
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.jmp(again)
        },
        &|a| {
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.cmp(dword_ptr(DATA), 1)?;
            a.jne(again)
        },
        &|a| {
            let mut again = a.create_label();
            a.lea(rdi, qword_ptr(again))?;
            a.set_label(&mut again)?;
            a.jmp(rdi)
        },
        &|a| {
            let mut again = a.create_label();
            a.mov(edi, FUNCTION as u32)?;
            a.set_label(&mut again)?;
            a.call(rdi)?;
            a.jmp(again)
        },
        &|a| {
            let (mut one, mut other) = (a.create_label(), a.create_label());
            a.set_label(&mut one)?;
            a.push(rax)?;
            a.pop(rbx)?;
            a.test(eax, eax)?;
            a.je(other)?;
            a.set_label(&mut other)?;
            a.pause()?;
            a.jmp(one)
        },
    ];
    for body in loops {
        for mut guest in both(1) {
            function(&guest, FUNCTION, 1);
            guest.program(body);
            let handle = guest.vcpu.handle();
            go_while(&mut guest, |_| handle.stop());
            assert_eq!(guest.trap(), None);
        }
    }
}

#[test]
fn code_changes_under_its_callers() {
    // Through the address it runs at, and through another.
    for at in [FUNCTION, FAR] {
        for mut guest in both(1) {
            guest.tables.map(FAR, FUNCTION | P | RW);
            function(&guest, FUNCTION, 0);
            guest.state.gpr[6] = at;
            guest.program(|a| {
                a.mov(edi, FUNCTION as u32)?;
                rounds(a, &|a| {
                    a.mov(dword_ptr(rsi + 1), r15d)?;
                    a.call(rdi)?;
                    a.add(rbx, rax)
                })
            });
            assert_eq!(go(&mut guest), None);
            let rounds = u64::from(ROUNDS);
            assert_eq!(guest.rbx(), rounds * (rounds + 1) / 2, "by {at:#x}");
        }
    }
}

#[test]
fn code_changes_after_it_was_hot() {
    for mut guest in both(1) {
        function(&guest, FUNCTION, 1);
        guest.program(|a| {
            a.mov(edi, FUNCTION as u32)?;
            for value in [2, 3] {
                rounds(a, &|a| {
                    a.call(rdi)?;
                    a.add(rbx, rax)
                })?;
                a.mov(byte_ptr(rdi + 1), value)?;
            }
            a.call(rdi)
        });
        assert_eq!(go(&mut guest), None);
        assert_eq!((guest.rbx(), guest.rax()), (3 * u64::from(ROUNDS), 3));
    }
}

#[test]
fn code_changes_further_down_its_own_block() {
    for mut guest in both(1) {
        guest.program(|a| {
            let mut changed = a.create_label();
            a.lea(rdi, qword_ptr(changed))?;
            rounds(a, &|a| {
                let mut here = a.create_label();
                a.lea(rdi, qword_ptr(here))?;
                a.mov(dword_ptr(rdi + 1), r15d)?;
                a.set_label(&mut here)?;
                a.mov(eax, 0)?;
                a.add(rbx, rax)
            })?;
            a.set_label(&mut changed)?;
            a.nop()
        });
        assert_eq!(go(&mut guest), None);
        let rounds = u64::from(ROUNDS);
        assert_eq!(guest.rbx(), rounds * (rounds + 1) / 2);
    }
}

#[test]
fn a_device_that_writes_hot_code_is_seen() {
    for mut guest in both(1) {
        function(&guest, FUNCTION, 1);
        guest.program(|a| {
            let mut again = a.create_label();
            a.mov(edi, FUNCTION as u32)?;
            a.set_label(&mut again)?;
            a.call(rdi)?;
            a.cmp(eax, 7)?;
            a.jne(again)
        });
        go_while(&mut guest, |guest| guest.memory.write(Gpa(FUNCTION + 1), &[7]).expect("RAM"));
        assert_eq!((guest.trap(), guest.rax()), (None, 7));
    }
}

#[test]
fn another_processor_that_writes_hot_code_is_seen() {
    // SDM 3A, 9.1.3: an aligned store of the immediate. The reader must see it some time, and
    // never an older one after a newer one.
    for mut guest in both(2) {
        function(&guest, FUNCTION + 3, 0);
        guest.program(|a| {
            let (mut again, mut good) = (a.create_label(), a.create_label());
            a.mov(edi, FUNCTION as u32 + 3)?;
            a.set_label(&mut again)?;
            a.call(rdi)?;
            a.cmp(eax, r13d)?;
            a.jae(good)?;
            a.inc(r12d)?;
            a.set_label(&mut good)?;
            a.mov(r13d, eax)?;
            a.cmp(eax, ROUNDS)?;
            a.jne(again)
        });
        guest.code(CODE + 0x1000, 64, |a| {
            let (mut again, mut wait) = (a.create_label(), a.create_label());
            a.mov(ebx, 1)?;
            a.set_label(&mut again)?;
            a.mov(dword_ptr(FUNCTION + 4), ebx)?;
            a.inc(ebx)?;
            a.cmp(ebx, ROUNDS)?;
            a.jbe(again)?;
            a.set_label(&mut wait)?;
            a.pause()?;
            a.jmp(wait)
        });
        let other = second(&guest, CODE + 0x1000);
        run_both(&mut guest, other);
        assert_eq!((guest.rax(), guest.state.gpr[12]), (u64::from(ROUNDS), 0));
    }
}

#[test]
fn an_address_that_leads_elsewhere_after_invlpg_runs_what_is_there() {
    for mut guest in both(1) {
        let pages = [FUNCTION, FUNCTION + 0x1000];
        function(&guest, pages[0], 1);
        function(&guest, pages[1], 1000);
        let leaf = guest.tables.entry(FAR, 1);
        guest.poke(leaf, pages[0] | P);
        guest.state.gpr[6] = leaf;
        guest.state.gpr[7] = FAR;
        guest.program(|a| {
            rounds(a, &|a| {
                a.xor(dword_ptr(rsi), (pages[0] ^ pages[1]) as u32)?;
                a.invlpg(byte_ptr(rdi))?;
                for _ in 0..3 {
                    a.call(rdi)?;
                    a.add(rbx, rax)?;
                }
                Ok(())
            })
        });
        assert_eq!(go(&mut guest), None);
        assert_eq!(guest.rbx(), u64::from(ROUNDS) / 2 * 3 * 1001);
    }
}

#[test]
fn a_page_of_hot_code_that_is_taken_away_faults_after_invlpg() {
    for mut guest in both(1) {
        function(&guest, FUNCTION, 1);
        let leaf = guest.tables.entry(FAR, 1);
        guest.poke(leaf, FUNCTION | P);
        guest.state.gpr[6] = leaf;
        guest.state.gpr[7] = FAR;
        guest.program(|a| {
            rounds(a, &|a| a.call(rdi))?;
            a.mov(qword_ptr(rsi), 0)?;
            a.invlpg(byte_ptr(rdi))?;
            a.call(rdi)
        });
        let trap = go(&mut guest).expect("a page fault");
        assert_eq!((trap.vector, trap.ip, guest.state.control.cr2), (14, FAR, FAR));
    }
}

#[test]
fn an_instruction_in_two_pages_is_what_both_of_them_say() {
    // Its first page stays; the second is exchanged, written to, and taken away.
    const SECOND: u64 = FUNCTION + 0x1000;
    const OTHER: u64 = FUNCTION + 0x2000;
    const START: u64 = FAR + 0xffe;
    for mut guest in both(1) {
        // `mov eax, imm32; ret`, of which two bytes lie in the first page.
        guest.memory.write(Gpa(FUNCTION + 0xffe), &[0xb8, 0x01]).expect("RAM");
        guest.memory.write(Gpa(SECOND), &[0, 0, 0, 0xc3]).expect("RAM");
        guest.memory.write(Gpa(OTHER), &[1, 0, 0, 0xc3]).expect("RAM");
        guest.tables.map(FAR, FUNCTION | P);
        let leaf = guest.tables.entry(FAR + 0x1000, 1);
        guest.poke(leaf, SECOND | P);
        guest.state.gpr[6] = leaf;
        guest.state.gpr[7] = FAR + 0x1000;
        guest.state.gpr[12] = START;
        guest.program(|a| {
            rounds(a, &|a| {
                a.call(r12)?;
                a.add(rbx, rax)
            })?;
            a.mov(qword_ptr(rsi), (OTHER | P) as i32)?;
            a.invlpg(byte_ptr(rdi))?;
            rounds(a, &|a| {
                a.call(r12)?;
                a.add(rcx, rax)
            })?;
            a.mov(r8d, OTHER as u32)?;
            a.mov(byte_ptr(r8 + 1), 2)?;
            a.call(r12)?;
            a.mov(edx, eax)?;
            a.mov(qword_ptr(rsi), 0)?;
            a.invlpg(byte_ptr(rdi))?;
            a.call(r12)
        });
        let trap = go(&mut guest).expect("a page fault");
        let rounds = u64::from(ROUNDS);
        assert_eq!((guest.rbx(), guest.rcx(), guest.rdx()), (rounds, rounds * 0x101, 0x2_0101));
        assert_eq!((trap.vector, trap.ip, guest.state.control.cr2), (14, START, FAR + 0x1000));
    }
}

#[test]
fn an_instruction_in_two_pages_may_repeat_or_jump_to_itself() {
    for mut guest in both(1) {
        // `rep stosb` and `loop $`, each across the end of a page.
        guest.memory.write(Gpa(FUNCTION + 0xfff), &[0xf3, 0xaa, 0xc3]).expect("RAM");
        guest.memory.write(Gpa(FUNCTION + 0x1fff), &[0xe2, 0xfe, 0xc3]).expect("RAM");
        guest.program(|a| {
            a.mov(r12d, (FUNCTION + 0xfff) as u32)?;
            a.mov(r13d, (FUNCTION + 0x1fff) as u32)?;
            a.mov(al, 3)?;
            rounds(a, &|a| {
                a.mov(edi, DATA as u32)?;
                a.mov(ecx, 5000)?;
                a.call(r12)?;
                a.lea(rbx, qword_ptr(rbx + rcx + 1))?;
                a.mov(ecx, 7)?;
                a.call(r13)?;
                a.add(rbx, rcx)
            })
        });
        assert_eq!(go(&mut guest), None);
        assert_eq!((guest.rbx(), guest.state.gpr[7]), (u64::from(ROUNDS), DATA + 5000));
        assert_eq!(guest.peek(DATA + 4992), 0x0303_0303_0303_0303);
    }
}

#[test]
fn the_same_code_at_two_addresses_knows_where_it_is() {
    for mut guest in both(1) {
        guest.tables.map(FAR, FUNCTION | P);
        guest.state.gpr[6] = FAR;
        guest.code(FUNCTION, 64, |a| {
            let mut here = a.create_label();
            a.set_label(&mut here)?;
            a.lea(rax, qword_ptr(here))?;
            a.ret()
        });
        guest.program(|a| {
            a.mov(edi, FUNCTION as u32)?;
            rounds(a, &|a| {
                a.call(rdi)?;
                a.add(rbx, rax)?;
                a.call(rsi)?;
                a.add(rcx, rax)
            })
        });
        assert_eq!(go(&mut guest), None);
        let rounds = u64::from(ROUNDS);
        assert_eq!((guest.rbx(), guest.rcx()), (rounds * FUNCTION, rounds * FAR));
    }
}

#[test]
fn processors_share_code() {
    for mut guest in both(2) {
        guest.code(FUNCTION, 64, |a| {
            a.lock().inc(qword_ptr(DATA))?;
            a.inc(rbx)?;
            a.ret()
        });
        guest.program(|a| {
            let mut wait = a.create_label();
            a.mov(edi, FUNCTION as u32)?;
            rounds(a, &|a| a.call(rdi))?;
            a.lock().inc(qword_ptr(DATA + 64))?;
            a.set_label(&mut wait)?;
            a.pause()?;
            a.cmp(qword_ptr(DATA + 64), 2)?;
            a.jne(wait)
        });
        let other = second(&guest, CODE);
        run_both(&mut guest, other);
        let rounds = u64::from(ROUNDS);
        assert_eq!((guest.peek(DATA), guest.rbx()), (2 * rounds, rounds));
    }
}

#[test]
fn code_without_end_fits_the_least_cache() {
    // A function after the other, each at an address of its own and called at once, many times
    // what the cache holds.
    const FROM: u64 = 0x50_0000;
    const PLACES: u32 = 0x20_0000 / 256;
    const ADDS: u32 = 40;
    let counted = Lender::COUNTS.then(Guest::long);
    for mut guest in counted.into_iter().chain([Guest::uncounted(1, 1 << 20)]) {
        guest.program(|a| {
            let mut place = a.create_label();
            a.mov(r8d, 3)?;
            let mut pass = a.create_label();
            a.set_label(&mut pass)?;
            a.mov(r15d, PLACES)?;
            a.mov(edx, FROM as u32)?;
            a.set_label(&mut place)?;
            // ADD EBX, 1 is 83 C3 01; with a fourth byte, NOP. Then RET.
            a.mov(edi, edx)?;
            a.mov(eax, 0x9001_c383u32)?;
            a.mov(ecx, ADDS)?;
            a.rep().stosd()?;
            a.mov(byte_ptr(rdi), 0xc3)?;
            a.call(rdx)?;
            a.call(rdx)?;
            a.add(edx, 256)?;
            a.dec(r15d)?;
            a.jne(place)?;
            a.dec(r8d)?;
            a.jne(pass)?;
            stop(a)
        });
        assert_eq!(go(&mut guest), None);
        assert_eq!(guest.rbx(), u64::from(PLACES * ADDS * 2 * 3));
    }
}

#[test]
fn the_clock_moves_by_instructions_alone_while_the_code_cache_makes_room() {
    // Found by the fuzz target `translate`: a cache that begins another segment calls processors
    // out, and these then told the clock of instructions earlier than the interpreter does.
    const FROM: u64 = 0x50_0000;
    const PLACES: u32 = 0x20_0000 / 256;
    const ADDS: usize = 40;
    if !Lender::COUNTS {
        return;
    }
    // Little, so that it is full soon.
    let mut guest = Guest::long_with_cache(1 << 20);
    // ADD EBX, 1; RET.
    let code = [[0x83, 0xc3, 1].repeat(ADDS), vec![0xc3]].concat();
    for place in 0..u64::from(PLACES) {
        guest.memory.write(Gpa(FROM + place * 256), &code).expect("RAM");
    }
    // R12: steps of another size than the first, which R13 has. R10: steps.
    guest.program(|a| {
        let (mut place, mut next) = (a.create_label(), a.create_label());
        a.mov(r15d, PLACES)?;
        a.mov(edi, FROM as u32)?;
        a.rdtsc()?;
        a.mov(r14d, eax)?;
        a.set_label(&mut place)?;
        a.call(rdi)?;
        a.add(edi, 256)?;
        a.rdtsc()?;
        a.mov(ecx, eax)?;
        a.sub(ecx, r14d)?;
        a.je(next)?;
        a.mov(r14d, eax)?;
        a.inc(r10d)?;
        a.test(r13d, r13d)?;
        a.cmove(r13d, ecx)?;
        a.cmp(ecx, r13d)?;
        a.je(next)?;
        a.inc(r12d)?;
        a.set_label(&mut next)?;
        a.dec(r15d)?;
        a.jne(place)
    });
    guest.finishes();
    assert_eq!(guest.rbx(), u64::from(PLACES) * ADDS as u64);
    assert!(guest.state.gpr[10] > 100, "the clock hardly moves");
    assert_eq!(guest.state.gpr[12], 0, "it moved by something else than {}", guest.state.gpr[13]);
}

#[test]
fn an_instruction_for_the_interpreter_is_the_last_there_is() {
    // Found by the fuzz target `translate`. Behind the last address comes the first.
    const TOP: u64 = 0xffff_ffff_ffff_f000;
    const AT: u64 = 0x70_0000;
    for mut guest in both(1) {
        guest.tables.map(TOP, AT | P | RW);
        // INC R8D; CPUID.
        guest.memory.write(Gpa(AT + 0xffb), &[0x41, 0xff, 0xc0, 0x0f, 0xa2]).expect("RAM");
        guest.code(0, 64, stop);
        guest.state.rip = TOP + 0xffb;
        assert_eq!(go(&mut guest), None);
        assert_eq!(guest.state.gpr[8], 1);
    }
}

#[test]
fn a_branch_over_nearly_two_gigabytes_goes_where_it_says() {
    // Found by the fuzz target `translate`: counted from the start of its page, the way is longer
    // than 31 bits can say.
    const FROM: u64 = 0x70_0000;
    const AT: u64 = FROM + 0xe00;
    // CALL, JMP, JE.
    for opcode in [&[0xe8][..], &[0xe9], &[0x0f, 0x84]] {
        for mut guest in both(1) {
            let distance = i32::MAX - 0x100;
            let next = AT + 3 + opcode.len() as u64 + 4;
            let to = next + distance as u64;
            guest.tables.map(to & !0xfff, 0x72_0000 | P | RW);
            guest.tables.map((to & !0xfff) + 0x1000, 0x72_1000 | P | RW);
            // XOR EAX, EAX, which sets ZF, and the branch.
            let code = [&[0x40, 0x31, 0xc0][..], opcode, &distance.to_le_bytes()].concat();
            guest.memory.write(Gpa(AT), &code).expect("RAM");
            guest.code(0x72_0000 + (to & 0xfff), 64, |a| {
                a.inc(r9d)?;
                stop(a)
            });
            guest.state.rip = AT;
            assert_eq!(go(&mut guest), None, "{opcode:x?}");
            assert_eq!(guest.state.gpr[9], 1);
        }
    }
}

#[test]
fn generations_that_come_again_bring_no_targets_back() {
    // The TLB numbers address spaces in twelve bits, and begins anew when they are used up. Where an
    // indirect branch led is known by that number, and must not be believed the next time round:
    // then another address space has it, with other code at the address.
    const LOWER: u64 = 0x5012_3456_7900;
    const UPPER: u64 = 0xffff_9012_3456_7900;
    let by_call: Code<'_> = &|a| a.call(rdi);
    let by_return: Code<'_> = &|a| {
        let mut back = a.create_label();
        a.lea(rax, qword_ptr(back))?;
        a.push(rax)?;
        a.push(rdi)?;
        a.ret()?;
        a.set_label(&mut back)?;
        a.nop()
    };
    // Where, how it is reached, how often CR3 is loaded before (a number comes again after about
    // 4095 times), and whether something private is in the TLB each time: the upper half has a number
    // of its own, and takes a new one only then.
    let cases = [
        (LOWER, by_call, 4091..=4097, false),
        (LOWER, by_return, 4091..=4097, false),
        (UPPER, by_call, 4096..=4099, false),
        (UPPER, by_call, 2044..=2050, true),
    ];
    for (at, enter, loads, touched) in cases {
        for mut guest in both(1) {
            let pages = [FUNCTION, FUNCTION + 0x1000];
            let roots = [guest.tables.root, guest.tables.table()];
            // All but the address in question is the same in both.
            guest.poke(roots[1], guest.peek(roots[0]));
            for (n, (page, root)) in pages.into_iter().zip(roots).enumerate() {
                function(&guest, page + (at & 0xfff), n as u32 + 1);
                let leaf = guest.tables.entry_in(root, at, 1);
                guest.poke(leaf, page | P);
            }
            guest.state.gpr[7] = at;
            guest.state.gpr[8..12].copy_from_slice(&[roots[0], roots[1], 1, 2]);
            guest.program(|a| {
                let (mut round, mut load) = (a.create_label(), a.create_label());
                a.mov(r14d, *loads.start())?;
                a.set_label(&mut round)?;
                a.mov(ecx, r14d)?;
                a.set_label(&mut load)?;
                a.mov(cr3, r8)?;
                if touched {
                    a.mov(al, byte_ptr(rdi))?;
                }
                a.dec(ecx)?;
                a.jne(load)?;
                // More than once: now and then an instruction is interpreted.
                for _ in 0..3 {
                    let mut right = a.create_label();
                    enter(a)?;
                    a.inc(ebx)?;
                    a.cmp(eax, r10d)?;
                    a.je(right)?;
                    a.inc(r12d)?;
                    a.set_label(&mut right)?;
                    a.nop()?;
                }
                a.xchg(r8, r9)?;
                a.xchg(r10, r11)?;
                a.inc(r14d)?;
                a.cmp(r14d, *loads.end())?;
                a.jbe(round)
            });
            assert_eq!(go(&mut guest), None);
            let calls = 3 * loads.clone().count() as u64;
            assert_eq!((guest.rbx(), guest.state.gpr[12]), (calls, 0), "at {at:#x}, {loads:?}");
        }
    }
}
