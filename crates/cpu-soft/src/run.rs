//! The loop: blocks, and what happens between them.

use std::time::Duration;

use riad_cpu::x86::{Activity, rflags};
use riad_cpu::{Exit, Limit};

use crate::apic::request;
use crate::block::BlockCache;
use crate::cpu::{Cpu, Mode};
use crate::decode::{self, One};
use crate::fault::{Done, Fault};
use crate::lockstep::Lockstep;
use crate::mmu::Access;
use crate::op::{Op, seg};
use crate::raw;
use crate::stand_in::Loan;
use crate::sys::barrier;
use crate::translate::reason;
use crate::translate::thread::Thread;

/// Instructions between two looks at the clock.
const CLOCK_INTERVAL: u64 = 2048;

/// Most times translated code is gone back to between two looks at everything else.
pub(crate) const MOST_ROUNDS: u32 = 256;

/// No block is longer than this many bytes.
const LONGEST_BLOCK: u64 = (decode::MAX_OPS * decode::MAX_LEN) as u64;

/// Instructions across two pages that are remembered.
pub(crate) const STRADDLERS: usize = 256;

/// An instruction that lies in two pages, as it was decoded from its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Straddler {
    linear: u64,
    bytes: [u8; decode::MAX_LEN],
    op: Op,
}

/// What translated code has in the place of an instruction that lies in two pages: what it is is seen
/// when it is run, for the second page may be another one then.
pub(crate) const ACROSS: Op = Op { exec: across, ..Op::NONE };

fn across(cpu: &mut Cpu, _: &Op) -> Done {
    let (rip, retired) = (cpu.this_rip, cpu.retired);
    cpu.execute_straddling(rip, rip, Mode::Long)?;
    // Whoever runs this op counts it.
    cpu.retired = retired;
    // What follows lies in another page, and a loop of one instruction begins anew.
    cpu.left = 0;
    Ok(())
}

/// Where the instruction at `linear` is remembered.
fn straddler(linear: u64) -> usize {
    (linear >> 12) as usize & (STRADDLERS - 1)
}

/// Why [`Cpu::run`] gave up on the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown;

/// What instructions are run by.
pub(crate) struct Tiers<'a> {
    pub(crate) blocks: &'a mut BlockCache,
    pub(crate) thread: Option<&'a mut Thread>,
    /// When both tiers run each block.
    pub(crate) lockstep: Option<&'a mut Lockstep>,
}

impl Cpu {
    /// Runs until the limit, a request to stop, or a triple fault.
    pub(crate) fn run(&mut self, tiers: &mut Tiers<'_>, limit: Limit) -> Exit {
        let end = match limit {
            Limit::None => u64::MAX,
            Limit::Instructions(n) => self.retired.saturating_add(n),
        };
        // Translated code counts when somebody wants to know: then a timer fires, and a limit is
        // reached, after the same instruction in every tier.
        self.counted =
            end != u64::MAX || tiers.lockstep.is_some() || self.clock.wait_for(u64::MAX).is_none();
        self.pure = tiers.lockstep.is_some();
        let mut told_clock = self.retired;
        let exit = self.run_until(tiers, end, &mut told_clock);
        self.clock.retire(self.retired - told_clock);
        exit
    }

