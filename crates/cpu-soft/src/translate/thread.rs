//! One processor's side of translated code: the way in and out, and the functions it calls.

use std::cell::Cell;
use std::io;
use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use riad_cpu::x86::{cr0, cr4, rflags};

use super::cache::{CodeCache, Key, Known, Presence};
use super::emit::Kind;
use super::frame::{
    Frame, PAGE_MARKS, SALT_BITS, SLOTS, Site, Slot, Target, USED_BITS, USED_MARK, Used, reason,
    target_place, used_place,
};
use super::stubs::Calls;
use super::sys::{self, FrameMemory};
use crate::cpu::{Cpu, Mode};
use crate::fault::Done;
use crate::flags::Flags;
use crate::mem::Tlb;
use crate::mmu::Access;
use crate::op::{Op, gpr, seg};
use crate::raw;
use crate::sys::barrier;
use crate::timekeeper::Timekeeper;

/// A processor's frame and what it knows of the cache.
#[derive(Debug)]
pub(crate) struct Thread {
    cache: Arc<CodeCache>,
    memory: Arc<FrameMemory>,
    presence: Arc<Presence>,
    timekeeper: Arc<Timekeeper>,
    /// The cache's turn that the table of targets is for.
    turn: u64,
    /// What the slots and the table were made for.
    changes: u64,
    view: usize,
    kind: u64,
    /// A page that no guest address is likely to lie in, and where it leads.
    nowhere: u64,
    sink: (u64, u64),
    secret: u64,
    /// Blocks by their place in RAM, which translated code asks for targets it does not know.
    used: Box<[Cell<Used>]>,
}

/// Why the processor came out, and at which instruction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    pub(crate) reason: u32,
    /// Instructions that were run, when they are counted.
    pub(crate) ran: u64,
    link: u64,
}

/// A cache for a machine.
pub(crate) fn cache(size: usize) -> io::Result<Arc<CodeCache>> {
    let calls = Calls {
        interpret: (interpret as *const ()).expose_provenance() as u64,
        fill: (fill as *const ()).expose_provenance() as u64,
        wrote: (wrote as *const ()).expose_provenance() as u64,
    };
    Ok(Arc::new(CodeCache::new(size, calls)?))
}

impl Thread {
    pub(crate) fn new(
        cache: Arc<CodeCache>,
        memory: Arc<FrameMemory>,
        timekeeper: Arc<Timekeeper>,
        tlb: &Tlb,
    ) -> Self {
        let presence = cache.join(memory.clone());
        let random = || crate::sys::entropy::random().unwrap_or(0x5bd1_e995_9e37_79b9);
        // Not canonical: bits 63 to 47 are not all the same.
        let nowhere = (random() | 1 << 63) & !(1 << 62) & !0xfff;
        let sink = memory.sink();
        let thread = Self {
            cache,
            memory,
            presence,
            timekeeper,
            turn: 0,
            changes: u64::MAX,
            view: usize::MAX,
            kind: 0,
            nowhere,
            sink,
            secret: random(),
            used: vec![Cell::default(); 1 << USED_BITS].into_boxed_slice(),
        };
        let frame = thread.frame();
        frame.xmm_missing.set(1);
        frame.ram.set(tlb.ram_address());
        frame.states.set(tlb.states_address());
        frame.large.set(tlb.large_address());
        frame.used.set(thread.used.as_ptr().expose_provenance() as u64);
        thread.forget_targets();
        thread.forget_slots();
        thread
    }

    fn frame(&self) -> &Frame {
        sys::frame(&self.memory)
    }

    /// Has the processor called out when guest time is `due`: code that does not count does not look
    /// at the clock.
    pub(crate) fn call_at(&self, processor: u32, due: Option<u64>) {
        self.timekeeper.arm(processor, due);
    }

    fn forget_slots(&self) {
        let nothing = Slot {
            read_tag: self.nowhere,
            read_addend: self.sink.0.wrapping_sub(self.nowhere),
            write_tag: self.nowhere,
            write_addend: self.sink.0.wrapping_sub(self.nowhere),
            state: self.sink.1,
        };
        for slot in &self.frame().slots {
            slot.set(nothing);
        }
    }

    fn forget_targets(&self) {
        let frame = self.frame();
        for target in &frame.targets {
            target.set(self.no_target());
        }
        for mark in &frame.page_marks {
            mark.set(0);
        }
    }

