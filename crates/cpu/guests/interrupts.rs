//! Interrupts from outside: when they come, in which order, and how a processor is woken; the local
//! APIC and its timer (SDM 3A, chapters 7 and 11).

use std::sync::atomic::Ordering;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use riad_cpu::x86::rflags::IF;
use riad_cpu::x86::{Activity, LapicState};
use riad_cpu::{Exit, Limit, Vcpu};

use super::Lender;
use super::machine::{CODE, DATA, Guest, STACK, sel, stop};

/// Registers of the local APIC.
const APIC: u64 = 0xfee0_0000;
const TPR: u32 = 0x80;
const EOI: u32 = 0xb0;
const ICR: u32 = 0x300;
const LVT_TIMER: u32 = 0x320;
const INITIAL: u32 = 0x380;
const CURRENT: u32 = 0x390;
const DIVIDE: u32 = 0x3e0;

const HANDLER: u64 = 0x1_8000;

/// Protected mode with the local APIC on, and ESI at its registers.
fn guest() -> Guest {
    let mut guest = Guest::protected();
    guest.state.apic.svr = 0x1ff;
    guest.state.gpr[6] = APIC;
    guest
}

fn set(a: &mut CodeAssembler, register: u32, value: u32) -> Result<(), IcedError> {
    a.mov(dword_ptr(esi + register), value)
}

/// Requests a vector of processor 0.
fn request(guest: &Guest, vector: u8) {
    guest.engine.send_msi(APIC, u32::from(vector));
}

/// Requests a vector, then runs.
fn interrupted(guest: &mut Guest, vector: u8) -> Option<super::machine::Trap> {
    guest.vcpu.set_state(&guest.state).expect("state");
    request(guest, vector);
    resume(guest)
}

/// Runs on from where the processor is.
fn resume(guest: &mut Guest) -> Option<super::machine::Trap> {
    let exit = guest.vcpu.run(Limit::Instructions(1_000_000)).expect("an exit");
    guest.state = guest.vcpu.state().expect("state");
    assert_eq!(exit, Exit::Stopped);
    guest.trap()
}

// --- when (SDM 3A, 7.8) ---

#[test]
fn an_interrupt_comes_before_the_next_instruction_when_if_is_set_and_waits_otherwise() {
    let mut guest = guest();
    guest.program(|a| a.nop());
    assert_eq!(interrupted(&mut guest, 0x40), None);
    assert_eq!(guest.state.apic.irr[2], 1, "it waits");
    guest.state.rip = CODE;
    guest.state.rflags |= IF;
    let trap = guest.traps();
    assert_eq!((trap.vector, trap.ip), (0x40, CODE));
    assert_eq!((guest.state.apic.irr[2], guest.state.apic.isr[2]), (0, 1));
}

#[test]
fn sti_holds_interrupts_back_for_one_instruction() {
    let mut guest = guest();
    guest.program(|a| {
        a.sti()?;
        a.inc(eax)?;
        a.inc(eax)
    });
    let trap = interrupted(&mut guest, 0x40).expect("an interrupt");
    assert_eq!((trap.vector, trap.ip, guest.rax()), (0x40, CODE + 2, 1));
}

#[test]
fn sti_then_cli_lets_nothing_in() {
    let mut guest = guest();
    guest.program(|a| {
        a.sti()?;
        a.cli()?;
        a.nop()
    });
    assert_eq!(interrupted(&mut guest, 0x40), None);
}

#[test]
fn popf_and_iret_let_interrupts_in_at_once() {
    let mut guest = guest();
    guest.program(|a| {
        a.push(0x202)?;
        a.popfd()?;
        a.inc(eax)
    });
    let trap = interrupted(&mut guest, 0x40).expect("an interrupt");
    assert_eq!((trap.vector, guest.rax()), (0x40, 0));
    let mut guest = self::guest();
    guest.program(|a| {
        let mut next = a.create_label();
        a.push(0x202)?;
        a.push(u32::from(sel::CODE32) as i32)?;
        a.call(next)?;
        a.set_label(&mut next)?;
        a.add(dword_ptr(esp), 5)?;
        a.iretd()?;
        a.inc(eax)
    });
    let trap = interrupted(&mut guest, 0x40).expect("an interrupt");
    assert_eq!((trap.vector, guest.rax()), (0x40, 0));
}

