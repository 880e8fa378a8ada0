//! Bells that the kernel rings (`ioeventfd`): a write rings, and does not leave the guest.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use iced_x86::code_asm::*;
use riad_clock::SharedClock;
use riad_cpu::{Engine, Exit, Limit, VcpuConfig};
use riad_cpu_kvm::{KvmEngine, Model, capabilities};
use riad_memory::{Gpa, GuestMemory};
use rustix::event::{EventfdFlags, eventfd};

#[path = "../../cpu/guests"]
mod guests {
    #![expect(dead_code, reason = "other tests use the rest of the small guests' machine")]

    /// Who lends these guests their processors.
    pub(crate) struct Lender;

    impl Lender {
        const COUNTS: bool = false;

        fn tsc_khz() -> u32 {
            super::capabilities().map_or(1_000_000, |kvm| kvm.tsc_khz)
        }

        fn engine(
            memory: super::GuestMemory,
            clock: super::SharedClock,
            config: super::VcpuConfig,
            _: Option<usize>,
        ) -> super::Arc<dyn super::Engine> {
            let engine = super::KvmEngine::new(memory, clock, config, super::Model::Riad);
            super::Arc::new(engine.expect("KVM"))
        }

        fn add_vcpu(
            engine: &super::Arc<dyn super::Engine>,
            id: u32,
            bus: super::Arc<dyn riad_cpu::Bus>,
        ) -> Box<dyn riad_cpu::Vcpu> {
            engine.add_vcpu(id, bus).expect("a processor")
        }
    }

    pub(crate) mod machine;
    pub(crate) mod tables;
}

use guests::machine::{CODE, Guest};
use guests::tables::{P, RW};

/// Where a device's memory is.
const DEVICE: u64 = 0x1000_0000;

fn has_kvm() -> bool {
    capabilities()
        .inspect_err(|error| {
            let _ = writeln!(std::io::stderr(), "Nothing rings here: {error}.");
        })
        .is_ok()
}

fn bell() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd")
}

/// How often it rang since the last call.
fn rang(bell: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    match rustix::io::read(bell, &mut count) {
        Ok(_) => u64::from_ne_bytes(count),
        Err(error) => {
            assert_eq!(error, rustix::io::Errno::AGAIN);
            0
        }
    }
}

/// Offsets of two queues' notification registers.
const FIRST: u64 = 0;
const SECOND: u64 = 4;

/// Runs a guest that writes 2 bytes to the first register, 4 to the second, 1 to the first, and 2 beside
/// both. Gives what of it came out of the guest, as offsets.
fn notify(guest: &mut Guest) -> Vec<u64> {
    guest.world.mmio.lock().expect("mmio").clear();
    guest.state.rip = CODE;
    guest.state.gpr[3] = DEVICE;
    guest.program(|a| {
        a.mov(word_ptr(rbx + FIRST), 0)?;
        a.mov(dword_ptr(rbx + SECOND), 1)?;
        a.mov(byte_ptr(rbx + FIRST), 0)?;
        a.mov(word_ptr(rbx + 8), 2)
    });
    guest.vcpu.set_state(&guest.state).expect("a state");
    assert_eq!(guest.vcpu.run(Limit::None).expect("an exit"), Exit::Stopped);
    guest.state = guest.vcpu.state().expect("the state");
    assert_eq!(guest.trap(), None, "{:x?}", guest.state);
    guest.world.mmio.lock().expect("mmio").iter().map(|(at, ..)| at - DEVICE).collect()
}

#[test]
fn a_write_rings_its_bell_and_does_not_leave_the_guest() {
    if !has_kvm() {
        return;
    }
    let mut guest = Guest::long();
    guest.tables.map(DEVICE, DEVICE | P | RW);
    let (first, second) = (bell(), bell());
    assert_eq!(notify(&mut guest), [FIRST, SECOND, FIRST, 8], "nobody rings yet");
    let hang = |at: u64, bell: &OwnedFd| guest.engine.hang_bell(Gpa(DEVICE + at), bell.as_fd());
    assert!(hang(FIRST, &first) && hang(SECOND, &second));
    assert!(!hang(FIRST, &second), "one bell at an address");
    // Where KVM emulates, a software processor may have its turn just then: its writes come here.
    let left = (0..20).map(|_| notify(&mut guest)).find(|left| {
        let came = |at: u64| left.iter().filter(|offset| **offset == at).count() as u64;
        let rings = (rang(&first), rang(&second));
        assert_eq!((rings.0 + came(FIRST), rings.1 + came(SECOND), came(8)), (2, 1, 1));
        rings == (2, 1)
    });
    assert_eq!(left, Some(vec![8]));
    // The kernel holds the bell: it rings whoever else has let go of it.
    let heard = first.try_clone().expect("a descriptor");
    drop(first);
    guest.engine.take_bell_down(Gpa(DEVICE + SECOND), second.as_fd());
    assert!(notify(&mut guest).contains(&SECOND));
    assert_eq!((rang(&heard), rang(&second)), (2, 0));
    guest.engine.take_bell_down(Gpa(DEVICE + FIRST), heard.as_fd());
    assert_eq!(notify(&mut guest), [FIRST, SECOND, FIRST, 8]);
    assert_eq!(rang(&heard), 0);
}
