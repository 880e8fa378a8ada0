use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::test_bench::{Access, PortExt, Wire, poke};

const DATA: u16 = 0;
const IER: u16 = 1;
const IIR: u16 = 2;
const FCR: u16 = 2;
const LCR: u16 = 3;
const MCR: u16 = 4;
const LSR: u16 = 5;
const MSR: u16 = 6;
const SCR: u16 = 7;

#[derive(Clone, Default)]
struct Terminal {
    seen: Arc<Mutex<Vec<u8>>>,
    wakeups: Arc<AtomicUsize>,
}

impl SerialHost for Terminal {
    fn transmit(&mut self, byte: u8) {
        self.seen.lock().unwrap().push(byte);
    }
    fn receive_ready(&mut self) {
        self.wakeups.fetch_add(1, Ordering::Relaxed);
    }
}

fn bench() -> (Serial, Arc<Wire>, Terminal) {
    let (wire, terminal) = (Wire::new(), Terminal::default());
    (Serial::new(wire.clone(), Box::new(terminal.clone())), wire, terminal)
}

/// The steps by which Linux's 8250 driver finds out what it has (autoconfig and its 16550A part).
#[test]
fn linux_autoconfig_finds_a_16550a() {
    let (mut uart, ..) = bench();
    uart.outb(IER, 0);
    assert_eq!(uart.inb(IER) & 0x0f, 0);
    uart.outb(IER, 0x0f);
    assert_eq!(uart.inb(IER), 0x0f);
    uart.outb(IER, 0);

    let mcr = uart.inb(MCR);
    uart.outb(MCR, 0x10 | 0x0a);
    assert_eq!(uart.inb(MSR) & 0xf0, 0x90, "loopback test");
    uart.outb(MCR, mcr);

    uart.outb(LCR, 0xbf);
    uart.outb(2, 0);
    uart.outb(LCR, 0);
    uart.outb(FCR, 0x01);
    assert_eq!(uart.inb(IIR) >> 6, 3, "FIFOs work: 16550A");

    // Not a 16650, whose EFR shows in place of IIR.
    uart.outb(LCR, 0x80);
    assert_ne!(uart.inb(2), 0);
    uart.outb(LCR, 0xbf);
    assert_ne!(uart.inb(2), 0);
    // Not a 16750 with 64-byte FIFOs.
    uart.outb(LCR, 0);
    uart.outb(FCR, 0x21);
    assert_eq!(uart.inb(IIR) >> 5, 6);
    // Not an XScale, whose IER has a unit enable bit.
    uart.outb(IER, 0x40);
    assert_eq!(uart.inb(IER), 0);

    uart.outb(SCR, 0xa5);
    assert_eq!(uart.inb(SCR), 0xa5);
}

/// What Linux checks when it opens the port: the transmit interrupt comes each time it is enabled.
#[test]
fn linux_startup_trusts_the_transmit_interrupt() {
    let (mut uart, wire, _) = bench();
    uart.outb(MCR, 0x08);
    for _ in 0..2 {
        uart.outb(IER, 0x02);
        assert!(wire.level());
        assert_eq!(uart.inb(IIR) & 0x0f, 0x02);
        assert!(!wire.level());
        assert_eq!(uart.inb(IIR) & 0x0f, 0x01);
        uart.outb(IER, 0);
    }
    assert_eq!(uart.inb(LSR) & 0x60, 0x60);
}

#[test]
fn transmits_and_makes_an_edge_for_each_byte() {
    let (mut uart, wire, terminal) = bench();
    uart.outb(MCR, 0x08);
    uart.outb(IER, 0x02);
    wire.take_rises();
    for &byte in b"hello" {
        uart.outb(DATA, byte);
    }
    assert_eq!(wire.take_rises(), 5);
    assert_eq!(*terminal.seen.lock().unwrap(), b"hello");
}

#[test]
fn interrupt_needs_out2() {
    let (mut uart, wire, _) = bench();
    uart.outb(IER, 0x02);
    assert!(!wire.level());
    uart.outb(MCR, 0x08);
    assert!(wire.level());
    uart.outb(MCR, 0x18);
    assert!(!wire.level());
}

