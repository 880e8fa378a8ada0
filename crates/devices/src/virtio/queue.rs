//! A split virtqueue (virtio 1.3, section 2.7), the device's side.
//!
//! Nothing in the rings is trusted: indices are taken modulo the queue's size, chains have a
//! bounded number of descriptors and bytes, every address is checked to be RAM when its chain is
//! taken. A broken ring is a [`QueueError`]; the device then asks for a reset.
//!
//! Order matters between two rings that two threads look at (section 2.7.13): the device publishes
//! the used index and then looks whether to interrupt, while the driver asks to be interrupted and
//! then looks at the used index. Both need a full barrier in between, and so does the same dance
//! around the available ring.

use std::sync::atomic::{Ordering, fence};

use riad_memory::{Gpa, GuestMemory};
use serde::{Deserialize, Serialize};

use super::chain::{Chain, Segment};
use super::feature;

/// The most descriptors a chain may have, indirect ones included.
pub const MAX_CHAIN: u16 = 1024;
/// The most bytes a chain may describe.
pub const MAX_CHAIN_BYTES: u64 = 256 << 20;
/// The largest queue (virtio 1.3, section 2.7).
pub const MAX_SIZE: u16 = 1 << 15;

const DESC_NEXT: u16 = 1;
const DESC_WRITE: u16 = 2;
const DESC_INDIRECT: u16 = 4;
const DESC_SIZE: u64 = 16;
const AVAIL_NO_INTERRUPT: u16 = 1;
const USED_NO_NOTIFY: u16 = 1;

/// How a driver broke a queue.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Size not a power of two, or beyond the maximum.
    #[error("queue size {0} is not a power of two between 1 and the size the device offered")]
    BadSize(u16),
    /// A ring is misaligned or not in RAM.
    #[error("the queue's {what} at {at} is misaligned or not in the guest's memory")]
    BadRing {
        /// Which part.
        what: &'static str,
        /// Its address.
        at: Gpa,
    },
    /// More buffers made available than the queue has.
    #[error("the driver made {pending} buffers available in a queue of {size}")]
    TooManyAvailable {
        /// Buffers between the device's and the driver's index.
        pending: u16,
        /// The queue's size.
        size: u16,
    },
    /// A descriptor index beyond its table.
    #[error("descriptor {index} does not exist in a table of {size}")]
    BadIndex {
        /// The index.
        index: u16,
        /// Descriptors in the table.
        size: u16,
    },
    /// A loop, or too many descriptors.
    #[error("a chain has too many descriptors, or loops")]
    ChainTooLong,
    /// Too many bytes.
    #[error("a chain describes more than {MAX_CHAIN_BYTES} bytes")]
    TooManyBytes,
    /// A readable descriptor after a writable one (section 2.7.4.2).
    #[error("a chain has a device-readable descriptor after a device-writable one")]
    ReadAfterWrite,
    /// An indirect table that the specification does not allow (section 2.7.5.3).
    #[error("a chain has an indirect descriptor where none is allowed, or of a wrong length")]
    BadIndirect,
    /// A buffer outside RAM.
    #[error("a descriptor's buffer at {at} of {len} bytes is not in the guest's memory")]
    BadBuffer {
        /// First byte.
        at: Gpa,
        /// Bytes.
        len: u32,
    },
    /// Memory refused after all.
    #[error(transparent)]
    Memory(#[from] riad_memory::Error),
}

/// Where the driver put a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueLayout {
    /// Number of descriptors.
    pub size: u16,
    /// Descriptor table.
    pub descriptors: Gpa,
    /// Driver area: the available ring.
    pub available: Gpa,
    /// Device area: the used ring.
    pub used: Gpa,
}

/// How far the device has come in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QueueProgress {
    /// Next entry of the available ring to take.
    pub next_available: u16,
    /// Next entry of the used ring to fill.
    pub next_used: u16,
    /// The used index when the driver was last considered for an interrupt.
    pub signalled: u16,
}

/// The device's side of a split virtqueue.
#[derive(Debug)]
pub struct Queue {
    memory: GuestMemory,
    layout: QueueLayout,
    progress: QueueProgress,
    event_idx: bool,
    indirect: bool,
}

impl Queue {
    /// A queue where the driver put it; `progress` is zero for a fresh one.
    ///
    /// # Errors
    /// [`QueueError::BadSize`], [`QueueError::BadRing`].
    pub fn new(
        memory: GuestMemory,
        layout: QueueLayout,
        progress: QueueProgress,
        features: u64,
    ) -> Result<Self, QueueError> {
        let QueueLayout { size, descriptors, available, used } = layout;
        if !size.is_power_of_two() || size > MAX_SIZE {
            return Err(QueueError::BadSize(size));
        }
        let entries = u64::from(size);
        for (what, at, len, align) in [
            ("descriptor table", descriptors, DESC_SIZE * entries, 16),
            ("available ring", available, 6 + 2 * entries, 2),
            ("used ring", used, 6 + 8 * entries, 4),
        ] {
            if at.0 % align != 0 || !memory.contains(at, len) {
                return Err(QueueError::BadRing { what, at });
            }
        }
        Ok(Self {
            memory,
            layout,
            progress,
            event_idx: features & feature::EVENT_IDX != 0,
            indirect: features & feature::INDIRECT_DESC != 0,
        })
    }