#[test]
fn mov_ss_and_pop_ss_hold_interrupts_back_for_one_instruction() {
    type Body = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let bodies: [Body; 2] = [|a| a.mov(ss, ecx), |a| a.pop(ss)];
    for (body, length) in bodies.into_iter().zip([2, 1]) {
        let mut guest = guest();
        guest.state.gpr[1] = u64::from(sel::DATA0);
        guest.state.gpr[4] = STACK - 4;
        guest.memory.write_u32(riad_memory::Gpa(STACK - 4), sel::DATA0.into()).expect("RAM");
        guest.program(|a| {
            a.sti()?;
            body(a)?;
            a.inc(eax)?;
            a.inc(eax)
        });
        let trap = interrupted(&mut guest, 0x40).expect("an interrupt");
        assert_eq!((trap.ip, guest.rax()), (CODE + 1 + length + 1, 1));
    }
}

#[test]
fn an_interrupt_in_a_repetition_finds_registers_that_say_what_is_left_and_rf_set() {
    let mut guest = guest();
    guest.state.rflags |= IF;
    guest.state.gpr[1] = 0x40_0000;
    guest.state.gpr[7] = DATA;
    guest.state.apic.lvt[0] = 0x40;
    guest.program(|a| {
        set(a, DIVIDE, 0xb)?;
        set(a, INITIAL, 1)?;
        a.rep().stosb()
    });
    guest.gate32(0x40, HANDLER, 0x8e);
    guest.code(HANDLER, 32, stop);
    guest.state.gpr[0] = 0x5a;
    guest.vcpu.set_state(&guest.state).expect("state");
    let exit = guest.vcpu.run(Limit::Instructions(5000)).expect("an exit");
    guest.state = guest.vcpu.state().expect("state");
    assert_eq!(exit, Exit::Stopped);
    // Either it was over before the timer was looked at, or it was cut at an iteration.
    let done = 0x40_0000 - guest.rcx();
    assert_eq!(guest.state.gpr[7], DATA + done);
    let flags = guest.peek32(guest.state.gpr[4] + 8);
    assert_eq!(flags >> 16 & 1 == 1, guest.rcx() != 0);
}

// --- halting ---

#[test]
fn an_interrupt_wakes_a_halted_processor_after_its_hlt() {
    let mut guest = guest();
    guest.program(|a| {
        a.sti()?;
        a.hlt()
    });
    let trap = interrupted(&mut guest, 0x40).expect("an interrupt");
    assert_eq!((trap.ip, guest.state.events.activity), (CODE + 2, Activity::Running));
}

#[test]
fn halting_is_a_state_that_can_be_saved() {
    let mut guest = guest();
    guest.state.rflags |= IF;
    guest.state.rip = CODE + 7;
    guest.state.events.activity = Activity::Halted;
    guest.vcpu.set_state(&guest.state).expect("state");
    guest.vcpu.handle().stop();
    assert_eq!(guest.vcpu.run(Limit::None).expect("an exit"), Exit::Stopped);
    let state = guest.vcpu.state().expect("state");
    assert_eq!(state.events.activity, Activity::Halted);
    request(&guest, 0x41);
    let trap = resume(&mut guest).expect("an interrupt");
    assert_eq!((trap.vector, trap.ip), (0x41, CODE + 7));
}

// --- the timer (SDM 3A, 11.5.4) ---

