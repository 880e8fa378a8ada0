//! Every guest, for the engine of the module that this one lies in.

use super::Lender;

mod calls;
mod debug;
mod devices;
mod exceptions;
mod hot;
mod identity;
mod interrupts;
mod litmus;
mod locks;
pub(crate) mod machine;
mod modes;
mod paging;
mod segments;
mod self_modifying;
mod tables;
mod tlb;
mod v86;
