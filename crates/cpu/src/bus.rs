//! What a processor sees outside of itself and RAM.

use riad_memory::Gpa;

/// The world around a processor. Called from every processor's thread at once.
///
/// Reads fill all of `data`; what nobody answers reads as ones, as on hardware.
pub trait Bus: Send + Sync {
    /// Reads 1 to 8 bytes that are not RAM.
    fn mmio_read(&self, at: Gpa, data: &mut [u8]);
    /// Writes 1 to 8 bytes that are not RAM.
    fn mmio_write(&self, at: Gpa, data: &[u8]);
    /// `IN`: 1, 2 or 4 bytes.
    fn port_read(&self, port: u16, data: &mut [u8]);
    /// `OUT`: 1, 2 or 4 bytes.
    fn port_write(&self, port: u16, data: &[u8]);
    /// The interrupt-acknowledge cycle to the 8259 pair: the vector to deliver.
    fn acknowledge_extint(&self) -> u8;
    /// A local APIC finished `vector`, which was level-triggered: I/O APICs want to know.
    fn end_of_interrupt(&self, vector: u8);
}

/// A bus with nothing on it, for a processor that is alone with its memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nowhere;

impl Bus for Nowhere {
    fn mmio_read(&self, _: Gpa, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn mmio_write(&self, _: Gpa, _: &[u8]) {}
    fn port_read(&self, _: u16, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn port_write(&self, _: u16, _: &[u8]) {}
    fn acknowledge_extint(&self) -> u8 {
        0
    }
    fn end_of_interrupt(&self, _: u8) {}
}