#[test]
fn a_one_shot_timer_fires_once_at_its_time() {
    let mut guest = guest();
    guest.program(|a| {
        set(a, DIVIDE, 0x0)?; // by 2
        set(a, LVT_TIMER, 0x40)?;
        set(a, INITIAL, 500_000)?;
        a.sti()?;
        a.hlt()
    });
    let trap = guest.traps();
    assert_eq!((trap.vector, trap.ip), (0x40, CODE + 32));
    guest.is_at(1_000_000..1_100_000);
    assert_eq!(guest.state.apic.timer_start, None);
}

#[test]
fn a_periodic_timer_fires_again_and_again() {
    let mut guest = guest();
    guest.gate32(0x40, HANDLER, 0x8e);
    guest.code(HANDLER, 32, |a| {
        let mut on = a.create_label();
        a.inc(ecx)?;
        set(a, EOI, 0)?;
        a.cmp(ecx, 5)?;
        a.jne(on)?;
        stop(a)?;
        a.set_label(&mut on)?;
        a.iretd()
    });
    guest.program(|a| {
        let mut again = a.create_label();
        set(a, DIVIDE, 0xb)?;
        set(a, LVT_TIMER, 0x2_0040)?;
        set(a, INITIAL, 300_000)?;
        a.sti()?;
        a.set_label(&mut again)?;
        a.hlt()?;
        a.jmp(again)
    });
    guest.finishes();
    guest.is_at(1_500_000..1_600_000);
}

#[test]
fn a_timer_interrupts_running_code_too() {
    let mut guest = guest();
    guest.program(|a| {
        let mut again = a.create_label();
        set(a, DIVIDE, 0xb)?;
        set(a, LVT_TIMER, 0x40)?;
        set(a, INITIAL, 100_000)?;
        a.sti()?;
        a.set_label(&mut again)?;
        a.inc(eax)?;
        a.jmp(again)
    });
    assert_eq!(guest.traps().vector, 0x40);
    guest.is_at(100_000..150_000);
    let turns = if Lender::COUNTS { 4_000..8_000 } else { 1..u64::MAX };
    assert!(turns.contains(&guest.rax()), "{}", guest.rax());
}

#[test]
fn the_tsc_deadline_fires_when_the_counter_gets_there() {
    // In nanoseconds, and in counts.
    for least in [700_000, 0] {
        let ahead = (least * u64::from(Lender::tsc_khz()) / 1_000_000) as u32;
        let mut guest = guest();
        guest.program(|a| {
            set(a, LVT_TIMER, 0x4_0040)?;
            a.mov(ecx, 0x6e0)?;
            a.rdtsc()?;
            a.add(eax, ahead)?;
            a.or(eax, 1)?;
            a.wrmsr()?;
            a.sti()?;
            a.hlt()
        });
        assert_eq!(guest.traps().vector, 0x40);
        guest.is_at(least..least + 100_000);
        assert_eq!(guest.state.apic.tsc_deadline, 0, "it reads as zero once it fired");
    }
}

#[test]
fn the_current_count_counts_down_and_a_masked_timer_says_nothing() {
    let mut guest = guest();
    guest.state.rflags |= IF;
    guest.clock.advance(1000);
    guest.program(|a| {
        set(a, DIVIDE, 0xb)?;
        set(a, LVT_TIMER, 0x1_0040)?;
        set(a, INITIAL, 1_000_000)?;
        a.mov(eax, dword_ptr(esi + CURRENT))?;
        a.mov(ecx, 5_000)?;
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.dec(ecx)?;
        a.jne(again)?;
        a.mov(ebx, dword_ptr(esi + CURRENT))
    });
    guest.finishes();
    assert!(guest.rbx() < guest.rax() && guest.rax() <= 1_000_000);
}

// --- priorities (SDM 3A, 11.8.3) ---

#[test]
fn the_task_priority_holds_back_its_class_and_below() {
    for (tpr, comes) in [(0x30, true), (0x3f, true), (0x40, false), (0x50, false)] {
        let mut guest = guest();
        guest.state.rflags |= IF;
        guest.state.apic.tpr = tpr;
        guest.program(|a| a.nop());
        assert_eq!(interrupted(&mut guest, 0x45).is_some(), comes, "{tpr:#x}");
    }
}

