//! Lockstep: every translated block is held against the interpreter, which is the truth.
//!
//! A block is first *rehearsed*: the interpreter runs it with memory as the processor sees it now,
//! remembers the state after each instruction, and then takes everything back. Then the block runs
//! as translated code, for good. Wherever it came out, the interpreter was there too: registers,
//! flags, RIP and all memory that the interpreter wrote must be the same. At the first difference the
//! processor gives up on the guest, with an error that says all there is to know.
//!
//! Blocks are linked to each other as always: the budget is what one block needs, so the next one
//! turns back at its entry. What translated code may not do twice it leaves to the interpreter
//! (`Kind::pure`), and that runs once.
//!
//! What is not compared:
//!
//! * status flags that the instruction leaves undefined, or that the rest of the block overwrites
//!   before anyone reads them;
//! * memory that the interpreter did *not* write: a store that went astray is seen when somebody
//!   reads what it destroyed;
//! * devices: a rehearsal stops in front of everything that is not RAM.
//!
//! A device that reads or writes the very bytes that a block writes, at that moment, can see them
//! come and go, or be taken for a difference. Other processors would be, all the time: there is one.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use iced_x86::{Code, RflagsBits};
use riad_cpu::x86::rflags;
use riad_memory::Gpa;

use crate::block::BlockCache;
use crate::cpu::Cpu;
use crate::fault::{Done, Fault};
use crate::flags::Flags;
use crate::mem::{Entry, Tlb};
use crate::mmu::Access;
use crate::op::Op;
use crate::raw;
use crate::run::Shutdown;
use crate::translate::cache::Key;
use crate::translate::class::{Class, general_form};
use crate::translate::emit::{self, Kind};
use crate::translate::flags;
use crate::translate::reason;
use crate::translate::thread::{Out, Thread};

/// Blocks that are kept decoded.
const MOST_BLOCKS: usize = 1 << 16;
/// Blocks between two looks at everything else.
const MOST_ROUNDS: u32 = 256;
/// No instruction of a block writes more bytes at once.
const WIDEST: usize = 16;

/// One instruction of a block, and what becomes of the status flags.
#[derive(Clone, Copy)]
struct Step {
    op: Op,
    /// Status flags that this instruction or a later one may read, in their places in RFLAGS.
    live: u64,
    /// Those that it always sets, and those of them that it leaves undefined.
    set: u64,
    undefined: u64,
    /// It can change XMM registers or MXCSR.
    vector: bool,
}

/// The state between two instructions of a rehearsal.
#[derive(Clone, Copy)]
struct Mark {
    regs: [u64; 18],
    flags: Flags,
    /// Writes up to here.
    writes: usize,
}

/// The XMM registers and MXCSR.
type Vectors = ([u128; 16], u32);

/// Bytes that an instruction was about to write, and perhaps some behind them.
#[derive(Debug, Clone, Copy)]
struct Write {
    host: usize,
    len: usize,
    /// Before and after the instruction.
    old: u128,
    new: u128,
}

impl Write {
    fn at(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.host)
    }

    fn load(&self) -> u128 {
        if self.len == WIDEST {
            return raw::load(self.at());
        }
        let mut bytes = [0; WIDEST];
        raw::copy_out(self.at(), &mut bytes[..self.len]);
        u128::from_le_bytes(bytes)
    }

    /// Puts back what was there, where it changed: what lies beside it may be a device's.
    fn undo(&self) {
        let changed = (self.old ^ self.new).to_le_bytes();
        for (i, (byte, changed)) in self.old.to_le_bytes().into_iter().zip(changed).enumerate() {
            if changed != 0 {
                raw::store(raw::offset(self.at(), i), byte);
            }
        }
    }

    /// Lays the bytes of a later write over these, when they are the same memory.
    fn overlay(&self, content: u128, later: &Self) -> u128 {
        if later.host.abs_diff(self.host) >= WIDEST {
            return content;
        }
        let (mut bytes, new) = (content.to_le_bytes(), later.new.to_le_bytes());
        for (i, byte) in bytes[..self.len].iter_mut().enumerate() {
            if let Some(n) = (self.host + i).checked_sub(later.host)
                && n < later.len
            {
                *byte = new[n];
            }
        }
        u128::from_le_bytes(bytes)
    }
}

