//! Virtual-8086 mode (SDM 3B, chapter 21).

use iced_x86::code_asm::*;
use riad_cpu::x86::{Segment, rflags};
use riad_memory::Gpa;

use super::machine::{Guest, STACK, STACK0, TSS, sel, stop};

/// Where the 16-bit program is: segment 0x5000.
const PROGRAM: u64 = 0x5_0000;

/// A guest whose next run starts in virtual-8086 mode, at 5000:0000.
fn v86(iopl: u64) -> Guest {
    let mut guest = Guest::protected();
    let s = &mut guest.state;
    let segment = |selector| Segment { rights: 0xf3, ..Segment::real(selector) };
    s.segments.cs = segment(0x5000);
    s.segments.ss = segment(0x6000);
    (s.segments.ds, s.segments.es) = (segment(0x7000), segment(0x7100));
    (s.segments.fs, s.segments.gs) = (segment(0x7200), segment(0x7300));
    s.rflags = rflags::ONE | rflags::VM | rflags::IF | iopl << 12;
    s.rip = 0;
    s.gpr[4] = 0x1000;
    guest
}

#[test]
fn iret_enters_virtual_8086_mode_with_all_segments() {
    let mut guest = Guest::protected();
    let words = [0x10, 0x5000, 0x2_0202, 0x1000, 0x6000, 0x7100, 0x7000, 0x7200, 0x7300u32];
    for (n, word) in words.into_iter().enumerate() {
        guest.memory.write_u32(Gpa(STACK - 36 + n as u64 * 4), word).expect("RAM");
    }
    guest.state.gpr[4] = STACK - 36;
    guest
        .memory
        .write(
            Gpa(PROGRAM + 0x10),
            &super::machine::assemble(0x10, 16, |a| {
                a.mov(ax, ds)?;
                a.mov(bx, cs)?;
                a.push(ax)?;
                a.ud2()
            }),
        )
        .expect("RAM");
    let trap = guest.program_traps(|a| a.iretd());
    assert_eq!((trap.vector, trap.cs, trap.ip), (6, 0x5000, 0x15));
    assert_eq!(trap.flags & !rflags::RF, 0x2_0202);
    assert_eq!(trap.stack, Some((0xffe, 0x6000)));
    assert_eq!((guest.rax(), guest.rbx(), guest.peek16(0x6_0ffe)), (0x7000, 0x5000, 0x7000));
}

#[test]
fn an_exception_leaves_virtual_8086_mode_with_all_segments_pushed_and_null() {
    let mut guest = v86(0);
    let trap = guest.program_traps(|a| a.ud2());
    assert_eq!((trap.vector, trap.cs, trap.ip), (6, 0x5000, 0));
    assert_ne!(trap.flags & rflags::VM, 0);
    assert_eq!(guest.state.gpr[4], STACK0 - 36);
    let pushed: Vec<u32> = (0..4).map(|n| guest.peek32(STACK0 - 16 + n * 4)).collect();
    assert_eq!(pushed, [0x7100, 0x7000, 0x7200, 0x7300], "ES, DS, FS, GS");
    let s = &guest.state.segments;
    assert!([s.ds, s.es, s.fs, s.gs].iter().all(|s| s.unusable() && s.selector == 0));
    assert_eq!((s.cs.selector, s.ss.selector), (sel::CODE32, sel::DATA0));
    assert_eq!(guest.state.rflags & (rflags::VM | rflags::IF), 0);
}

#[test]
fn there_and_back_again() {
    let mut guest = v86(0);
    guest.gate32(6, 0x1_8000, 0x8e);
    guest.code(0x1_8000, 32, |a| {
        a.add(dword_ptr(esp), 2)?;
        a.inc(ecx)?;
        a.iretd()
    });
    let trap = guest.program_traps(|a| {
        a.ud2()?;
        a.mov(ax, ds)?;
        a.ud2()?;
        a.int3()
    });
    // #GP: INT3's gate is of level 0.
    assert_eq!((trap.what(), trap.ip), ((13, Some(3 * 8 + 2)), 6));
    assert_eq!((guest.rax(), guest.rcx()), (0x7000, 2));
}