    /// Tells the clock of instructions retired now and then; `told_clock` is how many it knows of.
    fn run_until(&mut self, tiers: &mut Tiers<'_>, end: u64, told_clock: &mut u64) -> Exit {
        let mut look_at_clock = 0;
        loop {
            // Somebody called, or the timer's register was written: the timer may be due, and
            // translated code that does not count must be called out when it is. Where instructions
            // are counted, only they decide: the code cache calls too, when it makes room.
            let heard = self.local.heard();
            if !self.counted && (heard || self.timer_touched) {
                look_at_clock = 0;
            }
            if self.retired >= end || self.loan.is_over(self.cpl) {
                return Exit::Limit;
            }
            if self.retired >= look_at_clock {
                self.clock.retire(self.retired - *told_clock);
                *told_clock = self.retired;
                self.expire_timer();
                look_at_clock = self.retired + CLOCK_INTERVAL;
                self.timer_touched = false;
                if let Some(thread) = &tiers.thread
                    && !self.counted
                {
                    thread.call_at(self.local.id(), self.timer_deadline());
                }
            }
            if self.local.requests() != 0 {
                match self.take_requests() {
                    Ok(None) => {}
                    Ok(Some(exit)) => return exit,
                    Err(Shutdown) => return self.shut_down(),
                }
            }
            match self.events.activity {
                Activity::Running => {}
                Activity::Shutdown => return Exit::Shutdown,
                Activity::Halted | Activity::WaitForSipi => {
                    if self.loan != Loan::Own {
                        return Exit::Limit;
                    }
                    self.wait();
                    look_at_clock = 0;
                    continue;
                }
            }
            // Never past the look at the clock, so that when a timer fires does not depend on how
            // instructions happen to lie in blocks.
            let budget = end.min(look_at_clock).saturating_sub(self.retired).max(1);
            let done = match (&mut tiers.thread, &mut tiers.lockstep) {
                (Some(thread), Some(lockstep)) if self.translatable() => {
                    self.run_lockstep(thread, tiers.blocks, lockstep, budget)
                }
                (Some(thread), None) if self.translatable() => {
                    self.run_translated(thread, tiers.blocks, budget)
                }
                _ => self.step(tiers.blocks, budget),
            };
            if tiers.lockstep.as_ref().is_some_and(|lockstep| lockstep.difference.is_some()) {
                // Who called has a look.
                return Exit::Stopped;
            }
            if let Err(Shutdown) = done {
                return self.shut_down();
            }
        }
    }

