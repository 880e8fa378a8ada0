use super::*;

fn enabled() -> Lapic {
    let mut apic = Lapic::restore(LapicState::reset(0));
    apic.mmio_write(0xf0, 0x1ff, 0);
    apic
}

fn fixed(vector: u8, level: bool) -> Message {
    Message { to: Destination::All, delivery: Delivery::Fixed, vector, level, narrow: true }
}

#[test]
fn higher_vectors_interrupt_lower_ones_and_not_the_other_way() {
    let mut apic = enabled();
    apic.accept(&fixed(0x41, false));
    assert_eq!(apic.acknowledge(), Some(0x41));
    apic.accept(&fixed(0x4f, false));
    assert_eq!(apic.pending(), None, "same class waits");
    apic.accept(&fixed(0x51, true));
    assert_eq!(apic.acknowledge(), Some(0x51));
    assert_eq!(apic.mmio_write(0xb0, 0, 0), Effect::EndOfInterrupt(0x51));
    assert_eq!(apic.mmio_write(0xb0, 0, 0), Effect::None);
    assert_eq!(apic.acknowledge(), Some(0x4f));
}

#[test]
fn task_priority_holds_interrupts_back() {
    let mut apic = enabled();
    apic.set_tpr(0x50);
    apic.accept(&fixed(0x5f, false));
    assert_eq!(apic.pending(), None);
    apic.set_tpr(0x4f);
    assert_eq!(apic.pending(), Some(0x5f));
}

#[test]
fn a_disabled_apic_takes_nothing() {
    let mut apic = Lapic::restore(LapicState::reset(0));
    apic.accept(&fixed(0x50, false));
    assert_eq!(apic.pending(), None);
}

#[test]
fn timer_counts_once_or_again_and_again() {
    let mut apic = enabled();
    apic.mmio_write(0x3e0, 0xb, 0);
    apic.mmio_write(0x320, 0x40, 0);
    apic.mmio_write(0x380, 100, 1000);
    assert_eq!(apic.timer(), Timer::At(1100));
    assert_eq!(apic.mmio_read(0x390, 1040), 60);
    assert!(!apic.expire_timer(1099));
    assert!(apic.expire_timer(1100));
    assert_eq!((apic.timer(), apic.pending()), (Timer::Off, Some(0x40)));
    apic.mmio_write(0x320, 1 << 17 | 0x41, 2000);
    apic.mmio_write(0x380, 100, 2000);
    assert!(apic.expire_timer(2350));
    assert_eq!(apic.timer(), Timer::At(2400), "the period stays in phase");
}

#[test]
fn tsc_deadline_is_one_shot_and_only_in_its_mode() {
    let mut apic = enabled();
    apic.set_tsc_deadline(5);
    assert_eq!(apic.timer(), Timer::Off);
    apic.mmio_write(0x320, 2 << 17 | 0x42, 0);
    apic.set_tsc_deadline(5);
    assert_eq!(apic.timer(), Timer::AtTsc(5));
    assert!(apic.expire_timer(0));
    assert_eq!((apic.timer(), apic.tsc_deadline()), (Timer::Off, 0));
}

#[test]
fn mode_changes_follow_the_manual() {
    let mut apic = enabled();
    let base = apic.base();
    assert_eq!(apic.set_base(base | BASE_X2APIC), Ok(()));
    assert!(apic.x2apic());
    assert_eq!(apic.set_base(base), Err(Refused), "x2APIC to xAPIC is #GP");
    assert_eq!(apic.set_base(base & !BASE_ENABLE), Ok(()));
    assert_eq!(apic.set_base(base | BASE_X2APIC), Err(Refused), "off to x2APIC is #GP");
}

#[test]
fn destinations() {
    let mut apic = Lapic::restore(LapicState { id: 3, ..LapicState::reset(3) });
    let to = |to, narrow| Message { to, ..Message { narrow, ..fixed(0x50, false) } };
    assert!(apic.is_addressed_by(&to(Destination::Physical(3), true), None));
    assert!(apic.is_addressed_by(&to(Destination::Physical(0xff), true), None));
    assert!(!apic.is_addressed_by(&to(Destination::Physical(0xff), false), None));
    apic.mmio_write(0xd0, 0x0800_0000, 0);
    assert!(apic.is_addressed_by(&to(Destination::Logical(8), true), None));
    assert!(!apic.is_addressed_by(&to(Destination::Logical(4), true), None));
    apic.set_base(apic.base() | BASE_X2APIC).unwrap();
    assert!(apic.is_addressed_by(&to(Destination::Logical(8), false), None));
    assert!(!apic.is_addressed_by(&to(Destination::Logical(1 << 16 | 8), false), None));
    assert!(apic.is_addressed_by(&to(Destination::Others, false), Some(0)));
    assert!(!apic.is_addressed_by(&to(Destination::Others, false), Some(3)));
}
