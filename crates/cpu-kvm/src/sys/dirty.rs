//! Pages that the guest wrote through KVM, for the page table (KVM API 4.8).
//!
//! Logging costs a fault a page, so it begins with the first question. What was written before is not
//! known then, and every page that is in use counts.

use riad_cpu::Error;
use riad_memory::{GuestMemory, PAGE_SIZE};

use super::engine::Shared;

/// Reports a page to the table of page states.
fn note(memory: &GuestMemory, offset: u64) {
    memory.pages().note_write((offset / PAGE_SIZE) as usize);
}

impl Shared {
    /// Puts what the guest wrote since the last call into the page table.
    pub(super) fn collect_dirty(&self) -> Result<(), Error> {
        let mut logging = self.logging();
        if !*logging {
            self.map_memory(true)?;
            *logging = true;
            return note_used(&self.memory);
        }
        let failed =
            |error| self.failed(0, format!("KVM does not tell which pages were written: {error}"));
        for (slot, region) in (0..).zip(self.memory.regions()) {
            let size = usize::try_from(region.len).unwrap_or(usize::MAX);
            let bits = self.vm.get_dirty_log(slot, size).map_err(failed)?;
            for (n, mut word) in (0u64..).zip(bits) {
                while word != 0 {
                    let page = n * 64 + u64::from(word.trailing_zeros());
                    word &= word - 1;
                    if page * PAGE_SIZE < region.len {
                        note(&self.memory, region.offset + page * PAGE_SIZE);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Reports every page of the memory file that is not a hole.
fn note_used(memory: &GuestMemory) -> Result<(), Error> {
    use rustix::fs::{SeekFrom, seek};
    let failed = |error: rustix::io::Errno| Error::Unavailable {
        engine: "kvm",
        reason: format!("the memory file does not tell which pages are in use: {error}"),
    };
    let mut offset = 0;
    while offset < memory.size() {
        let data = match seek(memory.file(), SeekFrom::Data(offset)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let end = seek(memory.file(), SeekFrom::Hole(data)).map_err(failed)?;
        let mut page = data - data % PAGE_SIZE;
        while page < end {
            note(memory, page);
            page += PAGE_SIZE;
        }
        offset = end;
    }
    Ok(())
}
