//! A small guest driver, for tests: finds the transport's registers, negotiates, builds rings in
//! guest memory, and waits for interrupts.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use riad_memory::{Gpa, GuestMemory};

use super::pci::{VirtioPci, VirtioPciState};
use super::{VirtioDevice, feature};
use crate::MsiTarget;
use crate::pci::config::{command, reg};
use crate::pci::{PciDevice, lock};

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Where MSI-X messages go; their data is the vector.
const MSI_ADDRESS: u64 = 0xfee0_0000;

/// Counts messages by vector.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    counts: Mutex<[u64; 8]>,
    came: Condvar,
}

impl MsiTarget for Messages {
    fn send(&self, address: u64, data: u32) {
        assert_eq!(address, MSI_ADDRESS);
        lock(&self.counts)[data as usize] += 1;
        self.came.notify_all();
    }
}

impl Messages {
    pub(crate) fn count(&self, vector: usize) -> u64 {
        lock(&self.counts)[vector]
    }

    /// Waits until `vector` has come more than `seen` times, but not for long.
    fn wait_beyond(&self, vector: usize, seen: u64) {
        let counts = lock(&self.counts);
        let still = |counts: &mut [u64; 8]| counts[vector] <= seen;
        drop(self.came.wait_timeout_while(counts, Duration::from_millis(50), still));
    }
}

/// RAM for a test.
pub(crate) fn ram() -> GuestMemory {
    GuestMemory::new(&[(Gpa(0), 64 << 20)]).unwrap()
}

/// The driver's side of one queue. Every descriptor owns a buffer of `slot` bytes.
#[derive(Debug, Clone)]
pub(crate) struct Ring {
    pub(crate) size: u16,
    pub(crate) base: Gpa,
    slot: u32,
    free: Vec<u16>,
    chains: Vec<Vec<(u16, bool, u32)>>,
    available: u16,
    used: u16,
}

/// A buffer that came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) head: u16,
    pub(crate) len: u32,
    /// All of the device-writable part.
    pub(crate) data: Vec<u8>,
}

impl Ring {
    /// Bytes from `base` to the buffers.
    const BUFFERS: u64 = 0x4000;

    pub(crate) fn new(base: Gpa, size: u16, slot: u32) -> Self {
        Self {
            size,
            base,
            slot,
            free: (0..size).rev().collect(),
            chains: vec![Vec::new(); usize::from(size)],
            available: 0,
            used: 0,
        }
    }

    pub(crate) fn available_ring(&self) -> Gpa {
        Gpa(self.base.0 + 0x2000)
    }

    pub(crate) fn used_ring(&self) -> Gpa {
        Gpa(self.base.0 + 0x3000)
    }

    fn buffer(&self, index: u16) -> Gpa {
        Gpa(self.base.0 + Self::BUFFERS + u64::from(index) * u64::from(self.slot))
    }

    pub(crate) fn has_room(&self, descriptors: usize) -> bool {
        self.free.len() >= descriptors
    }

    /// Makes a buffer available; does not notify. Returns its head.
    pub(crate) fn add(&mut self, memory: &GuestMemory, out: &[&[u8]], room: &[u32]) -> u16 {
        let mut parts: Vec<(u16, bool, u32)> = Vec::new();
        for bytes in out {
            let index = self.free.pop().expect("a free descriptor");
            memory.write(self.buffer(index), bytes).unwrap();
            parts.push((index, false, bytes.len() as u32));
        }
        for len in room {
            parts.push((self.free.pop().expect("a free descriptor"), true, *len));
        }
        for (place, &(index, write, len)) in parts.iter().enumerate() {
            assert!(len <= self.slot);
            let next = parts.get(place + 1).map(|part| part.0);
            let flags = u16::from(next.is_some()) | (u16::from(write) << 1);
            self.write_descriptor(memory, index, self.buffer(index), len, flags, next.unwrap_or(0));
        }
        let head = parts[0].0;
        self.chains[usize::from(head)] = parts;
        self.offer(memory, head);
        head
    }

    pub(crate) fn write_descriptor(
        &self,
        memory: &GuestMemory,
        index: u16,
        at: Gpa,
        len: u32,
        flags: u16,
        next: u16,
    ) {
        let entry = u128::from(at.0)
            | (u128::from(len) << 64)
            | (u128::from(flags) << 96)
            | (u128::from(next) << 112);
        let place = Gpa(self.base.0 + 16 * u64::from(index));
        memory.write(place, &entry.to_le_bytes()).unwrap();
    }

