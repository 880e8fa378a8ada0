//! Devices: memory and ports that are not RAM, reached by instructions of every kind.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::machine::{DATA, Guest};
use super::tables::{P, RW};

/// Where a device's memory is, and what reads of it give in each byte.
const DEVICE: u64 = 0x1000_0000;
const BYTES: u64 = 0xa5a5_a5a5_a5a5_a5a5;

/// A guest with RBX at the device and RCX at RAM.
fn guest() -> Guest {
    let mut guest = Guest::long();
    guest.tables.map(DEVICE, DEVICE | P | RW);
    (guest.state.gpr[3], guest.state.gpr[1]) = (DEVICE, DATA);
    guest
}

/// What a device sees of an instruction: offset, length, value written.
type Seen = (u64, usize, Option<u64>);

#[test]
fn a_device_sees_accesses_of_the_instructions_own_widths() {
    type Body = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let cases: &[(&str, Body, &[Seen])] = &[
        ("MOV 1", |a| a.mov(al, byte_ptr(rbx + 3)), &[(3, 1, None)]),
        ("MOV 2", |a| a.mov(ax, word_ptr(rbx + 2)), &[(2, 2, None)]),
        ("MOV 4", |a| a.mov(eax, dword_ptr(rbx + 4)), &[(4, 4, None)]),
        ("MOV 8", |a| a.mov(rax, qword_ptr(rbx + 8)), &[(8, 8, None)]),
        ("MOV to 1", |a| a.mov(byte_ptr(rbx), 0x12), &[(0, 1, Some(0x12))]),
        ("MOV to 2", |a| a.mov(word_ptr(rbx), 0x1234), &[(0, 2, Some(0x1234))]),
        ("MOV to 4", |a| a.mov(dword_ptr(rbx), 0x1234_5678), &[(0, 4, Some(0x1234_5678))]),
        ("MOV to 8", |a| a.mov(qword_ptr(rbx), -2), &[(0, 8, Some(u64::MAX - 1))]),
        ("MOVZX", |a| a.movzx(eax, word_ptr(rbx)), &[(0, 2, None)]),
        ("ADD", |a| a.add(dword_ptr(rbx), 1), &[(0, 4, None), (0, 4, Some(0xa5a5_a5a6))]),
        ("TEST", |a| a.test(dword_ptr(rbx), 1), &[(0, 4, None)]),
        ("PUSH", |a| a.push(qword_ptr(rbx)), &[(0, 8, None)]),
        ("FLD", |a| a.fninit().and_then(|()| a.fld(qword_ptr(rbx))), &[(0, 8, None)]),
        ("FILD", |a| a.fninit().and_then(|()| a.fild(dword_ptr(rbx))), &[(0, 4, None)]),
        ("PMULUDQ", |a| a.pmuludq(mm0, qword_ptr(rbx)).and_then(|()| a.emms()), &[(0, 8, None)]),
        ("ADDSD", |a| a.addsd(xmm1, qword_ptr(rbx)), &[(0, 8, None)]),
        ("MOVDQU", |a| a.movdqu(xmm1, xmmword_ptr(rbx)), &[(0, 8, None), (8, 8, None)]),
    ];
    for (name, body, seen) in cases {
        let mut guest = guest();
        guest.program_finishes(body);
        let mmio = guest.world.mmio.lock().expect("mmio").clone();
        let mmio: Vec<Seen> =
            mmio.into_iter().map(|(at, len, value)| (at - DEVICE, len, value)).collect();
        assert_eq!(mmio, *seen, "{name}");
    }
}

#[test]
fn what_a_device_says_arrives_whatever_reads_it() {
    let mut guest = guest();
    guest.program_finishes(|a| {
        a.mov(r8, qword_ptr(rbx))?;
        a.fninit()?;
        a.fild(qword_ptr(rbx))?;
        a.fistp(qword_ptr(rcx))?;
        a.movdqu(xmm3, xmmword_ptr(rbx))?;
        a.paddd(xmm4, xmmword_ptr(rbx))?;
        a.crc32(r9, qword_ptr(rbx))?;
        a.mov(rsi, rbx)?;
        a.lea(rdi, qword_ptr(rcx + 16))?;
        a.mov(ecx, 5)?;
        a.rep().movsb()
    });
    assert_eq!((guest.state.gpr[8], guest.peek(DATA)), (BYTES, BYTES));
    let wide = u128::from(BYTES) << 64 | u128::from(BYTES);
    assert_eq!((guest.state.fpu.xmm[3], guest.state.fpu.xmm[4]), (wide, wide));
    assert_eq!(guest.peek(DATA + 16), BYTES & 0xff_ffff_ffff);
    assert_eq!(guest.state.gpr[1], 0);
}

#[test]
fn ports_take_single_items_and_strings() {
    let mut guest = guest();
    guest.poke(DATA, 0x8877_6655_4433_2211);
    guest.program_finishes(|a| {
        a.mov(esi, DATA as u32)?;
        a.mov(edx, 0x1f0)?;
        a.mov(ecx, 4)?;
        a.rep().outsw()?;
        a.mov(eax, 0x1234_5678)?;
        a.out(dx, eax)?;
        a.out(0x80, al)?;
        a.lea(edi, dword_ptr(rsi))?;
        a.mov(ecx, 3)?;
        a.rep().insb()?;
        a.in_(ax, dx)
    });
    let ports = guest.world.ports.lock().expect("ports").clone();
    let strings = [0x2211, 0x4433, 0x6655, 0x8877].map(|value| (0x1f0, value));
    assert_eq!(ports, [&strings[..], &[(0x1f0, 0x1234_5678), (0x80, 0x78)]].concat());
    assert_eq!(guest.peek(DATA + 8) & 0xff_ffff, 0x5a_5a5a);
    assert_eq!(guest.rax() & 0xffff, 0x5a5a);
}

#[test]
fn tables_that_change_beside_an_odd_access_to_a_device_are_seen() {
    // An engine that has somebody else run FLD from a device has to see what that one did to the
    // page tables, and what it flushed. At every distance from it.
    const FAR: u64 = 0x12_3456_7000;
    for distance in [0, 1, 3, 8, 12, 14, 15, 16, 17, 20, 40] {
        let mut guest = guest();
        let pages = [DATA + 0x1000, DATA + 0x2000];
        guest.poke(pages[0], 1);
        guest.poke(pages[1], 1000);
        let leaf = guest.tables.entry(FAR, 1);
        guest.poke(leaf, pages[0] | P | RW);
        (guest.state.gpr[6], guest.state.gpr[7]) = (leaf, FAR);
        guest.program_finishes(|a| {
            let mut again = a.create_label();
            a.xor(eax, eax)?;
            a.mov(r15d, 30)?;
            a.set_label(&mut again)?;
            a.add(rax, qword_ptr(rdi))?;
            a.fld(qword_ptr(rbx))?;
            a.fninit()?;
            for _ in 0..distance {
                a.inc(r8d)?;
            }
            a.xor(dword_ptr(rsi), (pages[0] ^ pages[1]) as u32)?;
            a.invlpg(byte_ptr(rdi))?;
            a.dec(r15d)?;
            a.jne(again)
        });
        assert_eq!(guest.rax(), 15 * 1001, "{distance} instructions behind it");
    }
}
