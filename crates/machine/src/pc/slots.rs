//! The virtio functions in their slots, of which some come and go while the guest runs.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use riad_devices::hotplug::Ejector;
use riad_devices::pci::PciBus;
use riad_devices::virtio::VirtioPci;
use riad_memory::GuestMemory;

use super::board::PcError;
use super::bus::lock;
use super::chipset::{Function, FunctionState};
use super::interrupts::Processors;

/// The virtio functions of a board.
pub(super) struct Slots {
    pci: Arc<PciBus>,
    processors: Arc<Processors>,
    memory: GuestMemory,
    inner: Mutex<Inner>,
    /// A function was ejected.
    ejected: Condvar,
}

struct Inner {
    /// In the order in which they came.
    functions: Vec<(u8, Arc<VirtioPci>)>,
    /// The board is, and what comes to it is held too.
    paused: bool,
}

impl Slots {
    /// Slots of a board that is paused, without functions.
    pub(super) fn new(pci: Arc<PciBus>, processors: Arc<Processors>, memory: GuestMemory) -> Self {
        let inner = Mutex::new(Inner { functions: Vec::new(), paused: true });
        Self { pci, processors, memory, inner, ejected: Condvar::new() }
    }

    /// Puts a function into its slot before the guest begins.
    pub(super) fn add(&self, function: Function) -> Result<(), PcError> {
        let Function { slot, device } = function;
        let msi = Arc::<Processors>::clone(&self.processors);
        let function = self.wired(VirtioPci::new(device, self.memory.clone(), msi)?);
        let mut inner = lock(&self.inner);
        self.pci.add_device(slot, Arc::<VirtioPci>::clone(&function))?;
        inner.functions.push((slot, function));
        Ok(())
    }

    /// Puts a saved function back into its slot.
    pub(super) fn add_restored(
        &self,
        function: Function,
        saved: &FunctionState,
    ) -> Result<(), PcError> {
        let Function { slot, device } = function;
        if slot != saved.slot {
            return Err(PcError::Slot { saved: saved.slot, given: slot });
        }
        let msi = Arc::<Processors>::clone(&self.processors);
        let function = VirtioPci::restore(device, self.memory.clone(), msi, &saved.function)?;
        let function = self.wired(function);
        let mut inner = lock(&self.inner);
        self.pci.add_restored(slot, Arc::<VirtioPci>::clone(&function))?;
        inner.functions.push((slot, function));
        Ok(())
    }

    /// Puts a function into its slot while the guest runs.
    pub(super) fn plug(&self, function: Function) -> Result<(), PcError> {
        let Function { slot, device } = function;
        let msi = Arc::<Processors>::clone(&self.processors);
        let function = self.wired(VirtioPci::new(device, self.memory.clone(), msi)?);
        let mut inner = lock(&self.inner);
        if inner.paused {
            function.pause();
        }
        self.pci.plug(slot, Arc::<VirtioPci>::clone(&function))?;
        inner.functions.push((slot, function));
        Ok(())
    }

    fn wired(&self, function: VirtioPci) -> Arc<VirtioPci> {
        Arc::new(function.with_doorbells(Arc::<Processors>::clone(&self.processors)))
    }

    /// Whether there is a function in a slot; if there is, after waiting for up to `limit` of host time
    /// for it to be ejected.
    pub(super) fn is_taken(&self, slot: u8, limit: Duration) -> bool {
        let has = |inner: &mut Inner| inner.functions.iter().any(|(at, _)| *at == slot);
        let waited = self.ejected.wait_timeout_while(lock(&self.inner), limit, has);
        let (mut inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        has(&mut inner)
    }

    /// Holds the functions' work.
    pub(super) fn pause(&self) {
        let inner = self.set_paused(true);
        inner.functions.iter().for_each(|(_, function)| function.pause());
    }

    /// Lets them go on.
    pub(super) fn resume(&self) {
        let inner = self.set_paused(false);
        inner.functions.iter().for_each(|(_, function)| function.resume());
    }

    fn set_paused(&self, paused: bool) -> MutexGuard<'_, Inner> {
        let mut inner = lock(&self.inner);
        inner.paused = paused;
        inner
    }

    /// The state of all functions, in their order.
    pub(super) fn save(&self) -> Vec<FunctionState> {
        let Self { pci: _, processors: _, memory: _, inner, ejected: _ } = self;
        let inner = lock(inner);
        let state = |(slot, function): &(u8, Arc<VirtioPci>)| FunctionState {
            slot: *slot,
            function: function.save(),
        };
        inner.functions.iter().map(state).collect()
    }
}

impl Ejector for Slots {
    fn eject(&self, slot: u8) {
        let mut inner = lock(&self.inner);
        let Some(at) = inner.functions.iter().position(|(taken, _)| *taken == slot) else { return };
        self.pci.remove(slot);
        inner.functions.remove(at);
        drop(inner);
        self.ejected.notify_all();
    }
}
