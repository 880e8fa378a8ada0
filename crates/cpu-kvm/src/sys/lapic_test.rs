use riad_cpu::x86::LapicState;
use riad_cpu::x86::lapic::BASE_X2APIC;

use super::{Stopped, get, is_spent, level_vectors, read, write};

fn busy(base: u64) -> LapicState {
    let mut state = LapicState::reset(3);
    state.base |= base;
    state.tpr = 0x31;
    state.ldr = if base == 0 { 0x0800_0000 } else { 8 };
    state.svr = 0x1ff;
    state.isr[2] = 0x10;
    state.tmr[2] = 0x11;
    state.irr[2] = 0x01;
    state.icr = 0x0200_0000_0000_4030;
    state.lvt = [0x40, 0x1_0000, 0x1_0000, 0x700, 0x400, 0x33];
    state.timer_initial = 10_000;
    state.timer_divide = 0xb;
    state.timer_start = Some(500);
    state
}

#[test]
fn what_was_written_is_read_in_both_modes() {
    for base in [0, BASE_X2APIC] {
        let state = busy(base);
        let page = write(&state, 700);
        assert_eq!(get(&page, 0x20), if base == 0 { 3 << 24 } else { 3 });
        assert_eq!(get(&page, 0x390), 9800, "200 of 10000 counts are over");
        assert_eq!(read(&page, state.base, 3, 0, 700), state);
        // Later: the count began as long before then as it had before.
        assert_eq!(read(&page, state.base, 3, 0, 1700).timer_start, Some(1500));
    }
}

#[test]
fn a_one_shot_count_that_is_over_does_not_run() {
    let state = LapicState { timer_start: None, ..busy(0) };
    let page = write(&state, 700);
    assert!(is_spent(&state) && !is_spent(&busy(0)));
    assert_eq!((get(&page, 0x380), get(&page, 0x390)), (0, 0), "or it would be over again");
    assert_eq!(read(&page, state.base, 3, 0, 700).timer_start, None);
}

#[test]
fn a_timer_that_stands_still_is_what_it_was() {
    let before = write(&busy(0), 700);
    let mut page = before;
    let stopped = Stopped::take(&mut page, 5);
    assert_eq!((get(&page, 0x380), get(&page, 0x390), stopped.deadline), (0, 0, 5));
    stopped.put(&mut page);
    assert_eq!(page.regs, before.regs);
}

#[test]
fn a_divided_count_is_scaled() {
    // Divide by 16.
    let state = LapicState { timer_divide: 3, ..busy(0) };
    let page = write(&state, 500 + 16 * 100);
    assert_eq!(get(&page, 0x390), 9900);
    assert_eq!(read(&page, state.base, 3, 0, 500 + 16 * 100), state);
}

#[test]
fn a_deadline_is_not_a_count() {
    let mut state = busy(0);
    state.lvt[0] = 2 << 17 | 0x40;
    (state.timer_initial, state.timer_start, state.tsc_deadline) = (0, None, 77);
    let page = write(&state, 700);
    assert_eq!(read(&page, state.base, 3, 77, 900), state);
}

#[test]
fn level_triggered_vectors_on_their_way_are_found() {
    assert_eq!(level_vectors(&busy(0)).collect::<Vec<_>>(), [0x40, 0x44]);
}
