//! A program as its generator makes it: instructions and branches between them, from which any can
//! be taken away, to find the few that matter.

use std::fmt;

use iced_x86::{Code, Decoder, DecoderOptions, Encoder, Instruction, Register};

use crate::layout::{CODE, CODE_PAGES};

/// A piece of a program.
#[derive(Clone, Copy)]
pub(crate) enum Item {
    /// An instruction that means the same wherever it lies.
    Plain(Instruction),
    /// A branch to an item: its forms with a distance of one byte and of four.
    Branch(Code, Option<Code>, usize),
    /// Puts the address of an item, and some bytes, into a register.
    Address(Register, usize, i64),
    /// A jump over so many bytes that are no code.
    Gap(u16),
}

/// Items, from a place in the code pages on. Behind them lie PUSHFQ and UD2.
#[derive(Clone)]
pub(crate) struct Program {
    /// Linear address of the first.
    pub(crate) start: u64,
    /// In order.
    pub(crate) items: Vec<Item>,
}

/// PUSHFQ: whatever became of the flags is compared. UD2: the end.
const END: [u8; 3] = [0x9c, 0x0f, 0x0b];

impl Program {
    /// Its bytes, from the start of the code pages on; the rest is INT3.
    pub(crate) fn assemble(&self) -> Vec<u8> {
        // Distances shrink when branches do: what is in reach stays in reach.
        let long = self.addresses(|_| false);
        let short = |n: usize| match self.items[n] {
            Item::Branch(_, None, _) => true,
            Item::Branch(short, Some(near), target) => {
                short != near && long[target].abs_diff(long[n]) < 110
            }
            _ => false,
        };
        let addresses = self.addresses(short);
        let mut bytes = Vec::new();
        for (n, item) in self.items.iter().enumerate() {
            let at = addresses[n];
            bytes.extend(match *item {
                Item::Branch(code, ..) if short(n) => branch(code, at, &addresses, item),
                Item::Branch(_, Some(code), _) => branch(code, at, &addresses, item),
                Item::Address(register, target, offset) => {
                    let to = addresses[target].wrapping_add_signed(offset);
                    let i = Instruction::with2(Code::Mov_r64_imm64, register, to);
                    encode(&i.expect("MOV"), at).expect("MOV")
                }
                Item::Gap(len) => {
                    let mut gap = vec![0xe9];
                    gap.extend(u32::from(len).to_le_bytes());
                    gap.resize(usize::from(len) + 5, 0xcc);
                    gap
                }
                Item::Plain(i) => encode(&i, at).expect("an instruction that was encoded before"),
                Item::Branch(_, None, _) => unreachable!("it is short"),
            });
            assert_eq!(at + size(item, short(n)), self.start + bytes.len() as u64);
        }
        bytes.extend(END);
        let mut code = vec![0xcc; (self.start - CODE) as usize];
        code.extend(bytes);
        code.resize((CODE_PAGES * 0x1000) as usize, 0xcc);
        code
    }

    /// Where each item lies, and the end.
    fn addresses(&self, short: impl Fn(usize) -> bool) -> Vec<u64> {
        let mut at = self.start;
        let mut addresses = vec![at];
        for (n, item) in self.items.iter().enumerate() {
            at += size(item, short(n));
            addresses.push(at);
        }
        addresses
    }

    /// Without one item; branches to it lead to the one behind it.
    pub(crate) fn without(&self, gone: usize) -> Self {
        let mut items = self.items.clone();
        items.remove(gone);
        for item in &mut items {
            if let Item::Branch(_, _, target) | Item::Address(_, target, _) = item
                && *target > gone
            {
                *target -= 1;
            }
        }
        Self { start: self.start, items }
    }
}

/// Bytes of an item.
fn size(item: &Item, short: bool) -> u64 {
    match *item {
        Item::Plain(i) => encode(&i, CODE).map_or(0, |bytes| bytes.len() as u64),
        // JRCXZ, JECXZ and the LOOPs may have an address-size prefix.
        Item::Branch(code, None, _) => {
            encode(&to(code, CODE), CODE).map_or(0, |bytes| bytes.len() as u64)
        }
        Item::Branch(_, Some(_), _) if short => 2,
        Item::Branch(_, Some(code), _) => {
            if code == Code::Jmp_rel32_64 || code == Code::Call_rel32_64 { 5 } else { 6 }
        }
        Item::Address(..) => 10,
        Item::Gap(len) => u64::from(len) + 5,
    }
}

fn to(code: Code, target: u64) -> Instruction {
    Instruction::with_branch(code, target).expect("a branch")
}

/// A branch; to itself, when its target is out of reach.
fn branch(code: Code, at: u64, addresses: &[u64], item: &Item) -> Vec<u8> {
    let target = match item {
        Item::Branch(_, _, target) => addresses[*target],
        _ => at,
    };
    encode(&to(code, target), at)
        .or_else(|| encode(&to(code, at), at))
        .expect("a branch that can be encoded")
}

/// An instruction's bytes; `None` when it has none.
pub(crate) fn encode(i: &Instruction, at: u64) -> Option<Vec<u8>> {
    let mut encoder = Encoder::new(64);
    encoder.encode(i, at).ok()?;
    Some(encoder.take_buffer())
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.assemble();
        let from = (self.start - CODE) as usize;
        let mut decoder = Decoder::with_ip(64, &code[from..], self.start, DecoderOptions::NONE);
        let end = code.iter().rposition(|&byte| byte != 0xcc).unwrap_or(0);
        while decoder.can_decode() && decoder.position() + from <= end {
            let at = decoder.position() + from;
            let i = decoder.decode();
            if i.code() == Code::Int3 {
                continue;
            }
            let bytes = &code[at..at + i.len()];
            writeln!(f, "  {:x} {}{bytes:02x?}", i.ip(), text(&i))?;
        }
        Ok(())
    }
}

/// An instruction in words: the formatter is not among what we build.
pub(crate) fn text(i: &Instruction) -> String {
    use iced_x86::OpKind as K;
    let mut text = String::new();
    if i.has_lock_prefix() {
        text += "lock ";
    }
    if i.has_rep_prefix() || i.has_repne_prefix() {
        text += "rep ";
    }
    text += &format!("{:?} ", i.code());
    for n in 0..i.op_count() {
        let operand = match i.op_kind(n) {
            K::Register => format!("{:?}", i.op_register(n)),
            K::NearBranch64 | K::NearBranch32 => format!("{:#x}", i.near_branch64()),
            K::Memory => format!(
                "{:?}:[{:?} + {:?}*{} + {:#x}]",
                i.memory_segment(),
                i.memory_base(),
                i.memory_index(),
                i.memory_index_scale(),
                i.memory_displacement64()
            ),
            kind => i.try_immediate(n).map_or_else(|_| format!("{kind:?}"), |v| format!("{v:#x}")),
        };
        text += &operand;
        text += ", ";
    }
    text
}
