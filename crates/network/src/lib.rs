//! The network behind a guest's network card, on the host's side.
//!
//! This floor is empty until the issue that builds it. What it is for: a network that needs neither
//! root nor a tap device, in the VM's own process, with names for machines, forwards, policy (which
//! addresses a guest may reach) and faults on demand (delay, loss).
//!
//! Its walls stand already: it is a backend that a virtio network device is given, as a disk is; it
//! knows neither devices nor engines; and what a guest sends is hostile (wall 5), so that each of
//! its parsers gets a fuzz target together with its first line.
//!
//! Guests have no network card in this release. The slot on the PCI bus is kept.
