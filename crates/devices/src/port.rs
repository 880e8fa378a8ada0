//! Port numbers, and accesses wider than a register.
//!
//! Devices that sit at the numbers every PC has (the interrupt controllers, the timer, the clock,
//! ...) list them in a `PORTS` constant, and the `offset` of their
//! [`PortDevice`](crate::PortDevice) is the port number itself: the machine maps each of the ranges
//! with a first port of 0. Devices that a machine may put anywhere (serial port, power management,
//! debug exit) have a `PORT_COUNT` and count from their first port.

use std::ops::RangeInclusive;

/// Ports that belong to a device, both ends included.
pub type PortRange = RangeInclusive<u16>;

/// Serves an access of any width with byte-wide registers, lowest port first, as the ISA bus does
/// when a wide access meets an 8-bit device.
pub(crate) fn read_bytes(first: u16, data: &mut [u8], mut read: impl FnMut(u16) -> u8) {
    for (port, byte) in (0..).map(|i| first.wrapping_add(i)).zip(data) {
        *byte = read(port);
    }
}

/// As [`read_bytes`], for writes.
pub(crate) fn write_bytes(first: u16, data: &[u8], mut write: impl FnMut(u16, u8)) {
    for (port, &byte) in (0..).map(|i| first.wrapping_add(i)).zip(data) {
        write(port, byte);
    }
}
