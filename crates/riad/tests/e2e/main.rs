//! End to end: a real Debian, built from its packages, booted, and made to work.
//!
//! Takes minutes, a Debian mirror and its keyring, so it runs when `RIAD_E2E=1` says so; without it
//! every test passes without looking. The image is kept between runs, in the directory that
//! `RIAD_E2E_CACHE` names or in cargo's target directory.

mod clients;
mod commands;
mod confined;
mod disks;
mod faults;
mod first_start;
mod full;
mod harness;
mod home;
mod images;
mod kvm;
mod lifetime;
mod machines;
mod network;
mod networks;
mod state;
mod streams;
mod terminal;
mod world;