/// What makes a rehearsal of a run: while the TLB has this, its tables are empty, so that every
/// access comes by [`Cpu::rehearsed_host`].
#[derive(Default)]
pub(crate) struct Rehearsal {
    /// The TLB's own tables.
    tables: [Box<[Entry]>; 4],
    writes: Vec<Write>,
    /// The block may not be what it was.
    pub(crate) overwrites_code: bool,
}

impl Rehearsal {
    /// Tells that up to [`WIDEST`] bytes at `host` may be written next; `room` of them are there.
    pub(crate) fn note(&mut self, host: *mut u8, room: usize) {
        let len = room.min(WIDEST);
        let mut write = Write { host: host.expose_provenance(), len, old: 0, new: 0 };
        write.old = write.load();
        write.new = write.old;
        self.writes.push(write);
    }
}

/// What lockstep keeps for a processor.
#[derive(Default)]
pub(crate) struct Lockstep {
    blocks: HashMap<Key, (u32, Arc<[Step]>)>,
    rehearsal: Option<Box<Rehearsal>>,
    marks: Vec<Mark>,
    /// After each instruction, in blocks that use the XMM registers; otherwise the first alone.
    vectors: Vec<Vectors>,
    /// Memory that will be written, as it was before.
    before: Vec<u128>,
    /// Blocks compared, and instructions in them.
    compared: (u64, u64),
    /// What was found: the processor is not to go on.
    pub(crate) difference: Option<Box<Difference>>,
    /// Spoils the state after a block, to see that it is noticed.
    #[cfg(test)]
    pub(crate) spoil: Option<fn(&mut Cpu)>,
}

impl fmt::Debug for Lockstep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lockstep").field("compared", &self.compared).finish_non_exhaustive()
    }
}

impl Drop for Lockstep {
    fn drop(&mut self) {
        let (blocks, instructions) = self.compared;
        tracing::info!(blocks, instructions, "the two tiers of the processor were compared");
    }
}

/// Where the two tiers differ, in words.
#[derive(Debug, Clone)]
pub(crate) struct Difference {
    /// Linear address of the block.
    rip: u64,
    /// Instructions that translated code ran, and that the block has.
    ran: u64,
    count: usize,
    reason: u32,
    what: Vec<String>,
    code: Vec<(Code, u8)>,
    bytes: Vec<u8>,
    start: [u64; 16],
    flags: u64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the translator and the interpreter disagree on the block at {:#x}, after {} of {} \
             instructions (it came out for reason {}): {}; code:",
            self.rip,
            self.ran,
            self.count,
            self.reason,
            self.what.join(", ")
        )?;
        let mut bytes = self.bytes.as_slice();
        for &(code, len) in &self.code {
            let (these, rest) = bytes.split_at(usize::from(len).min(bytes.len()));
            write!(f, " {code:?} ")?;
            these.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
            bytes = rest;
            f.write_str(";")?;
        }
        f.write_str(" registers before it:")?;
        for (value, name) in self.start.iter().zip(NAMES) {
            write!(f, " {name}={value:#x}")?;
        }
        write!(
            f,
            " rflags={:#x}; this is a fault of Riad's: please report this message, and use the \
             engine soft:interp meanwhile",
            self.flags
        )
    }
}

const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

/// `iced`'s flags in their places in RFLAGS.
fn places(bits: u32) -> u64 {
    [
        (RflagsBits::OF, rflags::OF),
        (RflagsBits::SF, rflags::SF),
        (RflagsBits::ZF, rflags::ZF),
        (RflagsBits::AF, rflags::AF),
        (RflagsBits::CF, rflags::CF),
        (RflagsBits::PF, rflags::PF),
    ]
    .into_iter()
    .filter(|&(iced, _)| bits & iced != 0)
    .fold(0, |all, (_, place)| all | place)
}

/// Decodes a block as the translator does; empty when it begins with one for the interpreter.
fn decode(bytes: &[u8], offset: u32, kind: Kind) -> Arc<[Step]> {
    let mut items = Vec::new();
    emit::decode(bytes, offset, kind, &mut items);
    if items.first().is_none_or(|first| first.class == Class::Interpret) {
        return Arc::default();
    }
    let step = |item: &emit::Item| {
        let mut i = item.i;
        i.set_code(general_form(i.code()));
        let (_, set) = flags::effect(&i);
        Step {
            op: item.op,
            live: places(item.live_in),
            set: places(set),
            undefined: places(i.rflags_undefined()),
            vector: item.class == Class::Vector,
        }
    };
    items.iter().map(step).collect()
}