#[test]
fn identifies_in_order_of_priority() {
    let (mut uart, ..) = bench();
    uart.outb(FCR, 0x41);
    uart.outb(IER, 0x0f);
    uart.outb(MCR, 0x08);
    assert!(uart.push_break());
    uart.push_input(b"abc");
    uart.outb(MCR, 0x10);
    assert_eq!(uart.inb(IIR), 0xc6, "break");
    assert_eq!(uart.inb(LSR) & 0x91, 0x91);
    assert_eq!(uart.inb(IIR), 0xc4, "trigger level of 4 reached");
    assert_eq!(uart.inb(DATA), 0);
    assert_eq!(uart.inb(IIR), 0xcc, "below it: timeout");
    assert_eq!([uart.inb(DATA), uart.inb(DATA), uart.inb(DATA)], *b"abc");
    assert_eq!(uart.inb(IIR), 0xc2, "transmitter empty");
    assert_eq!(uart.inb(IIR), 0xc0, "modem inputs changed");
    assert_ne!(uart.inb(MSR) & 0x0f, 0);
    assert_eq!(uart.inb(IIR), 0xc1);
}

#[test]
fn input_has_backpressure() {
    let (mut uart, _, terminal) = bench();
    assert_eq!(uart.push_input(b"xy"), 1, "no FIFO yet");
    uart.outb(FCR, 0x01);
    assert_eq!(terminal.wakeups.load(Ordering::Relaxed), 1);
    assert_eq!(uart.push_input(&[7; 20]), 16);
    assert_eq!(uart.push_input(&[7; 4]), 0);
    assert_eq!(uart.inb(DATA), 7);
    assert_eq!(uart.inb(DATA), 7);
    assert_eq!(terminal.wakeups.load(Ordering::Relaxed), 2, "told once");
    assert_eq!(uart.push_input(&[8; 4]), 2);
    uart.outb(MCR, 0x10);
    assert_eq!(uart.push_input(&[8; 4]), 0, "loopback cuts the cable");
    uart.outb(FCR, 0x03);
    uart.outb(MCR, 0);
    assert_eq!(terminal.wakeups.load(Ordering::Relaxed), 3);
}

#[test]
fn loopback_hears_itself_and_overruns() {
    let (mut uart, _, terminal) = bench();
    uart.outb(FCR, 0x01);
    uart.outb(MCR, 0x10);
    for byte in 0..17 {
        uart.outb(DATA, byte);
    }
    assert_eq!(uart.inb(LSR) & 0x03, 0x03);
    assert_eq!(uart.inb(LSR) & 0x03, 0x01, "reading clears the error");
    let heard: Vec<u8> = (0..16).map(|_| uart.inb(DATA)).collect();
    assert_eq!(heard, (0..16).collect::<Vec<u8>>());
    assert!(terminal.seen.lock().unwrap().is_empty());
}

#[test]
fn divisor_latch() {
    let (mut uart, ..) = bench();
    uart.outb(LCR, 0x83);
    uart.outb(DATA, 0x01);
    uart.outb(IER, 0x02);
    assert_eq!((uart.inb(DATA), uart.inb(IER)), (1, 2));
    uart.outb(LCR, 0x03);
    assert_eq!(uart.inb(IER), 0);
    assert_eq!(uart.save().divisor, 0x0201);
}

#[test]
fn a_restored_port_goes_on() {
    let (mut uart, ..) = bench();
    uart.outb(FCR, 0x81);
    uart.outb(MCR, 0x0b);
    uart.outb(IER, 0x05);
    uart.push_input(b"saved");
    let json = serde_json::to_string(&uart.save()).unwrap();
    let state: SerialState = serde_json::from_str(&json).unwrap();
    let wire = Wire::new();
    let mut again = Serial::restore(state, wire.clone(), Box::new(Terminal::default()));
    assert_eq!(again.save(), uart.save());
    assert!(wire.level());
    assert_eq!(again.inb(DATA), b's');
}

proptest! {
    #[test]
    fn no_access_panics(accesses: Vec<Access>) {
        let (mut uart, ..) = bench();
        for access in accesses {
            if access.4 % 3 == 0 {
                uart.push_input(&access.3.to_le_bytes());
            }
            poke(&mut uart, (access.0, access.1 % 9, access.2, access.3, access.4));
            prop_assert!(uart.save().received.len() <= FIFO_SIZE);
        }
        let state = uart.save();
        let again = Serial::restore(state.clone(), Wire::new(), Box::new(Terminal::default()));
        prop_assert_eq!(again.save(), state);
    }
}
