//! Which kind of kernel a file is.

use std::borrow::Cow;
use std::fmt;

use super::pvh::Limits;
use super::{
    BootError, BootMachine, BootParams, BzImage, Compression, ElfImage, Entry, MultibootKernel,
    PvhKernel,
};

/// How a kernel will be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Through the entry point of its PVH note.
    Pvh,
    /// Through the 32-bit Linux boot protocol: it decompresses itself in the guest.
    Linux,
    /// Multiboot 1.
    Multiboot,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pvh => "PVH",
            Self::Linux => "Linux 32-bit",
            Self::Multiboot => "Multiboot",
        })
    }
}

/// A kernel, read, checked, decompressed and ready to be loaded.
#[derive(Debug, Clone)]
pub struct KernelImage<'a> {
    bytes: Cow<'a, [u8]>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Pvh(PvhKernel),
    Linux(BzImage),
    Multiboot(MultibootKernel),
}

impl<'a> KernelImage<'a> {
    /// Reads a kernel file of any kind, itself compressed or not.
    ///
    /// # Errors
    /// When it is none that can be booted, or is damaged.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BootError> {
        if let Some(image) = Self::parse_plain(Cow::Borrowed(bytes))? {
            return Ok(image);
        }
        let compression = Compression::detect(bytes).ok_or(BootError::Unknown)?;
        let unpacked = compression.unpack(bytes)?;
        Self::parse_plain(Cow::Owned(unpacked))?.ok_or(BootError::Unknown)
    }

    /// A kernel that is not compressed as a whole; `None` when it is of no known kind.
    fn parse_plain(bytes: Cow<'a, [u8]>) -> Result<Option<Self>, BootError> {
        if BzImage::detect(&bytes) {
            return Self::parse_bzimage(bytes).map(Some);
        }
        let header = MultibootKernel::detect(&bytes);
        if !ElfImage::detect(&bytes) {
            let Some(header) = header else { return Ok(None) };
            let kind = Kind::Multiboot(MultibootKernel::parse(&bytes, header)?);
            return Ok(Some(Self { bytes, kind }));
        }
        // An ELF file with both headers is started through Multiboot when it can be: so does QEMU.
        let multiboot = header.map(|header| MultibootKernel::parse(&bytes, header));
        if let Some(Ok(kernel)) = multiboot {
            return Ok(Some(Self { bytes, kind: Kind::Multiboot(kernel) }));
        }
        let elf = ElfImage::parse(&bytes)?;
        match (PvhKernel::new(elf, Limits::default()), multiboot) {
            (Some(pvh), _) => Ok(Some(Self { bytes, kind: Kind::Pvh(pvh) })),
            (None, Some(Err(error))) => Err(error),
            (None, _) => Err(BootError::Unsupported(
                "it is an ELF file with neither a PVH note nor a Multiboot header; a Linux \
                 vmlinux needs CONFIG_PVH=y",
            )),
        }
    }

    /// A Linux kernel: the ELF file inside when it has a PVH entry, else as it is.
    fn parse_bzimage(bytes: Cow<'a, [u8]>) -> Result<Self, BootError> {
        let image = BzImage::parse(&bytes)?;
        if let Some(vmlinux) = image.unpack(&bytes)?
            && ElfImage::detect(&vmlinux)
            && let Some(pvh) = PvhKernel::new(ElfImage::parse(&vmlinux)?, image.limits())
        {
            return Ok(Self { bytes: Cow::Owned(vmlinux), kind: Kind::Pvh(pvh) });
        }
        Ok(Self { bytes, kind: Kind::Linux(image) })
    }

    /// How it will be started.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match self.kind {
            Kind::Pvh(_) => Protocol::Pvh,
            Kind::Linux(_) => Protocol::Linux,
            Kind::Multiboot(_) => Protocol::Multiboot,
        }
    }

    /// Puts the kernel and everything it is started with into the machine's memory.
    ///
    /// # Errors
    /// When there is not room enough, or the command line is longer than the kernel takes.
    pub fn load(
        &self,
        machine: &BootMachine<'_>,
        params: &BootParams<'_>,
    ) -> Result<Entry, BootError> {
        match &self.kind {
            Kind::Pvh(kernel) => kernel.load(&self.bytes, machine, params),
            Kind::Linux(kernel) => kernel.load(&self.bytes, machine, params),
            Kind::Multiboot(kernel) => kernel.load(&self.bytes, machine, params),
        }
    }
}

#[cfg(test)]
#[path = "kernel_test.rs"]
mod tests;
