use super::*;
use crate::x86::Segment;

fn long() -> VcpuState {
    let mut state = VcpuState::flat_protected(0, 0x1000);
    state.control.cr0 |= cr0::PG;
    state.control.cr4 = cr4::PAE;
    state.control.efer = efer::LME | efer::LMA;
    state.segments.cs.rights = 0xa09b;
    state
}

#[test]
fn states_that_machines_start_in_are_good() {
    for id in [0, 1] {
        VcpuState::reset(id).check().expect("RESET");
        VcpuState::flat_protected(id, 0x10_0000).check().expect("flat protected mode");
    }
    long().check().expect("long mode");
}

#[test]
fn states_no_processor_can_be_in_are_refused() {
    type Change = fn(&mut VcpuState);
    let changes: &[(&str, Change)] = &[
        ("CR0 or CR4", |s| s.control.cr4 |= 1 << 30),
        ("EFER or XCR0", |s| s.control.efer |= 1 << 15),
        ("EFER or XCR0", |s| s.control.xcr0 = 0),
        ("in real mode", |s| s.control.cr0 &= !cr0::PE),
        ("CR0.NW", |s| s.control.cr0 |= cr0::NW),
        ("EFER.LMA", |s| s.control.efer &= !efer::LMA),
        ("without CR4.PAE", |s| s.control.cr4 = 0),
        ("CR3", |s| s.control.cr3 = 1 << 50),
        ("RFLAGS", |s| s.rflags |= 1 << 40),
        ("EFLAGS.VM", |s| s.rflags |= rflags::VM),
        ("64-bit and 32-bit", |s| s.segments.cs.rights |= Segment::DB),
        ("no code segment", |s| s.segments.cs.rights |= Segment::UNUSABLE),
        ("base", |s| s.gdtr.base = 1 << 63),
        ("model-specific", |s| s.msrs.lstar = 1 << 63),
        ("DR6 or DR7", |s| s.debug.dr7 = 1 << 32),
        ("debug trap", |s| s.events.pending_debug = 1 << 60),
        ("MXCSR", |s| s.fpu.mxcsr = 1 << 31),
    ];
    for (words, change) in changes {
        let mut state = long();
        change(&mut state);
        let said = state.check().expect_err(words).to_string();
        assert!(said.contains(words), "{said:?} does not speak of {words}");
    }
}