    /// Forgets where blocks are.
    fn forget_used(&self) {
        for used in &self.used {
            used.set(Used::default());
        }
    }

    /// A target that no address has.
    fn no_target(&self) -> Target {
        Target { key: self.nowhere, host: 0, base: self.nowhere, _unused: 0 }
    }

    /// The mark of the page at `address`: whether it may have targets.
    fn mark(&self, address: u64) -> &Cell<u8> {
        &self.frame().page_marks[(address >> 12) as usize % PAGE_MARKS]
    }

    /// Forgets where indirect jumps into a page lead.
    fn forget_page(&self, address: u64) {
        let page = address & !0xfff;
        if self.mark(page).get() == 0 {
            return;
        }
        // Others that share the mark may still have some: it stays.
        let first = target_place(page);
        for target in &self.frame().targets[first..first + target_place(4096)] {
            if target.get().base == page {
                target.set(self.no_target());
            }
        }
    }

    /// Brings the frame up to date with the processor.
    fn refresh(&mut self, cpu: &mut Cpu) {
        let (fs, gs) = (cpu.segs[4].base, cpu.segs[5].base);
        let frame = self.frame();
        frame.segment_bases[0].set(fs);
        frame.segment_bases[1].set(gs);
        let kind = cpu.code_kind().bits();
        if self.changes != cpu.tlb.changes || self.view != cpu.tlb.view || self.kind != kind {
            self.catch_up(cpu, kind);
        }
    }

    #[cold]
    fn catch_up(&mut self, cpu: &mut Cpu, kind: u64) {
        // What a supervisor may touch with SMAP it may touch without.
        let wider = self.changes == cpu.tlb.changes
            && (self.view, cpu.tlb.view) == (Tlb::GUARDED, Tlb::SUPERVISOR);
        self.view = cpu.tlb.view;
        self.frame().table.set(cpu.tlb.table_address());
        if wider && self.kind == kind {
            return;
        }
        while let Some(page) = cpu.tlb.flushed.pop() {
            self.forget_page(page);
        }
        self.changes = cpu.tlb.changes;
        self.kind = kind;
        self.forget_slots();
        let frame = self.frame();
        for half in [0, 1] {
            frame.generation[half].set(cpu.tlb.generation[half]);
            frame.salt[half].set(self.salt(cpu, cpu.tlb.generation[half]));
            let kind = Kind { upper: half == 1, ..cpu.code_kind() };
            frame.kinds[half].set(kind.bits() | USED_MARK);
        }
    }