impl Lockstep {
    /// The block at a host address, decoded; empty when it is for the interpreter.
    fn block(&mut self, cpu: &Cpu, host: *mut u8) -> Arc<[Step]> {
        let page = cpu.tlb.page_index(host);
        let offset = (host.addr() & 0xfff) as u32;
        let kind = cpu.code_kind(false);
        let key = Key::new(page, offset, kind);
        let generation = cpu.memory.pages().generation(page);
        if let Some((made, steps)) = self.blocks.get(&key)
            && *made == generation
        {
            return steps.clone();
        }
        // There is no other processor whose stores may be on the way.
        let generation = cpu.memory.pages().mark_code(page, || {});
        let mut bytes = [0; 1024];
        let room = (4096 - offset as usize).min(bytes.len());
        raw::copy_out(host, &mut bytes[..room]);
        let steps = decode(&bytes[..room], offset, kind);
        if self.blocks.len() >= MOST_BLOCKS {
            self.blocks.clear();
        }
        self.blocks.insert(key, (generation, steps.clone()));
        steps
    }

    /// Interprets a block as far as it goes, and takes it back.
    fn rehearse(&mut self, cpu: &mut Cpu, block: &[Step]) {
        let first = Mark { regs: cpu.regs, flags: cpu.flags, writes: 0 };
        let vectors = (cpu.fpu.xmm, cpu.fpu.mxcsr);
        let kept = (cpu.left, cpu.this_rip, cpu.fault_address);
        let with_vectors = block.iter().any(|step| step.vector);
        self.marks.clear();
        self.marks.push(first);
        self.vectors.clear();
        self.vectors.push(vectors);
        self.before.clear();
        let mut rehearsal = self.rehearsal.take().unwrap_or_default();
        rehearsal.writes.clear();
        rehearsal.overwrites_code = false;
        cpu.tlb.begin_rehearsal(rehearsal);
        for step in block {
            cpu.this_rip = cpu.rip();
            cpu.set_rip(cpu.this_rip.wrapping_add(u64::from(step.op.len)));
            cpu.left = u32::MAX;
            let done = (step.op.exec)(cpu, &step.op);
            let Some(rehearsal) = &mut cpu.tlb.rehearsal else { break };
            let so_far = self.marks.last().map_or(0, |mark| mark.writes);
            for write in &mut rehearsal.writes[so_far..] {
                write.new = write.load();
            }
            if done.is_err() {
                break;
            }
            let (writes, ends) = (rehearsal.writes.len(), rehearsal.overwrites_code);
            self.marks.push(Mark { regs: cpu.regs, flags: cpu.flags, writes });
            if with_vectors {
                self.vectors.push((cpu.fpu.xmm, cpu.fpu.mxcsr));
            }
            if ends {
                break;
            }
        }
        if let Some(rehearsal) = cpu.tlb.end_rehearsal() {
            rehearsal.writes.iter().rev().for_each(Write::undo);
            self.before.extend(rehearsal.writes.iter().map(Write::load));
            self.rehearsal = Some(rehearsal);
        }
        (cpu.regs, cpu.flags) = (first.regs, first.flags);
        (cpu.fpu.xmm, cpu.fpu.mxcsr) = vectors;
        (cpu.left, cpu.this_rip, cpu.fault_address) = kept;
    }

