//! A kernel of our own, small enough to know: it takes timer interrupts, halts, writes memory, uses
//! x87 and SSE, and prints what it computed, which does not depend on when anything happened.

use iced_x86::code_asm::*;

/// Where the kernel is loaded.
const BASE: u32 = 0x10_0000;
/// Bytes of the Multiboot header; the timer's interrupt handler follows it.
const HEADER: u32 = 32;
/// Where the rest follows, from there.
const MAIN: u32 = 32;
/// Interrupt descriptors, ticks, and the memory it works on.
const IDT: u32 = 0x20_0000;
const TICKS: u32 = 0x20_1000;
const ACCUMULATOR: u32 = 0x20_1010;
const ARENA: u32 = 0x21_0000;
/// What it writes to the debug exit port at the end.
pub(crate) const EXIT: u8 = 0x21;

/// A Multiboot image of the kernel, which does `steps` steps.
#[allow(dead_code, reason = "each test has its own use of this module")]
pub(crate) fn kernel(steps: u32) -> Vec<u8> {
    let mut code = handler().expect("the handler assembles");
    code.resize(MAIN as usize, 0x90);
    code.extend(assemble(steps).expect("the guest assembles"));
    image(&code, MAIN)
}

/// A kernel that listens to what is plugged in and out: it writes `r` when it does, `+` when something
/// came, and `-` when it has let something go. It never ends.
#[allow(dead_code, reason = "each test has its own use of this module")]
pub(crate) fn plugging_kernel() -> Vec<u8> {
    image(&plugging().expect("the guest assembles"), 0)
}

/// What the methods of the DSDT do, by looking instead of waiting for the event.
fn plugging() -> Result<Vec<u8>, iced_x86::IcedError> {
    const ENABLE: u32 = 0x60d;
    const INSERTED: u32 = 0x620;
    const WANTED: u32 = 0x624;
    const EJECT: u32 = 0x628;
    let mut a = CodeAssembler::new(32)?;
    let (mut look, mut wanted) = (a.create_label(), a.create_label());
    let say = |a: &mut CodeAssembler, what: u8| {
        a.mov(edx, 0x3f8)?;
        a.mov(al, u32::from(what))?;
        a.out(dx, al)
    };
    a.mov(edx, ENABLE)?;
    a.mov(al, 2)?;
    a.out(dx, al)?;
    say(&mut a, b'r')?;
    a.set_label(&mut look)?;
    a.mov(edx, INSERTED)?;
    a.in_(eax, dx)?;
    a.test(eax, eax)?;
    a.jz(wanted)?;
    a.out(dx, eax)?;
    say(&mut a, b'+')?;
    a.set_label(&mut wanted)?;
    a.mov(edx, WANTED)?;
    a.in_(eax, dx)?;
    a.test(eax, eax)?;
    a.jz(look)?;
    a.out(dx, eax)?;
    a.mov(edx, EJECT)?;
    a.out(dx, eax)?;
    say(&mut a, b'-')?;
    a.jmp(look)?;
    a.assemble(u64::from(BASE + HEADER))
}

/// A Multiboot image of `code`, which is entered `entry` bytes in.
fn image(code: &[u8], entry: u32) -> Vec<u8> {
    let header_len = HEADER;
    let flags = 0x1_0000u32; // the address fields are valid
    let magic = 0x1bad_b002u32;
    let end = BASE + header_len + code.len() as u32;
    let header = [
        magic,
        flags,
        0u32.wrapping_sub(magic).wrapping_sub(flags),
        BASE,                      // header_addr
        BASE,                      // load_addr
        end,                       // load_end_addr
        end,                       // bss_end_addr
        BASE + header_len + entry, // entry_addr
    ];
    let mut image: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    image.extend(code);
    image
}

/// The timer's interrupt.
fn handler() -> Result<Vec<u8>, iced_x86::IcedError> {
    let mut a = CodeAssembler::new(32)?;
    a.push(eax)?;
    a.mov(eax, TICKS)?;
    a.inc(dword_ptr(eax))?;
    a.mov(al, 0x20)?;
    a.out(0x20, al)?;
    a.pop(eax)?;
    a.iretd()?;
    a.assemble(u64::from(BASE + HEADER))
}