    /// A number for the address space, the privilege and what blocks are made for, which nobody can
    /// guess.
    fn salt(&self, cpu: &Cpu, generation: u64) -> u64 {
        let user = cpu.tlb.view == Tlb::USER;
        // Generations are handed out again after a wrap: what is known by them must not come back.
        let what = cpu.tlb.wraps << 20 | generation << 8 | u64::from(user) << 4 | self.kind;
        let mixed = (self.secret ^ what).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93) & !SALT_BITS
    }

    /// Finds, or makes, the block at RIP. `None` when the interpreter is to go on.
    ///
    /// # Errors
    /// What fetching the instruction raises.
    fn look_up(&mut self, cpu: &mut Cpu, link: u64) -> Done<Option<u64>> {
        let rip = cpu.rip();
        let frame = self.frame();
        let place = target_place(rip);
        let salted = rip ^ frame.salt[(rip >> 63) as usize].get();
        let known = frame.targets[place].get();
        if known.key == salted && link == 0 && self.turn == self.cache.turn() {
            return Ok(Some(known.host));
        }
        let Some(host) = cpu.code_host(rip)? else { return Ok(None) };
        let page = cpu.tlb.page_index(host);
        let (large, upper) = (cpu.tlb.exec_is_large(rip), rip >> 63 != 0);
        let kind = Kind { large, upper, ..cpu.code_kind() };
        let key = Key::new(page, (rip & 0xfff) as u32, kind);
        let (known, turn) = match self.cache.find(key) {
            Some(found) => found,
            None => self.make(cpu, host, page, key, kind, rip),
        };
        if turn != self.turn {
            self.forget_targets();
            self.forget_used();
            self.turn = turn;
        }
        let used = &self.used[used_place(key.number())];
        let Known::Block(entries) = known else {
            used.set(Used::default());
            return Ok(None);
        };
        let address = self.cache.address(entries.saved);
        let base = rip & !0xfff;
        self.frame().targets[place].set(Target { key: salted, host: address, base, _unused: 0 });
        used.set(Used { key: key.number() | USED_MARK, host: address });
        self.mark(base).set(1);
        if link != 0 {
            self.cache.link(link, key, page, turn);
        }
        Ok(Some(address))
    }

    /// Carries out a branch whose target translated code does not know. What is not canonical is the
    /// interpreter's to refuse.
    fn branch(&self, cpu: &mut Cpu, kind: u32) -> u32 {
        let frame = self.frame();
        let target = frame.spare.get();
        if !matches!(target >> 47, 0 | 0x1_ffff) {
            if kind == reason::CALL {
                cpu.regs[gpr::RSP] = cpu.regs[gpr::RSP].wrapping_add(8);
            }
            return reason::INTERPRET;
        }
        if kind == reason::RETURN {
            let pop = frame.spare_target.get();
            cpu.regs[gpr::RSP] = cpu.regs[gpr::RSP].wrapping_add(pop);
        }
        cpu.set_rip(target);
        reason::JUMP
    }

    #[cold]
    fn make(
        &mut self,
        cpu: &mut Cpu,
        host: *mut u8,
        page: usize,
        key: Key,
        kind: Kind,
        rip: u64,
    ) -> (Known, u64) {
        let several = cpu.count > 1;
        let generation = cpu.memory.pages().mark_code(page, || {
            if several {
                barrier::drain_stores();
            }
        });
        let mut bytes = [0u8; 1024];
        let bytes = raw::copy_to_page_end(host, &mut bytes);
        let pages = cpu.memory.pages();
        let within_large = (rip & 0x1f_f000) as u32;
        self.cache
            .translate(key, kind, within_large, bytes, || pages.generation(page) == generation)
    }

    /// Runs translated code from RIP on until it comes out; at most `budget` instructions where they
    /// are counted. `None` when the interpreter is to do the next instruction.
    ///
    /// # Errors
    /// What fetching the first instruction raises.
    pub(crate) fn run(
        &mut self,
        cpu: &mut Cpu,
        budget: u64,
        last: Option<Out>,
    ) -> Done<Option<Out>> {
        let link = match last {
            Some(Out { reason: reason::LINK, link, .. }) => link,
            _ => 0,
        };
        self.refresh(cpu);
        let Some(target) = self.look_up(cpu, link)? else { return Ok(None) };
        let budget = i64::try_from(budget).unwrap_or(i64::MAX);
        let frame = self.frame();
        frame.cpu.set(std::ptr::from_mut(cpu).expose_provenance() as u64);
        frame.flags.set(image(&cpu.flags));
        frame.budget.set(budget);
        frame.base.set(cpu.rip() & !0xfff);
        self.presence.inside.store(self.turn, Ordering::SeqCst);
        if self.cache.turn() != self.turn {
            // What was found is void: once more.
            self.presence.inside.store(0, Ordering::SeqCst);
            return Ok(Some(Out { reason: reason::ATTENTION, ran: 0, link: 0 }));
        }
        cpu.lent_thread.store(std::ptr::from_mut(self), Ordering::Relaxed);
        let reason = sys::run(self.cache.enter(), self.memory.frame(), target);
        cpu.lent_thread.store(std::ptr::null_mut(), Ordering::Relaxed);
        self.presence.inside.store(0, Ordering::Release);
        let frame = self.frame();
        set_status(&mut cpu.flags, frame.flags.get());
        let site = Site(frame.site.get());
        let reason = match reason {
            reason::JUMP | reason::CALL | reason::RETURN => self.branch(cpu, reason),
            other => other,
        };
        let frame = self.frame();
        let left = match reason {
            reason::MOVED | reason::JUMP => site.left().saturating_sub(1),
            _ => {
                if reason != reason::FAULT {
                    cpu.set_rip(frame.base.get() + site.offset());
                }
                site.left()
            }
        };
        if reason == reason::ATTENTION {
            // Perhaps because the block is not good any more: look it up next time.
            let place = target_place(cpu.rip());
            frame.targets[place].set(self.no_target());
        }
        let ran = (budget - frame.budget.get()).max(0) as u64;
        Ok(Some(Out { reason, ran: ran.saturating_sub(left), link: frame.link.get() }))
    }
}