    /// How far the device has come.
    #[must_use]
    pub fn progress(&self) -> QueueProgress {
        self.progress
    }

    /// Number of descriptors.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.layout.size
    }

    /// Takes the next available buffer, if there is one.
    ///
    /// # Errors
    /// When the driver broke the ring; nothing is taken.
    pub fn pop(&mut self) -> Result<Option<Chain>, QueueError> {
        let mut chain = Chain::default();
        Ok(self.pop_into(&mut chain)?.then_some(chain))
    }

    /// As [`pop`](Self::pop), into a chain whose room is used again: for devices that move a
    /// million buffers a second. Returns whether there was one.
    ///
    /// # Errors
    /// As for [`pop`](Self::pop).
    pub fn pop_into(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        if self.pending()? == 0 {
            return Ok(false);
        }
        let slot = self.slot(self.progress.next_available);
        let head = self.memory.read_u16(Gpa(self.layout.available.0 + 4 + 2 * slot))?;
        self.walk(head, chain)?;
        self.progress.next_available = self.progress.next_available.wrapping_add(1);
        Ok(true)
    }

    /// A buffer that was taken, and not put into the used ring, by its first descriptor: for a device
    /// that goes on from a saved state.
    ///
    /// # Errors
    /// When the driver broke its descriptors.
    pub fn again(&self, head: u16) -> Result<Chain, QueueError> {
        let mut chain = Chain::default();
        self.walk(head, &mut chain)?;
        Ok(chain)
    }

    /// Puts the buffer that [`pop`](Self::pop) gave last back, to be taken again later. Only valid
    /// while nothing else was taken since.
    pub fn unpop(&mut self, chain: Chain) {
        drop(chain);
        self.unpop_last(1);
    }

    /// Puts the last `count` buffers taken back, to be taken again later. Only valid while none of
    /// them was given back.
    pub fn unpop_last(&mut self, count: u16) {
        self.progress.next_available = self.progress.next_available.wrapping_sub(count);
    }

    /// Writes a buffer, with `written` bytes in it, into the used ring; the driver sees it after
    /// [`publish`](Self::publish).
    ///
    /// # Errors
    /// [`QueueError::Memory`], which checked rings do not give.
    pub fn add_used(&mut self, chain: Chain, written: u32) -> Result<(), QueueError> {
        self.give_back(&chain, written)
    }

    /// As [`add_used`](Self::add_used), of a chain whose room is used again. To be called once for
    /// each chain taken.
    ///
    /// # Errors
    /// As for [`add_used`](Self::add_used).
    pub fn give_back(&mut self, chain: &Chain, written: u32) -> Result<(), QueueError> {
        let slot = self.slot(self.progress.next_used);
        let mut element = [0; 8];
        element[..4].copy_from_slice(&u32::from(chain.head()).to_le_bytes());
        element[4..].copy_from_slice(&written.to_le_bytes());
        self.memory.write(Gpa(self.layout.used.0 + 4 + 8 * slot), &element)?;
        self.progress.next_used = self.progress.next_used.wrapping_add(1);
        Ok(())
    }

    /// Lets the driver see what was added, and says whether it wants an interrupt for it
    /// (section 2.7.7).
    ///
    /// # Errors
    /// [`QueueError::Memory`], which checked rings do not give.
    pub fn publish(&mut self) -> Result<bool, QueueError> {
        let (old, new) = (self.progress.signalled, self.progress.next_used);
        if old == new {
            return Ok(false);
        }
        self.memory.write_u16(Gpa(self.layout.used.0 + 2), new)?;
        self.progress.signalled = new;
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event = self.memory.read_u16(self.used_event())?;
            Ok(new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old))
        } else {
            Ok(self.memory.read_u16(self.layout.available)? & AVAIL_NO_INTERRUPT == 0)
        }
    }

    /// Asks the driver to notify when it adds buffers. Returns whether there are some already; the
    /// driver need not notify for those.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub fn enable_notifications(&mut self) -> Result<bool, QueueError> {
        self.enable_notifications_beyond(0)
    }

    /// As [`enable_notifications`](Self::enable_notifications), of a device for which the `count`
    /// buffers available now are too few: it asks to hear of more.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub fn enable_notifications_beyond(&mut self, count: u16) -> Result<bool, QueueError> {
        if self.event_idx {
            let event = self.progress.next_available.wrapping_add(count);
            self.memory.write_u16(self.available_event(), event)?;
        } else {
            self.memory.write_u16(self.layout.used, 0)?;
        }
        fence(Ordering::SeqCst);
        Ok(self.pending()? > count)
    }

    /// Tells the driver that notifications are not needed. It may send some all the same.
    ///
    /// # Errors
    /// [`QueueError::Memory`], which checked rings do not give.
    pub fn disable_notifications(&mut self) -> Result<(), QueueError> {
        if !self.event_idx {
            self.memory.write_u16(self.layout.used, USED_NO_NOTIFY)?;
        }
        Ok(())
    }

    /// Buffers available and not taken.
    fn pending(&self) -> Result<u16, QueueError> {
        let index = self.memory.read_u16(Gpa(self.layout.available.0 + 2))?;
        let pending = index.wrapping_sub(self.progress.next_available);
        if pending > self.layout.size {
            return Err(QueueError::TooManyAvailable { pending, size: self.layout.size });
        }
        Ok(pending)
    }

    fn slot(&self, index: u16) -> u64 {
        u64::from(index & (self.layout.size - 1))
    }

    /// `used_event`, at the end of the available ring.
    fn used_event(&self) -> Gpa {
        Gpa(self.layout.available.0 + 4 + 2 * u64::from(self.layout.size))
    }

    /// `avail_event`, at the end of the used ring.
    fn available_event(&self) -> Gpa {
        Gpa(self.layout.used.0 + 4 + 8 * u64::from(self.layout.size))
    }

    /// Collects the chain that begins at descriptor `head`, in place of what `chain` was.
    fn walk(&self, head: u16, chain: &mut Chain) -> Result<(), QueueError> {
        let segments = chain.begin(head);
        let mut table = (self.layout.descriptors, self.layout.size);
        let mut in_indirect = false;
        let mut index = head;
        let mut readable = 0;
        let mut bytes = 0u64;
        // Every step counts, also those that yield no segment, so a loop ends.
        for _ in 0..=MAX_CHAIN {
            let (start, size) = table;
            if index >= size {
                return Err(QueueError::BadIndex { index, size });
            }
            let descriptor = self.descriptor(start, index)?;
            if descriptor.flags & DESC_INDIRECT != 0 {
                let len = u64::from(descriptor.len);
                let entries = u16::try_from(len / DESC_SIZE).unwrap_or(u16::MAX);
                let allowed = self.indirect
                    && !in_indirect
                    && descriptor.flags & DESC_NEXT == 0
                    && len % DESC_SIZE == 0
                    && (1..=MAX_CHAIN).contains(&entries);
                if !allowed {
                    return Err(QueueError::BadIndirect);
                }
                if !self.memory.contains(descriptor.at, len) {
                    let Descriptor { at, len, .. } = descriptor;
                    return Err(QueueError::BadBuffer { at, len });
                }
                (table, in_indirect, index) = ((descriptor.at, entries), true, 0);
                continue;
            }
            if segments.len() >= usize::from(if in_indirect { MAX_CHAIN } else { size }) {
                return Err(QueueError::ChainTooLong);
            }
            let Descriptor { at, len, flags, next } = descriptor;
            if flags & DESC_WRITE == 0 {
                if readable != segments.len() {
                    return Err(QueueError::ReadAfterWrite);
                }
                readable += 1;
            }
            if len > 0 && !self.memory.contains(at, u64::from(len)) {
                return Err(QueueError::BadBuffer { at, len });
            }
            bytes += u64::from(len);
            if bytes > MAX_CHAIN_BYTES {
                return Err(QueueError::TooManyBytes);
            }
            segments.push(Segment { at, len });
            if flags & DESC_NEXT == 0 {
                chain.readable_are(readable);
                return Ok(());
            }
            index = next;
        }
        Err(QueueError::ChainTooLong)
    }

    fn descriptor(&self, table: Gpa, index: u16) -> Result<Descriptor, QueueError> {
        let mut raw = [0; DESC_SIZE as usize];
        self.memory.read(Gpa(table.0 + DESC_SIZE * u64::from(index)), &mut raw)?;
        let raw = u128::from_le_bytes(raw);
        Ok(Descriptor {
            at: Gpa(raw as u64),
            len: (raw >> 64) as u32,
            flags: (raw >> 96) as u16,
            next: (raw >> 112) as u16,
        })
    }
}

/// An entry of the descriptor table (section 2.7.5).
#[derive(Debug, Clone, Copy)]
struct Descriptor {
    at: Gpa,
    len: u32,
    flags: u16,
    next: u16,
}

#[cfg(test)]
#[path = "queue_test.rs"]
mod tests;
