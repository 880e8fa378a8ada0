//! What a process that runs a guest gives up before the guest runs, and what each of its threads
//! gives up besides: a guest that got hold of such a thread finds next to nothing to do with it.
//!
//! * [`Process::confine`] is called once, while the process has one thread. From then on nothing can
//!   be opened but what was named (Landlock), no system call made but those that some thread of the
//!   process needs (seccomp), and set-user-ID programs mean nothing (no new privileges).
//! * [`spawn`] is the one door by which threads of a machine come to be. Each has a [`Kind`], and
//!   once the process is confined its thread keeps the calls of that kind only. In a process that is
//!   not confined (tests, image builds) it is [`std::thread::Builder::spawn`] and nothing else.
//! * [`backtrace`] is how a panic in a confined thread tells where it was.
//! * [`Inherited`] is what whoever started the process left open in it, to be closed again.
//!
//! What is given up is as much as the host's kernel knows of it; [`Process::confine`] gives the names
//! of what it took. `docs/security.md` says what all of it is worth.
//!
//! Where to begin: `kind.rs`, which is the table of kinds, then `calls.rs`, what they are made of.
//!
//! # Walls
//!
//! * Nothing here knows what a machine is. A call that a thread needs is allowed by a line in the
//!   table, with the reason, and in no other way.
//! * A call is on a list because it was seen (strace(1)) or because the C library makes it somewhere
//!   down the road (a heap that grows, a panic that prints); not because it looks harmless.

mod calls;
mod files;
mod filter;
mod kind;
mod process;
mod sys;
mod thread;

pub use kind::Kind;
pub use process::{Inherited, Process};
pub use thread::{backtrace, spawn};