#[test]
fn lowering_the_task_priority_lets_interrupts_in_at_once() {
    let mut guest = guest();
    guest.state.rflags |= IF;
    guest.state.apic.tpr = 0xf0;
    guest.program(|a| {
        a.inc(eax)?;
        set(a, TPR, 0x20)?;
        a.inc(eax)
    });
    let trap = interrupted(&mut guest, 0x45).expect("an interrupt");
    assert_eq!((trap.vector, guest.rax()), (0x45, 1));
    // By CR8 too.
    let mut guest = Guest::long();
    guest.state.apic.svr = 0x1ff;
    guest.state.apic.tpr = 0xf0;
    guest.state.rflags |= IF;
    guest.state.gpr[3] = 4;
    guest.program(|a| {
        a.mov(rax, cr8)?;
        a.mov(cr8, rbx)?;
        a.dec(rbx)?;
        a.mov(cr8, rbx)?;
        a.dec(rbx)
    });
    assert_eq!(interrupted(&mut guest, 0x45).map(|t| t.vector), Some(0x45));
    assert_eq!((guest.rax(), guest.rbx(), guest.state.apic.tpr), (15, 3, 0x30));
}

#[test]
fn only_a_higher_class_interrupts_a_handler_before_its_end() {
    let mut guest = guest();
    guest.state.rflags |= IF;
    guest.gate32(0x45, HANDLER, 0x8f);
    guest.code(HANDLER, 32, |a| {
        a.inc(eax)?;
        a.inc(eax)?;
        set(a, EOI, 0)?;
        a.inc(eax)?;
        a.inc(eax)
    });
    guest.program(|a| a.nop());
    guest.vcpu.set_state(&guest.state).expect("state");
    request(&guest, 0x45);
    request(&guest, 0x42);
    let trap = resume(&mut guest).expect("an interrupt");
    assert_eq!((trap.vector, guest.rax()), (0x42, 2), "after the end of 0x45");
    // Two at once: the higher vector comes first, and the other waits behind it.
    let mut guest = self::guest();
    guest.state.rflags |= IF;
    guest.program(|a| a.nop());
    guest.vcpu.set_state(&guest.state).expect("state");
    request(&guest, 0x42);
    request(&guest, 0x61);
    assert_eq!(resume(&mut guest).expect("an interrupt").vector, 0x61);
    assert_eq!(guest.state.apic.irr[2], 1 << 2);
}

#[test]
fn the_end_of_a_level_triggered_interrupt_is_announced() {
    for (data, announced) in [(0x45, vec![]), (0xc045, vec![0x45])] {
        let mut guest = guest();
        guest.state.rflags |= IF;
        guest.gate32(0x45, HANDLER, 0x8e);
        guest.code(HANDLER, 32, |a| {
            set(a, EOI, 0)?;
            stop(a)
        });
        guest.program(|a| a.nop());
        guest.vcpu.set_state(&guest.state).expect("state");
        guest.engine.send_msi(APIC, data);
        assert_eq!(resume(&mut guest), None);
        assert_eq!(*guest.world.ended.lock().expect("ended"), announced);
    }
}

#[test]
fn an_apic_that_software_turned_off_takes_nothing() {
    let mut guest = guest();
    guest.state.apic.svr = 0xff;
    guest.state.rflags |= IF;
    guest.program(|a| a.nop());
    assert_eq!(interrupted(&mut guest, 0x45), None);
}

// --- NMI (SDM 3A, 7.7) ---

const NMI: u32 = 0x4400;