    /// Compares what translated code left with what was rehearsed.
    fn compare(&mut self, cpu: &Cpu, block: &[Step], out: Out) {
        let ran = out.ran as usize;
        self.compared.0 += 1;
        self.compared.1 += out.ran;
        let mut what = Vec::new();
        match self.marks.get(ran) {
            Some(&mark) => {
                let live = match out.reason {
                    // It turned back at the entry of a block that may overwrite flags first.
                    reason::BUDGET | reason::ATTENTION => self.live_at_entry(cpu),
                    _ => block.get(ran).map_or(rflags::STATUS, |step| step.live),
                };
                let undefined = block[..ran]
                    .iter()
                    .fold(0, |undefined, step| undefined & !step.set | step.undefined);
                self.compare_state(cpu, mark, ran, live & !undefined, &mut what);
                // What a call leaves to the interpreter has pushed already, and will push again.
                let next = self.marks.get(ran + 1).filter(|_| out.reason == reason::INTERPRET);
                let pushed = next.is_some_and(|next| self.memory(next.writes).next().is_none());
                if !pushed {
                    what.extend(self.memory(mark.writes));
                }
            }
            None => what.push(format!(
                "the interpreter ran {} instructions and stopped",
                self.marks.len() - 1
            )),
        }
        if out.reason == reason::BUDGET && ran == 0 {
            what.push("the translated block is longer".to_owned());
        }
        if !what.is_empty() {
            self.report(cpu, block, out, what);
        }
    }

    /// Status flags that somebody may still read when the block at RIP is entered.
    fn live_at_entry(&mut self, cpu: &Cpu) -> u64 {
        match cpu.tlb.exec(cpu.rip()) {
            Some(host) => self.block(cpu, host).first().map_or(rflags::STATUS, |step| step.live),
            None => 0,
        }
    }

    /// Compares registers and, of the status flags, these.
    fn compare_state(
        &self,
        cpu: &Cpu,
        mark: Mark,
        ran: usize,
        status: u64,
        what: &mut Vec<String>,
    ) {
        let mut differ = |name: &str, one: u128, other: u128| {
            if one != other {
                what.push(format!("{name} is {other:#x} and should be {one:#x}"));
            }
        };
        if cpu.regs != mark.regs {
            for (n, name) in NAMES.into_iter().enumerate() {
                differ(name, mark.regs[n].into(), cpu.regs[n].into());
            }
            differ("rip", mark.regs[17].into(), cpu.regs[17].into());
        }
        let mask = !rflags::STATUS | status;
        let (one, other) = (mark.flags.rflags() & mask, cpu.flags.rflags() & mask);
        differ("rflags", one.into(), other.into());
        let place = if self.vectors.len() > 1 { ran } else { 0 };
        let Some((xmm, mxcsr)) = self.vectors.get(place) else { return };
        if cpu.fpu.xmm != *xmm {
            for (n, (&one, &other)) in xmm.iter().zip(&cpu.fpu.xmm).enumerate() {
                differ(&format!("xmm{n}"), one, other);
            }
        }
        differ("mxcsr", (*mxcsr).into(), cpu.fpu.mxcsr.into());
    }

    /// Where memory is not as if the first `count` writes happened, and the others did not.
    fn memory(&self, count: usize) -> impl Iterator<Item = String> {
        let writes = self.rehearsal.as_ref().map_or(&[][..], |rehearsal| &rehearsal.writes);
        let done = &writes[..count];
        writes.iter().zip(&self.before).filter_map(|(write, &before)| {
            let wanted = done.iter().fold(before, |content, later| write.overlay(content, later));
            let is = write.load();
            (is != wanted).then(|| {
                let place = write.host;
                format!("memory at host address {place:#x} is {is:#x} and should be {wanted:#x}")
            })
        })
    }

    #[cold]
    fn report(&mut self, cpu: &Cpu, block: &[Step], out: Out, what: Vec<String>) {
        let first = self.marks[0];
        let rip = first.regs[17];
        let mut bytes = vec![0; block.iter().map(|step| usize::from(step.op.len)).sum()];
        if let Some(host) = cpu.tlb.exec(rip) {
            raw::copy_out(host, &mut bytes);
        }
        let mut start = [0; 16];
        start.copy_from_slice(&first.regs[..16]);
        let difference = Difference {
            rip,
            ran: out.ran,
            count: block.len(),
            reason: out.reason,
            what,
            code: block.iter().map(|step| (step.op.code, step.op.len)).collect(),
            bytes,
            start,
            flags: first.flags.rflags(),
        };
        self.difference = Some(Box::new(difference));
    }
}

impl Tlb {
    fn begin_rehearsal(&mut self, mut rehearsal: Box<Rehearsal>) {
        std::mem::swap(&mut self.tables, &mut rehearsal.tables);
        self.rehearsal = Some(rehearsal);
    }