#[test]
fn sensitive_instructions_need_iopl_3() {
    type Body = fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>;
    let bodies: [(&str, Body); 6] = [
        ("CLI", |a| a.cli()),
        ("STI", |a| a.sti()),
        ("PUSHF", |a| a.pushf()),
        ("POPF", |a| a.popf()),
        ("INT n", |a| a.int(0x21)),
        ("IRET", |a| a.iret()),
    ];
    for (name, body) in bodies {
        let mut guest = v86(2);
        let trap = guest.program_traps(body);
        assert_eq!((trap.what(), trap.ip), ((13, Some(0)), 0), "{name} with IOPL 2");
        let mut guest = v86(3);
        guest.gate32(0x21, 0x4000 + 0x210, 0xee);
        let trap = guest.program_traps(|a| {
            body(a)?;
            a.ud2()
        });
        assert!(trap.vector != 13, "{name} with IOPL 3: {trap:?}");
    }
}

#[test]
fn int3_and_into_are_not_sensitive() {
    for vector in [3, 4] {
        let mut guest = v86(0);
        guest.gate32(vector, 0x4000 + u64::from(vector) * 16, 0xee);
        guest.state.rflags |= rflags::OF;
        let trap = guest.program_traps(|a| if vector == 3 { a.int3() } else { a.into() });
        assert_eq!((trap.vector, trap.ip), (vector, 1));
    }
}

#[test]
fn popf_in_virtual_8086_mode_keeps_iopl_and_vm() {
    let mut guest = v86(3);
    let trap = guest.program_traps(|a| {
        a.push(0x0203i32)?;
        a.popf()?;
        a.ud2()
    });
    assert_eq!(trap.flags & !rflags::RF, 0x2_3203);
}

#[test]
fn ports_ask_the_bitmap_whatever_iopl_is() {
    let mut guest = v86(3);
    assert_eq!(guest.program_traps(|a| a.in_(al, 0x10)).what(), (13, Some(0)));
    let mut guest = v86(0);
    guest.memory.write_u16(Gpa(TSS + 0x66), 0x68).expect("RAM");
    guest.memory.fill(Gpa(TSS + 0x68), 64, 0).expect("RAM");
    guest.program(stop);
    guest.finishes();
}

#[test]
fn protected_mode_instructions_do_not_exist() {
    type Body = fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>;
    let bodies: [Body; 5] =
        [|a| a.lldt(ax), |a| a.sldt(ax), |a| a.lar(ax, bx), |a| a.verr(ax), |a| a.arpl(ax, bx)];
    for body in bodies {
        assert_eq!(v86(3).program_traps(body).vector, 6);
    }
    assert_eq!(v86(3).program_traps(|a| a.hlt()).what(), (13, Some(0)));
}

#[test]
fn segments_are_16_times_their_selector_and_64k_long() {
    let mut guest = v86(0);
    guest.memory.write_u16(Gpa(0x12345), 0xbeef).expect("RAM");
    let trap = guest.program_traps(|a| {
        a.mov(ax, 0x1234)?;
        a.mov(es, ax)?;
        a.mov(cx, word_ptr(5u64).es())?;
        a.mov(bx, 0xffffu32)?;
        a.mov(dx, word_ptr(bx))
    });
    assert_eq!((trap.what(), guest.rcx()), ((13, Some(0)), 0xbeef));
    let mut guest = v86(0);
    guest.state.gpr[4] = 1;
    assert_eq!(guest.program_traps(|a| a.push(ax)).what(), (12, Some(0)));
}

#[test]
fn an_interrupt_through_a_gate_to_another_level_is_refused() {
    let mut guest = v86(0);
    guest.gate32_to(6, sel::CONFORMING32, 0x4000, 0x8e);
    assert_eq!(
        guest.program_traps(|a| a.ud2()).what(),
        (13, Some(u32::from(sel::CONFORMING32) | 1))
    );
}
