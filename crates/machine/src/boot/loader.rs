//! What all boot protocols do: put kernel, command line, RAM disk and tables into memory.

use riad_memory::Gpa;
use zerocopy::IntoBytes;

use super::place::Placer;
use super::{BootError, BootMachine, Entry, Module};

/// Writes into a machine's memory, and knows what it has written where.
#[derive(Debug)]
pub(super) struct Loader<'m> {
    machine: &'m BootMachine<'m>,
    placer: Placer,
}

/// An initial RAM disk in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Initrd {
    /// First address, page-aligned.
    pub(super) start: Gpa,
    /// Bytes; not 0.
    pub(super) len: u64,
}

impl<'m> Loader<'m> {
    pub(super) fn new(machine: &'m BootMachine<'m>) -> Self {
        let e820 = machine.e820;
        Self { machine, placer: Placer::new(e820, machine.memory.size()) }
    }

    /// Writes a part of the kernel, and takes `memsz` bytes for it.
    pub(super) fn reserve(&mut self, at: u64, data: &[u8], memsz: u64) -> Result<(), BootError> {
        self.placer.claim("the kernel", at, memsz.max(data.len() as u64))?;
        self.machine.memory.write(Gpa(at), data)?;
        Ok(())
    }

    /// Writes a part of the kernel: `data`, then zeros up to `memsz` bytes.
    pub(super) fn kernel(&mut self, at: u64, data: &[u8], memsz: u64) -> Result<(), BootError> {
        let len = data.len() as u64;
        self.reserve(at, data, memsz)?;
        // Now all of it is known to be RAM: neither the sum nor the cast can wrap.
        if memsz > len {
            self.machine.memory.fill(Gpa(at + len), (memsz - len) as usize, 0)?;
        }
        Ok(())
    }

    /// Writes a small table.
    pub(super) fn table(&mut self, bytes: &[u8]) -> Result<Gpa, BootError> {
        let at = self.placer.table("the kernel with its boot tables", bytes.len())?;
        self.machine.memory.write(at, bytes)?;
        Ok(at)
    }

    /// Writes [`Entry::GDT`].
    pub(super) fn gdt(&mut self) -> Result<Gpa, BootError> {
        self.table(Entry::GDT.map(u64::to_le).as_bytes())
    }

    /// Writes a command line of at most `max` bytes, and its NUL.
    pub(super) fn cmdline(&mut self, cmdline: &str, max: usize) -> Result<Gpa, BootError> {
        if cmdline.contains('\0') {
            return Err(BootError::CommandLineNul);
        }
        if cmdline.len() > max {
            return Err(BootError::CommandLineTooLong { len: cmdline.len(), max });
        }
        let mut bytes = cmdline.as_bytes().to_vec();
        bytes.push(0);
        self.table(&bytes)
    }

    /// Writes the modules one after the other, each on a 4-byte boundary and the whole ending by
    /// `end`. `None` when there is nothing to write.
    pub(super) fn initrd(
        &mut self,
        modules: &[Module<'_>],
        end: u64,
    ) -> Result<Option<Initrd>, BootError> {
        let padded = |module: &Module<'_>| (module.data.len() as u64).next_multiple_of(4);
        let len: u64 = modules.iter().map(padded).sum();
        if len == 0 {
            return Ok(None);
        }
        let start = self.placer.high("the kernel with its initial RAM disk", len, end)?;
        let mut at = start.0;
        for module in modules {
            let size = module.data.len() as u64;
            self.machine.memory.write(Gpa(at), module.data)?;
            self.machine
                .memory
                .write(Gpa(at + size), &[0; 3][..(padded(module) - size) as usize])?;
            at += padded(module);
        }
        // The length is told without the last padding: some unpackers dislike trailing zeros.
        let tail = modules.last().map_or(0, |m| padded(m) - m.data.len() as u64);
        Ok(Some(Initrd { start, len: len - tail }))
    }

    /// Writes one module on a page of its own, as low as possible from `from` on.
    pub(super) fn module(&mut self, data: &[u8], from: u64) -> Result<Gpa, BootError> {
        let len = (data.len() as u64).max(1);
        let at = self.placer.above("the kernel with its modules", len, from)?;
        self.machine.memory.write(at, data)?;
        Ok(at)
    }
}

/// An address for a 32-bit register or field.
pub(super) fn address_32(at: Gpa) -> Result<u32, BootError> {
    u32::try_from(at.0).map_err(|_| BootError::BadAddress { start: at, end: at })
}
