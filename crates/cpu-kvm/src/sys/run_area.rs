//! The memory that a processor shares with the kernel (KVM API 5), as exits.
#![expect(
    unsafe_code,
    reason = "the kernel's structure is a union, told apart by the exit's number"
)]

use kvm_bindings::{
    KVM_EXIT_FAIL_ENTRY, KVM_EXIT_HLT, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_IO, KVM_EXIT_IO_IN,
    KVM_EXIT_IOAPIC_EOI, KVM_EXIT_IRQ_WINDOW_OPEN, KVM_EXIT_MMIO, KVM_EXIT_SHUTDOWN,
};
use kvm_ioctls::VcpuFd;
use riad_cpu::Bus;
use riad_memory::Gpa;

/// Why `KVM_RUN` returned, with the bus already asked where that is all there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    PortIn,
    PortOut,
    MmioRead,
    MmioWrite,
    EndOfInterrupt(u8),
    InterruptWindow,
    Halt,
    Shutdown,
    /// The kernel gave up on an instruction: the suberror's number.
    Internal(u32),
    /// The processor did not take the state it was given: the hardware's reason.
    FailEntry(u64),
    Unknown(u32),
}

/// Serves the exit that the last `KVM_RUN` returned with.
pub(super) fn serve(fd: &mut VcpuFd, bus: &dyn Bus) -> Came {
    let run = fd.get_kvm_run();
    let base = std::ptr::from_mut(run).cast::<u8>();
    match run.exit_reason {
        KVM_EXIT_IO => {
            // SAFETY: the exit's number says that this is the member in use.
            let io = unsafe { run.__bindgen_anon_1.io };
            let size = usize::from(io.size.max(1));
            let len = size * io.count as usize;
            // SAFETY: the kernel put `count` items of `size` bytes at this offset of the area that it
            // shares, which is mapped as long as the descriptor is; nobody else touches it until the
            // next KVM_RUN.
            let data =
                unsafe { std::slice::from_raw_parts_mut(base.add(io.data_offset as usize), len) };
            // String instructions are one exit of many items.
            if u32::from(io.direction) == KVM_EXIT_IO_IN {
                data.chunks_exact_mut(size).for_each(|item| bus.port_read(io.port, item));
                Came::PortIn
            } else {
                data.chunks_exact(size).for_each(|item| bus.port_write(io.port, item));
                Came::PortOut
            }
        }
        KVM_EXIT_MMIO => {
            // SAFETY: as above.
            let mmio = unsafe { &mut run.__bindgen_anon_1.mmio };
            let len = (mmio.len as usize).min(mmio.data.len());
            if mmio.is_write != 0 {
                bus.mmio_write(Gpa(mmio.phys_addr), &mmio.data[..len]);
                Came::MmioWrite
            } else {
                bus.mmio_read(Gpa(mmio.phys_addr), &mut mmio.data[..len]);
                Came::MmioRead
            }
        }
        // SAFETY: as above.
        KVM_EXIT_IOAPIC_EOI => Came::EndOfInterrupt(unsafe { run.__bindgen_anon_1.eoi.vector }),
        KVM_EXIT_IRQ_WINDOW_OPEN => Came::InterruptWindow,
        KVM_EXIT_HLT => Came::Halt,
        KVM_EXIT_SHUTDOWN => Came::Shutdown,
        KVM_EXIT_INTERNAL_ERROR => {
            // SAFETY: as above.
            Came::Internal(unsafe { run.__bindgen_anon_1.internal.suberror })
        }
        // SAFETY: as above.
        KVM_EXIT_FAIL_ENTRY => Came::FailEntry(unsafe {
            run.__bindgen_anon_1.fail_entry.hardware_entry_failure_reason
        }),
        other => Came::Unknown(other),
    }
}
