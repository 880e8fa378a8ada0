//! Socket device (virtio 1.3, section 5.10): streams between programs in the guest and on the host,
//! without a network.
//!
//! * [`packet`] describes headers;
//! * `connection` is one stream, its credit and its ends;
//! * `mux` is the worker, and moves packets;
//! * [`VsockHandle`] is what programs on the host use.
//!
//! A connection does not survive a save: the restored guest is sent a transport reset event and
//! connects again (section 5.10.6.7).

mod connection;
mod handle;
mod mux;
pub mod packet;

use std::sync::Arc;

use riad_confine::Kind;
use serde::{Deserialize, Serialize};

pub use handle::VsockHandle;

use super::worker::{Control, Worker};
use super::{ActivateError, Activation, DeviceState, DeviceType, VirtioDevice, read_image};
use handle::Shared;
use mux::Mux;

/// The host's context ID.
pub const HOST_CID: u64 = 2;
/// The first context ID a guest may have; what Riad's guests get.
pub const GUEST_CID: u64 = 3;
/// The most connections at a time.
pub const MAX_CONNECTIONS: usize = 1024;

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const EVENT: u16 = 2;
const QUEUE_SIZES: [u16; 3] = [256, 256, 16];
/// Feature: stream sockets (section 5.10.3).
const F_STREAM: u64 = 1 << 0;

/// The socket device.
pub struct Vsock {
    guest_cid: u64,
    shared: Arc<Shared>,
    /// The driver has connections of before the restore.
    transport_reset: bool,
    /// [`MAX_CONNECTIONS`], or less in tests.
    max_connections: usize,
    worker: Option<Worker<Mux>>,
}

impl std::fmt::Debug for Vsock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vsock")
            .field("guest_cid", &self.guest_cid)
            .field("transport_reset", &self.transport_reset)
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

/// Saved socket device. Connections and listeners are not part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockState {
    /// The guest's context ID.
    pub guest_cid: u64,
}

impl Vsock {
    /// A device for a guest with context ID `guest_cid`.
    #[must_use]
    pub fn new(guest_cid: u64) -> (Self, VsockHandle) {
        let shared = Arc::new(Shared::default());
        let handle = VsockHandle::new(Arc::clone(&shared));
        let device = Self {
            guest_cid,
            shared,
            transport_reset: false,
            max_connections: MAX_CONNECTIONS,
            worker: None,
        };
        (device, handle)
    }

    /// A device as saved; its first act is to tell the guest that connections are gone.
    #[must_use]
    pub fn restore(state: &VsockState) -> (Self, VsockHandle) {
        let VsockState { guest_cid } = *state;
        let (device, handle) = Self::new(guest_cid);
        (Self { transport_reset: true, ..device }, handle)
    }
}

impl VirtioDevice for Vsock {
    fn device_type(&self) -> DeviceType {
        DeviceType::Socket
    }

    fn features(&self) -> u64 {
        F_STREAM
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn config_len(&self) -> u32 {
        8
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_image(&self.guest_cid.to_le_bytes(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        // Only a driver that was restored along can have connections to lose.
        let transport_reset = std::mem::take(&mut self.transport_reset);
        let shared = Arc::clone(&self.shared);
        let limit = self.max_connections;
        let mux = Mux::new(self.guest_cid, &activation, shared, transport_reset, limit)?;
        let worker = Worker::spawn(Kind::Device, "virtio-vsock", mux, activation.paused)?;
        self.shared.set_control(Some(Arc::clone(worker.control())));
        self.worker = Some(worker);
        Ok(())
    }

    fn control(&self) -> Option<&Control> {
        self.worker.as_ref().map(Worker::control).map(Arc::as_ref)
    }

    fn reset(&mut self) {
        self.shared.set_control(None);
        self.worker = None;
        self.transport_reset = false;
    }

    fn save(&self) -> DeviceState {
        let Self { guest_cid, shared: _, transport_reset: _, max_connections: _, worker: _ } = self;
        DeviceState::Vsock(VsockState { guest_cid: *guest_cid })
    }
}

#[cfg(test)]
#[path = "vsock_test.rs"]
mod tests;