#[test]
fn an_nmi_comes_whatever_if_says_and_others_wait_for_iret() {
    let mut guest = guest();
    guest.gate32(2, HANDLER, 0x8e);
    guest.code(HANDLER, 32, |a| {
        let mut done = a.create_label();
        a.inc(eax)?;
        a.inc(ebx)?;
        a.cmp(eax, 2)?;
        a.je(done)?;
        // Another one, to ourselves: it has to wait.
        set(a, ICR, NMI)?;
        a.nop()?;
        a.mov(ecx, eax)?;
        a.set_label(&mut done)?;
        a.dec(ebx)?;
        a.iretd()
    });
    guest.program(|a| a.nop());
    guest.vcpu.set_state(&guest.state).expect("state");
    guest.engine.send_msi(APIC, NMI);
    assert_eq!(resume(&mut guest), None);
    assert_eq!((guest.rax(), guest.rbx(), guest.rcx()), (2, 0, 1));
    assert!(!guest.state.events.nmi_blocked);
}

#[test]
fn an_iret_that_faults_unblocks_nmis() {
    let mut guest = guest();
    guest.gate32(2, HANDLER, 0x8e);
    guest.gate32(13, HANDLER + 0x100, 0x8e);
    guest.code(HANDLER, 32, |a| {
        let mut done = a.create_label();
        a.inc(eax)?;
        a.cmp(eax, 2)?;
        a.je(done)?;
        set(a, ICR, NMI)?;
        a.mov(dword_ptr(esp + 4), 0x1f8)?;
        a.iretd()?;
        a.set_label(&mut done)?;
        stop(a)
    });
    guest.code(HANDLER + 0x100, 32, |a| {
        a.inc(ebx)?;
        stop(a)
    });
    guest.program(|a| a.nop());
    guest.vcpu.set_state(&guest.state).expect("state");
    guest.engine.send_msi(APIC, NMI);
    assert_eq!(resume(&mut guest), None);
    assert_eq!((guest.rax(), guest.rbx()), (2, 0), "before the handler of #GP began");
}

#[test]
fn mov_ss_holds_nmis_back_and_sti_does_not() {
    let mut guest = guest();
    guest.state.gpr[1] = u64::from(sel::DATA0);
    guest.state.events.interrupt_shadow = true;
    guest.state.events.mov_ss_shadow = true;
    guest.program(|a| {
        a.inc(eax)?;
        a.inc(eax)
    });
    guest.vcpu.set_state(&guest.state).expect("state");
    guest.engine.send_msi(APIC, NMI);
    let trap = resume(&mut guest).expect("an NMI");
    assert_eq!((trap.vector, trap.ip), (2, CODE + 1));
}

#[test]
fn an_nmi_wakes_a_halted_processor_even_with_if_clear() {
    let mut guest = guest();
    guest.state.events.activity = Activity::Halted;
    guest.vcpu.set_state(&guest.state).expect("state");
    guest.engine.send_msi(APIC, NMI);
    assert_eq!(resume(&mut guest).expect("an NMI").vector, 2);
}

// --- the 8259's wire ---

#[test]
fn an_8259_interrupt_asks_the_bus_for_its_vector() {
    let mut guest = guest();
    guest.state.rflags |= IF;
    guest.state.apic.lvt[3] = 0x700;
    guest.world.extint.lock().expect("extint").push_back(0x33);
    guest.program(|a| a.nop());
    guest.engine.set_extint(true);
    let trap = guest.traps();
    assert_eq!(trap.vector, 0x33);
    assert_eq!(guest.state.apic.isr, [0; 8], "it is not the local APIC's");
}

#[test]
fn a_masked_lint0_keeps_the_8259_out_until_it_is_unmasked() {
    let mut guest = guest();
    guest.state.rflags |= IF;
    guest.state.apic.lvt[3] = 0x1_0700;
    guest.world.extint.lock().expect("extint").push_back(0x33);
    guest.program(|a| {
        a.inc(eax)?;
        set(a, 0x350, 0x700)?;
        a.inc(eax)
    });
    guest.engine.set_extint(true);
    let trap = guest.traps();
    assert_eq!((trap.vector, guest.rax()), (0x33, 1));
}