    /// Puts a head into the available ring.
    pub(crate) fn offer(&mut self, memory: &GuestMemory, head: u16) {
        let slot = u64::from(self.available % self.size);
        memory.write_u16(Gpa(self.available_ring().0 + 4 + 2 * slot), head).unwrap();
        self.available = self.available.wrapping_add(1);
        memory.write_u16(Gpa(self.available_ring().0 + 2), self.available).unwrap();
    }

    /// Takes a used buffer; asks for an interrupt for the next one.
    pub(crate) fn take(&mut self, memory: &GuestMemory) -> Option<Used> {
        let event = Gpa(self.available_ring().0 + 4 + 2 * u64::from(self.size));
        memory.write_u16(event, self.used).unwrap();
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        if memory.read_u16(Gpa(self.used_ring().0 + 2)).unwrap() == self.used {
            return None;
        }
        let slot = u64::from(self.used % self.size);
        let at = self.used_ring().0 + 4 + 8 * slot;
        let head = memory.read_u32(Gpa(at)).unwrap() as u16;
        let len = memory.read_u32(Gpa(at + 4)).unwrap();
        self.used = self.used.wrapping_add(1);
        let mut data = Vec::new();
        for (index, write, len) in std::mem::take(&mut self.chains[usize::from(head)]) {
            if write {
                data.extend(memory.read_vec(self.buffer(index), len as usize).unwrap());
            }
            self.free.push(index);
        }
        Some(Used { head, len, data })
    }
}

/// A guest with one virtio function.
pub(crate) struct Guest {
    pub(crate) memory: GuestMemory,
    pub(crate) pci: Arc<VirtioPci>,
    pub(crate) messages: Arc<Messages>,
    pub(crate) rings: Vec<Ring>,
}

/// What a guest's driver chooses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choices {
    /// Features it accepts, of those offered.
    pub(crate) features: u64,
    /// Size of its queues.
    pub(crate) size: u16,
    /// Bytes of a descriptor's buffer.
    pub(crate) slot: u32,
}

impl Default for Choices {
    fn default() -> Self {
        Self { features: u64::MAX, size: 16, slot: 0x11000 }
    }
}

impl Guest {
    /// A guest whose driver runs.
    pub(crate) fn new(device: Box<dyn VirtioDevice>, choices: Choices) -> Self {
        let mut this = Self::idle(device, choices);
        this.start(choices);
        this
    }

    /// A guest whose driver has not begun.
    pub(crate) fn idle(device: Box<dyn VirtioDevice>, choices: Choices) -> Self {
        Self::idle_at(device, choices, |pci| pci)
    }

    /// The same, with the function made ready by `ready`.
    pub(crate) fn idle_at(
        device: Box<dyn VirtioDevice>,
        choices: Choices,
        ready: impl FnOnce(VirtioPci) -> VirtioPci,
    ) -> Self {
        let memory = ram();
        let messages = Arc::new(Messages::default());
        let pci = VirtioPci::new(device, memory.clone(), messages.clone()).unwrap();
        let pci = Arc::new(ready(pci));
        let on = command::MEMORY | command::BUS_MASTER;
        pci.config_write(reg::COMMAND as u16, &on.to_le_bytes());
        let mut this = Self { memory, pci, messages, rings: Vec::new() };
        this.lay_out(choices);
        this
    }

    fn lay_out(&mut self, choices: Choices) {
        let queues = self.read16(0x12);
        let rings = (0..u64::from(queues))
            .map(|index| Ring::new(Gpa(0x10_0000 + index * (4 << 20)), choices.size, choices.slot));
        self.rings = rings.collect();
    }

    /// The same guest after its machine was restored, device and all.
    pub(crate) fn restored(&self, device: Box<dyn VirtioDevice>, state: &VirtioPciState) -> Self {
        let messages = Arc::new(Messages::default());
        let memory = ram();
        let all = self.memory.read_vec(Gpa(0), self.memory.size() as usize).unwrap();
        memory.write(Gpa(0), &all).unwrap();
        let pci = VirtioPci::restore(device, memory.clone(), messages.clone(), state).unwrap();
        Self { memory, pci: Arc::new(pci), messages, rings: self.rings.clone() }
    }

