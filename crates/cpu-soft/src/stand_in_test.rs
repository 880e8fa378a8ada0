use std::sync::Arc;

use riad_clock::ManualClock;
use riad_cpu::x86::{Activity, VcpuState};
use riad_cpu::{Nowhere, Vcpu, VcpuConfig};
use riad_memory::{Gpa, GuestMemory};

use super::{Purpose, Stretch, Undelivered};
use crate::{Options, SoftEngine, SoftVcpu, Tier};

const CODE: u64 = 0x1000;

fn processor(code: &[u8]) -> (SoftVcpu, GuestMemory, VcpuState) {
    let memory = GuestMemory::new(&[(Gpa(0), 1 << 20)]).unwrap();
    memory.write(Gpa(CODE), code).unwrap();
    let options = Options { tier: Tier::Interpreter, ..Options::default() };
    let config = VcpuConfig { count: 1, tsc_khz: 1_000_000 };
    let clock = Arc::new(ManualClock::new(0));
    let engine = SoftEngine::with_options(memory.clone(), clock, config, options);
    let vcpu = engine.vcpu(0, Arc::new(Nowhere));
    (vcpu, memory, VcpuState::flat_protected(0, CODE as u32))
}

#[test]
fn a_stretch_is_as_long_as_asked_for() {
    // inc eax, four times
    let (mut vcpu, _, state) = processor(&[0x40, 0x40, 0x40, 0x40]);
    assert_eq!(vcpu.stand_in(&state, None, 3, None).unwrap(), Stretch::Done);
    let after = vcpu.state().unwrap();
    assert_eq!((after.gpr[0], after.rip), (3, CODE + 3));
}

#[test]
fn it_ends_before_an_access_to_the_local_apic_and_nothing_of_it_is_done() {
    // inc eax; push dword [0xfee00020]; inc eax
    let code = [0x40, 0xff, 0x35, 0x20, 0x00, 0xe0, 0xfe, 0x40];
    let (mut vcpu, _, mut state) = processor(&code);
    state.gpr[4] = 0x8000;
    assert_eq!(vcpu.stand_in(&state, None, 100, None).unwrap(), Stretch::Elsewhere);
    let after = vcpu.state().unwrap();
    assert_eq!((after.gpr[0], after.rip, after.gpr[4]), (1, CODE + 1, 0x8000));
}

#[test]
fn an_apic_access_as_the_first_instruction_keeps_the_shadow() {
    let (mut vcpu, _, mut state) = processor(&[0xff, 0x35, 0x20, 0x00, 0xe0, 0xfe]);
    state.events.interrupt_shadow = true;
    assert_eq!(vcpu.stand_in(&state, None, 100, None).unwrap(), Stretch::Elsewhere);
    assert_eq!(vcpu.state().unwrap().rip, CODE);
    assert!(vcpu.state().unwrap().events.interrupt_shadow);
}

#[test]
fn a_halt_ends_it_and_a_requested_interrupt_is_left_alone() {
    // sti; nop; hlt
    let (mut vcpu, _, mut state) = processor(&[0xfb, 0x90, 0xf4]);
    state.apic.svr = 0x1ff;
    state.apic.irr[2] = 1;
    assert_eq!(vcpu.stand_in(&state, None, 100, None).unwrap(), Stretch::Done);
    let after = vcpu.state().unwrap();
    assert_eq!((after.events.activity, after.rip), (Activity::Halted, CODE + 3));
}

#[test]
fn code_that_changed_meanwhile_is_read_again() {
    let (mut vcpu, memory, state) = processor(&[0x40, 0x40]);
    vcpu.stand_in(&state, None, 1, None).unwrap();
    // As another engine's processor writes: nobody is told.
    let page = memory.page(Gpa(CODE)).unwrap();
    crate::raw::store(page.host, 0x48u8);
    vcpu.stand_in(&state, None, 1, None).unwrap();
    assert_eq!(vcpu.state().unwrap().gpr[0], u64::from(u32::MAX), "dec eax");
}

#[test]
fn what_was_accepted_is_delivered_first() {
    // A gate for vector 0x20 to CODE + 0x10, where there is inc eax.
    let (mut vcpu, memory, mut state) = processor(&[0x90; 32]);
    memory.write(Gpa(CODE + 0x10), &[0x40]).unwrap();
    memory.write_u64(Gpa(0x2100), 0x0000_8e00_0008_1010).unwrap();
    memory.write_u64(Gpa(0x3008), 0x00cf_9b00_0000_ffff).unwrap();
    (state.idtr.base, state.idtr.limit) = (0x2000, 0x7ff);
    (state.gdtr.base, state.gdtr.limit) = (0x3000, 0xff);
    state.gpr[4] = 0x8000;
    state.events.activity = Activity::Halted;
    let event = Some(Undelivered::Interrupt(0x20));
    assert_eq!(vcpu.stand_in(&state, event, 1, None).unwrap(), Stretch::Done);
    let after = vcpu.state().unwrap();
    assert_eq!((after.gpr[0], after.rip), (1, CODE + 0x11));
    assert_eq!(memory.read_u32(Gpa(0x8000 - 12)).unwrap(), CODE as u32);
}

#[test]
fn kernel_code_is_lent_until_level_3() {
    // A frame is pushed; IRETD to INC EAX at level 3.
    let code = [0x6a, 0x23, 0x6a, 0x00, 0x6a, 0x02, 0x6a, 0x1b, 0x68, 0x00, 0x20, 0, 0, 0xcf];
    let (mut vcpu, memory, mut state) = processor(&code);
    memory.write(Gpa(0x2000), &[0x40; 8]).unwrap();
    // Flat code and data of level 3 at 0x18 and 0x20.
    memory.write_u64(Gpa(0x3000 + 0x18), 0x00cf_fb00_0000_ffff).unwrap();
    memory.write_u64(Gpa(0x3000 + 0x20), 0x00cf_f300_0000_ffff).unwrap();
    state.gdtr = riad_cpu::x86::DescriptorTable { base: 0x3000, limit: 0x27 };
    state.gpr[4] = 0x8000;
    assert_eq!(vcpu.stand_in(&state, None, 100, Some(Purpose::Kernel)).unwrap(), Stretch::Done);
    let after = vcpu.state().unwrap();
    assert_eq!((after.rip, after.gpr[0], after.segments.ss.dpl()), (0x2000, 0, 3));
    // Without that it goes on.
    assert_eq!(vcpu.stand_in(&state, None, 10, None).unwrap(), Stretch::Done);
    assert_eq!(vcpu.state().unwrap().gpr[0], 4);
}

#[test]
fn what_the_other_processor_may_know_is_left_to_it() {
    // CPUID; UD2; RDMSR of a register that nobody knows, and of one that tells of the model.
    let cases = [(0xa2, 0), (0x0b, 0), (0x32, 0x1234), (0x32, 0x48)];
    for (opcode, number) in cases {
        let (mut vcpu, _, mut state) = processor(&[0x40, 0x0f, opcode, 0x40]);
        state.gpr[1] = number;
        assert_eq!(vcpu.stand_in(&state, None, 100, None).unwrap(), Stretch::Elsewhere);
        assert_eq!(vcpu.state().unwrap().rip, CODE + 1);
    }
    // Unless it does not know it either: then there is an exception, here without a handler.
    let (mut vcpu, _, state) = processor(&[0x0f, 0x0b]);
    let stretch = vcpu.stand_in(&state, None, 1, Some(Purpose::LastResort)).unwrap();
    assert_eq!(stretch, Stretch::Shutdown);
}
