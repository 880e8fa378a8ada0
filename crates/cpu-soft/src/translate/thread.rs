//! One processor's side of translated code: the way in and out, and the functions it calls.

use std::cell::Cell;
use std::io;
use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use riad_cpu::x86::{Activity, cr0, cr4, rflags};

use super::cache::{CodeCache, Key, Known, Presence};
use super::emit::Kind;
use super::frame::{
    Frame, PAGE_MARKS, SALT_BITS, SAMPLE, SLOTS, Site, Slot, SlotNumber, Target, USED_MARK, Used,
    reason, target_place, used_place,
};
use super::samples::Samples;
use super::stubs::{Calls, FILL_WRITE};
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
    /// Slots of supervisors were filled when SMAP did not hold them back; and where the fills stood
    /// when that began.
    loose: bool,
    fills: (u32, u64),
    /// Samples taken so far.
    sampled: u64,
    /// What targets are salted with: for supervisors and for users, in the lower and the upper half.
    salts: [[u64; 2]; 2],
    samples: Samples,
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
            loose: false,
            fills: (0, 0),
            sampled: 0,
            salts: [[0; 2]; 2],
            samples: Samples::default(),
        };
        let frame = thread.frame();
        frame.xmm_missing.set(1);
        frame.misses.set(SAMPLE);
        frame.ram.set(tlb.ram_address());
        frame.states.set(tlb.states_address());
        frame.large.set(tlb.large_address());
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

    /// A slot in which nothing is found.
    fn no_slot(&self) -> Slot {
        Slot {
            read_tag: self.nowhere,
            read_addend: self.sink.0.wrapping_sub(self.nowhere),
            write_tag: self.nowhere,
            write_addend: self.sink.0.wrapping_sub(self.nowhere),
            state: self.sink.1,
        }
    }

    fn forget(&self, slots: &[Cell<Slot>]) {
        let nothing = self.no_slot();
        for slot in slots {
            slot.set(nothing);
        }
    }

    fn forget_slots(&self) {
        self.forget(&self.frame().slots);
    }

    fn forget_supervisors_slots(&self) {
        self.forget(&self.frame().slots[..SLOTS]);
    }

    /// Forgets the slots that have a page.
    fn forget_in_slots(&self, page: u64) {
        for slot in &self.frame().slots {
            let Slot { read_tag, write_tag, .. } = slot.get();
            if read_tag == page || write_tag == page {
                slot.set(self.no_slot());
            }
        }
    }

    /// A number that changes when a slot is filled.
    fn fills(&self) -> (u32, u64) {
        (self.frame().misses.get(), self.sampled)
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
        for used in &self.frame().used {
            used.set(Used::default());
        }
    }

    /// A target that no address has.
    fn no_target(&self) -> Target {
        Target { key: self.nowhere, host: 0 }
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
            target.set(self.no_target());
        }
    }

    /// Brings the frame up to date with the processor.
    fn refresh(&mut self, cpu: &mut Cpu) {
        let (fs, gs) = (cpu.segs[4].base, cpu.segs[5].base);
        let frame = self.frame();
        frame.segment_bases[0].set(fs);
        frame.segment_bases[1].set(gs);
        let kind = cpu.code_kind().bits() & !(1 << Kind::USER);
        if self.changes != cpu.tlb.changes || self.view != cpu.tlb.view || self.kind != kind {
            self.catch_up(cpu, kind);
        }
    }

    fn catch_up(&mut self, cpu: &mut Cpu, kind: u64) {
        let old = std::mem::replace(&mut self.view, cpu.tlb.view);
        self.frame().table.set(cpu.tlb.table_address());
        if self.changes != cpu.tlb.changes || self.kind != kind {
            self.change_space(cpu, kind);
        }
        // What a supervisor may touch without SMAP it may not touch with it.
        if old == Tlb::SUPERVISOR && self.fills != self.fills() {
            self.loose = true;
        }
        if self.view == Tlb::SUPERVISOR {
            self.fills = self.fills();
        } else if self.view == Tlb::GUARDED && std::mem::take(&mut self.loose) {
            self.forget_supervisors_slots();
        }
        self.set_salts(cpu);
    }

    /// The TLB has changed, or what blocks are made for.
    fn change_space(&mut self, cpu: &mut Cpu, kind: u64) {
        let pages = cpu.tlb.flushed.len() as u64;
        let only_pages = self.kind == kind && cpu.tlb.changes.wrapping_sub(self.changes) == pages;
        while let Some(page) = cpu.tlb.flushed.pop() {
            self.forget_page(page);
            if only_pages {
                self.forget_in_slots(page & !0xfff);
            }
        }
        self.changes = cpu.tlb.changes;
        self.kind = kind;
        if only_pages {
            return;
        }
        self.forget_slots();
        self.loose = false;
        for half in [0, 1] {
            let generation = cpu.tlb.generation[half];
            self.frame().generation[half].set(generation);
            for user in [false, true] {
                self.salts[usize::from(user)][half] = self.salt(cpu, generation, user);
            }
        }
    }

    fn set_salts(&self, cpu: &Cpu) {
        let user = self.view == Tlb::USER;
        let frame = self.frame();
        for (half, salt) in self.salts[usize::from(user)].into_iter().enumerate() {
            frame.salt[half].set(salt);
            let kind = Kind { upper: half == 1, ..cpu.code_kind() };
            frame.kinds[half].set(kind.bits() | USED_MARK);
        }
    }

    /// A number for the address space, the privilege and what blocks are made for, which nobody can
    /// guess.
    fn salt(&self, cpu: &Cpu, generation: u64, user: bool) -> u64 {
        // Generations are handed out again after a wrap: what is known by them must not come back.
        let what = cpu.tlb.wraps << 20 | generation << 8 | u64::from(user) << 4 | self.kind;
        let mixed = (self.secret ^ what).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93) & !SALT_BITS
    }

    /// The key of the target at a linear address.
    fn salted(&self, address: u64) -> u64 {
        address ^ self.frame().salt[(address >> 63) as usize].get()
    }

    /// The host address of the entry at a linear address, when it is among the targets.
    fn target(&self, address: u64) -> Option<u64> {
        let known = self.frame().targets[target_place(address)].get();
        (known.key == self.salted(address)).then_some(known.host)
    }

    /// Finds, or makes, the block at RIP. `None` when the interpreter is to go on.
    ///
    /// # Errors
    /// What fetching the instruction raises.
    fn look_up(&mut self, cpu: &mut Cpu, link: u64) -> Done<Option<u64>> {
        let rip = cpu.rip();
        if let Some(host) = self.target(rip)
            && link == 0
            && self.turn == self.cache.turn()
        {
            return Ok(Some(host));
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
        let used = &self.frame().used[used_place(key.number())];
        let Known::Block(entries) = known else {
            used.set(Used::default());
            return Ok(None);
        };
        let address = self.cache.address(entries.saved);
        let base = rip & !0xfff;
        let target = Target { key: self.salted(rip), host: address };
        self.frame().targets[target_place(rip)].set(target);
        used.set(Used { key: key.number() | USED_MARK, host: address });
        self.mark(base).set(1);
        if link != 0 {
            self.cache.link(link, key, page, turn);
        }
        Ok(Some(address))
    }

    /// After an instruction that moved RIP: the host address of the entry there, when it is known and
    /// nobody has to look at anything in between.
    fn go_on(&mut self, cpu: &mut Cpu) -> Option<u64> {
        let nothing_else = !cpu.counted
            && !cpu.pure
            && !cpu.step_trap
            && !cpu.timer_touched
            && cpu.local.requests() == 0
            && cpu.events.activity == Activity::Running
            && cpu.translatable()
            && self.turn == self.cache.turn();
        if !nothing_else {
            return None;
        }
        self.refresh(cpu);
        let rip = cpu.rip();
        let host = self.target(rip)?;
        self.frame().base.set(rip & !0xfff);
        Some(host)
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

    /// Notes who looked up memory; who does so all the time shall ask the TLB straight away.
    #[cold]
    fn sample(&mut self, cpu: &Cpu) {
        let Some(host) = cpu.tlb.exec(cpu.rip()) else { return };
        let page = cpu.tlb.page_index(host);
        let offset = (cpu.rip() & 0xfff) as u32;
        let place = (page as u64) << 12 | u64::from(offset);
        if self.samples.is_scattered(place, cpu.clock.now()) {
            self.cache.scattered(page, offset);
        }
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
                    cpu.set_rip(frame.base.get().wrapping_add(site.offset()));
                }
                site.left()
            }
        };
        if reason == reason::ATTENTION {
            // Perhaps because the block is not good any more: look it up next time.
            let place = target_place(cpu.rip());
            frame.targets[place].set(self.no_target());
        }
        let reason = if reason == reason::SAMPLE {
            frame.misses.set(SAMPLE);
            self.sampled += 1;
            self.sample(cpu);
            reason::INTERPRET
        } else {
            reason
        };
        let frame = self.frame();
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
            user: self.cpl == 3,
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
    let next = rip.wrapping_add(u64::from(op.len));
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
        let mut target = None;
        sys::lent_thread(cpu, |thread, cpu| target = thread.go_on(cpu));
        return match target {
            Some(host) => {
                frame.spare.set(host);
                reason::GO
            }
            None => reason::MOVED,
        };
    }
    sys::lent_thread(cpu, |thread, cpu| thread.refresh(cpu));
    0
}

/// Called by translated code: fills a slot by way of the page walk. `what` has the slot's offset, and
/// [`FILL_WRITE`].
extern "C" fn fill(cpu: *mut Cpu, frame: *const Frame, address: u64, what: u32) -> u32 {
    let (cpu, frame) = sys::lent(cpu, frame);
    let write = what & FILL_WRITE != 0;
    let access = if write { Access::Write } else { Access::Read };
    let Ok(Ok(host)) = cpu.host(seg::DS, address, access) else { return reason::INTERPRET };
    // Counted, but not to the point where a sample would be due.
    frame.misses.set(frame.misses.get().saturating_sub(1).max(1));
    let slot = &frame.slots[SlotNumber::at(what & !FILL_WRITE)];
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
    let state = frame.slots[SlotNumber::at(slot)].get().state;
    let page = state.wrapping_sub(frame.states.get()) as usize;
    if page >= cpu.memory.pages().len() {
        return 0;
    }
    let overwritten = cpu.memory.pages().note_write(page);
    if overwritten && frame.site.get() != Site::STAY.0 { reason::DONE } else { 0 }
}

const _: () = assert!(offset_of!(Frame, attention) == 0);
