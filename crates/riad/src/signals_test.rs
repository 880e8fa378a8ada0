use riad_host::ControlEvent;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::{Interrupts, Reaction, ignored, reaction, status};

#[test]
fn signals_go_to_a_command_on_pipes() {
    let mut interrupts = Interrupts::default();
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
        let told = Reaction::Tell(ControlEvent::Signal(signal as u8));
        assert_eq!(reaction(signal, false, &mut interrupts), told, "{signal}");
    }
}

#[test]
fn the_third_interrupt_in_a_row_ends_riad() {
    let mut interrupts = Interrupts::default();
    let told = Reaction::Tell(ControlEvent::Signal(2));
    assert_eq!(reaction(SIGINT, false, &mut interrupts), told);
    assert_eq!(reaction(SIGINT, false, &mut interrupts), told);
    assert_eq!(reaction(SIGINT, false, &mut interrupts), Reaction::Leave);
}

#[test]
fn a_terminal_that_is_gone_ends_the_session() {
    for signal in [SIGHUP, SIGTERM] {
        assert_eq!(reaction(signal, true, &mut Interrupts::default()), Reaction::GiveUp);
    }
}

#[test]
fn statuses_are_those_of_shells() {
    assert_eq!((status(SIGINT), status(SIGTERM)), (130, 143));
}

#[test]
fn signals_that_were_ignored_stay_so() {
    let ignored = ignored("Name:\triad\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000003\n");
    assert!(ignored(SIGHUP) && ignored(SIGINT) && !ignored(SIGQUIT) && !ignored(SIGTERM));
}
