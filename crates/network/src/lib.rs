//! The network behind a guest's network card, on the host's side.
//!
//! A card has a cable, and at its other end is a [`Link`]: a network that needs neither root nor a tap
//! device, in the VM's own process ([`user`]); a switch that leads to other machines ([`switch`]); a tap
//! device where the host lends one; or a test.
//! [`link`] says what passes between card and link, and who calls whom. Before any link can be put a
//! tap that writes down what goes by ([`capture`]) and a cable that misbehaves ([`faults`]).
//!
//! Its walls: a link is a backend that a virtio network device is given, as a disk is; it knows
//! neither devices nor engines; and what a guest sends is hostile (wall 5), so that each of its
//! parsers has a fuzz target.

pub mod capture;
pub mod faults;
pub mod header;
pub mod link;
pub mod pair;
pub mod switch;
mod sys;
pub mod tap;
pub mod user;

pub use link::{Accepts, Cable, Link, Mac, Offload};
pub use tap::{Tap, TapError};
