//! Machines: which devices a guest finds, at which addresses, and how its kernel is started.
//!
//! A *board* is an address map, buses, an interrupt wiring and the firmware tables that describe
//! them. There is one today, the [`pc`] for x86-64 guests. The board knows neither the engine that
//! runs its processors nor the host (walls 1 and 3): it is built from guest memory, a clock and the
//! devices' backends, and it gives its whole state up as one value (wall 4).
//!
//! * [`boot`] reads kernel images and puts them into guest memory the way a boot loader would:
//!   the PVH, Linux/x86 and Multiboot protocols. Everything it reads is hostile (wall 5).
//! * [`pc`] is the board: [`pc::map`] is the address map and the place to begin.

pub mod boot;
pub mod pc;
