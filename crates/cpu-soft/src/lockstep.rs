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
//! Dropping an instruction half way, to leave it to the interpreter, is no difference: its pages may
//! be marked as accessed, and a call may have pushed.
//!
//! A device that reads or writes the very bytes that a block writes, at that moment, can see them
//! come and go, or be taken for a difference. Other processors would be, all the time: there is one.
//! When a device overwrites the block's own code in between, the two tiers ran different code, and
//! there is nothing to compare.

mod difference;
mod rehearsal;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use iced_x86::RflagsBits;
use riad_cpu::x86::{Activity, rflags};

use crate::block::BlockCache;
use crate::cpu::Cpu;
use crate::flags::Flags;
use crate::op::Op;
use crate::raw;
use crate::run::{MOST_ROUNDS, Shutdown};
use crate::translate::cache::Key;
use crate::translate::class::{Class, general_form};
use crate::translate::emit::{self, Kind};
use crate::translate::flags;
use crate::translate::reason;
use crate::translate::thread::{Out, Thread};
use difference::{Difference, NAMES};
pub(crate) use rehearsal::Rehearsal;
use rehearsal::Write;

/// Blocks that are kept decoded.
const MOST_BLOCKS: usize = 1 << 16;
/// The bits of a page-table entry that a walk sets: accessed and dirty (SDM 3A, 4.8).
const MARKS: u128 = 0x60;

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
    emit::items(bytes, offset, kind, &mut items);
    if items.first().is_none_or(|first| first.class == Class::Interpret) {
        return Arc::default();
    }
    let step = |item: &emit::Item| {
        let mut i = item.i;
        i.set_code(general_form(i.code()));
        let (_, set) = flags::effect(&i);
        Step {
            op: item.for_interpreter(),
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
        let kind = cpu.code_kind();
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
        let steps = decode(raw::copy_to_page_end(host, &mut bytes), offset, kind);
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
        rehearsal.begin();
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
        writes.iter().zip(&self.before).enumerate().filter_map(move |(n, (write, &before))| {
            let wanted = done.iter().fold(before, |content, later| write.overlay(content, later));
            let is = write.load();
            // An instruction that was left to the interpreter may have been on its way already.
            let mask = if write.walk && n >= count { !MARKS } else { u128::MAX };
            ((is ^ wanted) & mask != 0).then(|| {
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

impl Cpu {
    /// Runs blocks in both tiers, and once what only the interpreter can do, until there is something
    /// to look at, or `budget` instructions ran. `lockstep` says whether they agreed.
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
                || self.events.activity != Activity::Running
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
        let host = match self.code_host(self.rip()) {
            Ok(host) => host,
            Err(fault) => return self.fail_fetch(fault).map(|()| None),
        };
        let block = host.map(|host| lockstep.block(self, host)).unwrap_or_default();
        if block.is_empty() || block.len() as u64 > budget {
            return self.step(blocks, budget.min(1)).map(|()| None);
        }
        let page = host.map_or(0, |host| self.tlb.page_index(host));
        let generation = self.memory.pages().generation(page);
        lockstep.rehearse(self, &block);
        let out = match thread.run(self, block.len() as u64, last) {
            Ok(Some(out)) => out,
            Ok(None) => return self.step(blocks, 1).map(|()| None),
            Err(fault) => return self.fail_fetch(fault).map(|()| None),
        };
        #[cfg(test)]
        if let Some(spoil) = lockstep.spoil {
            spoil(self);
        }
        self.retired += out.ran;
        let by_itself = lockstep.rehearsal.as_ref().is_some_and(|r| r.overwrites_code);
        if by_itself || self.memory.pages().generation(page) == generation {
            lockstep.compare(self, &block, out);
        }
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
