//! The local APIC's registers as the kernel gives them (KVM API 4.57): the xAPIC's page, SDM 3A table
//! 11-1, to and from the table of state.

use kvm_bindings::kvm_lapic_state;
use riad_clock::Nanos;
use riad_cpu::x86::LapicState;
use riad_cpu::x86::lapic::{BASE_X2APIC, Lapic};

const ID: usize = 0x20;
const VERSION: usize = 0x30;
const TPR: usize = 0x80;
const LDR: usize = 0xd0;
const DFR: usize = 0xe0;
const SVR: usize = 0xf0;
const ISR: usize = 0x100;
const TMR: usize = 0x180;
const IRR: usize = 0x200;
const ESR: usize = 0x280;
const ICR: usize = 0x300;
const ICR_HIGH: usize = 0x310;
const LVT: usize = 0x320;
const INITIAL: usize = 0x380;
const CURRENT: usize = 0x390;
const DIVIDE: usize = 0x3e0;

/// What the version register says: integrated, six entries, end-of-interrupt suppression.
const VERSION_VALUE: u32 = 0x14 | 5 << 16 | 1 << 24;

/// Reads a register.
pub(super) fn get(page: &kvm_lapic_state, at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| page.regs[at + i] as u8))
}

fn set(page: &mut kvm_lapic_state, at: usize, value: u32) {
    for (i, byte) in value.to_le_bytes().into_iter().enumerate() {
        page.regs[at + i] = byte as std::ffi::c_char;
    }
}

/// Counts of the bus in one of the timer (SDM 3A, figure 11-10).
fn divider(divide: u32) -> u64 {
    let bits = divide & 3 | divide >> 1 & 4;
    if bits == 7 { 1 } else { 2 << bits }
}

/// Whether the timer counts down by itself, rather than waiting for a deadline.
fn counts(lvt_timer: u32) -> bool {
    lvt_timer >> 17 & 3 < 2
}

/// The table's form. `now` is guest time; `id` the processor's; `deadline` IA32_TSC_DEADLINE.
pub(super) fn read(
    page: &kvm_lapic_state,
    base: u64,
    id: u32,
    deadline: u64,
    now: Nanos,
) -> LapicState {
    let x2apic = base & BASE_X2APIC != 0;
    let row = |at: usize| std::array::from_fn(|i| get(page, at + i * 16));
    let lvt: [u32; 6] = std::array::from_fn(|i| get(page, LVT + i * 16));
    let (initial, current) = (get(page, INITIAL), get(page, CURRENT));
    let divide = get(page, DIVIDE);
    let periodic = lvt[0] >> 17 & 3 == 1;
    let runs = counts(lvt[0]) && initial != 0 && (current != 0 || periodic);
    let counted = u64::from(initial.saturating_sub(current)) * divider(divide);
    LapicState {
        base,
        id,
        tpr: get(page, TPR) as u8,
        ldr: get(page, LDR),
        dfr: if x2apic { u32::MAX } else { get(page, DFR) },
        svr: get(page, SVR),
        isr: row(ISR),
        tmr: row(TMR),
        irr: row(IRR),
        esr: get(page, ESR),
        esr_pending: 0,
        icr: u64::from(get(page, ICR) & !(1 << 12)) | u64::from(get(page, ICR_HIGH)) << 32,
        lvt,
        timer_initial: initial,
        timer_divide: divide,
        timer_start: runs.then(|| now.saturating_sub(counted)),
        tsc_deadline: deadline,
    }
}

/// Whether the state's one-shot count is over. Given the count, the kernel would have it end again.
pub(super) fn is_spent(state: &LapicState) -> bool {
    is_one_shot(state.lvt[0]) && state.timer_initial != 0 && state.timer_start.is_none()
}

/// The kernel's form, for `KVM_SET_LAPIC`: its timer goes on with the current count; one that is
/// [spent](is_spent) is none.
pub(super) fn write(state: &LapicState, now: Nanos) -> kvm_lapic_state {
    let spent = is_spent(state);
    let current = if counts(state.lvt[0]) {
        Lapic::restore(state.clone()).mmio_read(CURRENT as u64, now)
    } else {
        0
    };
    let LapicState {
        base,
        id,
        tpr,
        ldr,
        dfr,
        svr,
        isr,
        tmr,
        irr,
        esr,
        esr_pending: _,
        icr,
        lvt,
        timer_initial,
        timer_divide,
        timer_start: _,
        tsc_deadline: _,
    } = state;
    let x2apic = base & BASE_X2APIC != 0;
    let mut page = kvm_lapic_state { regs: [0; 1024] };
    let mut put = |at: usize, value: u32| set(&mut page, at, value);
    put(ID, if x2apic { *id } else { id << 24 });
    put(VERSION, VERSION_VALUE);
    put(TPR, u32::from(*tpr));
    put(LDR, *ldr);
    put(DFR, *dfr);
    put(SVR, *svr);
    put(ESR, *esr);
    put(ICR, *icr as u32);
    put(ICR_HIGH, (icr >> 32) as u32);
    put(INITIAL, if spent { 0 } else { *timer_initial });
    put(CURRENT, current);
    put(DIVIDE, *timer_divide);
    for i in 0..8 {
        put(ISR + i * 16, isr[i]);
        put(TMR + i * 16, tmr[i]);
        put(IRR + i * 16, irr[i]);
    }
    for (i, entry) in lvt.iter().enumerate() {
        put(LVT + i * 16, *entry);
    }
    page
}

/// Whether the timer counts down once.
fn is_one_shot(lvt_timer: u32) -> bool {
    lvt_timer >> 17 & 3 == 0
}

/// The initial count of a one-shot count that is over.
pub(super) fn over(page: &kvm_lapic_state) -> Option<u32> {
    let (initial, current) = (get(page, INITIAL), get(page, CURRENT));
    (is_one_shot(get(page, LVT)) && initial != 0 && current == 0).then_some(initial)
}

/// Has the state show the initial count that a [spent](is_spent) timer had.
pub(super) fn show_spent(state: &mut LapicState, initial: u32) {
    if is_one_shot(state.lvt[0]) && state.timer_initial == 0 {
        state.timer_initial = initial;
    }
}

/// A timer that stands still, while guest time does: the kernel's would run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stopped {
    initial: u32,
    current: u32,
    /// IA32_TSC_DEADLINE.
    pub(super) deadline: u64,
}

impl Stopped {
    /// Takes the timer's count out of the page.
    pub(super) fn take(page: &mut kvm_lapic_state, deadline: u64) -> Self {
        let (initial, current) = (get(page, INITIAL), get(page, CURRENT));
        set(page, INITIAL, 0);
        set(page, CURRENT, 0);
        Self { initial, current, deadline }
    }

    /// Puts it back.
    pub(super) fn put(self, page: &mut kvm_lapic_state) {
        set(page, INITIAL, self.initial);
        set(page, CURRENT, self.current);
    }
}

/// Level-triggered vectors that are requested or in service: I/O APICs wait for their end.
pub(super) fn level_vectors(state: &LapicState) -> impl Iterator<Item = u8> {
    let (isr, irr, tmr) = (state.isr, state.irr, state.tmr);
    (16u8..=255).filter(move |vector| {
        let (word, bit) = (usize::from(vector >> 5), 1u32 << (vector & 31));
        tmr[word] & bit != 0 && (isr[word] | irr[word]) & bit != 0
    })
}

#[cfg(test)]
#[path = "lapic_test.rs"]
mod tests;