    fn end_rehearsal(&mut self) -> Option<Box<Rehearsal>> {
        let mut rehearsal = self.rehearsal.take()?;
        std::mem::swap(&mut self.tables, &mut rehearsal.tables);
        Some(rehearsal)
    }
}

impl Cpu {
    /// [`host`](Self::host) in a rehearsal: the TLB is as it was, but nothing new goes in, and what
    /// is not RAM ends the rehearsal.
    #[cold]
    pub(crate) fn rehearsed_host(
        &mut self,
        s: u8,
        address: u64,
        access: Access,
    ) -> Done<Result<*mut u8, Gpa>> {
        let view = self.tlb.view;
        let tag = self.tlb.tag(address);
        let entry = self.tlb.rehearsal.as_ref().and_then(|rehearsal| {
            let entry = rehearsal.tables[view].get(Tlb::slot(address))?;
            let known = if access == Access::Write { entry.write } else { entry.read };
            (known == tag).then_some(entry.addend)
        });
        let host = match entry {
            Some(addend) => {
                std::ptr::with_exposed_provenance_mut(addend.wrapping_add(address as usize))
            }
            None => {
                let gpa = self.translate(s, address, access, view)?.gpa;
                let Some(page) = self.memory.page(gpa) else { return Err(Fault::GP0) };
                raw::offset(page.host, (address & 0xfff) as usize)
            }
        };
        if access == Access::Write
            && let Some(rehearsal) = &mut self.tlb.rehearsal
        {
            rehearsal.note(host, 4096 - (address & 0xfff) as usize);
        }
        Ok(Ok(host))
    }

    /// Runs blocks in both tiers, and once what only the interpreter can do, until there is something
    /// to look at, or `budget` instructions ran. `lockstep` says
    /// whether they agreed.
    pub(crate) fn run_lockstep(
        &mut self,
        thread: &mut Thread,
        blocks: &mut BlockCache,
        lockstep: &mut Lockstep,
        budget: u64,
    ) -> Result<(), Shutdown> {
        let end = self.retired + budget;
        let mut last = None;
        for _ in 0..MOST_ROUNDS {
            last = self.run_both(thread, blocks, lockstep, end - self.retired, last)?;
            if self.retired >= end
                || lockstep.difference.is_some()
                || self.local.requests() != 0
                || self.events.activity != riad_cpu::x86::Activity::Running
                || !self.translatable()
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Runs one block in both tiers, or one instruction in the interpreter. Returns how the block
    /// came out, when the next one follows.
    fn run_both(
        &mut self,
        thread: &mut Thread,
        blocks: &mut BlockCache,
        lockstep: &mut Lockstep,
        budget: u64,
        last: Option<Out>,
    ) -> Result<Option<Out>, Shutdown> {
        let rip = self.rip();
        let host = match self.tlb.exec(rip) {
            Some(host) => Some(host),
            None => match self.fetch_host(rip, Access::Execute) {
                Ok(host) => host,
                Err(fault) => {
                    self.this_rip = rip;
                    return self.fail(fault, self.events.pending_debug).map(|()| None);
                }
            },
        };
        let block = host.map(|host| lockstep.block(self, host)).unwrap_or_default();
        if block.is_empty() || block.len() as u64 > budget {
            return self.step(blocks, budget.min(1)).map(|()| None);
        }
        lockstep.rehearse(self, &block);
        let out = match thread.run(self, block.len() as u64, last) {
            Ok(Some(out)) => out,
            Ok(None) => return self.step(blocks, 1).map(|()| None),
            Err(fault) => {
                self.this_rip = rip;
                return self.fail(fault, self.events.pending_debug).map(|()| None);
            }
        };
        #[cfg(test)]
        if let Some(spoil) = lockstep.spoil {
            spoil(self);
        }
        self.retired += out.ran;
        lockstep.compare(self, &block, out);
        if lockstep.difference.is_some() {
            return Ok(None);
        }
        match out.reason {
            reason::INTERPRET if out.ran < budget => self.step(blocks, 1).map(|()| None),
            reason::FAULT => match self.held_fault.take() {
                Some(fault) => self.fail(fault, self.events.pending_debug).map(|()| None),
                None => Ok(None),
            },
            reason::LINK => Ok(Some(out)),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
#[path = "lockstep_test.rs"]
mod tests;