#[test]
fn with_the_local_apic_off_the_8259_is_wired_straight_through() {
    let mut guest = guest();
    guest.state.rflags |= IF;
    guest.state.apic.base &= !(1 << 11);
    guest.world.extint.lock().expect("extint").push_back(0x34);
    guest.program(|a| a.nop());
    guest.engine.set_extint(true);
    assert_eq!(guest.traps().vector, 0x34);
}

// --- x2APIC (SDM 3A, 11.12) ---

#[test]
fn x2apic_registers_are_msrs_and_there_is_a_self_ipi() {
    let mut guest = guest();
    guest.program(|a| {
        a.mov(ecx, 0x1b)?;
        a.rdmsr()?;
        a.or(eax, 0xc00)?;
        a.wrmsr()?;
        a.mov(ecx, 0x80d)?;
        a.rdmsr()?;
        a.mov(ebx, eax)?;
        a.xor(edx, edx)?;
        a.mov(eax, 0x47)?;
        a.mov(ecx, 0x83f)?;
        a.wrmsr()?;
        a.sti()?;
        a.nop()?;
        a.nop()
    });
    let trap = guest.traps();
    assert_eq!((trap.vector, guest.rbx()), (0x47, 1));
}

// --- two processors ---

/// Processor 1 in the same state as processor 0, with a stack of its own.
pub(crate) fn second(guest: &Guest, rip: u64) -> Box<dyn Vcpu> {
    let mut other = guest.another(1);
    let mut state = guest.state.clone();
    state.apic = LapicState { svr: guest.state.apic.svr, ..LapicState::reset(1) };
    state.rip = rip;
    state.gpr[4] = STACK - 0x800;
    other.set_state(&state).expect("state");
    other
}

/// Runs two processors, each on its thread, until one of them stops both.
pub(crate) fn run_both(guest: &mut Guest, mut other: Box<dyn Vcpu>) {
    guest.vcpu.set_state(&guest.state).expect("state");
    std::thread::scope(|scope| {
        let vcpu = &mut guest.vcpu;
        scope.spawn(move || assert_eq!(vcpu.run(Limit::None).expect("an exit"), Exit::Stopped));
        scope.spawn(move || assert_eq!(other.run(Limit::None).expect("an exit"), Exit::Stopped));
    });
    std::sync::atomic::fence(Ordering::SeqCst);
    guest.state = guest.vcpu.state().expect("state");
}

#[test]
fn interrupts_between_processors_wake_and_reach_each_other() {
    const ROUNDS: i32 = 500;
    let mut guest = guest();
    // Each handler counts, ends the interrupt, and answers, until processor 0 has had enough.
    for (vector, handler, to) in [(0x50u32, HANDLER, 1u32), (0x51, HANDLER + 0x100, 0)] {
        guest.gate32(vector as u8, handler, 0x8e);
        guest.code(handler, 32, |a| {
            let mut on = a.create_label();
            a.inc(ecx)?;
            set(a, EOI, 0)?;
            a.cmp(ecx, ROUNDS)?;
            a.jne(on)?;
            if to == 1 {
                stop(a)?;
            }
            a.set_label(&mut on)?;
            set(a, ICR + 0x10, to << 24)?;
            set(a, ICR, 0x4050 + to)?;
            a.iretd()
        });
    }
    let idle = |a: &mut CodeAssembler| {
        let mut again = a.create_label();
        a.sti()?;
        a.set_label(&mut again)?;
        a.hlt()?;
        a.jmp(again)
    };
    guest.code(CODE + 0x1000, 32, idle);
    guest.program(|a| {
        set(a, ICR + 0x10, 1 << 24)?;
        set(a, ICR, 0x4051)?;
        idle(a)
    });
    let other = second(&guest, CODE + 0x1000);
    run_both(&mut guest, other);
    assert_eq!(guest.rcx(), ROUNDS as u64);
}