/// The status flags as the frame has them.
fn image(flags: &Flags) -> u64 {
    let rflags = flags.rflags();
    (rflags & 0xd5) << 8 | rflags >> 11 & 1
}

fn set_status(flags: &mut Flags, image: u64) {
    flags.set_status(image >> 8 & 0xd5 | (image & 1) << 11);
}

impl Cpu {
    /// What blocks are made for now, but for where they lie.
    pub(crate) fn code_kind(&self) -> Kind {
        let usable =
            self.control.cr0 & (cr0::EM | cr0::TS) == 0 && self.control.cr4 & cr4::OSFXSR != 0;
        Kind {
            vector: usable && self.fpu.mxcsr >> 7 & 0x3f == 0x3f,
            counted: self.counted,
            large: false,
            pure: self.pure,
            upper: false,
        }
    }

    /// Whether translated code may run here: it knows 64-bit mode without debugging.
    pub(crate) fn translatable(&self) -> bool {
        self.mode == Mode::Long
            && self.tlb.view != Tlb::CHECKED
            && self.debug.dr7 & 0xff == 0
            && self.flags.bits & (rflags::TF | rflags::RF) == 0
            && !self.events.interrupt_shadow
            && !self.events.mov_ss_shadow
            && self.events.pending_debug == 0
    }
}

/// Called by translated code: runs one instruction in the interpreter.
extern "C" fn interpret(cpu: *mut Cpu, frame: *const Frame, op: *const Op, site: u32) -> u32 {
    let (cpu, frame) = sys::lent(cpu, frame);
    let op = sys::op(op);
    let kind = cpu.code_kind();
    let rip = frame.base.get() + Site(site).offset();
    let next = rip + u64::from(op.len);
    set_status(&mut cpu.flags, frame.flags.get());
    cpu.this_rip = rip;
    cpu.set_rip(next);
    cpu.left = u32::MAX;
    cpu.step_trap = false;
    let done = (op.exec)(cpu, op);
    frame.flags.set(image(&cpu.flags));
    if let Err(fault) = done {
        cpu.held_fault = Some(fault);
        return reason::FAULT;
    }
    if cpu.left == 0 || cpu.rip() != next || cpu.code_kind() != kind || !cpu.translatable() {
        let repeats = op.has_memory() && op.prefix & (Op::REP | Op::REPNE) != 0;
        if cpu.rip() == rip && repeats {
            // A repeated string instruction with iterations left: see `note_iteration`.
            cpu.flags.bits |= rflags::RF;
        }
        return reason::MOVED;
    }
    sys::lent_thread(cpu, |thread, cpu| thread.refresh(cpu));
    0
}

/// Called by translated code: fills a slot by way of the page walk. `what` has the slot, and bit 8
/// for a write.
extern "C" fn fill(cpu: *mut Cpu, frame: *const Frame, address: u64, what: u32) -> u32 {
    let (cpu, frame) = sys::lent(cpu, frame);
    let write = what & 0x100 != 0;
    let access = if write { Access::Write } else { Access::Read };
    let Ok(Ok(host)) = cpu.host(seg::DS, address, access) else { return reason::INTERPRET };
    let slot = &frame.slots[(what & 0xff) as usize % SLOTS];
    let page = address & !0xfff;
    let addend = (host.expose_provenance() as u64).wrapping_sub(address);
    let mut content = slot.get();
    if write {
        content.write_tag = page;
        content.write_addend = addend;
        content.state = frame.states.get() + cpu.tlb.page_index(host) as u64;
    } else {
        content.read_tag = page;
        content.read_addend = addend;
    }
    slot.set(content);
    frame.spare.set(addend);
    0
}

/// Called by translated code: memory behind a slot was written whose page's state is not just dirty.
extern "C" fn wrote(cpu: *mut Cpu, frame: *const Frame, slot: u32) -> u32 {
    let (cpu, frame) = sys::lent(cpu, frame);
    let state = frame.slots[slot as usize % SLOTS].get().state;
    let page = state.wrapping_sub(frame.states.get()) as usize;
    if page >= cpu.memory.pages().len() {
        return 0;
    }
    let overwritten = cpu.memory.pages().note_write(page);
    if overwritten && frame.site.get() != Site::STAY.0 { reason::DONE } else { 0 }
}

const _: () = assert!(offset_of!(Frame, attention) == 0);
