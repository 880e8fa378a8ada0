//! Guest memory: the RAM a machine has, and the file behind it.
//!
//! RAM is one memory file (wall 7), mapped shared, in one or more [`Region`]s of the
//! guest-physical address space. Everything that touches it goes through [`GuestMemory`]:
//!
//! * devices copy in and out ([`GuestMemory::read`], [`GuestMemory::write`] and the typed forms);
//!   an address outside RAM is an error, never a panic (wall 5);
//! * processors ask for the host address of a page once ([`GuestMemory::page`]) and keep it.
//!
//! Every page has a [`PageState`]: whether it was written since someone last asked (`dirty`, for
//! snapshots), and whether a software processor holds decoded code from it (`code`). A writer tells
//! the page state *after* it has written; a processor that decodes code marks the page *before* it
//! reads the bytes. So a stale decoding is always noticed: see [`PageTable::note_write`].

mod addr;
mod gather;
mod page;
mod ram;
mod sys;
mod transfer;

pub use addr::{Gpa, Gva, PAGE_SIZE};
pub use gather::Gatherer;
pub use page::{CodeWatch, PageState, PageTable};
pub use ram::{Error, GuestMemory, Page, Region};
pub use transfer::Wait;
