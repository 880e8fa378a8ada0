//! x86-64.

mod check;
pub mod lapic;
pub mod model;
pub mod msr;
pub mod state;

pub use lapic::{Lapic, LapicState};
pub use state::{
    Activity, ControlRegisters, DebugRegisters, DescriptorTable, Events, Exception, F80, Fpu, Msrs,
    Segment, Segments, VcpuState, cr0, cr4, efer, rflags,
};
