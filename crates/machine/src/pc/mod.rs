//! The PC board: what a stock x86-64 kernel expects to find, and nothing more.
//!
//! * [`map`]: which address and port belongs to whom;
//! * [`acpi`]: the tables that tell the guest (ACPI 6.5), of which `dsdt` is the part in AML;
//! * [`board`]: [`Pc`], the devices wired together, and all of their state as one value;
//! * [`hotplug`]: which PCI slots functions come to and go from, as the tables tell it, and `slots`, where
//!   they are;
//! * `chipset`: its devices, made anew or from a saved state ([`PcState`]);
//! * [`bus`]: which device answers at a port or an address;
//! * [`interrupts`]: where the devices' interrupt wires lead;
//! * [`power`]: how the guest's power events reach the monitor;
//! * [`timers`]: calling devices when their time has come.

pub mod acpi;
pub mod board;
pub mod bus;
mod chipset;
mod dsdt;
pub mod hotplug;
pub mod interrupts;
pub mod map;
pub mod power;
mod slots;
pub mod timers;

pub use board::{Pc, PcConfig, PcError, Unclaimed, bootstrap_state};
pub use chipset::{Function, FunctionState, PcParts, PcState};
pub use power::power_channel;