    /// Runs translated code, and what it leaves to the interpreter, until there is something to look
    /// at, or `budget` instructions ran (where they are counted).
    fn run_translated(
        &mut self,
        thread: &mut Thread,
        blocks: &mut BlockCache,
        mut budget: u64,
    ) -> Result<(), Shutdown> {
        let counted = self.counted;
        let mut last = None;
        for _ in 0..MOST_ROUNDS {
            let ran_before = self.retired;
            match thread.run(self, budget, last) {
                Err(fault) => return self.fail_fetch(fault),
                Ok(None) => {
                    self.step(blocks, budget)?;
                    last = None;
                }
                Ok(Some(out)) => {
                    self.retired += if counted { out.ran } else { 0 };
                    last = Some(out);
                    match out.reason {
                        reason::INTERPRET | reason::BUDGET if counted && out.ran >= budget => {
                            return Ok(());
                        }
                        reason::INTERPRET => self.step(blocks, 1)?,
                        reason::BUDGET => return self.step(blocks, budget - out.ran.min(budget)),
                        reason::FAULT => {
                            if let Some(fault) = self.held_fault.take() {
                                return self.fail(fault, self.events.pending_debug);
                            }
                        }
                        reason::MOVED => self.finish_traps()?,
                        reason::ATTENTION => return Ok(()),
                        _ => {}
                    }
                }
            }
            if counted {
                budget = budget.saturating_sub(self.retired - ran_before);
                if budget == 0 {
                    return Ok(());
                }
            }
            if self.local.requests() != 0
                || self.events.activity != Activity::Running
                || !self.translatable()
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Delivers what fetching the instruction at RIP raised.
    pub(crate) fn fail_fetch(&mut self, fault: Fault) -> Result<(), Shutdown> {
        self.this_rip = self.rip();
        self.fail(fault, self.events.pending_debug)
    }

    /// Delivers a fault of the instruction at `this_rip`, which changed nothing.
    pub(crate) fn fail(&mut self, fault: Fault, held_back: u64) -> Result<(), Shutdown> {
        self.set_rip(self.this_rip);
        // Traps are for instructions that complete.
        self.events.pending_debug = held_back;
        // Counted, so that a guest that does nothing but fault reaches its limit and its timer.
        self.retired += 1;
        self.deliver(fault, true)
    }

    fn shut_down(&mut self) -> Exit {
        self.events.activity = Activity::Shutdown;
        Exit::Shutdown
    }

    fn expire_timer(&mut self) {
        if let Some(due) = self.timer_deadline() {
            let now = self.clock.now();
            if now >= due && self.local.apic().expire_timer(now) {
                self.timer_touched = true;
                self.local.post(request::INTERRUPT);
            }
        }
    }

    /// Waits in HLT, or for a start-up IPI.
    fn wait(&mut self) {
        self.expire_timer();
        if self.local.requests() != 0 {
            return;
        }
        let due =
            if self.events.activity == Activity::Halted { self.timer_deadline() } else { None };
        match due {
            None => self.local.sleep(None),
            Some(due) => match self.clock.wait_for(due) {
                Some(0) => {}
                Some(nanos) => self.local.sleep(Some(Duration::from_nanos(nanos))),
                None => self.clock.idle_until(due),
            },
        }
    }

    /// Handles what was posted, in order of priority (SDM 3A, 6.9).
    fn take_requests(&mut self) -> Result<Option<Exit>, Shutdown> {
        let posted = self.local.requests();
        if posted & request::STOP != 0 && self.local.take(request::STOP) != 0 {
            return Ok(Some(Exit::Stopped));
        }
        if posted & request::INIT != 0 && self.local.take(request::INIT) != 0 {
            self.init();
        }
        if posted & request::START_UP != 0
            && self.local.take(request::START_UP) != 0
            && self.events.activity == Activity::WaitForSipi
        {
            self.start_up(self.local.start_up_vector());
        }
        if posted & request::NMI != 0 && self.local.take(request::NMI) != 0 {
            self.events.nmi_pending = true;
        }
        let waiting = matches!(self.events.activity, Activity::WaitForSipi | Activity::Shutdown);
        if self.events.nmi_pending
            && !waiting
            && !self.events.nmi_blocked
            && !self.events.mov_ss_shadow
        {
            self.events.nmi_pending = false;
            self.events.nmi_blocked = true;
            self.events.activity = Activity::Running;
            self.interrupt(2)?;
        }
        if self.local.take(request::INTERRUPT) == 0 {
            return Ok(None);
        }
        // The request is dropped while interrupts are held back: whatever lets them through again
        // (`set_rflags`, the end of a shadow, a start-up) posts it anew.
        self.interrupts_held = !self.flags.interrupts();
        if waiting || self.interrupts_held || self.events.interrupt_shadow {
            return Ok(None);
        }
        let vector = self.local.apic().acknowledge();
        let vector = match vector {
            Some(vector) => vector,
            None if self.local.extint() => self.bus.acknowledge_extint(),
            None => return Ok(None),
        };
        // There may be more; what arrives from here on posts again by itself.
        self.local.post(request::INTERRUPT);
        self.events.activity = Activity::Running;
        self.interrupt(vector)?;
        Ok(None)
    }

    /// Runs one block, at most `budget` instructions of it, and delivers what it raised.
    pub(crate) fn step(&mut self, blocks: &mut BlockCache, budget: u64) -> Result<(), Shutdown> {
        let shadow = self.events.interrupt_shadow;
        let before = (shadow, self.events.mov_ss_shadow, self.flags.bits & rflags::RF);
        let watched = self.debug.dr7 & 0xff != 0;
        let mut most = u32::try_from(budget).unwrap_or(u32::MAX);
        if shadow || watched || self.flags.bits & (rflags::TF | rflags::RF) != 0 {
            most = 1;
        }
        if watched
            && self.flags.bits & rflags::RF == 0
            && !self.events.mov_ss_shadow
            && self.instruction_breakpoint()
        {
            // A fault, but its handler finds RF as it was (SDM 3B, 18.3.1.1).
            self.retired += 1;
            return self.deliver(Fault::DB, false);
        }
        self.flags.bits &= !rflags::RF;
        self.step_trap = self.flags.bits & rflags::TF != 0;
        // The shadow is over after this instruction, unless it casts a new one.
        (self.events.interrupt_shadow, self.events.mov_ss_shadow) = (false, false);
        let held_back = self.events.pending_debug;
        let done = self.execute(blocks, most);
        if shadow && self.local.requests() == 0 {
            // Requests were held back: look again.
            self.local.post(request::INTERRUPT);
        }
        if let Err(mut fault) = done {
            if fault == Fault::UD {
                fault = self.or_elsewhere(fault);
            }
            if fault == Fault::ELSEWHERE {
                self.give_back(before, held_back);
                return Ok(());
            }
            return self.fail(fault, held_back);
        }
        self.finish_traps()
    }

    /// Delivers the traps of an instruction that completed.
    fn finish_traps(&mut self) -> Result<(), Shutdown> {
        if std::mem::take(&mut self.step_trap) {
            self.events.pending_debug |= 1 << 14;
        }
        if self.events.pending_debug != 0 && !self.events.mov_ss_shadow {
            self.debug.dr6 |= std::mem::take(&mut self.events.pending_debug);
            return self.deliver(Fault::DB, false);
        }
        Ok(())
    }

    /// Finds or decodes the block at RIP and runs it.
    #[inline(always)]
    fn execute(&mut self, blocks: &mut BlockCache, most: u32) -> Done {
        let mode = self.mode;
        let rip = self.code_rip();
        self.this_rip = rip;
        let linear = self.code_linear(rip)?;
        if mode != Mode::Long && self.code_room(rip) < LONGEST_BLOCK {
            // Blocks know nothing of the segment's limit.
            return self.execute_straddling(linear, rip, mode);
        }
        let Some(host) = self.code_host(linear)? else {
            return self.execute_straddling(linear, rip, mode);
        };
        let page = self.tlb.page_index(host);
        let at = (page as u64) << 12 | linear & 0xfff;
        let generation = self.memory.pages().generation(page);
        if let Some(ops) = blocks.get(at, mode, generation) {
            return self.run_ops(ops, most);
        }
        let several = self.count > 1;
        let generation = self.memory.pages().mark_code(page, || {
            if several {
                barrier::drain_stores();
            }
        });
        let mut bytes = [0u8; 256];
        let ops = decode::block(raw::copy_to_page_end(host, &mut bytes), rip, mode);
        if ops.is_empty() {
            return self.execute_straddling(linear, rip, mode);
        }
        self.run_ops(blocks.insert(at, mode, generation, &ops), most)
    }

    #[inline(always)]
    fn run_ops(&mut self, ops: &[Op], most: u32) -> Done {
        self.left = most.min(ops.len() as u32);
        let mut done = 0u32;
        let mut next = self.this_rip;
        for op in ops {
            self.this_rip = next;
            self.regs[17] = next.wrapping_add(u64::from(op.len));
            if let Err(fault) = (op.exec)(self, op) {
                self.retired += u64::from(done);
                return Err(fault);
            }
            done += 1;
            if done >= self.left {
                break;
            }
            next = self.regs[17];
        }
        self.retired += u64::from(done);
        if self.regs[17] == self.this_rip {
            self.note_iteration(ops, done);
        }
        Ok(())
    }

    /// A repeated string instruction that has iterations left goes on with RF set: its breakpoint
    /// was taken already (SDM 3B, 18.3.1.1).
    #[cold]
    fn note_iteration(&mut self, ops: &[Op], done: u32) {
        let last = (done as usize).checked_sub(1).and_then(|n| ops.get(n));
        if last.is_some_and(|op| op.has_memory() && op.prefix & (Op::REP | Op::REPNE) != 0) {
            self.flags.bits |= rflags::RF;
        }
    }

    /// RIP cut to the code segment's width.
    #[inline(always)]
    fn code_rip(&self) -> u64 {
        match self.mode {
            Mode::Long => self.rip(),
            Mode::Protected32 => self.rip() & 0xffff_ffff,
            // A 16-bit segment may still be run with 32-bit EIP: the limit decides.
            _ => self.rip() & 0xffff_ffff,
        }
    }

    /// Linear address of the instruction at `rip`.
    #[inline(always)]
    fn code_linear(&self, rip: u64) -> Done<u64> {
        if self.mode == Mode::Long {
            return Ok(rip);
        }
        let cs = &self.segs[usize::from(seg::CS)];
        if rip > u64::from(cs.limit) {
            return Err(Fault::GP0);
        }
        Ok(cs.base.wrapping_add(rip) & 0xffff_ffff)
    }

    /// Bytes from `rip`, which is within it, to the end of the code segment.
    #[inline(always)]
    fn code_room(&self, rip: u64) -> u64 {
        u64::from(self.segs[usize::from(seg::CS)].limit) - rip + 1
    }

    /// Host address of an executable byte, filling the TLB; `None` when it is not RAM.
    #[inline(always)]
    pub(crate) fn code_host(&mut self, linear: u64) -> Done<Option<*mut u8>> {
        match self.tlb.exec(linear) {
            Some(host) => Ok(Some(host)),
            None => self.fetch_host(linear, Access::Execute),
        }
    }

    /// The instruction across two pages at `linear`, if it was run before and has the same bytes.
    fn known_straddler(&self, linear: u64, mode: Mode) -> Option<Op> {
        let known = self.straddlers[straddler(linear)].as_ref()?;
        if mode != Mode::Long || known.linear != linear {
            return None;
        }
        let first = (4096 - (linear & 0xfff) as usize).min(decode::MAX_LEN);
        let mut bytes = [0; decode::MAX_LEN];
        raw::copy_out(self.tlb.exec(linear)?, &mut bytes[..first]);
        if first < bytes.len() {
            let next = linear.wrapping_add(first as u64);
            raw::copy_out(self.tlb.exec(next)?, &mut bytes[first..]);
        }
        (bytes == known.bytes).then_some(known.op)
    }

    /// Runs one instruction that crosses a page, does not lie in RAM, or is close to the end of its
    /// segment. Not cached.
    #[cold]
    fn execute_straddling(&mut self, linear: u64, rip: u64, mode: Mode) -> Done {
        let mut bytes = [0u8; decode::MAX_LEN];
        if let Some(op) = self.known_straddler(linear, mode) {
            return self.run_ops(&[op], 1);
        }
        let room = if mode == Mode::Long { u64::MAX } else { self.code_room(rip) };
        let room = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        let bytes = &mut bytes[..room];
        let first = (4096 - (linear & 0xfff) as usize).min(bytes.len());
        self.fetch_bytes(linear, &mut bytes[..first])?;
        let mut have = first;
        let mut decoded = decode::single(&bytes[..have], rip, mode);
        if matches!(decoded, One::NeedMore) && have < bytes.len() {
            let next = linear.wrapping_add(have as u64);
            let next = if mode == Mode::Long { next } else { next & 0xffff_ffff };
            self.fetch_bytes(next, &mut bytes[have..])?;
            have = bytes.len();
            decoded = decode::single(&bytes[..have], rip, mode);
        }
        match decoded {
            One::Op(op, _) => {
                if mode == Mode::Long && have == decode::MAX_LEN {
                    let bytes = *bytes.first_chunk().unwrap_or(&[0; decode::MAX_LEN]);
                    self.straddlers[straddler(linear)] = Some(Straddler { linear, bytes, op });
                }
                self.run_ops(&[op], 1)
            }
            // Longer than its segment.
            One::NeedMore => Err(Fault::GP0),
        }
    }
}
