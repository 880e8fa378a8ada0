//! Boot loaders: from a kernel file to the first instruction.
//!
//! ```text
//! KernelImage::parse(bytes) ─► what it is: PVH ELF, Linux bzImage, Multiboot
//! KernelImage::load(memory, …) ─► kernel, modules, command line and tables in guest memory; Entry
//! ```
//!
//! The three protocols all begin in 32-bit protected mode with paging and interrupts off, so one
//! [`Entry`] says everything a board needs to start its first processor. A compressed Linux kernel
//! is decompressed here, on the host, and entered through its PVH note: the guest then does not
//! spend hundreds of millions of instructions on it.
//!
//! Kernel files are hostile input (wall 5): every offset and length is checked, decompressed sizes
//! are bounded by [`MAX_UNPACKED`], and the fuzz target is [`KernelImage::parse`].

mod bzimage;
mod elf;
mod kernel;
mod loader;
mod multiboot;
mod place;
mod pvh;
mod unpack;

#[cfg(test)]
#[path = "images_test.rs"]
mod images;

pub use bzimage::BzImage;
pub use elf::ElfImage;
pub use kernel::{KernelImage, Protocol};
pub use multiboot::{ModuleSpec, MultibootKernel};
pub use pvh::PvhKernel;
pub use unpack::{Compression, MAX_UNPACKED};

use riad_memory::{Gpa, GuestMemory};

use crate::pc::map::{E820Entry, MIB};

/// What can be wrong with a kernel or with what it is to be started with.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// None of the known formats.
    #[error(
        "this is not a kernel Riad can boot: it is neither a Linux bzImage, nor an ELF file with a \
         PVH note, nor a Multiboot kernel"
    )]
    Unknown,
    /// A 32-bit or 64-bit ELF file of another processor.
    #[error("this kernel is for another processor (ELF machine {0}): an x86 kernel is needed")]
    WrongMachine(u16),
    /// The file ends early, or its numbers contradict each other.
    #[error("the kernel file is damaged or incomplete: {0}")]
    Damaged(&'static str),
    /// The ELF structures cannot be read.
    #[error("the kernel's ELF structure is damaged: {0}")]
    Elf(#[from] ::elf::ParseError),
    /// Decompression failed.
    #[error("the kernel's {what} data cannot be decompressed: {source}")]
    Unpack {
        /// Name of the compression.
        what: Compression,
        /// The decompressor's words.
        source: std::io::Error,
    },
    /// Decompressed, the file is larger than Riad accepts.
    #[error("the kernel is larger than {max} MiB when decompressed, which Riad does not accept", max = MAX_UNPACKED as u64 / MIB)]
    TooLarge,
    /// A feature of the protocol that is not offered.
    #[error("the kernel cannot be booted: {0}")]
    Unsupported(&'static str),
    /// Kernel, modules and tables do not fit.
    #[error(
        "{what} needs memory up to {need} MiB, and the machine has {have} MiB: give it more with --memory"
    )]
    NoRoom {
        /// What did not fit.
        what: &'static str,
        /// MiB the machine would need at least.
        need: u64,
        /// MiB it has.
        have: u64,
    },
    /// The kernel asks for addresses that are never RAM on this board, or that overlap.
    #[error("the kernel wants to be at {start}..{end}, which is not free memory on this machine")]
    BadAddress {
        /// First address.
        start: Gpa,
        /// Address after the last.
        end: Gpa,
    },
    /// The command line is longer than the kernel takes.
    #[error(
        "the kernel command line has {len} bytes, and this kernel takes at most {max}: shorten --append"
    )]
    CommandLineTooLong {
        /// Its length, bytes.
        len: usize,
        /// The kernel's limit, bytes.
        max: usize,
    },
    /// The command line has a NUL in it.
    #[error("the kernel command line contains a NUL byte")]
    CommandLineNul,
    /// Guest memory refused.
    #[error(transparent)]
    Memory(#[from] riad_memory::Error),
}

/// A file handed to the kernel: its initial RAM disk, or a Multiboot module.
#[derive(Debug, Clone, Copy)]
pub struct Module<'a> {
    /// Name and arguments, which Multiboot kernels are given. Linux does not see it.
    pub args: &'a str,
    /// The file's bytes.
    pub data: &'a [u8],
}

/// What a kernel is started with.
#[derive(Debug, Clone, Copy, Default)]
pub struct BootParams<'a> {
    /// The kernel's file name: the first word of a Multiboot kernel's command line.
    pub kernel_name: &'a str,
    /// The command line.
    pub cmdline: &'a str,
    /// Modules. For Linux and other PVH kernels they are joined into one initial RAM disk, each on
    /// a 4-byte boundary, which is how Linux takes several cpio archives
    /// (Linux `Documentation/driver-api/early-userspace/buffer-format.rst`).
    pub modules: &'a [Module<'a>],
}

/// The machine a kernel is loaded into.
#[derive(Debug, Clone, Copy)]
pub struct BootMachine<'a> {
    /// Its RAM.
    pub memory: &'a GuestMemory,
    /// Its memory map, in address order.
    pub e820: &'a [E820Entry],
    /// Where the ACPI root pointer is, when there is one.
    pub rsdp: Option<Gpa>,
}

/// Registers at the kernel's first instruction.
///
/// The processor is in 32-bit protected mode: paging and interrupts off, A20 open, code and data
/// segments flat with base 0 and limit 4 GiB ([`Self::CODE_SELECTOR`], [`Self::DATA_SELECTOR`]),
/// all other general registers 0 (Linux `Documentation/arch/x86/boot.rst`, "32-bit boot protocol";
/// Multiboot 0.6.96, 3.2; Xen `docs/misc/pvh.pandoc`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Instruction pointer.
    pub eip: u32,
    /// EAX: the magic number of Multiboot.
    pub eax: u32,
    /// EBX: the information structure of PVH and Multiboot.
    pub ebx: u32,
    /// ESI: the zero page of Linux.
    pub esi: u32,
    /// Where the descriptor table that the selectors index was put.
    pub gdt: Gpa,
}

impl Entry {
    /// CS: `__BOOT_CS` of Linux.
    pub const CODE_SELECTOR: u16 = 0x10;
    /// DS, ES, SS, FS and GS: `__BOOT_DS` of Linux.
    pub const DATA_SELECTOR: u16 = 0x18;
    /// The descriptor table at [`Self::gdt`]: two null entries, flat 32-bit code (execute, read),
    /// flat 32-bit data (read, write), both marked accessed (Intel SDM 3A, 3.4.5).
    pub const GDT: [u64; 4] = [0, 0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
    /// The last valid byte of the descriptor table.
    pub const GDT_LIMIT: u16 = (size_of::<[u64; 4]>() - 1) as u16;
}