fn assemble(steps: u32) -> Result<Vec<u8>, iced_x86::IcedError> {
    let mut a = CodeAssembler::new(32)?;
    let mut start = a.create_label();
    let (mut put, mut wait_room) = (a.create_label(), a.create_label());
    let (mut hex, mut digit, mut decimal) = (a.create_label(), a.create_label(), a.create_label());
    a.jmp(start)?;

    // Prints AL.
    a.set_label(&mut put)?;
    a.push(edx)?;
    a.push(eax)?;
    a.mov(edx, 0x3fd)?;
    a.set_label(&mut wait_room)?;
    a.in_(al, dx)?;
    a.test(al, 0x20)?;
    a.jz(wait_room)?;
    a.pop(eax)?;
    a.mov(edx, 0x3f8)?;
    a.out(dx, al)?;
    a.pop(edx)?;
    a.ret()?;

    // Prints EBX in hexadecimal.
    a.set_label(&mut hex)?;
    a.mov(ecx, 8)?;
    a.set_label(&mut digit)?;
    a.rol(ebx, 4)?;
    a.mov(eax, ebx)?;
    a.and(eax, 15)?;
    a.add(eax, 0x30)?;
    a.cmp(eax, 0x3a)?;
    a.jb(decimal)?;
    a.add(eax, 0x27)?;
    a.set_label(&mut decimal)?;
    a.call(put)?;
    a.dec(ecx)?;
    a.jnz(digit)?;
    a.ret()?;

    // Stack, SSE, the interrupt descriptor of vector 0x20, the 8259s, the timer at 2 kHz.
    a.set_label(&mut start)?;
    a.mov(esp, 0x9_0000)?;
    a.mov(eax, cr4)?;
    a.or(eax, 0x600)?;
    a.mov(cr4, eax)?;
    a.fninit()?;
    a.fldz()?;
    let handler = BASE + HEADER;
    a.mov(edi, IDT)?;
    a.mov(dword_ptr(edi + 0x20 * 8), (0x10_0000 | handler & 0xffff) as i32)?;
    a.mov(dword_ptr(edi + 0x20 * 8 + 4), (handler & 0xffff_0000 | 0x8e00) as i32)?;
    a.mov(word_ptr(edi + 0x7f0), 0x7ff)?;
    a.mov(dword_ptr(edi + 0x7f2), IDT as i32)?;
    a.lidt(ptr(edi + 0x7f0))?;
    for (port, value) in [
        (0x20, 0x11),
        (0x21, 0x20),
        (0x21, 4),
        (0x21, 1),
        (0x21, 0xfe),
        (0xa0, 0x11),
        (0xa1, 0x28),
        (0xa1, 2),
        (0xa1, 1),
        (0xa1, 0xff),
        (0x43, 0x34),
        (0x40, 0x54),
        (0x40, 0x02),
    ] {
        a.mov(al, value)?;
        a.out(port, al)?;
    }
    a.sti()?;

    // A step: wait for a tick, fill memory from a generator, sum it up, print.
    let (mut step, mut tick, mut fill, mut sum) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    a.xor(ebp, ebp)?;
    a.mov(esi, 0x1234_5678)?;
    a.set_label(&mut step)?;
    a.mov(edi, TICKS)?;
    a.mov(eax, dword_ptr(edi))?;
    a.set_label(&mut tick)?;
    a.hlt()?;
    a.cmp(dword_ptr(edi), eax)?;
    a.je(tick)?;
    a.mov(ecx, 16384)?;
    a.mov(edi, ARENA)?;
    a.set_label(&mut fill)?;
    a.imul_3(esi, esi, 1_103_515_245)?;
    a.add(esi, 12345)?;
    a.mov(dword_ptr(edi), esi)?;
    a.add(edi, 4)?;
    a.dec(ecx)?;
    a.jnz(fill)?;
    a.mov(ecx, 4096)?;
    a.mov(edi, ARENA)?;
    a.pxor(xmm0, xmm0)?;
    a.set_label(&mut sum)?;
    a.paddd(xmm0, xmmword_ptr(edi))?;
    a.add(edi, 16)?;
    a.dec(ecx)?;
    a.jnz(sum)?;
    a.pshufd(xmm1, xmm0, 0x4e)?;
    a.paddd(xmm0, xmm1)?;
    a.pshufd(xmm1, xmm0, 0xb1)?;
    a.paddd(xmm0, xmm1)?;
    a.movd(ebx, xmm0)?;
    a.mov(edi, ACCUMULATOR)?;
    a.mov(dword_ptr(edi), ebx)?;
    a.fiadd(dword_ptr(edi))?;
    a.fld1()?;
    a.faddp(st1, st0)?;
    a.fist(dword_ptr(edi))?;
    a.call(hex)?;
    a.mov(al, 0x20)?;
    a.call(put)?;
    a.mov(ebx, dword_ptr(edi))?;
    a.call(hex)?;
    a.mov(al, 0x0a)?;
    a.call(put)?;
    a.inc(ebp)?;
    a.cmp(ebp, steps as i32)?;
    a.jb(step)?;
    a.mov(al, u32::from(EXIT))?;
    a.out(0xf4, al)?;
    a.cli()?;
    a.hlt()?;
    a.assemble(u64::from(BASE + HEADER + MAIN))
}
