//! Every guest, for the tier of the module that this one lies in.

use super::TIER;

mod calls;
mod debug;
mod exceptions;
mod hot;
mod identity;
mod interrupts;
mod litmus;
mod locks;
mod machine;
mod modes;
mod paging;
mod segments;
mod self_modifying;
mod state;
mod tables;
mod tlb;
mod v86;