    /// Goes through initialization (virtio 1.3, section 3.1.1).
    pub(crate) fn start(&mut self, choices: Choices) {
        self.write8(0x14, 0);
        assert_eq!(self.status(), 0);
        self.lay_out(choices);
        self.write8(0x14, 1);
        self.write8(0x14, 3);
        let features = self.offered() & (choices.features | feature::VERSION_1);
        self.accept(features);
        self.write8(0x14, 11);
        assert_eq!(self.status(), 11, "features were refused");
        self.set_up_interrupts();
        self.set_up_queues();
        self.write8(0x14, 15);
    }

    pub(crate) fn offered(&self) -> u64 {
        self.write32(0, 0);
        let low = u64::from(self.read32(4));
        self.write32(0, 1);
        low | (u64::from(self.read32(4)) << 32)
    }

    pub(crate) fn accept(&self, features: u64) {
        self.write32(8, 0);
        self.write32(0xc, features as u32);
        self.write32(8, 1);
        self.write32(0xc, (features >> 32) as u32);
    }

    fn set_up_interrupts(&self) {
        let vectors = self.rings.len() as u64 + 1;
        for vector in 0..vectors {
            let entry = 0x4000 + 16 * vector;
            self.pci.bar_write(0, entry, &MSI_ADDRESS.to_le_bytes());
            self.pci.bar_write(0, entry + 8, &(vector as u32).to_le_bytes());
            self.pci.bar_write(0, entry + 12, &0u32.to_le_bytes());
        }
        // The MSI-X capability comes first.
        self.pci.config_write(0x42, &0x8000u16.to_le_bytes());
        self.write16(0x10, vectors as u16 - 1);
        for index in 0..self.rings.len() as u16 {
            self.write16(0x16, index);
            self.write16(0x1a, index);
            assert_eq!(self.read16(0x1a), index);
        }
    }

    pub(crate) fn set_up_queues(&self) {
        for (index, ring) in (0..).zip(&self.rings) {
            self.write16(0x16, index);
            self.write16(0x18, ring.size);
            let addresses = [ring.base, ring.available_ring(), ring.used_ring()];
            for (register, at) in [0x20, 0x28, 0x30].into_iter().zip(addresses) {
                self.write32(register, at.0 as u32);
                self.write32(register + 4, (at.0 >> 32) as u32);
            }
            self.write16(0x1c, 1);
        }
    }

    pub(crate) fn status(&self) -> u8 {
        self.read16(0x14) as u8
    }

    pub(crate) fn notify(&self, queue: u16) {
        self.pci.bar_write(0, 0x3000 + 4 * u64::from(queue), &queue.to_le_bytes());
    }

    /// Makes a buffer available and notifies.
    pub(crate) fn submit(&mut self, queue: u16, out: &[&[u8]], room: &[u32]) -> u16 {
        let head = self.rings[usize::from(queue)].add(&self.memory, out, room);
        self.notify(queue);
        head
    }

    /// Takes a used buffer if there is one.
    pub(crate) fn poll(&mut self, queue: u16) -> Option<Used> {
        self.rings[usize::from(queue)].take(&self.memory)
    }

    /// Waits for a used buffer, by interrupt: one that does not come fails the test.
    pub(crate) fn wait(&mut self, queue: u16) -> Used {
        let until = Instant::now() + PATIENCE;
        loop {
            let seen = self.messages.count(usize::from(queue));
            if let Some(used) = self.poll(queue) {
                return used;
            }
            assert!(Instant::now() < until, "nothing came back on queue {queue}");
            self.messages.wait_beyond(usize::from(queue), seen);
        }
    }

    /// Waits for any status bit of `mask`.
    pub(crate) fn wait_for_status(&self, mask: u8) {
        until(|| self.status() & mask != 0);
    }

    pub(crate) fn read16(&self, at: u64) -> u16 {
        let mut data = [0; 2];
        self.pci.bar_read(0, at, &mut data);
        u16::from_le_bytes(data)
    }

    pub(crate) fn read32(&self, at: u64) -> u32 {
        let mut data = [0; 4];
        self.pci.bar_read(0, at, &mut data);
        u32::from_le_bytes(data)
    }

    pub(crate) fn write8(&self, at: u64, value: u8) {
        self.pci.bar_write(0, at, &[value]);
    }

    pub(crate) fn write16(&self, at: u64, value: u16) {
        self.pci.bar_write(0, at, &value.to_le_bytes());
    }

    pub(crate) fn write32(&self, at: u64, value: u32) {
        self.pci.bar_write(0, at, &value.to_le_bytes());
    }
}

/// Waits until `done`.
pub(crate) fn until(mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "it did not happen in time");
        std::thread::sleep(Duration::from_millis(1));
    }
}
